//! The machine's side of streams, carried out to the letter: accepts, connects, short reads and writes, pipes, resets.
//! It never decides anything that a kernel would not decide.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use kakei_config::{Document, Name};
use kakei_proxy::limits::STREAM_READ;
use kakei_proxy::seam::{
    Accepted, Arrival, BindKey, BrokenBy, Endpoint, Event, Instant, Op, OpenError, Outbox, SocketId,
};

use super::actors::Actor;
use super::truth::Truth;
use super::{Scene, StreamCounters, StreamReport};
use crate::driven::{Desk, Host};

/// Streams that one step hears of.
const TURNS: usize = 40;
/// Streams that there may be at once, in times of shortage.
const SHORT: usize = 12;

/// A stream that is open.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) actor: usize,
    credit: bool,
    blocked: bool,
    /// The last write was taken only in part: it is reset where it is closed.
    owes: bool,
    /// Its end, or its death, was told.
    told: bool,
    /// Where its bytes go without being shown.
    pipe: Option<SocketId>,
    /// Whose bytes come here so.
    source: Option<SocketId>,
}

/// A stream that is being opened.
#[derive(Debug)]
struct Connecting {
    outcome: Option<Result<(), OpenError>>,
    at: Instant,
    remote: SocketAddr,
}

#[derive(Debug)]
pub(super) struct Machine {
    rng: Rng,
    pub(super) streams: BTreeMap<SocketId, Stream>,
    connecting: BTreeMap<SocketId, Connecting>,
    fronts: BTreeMap<SocketId, BindKey>,
    /// Clients that wait to be accepted, and those that this step was told of.
    queue: VecDeque<usize>,
    arrivals: BTreeMap<Arrival, usize>,
    desk: Desk,
    /// It moves nothing by itself.
    no_pipes: bool,
    scarce: bool,
    calm: bool,
    /// During a hand-over: what nobody took over yet.
    orphans: Option<Orphans>,
}

impl Machine {
    pub(super) fn new(mut rng: Rng) -> Self {
        Machine {
            streams: BTreeMap::new(),
            connecting: BTreeMap::new(),
            fronts: BTreeMap::new(),
            queue: VecDeque::new(),
            arrivals: BTreeMap::new(),
            desk: Desk::default(),
            no_pipes: rng.u8(0..4) == 0,
            scarce: rng.u8(0..3) == 0,
            calm: false,
            orphans: None,
            rng,
        }
    }

    pub(super) fn wind_down(&mut self) {
        (self.calm, self.scarce) = (true, false);
    }

    /// Whether nothing is open but fronts, and nobody waits.
    pub(super) fn is_idle(&self) -> bool {
        self.streams.is_empty() && self.connecting.is_empty() && (self.queue.is_empty() || self.fronts.is_empty())
    }

    /// A listener of the document that clients can arrive at now.
    pub(super) fn any_front(&self, document: &Document, rng: &mut Rng) -> Option<(Name, SocketAddr)> {
        let listens = |address: &SocketAddr| self.fronts.values().any(|bind| bind.address == *address);
        let all: Vec<(Name, SocketAddr)> = document
            .listeners
            .iter()
            .map(|(name, l)| (name.clone(), l.bind[0]))
            .filter(|(_, at)| listens(at))
            .collect();
        if all.is_empty() { None } else { Some(all[rng.usize(0..all.len())].clone()) }
    }

    pub(super) fn wait_to_be_accepted(&mut self, client: usize) {
        self.queue.push_back(client);
    }

    /// What the next step is told.
    pub(super) fn collect(
        &mut self,
        now: Instant,
        actors: &mut [Actor],
        events: &mut Vec<Event>,
        counters: &mut StreamCounters,
    ) {
        self.desk.clear(events);
        self.finish_connects(now, events, counters);
        self.accept(actors, events, counters);
        let mut ids: Vec<SocketId> = self.streams.keys().copied().collect();
        self.rng.shuffle(&mut ids);
        for id in ids.into_iter().take(TURNS) {
            self.turn(id, actors, events, counters);
        }
    }

    fn finish_connects(&mut self, now: Instant, events: &mut Vec<Event>, counters: &mut StreamCounters) {
        let due = |connecting: &Connecting| connecting.outcome.is_some() && connecting.at <= now;
        let done: Vec<SocketId> = self.connecting.iter().filter(|(_, c)| due(c)).map(|(id, _)| *id).collect();
        for socket in done {
            let Some(connecting) = self.connecting.remove(&socket) else { continue };
            match connecting.outcome {
                Some(Err(error)) => {
                    counters.failed_connects += 1;
                    events.push(Event::OpenFailed { socket, error });
                }
                _ => {
                    events.push(Event::Opened { socket, local: connecting.remote });
                    // The actor came into being when it was asked for, under the number that was kept for it.
                    if let Some(stream) = self.streams.get_mut(&socket) {
                        stream.told = false;
                    }
                }
            }
            if matches!(connecting.outcome, Some(Err(_))) {
                self.streams.remove(&socket);
            }
        }
    }

    fn accept(&mut self, actors: &[Actor], events: &mut Vec<Event>, counters: &mut StreamCounters) {
        self.arrivals.clear();
        for _ in 0..self.rng.usize(0..4) {
            let at = |client: usize| actors[client].guest.as_ref().map(|guest| guest.local.port());
            let Some(&client) = self.queue.front() else { return };
            let Some(guest) = &actors[client].guest else { return };
            let front = self.fronts.iter().find(|(_, bind)| Some(bind.address.port()) == at(client));
            let Some((&front, _)) = front else {
                // Nobody listens there any more: the kernel refuses it.
                self.queue.pop_front();
                continue;
            };
            if self.scarce && self.streams.len() >= SHORT {
                counters.shortages += 1;
                events.push(Event::AcceptFailed { front, error: OpenError::NoDescriptors });
                return;
            }
            self.queue.pop_front();
            let arrival = Arrival(self.arrivals.len() as u32);
            self.arrivals.insert(arrival, client);
            events.push(Event::Accepted(Accepted { front, arrival, peer: guest.peer, local: guest.local }));
        }
    }

    /// What one stream has to say: at most one thing of each kind.
    fn turn(&mut self, id: SocketId, actors: &mut [Actor], events: &mut Vec<Event>, counters: &mut StreamCounters) {
        if self.connecting.contains_key(&id) {
            return;
        }
        let (takes, chance) = (self.calm || self.rng.u8(0..3) == 0, self.rng.u8(0..2) == 0 || self.calm);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.blocked && takes && !actors[stream.actor].stalled {
            stream.blocked = false;
            events.push(Event::Drained { socket: id });
        }
        if stream.told || !chance {
            return;
        }
        let actor = &mut actors[stream.actor];
        if actor.has_reset() {
            stream.told = true;
            counters.resets += 1;
            actor.told_reset = true;
            return events.push(Event::Broken { socket: id, by: BrokenBy::Peer });
        }
        if !stream.credit {
            return;
        }
        if let Some(to) = stream.pipe {
            return self.pipe_turn((id, to), actors, events, counters);
        }
        if actor.left() > 0 {
            let most = actor.left().min(STREAM_READ as u64);
            let count = match self.rng.u8(0..4) {
                0 => self.rng.u64(1..=most.min(40)),
                1 => self.rng.u64(1..=most),
                _ => most,
            };
            let bytes = self.desk.put((actor.sent..actor.sent + count).map(|offset| actor.byte(offset)));
            actor.sent += count;
            events.push(Event::Data { socket: id, bytes });
        }
        if actor.has_ended() && self.rng.bool() {
            stream.told = true;
            events.push(Event::Eof { socket: id });
        }
    }

    fn pipe_turn(
        &mut self,
        (id, to): (SocketId, SocketId),
        actors: &mut [Actor],
        events: &mut Vec<Event>,
        counters: &mut StreamCounters,
    ) {
        let (Some(source), Some(target)) = (self.streams.get(&id), self.streams.get(&to)) else { return };
        let (from, into) = (source.actor, target.actor);
        if actors[from].left() > 0 && !actors[into].stalled && !actors[into].told_reset {
            let count = self.rng.u64(1..=actors[from].left().min(300_000));
            let bytes: Vec<u8> =
                (actors[from].sent..actors[from].sent + count).map(|at| actors[from].byte(at)).collect();
            actors[from].sent += count;
            counters.piped += count;
            events.push(Event::Piped { from: id, bytes: count });
            self.desk.pending.extend(Truth::deliver(actors, into, &bytes).err().map(|_| Event::Drained { socket: to }));
        } else if actors[from].has_ended() {
            if let Some(stream) = self.streams.get_mut(&id) {
                (stream.told, stream.pipe) = (true, None);
            }
            if let Some(target) = self.streams.get_mut(&to) {
                target.source = None;
            }
            events.push(Event::Eof { socket: id });
        }
    }

    fn with(&mut self, id: SocketId, act: impl FnOnce(&mut Stream)) -> Result<(), String> {
        self.streams.get_mut(&id).map(act).ok_or_else(|| "names a stream that isn't there".to_owned())
    }

    fn take(
        &mut self,
        arrival: Arrival,
        socket: SocketId,
        credit: bool,
        (actors, truth): (&[Actor], &mut Truth),
    ) -> Result<(), String> {
        let client = self.arrivals.remove(&arrival).ok_or("accepts somebody who isn't there")?;
        let live = self.streams.values().filter_map(|stream| actors[stream.actor].guest.as_ref());
        truth.accepted(&actors[client], live)?;
        self.open(socket, client, credit)
    }

    fn open(&mut self, socket: SocketId, actor: usize, credit: bool) -> Result<(), String> {
        let stream = Stream { actor, credit, blocked: false, owes: false, told: false, pipe: None, source: None };
        match self.streams.insert(socket, stream) {
            None => Ok(()),
            Some(_) => Err("opens an id twice".to_owned()),
        }
    }

    fn connect(
        &mut self,
        now: Instant,
        socket: SocketId,
        remote: &Endpoint,
        actors: &mut Vec<Actor>,
    ) -> Result<(), String> {
        let remote = remote.ip().ok_or("connects to a Unix socket, and there is none")?;
        let odds = if self.calm { 0 } else { self.rng.u8(0..20) };
        let outcome = match odds {
            17 => Some(Err(OpenError::NoDescriptors)),
            18 => Some(Err(OpenError::Unreachable)),
            19 => None,
            _ => Some(Ok(())),
        };
        let at = now + Duration::from_micros(self.rng.u64(0..100_000));
        self.connecting.insert(socket, Connecting { outcome, at, remote });
        let id = actors.len();
        let mut actor = Actor::backend(id, &mut self.rng);
        if self.calm {
            actor.wind_down();
        }
        actors.push(actor);
        self.open(socket, id, true)
    }

    fn write(
        &mut self,
        socket: SocketId,
        bytes: &[u8],
        actors: &mut [Actor],
        report: &mut StreamReport,
    ) -> Result<(), String> {
        let short = !self.calm && self.rng.u8(0..6) == 0;
        let stream = self.streams.get_mut(&socket).ok_or("writes to a stream that isn't there")?;
        if self.connecting.contains_key(&socket) {
            return Err("writes to a stream that isn't open yet".to_owned());
        }
        if stream.blocked || stream.source.is_some() {
            return Err(format!("writes to a stream that is blocked or piped into: {stream:?}"));
        }
        let actor = &actors[stream.actor];
        let most = if actor.stalled { bytes.len().min(50) } else { bytes.len() };
        let taken = if short || actor.stalled { self.rng.usize(0..=most) } else { most };
        let into = stream.actor;
        stream.owes = taken < bytes.len();
        if stream.owes {
            stream.blocked = true;
            report.counters.blocked += 1;
            self.desk.block(socket, &bytes[taken..]);
        }
        report.counters.bytes += taken as u64;
        Truth::deliver(actors, into, &bytes[..taken])
    }

    fn shutdown(&mut self, socket: SocketId, actors: &mut [Actor]) -> Result<(), String> {
        let stream = self.streams.get(&socket).ok_or("shuts a stream down that isn't there")?;
        // Nothing comes of it behind a write that is blocked.
        if stream.blocked { Ok(()) } else { Truth::ended(actors, stream.actor) }
    }

    fn pipe(&mut self, from: SocketId, to: SocketId) -> Result<(), String> {
        let is_blocked = self.streams.get(&to).ok_or("pipes into a stream that isn't there")?.blocked;
        if self.no_pipes || is_blocked {
            return Ok(());
        }
        self.with(from, |source| source.pipe = Some(to))?;
        self.with(to, |target| target.source = Some(from))
    }

    fn unpipe(&mut self, from: SocketId) -> Result<(), String> {
        let source = self.streams.get_mut(&from).ok_or("unpipes a stream that isn't there")?;
        match source.pipe.take() {
            Some(to) => self.with(to, |target| target.source = None),
            None => Ok(()),
        }
    }

    fn end(&mut self, socket: SocketId, by_reset: bool, actors: &mut [Actor]) -> Result<(), String> {
        let was_connecting = self.connecting.remove(&socket).is_some();
        let stream = self.streams.remove(&socket).ok_or("closes a stream that isn't there")?;
        for other in [stream.pipe, stream.source].into_iter().flatten() {
            if let Some(other) = self.streams.get_mut(&other) {
                (other.pipe, other.source) = (None, None);
            }
        }
        self.desk.forget(socket);
        let actor = &mut actors[stream.actor];
        if was_connecting || actor.has_reset() || actor.saw_end {
            return Ok(());
        }
        match by_reset || stream.owes {
            true => actor.saw_reset = true,
            false => return Truth::closed(actors, stream.actor),
        }
        Ok(())
    }

    fn adopt(&mut self, was: SocketId, socket: SocketId) -> Result<(), String> {
        let orphans = self.orphans.as_mut().ok_or("adopts, and nothing was handed over")?;
        let stream = orphans.streams.remove(&was);
        let front = orphans.fronts.remove(&was);
        if stream.is_none() && front.is_none() {
            return Err("adopts what nobody left".to_owned());
        }
        orphans.renamed.insert(was, socket);
        self.connecting.extend(orphans.connecting.remove(&was).map(|connecting| (socket, connecting)));
        self.streams.extend(stream.map(|stream| (socket, stream)));
        self.fronts.extend(front.map(|front| (socket, front)));
        Ok(())
    }
}

impl Host for Machine {
    type Scene = Scene;

    fn desk(&mut self) -> &mut Desk {
        &mut self.desk
    }

    fn carry_out(&mut self, now: Instant, out: &Outbox, scene: &mut Scene) {
        let Scene { actors, truth, report } = scene;
        for op in &out.ops {
            let result = match op {
                Op::Listen { socket, bind } => {
                    self.fronts.insert(*socket, *bind);
                    self.desk.pending.push_back(Event::Opened { socket: *socket, local: bind.address });
                    Ok(())
                }
                Op::Connect { socket, remote, .. } => self.connect(now, *socket, remote, actors),
                Op::Accept { arrival, socket, credit } => self.take(*arrival, *socket, *credit, (actors, truth)),
                Op::Refuse { arrival, .. } => match self.arrivals.remove(arrival) {
                    Some(client) => truth.refused(client),
                    None => Err("refuses somebody who isn't there".to_owned()),
                },
                Op::Write { socket, bytes } => {
                    let whole = [bytes.head.of(&out.bytes), bytes.body.of(self.desk.bytes())].concat();
                    self.write(*socket, &whole, actors, report)
                }
                Op::Shutdown { socket } => self.shutdown(*socket, actors),
                Op::Credit { socket, on } => self.with(*socket, |stream| stream.credit = *on),
                Op::Pipe { from, to } => self.pipe(*from, *to),
                Op::Unpipe { from } => self.unpipe(*from),
                Op::Reset { socket } => self.end(*socket, true, actors),
                Op::Close { socket } if self.fronts.remove(socket).is_some() => Ok(()),
                Op::Close { socket } => self.end(*socket, false, actors),
                Op::Adopt { was, socket } => self.adopt(*was, *socket),
                Op::Record(record) => truth.record(now, record, actors, report),
                Op::Farewell { .. } => Err("has something to say that nobody needs, and there is no TLS".to_owned()),
                Op::Unbind { .. } | Op::Reply { .. } | Op::Notice(_) => Ok(()),
                Op::Verify(_) => Err("has a password looked at, and there is none".to_owned()),
                Op::OpenDatagram { .. } | Op::Send(_) => Err("sends a datagram, and there is no UDP".to_owned()),
            };
            if let Err(wrong) = result {
                report.violations.push(format!("at {}: {op:?}: {wrong}", now.as_nanos()));
            }
        }
        for (_, client) in std::mem::take(&mut self.arrivals) {
            report.violations.push(format!("client {client} was neither accepted nor refused"));
        }
    }

    fn leave(&mut self) {
        self.orphans = Some(Orphans {
            streams: std::mem::take(&mut self.streams),
            connecting: std::mem::take(&mut self.connecting),
            fronts: std::mem::take(&mut self.fronts),
            renamed: BTreeMap::new(),
        });
    }

    fn take_over(&mut self, scene: &mut Scene) {
        let Some(orphans) = self.orphans.take() else { return };
        for (id, _) in orphans.streams {
            scene.report.violations.push(format!("{id:?} was left behind"));
        }
        let new = |was: SocketId| orphans.renamed.get(&was).copied();
        for stream in self.streams.values_mut() {
            stream.pipe = stream.pipe.and_then(new);
            stream.source = stream.source.and_then(new);
        }
        self.desk.rename(&orphans.renamed);
    }
}

/// What a worker left.
#[derive(Debug)]
struct Orphans {
    streams: BTreeMap<SocketId, Stream>,
    connecting: BTreeMap<SocketId, Connecting>,
    fronts: BTreeMap<SocketId, BindKey>,
    renamed: BTreeMap<SocketId, SocketId>,
}
