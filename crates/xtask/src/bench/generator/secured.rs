//! Clients under TLS: a session above each of their sockets, with one suite, one kind of key exchange and one certificate
//! that they know, so that every proxy computes the same. Knows no load.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CipherSuite, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, NamedGroup, SignatureScheme, version,
};

use super::net::{Moved, Slot, receive, send};

/// How much ciphertext one read takes.
const CIPHERTEXT: usize = 64 << 10;
/// Of so many signatures one is verified: it costs a client more than anything else, and measures no proxy.
const VERIFIED: u64 = 8;
/// How many tickets are kept.
const TICKETS: usize = 1024;

/// What clients do to have a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::bench) enum Handshakes {
    /// Begin anew every time.
    Full,
    /// Go on from a session before.
    Resumed,
}

/// All sessions, by their sockets' places.
pub(in crate::bench) struct Sessions {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    wanted: Handshakes,
    /// Handshakes that were others than wanted.
    unlike: u64,
    sessions: Vec<Option<Session>>,
    ciphertext: Vec<u8>,
}

impl Sessions {
    /// Of clients that ask for `name` and know its certificate, which is in that file.
    pub(in crate::bench) fn new(wanted: Handshakes, name: &str, certificate: &Path) -> Result<Sessions, String> {
        let say = |error: &dyn std::fmt::Display| format!("{}: {error}", certificate.display());
        let known = CertificateDer::from_pem_file(certificate).map_err(|error| say(&error))?;
        Ok(Sessions {
            config: Arc::new(config(wanted, known).map_err(|error| say(&error))?),
            name: ServerName::try_from(name.to_owned()).map_err(|error| say(&error))?,
            wanted,
            unlike: 0,
            sessions: Vec::new(),
            ciphertext: vec![0; CIPHERTEXT],
        })
    }

    /// A client's session begins.
    pub(super) fn begin(&mut self, slot: Slot) {
        if self.sessions.len() <= slot {
            self.sessions.resize_with(slot + 1, || None);
        }
        let connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone());
        self.sessions[slot] = connection.ok().map(Session::new);
    }

    pub(super) fn end(&mut self, slot: Slot) {
        if let Some(session) = self.sessions.get_mut(slot) {
            *session = None;
        }
    }

    /// Handshakes so far that were others than wanted.
    pub(super) fn unlike(&self) -> u64 {
        self.unlike
    }

    /// Read plaintext; none where the socket has no session.
    pub(super) fn read(&mut self, slot: Slot, fd: &OwnedFd, into: &mut [u8]) -> Option<Moved> {
        let session = self.sessions.get_mut(slot)?.as_mut()?;
        Some(session.read(fd, &mut self.ciphertext, into).unwrap_or(Moved::Lost))
    }

    /// Write plaintext; none where the socket has no session.
    pub(super) fn write(&mut self, slot: Slot, fd: &OwnedFd, bytes: &[u8]) -> Option<Moved> {
        let session = self.sessions.get_mut(slot)?.as_mut()?;
        let was_handshaking = session.connection.is_handshaking();
        let moved = session.write(fd, &mut self.ciphertext, bytes).unwrap_or(Moved::Lost);
        if was_handshaking && !session.connection.is_handshaking() {
            let wanted = match self.wanted {
                Handshakes::Full => HandshakeKind::Full,
                Handshakes::Resumed => HandshakeKind::Resumed,
            };
            self.unlike += u64::from(session.connection.handshake_kind() != Some(wanted));
        }
        Some(moved)
    }
}

/// The connection is lost, or the other side breaks the rules.
struct Broken;

struct Session {
    connection: ClientConnection,
    /// Records that the kernel didn't take yet.
    out: Vec<u8>,
    /// Plaintext that there was no room for.
    plain: VecDeque<u8>,
    has_ended: bool,
}

impl Session {
    fn new(connection: ClientConnection) -> Session {
        Session { connection, out: Vec::new(), plain: VecDeque::new(), has_ended: false }
    }

    fn read(&mut self, fd: &OwnedFd, ciphertext: &mut [u8], into: &mut [u8]) -> Result<Moved, Broken> {
        self.flush(fd)?;
        let mut n = self.plain.read(into).unwrap_or(0);
        while n < into.len() && !self.has_ended {
            let (came, is_all) = self.take(fd, ciphertext, &mut into[n..])?;
            n += came;
            if is_all {
                break;
            }
        }
        self.flush(fd)?;
        Ok(match n {
            0 if self.has_ended => Moved::End,
            0 => Moved::Wait,
            n => Moved::Bytes(n),
        })
    }

    fn write(&mut self, fd: &OwnedFd, ciphertext: &mut [u8], bytes: &[u8]) -> Result<Moved, Broken> {
        self.flush(fd)?;
        while self.connection.is_handshaking() {
            let (_, is_all) = self.take(fd, ciphertext, &mut [])?;
            // The end of a handshake goes by itself, as most clients have it.
            self.flush(fd)?;
            if self.has_ended {
                return Err(Broken);
            }
            if is_all && self.connection.is_handshaking() {
                return Ok(Moved::Wait);
            }
        }
        let n = self.connection.writer().write(bytes).map_err(|_| Broken)?;
        self.flush(fd)?;
        Ok(Moved::Bytes(n))
    }

    /// One read of ciphertext: how much plaintext it put into `into`, and whether nothing more is there.
    fn take(&mut self, fd: &OwnedFd, ciphertext: &mut [u8], into: &mut [u8]) -> Result<(usize, bool), Broken> {
        let len = match receive(fd, ciphertext) {
            Moved::Bytes(len) => len,
            Moved::Wait => return Ok((0, true)),
            Moved::End => {
                self.has_ended = true;
                return Ok((0, true));
            }
            Moved::Lost => return Err(Broken),
        };
        let (mut rest, mut n) = (&ciphertext[..len], 0);
        while !rest.is_empty() {
            self.connection.read_tls(&mut rest).map_err(|_| Broken)?;
            let state = self.connection.process_new_packets().map_err(|_| Broken)?;
            let waiting = state.plaintext_bytes_to_read();
            let direct = waiting.min(into.len() - n);
            let mut reader = self.connection.reader();
            reader.read_exact(&mut into[n..n + direct]).map_err(|_| Broken)?;
            n += direct;
            if waiting > direct {
                let mut more = vec![0; waiting - direct];
                reader.read_exact(&mut more).map_err(|_| Broken)?;
                self.plain.extend(more);
            }
            if state.peer_has_closed() {
                self.has_ended = true;
                break;
            }
        }
        Ok((n, len < ciphertext.len()))
    }

    /// Send what there is, as far as it goes.
    fn flush(&mut self, fd: &OwnedFd) -> Result<(), Broken> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.out).map_err(|_| Broken)?;
        }
        while !self.out.is_empty() {
            match send(fd, &self.out) {
                Moved::Bytes(n) => drop(self.out.drain(..n)),
                Moved::Wait => return Ok(()),
                Moved::End | Moved::Lost => return Err(Broken),
            }
        }
        Ok(())
    }
}

fn config(wanted: Handshakes, known: CertificateDer<'static>) -> Result<ClientConfig, Error> {
    let all = aws_lc_rs::default_provider();
    let provider = CryptoProvider {
        cipher_suites: all
            .cipher_suites
            .iter()
            .filter(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256)
            .copied()
            .collect(),
        kx_groups: all.kx_groups.iter().filter(|group| group.name() == NamedGroup::X25519).copied().collect(),
        ..all
    };
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(&[&version::TLS13])?.dangerous();
    let verifier = Known { certificate: known, algorithms, seen: AtomicU64::new(0) };
    let mut config = builder.with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = match wanted {
        Handshakes::Full => Resumption::disabled(),
        Handshakes::Resumed => Resumption::store(Arc::new(Tickets::default())),
    };
    Ok(config)
}

/// Takes one certificate and no other.
#[derive(Debug)]
struct Known {
    certificate: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
    seen: AtomicU64,
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match *shown == self.certificate {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(Error::General("another certificate".to_owned())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(VERIFIED) {
            true => verify_tls13_signature(message, certificate, signature, &self.algorithms),
            false => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The tickets of all clients: each is used once, the newest first. The library's own store keeps too few for many clients
/// that come at the same time.
#[derive(Debug, Default)]
struct Tickets(Mutex<VecDeque<Tls13ClientSessionValue>>);

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut tickets = self.0.lock().expect("nobody panics with it");
        if tickets.len() == TICKETS {
            tickets.pop_front();
        }
        tickets.push_back(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.lock().expect("nobody panics with it").pop_back()
    }
}
