//! The machine's side of HTTP's streams: accepts, connects, pieces of any size, short writes, pipes, resets. It never
//! decides anything that a kernel would not decide.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use fastrand::Rng;
use kakei_proxy::limits::STREAM_READ;
use kakei_proxy::seam::{Accepted, Arrival, BrokenBy, Event, Instant, Op, OpenError, Outbox, SocketId, Span};

use super::client::Client;
use super::documents::cluster_of;
use super::server::Server;
use super::truth::Truth;
use super::{HttpCounters, HttpReport};

/// Streams that one step hears of.
const TURNS: usize = 40;

/// Who is at the other end of a stream.
#[derive(Debug)]
enum Peer {
    Client(Box<Client>),
    Server(Box<Server>),
}

/// What comes of an attempt to connect, and when.
type Opening = (Result<(), OpenError>, Instant);

#[derive(Debug)]
struct Stream {
    peer: Peer,
    credit: bool,
    blocked: bool,
    /// Its end, or its death, was told.
    told: bool,
    /// The proxy ended its direction.
    shut: bool,
    /// Not open yet: what comes of it, and when.
    opens: Option<Opening>,
}

#[derive(Debug)]
pub(super) struct Machine {
    rng: Rng,
    streams: BTreeMap<SocketId, Stream>,
    front: Option<SocketId>,
    queue: VecDeque<Client>,
    arrivals: BTreeMap<Arrival, Client>,
    pending: VecDeque<Event>,
    blocked: Vec<(SocketId, Vec<u8>)>,
    arena: Vec<u8>,
    is_peaceful: bool,
    calm: bool,
    next_id: u64,
    next_port: u16,
}

impl Machine {
    pub(super) fn new(rng: Rng, is_peaceful: bool) -> Self {
        Machine {
            rng,
            streams: BTreeMap::new(),
            front: None,
            queue: VecDeque::new(),
            arrivals: BTreeMap::new(),
            pending: VecDeque::new(),
            blocked: Vec::new(),
            arena: Vec::new(),
            is_peaceful,
            calm: false,
            next_id: 1,
            next_port: 10_000,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.arena
    }

    /// One more client wants to connect.
    pub(super) fn invite(&mut self, truth: &mut Truth) {
        let client = Client::new(self.next_id, &mut self.rng, self.is_peaceful);
        self.next_id += client.asks.len() as u64;
        truth.invite(&client);
        self.queue.push_back(client);
    }

    pub(super) fn wind_down(&mut self) {
        self.calm = true;
        self.queue.clear();
        for stream in self.streams.values_mut() {
            match &mut stream.peer {
                Peer::Client(client) => client.wind_down(),
                Peer::Server(server) => server.wind_down(),
            }
        }
    }

    /// Whether nothing is open but the front.
    pub(super) fn is_idle(&self) -> bool {
        self.streams.is_empty() && self.queue.is_empty()
    }

    pub(super) fn what_is_left(&self) -> String {
        let Some((id, stream)) = self.streams.iter().next() else { return "clients that nobody accepts".to_owned() };
        let how = (stream.credit, stream.blocked, stream.told, stream.shut, stream.opens);
        let peer = match &stream.peer {
            Peer::Client(client) => format!("{client}"),
            Peer::Server(server) => format!("{server}"),
        };
        format!("{id:?} credit, blocked, told, shut, opens {how:?}: {peer}")
    }

    /// What the next step is told.
    pub(super) fn collect(&mut self, now: Instant, events: &mut Vec<Event>, counters: &mut HttpCounters) {
        self.arena.clear();
        events.extend(self.pending.drain(..));
        self.finish_connects(now, events, counters);
        self.accept(events);
        let mut ids: Vec<SocketId> = self.streams.keys().copied().collect();
        self.rng.shuffle(&mut ids);
        for id in ids.into_iter().take(TURNS) {
            self.turn(now, id, events, counters);
        }
    }

    fn finish_connects(&mut self, now: Instant, events: &mut Vec<Event>, counters: &mut HttpCounters) {
        let due = |stream: &Stream| stream.opens.is_some_and(|(_, at)| at <= now);
        let opening: Vec<SocketId> = self.streams.iter().filter(|(_, stream)| due(stream)).map(|(id, _)| *id).collect();
        for socket in opening {
            let Some(stream) = self.streams.get_mut(&socket) else { continue };
            match stream.opens.take() {
                Some((Err(error), _)) => {
                    counters.failed_connects += 1;
                    self.streams.remove(&socket);
                    events.push(Event::OpenFailed { socket, error });
                }
                _ => events.push(Event::Opened { socket, local: (Ipv4Addr::UNSPECIFIED, 0).into() }),
            }
        }
    }

    fn accept(&mut self, events: &mut Vec<Event>) {
        let Some(front) = self.front else { return };
        for number in 0..self.rng.u32(0..4) {
            let Some(client) = self.queue.pop_front() else { return };
            self.next_port += 1;
            let peer = SocketAddr::from((Ipv4Addr::new(198, 51, 100, 7), self.next_port));
            let local = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 80));
            self.arrivals.insert(Arrival(number), client);
            events.push(Event::Accepted(Accepted { front, arrival: Arrival(number), peer, local }));
        }
    }

    /// What one stream has to say: at most one thing of each kind.
    fn turn(&mut self, now: Instant, id: SocketId, events: &mut Vec<Event>, counters: &mut HttpCounters) {
        let (takes, chance) = (self.calm || self.rng.u8(0..3) == 0, self.rng.u8(0..2) == 0 || self.calm);
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.opens.is_none()) else { return };
        let is_stalled = match &mut stream.peer {
            Peer::Client(client) => {
                client.stalled &= self.rng.u8(0..60) > 0 || !self.is_peaceful;
                client.stalled
            }
            Peer::Server(server) => {
                server.stalled &= self.rng.u8(0..60) > 0 || !self.is_peaceful;
                server.stalled
            }
        };
        if stream.blocked && takes && !is_stalled {
            stream.blocked = false;
            events.push(Event::Drained { socket: id });
        }
        if stream.told || !chance {
            return;
        }
        let (broken, pending, ended) = match &stream.peer {
            Peer::Client(client) => (client.has_given_up(), client.pending(), client.is_done()),
            Peer::Server(server) => {
                (server.has_broken(now), server.pending(now).to_vec(), server.has_ended(now) || stream.shut)
            }
        };
        if broken {
            stream.told = true;
            counters.resets += 1;
            return events.push(Event::Broken { socket: id, by: BrokenBy::Peer });
        }
        if !stream.credit {
            return;
        }
        if !pending.is_empty() {
            let most = pending.len().min(STREAM_READ);
            let in_one = matches!(&stream.peer, Peer::Server(server) if server.is_in_one);
            let count = match self.rng.u8(0..4) {
                _ if in_one => most,
                0 => self.rng.usize(1..=most.min(40)),
                1 => self.rng.usize(1..=most),
                _ => most,
            };
            let start = self.arena.len() as u32;
            self.arena.extend_from_slice(&pending[..count]);
            match &mut stream.peer {
                Peer::Client(client) => client.send(count),
                Peer::Server(server) => server.send(count),
            }
            events.push(Event::Data { socket: id, bytes: Span { start, len: count as u32 } });
        } else if ended && (self.calm || self.rng.bool()) {
            stream.told = true;
            events.push(Event::Eof { socket: id });
        }
    }

    /// What was not taken, for the very next step.
    pub(super) fn tell_blocked(&mut self, events: &mut Vec<Event>) {
        if self.blocked.is_empty() {
            return;
        }
        self.arena.clear();
        for (socket, rest) in std::mem::take(&mut self.blocked) {
            let start = self.arena.len() as u32;
            self.arena.extend_from_slice(&rest);
            events.push(Event::Blocked { socket, rest: Span { start, len: rest.len() as u32 } });
        }
    }

    /// Carry out what a step asks for.
    pub(super) fn carry_out(&mut self, now: Instant, out: &Outbox, (truth, report): (&mut Truth, &mut HttpReport)) {
        for op in &out.ops {
            let result = match op {
                Op::Listen { socket, bind } => {
                    self.front = Some(*socket);
                    self.pending.push_back(Event::Opened { socket: *socket, local: bind.address });
                    Ok(())
                }
                Op::Connect { socket, remote, .. } => self.connect(now, *socket, remote.ip()),
                Op::Accept { arrival, socket, credit } => match self.arrivals.remove(arrival) {
                    Some(client) => self.open(*socket, Peer::Client(Box::new(client)), (*credit, None)),
                    None => Err("accepts somebody who isn't there".to_owned()),
                },
                Op::Refuse { arrival, .. } => {
                    self.arrivals.remove(arrival);
                    Ok(())
                }
                Op::Write { socket, bytes } => {
                    let whole = [bytes.head.of(&out.bytes), bytes.body.of(&self.arena)].concat();
                    self.write(now, *socket, &whole, (truth, report))
                }
                Op::Shutdown { socket } => self.shutdown(*socket, (truth, report)),
                Op::Credit { socket, on } => match self.streams.get_mut(socket) {
                    Some(stream) => {
                        stream.credit = *on;
                        Ok(())
                    }
                    None => Err("names a stream that isn't there".to_owned()),
                },
                // A machine that can't goes on showing the bytes.
                Op::Pipe { .. } | Op::Unpipe { .. } => Ok(()),
                Op::Reset { socket } => self.end(*socket, true, (truth, report)),
                Op::Close { socket } if self.front == Some(*socket) => {
                    self.front = None;
                    Ok(())
                }
                Op::Close { socket } => self.end(*socket, false, (truth, report)),
                Op::Record(record) => truth.record(record),
                Op::Unbind { .. } | Op::Reply { .. } | Op::Notice(_) => Ok(()),
                Op::OpenDatagram { .. } | Op::Send(_) | Op::Adopt { .. } => Err("asks for what isn't there".to_owned()),
            };
            if let Err(wrong) = result {
                report.violations.push(format!("at {}: {op:?}: {wrong}", now.as_nanos()));
            }
        }
        if !self.arrivals.is_empty() {
            report.violations.push("a client was neither accepted nor refused".to_owned());
        }
    }

    fn open(&mut self, socket: SocketId, peer: Peer, (credit, opens): (bool, Option<Opening>)) -> Result<(), String> {
        let stream = Stream { peer, credit, blocked: false, told: false, shut: false, opens };
        match self.streams.insert(socket, stream) {
            None => Ok(()),
            Some(_) => Err("opens an id twice".to_owned()),
        }
    }

    fn connect(&mut self, now: Instant, socket: SocketId, remote: Option<SocketAddr>) -> Result<(), String> {
        let remote = remote.ok_or("connects to a Unix socket, and there is none")?;
        let odds = if self.calm || self.is_peaceful { 0 } else { self.rng.u8(0..20) };
        let at = now + Duration::from_micros(self.rng.u64(0..80_000));
        let opens = match odds {
            17 => (Err(OpenError::NoDescriptors), at),
            18 => (Err(OpenError::Unreachable), at),
            // It never comes about.
            19 => (Ok(()), Instant::FAR),
            _ => (Ok(()), at),
        };
        let server = Server::new(cluster_of(remote), self.rng.fork(), self.is_peaceful || self.calm);
        self.open(socket, Peer::Server(Box::new(server)), (true, Some(opens)))
    }

    fn write(
        &mut self,
        now: Instant,
        socket: SocketId,
        bytes: &[u8],
        (truth, report): (&mut Truth, &mut HttpReport),
    ) -> Result<(), String> {
        let short = !self.calm && self.rng.u8(0..6) == 0;
        let stream = self.streams.get_mut(&socket).ok_or("writes to a stream that isn't there")?;
        if let Some((_, rest)) = self.blocked.iter_mut().find(|(blocked, _)| *blocked == socket) {
            // Several writes of one step go out together.
            rest.extend_from_slice(bytes);
            return Ok(());
        }
        if stream.blocked || stream.opens.is_some() || stream.shut {
            let how = (stream.blocked, stream.opens, stream.shut);
            return Err(format!("writes to a stream that is blocked, not open or shut: {how:?}"));
        }
        let is_stalled = match &stream.peer {
            Peer::Client(client) => client.stalled,
            Peer::Server(server) => server.stalled,
        };
        let most = if is_stalled { bytes.len().min(50) } else { bytes.len() };
        let taken = if short || is_stalled { self.rng.usize(0..=most) } else { most };
        if taken < bytes.len() {
            stream.blocked = true;
            report.counters.blocked += 1;
            self.blocked.push((socket, bytes[taken..].to_vec()));
        }
        if stream.told && matches!(&stream.peer, Peer::Client(client) if client.has_given_up()) {
            return Ok(());
        }
        match &mut stream.peer {
            Peer::Client(client) => {
                let before = client.answered;
                let was_upgraded = client.echoed.is_some();
                let came = client.take(&bytes[..taken])?;
                report.counters.upgraded += u64::from(client.echoed.is_some() && !was_upgraded);
                let errors: Vec<u64> = came.errors.iter().map(|(id, _)| *id).collect();
                let answered = client.asks[before..client.answered].iter().map(|ask| ask.id);
                let answered: Vec<u64> = answered.filter(|id| !errors.contains(id)).collect();
                truth.came(&came, &answered, report);
            }
            Peer::Server(server) => {
                let seen = server.take(now, &bytes[..taken])?;
                truth.saw(&seen, report);
            }
        }
        Ok(())
    }

    fn shutdown(&mut self, socket: SocketId, (truth, report): (&mut Truth, &mut HttpReport)) -> Result<(), String> {
        let stream = self.streams.get_mut(&socket).ok_or("shuts a stream down that isn't there")?;
        // Nothing comes of it behind a write that is blocked.
        if stream.blocked {
            return Ok(());
        }
        stream.shut = true;
        if let Peer::Client(client) = &mut stream.peer
            && !client.has_given_up()
        {
            let came = client.end()?;
            truth.came(&came, &[], report);
        }
        Ok(())
    }

    fn end(
        &mut self,
        socket: SocketId,
        by_reset: bool,
        (truth, report): (&mut Truth, &mut HttpReport),
    ) -> Result<(), String> {
        let stream = self.streams.remove(&socket).ok_or("closes a stream that isn't there")?;
        self.blocked.retain(|(blocked, _)| *blocked != socket);
        let Peer::Client(mut client) = stream.peer else { return Ok(()) };
        if client.has_given_up() || stream.told {
            return Ok(());
        }
        if by_reset {
            client.was_reset = true;
            truth.broke(&client, report);
        } else if !stream.shut {
            let came = client.end()?;
            truth.came(&came, &[], report);
        }
        Ok(())
    }
}
