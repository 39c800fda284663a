//! The worker, its machine, the network and the backend behind it. Truth is what a client has to show, and who was
//! trusted while it came; nothing here reads TLS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kakei_config::{
    Backend, ClientCertificateMode, ClientCertificates, Cluster, Document, Listener, ListenerTls, PathMatch, Pem,
    Protocol, Route, Shown,
};
use kakei_proxy::seam::{Endpoint, Instant, Wall};
use kakei_proxy::secure::{Materials, TicketKeys};
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::worker::Role;
use kakei_sim::wires::{Ends, Says, Wire, Wires};
use rustls::RootCertStore;
use rustls::client::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::client::{ALL, Client, Shows, config};
use crate::library::certificate;
use crate::provider::{self, provider};

const OURS: &str = include_str!("../secured/a.pem");
const AUTHORITIES: [&str; 2] = [include_str!("ca-a.pem"), include_str!("ca-b.pem")];
const SHARED: Shared = Shared { workers: 1, balance_seed: 1 };
const CLIENTS: usize = 24;
/// Before the certificate expires that does, and behind that.
const WALLS: [u64; 2] = [1_796_000_000, 1_800_000_000];

/// What clients are held to while they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rule {
    insists: bool,
    /// Which of the authorities are trusted.
    trusts: [bool; 2],
    is_late: bool,
}

impl Rule {
    fn admits(self, shows: Shows) -> bool {
        match shows {
            Shows::Nothing => !self.insists,
            Shows::OfA => self.trusts[0],
            Shows::OfB => self.trusts[1],
            Shows::Expiring => self.trusts[0] && !self.is_late,
        }
    }

    /// Whether what an earlier handshake left is of use under the other one too.
    fn is_alike(self, other: Rule) -> bool {
        (self.insists, self.trusts) == (other.insists, other.trusts)
    }
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) trace: u64,
    known: usize,
    unknown: usize,
    refused: usize,
    resumed: usize,
    forbidden: usize,
    either: usize,
}

impl Told {
    pub(crate) fn counts(&self) -> [usize; 6] {
        [self.known, self.unknown, self.refused, self.resumed, self.forbidden, self.either]
    }
}

/// Who is at the other end of a stream.
enum Whose {
    Client(usize),
    /// What it heard of a request, and what it has to say.
    Backend {
        heard: Vec<u8>,
        says: Vec<u8>,
    },
}

/// Clients, and the backend behind the worker.
struct Far {
    seed: u64,
    clients: Vec<Client>,
}

struct Run {
    seed: u64,
    rng: Rng,
    now: Instant,
    wires: Wires<Whose>,
    far: Far,
    /// What each client may have been held to.
    rules: Vec<BTreeSet<Rule>>,
    rule: Rule,
    generation: u64,
    snapshot: Option<Arc<Snapshot>>,
    tickets: Option<Arc<TicketKeys>>,
    told: Told,
}

fn authorities(rule: Rule) -> Vec<&'static str> {
    AUTHORITIES.into_iter().zip(rule.trusts).filter_map(|(pem, trusted)| trusted.then_some(pem)).collect()
}

fn document(rule: Rule) -> Document {
    use ClientCertificateMode::{Optional, Required};
    let backend: SocketAddr = "10.0.0.1:7".parse().unwrap();
    let mut cluster = Cluster { backends: vec![Backend::at(backend)], ..Cluster::default() };
    cluster.http.idle_timeout = Some(Duration::from_millis(50));
    let mode = if rule.insists { Required } else { Optional };
    let asked = ClientCertificates { mode, ca: Pem::Text(authorities(rule).concat()), crls: Vec::new() };
    let tls = ListenerTls {
        certificates: Shown::Named(vec!["echo".into()]),
        client_certificates: Some(asked),
        ..ListenerTls::default()
    };
    let listener = Listener {
        protocol: Protocol::Http,
        bind: vec!["0.0.0.0:443".parse().unwrap()],
        cluster: Some("c".into()),
        tls: Some(tls),
        ..Listener::default()
    };
    let route = Route {
        listener: "l".into(),
        path: PathMatch::Prefix("/admin".into()),
        cluster: Some("c".into()),
        client_certificates: Some(Required),
        ..Route::default()
    };
    Document {
        listeners: [("l".into(), listener)].into(),
        routes: [("admin".into(), route)].into(),
        clusters: [("c".into(), cluster)].into(),
        ..Document::default()
    }
}

pub(crate) fn run(seed: u64) -> Told {
    provider::seed(seed);
    let mut run = Run {
        seed,
        rng: Rng::with_seed(seed),
        now: Instant::from_nanos(1_000_000_000),
        wires: Wires::new(seed, Role { index: 0, seed }, "192.0.2.1:443".parse().unwrap()),
        far: Far { seed, clients: Vec::new() },
        rules: Vec::new(),
        rule: Rule { insists: seed.is_multiple_of(2), trusts: [true, false], is_late: false },
        generation: 0,
        snapshot: None,
        tickets: TicketKeys::new(&provider()),
        told: Told::default(),
    };
    run.publish();
    let mut configs: BTreeMap<(Shows, bool), Arc<ClientConfig>> = BTreeMap::new();
    for number in 0..CLIENTS {
        if run.rng.u8(..6) == 0 {
            run.change();
        }
        let kind = (ALL[run.rng.usize(..ALL.len())], run.rng.bool());
        let config = Arc::clone(configs.entry(kind).or_insert_with(|| config(kind)));
        let client = Client::new(&mut run.rng, number, kind, config);
        run.far.clients.push(client);
        run.rules.push(BTreeSet::new());
        run.wires.arrive(number as u32);
        for _ in 0..run.rng.usize(1..40) {
            run.step();
        }
    }
    for _ in 0..100_000 {
        if run.wires.all().next().is_none() && run.wires.nobody_comes() {
            break;
        }
        run.step();
    }
    run.judge()
}

impl Ends for Far {
    type Whose = Whose;

    fn accepted(&mut self, arrival: u32) -> Whose {
        Whose::Client(arrival as usize)
    }

    fn connected(&mut self, _: &mut Rng, _: &Endpoint) -> Whose {
        Whose::Backend { heard: Vec::new(), says: Vec::new() }
    }

    fn says<'a>(&'a mut self, wire: &'a mut Wire<Whose>, _: &mut Rng) -> Says<'a> {
        match &mut wire.whose {
            Whose::Client(n) => {
                let client = &mut self.clients[*n];
                Says::of(&mut client.to_worker, client.is_over)
            }
            Whose::Backend { says, .. } => Says::of(says, wire.is_shut),
        }
    }

    fn takes(&mut self, wire: &mut Wire<Whose>, bytes: &[u8], _: &mut Rng) {
        match &mut wire.whose {
            Whose::Client(n) => self.clients[*n].from_worker.extend_from_slice(bytes),
            Whose::Backend { heard, says } => {
                heard.extend_from_slice(bytes);
                while let Some(at) = heard.windows(4).position(|window| window == b"\r\n\r\n") {
                    let head: Vec<u8> = heard.drain(..at + 4).collect();
                    says.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                    look_at(self.seed, &String::from_utf8_lossy(&head), &self.clients);
                }
            }
        }
    }

    fn closed(&mut self, wire: Wire<Whose>, rng: &mut Rng) {
        let Whose::Client(n) = wire.whose else { return };
        let client = &mut self.clients[n];
        // What lies in the network still comes.
        client.run(rng);
        if !client.is_over {
            client.failure.get_or_insert_with(|| "the connection ended".to_owned());
            client.is_over = true;
        }
    }

    fn reset(&mut self, wire: Wire<Whose>, rng: &mut Rng) {
        self.closed(wire, rng);
    }
}

impl Run {
    /// Others may vouch for clients, or a certificate expires.
    fn change(&mut self) {
        if self.rng.u8(..4) == 0 {
            self.rule.is_late = true;
            return;
        }
        self.rule.trusts = [[true, false], [false, true], [true, true]][self.rng.usize(..3)];
        self.publish();
    }

    fn publish(&mut self) {
        self.generation += 1;
        let mut roots = RootCertStore::empty();
        for pem in authorities(self.rule) {
            roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        }
        let document = document(self.rule);
        let named = Some(Pem::Text(authorities(self.rule).concat()));
        let materials = Materials {
            provider: Some(provider()),
            certificates: [("echo".into(), certificate(OURS))].into_iter().collect(),
            trusted: [(named, Arc::new(roots))].into_iter().collect(),
            tickets: self.tickets.clone(),
            ..Materials::default()
        };
        let old = self.snapshot.as_deref();
        let snapshot = Snapshot::compile_with(&document, Generation(self.generation), SHARED, old, &materials);
        self.wires.publish(self.snapshot.insert(Arc::new(snapshot)));
        self.step();
    }

    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        for (client, rules) in self.far.clients.iter_mut().zip(&mut self.rules) {
            if client.answers.is_empty() && !client.is_over {
                rules.insert(self.rule);
            }
            client.run(&mut self.rng);
        }
        let wall = Wall::from_secs(WALLS[usize::from(self.rule.is_late)]);
        self.wires.step((self.now, wall), &mut self.rng, &mut self.far);
    }

    fn judge(mut self) -> Told {
        let seed = self.seed;
        self.told.trace = self.wires.trace;
        let left = self.wires.all().count();
        assert_eq!(left, 0, "seed {seed}: streams that never end");
        let mut left: BTreeSet<(Shows, bool, Rule)> = BTreeSet::new();
        for (n, (client, rules)) in self.far.clients.iter().zip(&self.rules).enumerate() {
            let (shows, is_13) = (client.shows, client.is_13);
            let is_in = client.answers.len() == client.paths.len();
            let complaint = || format!("seed {seed}, client {n}: {shows:?} under {rules:?}: {:?}", client.failure);
            assert!(is_in || client.answers.is_empty(), "{}: it got some answers", complaint());
            let may = |rule: &Rule| rule.admits(shows);
            match (rules.iter().any(may), rules.iter().all(may)) {
                (false, _) => assert!(!is_in, "{}: it came in", complaint()),
                (true, true) => assert!(is_in, "{}: it didn't come in", complaint()),
                (true, false) => self.told.either += 1,
            }
            if !is_in {
                assert!(client.failure.is_some(), "{}: nobody told it", complaint());
                self.told.refused += 1;
                continue;
            }
            if client.is_resumed() {
                let is_known =
                    |rule: &Rule| left.iter().any(|(a, b, old)| (*a, *b) == (shows, is_13) && rule.is_alike(*old));
                assert!(rules.iter().any(is_known), "{}: it went on from what others were held to", complaint());
                self.told.resumed += 1;
            }
            left.extend(rules.iter().map(|rule| (shows, is_13, *rule)));
            for (path, status) in client.paths.iter().zip(&client.answers) {
                let is_shut = path.starts_with("/admin") && shows == Shows::Nothing;
                assert_eq!(status, if is_shut { "403" } else { "200" }, "{}: {path}", complaint());
                self.told.forbidden += usize::from(is_shut);
            }
            match shows {
                Shows::Nothing => self.told.unknown += 1,
                _ => self.told.known += 1,
            }
        }
        self.told
    }
}

/// What a backend hears of who asks is the truth.
fn look_at(seed: u64, head: &str, clients: &[Client]) {
    let path = head.split(' ').nth(1).unwrap();
    let client = &clients[path.rsplit('/').next().unwrap().parse::<usize>().unwrap()];
    let said = |name: &str| -> Vec<&str> {
        let of = |line: &'_ str| line.split_once(": ").is_some_and(|(found, _)| found.eq_ignore_ascii_case(name));
        head.lines().filter(|line| of(line)).map(|line| line.split_once(": ").unwrap().1).collect()
    };
    let (subject, names) = (said("x-client-cert-subject"), said("x-client-cert-san"));
    let fingerprint = said("x-client-cert-fingerprint");
    match client.shows.told() {
        Some([wanted, name]) => {
            assert_eq!((&subject[..], &names[..]), (&[wanted][..], &[name][..]), "seed {seed}: {head}");
            assert!(fingerprint.len() == 1 && fingerprint[0].len() == 64, "seed {seed}: {head}");
        }
        None => {
            assert!(!path.starts_with("/admin"), "seed {seed}: nobody came to {path}");
            assert!([subject, names, fingerprint].concat().is_empty(), "seed {seed}: nobody is {head}");
        }
    }
    assert!(said("client-cert").is_empty() && said("client-cert-chain").is_empty(), "seed {seed}: {head}");
}
