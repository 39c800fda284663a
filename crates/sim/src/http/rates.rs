//! Whether rate limits hold, and whether what is said of them is so: by an account of its own of who passed when, from
//! records alone. Each worker keeps its share of a limit, rounded up.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use kakei_config::{Document, Name, RateKey, RateLimit};
use kakei_proxy::record::CloseReason;
use kakei_proxy::seam::{Instant, RateUse, Used};
use kakei_proxy::snapshot::{Imagined, Metered, Snapshot};

use super::documents::{KEY, KEYS};

/// A request that asked to pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    pub(super) worker: usize,
    pub(super) key: u64,
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) reason: CloseReason,
}

impl Pass {
    fn was_let_in(&self) -> bool {
        self.reason != CloseReason::RateLimited
    }
}

/// Whose rates an operator looks at: the route, and the value of the field that some limits go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Whose {
    route: &'static str,
    key: u64,
}

impl Whose {
    /// Everybody that there is.
    pub(super) fn all() -> impl Iterator<Item = Whose> {
        ["paced", "few"].into_iter().flat_map(|route| (0..KEYS).map(move |key| Whose { route, key }))
    }

    /// The request that is not sent.
    pub(super) fn metered(self, snapshot: &Snapshot) -> Option<Arc<Metered>> {
        let http = snapshot.listener(&Name::new("web"))?.http.as_ref()?;
        let (client, url) = (IpAddr::from([198, 51, 100, 7]), format!("http://a.test/{}/0", self.route));
        let fields = [(KEY.to_owned(), self.key.to_string())];
        http.decide(&Imagined { client, method: "GET", url: &url, fields: &fields }).metered
    }
}

/// What a worker said of a rate.
#[derive(Clone, Debug)]
struct Look {
    worker: usize,
    whose: Whose,
    at: Instant,
    said: RateUse,
}

/// Limits, and who asked to pass them.
#[derive(Debug, Default)]
pub(super) struct Rates {
    workers: u32,
    limits: BTreeMap<String, RateLimit>,
    passes: BTreeMap<String, Vec<Pass>>,
    looks: Vec<Look>,
}

impl Rates {
    pub(super) fn new(document: &Document, workers: u16) -> Self {
        let limited = document.routes.iter().filter_map(|(name, route)| {
            let limit = route.rate_limits.first()?;
            Some((name.as_str().to_owned(), limit.clone()))
        });
        Rates { workers: u32::from(workers), limits: limited.collect(), ..Rates::default() }
    }

    /// A worker was asked how much of a rate is used up.
    pub(super) fn looked(&mut self, at: Instant, worker: usize, whose: Whose, said: &[RateUse]) -> Result<(), String> {
        let &[said] = said else { return Err(format!("{whose:?} has one limit: {said:?}")) };
        self.looks.push(Look { worker, whose, at, said });
        Ok(())
    }

    pub(super) fn pass(&mut self, route: &str, pass: Pass) {
        if self.limits.contains_key(route) {
            self.passes.entry(route.to_owned()).or_default().push(pass);
        }
    }

    /// Everybody who was let in may have been, and everybody who wasn't may not.
    pub(super) fn check(&self, violations: &mut Vec<String>) {
        for (route, passes) in &self.passes {
            let Some(limit) = self.limits.get(route) else { continue };
            let mut by_slot: BTreeMap<(usize, u64), Vec<Pass>> = BTreeMap::new();
            for pass in passes {
                let key = if limit.by == RateKey::Route { 0 } else { pass.key };
                by_slot.entry((pass.worker, key)).or_default().push(*pass);
            }
            for mut passes in by_slot.into_values() {
                // Of one instant those come first who were let in.
                passes.sort_by_key(|pass| (pass.began, !pass.was_let_in()));
                let wrong = match limit.concurrent {
                    0 => self.check_pace(limit, &passes),
                    _ => check_concurrent(limit.concurrent.div_ceil(self.workers), &passes),
                };
                violations.extend(wrong.map(|wrong| format!("on {route}: {wrong}")));
            }
        }
        let wrong = self.looks.iter().filter(|look| !self.may_say(look));
        violations.extend(wrong.map(|look| format!("it isn't so: {look:?}")));
    }

    /// Whether what a worker said may be so: of those who came, or went, at the same instant it may have known or not.
    fn may_say(&self, look: &Look) -> bool {
        let Some(limit) = self.limits.get(look.whose.route) else { return false };
        let is_one = |pass: &&Pass| {
            let is_same = limit.by == RateKey::Route || pass.key == look.whose.key;
            pass.worker == look.worker && pass.was_let_in() && is_same
        };
        let passes: Vec<&Pass> = self.passes.get(look.whose.route).into_iter().flatten().filter(is_one).collect();
        let said = |paced, concurrent| look.said == RateUse { paced, concurrent, is_shared: false };
        if limit.concurrent > 0 {
            let most = limit.concurrent.div_ceil(self.workers);
            let surely = passes.iter().filter(|pass| pass.began < look.at && pass.ended > look.at).count();
            let perhaps = passes.iter().filter(|pass| pass.began <= look.at && pass.ended >= look.at).count();
            return (surely as u32..=perhaps as u32).any(|used| {
                let next = (used < most).then_some(Duration::ZERO);
                said(None, Some(Used { used, most, next }))
            });
        }
        let (apart, burst) = self.pace(limit);
        let mut before: Vec<Instant> = passes.iter().map(|pass| pass.began).filter(|began| *began < look.at).collect();
        before.sort_unstable();
        let (mut level, mut at) = (0u128, Instant::ZERO);
        for began in before {
            level = level.saturating_sub((began - at).as_nanos()) + apart;
            at = began;
        }
        level = level.saturating_sub((look.at - at).as_nanos());
        let (room, now) = (apart * u128::from(burst), passes.iter().filter(|pass| pass.began == look.at).count());
        (0..=now as u128).any(|now| {
            let level = level + apart * now;
            let used = burst - (room.saturating_sub(level) / apart) as u32;
            let next = Duration::from_nanos((level + apart).saturating_sub(room) as u64);
            said(Some(Used { used, most: burst, next: Some(next) }), None)
        })
    }

    /// Nanoseconds from one to the next, and how many may come at once.
    fn pace(&self, limit: &RateLimit) -> (u128, u32) {
        let requests = limit.requests.div_ceil(self.workers);
        let burst = if limit.burst == 0 { requests } else { limit.burst.div_ceil(self.workers) };
        (limit.per.as_nanos() / u128::from(requests), burst)
    }

    /// The generic cell rate algorithm (ITU-T I.371), as a leaky bucket of nanoseconds.
    fn check_pace(&self, limit: &RateLimit, passes: &[Pass]) -> Option<String> {
        let (apart, burst) = self.pace(limit);
        let room = apart * u128::from(burst);
        let (mut level, mut at) = (0u128, Instant::ZERO);
        for pass in passes {
            level = level.saturating_sub((pass.began - at).as_nanos());
            at = pass.began;
            if (level + apart <= room) != pass.was_let_in() {
                return Some(format!("{pass:?} with {level} of {room} ns filled, {apart} each"));
            }
            level += if pass.was_let_in() { apart } else { 0 };
        }
        None
    }
}

/// At an instant at which others end it may have been before or after them.
fn check_concurrent(most: u32, passes: &[Pass]) -> Option<String> {
    let wrong = passes.iter().enumerate().find(|(at, pass)| {
        let others = passes.iter().enumerate().filter(|(other, one)| other != at && one.was_let_in());
        let surely = others.clone().filter(|(_, one)| one.began < pass.began && one.ended > pass.began).count();
        let perhaps = others.filter(|(_, one)| one.began <= pass.began && one.ended >= pass.began).count();
        match pass.was_let_in() {
            true => surely >= most as usize,
            false => perhaps < most as usize,
        }
    });
    wrong.map(|(_, pass)| format!("{pass:?} with {most} at one time"))
}
