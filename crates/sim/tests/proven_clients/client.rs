//! A client of a library: it shows what it has, asks for pages in a row, and says in each request that it is somebody
//! else. It judges nothing.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kakei_proxy::secure::Anybody;
use rustls::HandshakeKind;
use rustls::client::{ClientConfig, ClientConnection, Resumption};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;

use crate::library::hear;
use crate::provider::provider;

/// What a client can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shows {
    Nothing,
    /// What the first authority vouches for.
    OfA,
    /// What the other one does.
    OfB,
    /// What the first one did, for some days.
    Expiring,
}

pub(crate) const ALL: [Shows; 4] = [Shows::Nothing, Shows::OfA, Shows::OfB, Shows::Expiring];

impl Shows {
    fn pem(self) -> Option<&'static str> {
        match self {
            Shows::Nothing => None,
            Shows::OfA => Some(include_str!("client-a.pem")),
            Shows::OfB => Some(include_str!("client-b.pem")),
            Shows::Expiring => Some(include_str!("client-old.pem")),
        }
    }

    /// What a backend is to be told: the subject, and an alternative name.
    pub(crate) fn told(self) -> Option<[&'static str; 2]> {
        match self {
            Shows::Nothing => None,
            Shows::OfA => Some(["CN=client a", "DNS:a.client.test"]),
            Shows::OfB => Some(["CN=client b", "DNS:b.client.test"]),
            Shows::Expiring => Some(["CN=client old", "DNS:old.client.test"]),
        }
    }
}

/// What every client says of itself, beside the truth.
pub(crate) const LIES: &str = "X-Client-Cert-Subject: CN=root\r\nx-client-cert-san: DNS:root.test\r\n\
    X-Client-Cert-Fingerprint: 00\r\nClient-Cert: :AA==:\r\nClient-Cert-Chain: :AA==:\r\n";

pub(crate) struct Client {
    connection: ClientConnection,
    pub(crate) shows: Shows,
    pub(crate) is_13: bool,
    /// What it asks for that is not written yet.
    asks: Vec<u8>,
    pub(crate) paths: Vec<String>,
    /// The statuses that it was answered by.
    pub(crate) answers: Vec<String>,
    heard: Vec<u8>,
    pub(crate) to_worker: Vec<u8>,
    pub(crate) from_worker: Vec<u8>,
    pub(crate) failure: Option<String>,
    /// It has sent all, and waits for nothing more.
    pub(crate) is_over: bool,
}

impl Client {
    pub(crate) fn new(rng: &mut Rng, number: usize, (shows, is_13): (Shows, bool), config: Arc<ClientConfig>) -> Self {
        let path = |_| if rng.bool() { format!("/{number}") } else { format!("/admin/{number}") };
        let paths: Vec<String> = (0..3).map(path).collect();
        let request = |path: &String| format!("GET {path} HTTP/1.1\r\nHost: echo.test\r\n{LIES}\r\n");
        let name = ServerName::try_from("echo.test").unwrap();
        Client {
            connection: ClientConnection::new(config, name).unwrap(),
            shows,
            is_13,
            asks: paths.iter().map(request).collect::<String>().into_bytes(),
            paths,
            answers: Vec::new(),
            heard: Vec::new(),
            to_worker: Vec::new(),
            from_worker: Vec::new(),
            failure: None,
            is_over: false,
        }
    }

    /// Go on for a while.
    pub(crate) fn run(&mut self, rng: &mut Rng) {
        self.hear(rng);
        if !self.connection.is_handshaking() && !self.asks.is_empty() && self.failure.is_none() {
            let some = rng.usize(1..=self.asks.len());
            self.connection.writer().write_all(&self.asks[..some]).unwrap();
            self.asks.drain(..some);
        }
        if self.answers.len() == self.paths.len() && !self.is_over && self.failure.is_none() {
            self.connection.send_close_notify();
            self.is_over = true;
        }
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.to_worker).unwrap();
        }
        self.is_over |= self.failure.is_some();
    }

    fn hear(&mut self, rng: &mut Rng) {
        while !self.from_worker.is_empty() && self.failure.is_none() {
            match hear(&mut self.connection, &mut self.from_worker, rng) {
                Ok((plain, _)) => self.heard.extend(plain),
                Err(error) => self.failure = Some(error),
            }
        }
        // Answers have bodies that no head could be taken for.
        while let Some(at) = self.heard.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&self.heard[..at]).into_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
            let end = at + 4 + length.parse::<usize>().unwrap();
            if self.heard.len() < end {
                return;
            }
            self.heard.drain(..end);
            self.answers.push(head.split(' ').nth(1).unwrap().to_owned());
        }
    }

    pub(crate) fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

/// A configuration for all clients that show the same, so that sessions are resumed.
pub(crate) fn config((shows, is_13): (Shows, bool)) -> Arc<ClientConfig> {
    let version = if is_13 { &rustls::version::TLS13 } else { &rustls::version::TLS12 };
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(Still));
    let builder = builder.with_protocol_versions(&[version]).unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider())));
    let mut config = match shows.pem() {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap()
        }
    };
    config.resumption = Resumption::in_memory_sessions(8);
    Arc::new(config)
}

#[derive(Debug)]
struct Still;

impl TimeProvider for Still {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(1_796_000_000)))
    }
}
