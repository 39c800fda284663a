//! The same seed is the same run, down to the last datagram; another seed is another run.

use kakei_sim::{Options, run, run_document};

#[test]
fn a_seed_replays_to_the_bit() {
    let digests: Vec<u64> = (0..40).map(|seed| run(seed).digest).collect();
    for (seed, digest) in digests.iter().enumerate() {
        let again = run_document(None, seed as u64, &Options { profile: None, trace: true });
        assert_eq!(again.digest, *digest, "seed {seed}");
        assert!(!again.trace.is_empty());
    }
    let mut distinct = digests.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), digests.len());
}
