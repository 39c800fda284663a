//! Who may vouch for others: bundles of certificates out of files, read again where those changed. Decides about nobody.

use std::sync::Arc;

use kakei_config::Pem;
use kakei_proxy::secure::Revoked;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, Der, TrustAnchor};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertRevocationListError, RootCertStore};

use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::pem::{self, Stamp};
use super::read::no_pem;

/// Lists of certificates that count no longer, as they were read.
#[derive(Clone, Debug)]
pub(super) struct Lists {
    pub(super) stamp: Stamp,
    pub(super) lists: Revoked,
}

impl Lists {
    /// What did not change since `before` is the same.
    pub(super) fn read(named: &Pem, before: Option<&Lists>, provider: &Arc<CryptoProvider>) -> Result<Lists, String> {
        let stamp = pem::stamp(named);
        if let Some(before) = before.filter(|before| before.stamp == stamp && stamp.is_telling()) {
            return Ok(before.clone());
        }
        let bytes = pem::read(named)?;
        let lists: Vec<CertificateRevocationListDer<'static>> = CertificateRevocationListDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .map_err(|error| no_pem(&error))?;
        if lists.is_empty() {
            return Err("it holds no revocation list".to_owned());
        }
        for (n, list) in (1..).zip(&lists) {
            let (_, parsed) = CertificateRevocationList::from_der(list)
                .map_err(|error| format!("revocation list {n} of it can't be read: {error}"))?;
            if parsed.version().is_none() {
                return Err(format!("revocation list {n} of it is of version 1: {VERSION}"));
            }
            is_of_use(list, provider)
                .map_err(|error| format!("revocation list {n} of it is of no use here: {error}"))?;
        }
        let same = before.filter(|before| *before.lists == lists);
        Ok(Lists { stamp, lists: same.map_or_else(|| Arc::new(lists), |before| Arc::clone(&before.lists)) })
    }
}

/// The version that is understood.
const VERSION: &str = "`openssl ca` makes one of version 2 where `crl_extensions` are asked for";

/// Whether clients can be held to a list: not all that are well formed are understood wholly, and half of one is none.
fn is_of_use(list: &CertificateRevocationListDer<'static>, provider: &Arc<CryptoProvider>) -> Result<(), String> {
    // It is only looked at together with somebody who may vouch, who is nobody here.
    let (subject, subject_public_key_info) = (Der::from_slice(&[]), Der::from_slice(&[]));
    let nobody = TrustAnchor { subject, subject_public_key_info, name_constraints: None };
    let roots = Arc::new(RootCertStore { roots: vec![nobody] });
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    match verifier.with_crls([list.clone()]).build() {
        Ok(_) => Ok(()),
        Err(VerifierBuilderError::InvalidCrl(error)) => Err(in_words(&error)),
        Err(error) => Err(error.to_string()),
    }
}

fn in_words(error: &CertRevocationListError) -> String {
    let words = match error {
        CertRevocationListError::UnsupportedCrlVersion => VERSION,
        CertRevocationListError::UnsupportedDeltaCrl => "it says only what is other than in another one",
        CertRevocationListError::UnsupportedIndirectCrl => "it is about certificates of others than its issuer",
        CertRevocationListError::InvalidCrlNumber => "it has no number that can be read",
        other => return format!("{other:?}"),
    };
    words.to_owned()
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
            let der = der.map_err(|error| no_pem(&error))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Well formed, of version 1, about nobody.
    const FIRST_VERSION: &str = "-----BEGIN X509 CRL-----\n\
        MEUwLDAKBggqhkjOPQQDAjAAFw0yNjAxMDEwMDAwMDBaFw0zNjAxMDEwMDAwMDBaMAoGCCqGSM49BAMCAwkAMAYCAQECAQE=\n\
        -----END X509 CRL-----\n";

    #[test]
    fn a_list_that_no_client_could_be_held_to_is_refused() {
        let provider = Arc::new(super::super::provider());
        let refused = Lists::read(&Pem::Text(FIRST_VERSION.to_owned()), None, &provider).unwrap_err();
        assert!(refused.starts_with("revocation list 1 of it is of version 1: `openssl ca` makes"), "{refused}");
    }
}
