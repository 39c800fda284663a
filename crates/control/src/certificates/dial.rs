//! What a client of the admin API over TCP brings along: who may vouch for the proxy, and the certificate that it shows. Dials
//! nobody.

use std::path::Path;
use std::sync::Arc;

use kakei_config::Pem;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

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
            is_usable(&certificates[0]).map_err(|error| wrong(chain, error))?;
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

/// Whether a certificate is of the only version that is spoken of in TLS 1.3.
fn is_usable(certificate: &CertificateDer<'_>) -> Result<(), String> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| format!("its certificate can't be read: {error}"))?;
    if parsed.version() == X509Version::V3 {
        return Ok(());
    }
    let version = parsed.version().0 + 1;
    Err(format!(
        "its certificate is of X.509 version {version}, and version 3 is needed: make it with extensions \
                 (`openssl x509 -req -extfile FILE`)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl req -new` and `openssl x509 -req` without extensions.
    const OLD: &str = include_str!("dial/v1.pem");
    const KEY: &str = include_str!("dial/v1.key");

    #[test]
    fn a_certificate_of_an_old_version_is_named_and_not_its_key() {
        let room = std::env::temp_dir().join(format!("kakei-dial-{}", std::process::id()));
        std::fs::create_dir_all(&room).unwrap();
        let (chain, key) = (room.join("old.pem"), room.join("old.key"));
        std::fs::write(&chain, OLD).unwrap();
        std::fs::write(&key, KEY).unwrap();
        let said = client(Some(&chain), Some((&chain, &key))).unwrap_err();
        assert!(said.starts_with(&format!("{}: its certificate is of X.509 version 1", chain.display())), "{said}");
        std::fs::remove_dir_all(room).unwrap();
    }
}
