//! The table of routes beside a naive matcher, over documents and requests drawn from arbitrary bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Err(wrong) = kakei_sim::check_routes(data) {
        panic!("{wrong}");
    }
});
