//! What only TLS has: certificates, what a listener holds its clients to before they may speak, and a cluster its backends. Plain data, as the
//! rest of the model; files are named here and read elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Name;

/// A certificate, its chain and its key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Certificate {
    /// The certificate, and behind it those that vouch for it, each for the one before.
    pub chain: Pem,
    /// The private key of the first of them.
    pub key: Pem,
    /// The file of what its issuer's responder said of it last (OCSP), in DER; none: clients ask it themselves.
    pub ocsp: Option<String>,
}

/// A file in PEM, or the text of one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pem {
    /// The file of that path.
    File(String),
    /// This text.
    Text(String),
}

impl Default for Pem {
    fn default() -> Self {
        Pem::File(String::new())
    }
}

impl Pem {
    /// Whether a private key, or a part of one, stands in the text itself, by the line that begins or ends it.
    pub fn has_private_key(&self) -> bool {
        let is_of_key = |line: &str| line.contains("-----") && line.contains("PRIVATE KEY");
        matches!(self, Pem::Text(text) if text.lines().any(is_of_key))
    }
}

impl fmt::Debug for Pem {
    /// Without the text, which may be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => write!(f, "File({path:?})"),
            Pem::Text(text) => write!(f, "Text({} bytes)", text.len()),
        }
    }
}

/// What a listener holds TLS clients to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerTls {
    /// The certificates that it shows, by the name that a client asks for.
    pub certificates: Shown,
    /// The one for clients that ask for no name, or for one that no certificate has; none: those are refused.
    pub default: Option<Name>,
    /// The oldest version.
    pub min_version: TlsVersion,
    /// The cipher suites, in the order of preference; empty: those that are thought safe.
    pub cipher_suites: Vec<CipherSuite>,
    /// The protocols that may be agreed on, in the order of preference; empty: none over TCP, `http/1.1` and `http/1.0` over HTTP.
    pub alpn: Vec<String>,
    /// Time for a handshake.
    pub handshake_timeout: Duration,
    /// Handshakes under way at one time.
    pub handshakes: u32,
    /// Whether clients get tickets by which a later handshake is shorter.
    pub tickets: bool,
    /// What clients are asked to prove by who they are; none: nothing.
    pub client_certificates: Option<ClientCertificates>,
}

/// Which certificates a listener shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    /// All that there are, also those that come later.
    All,
    /// These.
    Named(Vec<Name>),
}

impl Shown {
    /// Those that are named.
    pub fn named(&self) -> &[Name] {
        match self {
            Shown::All => &[],
            Shown::Named(names) => names,
        }
    }
}

impl Default for Shown {
    fn default() -> Self {
        Shown::Named(Vec::new())
    }
}

impl ListenerTls {
    /// Whether it shows the certificate of that name.
    pub fn shows(&self, name: &Name) -> bool {
        let among = match &self.certificates {
            Shown::All => true,
            Shown::Named(names) => names.contains(name),
        };
        among || self.default.as_ref() == Some(name)
    }
}

/// Whose certificates clients may show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientCertificates {
    /// Whether a client must show one.
    pub mode: ClientCertificateMode,
    /// Who must vouch for them.
    pub ca: Pem,
    /// Lists of those that count no longer.
    pub crls: Vec<Pem>,
}

/// Whether a client must show a certificate. One that is shown must be good in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificateMode {
    /// It may.
    Optional,
    /// It must.
    #[default]
    Required,
}

impl Default for ListenerTls {
    fn default() -> Self {
        ListenerTls {
            certificates: Shown::default(),
            default: None,
            min_version: TlsVersion::Tls12,
            cipher_suites: Vec::new(),
            alpn: Vec::new(),
            handshake_timeout: Duration::from_secs(10),
            handshakes: 10_000,
            tickets: true,
            client_certificates: None,
        }
    }
}

/// TLS to the backends of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterTls {
    /// Who must vouch for backends; none: whoever the system trusts.
    pub ca: Option<Pem>,
    /// What a backend must prove to be, a host name or an address, and is asked for; none: what its address is written
    /// as.
    pub server_name: Option<String>,
    /// Whether a backend has to prove anything.
    pub verify: bool,
    /// What the proxy proves by who it is, where a backend asks for it.
    pub certificate: Option<Name>,
    /// The oldest version.
    pub min_version: TlsVersion,
    /// The protocols that connections without HTTP offer.
    pub alpn: Vec<String>,
    /// What backends that were written as a host name are called, by their names. Nothing that is written in a document:
    /// [`Document::resolved`](crate::Document::resolved) says it.
    #[serde(skip)]
    pub hosts: BTreeMap<Name, Arc<str>>,
}

impl Default for ClusterTls {
    fn default() -> Self {
        ClusterTls {
            ca: None,
            server_name: None,
            verify: true,
            certificate: None,
            min_version: TlsVersion::Tls12,
            alpn: Vec::new(),
            hosts: BTreeMap::new(),
        }
    }
}

/// A version of TLS. Older ones are broken, and not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// A cipher suite. Each has forward secrecy and authenticated encryption; others are not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CipherSuite {
    /// TLS 1.3.
    Aes256GcmSha384,
    /// TLS 1.3.
    Aes128GcmSha256,
    /// TLS 1.3.
    Chacha20Poly1305Sha256,
    /// TLS 1.2, with an ECDSA key.
    EcdsaAes256GcmSha384,
    /// TLS 1.2, with an ECDSA key.
    EcdsaAes128GcmSha256,
    /// TLS 1.2, with an ECDSA key.
    EcdsaChacha20Poly1305Sha256,
    /// TLS 1.2, with an RSA key.
    RsaAes256GcmSha384,
    /// TLS 1.2, with an RSA key.
    RsaAes128GcmSha256,
    /// TLS 1.2, with an RSA key.
    RsaChacha20Poly1305Sha256,
}

impl CipherSuite {
    /// Every suite with its name in IANA's registry, the preferred first.
    pub const ALL: [(&'static str, CipherSuite); 9] = [
        ("TLS_AES_256_GCM_SHA384", CipherSuite::Aes256GcmSha384),
        ("TLS_AES_128_GCM_SHA256", CipherSuite::Aes128GcmSha256),
        ("TLS_CHACHA20_POLY1305_SHA256", CipherSuite::Chacha20Poly1305Sha256),
        ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", CipherSuite::EcdsaAes256GcmSha384),
        ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", CipherSuite::EcdsaAes128GcmSha256),
        ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::EcdsaChacha20Poly1305Sha256),
        ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::RsaAes256GcmSha384),
        ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::RsaAes128GcmSha256),
        ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::RsaChacha20Poly1305Sha256),
    ];

    /// Whether it is of this version.
    pub fn is_of(self, version: TlsVersion) -> bool {
        use CipherSuite::{Aes128GcmSha256, Aes256GcmSha384, Chacha20Poly1305Sha256};
        let is_new = matches!(self, Aes256GcmSha384 | Aes128GcmSha256 | Chacha20Poly1305Sha256);
        is_new == (version == TlsVersion::Tls13)
    }

    /// Its name in IANA's registry.
    pub fn name(self) -> &'static str {
        let known = CipherSuite::ALL.iter().find(|(_, suite)| *suite == self);
        known.map_or("", |(name, _)| name)
    }
}
