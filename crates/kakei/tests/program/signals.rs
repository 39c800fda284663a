//! Signals: another document, the end, a rotated log.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::harness::{
    Answer, Client, Echo, Room, Running, SOON, answered, document, eventually, http, kakei, own_address,
};

#[test]
fn hangup_applies_the_file_and_a_bad_file_changes_nothing() {
    let room = Room::new("hangup");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let proxy = Running::start(&room, &document(&room, &[&a], ""));
    let front = proxy.front();
    let generation = || proxy.json(&["status"])["generation"].as_u64().unwrap();
    room.write("k.toml", "[listeners.front]\nprotocol = \"udq\"\n");
    proxy.signal("HUP");
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!((generation(), Client::new(front).ask("x").as_deref()), (1, Some("a")));
    let refused = |count| {
        let counted = || proxy.metrics().sum("kakei_changes_refused_total", "") == count;
        eventually("it is counted", || counted().then_some(()));
    };
    refused(1);
    std::fs::remove_file(room.path("k.toml")).unwrap();
    proxy.signal("HUP");
    refused(2);
    let mut events = UnixStream::connect(&proxy.socket).unwrap();
    events.write_all(b"GET /v1/events HTTP/1.1\r\nHost: k\r\nLast-Event-ID: 0\r\n\r\n").unwrap();
    let told = BufReader::new(events).lines().map_while(Result::ok).filter(|line| line.starts_with("data: "));
    let told: Vec<String> = told.take(2).collect();
    let parts = [("sighup", "k.toml: the document has "), ("sighup", "k.toml can't be read: ")];
    for (line, (asked, reason)) in told.iter().zip(parts) {
        assert!(line.contains("\"event\":\"refused\"") && line.contains(asked) && line.contains(reason), "{line}");
    }
    room.write("k.toml", &document(&room, &[&b], ""));
    proxy.signal("HUP");
    eventually("the good file runs", || (generation() == 2).then_some(()));
    assert_eq!(Client::new(front).ask("x").as_deref(), Some("b"));
    assert_eq!(proxy.json(&["history"])[1]["origin"], "sighup");
    proxy.signal("INT");
    let (status, _) = proxy.end();
    assert!(status.success());
}

#[test]
fn a_file_without_listeners_takes_none_away_by_a_signal() {
    let room = Room::new("emptied");
    let echo = Echo::start("a");
    let proxy = Running::start(&room, &document(&room, &[&echo], ""));
    let socket = room.path("k.sock");
    let file = room.write("k.toml", &format!("[admin]\nsocket = {socket:?}\n[workers]\ncount = 2\n"));
    proxy.signal("HUP");
    let refused = || proxy.metrics().sum("kakei_changes_refused_total", "") == 1;
    eventually("it is refused", || refused().then_some(()));
    assert!(Client::new(proxy.front()).ask("x").is_some());
    let planned = proxy.json(&["plan", file.to_str().unwrap()]);
    assert!(planned["warnings"].to_string().contains("no listener"), "{planned}");
    proxy.done(&["apply", file.to_str().unwrap()]);
    proxy.signal("TERM");
    let (_, stderr) = proxy.end();
    assert!(stderr.contains("`kakei apply` takes them away"), "{stderr}");
}

#[test]
fn a_bad_file_is_drawn_in_the_log() {
    let room = Room::new("drawn");
    let echo = Echo::start("a");
    let proxy = Running::start(&room, &document(&room, &[&echo], ""));
    room.write("k.toml", "[listeners.front]\nprotocol = \"udq\"\n");
    proxy.signal("HUP");
    std::thread::sleep(std::time::Duration::from_millis(200));
    proxy.signal("TERM");
    let (status, stderr) = proxy.end();
    assert!(status.success());
    assert!(
        stderr.contains("audit: sighup: refused, generation 1 runs: ") && stderr.contains("k.toml: the document has "),
        "{stderr}"
    );
    assert!(stderr.contains("was not applied") && stderr.contains("did you mean `udp`?"), "{stderr}");
}

#[test]
fn a_standard_error_that_nobody_reads_holds_nothing_up() {
    let room = Room::new("unread");
    let echo = Echo::start("a");
    let mut command = kakei();
    command.arg("run").arg("-c").arg(room.write("k.toml", &document(&room, &[&echo], "")));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
    // More than a pipe holds: each is logged twice.
    let path = format!("/v1/clusters/c/backends/a?message={}", "why".repeat(150));
    for weight in 1..=200 {
        let body = format!("{{\"weight\": {weight}}}");
        let answer = http(&room.path("k.sock"), "PATCH", &path, &["Content-Type: application/json"], &body);
        assert_eq!(answer.status, 200, "change {weight}: {}", answer.body);
    }
    assert!(Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap().success());
    let status = eventually("it ends all the same", || child.try_wait().unwrap());
    assert!(status.success());
}

#[test]
fn the_end_waits_for_live_flows_and_admits_no_new_one() {
    let room = Room::new("drain");
    let echo = Echo::start("a");
    let log = room.path("access.log");
    // One worker: of several, one without flows closes its sockets at once and counts no more.
    let more = format!("[access_log]\nto = {log:?}\nformat = \"text\"\n[workers]\ncount = 1\n");
    let text = document(&room, &[&echo], &more)
        .replace("[admin]\n", "[admin]\nmetrics = \"127.0.0.1:0\"\n")
        .replace("drain_timeout = \"2s\"", "drain_timeout = \"6s\"");
    let proxy = Running::start(&room, &text);
    let client = Client::new(proxy.front());
    assert!(client.ask("1").is_some());
    proxy.signal("TERM");
    let told = Instant::now();
    eventually("it is not ready any more", || {
        let answer = proxy.http("GET", "/readyz", &[], "");
        (answer.status == 503 && answer.body.contains("draining")).then_some(())
    });
    assert_eq!(proxy.http("GET", "/healthz", &[], "").status, 200);
    assert!(client.ask("2").is_some(), "a live flow lives on");
    assert!(Client::new(proxy.front()).hears_nothing("new"), "no new flow");
    let dropped = || proxy.metrics().sum("kakei_dropped_datagrams_total", "reason=\"draining\"");
    eventually("the new one is counted", || (dropped() == 1).then_some(()));
    assert_eq!(proxy.ask(&["backend", "drain", "c", "a"]).status.code(), Some(1), "no change either");
    let socket = proxy.socket.clone();
    let (status, stderr) = proxy.end();
    assert!(status.success(), "{stderr}");
    assert!(told.elapsed() < SOON * 2, "drain_timeout is 6 s");
    assert!(!socket.exists(), "the admin socket goes with the process");
    let log = std::fs::read_to_string(&log).unwrap();
    assert_eq!(log.lines().count(), 1);
    assert!(log.contains(" requests=2 ") && log.ends_with(" reason=drain by=operator\n"), "{log}");
}

#[test]
fn interrupted_twice_it_stops_at_once_and_writes_down_what_it_cut() {
    let room = Room::new("now");
    let echo = Echo::start("a");
    let log = room.path("access.log");
    let more = format!("[access_log]\nto = {log:?}\n");
    let text = document(&room, &[&echo], &more).replace("drain_timeout = \"2s\"", "drain_timeout = \"1h\"");
    let proxy = Running::start(&room, &text);
    let client = Client::new(proxy.front());
    assert!(client.ask("1").is_some());
    proxy.signal("INT");
    eventually("it drains", || (proxy.http("GET", "/readyz", &[], "").status == 503).then_some(()));
    assert!(client.ask("2").is_some());
    proxy.signal("INT");
    let told = Instant::now();
    let (status, _) = proxy.end();
    assert!(status.success() && told.elapsed() < SOON);
    let lines = std::fs::read_to_string(&log).unwrap();
    assert!(lines.lines().count() == 1 && lines.contains("\"reason\":\"drain\""), "{lines}");
}

#[test]
fn a_rotated_log_is_opened_again() {
    let room = Room::new("rotate");
    let echo = Echo::start("a");
    let (log, old) = (room.path("access.log"), room.path("access.log.1"));
    let more = format!("udp = {{ responses = 1 }}\n[access_log]\nto = {log:?}\n");
    let proxy = Running::start(&room, &document(&room, &[&echo], &more));
    let lines = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    assert!(Client::new(proxy.front()).ask("1").is_some());
    eventually("the first line", || (lines(&log) == 1).then_some(()));
    std::fs::rename(&log, &old).unwrap();
    proxy.signal("USR1");
    eventually("a new file", || log.exists().then_some(()));
    assert!(Client::new(proxy.front()).ask("2").is_some());
    eventually("the second line", || (lines(&log) == 1).then_some(()));
    assert_eq!(lines(&old), 1);
}

#[test]
fn the_metrics_address_shows_metrics_and_nothing_else() {
    let room = Room::new("metrics");
    let echo = Echo::start("a");
    let address = own_address(20_080);
    let text = document(&room, &[&echo], "").replace("[admin]\n", &format!("[admin]\nmetrics = \"{address}\"\n"));
    let proxy = Running::start(&room, &text);
    assert!(proxy.ready.contains(&format!("metrics on {address}")), "{}", proxy.ready);
    let get = |path: &str| -> Answer {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: k\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answered(&answer)
    };
    assert_eq!(get("/healthz").status, 200);
    assert_eq!((get("/readyz").status, get("/readyz").body.as_str()), (200, "generation 1 runs\n"));
    let metrics = get("/metrics");
    assert!(metrics.header("content-type").unwrap().starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(metrics.body.ends_with("# EOF\n"));
    assert_eq!(get("/v1/config").status, 404, "the document is not for everyone");
}

#[test]
fn a_file_that_may_grow_no_more_ends_nothing() {
    let room = Room::new("file-size");
    let echo = Echo::start("a");
    let audit = room.path("audit.log");
    let text = document(&room, &[&echo], "").replacen("[admin]\n", &format!("[admin]\naudit_log = {audit:?}\n"), 1);
    let file = room.write("k.toml", &text);
    let mut command = Command::new("sh");
    // In blocks of 512 or 1,024 bytes.
    command.args(["-c", "ulimit -f 16; exec \"$0\" \"$@\""]).arg(kakei().get_program());
    command.arg("run").arg("-c").arg(file);
    let proxy = Running::from(&room, command);
    // Each has a line that says so: together they are longer than the file may be.
    let lost = || proxy.metrics().sum("kakei_audit_log_lost_total", "") > 0;
    for _ in 0..200 {
        assert_eq!(proxy.ask(&["backend", "weight", "c", "nobody", "2"]).status.code(), Some(1));
        if lost() {
            break;
        }
    }
    assert!(lost(), "what can't be written is counted");
    assert!(std::fs::metadata(&audit).unwrap().len() <= 16 << 10);
    assert_eq!(Client::new(proxy.front()).ask("x").as_deref(), Some("a"));
    proxy.signal("INT");
    assert!(proxy.end().0.success());
}
