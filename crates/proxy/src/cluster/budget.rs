//! How many further tries of requests a cluster may be burdened with: a share of what is asked of it, so that retries
//! can't multiply the load on backends that are failing. Reads no clock.

use serde::{Deserialize, Serialize};

/// What one further try costs.
const TRY: u32 = 100;
/// Tries that are allowed whatever was asked before.
const ALWAYS: u32 = 10 * TRY;
/// What can be saved up.
const MOST: u32 = 1_000 * TRY;

/// A budget of further tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Budget(u32);

impl Default for Budget {
    fn default() -> Self {
        Budget(ALWAYS)
    }
}

impl Budget {
    /// A request came; so many in a hundred may be tried again.
    pub(crate) fn earn(&mut self, percent: u32) {
        self.0 = self.0.saturating_add(percent).min(MOST);
    }

    /// Whether one may be tried again.
    pub(crate) fn has(&self) -> bool {
        self.0 >= TRY
    }

    /// Whether one may be tried again, which is taken off then.
    pub(crate) fn spend(&mut self) -> bool {
        let left = self.0.checked_sub(TRY);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_a_share_of_requests() {
        let mut budget = Budget::default();
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10, "what is always allowed");
        let tried = (0..1_000)
            .filter(|_| {
                budget.earn(20);
                budget.spend()
            })
            .count();
        assert_eq!(tried, 200);
    }
}
