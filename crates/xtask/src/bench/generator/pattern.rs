//! Bytes that a body or a stream is made of: a shift, a loss and a repetition show.

/// The pattern's length: a prime, so that no buffer's size hides a shift.
const PERIOD: usize = 65_521;
/// How much one write offers and one read takes.
pub(in crate::bench) const CHUNK: usize = 256 << 10;
/// Of so many reads one is looked at: copying all would make the generator the bottleneck.
pub(in crate::bench) const LOOKED_AT: u64 = 32;

pub(in crate::bench) struct Pattern(Vec<u8>);

impl Pattern {
    pub(in crate::bench) fn new() -> Pattern {
        let mut state = 1u32;
        let mut byte = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        };
        let mut bytes: Vec<u8> = (0..PERIOD).map(|_| byte()).collect();
        // Any chunk of it lies in one piece.
        (0..CHUNK).for_each(|at| bytes.push(bytes[at]));
        Pattern(bytes)
    }

    /// What follows the first `at` bytes, `CHUNK` of it.
    pub(in crate::bench) fn from(&self, at: u64) -> &[u8] {
        &self.0[(at % PERIOD as u64) as usize..][..CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_by_any_distance_shows() {
        let pattern = Pattern::new();
        for shift in 1..2000 {
            assert_ne!(pattern.from(0)[..64], pattern.from(shift)[..64], "{shift}");
        }
        assert_eq!(pattern.from(PERIOD as u64), pattern.from(0));
    }
}
