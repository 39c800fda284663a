//! A worker driven by hand, one fact a test: how a request ends that became a connection of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use kakei_config::*;
use kakei_proxy::seam::*;
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::worker::{Role, Worker};

const ASKS: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
const SWITCHES: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

struct Bench {
    worker: Worker,
    out: Outbox,
    now: Instant,
    wake: Option<Instant>,
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn all_of(bytes: &[u8]) -> Span {
    Span { start: 0, len: bytes.len() as u32 }
}

impl Bench {
    fn step(&mut self, mut events: Vec<Event>, bytes: &[u8]) -> Vec<Op> {
        self.out.clear();
        let inbox = Inbox { events: &mut events, bytes, wall: Wall::default() };
        self.wake = self.worker.step(self.now, inbox, &mut self.out);
        self.out.ops.clone()
    }

    /// A worker, with a client that asked for another protocol and the stream to the backend that it is to come from.
    fn new() -> (Self, SocketId, SocketId) {
        let listener = Listener {
            protocol: Protocol::Http,
            bind: vec![addr("0.0.0.0:80")],
            cluster: Some("c".into()),
            ..Listener::default()
        };
        let cluster = Cluster { backends: vec![Backend::at(addr("10.0.0.1:80"))], ..Cluster::default() };
        let document = Document {
            listeners: [("web".into(), listener)].into(),
            clusters: [("c".into(), cluster)].into(),
            ..Document::default()
        };
        let shared = Shared { workers: 1, balance_seed: 0 };
        let snapshot = Arc::new(Snapshot::compile(&document, Generation(1), shared, None));
        let worker = Worker::new(Role { index: 0, seed: 1 });
        let now = Instant::from_nanos(1_000_000_000_000);
        let mut bench = Bench { worker, out: Outbox::default(), now, wake: None };
        let ops = bench.step(vec![Event::Command { ticket: Ticket(1), command: Command::Publish(snapshot) }], b"");
        let front = opened(&ops);
        bench.step(vec![Event::Opened { socket: front, local: addr("0.0.0.0:80") }], b"");
        let (peer, local) = (addr("192.0.2.7:1000"), addr("192.0.2.1:80"));
        let ops = bench.step(vec![Event::Accepted(Accepted { front, arrival: Arrival(1), peer, local })], b"");
        let client = opened(&ops);
        let ops = bench.step(vec![Event::Data { socket: client, bytes: all_of(ASKS) }], ASKS);
        let backend = opened(&ops);
        bench.step(vec![Event::Opened { socket: backend, local: addr("10.9.9.9:9") }], b"");
        (bench, client, backend)
    }
}

/// The one socket that a step asks for.
fn opened(ops: &[Op]) -> SocketId {
    let of = |op: &Op| match op {
        Op::Listen { socket, .. } | Op::Accept { socket, .. } | Op::Connect { socket, .. } => Some(*socket),
        _ => None,
    };
    ops.iter().find_map(of).expect("a socket")
}

fn ends(ops: &[Op], of: SocketId) -> Vec<&'static str> {
    let said = |op: &Op| match op {
        Op::Write { socket, .. } if *socket == of => Some("write"),
        Op::Shutdown { socket } if *socket == of => Some("shutdown"),
        Op::Close { socket } if *socket == of => Some("close"),
        Op::Reset { socket } if *socket == of => Some("reset"),
        _ => None,
    };
    ops.iter().filter_map(said).collect()
}

/// Both sides have said all in the step of the answer.
fn all_at_once(bench: &mut Bench, client: SocketId, backend: SocketId) -> Vec<Op> {
    let answer = Event::Data { socket: backend, bytes: all_of(SWITCHES) };
    bench.step(vec![answer, Event::Eof { socket: backend }, Event::Eof { socket: client }], SWITCHES)
}

#[test]
fn it_does_not_end_before_it_is_known_that_the_answer_was_taken() {
    let (mut bench, client, backend) = Bench::new();
    let ops = all_at_once(&mut bench, client, backend);
    assert_eq!(ends(&ops, client), ["write", "shutdown"], "{ops:?}");
    assert_eq!(bench.wake, Some(bench.now), "the next step is to come at once");
    let ops = bench.step(Vec::new(), b"");
    assert_eq!((ends(&ops, client), ends(&ops, backend)), (vec!["close"], vec!["close"]));
}

#[test]
fn what_was_not_taken_of_the_answer_goes_before_its_end() {
    let (mut bench, client, backend) = Bench::new();
    all_at_once(&mut bench, client, backend);
    let ops = bench.step(vec![Event::Blocked { socket: client, rest: all_of(b"\r\n") }], b"\r\n");
    assert_eq!(ends(&ops, client), [""; 0], "{ops:?}");
    let ops = bench.step(vec![Event::Drained { socket: client }], b"");
    assert_eq!(ends(&ops, client), ["write", "shutdown"], "{ops:?}");
    let ops = bench.step(Vec::new(), b"");
    assert_eq!((ends(&ops, client), ends(&ops, backend)), (vec!["close"], vec!["close"]));
}
