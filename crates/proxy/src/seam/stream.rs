//! Streams at the seam: who connected, where streams lead, what ends them. Nothing here moves a byte.

use std::fmt;
use std::net::{AddrParseError, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use kakei_config::BackendAddress;
use serde::{Deserialize, Serialize};

use super::SocketId;

/// A client that connected, within the step that it is told in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Arrival(pub u32);

/// A client connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The front socket.
    pub front: SocketId,
    /// What the answer names it by.
    pub arrival: Arrival,
    /// The client's socket.
    pub peer: SocketAddr,
    /// The address that it dialled.
    pub local: SocketAddr,
}

/// What killed a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BrokenBy {
    /// The peer reset it, or refuses what is written to it.
    Peer,
    /// The network: the peer no longer answers.
    Network,
    /// Anything else.
    Other,
}

/// Where a stream leads. Written as text: `10.0.0.1:80`, `unix:/run/app.sock`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(into = "String", try_from = "String")]
pub enum Endpoint {
    /// An address and a port.
    Ip(SocketAddr),
    /// A Unix socket's path.
    Unix(Arc<str>),
}

impl Endpoint {
    /// The address, where it is one.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Endpoint::Ip(address) => Some(*address),
            Endpoint::Unix(_) => None,
        }
    }

    /// Where a backend is, as far as that is known without asking anybody: a host name is no endpoint.
    pub fn of(address: &BackendAddress) -> Option<Self> {
        match address {
            BackendAddress::Ip(address) => Some(Endpoint::Ip(*address)),
            BackendAddress::Unix(path) => Some(Endpoint::Unix(Arc::clone(path))),
            BackendAddress::Host(..) => None,
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Endpoint::Ip(address)
    }
}

impl From<Endpoint> for BackendAddress {
    fn from(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Ip(address) => BackendAddress::Ip(address),
            Endpoint::Unix(path) => BackendAddress::Unix(path),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Ip(address) => write!(f, "{address}"),
            Endpoint::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl FromStr for Endpoint {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Endpoint::Unix(path.into())),
            None => text.parse().map(Endpoint::Ip),
        }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = AddrParseError;

    fn try_from(text: String) -> Result<Self, AddrParseError> {
        text.parse()
    }
}
