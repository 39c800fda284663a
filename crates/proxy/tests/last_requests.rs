//! A worker driven by hand, one fact a test: how a client's connection ends that said itself which request is its last.

use std::net::SocketAddr;
use std::sync::Arc;

use kakei_config::*;
use kakei_proxy::seam::*;
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::worker::{Role, Worker};

const LAST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

struct Bench {
    worker: Worker,
    out: Outbox,
    now: Instant,
    wake: Option<Instant>,
    client: SocketId,
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

impl Bench {
    /// A worker that answers by itself, and a client that has connected.
    fn new() -> Self {
        let listener = Listener { protocol: Protocol::Http, bind: vec![addr("0.0.0.0:80")], ..Listener::default() };
        let respond = Respond { status: 200, body: "fine".into(), ..Respond::default() };
        let route = Route { listener: "web".into(), respond: Some(respond.into()), ..Route::default() };
        let document = Document {
            listeners: [("web".into(), listener)].into(),
            routes: [("all".into(), route)].into(),
            ..Document::default()
        };
        let shared = Shared { workers: 1, balance_seed: 0 };
        let snapshot = Arc::new(Snapshot::compile(&document, Generation(1), shared, None));
        let worker = Worker::new(Role { index: 0, seed: 1 });
        let (out, now) = (Outbox::default(), Instant::from_nanos(1_000_000_000_000));
        let mut bench = Bench { worker, out, now, wake: None, client: SocketId::default() };
        let ops = bench.step(vec![Event::Command { ticket: Ticket(1), command: Command::Publish(snapshot) }], b"");
        let listening = ops.iter().find_map(|op| match op {
            Op::Listen { socket, .. } => Some(*socket),
            _ => None,
        });
        let front = listening.expect("a listen");
        bench.step(vec![Event::Opened { socket: front, local: addr("0.0.0.0:80") }], b"");
        let (peer, local) = (addr("192.0.2.7:1000"), addr("192.0.2.1:80"));
        let ops = bench.step(vec![Event::Accepted(Accepted { front, arrival: Arrival(1), peer, local })], b"");
        let accepted = ops.iter().find_map(|op| match op {
            Op::Accept { socket, .. } => Some(*socket),
            _ => None,
        });
        bench.client = accepted.expect("an accept");
        bench
    }

    fn step(&mut self, mut events: Vec<Event>, bytes: &[u8]) -> Vec<Op> {
        self.out.clear();
        let inbox = Inbox { events: &mut events, bytes, wall: Wall::default() };
        self.wake = self.worker.step(self.now, inbox, &mut self.out);
        self.out.ops.clone()
    }

    fn say(&mut self, bytes: &[u8]) -> Vec<Op> {
        let span = Span { start: 0, len: bytes.len() as u32 };
        self.step(vec![Event::Data { socket: self.client, bytes: span }], bytes)
    }

    fn ends(&self, ops: &[Op]) -> Vec<&'static str> {
        let of = |op: &Op| match op {
            Op::Write { socket, .. } if *socket == self.client => Some("write"),
            Op::Shutdown { socket } if *socket == self.client => Some("shutdown"),
            Op::Close { socket } if *socket == self.client => Some("close"),
            Op::Reset { socket } if *socket == self.client => Some("reset"),
            _ => None,
        };
        ops.iter().filter_map(of).collect()
    }
}

#[test]
fn who_said_that_nothing_follows_and_took_all_is_closed_with_the_next_step() {
    for request in [LAST, b"GET / HTTP/1.0\r\n\r\n"] {
        let mut bench = Bench::new();
        let ops = bench.say(request);
        assert!(bench.ends(&ops).ends_with(&["write"]), "{ops:?}");
        assert_eq!(bench.wake, Some(bench.now), "the next step is to come at once");
        let ops = bench.step(Vec::new(), b"");
        assert_eq!(bench.ends(&ops), ["close"]);
        assert_eq!(bench.wake, None, "nothing is left of it");
    }
}

#[test]
fn who_did_not_take_all_is_given_time() {
    let mut bench = Bench::new();
    bench.say(LAST);
    let rest = Span { start: 0, len: 4 };
    let ops = bench.step(vec![Event::Blocked { socket: bench.client, rest }], b"fine");
    assert!(bench.ends(&ops).is_empty(), "{ops:?}");
    let ops = bench.step(Vec::new(), b"");
    assert!(bench.ends(&ops).is_empty(), "{ops:?}");
    let ops = bench.step(vec![Event::Drained { socket: bench.client }], b"");
    assert_eq!(bench.ends(&ops), ["write", "shutdown"]);
}

#[test]
fn who_sends_more_all_the_same_is_given_time_to_read() {
    let mut bench = Bench::new();
    bench.say(LAST);
    let ops = bench.say(b"GET");
    assert_eq!(bench.ends(&ops), ["shutdown"], "closed with bytes unread, a reset would take its answer from it");
    let ops = bench.step(Vec::new(), b"");
    assert!(bench.ends(&ops).is_empty(), "{ops:?}");
    let mut bench = Bench::new();
    let ops = bench.say(&[LAST, LAST].concat());
    assert!(bench.ends(&ops).ends_with(&["write", "shutdown"]), "{ops:?}");
    let ops = bench.step(Vec::new(), b"");
    assert!(bench.ends(&ops).is_empty(), "{ops:?}");
}

#[test]
fn who_did_not_say_so_or_is_not_understood_is_given_time_to_read() {
    for request in [
        &b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nab"[..],
        b"GET /%zz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    ] {
        let mut bench = Bench::new();
        let ops = bench.say(request);
        assert!(bench.ends(&ops).ends_with(&["shutdown"]), "{ops:?}");
    }
}

#[test]
fn who_ends_itself_is_closed_once() {
    let mut bench = Bench::new();
    bench.say(LAST);
    let ops = bench.step(vec![Event::Eof { socket: bench.client }], b"");
    assert!(matches!(bench.ends(&ops)[..], ["shutdown", "close"] | ["close"]), "{ops:?}");
    let ops = bench.step(Vec::new(), b"");
    assert!(bench.ends(&ops).is_empty(), "{ops:?}");
}

#[test]
fn a_worker_that_is_written_down_owes_nobody_an_end() {
    let mut bench = Bench::new();
    let span = Span { start: 0, len: LAST.len() as u32 };
    let said = Event::Data { socket: bench.client, bytes: span };
    let ops = bench.step(vec![said, Event::Command { ticket: Ticket(2), command: Command::Snapshot }], LAST);
    let told = ops.iter().position(|op| matches!(op, Op::Reply { reply: Reply::State(_), .. }));
    let ended = ops.iter().position(|op| matches!(op, Op::Shutdown { .. }));
    assert!(ended.is_some() && ended < told, "{ops:?}");
}
