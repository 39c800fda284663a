//! A backend's connection under TLS, as its seed has it: one that keeps to the rules, or breaks one of them.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ServerConfig, ServerConnection};
use rustls::time_provider::TimeProvider;
use rustls::{HandshakeKind, SupportedProtocolVersion, version};

use crate::client::body;
use crate::provider::provider;

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Honest,
    /// It ends its direction once so many bytes of plaintext were written, and goes on listening.
    Early(usize),
    /// Its line is cut once so many bytes of plaintext were written.
    Truncates(usize),
    /// Its line is cut in the middle of the handshake.
    Breaks(usize),
    /// It refuses to shake hands.
    Alert,
    /// It has never heard of TLS.
    Plain,
    Silent,
}

pub(crate) struct Server {
    connection: ServerConnection,
    pub(crate) kind: Kind,
    /// Whether those who vouched for it counted when the handshake began; none: it has not begun.
    pub(crate) trusted: Option<bool>,
    /// The generation that ran then.
    pub(crate) generation: usize,
    is_http: bool,
    pub(crate) plain: Vec<u8>,
    read: usize,
    written: usize,
    /// Numbers of requests that came, and whether their answers may be taken for whole ones.
    pub(crate) answered: Vec<(u32, bool)>,
    pub(crate) to_worker: Vec<u8>,
    handshake_bytes: usize,
    pub(crate) is_over: bool,
    has_begun: bool,
    /// The worker said in TLS that it sends nothing more.
    pub(crate) heard_end: bool,
    pub(crate) failure: Option<String>,
}

#[derive(Debug)]
struct Still;

impl TimeProvider for Still {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000)))
    }
}

/// One for each version.
pub(crate) fn configs(pem: &str) -> [Arc<ServerConfig>; 2] {
    let versions: [&'static SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];
    versions.map(|version| {
        let builder = ServerConfig::builder_with_details(provider(), Arc::new(Still));
        let builder = builder.with_protocol_versions(&[version]).unwrap().with_no_client_auth();
        let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec(), b"echo".to_vec()];
        Arc::new(config)
    })
}

impl Server {
    pub(crate) fn new(rng: &mut Rng, config: Arc<ServerConfig>, is_http: bool) -> Self {
        let most = if rng.bool() { 200 } else { 60_000 };
        let kind = match rng.u8(..20) {
            0 | 1 => Kind::Truncates(rng.usize(..most)),
            2 => Kind::Breaks(rng.usize(..1_200)),
            3 => Kind::Alert,
            4 => Kind::Plain,
            5 => Kind::Silent,
            6 | 7 if !is_http => Kind::Early(rng.usize(..most)),
            _ => Kind::Honest,
        };
        Server {
            connection: ServerConnection::new(config).unwrap(),
            kind,
            trusted: None,
            generation: 0,
            is_http,
            plain: Vec::new(),
            read: 0,
            written: 0,
            answered: Vec::new(),
            to_worker: Vec::new(),
            handshake_bytes: 0,
            is_over: false,
            has_begun: false,
            heard_end: false,
            failure: None,
        }
    }

    /// Bytes of the worker.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) {
        assert!(
            self.has_begun || bytes[0] == 22,
            "a backend is spoken to in plain: {:?}",
            &bytes[..bytes.len().min(40)]
        );
        if !std::mem::replace(&mut self.has_begun, true) {
            match self.kind {
                Kind::Alert => self.go(&[21, 3, 3, 0, 2, 2, 40]),
                Kind::Plain => self.go(b"220 not a word of TLS\r\n"),
                _ => {}
            }
        }
        let is_deaf = self.is_over && !matches!(self.kind, Kind::Early(_));
        if is_deaf || self.kind == Kind::Silent || self.failure.is_some() {
            return;
        }
        while !bytes.is_empty() {
            self.connection.read_tls(&mut bytes).unwrap();
            match self.connection.process_new_packets() {
                Ok(state) => {
                    let at = self.plain.len();
                    self.plain.resize(at + state.plaintext_bytes_to_read(), 0);
                    self.connection.reader().read_exact(&mut self.plain[at..]).unwrap();
                    self.heard_end |= state.peer_has_closed();
                }
                Err(error) => {
                    self.failure = Some(error.to_string());
                    break;
                }
            }
        }
    }

    fn go(&mut self, last: &[u8]) {
        self.to_worker.extend_from_slice(last);
        self.is_over = true;
    }

    /// Go on for a while.
    pub(crate) fn run(&mut self, rng: &mut Rng) {
        if self.is_over || self.kind == Kind::Silent {
            return;
        }
        if !self.connection.is_handshaking() && self.failure.is_none() {
            match self.is_http {
                true => self.answer(rng),
                false => self.echo(rng),
            }
        }
        let was_shaking = self.connection.is_handshaking();
        let at = self.to_worker.len();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.to_worker).unwrap();
        }
        self.handshake_bytes += self.to_worker.len() - at;
        if let Kind::Breaks(most) = self.kind
            && was_shaking
            && self.handshake_bytes > most
        {
            self.to_worker.truncate(self.to_worker.len() - (self.handshake_bytes - most));
            self.is_over = true;
        }
        self.is_over |= self.failure.is_some();
    }

    fn echo(&mut self, rng: &mut Rng) {
        let next = (self.read + rng.usize(1..30_000)).min(self.plain.len());
        let piece = self.plain[self.read..next].to_vec();
        self.read = next;
        self.write(rng, &piece);
        if self.heard_end && self.read == self.plain.len() && !self.is_over {
            self.finish();
        }
    }

    fn answer(&mut self, rng: &mut Rng) {
        while !self.is_over && !self.connection.wants_write() {
            let rest = &self.plain[self.read..];
            let Some(len) = rest.windows(4).position(|four| four == b"\r\n\r\n") else { break };
            let head = String::from_utf8_lossy(&rest[..len]).into_owned();
            self.read += len + 4;
            let number: u32 = head[5..].split(' ').next().unwrap().parse().expect("a number");
            let (body, way) = (body(number), rng.u8(..4));
            let head = match way {
                0 => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
                1 => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_owned(),
                _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()),
            };
            let body = match way {
                0 if body.is_empty() => b"0\r\n\r\n".to_vec(),
                0 => [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat(),
                _ => body,
            };
            // What of these is not whole its reader knows; of what ends with the connection only we do.
            self.answered.push((number, way != 1));
            self.write(rng, &[head.as_bytes(), &body].concat());
            if self.is_over {
                return;
            }
            match (way, rng.u8(..6)) {
                (1, _) => {
                    self.answered.last_mut().unwrap().1 = true;
                    self.finish();
                }
                // It goes without a word: its answer was whole nevertheless.
                (_, 0) => self.cut(rng),
                _ => {}
            }
        }
        if self.heard_end && !self.is_over {
            self.finish();
        }
    }

    fn write(&mut self, rng: &mut Rng, bytes: &[u8]) {
        let room = match self.kind {
            Kind::Truncates(most) | Kind::Early(most) => most.saturating_sub(self.written),
            _ => usize::MAX,
        };
        let bytes = &bytes[..bytes.len().min(room)];
        self.written += bytes.len();
        self.connection.set_buffer_limit(None);
        self.connection.writer().write_all(bytes).unwrap();
        if bytes.len() == room {
            match self.kind {
                Kind::Early(_) => self.finish(),
                _ => self.cut(rng),
            }
        }
    }

    /// Its line is cut: never in the middle of what says the end, since it doesn't say it.
    fn cut(&mut self, rng: &mut Rng) {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.to_worker).unwrap();
        }
        if self.kind != Kind::Honest && rng.bool() {
            self.to_worker.truncate(self.to_worker.len() - rng.usize(0..=self.to_worker.len().min(30)));
        }
        self.is_over = true;
    }

    fn finish(&mut self) {
        self.connection.send_close_notify();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.to_worker).unwrap();
        }
        self.is_over = true;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.failure.is_none() && !self.connection.is_handshaking()
    }

    pub(crate) fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}
