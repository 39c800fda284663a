//! What makes a flow: its key, and the affinity hash that the balancer is given. Bytes and addresses in, key out.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use kakei_wire::proxy_protocol::v2;

use crate::client::Believed;
use crate::hash::Keyed;
use crate::seam::SocketId;
use crate::snapshot::Listener;
use crate::stats::DropReason;

/// Two sockets of one client are two flows; so are two clients behind one trusted proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlowKey<B = Box<Believed>> {
    /// The socket the client arrives at.
    pub(crate) front: SocketId,
    /// The socket that asked: replies go there.
    pub(crate) peer: SocketAddr,
    /// The address that it dialled: replies leave from there.
    pub(crate) local: IpAddr,
    /// What a trusted inbound header said instead.
    pub(crate) believed: Option<B>,
}

/// A key as a datagram brings it: nothing is allocated for it before admission.
pub(crate) type Arrival = FlowKey<Believed>;

impl Arrival {
    /// The key as a flow keeps it: few have a believed client, so that stands apart.
    pub(crate) fn keep(self) -> FlowKey {
        let FlowKey { front, peer, local, believed } = self;
        FlowKey { front, peer, local, believed: believed.map(Box::new) }
    }
}

impl FlowKey {
    /// The key as the flow's datagrams bring it.
    pub(crate) fn arrival(&self) -> Arrival {
        let FlowKey { front, peer, local, believed } = self;
        FlowKey { front: *front, peer: *peer, local: *local, believed: believed.as_deref().copied() }
    }
}

impl<B: Borrow<Believed>> FlowKey<B> {
    /// The client: as an inbound header said it, or as seen.
    pub(crate) fn client(&self) -> SocketAddr {
        self.believed.as_ref().map_or(self.peer, |believed| believed.borrow().source)
    }

    /// Whether both keys are of one flow.
    pub(crate) fn is<C: Borrow<Believed>>(&self, other: &FlowKey<C>) -> bool {
        self.peer == other.peer
            && self.local == other.local
            && self.front == other.front
            && self.believed.as_ref().map(Borrow::borrow) == other.believed.as_ref().map(Borrow::borrow)
    }

    pub(crate) fn hash(&self, keyed: &Keyed) -> u64 {
        let mut hasher = keyed.build_hasher();
        hasher.write_u64(slotmap::Key::data(&self.front).as_ffi());
        write_ip(&mut hasher, self.peer.ip());
        hasher.write_u16(self.peer.port());
        write_ip(&mut hasher, self.local);
        if let Some(believed) = &self.believed {
            believed.borrow().source.hash(&mut hasher);
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
    Ok((header.addresses.map(Believed::from), header.len as u32))
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
