//! Thousands of drawn runs, a range for each test so that they run side by side. A failure prints the run and the
//! command that replays it.

fn all_are_clean(seeds: std::ops::Range<u64>) {
    let broken: Vec<String> = seeds
        .map(kakei_sim::run)
        .filter(|report| !report.is_clean())
        .take(3)
        .map(|report| report.to_string())
        .collect();
    assert!(broken.is_empty(), "replay with `kakei sim --seed N -v`\n{}", broken.join("\n"));
}

#[test]
fn seeds_0_to_599_keep_the_contract() {
    all_are_clean(0..600);
}

#[test]
fn seeds_600_to_1199_keep_the_contract() {
    all_are_clean(600..1_200);
}

#[test]
fn seeds_1200_to_1799_keep_the_contract() {
    all_are_clean(1_200..1_800);
}

#[test]
fn seeds_1800_to_2399_keep_the_contract() {
    all_are_clean(1_800..2_400);
}
