//! TLS to a cluster's backends, compiled: what a handshake holds them to, and who the proxy is. Immutable once made.

use std::collections::BTreeMap;
use std::sync::Arc;

use kakei_config::{BackendAddress, Name, TlsVersion};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme, SupportedProtocolVersion, version};

use super::certificate::Certificate;
use super::listener::At;
use super::materials::Materials;
use crate::seam::Wall;

/// See the module's words.
#[derive(Clone, Debug)]
pub struct ClusterTls {
    /// What backends are held to, as it was asked for.
    pub spec: kakei_config::ClusterTls,
    /// Who may vouch for them; none: nobody has to.
    trusted: Option<Arc<RootCertStore>>,
    certificate: Option<Arc<Certificate>>,
    /// What each backend must prove to be, by its name.
    servers: BTreeMap<Name, ServerName<'static>>,
    /// What every handshake begins with; none: it can't be spoken.
    template: Option<Arc<ClientConfig>>,
}

impl PartialEq for ClusterTls {
    /// Everything else follows from these.
    fn eq(&self, other: &Self) -> bool {
        let address = |certificate: &Option<Arc<Certificate>>| certificate.as_ref().map(Arc::as_ptr);
        (&self.spec, &self.servers) == (&other.spec, &other.servers)
            && self.trusted.as_ref().map(Arc::as_ptr) == other.trusted.as_ref().map(Arc::as_ptr)
            && address(&self.certificate) == address(&other.certificate)
    }
}

impl ClusterTls {
    pub(crate) fn compile(
        spec: &kakei_config::ClusterTls,
        backends: &[kakei_config::Backend],
        materials: &Materials,
    ) -> Self {
        let trusted = materials.trusted.get(&spec.ca).filter(|_| spec.verify).cloned();
        let certificate = spec.certificate.as_ref().and_then(|name| materials.certificates.get(name)).cloned();
        let provider = materials.provider.as_ref();
        ClusterTls {
            template: provider.and_then(|provider| template(spec, provider, (&trusted, &certificate))),
            servers: backends
                .iter()
                .filter_map(|backend| Some((backend.name.clone(), server(spec, backend)?)))
                .collect(),
            spec: spec.clone(),
            trusted,
            certificate,
        }
    }

    /// What that backend must prove to be.
    pub(super) fn server(&self, backend: &Name) -> Option<ServerName<'static>> {
        self.servers.get(backend).cloned()
    }

    /// What handshakes with one backend begin with. What they leave for later ones stays with it, and with it alone: who
    /// changes what backends are held to begins anew.
    pub(super) fn config(&self) -> Option<ClientConfig> {
        let mut config = ClientConfig::clone(self.template.as_ref()?);
        // One server's.
        config.resumption = Resumption::in_memory_sessions(1);
        Some(config)
    }
}

/// What one handshake is held to, at this time, with these protocols.
pub(super) fn at(config: &ClientConfig, wall: Wall, protocols: &[Vec<u8>]) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.time_provider = Arc::new(At(wall));
    config.alpn_protocols = protocols.to_vec();
    Arc::new(config)
}

/// What a backend must prove to be: what the cluster says, or what its address is written as.
fn server(spec: &kakei_config::ClusterTls, backend: &kakei_config::Backend) -> Option<ServerName<'static>> {
    let of = |name: &str| ServerName::try_from(name.to_owned()).ok();
    match (&spec.server_name, spec.hosts.get(&backend.name), &backend.address) {
        (Some(name), ..) => of(name),
        (None, Some(host), _) => of(host),
        (None, None, BackendAddress::Ip(address)) => Some(ServerName::IpAddress(address.ip().into())),
        (None, None, BackendAddress::Host(host, _)) => of(host),
        (None, None, BackendAddress::Unix(_)) => None,
    }
}

fn template(
    spec: &kakei_config::ClusterTls,
    provider: &Arc<CryptoProvider>,
    (trusted, certificate): (&Option<Arc<RootCertStore>>, &Option<Arc<Certificate>>),
) -> Option<Arc<ClientConfig>> {
    let verifier: Arc<dyn ServerCertVerifier> = match (spec.verify, trusted) {
        (false, _) => Arc::new(Anybody(Arc::clone(provider))),
        (true, None) => return None,
        (true, Some(trusted)) => {
            WebPkiServerVerifier::builder_with_provider(Arc::clone(trusted), Arc::clone(provider)).build().ok()?
        }
    };
    let versions: &[&SupportedProtocolVersion] = match spec.min_version {
        TlsVersion::Tls12 => &[&version::TLS13, &version::TLS12],
        TlsVersion::Tls13 => &[&version::TLS13],
    };
    let builder = ClientConfig::builder_with_details(Arc::clone(provider), Arc::new(At(Wall::default())));
    let builder = builder.with_protocol_versions(versions).ok()?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    Some(Arc::new(match certificate {
        Some(certificate) => builder.with_client_cert_resolver(Arc::new(Mine(Arc::clone(&certificate.key)))),
        None => builder.with_no_client_auth(),
    }))
}

/// What the proxy proves by who it is.
#[derive(Debug)]
struct Mine(Arc<CertifiedKey>);

impl ResolvesClientCert for Mine {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes).map(|_| Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Believes every certificate whose key signed the handshake: for `verify = false`, and for whoever compares certificates
/// by itself.
#[derive(Debug)]
pub struct Anybody(pub Arc<CryptoProvider>);

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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
