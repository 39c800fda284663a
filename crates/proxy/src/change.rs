//! What can be changed under something alive, for every protocol. Decides nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::seam::Instant;

/// What was changed under something alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    /// Its backend is gone from the configuration.
    BackendRemoved,
    /// Its backend was found down.
    BackendDown,
    /// Its route is gone, or leads elsewhere.
    RouteChanged,
    /// Where it arrived nobody is let in any more.
    Drained,
}

/// A deadline that a change has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drain {
    pub(crate) until: Instant,
    pub(crate) change: Change,
}

/// The deadlines that changes have set, at most one for each of them: whoever stands on several things may lose one that
/// another one had come before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drains(Box<[Drain]>);

impl Drains {
    /// One more, unless the same change has set an earlier one; whether it was set.
    pub(crate) fn set(&mut self, drain: Drain) -> bool {
        let is_same = |known: &&mut Drain| known.change == drain.change;
        match self.0.iter_mut().find(is_same) {
            Some(known) if known.until <= drain.until => return false,
            Some(known) => known.until = drain.until,
            None => self.0 = self.0.iter().copied().chain([drain]).collect(),
        }
        true
    }

    /// What was changed is as it was: nobody ends by that any more.
    pub(crate) fn take_back(&mut self, change: Change) {
        if self.has(change) {
            self.0 = self.0.iter().copied().filter(|drain| drain.change != change).collect();
        }
    }

    /// The backend that it was about was left.
    pub(crate) fn leave_backend(&mut self) {
        self.take_back(Change::BackendRemoved);
        self.take_back(Change::BackendDown);
    }

    /// None of them comes before that.
    pub(crate) fn put_off(&mut self, until: Instant) {
        self.0.iter_mut().for_each(|drain| drain.until = drain.until.max(until));
    }

    /// The one that comes first.
    pub(crate) fn first(&self) -> Option<Drain> {
        self.0.iter().copied().min_by_key(|drain| drain.until)
    }

    /// Whether this change has set one.
    pub(crate) fn has(&self, change: Change) -> bool {
        self.0.iter().any(|drain| drain.change == change)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Written down, with the time that is left.
    pub(crate) fn state(&self, now: Instant) -> Vec<(Duration, Change)> {
        self.0.iter().map(|drain| (drain.until - now, drain.change)).collect()
    }

    /// Read back.
    pub(crate) fn restore(state: Vec<(Duration, Change)>, now: Instant) -> Self {
        Drains(state.into_iter().map(|(left, change)| Drain { until: now + left, change }).collect())
    }
}
