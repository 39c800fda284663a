//! Where nothing fails, every datagram of a live flow goes on, through forty changes of the configuration.

use fastrand::Rng;
use kakei_sim::{Profile, run_profile};

#[test]
fn a_change_loses_no_datagram_of_a_flow_it_does_not_touch() {
    let (mut forwarded, mut changes) = (0, 0);
    for seed in 0..40 {
        let mut profile = Profile::calm(&mut Rng::with_seed(seed));
        profile.changes = 40;
        let report = run_profile(seed, &profile);
        assert!(report.is_clean(), "{report}");
        forwarded += report.counters.requests_forwarded;
        changes += report.counters.changes;
    }
    assert!(forwarded > 2_000 && changes > 1_000, "{forwarded} datagrams, {changes} changes");
}
