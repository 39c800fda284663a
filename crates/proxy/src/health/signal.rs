//! One kind of evidence about one backend: a verdict, and the results in a row that speak against it. Knows no time.

use serde::{Deserialize, Serialize};

/// Evidence of one kind. A fresh one says up: a backend is used until `fall` failures in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    up: bool,
    /// Results in a row against the verdict.
    against: u32,
}

impl Default for Signal {
    fn default() -> Self {
        Signal::of(true)
    }
}

impl Signal {
    /// Fresh evidence that says this.
    pub fn of(up: bool) -> Self {
        Signal { up, against: 0 }
    }

    /// The verdict.
    pub fn is_up(self) -> bool {
        self.up
    }

    /// A success; `Some(true)` where it is the `rise`-th in a row while down (0 counts as 1).
    pub fn handle_success(&mut self, rise: u32) -> Option<bool> {
        self.handle(true, rise)
    }

    /// A failure; `Some(false)` where it is the `fall`-th in a row while up (0 counts as 1).
    pub fn handle_failure(&mut self, fall: u32) -> Option<bool> {
        self.handle(false, fall)
    }

    fn handle(&mut self, says: bool, enough: u32) -> Option<bool> {
        if says == self.up {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        if self.against < enough {
            return None;
        }
        *self = Signal { up: says, against: 0 };
        Some(says)
    }
}
