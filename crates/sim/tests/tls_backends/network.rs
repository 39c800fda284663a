//! The worker, its machine, the clients and the backends behind it. Truth is what they sent; nothing here reads TLS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kakei_config::{Backend, Balance, Cluster, ClusterTls, Document, Listener, Pem, Protocol, TcpKnobs};
use kakei_proxy::record::{CloseReason, Detail, Record};
use kakei_proxy::seam::{Endpoint, Instant, Op, Wall};
use kakei_proxy::secure::Materials;
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::worker::Role;
use kakei_sim::wires::{Ends, Says, Wire, Wires};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::ServerConfig;

use crate::client::{Client, Saw};
use crate::provider::{self, provider};
use crate::server::{self, Kind, Server};

const SERVERS: [&str; 2] = [include_str!("a.pem"), include_str!("b.pem")];
pub(crate) const AUTHORITIES: [&str; 2] = [include_str!("ca-a.pem"), include_str!("ca-b.pem")];
const SHARED: Shared = Shared { workers: 1, balance_seed: 1 };
const ROLE: Role = Role { index: 0, seed: 1 };
const WALL: Wall = Wall::from_secs(1_800_000_000);

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

/// Clients, and the backends behind the worker.
struct Far {
    seed: u64,
    is_http: bool,
    clients: Vec<Client>,
    servers: Vec<Server>,
    /// By certificate, then by version.
    configs: [[Arc<ServerConfig>; 2]; 2],
    generation: usize,
    /// By the client's number.
    records: BTreeMap<u32, Vec<Record>>,
}

struct Run {
    seed: u64,
    rng: Rng,
    now: Instant,
    wires: Wires<Whose>,
    far: Far,
    snapshot: Option<Arc<Snapshot>>,
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

pub(crate) fn materials(authority: usize) -> Materials {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(AUTHORITIES[authority].as_bytes()).unwrap()).unwrap();
    let named = Some(Pem::Text(AUTHORITIES[authority].to_owned()));
    let trusted = [(named, Arc::new(roots))].into_iter().collect();
    Materials { provider: Some(provider()), trusted, ..Materials::default() }
}

pub(crate) fn run(seed: u64, is_http: bool) -> Told {
    provider::seed(seed);
    let far = Far {
        seed,
        is_http,
        clients: Vec::new(),
        servers: Vec::new(),
        configs: SERVERS.map(server::configs),
        generation: 0,
        records: BTreeMap::new(),
    };
    let mut run = Run {
        seed,
        rng: Rng::with_seed(seed),
        now: Instant::from_nanos(1_000_000_000),
        wires: Wires::new(seed, ROLE, "192.0.2.1:80".parse().unwrap()),
        far,
        snapshot: None,
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
        run.far.clients.push(client);
        run.wires.arrive(n as u32);
        for _ in 0..run.rng.usize(1..30) {
            run.step();
        }
    }
    for _ in 0..20_000 {
        if !run.wires.all().any(serves) && run.wires.nobody_comes() {
            break;
        }
        run.step();
    }
    run.judge()
}

fn serves(wire: &Wire<Whose>) -> bool {
    matches!(wire.whose, Whose::Client(_))
}

impl Ends for Far {
    type Whose = Whose;

    fn accepted(&mut self, arrival: u32) -> Whose {
        Whose::Client(arrival as usize)
    }

    fn connected(&mut self, rng: &mut Rng, remote: &Endpoint) -> Whose {
        let Endpoint::Ip(SocketAddr::V4(address)) = remote else { panic!("{remote:?} is no backend") };
        let certificate = usize::from(address.ip().octets()[3] % 2);
        let config = Arc::clone(&self.configs[certificate][rng.usize(0..2)]);
        let mut server = Server::new(rng, config, self.is_http);
        server.generation = certificate;
        self.servers.push(server);
        Whose::Server(self.servers.len() - 1)
    }

    fn opened(&mut self, whose: &mut Whose) {
        if let Whose::Server(n) = *whose {
            // The first and the third have the first certificate.
            let server = &mut self.servers[n];
            server.trusted = Some(server.generation % 2 == self.generation);
            server.generation = self.generation;
        }
    }

    fn says<'a>(&'a mut self, wire: &'a mut Wire<Whose>, rng: &mut Rng) -> Says<'a> {
        match wire.whose {
            Whose::Client(n) => {
                let client = &mut self.clients[n];
                if client.has_reset && rng.bool() {
                    return Says::Reset;
                }
                Says::of(&mut client.to_worker, client.has_ended)
            }
            Whose::Server(n) => {
                let server = &mut self.servers[n];
                Says::of(&mut server.to_worker, server.is_over)
            }
        }
    }

    fn takes(&mut self, wire: &mut Wire<Whose>, bytes: &[u8], _: &mut Rng) {
        match wire.whose {
            Whose::Client(n) => self.clients[n].got.extend_from_slice(bytes),
            Whose::Server(_) if bytes.is_empty() => {}
            Whose::Server(n) => self.servers[n].take(bytes),
        }
    }

    fn shut(&mut self, wire: &mut Wire<Whose>) {
        // Nothing comes of it behind a write that is blocked.
        if wire.takes() {
            self.end(wire.whose);
        }
    }

    fn closed(&mut self, wire: Wire<Whose>, rng: &mut Rng) {
        assert!(wire.rest.is_empty() || !serves(&wire), "seed {}: bytes are lost", self.seed);
        match wire.takes() {
            true if wire.is_parted => self.end(wire.whose),
            // It sees an end, and can't be told more.
            true => {}
            false => self.reset(wire, rng),
        }
    }

    fn reset(&mut self, wire: Wire<Whose>, _: &mut Rng) {
        if let Whose::Client(n) = wire.whose {
            let client = &mut self.clients[n];
            client.saw = if client.saw == Saw::End { Saw::End } else { Saw::Reset };
        }
    }

    fn other(&mut self, op: &Op) {
        if let Op::Record(record) = op {
            let number = u32::from(record.client.port()) - 1024;
            self.records.entry(number).or_default().push(Record::clone(record));
        }
    }
}

impl Far {
    /// The worker sends nothing more there.
    fn end(&mut self, whose: Whose) {
        match whose {
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
}

impl Run {
    fn publish(&mut self, authority: usize) {
        let (document, old) = (document(self.far.is_http, authority), self.snapshot.as_deref());
        let generation = Generation(authority as u64 + 1);
        let snapshot = Snapshot::compile_with(&document, generation, SHARED, old, &materials(authority));
        self.wires.publish(self.snapshot.insert(Arc::new(snapshot)));
        self.step();
        self.far.generation = authority;
    }

    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        let far = &mut self.far;
        far.clients.iter_mut().for_each(|client| client.run(&mut self.rng, far.generation));
        far.servers.iter_mut().for_each(|server| server.run(&mut self.rng));
        self.wires.step((self.now, WALL), &mut self.rng, far);
    }

    /// Write the worker down, and go on with one that is read back. What it doesn't take over is gone.
    fn restore(&mut self) {
        let snapshot = self.snapshot.as_deref().expect("it was published");
        let left = self.wires.restore((ROLE, snapshot), (self.now, WALL), &mut self.rng, &mut self.far);
        self.told.restored += 1;
        for wire in left {
            if let Whose::Client(n) = wire.whose {
                self.lost.insert(n);
                self.far.clients[n].saw = Saw::Reset;
            }
        }
    }

    fn judge(mut self) -> Told {
        let seed = self.seed;
        (self.told.trace, self.told.blocked) = (self.wires.trace, self.wires.blocked);
        assert!(!self.wires.all().any(serves), "seed {seed}: something never ends");
        // Connections that carry requests wait for the next one.
        let is_empty = self.wires.all().next().is_none();
        assert!(self.far.is_http || is_empty, "seed {seed}: a backend is left with its connection");
        for server in &self.far.servers {
            let is_trusted = server.trusted == Some(true);
            assert!(is_trusted || server.plain.is_empty(), "seed {seed}: one that proved nothing got bytes");
            assert!(is_trusted || !server.is_open(), "seed {seed}: one that proved nothing shook hands");
            let is_in_vain = !is_trusted && server.failure.as_ref().is_some_and(|error| error.contains("alert"));
            self.told.verified += usize::from(is_in_vain);
            self.told.resumed += usize::from(server.is_open() && server.is_resumed());
        }
        for n in 0..self.far.clients.len() {
            let complaint = if self.far.is_http { self.judge_requests(n) } else { self.judge_stream(n) };
            if let Some(complaint) = complaint {
                panic!("seed {seed}, client {n}: {complaint}; {:?}", self.far.records.get(&(n as u32)));
            }
        }
        self.told
    }

    fn judge_stream(&mut self, n: usize) -> Option<String> {
        let client = &self.far.clients[n];
        if self.lost.contains(&n) {
            return client.complaint(false);
        }
        let record = self.far.records.get(&client.number).and_then(|records| records.first());
        let reason = record.map(|record| record.reason);
        let attempts = record.map_or(0, |record| match &record.detail {
            Detail::Connection(detail) => detail.attempts,
            _ => 0,
        });
        let served = |server: &&Server| server.plain.starts_with(&client.number.to_le_bytes());
        let honest = self.far.servers.iter().filter(served).any(|server| server.kind == Kind::Honest);
        let early = self.far.servers.iter().filter(served).find(|server| matches!(server.kind, Kind::Early(_)));
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
        for asked in &self.far.clients[n].asked {
            let came = |server: &&Server| server.answered.iter().any(|(number, _)| *number == asked.number);
            let may_be_whole = |server: &Server| server.answered.contains(&(asked.number, true));
            let mut seen = self.far.servers.iter().filter(came);
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
