//! Changes that have to be confirmed, and are taken back by themselves otherwise: when their time is over, when too many
//! requests fail, or when too many backends are down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kakei_config::{Backend, Document, Name};
use kakei_proxy::snapshot::Generation;
use kakei_proxy::stats::{ListenerMetric, ListenerStats};
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};

use super::Owner;
use crate::events::What as Happened;
use crate::handle::{Change, Confirm, What};
use crate::history::Entry;
use crate::refusal::Refusal;
use crate::sums::Sums;
use crate::system::System;

/// How often a change that is watched is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Requests without which nothing is said of how many failed.
const REQUESTS: u64 = 20;

/// A generation that waits to be confirmed.
pub(super) struct Pending {
    entry: Entry,
    confirm: Confirm,
    /// What ran before.
    before: Arc<Document>,
    until: Instant,
    look: Instant,
    /// What was counted when it began.
    counted: Answers,
    /// Why it is to be taken back, where that was found out and could not be done so far.
    given_up: Option<String>,
    /// Why not, as it was said last.
    said: Option<String>,
}

impl Pending {
    fn new(entry: Entry, confirm: Confirm, before: Arc<Document>, counted: Answers) -> Pending {
        let now = Instant::now();
        let watched = confirm.errors.is_some() || confirm.unhealthy.is_some();
        let (until, look) = (now + confirm.within, now + if watched { LOOK } else { confirm.within });
        Pending { entry, confirm, before, until, look, counted, given_up: None, said: None }
    }
}

/// Requests that were answered, by listener: one that goes takes its own counts with it, and no others'.
#[derive(Clone, Debug, Default)]
struct Answers(BTreeMap<Name, Count>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    all: u64,
    /// With a status of 500 or more.
    failed: u64,
}

impl Answers {
    fn of(sums: &Sums) -> Self {
        let count = |(name, listener): (&Name, &ListenerStats)| {
            let failed = listener.values[ListenerMetric::Responses5xx];
            let others = [ListenerMetric::Responses2xx, ListenerMetric::Responses3xx, ListenerMetric::Responses4xx];
            let all = others.into_iter().map(|metric| listener.values[metric]).sum::<u64>() + failed;
            (name.clone(), Count { all, failed })
        };
        Answers(sums.listeners.iter().map(count).collect())
    }

    /// Those that came since then. A worker that was lost took its counts with it.
    fn since(&self, then: &Answers) -> Count {
        let mut since = Count::default();
        for (name, now) in &self.0 {
            let then = then.0.get(name).copied().unwrap_or_default();
            since.all += now.all.saturating_sub(then.all);
            since.failed += now.failed.saturating_sub(then.failed);
        }
        since
    }
}

/// Ready when a pending change is to be looked at; never where there is none.
pub(super) async fn due(pending: Option<&Pending>) {
    match pending {
        Some(pending) => sleep_until(pending.until.min(pending.look)).await,
        None => std::future::pending().await,
    }
}

impl<S: System> Owner<S> {
    /// While a change waits to be confirmed, none builds on it; going back ends the wait, for good: going back for a time
    /// only would end by what nobody confirmed.
    pub(super) fn mind_pending(&mut self, change: &Change) -> Result<(), Refusal> {
        let Some(pending) = &self.pending else { return Ok(()) };
        if change.dry_run || (matches!(change.what, What::Rollback(_)) && change.confirm.is_none()) {
            return Ok(());
        }
        let seconds = pending.until.saturating_duration_since(Instant::now()).as_secs();
        Err(Refusal::Unconfirmed { generation: pending.entry.generation.0, seconds })
    }

    /// A generation was published: what waits from now on, if it has to be confirmed.
    pub(super) async fn await_confirmation(&mut self, entry: &Entry, confirm: Option<Confirm>, before: Arc<Document>) {
        self.pending = None;
        let Some(confirm) = confirm else { return };
        let counted = match confirm.errors {
            Some(_) => Answers::of(&self.counters().await.sums),
            None => Answers::default(),
        };
        self.pending = Some(Pending::new(entry.clone(), confirm, before, counted));
    }

    /// The process was started again while this generation waited; what is counted began with it.
    pub(super) fn resume_confirmation(&mut self, entry: Entry, left: Duration, before: Document) {
        let confirm = Confirm { within: left, errors: entry.guard_errors, unhealthy: entry.guard_unhealthy };
        self.pending = Some(Pending::new(entry, confirm, Arc::new(before), Answers::default()));
    }

    /// What waits is to stay.
    pub(super) fn confirm(&mut self, generation: Option<Generation>) -> Result<Generation, Refusal> {
        let nothing = || Refusal::NothingToConfirm("nothing waits to be confirmed".to_owned());
        let pending = self.pending.as_mut().ok_or_else(nothing)?;
        let waits = pending.entry.generation;
        if let Some(other) = generation.filter(|generation| *generation != waits) {
            let said = format!("generation {} waits to be confirmed, not {}", waits.0, other.0);
            return Err(Refusal::NothingToConfirm(said));
        }
        let mut confirmed = pending.entry.clone();
        confirmed.stays();
        self.store.amend(&confirmed).map_err(|error| Refusal::State(error.to_string()))?;
        self.pending = None;
        if let Some(newest) = self.view.history.newest_mut().filter(|newest| newest.generation == waits) {
            newest.stays();
        }
        self.events.say(Happened::Confirmed { generation: waits });
        self.show();
        Ok(waits)
    }

    /// Look at the change that waits: whether it has to go.
    pub(super) async fn look_at_pending(&mut self) {
        let now = Instant::now();
        let Some(pending) = &mut self.pending else { return };
        pending.look = now + LOOK;
        let given_up = pending.given_up.take();
        let (generation, confirm, counted) = (pending.entry.generation, pending.confirm, pending.counted.clone());
        let why = match now >= pending.until {
            _ if given_up.is_some() => given_up,
            true => Some(format!("it was not confirmed within {} s", confirm.within.as_secs())),
            false => self.too_unhealthy(confirm).or(self.too_many_errors(confirm, &counted).await),
        };
        if let Some(why) = why {
            self.take_back(generation, &why).await;
        }
    }

    fn too_unhealthy(&self, confirm: Confirm) -> Option<String> {
        let most = u64::from(confirm.unhealthy?);
        let (mut all, mut down) = (0, 0);
        for (name, cluster) in self.view.resolved.clusters.iter().filter(|(_, cluster)| cluster.health.is_some()) {
            all += cluster.backends.len() as u64;
            let is_down = |backend: &&Backend| self.view.health.up(name, &backend.name) == Some(false);
            down += cluster.backends.iter().filter(is_down).count() as u64;
        }
        (all > 0 && down * 100 > most * all).then(|| format!("{down} of {all} checked backends are down"))
    }

    async fn too_many_errors(&mut self, confirm: Confirm, counted: &Answers) -> Option<String> {
        let most = u64::from(confirm.errors?);
        let Count { all, failed } = Answers::of(&self.counters().await.sums).since(counted);
        (all >= REQUESTS && failed * 100 > most * all).then(|| format!("{failed} of {all} requests failed"))
    }

    async fn take_back(&mut self, generation: Generation, why: &str) {
        let Some(pending) = self.pending.take() else { return };
        if pending.said.is_none() {
            warn!("generation {} is taken back: {why}", generation.0);
        }
        let mut change = Change::new(What::TakenBack(Arc::clone(&pending.before)), "rollback");
        change.asked.message = Some(format!("generation {} is taken back: {why}", generation.0));
        let (asked, record) = (change.asked.clone(), self.record(&change));
        let outcome = self.change(change).await;
        let said = outcome.as_ref().err().map(Refusal::in_words);
        // What keeps being refused is said once.
        let is_new = said.is_none() || said != pending.said;
        if is_new {
            self.write_down(&asked, record, &outcome);
        }
        match outcome {
            Ok(_) | Err(Refusal::Unacknowledged { .. }) => {}
            // Nothing changes any more in this process. It stands in the state that the time is over: the next start sees it.
            Err(Refusal::Draining) => warn!("generation {} can't be taken back while the proxy drains", generation.0),
            Err(_) => {
                if let Some(reason) = said.as_ref().filter(|_| is_new) {
                    error!("generation {} can't be taken back yet, it will be tried again: {reason}", generation.0);
                }
                let again = Instant::now() + LOOK;
                let given_up = Some(why.to_owned());
                self.pending = Some(Pending { until: again, look: again, given_up, said, ..pending });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_goes_takes_only_its_own_counts_along() {
        let of = |counts: &[(&str, u64, u64)]| {
            let count = |&(name, all, failed): &(&str, u64, u64)| (Name::new(name), Count { all, failed });
            Answers(counts.iter().map(count).collect())
        };
        let then = of(&[("gone", 10_000, 5_000), ("stays", 100, 1), ("lost", 50, 50)]);
        // One is new, one was counted by a worker that was lost.
        let now = of(&[("stays", 130, 26), ("new", 10, 5), ("lost", 3, 0)]);
        assert_eq!(now.since(&then), Count { all: 40, failed: 30 });
    }
}
