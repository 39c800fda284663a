//! A certificate with its key, read and checked by whoever made it: what a worker asks of it. Reads nothing.

use std::net::IpAddr;
use std::sync::Arc;

use kakei_config::{Name, ServerName};
use kakei_wire::client_hello::ClientHello;
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// Its identity in the document.
    pub name: Name,
    /// The chain and the key.
    pub key: Arc<CertifiedKey>,
    /// The host names that it is for, in lower case.
    pub names: Vec<ServerName>,
    /// The addresses that it is for.
    pub addresses: Vec<IpAddr>,
    /// Seconds since 1970 from which it is valid.
    pub not_before: i64,
    /// Seconds since 1970 until which it is valid.
    pub not_after: i64,
    /// Who vouches for it, in words.
    pub issuer: String,
    /// Tells it from every other one.
    pub fingerprint: [u8; 32],
}

/// The kind of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// ECDSA or EdDSA: the cheaper ones.
    Elliptic,
    /// RSA.
    Rsa,
}

impl Certificate {
    /// The kind of its key.
    pub fn kind(&self) -> KeyKind {
        match self.key.key.algorithm() {
            SignatureAlgorithm::RSA => KeyKind::Rsa,
            _ => KeyKind::Elliptic,
        }
    }

    /// Whether it is for that host: a name in lower case, or an address.
    pub fn covers(&self, host: &str) -> bool {
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        // RFC 9525, section 6.3: the asterisk stands for one label.
        let under = host.split_once('.').map(|(_, under)| under);
        self.names.iter().any(|name| match name {
            ServerName::Exact(name) => **name == *host,
            ServerName::Under(suffix) => under == Some(&**suffix),
        })
    }

    /// Whether a client can check a handshake that is signed by its key.
    pub(super) fn suits(&self, hello: &ClientHello) -> bool {
        let signatures: Vec<SignatureScheme> = hello.signatures.iter().copied().map(SignatureScheme::from).collect();
        let signs = self.key.key.choose_scheme(&signatures).is_some();
        // TLS 1.3 names its suites without the key's kind.
        signs
            && hello.suites.iter().any(|suite| match self.kind() {
                KeyKind::Elliptic => matches!(suite, 0x1301..=0x1303 | 0xc02b | 0xc02c | 0xcca9),
                KeyKind::Rsa => matches!(suite, 0x1301..=0x1303 | 0xc02f | 0xc030 | 0xcca8),
            })
    }
}
