//! What goes wrong with one backend's live traffic, counted in a row: each ejection in a row is twice as long as the
//! one before it. Sends no probe.

use std::time::Duration;

use kakei_config::PassiveCheck;
use serde::{Deserialize, Serialize};

use crate::seam::Instant;

/// A backend's errors and its ejection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passive {
    /// Errors without a success between them.
    errors: u32,
    /// When its last ejection ends, or ended.
    ejected_until: Option<Instant>,
    /// How long that one was.
    length: Duration,
}

/// [`Passive`] written down, with time left instead of a point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassiveState {
    /// Errors without a success between them.
    pub errors: u32,
    /// How much longer it stays ejected.
    pub ejected_for: Option<Duration>,
    /// Since when it isn't any more, where it was lately.
    #[serde(default)]
    pub ejected_ago: Option<Duration>,
    /// How long its last ejection was.
    #[serde(default)]
    pub length: Duration,
}

impl Passive {
    /// An error about the backend. Returns until when it is ejected where this error ejects it.
    /// While it is ejected errors count for nothing: what was sent before can't make it longer.
    pub fn handle_error(&mut self, now: Instant, check: &PassiveCheck) -> Option<Instant> {
        if self.is_ejected(now) {
            return None;
        }
        self.errors = self.errors.saturating_add(1);
        if self.errors < check.fall {
            return None;
        }
        let length = if self.is_in_a_row(now) { (self.length * 2).min(check.eject_max) } else { check.eject };
        *self = Passive { errors: 0, ejected_until: Some(now + length), length };
        self.ejected_until
    }

    /// Whether an ejection now would be one more in a row: the backend has worked for less long than it was ejected.
    fn is_in_a_row(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| now - until < self.length)
    }

    /// A datagram from the backend, or a connection to it that was opened: errors are counted from zero again. An
    /// ejection lasts its time nevertheless, since what is seen now may be older than it.
    pub fn handle_success(&mut self) {
        self.errors = 0;
    }

    /// Whether it is ejected.
    pub fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until(now).is_some()
    }

    /// When its ejection ends, if it is ejected.
    pub fn ejected_until(&self, now: Instant) -> Option<Instant> {
        self.ejected_until.filter(|&until| until > now)
    }

    /// When its last ejection ended, if it had one and that is over.
    pub fn ended(&self, now: Instant) -> Option<Instant> {
        self.ejected_until.filter(|&until| until <= now)
    }

    /// No ejection lasts for longer than this from now on.
    pub fn limit(&mut self, now: Instant, longest: Duration) {
        if let Some(until) = self.ejected_until(now) {
            self.ejected_until = Some(until.min(now + longest));
            self.length = self.length.min(longest);
        }
    }

    /// Write it down.
    pub fn state(&self, now: Instant) -> PassiveState {
        PassiveState {
            errors: self.errors,
            ejected_for: self.ejected_until(now).map(|until| until - now),
            ejected_ago: self.ejected_until.filter(|_| self.is_in_a_row(now)).map(|until| now - until),
            length: self.length,
        }
    }

    /// Go on from what was written down.
    pub fn restore(now: Instant, state: PassiveState) -> Self {
        let ended = state.ejected_ago.map(|ago| now.before(ago));
        let ejected_until = state.ejected_for.map(|left| now + left).or(ended);
        Passive { errors: state.errors, ejected_until, length: state.length }
    }
}
