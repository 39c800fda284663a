//! Seeds that once found a bug in the proxy, each with what it was.

fn is_clean(seed: u64) {
    let report = kakei_sim::run(seed);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn shared_sockets_rest_after_a_restore_towards_every_backend() {
    [79, 89, 133, 158, 208, 243].into_iter().for_each(is_clean);
}

#[test]
fn a_removed_listener_keeps_its_trust_and_its_size_limit_through_a_restore() {
    [3775, 4530].into_iter().for_each(is_clean);
}

#[test]
fn a_drained_worker_that_is_restored_does_not_say_so_again() {
    is_clean(18_702);
}
