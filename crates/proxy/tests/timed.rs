//! A worker driven by hand, one fact a test: which time of an HTTP connection runs when, what its end is, and whose fault
//! that is.

mod common;

use std::time::Duration;

use kakei_config::*;
use kakei_proxy::record::{CloseReason, Detail, ExchangeDetail, Record};
use kakei_proxy::seam::*;

use common::{Bench, addr, all_of, ends, opened};

const ASKS: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const BEGINS: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc";
const EXPECTS: &[u8] = b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n";
const NOTHING: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
const HALF: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc";
const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

/// Two backends that one failure ejects, and nothing else takes requests then. Records are written.
fn document() -> Document {
    let passive = PassiveCheck { fall: 1, latency: Some(300 * MS), ..PassiveCheck::default() };
    let health = Health { passive: Some(passive), fail_open: false, ..Health::default() };
    let backends = ["10.0.0.1:80", "10.0.0.2:80"].map(|at| Backend::at(addr(at))).to_vec();
    let cluster = Cluster { backends, health: Some(Box::new(health)), ..Cluster::default() };
    let timeouts = RouteTimeouts { response: 5 * S, idle: S, ..RouteTimeouts::default() };
    let route = Route { listener: "web".into(), cluster: Some("c".into()), timeouts, ..Route::default() };
    Document {
        clusters: [("c".into(), cluster)].into(),
        routes: [("r".into(), route)].into(),
        access_log: AccessLog { to: Some("stdout".into()), ..AccessLog::default() },
        ..Document::default()
    }
}

fn listener() -> Listener {
    let http = HttpListener { body_timeout: 3 * S, write_timeout: S, ..HttpListener::default() };
    Listener { http, drain_timeout: S, ..Listener::default() }
}

fn bench() -> Bench {
    Bench::new(document(), listener())
}

/// With one backend, which no failure ejects.
fn alone() -> Document {
    let mut document = document();
    let cluster = cluster(&mut document);
    cluster.backends.truncate(1);
    cluster.health = None;
    document
}

fn cluster(document: &mut Document) -> &mut Cluster {
    document.clusters.get_mut(&Name::new("c")).expect("a cluster")
}

impl Bench {
    /// So much time goes by, in which nothing happens.
    fn pass(&mut self, time: Duration) -> Vec<Op> {
        self.now = self.now + time;
        self.step(Vec::new(), b"")
    }

    fn hear(&mut self, socket: SocketId, bytes: &[u8]) -> Vec<Op> {
        self.step(vec![Event::Data { socket, bytes: all_of(bytes) }], bytes)
    }

    /// The client asks this, on a new connection to a backend.
    fn ask(&mut self, bytes: &[u8]) -> SocketId {
        let backend = opened(&self.say(bytes));
        self.step(vec![Event::Opened { socket: backend, local: addr("10.9.9.9:9") }], b"");
        backend
    }

    /// It says something every half a second, until it is cut off; after how long that was.
    fn drip(&mut self, bytes: &[u8], most: Duration) -> (Duration, Vec<Op>) {
        let began = self.now;
        loop {
            let before = self.pass(250 * MS);
            let ops = [before, self.pass(251 * MS)].into_iter().find(|ops| !self.ends(ops).is_empty());
            let ops = ops.unwrap_or_else(|| self.say(bytes));
            let is_over = self.ends(&ops).iter().any(|how| ["close", "reset"].contains(how));
            if is_over {
                return (self.now - began, ops);
            }
            assert!(self.now - began < most, "it is held on to");
        }
    }

    /// Another client asks, and gets an answer.
    fn is_served(&mut self) -> bool {
        let client = self.connect("192.0.2.8:1000");
        let ops = self.hear(client, ASKS);
        let is_sent = |op: &&Op| match op {
            Op::Connect { .. } => true,
            Op::Write { socket, .. } => *socket != client,
            _ => false,
        };
        ops.iter().find(is_sent).is_some()
    }

    fn drain(&mut self) -> Vec<Op> {
        self.step(vec![Event::Command { ticket: Ticket(1), command: Command::Drain { within: None } }], b"")
    }
}

fn records(ops: &[Op]) -> Vec<&Record> {
    let all = ops.iter().filter_map(|op| match op {
        Op::Record(record) => Some(&**record),
        _ => None,
    });
    all.collect()
}

fn reason(ops: &[Op]) -> CloseReason {
    records(ops).first().expect("a record").reason
}

fn detail(ops: &[Op]) -> &ExchangeDetail {
    match &records(ops).first().expect("a record").detail {
        Detail::Exchange(detail) => detail,
        other => panic!("no request's: {other:?}"),
    }
}

#[test]
fn who_goes_on_sending_behind_its_last_answer_is_cut_off_after_half_a_minute() {
    let mut bench = bench();
    let ops = bench.say(b"BAD\r\n\r\n");
    assert_eq!(bench.ends(&ops), ["write", "shutdown"]);
    let (after, _) = bench.drip(b"x", 60 * S);
    assert!(after >= 30 * S && after < 31 * S, "{after:?}");
    let mut bench = self::bench();
    bench.say(b"BAD\r\n\r\n");
    let ops = bench.pass(2 * S + 2 * MS);
    assert_eq!(bench.ends(&ops), ["close"], "who sends nothing is given less");
}

#[test]
fn nobody_holds_a_drain_up_by_sending() {
    // Told that it was wrong before the drain; idle at it; answered in it; told at its end.
    let ways: [fn(&mut Bench); 4] = [
        |bench| {
            bench.say(b"BAD\r\n\r\n");
            bench.drain();
        },
        |bench| {
            let ops = bench.drain();
            assert_eq!(bench.ends(&ops), ["shutdown"]);
        },
        |bench| {
            let backend = bench.ask(ASKS);
            bench.drain();
            let ops = bench.hear(backend, NOTHING);
            assert_eq!(bench.ends(&ops), ["write", "shutdown"]);
        },
        |bench| {
            bench.ask(ASKS);
            bench.drain();
            let ops = bench.pass(S + 2 * MS);
            assert_eq!((reason(&ops), bench.ends(&ops)), (CloseReason::Drain, vec!["write", "shutdown"]));
        },
    ];
    for (at, way) in ways.into_iter().enumerate() {
        let mut bench = bench();
        way(&mut bench);
        let (after, ops) = bench.drip(b"x", 60 * S);
        assert!(after <= 2 * S + 500 * MS, "{at}: {after:?}");
        let is_drained = |ops: &[Op]| ops.iter().any(|op| matches!(op, Op::Notice(Notice::Drained)));
        let next = bench.pass(2 * MS);
        assert!(is_drained(&ops) || is_drained(&next), "{at}: {ops:?}");
    }
}

#[test]
fn who_takes_nothing_gets_no_more_time_by_sending() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n";
    let mut bench = bench();
    let backend = bench.ask(head);
    bench.hear(backend, HALF);
    bench.step(vec![Event::Blocked { socket: bench.client, rest: all_of(b"abc") }], b"abc");
    let (after, ops) = bench.drip(b"x", 10 * S);
    assert!(after >= S && after < 1_500 * MS, "{after:?}");
    assert_eq!(reason(&ops), CloseReason::WriteTimeout);
    // Who takes something now and then has its time anew.
    let mut bench = self::bench();
    let backend = bench.ask(head);
    for _ in 0..5 {
        bench.hear(backend, if bench.now == self::bench().now { HALF } else { b"d" });
        bench.step(vec![Event::Blocked { socket: bench.client, rest: all_of(b"c") }], b"c");
        let ops = [bench.pass(900 * MS), bench.say(b"x")].concat();
        assert_eq!(bench.ends(&ops), [""; 0]);
        bench.step(vec![Event::Drained { socket: bench.client }], b"");
    }
}

#[test]
fn a_client_that_pipelined_is_heard_when_it_goes() {
    for ahead in [&b"\r\n"[..], ASKS] {
        let mut bench = bench();
        let backend = opened(&bench.say(&[ASKS, ahead].concat()));
        assert!(!credit_was_taken(&bench), "{ahead:?}");
        bench.say(ahead);
        assert!(!credit_was_taken(&bench), "{ahead:?}");
        let ops = bench.step(vec![Event::Eof { socket: bench.client }], b"");
        assert_eq!((reason(&ops), ends(&ops, backend)), (CloseReason::ClientGone, vec!["reset"]));
    }
}

fn credit_was_taken(bench: &Bench) -> bool {
    bench.out.ops.iter().any(|op| matches!(op, Op::Credit { socket, on: false } if *socket == bench.client))
}

#[test]
fn what_a_client_sends_ahead_has_bounds_and_comes_to_its_turn() {
    let mut bench = Bench::new(alone(), listener());
    let backend = bench.ask(ASKS);
    let filled = format!("GET /next HTTP/1.1\r\nHost: a\r\nFill: {}", "x".repeat(5_000));
    bench.say(filled.as_bytes());
    assert!(!credit_was_taken(&bench));
    bench.say(format!("\r\nMore: {}", "x".repeat(5_000)).as_bytes());
    assert!(!credit_was_taken(&bench));
    bench.say(format!("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nLast: {}", "x".repeat(8_000)).as_bytes());
    assert!(credit_was_taken(&bench), "more than that waits nowhere");
    bench.hear(backend, NOTHING);
    let text = String::from_utf8_lossy(&bench.out.bytes).into_owned();
    assert!(text.contains("204 No Content"), "{text}");
    let ops = bench.step(Vec::new(), b"");
    let text = format!("{text}{}", String::from_utf8_lossy(&bench.out.bytes));
    assert!(text.contains("GET /next") && !ends(&ops, backend).contains(&"reset"), "{text}");
}

#[test]
fn a_backend_s_latency_begins_with_the_end_of_the_request() {
    let mut bench = bench();
    for _ in 0..3 {
        let ops = bench.say(BEGINS);
        let backend = match ops.iter().any(|op| matches!(op, Op::Connect { .. })) {
            true => opened(&ops),
            false => panic!("nobody is left: {ops:?}"),
        };
        bench.step(vec![Event::Opened { socket: backend, local: addr("10.9.9.9:9") }], b"");
        bench.pass(S);
        bench.say(b"defghi");
        bench.hear(backend, b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    }
    // An answer to the half of it says nothing about that.
    let backend = bench.ask(BEGINS);
    bench.pass(S);
    bench.hear(backend, NOTHING);
    assert!(bench.is_served());
    // What is late is late.
    for client in ["192.0.2.9:1000", "192.0.2.9:1001"] {
        bench.client = bench.connect(client);
        let backend = bench.ask(ASKS);
        bench.pass(301 * MS);
        bench.hear(backend, b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    }
    assert!(!bench.is_served());
}

#[test]
fn a_client_that_stops_in_the_middle_of_its_body_is_no_backend_s_fault() {
    let mut bench = bench();
    let backend = bench.ask(BEGINS);
    bench.hear(backend, HALF);
    let ops = bench.pass(S + 2 * MS);
    assert_eq!((reason(&ops), bench.ends(&ops)), (CloseReason::BodyTimeout, vec!["reset"]));
    for client in ["192.0.2.9:1000", "192.0.2.9:1001"] {
        assert!(bench.is_served());
        bench.client = bench.connect(client);
        let backend = bench.ask(BEGINS);
        // Of a backend that takes nothing of the request nobody knows what it would say.
        let is_stuck = Event::Blocked { socket: backend, rest: all_of(b"abc") };
        bench.step(vec![is_stuck], b"abc");
        bench.hear(backend, HALF);
        let ops = bench.pass(S + 2 * MS);
        assert_eq!(reason(&ops), CloseReason::ResponseTimeout);
    }
    assert!(!bench.is_served());
}

#[test]
fn a_backend_that_does_not_ask_for_a_body_that_is_held_back_is_too_late_and_not_ejected() {
    let patient = || {
        let http = HttpListener { body_timeout: 8 * S, ..HttpListener::default() };
        Bench::new(document(), Listener { http, ..Listener::default() })
    };
    let mut bench = patient();
    for client in ["192.0.2.9:1000", "192.0.2.9:1001", "192.0.2.9:1002"] {
        bench.client = bench.connect(client);
        bench.ask(EXPECTS);
        let ops = bench.pass(4 * S);
        assert_eq!(bench.ends(&ops), [""; 0], "its client may wait");
        let ops = bench.pass(S + 2 * MS);
        assert_eq!((reason(&ops), detail(&ops).status), (CloseReason::ResponseTimeout, Some(504)));
    }
    assert!(bench.is_served());
    // Once it was asked, the client has its time.
    let mut bench = patient();
    let backend = bench.ask(EXPECTS);
    bench.pass(4 * S);
    let ops = bench.hear(backend, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(bench.ends(&ops), ["write"]);
    let ops = bench.pass(7 * S);
    assert_eq!(bench.ends(&ops), [""; 0]);
    let ops = bench.pass(S + 2 * MS);
    assert_eq!((reason(&ops), detail(&ops).status), (CloseReason::BodyTimeout, Some(408)));
    // So it has if it didn't wait.
    let mut bench = patient();
    bench.ask(EXPECTS);
    bench.pass(S);
    bench.say(b"abc");
    let ops = bench.pass(7 * S);
    assert_eq!(bench.ends(&ops), [""; 0]);
    let ops = bench.pass(S + 2 * MS);
    assert_eq!(reason(&ops), CloseReason::BodyTimeout);
}

#[test]
fn the_lifetime_of_what_a_request_became_begins_when_it_became_that() {
    let mut document = alone();
    cluster(&mut document).tcp.lifetime = Some(2 * S);
    let mut bench = Bench::new(document, listener());
    let backend = bench.ask(ASKS);
    bench.hear(backend, NOTHING);
    bench.pass(3 * S);
    let backend = bench.ask(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    bench.hear(backend, b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    let ops = bench.pass(1_900 * MS);
    assert_eq!(bench.ends(&ops), [""; 0]);
    let ops = bench.pass(200 * MS);
    let record = records(&ops)[0].clone();
    assert_eq!(record.reason, CloseReason::Lifetime);
    assert!(record.duration < 3 * S, "{record:?}");
}

#[test]
fn a_record_tells_of_the_connection_that_its_request_had_last() {
    let mut bench = Bench::new(alone(), listener());
    let first = bench.ask(ASKS);
    bench.hear(first, NOTHING);
    bench.say(ASKS);
    let second = opened(&bench.step(vec![Event::Broken { socket: first, by: BrokenBy::Peer }], b""));
    bench.now = bench.now + 7 * MS;
    bench.step(vec![Event::Opened { socket: second, local: addr("10.9.9.9:9") }], b"");
    let ops = bench.hear(second, NOTHING);
    let told = detail(&ops);
    assert_eq!((told.attempts, told.reused, told.connect), (2, false, Some(7 * MS)));
}

#[test]
fn a_try_on_a_connection_that_waited_has_no_time_of_connecting() {
    let mut document = document();
    cluster(&mut document).health = None;
    let retry = Retry { on: vec![RetryOn::Reset], ..Retry::default() };
    document.routes.get_mut(&Name::new("r")).expect("a route").retry = retry;
    let mut bench = Bench::new(document, listener());
    // A connection to either of them.
    let first = bench.ask(ASKS);
    let client = std::mem::take(&mut bench.client);
    bench.client = bench.connect("192.0.2.9:1000");
    let second = bench.ask(ASKS);
    bench.hear(second, NOTHING);
    bench.hear(first, b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    bench.client = client;
    // A new one to the first that breaks, then the one that waits.
    let third = bench.ask(ASKS);
    let ops = bench.step(vec![Event::Broken { socket: third, by: BrokenBy::Peer }], b"");
    assert_eq!(ends(&ops, second), ["write"]);
    let ops = bench.hear(second, NOTHING);
    let told = detail(&ops);
    assert_eq!((told.attempts, told.reused, told.connect), (2, true, None));
}

/// A worker with a connection to a backend that waits, which then may wait so long.
fn waiting(most: Option<Duration>) -> (Bench, SocketId, Vec<Op>) {
    let mut bench = bench();
    let backend = bench.ask(ASKS);
    bench.hear(backend, NOTHING);
    bench.pass(300 * MS);
    let mut document = document();
    cluster(&mut document).http.idle_timeout = most;
    document.listeners =
        [("web".into(), Listener { protocol: Protocol::Http, bind: vec![addr("0.0.0.0:80")], ..listener() })].into();
    let ops = bench.publish(&document, 2);
    (bench, backend, ops)
}

#[test]
fn connections_that_wait_are_held_to_the_time_that_they_may_wait_now() {
    for most in [None, Some(200 * MS)] {
        let (_, backend, ops) = waiting(most);
        assert_eq!(ends(&ops, backend), ["close"], "{most:?}");
    }
    let (mut bench, backend, ops) = waiting(Some(500 * MS));
    assert_eq!(ends(&ops, backend), [""; 0]);
    let ops = bench.pass(202 * MS);
    assert_eq!(ends(&ops, backend), ["close"]);
    let (mut bench, backend, _) = waiting(Some(60 * S));
    let ops = bench.pass(40 * S);
    assert_eq!(ends(&ops, backend), [""; 0], "also where that is longer");
}

#[test]
fn a_request_of_the_very_step_gets_no_connection_that_waited_too_long() {
    let mut bench = Bench::new(alone(), listener());
    let backend = bench.ask(ASKS);
    bench.hear(backend, NOTHING);
    bench.now = bench.now + 30 * S;
    let ops = bench.say(ASKS);
    assert_eq!(ends(&ops, backend), ["close"]);
    assert_ne!(opened(&ops), backend);
}
