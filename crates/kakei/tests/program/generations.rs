//! Generations: the way back, changes that must be confirmed, batches, what a restart brings back.

use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::{Client, Echo, Room, Running, SOON, document, eventually, kakei};
use crate::tls::Authority;

const JSON: &str = "Content-Type: application/json";

/// A cluster whose backends are probed often, and have their time to answer.
const HEALTH: &str = "health = { udp = { send_hex = \"78\", expect = \"any\" }, interval = \"1s\", timeout = \"900ms\", rise = 1, fall = 1 }\n";

/// A document that keeps its generations in `room`.
fn kept(room: &Room, backends: &[&Echo], more: &str) -> String {
    let state = room.path("state");
    document(room, backends, more).replace("[admin]\n", &format!("[admin]\nstate = {state:?}\n"))
}

/// `kakei run` on what the state directory holds.
fn again(room: &Room) -> Running {
    let mut command = kakei();
    command.arg("run").arg("--state").arg(room.path("state"));
    Running::from(room, command)
}

fn generation(proxy: &Running) -> u64 {
    proxy.json(&["status"])["generation"].as_u64().unwrap()
}

/// Who answers a new flow.
fn answers(proxy: &Running) -> Option<String> {
    Client::new(proxy.front()).ask("x")
}

#[test]
fn every_generation_can_be_gone_back_to_and_says_who_and_why() {
    let room = Room::new("back");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let proxy = Running::start(&room, &document(&room, &[&a], ""));
    let refused = proxy.ask(&["rollback"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("nothing ran before generation 1"));
    proxy.done(&["backend", "add", "c", &b.address.to_string(), "--name", "b", "-m", "more room"]);
    proxy.done(&["backend", "remove", "c", "a", "--message", "a is \"old\" & slow"]);
    assert_eq!(answers(&proxy).as_deref(), Some("b"));
    let diff = proxy.done(&["diff", "1"]);
    assert!(diff.contains("backend a removed") && diff.contains("backend b added"), "{diff}");
    assert_eq!(proxy.done(&["diff", "2", "2"]), "generations 2 and 2 are the same\n");

    let said = proxy.done(&["rollback", "-m", "a is needed"]);
    assert!(said.starts_with("generation 4 runs on every worker:\n"), "{said}");
    assert_eq!(proxy.done(&["diff", "2", "4"]), "generations 2 and 4 are the same\n");
    proxy.done(&["rollback", "1"]);
    assert_eq!(answers(&proxy).as_deref(), Some("a"));
    let same = proxy.done(&["rollback", "1"]);
    assert!(same.starts_with("nothing to change: generation 5 runs"), "{same}");
    let unknown = proxy.ask(&["rollback", "77"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("generation 77 is not kept"));

    let history = proxy.json(&["history"]);
    let history = history.as_array().unwrap();
    let messages: Vec<&str> = history.iter().map(|row| row["message"].as_str().unwrap_or_default()).collect();
    assert_eq!(messages, ["", "more room", "a is \"old\" & slow", "a is needed", ""]);
    let by = history[1]["by"].as_str().unwrap();
    assert!(by.starts_with("uid ") && by.contains(", pid "), "{by}");
    let document = proxy.http("GET", "/v1/generations/1", &[], "");
    assert_eq!((document.status, document.header("etag")), (200, Some("\"1\"")));
    assert_eq!(document.json(), proxy.http("GET", "/v1/config", &[], "").json());
    assert_eq!(proxy.http("GET", "/v1/generations/x", &[], "").status, 400);
    assert_eq!(proxy.http("GET", "/v1/diff?from=1", &[], "").status, 400);
}

#[test]
fn what_is_not_confirmed_is_taken_back_and_what_is_stays() {
    let room = Room::new("confirm");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let proxy = Running::start(&room, &document(&room, &[&a], ""));
    let next = room.write("next.toml", &document(&room, &[&b], ""));
    let next = next.to_str().unwrap();
    let nothing = proxy.ask(&["confirm"]);
    assert_eq!(nothing.status.code(), Some(1));
    let said = proxy.done(&["apply", next, "--confirm-within", "5s"]);
    assert!(said.contains("unless `kakei confirm` comes"), "{said}");
    assert_eq!(answers(&proxy).as_deref(), Some("b"));
    let refused = proxy.ask(&["backend", "weight", "c", "b", "2"]);
    assert_eq!(refused.status.code(), Some(1), "nothing builds on what may go");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("generation 2 waits to be confirmed"));
    eventually("it is taken back", || (generation(&proxy) == 3).then_some(()));
    assert_eq!(answers(&proxy).as_deref(), Some("a"));
    let history = proxy.json(&["history"]);
    assert_eq!(history[2]["origin"], "rollback");
    assert!(history[2]["message"].as_str().unwrap().contains("was not confirmed within"), "{history}");

    let begun = Instant::now();
    proxy.done(&["apply", next, "--confirm-within", "5s"]);
    // What can be said of a change alone isn't taken for a confirmation.
    for path in ["/v1/confirm?dry_run=1", "/v1/generations/4/confirm?confirm_within=1h"] {
        assert_eq!(proxy.http("POST", path, &[], "").status, 400, "{path}");
    }
    let other = proxy.ask(&["confirm", "9"]);
    assert_eq!(other.status.code(), Some(1));
    assert_eq!(proxy.done(&["confirm", "4"]), "generation 4 stays\n");
    eventually("its time is over", || (begun.elapsed() > Duration::from_secs(6)).then_some(()));
    assert_eq!((generation(&proxy), answers(&proxy).as_deref()), (4, Some("b")));

    proxy.done(&["backend", "weight", "c", "b", "2", "--confirm-within", "1h"]);
    proxy.done(&["rollback"]);
    assert_eq!(generation(&proxy), 6, "going back needs no confirmation before");
    assert_eq!(proxy.ask(&["confirm"]).status.code(), Some(1), "nothing waits any more");
    for wrong in ["confirm_within=soon", "confirm_within=0s", "guard_errors=5", "confirm_within=1m&guard_errors=101"] {
        let answer = proxy.http("PATCH", &format!("/v1/clusters/c/backends/b?{wrong}"), &[JSON], "{\"weight\": 9}");
        assert_eq!(answer.status, 400, "{wrong}: {}", answer.body);
    }
}

#[test]
fn a_guard_takes_a_change_back_before_its_time() {
    let room = Room::new("guard");
    let good = Echo::start("a");
    let proxy = Running::start(&room, &document(&room, &[&good], HEALTH));
    // Nobody answers there.
    let dead = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let dead = dead.local_addr().unwrap();
    let terms = ["--confirm-within", "1h", "--guard-unhealthy", "40"];
    proxy.done(&[&["backend", "add", "c", &dead.to_string(), "--name", "dead"], &terms[..]].concat());
    eventually("it is taken back", || (generation(&proxy) == 3).then_some(()));
    let history = proxy.json(&["history"]);
    assert!(history[2]["message"].as_str().unwrap().contains("1 of 2 checked backends are down"), "{history}");
    assert_eq!(answers(&proxy).as_deref(), Some("a"));
}

#[test]
fn a_guard_counts_the_requests_that_fail() {
    let room = Room::new("guard-errors");
    let good = crate::http::backend("a");
    let proxy = Running::start(&room, &crate::http::document(&room, &[good], ""));
    let terms = ["--confirm-within", "1h", "--guard-errors", "50"];
    // Nobody listens there, and it is no port that others are given: one that was given back could be.
    let only = "backends = [\"127.0.0.1:1\"]";
    proxy.done(&[&["cluster", "set", "c", only], &terms[..]].concat());
    let status = || {
        let mut stream = crate::http::connect(proxy.front());
        crate::http::ask(&mut stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").0
    };
    assert!(status().starts_with("HTTP/1.1 502 "), "the change was made");
    // Nothing is said of fewer.
    for _ in 0..20 {
        status();
    }
    eventually("it is taken back", || (generation(&proxy) == 3).then_some(()));
    assert!(status().starts_with("HTTP/1.1 200 "));
    let history = proxy.json(&["history"]);
    assert!(history[2]["message"].as_str().unwrap().ends_with(" requests failed"), "{history}");
}

#[test]
fn what_was_taken_back_is_no_document_of_the_operators() {
    let room = Room::new("taken-back");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let text = document(&room, &[&a], "");
    let proxy = Running::start(&room, &text);
    proxy.done(&["backend", "add", "c", &b.address.to_string(), "--name", "b"]);
    proxy.done(&["backend", "weight", "c", "b", "2", "--confirm-within", "1s"]);
    eventually("it is taken back", || (generation(&proxy) == 4).then_some(()));
    let file = room.write("same.toml", &text);
    let plan = proxy.json(&["plan", file.to_str().unwrap()]);
    assert_eq!(plan["drift"], plan["changes"], "b was added beside the file: {plan}");
}

#[test]
fn a_torn_file_is_left_where_it_is_and_its_number_is_not_given_again() {
    let room = Room::new("torn");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let proxy = Running::start(&room, &kept(&room, &[&a], ""));
    proxy.done(&["backend", "add", "c", &b.address.to_string(), "--name", "b"]);
    proxy.done(&["backend", "remove", "c", "a"]);
    proxy.kill();
    let third = room.path("state/generations/00000000000000000003.json");
    let text = std::fs::read_to_string(&third).unwrap();
    std::fs::write(&third, &text[..text.len() / 2]).unwrap();
    let proxy = again(&room);
    assert!(proxy.ready.contains("generation 2"), "{}", proxy.ready);
    proxy.done(&["backend", "weight", "c", "b", "7"]);
    assert_eq!(generation(&proxy), 4);
    assert_eq!(std::fs::read_to_string(&third).unwrap(), text[..text.len() / 2]);
    proxy.done(&["rollback"]);
    assert_eq!(proxy.done(&["diff", "2", "5"]), "generations 2 and 5 are the same\n");
}

#[test]
fn a_batch_is_one_transaction_and_may_be_repeated() {
    let room = Room::new("batch");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let proxy = Running::start(&room, &document(&room, &[&a], ""));
    let batch = json!([
        {"change": "add", "kind": "cluster", "name": "d", "value": {"backends": [{"name": "b", "address": b.address}]}},
        {"change": "add", "kind": "listener", "name": "more",
         "value": {"protocol": "tcp", "bind": ["127.0.0.1:0"], "cluster": "d"}},
        {"change": "add", "kind": "route", "name": "near",
         "value": {"listener": "more", "source": ["127.0.0.0/8"], "cluster": "c"}},
        {"change": "set", "kind": "cluster", "name": "c", "value": {"slow_start": "3s"}},
        {"change": "add_backend", "cluster": "c", "backend": {"name": "b", "address": b.address, "weight": 3}},
        {"change": "weigh_backend", "cluster": "c", "backend": "a", "weight": 0},
    ])
    .to_string();
    let plan = proxy.http("POST", "/v1/changes?dry_run=1", &[JSON], &batch).json();
    assert_eq!((&plan["applied"], plan["changes"].as_array().map(Vec::len)), (&json!(false), Some(6)), "{plan}");
    let done = proxy.http("POST", "/v1/changes?message=all%20at%20once", &[JSON], &batch).json();
    assert_eq!((&done["generation"], &done["changes"]), (&json!(2), &plan["changes"]));
    let again = proxy.http("POST", "/v1/changes", &[JSON], &batch).json();
    assert_eq!((&again["generation"], &again["applied"]), (&json!(2), &json!(false)), "{again}");
    assert_eq!(answers(&proxy).as_deref(), Some("b"));

    let half = json!([
        {"change": "remove", "kind": "route", "name": "near"},
        {"change": "remove", "kind": "cluster", "name": "d"},
    ]);
    let refused = proxy.http("POST", "/v1/changes", &[JSON], &half.to_string());
    assert_eq!(refused.status, 422, "the listener needs the cluster: {}", refused.body);
    assert_eq!(refused.json()["errors"][0]["pointer"], "/listeners/more/cluster");
    let misspelt = json!([{"change": "put", "kind": "route", "name": "near", "value": {"listner": "more"}}]);
    let refused = proxy.http("POST", "/v1/changes", &[JSON], &misspelt.to_string());
    assert_eq!((refused.status, &refused.json()["errors"][0]["pointer"]), (422, &json!("/routes/near/listner")));
    for (body, status) in [
        (json!([]), 400),
        (json!([{"change": "remove", "kind": "route", "name": "no"}]), 404),
        (json!([{"change": "remove", "kind": "workers", "name": ""}]), 400),
        (json!([{"change": "add", "kind": "cluster", "name": "d", "value": {"backends": ["127.0.0.1:1"]}}]), 409),
        (json!([{"change": "paint", "kind": "route", "name": "near"}]), 422),
    ] {
        let answer = proxy.http("POST", "/v1/changes", &[JSON], &body.to_string());
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
    }
    assert_eq!(generation(&proxy), 2, "what was refused left no trace");
}

#[test]
fn objects_are_added_set_and_removed_by_commands() {
    let room = Room::new("verbs");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let proxy = Running::start(&room, &document(&room, &[&a], ""));
    let backends = format!("backends = [{{ name = \"b\", address = \"{}\" }}]", b.address);
    proxy.done(&["cluster", "add", "d", &backends, "balance = \"hrw\""]);
    proxy.done(&["listener", "set", "front", "cluster = \"d\"", "limits = { flows = 10 }"]);
    assert_eq!(answers(&proxy).as_deref(), Some("b"));
    let listener = |proxy: &Running| proxy.http("GET", "/v1/config", &[], "").json()["listeners"]["front"].clone();
    let set = listener(&proxy);
    assert_eq!((&set["limits"]["flows"], &set["drain_timeout"]), (&json!(10), &json!("2s")), "what isn't named stays");
    proxy.done(&["listener", "set", "front", "cluster = \"c\"", "--unset", "limits.flows"]);
    assert_ne!(listener(&proxy)["limits"]["flows"], json!(10));
    proxy.done(&["cluster", "remove", "d"]);
    let plan = proxy.done(&["cluster", "set", "c", "slow_start = \"9s\"", "--dry-run"]);
    assert!(plan.starts_with("would change generation 5:\n"), "{plan}");
    for (arguments, code) in [
        (&["cluster", "remove", "c"][..], 2),
        (&["cluster", "remove", "nothing"], 1),
        (&["listener", "set", "front"], 2),
        (&["listener", "set", "front", "cluster = "], 2),
        (&["listener", "set", "front", "colour = 1"], 2),
    ] {
        assert_eq!(proxy.ask(arguments).status.code(), Some(code), "{arguments:?}");
    }
    assert_eq!((generation(&proxy), answers(&proxy).as_deref()), (5, Some("a")));
}

#[test]
fn a_plan_says_what_lives_on_it_and_what_was_changed_beside_the_file() {
    let room = Room::new("plan-touches");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let text = kept(&room, &[&a], "udp = { on_backend_removed = \"close\" }\n");
    let mut proxy = Running::start(&room, &text);
    let holder = Client::new(proxy.front());
    assert!(holder.ask("x").is_some());
    let same = room.write("same.toml", &text);
    let (same, next) = (
        same.to_str().unwrap(),
        room.write("next.toml", &text.replace(&a.address.to_string(), &b.address.to_string())),
    );
    let plan = proxy.json(&["plan", next.to_str().unwrap()]);
    assert_eq!(plan["touches"], json!(["cluster c: backend a: 1 × flow live, each is closed"]), "{plan}");
    assert_eq!(plan["drift"], Value::Null);
    proxy.done(&["backend", "add", "c", &b.address.to_string(), "--name", "b"]);
    for _ in 0..2 {
        let plan = proxy.json(&["plan", same]);
        assert_eq!(plan["changes"].as_array().map(Vec::len), Some(1), "{plan}");
        assert_eq!(plan["drift"], plan["changes"], "the file would undo what was done beside it");
        // It is known after a restart too.
        proxy.kill();
        proxy = again(&room);
    }
    let said = proxy.done(&["apply", same]);
    assert!(said.contains("was changed at run time, and is lost:\n  cluster c: backend b removed"), "{said}");
    assert_eq!(proxy.json(&["plan", next.to_str().unwrap()])["drift"], Value::Null);
}

#[test]
fn an_unconfirmed_generation_does_not_outlive_its_time_by_a_restart() {
    let room = Room::new("restart");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let proxy = Running::start(&room, &kept(&room, &[&a], ""));
    proxy.done(&["backend", "add", "c", &b.address.to_string(), "--name", "b"]);
    let done = proxy.json(&["backend", "remove", "c", "a", "--confirm-within", "6s"]);
    let until = done["confirm_by"].as_u64().unwrap();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!((now()..=now() + 6).contains(&until));
    proxy.kill();
    let proxy = again(&room);
    assert!(proxy.ready.contains("generation 3"), "within its time it goes on: {}", proxy.ready);
    eventually("it is taken back", || (generation(&proxy) == 4).then_some(()));
    proxy.done(&["backend", "remove", "c", "b", "--confirm-within", "2s"]);
    proxy.kill();
    let begun = Instant::now();
    eventually("its time is over", || (begun.elapsed() > Duration::from_millis(2200)).then_some(()));
    let proxy = again(&room);
    assert!(proxy.ready.contains("generation 6"), "what ran before it runs again: {}", proxy.ready);
    assert_eq!(proxy.done(&["diff", "4", "6"]), "generations 4 and 6 are the same\n");
    assert_eq!(proxy.json(&["history"]).as_array().unwrap().len(), 6);
}

#[test]
fn a_guard_goes_on_after_a_restart_until_somebody_confirms() {
    let room = Room::new("guard-again");
    let good = Echo::start("a");
    let proxy = Running::start(&room, &kept(&room, &[&good], HEALTH));
    let other = Echo::start("b");
    let terms = ["--confirm-within", "1h", "--guard-unhealthy", "40"];
    proxy.done(&[&["backend", "add", "c", &other.address.to_string(), "--name", "b"], &terms[..]].concat());
    assert_eq!(proxy.json(&["history"])[1]["guard_unhealthy"], 40);
    proxy.kill();
    let proxy = again(&room);
    assert!(proxy.ready.contains("generation 2"), "nothing is wrong: {}", proxy.ready);
    drop(other);
    eventually("it is taken back", || (generation(&proxy) == 3).then_some(()));
    let history = proxy.json(&["history"]);
    assert!(history[2]["message"].as_str().unwrap().contains("1 of 2 checked backends are down"), "{history}");
    let third = Echo::start("d");
    proxy.done(&[&["backend", "add", "c", &third.address.to_string(), "--name", "d"], &terms[..]].concat());
    proxy.done(&["confirm"]);
    assert_eq!(proxy.json(&["history"])[3]["guard_unhealthy"], Value::Null, "it waits no more");
}

#[test]
fn a_certificate_that_is_gone_keeps_nothing_else_from_being_started() {
    let room = Room::new("certificate-gone");
    let a = Echo::start("a");
    let authority = Authority::new();
    let made = |name: &str| authority.make(&[name], |_| ()).put(&room, name);
    let tls = "[listeners.web]\nprotocol = \"http\"\nbind = [\"127.0.0.1:0\"]\ncluster = \"c\"\ntls = { certificates = [\"x\", \"y\"] }\n";
    let proxy = Running::start(&room, &kept(&room, &[&a], &format!("{}{}{tls}", made("x"), made("y"))));
    proxy.kill();
    std::fs::remove_file(room.path("x.pem")).unwrap();
    let proxy = again(&room);
    assert_eq!((generation(&proxy), answers(&proxy).as_deref()), (1, Some("a")));
    let shown = |proxy: &Running| proxy.json(&["get", "certificates"]).as_array().unwrap().len();
    assert_eq!(shown(&proxy), 1, "the other one");
    // Whoever asks for the same document again is told what is wrong, and it runs when that was mended.
    let refused = proxy.ask(&["apply", room.path("k.toml").to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("x.pem"), "{}", String::from_utf8_lossy(&refused.stderr));
    made("x");
    proxy.done(&["apply", room.path("k.toml").to_str().unwrap()]);
    assert_eq!(shown(&proxy), 2);
    proxy.signal("TERM");
    let (_, stderr) = proxy.end();
    assert!(stderr.contains("WARN") && stderr.contains("certificate x is left out"), "{stderr}");
    // A listener with nothing to show is no listener.
    ["x.pem", "y.key"].iter().for_each(|name| std::fs::remove_file(room.path(name)).unwrap());
    let output = kakei().args(["run", "--state"]).arg(room.path("state")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("x.pem") && said.contains("y.key"), "{said}");
}

#[test]
fn what_cannot_be_written_down_is_not_published() {
    let room = Room::new("unwritten");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let proxy = Running::start(&room, &kept(&room, &[&a], ""));
    let generations = room.path("state/generations");
    std::fs::rename(&generations, room.path("away")).unwrap();
    std::fs::write(&generations, "no directory").unwrap();
    let add = format!("{{\"name\": \"b\", \"address\": \"{}\"}}", b.address);
    let refused = proxy.http("POST", "/v1/clusters/c/backends", &[JSON], &add);
    assert_eq!((refused.status, &refused.json()["type"]), (507, &json!("urn:kakei:problem:state-not-written")));
    assert_eq!((generation(&proxy), answers(&proxy).as_deref()), (1, Some("a")));
    std::fs::remove_file(&generations).unwrap();
    std::fs::rename(room.path("away"), &generations).unwrap();
    assert_eq!(proxy.http("POST", "/v1/clusters/c/backends", &[JSON], &add).json()["generation"], 2);
}

#[test]
fn what_was_acknowledged_survives_being_killed_at_any_moment() {
    let room = Room::new("killed");
    let a = Echo::start("a");
    let mut proxy = Running::start(&room, &kept(&room, &[&a], ""));
    let mut acknowledged = 1;
    for round in 0..8_u64 {
        let socket = proxy.socket.clone();
        let (tell, told) = mpsc::channel();
        // Weights 1 to 200, as fast as they are taken, until the proxy is gone.
        let writer = std::thread::spawn(move || {
            let mut last = None;
            for weight in (1..200).cycle() {
                let body = format!("{{\"weight\": {weight}}}");
                match attempt(&socket, &body) {
                    Some(generation) => {
                        last = Some((generation, weight));
                        let _ = tell.send(generation);
                    }
                    None => return last,
                }
            }
            last
        });
        // Twice it is killed whatever was acknowledged by then. The first weight may be the one that it has: that makes
        // no generation.
        if round >= 2 {
            while told.recv_timeout(SOON).expect("a change is acknowledged") <= acknowledged {}
        }
        std::thread::sleep(Duration::from_millis(37 * (round % 6)));
        proxy.kill();
        let last = writer.join().unwrap();
        proxy = again(&room);
        let now = generation(&proxy);
        acknowledged = last.map_or(acknowledged, |(generation, _)| generation);
        assert!((acknowledged..=acknowledged + 1).contains(&now), "{now} runs, {acknowledged} was acknowledged");
        if let Some((_, weight)) = last.filter(|_| now == acknowledged) {
            assert_eq!(proxy.json(&["get", "backends"])[0]["weight"], weight);
        }
        acknowledged = now;
    }
    assert!(acknowledged > 6, "changes were made: {acknowledged}");
    assert_eq!(answers(&proxy).as_deref(), Some("a"));
}

#[test]
fn what_happens_is_told_as_it_happens_and_again_to_who_was_away() {
    let room = Room::new("events");
    let a = Echo::start("a");
    let proxy = Running::start(&room, &kept(&room, &[&a], ""));
    let mut live = Listening::to(&proxy, "");
    proxy.done(&["backend", "weight", "c", "a", "3", "-m", "why"]);
    assert_eq!(proxy.ask(&["backend", "weight", "c", "b", "3"]).status.code(), Some(1));
    proxy.done(&["backend", "weight", "c", "a", "4", "--confirm-within", "1h"]);
    proxy.done(&["confirm"]);
    let told: Vec<Value> = (0..4).map(|_| live.next()).collect();
    let names: Vec<&str> = told.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["generation", "refused", "generation", "confirmed"]);
    assert_eq!(told[0]["changes"], json!(["cluster c: backend a: weight 1 -> 3"]));
    assert!(told[0]["asked"].as_str().unwrap().ends_with("\u{201c}why\u{201d}"), "{}", told[0]);
    assert!(told[1]["reason"].as_str().unwrap().contains("there is no backend"), "{}", told[1]);
    // Who comes late gets what is missing, and nothing twice.
    let mut late = Listening::to(&proxy, &format!("Last-Event-ID: {}\r\n", told[1]["id"]));
    assert_eq!((late.next(), late.next()), (told[2].clone(), told[3].clone()));
    proxy.done(&["backend", "weight", "c", "a", "5"]);
    assert_eq!(late.next(), live.next());
    // Nor does who comes back after a restart miss anything, by whatever number (s)he saw before.
    proxy.kill();
    let proxy = again(&room);
    proxy.done(&["backend", "weight", "c", "a", "6"]);
    let seen = told[3]["id"].as_u64().unwrap();
    for last in [seen, seen + 1_000_000_000_000] {
        let mut back = Listening::to(&proxy, &format!("Last-Event-ID: {last}\r\n"));
        let weighed = json!(["cluster c: backend a: weight 5 -> 6"]);
        let heard = std::iter::repeat_with(|| back.next()).find(|event| event["changes"] == weighed).unwrap();
        assert!(heard["id"].as_u64().unwrap() > seen, "{heard}");
    }
}

/// Someone who reads events.
struct Listening(std::io::BufReader<std::os::unix::net::UnixStream>);

impl Listening {
    /// From now on: the first line that is no field has come.
    fn to(proxy: &Running, fields: &str) -> Self {
        use std::io::{BufRead, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(&proxy.socket).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        write!(stream, "GET /v1/events HTTP/1.1\r\nHost: k\r\n{fields}\r\n").unwrap();
        let mut listening = Listening(std::io::BufReader::new(stream));
        let mut line = String::new();
        while line.trim_end() != ": events" {
            line.clear();
            assert!(listening.0.read_line(&mut line).unwrap() > 0, "it ended");
        }
        listening
    }

    fn next(&mut self) -> Value {
        use std::io::BufRead;
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "it ended");
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str(data).unwrap();
            }
        }
    }
}

/// Change the weight; the generation that was acknowledged, none where nobody answers.
fn attempt(socket: &std::path::Path, body: &str) -> Option<u64> {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
    let length = body.len();
    write!(
        stream,
        "PATCH /v1/clusters/c/backends/a HTTP/1.1\r\nHost: k\r\n{JSON}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str::<Value>(body).ok()?["generation"].as_u64()
}
