//! A client that speaks TLS and asks before its handshake is over, where it may; and what it asks for.

use std::io::Write;
use std::sync::Arc;

use fastrand::Rng;
use kakei_proxy::secure::Anybody;
use rustls::client::{ClientConfig, ClientConnection, Resumption};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::time_provider::TimeProvider;

use crate::library::hear;
use crate::provider::provider;

/// What bodies of answers are made of.
pub(crate) const ANSWER: u8 = b'a';

/// A request, and what is true of it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) id: String,
    pub(crate) text: Vec<u8>,
    /// Its route allows early data, its method is safe, it has no body and asks for no other protocol.
    pub(crate) is_harmless: bool,
    /// It has the field already.
    pub(crate) says_early: bool,
}

impl Request {
    fn draw(rng: &mut Rng, id: String) -> Self {
        let methods = ["GET", "GET", "HEAD", "OPTIONS", "POST", "DELETE", "PUT"];
        let method = methods[rng.usize(0..methods.len())];
        let (is_open, says_early, upgrades) = (rng.u8(..4) > 0, rng.u8(..4) == 0, rng.u8(..8) == 0);
        let body = if rng.u8(..4) == 0 { rng.usize(1..3_000) } else { 0 };
        let path = if is_open { "/early" } else { "/late" };
        let mut text = format!("{method} {path}/{id} HTTP/1.1\r\nHost: echo.test\r\n").into_bytes();
        if says_early {
            text.extend_from_slice(b"early-data: 1\r\n");
        }
        if upgrades {
            text.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: other\r\n");
        }
        if body > 0 || matches!(method, "POST" | "PUT") {
            text.extend_from_slice(format!("Content-Length: {body}\r\n").as_bytes());
        }
        text.extend_from_slice(b"\r\n");
        text.resize(text.len() + body, b'b');
        let is_safe = matches!(method, "GET" | "HEAD" | "OPTIONS");
        Request { id, text, is_harmless: is_open && is_safe && body == 0 && !upgrades, says_early }
    }
}

pub(crate) struct Client {
    connection: ClientConnection,
    pub(crate) requests: Vec<Request>,
    /// All of them.
    payload: Vec<u8>,
    sent: usize,
    /// How much of that went as early data, until it is known what became of it.
    offered: Option<usize>,
    pub(crate) is_accepted: bool,
    pub(crate) is_refused: bool,
    /// It never reads.
    pub(crate) stalls: bool,
    got: Vec<u8>,
    /// What it sent that is still on its way, and how many bytes that was in all.
    pub(crate) to_worker: Vec<u8>,
    pub(crate) written: usize,
    /// How many of them reached the worker.
    pub(crate) delivered: usize,
    /// By how many its handshake is over for the worker too.
    finished: Option<usize>,
    pub(crate) from_worker: Vec<u8>,
    /// All that it sent before it heard anything.
    pub(crate) flight: Vec<u8>,
    pub(crate) is_over: bool,
    pub(crate) failure: Option<String>,
}

impl Client {
    pub(crate) fn new(rng: &mut Rng, config: &Arc<ClientConfig>, number: usize) -> Self {
        let name = ServerName::try_from("echo.test").unwrap();
        let requests: Vec<_> = (0..rng.usize(1..4)).map(|n| Request::draw(rng, format!("{number}-{n}"))).collect();
        let mut client = Client {
            connection: ClientConnection::new(Arc::clone(config), name).unwrap(),
            payload: requests.iter().flat_map(|request| request.text.clone()).collect(),
            requests,
            sent: 0,
            offered: None,
            is_accepted: false,
            is_refused: false,
            stalls: false,
            got: Vec::new(),
            to_worker: Vec::new(),
            written: 0,
            delivered: 0,
            finished: None,
            from_worker: Vec::new(),
            flight: Vec::new(),
            is_over: false,
            failure: None,
        };
        if client.connection.early_data().is_some() {
            client.offer(rng);
            client.stalls = rng.u8(..6) == 0;
        }
        client.write();
        client.flight = client.to_worker.clone();
        client
    }

    /// Send some of it before the handshake, in some pieces.
    fn offer(&mut self, rng: &mut Rng) {
        let most = if rng.bool() { self.payload.len() } else { rng.usize(0..=self.payload.len()) };
        while self.sent < most {
            let next = (self.sent + rng.usize(1..4_000)).min(most);
            let mut early = self.connection.early_data().unwrap();
            let taken = early.write(&self.payload[self.sent..next]).unwrap();
            self.sent += taken;
            if taken == 0 {
                break;
            }
            self.write();
        }
        self.offered = Some(self.sent);
    }

    fn write(&mut self) {
        let before = self.to_worker.len();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.to_worker).unwrap();
        }
        self.written += self.to_worker.len() - before;
    }

    /// Go on for a while.
    pub(crate) fn run(&mut self, rng: &mut Rng) {
        if self.is_over || self.stalls {
            return self.from_worker.clear();
        }
        self.take(rng);
        self.write();
        if !self.connection.is_handshaking() && self.failure.is_none() {
            self.finished.get_or_insert(self.written);
            if self.offered.take().is_some_and(|offered| offered > 0) {
                self.is_accepted = self.connection.is_early_data_accepted();
                self.is_refused = !self.is_accepted;
                if self.is_refused {
                    self.sent = 0;
                }
            }
            let next = (self.sent + rng.usize(1..4_000)).min(self.payload.len());
            self.connection.writer().write_all(&self.payload[self.sent..next]).unwrap();
            self.sent = next;
            if self.answers().len() == self.requests.len() {
                self.connection.send_close_notify();
                self.is_over = true;
            }
        }
        self.write();
    }

    fn take(&mut self, rng: &mut Rng) {
        while !self.from_worker.is_empty() {
            match hear(&mut self.connection, &mut self.from_worker, rng) {
                Ok((plain, _)) => self.got.extend_from_slice(&plain),
                Err(error) => {
                    self.failure = Some(error);
                    return self.from_worker.clear();
                }
            }
        }
    }

    /// Whether the worker has all of its handshake.
    pub(crate) fn is_proved(&self) -> bool {
        self.finished.is_some_and(|at| self.delivered >= at)
    }

    /// Which requests were answered wholly, in that order.
    pub(crate) fn answers(&self) -> Vec<String> {
        let (mut answers, mut rest) = (Vec::new(), &self.got[..]);
        while let Some(head) = rest.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) {
            let text = String::from_utf8_lossy(&rest[..head]);
            let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
            let id = field("X-Id: ");
            let has_body = self.requests.get(answers.len()).is_none_or(|request| !request.text.starts_with(b"HEAD"));
            let length = field("Content-Length: ").filter(|_| has_body).map_or(0, |length| length.parse().unwrap());
            let Some(behind) = rest.get(head + length..) else { break };
            let is_sent = rest[head..head + length].iter().all(|byte| *byte == ANSWER);
            assert!(is_sent || id.is_none(), "a body that nobody sent");
            answers.push(id.unwrap_or_else(|| format!("no answer of a backend: {text:?}")));
            rest = behind;
        }
        answers
    }
}

/// What clients have in common: their sessions.
pub(crate) fn config() -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(Still));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let verifier = Arc::new(Anybody(provider()));
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(64);
    config.enable_early_data = true;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

#[derive(Debug)]
struct Still;

impl TimeProvider for Still {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000)))
    }
}
