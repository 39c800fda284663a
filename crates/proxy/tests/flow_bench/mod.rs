//! A worker with one UDP listener, driven by hand. No machine, no clock.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kakei_config::*;
use kakei_proxy::record::CloseReason;
use kakei_proxy::seam::*;
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::stats::{DropReason, Stats};
use kakei_proxy::worker::{Role, Worker};

/// A worker with what a machine would hold for it.
pub(crate) struct Bench {
    pub(crate) worker: Worker,
    pub(crate) now: Instant,
    pub(crate) out: Outbox,
    pub(crate) arena: Vec<u8>,
    pub(crate) events: Vec<Event>,
    pub(crate) wake: Option<Instant>,
    pub(crate) generation: u64,
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub(crate) fn document(knobs: UdpKnobs, backends: &[&str]) -> Document {
    let backend = |address: &&str| Backend::at(addr(address));
    let cluster = Cluster {
        balance: Balance::RoundRobin,
        backends: backends.iter().map(backend).collect(),
        udp: knobs,
        ..Cluster::default()
    };
    let listener = Listener {
        protocol: Protocol::Udp,
        bind: vec![addr("0.0.0.0:53")],
        cluster: Some("c".into()),
        ..Listener::default()
    };
    Document {
        access_log: AccessLog { to: Some("stdout".into()), format: LogFormat::Json },
        listeners: [("l".into(), listener)].into(),
        clusters: [("c".into(), cluster)].into(),
        ..Document::default()
    }
}

impl Bench {
    pub(crate) fn new(document: &Document) -> Self {
        let worker = Worker::new(Role { index: 0, seed: 1 });
        let now = Instant::from_nanos(1_000_000_000_000);
        let (out, arena, events) = (Outbox::default(), Vec::new(), Vec::new());
        let mut bench = Bench { worker, now, out, arena, events, wake: None, generation: 0 };
        bench.publish(document);
        bench
    }

    pub(crate) fn publish(&mut self, document: &Document) -> Vec<Op> {
        self.generation += 1;
        let shared = Shared { workers: 1, balance_seed: 9 };
        let snapshot = Snapshot::compile(document, Generation(self.generation), shared, None);
        self.command(Command::Publish(Arc::new(snapshot)))
    }

    pub(crate) fn command(&mut self, command: Command) -> Vec<Op> {
        self.events.push(Event::Command { ticket: Ticket(1), command });
        self.step()
    }

    pub(crate) fn step(&mut self) -> Vec<Op> {
        self.out.clear();
        let inbox = Inbox { events: &mut self.events, bytes: &self.arena, wall: Wall::default() };
        self.wake = self.worker.step(self.now, inbox, &mut self.out);
        let ops = self.out.ops.clone();
        for op in &ops {
            if let Op::Listen { socket, bind } = op {
                self.events.push(Event::Opened { socket: *socket, local: bind.address });
            }
        }
        ops
    }

    pub(crate) fn bytes(&self, send: &Send) -> Vec<u8> {
        [send.bytes.head.of(&self.out.bytes), send.bytes.body.of(&self.arena)].concat()
    }

    /// Put a datagram (or a train) into the next step.
    pub(crate) fn put(&mut self, socket: SocketId, peer: &str, segment: u16, bytes: &[u8]) {
        let start = self.arena.len() as u32;
        self.arena.extend_from_slice(bytes);
        let bytes = Span { start, len: bytes.len() as u32 };
        let local = IpAddr::from([192, 0, 2, 1]);
        self.events.push(Event::Datagram(Datagram { socket, peer: addr(peer), local, segment, bytes }));
    }

    pub(crate) fn arrive(&mut self, socket: SocketId, peer: &str, bytes: &[u8]) -> Vec<Op> {
        self.arena.clear();
        self.put(socket, peer, 0, bytes);
        self.step()
    }

    pub(crate) fn open(&mut self, socket: SocketId) -> Vec<Op> {
        self.events.push(Event::Opened { socket, local: addr("10.9.9.9:40000") });
        self.step()
    }

    pub(crate) fn pass(&mut self, time: Duration) -> Vec<Op> {
        self.now = self.now + time;
        self.step()
    }

    pub(crate) fn stats(&mut self) -> Stats {
        let ops = self.command(Command::Stats);
        ops.into_iter()
            .find_map(|op| match op {
                Op::Reply { reply: Reply::Stats(stats), .. } => Some(*stats),
                _ => None,
            })
            .expect("an answer")
    }

    pub(crate) fn drops(&mut self, reason: DropReason) -> u64 {
        self.stats().listeners[0].drops.0[reason as usize]
    }
}

pub(crate) fn front(ops: &[Op]) -> SocketId {
    ops.iter()
        .find_map(|op| match op {
            Op::Listen { socket, .. } => Some(*socket),
            _ => None,
        })
        .expect("a listen")
}

pub(crate) fn opened(ops: &[Op]) -> Vec<SocketId> {
    ops.iter()
        .filter_map(|op| match op {
            Op::OpenDatagram { socket, .. } => Some(*socket),
            _ => None,
        })
        .collect()
}

pub(crate) fn sends(ops: &[Op]) -> Vec<Send> {
    ops.iter()
        .filter_map(|op| match op {
            Op::Send(send) => Some(*send),
            _ => None,
        })
        .collect()
}

pub(crate) fn reasons(ops: &[Op]) -> Vec<CloseReason> {
    ops.iter()
        .filter_map(|op| match op {
            Op::Record(record) => Some(record.reason),
            _ => None,
        })
        .collect()
}

/// A worker that listens, and its front socket.
pub(crate) fn ready(knobs: UdpKnobs, backends: &[&str]) -> (Bench, SocketId) {
    let document = document(knobs, backends);
    let mut bench = Bench::new(&document);
    let front = front(&bench.out.ops);
    bench.step();
    (bench, front)
}

pub(crate) const CLIENT: &str = "198.51.100.7:1234";
pub(crate) const BACKEND: &str = "10.0.0.1:53";

/// More than a tick of the worker's deadlines.
pub(crate) const SOON: Duration = Duration::from_millis(10);
