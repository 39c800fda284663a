//! Drawn runs of streams. A failure names its seed; `run_streams(seed)` replays it.

use kakei_sim::{StreamCounters, run_streams};

fn all_are_clean(seeds: std::ops::Range<u64>) -> StreamCounters {
    let mut all = StreamCounters::default();
    let mut broken = Vec::new();
    for seed in seeds {
        let report = run_streams(seed);
        let counters = report.counters;
        all.completed += counters.completed;
        all.piped += counters.piped;
        all.blocked += counters.blocked;
        all.failed_connects += counters.failed_connects;
        all.resets += counters.resets;
        all.restores += counters.restores;
        all.shortages += counters.shortages;
        if !report.is_clean() && broken.len() < 5 {
            broken.push(format!("seed {}: {}", report.seed, report.violations.join("\n  ")));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    all
}

#[test]
fn bytes_reach_the_right_peer_in_order_and_end_as_they_should() {
    let counters = all_are_clean(0..150);
    assert!(counters.completed > 1_000 && counters.piped > 1 << 20 && counters.blocked > 1_000, "{counters:?}");
    assert!(counters.failed_connects > 100 && counters.resets > 500 && counters.shortages > 100, "{counters:?}");
    assert!(counters.restores > 1_000, "{counters:?}");
}

#[test]
fn further_seeds_are_clean() {
    all_are_clean(150..700);
}

#[test]
fn a_seed_of_streams_replays_to_the_bit() {
    let (once, again) = (run_streams(3), run_streams(3));
    assert_eq!(once.counters, again.counters);
    assert_eq!(once.violations, again.violations);
}
