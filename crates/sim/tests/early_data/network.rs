//! Two workers, their machines, the network and the backend behind them, which knows of each request what may be true of
//! it when it comes. Nothing here reads TLS.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kakei_config::{Backend, Cluster, Document, Listener, ListenerTls, Name, PathMatch, Protocol, Route, Shown};
use kakei_proxy::seam::{Endpoint, Instant, Wall};
use kakei_proxy::secure::{Materials, TicketKeys};
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::worker::Role;
use kakei_sim::wires::{Ends, Says, Wire, Wires};
use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};

use crate::client::{ANSWER, Client, config};
use crate::library::certificate;
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

/// How often a request reached the backend, with the word that it came early and without.
#[derive(Clone, Copy, Default)]
struct Reached {
    early: usize,
    late: usize,
}

/// All who are not the proxy.
struct Far {
    seed: u64,
    now: Instant,
    clients: Vec<Client>,
    /// Who comes, by the number of its arrival.
    coming: BTreeMap<u32, Who>,
    reached: BTreeMap<String, Reached>,
    told: Told,
}

struct Run {
    seed: u64,
    rng: Rng,
    machines: Vec<Wires<Who>>,
    far: Far,
    arrivals: u32,
    snapshot: Option<Arc<Snapshot>>,
    materials: Materials,
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
    let machine = |index| Wires::new(seed, Role { index, seed }, "192.0.2.1:443".parse().unwrap());
    let materials = Materials {
        provider: Some(provider()),
        certificates: [("echo".into(), certificate(CERTIFICATE))].into_iter().collect(),
        tickets: TicketKeys::new(&provider()),
        sessions: sessions(),
        ..Materials::default()
    };
    let far = Far {
        seed,
        now: Instant::from_nanos(1_000_000_000),
        clients: Vec::new(),
        coming: BTreeMap::new(),
        reached: BTreeMap::new(),
        told: Told::default(),
    };
    let machines = (0..WORKERS as u16).map(machine).collect();
    let mut run = Run { seed, rng: Rng::with_seed(seed), machines, far, arrivals: 0, snapshot: None, materials };
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
        run.far.clients.push(client);
        run.come(n);
        // As a rule the next one finds the sessions that this one left.
        for _ in 0..run.rng.usize(1..60) {
            run.step();
        }
    }
    if plan.is_removed {
        run.machines.iter_mut().for_each(Wires::send_away);
        run.publish_document(CLIENTS + 1, &Document::default());
    }
    for _ in 0..20_000 {
        if run.machines.iter().all(is_quiet) {
            break;
        }
        run.step();
    }
    run.judge(plan)
}

/// Whether nobody is there but idle backends.
fn is_quiet(machine: &Wires<Who>) -> bool {
    machine.nobody_comes() && machine.all().all(|wire| matches!(wire.whose, Who::Backend { .. }))
}

impl Run {
    fn publish(&mut self, number: usize) {
        self.publish_document(number, &document(number));
    }

    fn publish_document(&mut self, number: usize, document: &Document) {
        let old = self.snapshot.as_deref();
        let generation = Generation(number as u64 + 1);
        let snapshot = Snapshot::compile_with(document, generation, SHARED, old, &self.materials);
        let snapshot = self.snapshot.insert(Arc::new(snapshot));
        self.machines.iter_mut().for_each(|machine| machine.publish(snapshot));
        self.step();
    }

    /// A client comes to a worker; and before it, beside it or behind it whoever recorded its first flight.
    fn come(&mut self, number: usize) {
        let flight = self.far.clients[number].flight.clone();
        let mut all = vec![Who::Client(number)];
        for _ in 0..self.rng.usize(0..3) {
            all.push(Who::Recorder(flight.clone()));
            self.far.told.replayed += 1;
        }
        self.rng.shuffle(&mut all);
        for who in all {
            let machine = &mut self.machines[self.rng.usize(0..WORKERS)];
            self.arrivals += 1;
            self.far.coming.insert(self.arrivals, who);
            machine.arrive(self.arrivals);
            for _ in 0..self.rng.usize(0..4) {
                self.step();
            }
        }
    }

    fn step(&mut self) {
        let far = &mut self.far;
        far.now = far.now + Duration::from_millis(1);
        far.clients.iter_mut().for_each(|client| client.run(&mut self.rng));
        for machine in &mut self.machines {
            machine.step((far.now, Wall::from_secs(1_800_000_000)), &mut self.rng, far);
        }
    }

    fn judge(self, plan: Plan) -> Told {
        let seed = self.seed;
        let Far { clients, reached, mut told, .. } = self.far;
        self.machines.iter().for_each(|machine| told.trace = told.trace.rotate_left(1) ^ machine.trace);
        for machine in &self.machines {
            assert!(is_quiet(machine), "seed {seed}: somebody never ends");
        }
        for (n, client) in clients.iter().enumerate() {
            told.stalled += usize::from(client.stalls);
            told.accepted += usize::from(client.is_accepted);
            told.refused += usize::from(client.is_refused);
            for request in &client.requests {
                let reached = reached.get(&request.id).copied().unwrap_or_default();
                // A request that is not proved to be its client's may come twice in one case only: where somebody else's
                // copy of the first flight was taken, and the client asks again behind its handshake.
                assert!(reached.early <= 1 && reached.late <= 1, "seed {seed}: {} came more than once", request.id);
                if client.is_accepted && !plan.is_removed {
                    let times = reached.early + reached.late;
                    assert_eq!(times, 1, "seed {seed}: {} came {times} times", request.id);
                    told.held += usize::from(!request.is_harmless);
                }
            }
            if client.stalls || plan.is_removed {
                told.cut += usize::from(client.answers().len() < client.requests.len());
                continue;
            }
            assert_eq!(client.failure, None, "seed {seed}, client {n}");
            let asked: Vec<_> = client.requests.iter().map(|request| request.id.clone()).collect();
            assert_eq!(client.answers(), asked, "seed {seed}, client {n}: each request is answered once");
        }
        told
    }
}

impl Ends for Far {
    type Whose = Who;

    fn accepted(&mut self, arrival: u32) -> Who {
        self.coming.remove(&arrival).expect("it came")
    }

    fn connected(&mut self, _: &mut Rng, _: &Endpoint) -> Who {
        Who::Backend { came: Vec::new(), says: Vec::new() }
    }

    fn drains(&mut self, rng: &mut Rng) -> bool {
        rng.u8(..4) == 0
    }

    fn says<'a>(&'a mut self, wire: &'a mut Wire<Who>, rng: &mut Rng) -> Says<'a> {
        let says = match &mut wire.whose {
            Who::Client(n) => {
                let client = &mut self.clients[*n];
                Says::of(&mut client.to_worker, client.is_over)
            }
            Who::Recorder(flight) => Says::of(flight, false),
            Who::Backend { says, .. } => Says::of(says, wire.is_shut),
        };
        match says {
            Says::Bytes(_) if wire.credit && rng.u8(..3) == 0 => Says::Nothing,
            says => says,
        }
    }

    fn came(&mut self, whose: &mut Who, len: usize) {
        if let Who::Client(n) = whose {
            self.clients[*n].delivered += len;
        }
    }

    fn takes(&mut self, wire: &mut Wire<Who>, bytes: &[u8], rng: &mut Rng) {
        match &mut wire.whose {
            Who::Client(n) => self.clients[*n].from_worker.extend_from_slice(bytes),
            Who::Recorder(_) => {}
            Who::Backend { came, says } => {
                came.extend_from_slice(bytes);
                self.hear((came, says), rng);
            }
        }
    }

    fn shut(&mut self, wire: &mut Wire<Who>) {
        wire.has_told_end |= matches!(wire.whose, Who::Recorder(_));
    }

    fn closed(&mut self, wire: Wire<Who>, _: &mut Rng) {
        self.end(wire);
    }

    fn reset(&mut self, wire: Wire<Who>, _: &mut Rng) {
        self.end(wire);
    }
}

impl Far {
    /// Nobody stays longer than its handshake may take who doesn't end it.
    fn end(&mut self, wire: Wire<Who>) {
        let never_ends = match wire.whose {
            Who::Client(n) => {
                self.clients[n].is_over = true;
                self.clients[n].stalls
            }
            Who::Recorder(_) => true,
            Who::Backend { .. } => return,
        };
        let (lived, seed) = (self.now - wire.since, self.seed);
        assert!(!never_ends || lived <= HANDSHAKE + SLACK, "seed {seed}: it was there for {lived:?}");
    }

    /// Requests that are there wholly are judged, and answered.
    fn hear(&mut self, (came, says): (&mut Vec<u8>, &mut Vec<u8>), rng: &mut Rng) {
        loop {
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
            let length = rng.usize(0..5_000);
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
}
