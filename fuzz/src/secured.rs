//! A worker behind TLS, between clients of the library whose bytes a script lets through, changes, drops and invents, and
//! an echo. Key exchange and randomness come from a seed. It checks the worker's side of the seam, and what TLS is for:
//! nothing arrives at the echo that a client didn't say. Opens no socket and reads no clock.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kakei_config::{Backend, Cluster, Document, Listener, ListenerTls, Name, Protocol, ServerName, Shown};
use kakei_proxy::limits::HANDSHAKE_BYTES;
use kakei_proxy::seam::{
    Accepted, Arrival, Command, Event, Inbox, Instant, Op, OpenError, Outbox, SocketId, Span, Ticket, Wall,
};
use kakei_proxy::secure::{Certificate, Materials, TicketKeys};
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::worker::{Role, Worker};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::client::{Client, said};
use crate::provider::{self, provider};
use crate::script::Script;

const CERTIFICATE: &str = include_str!("../../crates/sim/tests/secured/a.pem");
/// The most clients of a run.
const CLIENTS: usize = 4;
/// The most that one read brings.
const READ: usize = 65_536;
/// What a client may be told before its handshake is done: certificate, tickets and alerts.
const ANSWER: usize = 16_384;
/// Steps in which everything must have ended.
const STEPS_TO_END: usize = 2_000;

#[derive(Default)]
struct Stream {
    /// Whose it is; none: it leads to the echo.
    client: Option<usize>,
    /// What is on its way to the worker.
    incoming: Vec<u8>,
    credit: bool,
    is_blocked: bool,
    /// What the worker wrote in this step and the kernel did not take.
    rest: Vec<u8>,
    /// The worker says nothing more.
    is_shut: bool,
    /// The other side says nothing more, and whether the worker knows.
    has_ended: bool,
    has_told_end: bool,
    /// How much the worker has taken, and said.
    taken: usize,
    told: usize,
    /// Of the echo: which client speaks.
    speaker: Option<usize>,
}

pub struct Room {
    worker: Worker,
    now: Instant,
    wake: Option<Instant>,
    out: Outbox,
    front: SocketId,
    is_http: bool,
    clients: Vec<Client>,
    streams: BTreeMap<SocketId, Stream>,
    arriving: Vec<usize>,
    opened: Vec<SocketId>,
    failed: Vec<SocketId>,
    command: Option<Command>,
    /// How many bytes the next write takes; none: all.
    room: Option<usize>,
    /// Whether every step is printed: `KAKEI_FUZZ_TRACE` is set.
    trace: bool,
}

fn document(is_http: bool) -> Document {
    let backend: SocketAddr = "10.0.0.1:7".parse().expect("it is an address");
    let cluster = Cluster { backends: vec![Backend::at(backend)], ..Cluster::default() };
    let tls = ListenerTls { certificates: Shown::Named(vec!["echo".into()]), ..ListenerTls::default() };
    let listener = Listener {
        protocol: if is_http { Protocol::Http } else { Protocol::Tcp },
        bind: vec!["0.0.0.0:443".parse().expect("it is an address")],
        cluster: Some("c".into()),
        tls: Some(tls),
        ..Listener::default()
    };
    Document {
        listeners: [("l".into(), listener)].into(),
        clusters: [("c".into(), cluster)].into(),
        ..Document::default()
    }
}

fn materials() -> Materials {
    let provider = provider();
    let pem = CERTIFICATE.as_bytes();
    let chain = vec![CertificateDer::from_pem_slice(pem).expect("it is a certificate")];
    let key = PrivateKeyDer::from_pem_slice(pem).expect("there is a key");
    let certificate = Certificate {
        name: Name::new("echo"),
        key: Arc::new(CertifiedKey::from_der(chain, key, &provider).expect("they belong together")),
        names: vec![ServerName::Exact("echo.test".into()), ServerName::Under("under.test".into())],
        addresses: Vec::new(),
        not_before: 0,
        not_after: i64::MAX,
        issuer: String::new(),
        fingerprint: [0; 32],
    };
    let certificates = [("echo".into(), Arc::new(certificate))].into_iter().collect();
    Materials { certificates, tickets: TicketKeys::new(&provider), provider: Some(provider), ..Materials::default() }
}

impl Room {
    pub fn new(script: &mut Script<'_>) -> Self {
        let (seed, is_http) = (u64::from(script.byte()), script.flag());
        provider::seed(seed);
        let mut room = Room {
            worker: Worker::new(Role { index: 0, seed }),
            now: Instant::from_nanos(1_000_000_000),
            wake: None,
            out: Outbox::default(),
            front: SocketId::default(),
            is_http,
            clients: Vec::new(),
            streams: BTreeMap::new(),
            arriving: Vec::new(),
            opened: Vec::new(),
            failed: Vec::new(),
            command: None,
            room: None,
            trace: std::env::var_os("KAKEI_FUZZ_TRACE").is_some(),
        };
        let shared = Shared { workers: 1, balance_seed: 1 };
        let snapshot = Snapshot::compile_with(&document(is_http), Generation(1), shared, None, &materials());
        room.command = Some(Command::Publish(Arc::new(snapshot)));
        room.step();
        room.step();
        room
    }

    /// One thing that happens, as the script decides.
    pub fn act(&mut self, script: &mut Script<'_>) {
        let what = script.below(12);
        if what == 0 || self.clients.is_empty() {
            self.arrive(script);
            return self.step();
        }
        let n = script.below(self.clients.len());
        match what {
            1 | 2 => self.pass_on(n, script),
            3..=5 => self.clients[n].spoil(script),
            6 => self.invent(n, script),
            7 => self.clients[n].say(1 + script.below(256) * 64),
            8 => self.clients[n].end(),
            9 => self.cut(n),
            10 => self.room = Some(script.below(256) * 8),
            _ => self.now = self.now + Duration::from_millis(1 << script.below(16)),
        }
        self.step();
    }

    fn arrive(&mut self, script: &mut Script<'_>) {
        if self.clients.len() < CLIENTS {
            self.arriving.push(self.clients.len());
            self.clients.push(Client::new(self.clients.len() as u8, script));
        }
    }

    fn of(&mut self, n: usize) -> Option<&mut Stream> {
        self.streams.values_mut().find(|stream| stream.client == Some(n))
    }

    /// Let some of what a client says through, or all of it.
    fn pass_on(&mut self, n: usize, script: &mut Script<'_>) {
        let all = self.clients[n].out.len();
        let len = match script.byte() {
            0 => all,
            few => all.min(usize::from(few)),
        };
        let bytes: Vec<u8> = self.clients[n].out.drain(..len).collect();
        if let Some(stream) = self.of(n).filter(|stream| !stream.has_ended) {
            stream.incoming.extend(bytes);
        }
    }

    /// Bytes of nobody: as they are, or as a record that has what it says it has.
    fn invent(&mut self, n: usize, script: &mut Script<'_>) {
        let bytes = match script.flag() {
            true => {
                let len = script.below(256);
                script.bytes(len).to_vec()
            }
            false => {
                let (kind, len) = (20 + script.below(6) as u8, script.below(256) * 65);
                let head = [&[kind, 3, 3][..], &(len as u16).to_be_bytes(), script.bytes(8)].concat();
                let filling = script.byte();
                head.into_iter().chain(std::iter::repeat(filling)).take(5 + len).collect()
            }
        };
        if let Some(stream) = self.of(n).filter(|stream| !stream.has_ended) {
            stream.incoming.extend(bytes);
        }
    }

    fn cut(&mut self, n: usize) {
        if let Some(stream) = self.of(n) {
            stream.has_ended = true;
        }
    }

    /// Everybody ends: so must all streams, and nothing may take for ever.
    pub fn finish(mut self) {
        (0..self.clients.len()).for_each(|n| self.cut(n));
        for _ in 0..STEPS_TO_END {
            if self.streams.is_empty() {
                break;
            }
            self.room = None;
            self.step();
            self.now = self.wake.unwrap_or(self.now).max(self.now + Duration::from_millis(1));
        }
        assert!(self.streams.is_empty(), "{} streams never end", self.streams.len());
    }

    fn step(&mut self) {
        let (mut events, mut arena) = (Vec::new(), Vec::new());
        self.tell_of_arrivals(&mut events);
        self.tell_of_streams(&mut events, &mut arena);
        if self.trace {
            eprintln!("{:?}: {events:#?}", self.now);
        }
        self.out.clear();
        let inbox = Inbox { events: &mut events, bytes: &arena, wall: Wall::from_secs(1_800_000_000) };
        self.wake = self.worker.step(self.now, inbox, &mut self.out);
        assert!(events.is_empty(), "a step drains its inbox");
        assert!(self.wake.is_none_or(|wake| wake >= self.now), "a wake-up lies ahead");
        let out = std::mem::take(&mut self.out);
        if self.trace {
            eprintln!("asks for {:#?}, wants to be called at {:?}", out.ops, self.wake);
        }
        for op in &out.ops {
            self.perform(op, &out.bytes, &arena);
        }
        self.out = out;
        self.clients.iter_mut().for_each(Client::run);
    }

    fn tell_of_arrivals(&mut self, events: &mut Vec<Event>) {
        for n in self.arriving.drain(..) {
            let (peer, local) =
                (SocketAddr::from(([10, 1, 0, 1], 1024 + n as u16)), SocketAddr::from(([192, 0, 2, 1], 443)));
            events.push(Event::Accepted(Accepted { front: self.front, arrival: Arrival(n as u32), peer, local }));
        }
        let front = self.front;
        let bound = |socket| SocketAddr::from(if socket == front { ([0; 4], 443) } else { ([10, 9, 9, 9], 9) });
        events.extend(self.opened.drain(..).map(|socket| Event::Opened { socket, local: bound(socket) }));
        events
            .extend(self.failed.drain(..).map(|socket| Event::OpenFailed { socket, error: OpenError::Unreachable }));
        events.extend(self.command.take().map(|command| Event::Command { ticket: Ticket(1), command }));
    }

    fn tell_of_streams(&mut self, events: &mut Vec<Event>, arena: &mut Vec<u8>) {
        let mut put = |bytes: &[u8]| {
            let span = Span { start: arena.len() as u32, len: bytes.len() as u32 };
            arena.extend_from_slice(bytes);
            span
        };
        for (&socket, stream) in &mut self.streams {
            if !stream.rest.is_empty() {
                stream.is_blocked = true;
                events.push(Event::Blocked { socket, rest: put(&std::mem::take(&mut stream.rest)) });
            } else if std::mem::take(&mut stream.is_blocked) {
                events.push(Event::Drained { socket });
            }
        }
        for (&socket, stream) in self.streams.iter_mut().filter(|(_, stream)| stream.credit && !stream.has_told_end) {
            if !stream.incoming.is_empty() {
                let len = stream.incoming.len().min(READ);
                let bytes: Vec<u8> = stream.incoming.drain(..len).collect();
                stream.taken += len;
                events.push(Event::Data { socket, bytes: put(&bytes) });
            } else if stream.has_ended {
                stream.has_told_end = true;
                events.push(Event::Eof { socket });
            }
        }
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
            Op::Connect { socket, .. } if self.is_http => self.failed.push(*socket),
            Op::Connect { socket, .. } => {
                self.opened.push(*socket);
                self.streams.insert(*socket, Stream { credit: true, ..Stream::default() });
            }
            Op::Write { socket, bytes } => {
                let bytes = [bytes.head.of(made), bytes.body.of(arena)].concat();
                self.write(*socket, &bytes);
            }
            Op::Farewell { socket, bytes } => self.write(*socket, bytes.of(made)),
            Op::Shutdown { socket } => {
                let Some(stream) = self.streams.get_mut(socket).filter(|stream| stream.rest.is_empty()) else { return };
                stream.is_shut = true;
                if stream.client.is_none() {
                    stream.has_ended = true;
                    let is_said = stream.speaker.is_none_or(|n| self.clients[n].has_said_end);
                    assert!(is_said, "an end is passed on that nobody said");
                }
            }
            Op::Credit { socket, on } => {
                if let Some(stream) = self.streams.get_mut(socket) {
                    stream.credit = *on;
                }
            }
            Op::Pipe { .. } | Op::Unpipe { .. } => panic!("the kernel can't move what has to be encrypted"),
            Op::Close { socket } | Op::Reset { socket } => drop(self.streams.remove(socket)),
            _ => {}
        }
    }

    fn write(&mut self, socket: SocketId, bytes: &[u8]) {
        let room = self.room.take();
        let Some(stream) = self.streams.get_mut(&socket) else { return };
        assert!(!stream.is_blocked && !stream.is_shut, "nothing is written to a stream that is blocked or shut");
        let taken = match stream.rest.is_empty() {
            false => 0,
            true => room.unwrap_or(bytes.len()).min(bytes.len()),
        };
        stream.rest.extend_from_slice(&bytes[taken..]);
        stream.told += bytes.len();
        let bytes = &bytes[..taken];
        match stream.client {
            Some(n) => {
                let client = &mut self.clients[n];
                client.take(bytes);
                let is_modest = stream.taken <= HANDSHAKE_BYTES + READ && stream.told <= ANSWER;
                assert!(!client.is_handshaking() || is_modest, "{} for a handshake, {}", stream.taken, stream.told);
            }
            None => {
                let before = stream.taken + stream.incoming.len();
                let Some(&first) = bytes.first() else { return };
                let speaker = *stream.speaker.get_or_insert(usize::from(first));
                let client = self.clients.get(speaker).expect("somebody said it");
                let is_its = before + bytes.len() <= client.sent
                    && bytes.iter().enumerate().all(|(at, byte)| *byte == said(speaker as u8, before + at));
                assert!(is_its, "what arrives is not what client {speaker} said");
                stream.incoming.extend_from_slice(bytes);
            }
        }
    }
}
