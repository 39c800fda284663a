//! Highest random weight (rendezvous), weighted: every member draws a number from a hash of the work and itself, and
//! the best draw wins. A change of one member moves only work to it or from it. Keeps no state. O(members).
//!
//! With u uniform in (0, 1), −ln(u) / w is the time of the first arrival at rate w, and the member whose arrival is
//! the first of all is each with probability w / Σw. (The score −w / ln(u) of the literature is its inverse.)

use xxhash_rust::xxh3::xxh3_64;

use super::Member;

#[derive(Clone, Debug)]
pub(super) struct Hrw {
    members: Vec<Member>,
}

impl Hrw {
    pub(super) fn new(members: &[Member]) -> Self {
        Hrw { members: members.to_vec() }
    }

    pub(super) fn pick(&self, affinity: u64) -> Option<usize> {
        let mut best: Option<(f64, u64, usize)> = None;
        for (at, member) in self.members.iter().enumerate() {
            let arrival = exponential(draw(affinity, member.identity)) / member.weight() as f64;
            let earlier = |&(time, identity, _): &(f64, u64, usize)| (arrival, member.identity) < (time, identity);
            if best.as_ref().is_none_or(earlier) {
                best = Some((arrival, member.identity, at));
            }
        }
        best.map(|(_, _, at)| at)
    }
}

fn draw(affinity: u64, identity: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&affinity.to_le_bytes());
    bytes[8..].copy_from_slice(&identity.to_le_bytes());
    xxh3_64(&bytes)
}

/// −ln(u) for the u in (0, 1) that the upper 52 bits of `hash` stand for.
///
/// Only IEEE 754 additions, multiplications and divisions: the logarithm of the platform's library may differ in the
/// last bit from one build to the next, and then two processes would disagree. With u = m · 2^e, m in [√½, √2) and
/// s = (m − 1) / (m + 1), ln(m) = 2 (s + s³/3 + s⁵/5 + …); |s| < 0.172, so the series is exact to 10⁻¹⁵ after s¹⁷.
fn exponential(hash: u64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    let u = ((hash >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
    let bits = u.to_bits();
    // 1 ≤ m < 2: the exponent field is replaced by that of 1.
    let (mut m, mut e) = (f64::from_bits(bits & MANTISSA | 1023 << 52), (bits >> 52) as i32 - 1023);
    if m >= std::f64::consts::SQRT_2 {
        (m, e) = (m / 2.0, e + 1);
    }
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let mut series = 0.0;
    for odd in [17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        series = series * square + 1.0 / odd;
    }
    -(2.0 * s * series + f64::from(e) * std::f64::consts::LN_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_one() {
        let mut rng = fastrand::Rng::with_seed(1);
        let edges = [0, u64::MAX, 1 << 63, (1 << 63) - 1, 1 << 12, 0xb504_f333_f9de_6484];
        for hash in edges.into_iter().chain(std::iter::repeat_with(|| rng.u64(..)).take(100_000)) {
            let u = ((hash >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
            let (ours, libm) = (exponential(hash), -u.ln());
            assert!(ours > 0.0 && (ours - libm).abs() <= libm * 4e-15, "{hash:#x}: {ours} for {libm}");
        }
    }

    /// Written down once: another result would send every client of a running proxy elsewhere.
    #[test]
    fn draws_never_change() {
        assert_eq!(draw(1, 2), 571_542_372_673_154_031);
        assert_eq!(exponential(0x1234_5678_9abc_def0).to_bits(), 4_613_135_077_908_436_562);
    }
}
