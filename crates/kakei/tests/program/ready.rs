//! `ready = "probed"`: what a change brings has to pass before any of the change is there.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Answer, Closed, Room, Running, eventually, http};
use crate::http::{ask, backend, connect, document, read_message};

const JSON: &str = "Content-Type: application/json";
/// Checks that are quick, and patient with those that are down.
const PATIENT: &str = "health = { http = { path = \"/healthz\" }, interval = \"100ms\", timeout = \"80ms\", fall = 100 }\n\
                       ready = \"probed\"\nready_within = \"8s\"";

/// A backend that answers each request with this status, and counts the probes among them.
fn answering(status: u16) -> (SocketAddr, Arc<AtomicU64>) {
    let closed = Closed::new();
    (closed.address, answers(closed, status))
}

/// The same where nobody was listening before.
fn answers(at: Closed, status: u16) -> Arc<AtomicU64> {
    let listener = at.listen();
    let probes = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&probes);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let counter = Arc::clone(&counter);
            thread::spawn(move || {
                while let Some(asked) = read_message(&mut stream) {
                    counter.fetch_add(u64::from(asked.head.contains("/healthz")), Ordering::SeqCst);
                    let _ = stream.write_all(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").as_bytes());
                }
            });
        }
    });
    probes
}

/// A cluster `new` and a route to it, as one transaction.
fn batch(backends: &[SocketAddr], more: Value) -> String {
    let backends: Vec<String> = backends.iter().map(ToString::to_string).collect();
    let mut cluster = json!({
        "backends": backends, "ready": "probed", "ready_within": "8s",
        "health": {"http": {"path": "/healthz"}, "interval": "100ms", "timeout": "80ms", "fall": 100},
    });
    for (key, value) in more.as_object().unwrap() {
        cluster[key] = value.clone();
    }
    json!([
        {"change": "add", "kind": "cluster", "name": "new", "value": cluster},
        {"change": "add", "kind": "route", "name": "new",
         "value": {"listener": "front", "path": "/new", "cluster": "new"}},
    ])
    .to_string()
}

/// Ask for a change, and go on.
fn change(proxy: &Running, body: String) -> JoinHandle<Answer> {
    let socket = proxy.socket.clone();
    thread::spawn(move || http(&socket, "POST", "/v1/changes", &[JSON], &body))
}

/// Until a change waits.
fn until_it_waits(events: &mut UnixStream) -> String {
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while !seen.contains("event: preparing") {
        let length = events.read(&mut buffer).expect("a change waits");
        seen.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
    seen
}

fn events(proxy: &Running) -> UnixStream {
    let mut stream = UnixStream::connect(&proxy.socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: k\r\n\r\n").unwrap();
    let mut head = [0; 512];
    assert!(stream.read(&mut head).unwrap() > 0);
    stream
}

fn status(proxy: &Running, path: &str) -> String {
    let mut stream = connect(proxy.front());
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    ask(&mut stream, &request).0.split(' ').nth(1).unwrap().to_owned()
}

fn generation(proxy: &Running) -> u64 {
    proxy.json(&["status"])["generation"].as_u64().unwrap()
}

#[test]
fn a_route_is_there_once_its_cluster_is_and_others_go_on_meanwhile() {
    let room = Room::new("ready");
    let proxy = Running::start(&room, &document(&room, &[], ""));
    let closed = Closed::new();
    let at = closed.address;
    let plan = proxy.http("POST", "/v1/changes?dry_run=1", &[JSON], &batch(&[at], json!({}))).json();
    assert_eq!(plan["waits"], json!([format!("cluster new: waits for probes of {at}, 8s at most")]), "{plan}");
    let mut events = events(&proxy);
    let waiting = change(&proxy, batch(&[at], json!({})));
    let said = until_it_waits(&mut events);
    assert!(said.contains("cluster new: waits for probes of"), "{said}");
    // Without a route a request has the listener's own cluster, which has no backend.
    assert_eq!((generation(&proxy), status(&proxy, "/new").as_str()), (1, "503"));
    assert!(proxy.http("GET", "/v1/clusters", &[], "").json().as_array().unwrap().len() == 1, "nothing knows of it");
    proxy.done(&["cluster", "set", "c", "slow_start = \"3s\""]);
    assert_eq!(generation(&proxy), 2, "nobody waits for who waits");
    assert!(!waiting.is_finished());

    let asking = thread::spawn({
        let front = proxy.front();
        move || {
            let mut seen: Vec<String> = Vec::new();
            let until = Instant::now() + Duration::from_secs(10);
            while Instant::now() < until && seen.last().is_none_or(|last| last != "200") {
                let mut stream = connect(front);
                let (head, _) = ask(&mut stream, "GET /new HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                seen.push(head.split(' ').nth(1).unwrap().to_owned());
            }
            seen
        }
    });
    answers(closed, 200);
    let answer = waiting.join().unwrap();
    assert_eq!((answer.status, &answer.json()["generation"]), (200, &json!(3)), "{}", answer.body);
    assert_eq!(status(&proxy, "/new"), "200");
    let seen = asking.join().unwrap();
    let (last, before) = seen.split_last().unwrap();
    assert!(last == "200" && before.iter().all(|status| status == "503"), "never there and not ready: {seen:?}");
    let config = proxy.http("GET", "/v1/config", &[], "").json();
    assert_eq!(config["clusters"]["c"]["slow_start"], "3s", "what came between is not lost");
}

#[test]
fn what_does_not_pass_is_refused_and_was_never_there() {
    let room = Room::new("not-ready");
    let proxy = Running::start(&room, &document(&room, &[backend("a")], ""));
    let (closed, (sick, probes)) = (Closed::new(), answering(500));
    let dead = closed.address;
    let impatient = json!({"health": {"http": {"path": "/healthz"}, "interval": "50ms", "timeout": "40ms", "fall": 3}});
    let begun = Instant::now();
    let refused = change(&proxy, batch(&[dead, sick], impatient)).join().unwrap();
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert!(begun.elapsed() < Duration::from_secs(5), "the checks had said enough");
    let problem = refused.json();
    assert_eq!(problem["type"], "urn:kakei:problem:not-ready");
    let told: Vec<(&str, &str)> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["pointer"].as_str().unwrap(), error["message"].as_str().unwrap()))
        .collect();
    // The first verdict decides: the other one may not have one yet.
    let of = |at: usize| told.iter().find(|(pointer, _)| *pointer == format!("/clusters/new/backends/{at}"));
    let nobody = format!("cluster `new`: `backends`: `{dead}` is down: by `health.http` nobody can be reached there");
    let ill = format!("`{sick}` is down: by `health.http` it answered with status 500, and not as is expected");
    assert!(
        of(0).is_some_and(|(_, said)| *said == nobody) || of(1).is_some_and(|(_, said)| said.ends_with(&ill)),
        "{told:?}"
    );
    assert_eq!(generation(&proxy), 1);
    assert_eq!(status(&proxy, "/new"), "200", "the listener's own cluster has it");
    assert_eq!(proxy.json(&["history"]).as_array().unwrap().len(), 1);
    let after = probes.load(Ordering::SeqCst);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(probes.load(Ordering::SeqCst), after, "nobody is probed any more");
    // Nobody listens to the end of the time there is.
    let late = json!({"ready_within": "400ms"});
    let refused = change(&proxy, batch(&[dead], late)).join().unwrap();
    assert!(
        refused.body.contains("has not passed in time: by `health.http` nobody can be reached"),
        "{}",
        refused.body
    );
    let (dead, set) = (dead.to_string(), "ready_within = \"300ms\"");
    let said = proxy.ask(&[
        "cluster",
        "add",
        "d",
        &format!("backends = [\"{dead}\"]"),
        set,
        PATIENT.split('\n').next().unwrap(),
        "ready = \"probed\"",
    ]);
    assert_eq!(said.status.code(), Some(1));
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(
        said.starts_with("error: backends of this change are not ready, and nothing was changed: cluster d: "),
        "{said}"
    );
}

#[test]
fn a_backend_that_is_added_passes_first_and_as_many_as_are_asked_for() {
    let room = Room::new("ready-add");
    let (closed, (good, _)) = (Closed::new(), answering(200));
    let dead = closed.address;
    let proxy = Running::start(&room, &document(&room, &[good], PATIENT));
    proxy.done(&["cluster", "set", "c", "ready_within = \"400ms\""]);
    let refused = proxy.ask(&["backend", "add", "c", &dead.to_string()]);
    assert_eq!(refused.status.code(), Some(1), "one that runs is no excuse for one that comes");
    proxy.done(&["backend", "add", "c", &dead.to_string(), "--weight", "0"]);
    proxy.done(&["backend", "remove", "c", &dead.to_string()]);

    let (other, _) = answering(200);
    let both = format!("backends = [\"{good}\", \"{dead}\", \"{other}\"]");
    proxy.done(&["cluster", "set", "c", &both, "ready_min = 1"]);
    let state = |at: SocketAddr| {
        let rows = proxy.http("GET", "/v1/backends", &[], "").json();
        let row = rows.as_array().unwrap().iter().find(|row| row["address"] == at.to_string()).cloned();
        row.unwrap()["state"].as_str().unwrap().to_owned()
    };
    assert_eq!([good, dead, other].map(state), ["up", "down", "up"]);
    for _ in 0..12 {
        assert_eq!(status(&proxy, "/"), "200", "what has not passed takes nothing");
    }
    answers(closed, 200);
    eventually("it rises as any that was down", || (state(dead) == "up").then_some(()));
}

#[test]
fn a_whole_document_takes_nothing_back_that_came_while_it_waited() {
    let room = Room::new("ready-race");
    let proxy = Running::start(&room, &document(&room, &[backend("a")], ""));
    let closed = Closed::new();
    let at = closed.address;
    let next = room.write("next.toml", &document(&room, &[at], PATIENT));
    let mut events = events(&proxy);
    let applying = thread::spawn({
        let socket = proxy.socket.clone();
        move || crate::harness::kakei().arg("apply").arg(next).arg("-s").arg(socket).output().unwrap()
    });
    until_it_waits(&mut events);
    proxy.done(&["cluster", "add", "d", "backends = [\"127.0.0.1:1\"]"]);
    answers(closed, 200);
    let output = applying.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("generation 2 runs, the change was made against 1"), "{said}");
    assert_eq!(generation(&proxy), 2);
}

#[test]
fn who_goes_away_while_it_waits_leaves_nothing() {
    let room = Room::new("ready-gone");
    let audit = room.path("audit.log");
    let text = document(&room, &[backend("a")], "");
    let text = text.replacen("[admin]\n", &format!("[admin]\naudit_log = {audit:?}\n"), 1);
    let proxy = Running::start(&room, &text);
    let (sick, probes) = answering(500);
    let body = batch(&[sick], json!({}));
    let mut stream = UnixStream::connect(&proxy.socket).unwrap();
    let head = format!("POST /v1/changes HTTP/1.1\r\nHost: k\r\n{JSON}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    eventually("it is probed", || (probes.load(Ordering::SeqCst) > 2).then_some(()));
    drop(stream);
    eventually("it is given up", || {
        let before = probes.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(350));
        (probes.load(Ordering::SeqCst) == before).then_some(())
    });
    assert_eq!(generation(&proxy), 1);
    assert!(proxy.metrics().sum("kakei_changes_refused_total", "") == 1);
    let lines = std::fs::read_to_string(audit).unwrap();
    let abandoned: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(abandoned["outcome"], "abandoned", "{lines}");
    let why = "who asked has gone before the backends had passed; nothing was changed";
    assert_eq!(abandoned["reason"], why, "{lines}");
}

#[test]
fn host_names_have_addresses_first() {
    let room = Room::new("ready-names");
    let proxy = Running::start(&room, &document(&room, &[backend("a")], ""));
    let (at, _) = answering(200);
    let add = |name: &str, host: String| {
        let options =
            [format!("backends = [\"{host}\"]"), "ready = \"probed\"".into(), "ready_within = \"1500ms\"".into()];
        let mut arguments = vec!["cluster", "add", name];
        arguments.extend(options.iter().map(String::as_str));
        proxy.ask(&arguments)
    };
    let found = add("here", format!("localhost:{}", at.port()));
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let lost = add("nowhere", "nobody.invalid:80".into());
    assert_eq!(lost.status.code(), Some(1));
    let said = String::from_utf8(lost.stderr).unwrap();
    assert!(said.contains("cluster nowhere: `nobody.invalid:80` has no address: "), "{said}");
    let plain = proxy.ask(&["cluster", "add", "x", "backends = [\"127.0.0.1:1\"]", "ready = \"probed\""]);
    assert_eq!(plain.status.code(), Some(2), "there is nothing to wait for");
}

#[test]
fn a_start_waits_for_nobody_and_a_drain_neither() {
    let room = Room::new("ready-start");
    let (dead, later) = (Closed::new(), Closed::new());
    let words = format!("[clusters.dead]\nbackends = [\"{}\"]\n{PATIENT}\n[clusters.c]", dead.address);
    let text = document(&room, &[backend("a")], "").replace("[clusters.c]", &words);
    let proxy = Running::start(&room, &text);
    assert_eq!(status(&proxy, "/"), "200");
    let mut events = events(&proxy);
    let waiting = change(&proxy, batch(&[later.address], json!({})));
    until_it_waits(&mut events);
    let begun = Instant::now();
    proxy.signal("TERM");
    let refused = waiting.join().unwrap();
    assert_eq!((refused.status, &refused.json()["type"]), (503, &json!("urn:kakei:problem:draining")));
    assert!(proxy.end().0.success());
    assert!(begun.elapsed() < Duration::from_secs(5));
}
