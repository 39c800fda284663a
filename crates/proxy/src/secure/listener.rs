//! TLS of a listener, compiled: what a handshake is held to, and who the listener is. Immutable once made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use blake2::{Blake2s256, Digest};
use kakei_config::{CipherSuite, ClientCertificateMode, ClientCertificates, Name, Pem, TlsVersion};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateRevocationListDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, SupportedProtocolVersion, version};

use super::certificate::Certificate;
use super::client::Sha256;
use super::shelf::Shelf;
use super::tickets::{Realm, TicketKeys, Ticketer};
use crate::seam::Wall;

/// What a document names and doesn't hold: whoever compiles it brings it along.
#[derive(Clone, Debug, Default)]
pub struct Materials {
    /// What computes; none: every handshake is refused.
    pub provider: Option<Arc<CryptoProvider>>,
    /// The certificates of the document, read and checked.
    pub certificates: BTreeMap<Name, Arc<Certificate>>,
    /// What session tickets are sealed by; none: there are no tickets.
    pub tickets: Option<Arc<TicketKeys>>,
    /// Who may vouch for others, by how the document names them; without a name: whoever the system trusts.
    pub trusted: BTreeMap<Option<Pem>, Arc<RootCertStore>>,
    /// Lists of certificates that count no longer, by how the document names them.
    pub revoked: BTreeMap<Pem, Revoked>,
}

/// Lists of certificates that count no longer, as one file holds them.
pub type Revoked = Arc<Vec<CertificateRevocationListDer<'static>>>;

/// See the module's words.
#[derive(Clone, Debug)]
pub struct ListenerTls {
    /// What it is held to, as it was asked for.
    pub spec: kakei_config::ListenerTls,
    /// Whether requests come by it.
    pub is_http: bool,
    /// Its certificates, in the order of the document; the default one last, where it isn't among them.
    pub certificates: Vec<Arc<Certificate>>,
    /// One worker's share of its handshakes at one time.
    pub handshakes: u32,
    default: Option<Arc<Certificate>>,
    shelf: Shelf,
    tickets: Option<Arc<TicketKeys>>,
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
        let same = |(a, b): (&Arc<Certificate>, &Arc<Certificate>)| Arc::ptr_eq(a, b);
        (&self.spec, self.is_http, self.handshakes) == (&other.spec, other.is_http, other.handshakes)
            && (&self.tickets, &self.clients) == (&other.tickets, &other.clients)
            && self.certificates.len() == other.certificates.len()
            && self.certificates.iter().zip(&other.certificates).all(same)
    }
}

impl ListenerTls {
    pub(crate) fn compile(
        spec: &kakei_config::ListenerTls,
        materials: &Materials,
        is_http: bool,
        workers: u16,
    ) -> Self {
        let named = |name: &Name| materials.certificates.get(name).cloned();
        let default = spec.default.as_ref().and_then(named);
        let mut certificates: Vec<Arc<Certificate>> = spec.certificates.iter().filter_map(named).collect();
        certificates.extend(default.iter().filter(|name| !spec.certificates.contains(&name.name)).cloned());
        let tickets = materials.tickets.clone().filter(|_| spec.tickets);
        let clients = spec.client_certificates.as_ref().and_then(|asked| Clients::of(asked, materials));
        let provider = materials.provider.as_ref();
        let template = provider.and_then(|provider| template(spec, provider, is_http, (&tickets, &clients)));
        ListenerTls {
            template,
            sha256: provider.map(|provider| Sha256::of(provider)).unwrap_or_default(),
            clients,
            shelf: Shelf::of(&certificates),
            handshakes: spec.handshakes.div_ceil(u32::from(workers.max(1))),
            spec: spec.clone(),
            is_http,
            certificates,
            default,
            tickets,
        }
    }

    /// Whether one of these versions is spoken.
    pub(super) fn speaks(&self, versions: &[u16]) -> bool {
        let oldest = if self.spec.min_version == TlsVersion::Tls12 { 0x0303 } else { 0x0304 };
        versions.iter().any(|version| (oldest..=0x0304).contains(version))
    }

    /// The certificate for a client; none: it is to be refused.
    pub(super) fn choose(&self, name: Option<&str>, hello: &ClientHello<'_>) -> Option<&Arc<Certificate>> {
        let known = name.map_or(&[][..], |name| self.shelf.find(name));
        known.iter().find(|certificate| certificate.suits(hello)).or(known.first()).or(self.default.as_ref())
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

fn template(
    spec: &kakei_config::ListenerTls,
    provider: &Arc<CryptoProvider>,
    is_http: bool,
    (tickets, clients): (&Option<Arc<TicketKeys>>, &Option<Clients>),
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
    match tickets {
        Some(keys) => config.ticketer = Arc::new(Ticketer(Arc::clone(keys), realm(spec, clients))),
        None => config.send_tls13_tickets = 0,
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
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.trusted), Arc::clone(provider));
        let lists = self.revoked.iter().flat_map(|lists| lists.iter().cloned());
        let builder = builder.with_crls(lists).only_check_end_entity_revocation();
        let builder = match mode {
            ClientCertificateMode::Optional => builder.allow_unauthenticated(),
            ClientCertificateMode::Required => builder,
        };
        builder.build().ok()
    }
}

/// Tells tickets apart by what clients had to prove for them.
fn realm(spec: &kakei_config::ListenerTls, clients: &Option<Clients>) -> Realm {
    let mut hash = Blake2s256::new();
    if let (Some(asked), Some(clients)) = (&spec.client_certificates, clients) {
        hash.update([1, u8::from(asked.mode == ClientCertificateMode::Required)]);
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
