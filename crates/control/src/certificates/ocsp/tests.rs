//! Answers as a responder writes them, and what isn't one. They are not signed: nobody here looks at that.

use std::time::SystemTime;

use kakei_config::{Certificate, Document, Pem};
use rcgen::CertifiedKey;

use super::super::{Certificates, Purpose};
use super::*;

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let length: &[u8] = match body.len() {
        0..=0x7f => &length[1..],
        0x80..=0xff => &[0x81, length[1]],
        _ => &[0x82, length[0], length[1]],
    };
    [&[tag][..], length, &body].concat()
}

/// What a responder says of the certificates with these numbers.
fn answer(serials: &[&[u8]]) -> Vec<u8> {
    let time = tlv(0x18, &[b"20260101000000Z"]);
    let of = |serial: &&[u8]| {
        let sha1 = tlv(0x30, &[&[6, 5, 0x2b, 0x0e, 3, 2, 0x1a]]);
        let about = tlv(0x30, &[&sha1, &tlv(4, &[&[1; 20]]), &tlv(4, &[&[2; 20]]), &tlv(2, &[serial])]);
        tlv(0x30, &[&about, &[0x80, 0], &time])
    };
    let answers: Vec<Vec<u8>> = serials.iter().map(of).collect();
    let answers: Vec<&[u8]> = answers.iter().map(Vec::as_slice).collect();
    let signed = tlv(0x30, &[&tlv(0xa2, &[&tlv(4, &[&[3; 20]])]), &time, &tlv(0x30, &answers)]);
    let basic = tlv(0x30, &[&signed, &tlv(0x30, &[]), &[3, 1, 0]]);
    let bytes = tlv(0x30, &[&tlv(6, &[&BASIC]), &tlv(4, &[&basic])]);
    tlv(0x30, &[&[0x0a, 1, 0], &tlv(0xa0, &[&bytes])])
}

#[test]
fn an_answer_says_whom_it_is_about() {
    let both = answer(&[&[1, 2, 3], &[0, 0xff]]);
    assert_eq!(serials(&both), Some(vec![&[1, 2, 3][..], &[0, 0xff]]));
    for cut in 0..both.len() {
        assert_eq!(serials(&both[..cut]), None, "{cut} bytes of it");
    }
    // The responder is busy (`tryLater`), and says no more.
    assert_eq!(serials(&[0x30, 3, 0x0a, 1, 3]), None);
    assert_eq!(serials(&[both, vec![0]].concat()), None, "something behind its end");
}

fn document(made: &CertifiedKey<rcgen::KeyPair>, ocsp: &str) -> Document {
    let (chain, key) = (Pem::Text(made.cert.pem()), Pem::Text(made.signing_key.serialize_pem()));
    let certificate = Certificate { chain, key, ocsp: Some(ocsp.to_owned()) };
    Document { certificates: [("site".into(), certificate)].into(), ..Document::default() }
}

#[test]
fn a_staple_is_shown_read_again_and_refused_where_it_is_another_ones() {
    let made = rcgen::generate_simple_self_signed(["site.test".to_owned()]).unwrap();
    let path = std::env::temp_dir().join(format!("kakei-ocsp-{}", std::process::id()));
    let text = path.to_str().unwrap();
    let document = document(&made, text);
    let (_, parsed) = X509Certificate::from_der(made.cert.der()).unwrap();
    let (right, wrong) = (answer(&[&[9], parsed.raw_serial()]), answer(&[&[9]]));
    let load = |known: &Certificates, purpose| known.load(&document, purpose, SystemTime::now());
    let shown = |known: &Certificates| known.all().get(&"site".into()).unwrap().key.ocsp.clone();

    std::fs::write(&path, &right).unwrap();
    let first = load(&Certificates::default(), Purpose::Start).unwrap().certificates;
    assert_eq!(shown(&first), Some(right.clone()));

    let newer = answer(&[parsed.raw_serial()]);
    std::fs::write(&path, &newer).unwrap();
    let second = load(&first, Purpose::Change).unwrap();
    assert_eq!(second.renewed, ["certificate site: its files hold another one"]);
    assert_eq!(shown(&second.certificates), Some(newer));

    for (held, said) in [
        (wrong, "it is the answer about another certificate: this one's number is "),
        (b"-----BEGIN CERTIFICATE-----".to_vec(), "it is no answer of an OCSP responder in DER"),
    ] {
        std::fs::write(&path, held).unwrap();
        let faults = load(&second.certificates, Purpose::Change).unwrap_err();
        assert_eq!((faults.len(), faults[0].key), (1, "ocsp"));
        assert!(faults[0].message.starts_with(said), "{}", faults[0].message);
    }
    std::fs::remove_file(&path).unwrap();
    let faults = load(&second.certificates, Purpose::Change).unwrap_err();
    assert!(faults[0].message.contains("can't be read"), "{}", faults[0].message);
}
