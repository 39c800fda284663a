//! Backends: they answer once, often, late or never, answer probes, and go down and up. They know nothing of flows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use kakei_config::Document;
use kakei_proxy::seam::Instant;

use crate::payload::LEAST;
use crate::profile::{BackendFaults, chance};

/// The longest that a backend takes to answer.
const LATEST: Duration = Duration::from_millis(3_500);

/// Every server that any document named.
#[derive(Debug)]
pub(crate) struct Backends {
    servers: BTreeMap<SocketAddr, Server>,
    faults: BackendFaults,
    longest: usize,
    seed: u64,
    rng: Rng,
}

#[derive(Debug, Default)]
struct Server {
    down_until: Instant,
}

/// An answer to come.
#[derive(Debug)]
pub(crate) struct Answering {
    pub(crate) after: Duration,
    pub(crate) len: usize,
}

impl Backends {
    pub(crate) fn new(faults: BackendFaults, longest: usize, mut rng: Rng) -> Self {
        Backends { servers: BTreeMap::new(), faults, longest, seed: rng.u64(..), rng }
    }

    /// Bring every server of a document into being.
    pub(crate) fn provide(&mut self, document: &Document) {
        for cluster in document.clusters.values() {
            for address in cluster.backends.iter().filter_map(|backend| backend.address.ip()) {
                let probed = cluster.health.iter().flat_map(|health| {
                    [health.udp.as_ref().and_then(|udp| udp.port), health.tcp.as_ref().and_then(|tcp| tcp.port)]
                });
                for port in probed.flatten().chain([address.port()]) {
                    self.servers.entry(SocketAddr::new(address.ip(), port)).or_default();
                }
            }
        }
    }

    /// Whether somebody listens there.
    pub(crate) fn is_up(&self, address: SocketAddr, now: Instant) -> bool {
        self.servers.get(&address).is_some_and(|server| server.down_until <= now)
    }

    /// Some server goes down for a while; which, and for how long.
    pub(crate) fn outage(&mut self, now: Instant) -> Option<(SocketAddr, Duration)> {
        let addresses: Vec<SocketAddr> = self.servers.keys().copied().collect();
        let address = *addresses.get(self.rng.usize(0..addresses.len().max(1)))?;
        let length = Duration::from_millis(self.rng.u64(50..2_500));
        self.servers.entry(address).or_default().down_until = now + length;
        Some((address, length))
    }

    /// Some server's address.
    pub(crate) fn any(&mut self) -> Option<SocketAddr> {
        let addresses: Vec<SocketAddr> = self.servers.keys().copied().collect();
        addresses.get(self.rng.usize(0..addresses.len().max(1))).copied()
    }

    /// How a request is answered: always alike for one request, however often it arrives. Whoever answers more than once
    /// does so within 15 ms, since a shared socket rests only 100 ms after an answered flow.
    pub(crate) fn answers(&mut self, request: Option<u64>) -> Vec<Answering> {
        let mut rng = Rng::with_seed(self.seed ^ request.unwrap_or(0).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        if chance(&mut rng, self.faults.silent) {
            return Vec::new();
        }
        let late = chance(&mut rng, self.faults.late);
        let several = !late && chance(&mut rng, self.faults.several);
        let count = if several { rng.u64(2..=4) } else { 1 };
        (0..count)
            .map(|nth| {
                let soon = Duration::from_micros(rng.u64(10..=4_000) + nth * 3_000);
                let after = if late { LATEST.mul_f64(rng.f64()) } else { soon };
                Answering { after, len: self.length() }
            })
            .collect()
    }

    fn length(&mut self) -> usize {
        if self.rng.u8(0..30) == 0 {
            self.longest
        } else if self.rng.u8(0..50) == 0 {
            0
        } else {
            LEAST + self.rng.usize(0..=self.longest.min(800)) / self.rng.usize(1..=8)
        }
    }
}
