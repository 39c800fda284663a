//! One worker on a machine that takes everything and loses nothing: datagrams, streams, and the backends at the other end.
//! What it is told, and when, is the control side's and the seed's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kakei_proxy::seam::{
    Accepted, Arrival, BindKey, BrokenBy, Command, Datagram, Event, Inbox, Instant, Op, OpenError, Outbox, Remote,
    Reply, SocketId, Span, Ticket, Transport, Wall,
};
use kakei_proxy::snapshot::Snapshot;
use kakei_proxy::worker::{Role, Worker};
use kakei_runtime::engine::EngineEvent;

use crate::client::At;
use crate::world::Outside;

/// The ticket of a snapshot that a machine publishes again to a fresh worker.
const AGAIN: Ticket = Ticket(u64::MAX);
/// Steps at one moment after which a worker is said never to come to rest.
const ROUNDS: usize = 500;

/// A command on its way, and when it arrives.
pub(crate) type Order = (u64, Ticket, Command);

#[derive(Debug)]
enum Socket {
    Front,
    /// To backends.
    Datagrams {
        local: SocketAddr,
        remote: Option<SocketAddr>,
        inbox: VecDeque<(u64, SocketAddr, Vec<u8>)>,
    },
    Client {
        client: u32,
        credit: bool,
        told_end: bool,
    },
    Server(Server),
}

/// A stream to a backend, and the backend.
#[derive(Debug)]
struct Server {
    address: SocketAddr,
    /// When it is open, or isn't.
    opens: Option<(u64, bool)>,
    credit: bool,
    heard: Vec<u8>,
    says: VecDeque<(u64, Vec<u8>)>,
    /// The proxy says nothing more.
    is_shut: bool,
    told_end: bool,
}

#[derive(Debug)]
pub(crate) struct Machine {
    role: Role,
    worker: Worker,
    pub(crate) at: At,
    pub(crate) orders: VecDeque<Order>,
    unanswered: Vec<Ticket>,
    current: Option<Arc<Snapshot>>,
    /// After a panic: until when it rests, and that a fresh worker has to be told what runs.
    pub(crate) rests_until: Option<u64>,
    publish_again: bool,
    /// It is to panic at the next publication, or now.
    pub(crate) panics_next: bool,
    pending: Vec<Event>,
    sockets: BTreeMap<SocketId, Socket>,
    fronts: BTreeMap<SocketId, BindKey>,
    /// Binds whose front socket it has.
    pub(crate) held: BTreeSet<BindKey>,
    /// What arrived in front.
    datagrams: VecDeque<(BindKey, SocketAddr, Vec<u8>)>,
    arriving: VecDeque<(BindKey, u32)>,
    wake: Option<Instant>,
    out: Outbox,
    ports: u16,
}

/// A moment of the simulation, as workers count time.
pub(crate) fn instant(now: u64) -> Instant {
    Instant::from_nanos(1_000_000_000_000) + Duration::from_millis(now)
}

/// What the clock on the wall says then.
pub(crate) fn wall_seconds(now: u64) -> u64 {
    1_800_000_000 + now / 1_000
}

impl Machine {
    pub(crate) fn new(role: Role, life: u64) -> Self {
        Machine {
            role,
            worker: Worker::new(role),
            at: At { life, generation: 0 },
            orders: VecDeque::new(),
            unanswered: Vec::new(),
            current: None,
            rests_until: None,
            publish_again: false,
            panics_next: false,
            pending: Vec::new(),
            sockets: BTreeMap::new(),
            fronts: BTreeMap::new(),
            held: BTreeSet::new(),
            datagrams: VecDeque::new(),
            arriving: VecDeque::new(),
            wake: None,
            out: Outbox::default(),
            ports: 20_000,
        }
    }

    fn bind(protocol_is_udp: bool, address: SocketAddr) -> BindKey {
        let transport = if protocol_is_udp { Transport::Udp } else { Transport::Tcp };
        BindKey { transport, address }
    }

    /// A datagram for a front; false where nobody has it.
    pub(crate) fn arrive(&mut self, address: SocketAddr, peer: SocketAddr, bytes: Vec<u8>) -> bool {
        let bind = Machine::bind(true, address);
        let has = self.held.contains(&bind);
        if has {
            self.datagrams.push_back((bind, peer, bytes));
        }
        has
    }

    /// A client connects; false where nobody listens.
    pub(crate) fn connect(&mut self, address: SocketAddr, client: u32) -> bool {
        let bind = Machine::bind(false, address);
        let has = self.held.contains(&bind);
        if has {
            self.arriving.push_back((bind, client));
        }
        has
    }

    /// Sockets that are open but front ones.
    pub(crate) fn open_sockets(&self) -> usize {
        self.sockets.values().filter(|socket| !matches!(socket, Socket::Front)).count()
    }

    /// Do what is to be done by now.
    pub(crate) fn run(&mut self, now: u64, outside: &mut Outside) {
        if let Some(until) = self.rests_until {
            if now < until {
                return;
            }
            self.rests_until = None;
            self.publish_again = true;
        }
        for round in 0.. {
            let (mut events, mut arena) = (Vec::new(), Vec::new());
            if !self.take_orders(now, &mut events, outside) {
                return;
            }
            if !events.iter().any(|event| matches!(event, Event::Command { command: Command::Publish(_), .. })) {
                events.append(&mut self.pending);
                self.collect(now, (&mut events, &mut arena), outside);
            }
            let is_due = self.wake.is_some_and(|wake| wake <= instant(now));
            if events.is_empty() && !is_due {
                return;
            }
            if round == ROUNDS {
                return outside.violate(format!("worker {} never comes to rest: {events:?}", self.role.index));
            }
            let mut out = std::mem::take(&mut self.out);
            let wall = Wall::from_secs(wall_seconds(now));
            let inbox = Inbox { events: &mut events, bytes: &arena, wall };
            self.wake = self.worker.step(instant(now), inbox, &mut out);
            self.carry_out(now, (&out, &arena), outside);
            out.clear();
            self.out = out;
        }
    }

    /// Commands that have arrived; a generation comes alone, so that what is before it and behind it can be told. False
    /// where the worker is gone.
    fn take_orders(&mut self, now: u64, events: &mut Vec<Event>, outside: &mut Outside) -> bool {
        while let Some((due, _, command)) = self.orders.front() {
            let publishes = matches!(command, Command::Publish(_));
            if *due > now || publishes && !events.is_empty() {
                break;
            }
            let Some((_, ticket, command)) = self.orders.pop_front() else { break };
            self.unanswered.push(ticket);
            if let Command::Publish(snapshot) = &command {
                self.held.extend(snapshot.binds());
                self.current = Some(Arc::clone(snapshot));
                if std::mem::take(&mut self.panics_next) {
                    self.panic(now, outside);
                    return false;
                }
                self.at.generation = snapshot.generation.0;
                self.publish_again = false;
            }
            events.push(Event::Command { ticket, command });
            if publishes {
                return true;
            }
        }
        if std::mem::take(&mut self.publish_again)
            && let Some(snapshot) = self.current.clone()
            && events.is_empty()
        {
            self.held = snapshot.binds().collect();
            self.at.generation = snapshot.generation.0;
            events.push(Event::Command { ticket: AGAIN, command: Command::Publish(snapshot) });
        }
        true
    }

    /// The worker falls: everything that it had is gone, and a fresh one comes.
    pub(crate) fn panic(&mut self, now: u64, outside: &mut Outside) {
        self.at = At { life: outside.next_life(), generation: 0 };
        let sockets = std::mem::take(&mut self.sockets);
        for socket in sockets.into_values() {
            if let Socket::Client { client, .. } = socket {
                outside.end(client, true, self.at);
            }
        }
        self.fronts.clear();
        self.pending.clear();
        self.wake = None;
        let unanswered = std::mem::take(&mut self.unanswered);
        let worker = self.role.index;
        outside.tell(now, EngineEvent::WorkerPanicked { worker, message: "as planned".into(), unanswered });
        self.role.seed ^= self.at.life << 32;
        self.worker = Worker::new(self.role);
        self.rests_until = Some(now + outside.rng.u64(10..800));
    }

    fn collect(&mut self, now: u64, (events, arena): (&mut Vec<Event>, &mut Vec<u8>), outside: &mut Outside) {
        let mut put = |bytes: &[u8]| {
            let span = Span { start: arena.len() as u32, len: bytes.len() as u32 };
            arena.extend_from_slice(bytes);
            span
        };
        for (&front, bind) in &self.fronts {
            let waits = std::mem::take(&mut self.datagrams);
            let (mine, others): (Vec<_>, Vec<_>) = waits.into_iter().partition(|(at, ..)| at == bind);
            self.datagrams = others.into();
            for (_, peer, bytes) in mine {
                outside.datagram_arrived(now, peer, &bytes, self.at);
                let (local, bytes) = (bind.address.ip(), put(&bytes));
                events.push(Event::Datagram(Datagram { socket: front, peer, local, segment: 0, bytes }));
            }
            for (_, client) in self.arriving.iter().filter(|(at, _)| at == bind) {
                let (peer, arrival) = (outside.clients[client].address, Arrival(*client));
                events.push(Event::Accepted(Accepted { front, arrival, peer, local: bind.address }));
            }
            self.arriving.retain(|(at, _)| at != bind);
        }
        for (&socket, state) in &mut self.sockets {
            match state {
                Socket::Front => {}
                Socket::Datagrams { inbox, local, .. } => {
                    while inbox.front().is_some_and(|(due, ..)| *due <= now)
                        && let Some((_, peer, bytes)) = inbox.pop_front()
                    {
                        let (local, bytes) = (local.ip(), put(&bytes));
                        events.push(Event::Datagram(Datagram { socket, peer, local, segment: 0, bytes }));
                    }
                }
                Socket::Client { client, credit, told_end } => {
                    let Some(client) = outside.clients.get_mut(client).filter(|_| !*told_end) else { continue };
                    if client.is_gone {
                        *told_end = true;
                        events.push(Event::Broken { socket, by: BrokenBy::Peer });
                    } else if *credit && !client.to_worker.is_empty() {
                        client.arrived(self.at);
                        events.push(Event::Data { socket, bytes: put(&std::mem::take(&mut client.to_worker)) });
                    } else if *credit && client.is_over {
                        *told_end = true;
                        events.push(Event::Eof { socket });
                    }
                }
                Socket::Server(server) => server.collect(now, socket, events, &mut put),
            }
        }
        self.sockets.retain(|_, socket| {
            !matches!(socket, Socket::Server(Server { opens: Some((_, false)), told_end: true, .. }))
        });
    }

    fn carry_out(&mut self, now: u64, (out, arena): (&Outbox, &[u8]), outside: &mut Outside) {
        for op in &out.ops {
            match op {
                Op::Listen { socket, bind } => {
                    if !self.held.contains(bind) {
                        outside
                            .violate(format!("worker {} listens on {bind:?}, which isn't prepared", self.role.index));
                    }
                    self.sockets.insert(*socket, Socket::Front);
                    self.fronts.insert(*socket, *bind);
                    self.pending.push(Event::Opened { socket: *socket, local: bind.address });
                }
                Op::OpenDatagram { socket, remote } => self.open(*socket, *remote),
                Op::Connect { socket, remote, .. } => self.dial(now, *socket, remote.ip(), outside),
                Op::Accept { arrival, socket, credit } => {
                    if let Some(client) = outside.clients.get_mut(&arrival.0) {
                        client.accepted(self.at);
                    }
                    let client = Socket::Client { client: arrival.0, credit: *credit, told_end: false };
                    self.sockets.insert(*socket, client);
                }
                Op::Refuse { arrival, .. } => outside.end(arrival.0, true, self.at),
                Op::Write { socket, bytes } => {
                    let bytes = [bytes.head.of(&out.bytes), bytes.body.of(arena)].concat();
                    match self.sockets.get_mut(socket) {
                        Some(Socket::Client { client, .. }) => outside.hear(*client, &bytes, self.at),
                        Some(Socket::Server(server)) => server.hear(now, &bytes, outside),
                        _ => outside.violate(format!("writes to {socket:?}, which is no stream")),
                    }
                }
                Op::Send(send) => {
                    let bytes = [send.bytes.head.of(&out.bytes), send.bytes.body.of(arena)].concat();
                    self.send(now, (send.socket, send.to), &bytes, outside);
                }
                Op::Shutdown { socket } => match self.sockets.get_mut(socket) {
                    Some(Socket::Client { client, .. }) => outside.end(*client, false, self.at),
                    Some(Socket::Server(server)) => server.is_shut = true,
                    _ => {}
                },
                Op::Credit { socket, on } => match self.sockets.get_mut(socket) {
                    Some(Socket::Client { credit, .. }) | Some(Socket::Server(Server { credit, .. })) => *credit = *on,
                    _ => {}
                },
                Op::Close { socket } | Op::Reset { socket } => {
                    self.fronts.remove(socket);
                    if let Some(Socket::Client { client, .. }) = self.sockets.remove(socket) {
                        outside.end(client, matches!(op, Op::Reset { .. }), self.at);
                    }
                }
                Op::Unbind { bind } => self.unbind(bind, outside),
                Op::Reply { ticket, reply } => self.reply(now, *ticket, reply, outside),
                Op::Notice(notice) => {
                    outside.tell(now, EngineEvent::Notice { worker: self.role.index, notice: notice.clone() });
                }
                // What is piped is moved by the worker where the machine doesn't; nobody reads records; nothing is under TLS.
                Op::Pipe { .. } | Op::Unpipe { .. } | Op::Farewell { .. } => {}
                Op::Record(_) | Op::Adopt { .. } | Op::Verify(_) => {}
            }
        }
    }

    fn dial(&mut self, now: u64, socket: SocketId, address: Option<SocketAddr>, outside: &mut Outside) {
        let Some(address) = address else { return };
        let opens = Some((now + outside.rng.u64(1..4), outside.is_up(address, now)));
        let says = match address.port() {
            7 => VecDeque::from([(now, format!("I am {address}\n").into_bytes())]),
            _ => VecDeque::new(),
        };
        let (heard, is_shut, told_end) = (Vec::new(), false, false);
        let server = Server { address, opens, credit: true, heard, says, is_shut, told_end };
        self.sockets.insert(socket, Socket::Server(server));
    }

    fn reply(&mut self, now: u64, ticket: Ticket, reply: &Reply, outside: &mut Outside) {
        let worker = self.role.index;
        if ticket == AGAIN {
            if let Reply::Published(generation) = reply {
                outside.tell(now, EngineEvent::WorkerRestarted { worker, generation: *generation });
            }
            return;
        }
        let count = self.unanswered.len();
        self.unanswered.retain(|held| *held != ticket);
        if self.unanswered.len() + 1 != count {
            outside.violate(format!("worker {worker} answers {ticket:?}, which nobody asked"));
        }
        outside.tell(now, EngineEvent::Reply { worker, ticket, reply: reply.clone() });
    }

    /// A front is given up: who waits to be accepted there never is.
    fn unbind(&mut self, bind: &BindKey, outside: &mut Outside) {
        if !self.held.remove(bind) {
            outside.violate(format!("worker {} gives {bind:?} up, which it hasn't", self.role.index));
        }
        for (_, client) in self.arriving.iter().filter(|(at, _)| at == bind) {
            outside.end(*client, true, self.at);
        }
        self.arriving.retain(|(at, _)| at != bind);
        self.datagrams.retain(|(at, ..)| at != bind);
    }

    fn open(&mut self, socket: SocketId, remote: Remote) {
        self.ports = self.ports.checked_add(1).unwrap_or(20_000);
        let local = SocketAddr::from(([192, 0, 2, 1], self.ports));
        let remote = match remote {
            Remote::Connected(address) => Some(address),
            Remote::AnyV4 | Remote::AnyV6 => None,
        };
        self.sockets.insert(socket, Socket::Datagrams { local, remote, inbox: VecDeque::new() });
        self.pending.push(Event::Opened { socket, local });
    }

    fn send(&mut self, now: u64, (socket, to): (SocketId, Option<SocketAddr>), bytes: &[u8], outside: &mut Outside) {
        if let Some(bind) = self.fronts.get(&socket) {
            let Some(to) = to else { return outside.violate("answers nobody".to_owned()) };
            return outside.hear_datagram(to, bind.address, bytes, self.at);
        }
        let Some(Socket::Datagrams { remote, inbox, .. }) = self.sockets.get_mut(&socket) else {
            return outside.violate(format!("sends by {socket:?}, which isn't open"));
        };
        let Some(address) = to.or(*remote) else { return outside.violate("sends to nobody".to_owned()) };
        if outside.is_up(address, now) {
            let says = [format!("{address} ").as_bytes(), bytes].concat();
            let due = inbox.back().map_or(0, |(due, ..)| *due).max(now + outside.rng.u64(1..30));
            inbox.push_back((due, address, says));
        }
    }
}

impl Server {
    fn collect(&mut self, now: u64, socket: SocketId, events: &mut Vec<Event>, put: &mut impl FnMut(&[u8]) -> Span) {
        match self.opens {
            Some((at, _)) if now < at => return,
            Some((_, true)) => {
                self.opens = None;
                let local = SocketAddr::from(([0, 0, 0, 0], 0));
                return events.push(Event::Opened { socket, local });
            }
            Some((_, false)) => {
                self.told_end = true;
                return events.push(Event::OpenFailed { socket, error: OpenError::Unreachable });
            }
            None => {}
        }
        if !self.credit || self.told_end {
            return;
        }
        let mut bytes = Vec::new();
        while self.says.front().is_some_and(|(due, _)| *due <= now)
            && let Some((_, said)) = self.says.pop_front()
        {
            bytes.extend(said);
        }
        if !bytes.is_empty() {
            events.push(Event::Data { socket, bytes: put(&bytes) });
        } else if self.is_shut && self.says.is_empty() {
            self.told_end = true;
            events.push(Event::Eof { socket });
        }
    }

    fn hear(&mut self, now: u64, bytes: &[u8], outside: &mut Outside) {
        if self.address.port() != 80 {
            let due = self.says.back().map_or(0, |(due, _)| *due).max(now + outside.rng.u64(1..30));
            return self.says.push_back((due, bytes.to_vec()));
        }
        self.heard.extend_from_slice(bytes);
        while let Some(end) = self.heard.windows(4).position(|four| four == b"\r\n\r\n") {
            let head: Vec<u8> = self.heard.drain(..end + 4).collect();
            let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
            let field = |name: &str| {
                let mut lines = head.lines().filter_map(|line| line.split_once(':'));
                lines.find(|(key, _)| *key == name).map_or(String::new(), |(_, value)| value.trim().to_owned())
            };
            let (mark, number) = (field("x-mark"), field("x-number"));
            let body = format!("{} {mark}#{number}", self.address);
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let delay: u64 = field("x-delay").parse().unwrap_or(0);
            self.says.push_back((now + delay, answer.into_bytes()));
        }
    }
}
