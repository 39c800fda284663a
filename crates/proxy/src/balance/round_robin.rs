//! In turn, smoothly by weight: nginx's algorithm. Every pick raises each member's claim by its weight, takes the
//! highest and lowers that one by the total, so heavy members come often but never in a burst. Who may not be taken at a
//! pick has no part in it. O(members).

use super::Member;

#[derive(Clone, Debug)]
pub(super) struct RoundRobin {
    members: Vec<Claim>,
}

/// What a member has gained by waiting, or lost by being chosen. All claims of a set sum up to what they began with.
#[derive(Clone, Copy, Debug)]
struct Claim {
    identity: u64,
    weight: i64,
    claim: i64,
}

impl RoundRobin {
    pub(super) fn new(members: &[Member]) -> Self {
        let mut made = RoundRobin { members: Vec::new() };
        made.rebuild(members);
        made
    }

    /// A member keeps its claim, whatever place it has now. A claim is held to the new total: weights may have come
    /// down to another scale, and what was owed in the old one would be paid back for many turns.
    pub(super) fn rebuild(&mut self, members: &[Member]) {
        let mut old = std::mem::take(&mut self.members);
        old.sort_unstable_by_key(|claim| claim.identity);
        let claim_of = |identity| old.binary_search_by_key(&identity, |c| c.identity).map_or(0, |at| old[at].claim);
        let total: i64 = members.iter().map(|member| member.weight() as i64).sum();
        let claims = members.iter().map(|member| Claim {
            identity: member.identity,
            weight: member.weight() as i64,
            claim: claim_of(member.identity).clamp(-total, total),
        });
        self.members = claims.collect();
    }

    /// The first of those with the highest claim, of those that may be taken.
    pub(super) fn pick(&mut self, takes: impl Fn(usize) -> bool) -> Option<usize> {
        let (mut best, mut total): (Option<(usize, i64)>, i64) = (None, 0);
        for (at, member) in self.members.iter_mut().enumerate().filter(|(at, _)| takes(*at)) {
            member.claim += member.weight;
            total += member.weight;
            if best.is_none_or(|(_, highest)| member.claim > highest) {
                best = Some((at, member.claim));
            }
        }
        let (at, _) = best?;
        self.members[at].claim -= total;
        Some(at)
    }
}
