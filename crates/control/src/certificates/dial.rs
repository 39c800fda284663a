//! What a client of the admin API over TCP brings along: who may vouch for the proxy, and the certificate that it shows. Dials
//! nobody.

use std::path::Path;
use std::sync::Arc;

use kakei_config::Pem;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::pem;
use super::provider;
use super::trust::Trusted;

/// What a handshake with the admin API is held to. Without a file of those who may vouch for the proxy it is those that the
/// system trusts; without a certificate none is shown.
///
/// # Errors
/// What is wrong with a file, in one sentence.
pub fn client(ca: Option<&Path>, shows: Option<(&Path, &Path)>) -> Result<Arc<ClientConfig>, String> {
    let named = |path: &Path| Pem::File(path.display().to_string());
    let wrong = |path: &Path, error: String| format!("{}: {error}", path.display());
    let ca = ca.map(named);
    let trusted = Trusted::read(ca.as_ref(), None).map_err(|error| match &ca {
        Some(Pem::File(path)) => format!("{path}: {error}"),
        _ => error,
    })?;
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(|error| error.to_string())?;
    let builder = builder.with_root_certificates(trusted.roots);
    let mut config = match shows {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let read = |path: &Path| pem::read(&named(path));
            let (certificates, private) = (read(chain)?, read(key)?);
            let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&certificates)
                .collect::<Result<_, _>>()
                .map_err(|error| wrong(chain, format!("it is no PEM: {error}")))?;
            if certificates.is_empty() {
                return Err(wrong(chain, "it holds no certificate".to_owned()));
            }
            let private = PrivateKeyDer::from_pem_slice(&private)
                .map_err(|_| wrong(key, "it holds no private key that can be read".to_owned()))?;
            let shown = builder.with_client_auth_cert(certificates, private);
            shown.map_err(|error| wrong(key, format!("it is of no use with {}: {error}", chain.display())))?
        }
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
