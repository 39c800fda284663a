//! PROXY protocol headers from arbitrary bytes: no panic, no read outside, and what was read can be written and read
//! again. Believes nobody: who may send a header is not the wire's business.
#![no_main]

use kakei_wire::proxy_protocol::v2::{self, FIXED, MAX_EMITTED, SIGNATURE};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    check(data);
    // Few inputs get past the signature by themselves.
    check(&[&SIGNATURE, data].concat());
});

fn check(bytes: &[u8]) {
    let Ok(header) = v2::parse(bytes) else { return };
    assert!((FIXED..=bytes.len()).contains(&header.len), "the header lies in the bytes");
    assert_eq!(v2::parse(&bytes[..header.len]), Ok(header), "what follows a header means nothing");
    assert!(v2::parse(&bytes[..header.len - 1]).is_err(), "a header cut short is none");
    let Some(addresses) = header.addresses else { return };
    let mut out = [0; MAX_EMITTED];
    let len = v2::emit(addresses, header.transport, &mut out);
    let again = v2::parse(&out[..len]).expect("what we emit is a header");
    assert_eq!((again.addresses, again.transport, again.len), (header.addresses, header.transport, len));
}
