//! Live changes: through the API and the commands, whole or not at all, and without loss.

use std::net::UdpSocket;

use serde_json::{Value, json};

use crate::harness::{Client, Echo, Load, Room, Running, document, eventually, kakei};

const TOML: &str = "Content-Type: application/toml";

#[test]
fn backends_change_under_load_and_nothing_is_lost() {
    let room = Room::new("load");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let proxy = Running::start(&room, &document(&room, &[&a], "udp = { responses = 1 }\n"));
    let front = proxy.front();
    let load = Load::start(front, 3);
    let address = b.address.to_string();
    for _ in 0..4 {
        proxy.done(&["backend", "add", "c", &address, "--name", "b"]);
        let before = b.count();
        eventually("b gets its share", || (b.count() > before + 5).then_some(()));
        proxy.done(&["backend", "drain", "c", "b"]);
        proxy.done(&["backend", "weight", "c", "b", "3"]);
        proxy.done(&["backend", "remove", "c", "b"]);
    }
    let (sent, lost) = load.stop();
    assert_eq!(lost, 0, "of {sent}");
    assert!(sent > 20);
    let metrics = proxy.metrics();
    metrics.assert_identities();
    assert_eq!(metrics.sum("kakei_generation", "worker=\"1\""), 17);
    assert_eq!(proxy.json(&["history"]).as_array().unwrap().len(), 17);
}

#[test]
fn a_flow_keeps_its_backend_when_that_is_drained_or_removed() {
    let room = Room::new("keep");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let proxy = Running::start(&room, &document(&room, &[&a], ""));
    let old = Client::new(proxy.front());
    assert_eq!(old.ask("1").as_deref(), Some("a"));
    proxy.done(&["backend", "add", "c", &b.address.to_string(), "--name", "b"]);
    proxy.done(&["backend", "drain", "c", "a"]);
    assert_eq!(old.ask("2").as_deref(), Some("a"), "a live flow stays");
    assert_eq!(Client::new(proxy.front()).ask("3").as_deref(), Some("b"), "a new one goes elsewhere");
    proxy.done(&["backend", "remove", "c", "a"]);
    assert_eq!(old.ask("4").as_deref(), Some("a"), "a live flow stays");
    let rows = proxy.json(&["get", "backends"]);
    let states: Vec<(&str, &str)> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["name"].as_str().unwrap(), row["state"].as_str().unwrap()))
        .collect();
    assert_eq!(states, [("b", "up"), ("a", "removed")]);
}

#[test]
fn the_document_goes_round_with_its_generation() {
    let room = Room::new("round");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let proxy = Running::start(&room, &document(&room, &[&a], ""));
    let first = proxy.http("GET", "/v1/config", &[], "");
    assert_eq!((first.status, first.header("etag")), (200, Some("\"1\"")));
    assert_eq!(first.header("content-type"), Some("application/json"));
    let toml = proxy.http("GET", "/v1/config", &["Accept: application/toml"], "");
    let same = proxy.http("PUT", "/v1/config", &[TOML], &toml.body).json();
    assert_eq!(
        (&same["applied"], &same["generation"]),
        (&json!(false), &json!(1)),
        "the same document changes nothing"
    );

    let mut next = first.json();
    next["clusters"]["c"]["backends"] = json!([{"name": "b", "address": b.address.to_string()}]);
    let body = next.to_string();
    let plan = proxy.http("PUT", "/v1/config?dry_run=1", &["If-Match: \"1\""], &body).json();
    assert_eq!((&plan["applied"], plan["changes"].as_array().unwrap().is_empty()), (&json!(false), false));
    assert_eq!(Client::new(proxy.front()).ask("x").as_deref(), Some("a"), "a plan changes nothing");

    let stale = proxy.http("PUT", "/v1/config", &["If-Match: \"7\", W/\"1\""], &body);
    assert_eq!((stale.status, stale.header("content-type")), (412, Some("application/problem+json")));
    let done = proxy.http("PUT", "/v1/config", &["If-Match: \"7\", \"1\""], &body);
    assert_eq!((done.status, done.header("etag")), (200, Some("\"2\"")));
    assert_eq!(done.json()["changes"], plan["changes"]);
    assert_eq!(Client::new(proxy.front()).ask("x").as_deref(), Some("b"));
    let late = proxy.http("PUT", "/v1/config", &["If-Match: \"1\""], &body);
    assert_eq!((late.status, &late.json()["generation"]), (412, &json!(2)));
    let since = late.json()["since"].clone();
    let told = since[0].as_str().unwrap();
    assert!(told.starts_with("generation 2 by ") && told.contains("cluster c"), "{since}");
    let history = proxy.http("GET", "/v1/generations", &[], "").json();
    assert_eq!(history[1]["origin"], "api");
}

#[test]
fn bad_requests_are_problem_documents_and_change_nothing() {
    let room = Room::new("problems");
    let echo = Echo::start("a");
    let text = document(&room, &[&echo], "");
    let proxy = Running::start(&room, &text);
    let dangling = text.replace("cluster = \"c\"", "cluster = \"d\"").replace("127.0.0.1:0", "127.0.0.1:x");
    let invalid = proxy.http("PUT", "/v1/config", &[TOML], &dangling);
    assert_eq!(invalid.status, 422);
    let problem = invalid.json();
    assert_eq!((&problem["type"], &problem["status"]), (&json!("urn:kakei:problem:invalid-document"), &json!(422)));
    let pointers: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    assert!(
        pointers.contains(&"/listeners/front/bind/0") && pointers.contains(&"/listeners/front/cluster"),
        "{pointers:?}"
    );
    let cases = [
        ("GET", "/v1/nothing", &[][..], "", 404),
        ("DELETE", "/v1/config", &[], "", 405),
        ("PUT", "/v1/config", &["Content-Type: text/yaml"], "a: 1", 415),
        ("PUT", "/v1/config?dry_run=perhaps", &[TOML], &text, 400),
        ("PUT", "/v1/config", &["Content-Type: application/json"], "{", 422),
        ("GET", "/v1/flows?colour=red", &[], "", 400),
        ("GET", "/v1/flows?client=me", &[], "", 400),
        ("GET", "/v1/explain?local=127.0.0.1:1&client=1.2.3.4:5&protocol=icmp", &[], "", 400),
        ("DELETE", "/v1/clusters/x/backends/a", &[], "", 404),
        ("DELETE", "/v1/clusters/c/backends/x", &[], "", 404),
        ("POST", "/v1/clusters/c/backends", &["Content-Type: application/json"], "{\"address\": \"a\"}", 422),
        ("PATCH", "/v1/clusters/c/backends/a", &["Content-Type: application/json"], "{\"weight\": 9999}", 422),
        ("PUT", "/v1/config", &[TOML], &text.replace("count = 2", "count = 3"), 409),
        ("DELETE", "/v1/clusters/c/backends/a", &["If-Match: W/\"1\""], "", 400),
        ("DELETE", "/v1/clusters/c/backends/a", &["If-Match: \"x\", 1"], "", 400),
    ];
    for (method, path, headers, body, status) in cases {
        let answer = proxy.http(method, path, headers, body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{method} {path}");
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    }
    assert_eq!(proxy.http("GET", "/v1/config", &[], "").header("etag"), Some("\"1\""));
    assert!(Client::new(proxy.front()).ask("x").is_some());
}

#[test]
fn a_listener_that_cannot_be_bound_is_refused_with_everything_beside_it() {
    let room = Room::new("bind");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let proxy = Running::start(&room, &document(&room, &[&a], ""));
    // An address of its own: what other tests open meanwhile has other ones.
    let taken = UdpSocket::bind("127.0.0.77:0").unwrap();
    let address = taken.local_addr().unwrap();
    let more = format!(
        "[listeners.second]\nprotocol = \"udp\"\nbind = [\"{address}\"]\ncluster = \"c\"\ndrain_timeout = \"300ms\"\n"
    );
    let file = room.write("next.toml", &document(&room, &[&b], &more));
    let output = proxy.ask(&["apply", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&address.to_string()) && said.lines().count() == 1, "{said}");
    assert_eq!(Client::new(proxy.front()).ask("x").as_deref(), Some("a"), "what ran goes on");

    drop(taken);
    // A socket on the wildcard address may have got the port for a moment.
    let said = eventually("the address can be bound", || {
        let output = proxy.ask(&["apply", file.to_str().unwrap(), "--if-generation", "1"]);
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    });
    assert!(said.starts_with("generation 2 runs on every worker:\n"), "{said}");
    assert_eq!(Client::new(address).ask("x").as_deref(), Some("b"), "the new listener listens");
    proxy.done(&["apply", room.write("old.toml", &document(&room, &[&b], "")).to_str().unwrap()]);
    eventually("the address is free again", || UdpSocket::bind(address).ok());
    assert!(Client::new(proxy.front()).ask("x").is_some());
}

#[test]
fn what_ran_last_runs_again_from_the_state_directory() {
    let room = Room::new("state");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let state = room.path("state");
    let text = document(&room, &[&a], "").replace("[admin]\n", &format!("[admin]\nstate = {state:?}\n"));
    let proxy = Running::start(&room, &text);
    proxy.done(&["backend", "add", "c", &b.address.to_string(), "--name", "b"]);
    proxy.done(&["backend", "remove", "c", "a"]);
    let before = proxy.http("GET", "/v1/config", &[], "");
    proxy.kill();
    let mut command = kakei();
    command.arg("run").arg("--state").arg(&state);
    let proxy = Running::from(&room, command);
    assert!(proxy.ready.contains("generation 3"), "{}", proxy.ready);
    let after = proxy.http("GET", "/v1/config", &[], "");
    assert_eq!((after.header("etag"), after.json()), (Some("\"3\""), before.json()));
    assert_eq!(Client::new(proxy.front()).ask("x").as_deref(), Some("b"));
    assert_ne!(before.json(), Value::Null);
}
