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
use smallvec::SmallVec;

use super::asked::Metered;
use super::rule::Rule;
use crate::hash::Keyed;
use crate::limits::{RATES, SWEEP_AFTER};
use crate::seam::{Instant, RateUse, Used};

/// One of the requests at one time; given back when its exchange ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Permit(Key);

/// What a rate belongs to, as keyed hashes, which no peer can make collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
struct Key {
    /// A route's limit.
    limit: u64,
    /// The client or the value; 0: all together, of a limit that keeps nobody apart, or those there was no room for.
    who: u64,
}

/// A rate that is written down. Requests at one time are counted anew by those that are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RateState {
    key: Key,
    /// How far ahead of its pace it is.
    ahead: Duration,
}

/// Rates in use.
///
/// There is room for [`RATES`]. A limit takes at most as much of it as it leaves free, so that who fills one limit with
/// names leaves room to the others, whoever they are; who there is no room for shares a rate with those of the same limit.
#[derive(Clone, Debug, Default)]
pub(super) struct Rates {
    slots: HashMap<Key, Slot, FixedState>,
    /// How many each limit has.
    counts: HashMap<u64, usize, FixedState>,
    /// When those that are no longer in use were taken out. All of them are looked at for that, so not at each request.
    swept: Instant,
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
        let keys = limits.map(|(number, limit)| {
            let key = key(hash, (rule, number, limit), client, values(limit, fields));
            (key, Share::of(limit, workers))
        });
        let mut keys: SmallVec<[(Key, Share); 4]> = keys.collect();
        self.sweep(now, keys.len());
        for (key, limit) in &mut keys {
            if !self.has_room_for(*key) {
                key.who = 0;
            }
            if let Some(slot) = self.slots.get_mut(key) {
                slot.bound(now, limit);
                slot.allows(now, limit)?;
            }
        }
        let mut permits = Vec::new();
        for (key, limit) in keys {
            let slot = self.slot(key);
            slot.take(now, &limit);
            if limit.concurrent > 0 {
                slot.concurrent += 1;
                permits.push(Permit(key));
            }
        }
        Ok(permits)
    }

    /// Take out what is no longer in use, where room is needed.
    fn sweep(&mut self, now: Instant, needed: usize) {
        if !self.is_due(now, needed) {
            return;
        }
        self.swept = now;
        self.counts.clear();
        let counts = &mut self.counts;
        self.slots.retain(|key, slot| {
            let stays = slot.is_in_use(now);
            *counts.entry(key.limit).or_default() += usize::from(stays);
            stays
        });
        self.counts.retain(|_, count| *count > 0);
    }

    /// Whether so little room is left that a limit may be refused it, and some may have become free since the last look.
    fn is_due(&self, now: Instant, needed: usize) -> bool {
        self.slots.len() + needed >= RATES / 2 && now - self.swept >= SWEEP_AFTER
    }

    /// Whether it has a rate of its own, or gets one.
    fn has_room_for(&self, key: Key) -> bool {
        let count = self.counts.get(&key.limit).copied().unwrap_or(0);
        key.who == 0 || count < RATES.saturating_sub(self.slots.len()) || self.slots.contains_key(&key)
    }

    fn slot(&mut self, key: Key) -> &mut Slot {
        let counts = &mut self.counts;
        self.slots.entry(key).or_insert_with(|| {
            *counts.entry(key.limit).or_default() += 1;
            Slot::default()
        })
    }

    /// How much of each limit is used up, as `admit` would find it now. Changes nothing.
    pub(super) fn look(&self, hash: Keyed, now: Instant, of: &Metered) -> Vec<RateUse> {
        let limits = &of.rule.spec.rate_limits;
        let swept = self.is_due(now, limits.len()).then(|| {
            let mut swept = self.clone();
            swept.sweep(now, limits.len());
            swept
        });
        let rates = swept.as_ref().unwrap_or(self);
        let look = |(number, limit): (usize, &RateLimit)| {
            let values = of.values.get(number).into_iter().flatten().map(Vec::as_slice);
            let mut key = key(hash, (&of.rule, number, limit), of.client, values);
            let is_shared = !rates.has_room_for(key);
            if is_shared {
                key.who = 0;
            }
            let slot = rates.slots.get(&key).copied().unwrap_or_default();
            slot.used(now, (&Share::of(limit, of.workers), is_shared))
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
            self.slot(key).due = (now + ahead).as_nanos();
        }
    }

    /// A request that was admitted before it was written down is still under way.
    pub(super) fn hold(&mut self, permits: &[Permit]) {
        for Permit(key) in permits {
            self.slot(*key).concurrent += 1;
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

    /// Nobody gets further ahead of the pace than by the burst, but a limit may have been another one before.
    fn bound(&mut self, now: Instant, limit: &Share) {
        self.due = self.due.min(now.as_nanos().saturating_add(limit.burst));
    }

    /// By how much it is ahead of its pace.
    fn ahead(&self, now: Instant, limit: &Share) -> u64 {
        self.due.saturating_sub(now.as_nanos()).min(limit.burst)
    }

    fn allows(&self, now: Instant, limit: &Share) -> Result<(), Duration> {
        if limit.concurrent > 0 && self.concurrent >= limit.concurrent {
            return Err(Duration::from_secs(1));
        }
        let over = self.ahead(now, limit).saturating_sub(limit.burst - limit.apart);
        if over > 0 { Err(Duration::from_nanos(over)) } else { Ok(()) }
    }

    fn used(self, now: Instant, (limit, is_shared): (&Share, bool)) -> RateUse {
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let paced = (limit.apart > 0).then(|| {
            let ahead = self.ahead(now, limit);
            let (most, free) = (limit.burst / limit.apart, limit.burst.saturating_sub(ahead) / limit.apart);
            let next = ahead.saturating_sub(limit.burst - limit.apart);
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
            self.due = now.as_nanos().saturating_add(self.ahead(now, limit)).saturating_add(limit.apart);
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
        // At least one: what there is between two requests is no more than that.
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
) -> Key {
    let mut hasher = hash.build_hasher();
    (&rule.route, &rule.spec.listener, number).hash(&mut hasher);
    let key = Key { limit: hasher.finish(), who: 0 };
    match &limit.by {
        RateKey::Client => client.to_canonical().hash(&mut hasher),
        RateKey::Header(_) => values.for_each(|value| value.hash(&mut hasher)),
        RateKey::Route => return key,
    }
    Key { who: hasher.finish().max(1), ..key }
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
        rates.clone()
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
        assert!(rates.slots.len() <= RATES / 2 + 1, "{}", rates.slots.len());
        assert_eq!(rates.counts.values().sum::<usize>(), rates.slots.len());
    }

    #[test]
    fn who_fills_one_limit_closes_no_other_and_costs_no_look_at_all_of_it() {
        let limit = |by, per| RateLimit { requests: 1, per: Duration::from_secs(per), by, ..RateLimit::default() };
        let filled = rule(vec![limit(RateKey::Client, 3_600)]);
        let mut rates = Rates::default();
        let client = |number: u32| std::net::Ipv4Addr::from(number).to_string();
        for number in 0..RATES as u32 {
            let _ = admitted(&mut rates, &filled, 5_000, &client(number));
        }
        assert_eq!(admitted(&mut rates, &filled, 5_000, "2001:db8::1"), Err(Duration::from_secs(3_600)));
        let swept = rates.swept;
        let of_route = RateLimit { concurrent: 1, ..limit(RateKey::Route, 1) };
        let concurrent = RateLimit { requests: 0, ..of_route.clone() };
        for (name, limit) in [("a", of_route), ("b", concurrent), ("c", limit(RateKey::Client, 1))] {
            let rule = Rule::compile(Some(&name.into()), Route { rate_limits: vec![limit], ..Route::default() });
            for ms in [5_100, 6_200, 7_300] {
                let permits = admitted(&mut rates, &rule, ms, "192.0.2.1").expect("a limit of its own");
                assert!(admitted(&mut rates, &rule, ms, "192.0.2.1").is_err(), "{name}");
                rates.release(permits);
            }
        }
        // Looked at not at each request, but once a second.
        assert_eq!(swept, Instant::from_nanos(5_000_000_000));
        assert!(rates.swept >= Instant::from_nanos(7_000_000_000));
        let third = (0..RATES as u32).filter(|number| {
            let rule = Rule::compile(Some(&"d".into()), filled.spec.as_ref().clone());
            admitted(&mut rates, &rule, 7_400, &client(*number)).is_ok()
        });
        assert!(third.count() > RATES / 8, "half of what the first left free");
    }

    #[test]
    fn a_limit_that_became_another_one_holds_from_then_on() {
        let limit =
            |requests, per| rule(vec![RateLimit { requests, per: Duration::from_secs(per), ..RateLimit::default() }]);
        let mut rates = Rates::default();
        assert!(admitted(&mut rates, &limit(1, 3_600), 1_000, "192.0.2.1").is_ok());
        assert_eq!(admitted(&mut rates, &limit(1_000, 1), 1_000, "192.0.2.1"), Err(Duration::from_millis(1)));
        assert_eq!(look(&rates, &limit(1_000, 1), 1_000, "192.0.2.1")[0].paced.unwrap().used, 1_000);
        assert!(admitted(&mut rates, &limit(1_000, 1), 1_001, "192.0.2.1").is_ok());
        assert!(admitted(&mut rates, &limit(1_000, 1), 3_000, "192.0.2.1").is_ok());
    }

    #[test]
    fn the_longest_time_and_burst_are_a_limit_too() {
        let per = Duration::from_secs(87_600 * 3_600);
        let rule = rule(vec![RateLimit { requests: 1, burst: 100, per, by: RateKey::Route, ..RateLimit::default() }]);
        let mut rates = Rates::default();
        let passed = (0..1_000).filter(|_| admitted(&mut rates, &rule, 1_000, "192.0.2.1").is_ok()).count();
        assert!((1..=100).contains(&passed), "{passed}");
        look(&rates, &rule, 1_000, "192.0.2.1");
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
        // One limit has as many as it leaves free.
        for number in 0..RATES as u32 / 2 {
            assert!(admitted(&mut rates, &rule, 5_000, &client(number)).is_ok());
        }
        let used = |rates: &Rates, ms: u64, number: u32| {
            let seen = look(rates, &rule, ms, &client(number))[0];
            (seen.paced.unwrap().used, seen.is_shared)
        };
        let (first, second) = (RATES as u32 / 2, RATES as u32 / 2 + 1);
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
