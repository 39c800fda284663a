//! The worker, its machine, the network and the echo behind it. Truth is what a client sent; nothing here reads TLS.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kakei_config::{Backend, Cluster, Document, Listener, ListenerTls, Name, Protocol, ServerName, Shown};
use kakei_proxy::seam::{Accepted, Arrival, Command, Event, Inbox, Instant, Op, Outbox, SocketId, Span, Ticket, Wall};
use kakei_proxy::secure::{Certificate, Materials, TicketKeys};
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::worker::{Role, Worker};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::client::{Client, configs};
use crate::provider::{self, provider};
use crate::speech::{Listening, Speech};

const CERTIFICATES: [&str; 2] = [include_str!("a.pem"), include_str!("b.pem")];
/// The longest record that says an end and nothing else.
const CLOSE_NOTIFY: usize = 64;
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

/// A stream of the machine's.
#[derive(Default)]
struct Stream {
    client: Option<usize>,
    credit: bool,
    is_blocked: bool,
    /// What the worker wrote in this step and the kernel did not take.
    rest: Vec<u8>,
    /// Of an echo: what it has to send back, and what it hears.
    echo: Vec<u8>,
    hears: Option<Listening>,
    /// The worker said that it writes nothing more.
    is_shut: bool,
    has_told_end: bool,
    is_answered: bool,
}

struct Run {
    seed: u64,
    rng: Rng,
    worker: Worker,
    now: Instant,
    out: Outbox,
    front: SocketId,
    /// Each with the generation that it came in.
    clients: Vec<(Client, usize)>,
    streams: BTreeMap<SocketId, Stream>,
    arriving: Vec<usize>,
    opened: Vec<SocketId>,
    /// Backends that were told of an end.
    orderly: BTreeSet<SocketId>,
    /// Clients that were answered for the first time in this step.
    answered: usize,
    snapshot: Option<Arc<Snapshot>>,
    is_to_publish: bool,
    /// The listener is gone.
    is_removed: bool,
    speech: Speech,
    told: Told,
}

fn certificate(number: usize) -> Arc<Certificate> {
    let pem = CERTIFICATES[number].as_bytes();
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
        fingerprint: [number as u8; 32],
    })
}

fn document(speech: Speech) -> Document {
    let backend: SocketAddr = "10.0.0.1:7".parse().unwrap();
    let mut cluster = Cluster { backends: vec![Backend::at(backend)], ..Cluster::default() };
    cluster.http.idle_timeout = Some(Duration::from_millis(50));
    let tls = ListenerTls { certificates: Shown::Named(vec!["echo".into()]), ..ListenerTls::default() };
    let listener = Listener {
        protocol: if speech == Speech::Bytes { Protocol::Tcp } else { Protocol::Http },
        bind: vec!["0.0.0.0:443".parse().unwrap()],
        cluster: Some("c".into()),
        tls: Some(tls),
        drain_timeout: Duration::from_millis(2),
        ..Listener::default()
    };
    Document {
        listeners: [("l".into(), listener)].into(),
        clusters: [("c".into(), cluster)].into(),
        ..Document::default()
    }
}

pub(crate) fn run(seed: u64, plan: Plan) -> Told {
    provider::seed(seed);
    let mut run = Run {
        seed,
        rng: Rng::with_seed(seed),
        worker: Worker::new(Role { index: 0, seed }),
        now: Instant::from_nanos(1_000_000_000),
        out: Outbox::default(),
        front: SocketId::default(),
        clients: Vec::new(),
        streams: BTreeMap::new(),
        arriving: Vec::new(),
        opened: Vec::new(),
        orderly: BTreeSet::new(),
        answered: 0,
        snapshot: None,
        is_to_publish: false,
        is_removed: false,
        speech: plan.speech,
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
        run.clients.push((client, usize::from(n >= change_at && !plan.at_once)));
        run.arriving.push(n);
        for _ in 0..if plan.at_once { 0 } else { run.rng.usize(1..30) } {
            run.step();
        }
    }
    if plan.is_removed {
        for _ in 0..run.rng.usize(1..5) {
            run.step();
        }
        run.arriving.clear();
        run.is_removed = true;
        run.publish(2, &Document { listeners: Default::default(), ..document(plan.speech) }, tickets);
    }
    for _ in 0..200_000 {
        if run.streams.is_empty() && run.arriving.is_empty() {
            break;
        }
        run.step();
    }
    run.judge(plan)
}

impl Run {
    fn publish(&mut self, number: usize, document: &Document, tickets: Option<Arc<TicketKeys>>) {
        let certificates = [("echo".into(), certificate(number % CERTIFICATES.len()))].into_iter().collect();
        let materials = Materials { provider: Some(provider()), certificates, tickets, ..Materials::default() };
        let old = self.snapshot.as_deref();
        let snapshot = Snapshot::compile_with(document, Generation(number as u64 + 1), SHARED, old, &materials);
        self.snapshot = Some(Arc::new(snapshot));
        self.is_to_publish = true;
        self.step();
    }

    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        for (client, _) in &mut self.clients {
            client.run(&mut self.rng);
        }
        let (mut events, mut arena) = (Vec::new(), Vec::new());
        for n in self.arriving.drain(..) {
            let (peer, local) = (SocketAddr::from(([10, 1, 0, 1], 1024 + n as u16)), "192.0.2.1:443".parse().unwrap());
            events.push(Event::Accepted(Accepted { front: self.front, arrival: Arrival(n as u32), peer, local }));
        }
        let front = self.front;
        let bound = |socket| if socket == front { "0.0.0.0:443" } else { "10.9.9.9:9" }.parse().unwrap();
        events.extend(self.opened.drain(..).map(|socket| Event::Opened { socket, local: bound(socket) }));
        let mut put = |bytes: &[u8]| {
            let span = Span { start: arena.len() as u32, len: bytes.len() as u32 };
            arena.extend_from_slice(bytes);
            span
        };
        for (&socket, stream) in self.streams.iter_mut().filter(|(_, stream)| !stream.rest.is_empty()) {
            stream.is_blocked = true;
            self.told.blocked += 1;
            events.push(Event::Blocked { socket, rest: put(&std::mem::take(&mut stream.rest)) });
        }
        if std::mem::take(&mut self.is_to_publish) {
            let command = Command::Publish(Arc::clone(self.snapshot.as_ref().unwrap()));
            events.push(Event::Command { ticket: Ticket(1), command });
        }
        for (&socket, stream) in &mut self.streams {
            if stream.is_blocked && self.rng.bool() {
                stream.is_blocked = false;
                events.push(Event::Drained { socket });
            }
            if !stream.credit || stream.has_told_end {
                continue;
            }
            let (source, is_over) = match stream.client {
                Some(n) => {
                    let client = &mut self.clients[n].0;
                    (&mut client.to_worker, client.is_over)
                }
                None => (&mut stream.echo, stream.is_shut),
            };
            if !source.is_empty() {
                let len = self.rng.usize(1..=source.len().min(65_536));
                let bytes: Vec<u8> = source.drain(..len).collect();
                events.push(Event::Data { socket, bytes: put(&bytes) });
            } else if is_over {
                stream.has_told_end = true;
                events.push(Event::Eof { socket });
            }
        }
        self.carry_out(events, &arena);
    }

    fn carry_out(&mut self, mut events: Vec<Event>, arena: &[u8]) {
        self.answered = 0;
        self.out.clear();
        let inbox = Inbox { events: &mut events, bytes: arena, wall: Wall::from_secs(1_800_000_000) };
        self.worker.step(self.now, inbox, &mut self.out);
        let out = std::mem::take(&mut self.out);
        let mut hasher = DefaultHasher::new();
        (self.told.trace, &out.bytes, format!("{:?}", out.ops)).hash(&mut hasher);
        self.told.trace = hasher.finish();
        for op in &out.ops {
            self.perform(op, &out.bytes, arena);
        }
        self.out = out;
        self.told.most_handshakes = self.told.most_handshakes.max(self.answered);
    }

    fn perform(&mut self, op: &Op, made: &[u8], arena: &[u8]) {
        match op {
            Op::Listen { socket, .. } => {
                self.front = *socket;
                self.opened.push(*socket);
            }
            Op::Accept { arrival, socket, credit } => {
                let client = Some(arrival.0 as usize);
                self.streams.insert(*socket, Stream { client, credit: *credit, ..Stream::default() });
            }
            Op::Connect { socket, .. } => {
                self.opened.push(*socket);
                let hears = Some(Listening::new(self.speech));
                self.streams.insert(*socket, Stream { credit: true, hears, ..Stream::default() });
            }
            Op::Write { socket, bytes } => {
                let bytes = [bytes.head.of(made), bytes.body.of(arena)].concat();
                self.write(*socket, &bytes);
            }
            Op::Shutdown { socket } => {
                let Some(stream) = self.streams.get_mut(socket) else { return };
                // Nothing comes of it behind a write that is blocked.
                if stream.rest.is_empty() {
                    stream.is_shut = true;
                    self.orderly.extend(stream.client.is_none().then_some(*socket));
                }
            }
            Op::Credit { socket, on } => {
                if let Some(stream) = self.streams.get_mut(socket) {
                    stream.credit = *on;
                }
            }
            Op::Pipe { .. } | Op::Unpipe { .. } => panic!("the kernel can't move what has to be encrypted"),
            Op::Close { socket } if *socket == self.front => {}
            Op::Close { socket } => {
                let stream = self.streams.remove(socket).expect("it is open");
                // At a deadline whoever takes nothing is not waited for.
                // An HTTP client that has ended, after its answers, is owed nothing but an end that it doesn't wait for.
                let is_over = stream.client.is_some_and(|n| self.clients[n].0.is_over);
                let has_ended = self.speech == Speech::Requests && is_over;
                let is_given_up = self.is_removed || has_ended && stream.rest.len() < CLOSE_NOTIFY;
                assert!(stream.rest.is_empty() || is_given_up, "seed {}: bytes are lost", self.seed);
                self.orderly.extend(stream.client.is_none().then_some(*socket));
            }
            Op::Reset { socket } => drop(self.streams.remove(socket)),
            _ => {}
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
        self.answered += usize::from(stream.client.is_some() && !std::mem::replace(&mut stream.is_answered, true));
        match stream.client {
            Some(n) => self.clients[n].0.from_worker.extend_from_slice(&bytes[..taken]),
            None => {
                let said = stream.hears.as_mut().expect("it is a backend").answer(&bytes[..taken]);
                stream.echo.extend_from_slice(&said);
            }
        }
    }

    fn judge(mut self, plan: Plan) -> Told {
        let seed = self.seed;
        assert!(self.streams.is_empty(), "seed {seed}: {} streams never end", self.streams.len());
        let shown: Vec<_> = CERTIFICATES.map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).into();
        for (n, (client, generation)) in self.clients.iter_mut().enumerate() {
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
            plan.is_removed || plan.speech == Speech::Requests || self.orderly.len() == self.told.whole,
            "seed {seed}: an end is passed on where it was said, and only there"
        );
        self.told
    }
}
