//! The worker, its machine, the network and the echo behind it. Truth is what a client sent; nothing here reads TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kakei_config::{
    Backend, Cluster, Document, HttpListener, Listener, ListenerTls, PathMatch, Protocol, Route, Shown,
};
use kakei_proxy::seam::{Endpoint, Instant, Wall};
use kakei_proxy::secure::{Materials, TicketKeys};
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::worker::Role;
use kakei_sim::wires::{Ends, Says, Wire, Wires};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::client::{Client, configs};
use crate::library::certificate;
use crate::provider::{self, provider};
use crate::speech::{Listening, OWN_WAY, Speech, hsts};

const CERTIFICATES: [&str; 2] = [include_str!("a.pem"), include_str!("b.pem")];
const SHARED: Shared = Shared { workers: 1, balance_seed: 1 };

/// What is simulated.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) clients: usize,
    /// Whether they all come in one step.
    pub(crate) at_once: bool,
    /// More than any of them sends.
    pub(crate) most_bytes: usize,
    /// Whether the listener is removed while they come, so that a short drain cuts off whoever is left.
    pub(crate) is_removed: bool,
    pub(crate) speech: Speech,
    /// Whether clients write small records, also in their handshakes, and change their keys.
    pub(crate) is_fussy: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            clients: 12,
            at_once: false,
            most_bytes: 150_000,
            is_removed: false,
            speech: Speech::Bytes,
            is_fussy: false,
        }
    }
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) trace: u64,
    whole: usize,
    cut: usize,
    resumed: usize,
    blocked: usize,
    pub(crate) failed: usize,
    /// How often clients changed their keys.
    pub(crate) keys: usize,
    pub(crate) most_handshakes: usize,
}

impl Told {
    pub(crate) fn counts(&self) -> [usize; 4] {
        [self.whole, self.cut, self.resumed, self.blocked]
    }
}

/// Who is at the other end of a stream.
enum Whose {
    /// A client, and whether it was answered.
    Client(usize, bool),
    /// An echo: what it has to send back, what it hears, and whether it was told of an end.
    Echo { echo: Vec<u8>, hears: Listening, is_told: bool },
}

/// Clients, and the echo behind the worker.
struct Far {
    seed: u64,
    /// Each with the generation that it came in.
    clients: Vec<(Client, usize)>,
    speech: Speech,
    /// The listener is gone.
    is_removed: bool,
    /// Echoes that were told of an end.
    orderly: usize,
    /// Clients that were answered for the first time in this step.
    answered: usize,
}

struct Run {
    seed: u64,
    rng: Rng,
    now: Instant,
    wires: Wires<Whose>,
    far: Far,
    snapshot: Option<Arc<Snapshot>>,
    told: Told,
}

fn document(speech: Speech) -> Document {
    let backend: SocketAddr = "10.0.0.1:7".parse().unwrap();
    let mut cluster = Cluster { backends: vec![Backend::at(backend)], ..Cluster::default() };
    cluster.http.idle_timeout = Some(Duration::from_millis(50));
    let tls = ListenerTls { certificates: Shown::Named(vec!["echo".into()]), ..ListenerTls::default() };
    let is_http = speech == Speech::Requests;
    let [hsts, of_route] = hsts().map(|hsts| is_http.then_some(hsts));
    let listener = Listener {
        protocol: if is_http { Protocol::Http } else { Protocol::Tcp },
        bind: vec!["0.0.0.0:443".parse().unwrap()],
        cluster: Some("c".into()),
        tls: Some(tls),
        http: HttpListener { hsts, ..HttpListener::default() },
        drain_timeout: Duration::from_millis(2),
        ..Listener::default()
    };
    let own_way = Route {
        listener: "l".into(),
        path: PathMatch::Prefix(OWN_WAY.into()),
        cluster: Some("c".into()),
        hsts: of_route,
        ..Route::default()
    };
    Document {
        listeners: [("l".into(), listener)].into(),
        routes: is_http.then(|| ("own".into(), own_way)).into_iter().collect(),
        clusters: [("c".into(), cluster)].into(),
        ..Document::default()
    }
}

pub(crate) fn run(seed: u64, plan: Plan) -> Told {
    provider::seed(seed);
    let far = Far { seed, clients: Vec::new(), speech: plan.speech, is_removed: false, orderly: 0, answered: 0 };
    let mut run = Run {
        seed,
        rng: Rng::with_seed(seed),
        now: Instant::from_nanos(1_000_000_000),
        wires: Wires::new(seed, Role { index: 0, seed }, "192.0.2.1:443".parse().unwrap()),
        far,
        snapshot: None,
        told: Told::default(),
    };
    let tickets = TicketKeys::new(&provider());
    run.publish(0, &document(plan.speech), tickets.clone());
    let configs = configs(plan.is_fussy);
    let change_at = run.rng.usize(0..plan.clients);
    for n in 0..plan.clients {
        if n == change_at && !plan.at_once {
            run.publish(1, &document(plan.speech), tickets.clone());
        }
        let config = Arc::clone(&configs[run.rng.usize(0..2)]);
        let mut client = Client::new(&mut run.rng, config, (plan.speech, plan.most_bytes));
        client.is_fussy = plan.is_fussy;
        run.far.clients.push((client, usize::from(n >= change_at && !plan.at_once)));
        run.wires.arrive(n as u32);
        for _ in 0..if plan.at_once { 0 } else { run.rng.usize(1..30) } {
            run.step();
        }
    }
    if plan.is_removed {
        for _ in 0..run.rng.usize(1..5) {
            run.step();
        }
        run.wires.send_away();
        run.far.is_removed = true;
        run.publish(
            2,
            &Document { listeners: Default::default(), routes: Default::default(), ..document(plan.speech) },
            tickets,
        );
    }
    for _ in 0..200_000 {
        if run.wires.all().next().is_none() && run.wires.nobody_comes() {
            break;
        }
        run.step();
    }
    run.judge(plan)
}

impl Ends for Far {
    type Whose = Whose;

    fn accepted(&mut self, arrival: u32) -> Whose {
        Whose::Client(arrival as usize, false)
    }

    fn connected(&mut self, _: &mut Rng, _: &Endpoint) -> Whose {
        Whose::Echo { echo: Vec::new(), hears: Listening::new(self.speech), is_told: false }
    }

    fn says<'a>(&'a mut self, wire: &'a mut Wire<Whose>, _: &mut Rng) -> Says<'a> {
        match &mut wire.whose {
            Whose::Client(n, _) => {
                let client = &mut self.clients[*n].0;
                Says::of(&mut client.to_worker, client.is_over)
            }
            Whose::Echo { echo, .. } => Says::of(echo, wire.is_shut),
        }
    }

    fn takes(&mut self, wire: &mut Wire<Whose>, bytes: &[u8], _: &mut Rng) {
        match &mut wire.whose {
            Whose::Client(n, is_answered) => {
                self.answered += usize::from(!std::mem::replace(is_answered, true));
                self.clients[*n].0.from_worker.extend_from_slice(bytes);
            }
            Whose::Echo { echo, hears, .. } => echo.extend_from_slice(&hears.answer(bytes)),
        }
    }

    fn shut(&mut self, wire: &mut Wire<Whose>) {
        if let Whose::Echo { is_told, .. } = &mut wire.whose
            && wire.is_shut
        {
            self.orderly += usize::from(!std::mem::replace(is_told, true));
        }
    }

    fn closed(&mut self, wire: Wire<Whose>, rng: &mut Rng) {
        if wire.takes() {
            self.orderly += usize::from(matches!(wire.whose, Whose::Echo { is_told: false, .. }));
            return;
        }
        // At a deadline whoever takes nothing is not waited for.
        assert!(self.is_removed, "seed {}: bytes are lost", self.seed);
        self.reset(wire, rng);
    }

    fn reset(&mut self, wire: Wire<Whose>, _: &mut Rng) {
        // What it has not received by then doesn't reach it any more.
        if let Whose::Client(n, _) = wire.whose {
            self.clients[n].0.from_worker.clear();
        }
    }
}

impl Run {
    fn publish(&mut self, number: usize, document: &Document, tickets: Option<Arc<TicketKeys>>) {
        let certificates =
            [("echo".into(), certificate(CERTIFICATES[number % CERTIFICATES.len()]))].into_iter().collect();
        let materials = Materials { provider: Some(provider()), certificates, tickets, ..Materials::default() };
        let old = self.snapshot.as_deref();
        let snapshot = Snapshot::compile_with(document, Generation(number as u64 + 1), SHARED, old, &materials);
        self.wires.publish(self.snapshot.insert(Arc::new(snapshot)));
        self.step();
    }

    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        for (client, _) in &mut self.far.clients {
            client.run(&mut self.rng);
        }
        self.far.answered = 0;
        self.wires.step((self.now, Wall::from_secs(1_800_000_000)), &mut self.rng, &mut self.far);
        self.told.most_handshakes = self.told.most_handshakes.max(self.far.answered);
    }

    fn judge(mut self, plan: Plan) -> Told {
        let seed = self.seed;
        (self.told.trace, self.told.blocked) = (self.wires.trace, self.wires.blocked);
        let left = self.wires.all().count();
        assert_eq!(left, 0, "seed {seed}: streams that never end");
        let shown: Vec<_> = CERTIFICATES.map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).into();
        for (n, (client, generation)) in self.far.clients.iter_mut().enumerate() {
            client.run(&mut self.rng);
            if let Some(complaint) = client.complaint() {
                // A drain that is over cuts off even who has more to say.
                assert!(plan.is_removed || !client.is_whole(), "seed {seed}, client {n}: {complaint}");
            }
            assert!(client.got_its_own(), "seed {seed}, client {n}: it got something else than it sent");
            self.told.failed += usize::from(!client.is_open());
            self.told.keys += client.keys;
            if let Some(certificate) = client.shown().filter(|_| !client.is_resumed()) {
                assert_eq!(certificate, shown[*generation], "seed {seed}, client {n}: the certificate of its time");
            }
            self.told.whole += usize::from(client.is_whole());
            self.told.cut += usize::from(!client.is_whole());
            self.told.resumed += usize::from(client.is_resumed());
        }
        // A drain that is over ends what is left in an orderly way, and connections to backends serve many requests.
        assert!(
            plan.is_removed || plan.speech == Speech::Requests || self.far.orderly == self.told.whole,
            "seed {seed}: an end is passed on where it was said, and only there"
        );
        self.told
    }
}
