//! Maglev hashing: a table of slots, filled once for a set of members, looked up by the affinity hash. O(1) to pick;
//! the table is filled anew only when the members change, and only once somebody is to be picked: a change of very many
//! clusters, or their checks that fail together, fill none.
//!
//! Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), section 3.4: every
//! member has its own permutation of the slots and takes turns in claiming the next slot of it that is still free.
//! Weights set how often a member has its turn.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Member;

/// Slots of the table; prime, so that every step width visits all of them.
pub(super) const SLOTS: usize = 65_537;
/// A slot that nobody has claimed yet; also one more than the highest index of a member with slots.
const FREE: u16 = u16::MAX;

#[derive(Clone)]
pub(super) struct Maglev {
    members: Vec<Member>,
    /// The index of each slot's member; empty where there is no member, or nobody has been picked yet.
    slots: Vec<u16>,
}

impl Maglev {
    pub(super) fn new(members: &[Member]) -> Self {
        Maglev { members: members.to_vec(), slots: Vec::new() }
    }

    pub(super) fn rebuild(&mut self, members: &[Member]) {
        if self.members != members {
            *self = Maglev::new(members);
        }
    }

    pub(super) fn pick(&mut self, affinity: u64) -> Option<usize> {
        self.slots().get((affinity % SLOTS as u64) as usize).map(|&member| usize::from(member))
    }

    pub(super) fn slots(&mut self) -> &[u16] {
        if self.slots.is_empty() {
            self.slots = fill(&self.members);
        }
        &self.slots
    }
}

impl fmt::Debug for Maglev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maglev").field("members", &self.members).finish_non_exhaustive()
    }
}

/// A member's way through its permutation of the slots.
struct Walk {
    member: u16,
    next: usize,
    step: usize,
}

impl Walk {
    fn new(at: usize, member: Member) -> Self {
        let hash = |seed| xxh3_64_with_seed(&member.identity.to_le_bytes(), seed);
        let below = |hash: u64, bound: usize| (hash % bound as u64) as usize;
        Walk { member: at as u16, next: below(hash(1), SLOTS), step: below(hash(2), SLOTS - 1) + 1 }
    }

    fn claim(&mut self, slots: &mut [u16]) {
        while slots[self.next] != FREE {
            let next = self.next + self.step;
            self.next = if next < SLOTS { next } else { next - SLOTS };
        }
        slots[self.next] = self.member;
    }
}

/// The table of these members, the same in whatever order they come. Of more than 65,535 members the rest has no slot.
fn fill(members: &[Member]) -> Vec<u16> {
    let mut ranked: Vec<(usize, Member)> = members.iter().copied().enumerate().take(usize::from(FREE)).collect();
    if ranked.is_empty() {
        return Vec::new();
    }
    ranked.sort_unstable_by_key(|(_, member)| member.identity);
    let mut walks: Vec<Walk> = ranked.iter().map(|&(at, member)| Walk::new(at, member)).collect();
    let mut slots = vec![FREE; SLOTS];
    let weights: Vec<u64> = ranked.iter().map(|(_, member)| member.weight()).collect();
    if weights.iter().all(|weight| *weight == weights[0]) {
        // As `turns` would have it, without sorting.
        (0..SLOTS).for_each(|turn| walks[turn % weights.len()].claim(&mut slots));
    } else {
        let turns = turns(&weights).into_iter().take(SLOTS);
        turns.for_each(|turn| walks[usize::from(turn as u16)].claim(&mut slots));
    }
    slots
}

/// Every turn until the table is full, in order: when it is, in the upper 48 bits, and whose, in the lower 16.
/// A member of weight w has a turn every 1 / w, the first at half of that, so that its slots are its exact share,
/// rounded. Turns of one moment go by rank.
fn turns(weights: &[u64]) -> Vec<u64> {
    let total: u64 = weights.iter().sum();
    // The unit of time is a power of two, so that it seldom changes when the total does; the table is full at about 2^46.
    let unit = 1u128 << (30 + total.ilog2());
    let full = unit * SLOTS as u128 / u128::from(total);
    let mut turns = Vec::with_capacity(SLOTS + 2 * weights.len());
    for (rank, &weight) in weights.iter().enumerate() {
        let every = unit / u128::from(weight);
        let at_most = SLOTS as u128 * u128::from(weight) / u128::from(total) + 2;
        // A share of less than half a slot has its turn early enough to get one.
        let first = (every / 2).min(full / 2);
        let dues = (0..at_most).map(|turn| first + turn * every).take_while(|&due| due <= 2 * full);
        turns.extend(dues.map(|due| (due as u64) << 16 | rank as u64));
    }
    turns.sort_unstable();
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_one_weight_take_turns() {
        for (count, weight) in [(1, 1), (2, 256), (3, 100), (7, 1), (1_000, 65_536), (5_000, 3)] {
            let ranks = turns(&vec![weight; count]).into_iter().take(SLOTS).map(|turn| usize::from(turn as u16));
            assert!(ranks.eq((0..SLOTS).map(|turn| turn % count)), "{count} of {weight}");
        }
    }

    #[test]
    fn nothing_is_filled_before_somebody_is_picked() {
        let member = |identity| Member { identity, weight: 256 };
        let mut maglev = Maglev::new(&[member(1)]);
        maglev.rebuild(&[member(1), member(2)]);
        assert!(maglev.slots.is_empty());
        assert!(maglev.pick(7).is_some() && maglev.slots.len() == SLOTS);
        maglev.rebuild(&[member(1), member(2)]);
        assert_eq!(maglev.slots.len(), SLOTS, "the same members keep their table");
        maglev.rebuild(&[]);
        assert_eq!(maglev.pick(7), None);
    }
}
