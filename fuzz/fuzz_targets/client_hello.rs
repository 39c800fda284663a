//! ClientHellos from arbitrary bytes, dripping in: no panic, and what a part said the whole does not take back.
#![no_main]

use kakei_wire::client_hello::{self, Reading};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    check(data);
    // Few inputs are a record with a handshake message by themselves.
    if let Ok(length) = u16::try_from(data.len()) {
        check(&[&[22, 3, 1], &length.to_be_bytes()[..], data].concat());
        let body = [&[1, 0], &length.to_be_bytes()[..], data].concat();
        if let Ok(length) = u16::try_from(body.len()) {
            check(&[&[22, 3, 1], &length.to_be_bytes()[..], &body].concat());
        }
    }
});

fn check(bytes: &[u8]) {
    let whole = client_hello::parse(bytes);
    let mut said = false;
    for cut in (0..bytes.len()).step_by(1 + bytes.len() / 48) {
        match client_hello::parse(&bytes[..cut]) {
            Ok(Reading::More) => assert!(!said, "more was asked for after something was said"),
            part => {
                // What is wrong may be said in other words when more is seen.
                let is_same = part == whole || (part.is_err() && whole.is_err());
                assert!(is_same, "what was said is taken back: {part:?}, {whole:?}");
                said = true;
            }
        }
    }
    if let Ok(Reading::Hello(hello)) = whole {
        let name = hello.server_name.unwrap_or_default();
        assert!(name.len() <= 253 && !name.ends_with('.') && name == name.to_ascii_lowercase(), "{name:?}");
    }
}
