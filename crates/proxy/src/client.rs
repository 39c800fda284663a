//! Who a client is, for every protocol: as it was seen, as a header said, as a backend is told. Reads nothing.

use std::net::SocketAddr;

use kakei_config::StreamProxyProtocol;
use kakei_wire::proxy_protocol::{self, Addresses, Command, v1, v2};
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

/// Write the header that tells a backend who the client is and which address it dialled, and what else came in with
/// that.
pub(crate) fn write_proxy_header(
    version: StreamProxyProtocol,
    (source, destination): (SocketAddr, SocketAddr),
    tlvs: &[u8],
    out: &mut Vec<u8>,
) {
    let addresses = Addresses { source, destination };
    match version {
        StreamProxyProtocol::Off => {}
        StreamProxyProtocol::V1 => {
            let mut header = [0; v1::MAX];
            let len = v1::emit(Some(addresses), &mut header);
            out.extend_from_slice(&header[..len]);
        }
        StreamProxyProtocol::V2 => {
            let fits = v2::emit_stream(Command::Proxy, Some(addresses), tlvs, out);
            debug_assert!(fits, "what came in was bounded by far less than a header may hold");
        }
    }
}

/// Write the header of what the proxy says on its own behalf (a health check). Version 1 has no word for that but that
/// nothing is known.
pub(crate) fn write_own_header(version: StreamProxyProtocol, out: &mut Vec<u8>) {
    match version {
        StreamProxyProtocol::Off => {}
        StreamProxyProtocol::V1 => {
            let mut header = [0; v1::MAX];
            let len = v1::emit(None, &mut header);
            out.extend_from_slice(&header[..len]);
        }
        StreamProxyProtocol::V2 => write_own_datagram_header(out),
    }
}

/// The same in front of a datagram, for which there is version 2 alone.
pub(crate) fn write_own_datagram_header(out: &mut Vec<u8>) {
    let mut header = [0; v2::MAX_EMITTED];
    let len = v2::emit_local(&mut header);
    out.extend_from_slice(&header[..len]);
}
