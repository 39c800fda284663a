//! At random, by weight. Remembers nothing between picks. O(log members).

use super::{Member, Shares};

#[derive(Clone, Debug)]
pub(super) struct Random {
    shares: Shares,
}

impl Random {
    pub(super) fn new(members: &[Member]) -> Self {
        Random { shares: Shares::new(members) }
    }

    pub(super) fn pick(&self, rng: &mut fastrand::Rng) -> Option<usize> {
        let total = self.shares.total();
        (total > 0).then(|| self.shares.at(rng.u64(..total)))
    }
}
