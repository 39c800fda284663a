//! `kakei plan --traffic`: what a change would do to what came lately.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};

use serde_json::{Value, json};

use crate::harness::{Client, Echo, Room, Running, document as datagrams, eventually};
use crate::http::{ask, backend, connect, document};

/// Ask for a path with these fields.
fn get(front: SocketAddr, target: &str, host: &str, fields: &str) -> String {
    let mut stream = connect(front);
    ask(&mut stream, &format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n")).0
}

fn route(name: &str, rest: &str) -> String {
    format!("[routes.{name}]\nlistener = \"front\"\n{rest}\n")
}

#[test]
fn a_plan_says_what_it_would_do_to_the_requests_that_came() {
    let room = Room::new("planned");
    let at = backend("a");
    let before = route("shop", "path = \"/shop\"\ncluster = \"c\"\nheaders = { x-beta = \"1\" }")
        + &route("q", "path = \"/q\"\nquery = { page = \"2\" }\nrespond = { status = 204 }");
    let proxy = Running::start(&room, &document(&room, &[at], &before));
    let front = proxy.front();
    let secrets = "X-Beta: 1\r\nAuthorization: Bearer hunter2\r\nCookie: sid=hunter2\r\nX-Other: hunter2\r\n";
    for n in 0..6 {
        assert!(get(front, &format!("/shop/{n}?token=hunter2"), "shop.example.com", secrets).contains("200"));
    }
    get(front, "/q?page=2&password=hunter2", "a", "");
    get(front, "/else", "a", "X-Beta: 1\r\n");

    let same = room.write("same.toml", &document(&room, &[at], &before));
    let plan = proxy.json(&["plan", same.to_str().unwrap(), "--traffic"]);
    assert_eq!(plan["traffic"]["looked_at"], json!({"requests": 8, "connections": 0, "flows": 0}), "{plan}");
    assert_eq!((&plan["traffic"]["changed"]["requests"], &plan["traffic"]["differences"]), (&json!(0), &json!([])));

    let plan = proxy.json(&["plan", same.to_str().unwrap(), "--traffic=3"]);
    assert_eq!(plan["traffic"]["looked_at"]["requests"], 3, "{plan}");

    let after = route("shop", "path = \"/shop\"\ncluster = \"d\"\nheaders = { x-beta = \"1\" }")
        + &route("gone", "path = \"/else\"\nrespond = { status = 410 }")
        + &route("moved", "path = \"/q\"\nquery = { page = \"2\" }\nredirect = { status = 308, path = \"/p{rest}\" }")
        + &format!("[clusters.d]\nbackends = [\"{at}\"]\n");
    let next = room.write("next.toml", &document(&room, &[at], &after));
    let plan = proxy.json(&["plan", "--traffic=500", next.to_str().unwrap()]);
    let traffic = &plan["traffic"];
    assert_eq!(traffic["changed"], json!({"requests": 8, "connections": 0, "flows": 0}), "{plan}");
    let of = |to: &str| {
        let all = traffic["differences"].as_array().unwrap();
        all.iter().find(|one| one["to"]["to"] == *to).cloned().unwrap_or_else(|| panic!("{to}: {traffic}"))
    };
    let shop = of("cluster d");
    assert_eq!(
        (&shop["count"], &shop["from"]["to"], &shop["from"]["route"]),
        (&json!(6), &json!("cluster c"), &json!("shop"))
    );
    let examples: Vec<&str> = shop["examples"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    // Those of one moment come in any order.
    let is_one =
        |example: &&str| example.starts_with("GET shop.example.com/shop/") && example.contains(" of 127.0.0.1:");
    assert!(examples.len() == 3 && examples.iter().all(is_one), "{examples:?}");
    assert_eq!((&of("answer 410")["from"]["route"], &of("answer 410")["to"]["route"]), (&Value::Null, &json!("gone")));
    let moved = of("redirect 308");
    assert!(moved["examples"][0].as_str().unwrap().contains("/q?page=2 of 127.0.0.1"), "{moved}");
    assert!(moved["examples"][0].as_str().unwrap().contains("/p"), "{moved}");
    assert!(!plan.to_string().contains("hunter2"), "{plan}");
    let text = proxy.done(&["plan", "--traffic", next.to_str().unwrap()]);
    assert!(text.contains("6 × request: cluster c by route shop; would be: cluster d by route shop\n"), "{text}");

    // By another route to the same cluster is a change too.
    let renamed = room.write("renamed.toml", &document(&room, &[at], &before.replace("routes.shop", "routes.store")));
    let plan = proxy.json(&["plan", "--traffic", renamed.to_str().unwrap()]);
    assert_eq!(plan["traffic"]["changed"]["requests"], 6, "{plan}");
    assert_eq!(
        plan["traffic"]["differences"][0]["to"],
        json!({"listener": "front", "route": "store", "to": "cluster c"})
    );

    // What wasn't kept can't be told of, and that is said; also where a route asks for a secret.
    let asks = route("shop", "path = \"/shop\"\ncluster = \"c\"\nheaders = { x-new = \"1\", authorization = \"x\" }");
    let asks = room.write("asks.toml", &document(&room, &[at], &asks));
    let plan = proxy.json(&["plan", asks.to_str().unwrap(), "--traffic"]);
    assert_eq!(plan["traffic"]["unknown"], json!(["field authorization", "field x-new"]), "{plan}");
}

#[test]
fn nobody_keeps_what_is_not_to_be_kept() {
    let room = Room::new("planned-off");
    let at = backend("a");
    let before = route("shop", "path = \"/shop\"\ncluster = \"c\"");
    let proxy = Running::start(&room, &document(&room, &[at], &before));
    let front = proxy.front();
    let next = room.write("next.toml", &document(&room, &[at], ""));
    get(front, "/shop", "a", "");
    let plan = proxy.json(&["plan", "--traffic", next.to_str().unwrap()]);
    assert_eq!(plan["traffic"]["changed"]["requests"], 1, "{plan}");
    for wrong in ["/v1/config?traffic=5", "/v1/config?dry_run=1&traffic=0", "/v1/config?dry_run=1&traffic=10001"] {
        assert_eq!(proxy.http("PUT", wrong, &["Content-Type: application/json"], "{}").status, 400, "{wrong}");
    }
    let off =
        room.write("off.toml", &document(&room, &[at], &before).replace("count = 2\n", "count = 2\ntraffic = 0\n"));
    proxy.done(&["apply", off.to_str().unwrap()]);
    get(front, "/shop", "a", "");
    let plan = proxy.json(&["plan", next.to_str().unwrap(), "--traffic"]);
    assert_eq!(plan["traffic"]["looked_at"]["requests"], 0);
}

#[test]
fn a_plan_is_tried_on_connections_and_flows_too() {
    let room = Room::new("planned-streams");
    let echo = Echo::start("a");
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = format!(
        "[listeners.mail]\nprotocol = \"tcp\"\nbind = [\"127.0.0.1:0\"]\ncluster = \"t\"\n\
         [routes.imap]\nlistener = \"mail\"\nsni = [\"imap.test\"]\ncluster = \"t\"\n\
         [clusters.t]\nbackends = [\"{}\"]\n",
        held.local_addr().unwrap()
    );
    let text = datagrams(&room, &[&echo], &stream);
    let proxy = Running::start(&room, &text);
    for _ in 0..3 {
        assert!(Client::new(proxy.front()).ask("x").is_some());
    }
    let mail: SocketAddr = {
        let rows = proxy.http("GET", "/v1/listeners", &[], "").json();
        let row = rows.as_array().unwrap().iter().find(|row| row["name"] == "mail").cloned().unwrap();
        row["local"][0].as_str().unwrap().parse().unwrap()
    };
    let mut client = connect(mail);
    client.write_all(b"no hello").unwrap();
    let next = text.replace("[clusters.t]", "[routes.near]\nlistener = \"front\"\nsource = [\"127.0.0.0/8\"]\ncluster = \"u\"\n[clusters.u]\nbackends = [\"127.0.0.1:1\"]\n[clusters.t]")
        .replace("cluster = \"t\"\n[routes.imap]", "[routes.imap]");
    let next = room.write("next.toml", &next);
    let traffic = eventually("all of it is seen", || {
        let plan = proxy.json(&["plan", next.to_str().unwrap(), "--traffic"]);
        (plan["traffic"]["looked_at"]["connections"] == 1).then(|| plan["traffic"].clone())
    });
    assert_eq!(traffic["changed"], json!({"requests": 0, "connections": 1, "flows": 3}), "{traffic}");
    let told: Vec<(&str, &str, &str)> = traffic["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (one["what"].as_str().unwrap(), one["from"]["to"].as_str().unwrap(), one["to"]["to"].as_str().unwrap())
        })
        .collect();
    assert_eq!(told, [("flow", "cluster c", "cluster u"), ("connection", "cluster t", "no route: it is dropped")]);
    // A listener that goes is where nobody listens.
    let less = room.write("less.toml", &datagrams(&room, &[&echo], ""));
    let plan = proxy.json(&["plan", less.to_str().unwrap(), "--traffic"]);
    assert_eq!(
        plan["traffic"]["differences"][0]["to"],
        json!({"listener": null, "route": null, "to": "nobody listens"})
    );
}
