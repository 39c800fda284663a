//! A client of the library's, and what a script does to its bytes before they go on. Knows no worker.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ClientConnection, Resumption};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{DigitallySignedStruct, Error, SignatureScheme, version};

use crate::provider::provider;
use crate::script::Script;

/// Byte number `at` of what a client says: the first one tells who it is.
pub fn said(client: u8, at: usize) -> u8 {
    if at == 0 { client } else { (at.wrapping_mul(31) as u8).wrapping_add(client) }
}

pub struct Client {
    number: u8,
    connection: ClientConnection,
    /// What it says, on its way.
    pub out: Vec<u8>,
    /// How many bytes it has said, and how many it got back.
    pub sent: usize,
    got: usize,
    pub has_said_end: bool,
    /// It can't read what it is told.
    is_broken: bool,
}

impl Client {
    pub fn new(number: u8, script: &mut Script<'_>) -> Self {
        let kind = script.byte();
        let name = ["echo.test", "a.under.test", "nobody.test", "127.0.0.1"][usize::from(kind & 3)];
        let version = if kind & 4 == 0 { &version::TLS13 } else { &version::TLS12 };
        let builder = ClientConfig::builder_with_details(provider(), Arc::new(Still));
        let builder = builder.with_protocol_versions(&[version]).expect("the provider has a suite for it");
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody));
        let mut config = builder.with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = match kind >> 3 & 3 {
            0 => Vec::new(),
            1 => vec![b"http/1.1".to_vec()],
            2 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            _ => vec![b"imap".to_vec()],
        };
        let name = ServerName::try_from(name).expect("it is a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("the configuration is whole");
        let mut client = Client {
            number,
            connection,
            out: Vec::new(),
            sent: 0,
            got: 0,
            has_said_end: false,
            is_broken: false,
        };
        client.run();
        client
    }

    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Take what the worker said. What comes back of its own must be its own.
    pub fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_broken {
            self.is_broken = self.connection.read_tls(&mut bytes).is_err();
            let Ok(state) = self.connection.process_new_packets() else {
                self.is_broken = true;
                return;
            };
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            self.connection.reader().read_exact(&mut plain).expect("as much is there");
            self.got += plain.len();
            if state.peer_has_closed() {
                return;
            }
        }
    }

    /// Say something, once it can be heard.
    pub fn say(&mut self, len: usize) {
        if !self.is_handshaking() && !self.has_said_end {
            let bytes: Vec<u8> = (self.sent..self.sent + len).map(|at| said(self.number, at)).collect();
            self.sent += self.connection.writer().write(&bytes).unwrap_or(0);
        }
    }

    pub fn end(&mut self) {
        if !self.is_handshaking() {
            self.has_said_end = true;
            self.connection.send_close_notify();
        }
    }

    /// Put what it has to say on its way.
    pub fn run(&mut self) {
        while self.connection.wants_write() && self.connection.write_tls(&mut self.out).is_ok() {}
    }

    /// Change what is on its way: a byte, bytes that are missing, bytes that come twice, others in between.
    pub fn spoil(&mut self, script: &mut Script<'_>) {
        let at = usize::from(script.byte()) | usize::from(script.byte() & 7) << 8;
        let (how, len) = (script.below(5), 1 + script.below(32));
        let at = at.min(self.out.len());
        let end = (at + len).min(self.out.len());
        match how {
            0 => self.out[at..end].iter_mut().take(1).for_each(|byte| *byte ^= len as u8),
            1 => drop(self.out.drain(at..end)),
            2 => {
                let twice = self.out[at..end].to_vec();
                drop(self.out.splice(at..at, twice));
            }
            3 => {
                let others = script.bytes(len).to_vec();
                drop(self.out.splice(at..end, others));
            }
            _ => {
                let more = script.bytes(len).to_vec();
                drop(self.out.splice(at..at, more));
            }
        }
    }
}

#[derive(Debug)]
struct Still;

impl TimeProvider for Still {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000)))
    }
}

/// Believes everybody: who the worker is, is no question here.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
