//! Hashers that are seeded: keyed SipHash for what a peer chooses; a keyed hash that can't be forged for what a peer
//! is given, and gives back. Nothing here reads global randomness.

use std::hash::BuildHasher;

use blake2::digest::consts::U32;
use blake2::digest::{KeyInit, Mac};
use blake2::{Blake2b512, Blake2bMac, Digest};
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

/// Builds SipHash-1-3 with the worker's key, so that peers can't choose colliding keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// BLAKE2b (RFC 7693) under a key: who doesn't have the key can neither foretell a value nor find out what it is of.
#[derive(Clone)]
pub(crate) struct Seal([u8; 64]);

impl Seal {
    /// Under a secret of any length.
    pub(crate) fn of_secret(secret: &[u8]) -> Self {
        let digest = Blake2b512::digest(secret);
        Seal(digest.into())
    }

    /// The value of these parts, in this order.
    pub(crate) fn of(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = Blake2bMac::<U32>::new(&self.0.into());
        for part in parts {
            // With their lengths: no two lists of parts are the same bytes.
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_depends_on_its_key_and_on_each_part() {
        let seal = Seal::of_secret(b"sixteen bytes ok");
        assert_eq!(seal.of(&[b"a", b"b"]), Seal::of_secret(b"sixteen bytes ok").of(&[b"a", b"b"]));
        assert_ne!(seal.of(&[b"a", b"b"]), seal.of(&[b"ab", b""]));
        assert_ne!(seal.of(&[b"a", b"b"]), seal.of(&[b"a", b"c"]));
        assert_ne!(seal.of(&[b"a", b"b"]), Seal::of_secret(b"sixteen bytes no").of(&[b"a", b"b"]));
    }
}
