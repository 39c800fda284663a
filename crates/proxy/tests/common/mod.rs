//! A worker with one HTTP listener and one client, driven by hand.

use std::net::SocketAddr;
use std::sync::Arc;

use kakei_config::*;
use kakei_proxy::seam::*;
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::worker::{Role, Worker};

pub(crate) struct Bench {
    pub(crate) worker: Worker,
    pub(crate) out: Outbox,
    pub(crate) now: Instant,
    pub(crate) wake: Option<Instant>,
    pub(crate) front: SocketId,
    pub(crate) client: SocketId,
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub(crate) fn all_of(bytes: &[u8]) -> Span {
    Span { start: 0, len: bytes.len() as u32 }
}

impl Bench {
    /// A worker that runs this document, with the listener, and a client that has connected.
    pub(crate) fn new(mut document: Document, listener: Listener) -> Self {
        let listener = Listener { protocol: Protocol::Http, bind: vec![addr("0.0.0.0:80")], ..listener };
        document.listeners = [("web".into(), listener)].into();
        let mut bench = Bench::of(&document);
        bench.client = bench.connect("192.0.2.7:1000");
        bench
    }

    /// A worker that runs this document, which has one listener.
    pub(crate) fn of(document: &Document) -> Self {
        let (worker, out) = (Worker::new(Role { index: 0, seed: 1 }), Outbox::default());
        let (now, none) = (Instant::from_nanos(1_000_000_000_000), SocketId::default());
        let mut bench = Bench { worker, out, now, wake: None, front: none, client: none };
        bench.front = opened(&bench.publish(document, 1));
        bench.step(vec![Event::Opened { socket: bench.front, local: addr("0.0.0.0:80") }], b"");
        bench
    }

    /// It runs this from now on.
    pub(crate) fn publish(&mut self, document: &Document, generation: u64) -> Vec<Op> {
        let command = Command::Publish(compile(document, generation));
        self.step(vec![Event::Command { ticket: Ticket(1), command }], b"")
    }

    /// A client connects from there.
    pub(crate) fn connect(&mut self, peer: &str) -> SocketId {
        let (front, peer, local) = (self.front, addr(peer), addr("192.0.2.1:80"));
        let accepted = Accepted { front, arrival: Arrival(1), peer, local };
        opened(&self.step(vec![Event::Accepted(accepted)], b""))
    }

    pub(crate) fn step(&mut self, mut events: Vec<Event>, bytes: &[u8]) -> Vec<Op> {
        self.out.clear();
        let inbox = Inbox { events: &mut events, bytes, wall: Wall::default() };
        self.wake = self.worker.step(self.now, inbox, &mut self.out);
        self.out.ops.clone()
    }

    /// The client says this.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> Vec<Op> {
        self.step(vec![Event::Data { socket: self.client, bytes: all_of(bytes) }], bytes)
    }

    /// What becomes of the client's stream.
    pub(crate) fn ends(&self, ops: &[Op]) -> Vec<&'static str> {
        ends(ops, self.client)
    }
}

pub(crate) fn compile(document: &Document, generation: u64) -> Arc<Snapshot> {
    let shared = Shared { workers: 1, balance_seed: 0 };
    Arc::new(Snapshot::compile(document, Generation(generation), shared, None))
}

/// The first socket that a step asks for.
pub(crate) fn opened(ops: &[Op]) -> SocketId {
    let of = |op: &Op| match op {
        Op::Listen { socket, .. } | Op::Accept { socket, .. } | Op::Connect { socket, .. } => Some(*socket),
        _ => None,
    };
    ops.iter().find_map(of).expect("a socket")
}

/// What becomes of a stream.
pub(crate) fn ends(ops: &[Op], of: SocketId) -> Vec<&'static str> {
    let said = |op: &Op| match op {
        Op::Write { socket, .. } if *socket == of => Some("write"),
        Op::Shutdown { socket } if *socket == of => Some("shutdown"),
        Op::Close { socket } if *socket == of => Some("close"),
        Op::Reset { socket } if *socket == of => Some("reset"),
        _ => None,
    };
    ops.iter().filter_map(said).collect()
}
