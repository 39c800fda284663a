//! A certificate with its key, read and checked by whoever made it: what a worker asks of it. Reads nothing.

use std::net::IpAddr;
use std::sync::Arc;

use kakei_config::{Name, ServerName};
use kakei_wire::client_hello::ClientHello;
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme, SupportedCipherSuite};

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

/// RFC 8446, section 4.1.2.
const TLS_1_3: u16 = 0x0304;

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

    /// Whether a client can check a handshake that is signed by its key, by one of the suites that both sides speak.
    pub(super) fn suits(&self, hello: &ClientHello, spoken: &[SupportedCipherSuite]) -> bool {
        let signatures: Vec<SignatureScheme> = hello.signatures.iter().copied().map(SignatureScheme::from).collect();
        let signs = self.key.key.choose_scheme(&signatures).is_some();
        // TLS 1.3 names its suites without the key's kind; they may be offered by who doesn't speak it.
        let mut common = spoken.iter().filter(|suite| {
            hello.suites.contains(&u16::from(suite.suite()))
                && (suite.tls13().is_none() || hello.versions.contains(&TLS_1_3))
        });
        signs && common.any(|suite| suite.usable_for_signature_algorithm(self.key.key.algorithm()))
    }
}
