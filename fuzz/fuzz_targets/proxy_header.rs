//! PROXY protocol headers from arbitrary bytes: no panic, no read outside, and what was read can be written and read
//! again. Believes nobody: who may send a header is not the wire's business.
#![no_main]

use kakei_wire::proxy_protocol::v2::{self, FIXED, MAX_EMITTED, SIGNATURE};
use kakei_wire::proxy_protocol::{MAX_STREAM_HEADER, parse_stream, v1};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    check(data);
    // Few inputs get past the signature by themselves.
    check(&[&SIGNATURE, data].concat());
    check_stream(data);
    check_stream(&[&SIGNATURE, data].concat());
    check_stream(&[b"PROXY TCP4 ", data].concat());
    check_stream(&[b"PROXY TCP6 ", data].concat());
});

/// A stream drips in: what a part of it says, the whole must not take back.
fn check_stream(bytes: &[u8]) {
    let whole = parse_stream(bytes);
    let (mut said_more, step) = (true, 1 + bytes.len() / 64);
    for cut in (0..bytes.len()).step_by(step) {
        match parse_stream(&bytes[..cut]) {
            Ok(None) => assert!(said_more, "more was asked for after something was said"),
            part => {
                // What is wrong may be said in other words when more is seen.
                let is_same = part == whole || (part.is_err() && whole.is_err());
                assert!(is_same, "what was said is taken back: {part:?}, {whole:?}");
                said_more = false;
            }
        }
    }
    let Ok(Some(header)) = whole else { return };
    assert!(header.len <= bytes.len().min(MAX_STREAM_HEADER) && header.tlvs_at <= header.len);
    assert_eq!(parse_stream(&bytes[..header.len - 1]), Ok(None), "a header cut short asks for more");
    let Some(addresses) = header.addresses else { return };
    let mut line = [0; v1::MAX];
    let len = v1::emit(Some(addresses), &mut line);
    let again = parse_stream(&line[..len]).expect("a line that we emit").expect("the whole of it");
    assert_eq!((again.addresses.map(|of| of.canonical()), again.len), (Some(addresses.canonical()), len));
    let mut out = Vec::new();
    assert!(v2::emit_stream(header.command, Some(addresses), &bytes[header.tlvs_at..header.len], &mut out));
}

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
