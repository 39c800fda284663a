//! The less loaded of two different members drawn by weight. Remembers nothing between picks. O(log members).

use super::{Member, Shares, less_loaded};

#[derive(Clone, Debug)]
pub(super) struct P2c {
    shares: Shares,
}

impl P2c {
    pub(super) fn new(members: &[Member]) -> Self {
        P2c { shares: Shares::new(members) }
    }

    /// Where both are loaded alike the first drawn wins, so idle members are chosen by weight.
    pub(super) fn pick(&self, live: impl Fn(usize) -> u32, rng: &mut fastrand::Rng) -> Option<usize> {
        if self.shares.len() < 2 {
            return (self.shares.len() == 1).then_some(0);
        }
        let (first, second) = self.draw(rng);
        let weight = |member| {
            let stretch = self.shares.stretch(member);
            stretch.end - stretch.start
        };
        let second_wins = less_loaded(live(second), weight(second), live(first), weight(first));
        Some(if second_wins { second } else { first })
    }

    /// Two different members: the second is drawn from the line without the first one's stretch.
    fn draw(&self, rng: &mut fastrand::Rng) -> (usize, usize) {
        let total = self.shares.total();
        let first = self.shares.at(rng.u64(..total));
        let taken = self.shares.stretch(first);
        let length = taken.end - taken.start;
        let point = rng.u64(..total - length);
        let second = self.shares.at(if point < taken.start { point } else { point + length });
        (first, second)
    }
}
