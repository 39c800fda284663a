//! TLS of a listener, compiled: what a handshake is held to, and who the listener is. Immutable once made.

use std::sync::Arc;
use std::time::Duration;

use blake2::{Blake2s256, Digest};
use kakei_config::{CipherSuite, ClientCertificateMode, ClientCertificates, Name, Shown, Sorted, TlsVersion};
use kakei_wire::client_hello;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig, StoresServerSessions, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, SupportedProtocolVersion, version};

use super::certificate::Certificate;
use super::client::Sha256;
use super::materials::{Materials, Revoked, is_same};
use super::shelf::Shelf;
use super::tickets::{Realm, TicketKeys, Ticketer};
use super::verifier;
use crate::limits::EARLY_DATA;
use crate::seam::Wall;

/// See the module's words.
#[derive(Clone, Debug)]
pub struct ListenerTls {
    /// What it is held to, as it was asked for.
    pub spec: kakei_config::ListenerTls,
    /// Whether requests come by it.
    pub is_http: bool,
    /// Its certificates.
    pub certificates: Sorted<Name, Arc<Certificate>>,
    /// One worker's share of its handshakes at one time.
    pub handshakes: u32,
    /// All that there were when it was compiled.
    known: Sorted<Name, Arc<Certificate>>,
    default: Option<Arc<Certificate>>,
    shelf: Shelf,
    tickets: Option<Arc<TicketKeys>>,
    /// In their place, where early data is taken: each session is gone on from once (RFC 8446, section 8.1).
    sessions: Option<Arc<dyn StoresServerSessions>>,
    /// Whether a route allows early data.
    pub(crate) allows_early: bool,
    /// Who clients have to be vouched for by; none: nobody, or there is nothing to ask.
    clients: Option<Clients>,
    /// What fingerprints of clients are made by.
    pub(super) sha256: Sha256,
    /// What every handshake begins with; none: it can't be spoken.
    template: Option<Arc<ServerConfig>>,
}

/// Who may vouch for clients, and who counts no longer.
#[derive(Clone, Debug)]
struct Clients {
    trusted: Arc<RootCertStore>,
    revoked: Vec<Revoked>,
}

impl PartialEq for Clients {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (&Revoked, &Revoked)| Arc::ptr_eq(a, b);
        Arc::ptr_eq(&self.trusted, &other.trusted)
            && self.revoked.len() == other.revoked.len()
            && self.revoked.iter().zip(&other.revoked).all(same)
    }
}

impl PartialEq for ListenerTls {
    /// Everything else follows from these.
    fn eq(&self, other: &Self) -> bool {
        let mut differing = self.certificates.differences(&other.certificates);
        (&self.spec, self.is_http, self.handshakes) == (&other.spec, other.is_http, other.handshakes)
            && (&self.tickets, &self.clients) == (&other.tickets, &other.clients)
            && self.allows_early == other.allows_early
            && is_same(&self.sessions, &other.sessions)
            && differing
                .all(|(_, one, another)| one.zip(another).is_some_and(|(one, another)| Arc::ptr_eq(one, another)))
    }
}

impl ListenerTls {
    /// What `previous` has in common with it is taken from there.
    pub(crate) fn compile(
        spec: &kakei_config::ListenerTls,
        materials: &Materials,
        (is_http, allows_early, workers): (bool, bool, u16),
        previous: Option<&ListenerTls>,
    ) -> Self {
        // Whoever has to show a certificate is nobody before it did.
        let takes_early = allows_early && spec.tickets && spec.client_certificates.is_none();
        let sessions = materials.sessions.clone().filter(|_| takes_early);
        let tickets = materials.tickets.clone().filter(|_| spec.tickets && sessions.is_none());
        let clients = spec.client_certificates.as_ref().and_then(|asked| Clients::of(asked, materials));
        let provider = materials.provider.as_ref();
        let template = provider.and_then(|provider| template(spec, provider, is_http, (&tickets, &sessions, &clients)));
        let shows_alike =
            |old: &&ListenerTls| (&old.spec.certificates, &old.spec.default) == (&spec.certificates, &spec.default);
        let old = previous.filter(shows_alike);
        let mut made = ListenerTls {
            template,
            sha256: provider.map(|provider| Sha256::of(provider)).unwrap_or_default(),
            clients,
            handshakes: spec.handshakes.div_ceil(u32::from(workers.max(1))),
            spec: spec.clone(),
            is_http,
            certificates: old.map(|old| old.certificates.clone()).unwrap_or_default(),
            known: old.map(|old| old.known.clone()).unwrap_or_default(),
            default: None,
            shelf: old.map(|old| old.shelf.clone()).unwrap_or_default(),
            tickets,
            sessions,
            allows_early,
        };
        made.turn(&materials.certificates, old.is_none());
        made
    }

    /// Show of `known` what is to be shown.
    fn turn(&mut self, known: &Sorted<Name, Arc<Certificate>>, anew: bool) {
        let before = std::mem::replace(&mut self.known, known.clone());
        if let (Shown::Named(names), true) = (self.spec.certificates.clone(), anew) {
            for (place, name) in names.iter().chain(&self.spec.default.clone()).enumerate() {
                self.show(place, name, known.get(name));
            }
        } else {
            for (name, _, after) in before.differences(known) {
                if self.spec.shows(name) {
                    self.show(self.place(name), name, after);
                }
            }
        }
        self.default = self.spec.default.as_ref().and_then(|name| known.get(name)).cloned();
    }

    /// The place at which a certificate was named.
    fn place(&self, name: &Name) -> usize {
        let names = self.spec.certificates.named();
        names.iter().position(|named| named == name).unwrap_or(names.len())
    }

    fn show(&mut self, place: usize, name: &Name, certificate: Option<&Arc<Certificate>>) {
        let before = match certificate {
            Some(certificate) => self.certificates.insert(name.clone(), Arc::clone(certificate)),
            None => self.certificates.remove(name),
        };
        if let (Some(before), Some(certificate)) = (&before, certificate)
            && Arc::ptr_eq(before, certificate)
        {
            return;
        }
        before.iter().for_each(|before| self.shelf.take(before));
        certificate.iter().for_each(|certificate| self.shelf.put(place, certificate));
    }

    /// Whether one of these versions is spoken.
    pub(super) fn speaks(&self, versions: &[u16]) -> bool {
        let oldest = if self.spec.min_version == TlsVersion::Tls12 { 0x0303 } else { 0x0304 };
        versions.iter().any(|version| (oldest..=0x0304).contains(version))
    }

    /// Those for a name in lower case, the preferred first.
    pub fn of_name(&self, name: &str) -> impl Iterator<Item = &Arc<Certificate>> + Clone {
        self.shelf.find(name)
    }

    /// Those that a client that asks for this name may get, the preferred first; none: it is refused.
    pub fn shown_to(&self, name: Option<&str>) -> Vec<&Arc<Certificate>> {
        let named: Vec<_> = name.into_iter().flat_map(|name| self.of_name(name)).collect();
        if named.is_empty() { self.default.iter().collect() } else { named }
    }

    /// The certificate for a client; none: it is to be refused.
    pub(super) fn choose(&self, hello: &client_hello::ClientHello) -> Option<&Arc<Certificate>> {
        let mut known = hello.server_name.as_deref().into_iter().flat_map(|name| self.of_name(name));
        let first = known.clone().next();
        let spoken = self.template.as_ref().map(|template| &template.crypto_provider().cipher_suites[..]);
        let spoken = spoken.unwrap_or_default();
        known.find(|certificate| certificate.suits(hello, spoken)).or(first).or(self.default.as_ref())
    }

    /// What one handshake is held to, by this certificate and at this time. It is made for each of
    /// them: the library asks for both through the configuration, and nothing that workers share may change.
    pub(super) fn config(&self, certificate: &Certificate, wall: Wall) -> Option<Arc<ServerConfig>> {
        let mut config = ServerConfig::clone(self.template.as_ref()?);
        config.cert_resolver = Arc::new(Only(Arc::clone(&certificate.key)));
        config.time_provider = Arc::new(At(wall));
        Some(Arc::new(config))
    }
}

/// What clients go on from, and what they had to prove for it.
type Resumption<'a> = (&'a Option<Arc<TicketKeys>>, &'a Option<Arc<dyn StoresServerSessions>>, &'a Option<Clients>);

fn template(
    spec: &kakei_config::ListenerTls,
    provider: &Arc<CryptoProvider>,
    is_http: bool,
    (tickets, sessions, clients): Resumption<'_>,
) -> Option<Arc<ServerConfig>> {
    let verifier = match (&spec.client_certificates, clients) {
        (None, _) => WebPkiClientVerifier::no_client_auth(),
        // Whoever asks for a lock must not get an open door.
        (Some(_), None) => return None,
        (Some(asked), Some(clients)) => clients.verifier(asked.mode, provider)?,
    };
    let mut provider = CryptoProvider::clone(provider);
    if !spec.cipher_suites.is_empty() {
        let known = provider.cipher_suites.clone();
        let of = |suite: &CipherSuite| known.iter().find(|known| u16::from(known.suite()) == number(*suite)).copied();
        provider.cipher_suites = spec.cipher_suites.iter().filter_map(of).collect();
    }
    let versions: &[&SupportedProtocolVersion] = match spec.min_version {
        TlsVersion::Tls12 => &[&version::TLS13, &version::TLS12],
        TlsVersion::Tls13 => &[&version::TLS13],
    };
    let builder = ServerConfig::builder_with_details(Arc::new(provider), Arc::new(At(Wall::default())));
    let builder = builder.with_protocol_versions(versions).ok()?;
    let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(Nobody));
    config.ignore_client_order = !spec.cipher_suites.is_empty();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    let alpn = spec.alpn.iter().map(|name| name.clone().into_bytes());
    config.alpn_protocols = alpn.collect();
    if is_http && config.alpn_protocols.is_empty() {
        config.alpn_protocols.extend([b"http/1.1".to_vec(), b"http/1.0".to_vec()]);
    }
    match (sessions, tickets) {
        (Some(sessions), _) => {
            config.session_storage = Arc::clone(sessions);
            config.max_early_data_size = EARLY_DATA;
            config.send_half_rtt_data = true;
        }
        (None, Some(keys)) => config.ticketer = Arc::new(Ticketer(Arc::clone(keys), realm(spec, clients))),
        (None, None) => config.send_tls13_tickets = 0,
    }
    Some(Arc::new(config))
}

impl Clients {
    /// None where something isn't there: then nobody may come in.
    fn of(asked: &ClientCertificates, materials: &Materials) -> Option<Self> {
        let trusted = materials.trusted.get(&Some(asked.ca.clone()))?;
        let revoked = asked.crls.iter().map(|named| materials.revoked.get(named).cloned());
        Some(Clients { trusted: Arc::clone(trusted), revoked: revoked.collect::<Option<_>>()? })
    }

    fn verifier(
        &self,
        mode: ClientCertificateMode,
        provider: &Arc<CryptoProvider>,
    ) -> Option<Arc<dyn ClientCertVerifier>> {
        verifier::clients(&self.trusted, &self.revoked, provider, mode).ok()
    }
}

/// Tells tickets apart by what clients had to prove for them.
fn realm(spec: &kakei_config::ListenerTls, clients: &Option<Clients>) -> Realm {
    let mut hash = Blake2s256::new();
    if let (Some(asked), Some(clients)) = (&spec.client_certificates, clients) {
        // The number tells how they were held to it: what let more in than it does now lets nobody in again.
        hash.update([2, u8::from(asked.mode == ClientCertificateMode::Required)]);
        for root in &clients.trusted.roots {
            hash.update(&root.subject);
            hash.update(&root.subject_public_key_info);
        }
        clients.revoked.iter().flat_map(|lists| lists.iter()).for_each(|list| hash.update(list));
    }
    let mut realm = Realm::default();
    realm.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
    realm
}

/// A suite's number in IANA's registry.
fn number(suite: CipherSuite) -> u16 {
    match suite {
        CipherSuite::Aes128GcmSha256 => 0x1301,
        CipherSuite::Aes256GcmSha384 => 0x1302,
        CipherSuite::Chacha20Poly1305Sha256 => 0x1303,
        CipherSuite::EcdsaAes128GcmSha256 => 0xc02b,
        CipherSuite::EcdsaAes256GcmSha384 => 0xc02c,
        CipherSuite::EcdsaChacha20Poly1305Sha256 => 0xcca9,
        CipherSuite::RsaAes128GcmSha256 => 0xc02f,
        CipherSuite::RsaAes256GcmSha384 => 0xc030,
        CipherSuite::RsaChacha20Poly1305Sha256 => 0xcca8,
    }
}

/// Stands in the template, which no handshake is made of alone.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// One certificate, which was chosen already.
#[derive(Debug)]
struct Only(Arc<CertifiedKey>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A moment: a handshake is short.
#[derive(Debug)]
pub(super) struct At(pub(super) Wall);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.as_secs())))
    }
}
