//! Drawn runs of HTTP. A failure names its seed; `run_http(seed)` replays it.

use kakei_sim::{HttpCounters, HttpReport, run_http, run_http_crowded, run_http_guarded, run_http_unwatched};

fn all_are_clean(seeds: std::ops::Range<u64>, run: fn(u64) -> HttpReport) -> HttpCounters {
    let mut all = HttpCounters::default();
    let mut broken = Vec::new();
    for seed in seeds {
        let report = run(seed);
        let counters = report.counters;
        all.clients += counters.clients;
        all.answered += counters.answered;
        all.errors += counters.errors;
        all.seen += counters.seen;
        all.reused += counters.reused;
        all.blocked += counters.blocked;
        all.failed_connects += counters.failed_connects;
        all.resets += counters.resets;
        all.changes += counters.changes;
        all.upgraded += counters.upgraded;
        all.repeated += counters.repeated;
        all.restores += counters.restores;
        all.limited += counters.limited;
        all.passed += counters.passed;
        all.stopped += counters.stopped;
        all.questions += counters.questions;
        all.passwords += counters.passwords;
        all.looks += counters.looks;
        if !report.is_clean() && broken.len() < 5 {
            let first: String = report.violations[0].chars().take(600).collect();
            broken.push(format!("seed {}: {first}", report.seed));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    all
}

#[test]
fn every_answer_reaches_the_request_that_it_is_for() {
    let counters = all_are_clean(0..150, run_http);
    assert!(counters.answered > 5_000 && counters.reused > 1_000 && counters.blocked > 1_000, "{counters:?}");
    assert!(counters.errors > 300 && counters.resets > 100 && counters.failed_connects > 100, "{counters:?}");
    assert!(counters.changes > 500 && counters.upgraded > 100 && counters.repeated > 50, "{counters:?}");
    assert!(counters.restores > 1_000 && counters.limited > 50 && counters.looks > 10_000, "{counters:?}");
}

#[test]
fn further_seeds_are_clean() {
    all_are_clean(150..600, run_http);
}

#[test]
fn what_is_upgraded_in_its_last_step_ends_in_order_only_behind_all_of_the_answer() {
    all_are_clean(878..879, run_http);
}

#[test]
fn nobody_passes_who_may_not_and_everybody_else_does() {
    let counters = all_are_clean(0..300, run_http_guarded);
    assert!(counters.passed > 3_000 && counters.stopped > 3_000, "{counters:?}");
    assert!(counters.questions > 3_000 && counters.passwords > 3_000 && counters.restores > 2_000, "{counters:?}");
}

#[test]
fn a_look_at_rates_changes_nothing() {
    for seed in 0..40 {
        let (watched, unwatched) = (run_http(seed), run_http_unwatched(seed));
        let counters = HttpCounters { looks: 0, ..watched.counters };
        assert!(watched.counters.looks > 0 && counters == unwatched.counters, "seed {seed}: {watched:?} {unwatched:?}");
    }
}

#[test]
fn what_is_read_ahead_among_very_many_routes_changes_nothing() {
    for seed in 0..12 {
        let (alone, crowded) = (run_http(seed), run_http_crowded(seed));
        assert!(alone.counters == crowded.counters && crowded.is_clean(), "seed {seed}: {alone:?} {crowded:?}");
    }
}

#[test]
fn a_seed_of_http_replays_to_the_bit() {
    let (once, again) = (run_http(3), run_http(3));
    assert_eq!(once.counters, again.counters);
    assert_eq!(once.violations, again.violations);
}
