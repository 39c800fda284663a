//! Weights laid end to end on a line: a point on it belongs to a member, in proportion to its weight. Draws nothing.

use std::ops::Range;

use super::Member;

/// The line.
#[derive(Clone, Debug)]
pub(super) struct Shares {
    /// Where each member's stretch ends; the next one begins there.
    ends: Vec<u64>,
}

impl Shares {
    pub(super) fn new(members: &[Member]) -> Self {
        let mut end = 0;
        let ends = members.iter().map(|member| {
            end += member.weight();
            end
        });
        Shares { ends: ends.collect() }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The length of the line: all weights together.
    pub(super) fn total(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Whose stretch `point`, less than the total, lies on.
    pub(super) fn at(&self, point: u64) -> usize {
        debug_assert!(point < self.total(), "a point on the line");
        self.ends.partition_point(|&end| end <= point)
    }

    /// A member's stretch; as long as its weight.
    pub(super) fn stretch(&self, member: usize) -> Range<u64> {
        let start = if member == 0 { 0 } else { self.ends[member - 1] };
        start..self.ends[member]
    }
}
