//! What makes a flow: its key, and the affinity hash that the balancer is given. Bytes and addresses in, key out.

use std::hash::{BuildHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use kakei_wire::proxy_protocol::{self, v2};
use serde::{Deserialize, Serialize};

use crate::hash::Keyed;
use crate::seam::SocketId;
use crate::snapshot::Listener;
use crate::stats::DropReason;

/// Two sockets of one client are two flows; so are two clients behind one trusted proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FlowKey {
    /// The socket the client arrives at.
    pub(crate) front: SocketId,
    /// The socket that asked: replies go there.
    pub(crate) peer: SocketAddr,
    /// The address that it dialled: replies leave from there.
    pub(crate) local: IpAddr,
    /// What a trusted inbound header said instead.
    pub(crate) believed: Option<Box<Believed>>,
}

/// What a trusted peer's PROXY header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Believed {
    /// The real client.
    pub(crate) source: SocketAddr,
    /// The address that it dialled.
    pub(crate) destination: SocketAddr,
}

impl FlowKey {
    /// The client: as an inbound header said it, or as seen.
    pub(crate) fn client(&self) -> SocketAddr {
        self.believed.as_ref().map_or(self.peer, |believed| believed.source)
    }

    pub(crate) fn hash(&self, keyed: &Keyed) -> u64 {
        let mut hasher = keyed.build_hasher();
        hasher.write_u64(slotmap::Key::data(&self.front).as_ffi());
        write_ip(&mut hasher, self.peer.ip());
        hasher.write_u16(self.peer.port());
        write_ip(&mut hasher, self.local);
        if let Some(believed) = &self.believed {
            believed.source.hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Fewer rounds than `Hash` would take, which also hashes lengths and discriminants.
fn write_ip(hasher: &mut impl Hasher, ip: IpAddr) {
    match ip {
        IpAddr::V4(v4) => hasher.write_u32(v4.to_bits()),
        IpAddr::V6(v6) => hasher.write_u128(v6.to_bits()),
    }
}

/// The trusted header at the head of a datagram: what it says (nothing for a health check of the proxy's own), and how
/// long it is. A header from a network that isn't trusted is refused; without one the datagram is the peer's own.
pub(crate) fn read_header(
    listener: &Listener,
    peer: SocketAddr,
    datagram: &[u8],
) -> Result<(Option<Believed>, u32), DropReason> {
    let is_trusted = listener.trusted.iter().any(|network| network.contains(&peer.ip()));
    if !is_trusted {
        let is_header = datagram.starts_with(&v2::SIGNATURE);
        return if is_header { Err(DropReason::ProxyHeader) } else { Ok((None, 0)) };
    }
    let header = v2::parse(datagram).map_err(|_| DropReason::ProxyHeader)?;
    let believed = header.addresses.map(|addresses| Believed {
        source: proxy_protocol::canonical(addresses.source),
        destination: proxy_protocol::canonical(addresses.destination),
    });
    Ok((believed, header.len as u32))
}

/// Refuse what no flow can be made of: a client that can't be answered.
pub(crate) fn check_client(client: SocketAddr) -> Result<(), DropReason> {
    let ip = client.ip();
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    match client.port() == 0 || ip.is_unspecified() || ip.is_multicast() || is_broadcast {
        true => Err(DropReason::Invalid),
        false => Ok(()),
    }
}
