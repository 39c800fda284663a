//! Times of many events in little memory. Reads no clock.

/// Times in buckets an eighth of an octave wide.
pub(super) struct Delays(Vec<u64>);

impl Default for Delays {
    fn default() -> Delays {
        Delays::new()
    }
}

impl Delays {
    pub(super) fn new() -> Delays {
        Delays(vec![0; 64 * 8])
    }

    pub(super) fn add(&mut self, ns: u64) {
        let bucket = ((ns.max(1) as f64).log2() * 8.0) as usize;
        self.0[bucket.min(64 * 8 - 1)] += 1;
    }

    /// Take in what `other` has.
    pub(super) fn join(&mut self, other: &Delays) {
        self.0.iter_mut().zip(&other.0).for_each(|(here, there)| *here += there);
    }

    /// The upper edge of the bucket below which a share `q` of the times lies; 0 without any.
    pub(super) fn quantile(&self, q: f64) -> u64 {
        let total: u64 = self.0.iter().sum();
        let mut seen = 0;
        for (bucket, n) in self.0.iter().enumerate() {
            seen += n;
            if total > 0 && seen as f64 >= total as f64 * q {
                return ((bucket + 1) as f64 / 8.0).exp2() as u64;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_bucket() {
        let mut delays = Delays::new();
        (1..=1000u64).for_each(|us| delays.add(us * 1000));
        for (q, want) in [(0.5, 500_000.0), (0.99, 990_000.0)] {
            let got = delays.quantile(q) as f64;
            assert!(got / want > 0.9 && got / want < 1.1, "{q}: {got}");
        }
        assert_eq!(Delays::new().quantile(0.5), 0);
    }
}
