//! A datagram of a known flow costs the same among 10 and among 100,000 flows, counted in operations and timers.
//! Measures no time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kakei_config::{Backend, Balance, Cluster, Document, Limits, Listener, Name, Protocol, UdpKnobs};
use kakei_proxy::seam::{
    Command, Datagram, Event, Inbox, Instant, Op, Outbox, Remote, Reply, SocketId, Span, Ticket, Wall,
};
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::stats::WorkerMetric;
use kakei_proxy::worker::{Role, Worker};

const ROUNDS: u32 = 1_000;

/// A machine that opens everything at once and drops what is sent.
struct Rig {
    worker: Worker,
    now: Instant,
    arena: Vec<u8>,
    front: Option<SocketId>,
    out: Outbox,
    sends: u64,
    ops: u64,
    steps: u64,
    timers: u64,
}

impl Rig {
    fn step(&mut self, mut events: Vec<Event>) {
        self.steps += 1;
        let inbox = Inbox { events: &mut events, bytes: &self.arena, wall: Wall::default() };
        self.worker.step(self.now, inbox, &mut self.out);
        let mut next = Vec::new();
        let local = SocketAddr::from(([198, 18, 0, 1], 9));
        for op in self.out.ops.drain(..) {
            self.ops += 1;
            match op {
                Op::Listen { socket, .. } => {
                    self.front = Some(socket);
                    next.push(Event::Opened { socket, local });
                }
                Op::OpenDatagram { socket, remote: Remote::Connected(_) } => next.push(Event::Opened { socket, local }),
                Op::Send(_) => self.sends += 1,
                Op::Reply { reply: Reply::Stats(stats), .. } => self.timers = stats.worker[WorkerMetric::TimersFired],
                _ => {}
            }
        }
        self.out.clear();
        if !next.is_empty() {
            self.step(next);
        }
    }

    fn datagram(&mut self, flow: u32) {
        let octets = flow.to_be_bytes();
        let peer = SocketAddr::from(([10, octets[1], octets[2], octets[3]], 4_000));
        let socket = self.front.expect("it listens");
        let local = [203, 0, 113, 1].into();
        let bytes = Span { start: 0, len: 64 };
        self.step(vec![Event::Datagram(Datagram { socket, peer, local, segment: 0, bytes })]);
    }

    fn command(&mut self, command: Command) {
        self.step(vec![Event::Command { ticket: Ticket(self.steps), command }]);
    }
}

fn document() -> Document {
    let name = Name::new("c");
    let backends = (1..=4).map(|n| Backend {
        name: Name::new(format!("b{n}")),
        address: SocketAddr::from(([10, 0, 0, n], 53)).into(),
        weight: 1,
        backup: false,
    });
    let cluster = Cluster {
        balance: Balance::Hrw,
        backends: backends.collect(),
        udp: UdpKnobs { front_timeout: Duration::from_secs(600), ..UdpKnobs::default() },
        ..Cluster::default()
    };
    let listener = Listener {
        protocol: Protocol::Udp,
        bind: vec![SocketAddr::from(([203, 0, 113, 1], 53))],
        cluster: Some(name.clone()),
        limits: Limits { flows: 200_000, ..Limits::default() },
        max_datagram_size: 1_500,
        drain_timeout: Duration::from_secs(1),
        ..Listener::default()
    };
    Document {
        listeners: [(Name::new("l"), listener)].into(),
        clusters: [(name, cluster)].into(),
        ..Document::default()
    }
}

/// Operations, sends and timers of `ROUNDS` datagrams among `flows` flows.
fn cost(flows: u32) -> (u64, u64, u64) {
    let worker = Worker::new(Role { index: 0, seed: 1 });
    let (now, arena) = (Instant::from_nanos(1_000_000_000), vec![7; 64]);
    let mut rig =
        Rig { worker, now, arena, front: None, out: Outbox::default(), sends: 0, ops: 0, steps: 0, timers: 0 };
    let shared = Shared { workers: 1, balance_seed: 3 };
    let snapshot = Snapshot::compile(&document(), Generation(1), shared, None);
    rig.command(Command::Publish(Arc::new(snapshot)));
    for flow in 0..flows {
        rig.datagram(flow);
    }
    assert_eq!(rig.sends, u64::from(flows), "every flow was opened");
    rig.command(Command::Stats);
    let (ops, sends, timers) = (rig.ops, rig.sends, rig.timers);
    for round in 0..ROUNDS {
        rig.now = rig.now + Duration::from_millis(5);
        rig.datagram(round * 7 % flows);
    }
    let (ops, sends) = (rig.ops - ops, rig.sends - sends);
    rig.command(Command::Stats);
    (ops, sends, rig.timers - timers)
}

#[test]
fn a_datagram_costs_the_same_among_10_and_100_000_flows() {
    let (few, many) = (cost(10), cost(100_000));
    assert_eq!(few.1, u64::from(ROUNDS), "every datagram is forwarded");
    assert_eq!((few.0, few.1), (many.0, many.1), "operations");
    assert!(many.2 <= few.2 + 16, "timers: {} among few, {} among many", few.2, many.2);
}
