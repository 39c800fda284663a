//! A worker and the streams that its machine holds, for simulations that bring far ends of their own: bytes come and go in
//! pieces of any length, writes block, ends are told. What is said, and by whom, is not known here.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use fastrand::Rng;
use kakei_proxy::seam::{
    Accepted, Arrival, BrokenBy, Command, Endpoint, Event, Inbox, Instant, Op, Outbox, Reply, SocketId, Span, Ticket,
    Wall,
};
use kakei_proxy::snapshot::Snapshot;
use kakei_proxy::worker::{Role, Worker};

/// The most bytes that come at once.
const PIECE: usize = 65_536;

/// A stream of the machine's.
#[derive(Debug)]
pub struct Wire<W> {
    /// Who is at its other end.
    pub whose: W,
    /// When it came to be.
    pub since: Instant,
    /// Whether the worker takes what comes.
    pub credit: bool,
    /// The worker was told that its last write was not taken whole, and not yet that the rest was.
    pub is_blocked: bool,
    /// What the worker wrote in this step and the kernel did not take.
    pub rest: Vec<u8>,
    /// The last write was not taken whole.
    owes: bool,
    /// The farewell was taken whole, if there was one.
    pub is_parted: bool,
    /// The worker said that it writes nothing more. Nothing comes of that behind a write that is not taken whole.
    pub is_shut: bool,
    /// The worker was told of its end.
    pub has_told_end: bool,
}

impl<W> Wire<W> {
    fn new(whose: W, since: Instant, credit: bool) -> Self {
        let (is_blocked, owes, is_parted, is_shut, has_told_end) = (false, false, true, false, false);
        Wire { whose, since, credit, is_blocked, rest: Vec::new(), owes, is_parted, is_shut, has_told_end }
    }

    /// Whether the kernel took all that was written.
    pub fn takes(&self) -> bool {
        !self.owes
    }
}

/// What a far end has to say.
#[derive(Debug)]
pub enum Says<'a> {
    /// Nothing for now.
    Nothing,
    /// These bytes, some of which are taken away: they come where the worker takes them.
    Bytes(&'a mut Vec<u8>),
    /// That it is over, where the worker takes what comes.
    End,
    /// That it is gone.
    Reset,
}

impl<'a> Says<'a> {
    /// Bytes while there are any, and then the end where it `is_over`.
    pub fn of(bytes: &'a mut Vec<u8>, is_over: bool) -> Self {
        match (bytes.is_empty(), is_over) {
            (false, _) => Says::Bytes(bytes),
            (true, true) => Says::End,
            (true, false) => Says::Nothing,
        }
    }
}

/// The far ends of a machine's streams.
pub trait Ends {
    /// Which of them a stream belongs to.
    type Whose;

    /// Whose is the stream that arrived under this number?
    fn accepted(&mut self, arrival: u32) -> Self::Whose;

    /// Whose is the stream that the worker opens?
    fn connected(&mut self, rng: &mut Rng, remote: &Endpoint) -> Self::Whose;

    /// It is told that its stream is open.
    fn opened(&mut self, _: &mut Self::Whose) {}

    /// Whether the rest of a write that was not taken whole is taken by now.
    fn drains(&mut self, rng: &mut Rng) -> bool {
        rng.bool()
    }

    /// What it has to say. Asked of each stream once in a step, until its end was told.
    fn says<'a>(&'a mut self, wire: &'a mut Wire<Self::Whose>, rng: &mut Rng) -> Says<'a>;

    /// So many bytes of it came to the worker.
    fn came(&mut self, _: &mut Self::Whose, _: usize) {}

    /// What the kernel took of a write, which may be nothing.
    fn takes(&mut self, wire: &mut Wire<Self::Whose>, bytes: &[u8], rng: &mut Rng);

    /// The worker said that it writes nothing more.
    fn shut(&mut self, _: &mut Wire<Self::Whose>) {}

    /// The worker closed it. Where the kernel didn't take all that was written its peer sees a reset.
    fn closed(&mut self, wire: Wire<Self::Whose>, rng: &mut Rng);

    /// The worker broke it off.
    fn reset(&mut self, wire: Wire<Self::Whose>, rng: &mut Rng);

    /// What has nothing to do with streams.
    fn other(&mut self, _: &Op) {}
}

/// See the module's words.
#[derive(Debug)]
pub struct Wires<W> {
    seed: u64,
    worker: Worker,
    now: Instant,
    front: SocketId,
    /// Where clients find it.
    local: SocketAddr,
    wires: BTreeMap<SocketId, Wire<W>>,
    arriving: Vec<u32>,
    opened: Vec<SocketId>,
    publishing: Option<Arc<Snapshot>>,
    /// Of all that the worker did.
    pub trace: u64,
    /// How many writes were not taken whole.
    pub blocked: usize,
}

impl<W> Wires<W> {
    /// Of a worker that clients find there, in the simulation of this seed.
    pub fn new(seed: u64, role: Role, local: SocketAddr) -> Self {
        Wires {
            seed,
            worker: Worker::new(role),
            now: Instant::from_nanos(0),
            front: SocketId::default(),
            local,
            wires: BTreeMap::new(),
            arriving: Vec::new(),
            opened: Vec::new(),
            publishing: None,
            trace: 0,
            blocked: 0,
        }
    }

    /// The streams that are there.
    pub fn all(&self) -> impl Iterator<Item = &Wire<W>> {
        self.wires.values()
    }

    /// Whether nobody waits to be let in.
    pub fn nobody_comes(&self) -> bool {
        self.arriving.is_empty()
    }

    /// Somebody comes in the next step.
    pub fn arrive(&mut self, number: u32) {
        self.arriving.push(number);
    }

    /// Whoever waits to be let in goes away.
    pub fn send_away(&mut self) {
        self.arriving.clear();
    }

    /// The worker is told of a generation in the next step.
    pub fn publish(&mut self, snapshot: &Arc<Snapshot>) {
        self.publishing = Some(Arc::clone(snapshot));
    }

    /// One step of the worker and its machine.
    ///
    /// # Panics
    /// Where the worker does what no machine takes.
    pub fn step<E: Ends<Whose = W>>(&mut self, (now, wall): (Instant, Wall), rng: &mut Rng, ends: &mut E) {
        let (mut events, mut arena) = (Vec::new(), Vec::new());
        for arrival in self.arriving.drain(..) {
            let peer = SocketAddr::from(([10, 1, 0, 1], 1024 + arrival as u16));
            let (front, arrival, local) = (self.front, Arrival(arrival), self.local);
            events.push(Event::Accepted(Accepted { front, arrival, peer, local }));
        }
        for socket in self.opened.drain(..) {
            if let Some(wire) = self.wires.get_mut(&socket) {
                ends.opened(&mut wire.whose);
            }
            let bound = if socket == self.front { "0.0.0.0:443" } else { "10.9.9.9:9" };
            events.push(Event::Opened { socket, local: bound.parse().expect("it is an address") });
        }
        for (&socket, wire) in self.wires.iter_mut().filter(|(_, wire)| !wire.rest.is_empty()) {
            wire.is_blocked = true;
            self.blocked += 1;
            events.push(Event::Blocked { socket, rest: put(&mut arena, &std::mem::take(&mut wire.rest)) });
        }
        if let Some(snapshot) = self.publishing.take() {
            events.push(Event::Command { ticket: Ticket(1), command: Command::Publish(snapshot) });
        }
        self.collect(rng, ends, (&mut events, &mut arena));
        self.carry_out((now, wall), (events, &arena), rng, ends);
    }

    /// What streams have to tell.
    fn collect<E: Ends<Whose = W>>(
        &mut self,
        rng: &mut Rng,
        ends: &mut E,
        (events, arena): (&mut Vec<Event>, &mut Vec<u8>),
    ) {
        for (&socket, wire) in &mut self.wires {
            if wire.is_blocked && ends.drains(rng) {
                wire.is_blocked = false;
                events.push(Event::Drained { socket });
            }
            if wire.has_told_end {
                continue;
            }
            let credit = wire.credit;
            match ends.says(wire, rng) {
                Says::Bytes(source) if credit => {
                    let len = rng.usize(1..=source.len().min(PIECE));
                    let bytes: Vec<u8> = source.drain(..len).collect();
                    events.push(Event::Data { socket, bytes: put(arena, &bytes) });
                    ends.came(&mut wire.whose, len);
                }
                Says::End if credit => {
                    wire.has_told_end = true;
                    events.push(Event::Eof { socket });
                }
                Says::Reset => {
                    wire.has_told_end = true;
                    events.push(Event::Broken { socket, by: BrokenBy::Peer });
                }
                Says::Nothing | Says::Bytes(_) | Says::End => {}
            }
        }
    }

    fn carry_out<E: Ends<Whose = W>>(
        &mut self,
        (now, wall): (Instant, Wall),
        (mut events, arena): (Vec<Event>, &[u8]),
        rng: &mut Rng,
        ends: &mut E,
    ) -> Vec<Op> {
        self.now = now;
        let mut out = Outbox::default();
        self.worker.step(now, Inbox { events: &mut events, bytes: arena, wall }, &mut out);
        let mut hasher = DefaultHasher::new();
        (self.trace, &out.bytes, format!("{:?}", out.ops)).hash(&mut hasher);
        self.trace = hasher.finish();
        for op in &out.ops {
            self.perform(op, (&out.bytes, arena), rng, ends);
        }
        out.ops
    }

    fn perform<E: Ends<Whose = W>>(&mut self, op: &Op, (made, arena): (&[u8], &[u8]), rng: &mut Rng, ends: &mut E) {
        match op {
            Op::Listen { socket, .. } => {
                self.front = *socket;
                self.opened.push(*socket);
            }
            Op::Accept { arrival, socket, credit } => {
                let whose = ends.accepted(arrival.0);
                self.wires.insert(*socket, Wire::new(whose, self.now, *credit));
            }
            Op::Connect { socket, remote, .. } => {
                let whose = ends.connected(rng, remote);
                self.opened.push(*socket);
                self.wires.insert(*socket, Wire::new(whose, self.now, true));
            }
            Op::Write { socket, bytes } => {
                let bytes = [bytes.head.of(made), bytes.body.of(arena)].concat();
                self.write(*socket, &bytes, rng, ends);
            }
            Op::Farewell { socket, bytes } => self.bid_farewell(*socket, bytes.of(made), rng, ends),
            Op::Shutdown { socket } => {
                if let Some(wire) = self.wires.get_mut(socket) {
                    wire.is_shut |= wire.rest.is_empty() && !wire.is_blocked;
                    ends.shut(wire);
                }
            }
            Op::Credit { socket, on } => {
                if let Some(wire) = self.wires.get_mut(socket) {
                    wire.credit = *on;
                }
            }
            Op::Pipe { .. } | Op::Unpipe { .. } => panic!("the kernel can't move what has to be encrypted"),
            Op::Close { socket } if *socket == self.front => {}
            Op::Close { socket } => ends.closed(self.wires.remove(socket).expect("it is open"), rng),
            Op::Reset { socket } => {
                if let Some(wire) = self.wires.remove(socket) {
                    ends.reset(wire, rng);
                }
            }
            other => ends.other(other),
        }
    }

    fn write<E: Ends<Whose = W>>(&mut self, socket: SocketId, bytes: &[u8], rng: &mut Rng, ends: &mut E) {
        let Some(wire) = self.wires.get_mut(&socket) else { return };
        assert!(!wire.is_blocked, "seed {}: nothing is written to a stream that is blocked", self.seed);
        let taken = match wire.rest.is_empty() {
            false => 0,
            true if rng.u8(..5) > 0 => bytes.len(),
            true => rng.usize(0..=bytes.len()),
        };
        wire.rest.extend_from_slice(&bytes[taken..]);
        wire.owes = !wire.rest.is_empty();
        ends.takes(wire, &bytes[..taken], rng);
    }

    /// A write whose rest is nobody's loss.
    fn bid_farewell<E: Ends<Whose = W>>(&mut self, socket: SocketId, bytes: &[u8], rng: &mut Rng, ends: &mut E) {
        let before = self.wires.get(&socket).map(|wire| (wire.owes, wire.rest.clone()));
        self.write(socket, bytes, rng, ends);
        if let Some((wire, before)) = self.wires.get_mut(&socket).zip(before) {
            wire.is_parted = !wire.owes;
            (wire.owes, wire.rest) = before;
        }
    }

    /// Write the worker down, and go on with one that is read back, of this generation. What it doesn't take over.
    ///
    /// # Panics
    /// Where it can't be written down, or read back.
    pub fn restore<E: Ends<Whose = W>>(
        &mut self,
        (role, snapshot): (Role, &Snapshot),
        (now, wall): (Instant, Wall),
        rng: &mut Rng,
        ends: &mut E,
    ) -> Vec<Wire<W>> {
        let command = Event::Command { ticket: Ticket(2), command: Command::Snapshot };
        let ops = self.carry_out((now, wall), (vec![command], &[]), rng, ends);
        let state = ops.into_iter().find_map(|op| match op {
            Op::Reply { reply: Reply::State(state), .. } => Some(*state),
            _ => None,
        });
        let state = serde_json::to_string(&state.expect("it is written down")).expect("it is plain data");
        let state = serde_json::from_str(&state).expect("it reads back");
        self.worker = Worker::restore(role, now, state, snapshot).expect("it is of this generation");
        let mut left = std::mem::take(&mut self.wires);
        let front = self.front;
        let mut out = Outbox::default();
        self.worker.step(now, Inbox { events: &mut Vec::new(), bytes: &[], wall }, &mut out);
        let mut renamed = BTreeMap::new();
        for op in &out.ops {
            match op {
                Op::Adopt { was, socket } => {
                    renamed.insert(*was, *socket);
                    self.wires.extend(left.remove(was).map(|wire| (*socket, wire)));
                }
                other => self.perform(other, (&out.bytes, &[]), rng, ends),
            }
        }
        self.front = renamed[&front];
        self.opened = self.opened.iter().filter_map(|was| renamed.get(was).copied()).collect();
        left.into_values().collect()
    }
}

fn put(arena: &mut Vec<u8>, bytes: &[u8]) -> Span {
    let span = Span { start: arena.len() as u32, len: bytes.len() as u32 };
    arena.extend_from_slice(bytes);
    span
}
