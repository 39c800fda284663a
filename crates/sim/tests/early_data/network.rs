//! Two workers, their machines, the network and the backend behind them, which knows of each request what may be true of
//! it when it comes. Nothing here reads TLS.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kakei_config::{
    Backend, Cluster, Document, Listener, ListenerTls, Name, PathMatch, Protocol, Route, ServerName, Shown,
};
use kakei_proxy::seam::{Accepted, Arrival, Command, Event, Inbox, Instant, Op, Outbox, SocketId, Span, Ticket, Wall};
use kakei_proxy::secure::{Certificate, Materials, TicketKeys};
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::worker::{Role, Worker};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};
use rustls::sign::CertifiedKey;

use crate::client::{ANSWER, Client, config};
use crate::provider::{self, provider};

const CERTIFICATE: &str = include_str!("../secured/a.pem");
const WORKERS: usize = 2;
const SHARED: Shared = Shared { workers: WORKERS as u16, balance_seed: 1 };
const HANDSHAKE: Duration = Duration::from_millis(200);
/// How much later than it should a connection may be gone: blocked writes, and steps of a millisecond.
const SLACK: Duration = Duration::from_millis(5);
const CLIENTS: usize = 10;

/// What is simulated.
#[derive(Clone, Copy, Default)]
pub(crate) struct Plan {
    /// Whether routes and clusters change under way.
    pub(crate) changes: bool,
    /// Whether every client's session is forgotten before it comes back, as by a restart.
    pub(crate) forgets: bool,
    /// Whether the listener is removed while they come, so that a short drain cuts off whoever is left.
    pub(crate) is_removed: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) trace: u64,
    /// Requests that reached the backend with the word that they came early.
    pub(crate) early: usize,
    /// Those that had to wait, of clients whose early data was taken.
    pub(crate) held: usize,
    /// Clients by what became of their early data.
    pub(crate) accepted: usize,
    pub(crate) refused: usize,
    pub(crate) stalled: usize,
    /// First flights that were sent again.
    pub(crate) replayed: usize,
    /// Clients that stalled, or whose listener went, before all was answered.
    pub(crate) cut: usize,
}

impl Told {
    pub(crate) fn and(self, other: Told) -> Told {
        Told {
            trace: 0,
            early: self.early + other.early,
            held: self.held + other.held,
            accepted: self.accepted + other.accepted,
            refused: self.refused + other.refused,
            stalled: self.stalled + other.stalled,
            replayed: self.replayed + other.replayed,
            cut: self.cut + other.cut,
        }
    }
}

/// Who is at the other end of a stream.
enum Who {
    Client(usize),
    /// Somebody who has the first flight of this client, and sends it again.
    Recorder(Vec<u8>),
    Backend {
        came: Vec<u8>,
        says: Vec<u8>,
    },
}

struct Stream {
    who: Who,
    since: Instant,
    credit: bool,
    is_blocked: bool,
    rest: Vec<u8>,
    is_shut: bool,
    has_told_end: bool,
}

/// A worker and what its machine holds.
struct Machine {
    worker: Worker,
    front: SocketId,
    streams: BTreeMap<SocketId, Stream>,
    opened: Vec<SocketId>,
    /// Who comes next.
    arriving: Vec<(u32, Who)>,
    is_to_publish: bool,
}

/// How often a request reached the backend, with the word that it came early and without.
#[derive(Clone, Copy, Default)]
struct Reached {
    early: usize,
    late: usize,
}

struct Run {
    seed: u64,
    rng: Rng,
    now: Instant,
    machines: Vec<Machine>,
    clients: Vec<Client>,
    reached: BTreeMap<String, Reached>,
    arrivals: u32,
    snapshot: Option<Arc<Snapshot>>,
    materials: Materials,
    told: Told,
}

fn certificate() -> Arc<Certificate> {
    let pem = CERTIFICATE.as_bytes();
    let chain = vec![CertificateDer::from_pem_slice(pem).unwrap()];
    let key = CertifiedKey::from_der(chain, PrivateKeyDer::from_pem_slice(pem).unwrap(), &provider()).unwrap();
    Arc::new(Certificate {
        name: Name::new("echo"),
        key: Arc::new(key),
        names: vec![ServerName::Exact("echo.test".into())],
        addresses: Vec::new(),
        not_before: 0,
        not_after: i64::MAX,
        issuer: String::new(),
        fingerprint: [0; 32],
    })
}

fn document(number: usize) -> Document {
    let backend: SocketAddr = "10.0.0.1:7".parse().unwrap();
    let cluster = Cluster { backends: vec![Backend::at(backend)], ..Cluster::default() };
    let tls = ListenerTls {
        certificates: Shown::Named(vec!["echo".into()]),
        handshake_timeout: HANDSHAKE,
        ..ListenerTls::default()
    };
    let listener = Listener {
        protocol: Protocol::Http,
        bind: vec!["0.0.0.0:443".parse().unwrap()],
        tls: Some(tls),
        drain_timeout: Duration::from_millis(2),
        ..Listener::default()
    };
    let route = |path: &str, early_data| Route {
        listener: "l".into(),
        path: PathMatch::Prefix(path.to_owned()),
        cluster: Some("c".into()),
        early_data,
        ..Route::default()
    };
    let mut routes = vec![(Name::new("early"), route("/early", true)), (Name::new("late"), route("/late", false))];
    // Others come and go beside them.
    routes.extend((0..number).map(|n| (Name::new(format!("r{n}")), route(&format!("/r{n}"), n % 2 == 0))));
    Document {
        listeners: [("l".into(), listener)].into(),
        routes: routes.into_iter().collect(),
        clusters: [("c".into(), cluster)].into(),
        ..Document::default()
    }
}

fn sessions() -> Option<Arc<dyn StoresServerSessions>> {
    Some(ServerSessionMemoryCache::new(256))
}

pub(crate) fn run(seed: u64, plan: Plan) -> Told {
    provider::seed(seed);
    let machine = |index| Machine {
        worker: Worker::new(Role { index, seed }),
        front: SocketId::default(),
        streams: BTreeMap::new(),
        opened: Vec::new(),
        arriving: Vec::new(),
        is_to_publish: false,
    };
    let materials = Materials {
        provider: Some(provider()),
        certificates: [("echo".into(), certificate())].into_iter().collect(),
        tickets: TicketKeys::new(&provider()),
        sessions: sessions(),
        ..Materials::default()
    };
    let mut run = Run {
        seed,
        rng: Rng::with_seed(seed),
        now: Instant::from_nanos(1_000_000_000),
        machines: (0..WORKERS as u16).map(machine).collect(),
        clients: Vec::new(),
        reached: BTreeMap::new(),
        arrivals: 0,
        snapshot: None,
        materials,
        told: Told::default(),
    };
    run.publish(0);
    let config = config();
    for n in 0..CLIENTS {
        if plan.forgets {
            run.materials.sessions = sessions();
        }
        if plan.changes || plan.forgets {
            run.publish(n + 1);
        }
        let client = Client::new(&mut run.rng, &config, n);
        run.clients.push(client);
        run.come(n);
        // As a rule the next one finds the sessions that this one left.
        for _ in 0..run.rng.usize(1..60) {
            run.step();
        }
    }
    if plan.is_removed {
        for machine in &mut run.machines {
            machine.arriving.clear();
        }
        run.publish_document(CLIENTS + 1, &Document::default());
    }
    for _ in 0..20_000 {
        if run.machines.iter().all(|machine| machine.is_quiet()) {
            break;
        }
        run.step();
    }
    run.judge(plan)
}

impl Machine {
    /// Whether nobody is there but idle backends.
    fn is_quiet(&self) -> bool {
        self.arriving.is_empty() && self.streams.values().all(|stream| matches!(stream.who, Who::Backend { .. }))
    }
}

impl Run {
    fn publish(&mut self, number: usize) {
        self.publish_document(number, &document(number));
    }

    fn publish_document(&mut self, number: usize, document: &Document) {
        let old = self.snapshot.as_deref();
        let generation = Generation(number as u64 + 1);
        let snapshot = Snapshot::compile_with(document, generation, SHARED, old, &self.materials);
        self.snapshot = Some(Arc::new(snapshot));
        self.machines.iter_mut().for_each(|machine| machine.is_to_publish = true);
        self.step();
    }

    /// A client comes to a worker; and before it, beside it or behind it whoever recorded its first flight.
    fn come(&mut self, number: usize) {
        let flight = self.clients[number].flight.clone();
        let mut all = vec![Who::Client(number)];
        for _ in 0..self.rng.usize(0..3) {
            all.push(Who::Recorder(flight.clone()));
            self.told.replayed += 1;
        }
        self.rng.shuffle(&mut all);
        for who in all {
            let machine = &mut self.machines[self.rng.usize(0..WORKERS)];
            self.arrivals += 1;
            machine.arriving.push((self.arrivals, who));
            for _ in 0..self.rng.usize(0..4) {
                self.step();
            }
        }
    }

    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        self.clients.iter_mut().for_each(|client| client.run(&mut self.rng));
        for at in 0..WORKERS {
            self.step_one(at);
        }
    }

    fn step_one(&mut self, at: usize) {
        let (mut events, mut arena) = (Vec::new(), Vec::new());
        let (rng, machine) = (&mut self.rng, &mut self.machines[at]);
        let local = "192.0.2.1:443".parse().unwrap();
        for (arrival, _) in &machine.arriving {
            let peer = SocketAddr::from(([10, 1, 0, 1], 1024 + *arrival as u16));
            events.push(Event::Accepted(Accepted { front: machine.front, arrival: Arrival(*arrival), peer, local }));
        }
        let front = machine.front;
        let bound = |socket| if socket == front { "0.0.0.0:443" } else { "10.9.9.9:9" }.parse().unwrap();
        events.extend(machine.opened.drain(..).map(|socket| Event::Opened { socket, local: bound(socket) }));
        if std::mem::take(&mut machine.is_to_publish) {
            let command = Command::Publish(Arc::clone(self.snapshot.as_ref().unwrap()));
            events.push(Event::Command { ticket: Ticket(1), command });
        }
        let mut put = |bytes: &[u8]| {
            let span = Span { start: arena.len() as u32, len: bytes.len() as u32 };
            arena.extend_from_slice(bytes);
            span
        };
        for (&socket, stream) in machine.streams.iter_mut().filter(|(_, stream)| !stream.rest.is_empty()) {
            stream.is_blocked = true;
            events.push(Event::Blocked { socket, rest: put(&std::mem::take(&mut stream.rest)) });
        }
        for (&socket, stream) in &mut machine.streams {
            if stream.is_blocked && rng.u8(..4) == 0 {
                stream.is_blocked = false;
                events.push(Event::Drained { socket });
            }
            if !stream.credit || stream.has_told_end {
                continue;
            }
            let (source, is_over) = match &mut stream.who {
                Who::Client(n) => {
                    let client = &mut self.clients[*n];
                    (&mut client.to_worker, client.is_over)
                }
                Who::Recorder(flight) => (flight, false),
                Who::Backend { says, .. } => (says, stream.is_shut),
            };
            if !source.is_empty() && rng.u8(..3) > 0 {
                let len = rng.usize(1..=source.len().min(65_536));
                let bytes: Vec<u8> = source.drain(..len).collect();
                events.push(Event::Data { socket, bytes: put(&bytes) });
                if let Who::Client(n) = stream.who {
                    self.clients[n].delivered += len;
                }
            } else if source.is_empty() && is_over {
                stream.has_told_end = true;
                events.push(Event::Eof { socket });
            }
        }
        self.carry_out(at, events, &arena);
    }

    fn carry_out(&mut self, at: usize, mut events: Vec<Event>, arena: &[u8]) {
        let mut out = Outbox::default();
        let inbox = Inbox { events: &mut events, bytes: arena, wall: Wall::from_secs(1_800_000_000) };
        self.machines[at].worker.step(self.now, inbox, &mut out);
        let mut hasher = DefaultHasher::new();
        (self.told.trace, &out.bytes, format!("{:?}", out.ops)).hash(&mut hasher);
        self.told.trace = hasher.finish();
        for op in &out.ops {
            self.perform(at, op, &out.bytes, arena);
        }
    }

    fn perform(&mut self, at: usize, op: &Op, made: &[u8], arena: &[u8]) {
        let now = self.now;
        let stream = |who, credit| Stream {
            who,
            since: now,
            credit,
            is_blocked: false,
            rest: Vec::new(),
            is_shut: false,
            has_told_end: false,
        };
        let machine = &mut self.machines[at];
        match op {
            Op::Listen { socket, .. } => {
                machine.front = *socket;
                machine.opened.push(*socket);
            }
            Op::Accept { arrival, socket, credit } => {
                let place = machine.arriving.iter().position(|(number, _)| *number == arrival.0);
                let (_, who) = machine.arriving.remove(place.expect("it came"));
                machine.streams.insert(*socket, stream(who, *credit));
            }
            Op::Connect { socket, .. } => {
                machine.opened.push(*socket);
                machine.streams.insert(*socket, stream(Who::Backend { came: Vec::new(), says: Vec::new() }, true));
            }
            Op::Write { socket, bytes } => {
                let bytes = [bytes.head.of(made), bytes.body.of(arena)].concat();
                self.write(at, *socket, &bytes);
            }
            Op::Shutdown { socket } => {
                let Some(stream) = machine.streams.get_mut(socket) else { return };
                stream.is_shut = stream.rest.is_empty();
                if let Who::Recorder(_) = stream.who {
                    stream.has_told_end = true;
                }
            }
            Op::Credit { socket, on } => {
                if let Some(stream) = machine.streams.get_mut(socket) {
                    stream.credit = *on;
                }
            }
            Op::Close { socket } | Op::Reset { socket } => self.end(at, *socket),
            _ => {}
        }
    }

    /// Nobody stays longer than its handshake may take who doesn't end it.
    fn end(&mut self, at: usize, socket: SocketId) {
        let Some(stream) = self.machines[at].streams.remove(&socket) else { return };
        let (lived, seed) = (self.now - stream.since, self.seed);
        let never_ends = match stream.who {
            Who::Client(n) => self.clients[n].stalls,
            Who::Recorder(_) => true,
            Who::Backend { .. } => false,
        };
        assert!(!never_ends || lived <= HANDSHAKE + SLACK, "seed {seed}: it was there for {lived:?}");
        if let Who::Client(n) = stream.who {
            self.clients[n].is_over = true;
        }
    }

    fn write(&mut self, at: usize, socket: SocketId, bytes: &[u8]) {
        let Some(stream) = self.machines[at].streams.get_mut(&socket) else { return };
        assert!(!stream.is_blocked, "seed {}: nothing is written to a stream that is blocked", self.seed);
        let taken = match stream.rest.is_empty() {
            false => 0,
            true if self.rng.u8(..5) > 0 => bytes.len(),
            true => self.rng.usize(0..=bytes.len()),
        };
        stream.rest.extend_from_slice(&bytes[taken..]);
        let bytes = &bytes[..taken];
        match &mut stream.who {
            Who::Client(n) => self.clients[*n].from_worker.extend_from_slice(bytes),
            Who::Recorder(_) => {}
            Who::Backend { came, .. } => {
                came.extend_from_slice(bytes);
                self.hear(at, socket);
            }
        }
    }

    /// Requests that are there wholly are judged, and answered.
    fn hear(&mut self, at: usize, socket: SocketId) {
        loop {
            let Some(Stream { who: Who::Backend { came, says }, .. }) = self.machines[at].streams.get_mut(&socket)
            else {
                return;
            };
            let Some(head) = came.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) else { return };
            let text = String::from_utf8_lossy(&came[..head]).into_owned();
            let length = text.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
            let whole = head + length.unwrap_or(0);
            if came.len() < whole {
                return;
            }
            came.drain(..whole);
            let path = text.split_ascii_whitespace().nth(1).expect("it has a target");
            let id = path.rsplit('/').next().expect("it names itself").to_owned();
            let length = self.rng.usize(0..5_000);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nX-Id: {id}\r\n\r\n");
            says.extend_from_slice(answer.as_bytes());
            let body = if text.starts_with("HEAD ") { 0 } else { length };
            says.resize(says.len() + body, ANSWER);
            self.judge_request(&id, &text);
        }
    }

    fn judge_request(&mut self, id: &str, head: &str) {
        let seed = self.seed;
        let number: usize = id.split('-').next().and_then(|number| number.parse().ok()).expect("a client's");
        let client = &self.clients[number];
        let request = client.requests.iter().find(|request| request.id == id).expect("it was asked for");
        // A client that has the field already writes it in small letters.
        let says: Vec<_> = head.lines().filter(|line| line.to_lowercase().starts_with("early-data:")).collect();
        let goes_early = says == ["Early-Data: 1"];
        let reached = self.reached.entry(id.to_owned()).or_default();
        reached.early += usize::from(goes_early);
        reached.late += usize::from(!goes_early);
        self.told.early += usize::from(goes_early);
        if !client.is_proved() {
            assert!(request.is_harmless, "seed {seed}: {id} comes before its client's handshake is over: {head}");
            assert!(goes_early, "seed {seed}: {id} comes early, and says so once: {head}");
        }
        let is_said = if request.says_early { says == ["early-data: 1"] } else { says.is_empty() };
        assert!(goes_early && request.is_harmless || is_said, "seed {seed}: {id}: {head}");
    }

    fn judge(mut self, plan: Plan) -> Told {
        let seed = self.seed;
        for machine in &self.machines {
            assert!(machine.is_quiet(), "seed {seed}: somebody never ends");
        }
        for (n, client) in self.clients.iter().enumerate() {
            self.told.stalled += usize::from(client.stalls);
            self.told.accepted += usize::from(client.is_accepted);
            self.told.refused += usize::from(client.is_refused);
            for request in &client.requests {
                let reached = self.reached.get(&request.id).copied().unwrap_or_default();
                // A request that is not proved to be its client's may come twice in one case only: where somebody else's
                // copy of the first flight was taken, and the client asks again behind its handshake.
                assert!(reached.early <= 1 && reached.late <= 1, "seed {seed}: {} came more than once", request.id);
                if client.is_accepted && !plan.is_removed {
                    let times = reached.early + reached.late;
                    assert_eq!(times, 1, "seed {seed}: {} came {times} times", request.id);
                    self.told.held += usize::from(!request.is_harmless);
                }
            }
            if client.stalls || plan.is_removed {
                self.told.cut += usize::from(client.answers().len() < client.requests.len());
                continue;
            }
            assert_eq!(client.failure, None, "seed {seed}, client {n}");
            let asked: Vec<_> = client.requests.iter().map(|request| request.id.clone()).collect();
            assert_eq!(client.answers(), asked, "seed {seed}, client {n}: each request is answered once");
        }
        self.told
    }
}
