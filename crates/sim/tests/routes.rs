//! The table of routes beside a naive matcher, over drawn documents and requests.

use kakei_sim::check_routes;

#[test]
fn every_request_takes_the_most_specific_route_that_matches() {
    let mut rng = fastrand::Rng::with_seed(71);
    let mut compared = 0;
    for number in 0..400 {
        let data: Vec<u8> = (0..400).map(|_| rng.u8(..)).collect();
        match check_routes(&data) {
            Ok(count) => compared += count,
            Err(wrong) => panic!("document {number}: {wrong}"),
        }
    }
    assert!(compared > 1_000, "{compared} requests were compared");
}
