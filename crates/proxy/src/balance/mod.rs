//! How a backend is chosen, for every protocol. Knows weights, live work and a hash; never what a backend is, whether
//! it is up, or what the work means: the caller hands in those that may be chosen.
//!
//! Weights are relative to each other, so a caller that needs fractions of one multiplies all of them. No policy
//! allocates in [`Balancer::pick`].

mod hrw;
mod least;
mod maglev;
mod p2c;
mod random;
mod round_robin;
mod shares;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use kakei_config::{Affinity, Balance};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use self::hrw::Hrw;
use self::least::Least;
use self::maglev::Maglev;
use self::p2c::P2c;
use self::random::Random;
use self::round_robin::RoundRobin;
use self::shares::Shares;

/// A backend that takes new work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// A stable hash of its identity, the same in every worker and process ([`identity`]). No two members share one.
    pub identity: u64,
    /// Its share; never 0.
    pub weight: u32,
}

impl Member {
    /// The weight, widened for arithmetic.
    fn weight(self) -> u64 {
        debug_assert!(self.weight > 0, "who takes no work is no member");
        u64::from(self.weight.max(1))
    }
}

/// Chooses among members.
#[derive(Clone, Debug)]
pub struct Balancer(Policy);

#[derive(Clone, Debug)]
enum Policy {
    RoundRobin(RoundRobin),
    Random(Random),
    Least(Least),
    P2c(P2c),
    Hrw(Hrw),
    Maglev(Maglev),
}

impl Balancer {
    /// A balancer over these members.
    pub fn new(policy: Balance, members: &[Member]) -> Self {
        Balancer(match policy {
            Balance::RoundRobin => Policy::RoundRobin(RoundRobin::new(members)),
            Balance::Random => Policy::Random(Random::new(members)),
            Balance::Least => Policy::Least(Least::new(members)),
            Balance::P2c => Policy::P2c(P2c::new(members)),
            Balance::Hrw => Policy::Hrw(Hrw::new(members)),
            Balance::Maglev => Policy::Maglev(Maglev::new(members)),
        })
    }

    /// Go over to these members, keeping what can be kept: whose turn it is stays with an identity, and the same
    /// members as before change nothing.
    pub fn rebuild(&mut self, members: &[Member]) {
        match &mut self.0 {
            Policy::RoundRobin(policy) => policy.rebuild(members),
            Policy::Random(policy) => *policy = Random::new(members),
            Policy::Least(policy) => *policy = Least::new(members),
            Policy::P2c(policy) => *policy = P2c::new(members),
            Policy::Hrw(policy) => *policy = Hrw::new(members),
            Policy::Maglev(policy) => policy.rebuild(members),
        }
    }

    /// The index of a member for work with this affinity hash, or none where there is no member.
    /// `live(i)` is the member's live work (flows, connections, requests).
    pub fn pick(&mut self, affinity: u64, live: impl Fn(usize) -> u32, rng: &mut fastrand::Rng) -> Option<usize> {
        match &mut self.0 {
            Policy::RoundRobin(policy) => policy.pick(|_| true),
            Policy::Random(policy) => policy.pick(rng),
            Policy::Least(policy) => policy.pick(live, rng),
            Policy::P2c(policy) => policy.pick(live, rng),
            Policy::Hrw(policy) => policy.pick(affinity),
            Policy::Maglev(policy) => policy.pick(affinity),
        }
    }

    /// The index of the member whose turn it is of those that `takes` names, under a policy of turns; none under every
    /// other policy, and where nobody is named.
    pub fn pick_in_turn(&mut self, takes: impl Fn(usize) -> bool) -> Option<usize> {
        match &mut self.0 {
            Policy::RoundRobin(policy) => policy.pick(takes),
            _ => None,
        }
    }
}

/// The index of the member that work with this affinity hash always goes to, under a policy that decides by nothing
/// else; none under every other policy.
pub fn settled(policy: Balance, members: &[Member], affinity: u64) -> Option<usize> {
    match policy {
        Balance::Hrw => Hrw::new(members).pick(affinity),
        Balance::Maglev => Maglev::new(members).pick(affinity),
        Balance::RoundRobin | Balance::Random | Balance::Least | Balance::P2c => None,
    }
}

/// [`Member::identity`] of a name.
pub fn identity(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

/// A hash of what should stay on one backend, alike in every worker and process that has the same seed.
pub fn affinity(seed: u64, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, seed)
}

/// [`affinity`] of a client. A v4-mapped client is the IPv4 client that it stands for.
pub fn source_affinity(seed: u64, kind: Affinity, client: SocketAddr) -> u64 {
    let mut bytes = [0; 18];
    let ip = match client.ip().to_canonical() {
        IpAddr::V4(v4) => {
            bytes[..4].copy_from_slice(&v4.octets());
            4
        }
        IpAddr::V6(v6) => {
            bytes[..16].copy_from_slice(&v6.octets());
            16
        }
    };
    match kind {
        Affinity::SourceIp => affinity(seed, &bytes[..ip]),
        Affinity::SourceIpPort => {
            bytes[ip..ip + 2].copy_from_slice(&client.port().to_be_bytes());
            affinity(seed, &bytes[..ip + 2])
        }
    }
}

/// Whether `live` work at `weight` is less load than `than_live` at `than_weight`, without a division.
fn less_loaded(live: u32, weight: u64, than_live: u32, than_weight: u64) -> bool {
    u64::from(live) * than_weight < u64::from(than_live) * weight
}
