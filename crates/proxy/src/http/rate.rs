//! How many requests may come in a time, and at one time: the generic cell rate algorithm (ITU-T I.371) for each route,
//! client or field value. Bounded in memory; reads no clock.

use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use kakei_config::{RateKey, RateLimit};
use kakei_wire::message::Fields;
use serde::{Deserialize, Serialize};

use super::rule::Rule;
use crate::hash::Keyed;
use crate::limits::RATES;
use crate::seam::Instant;

/// One of the requests at one time; given back when its exchange ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Permit(u64);

/// A rate that is written down. Requests at one time are counted anew by those that are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RateState {
    key: u64,
    /// How far ahead of its pace it is.
    ahead: Duration,
}

/// Rates in use.
#[derive(Debug, Default)]
pub(super) struct Rates {
    /// By a keyed hash of what they belong to, which no peer can make collide.
    slots: HashMap<u64, Slot, FixedState>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// When everything admitted so far would have come at an even pace.
    due: u64,
    concurrent: u32,
}

impl Rates {
    /// Whether a request may pass all of its route's limits; if not, after how long it may try again.
    pub(super) fn admit(
        &mut self,
        hash: Keyed,
        now: Instant,
        (rule, client, workers): (&Rule, IpAddr, u16),
        fields: &Fields<'_>,
    ) -> Result<Vec<Permit>, Duration> {
        let limits = rule.spec.rate_limits.iter().enumerate();
        let keys: Vec<(u64, Share)> = limits
            .map(|(number, limit)| (key(hash, (rule, number, limit), client, fields), Share::of(limit, workers)))
            .collect();
        if self.slots.len() + keys.len() > RATES {
            let now = now.as_nanos();
            self.slots.retain(|_, slot| slot.concurrent > 0 || slot.due > now);
        }
        let is_full = self.slots.len() + keys.len() > RATES;
        let known = |slots: &HashMap<u64, Slot, FixedState>, key: u64| !is_full || slots.contains_key(&key);
        // What there is no room for shares one slot.
        let keys: Vec<(u64, Share)> =
            keys.into_iter().map(|(key, limit)| (if known(&self.slots, key) { key } else { 0 }, limit)).collect();
        for (key, limit) in &keys {
            self.slots.entry(*key).or_default().allows(now, limit)?;
        }
        let mut permits = Vec::new();
        for (key, limit) in keys {
            let slot = self.slots.entry(key).or_default();
            slot.take(now, &limit);
            if limit.concurrent > 0 {
                slot.concurrent += 1;
                permits.push(Permit(key));
            }
        }
        Ok(permits)
    }

    /// Those that are ahead of their pace; by no order of chance.
    pub(super) fn save(&self, now: Instant) -> Vec<RateState> {
        let ahead = |slot: &Slot| Instant::from_nanos(slot.due) - now;
        let slots = self.slots.iter().filter(|(_, slot)| !ahead(slot).is_zero());
        let mut rates: Vec<RateState> = slots.map(|(key, slot)| RateState { key: *key, ahead: ahead(slot) }).collect();
        rates.sort_unstable_by_key(|rate| rate.key);
        rates
    }

    /// What `save` wrote down.
    pub(super) fn restore(&mut self, now: Instant, rates: Vec<RateState>) {
        for RateState { key, ahead } in rates {
            self.slots.entry(key).or_default().due = (now + ahead).as_nanos();
        }
    }

    /// A request that was admitted before it was written down is still under way.
    pub(super) fn hold(&mut self, permits: &[Permit]) {
        for Permit(key) in permits {
            self.slots.entry(*key).or_default().concurrent += 1;
        }
    }

    /// A request ended.
    pub(super) fn release(&mut self, permits: Vec<Permit>) {
        for Permit(key) in permits {
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.concurrent = slot.concurrent.saturating_sub(1);
            }
        }
    }
}

impl Slot {
    fn allows(&self, now: Instant, limit: &Share) -> Result<(), Duration> {
        if limit.concurrent > 0 && self.concurrent >= limit.concurrent {
            return Err(Duration::from_secs(1));
        }
        let ahead = self.due.saturating_sub(now.as_nanos()) + limit.apart;
        if ahead > limit.burst { Err(Duration::from_nanos(ahead - limit.burst)) } else { Ok(()) }
    }

    fn take(&mut self, now: Instant, limit: &Share) {
        if limit.apart > 0 {
            self.due = self.due.max(now.as_nanos()) + limit.apart;
        }
    }
}

/// One worker's share of a limit.
#[derive(Clone, Copy, Debug)]
struct Share {
    /// Nanoseconds between two requests at an even pace; 0: unlimited.
    apart: u64,
    /// By how many they may be ahead of it.
    burst: u64,
    /// Requests at one time; 0: unlimited.
    concurrent: u32,
}

impl Share {
    fn of(limit: &RateLimit, workers: u16) -> Self {
        let part = |whole: u32| whole.div_ceil(u32::from(workers.max(1)));
        let requests = part(limit.requests);
        let apart = if requests == 0 { 0 } else { (limit.per.as_nanos() as u64 / u64::from(requests)).max(1) };
        let burst = if limit.burst == 0 { requests } else { part(limit.burst) };
        Share { apart, burst: apart.saturating_mul(u64::from(burst)), concurrent: part(limit.concurrent) }
    }
}

fn key(hash: Keyed, (rule, number, limit): (&Rule, usize, &RateLimit), client: IpAddr, fields: &Fields<'_>) -> u64 {
    let mut hasher = hash.build_hasher();
    (&rule.route, &rule.spec.listener, number).hash(&mut hasher);
    match &limit.by {
        RateKey::Client => client.to_canonical().hash(&mut hasher),
        RateKey::Header(name) => {
            for value in fields.named(name.as_bytes()) {
                value.hash(&mut hasher);
            }
        }
        RateKey::Route => {}
    }
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use kakei_config::Route;

    use super::*;

    fn rule(limits: Vec<RateLimit>) -> Rule {
        Rule::compile(Some(&"r".into()), Route { rate_limits: limits, ..Route::default() })
    }

    fn admitted(rates: &mut Rates, rule: &Rule, ms: u64, client: &str) -> Result<Vec<Permit>, Duration> {
        let hash = Keyed::new(&mut fastrand::Rng::with_seed(1));
        let now = Instant::from_nanos(ms * 1_000_000);
        rates.admit(hash, now, (rule, client.parse().unwrap(), 1), &Fields::EMPTY)
    }

    #[test]
    fn each_client_has_its_own_pace() {
        let rule = rule(vec![RateLimit { requests: 10, ..RateLimit::default() }]);
        let mut rates = Rates::default();
        let passed = (0..50).filter(|_| admitted(&mut rates, &rule, 1_000, "192.0.2.1").is_ok()).count();
        assert_eq!(passed, 10);
        assert!(admitted(&mut rates, &rule, 1_000, "192.0.2.2").is_ok());
        assert_eq!(admitted(&mut rates, &rule, 1_000, "192.0.2.1"), Err(Duration::from_millis(100)));
        assert!(admitted(&mut rates, &rule, 1_100, "192.0.2.1").is_ok());
    }

    #[test]
    fn a_worker_has_its_share() {
        let limit = RateLimit { requests: 10, concurrent: 3, ..RateLimit::default() };
        let share = Share::of(&limit, 4);
        assert_eq!((share.apart, share.burst, share.concurrent), (333_333_333, 999_999_999, 1));
    }

    #[test]
    fn requests_at_one_time_are_given_back() {
        let rule = rule(vec![RateLimit { concurrent: 2, by: RateKey::Route, ..RateLimit::default() }]);
        let mut rates = Rates::default();
        let first = admitted(&mut rates, &rule, 0, "192.0.2.1").unwrap();
        let second = admitted(&mut rates, &rule, 0, "192.0.2.2").unwrap();
        assert!(admitted(&mut rates, &rule, 0, "192.0.2.3").is_err());
        rates.release(first);
        assert!(admitted(&mut rates, &rule, 0, "192.0.2.3").is_ok());
        assert!(admitted(&mut rates, &rule, 0, "192.0.2.3").is_err());
        rates.release(second);
    }

    #[test]
    fn a_flood_of_clients_takes_bounded_memory() {
        let rule = rule(vec![RateLimit { requests: 1, per: Duration::from_secs(3_600), ..RateLimit::default() }]);
        let mut rates = Rates::default();
        for number in 0..RATES as u32 + 1_000 {
            let client = std::net::Ipv4Addr::from(number).to_string();
            let _ = admitted(&mut rates, &rule, 5_000, &client);
        }
        assert!(rates.slots.len() <= RATES + 1, "{}", rates.slots.len());
    }
}
