//! A listener as it lives in a worker: what it admits, what it counted. Protocol-neutral; it holds no flow.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use kakei_config::Limits;

use crate::hash::Keyed;
use crate::seam::{BindKey, Instant};
use crate::snapshot::Listener;
use crate::stats::{Closes, DropReason, Drops, ListenerMetric, ListenerStats, Values};

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
            admission: Admission { live: 0, sources: HashMap::with_hasher(hash), rate: Rate::default() },
        }
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

    /// Check the limits of section 7 in their order, and take a place if they allow one.
    pub(crate) fn admit(&mut self, now: Instant, source: IpAddr) -> Result<(), DropReason> {
        self.admission.admit(now, source, &self.spec.limits)?;
        self.values[ListenerMetric::FlowsOpened] += 1;
        self.values[ListenerMetric::FlowsLive] += 1;
        Ok(())
    }

    /// Give the place of `admit` back.
    pub(crate) fn release(&mut self, source: IpAddr) {
        self.admission.release(source);
        self.values[ListenerMetric::FlowsLive] -= 1;
    }

    pub(crate) fn stats(&self, draining: bool) -> ListenerStats {
        let mut values = self.values;
        values[ListenerMetric::Draining] = u64::from(draining);
        ListenerStats { listener: self.spec.name.clone(), values, drops: self.drops, closes: self.closes }
    }
}

/// A front socket: where clients of a listener arrive.
#[derive(Debug)]
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

/// Places taken and the pace at which they are.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) live: u32,
    pub(crate) sources: HashMap<IpAddr, u32, Keyed>,
    pub(crate) rate: Rate,
}

impl Admission {
    fn admit(&mut self, now: Instant, source: IpAddr, limits: &Limits) -> Result<(), DropReason> {
        if self.live >= limits.flows {
            return Err(DropReason::FlowLimit);
        }
        let of_source = self.sources.get(&source).copied().unwrap_or(0);
        if limits.flows_per_source > 0 && of_source >= limits.flows_per_source {
            return Err(DropReason::SourceLimit);
        }
        if !self.rate.allows(now, limits.new_flows_per_second) {
            return Err(DropReason::RateLimit);
        }
        // Counted with no limit set too: a limit that comes by a change must know the flows that are there.
        self.take(source);
        Ok(())
    }

    /// Take a place, whatever the limits.
    pub(crate) fn take(&mut self, source: IpAddr) {
        self.live += 1;
        *self.sources.entry(source).or_insert(0) += 1;
    }

    fn release(&mut self, source: IpAddr) {
        self.live -= 1;
        if let hashbrown::hash_map::Entry::Occupied(mut entry) = self.sources.entry(source) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
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
    fn a_rate_admits_its_burst_and_then_its_pace() {
        let mut rate = Rate::default();
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        let burst = (0..100).filter(|_| rate.allows(at(5000), 10)).count();
        let later = (0..100).filter(|_| rate.allows(at(5300), 10)).count();
        let full = (0..100).filter(|_| rate.allows(at(60_000), 10)).count();
        assert_eq!((burst, later, full), (10, 3, 10));
    }
}
