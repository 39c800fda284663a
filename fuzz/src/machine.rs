//! A machine without a kernel: it keeps the seam's contract, checks the worker's side of it, and lets a script decide
//! what happens. Moves no datagram from one socket to another.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kakei_config::{Document, Name};
use kakei_proxy::limits::EVENTS_PER_STEP;
use kakei_proxy::seam::{
    BackendHealth, Command, Datagram, Event, Filter, Inbox, Instant, Notice, Op, OpenError, Outbox, Remote, Reply,
    Send, SendError, SocketId, Span, Ticket, Wall,
};
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::stats::{ClusterMetric, ListenerMetric, Stats};
use kakei_proxy::worker::{Role, Worker};
use kakei_wire::proxy_protocol::{Addresses, Transport, v2};

use crate::document::{self, BACKENDS};
use crate::script::Script;

const CLIENTS: [&str; 8] = [
    "10.0.0.1:4000",
    "10.0.0.1:4001",
    "10.0.0.2:4000",
    "10.1.0.1:4000",
    "10.1.0.1:4001",
    "192.0.2.1:4000",
    "[2001:db8::1]:4000",
    "[::ffff:10.0.0.1]:4000",
];
/// Steps in which a worker must have come to rest: each handles a budget of what is due.
const STEPS_TO_REST: usize = 1_000;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Front(SocketAddr),
    Connected(SocketAddr),
    Many,
    Stream,
}

#[derive(Clone, Copy)]
struct Socket {
    kind: Kind,
    opened: bool,
}

pub struct Machine {
    worker: Worker,
    now: Instant,
    wake: Option<Instant>,
    events: Vec<Event>,
    arena: Vec<u8>,
    out: Outbox,
    sockets: BTreeMap<SocketId, Socket>,
    closed: Vec<SocketId>,
    /// Sockets that could not be opened, which the worker learns in this step and may close before it does.
    failed: Vec<SocketId>,
    /// Sends of the last step that have not failed yet.
    sends: Vec<Send>,
    snapshot: Option<Arc<Snapshot>>,
    /// Commands of this step; each must be answered in it.
    asked: Vec<Ticket>,
    tickets: u64,
    stats: Option<Box<Stats>>,
    drained: bool,
    /// Whether every step is printed: `KAKEI_FUZZ_TRACE` is set.
    trace: bool,
}

impl Machine {
    pub fn new(seed: u8) -> Self {
        Machine {
            worker: Worker::new(Role { index: u16::from(seed & 1), seed: u64::from(seed) }),
            now: Instant::ZERO + Duration::from_secs(1),
            wake: None,
            events: Vec::new(),
            arena: Vec::new(),
            out: Outbox::default(),
            sockets: BTreeMap::new(),
            closed: Vec::new(),
            failed: Vec::new(),
            sends: Vec::new(),
            snapshot: None,
            asked: Vec::new(),
            tickets: 0,
            stats: None,
            drained: false,
            trace: std::env::var_os("KAKEI_FUZZ_TRACE").is_some(),
        }
    }

    /// One thing that happens, as the script decides.
    pub fn act(&mut self, script: &mut Script<'_>) {
        match script.below(16) {
            0..=3 => self.client_datagram(script),
            4..=6 => self.backend_datagram(script),
            7 => self.open_answered(script),
            8 => self.unreachable(script),
            9 => self.send_failed(script),
            10 => {
                self.step();
                self.now = self.now + Duration::from_millis(1 << script.below(13));
            }
            11 => self.publish(document::drawn(script)),
            12 => self.command(script),
            13 => self.stale(script),
            14 => drop(self.check_counters()),
            _ => self.step(),
        }
        if self.events.len() >= EVENTS_PER_STEP {
            self.step();
        }
    }

    pub fn publish(&mut self, document: Document) {
        let generation = Generation(self.snapshot.as_ref().map_or(1, |snapshot| snapshot.generation.0 + 1));
        let shared = Shared { workers: 1, balance_seed: 7 };
        let snapshot = Arc::new(Snapshot::compile(&document, generation, shared, self.snapshot.as_deref()));
        self.snapshot = Some(Arc::clone(&snapshot));
        self.ask(Command::Publish(snapshot));
    }

    /// Answer every open that waits, with success.
    pub fn settle(&mut self) {
        let waiting: Vec<SocketId> = self.sockets_where(|socket| !socket.opened);
        for socket in waiting {
            self.opened(socket);
        }
        self.step();
    }

    fn client_datagram(&mut self, script: &mut Script<'_>) {
        let fronts = self.sockets_where(|socket| socket.opened && matches!(socket.kind, Kind::Front(_)));
        let (Some(socket), Some(client)) = (script.one_of(&fronts), script.one_of(&CLIENTS)) else { return };
        let Kind::Front(bound) = self.sockets[&socket].kind else { return };
        let local = match (bound.ip().is_unspecified(), script.flag()) {
            (false, _) => bound.ip(),
            (true, first) => IpAddr::from([127, 0, 0, if first { 1 } else { 2 }]),
        };
        let peer = document::address(client);
        let header = self.header(script);
        let (bytes, segment) = self.payload(script, &header);
        self.events.push(Event::Datagram(Datagram { socket, peer, local, segment, bytes }));
    }

    fn backend_datagram(&mut self, script: &mut Script<'_>) {
        let backs =
            self.sockets_where(|socket| socket.opened && matches!(socket.kind, Kind::Connected(_) | Kind::Many));
        let Some(socket) = script.one_of(&backs) else { return };
        let peer = match self.sockets[&socket].kind {
            Kind::Connected(peer) => peer,
            _ => document::address(BACKENDS[script.below(BACKENDS.len())]),
        };
        let (bytes, segment) = self.payload(script, &[]);
        let local = IpAddr::from([127, 0, 0, 1]);
        self.events.push(Event::Datagram(Datagram { socket, peer, local, segment, bytes }));
    }

    /// No PROXY header, a right one, or anything.
    fn header(&mut self, script: &mut Script<'_>) -> Vec<u8> {
        let kind = script.byte();
        match kind % 4 {
            0 => {
                let mut out = [0; v2::MAX_EMITTED];
                let [source, destination] =
                    [kind >> 2 & 7, kind >> 5].map(|at| document::address(CLIENTS[usize::from(at)]));
                let len = v2::emit(Addresses { source, destination }, Transport::Datagram, &mut out);
                out[..len].to_vec()
            }
            1 => [&v2::SIGNATURE, script.bytes(usize::from(kind >> 2))].concat(),
            _ => Vec::new(),
        }
    }

    /// A datagram, or a train of them, in the arena.
    fn payload(&mut self, script: &mut Script<'_>, header: &[u8]) -> (Span, u16) {
        let shape = script.byte();
        let segment = header.len() + usize::from(shape & 0x1f);
        let train = if shape & 0x20 != 0 && segment > 0 { 2 + usize::from(shape >> 6) } else { 1 };
        let start = self.arena.len() as u32;
        for n in 0..train {
            self.arena.extend_from_slice(header);
            let short = if n + 1 == train && train > 1 { usize::from(shape & 1) } else { 0 };
            self.arena.resize(start as usize + (n + 1) * segment - short, n as u8);
        }
        if train == 1 && shape >> 6 == 3 {
            self.arena.resize(start as usize + 700, 0);
        }
        let bytes = Span { start, len: self.arena.len() as u32 - start };
        (bytes, if train > 1 { segment as u16 } else { 0 })
    }

    fn open_answered(&mut self, script: &mut Script<'_>) {
        let waiting = self.sockets_where(|socket| !socket.opened);
        let Some(socket) = script.one_of(&waiting) else { return };
        let errors = [OpenError::NoDescriptors, OpenError::NoPorts, OpenError::Unreachable, OpenError::Other];
        match script.below(8) {
            at @ 0..4 => {
                self.sockets.remove(&socket);
                self.closed.push(socket);
                self.failed.push(socket);
                self.events.push(Event::OpenFailed { socket, error: errors[at] });
            }
            _ => self.opened(socket),
        }
    }

    fn opened(&mut self, socket: SocketId) {
        let Some(state) = self.sockets.get_mut(&socket) else { return };
        state.opened = true;
        let local = match state.kind {
            Kind::Front(bound) => SocketAddr::new(bound.ip(), bound.port().max(1)),
            _ => SocketAddr::from(([127, 0, 0, 1], 40_000)),
        };
        self.events.push(Event::Opened { socket, local });
    }

    fn unreachable(&mut self, script: &mut Script<'_>) {
        let opened = self.sockets_where(|socket| socket.opened);
        let Some(socket) = script.one_of(&opened) else { return };
        let peer = match self.sockets[&socket].kind {
            Kind::Connected(_) | Kind::Stream => None,
            Kind::Front(_) => Some(document::address(CLIENTS[script.below(CLIENTS.len())])),
            Kind::Many => Some(document::address(BACKENDS[script.below(BACKENDS.len())])),
        };
        self.events.push(Event::Unreachable { socket, peer });
    }

    /// A send of the last step that was not carried out, from some datagram of it on.
    fn send_failed(&mut self, script: &mut Script<'_>) {
        if self.sends.is_empty() {
            return;
        }
        let send = self.sends.swap_remove(script.below(self.sends.len()));
        let errors = [SendError::QueueFull, SendError::TooBig, SendError::Unreachable, SendError::Other];
        let error = errors[script.below(errors.len())];
        let (len, segment) = (send.bytes.len(), usize::from(send.segment));
        let datagrams = if segment == 0 { 1 } else { len.div_ceil(segment) };
        let sent = script.below(datagrams.min(256));
        self.events.push(Event::SendFailed {
            socket: send.socket,
            tag: send.tag,
            datagrams: (datagrams - sent) as u32,
            bytes: (len - sent * segment) as u32,
            error,
        });
    }

    fn command(&mut self, script: &mut Script<'_>) {
        let name = |script: &mut Script<'_>, names: &[&str]| Name::new(names[script.below(names.len())]);
        match script.below(6) {
            0 => self.ask(Command::Flows(Filter { limit: 5, ..Filter::default() })),
            1 => self.ask(Command::Snapshot),
            2 => self.ask(Command::Drain { within: None }),
            3 => self.ask(Command::Drain { within: Some(Duration::from_secs(1)) }),
            _ => {
                let cluster = name(script, &["x", "y", "z"]);
                let backend = name(script, &["b0", "b1", "b2", "b3"]);
                let address = document::address(BACKENDS[script.below(BACKENDS.len())]).into();
                self.ask(Command::Health(BackendHealth { cluster, backend, address, up: script.flag(), why: None }));
            }
        }
    }

    /// An event about a socket that was closed, or that never was.
    fn stale(&mut self, script: &mut Script<'_>) {
        let socket = script.one_of(&self.closed).unwrap_or_default();
        let peer = document::address(CLIENTS[script.below(CLIENTS.len())]);
        let (bytes, segment) = self.payload(script, &[]);
        self.events.push(match script.below(6) {
            0 => Event::Datagram(Datagram { socket, peer, local: IpAddr::from([127, 0, 0, 1]), segment, bytes }),
            1 => Event::Opened { socket, local: peer },
            2 => Event::OpenFailed { socket, error: OpenError::Other },
            3 => Event::Unreachable { socket, peer: Some(peer) },
            4 => Event::Overflow { socket, datagrams: 3 },
            _ => Event::SendFailed { socket, tag: 0, datagrams: 1, bytes: 1, error: SendError::QueueFull },
        });
    }

    fn ask(&mut self, command: Command) {
        self.tickets += 1;
        self.asked.push(Ticket(self.tickets));
        self.events.push(Event::Command { ticket: Ticket(self.tickets), command });
    }

    /// Step until the worker has done all that it can do now.
    pub fn step(&mut self) {
        for _ in 0..STEPS_TO_REST {
            if self.trace {
                eprintln!("{:?}: {:#?}", self.now, self.events);
            }
            let inbox = Inbox { events: &mut self.events, bytes: &self.arena, wall: Wall::default() };
            self.wake = self.worker.step(self.now, inbox, &mut self.out);
            assert!(self.events.is_empty(), "a step drains its inbox");
            assert!(self.wake.is_none_or(|wake| wake >= self.now), "a wake-up lies ahead");
            if self.trace {
                eprintln!("asks for {:#?}, wants to be called at {:?}", self.out.ops, self.wake);
            }
            self.carry_out();
            if self.wake != Some(self.now) {
                return;
            }
        }
        panic!("the worker asks to be called at once, for ever");
    }

    fn carry_out(&mut self) {
        self.sends.clear();
        for op in std::mem::take(&mut self.out.ops) {
            self.carry_out_one(op);
        }
        assert!(self.asked.is_empty(), "every command is answered in its step: {:?} are not", self.asked);
        self.out.clear();
        self.arena.clear();
        self.failed.clear();
    }

    fn carry_out_one(&mut self, op: Op) {
        match op {
            Op::Listen { socket, bind } => self.open(socket, Kind::Front(bind.address)),
            Op::OpenDatagram { socket, remote: Remote::Connected(peer) } => self.open(socket, Kind::Connected(peer)),
            Op::OpenDatagram { socket, .. } => self.open(socket, Kind::Many),
            Op::Accept { .. }
            | Op::Refuse { .. }
            | Op::Write { .. }
            | Op::Shutdown { .. }
            | Op::Farewell { .. }
            | Op::Credit { .. }
            | Op::Pipe { .. }
            | Op::Unpipe { .. }
            | Op::Verify(_)
            | Op::Reset { .. } => panic!("{op:?}, and there are only flows"),
            Op::Connect { socket, .. } => self.open(socket, Kind::Stream),
            Op::Close { socket } => {
                let known = self.sockets.remove(&socket).is_some() || self.failed.contains(&socket);
                assert!(known, "only what is open can be closed, once");
                self.closed.push(socket);
            }
            Op::Send(send) => self.send(send),
            Op::Reply { ticket, reply } => self.reply(ticket, reply),
            Op::Notice(Notice::Drained) => {
                assert!(self.sockets.is_empty(), "drained means that every socket is closed");
                self.drained = true;
            }
            Op::Unbind { .. } | Op::Adopt { .. } | Op::Notice(_) | Op::Record(_) => {}
        }
    }

    fn open(&mut self, socket: SocketId, kind: Kind) {
        let before = self.sockets.insert(socket, Socket { kind, opened: false });
        assert!(before.is_none(), "an id names one socket");
    }

    fn send(&mut self, send: Send) {
        let socket = self.sockets.get(&send.socket).expect("a send names a socket that is there");
        assert!(socket.opened, "nothing is sent before the socket is open");
        let connected = matches!(socket.kind, Kind::Connected(_));
        assert_eq!(send.to.is_none(), connected, "an address where it is needed, and only there");
        let (head, body) = (send.bytes.head.of(&self.out.bytes), send.bytes.body.of(&self.arena));
        assert_eq!(head.len() + body.len(), send.bytes.len());
        self.sends.push(send);
    }

    fn reply(&mut self, ticket: Ticket, reply: Reply) {
        let at = self.asked.iter().position(|&asked| asked == ticket).expect("each command has one reply");
        self.asked.swap_remove(at);
        if let Reply::Stats(stats) = reply {
            self.stats = Some(stats);
        }
    }

    /// Ask for the counters and add them up.
    pub fn check_counters(&mut self) -> Box<Stats> {
        self.ask(Command::Stats);
        self.step();
        let stats = self.stats.take().expect("counters were asked for");
        for listener in &stats.listeners {
            let of = |metric| listener.values[metric];
            let accounted =
                of(ListenerMetric::DatagramsForwarded) + listener.drops.sum() + of(ListenerMetric::DatagramsKept);
            assert_eq!(of(ListenerMetric::DatagramsIn), accounted, "every datagram is accounted for: {listener:?}");
            let flows = listener.closes.sum() + of(ListenerMetric::FlowsLive);
            assert_eq!(of(ListenerMetric::FlowsOpened), flows, "every flow is accounted for: {listener:?}");
        }
        for cluster in &stats.clusters {
            let returned = cluster.values[ClusterMetric::RepliesReturned] + cluster.drops.sum();
            assert_eq!(cluster.values[ClusterMetric::RepliesIn], returned, "every reply is accounted for: {cluster:?}");
        }
        stats
    }

    /// Drain at once: nothing may be left, and it may not take long. A worker that has drained before says so once.
    pub fn drain(&mut self) {
        self.ask(Command::Drain { within: Some(Duration::ZERO) });
        self.step();
        for _ in 0..STEPS_TO_REST {
            if self.drained {
                break;
            }
            self.settle();
            self.now = self.wake.unwrap_or(self.now).max(self.now);
        }
        assert!(self.drained, "a drain ends");
        let stats = self.check_counters();
        for listener in &stats.listeners {
            let left = [ListenerMetric::FlowsLive, ListenerMetric::DatagramsKept].map(|metric| listener.values[metric]);
            assert_eq!(left, [0, 0], "nothing is left of {:?}", listener.listener);
        }
    }

    fn sockets_where(&self, which: impl Fn(&Socket) -> bool) -> Vec<SocketId> {
        self.sockets.iter().filter(|(_, socket)| which(socket)).map(|(&id, _)| id).collect()
    }
}
