//! ClientHellos in any number of records, and whatever comes behind them: what is read is the same.

use kakei_wire::client_hello::{Error, Reading, parse};

/// A ClientHello for this name, as a handshake message.
fn hello(name: &str) -> Vec<u8> {
    let long = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let names = long(&[&[0][..], &long(name.as_bytes())].concat());
    let extensions = long(&[&[0, 0][..], &long(&names)].concat());
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &extensions].concat();
    [&[1, 0][..], &long(&body)].concat()
}

fn record(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

fn in_records_of(size: usize, message: &[u8]) -> Vec<u8> {
    message.chunks(size).flat_map(|part| record(22, part)).collect()
}

#[test]
fn what_follows_the_message_means_nothing_however_many_records_it_lies_in() {
    let message = hello("www.example.com");
    // A client that sends early data goes on with a record of another type (RFC 8446, appendix D.4).
    let more = [vec![], record(20, &[1]), record(23, &[9; 40]), vec![0, 1, 2, 3, 4, 5, 6], record(22, &[2, 0, 0, 0])];
    for size in 1..=message.len() {
        let stream = in_records_of(size, &message);
        for more in &more {
            let whole = parse(&[&stream[..], more].concat());
            let Ok(Reading::Hello(read)) = whole else { panic!("records of {size}, then {more:?}: {whole:?}") };
            assert_eq!(read.server_name.as_deref(), Some("www.example.com"));
        }
    }
}

#[test]
fn a_part_asks_for_more_and_another_record_in_the_middle_is_an_error() {
    let message = hello("a.example");
    for size in [1, 7, message.len()] {
        let stream = in_records_of(size, &message);
        for cut in 0..stream.len() {
            assert_eq!(parse(&stream[..cut]), Ok(Reading::More), "{cut} bytes of records of {size}");
        }
    }
    let broken = [in_records_of(20, &message[..40]), record(20, &[1]), record(22, &message[40..])].concat();
    assert_eq!(parse(&broken), Err(Error::RecordType(20)));
}

#[test]
fn early_data_that_is_offered_is_told() {
    let with = |extensions: &[u8]| {
        let long = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
        let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &long(extensions)].concat();
        record(22, &[&[1, 0][..], &long(&body)].concat())
    };
    for (extensions, told) in [(&[0, 42, 0, 0][..], true), (&[0, 43, 0, 3, 2, 3, 4], false), (&[0x2a, 0, 0, 0], false)]
    {
        let Ok(Reading::Hello(read)) = parse(&with(extensions)) else { panic!("{extensions:?}") };
        assert_eq!(read.early_data, told, "{extensions:?}");
    }
    assert_eq!(parse(&with(&[0, 42, 0, 0, 0, 42, 0, 0])), Err(Error::DuplicateExtension(42)));
}

#[test]
fn suites_and_signatures_are_told_and_signatures_that_are_malformed_are_none() {
    let long = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let with = |signatures: &[u8]| {
        let extensions = long(&[&[0, 13][..], &long(signatures)].concat());
        let suites = [&[0, 6][..], &[0x13, 2], &[0xc0, 0x2b], &[0x0a, 0x0a]].concat();
        let body = [&[3, 3][..], &[7; 32], &[0], &suites, &[1, 0], &extensions].concat();
        record(22, &[&[1, 0][..], &long(&body)].concat())
    };
    for (signatures, told) in [
        (&[0, 4, 4, 3, 8, 4][..], &[0x0403, 0x0804][..]),
        (&[0, 3, 4, 3, 8], &[0x0403]),
        (&[0, 9, 4, 3], &[]),
        (&[], &[]),
    ] {
        let read = parse(&with(signatures));
        let Ok(Reading::Hello(read)) = read else { panic!("{signatures:?}: {read:?}") };
        assert_eq!((&read.suites[..], &read.signatures[..]), (&[0x1302, 0xc02b, 0x0a0a][..], told));
    }
}
