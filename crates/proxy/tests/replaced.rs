//! A worker driven by hand, one fact a test: what becomes of those who came to a listener whose address is another one's
//! now, by another name or for another protocol.

mod common;

use std::time::Duration;

use kakei_config::*;
use kakei_proxy::record::CloseReason;
use kakei_proxy::seam::*;
use kakei_proxy::stats::{ListenerMetric, ListenerStats};
use kakei_proxy::worker::{Role, Worker};

use common::{Bench, addr, all_of, compile, ends, opened};

const ASKS: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const HALF: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf";
const UPGRADES: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
const SWITCHES: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

const TIME: Duration = Duration::from_secs(5);

/// Listeners at these addresses, whose connections have five seconds where they go. Records are written.
fn document(listeners: &[(&str, Protocol, &[&str])]) -> Document {
    let cluster = Cluster { backends: vec![Backend::at(addr("10.0.0.1:80"))], ..Cluster::default() };
    let listeners = listeners.iter().map(|(name, protocol, bind)| {
        let bind = bind.iter().map(|at| addr(at)).collect();
        let cluster = Some("c".into());
        (Name::new(name), Listener { protocol: *protocol, bind, cluster, drain_timeout: TIME, ..Listener::default() })
    });
    Document {
        listeners: listeners.collect(),
        clusters: [("c".into(), cluster)].into(),
        access_log: AccessLog { to: Some("stdout".into()), ..AccessLog::default() },
        ..Document::default()
    }
}

fn one(name: &str, protocol: Protocol) -> Document {
    document(&[(name, protocol, &["0.0.0.0:80"])])
}

/// A client's stream and its backend's.
type Pair = (SocketId, SocketId);

impl Bench {
    /// One step, and as many more as the worker asks for at once.
    fn run(&mut self, events: Vec<Event>, bytes: &[u8]) -> Vec<Op> {
        let mut all = self.step(events, bytes);
        while self.wake == Some(self.now) {
            all.extend(self.step(Vec::new(), b""));
        }
        all
    }

    fn pass(&mut self, time: Duration) -> Vec<Op> {
        self.now = self.now + time;
        self.run(Vec::new(), b"")
    }

    fn ask(&mut self, command: Command) -> Reply {
        let ops = self.step(vec![Event::Command { ticket: Ticket(2), command }], b"");
        let told = ops.into_iter().find_map(|op| match op {
            Op::Reply { ticket: Ticket(2), reply } => Some(reply),
            _ => None,
        });
        told.expect("an answer")
    }

    /// What each listener counts, by name.
    fn listeners(&mut self) -> Vec<ListenerStats> {
        match self.ask(Command::Stats) {
            Reply::Stats(stats) => stats.listeners,
            other => panic!("{other:?}"),
        }
    }

    /// When each connection has to be over, by its listener.
    fn ends_in(&mut self) -> Vec<(String, Option<u64>)> {
        match self.ask(Command::Connections(Filter { limit: 100, ..Filter::default() })) {
            Reply::Connections(views) => {
                views.into_iter().map(|view| (view.listener.to_string(), view.ends_in_ms)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn hear(&mut self, socket: SocketId, bytes: &[u8]) -> Vec<Op> {
        self.run(vec![Event::Data { socket, bytes: all_of(bytes) }], bytes)
    }

    /// A client that is joined with a backend, over TCP: both streams.
    fn join(&mut self, peer: &str) -> Pair {
        self.join_at(self.front, peer, "192.0.2.1:80")
    }

    fn join_at(&mut self, front: SocketId, peer: &str, local: &str) -> Pair {
        let accepted = Accepted { front, arrival: Arrival(1), peer: addr(peer), local: addr(local) };
        let ops = self.step(vec![Event::Accepted(accepted)], b"");
        let pair = (opened(&ops), connected(&ops).expect("a backend"));
        self.step(vec![Event::Opened { socket: pair.1, local: addr("10.9.9.9:9") }], b"");
        pair
    }

    /// A client that asks for this, and the backend that it is on, which has answered this.
    fn answered(&mut self, peer: &str, (asks, answer): (&[u8], &[u8])) -> Pair {
        let client = self.connect(peer);
        let backend = connected(&self.hear(client, asks)).expect("a backend");
        self.step(vec![Event::Opened { socket: backend, local: addr("10.9.9.9:9") }], b"");
        self.hear(backend, answer);
        (client, backend)
    }

    /// Whether bytes still go from the client to the backend.
    fn goes_on(&mut self, (client, backend): Pair) -> bool {
        let ops = self.hear(client, b"on");
        ends(&ops, backend) == ["write"]
    }

    /// Another worker goes on where this one is, over the same document. What these streams are called from then on.
    fn hand_over<const N: usize>(&mut self, running: (&Document, u64), streams: [SocketId; N]) -> [SocketId; N] {
        let Reply::State(state) = self.ask(Command::Snapshot) else { panic!("no state") };
        let state = serde_json::from_str(&serde_json::to_string(&*state).expect("plain data")).expect("it can be read");
        let (role, snapshot) = (Role { index: 0, seed: 5 }, compile(running.0, running.1));
        self.worker = Worker::restore(role, self.now, state, &snapshot).expect("a sound state");
        let ops = self.run(Vec::new(), b"");
        streams.map(|stream| {
            let adopted = ops.iter().find_map(|op| match op {
                Op::Adopt { was, socket } if *was == stream => Some(*socket),
                _ => None,
            });
            adopted.expect("it is adopted")
        })
    }
}

/// The stream to a backend that a step asks for.
fn connected(ops: &[Op]) -> Option<SocketId> {
    ops.iter().find_map(|op| match op {
        Op::Connect { socket, .. } => Some(*socket),
        _ => None,
    })
}

/// Why what a step's records are about ended, and at which listener.
fn ended(ops: &[Op]) -> Vec<(&str, CloseReason)> {
    let records = ops.iter().filter_map(|op| match op {
        Op::Record(record) => Some((record.listener.as_str(), record.reason)),
        _ => None,
    });
    records.collect()
}

fn is_drained(ops: &[Op]) -> bool {
    ops.iter().any(|op| matches!(op, Op::Notice(Notice::Drained)))
}

const LATER: Duration = Duration::from_millis(5_010);

#[test]
fn a_connection_of_a_listener_whose_address_is_another_one_s_now_ends_in_its_own_time() {
    let mut bench = Bench::of(&one("old", Protocol::Tcp));
    let old = bench.join("192.0.2.7:1000");
    bench.publish(&one("new", Protocol::Tcp), 2);
    assert_eq!(bench.ends_in(), [("old".to_owned(), Some(5_000))]);
    let new = bench.join("192.0.2.8:1000");
    assert!(bench.goes_on(old) && bench.goes_on(new));
    let ops = bench.pass(LATER);
    assert_eq!((ends(&ops, old.0), ended(&ops)), (vec!["close"], vec![("old", CloseReason::Drain)]));
    assert_eq!(bench.ends_in(), [("new".to_owned(), None)]);
    let names: Vec<String> = bench.listeners().iter().map(|of| of.listener.to_string()).collect();
    assert_eq!(names, ["new"], "nothing is left of the old one");
}

#[test]
fn requests_of_a_listener_whose_address_is_another_one_s_now_end_in_its_own_time_and_idle_clients_at_once() {
    let old = Listener { cluster: Some("c".into()), drain_timeout: TIME, ..Listener::default() };
    let mut bench = Bench::new(document(&[]), old);
    let half = connected(&bench.say(ASKS)).expect("a backend");
    bench.step(vec![Event::Opened { socket: half, local: addr("10.9.9.9:9") }], b"");
    bench.hear(half, HALF);
    let idle = bench.connect("192.0.2.6:1000");
    let upgraded = bench.answered("192.0.2.8:1000", (UPGRADES, SWITCHES));
    let ops = bench.publish(&one("new", Protocol::Http), 2);
    assert_eq!(ends(&ops, idle), ["shutdown"]);
    assert!(bench.ends_in().iter().all(|(_, ends_in)| ends_in.is_none_or(|ms| ms == 5_000)), "{:?}", bench.ends_in());
    assert!(bench.goes_on(upgraded));
    let new = bench.answered("192.0.2.9:1000", (ASKS, HALF));
    let ops = bench.pass(LATER);
    assert_eq!((bench.ends(&ops), ends(&ops, upgraded.0)), (vec!["reset"], vec!["close"]));
    assert_eq!(ended(&ops), [("web", CloseReason::Drain); 2]);
    assert_eq!(ends(&bench.hear(new.1, b"half"), new.0), ["write"], "the new one's goes on");
}

#[test]
fn what_came_for_another_protocol_of_the_same_name_ends_in_its_own_time() {
    let mut bench = Bench::of(&one("l", Protocol::Tcp));
    let raw = bench.join("192.0.2.7:1000");
    bench.publish(&one("l", Protocol::Http), 2);
    assert_eq!(bench.ends_in(), [("l".to_owned(), Some(5_000))]);
    let half = bench.answered("192.0.2.8:1000", (ASKS, HALF));
    let upgraded = bench.answered("192.0.2.9:1000", (UPGRADES, SWITCHES));
    let of = |all: &[ListenerStats], metric| all.iter().map(|of| of.values[metric]).sum::<u64>();
    assert_eq!(of(&bench.listeners(), ListenerMetric::Draining), 0, "clients are let in");
    let ops = bench.pass(LATER);
    assert_eq!((ends(&ops, raw.0), ended(&ops)), (vec!["close"], vec![("l", CloseReason::Drain)]));
    let counted = bench.listeners();
    assert_eq!((counted.len(), of(&counted, ListenerMetric::ConnectionsOpened)), (1, 3), "no count is lost");
    assert_eq!((of(&counted, ListenerMetric::ConnectionsLive), counted[0].connection_closes.sum()), (2, 1));

    bench.publish(&one("l", Protocol::Tcp), 3);
    let new = bench.join("192.0.2.10:1000");
    let ops = bench.pass(LATER);
    assert_eq!((ends(&ops, half.0), ends(&ops, upgraded.0)), (vec!["reset"], vec!["close"]));
    assert!(bench.goes_on(new));
}

#[test]
fn a_listener_that_has_its_address_back_in_time_ends_nothing() {
    for (before, meanwhile) in
        [(one("old", Protocol::Tcp), one("new", Protocol::Tcp)), (one("l", Protocol::Tcp), one("l", Protocol::Http))]
    {
        let mut bench = Bench::of(&before);
        let old = bench.join("192.0.2.7:1000");
        bench.publish(&meanwhile, 2);
        bench.pass(Duration::from_secs(4));
        bench.publish(&before, 3);
        bench.pass(LATER);
        assert!(bench.goes_on(old));
        assert_eq!(bench.ends_in().len(), 1);
    }
}

#[test]
fn what_came_by_the_one_address_of_two_that_another_listener_has_now_ends_and_the_rest_stays() {
    let mut bench = Bench::of(&document(&[("l", Protocol::Tcp, &["0.0.0.0:80"])]));
    let ops = bench.publish(&document(&[("l", Protocol::Tcp, &["0.0.0.0:80", "0.0.0.0:81"])]), 2);
    let second = opened(&ops);
    bench.step(vec![Event::Opened { socket: second, local: addr("0.0.0.0:81") }], b"");
    let moved = bench.join("192.0.2.7:1000");
    let stays = bench.join_at(second, "192.0.2.8:1000", "192.0.2.1:81");
    let next = document(&[("l", Protocol::Tcp, &["0.0.0.0:81"]), ("m", Protocol::Tcp, &["0.0.0.0:80"])]);
    bench.publish(&next, 3);
    let ops = bench.pass(LATER);
    assert_eq!((ends(&ops, moved.0), ended(&ops)), (vec!["close"], vec![("l", CloseReason::Drain)]));
    assert!(bench.goes_on(stays));
}

#[test]
fn a_worker_that_drains_waits_no_longer_for_those_of_a_listener_that_was_replaced() {
    for protocol in [Protocol::Tcp, Protocol::Http] {
        let mut bench = Bench::of(&one("old", protocol));
        let old = match protocol {
            Protocol::Http => bench.answered("192.0.2.7:1000", (UPGRADES, SWITCHES)),
            _ => bench.join("192.0.2.7:1000"),
        };
        bench.publish(&one("new", protocol), 2);
        bench.pass(Duration::from_secs(2));
        let ops = bench.step(vec![Event::Command { ticket: Ticket(1), command: Command::Drain { within: None } }], b"");
        assert!(!is_drained(&ops));
        assert_eq!(bench.ends_in(), [("old".to_owned(), Some(3_000))], "its time began before");
        let ops = bench.pass(LATER - Duration::from_secs(2));
        assert!(ends(&ops, old.0) == ["close"] && is_drained(&ops), "{ops:?}");
    }
}

#[test]
fn a_worker_that_was_read_back_in_the_middle_of_it_keeps_to_the_time() {
    let mut bench = Bench::of(&one("old", Protocol::Tcp));
    let clients: Vec<SocketId> = (1000..1600).map(|port| bench.join(&format!("192.0.2.7:{port}")).0).collect();
    let next = one("new", Protocol::Tcp);
    // More than one step visits.
    bench.publish(&next, 2);
    assert_eq!(bench.wake, Some(bench.now));
    let [first, last] = bench.hand_over((&next, 2), [clients[0], clients[599]]);
    bench.pass(Duration::from_secs(4));
    let [first, last] = bench.hand_over((&next, 2), [first, last]);
    let ops = bench.pass(Duration::from_millis(900));
    assert_eq!((ends(&ops, first), ends(&ops, last)), (vec![], vec![]));
    let ops = bench.pass(Duration::from_millis(110));
    assert_eq!((ends(&ops, first), ends(&ops, last)), (vec!["close"], vec!["close"]));
    assert_eq!(ended(&ops), [("old", CloseReason::Drain); 600]);
}

#[test]
fn a_request_that_becomes_a_connection_before_its_turn_comes_to_be_visited_ends_in_time_too() {
    let mut bench = Bench::of(&one("old", Protocol::Http));
    let pairs: Vec<Pair> =
        (1000..1600).map(|port| bench.answered(&format!("192.0.2.7:{port}"), (UPGRADES, b""))).collect();
    bench.publish(&one("new", Protocol::Http), 2);
    let switch = |(_, backend): &Pair| Event::Data { socket: *backend, bytes: all_of(SWITCHES) };
    bench.run(pairs.iter().map(switch).collect(), SWITCHES);
    assert_eq!(bench.ends_in(), vec![("old".to_owned(), Some(5_000)); 100]);
    let ops = bench.pass(LATER);
    assert_eq!(ended(&ops), [("old", CloseReason::Drain); 600]);
}
