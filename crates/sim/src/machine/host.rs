//! What the kernel holds for a process: bound front sockets with their queues, and who owns which local port.
//! Knows no worker.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use kakei_proxy::seam::BindKey;

use super::Arrived;

/// Where sockets to backends are seen to come from.
const UPSTREAM_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1));
const UPSTREAM_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1));
const FIRST_PORT: u16 = 16_384;

/// One worker's socket of a reuse-port group.
#[derive(Debug, Default)]
pub(crate) struct FrontQueue {
    /// Whether it is bound: prepared and not given up.
    pub(crate) prepared: bool,
    /// The open socket that receives from it.
    pub(crate) listening: Option<u64>,
    pub(crate) queue: VecDeque<Arrived>,
    pub(crate) overflow: u64,
}

/// The kernel's tables.
#[derive(Debug)]
pub(crate) struct Host {
    workers: usize,
    pub(crate) receive_queue: usize,
    pub(crate) fronts: BTreeMap<BindKey, Vec<FrontQueue>>,
    ports: BTreeMap<SocketAddr, (usize, u64)>,
    next_port: u16,
    /// Datagrams lost because a prepared socket was given up with them in its queue.
    pub(crate) lost_in_unbound: u64,
    spread: u64,
}

impl Host {
    pub(crate) fn new(workers: u16, receive_queue: usize, spread: u64) -> Self {
        Host {
            workers: usize::from(workers),
            receive_queue,
            fronts: BTreeMap::new(),
            ports: BTreeMap::new(),
            next_port: FIRST_PORT,
            lost_in_unbound: 0,
            spread,
        }
    }

    /// Bind the front sockets of `bind`, one for each worker, where they are not bound yet.
    pub(crate) fn prepare(&mut self, bind: BindKey) {
        let workers = self.workers;
        let group = self.fronts.entry(bind).or_default();
        group.resize_with(workers, FrontQueue::default);
        for front in group {
            front.prepared = true;
        }
    }

    /// The address that the sockets of `bind` are bound to.
    pub(crate) fn bound(bind: &BindKey) -> SocketAddr {
        let mut address = bind.address;
        if address.port() == 0 {
            let last = match address.ip() {
                IpAddr::V4(v4) => v4.octets()[3],
                IpAddr::V6(v6) => v6.octets()[15],
            };
            address.set_port(40_000 + u16::from(last));
        }
        address
    }

    /// The bind that a datagram to `to` falls to: the specific address before the wildcard.
    pub(crate) fn bind_for(&self, to: SocketAddr) -> Option<BindKey> {
        let matching = |exact: bool| {
            self.fronts.iter().find(|(bind, group)| {
                let bound = Host::bound(bind);
                let fits = if exact { bound.ip() == to.ip() } else { bound.ip().is_unspecified() };
                let family = bound.is_ipv4() == to.is_ipv4();
                fits && family && bound.port() == to.port() && group.iter().any(|front| front.prepared)
            })
        };
        matching(true).or_else(|| matching(false)).map(|(bind, _)| *bind)
    }

    /// Queue a client's datagram; the worker whose queue it went to, or none where it was lost.
    pub(crate) fn arrive(&mut self, bind: &BindKey, arrived: Arrived) -> Option<usize> {
        let spread = spread(self.spread, arrived.peer, arrived.local);
        let group = self.fronts.get_mut(bind)?;
        let bound: Vec<usize> = (0..group.len()).filter(|&at| group[at].prepared).collect();
        let worker = *bound.get(spread as usize % bound.len().max(1))?;
        let front = &mut group[worker];
        if front.queue.len() >= self.receive_queue {
            front.overflow += 1;
            return None;
        }
        front.queue.push_back(arrived);
        Some(worker)
    }

    /// A free port for a socket to backends.
    pub(crate) fn take_port(&mut self, ipv4: bool, owner: (usize, u64)) -> SocketAddr {
        loop {
            self.next_port = if self.next_port == u16::MAX { FIRST_PORT } else { self.next_port + 1 };
            let address = SocketAddr::new(if ipv4 { UPSTREAM_V4 } else { UPSTREAM_V6 }, self.next_port);
            if let std::collections::btree_map::Entry::Vacant(free) = self.ports.entry(address) {
                free.insert(owner);
                return address;
            }
        }
    }

    /// Whether a port is left.
    pub(crate) fn has_ports(&self) -> bool {
        self.ports.len() < 40_000
    }

    pub(crate) fn give_port_back(&mut self, address: SocketAddr) {
        self.ports.remove(&address);
    }

    /// Which worker's socket (by serial) owns a local address.
    pub(crate) fn owner(&self, address: SocketAddr) -> Option<(usize, u64)> {
        self.ports.get(&address).copied()
    }
}

/// Which socket of a reuse-port group a four-tuple falls to.
fn spread(seed: u64, peer: SocketAddr, local: SocketAddr) -> u64 {
    let fold = |mut hash: u64, address: SocketAddr| {
        let mut eat = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        match address.ip() {
            IpAddr::V4(v4) => v4.octets().into_iter().for_each(&mut eat),
            IpAddr::V6(v6) => v6.octets().into_iter().for_each(&mut eat),
        }
        address.port().to_be_bytes().into_iter().for_each(&mut eat);
        hash
    };
    let hash = fold(fold(0xcbf2_9ce4_8422_2325 ^ seed, peer), local);
    hash ^ hash >> 29
}
