//! A listener under TLS, between clients whose bytes are let through in pieces, changed, dropped, doubled and invented: no
//! panic, no handshake that costs more than its limits, nothing behind it that no client said, no end that nobody said,
//! and everything ends.
#![no_main]

use kakei_fuzz::script::Script;
use kakei_fuzz::secured::Room;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut script = Script::new(data);
    let mut room = Room::new(&mut script);
    while !script.is_empty() {
        room.act(&mut script);
    }
    room.finish();
});
