//! Who a client is, for every protocol. Parses nothing.

use std::net::SocketAddr;

use kakei_wire::proxy_protocol::{self, Addresses};
use serde::{Deserialize, Serialize};

/// What a trusted peer's PROXY header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Believed {
    /// The real client.
    pub(crate) source: SocketAddr,
    /// The address that it dialled.
    pub(crate) destination: SocketAddr,
}

impl From<Addresses> for Believed {
    fn from(addresses: Addresses) -> Self {
        Believed {
            source: proxy_protocol::canonical(addresses.source),
            destination: proxy_protocol::canonical(addresses.destination),
        }
    }
}
