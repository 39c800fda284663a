//! The worker, its machine, the clients and the backends behind it. Truth is what they sent; nothing here reads TLS.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kakei_config::{Backend, Balance, Cluster, ClusterTls, Document, Listener, Pem, Protocol, TcpKnobs};
use kakei_proxy::record::{CloseReason, Detail, Record};
use kakei_proxy::seam::{
    Accepted, Arrival, BrokenBy, Command, Endpoint, Event, Inbox, Instant, Op, Outbox, Reply, SocketId, Span, Ticket,
    Wall,
};
use kakei_proxy::secure::Materials;
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::worker::{Role, Worker};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::ServerConfig;

use crate::client::{Client, Saw};
use crate::provider::{self, provider};
use crate::server::{self, Kind, Server};

const SERVERS: [&str; 2] = [include_str!("a.pem"), include_str!("b.pem")];
const AUTHORITIES: [&str; 2] = [include_str!("ca-a.pem"), include_str!("ca-b.pem")];
const SHARED: Shared = Shared { workers: 1, balance_seed: 1 };
const ROLE: Role = Role { index: 0, seed: 1 };

/// What came of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) trace: u64,
    whole: usize,
    failed: usize,
    truncated: usize,
    resumed: usize,
    blocked: usize,
    verified: usize,
    restored: usize,
}

impl Told {
    pub(crate) fn counts(&self) -> [usize; 7] {
        [self.whole, self.failed, self.truncated, self.resumed, self.blocked, self.verified, self.restored]
    }
}

/// Whose a stream of the machine's is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Client(usize),
    Server(usize),
}

struct Stream {
    whose: Whose,
    credit: bool,
    is_blocked: bool,
    /// What the worker wrote in this step and the kernel did not take.
    rest: Vec<u8>,
    has_told_end: bool,
}

struct Run {
    seed: u64,
    is_http: bool,
    rng: Rng,
    worker: Worker,
    now: Instant,
    front: SocketId,
    clients: Vec<Client>,
    servers: Vec<Server>,
    /// By certificate, then by version.
    configs: [[Arc<ServerConfig>; 2]; 2],
    streams: BTreeMap<SocketId, Stream>,
    arriving: Vec<usize>,
    opening: Vec<SocketId>,
    snapshot: Option<Arc<Snapshot>>,
    generation: usize,
    is_to_publish: bool,
    /// By the client's number.
    records: BTreeMap<u32, Vec<Record>>,
    /// Clients whose streams did not live through a hand-over.
    lost: BTreeSet<usize>,
    told: Told,
}

fn document(is_http: bool, authority: usize) -> Document {
    let address = |last: u8| SocketAddr::from(([10, 0, 0, last], 443));
    let alpn = vec!["echo".to_owned()];
    let ca = Some(Pem::Text(AUTHORITIES[authority].to_owned()));
    let cluster = Cluster {
        balance: Balance::RoundRobin,
        backends: (0..4).map(|last| Backend::at(address(last))).collect(),
        tls: Some(ClusterTls { ca, server_name: Some("echo.test".to_owned()), alpn, ..ClusterTls::default() }),
        tcp: TcpKnobs { attempts: 4, connect_timeout: Duration::from_millis(150), ..TcpKnobs::default() },
        ..Cluster::default()
    };
    let listener = Listener {
        protocol: if is_http { Protocol::Http } else { Protocol::Tcp },
        bind: vec!["0.0.0.0:80".parse().unwrap()],
        cluster: Some("c".into()),
        ..Listener::default()
    };
    let access_log = kakei_config::AccessLog { to: Some("stdout".into()), ..Default::default() };
    Document {
        access_log,
        listeners: [("l".into(), listener)].into(),
        clusters: [("c".into(), cluster)].into(),
        ..Document::default()
    }
}

fn materials(authority: usize) -> Materials {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(AUTHORITIES[authority].as_bytes()).unwrap()).unwrap();
    let named = Some(Pem::Text(AUTHORITIES[authority].to_owned()));
    let trusted = [(named, Arc::new(roots))].into_iter().collect();
    Materials { provider: Some(provider()), trusted, ..Materials::default() }
}

pub(crate) fn run(seed: u64, is_http: bool) -> Told {
    provider::seed(seed);
    let mut run = Run {
        seed,
        is_http,
        rng: Rng::with_seed(seed),
        worker: Worker::new(ROLE),
        now: Instant::from_nanos(1_000_000_000),
        front: SocketId::default(),
        clients: Vec::new(),
        servers: Vec::new(),
        configs: SERVERS.map(server::configs),
        streams: BTreeMap::new(),
        arriving: Vec::new(),
        opening: Vec::new(),
        snapshot: None,
        generation: 0,
        is_to_publish: false,
        records: BTreeMap::new(),
        lost: BTreeSet::new(),
        told: Told::default(),
    };
    run.publish(0);
    let (change_at, restore_at) = (run.rng.usize(0..16), run.rng.usize(0..64));
    for n in 0..16 {
        if n == change_at {
            run.publish(1);
        }
        if n == restore_at {
            run.restore();
        }
        let client = Client::new(n as u32, &mut run.rng, is_http);
        run.clients.push(client);
        run.arriving.push(n);
        for _ in 0..run.rng.usize(1..30) {
            run.step();
        }
    }
    for _ in 0..20_000 {
        let serves = |stream: &Stream| matches!(stream.whose, Whose::Client(_));
        if !run.streams.values().any(serves) && run.arriving.is_empty() {
            break;
        }
        run.step();
    }
    run.judge()
}

impl Run {
    fn publish(&mut self, authority: usize) {
        let (document, old) = (document(self.is_http, authority), self.snapshot.as_deref());
        let generation = Generation(authority as u64 + 1);
        let snapshot = Snapshot::compile_with(&document, generation, SHARED, old, &materials(authority));
        self.snapshot = Some(Arc::new(snapshot));
        self.is_to_publish = true;
        self.step();
    }

    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        self.clients.iter_mut().for_each(|client| client.run(&mut self.rng, self.generation));
        self.servers.iter_mut().for_each(|server| server.run(&mut self.rng));
        let (mut events, mut arena) = (Vec::new(), Vec::new());
        for n in self.arriving.drain(..) {
            let (peer, local) = (SocketAddr::from(([10, 1, 0, 1], 1024 + n as u16)), "192.0.2.1:80".parse().unwrap());
            events.push(Event::Accepted(Accepted { front: self.front, arrival: Arrival(n as u32), peer, local }));
        }
        let local = "10.9.9.9:9".parse().unwrap();
        for socket in self.opening.drain(..) {
            if let Some(&Stream { whose: Whose::Server(n), .. }) = self.streams.get(&socket) {
                // The first and the third have the first certificate.
                let server = &mut self.servers[n];
                server.trusted = Some(server.generation % 2 == self.generation);
                server.generation = self.generation;
            }
            events.push(Event::Opened { socket, local });
        }
        for (&socket, stream) in self.streams.iter_mut().filter(|(_, stream)| !stream.rest.is_empty()) {
            stream.is_blocked = true;
            self.told.blocked += 1;
            events.push(Event::Blocked { socket, rest: put(&mut arena, &std::mem::take(&mut stream.rest)) });
        }
        self.collect(&mut events, &mut arena);
        if std::mem::take(&mut self.is_to_publish) {
            let command = Command::Publish(Arc::clone(self.snapshot.as_ref().unwrap()));
            self.generation = self.snapshot.as_ref().unwrap().generation.0 as usize - 1;
            events.push(Event::Command { ticket: Ticket(1), command });
        }
        self.carry_out(events, &arena);
    }

    /// What streams have to tell.
    fn collect(&mut self, events: &mut Vec<Event>, arena: &mut Vec<u8>) {
        for (&socket, stream) in &mut self.streams {
            if stream.is_blocked && self.rng.bool() {
                stream.is_blocked = false;
                events.push(Event::Drained { socket });
            }
            if stream.has_told_end {
                continue;
            }
            let (source, is_over, has_reset) = match stream.whose {
                Whose::Client(n) => {
                    let client = &mut self.clients[n];
                    (&mut client.to_worker, client.has_ended, client.has_reset)
                }
                Whose::Server(n) => {
                    let server = &mut self.servers[n];
                    (&mut server.to_worker, server.is_over, false)
                }
            };
            if has_reset && self.rng.bool() {
                stream.has_told_end = true;
                events.push(Event::Broken { socket, by: BrokenBy::Peer });
            } else if stream.credit && !source.is_empty() {
                let len = self.rng.usize(1..=source.len().min(65_536));
                let bytes: Vec<u8> = source.drain(..len).collect();
                events.push(Event::Data { socket, bytes: put(arena, &bytes) });
            } else if stream.credit && is_over {
                stream.has_told_end = true;
                events.push(Event::Eof { socket });
            }
        }
    }

    fn carry_out(&mut self, mut events: Vec<Event>, arena: &[u8]) -> Vec<Op> {
        let mut out = Outbox::default();
        let inbox = Inbox { events: &mut events, bytes: arena, wall: Wall::from_secs(1_800_000_000) };
        self.worker.step(self.now, inbox, &mut out);
        let mut hasher = DefaultHasher::new();
        (self.told.trace, &out.bytes, format!("{:?}", out.ops)).hash(&mut hasher);
        self.told.trace = hasher.finish();
        for op in &out.ops {
            self.perform(op, &out.bytes, arena);
        }
        out.ops
    }

    fn perform(&mut self, op: &Op, made: &[u8], arena: &[u8]) {
        let open = |whose, credit| Stream { whose, credit, is_blocked: false, rest: Vec::new(), has_told_end: false };
        match op {
            Op::Listen { socket, .. } => {
                self.front = *socket;
                self.opening.push(*socket);
            }
            Op::Accept { arrival, socket, credit } => {
                self.streams.insert(*socket, open(Whose::Client(arrival.0 as usize), *credit));
            }
            Op::Connect { socket, remote: Endpoint::Ip(address), .. } => {
                let SocketAddr::V4(address) = address else { panic!("{address} is no backend") };
                let certificate = usize::from(address.ip().octets()[3] % 2);
                let config = Arc::clone(&self.configs[certificate][self.rng.usize(0..2)]);
                let mut server = Server::new(&mut self.rng, config, self.is_http);
                server.generation = certificate;
                self.opening.push(*socket);
                self.streams.insert(*socket, open(Whose::Server(self.servers.len()), true));
                self.servers.push(server);
            }
            Op::Write { socket, bytes } => {
                let bytes = [bytes.head.of(made), bytes.body.of(arena)].concat();
                self.write(*socket, &bytes);
            }
            // Nothing comes of it behind a write that is blocked.
            Op::Shutdown { socket } if self.takes(*socket) => self.end(*socket),
            Op::Credit { socket, on } => {
                if let Some(stream) = self.streams.get_mut(socket) {
                    stream.credit = *on;
                }
            }
            Op::Pipe { .. } | Op::Unpipe { .. } => panic!("the kernel can't move what has to be encrypted"),
            Op::Close { socket } => {
                let stream = &self.streams[socket];
                let is_clients = matches!(stream.whose, Whose::Client(_));
                assert!(stream.rest.is_empty() || !is_clients, "seed {}: bytes are lost", self.seed);
                // Who is left with something that it didn't take can't be told more.
                if self.takes(*socket) {
                    self.end(*socket);
                }
                self.streams.remove(socket);
            }
            Op::Reset { socket } => {
                if let Some(Stream { whose: Whose::Client(n), .. }) = self.streams.remove(socket) {
                    let client = &mut self.clients[n];
                    client.saw = if client.saw == Saw::End { Saw::End } else { Saw::Reset };
                }
            }
            Op::Record(record) => {
                let number = u32::from(record.client.port()) - 1024;
                self.records.entry(number).or_default().push(Record::clone(record));
            }
            _ => {}
        }
    }

    fn takes(&self, socket: SocketId) -> bool {
        self.streams.get(&socket).is_some_and(|stream| stream.rest.is_empty() && !stream.is_blocked)
    }

    /// The worker sends nothing more there.
    fn end(&mut self, socket: SocketId) {
        match self.streams[&socket].whose {
            Whose::Client(n) => self.clients[n].saw = Saw::End,
            Whose::Server(n) => {
                let server = &self.servers[n];
                // Its handshake may not be over on our side.
                let is_new = server.plain.is_empty();
                let is_said = server.heard_end || server.is_over || !server.is_open() || server.kind == Kind::Silent;
                assert!(is_said || is_new, "seed {}: a backend is left without a word in TLS", self.seed);
            }
        }
    }

    fn write(&mut self, socket: SocketId, bytes: &[u8]) {
        let Some(stream) = self.streams.get_mut(&socket) else { return };
        assert!(!stream.is_blocked, "seed {}: nothing is written to a stream that is blocked", self.seed);
        let taken = match stream.rest.is_empty() {
            false => 0,
            true if self.rng.u8(..5) > 0 => bytes.len(),
            true => self.rng.usize(0..=bytes.len()),
        };
        stream.rest.extend_from_slice(&bytes[taken..]);
        match stream.whose {
            Whose::Client(n) => self.clients[n].got.extend_from_slice(&bytes[..taken]),
            Whose::Server(_) if taken == 0 => {}
            Whose::Server(n) => self.servers[n].take(&bytes[..taken]),
        }
    }

    /// Write the worker down, and go on with one that is read back. What it doesn't take over is gone.
    fn restore(&mut self) {
        let command = Event::Command { ticket: Ticket(2), command: Command::Snapshot };
        let ops = self.carry_out(vec![command], &[]);
        let state = ops.into_iter().find_map(|op| match op {
            Op::Reply { reply: Reply::State(state), .. } => Some(*state),
            _ => None,
        });
        let state = serde_json::to_string(&state.expect("it is written down")).unwrap();
        let state = serde_json::from_str(&state).unwrap();
        let snapshot = Arc::clone(self.snapshot.as_ref().unwrap());
        self.worker = Worker::restore(ROLE, self.now, state, &snapshot).unwrap();
        self.told.restored += 1;
        let mut left = std::mem::take(&mut self.streams);
        let front = self.front;
        let mut out = Outbox::default();
        let inbox = Inbox { events: &mut Vec::new(), bytes: &[], wall: Wall::from_secs(1_800_000_000) };
        self.worker.step(self.now, inbox, &mut out);
        let mut renamed = BTreeMap::new();
        for op in &out.ops {
            match op {
                Op::Adopt { was, socket } => {
                    renamed.insert(*was, *socket);
                    self.streams.extend(left.remove(was).map(|stream| (*socket, stream)));
                }
                other => self.perform(other, &out.bytes, &[]),
            }
        }
        self.front = renamed[&front];
        self.opening = self.opening.iter().filter_map(|was| renamed.get(was).copied()).collect();
        let clients = left.values().filter_map(|stream| match stream.whose {
            Whose::Client(n) => Some(n),
            Whose::Server(_) => None,
        });
        for n in clients {
            self.lost.insert(n);
            self.clients[n].saw = Saw::Reset;
        }
    }

    fn judge(mut self) -> Told {
        let seed = self.seed;
        let serves = |stream: &Stream| matches!(stream.whose, Whose::Client(_));
        assert!(!self.streams.values().any(serves), "seed {seed}: something never ends");
        // Connections that carry requests wait for the next one.
        assert!(self.is_http || self.streams.is_empty(), "seed {seed}: a backend is left with its connection");
        for server in &self.servers {
            let is_trusted = server.trusted == Some(true);
            assert!(is_trusted || server.plain.is_empty(), "seed {seed}: one that proved nothing got bytes");
            assert!(is_trusted || !server.is_open(), "seed {seed}: one that proved nothing shook hands");
            let is_in_vain = !is_trusted && server.failure.as_ref().is_some_and(|error| error.contains("alert"));
            self.told.verified += usize::from(is_in_vain);
            self.told.resumed += usize::from(server.is_open() && server.is_resumed());
        }
        for n in 0..self.clients.len() {
            let complaint = if self.is_http { self.judge_requests(n) } else { self.judge_stream(n) };
            if let Some(complaint) = complaint {
                panic!("seed {seed}, client {n}: {complaint}; {:?}", self.records.get(&(n as u32)));
            }
        }
        self.told
    }

    fn judge_stream(&mut self, n: usize) -> Option<String> {
        let client = &self.clients[n];
        if self.lost.contains(&n) {
            return client.complaint(false);
        }
        let record = self.records.get(&client.number).and_then(|records| records.first());
        let reason = record.map(|record| record.reason);
        let attempts = record.map_or(0, |record| match &record.detail {
            Detail::Connection(detail) => detail.attempts,
            _ => 0,
        });
        let served = |server: &&Server| server.plain.starts_with(&client.number.to_le_bytes());
        let honest = self.servers.iter().filter(served).any(|server| server.kind == Kind::Honest);
        let early = self.servers.iter().filter(served).find(|server| matches!(server.kind, Kind::Early(_)));
        let (saw, is_whole) = match reason {
            Some(CloseReason::Closed) if early.is_some_and(|server| !server.heard_end) => {
                return Some("the backend that ended early never heard of the end".to_owned());
            }
            Some(CloseReason::Closed) if early.is_some() => (Saw::End, false),
            Some(CloseReason::Closed) => {
                self.told.whole += 1;
                (Saw::End, true)
            }
            Some(CloseReason::BackendTls | CloseReason::ConnectFailed) if !honest && attempts == 4 => {
                self.told.failed += 1;
                (Saw::Reset, false)
            }
            Some(CloseReason::BackendTruncated) if !honest => {
                self.told.truncated += 1;
                (Saw::Reset, false)
            }
            // Who goes before a backend is there is closed in order.
            None | Some(CloseReason::ClientReset | CloseReason::ClientGone) if client.goes() => (client.saw, false),
            other => {
                return Some(format!("{other:?} after {attempts} attempts, and who served it was honest: {honest}"));
            }
        };
        let complaint = client.complaint(is_whole);
        complaint.or_else(|| (client.saw != saw).then(|| format!("{reason:?}, and it saw {:?}", client.saw)))
    }

    fn judge_requests(&mut self, n: usize) -> Option<String> {
        for asked in &self.clients[n].asked {
            let came = |server: &&Server| server.answered.iter().any(|(number, _)| *number == asked.number);
            let may_be_whole = |server: &Server| server.answered.contains(&(asked.number, true));
            let mut seen = self.servers.iter().filter(came);
            // What was sent when others vouch goes to nobody who was spoken to before.
            if seen.clone().any(|server| server.generation < asked.generation) {
                return Some(format!("request {} went by a connection of before", asked.number));
            }
            match asked.answered {
                Some(200) if !seen.any(may_be_whole) => return Some(format!("request {} was cut", asked.number)),
                Some(200) => self.told.whole += 1,
                Some(502 | 504) => self.told.failed += 1,
                Some(status) => return Some(format!("request {} got {status}", asked.number)),
                None => self.told.truncated += 1,
            }
        }
        None
    }
}

fn put(arena: &mut Vec<u8>, bytes: &[u8]) -> Span {
    let span = Span { start: arena.len() as u32, len: bytes.len() as u32 };
    arena.extend_from_slice(bytes);
    span
}
