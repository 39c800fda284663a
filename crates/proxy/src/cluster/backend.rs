//! A backend as it lives in a worker: what it carries, whether it takes more. Protocol-neutral.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::balance;
use crate::health::Passive;
use crate::seam::{Instant, SocketId};
use crate::snapshot::Backend;
use crate::stats::{BackendMetric, BackendStats, Values};

slotmap::new_key_type! {
    /// A live backend of a cluster; carries a generation.
    pub(crate) struct BackendKey;
}

/// A backend that is configured, or was and still has flows.
#[derive(Debug)]
pub(crate) struct LiveBackend {
    pub(crate) spec: Backend,
    /// A stable hash of its name.
    pub(crate) identity: u64,
    /// Gone from the configuration.
    pub(crate) removed: bool,
    /// The verdict of the active checks.
    pub(crate) up: bool,
    /// Whether it came before it had passed: its checks begin with that.
    pub(crate) unproven: bool,
    /// Since when, for slow start; the instant of its arrival is long ago for the first ones.
    pub(crate) up_since: Instant,
    /// What ICMP errors say.
    pub(crate) passive: Passive,
    /// Live flows, connections and requests: what a balancer goes by.
    pub(crate) live: u32,
    /// Live connections, those that are being opened included.
    pub(crate) connections: u32,
    /// HTTP requests under way on it.
    pub(crate) requests: u32,
    /// Open connections that carry requests, idle ones included.
    pub(crate) upstreams: u32,
    /// Those of them that wait for a request, the one that was used last at the end.
    pub(crate) idle: Vec<SocketId>,
    /// Those of the connections that don't simply stay when it is removed or goes down.
    pub(crate) restless: u32,
    pub(crate) values: Values<{ BackendMetric::COUNT }>,
}

impl LiveBackend {
    pub(crate) fn new(spec: Backend, up_since: Instant) -> Self {
        LiveBackend {
            identity: balance::identity(spec.name.as_str()),
            spec,
            removed: false,
            up: true,
            unproven: false,
            up_since,
            passive: Passive::default(),
            live: 0,
            connections: 0,
            requests: 0,
            upstreams: 0,
            idle: Vec::new(),
            restless: 0,
            values: Values::default(),
        }
    }

    /// It is configured again while something still lives on it. Nothing is known of it any more: nobody probed it
    /// meanwhile, and whoever probes it begins as with a new one.
    pub(crate) fn revive(&mut self, up_since: Instant) {
        self.removed = false;
        (self.up, self.unproven) = (true, false);
        self.up_since = up_since;
        self.passive = Passive::default();
    }

    /// Where datagrams for it go. A document that has a Unix socket behind a UDP listener is refused; should one get
    /// this far nevertheless, its flows can't be opened.
    pub(crate) fn address(&self) -> SocketAddr {
        self.spec.address.ip().unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into())
    }

    /// A connection takes a place; whether it minds when the backend goes.
    pub(crate) fn take(&mut self, minds: bool) {
        self.live += 1;
        self.connections += 1;
        self.restless += u32::from(minds);
    }

    /// It gives the place back.
    pub(crate) fn give_back(&mut self, minded: bool) {
        self.live -= 1;
        self.connections -= 1;
        self.restless -= u32::from(minded);
    }

    /// A request is under way on it.
    pub(crate) fn take_request(&mut self) {
        self.live += 1;
        self.requests += 1;
        self.values[BackendMetric::Requests] += 1;
    }

    /// The same for one that was counted before its worker was written down.
    pub(crate) fn take_request_again(&mut self) {
        self.live += 1;
        self.requests += 1;
    }

    /// It is not any more.
    pub(crate) fn give_back_request(&mut self) {
        self.live -= 1;
        self.requests -= 1;
    }

    /// Whether nothing is on it.
    pub(crate) fn is_unused(&self) -> bool {
        self.live == 0 && self.upstreams == 0
    }

    /// Whether it may take work at all.
    pub(crate) fn is_member(&self) -> bool {
        !self.removed && self.spec.weight > 0
    }

    /// Whether every signal says that it is there.
    pub(crate) fn is_up(&self, now: Instant) -> bool {
        self.up && !self.passive.is_ejected(now)
    }

    /// For how long it has taken work: since it came up, or since its last ejection ended.
    pub(crate) fn up_for(&self, now: Instant) -> Duration {
        let back = self.passive.ended(now).map_or(self.up_since, |ended| ended.max(self.up_since));
        now - back
    }

    pub(crate) fn stats(&self, now: Instant) -> BackendStats {
        let mut values = self.values;
        values[BackendMetric::FlowsLive] = u64::from(self.live - self.connections - self.requests);
        values[BackendMetric::ConnectionsLive] = u64::from(self.connections + self.upstreams);
        values[BackendMetric::RequestsLive] = u64::from(self.requests);
        values[BackendMetric::Up] = u64::from(!self.removed && self.is_up(now));
        values[BackendMetric::Draining] = u64::from(self.removed);
        BackendStats { backend: self.spec.name.clone(), address: self.spec.address.clone(), values }
    }
}
