//! What makes a flow: its key, and the affinity hash that the balancer is given. Bytes and addresses in, key out.

use std::hash::{BuildHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use kakei_wire::proxy_protocol::v2;

use crate::client::Believed;
use crate::hash::Keyed;
use crate::seam::{Datagram, SocketId};
use crate::snapshot::Listener;
use crate::stats::DropReason;

/// A key as a datagram brings it: nothing is allocated for it before admission. Two sockets of one client are two
/// flows; so are two clients behind one trusted proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// The socket the client arrives at.
    pub(crate) front: SocketId,
    /// The socket that asked: replies go there.
    pub(crate) peer: SocketAddr,
    /// The address that it dialled: replies leave from there.
    pub(crate) local: IpAddr,
    /// What a trusted inbound header said instead.
    pub(crate) believed: Option<Believed>,
}

/// A key as a flow keeps it, in half the bytes.
#[derive(Debug)]
pub(crate) struct FlowKey {
    pub(crate) front: SocketId,
    ip: IpAddr,
    port: u16,
    pub(crate) local: IpAddr,
    aside: Option<Box<Aside>>,
}

/// What few keys have: a peer that is more than an address and a port (a link-local one has a scope), or a believed
/// client.
#[derive(Debug)]
struct Aside {
    peer: SocketAddr,
    believed: Option<Believed>,
}

impl Arrival {
    /// The key of a datagram without a header.
    pub(crate) fn seen(datagram: &Datagram) -> Self {
        Arrival { front: datagram.socket, peer: datagram.peer, local: datagram.local, believed: None }
    }

    /// The client: as an inbound header said it, or as seen.
    pub(crate) fn client(&self) -> SocketAddr {
        self.believed.map_or(self.peer, |believed| believed.source)
    }

    /// The key as a flow keeps it.
    pub(crate) fn keep(self) -> FlowKey {
        let Arrival { front, peer, local, believed } = self;
        let aside = (!self.is_plain()).then(|| Box::new(Aside { peer, believed }));
        FlowKey { front, ip: peer.ip(), port: peer.port(), local, aside }
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

    /// Whether nothing has to be kept aside.
    fn is_plain(&self) -> bool {
        self.believed.is_none()
            && match self.peer {
                SocketAddr::V4(_) => true,
                SocketAddr::V6(v6) => v6.scope_id() == 0 && v6.flowinfo() == 0,
            }
    }
}

impl FlowKey {
    /// The key as the flow's datagrams bring it.
    pub(crate) fn arrival(&self) -> Arrival {
        Arrival { front: self.front, peer: self.peer(), local: self.local, believed: self.believed().copied() }
    }

    /// The socket that asked: replies go there.
    pub(crate) fn peer(&self) -> SocketAddr {
        match &self.aside {
            None => SocketAddr::new(self.ip, self.port),
            Some(aside) => aside.peer,
        }
    }

    /// What a trusted inbound header said instead.
    pub(crate) fn believed(&self) -> Option<&Believed> {
        self.aside.as_ref()?.believed.as_ref()
    }

    /// The client: as an inbound header said it, or as seen.
    pub(crate) fn client(&self) -> SocketAddr {
        self.believed().map_or_else(|| self.peer(), |believed| believed.source)
    }

    /// Whether an arrival is of this flow.
    pub(crate) fn is(&self, arrival: &Arrival) -> bool {
        self.port == arrival.peer.port()
            && self.ip == arrival.peer.ip()
            && self.local == arrival.local
            && self.front == arrival.front
            && match &self.aside {
                None => arrival.is_plain(),
                Some(aside) => aside.peer == arrival.peer && aside.believed == arrival.believed,
            }
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

/// Refuse what says that it comes from the very address that it was sent to: a backend that echoes would never be
/// done with it.
pub(crate) fn check_loop(peer: SocketAddr, front: SocketAddr) -> Result<(), DropReason> {
    match (peer.ip(), peer.port()) == (front.ip(), front.port()) {
        true => Err(DropReason::Invalid),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV6;

    use proptest::prelude::*;

    use super::*;

    fn ip() -> impl Strategy<Value = IpAddr> {
        prop_oneof![(0..3u32).prop_map(|n| IpAddr::V4(n.into())), (0..3u128).prop_map(|n| IpAddr::V6(n.into()))]
    }

    fn peer() -> impl Strategy<Value = SocketAddr> {
        (ip(), 0..2u16, 0..2u32, 0..2u32).prop_map(|(ip, port, flowinfo, scope)| match ip {
            IpAddr::V4(_) => SocketAddr::new(ip, port),
            IpAddr::V6(v6) => SocketAddrV6::new(v6, port, flowinfo, scope).into(),
        })
    }

    fn arrival() -> impl Strategy<Value = Arrival> {
        let believed = (peer(), peer()).prop_map(|(source, destination)| Believed { source, destination });
        let front = (1..3u64).prop_map(|n| slotmap::KeyData::from_ffi(n).into());
        (front, peer(), ip(), proptest::option::of(believed)).prop_map(|(front, peer, local, believed)| Arrival {
            front,
            peer,
            local,
            believed,
        })
    }

    proptest! {
        /// Addresses of few values, so that some are the same.
        #[test]
        fn a_kept_key_is_what_it_was_made_of(one in arrival(), other in arrival()) {
            let key = one.keep();
            prop_assert_eq!(key.arrival(), one);
            prop_assert_eq!((key.client(), key.peer()), (one.client(), one.peer));
            prop_assert!(key.is(&one));
            prop_assert_eq!(key.is(&other), one == other);
            // Of two keys that differ in one thing only.
            for near in [
                Arrival { front: other.front, ..one },
                Arrival { peer: other.peer, ..one },
                Arrival { local: other.local, ..one },
                Arrival { believed: other.believed, ..one },
            ] {
                prop_assert_eq!(key.is(&near), one == near);
            }
        }
    }
}
