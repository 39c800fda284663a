//! Hashers that are seeded: keyed SipHash for what a peer chooses. Nothing here reads global randomness.

use std::hash::BuildHasher;

use siphasher::sip::SipHasher13;

/// Builds SipHash-1-3 with the worker's key, so that peers can't choose colliding keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keyed(u64, u64);

impl Keyed {
    pub(crate) fn new(rng: &mut fastrand::Rng) -> Self {
        Keyed(rng.u64(..), rng.u64(..))
    }
}

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}
