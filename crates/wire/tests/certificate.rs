//! Names of certificates: of one that OpenSSL made, and of anything.

use kakei_wire::certificate::{Malformed, subject};
use proptest::prelude::*;

/// Made by `openssl req -x509 -newkey ed25519 -subj '/C=CH/O=Kakei, Ltd/OU=#1+x/CN=Zoë/serialNumber=7' -addext
/// 'subjectAltName=DNS:a.test,email:a@b.test,URI:spiffe://b.test/x,IP:192.0.2.7,IP:2001:db8::1,RID:1.2.3' -days 36500`.
const MADE: &[u8] = include_bytes!("certificate.der");

/// `openssl x509 -enddate`, in seconds.
const NOT_AFTER: i64 = 4_949_491_741;

#[test]
fn names_are_written_as_the_rfc_says() {
    let subject = subject(MADE).unwrap();
    assert_eq!(subject.name, "2.5.4.5=#130137,CN=Zo\\c3\\ab,OU=\\#1\\+x,O=Kakei\\, Ltd,C=CH");
    let names = ["DNS:a.test", "email:a@b.test", "URI:spiffe://b.test/x", "IP:192.0.2.7", "IP:2001:db8::1"];
    assert_eq!(subject.alternative, names);
    assert_eq!(subject.not_after, Some(NOT_AFTER));
}

#[test]
fn a_part_of_one_is_none() {
    for len in 0..MADE.len() {
        assert_eq!(subject(&MADE[..len]), Err(Malformed), "{len} bytes");
    }
}

#[test]
fn a_year_of_many_digits_is_none() {
    let element = |tag: u8, content: &[u8]| [&[tag, 0x81, content.len() as u8], content].concat();
    let validity = [element(0x17, b"250101000000Z"), element(0x18, "9".repeat(60).as_bytes())].concat();
    let parts: [(u8, &[u8]); 6] = [(2, &[1]), (0x30, &[]), (0x30, &[]), (0x30, &validity), (0x30, &[]), (0x30, &[])];
    let parts = parts.map(|(tag, content)| element(tag, content)).concat();
    assert_eq!(subject(&element(0x30, &element(0x30, &parts))), Err(Malformed));
}

fn is_harmless(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

proptest! {
    #[test]
    fn whatever_it_holds_comes_out_printable(at in any::<prop::sample::Index>(), byte in any::<u8>(), more in 0usize..4) {
        let mut bytes = MADE.to_vec();
        for step in 0..=more {
            let at = (at.index(bytes.len()) + step * 7) % bytes.len();
            bytes[at] = byte.wrapping_add(step as u8);
        }
        if let Ok(subject) = subject(&bytes) {
            prop_assert!(is_harmless(&subject.name) && subject.alternative.iter().all(|name| is_harmless(name)));
            prop_assert!(subject.name.len() + subject.alternative.concat().len() <= 8 * bytes.len());
        }
    }

    #[test]
    fn anything_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = subject(&bytes);
    }
}
