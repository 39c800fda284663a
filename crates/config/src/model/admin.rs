//! The operator's side doors: where they are, and who may do what there. Plain data, as the rest of the model; who somebody is, is
//! found out elsewhere.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Name, Pem};

/// The operator's side doors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Admin {
    /// Path of the Unix socket that speaks HTTP and JSON; none: no admin socket.
    pub socket: Option<String>,
    /// Address of `/metrics`, `/healthz`, `/readyz`; none: only on the socket.
    pub metrics: Option<SocketAddr>,
    /// Directory in which generations are kept; none: in memory only.
    pub state: Option<String>,
    /// The file of audit lines; none: they stand in the log only.
    pub audit_log: Option<String>,
    /// How often the files of certificates and the like are looked at, to be read again where they changed; none: never.
    pub watch_files: Option<Duration>,
    /// Who may do what on the socket besides the process's own user and root.
    pub peers: AdminPeers,
    /// The same API over TCP, for clients with a certificate; none: it is not.
    pub tcp: Option<AdminTcp>,
}

/// Who may do what on the admin socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdminPeers {
    /// Who may look.
    pub read_only: Vec<PeerId>,
    /// Who may change what runs, too.
    pub read_write: Vec<PeerId>,
}

/// The admin API over TCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdminTcp {
    /// Where it is.
    pub bind: SocketAddr,
    /// What it proves by who it is.
    pub certificate: Name,
    /// Who must vouch for clients.
    pub ca: Pem,
    /// Lists of those that count no longer.
    pub crls: Vec<Pem>,
    /// Clients who may look.
    pub read_only: Vec<ClientId>,
    /// Clients who may change what runs, too.
    pub read_write: Vec<ClientId>,
}

impl Default for AdminTcp {
    fn default() -> Self {
        AdminTcp {
            bind: SocketAddr::from(([0, 0, 0, 0], 0)),
            certificate: Name::default(),
            ca: Pem::default(),
            crls: Vec::new(),
            read_only: Vec::new(),
            read_write: Vec::new(),
        }
    }
}

/// Somebody at the other end of a Unix socket, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerId {
    /// A user.
    Uid(u32),
    /// A group: the one that the process runs as, not one of its others.
    Gid(u32),
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerId::Uid(number) => write!(f, "uid:{number}"),
            PeerId::Gid(number) => write!(f, "gid:{number}"),
        }
    }
}

impl FromStr for PeerId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (kind, number) = text.split_once(':').ok_or(())?;
        let number = Some(number).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let number = number.and_then(|digits| digits.parse().ok()).ok_or(())?;
        match kind {
            "uid" => Ok(PeerId::Uid(number)),
            "gid" => Ok(PeerId::Gid(number)),
            _ => Err(()),
        }
    }
}

/// Somebody by a name that a certificate has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientId {
    /// The common name of its subject, where that has one alone.
    CommonName(String),
    /// A DNS name among its alternative names, in lower case; as it is written there: a `*` stands for nothing else.
    Dns(String),
    /// A URI among them.
    Uri(String),
    /// A mail address among them.
    Email(String),
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientId::CommonName(name) => write!(f, "CN={name}"),
            ClientId::Dns(name) => write!(f, "DNS:{name}"),
            ClientId::Uri(name) => write!(f, "URI:{name}"),
            ClientId::Email(name) => write!(f, "email:{name}"),
        }
    }
}

impl FromStr for ClientId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        type Kind = (&'static str, fn(String) -> ClientId);
        const KINDS: [Kind; 4] = [
            ("CN=", ClientId::CommonName),
            ("DNS:", |name| ClientId::Dns(name.to_ascii_lowercase())),
            ("URI:", ClientId::Uri),
            ("email:", ClientId::Email),
        ];
        let of = |(begin, make): &Kind| {
            text.strip_prefix(begin).filter(|name| !name.is_empty()).map(|name| make(name.to_owned()))
        };
        KINDS.iter().find_map(of).ok_or(())
    }
}
