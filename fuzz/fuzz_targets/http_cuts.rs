//! A whole HTTP worker between a client and a backend whose bytes are arbitrary: where they are cut makes no difference.
#![no_main]

use kakei_sim::Cuts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(cuts) = Cuts::read(data)
        && let Err(wrong) = cuts.check()
    {
        panic!("{wrong}");
    }
});
