//! Which rows a listing has, and commands whose answer or whose change is one.

use std::net::SocketAddr;

use serde_json::Value;

use crate::harness::{Client, Echo, Room, Running, document};

/// Two clusters, two routes, and a listener of the second cluster.
fn scene(room: &Room, echoes: [&Echo; 2]) -> Running {
    let more = format!(
        "[clusters.d]\nbackends = [{{ name = \"b\", address = \"{}\" }}, {{ name = \"more\", address = \"127.0.0.1:1\", weight = 0 }}]\n\
         [clusters.none]\nbackends = []\n\
         [listeners.other]\nprotocol = \"udp\"\nbind = [\"127.0.0.2:0\"]\ncluster = \"d\"\n\
         [routes.one]\nlistener = \"front\"\nsource = [\"127.0.0.9/32\"]\ncluster = \"d\"\n\
         [routes.two]\nlistener = \"other\"\nsource = [\"127.0.0.9/32\"]\ncluster = \"c\"\n",
        echoes[1].address
    );
    Running::start(room, &document(room, &echoes[..1], &more))
}

/// The names of what is listed.
fn names(proxy: &Running, arguments: &[&str]) -> Vec<String> {
    let rows = proxy.json(&[&["get"], arguments].concat());
    rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

/// What is said of a command line that asks for what there is not, and the exit code.
fn refused(proxy: &Running, arguments: &[&str]) -> (i32, String) {
    let output = proxy.ask(arguments);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn rows_are_picked_by_what_they_have_and_by_nothing_else() {
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let room = Room::new("picked");
    let proxy = scene(&room, [&a, &b]);
    assert_eq!(names(&proxy, &["backends"]), ["a", "b", "more"]);
    assert_eq!(names(&proxy, &["backends", "--cluster", "d"]), ["b", "more"]);
    assert_eq!(names(&proxy, &["backends", "--cluster", "d", "--limit", "1"]), ["b"]);
    assert_eq!(names(&proxy, &["backends", "b", "--cluster", "d"]), ["b"]);
    assert_eq!(names(&proxy, &["routes", "--listener", "other"]), ["two"]);
    assert_eq!(names(&proxy, &["routes", "--cluster", "d"]), ["one"]);
    assert_eq!(names(&proxy, &["listeners", "--cluster", "d"]), ["other"]);
    assert_eq!(names(&proxy, &["clusters", "--limit", "2"]), ["c", "d"]);
    proxy.done(&["backend", "weight", "c", "a", "2"]);
    let newest = proxy.json(&["get", "generations", "--limit", "1"]);
    assert_eq!((newest.as_array().unwrap().len(), &newest[0]["generation"]), (1, &2.into()));
    for (arguments, said) in [
        (&["get", "clusters", "--client", "127.0.0.1"][..], "nothing to pick them by but a name"),
        (&["get", "backends", "--route", "one"], "--cluster"),
        (&["get", "routes", "--backend", "b"], "--listener, --cluster"),
        (&["get", "generations", "--listener", "front"], "nothing to pick them by"),
        (&["get", "config", "front"], "neither names nor a --limit"),
        (&["get", "config", "--limit", "1"], "neither names nor a --limit"),
        (&["get", "flows", "front"], "192.0.2.7:1000"),
    ] {
        let (code, text) = refused(&proxy, arguments);
        assert!(code == 2 && text.contains(said), "{arguments:?}: {code}, {text}");
    }
    let (code, text) = refused(&proxy, &["get", "backends", "a", "--cluster", "d"]);
    assert!(code == 1 && text.contains("\"a\""), "{text}");
}

#[test]
fn a_flow_is_found_by_its_client_however_many_others_there_are() {
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let room = Room::new("by-client");
    let proxy = scene(&room, [&a, &b]);
    let clients: Vec<Client> = (0..5).map(|_| Client::new(proxy.front())).collect();
    clients.iter().for_each(|client| assert_eq!(client.ask("x").as_deref(), Some("a")));
    assert_eq!(proxy.json(&["get", "flows", "--limit", "2"]).as_array().unwrap().len(), 2);
    for client in &clients {
        let own: SocketAddr = client.socket.local_addr().unwrap();
        let rows = proxy.json(&["get", "flows", &own.to_string()]);
        assert_eq!((rows.as_array().unwrap().len(), rows[0]["client"].as_str()), (1, Some(&*own.to_string())));
        let rows = proxy.json(&["get", "flows", &own.to_string(), "--limit", "1"]);
        assert_eq!(rows.as_array().unwrap().len(), 1, "the limit is for what was found");
    }
    let (code, _) = refused(&proxy, &["get", "flows", "127.0.0.1:1"]);
    assert_eq!(code, 1);
    let (code, _) = refused(&proxy, &["get", "flows", "127.0.0.1:1", "--client", "127.0.0.1"]);
    assert_eq!(code, 2);
}

#[test]
fn a_drain_that_is_waited_for_is_told_in_one_document() {
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let room = Room::new("one-document");
    let proxy = scene(&room, [&a, &b]);
    let told = proxy.json(&["drain", "cluster/d", "--wait=5s"]);
    assert_eq!((told["change"]["generation"].as_u64(), told["held"]["flows"].as_u64()), (Some(2), Some(0)), "{told}");
    let told = proxy.json(&["drain", "route/two", "--wait=5s"]);
    assert_eq!(told["change"]["generation"], 3, "{told}");
    let told = proxy.json(&["drain", "listener/other", "--wait=5s"]);
    assert_eq!((told["change"]["applied"].as_bool(), told["state"].as_str()), (Some(true), Some("gone")), "{told}");
    let told = proxy.json(&["drain", "backend/c/a", "--status", "--wait=5s"]);
    assert_eq!((&told["change"], told["state"].as_str()), (&Value::Null, Some("admitting")), "{told}");
    let told = proxy.json(&["drain", "cluster/none"]);
    assert_eq!((told["applied"].as_bool(), told["generation"].as_u64()), (Some(false), Some(4)), "{told}");
}

#[test]
fn what_follows_from_a_generation_is_not_done_to_another_one() {
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let room = Room::new("held-to");
    let proxy = scene(&room, [&a, &b]);
    for arguments in [
        &["drain", "cluster/d", "--if-generation", "7"][..],
        &["drain", "cluster/none", "--if-generation", "7"],
        &["drain", "backend/c/a", "--if-generation", "7"],
        &["backend", "weight", "c", "a", "2", "--if-generation", "7"],
        &["certificate", "remove", "x", "--if-generation", "7"],
    ] {
        let (code, text) = refused(&proxy, arguments);
        assert!(code == 1 && text.contains('7'), "{arguments:?}: {code}, {text}");
    }
    let (code, text) = refused(&proxy, &["backend", "drain", "c", "a", "--status", "-m", "why"]);
    assert!(code == 2 && text.contains("--status changes nothing"), "{text}");
    assert_eq!(proxy.json(&["status"])["generation"], 1);
    proxy.done(&["drain", "cluster/d", "--if-generation", "1"]);
}

#[test]
fn what_is_asked_wrongly_is_told_in_one_way() {
    let room = Room::new("asked-wrongly");
    let echo = Echo::start("a");
    let proxy = Running::start(&room, &document(&room, &[&echo], ""));
    let json = "Content-Type: application/json";
    let weight = "{\"weight\":1}";
    let twice = r#"[{"change":"set","kind":"cluster","name":"c","value":{"balance":"least","balance":"random"}}]"#;
    for (method, path, body, part) in [
        ("DELETE", "/v1/clusters/%ff/backends/a", "", "Invalid UTF-8"),
        ("PATCH", "/v1/clusters/%ff/backends/a", weight, "Invalid UTF-8"),
        ("POST", "/v1/clusters/%ff/backends", "\"127.0.0.1:1\"", "Invalid UTF-8"),
        ("PATCH", "/v1/clusters/c/backends/a", "[5]", "expected an object"),
        ("POST", "/v1/rollback", "[1]", "expected an object"),
        ("POST", "/v1/changes", "[[\"weigh_backend\",\"c\",\"a\",9]]", "expected an object"),
        ("POST", "/v1/changes", twice, "the key \\\"balance\\\" stands twice in one object"),
    ] {
        let answer = proxy.http(method, path, &[json], body);
        assert!((400..500).contains(&answer.status), "{method} {path}: {}", answer.head);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{method} {path}");
        assert!(answer.body.contains(part), "{method} {path}: {}", answer.body);
    }
    assert_eq!(proxy.json(&["status"])["generation"], 1);

    // What is public takes what machines add to it; nothing else does.
    for (path, status) in [("/healthz?x=1", 200), ("/readyz?x", 200), ("/metrics?zz", 200), ("/v1/status?x", 400)] {
        assert_eq!(proxy.http("GET", path, &[], "").status, status, "{path}");
    }
    // A media type has no case.
    let runs = proxy.http("GET", "/v1/config", &[], "").body;
    assert_eq!(proxy.http("PUT", "/v1/config", &["Content-Type: Application/JSON"], &runs).status, 200);
}
