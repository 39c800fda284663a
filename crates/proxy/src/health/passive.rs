//! The network's errors about one backend's live traffic, counted in a row. Sends no probe.

use std::time::Duration;

use kakei_config::PassiveCheck;
use serde::{Deserialize, Serialize};

use crate::seam::Instant;

/// A backend's errors and its ejection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passive {
    /// Errors without a datagram from the backend between them.
    errors: u32,
    ejected_until: Option<Instant>,
}

/// [`Passive`] written down, with time left instead of a point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassiveState {
    /// Errors without a datagram from the backend between them.
    pub errors: u32,
    /// How much longer it stays ejected.
    pub ejected_for: Option<Duration>,
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
        *self = Passive { errors: 0, ejected_until: Some(now + check.eject) };
        self.ejected_until
    }

    /// A datagram from the backend: errors are counted from zero again. An ejection lasts its time nevertheless,
    /// since the datagram may be older than it.
    pub fn handle_datagram(&mut self) {
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

    /// Write it down.
    pub fn state(&self, now: Instant) -> PassiveState {
        PassiveState { errors: self.errors, ejected_for: self.ejected_until(now).map(|until| until - now) }
    }

    /// Go on from what was written down.
    pub fn restore(now: Instant, state: PassiveState) -> Self {
        Passive { errors: state.errors, ejected_until: state.ejected_for.map(|left| now + left) }
    }
}
