//! Where the bytes of a client and of a backend are cut makes no difference: drawn messages that are nearly right.

use kakei_sim::{Cuts, drawn_cuts};

fn all(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let cuts = drawn_cuts(seed);
        if let Err(wrong) = cuts.check() {
            let (client, backend) = (&cuts.client, &cuts.backend);
            panic!(
                "seed {seed}: {wrong}\n{}\n--\n{}",
                String::from_utf8_lossy(client),
                String::from_utf8_lossy(backend)
            );
        }
    }
}

#[test]
fn what_comes_of_requests_does_not_depend_on_where_they_were_cut() {
    all(0..6_000);
}

#[test]
fn any_bytes_are_read_as_a_case() {
    let data: Vec<u8> = (0..2_000u32).map(|at| (at * 7919 % 251) as u8).collect();
    for len in (0..data.len()).step_by(37) {
        if let Some(cuts) = Cuts::read(&data[..len]) {
            assert_eq!(cuts.check(), Ok(()));
        }
    }
}
