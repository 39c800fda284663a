//! Changes whose clusters worker 0 probes before they are published, in calm weather and in storms, through restores and
//! drains: nothing that runs notices, each candidate is told of while it counts and never after, and none leaves a socket.

use fastrand::Rng;
use kakei_sim::{Profile, run_profile};

#[test]
fn what_is_probed_before_it_is_published_touches_nothing() {
    let (mut probed, mut doubted, mut forwarded) = (0, 0, 0);
    for seed in 0..200 {
        let rng = &mut Rng::with_seed(seed);
        let mut profile = if seed % 2 == 0 { Profile::calm(rng) } else { Profile::storm(rng) };
        (profile.candidates, profile.changes) = (true, 12);
        let report = run_profile(seed, &profile);
        assert!(report.is_clean(), "{report}");
        probed += report.counters.candidates_probed;
        doubted += report.counters.doubted;
        forwarded += report.counters.requests_forwarded;
    }
    assert!(probed > 300 && doubted > 4 && forwarded > 10_000, "{probed} probes, {doubted} doubted, {forwarded}");
}
