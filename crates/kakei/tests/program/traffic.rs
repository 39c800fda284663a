//! What clients, backends and operators see while nothing changes.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Client, Echo, Room, Running, document, document_of, eventually, kakei};

#[test]
fn flows_are_balanced_logged_once_and_counted_whole() {
    let room = Room::new("balance");
    let (a, b, c) = (Echo::start("a"), Echo::start("b"), Echo::start("c"));
    let log = room.path("access.log");
    let more = format!("udp = {{ responses = 1 }}\n[access_log]\nto = {log:?}\n");
    let proxy = Running::start(&room, &document(&room, &[&a, &b, &c], &more));
    let front = proxy.front();
    let mut shares: BTreeMap<String, u64> = BTreeMap::new();
    for n in 0..60 {
        *shares.entry(Client::new(front).ask(&format!("hello {n}")).expect("an answer")).or_default() += 1;
    }
    // Each of the two workers goes round by itself.
    assert!(shares.values().all(|share| (18..=22).contains(share)), "{shares:?}");
    let metrics = proxy.metrics();
    metrics.assert_identities();
    assert_eq!(metrics.sum("kakei_client_datagrams_total", "listener=\"front\""), 60);
    assert_eq!(metrics.sum("kakei_flows_closed_total", "reason=\"responses_reached\""), 60);
    assert_eq!(metrics.sum("kakei_backend_sent_datagrams_total", "backend=\"a\""), a.count());
    assert_eq!(metrics.sum("kakei_backend_up", ""), 3, "a flag, whatever the number of workers");
    let lines = eventually("sixty lines", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() >= 60).then_some(lines)
    });
    thread::sleep(Duration::from_millis(150));
    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 60, "one line for each flow");
    let clients: std::collections::BTreeSet<&str> = lines.iter().map(|line| line["client"].as_str().unwrap()).collect();
    assert!(clients.len() >= 50, "clients are told apart");
    assert!(
        lines.iter().all(|line| line["reason"] == "responses_reached" && line["request_bytes"].as_u64() >= Some(7))
    );
    proxy.signal("TERM");
    let (status, stderr) = proxy.end();
    assert!(status.success(), "{stderr}");
}

#[test]
fn a_backend_that_answers_no_probe_is_left_by_every_worker() {
    let room = Room::new("health");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let more = "udp = { responses = 1 }\n\
                health = { udp = { send_text = \"ping\" }, interval = \"100ms\", timeout = \"80ms\", rise = 1, fall = 2 }\n";
    let proxy = Running::start(&room, &document(&room, &[&a, &b], more));
    let front = proxy.front();
    assert!(Client::new(front).ask("x").is_some());
    drop(b);
    eventually("b is down", || {
        let rows = proxy.json(&["get", "backends"]);
        (rows[1]["state"] == "down").then_some(())
    });
    for n in 0..40 {
        assert_eq!(Client::new(front).ask(&format!("{n}")).as_deref(), Some("a"));
    }
    assert_eq!(proxy.json(&["get", "clusters"])[0]["backends_up"], 1);
    assert_eq!(proxy.metrics().sum("kakei_backend_up", "backend=\"b\""), 0);
    let explained = proxy.done(&["explain", &format!("udp:{front}"), "--client", "127.0.0.1"]);
    assert!(explained.contains("to backend a of cluster c") && explained.contains("down"), "{explained}");
}

#[test]
fn without_descriptors_new_flows_are_shed_and_live_ones_go_on() {
    let room = Room::new("descriptors");
    let echo = Echo::start("a");
    let more = "udp = { front_timeout = \"3s\", back_timeout = \"3s\" }\n[workers]\ncount = 1\n";
    let file = room.write("k.toml", &document(&room, &[&echo], more));
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""]).arg(kakei().get_program()).arg("run").arg("-c").arg(file);
    let proxy = Running::from(&room, command);
    let front = proxy.front();
    let early: Vec<Client> = (0..10).map(|_| Client::new(front)).collect();
    assert!(early.iter().all(|client| client.ask("early").is_some()));
    let flood: Vec<Client> = (0..100).map(|_| Client::new(front)).collect();
    flood.iter().for_each(|client| client.send("flood"));
    for n in 0..5 {
        assert!(early.iter().all(|client| client.ask(&format!("still {n}")).is_some()), "a live flow goes on");
    }
    // Flows leave some descriptors to the admin socket.
    let metrics = proxy.metrics();
    assert!(metrics.sum("kakei_flows_live", "") >= 10, "asked while flows hold all that they may");
    metrics.assert_identities();
    let shed = metrics.sum("kakei_dropped_datagrams_total", "reason=\"no_socket\"");
    assert!((30..=100).contains(&shed), "{shed} were shed");
    let late = Client::new(front);
    eventually("a new flow is admitted again", || late.ask("late"));
}

#[test]
fn a_flow_can_be_looked_at() {
    let room = Room::new("flows");
    let echo = Echo::start("a");
    let proxy = Running::start(&room, &document(&room, &[&echo], ""));
    let client = Client::new(proxy.front());
    assert_eq!(client.ask("one").as_deref(), Some("a"));
    assert_eq!(client.ask("two").as_deref(), Some("a"));
    let own = client.socket.local_addr().unwrap().to_string();
    let flows = proxy.json(&["get", "flows", "--client", "127.0.0.1", "--backend", "a"]);
    assert_eq!(flows.as_array().unwrap().len(), 1);
    let flow = &flows[0];
    assert_eq!(
        (flow["client"].as_str(), flow["requests"].as_u64(), flow["responses"].as_u64()),
        (Some(&*own), Some(2), Some(2))
    );
    assert_eq!(flow["phase"], "established");
    assert_eq!(proxy.json(&["get", "flows", "--client", "127.0.0.2"]), Value::Array(vec![]));
    let table = proxy.done(&["get", "flows"]);
    assert!(table.starts_with("LISTENER") && table.contains(&own), "{table}");
    let status = proxy.json(&["status"]);
    assert_eq!((status["state"].as_str(), status["workers_answering"].as_u64()), (Some("ready"), Some(2)));
    assert_eq!(status["listeners"][0]["flows_live"], 1);
}

#[test]
fn routes_by_source_are_followed_and_explained() {
    let room = Room::new("routes");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let more = format!(
        "[clusters.local]\nbackends = [{{ name = \"b\", address = \"{}\" }}]\n\
         [routes.loopback]\nlistener = \"front\"\nsource = [\"127.0.0.0/8\"]\ncluster = \"local\"\n",
        b.address
    );
    let proxy = Running::start(&room, &document_of(&room, &[("a", a.address)], &more));
    let front = proxy.front();
    assert_eq!(Client::new(front).ask("x").as_deref(), Some("b"));
    let inside = proxy.json(&["explain", &format!("udp:{front}"), "--client", "127.0.0.1"]);
    assert_eq!((&inside["route"], &inside["cluster"]), (&"loopback".into(), &"local".into()));
    let outside = proxy.json(&["explain", &format!("udp:{front}"), "--client", "192.0.2.1:99"]);
    assert_eq!((&outside["route"], &outside["cluster"]), (&Value::Null, &"c".into()));
    assert_eq!(outside["considered"][0]["matches"], false);
    let nowhere = proxy.done(&["explain", "udp:127.0.0.1:1", "--client", "127.0.0.1"]);
    assert!(nowhere.starts_with("no listener is bound to 127.0.0.1:1"), "{nowhere}");
}

#[test]
fn explain_names_the_backend_that_a_hashed_client_gets() {
    let room = Room::new("hashed");
    let (a, b, c) = (Echo::start("a"), Echo::start("b"), Echo::start("c"));
    for balance in ["hrw", "maglev"] {
        let more = format!("balance = \"{balance}\"\nudp = {{ affinity = \"source_ip_port\", responses = 1 }}\n");
        let proxy = Running::start(&room, &document(&room, &[&a, &b, &c], &more));
        let target = format!("udp:{}", proxy.front());
        for _ in 0..12 {
            let client = Client::new(proxy.front());
            let own = client.socket.local_addr().unwrap().to_string();
            let foretold = proxy.json(&["explain", &target, "--client", &own])["chosen"].as_str().map(str::to_owned);
            assert_eq!(client.ask("x"), foretold, "{balance}");
        }
        let unsettled = proxy.json(&["explain", &target, "--client", "127.0.0.1"]);
        assert_eq!(unsettled["chosen"], Value::Null, "the port counts and is not known");
    }
}
