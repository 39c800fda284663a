//! The network between clients, the proxy and backends: delay, loss, doubling, reordering, partitions.
//! Never changes a byte, and never delays a datagram longer than its faults say.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use kakei_proxy::seam::Instant;

use crate::profile::{NetworkFaults, chance};

/// A datagram under way, or the news that one found nobody.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) what: Carried,
}

/// What is under way.
#[derive(Clone, Debug)]
pub(crate) enum Carried {
    /// A datagram.
    Datagram(Rc<[u8]>),
    /// ICMP: nobody listens at `from`.
    Refused,
}

/// The network.
#[derive(Debug)]
pub(crate) struct Network {
    faults: NetworkFaults,
    rng: Rng,
    delays: BTreeMap<(IpAddr, IpAddr), Duration>,
    cut_off: BTreeMap<IpAddr, Instant>,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
}

impl Network {
    pub(crate) fn new(faults: NetworkFaults, rng: Rng) -> Self {
        Network { faults, rng, delays: BTreeMap::new(), cut_off: BTreeMap::new(), lost: 0, doubled: 0 }
    }

    /// Cut a host off until then.
    pub(crate) fn cut_off(&mut self, host: IpAddr, until: Instant) {
        self.cut_off.insert(host, until);
    }

    /// Whether a host is cut off.
    pub(crate) fn is_cut_off(&self, host: IpAddr, now: Instant) -> bool {
        self.cut_off.get(&host).is_some_and(|until| now < *until)
    }

    /// How long one way between two hosts takes without faults.
    pub(crate) fn delay(&mut self, from: IpAddr, to: IpAddr) -> Duration {
        let rng = &mut self.rng;
        *self.delays.entry((from, to)).or_insert_with(|| Duration::from_micros(rng.u64(20..=3_000)))
    }

    /// When copies of a datagram sent now arrive: none where it is lost.
    pub(crate) fn send(&mut self, now: Instant, packet: &Packet) -> Vec<Instant> {
        let (from, to) = (packet.from.ip(), packet.to.ip());
        let delay = self.delay(from, to);
        if self.is_cut_off(from, now) || self.is_cut_off(to, now) || chance(&mut self.rng, self.faults.loss) {
            self.lost += 1;
            return Vec::new();
        }
        let copies = if chance(&mut self.rng, self.faults.duplicate) { 2 } else { 1 };
        self.doubled += copies - 1;
        let late = self.faults.late.as_micros() as u64;
        (0..copies)
            .map(|copy| {
                let odd = copy > 0 || chance(&mut self.rng, self.faults.reorder);
                let extra = if odd && late > 0 { self.rng.u64(0..=late) } else { 0 };
                now + delay + Duration::from_micros(extra)
            })
            .collect()
    }
}
