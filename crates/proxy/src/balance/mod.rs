//! How a backend is chosen, for every protocol.

use kakei_config::Balance;

/// A backend that takes new work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// A stable hash of its identity, the same in every worker and process.
    pub identity: u64,
    /// Its share; never 0.
    pub weight: u32,
}

/// Chooses among members.
#[derive(Clone, Debug)]
pub struct Balancer {
    policy: Balance,
    members: Vec<Member>,
}

impl Balancer {
    /// A balancer over these members.
    pub fn new(policy: Balance, members: &[Member]) -> Self {
        Balancer { policy, members: members.to_vec() }
    }

    /// Go over to these members, keeping what can be kept.
    pub fn rebuild(&mut self, members: &[Member]) {
        self.members = members.to_vec();
    }

    /// The index of a member for work with this affinity hash, or none where there is no member.
    /// `live(i)` is the member's live work (flows, connections, requests).
    pub fn pick(&mut self, affinity: u64, live: impl Fn(usize) -> u32, rng: &mut fastrand::Rng) -> Option<usize> {
        let _ = (self.policy, live, rng);
        (!self.members.is_empty()).then(|| affinity as usize % self.members.len())
    }
}
