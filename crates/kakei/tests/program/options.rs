//! Options of the command line, each by what it does.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::{Client, Echo, Room, Running, document, eventually, kakei, own_address};

fn generation(proxy: &Running) -> Value {
    proxy.json(&["status"])["generation"].clone()
}

#[test]
fn what_serve_is_told_is_what_runs() {
    let room = Room::new("serve-options");
    let echo = Echo::start("a");
    let (log, metrics) = (room.path("access.log"), own_address(20_081).to_string());
    let mut command = kakei();
    command.args(["serve", "--from", "127.0.0.1:0", "--to", &echo.address.to_string(), "--requests", "3"]);
    command.args(["--one-way", "--timeout", "7", "--balance", "maglev", "--workers", "3"]);
    command.args(["--metrics", &metrics, "--access-log"]).arg(&log).arg("-s").arg(room.path("k.sock"));
    let proxy = Running::from(&room, command);
    let runs = proxy.json(&["get", "config"]);
    let of = &runs["clusters"]["backends"];
    assert_eq!(of["balance"], "maglev", "{runs}");
    let udp = &of["udp"];
    assert_eq!([&udp["requests"], &udp["responses"], &udp["expects_reply"]], [&json!(3), &json!(0), &json!(false)]);
    assert_eq!([&udp["front_timeout"], &udp["back_timeout"]], ["7s", "7s"], "{runs}");
    assert_eq!((&runs["workers"]["count"], &runs["listeners"]["front"]["drain_timeout"]), (&json!(3), &json!("7s")));
    let status = proxy.json(&["status"]);
    assert_eq!(status["workers"], 3, "{status}");
    // One-way: the third datagram is the flow's last.
    let client = Client::new(proxy.front());
    ["1", "2", "3"].iter().for_each(|text| client.send(text));
    let line =
        eventually("the flow's record", || std::fs::read_to_string(&log).ok().filter(|text| text.ends_with('\n')));
    assert!(line.contains("\"reason\":\"requests_reached\""), "{line}");
    let told = std::net::TcpStream::connect(&metrics).and_then(|mut stream| {
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        std::io::read_to_string(stream)
    });
    assert!(told.unwrap().contains("kakei_forwarded_datagrams_total{listener=\"front\"} 3"));
}

#[test]
fn a_flow_of_serve_ends_with_its_last_reply() {
    let room = Room::new("serve-responses");
    let (echo, log) = (Echo::start("a"), room.path("access.log"));
    let mut command = kakei();
    command.args(["serve", "--from", "127.0.0.1:0", "--to", &echo.address.to_string(), "--responses", "2"]);
    command.arg("--access-log").arg(&log).arg("-s").arg(room.path("k.sock"));
    let proxy = Running::from(&room, command);
    let client = Client::new(proxy.front());
    ["1", "2"].iter().for_each(|text| assert_eq!(client.ask(text).as_deref(), Some("a")));
    let line = eventually("the record", || std::fs::read_to_string(&log).ok().filter(|text| text.ends_with('\n')));
    assert!(line.contains("\"reason\":\"responses_reached\""), "{line}");
}

#[test]
fn a_document_may_come_by_standard_input_and_the_doors_by_options_or_the_environment() {
    let room = Room::new("run-options");
    let echo = Echo::start("a");
    let text = document(&room, &[&echo], "").replace("k.sock", "unused.sock");
    let mut command = kakei();
    command.args(["run", "-c", "-", "--state"]).arg(room.path("state"));
    command.env("KAKEI_SOCKET", room.path("k.sock")).stdin(room_file(&room, &text));
    let proxy = Running::from(&room, command);
    assert_eq!(Client::new(proxy.front()).ask("x").as_deref(), Some("a"));
    assert!(!room.path("unused.sock").exists(), "what is said beside the document goes before it");
    // The same variable tells commands where to ask.
    let asked = kakei().arg("status").env("KAKEI_SOCKET", room.path("k.sock")).output().unwrap();
    assert!(asked.status.success());
    proxy.done(&["backend", "weight", "c", "a", "5"]);
    proxy.kill();
    let mut command = kakei();
    command.arg("run").env("KAKEI_STATE", room.path("state")).arg("-s").arg(room.path("k.sock"));
    let proxy = Running::from(&room, command);
    assert_eq!(proxy.json(&["get", "backends"])[0]["weight"], 5, "what ran last runs again");
}

/// A file to read from.
fn room_file(room: &Room, text: &str) -> Stdio {
    std::fs::File::open(room.write("input.toml", text)).unwrap().into()
}

#[test]
fn a_backend_is_added_as_it_is_told() {
    let room = Room::new("backend-options");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let proxy = Running::start(&room, &document(&room, &[&a], ""));
    let at = b.address.to_string();
    proxy.done(&["backend", "add", "c", &at, "--name", "b", "--weight", "9", "--backup"]);
    let row = &proxy.json(&["get", "backends", "b"])[0];
    assert_eq!([&row["address"], &row["weight"], &row["backup"]], [&json!(at), &json!(9), &json!(true)], "{row}");
    for text in ["1", "2", "3", "4"] {
        assert_eq!(Client::new(proxy.front()).ask(text).as_deref(), Some("a"), "a backup waits");
    }
}

#[test]
fn nothing_is_changed_where_that_was_only_tried() {
    let room = Room::new("dry-run");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let proxy = Running::start(
        &room,
        &document(
            &room,
            &[&a, &b],
            "[listeners.other]\nprotocol = \"udp\"\nbind = [\"127.0.0.2:0\"]\ncluster = \"c\"\n",
        ),
    );
    proxy.done(&["backend", "weight", "c", "b", "2"]);
    let before = proxy.json(&["get", "config"]);
    for arguments in [
        &["backend", "add", "c", "127.0.0.1:1"][..],
        &["backend", "remove", "c", "a"],
        &["backend", "weight", "c", "a", "3"],
        &["backend", "drain", "c", "a"],
        &["drain", "backend/c/a"],
        &["drain", "cluster/c"],
        &["drain", "listener/other"],
        &["drain", "cluster/c", "--wait=1s"],
        &["listener", "set", "other", "drain_timeout = \"9s\""],
        &["listener", "remove", "other"],
        &["route", "add", "r", "listener = \"front\"", "source = [\"10.0.0.0/8\"]", "cluster = \"c\""],
        &["cluster", "add", "d", "backends = []"],
        &["cluster", "set", "c", "balance = \"hrw\""],
        &["rollback"],
    ] {
        let told = proxy.json(&[arguments, &["--dry-run"]].concat());
        assert_eq!(told["applied"], false, "{arguments:?}: {told}");
        assert!(!told["changes"].as_array().unwrap().is_empty(), "{arguments:?}: {told}");
    }
    assert_eq!((generation(&proxy), proxy.json(&["get", "config"])), (json!(2), before));
}

#[test]
fn as_many_holders_are_listed_as_were_asked_for() {
    let room = Room::new("drain-limit");
    let echo = Echo::start("a");
    let proxy = Running::start(&room, &document(&room, &[&echo], ""));
    let clients: Vec<Client> = (0..4).map(|_| Client::new(proxy.front())).collect();
    clients.iter().for_each(|client| assert_eq!(client.ask("x").as_deref(), Some("a")));
    for (limit, listed) in [("0", 0), ("3", 3), ("10", 4)] {
        let told = proxy.json(&["drain", "backend/c/a", "--status", "--limit", limit]);
        assert_eq!((&told["held"]["flows"], told["holders"].as_array().unwrap().len()), (&json!(4), listed), "{told}");
    }
    let text = proxy.done(&["drain", "backend/c/a", "--status", "--limit", "3"]);
    assert!(text.contains("and 1 more"), "{text}");
}

#[test]
fn a_connection_is_explained_by_the_protocol_that_it_offers() {
    let room = Room::new("explain-alpn");
    let echo = Echo::start("a");
    let more = "[listeners.mail]\nprotocol = \"tcp\"\nbind = [\"127.0.0.1:0\"]\ncluster = \"c\"\n\
                [clusters.imap]\nbackends = [\"127.0.0.1:1\"]\n\
                [routes.imap]\nlistener = \"mail\"\nalpn = [\"imap\"]\ncluster = \"imap\"\n";
    let proxy = Running::start(&room, &document(&room, &[&echo], more));
    let rows = proxy.json(&["get", "listeners", "mail"]);
    let at = format!("tcp:{}", rows[0]["local"][0].as_str().or(rows[0]["local"].as_str()).unwrap());
    let explained = |more: &[&str]| proxy.json(&[&["explain", &at, "--client", "127.0.0.1"], more].concat());
    assert_eq!(explained(&["--alpn", "imap"])["cluster"], "imap");
    assert_eq!(explained(&["--alpn", "pop3"])["cluster"], "c");
    assert_eq!(explained(&[])["cluster"], "c");
}
