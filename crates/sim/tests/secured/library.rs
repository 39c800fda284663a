//! What the simulations of listeners under TLS have of the library: the certificate that is shown, and how a client hears
//! what comes.

use std::io::Read;
use std::sync::Arc;

use fastrand::Rng;
use kakei_config::{Name, ServerName};
use kakei_proxy::secure::Certificate;
use rustls::client::ClientConnection;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::provider::provider;

/// The certificate `echo`, for `echo.test`, out of a text that has its key too.
pub(crate) fn certificate(pem: &str) -> Arc<Certificate> {
    let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    Arc::new(Certificate {
        name: Name::new("echo"),
        key: Arc::new(CertifiedKey::from_der(chain, key, &provider()).unwrap()),
        names: vec![ServerName::Exact("echo.test".into())],
        addresses: Vec::new(),
        not_before: 0,
        not_after: i64::MAX,
        issuer: String::new(),
        fingerprint: [0; 32],
    })
}

/// Take in some of what is coming: the plaintext of it, and whether the other side has said its end.
pub(crate) fn hear(
    connection: &mut ClientConnection,
    coming: &mut Vec<u8>,
    rng: &mut Rng,
) -> Result<(Vec<u8>, bool), String> {
    let some = rng.usize(1..=coming.len());
    let read = connection.read_tls(&mut &coming[..some]).unwrap();
    coming.drain(..read);
    let state = connection.process_new_packets().map_err(|error| error.to_string())?;
    let mut plain = vec![0; state.plaintext_bytes_to_read()];
    connection.reader().read_exact(&mut plain).unwrap();
    Ok((plain, state.peer_has_closed()))
}
