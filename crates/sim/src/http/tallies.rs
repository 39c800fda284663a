//! What the records of one listener add up to, beside what its workers have counted.

use std::collections::BTreeMap;

use kakei_proxy::record::{CloseReason, Detail, Record};
use kakei_proxy::stats::{ListenerMetric, ListenerStats};

/// The listener that is never removed: the counters of others go with them.
const WEB: &str = "web";

/// Responses by their first digit, as they are counted.
const CLASSES: [ListenerMetric; 4] = [
    ListenerMetric::Responses2xx,
    ListenerMetric::Responses3xx,
    ListenerMetric::Responses4xx,
    ListenerMetric::Responses5xx,
];

/// The sums of the records.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    reasons: BTreeMap<CloseReason, u64>,
    classes: [u64; CLASSES.len()],
}

impl Tallies {
    pub(super) fn add(&mut self, record: &Record) {
        let Detail::Exchange(detail) = &record.detail else { return };
        if record.listener.as_str() != WEB {
            return;
        }
        *self.reasons.entry(record.reason).or_default() += 1;
        // Another protocol is a success; none of the others that come before a response is one.
        let class = match detail.status {
            Some(101) => 2,
            Some(status) => usize::from(status / 100),
            None => 0,
        };
        if let Some(count) = class.checked_sub(2).and_then(|class| self.classes.get_mut(class)) {
            *count += 1;
        }
    }

    /// Compare them with the counters of all workers.
    pub(super) fn check<'a>(&self, counted: impl Iterator<Item = &'a ListenerStats>, violations: &mut Vec<String>) {
        let counted: Vec<_> = counted.filter(|listener| listener.listener.as_str() == WEB).collect();
        for reason in CloseReason::ALL {
            let ended: u64 = counted.iter().map(|listener| listener.exchange_closes.0[reason as usize]).sum();
            let recorded = self.reasons.get(&reason).copied().unwrap_or_default();
            if ended != recorded {
                violations.push(format!("{ended} requests ended by {}, {recorded} say their records", reason.name()));
            }
        }
        for (metric, recorded) in CLASSES.into_iter().zip(self.classes) {
            let told: u64 = counted.iter().map(|listener| listener.values[metric]).sum();
            if told != recorded {
                violations.push(format!("{metric:?} is {told}, {recorded} by the records"));
            }
        }
    }
}
