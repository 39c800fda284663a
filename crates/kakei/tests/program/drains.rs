//! Who still holds what drains, until when, and what its deadline cuts.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Echo, Room, Running, SOON, document as datagrams, eventually};
use crate::http::{ask, connect, document, read_message};

fn report(proxy: &Running, of: &str) -> Value {
    proxy.json(&["drain", of, "--status"])
}

/// A backend that switches protocols when this returns, and echoes.
fn switches(when: impl Fn() + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let when = when.clone();
            thread::spawn(move || {
                let Some(_) = read_message(&mut stream) else { return };
                when();
                let _ = stream.write_all(b"HTTP/1.1 101 X\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n");
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    let _ = stream.write_all(&buffer[..length]);
                }
            });
        }
    });
    address
}

const SWITCH: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n";

/// Whether a stream ends by then.
fn ends_within(stream: &mut std::net::TcpStream, time: Duration) -> bool {
    stream.set_read_timeout(Some(time)).unwrap();
    match stream.read(&mut [0; 64]) {
        Ok(0) => true,
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        Ok(_) => false,
    }
}

#[test]
fn a_backend_that_drains_says_who_is_on_it_and_is_waited_for() {
    let room = Room::new("drain-backend");
    let at = switches(|| {});
    let proxy = Running::start(
        &room,
        &document(&room, &[at], "")
            .replace(&format!("[\"{at}\"]"), &format!("[{{ name = \"a\", address = \"{at}\" }}]")),
    );
    let mut client = connect(proxy.front());
    assert!(ask(&mut client, SWITCH).0.starts_with("HTTP/1.1 101"));
    proxy.done(&["drain", "backend/c/a", "-m", "a goes"]);
    let report = report(&proxy, "backend/c/a");
    assert_eq!(
        (&report["state"], &report["held"]),
        (&json!("draining"), &json!({"flows": 0, "connections": 1, "requests": 0}))
    );
    let holder = &report["holders"][0];
    assert_eq!(
        (&holder["client"], &holder["what"]),
        (&json!(client.local_addr().unwrap().to_string()), &json!("connection"))
    );
    assert_eq!((&holder["until"], &report["until"]), (&Value::Null, &Value::Null), "weight 0 ends nothing");
    assert!(holder["since"].as_str().unwrap().starts_with("20"), "{holder}");
    let same = proxy.done(&["backend", "drain", "c", "a", "--status"]);
    assert!(
        same.starts_with("backend a of c is draining: 0 flows, 1 connections and 0 requests live on it\n"),
        "{same}"
    );
    let late = proxy.ask(&["drain", "backend/c/a", "--status", "--wait=300ms"]);
    assert_eq!(late.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&late.stderr).contains("1 still hold it after 300ms"));
    drop(client);
    proxy.done(&["drain", "backend/c/a", "--status", "--wait"]);
    let cluster = proxy.json(&["drain", "cluster/c", "--status"]);
    assert_eq!(
        (&cluster["state"], &cluster["held"]["connections"]),
        (&json!("draining"), &json!(0)),
        "all of it has weight 0"
    );
    for (of, code) in [("backend/c/b", 1), ("route/no", 1), ("listener/", 2), ("backend/c", 2), ("certificate/x", 2)] {
        assert_eq!(proxy.ask(&["drain", of, "--status"]).status.code(), Some(code), "{of}");
    }
    assert_eq!(proxy.ask(&["drain", "backend/c/a", "--status", "--dry-run"]).status.code(), Some(2));
    assert_eq!(proxy.http("GET", "/v1/drains/backend/a", &[], "").status, 400);
    assert_eq!(proxy.http("GET", "/v1/drains/paint/a", &[], "").status, 400);
    let plan = proxy.done(&["drain", "cluster/c", "--dry-run"]);
    assert!(plan.starts_with("nothing to change"), "{plan}");
}

#[test]
fn a_listener_that_drains_ends_by_its_deadline_and_says_what_was_cut() {
    let room = Room::new("drain-listener");
    let (release, released) = mpsc::channel();
    let released = Arc::new(Mutex::new(released));
    let at = switches(move || {
        let _ = released.lock().unwrap().recv();
    });
    let more = "[listeners.other]\nprotocol = \"http\"\nbind = [\"127.0.0.2:0\"]\ncluster = \"c\"\n";
    // One worker: what several cut is told in one line only where they do it at about the same time.
    let text = document(&room, &[at], more).replace("\"2s\"", "\"5s\"").replace("count = 2", "count = 1");
    let proxy = Running::start(&room, &text);
    let (mut open, mut late) = (connect(proxy.front()), connect(proxy.front()));
    release.send(()).unwrap();
    assert!(ask(&mut open, SWITCH).0.starts_with("HTTP/1.1 101"));
    late.write_all(SWITCH.as_bytes()).unwrap();
    eventually("it is under way", || (report(&proxy, "listener/front")["held"]["requests"] == 1).then_some(()));
    let before = report(&proxy, "listener/front");
    assert_eq!((&before["state"], &before["until"]), (&json!("admitting"), &Value::Null));
    assert_eq!(before["policy"], json!(["removed: what lives on it may go on for 5s"]));
    let begun = Instant::now();
    proxy.done(&["drain", "listener/front"]);
    let during = report(&proxy, "listener/front");
    assert_eq!((&during["state"], during["holders"].as_array().unwrap().len()), (&json!("draining"), 2), "{during}");
    assert!(during["until"].is_string() && during["holders"][0]["ends_in_ms"].as_u64().unwrap() <= 5_000, "{during}");
    // The one becomes a connection of its own only now: its time is the listener's all the same.
    release.send(()).unwrap();
    assert!(read_message(&mut late).unwrap().head.starts_with("HTTP/1.1 101"));
    let both = eventually("both are connections", || {
        Some(report(&proxy, "listener/front")).filter(|report| report["held"]["requests"] == 0)
    });
    let ends = |n: usize| both["holders"][n]["ends_in_ms"].as_u64().unwrap();
    assert_eq!((&both["held"]["connections"], ends(0)), (&json!(2), ends(1)), "{both}");
    assert!(ends_within(&mut open, SOON) && ends_within(&mut late, SOON));
    let took = begun.elapsed();
    assert!((Duration::from_millis(4_800)..Duration::from_secs(5) + SOON / 2).contains(&took), "{took:?}");
    proxy.done(&["drain", "listener/front", "--status", "--wait=10s"]);
    let after = eventually("it is told", || {
        let answer = proxy.http("GET", "/v1/drains/listener/front", &[], "");
        (answer.status == 200).then(|| answer.json()).filter(|report| report["cut"]["connections"] == 2)
    });
    assert_eq!((&after["state"], &after["held"]["connections"]), (&json!("gone"), &json!(0)));
    let (status, log) = {
        proxy.signal("TERM");
        proxy.end()
    };
    assert!(status.success());
    assert!(log.contains("listener front: 0 flows, 2 connections and 0 requests were cut (drain)"), "{log}");
    let lines = std::fs::read_to_string(room.path("access.log")).unwrap();
    assert_eq!(lines.lines().filter(|line| line.contains("\"reason\":\"drain\"")).count(), 2, "{lines}");
}

#[test]
fn a_route_that_goes_is_held_by_those_that_came_by_it() {
    let room = Room::new("drain-route");
    let at = switches(|| {});
    let more =
        "[routes.ws]\nlistener = \"front\"\npath = \"/ws\"\ncluster = \"c\"\non_change = { drain = \"700ms\" }\n";
    let proxy = Running::start(&room, &document(&room, &[at], more));
    let mut client = connect(proxy.front());
    assert!(ask(&mut client, SWITCH).0.starts_with("HTTP/1.1 101"));
    let held = report(&proxy, "route/ws");
    assert_eq!((&held["state"], &held["held"]["connections"]), (&json!("admitting"), &json!(1)), "{held}");
    assert_eq!(proxy.json(&["get", "connections", "--route", "ws"]).as_array().unwrap().len(), 1);
    assert!(proxy.json(&["get", "connections", "--route", "none"]).as_array().unwrap().is_empty());
    let said = proxy.done(&["drain", "route/ws", "--wait=5s"]);
    assert!(said.starts_with("generation 2 runs on every worker:\n  route ws: removed"), "{said}");
    assert!(ends_within(&mut client, Duration::from_millis(500)));
    let cut = eventually("it is told", || {
        Some(report(&proxy, "route/ws")).filter(|report| report["cut"]["connections"] == 1)
    });
    assert_eq!(cut["state"], "gone");
}

#[test]
fn where_the_process_drains_everything_does() {
    let room = Room::new("drain-all");
    let at = switches(|| {});
    let proxy = Running::start(&room, &document(&room, &[at], ""));
    let mut client = connect(proxy.front());
    assert!(ask(&mut client, SWITCH).0.starts_with("HTTP/1.1 101"));
    assert_eq!(report(&proxy, "listener/front")["state"], "admitting");
    proxy.signal("TERM");
    eventually("the listener drains", || (report(&proxy, "listener/front")["state"] == "draining").then_some(()));
    assert_eq!(report(&proxy, "cluster/c")["state"], "draining");
}

#[test]
fn flows_end_with_the_time_of_their_listener_and_are_counted() {
    let room = Room::new("drain-flows");
    let echo = Echo::start("a");
    let more = "[listeners.more]\nprotocol = \"udp\"\nbind = [\"127.0.0.2:0\"]\ncluster = \"c\"\n";
    let proxy = Running::start(&room, &datagrams(&room, &[&echo], more).replace("\"2s\"", "\"5s\""));
    let client = Client::new(proxy.front());
    assert_eq!(client.ask("x").as_deref(), Some("a"));
    assert_eq!(report(&proxy, "listener/front")["held"]["flows"], 1);
    proxy.done(&["drain", "listener/front"]);
    let during = report(&proxy, "listener/front");
    assert!(during["holders"][0]["ends_in_ms"].as_u64().is_some_and(|ms| ms <= 5_000), "{during}");
    proxy.done(&["drain", "listener/front", "--status", "--wait=10s"]);
    eventually("it is told", || (report(&proxy, "listener/front")["cut"]["flows"] == 1).then_some(()));
}
