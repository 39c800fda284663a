//! A worker that is written down as text and read back by another one goes on without a difference that anybody sees.

use fastrand::Rng;
use kakei_sim::{Profile, run_profile};

#[test]
fn a_restored_worker_goes_on() {
    let mut restores = 0;
    for seed in 100..160 {
        let mut rng = Rng::with_seed(seed);
        let mut profile = if seed % 2 == 0 { Profile::calm(&mut rng) } else { Profile::storm(&mut rng) };
        profile.snapshots = 12;
        let report = run_profile(seed, &profile);
        assert!(report.is_clean(), "{report}");
        restores += report.counters.restores;
    }
    assert!(restores > 300, "{restores} restores");
}
