//! Who may come in by a certificate: whom somebody trusted vouches for, where neither the certificate nor any on the way to
//! them counts no longer. Knows no listener.

use std::sync::Arc;

use kakei_config::ClientCertificateMode;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::materials::Revoked;

/// The names of those who may vouch are told to clients in a field of at most 64 KiB, among others. Where they are longer
/// none is told, which lets clients show what they have (RFC 8446, section 4.2.4; RFC 5246, section 7.4.4).
const LONGEST_NAMES: usize = 60_000;
/// What stands around each of them.
const AROUND_NAME: usize = 6;

/// What clients are held to. With any list, one whose own issuer has none is refused; of those who vouch for that issuer
/// whoever has a list is held to it.
///
/// # Errors
/// When nobody is trusted, or a list can't be used.
pub fn clients(
    trusted: &Arc<RootCertStore>,
    revoked: &[Revoked],
    provider: &Arc<CryptoProvider>,
    mode: ClientCertificateMode,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    let names: usize = trusted.roots.iter().map(|root| root.subject.len() + AROUND_NAME).sum();
    let builder = || {
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(trusted), Arc::clone(provider));
        if names > LONGEST_NAMES {
            builder = builder.clear_root_hint_subjects();
        }
        let builder = builder.with_crls(revoked.iter().flat_map(|lists| lists.iter().cloned()));
        match mode {
            ClientCertificateMode::Optional => builder.allow_unauthenticated(),
            ClientCertificateMode::Required => builder,
        }
    };
    let own = builder().only_check_end_entity_revocation().build()?;
    if revoked.iter().all(|lists| lists.is_empty()) {
        return Ok(own);
    }
    let way = builder().allow_unknown_revocation_status().build()?;
    Ok(Arc::new(Whole { own, way }))
}

/// The library asks the same of every certificate on the way, so it is asked twice.
#[derive(Debug)]
struct Whole {
    /// Of the client's own certificate a list must tell.
    own: Arc<dyn ClientCertVerifier>,
    /// Of those who vouch for it one may.
    way: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for Whole {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.own.verify_client_cert(end_entity, intermediates, now)?;
        match intermediates {
            [] => Ok(verified),
            _ => self.way.verify_client_cert(end_entity, intermediates, now),
        }
    }

    fn offer_client_auth(&self) -> bool {
        self.own.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.own.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.own.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.own.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.own.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.own.supported_verify_schemes()
    }
}
