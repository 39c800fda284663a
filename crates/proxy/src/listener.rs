//! A listener as it lives in a worker: what it admits, what it counted. Protocol-neutral; it holds no flow.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hashbrown::HashMap;
use kakei_config::{Limits, Name, SourceNetwork};

use crate::hash::Keyed;
use crate::seam::{BindKey, Instant};
use crate::snapshot::{Listener, Rule, Snapshot};
use crate::stats::{
    Closes, DropReason, Drops, ListenerMetric, ListenerStats, MetricKind, Refusal, Refusals, Sample, Series, Times,
    Values,
};

slotmap::new_key_type! {
    /// A live listener; carries a generation.
    pub(crate) struct ListenerKey;
}

/// A listener that is configured, or was and still has flows.
#[derive(Debug)]
pub(crate) struct LiveListener {
    pub(crate) spec: Arc<Listener>,
    /// Gone from the configuration: its flows end at this instant at the latest.
    pub(crate) removed: Option<Instant>,
    pub(crate) values: Values<{ ListenerMetric::COUNT }>,
    pub(crate) drops: Drops,
    pub(crate) closes: Closes,
    pub(crate) connection_closes: Closes,
    pub(crate) exchange_closes: Closes,
    pub(crate) refusals: Refusals,
    pub(crate) times: RouteTimes,
    pub(crate) admission: Admission,
}

impl LiveListener {
    pub(crate) fn new(spec: Arc<Listener>, hash: Keyed) -> Self {
        LiveListener {
            spec,
            removed: None,
            values: Values::default(),
            drops: Drops::default(),
            closes: Closes::default(),
            connection_closes: Closes::default(),
            exchange_closes: Closes::default(),
            refusals: Refusals::default(),
            times: RouteTimes::new(hash),
            admission: Admission::new(hash),
        }
    }

    /// Whether a generation has it.
    pub(crate) fn is_in(&self, snapshot: &Snapshot) -> bool {
        snapshot.listener(&self.spec.name).is_some_and(|spec| spec.is_same(&self.spec))
    }

    /// When what came to it ends at the latest, where nobody is let in from now on.
    pub(crate) fn drains_until(&self, now: Instant) -> Instant {
        self.removed.unwrap_or(now + self.spec.drain_timeout)
    }

    /// Go on counting where another one of its name stopped, that nothing lives on.
    pub(crate) fn succeed(&mut self, gone: &LiveListener) {
        for metric in ListenerMetric::ALL.into_iter().filter(|metric| metric.metric().kind == MetricKind::Counter) {
            self.values[metric] += gone.values[metric];
        }
        self.drops.add(&gone.drops);
        self.closes.add(&gone.closes);
        self.connection_closes.add(&gone.connection_closes);
        self.exchange_closes.add(&gone.exchange_closes);
        self.refusals.add(&gone.refusals);
    }

    /// Count client datagrams that came in.
    pub(crate) fn receive(&mut self, datagrams: u32) {
        self.values[ListenerMetric::DatagramsIn] += u64::from(datagrams);
    }

    /// Count client datagrams that were received and dropped.
    pub(crate) fn drop(&mut self, reason: DropReason, datagrams: u32) {
        self.drops.0[reason as usize] += u64::from(datagrams);
    }

    /// Count client datagrams that came in and were dropped before any flow had them.
    pub(crate) fn refuse(&mut self, reason: DropReason, datagrams: u32) {
        self.receive(datagrams);
        self.drop(reason, datagrams);
    }

    /// Take back the count of client datagrams that are about to be handled anew.
    pub(crate) fn unreceive(&mut self, datagrams: u32) {
        self.values[ListenerMetric::DatagramsIn] -= u64::from(datagrams);
    }

    /// Count client datagrams that are kept no longer.
    pub(crate) fn unkeep(&mut self, datagrams: u32) {
        self.values[ListenerMetric::DatagramsKept] -= u64::from(datagrams);
    }

    /// Check the limits of section 7 in their order, and take a flow's place if they allow one.
    pub(crate) fn admit(&mut self, now: Instant, source: IpAddr) -> Result<(), DropReason> {
        let bounds = Bounds::of_flows(&self.spec.limits);
        self.admission.admit(now, source, &bounds).map_err(|over| match over {
            Over::Live => DropReason::FlowLimit,
            Over::Source | Over::Network => DropReason::SourceLimit,
            Over::Rate => DropReason::RateLimit,
        })?;
        self.values[ListenerMetric::FlowsOpened] += 1;
        self.values[ListenerMetric::FlowsLive] += 1;
        Ok(())
    }

    /// Give the place of `admit` back.
    pub(crate) fn release(&mut self, source: IpAddr) {
        self.admission.release(Some(source));
        self.values[ListenerMetric::FlowsLive] -= 1;
    }

    /// Count a client that was turned away.
    pub(crate) fn turn_away(&mut self, reason: Refusal) {
        self.refusals.0[reason as usize] += 1;
    }

    pub(crate) fn stats(&self, draining: bool) -> ListenerStats {
        let mut values = self.values;
        values[ListenerMetric::Draining] = u64::from(draining);
        ListenerStats {
            listener: self.spec.name.clone(),
            values,
            drops: self.drops,
            closes: self.closes,
            connection_closes: self.connection_closes,
            exchange_closes: self.exchange_closes,
            refusals: self.refusals,
            times: self.times.stats(),
        }
    }
}

/// How long requests took, by the route that they came by.
#[derive(Debug)]
pub(crate) struct RouteTimes {
    /// Of those that are counted one by one; each from its first request on.
    named: HashMap<Name, Box<Times>, Keyed>,
    /// Of the listener's own cluster.
    default: Option<Box<Times>>,
    other: Option<Box<Times>>,
}

impl RouteTimes {
    fn new(hash: Keyed) -> Self {
        RouteTimes { named: HashMap::with_hasher(hash), default: None, other: None }
    }

    /// Count a request that came by this route.
    pub(crate) fn observe(&mut self, rule: &Rule, sample: &Sample) {
        let times = match &rule.route {
            None => self.default.get_or_insert_default(),
            Some(_) if !rule.is_timed => self.other.get_or_insert_default(),
            Some(route) => match self.named.get_mut(route) {
                Some(times) => return times.observe(sample),
                None => self.named.entry(route.clone()).or_default(),
            },
        };
        times.observe(sample);
    }

    /// Forget the routes that aren't counted one by one any more, or are gone.
    pub(crate) fn retain(&mut self, spec: &Listener) {
        let http = spec.http.as_ref();
        self.named.retain(|route, _| http.is_some_and(|http| http.table.rule(route).is_some_and(|rule| rule.is_timed)));
    }

    /// What `stats` said of a worker that was written down.
    pub(crate) fn restore(&mut self, times: Vec<(Series, Box<Times>)>) {
        for (series, times) in times {
            match series {
                Series::Named(route) => drop(self.named.insert(route, times)),
                Series::Default => self.default = Some(times),
                Series::Other => self.other = Some(times),
            }
        }
    }

    pub(crate) fn stats(&self) -> Vec<(Series, Box<Times>)> {
        let named = self.named.iter().map(|(route, times)| (Series::Named(route.clone()), times.clone()));
        let default = self.default.iter().map(|times| (Series::Default, times.clone()));
        let other = self.other.iter().map(|times| (Series::Other, times.clone()));
        let mut all: Vec<_> = named.chain(default).chain(other).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }
}

/// A front socket: where clients of a listener arrive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Front {
    pub(crate) bind: BindKey,
    /// The port it has; the configured one until it is open.
    pub(crate) port: u16,
    pub(crate) listener: ListenerKey,
    /// No longer configured: no new flow, and its flows end at this instant at the latest.
    pub(crate) draining: Option<Instant>,
    /// Flows whose replies leave by it.
    pub(crate) flows: u32,
}

impl Front {
    /// Whether who dialled that arrived at it.
    pub(crate) fn covers(&self, local: SocketAddr) -> bool {
        covers((self.bind.address.ip(), self.port), local)
    }
}

/// One protocol's bounds, as admission sees them. 0: unlimited, but for `live`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    live: u32,
    per_source: u32,
    per_network: u32,
    per_second: u32,
    network: SourceNetwork,
}

impl Bounds {
    pub(crate) fn of_flows(limits: &Limits) -> Self {
        Bounds {
            live: limits.flows,
            per_source: limits.flows_per_source,
            per_network: 0,
            per_second: limits.new_flows_per_second,
            network: limits.source_network,
        }
    }

    pub(crate) fn of_connections(limits: &Limits) -> Self {
        Bounds {
            live: limits.connections,
            per_source: limits.connections_per_source,
            per_network: limits.connections_per_network,
            per_second: limits.new_connections_per_second,
            network: limits.source_network,
        }
    }
}

/// Which bound something is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Live,
    Source,
    Network,
    Rate,
}

/// Places taken and the pace at which they are. Counted with no limit set too: a limit that comes by a change must
/// know what is there.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) live: u32,
    sources: HashMap<IpAddr, u32, Keyed>,
    /// By the first address of the network. Only what is counted by network is here.
    networks: HashMap<IpAddr, u32, Keyed>,
    pub(crate) rate: Rate,
}

impl Admission {
    pub(crate) fn new(hash: Keyed) -> Self {
        Admission {
            live: 0,
            sources: HashMap::with_hasher(hash),
            networks: HashMap::with_hasher(hash),
            rate: Rate::default(),
        }
    }

    /// Take a place for a source, or say which bound, in their order, forbids it.
    pub(crate) fn admit(&mut self, now: Instant, source: IpAddr, bounds: &Bounds) -> Result<(), Over> {
        if self.live >= bounds.live {
            return Err(Over::Live);
        }
        self.allows_source(source, bounds)?;
        if !self.rate.allows(now, bounds.per_second) {
            return Err(Over::Rate);
        }
        self.live += 1;
        self.take_source(source);
        Ok(())
    }

    /// Take a place for somebody whose source isn't known yet.
    pub(crate) fn admit_unknown(&mut self, now: Instant, bounds: &Bounds) -> Result<(), Over> {
        if self.live >= bounds.live {
            return Err(Over::Live);
        }
        if !self.rate.allows(now, bounds.per_second) {
            return Err(Over::Rate);
        }
        self.live += 1;
        Ok(())
    }

    /// The source became known.
    pub(crate) fn admit_source(&mut self, source: IpAddr, bounds: &Bounds) -> Result<(), Over> {
        self.allows_source(source, bounds)?;
        self.take_source(source);
        Ok(())
    }

    fn allows_source(&self, source: IpAddr, bounds: &Bounds) -> Result<(), Over> {
        let over = |taken: Option<&u32>, most: u32| most > 0 && taken.is_some_and(|taken| *taken >= most);
        if over(self.sources.get(&source), bounds.per_source) {
            return Err(Over::Source);
        }
        if over(self.networks.get(&network_of(source, bounds.network)), bounds.per_network) {
            return Err(Over::Network);
        }
        Ok(())
    }

    /// Take a place for somebody whose source isn't known, whatever the limits.
    pub(crate) fn take_unknown(&mut self) {
        self.live += 1;
    }

    /// Take a place, whatever the limits.
    pub(crate) fn take(&mut self, source: IpAddr) {
        self.live += 1;
        self.take_source(source);
    }

    fn take_source(&mut self, source: IpAddr) {
        *self.sources.entry(source).or_insert(0) += 1;
    }

    pub(crate) fn release(&mut self, source: Option<IpAddr>) {
        self.live -= 1;
        if let Some(source) = source {
            give_back(&mut self.sources, source);
        }
    }

    /// Count a source by its network too.
    pub(crate) fn take_network(&mut self, source: IpAddr, network: SourceNetwork) -> IpAddr {
        let network = network_of(source, network);
        *self.networks.entry(network).or_insert(0) += 1;
        network
    }

    /// What `take_network` returned to a worker that was written down.
    pub(crate) fn take_network_again(&mut self, network: IpAddr) {
        *self.networks.entry(network).or_insert(0) += 1;
    }

    /// What `take_network` returned, given back: the prefix length may be another one by now.
    pub(crate) fn release_network(&mut self, network: IpAddr) {
        give_back(&mut self.networks, network);
    }
}

fn give_back(places: &mut HashMap<IpAddr, u32, Keyed>, of: IpAddr) {
    if let hashbrown::hash_map::Entry::Occupied(mut entry) = places.entry(of) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

/// Whether what dialled `local` arrived at a front with this address and port.
pub(crate) fn covers((ip, port): (IpAddr, u16), local: SocketAddr) -> bool {
    let same_family = ip.is_ipv4() == local.is_ipv4();
    port == local.port() && same_family && (ip.is_unspecified() || ip == local.ip())
}

/// The first address of the network that an address is of.
fn network_of(address: IpAddr, network: SourceNetwork) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let kept = u32::MAX.checked_shl(32 - u32::from(network.v4.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & kept).into())
        }
        IpAddr::V6(v6) => {
            let kept = u128::MAX.checked_shl(128 - u32::from(network.v6.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & kept).into())
        }
    }
}

/// The generic cell rate algorithm (ITU-T I.371): at most `per_second`, with a burst of as many.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    /// The theoretical arrival time: when everything admitted so far would have come at an even pace.
    pub(crate) due: u64,
}

impl Rate {
    fn allows(&mut self, now: Instant, per_second: u32) -> bool {
        const SECOND: u64 = 1_000_000_000;
        if per_second == 0 {
            return true;
        }
        let apart = SECOND / u64::from(per_second);
        let due = self.due.max(now.as_nanos());
        if due - now.as_nanos() + apart > SECOND {
            return false;
        }
        self.due = due + apart;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_its_prefix() {
        let network = SourceNetwork { v4: 24, v6: 56 };
        let of = |text: &str| network_of(text.parse().unwrap(), network).to_string();
        assert_eq!(of("192.0.2.77"), "192.0.2.0");
        assert_eq!(of("::ffff:192.0.2.77"), "192.0.2.0");
        assert_eq!(of("2001:db8:1:2ff::7"), "2001:db8:1:200::");
        let whole = SourceNetwork { v4: 32, v6: 128 };
        assert_eq!(network_of("192.0.2.77".parse().unwrap(), whole).to_string(), "192.0.2.77");
    }

    #[test]
    fn a_rate_admits_its_burst_and_then_its_pace() {
        let mut rate = Rate::default();
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        let burst = (0..100).filter(|_| rate.allows(at(5000), 10)).count();
        let later = (0..100).filter(|_| rate.allows(at(5300), 10)).count();
        let full = (0..100).filter(|_| rate.allows(at(60_000), 10)).count();
        assert_eq!((burst, later, full), (10, 3, 10));
    }
}
