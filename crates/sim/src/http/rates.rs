//! Whether rate limits hold: by an account of its own of who passed when, from records alone. Each worker keeps its share
//! of a limit, rounded up.

use std::collections::BTreeMap;

use kakei_config::{Document, RateKey, RateLimit};
use kakei_proxy::record::CloseReason;
use kakei_proxy::seam::Instant;

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

/// Limits, and who asked to pass them.
#[derive(Debug, Default)]
pub(super) struct Rates {
    workers: u32,
    limits: BTreeMap<String, RateLimit>,
    passes: BTreeMap<String, Vec<Pass>>,
}

impl Rates {
    pub(super) fn new(document: &Document, workers: u16) -> Self {
        let limited = document.routes.iter().filter_map(|(name, route)| {
            let limit = route.rate_limits.first()?;
            Some((name.as_str().to_owned(), limit.clone()))
        });
        Rates { workers: u32::from(workers), limits: limited.collect(), passes: BTreeMap::new() }
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
    }

    /// The generic cell rate algorithm (ITU-T I.371), as a leaky bucket of nanoseconds.
    fn check_pace(&self, limit: &RateLimit, passes: &[Pass]) -> Option<String> {
        let requests = limit.requests.div_ceil(self.workers);
        let apart = limit.per.as_nanos() / u128::from(requests);
        let burst = if limit.burst == 0 { requests } else { limit.burst.div_ceil(self.workers) };
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
