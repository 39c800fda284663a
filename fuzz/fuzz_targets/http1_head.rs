//! Heads of requests and responses from arbitrary bytes, dripping in: no panic, and where they were cut changes nothing.
#![no_main]

use kakei_wire::http1::{Heads, Limits, Scan, glance};
use kakei_wire::message::{Authority, encode_path, is_ambiguous_path, normalise_path};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { line: 512, head: 2_048, fields: 32 };

fuzz_target!(|data: &[u8]| {
    if let Some((host, path)) = glance(data) {
        assert!(!host.contains(&b'\r') && !path.contains(&b' '));
    }
    let whole = Scan::default().find(data, &LIMITS);
    let mut scan = Scan::default();
    let mut dripped = Ok(None);
    for cut in (0..data.len()).step_by(1 + data.len() / 64).chain([data.len()]) {
        dripped = scan.find(&data[..cut], &LIMITS);
        if dripped != Ok(None) {
            break;
        }
    }
    // What is too long may be said before its end is seen; what is well is well either way.
    assert_eq!(dripped.as_ref().ok(), whole.as_ref().ok(), "{dripped:?} {whole:?}");
    let (mut one, mut other) = (Heads::default(), Heads::default());
    let at_once = one.find_request(&mut Scan::default(), data, &LIMITS).map(|found| found.map(|(head, len)| (format!("{head:?}"), len)));
    let apart = whole.and_then(|len| len.map(|len| other.request(&data[..len], &LIMITS).map(|head| (format!("{head:?}"), len))).transpose());
    assert_eq!(at_once, apart, "found and read in one go, or one after the other");
    let (mut one, mut other) = (Heads::default(), Heads::default());
    let at_once = one.find_response(&mut Scan::default(), data, (&LIMITS, "GET")).map(|found| found.map(|(head, len)| (format!("{head:?}"), len)));
    let apart = whole.and_then(|len| len.map(|len| other.response(&data[..len], &LIMITS, "GET").map(|head| (format!("{head:?}"), len))).transpose());
    assert_eq!(at_once, apart, "found and read in one go, or one after the other");
    let Ok(Some(len)) = whole else { return };
    let head = &data[..len];
    let mut heads = Heads::default();
    if let Ok(head) = heads.request(head, &LIMITS) {
        let request = head.request;
        assert!(!request.method.is_empty() && request.fields.len() <= LIMITS.fields);
        assert!(request.authority.is_empty() || Authority::parse(request.authority).is_ok());
        if request.path.starts_with('/') {
            check_path(request.path);
        }
        for field in request.fields.iter() {
            let line = request.fields.lines(field, field);
            assert!(line.starts_with(request.fields.name(field)) && line.ends_with(b"\r\n"));
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "one field is one line");
            assert!(!request.fields.value(field).iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
        }
    }
    let mut heads = Heads::default();
    if let Ok(head) = heads.response(head, &LIMITS, "GET") {
        assert!((100..=999).contains(&head.response.status));
    }
});

/// A path that everybody reads alike stays one when it is written in its one spelling.
fn check_path(path: &str) {
    let Ok(normal) = normalise_path(path) else { return };
    let mut written = Vec::new();
    encode_path(&normal, &mut written);
    let written = String::from_utf8(written).expect("ASCII");
    assert_eq!(normalise_path(&written).expect("a path"), normal);
    assert!(is_ambiguous_path(path) || !is_ambiguous_path(&written));
}
