//! The machine's side of HTTP's streams: accepts, connects, pieces of any size, short writes, pipes, resets. It never
//! decides anything that a kernel would not decide.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use fastrand::Rng;
use kakei_proxy::limits::STREAM_READ;
use kakei_proxy::seam::{Accepted, Arrival, BrokenBy, Event, Instant, Op, OpenError, Outbox, SocketId};

use super::client::Client;
use super::guards::Passwords;
use super::server::Server;
use super::truth::Truth;
use super::{HttpCounters, Scene};
use crate::driven::{Desk, Host};

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
    /// The last write was taken only in part: it is reset where it is closed.
    owes: bool,
    /// Its end, or its death, was told.
    told: bool,
    /// The proxy ended its direction.
    shut: bool,
    /// Not open yet: what comes of it, and when.
    opens: Option<Opening>,
    /// Of a backend's: since when it has been chosen for the request under way.
    chosen: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Machine {
    rng: Rng,
    /// Which worker's it is.
    index: usize,
    streams: BTreeMap<SocketId, Stream>,
    fronts: BTreeMap<SocketId, u16>,
    queue: VecDeque<Client>,
    arrivals: BTreeMap<Arrival, Client>,
    desk: Desk,
    passwords: Passwords,
    is_peaceful: bool,
    calm: bool,
    /// Some of those that were told that this is all go on sending, and never end.
    drips: bool,
    next_port: u16,
    /// During a hand-over: what nobody took over yet.
    orphans: Option<Orphans>,
}

/// What a worker left.
#[derive(Debug)]
struct Orphans {
    streams: BTreeMap<SocketId, Stream>,
    fronts: BTreeMap<SocketId, u16>,
    renamed: BTreeMap<SocketId, SocketId>,
}

impl Machine {
    pub(super) fn new(index: usize, rng: Rng, is_peaceful: bool) -> Self {
        Machine {
            rng,
            index,
            streams: BTreeMap::new(),
            fronts: BTreeMap::new(),
            queue: VecDeque::new(),
            arrivals: BTreeMap::new(),
            desk: Desk::default(),
            orphans: None,
            passwords: Passwords::default(),
            is_peaceful,
            calm: false,
            drips: false,
            next_port: 10_000,
        }
    }

    /// One more client wants to connect.
    pub(super) fn invite(&mut self, truth: &mut Truth, is_guarded: bool) {
        let client = Client::new(truth.next_id(), &mut self.rng, (self.is_peaceful, is_guarded));
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

    /// Everything is to end by a drain, whatever clients do.
    pub(super) fn drip(&mut self) {
        self.drips = true;
    }

    pub(super) fn has_clients(&self) -> bool {
        self.streams.values().any(|stream| matches!(stream.peer, Peer::Client(_)))
    }

    /// Whether nothing is open but the front.
    pub(super) fn is_idle(&self) -> bool {
        self.streams.is_empty() && self.queue.is_empty()
    }

    /// A backend that waits for the rest of a request, all of which was sent, though it takes what comes: that can't be
    /// where the worker has nothing left to do.
    pub(super) fn what_is_held_back(&self) -> Option<String> {
        let sent = self.streams.values().filter_map(|stream| match &stream.peer {
            Peer::Client(client) => client.sent_whole(),
            Peer::Server(_) => None,
        });
        let sent: BTreeSet<u64> = sent.collect();
        let waits = |stream: &Stream| match &stream.peer {
            Peer::Server(server) if !stream.blocked => server.has_in_part().filter(|id| sent.contains(id)),
            _ => None,
        };
        let mut all = self.streams.values().filter_map(|stream| Some((waits(stream)?, stream)));
        let (id, stream) = all.next()?;
        Some(format!("the rest of request {id} was sent, and doesn't come: {}", describe(stream)))
    }

    pub(super) fn what_is_left(&self) -> String {
        let Some((id, stream)) = self.streams.iter().next() else { return "clients that nobody accepts".to_owned() };
        format!("{id:?} {}", describe(stream))
    }

    /// What the next step is told.
    pub(super) fn collect(&mut self, now: Instant, events: &mut Vec<Event>, scene: &mut Scene) {
        self.desk.clear(events);
        self.finish_connects(now, events, &mut scene.report.counters);
        let verified = self.passwords.due(now).into_iter();
        events.extend(verified.map(|(job, verdict)| Event::Verified { job, verdict }));
        self.accept(events);
        let mut ids: Vec<SocketId> = self.streams.keys().copied().collect();
        self.rng.shuffle(&mut ids);
        for id in ids.into_iter().take(TURNS) {
            self.turn(now, id, events, scene);
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
        for number in 0..self.rng.u32(0..4) {
            let Some(client) = self.queue.pop_front() else { return };
            let port = client.port;
            // Where nobody listens the kernel refuses it.
            let Some((&front, _)) = self.fronts.iter().find(|(_, bound)| **bound == port) else { continue };
            self.next_port += 1;
            let peer = SocketAddr::from((Ipv4Addr::new(198, 51, 100, 7), self.next_port));
            let local = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), port));
            self.arrivals.insert(Arrival(number), client);
            events.push(Event::Accepted(Accepted { front, arrival: Arrival(number), peer, local }));
        }
    }

    /// What one stream has to say: at most one thing of each kind.
    fn turn(&mut self, now: Instant, id: SocketId, events: &mut Vec<Event>, scene: &mut Scene) {
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
            scene.report.counters.resets += 1;
            return events.push(Event::Broken { socket: id, by: BrokenBy::Peer });
        }
        if !stream.credit {
            return;
        }
        if self.drips && matches!(&stream.peer, Peer::Client(client) if client.drips()) {
            let bytes = self.desk.put([b'x']);
            return events.push(Event::Data { socket: id, bytes });
        }
        if !pending.is_empty() {
            let most = pending.len().min(STREAM_READ);
            let in_one = matches!(&stream.peer, Peer::Server(server) if server.is_in_one);
            let count = match self.rng.u8(0..4) {
                _ if in_one => most,
                0 => self.rng.usize(1..=most.min(40)),
                1 => self.rng.usize(1..=most),
                // As who writes a head by itself.
                2 => end_of_head(&pending[..most]),
                _ => most,
            };
            let bytes = self.desk.put(pending[..count].iter().copied());
            match &mut stream.peer {
                Peer::Client(client) => client.send(count),
                Peer::Server(server) => {
                    server.send(count);
                    scene.truth.probed(now, server.address, server.has_said());
                }
            }
            events.push(Event::Data { socket: id, bytes });
        } else if ended && (self.calm || self.rng.bool()) {
            stream.told = true;
            events.push(Event::Eof { socket: id });
        }
    }

    fn adopt(&mut self, was: SocketId, socket: SocketId) -> Result<(), String> {
        let orphans = self.orphans.as_mut().ok_or("adopts, and nothing was handed over")?;
        let stream = orphans.streams.remove(&was);
        let front = orphans.fronts.remove(&was);
        if stream.is_none() && front.is_none() {
            return Err("adopts what nobody left".to_owned());
        }
        orphans.renamed.insert(was, socket);
        self.streams.extend(stream.map(|stream| (socket, stream)));
        self.fronts.extend(front.map(|front| (socket, front)));
        Ok(())
    }

    fn open(
        &mut self,
        socket: SocketId,
        peer: Peer,
        (credit, opens): (bool, Option<Opening>),
        now: Instant,
    ) -> Result<(), String> {
        let stream =
            Stream { peer, credit, blocked: false, owes: false, told: false, shut: false, opens, chosen: Some(now) };
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
        let server = Server::new(remote, self.rng.fork(), self.is_peaceful || self.calm);
        self.open(socket, Peer::Server(Box::new(server)), (true, Some(opens)), now)
    }

    fn write(&mut self, now: Instant, socket: SocketId, bytes: &[u8], scene: &mut Scene) -> Result<(), String> {
        let Scene { truth, report } = scene;
        let short = !self.calm && self.rng.u8(0..6) == 0;
        let stream = self.streams.get_mut(&socket).ok_or("writes to a stream that isn't there")?;
        if self.desk.follows_blocked(socket, bytes) {
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
        if let Peer::Server(server) = &mut stream.peer
            && server.is_asked_by(bytes)
        {
            let chosen = *stream.chosen.get_or_insert(now);
            truth.chosen(self.index, chosen, server.address)?;
        }
        let most = if is_stalled { bytes.len().min(50) } else { bytes.len() };
        let taken = if short || is_stalled { self.rng.usize(0..=most) } else { most };
        stream.owes = taken < bytes.len();
        if stream.owes {
            stream.blocked = true;
            report.counters.blocked += 1;
            self.desk.block(socket, &bytes[taken..]);
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
                let seen = server.take(now, &bytes[..taken], truth.is_well(server.address))?;
                report.counters.questions += server.take_questions();
                if !seen.is_empty() {
                    stream.chosen = None;
                }
                truth.saw(&seen, report);
            }
        }
        Ok(())
    }

    fn shutdown(&mut self, socket: SocketId, scene: &mut Scene) -> Result<(), String> {
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
            scene.truth.came(&came, &[], &mut scene.report);
        }
        Ok(())
    }

    fn end(&mut self, socket: SocketId, by_reset: bool, scene: &mut Scene) -> Result<(), String> {
        let stream = self.streams.remove(&socket).ok_or("closes a stream that isn't there")?;
        self.desk.forget(socket);
        let Peer::Client(mut client) = stream.peer else { return Ok(()) };
        if client.has_given_up() || stream.told {
            return Ok(());
        }
        if by_reset || stream.owes {
            client.was_reset = true;
            scene.truth.broke(&client, &mut scene.report);
        } else if !stream.shut {
            let came = client.end()?;
            scene.truth.came(&came, &[], &mut scene.report);
        }
        Ok(())
    }
}

/// How many bytes there are to where a head ends, or all where none does.
fn end_of_head(bytes: &[u8]) -> usize {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4)
}

fn describe(stream: &Stream) -> String {
    let how = (stream.credit, stream.blocked, stream.told, stream.shut, stream.opens);
    let peer = match &stream.peer {
        Peer::Client(client) => format!("{client}"),
        Peer::Server(server) => format!("{server}"),
    };
    format!("credit, blocked, told, shut, opens {how:?}: {peer}")
}

/// What is being opened to a backend that is probed, or was opened and got nothing yet, may be for a probe.
fn is_unused(stream: &Stream) -> bool {
    matches!(&stream.peer, Peer::Server(server) if server.cluster == "three" && server.got_nothing())
}

impl Host for Machine {
    type Scene = Scene;

    fn desk(&mut self) -> &mut Desk {
        &mut self.desk
    }

    fn carry_out(&mut self, now: Instant, out: &Outbox, scene: &mut Scene) {
        for op in &out.ops {
            let result = match op {
                Op::Listen { socket, bind } => {
                    self.fronts.insert(*socket, bind.address.port());
                    self.desk.pending.push_back(Event::Opened { socket: *socket, local: bind.address });
                    Ok(())
                }
                Op::Connect { socket, remote, .. } => self.connect(now, *socket, remote.ip()),
                Op::Accept { arrival, socket, credit } => match self.arrivals.remove(arrival) {
                    Some(client) => self.open(*socket, Peer::Client(Box::new(client)), (*credit, None), now),
                    None => Err("accepts somebody who isn't there".to_owned()),
                },
                Op::Refuse { arrival, .. } => {
                    self.arrivals.remove(arrival);
                    Ok(())
                }
                Op::Write { socket, bytes } => {
                    let whole = [bytes.head.of(&out.bytes), bytes.body.of(self.desk.bytes())].concat();
                    self.write(now, *socket, &whole, scene)
                }
                Op::Shutdown { socket } => self.shutdown(*socket, scene),
                Op::Credit { socket, on } => match self.streams.get_mut(socket) {
                    Some(stream) => {
                        stream.credit = *on;
                        Ok(())
                    }
                    None => Err("names a stream that isn't there".to_owned()),
                },
                // A machine that can't goes on showing the bytes.
                Op::Pipe { .. } | Op::Unpipe { .. } => Ok(()),
                Op::Reset { socket } => self.end(*socket, true, scene),
                Op::Close { socket } if self.fronts.remove(socket).is_some() => Ok(()),
                Op::Close { socket } => self.end(*socket, false, scene),
                Op::Record(record) => scene.truth.record(self.index, record),
                Op::Adopt { was, socket } => self.adopt(*was, *socket),
                Op::Notice(notice) => {
                    scene.truth.notice(now, self.index, notice);
                    Ok(())
                }
                Op::Verify(verify) => {
                    scene.report.counters.passwords += 1;
                    self.passwords.ask(now, verify, (&mut self.rng, self.is_peaceful || self.calm))
                }
                Op::Farewell { .. } => Err("has something to say that nobody needs, and there is no TLS".to_owned()),
                Op::Unbind { .. } | Op::Reply { .. } => Ok(()),
                Op::OpenDatagram { .. } | Op::Send(_) => Err("asks for what isn't there".to_owned()),
            };
            if let Err(wrong) = result {
                scene.report.violations.push(format!("at {}: {op:?}: {wrong}", now.as_nanos()));
            }
        }
        if !self.arrivals.is_empty() {
            scene.report.violations.push("a client was neither accepted nor refused".to_owned());
        }
    }

    fn leave(&mut self) {
        let streams = std::mem::take(&mut self.streams);
        let fronts = std::mem::take(&mut self.fronts);
        self.orphans = Some(Orphans { streams, fronts, renamed: BTreeMap::new() });
    }

    fn take_over(&mut self, scene: &mut Scene) {
        let Some(orphans) = self.orphans.take() else { return };
        // A probe that was under way is made anew.
        let is_probe = |stream: &Stream| matches!(&stream.peer, Peer::Server(server) if server.is_probed());
        let left = orphans.streams.iter().filter(|(_, stream)| !is_probe(stream) && !is_unused(stream));
        for (id, stream) in left {
            scene.report.violations.push(format!("{id:?} was left behind: {}", describe(stream)));
        }
        self.desk.rename(&orphans.renamed);
    }
}
