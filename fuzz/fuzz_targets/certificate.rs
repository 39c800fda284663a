//! Certificates from arbitrary bytes: no panic, and what comes out is printable and no larger than it may be.
#![no_main]

use kakei_wire::certificate::subject;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(subject) = subject(data) else { return };
    let all = [subject.name, subject.alternative.concat()].concat();
    assert!(all.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{all:?}");
    assert!(all.len() <= 8 * data.len() + 64, "{} bytes out of {}", all.len(), data.len());
});
