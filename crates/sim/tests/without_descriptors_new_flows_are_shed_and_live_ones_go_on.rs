//! A machine that can open no socket sheds new flows; what is alive goes on, and nothing is left behind.

use fastrand::Rng;
use kakei_sim::{Profile, run_profile};

#[test]
fn without_descriptors_new_flows_are_shed_and_live_ones_go_on() {
    let (mut refused, mut forwarded) = (0, 0);
    for seed in 200..240 {
        let mut profile = Profile::storm(&mut Rng::with_seed(seed));
        profile.machine.descriptor_bursts = 20;
        let report = run_profile(seed, &profile);
        assert!(report.is_clean(), "{report}");
        refused += report.counters.open_failures;
        forwarded += report.counters.requests_forwarded;
    }
    assert!(refused > 200 && forwarded > 2_000, "{refused} refused, {forwarded} forwarded");
}
