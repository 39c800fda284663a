//! Who may vouch for others: bundles of certificates out of files, read again where those changed. Decides about nobody.

use std::sync::Arc;

use kakei_config::Pem;
use kakei_proxy::secure::Revoked;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::pem::{self, Stamp};

/// Lists of certificates that count no longer, as they were read.
#[derive(Clone, Debug)]
pub(super) struct Lists {
    pub(super) stamp: Stamp,
    pub(super) lists: Revoked,
}

impl Lists {
    /// What did not change since `before` is the same.
    pub(super) fn read(named: &Pem, before: Option<&Lists>) -> Result<Lists, String> {
        let stamp = pem::stamp(named);
        if let Some(before) = before.filter(|before| before.stamp == stamp && stamp.is_telling()) {
            return Ok(before.clone());
        }
        let bytes = pem::read(named)?;
        let lists: Vec<CertificateRevocationListDer<'static>> = CertificateRevocationListDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("it is no PEM: {error}"))?;
        if lists.is_empty() {
            return Err("it holds no revocation list".to_owned());
        }
        for (n, list) in (1..).zip(&lists) {
            CertificateRevocationList::from_der(list)
                .map_err(|error| format!("revocation list {n} of it can't be read: {error}"))?;
        }
        let same = before.filter(|before| *before.lists == lists);
        Ok(Lists { stamp, lists: same.map_or_else(|| Arc::new(lists), |before| Arc::clone(&before.lists)) })
    }
}

/// Where systems keep those that they trust.
const SYSTEM: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A bundle as it was read.
#[derive(Clone, Debug)]
pub(super) struct Trusted {
    pub(super) stamp: Stamp,
    pub(super) roots: Arc<RootCertStore>,
}

impl Trusted {
    /// What the document names, or what the system trusts. What did not change since `before` is the same.
    pub(super) fn read(named: Option<&Pem>, before: Option<&Trusted>) -> Result<Trusted, String> {
        let system =
            || system().map(Pem::File).ok_or("the system has no file of certificates that it trusts".to_owned());
        let from = named.cloned().map_or_else(system, Ok)?;
        let stamp = pem::stamp(&from);
        if let Some(before) = before.filter(|before| before.stamp == stamp && stamp.is_telling()) {
            return Ok(before.clone());
        }
        let bytes = pem::read(&from)?;
        let mut roots = RootCertStore::empty();
        for (n, der) in (1..).zip(CertificateDer::pem_slice_iter(&bytes)) {
            let der = der.map_err(|error| format!("it is no PEM: {error}"))?;
            // Of a system's own many some may be of a kind that nobody can use.
            if let Err(error) = roots.add(der)
                && named.is_some()
            {
                return Err(format!("certificate {n} of it can't be used: {error}"));
            }
        }
        if roots.is_empty() {
            return Err("it holds no certificate".to_owned());
        }
        let same = before.filter(|before| before.roots.roots == roots.roots);
        Ok(Trusted { stamp, roots: same.map_or_else(|| Arc::new(roots), |before| Arc::clone(&before.roots)) })
    }
}

/// The file of certificates that the system trusts; `SSL_CERT_FILE` says another one.
pub(super) fn system() -> Option<String> {
    let told = std::env::var("SSL_CERT_FILE").ok().filter(|path| !path.is_empty());
    let known = || SYSTEM.into_iter().find(|path| std::fs::metadata(path).is_ok()).map(str::to_owned);
    told.or_else(known)
}
