//! A certificate out of PEM: that its parts are what they should be and belong together. Reads no file, and says nothing
//! about whether anybody trusts it.

use std::net::IpAddr;

use kakei_config::{Fault, Name, ServerName};
use kakei_proxy::secure::Certificate;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, SupportedCipherSuite};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::wall;

/// The most certificates of a chain.
const LONGEST_CHAIN: usize = 16;

/// See the module's words.
pub(super) fn certificate(
    name: &Name,
    (chain, key): (&[u8], &[u8]),
    provider: &CryptoProvider,
) -> Result<Certificate, Fault> {
    let wrong = |key, message: &str, help: Option<String>| Fault {
        section: "certificates",
        name: name.clone(),
        key,
        item: None,
        message: message.to_owned(),
        help,
    };
    let in_chain = |message: String| wrong("chain", &message, None);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .take(LONGEST_CHAIN + 1)
        .collect::<Result<_, _>>()
        .map_err(|error| in_chain(no_pem(&error)))?;
    if chain.is_empty() {
        let help = "it begins with `-----BEGIN CERTIFICATE-----`".to_owned();
        return Err(wrong("chain", "it holds no certificate", Some(help)));
    }
    if chain.len() > LONGEST_CHAIN {
        return Err(in_chain(format!("it holds more than {LONGEST_CHAIN} certificates")));
    }
    let parsed: Vec<X509Certificate<'_>> = (1..)
        .zip(&chain)
        .map(|(n, der)| match X509Certificate::from_der(der) {
            Ok(([], parsed)) => Ok(parsed),
            Ok(_) => Err(in_chain(format!("certificate {n} of it has something behind its end"))),
            Err(error) => Err(in_chain(format!("certificate {n} of it can't be read: {error}"))),
        })
        .collect::<Result<_, _>>()?;
    let private = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
        let sealed = String::from_utf8_lossy(key).contains("ENCRYPTED");
        let help = if sealed {
            "it is sealed with a pass phrase: `openssl pkey -in OLD -out NEW` takes that off"
        } else {
            "it begins with `-----BEGIN PRIVATE KEY-----` or the like"
        };
        wrong("key", "it holds no private key that can be read", Some(help.to_owned()))
    })?;
    let loaded = provider.key_provider.load_private_key(private);
    let loaded = loaded.map_err(|error| wrong("key", &format!("it is of no use here: {error}"), None))?;
    let certified = CertifiedKey::new(chain.clone(), loaded);
    fits(&certified, &chain).map_err(|(key, message, help)| wrong(key, &message, help))?;
    ordered(&parsed).map_err(|(message, help)| wrong("chain", &message, Some(help)))?;
    let leaf = &parsed[0];
    let (names, addresses) = subjects(leaf).map_err(in_chain)?;
    if names.is_empty() && addresses.is_empty() {
        let help = "clients look at subject alternative names only, not at the common name".to_owned();
        return Err(wrong("chain", "its first certificate names no host (no subject alternative name)", Some(help)));
    }
    Ok(Certificate {
        name: name.clone(),
        names,
        addresses,
        not_before: leaf.validity().not_before.timestamp(),
        not_after: leaf.validity().not_after.timestamp(),
        issuer: leaf.issuer().to_string(),
        fingerprint: fingerprint(&chain[0], provider),
        key: certified.into(),
    })
}

/// Whether it may not be used at that time, and so a client that looks at it won't trust it.
pub(super) fn out_of_time(certificate: &Certificate, now: i64) -> Option<Fault> {
    let message = if certificate.not_after < now {
        format!("has expired: it was valid until {}", wall::seconds(certificate.not_after))
    } else if certificate.not_before > now {
        format!("is not valid yet: it will be from {} on", wall::seconds(certificate.not_before))
    } else {
        return None;
    };
    Some(Fault {
        section: "certificates",
        name: certificate.name.clone(),
        key: "chain",
        item: None,
        message,
        help: None,
    })
}

type Wrong = (&'static str, String, Option<String>);

/// Whether the key is the first certificate's.
fn fits(certified: &CertifiedKey, chain: &[CertificateDer<'static>]) -> Result<(), Wrong> {
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(()),
        Err(Error::InconsistentKeys(_)) => {
            let of = |der: &CertificateDer<'static>| {
                CertifiedKey::new(vec![der.clone()], certified.key.clone()).keys_match().is_ok()
            };
            match chain.iter().position(of) {
                Some(n) => {
                    let help = format!("the key is that of certificate {}, which is to stand first", n + 1);
                    Err(("chain", "it is in the wrong order".to_owned(), Some(help)))
                }
                None => Err(("key", "it is not the key of the chain's first certificate".to_owned(), None)),
            }
        }
        Err(error) => Err(("chain", format!("its first certificate can't be used: {error}"), None)),
    }
}

/// Whether each certificate is vouched for by the next one.
fn ordered(chain: &[X509Certificate<'_>]) -> Result<(), (String, String)> {
    let broken = chain.windows(2).position(|pair| pair[0].issuer().as_raw() != pair[1].subject().as_raw());
    let Some(at) = broken else { return Ok(()) };
    let issuer = chain[at].issuer();
    let help = match chain.iter().position(|other| other.subject().as_raw() == issuer.as_raw()) {
        Some(n) => format!("certificate {} is to stand behind certificate {}", n + 1, at + 1),
        None => format!("behind certificate {} comes that of {issuer}, which is not there", at + 1),
    };
    Err((format!("certificate {} of it does not vouch for certificate {}", at + 2, at + 1), help))
}

/// The hosts that a certificate is for. A name that no host can have is passed over: nobody asks for it.
fn subjects(leaf: &X509Certificate<'_>) -> Result<(Vec<ServerName>, Vec<IpAddr>), String> {
    let extension = leaf.subject_alternative_name();
    let extension = extension.map_err(|error| format!("its first certificate's names can't be read: {error}"))?;
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    for name in extension.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(name) => {
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                match name.strip_prefix("*.") {
                    Some(under) => names.push(ServerName::Under(under.into())),
                    None => names.push(ServerName::Exact(name.as_str().into())),
                }
            }
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
                addresses.extend(v4.or(v6));
            }
            _ => {}
        }
    }
    Ok((names, addresses))
}

/// SHA-256 of the certificate, as tools print it.
fn fingerprint(der: &[u8], provider: &CryptoProvider) -> [u8; 32] {
    let hashes = provider.cipher_suites.iter().filter_map(|suite| match suite {
        SupportedCipherSuite::Tls13(suite) => Some(suite.common.hash_provider),
        SupportedCipherSuite::Tls12(_) => None,
    });
    let sha256 = hashes.into_iter().find(|hash| hash.output_len() == 32);
    let hash = sha256.map(|sha256| sha256.hash(der));
    hash.and_then(|hash| hash.as_ref().try_into().ok()).unwrap_or([0; 32])
}
/// Why it is no PEM, without any of what it holds.
pub(super) fn no_pem(error: &pem::Error) -> String {
    let why = match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no line `-----END …-----` that fits",
        pem::Error::IllegalSectionStart { .. } => "a section begins with a line that isn't `-----BEGIN …-----`",
        pem::Error::Base64Decode(_) => "a section isn't in base64",
        other => return format!("it is no PEM: {other}"),
    };
    format!("it is no PEM: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pem_is_told_without_it() {
        let told = |text: &str| no_pem(&CertificateDer::from_pem_slice(text.as_bytes()).unwrap_err());
        let begin = "-----BEGIN CERTIFICATE-----\n";
        assert_eq!(told(&format!("{begin}MIIC\n")), "it is no PEM: a section has no line `-----END …-----` that fits");
        let broken = format!("{begin}M*C\n-----END CERTIFICATE-----\n");
        assert_eq!(told(&broken), "it is no PEM: a section isn't in base64");
    }
}
