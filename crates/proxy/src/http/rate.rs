//! How many requests may come in a time, and at one time: the generic cell rate algorithm (ITU-T I.371) for each route,
//! client or field value; and how much of that is used up. Bounded in memory; reads no clock.

use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use kakei_config::{RateKey, RateLimit};
use kakei_wire::message::Fields;
use serde::{Deserialize, Serialize};

use super::asked::Metered;
use super::rule::Rule;
use crate::hash::Keyed;
use crate::limits::RATES;
use crate::seam::{Instant, RateUse, Used};

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
            .map(|(number, limit)| {
                (key(hash, (rule, number, limit), client, values(limit, fields)), Share::of(limit, workers))
            })
            .collect();
        if self.slots.len() + keys.len() > RATES {
            self.slots.retain(|_, slot| slot.is_in_use(now));
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

    /// How much of each limit is used up, as `admit` would find it now. Changes nothing.
    pub(super) fn look(&self, hash: Keyed, now: Instant, of: &Metered) -> Vec<RateUse> {
        let limits = &of.rule.spec.rate_limits;
        let in_use = || self.slots.values().filter(|slot| slot.is_in_use(now)).count();
        let is_full = self.slots.len() + limits.len() > RATES && in_use() + limits.len() > RATES;
        let look = |(number, limit): (usize, &RateLimit)| {
            let values = of.values.get(number).into_iter().flatten().map(Vec::as_slice);
            let key = key(hash, (&of.rule, number, limit), of.client, values);
            let own = self.slots.get(&key).filter(|slot| slot.is_in_use(now));
            let is_shared = is_full && own.is_none();
            let slot = if is_shared { self.slots.get(&0) } else { own };
            slot.copied().unwrap_or_default().used(now, (&Share::of(limit, of.workers), is_shared))
        };
        limits.iter().enumerate().map(look).collect()
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
    /// Whether one that was made anew would say something else.
    fn is_in_use(&self, now: Instant) -> bool {
        self.concurrent > 0 || self.due > now.as_nanos()
    }

    fn allows(&self, now: Instant, limit: &Share) -> Result<(), Duration> {
        if limit.concurrent > 0 && self.concurrent >= limit.concurrent {
            return Err(Duration::from_secs(1));
        }
        let ahead = self.due.saturating_sub(now.as_nanos()) + limit.apart;
        if ahead > limit.burst { Err(Duration::from_nanos(ahead - limit.burst)) } else { Ok(()) }
    }

    fn used(self, now: Instant, (limit, is_shared): (&Share, bool)) -> RateUse {
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let paced = (limit.apart > 0).then(|| {
            let ahead = self.due.saturating_sub(now.as_nanos());
            let (most, free) = (limit.burst / limit.apart, limit.burst.saturating_sub(ahead) / limit.apart);
            let next = (ahead + limit.apart).saturating_sub(limit.burst);
            Used { used: small(most - free), most: small(most), next: Some(Duration::from_nanos(next)) }
        });
        let concurrent = (limit.concurrent > 0).then(|| {
            let next = (self.concurrent < limit.concurrent).then_some(Duration::ZERO);
            Used { used: self.concurrent, most: limit.concurrent, next }
        });
        RateUse { paced, concurrent, is_shared }
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

/// What a request says of itself that a limit goes by: the values of its field, if it goes by one.
pub(super) fn values<'a>(limit: &RateLimit, fields: &Fields<'a>) -> impl Iterator<Item = &'a [u8]> {
    let name = match &limit.by {
        RateKey::Header(name) => Some(name.as_bytes()),
        RateKey::Client | RateKey::Route => None,
    };
    name.into_iter().flat_map(move |name| fields.named(name))
}

/// Whether a field that says whose limit it is stands there more than once: which of its values a backend goes by nobody
/// knows, and each of them would be somebody else.
pub(super) fn is_ambiguous(rule: &Rule, fields: &Fields<'_>) -> bool {
    rule.spec.rate_limits.iter().any(|limit| values(limit, fields).nth(1).is_some())
}

fn key<'a>(
    hash: Keyed,
    (rule, number, limit): (&Rule, usize, &RateLimit),
    client: IpAddr,
    values: impl Iterator<Item = &'a [u8]>,
) -> u64 {
    let mut hasher = hash.build_hasher();
    (&rule.route, &rule.spec.listener, number).hash(&mut hasher);
    match &limit.by {
        RateKey::Client => client.to_canonical().hash(&mut hasher),
        RateKey::Header(_) => values.for_each(|value| value.hash(&mut hasher)),
        RateKey::Route => {}
    }
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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

    fn look(rates: &Rates, rule: &Rule, ms: u64, client: &str) -> Vec<RateUse> {
        let hash = Keyed::new(&mut fastrand::Rng::with_seed(1));
        let (rule, client) = (Arc::new(rule.clone()), client.parse().unwrap());
        let metered = Metered { rule, workers: 1, client, values: Vec::new() };
        rates.look(hash, Instant::from_nanos(ms * 1_000_000), &metered)
    }

    fn copy(rates: &Rates) -> Rates {
        Rates { slots: rates.slots.clone() }
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

    #[test]
    fn a_look_says_what_the_next_requests_get_and_changes_nothing() {
        let limits = [
            RateLimit { requests: 10, burst: 4, ..RateLimit::default() },
            RateLimit { requests: 7, concurrent: 3, by: RateKey::Route, ..RateLimit::default() },
            RateLimit { concurrent: 2, by: RateKey::Header("x-key".into()), ..RateLimit::default() },
        ];
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut refused, mut passed) = (0, 0);
        for number in 0..8 {
            let some = limits.iter().enumerate().filter(|(at, _)| number & 1 << at != 0);
            let rule = rule(some.map(|(_, limit)| limit.clone()).collect());
            let (mut rates, mut held, mut ms) = (Rates::default(), Vec::new(), 1_000);
            for _ in 0..400 {
                ms += rng.u64(0..60);
                let client = ["192.0.2.1", "192.0.2.2"][rng.usize(0..2)];
                let before = format!("{:?}", rates.slots);
                let seen = look(&rates, &rule, ms, client);
                assert_eq!(format!("{:?}", rates.slots), before);
                let all: Vec<Used> = seen.iter().flat_map(|seen| [seen.concurrent, seen.paced]).flatten().collect();
                let mut another = copy(&rates);
                let most = all.iter().map(|used| used.most - used.used).min().unwrap_or(99);
                let free = (0..99).take_while(|_| admitted(&mut another, &rule, ms, client).is_ok()).count();
                assert_eq!(free, most as usize, "{seen:?}");
                let bound = all.iter().find(|used| used.next != Some(Duration::ZERO));
                let got = admitted(&mut rates, &rule, ms, client);
                let wait = bound.map(|used| used.next.unwrap_or(Duration::from_secs(1)));
                assert_eq!(wait, got.as_ref().err().copied(), "{seen:?}");
                passed += usize::from(got.is_ok());
                refused += usize::from(got.is_err());
                held.extend(got);
                if rng.bool() && !held.is_empty() {
                    rates.release(held.swap_remove(rng.usize(0..held.len())));
                }
            }
        }
        assert!(refused > 500 && passed > 500, "{refused} {passed}");
    }

    #[test]
    fn a_look_tells_who_shares_a_rate_for_want_of_room() {
        let limit = |per| RateLimit { requests: 1, per: Duration::from_secs(per), ..RateLimit::default() };
        let rule = rule(vec![limit(3_600)]);
        let mut rates = Rates::default();
        let client = |number: u32| std::net::Ipv4Addr::from(number).to_string();
        for number in 0..RATES as u32 {
            assert!(admitted(&mut rates, &rule, 5_000, &client(number)).is_ok());
        }
        let used = |rates: &Rates, ms: u64, number: u32| {
            let seen = look(rates, &rule, ms, &client(number))[0];
            (seen.paced.unwrap().used, seen.is_shared)
        };
        let (first, second) = (RATES as u32, RATES as u32 + 1);
        assert_eq!((used(&rates, 5_000, 0), used(&rates, 5_000, first)), ((1, false), (0, true)));
        assert!(admitted(&mut rates, &rule, 5_000, &client(first)).is_ok());
        assert_eq!(used(&rates, 5_000, second), (1, true));
        assert!(admitted(&mut rates, &rule, 5_000, &client(second)).is_err());
        // An hour later there is room, which a look doesn't make.
        let count = rates.slots.len();
        assert_eq!((used(&rates, 3_605_000, second), rates.slots.len()), ((0, false), count));
        assert!(admitted(&mut rates, &rule, 3_605_000, &client(second)).is_ok());
        assert_eq!(rates.slots.len(), 1);
    }
}
