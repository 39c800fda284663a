//! Which addresses are the proxy's own, as far as a worker knows. Who says that it comes from one of them is answered
//! there, and with a backend that echoes that never ends.

use std::net::{IpAddr, SocketAddr};

use foldhash::fast::FixedState;
use hashbrown::HashSet;

use crate::limits::OWN_ADDRESSES;
use crate::seam::Transport;
use crate::world::World;

/// What is known of them.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// Ports of fronts that receive datagrams; none: to be found out anew.
    ports: Option<HashSet<u16, FixedState>>,
    /// Addresses of this machine that clients dialled at a front of every address, the one that was dialled last first.
    dialled: Vec<IpAddr>,
}

impl Own {
    /// A front came, went, or has another port.
    pub(crate) fn handle_fronts_changed(&mut self) {
        self.ports = None;
    }

    /// A client was let in that dialled this address.
    pub(crate) fn note(&mut self, dialled: IpAddr) {
        match self.dialled.iter().position(|known| *known == dialled) {
            Some(at) => self.dialled.swap(0, at),
            None => {
                self.dialled.truncate(OWN_ADDRESSES - 1);
                self.dialled.insert(0, dialled);
            }
        }
    }
}

impl World {
    /// Whether what is sent to this address comes to a front of ours.
    pub(crate) fn is_own(&mut self, address: SocketAddr) -> bool {
        let ports = self.own.ports.take().unwrap_or_else(|| self.datagram_ports());
        let has_port = ports.contains(&address.port());
        self.own.ports = Some(ports);
        if !has_port {
            return false;
        }
        let ip = address.ip();
        let mut covering =
            self.fronts().filter(|(_, front)| front.bind.transport == Transport::Udp && front.covers(address));
        covering.any(|(_, front)| front.bind.address.ip() == ip || ip.is_loopback() || self.own.dialled.contains(&ip))
    }

    fn datagram_ports(&self) -> HashSet<u16, FixedState> {
        self.fronts().filter(|(_, front)| front.bind.transport == Transport::Udp).map(|(_, front)| front.port).collect()
    }
}
