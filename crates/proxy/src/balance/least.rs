//! The member with the least live work over weight. Remembers nothing between picks. O(members).

use super::{Member, less_loaded};

#[derive(Clone, Debug)]
pub(super) struct Least {
    weights: Vec<u64>,
}

impl Least {
    pub(super) fn new(members: &[Member]) -> Self {
        Least { weights: members.iter().map(|member| member.weight()).collect() }
    }

    /// Members that are loaded alike are drawn among by weight: each one met takes the place of those before it with
    /// the probability that its weight has among them.
    pub(super) fn pick(&self, live: impl Fn(usize) -> u32, rng: &mut fastrand::Rng) -> Option<usize> {
        let mut best_weight = *self.weights.first()?;
        let mut best_live = live(0);
        let (mut best, mut alike) = (0, best_weight);
        for (member, &weight) in self.weights.iter().enumerate().skip(1) {
            let work = live(member);
            if less_loaded(best_live, best_weight, work, weight) {
                continue;
            }
            let better = less_loaded(work, weight, best_live, best_weight);
            alike = if better { weight } else { alike + weight };
            if better || rng.u64(..alike) < weight {
                (best, best_live, best_weight) = (member, work, weight);
            }
        }
        Some(best)
    }
}
