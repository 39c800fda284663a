//! PROXY protocol v2 against bytes written out by hand, and its laws on arbitrary input.

use std::net::{IpAddr, SocketAddr};

use kakei_wire::proxy_protocol::v2::{self, Error, FIXED, MAX_EMITTED, SIGNATURE};
use kakei_wire::proxy_protocol::{Addresses, Command, Transport, canonical};
use proptest::prelude::*;

/// A header from its parts; the length field is what the rest has.
fn header(version_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a".to_vec();
    bytes.extend([version_command, family]);
    bytes.extend((rest.len() as u16).to_be_bytes());
    bytes.extend(rest);
    bytes
}

const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 7, 0xc0, 0x01, 0x00, 0x35];

fn v6() -> Vec<u8> {
    let mut block = Vec::new();
    block.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    block.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    block.extend([0x12, 0x34, 0x00, 0x35]);
    block
}

fn addresses(source: &str, destination: &str) -> Addresses {
    let parse = |text: &str| text.parse().expect("an address");
    Addresses { source: parse(source), destination: parse(destination) }
}

fn emitted(addresses: Addresses, transport: Transport) -> Vec<u8> {
    let mut out = [0xaa; MAX_EMITTED];
    let len = v2::emit(addresses, transport, &mut out);
    out[..len].to_vec()
}

#[test]
fn datagrams_of_both_families_have_the_bytes_of_the_specification() {
    let v4 = addresses("192.0.2.1:49153", "198.51.100.7:53");
    assert_eq!(emitted(v4, Transport::Datagram), header(0x21, 0x12, &V4));
    let six = addresses("[2001:db8::1]:4660", "[2001:db8::2]:53");
    assert_eq!(emitted(six, Transport::Datagram), header(0x21, 0x22, &v6()));
    assert_eq!(emitted(six, Transport::Stream), header(0x21, 0x21, &v6()));
    assert_eq!(emitted(v4, Transport::Unspecified), header(0x21, 0x00, &[]));
    let mut out = [0; MAX_EMITTED];
    let len = v2::emit_local(&mut out);
    assert_eq!(out[..len], header(0x20, 0x00, &[]));
}

#[test]
fn mixed_families_are_written_in_v6_form() {
    let mixed = addresses("192.0.2.1:7", "[2001:db8::2]:53");
    let bytes = emitted(mixed, Transport::Datagram);
    assert_eq!(bytes[13], 0x22);
    assert_eq!(bytes[16..32], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
    let parsed = v2::parse(&bytes).unwrap().addresses.unwrap();
    assert_eq!(parsed, addresses("[::ffff:192.0.2.1]:7", "[2001:db8::2]:53"));
    assert_eq!(parsed.canonical(), mixed);
}

#[test]
fn addresses_are_read_and_the_payload_is_found() {
    let mut bytes = header(0x21, 0x12, &V4);
    bytes.extend(b"payload");
    let parsed = v2::parse(&bytes).unwrap();
    assert_eq!(&bytes[parsed.len..], b"payload");
    assert_eq!((parsed.command, parsed.transport), (Command::Proxy, Transport::Datagram));
    assert_eq!(parsed.addresses, Some(addresses("192.0.2.1:49153", "198.51.100.7:53")));
    assert_eq!(v2::parse(&header(0x21, 0x11, &V4)).unwrap().transport, Transport::Stream);
    assert_eq!(v2::parse(&header(0x21, 0x21, &v6())).unwrap().transport, Transport::Stream);
    let six = v2::parse(&header(0x21, 0x22, &v6())).unwrap();
    assert_eq!((six.len, six.transport), (52, Transport::Datagram));
    assert_eq!(six.addresses, Some(addresses("[2001:db8::1]:4660", "[2001:db8::2]:53")));
}

#[test]
fn headers_without_ip_addresses_are_accepted() {
    // LOCAL: family and block count for nothing, whatever they are.
    for family in [0x00, 0x12, 0x99] {
        let parsed = v2::parse(&header(0x20, family, &[1, 2, 3])).unwrap();
        assert_eq!((parsed.command, parsed.addresses, parsed.len), (Command::Local, None, 19));
    }
    // UNSPEC: the block is skipped.
    assert_eq!(v2::parse(&header(0x21, 0x00, &[0xff; 5])).unwrap().len, 21);
    // Unix: no addresses for us, but its block must be whole.
    let unix = v2::parse(&header(0x21, 0x32, &[0; 216])).unwrap();
    assert_eq!((unix.addresses, unix.transport, unix.len), (None, Transport::Datagram, 232));
    assert_eq!(v2::parse(&header(0x21, 0x31, &[0; 215])), Err(Error::Length { claimed: 215, needed: 216 }));
}

#[test]
fn tlvs_must_fill_the_header_exactly() {
    let with = |tlvs: &[u8]| v2::parse(&header(0x21, 0x12, &[&V4, tlvs].concat()));
    assert_eq!(with(&[0x04, 0, 2, 0xee, 0xee]).unwrap().len, 33);
    assert_eq!(with(&[0x04, 0, 0, 0x05, 0, 1, 9]).unwrap().len, 35);
    for bad in [&[0x04][..], &[0x04, 0], &[0x04, 0, 1], &[0x04, 0xff, 0xff, 1], &[0x04, 0, 1, 9, 9]] {
        assert_eq!(with(bad), Err(Error::Tlv), "{bad:?}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let whole = header(0x21, 0x12, &V4);
    assert_eq!(v2::parse(b""), Err(Error::TooShort { needed: FIXED, had: 0 }));
    assert_eq!(v2::parse(b"GET / HTTP/1.1\r\n\r\n"), Err(Error::Signature));
    assert_eq!(v2::parse(b"\r\n\r\n\x00\r\nQUIX"), Err(Error::Signature));
    assert_eq!(v2::parse(&whole[..20]), Err(Error::TooShort { needed: 28, had: 20 }));
    assert_eq!(v2::parse(&header(0x11, 0x12, &V4)), Err(Error::Version(1)));
    assert_eq!(v2::parse(&header(0x22, 0x12, &V4)), Err(Error::Command(2)));
    for family in [0x01, 0x02, 0x10, 0x13, 0x20, 0x23, 0x30, 0x33, 0x41, 0xff] {
        assert_eq!(v2::parse(&header(0x21, family, &[0; 216])), Err(Error::Family(family)));
    }
    assert_eq!(v2::parse(&header(0x21, 0x12, &V4[..11])), Err(Error::Length { claimed: 11, needed: 12 }));
    assert_eq!(v2::parse(&header(0x21, 0x22, &v6()[..35])), Err(Error::Length { claimed: 35, needed: 36 }));
    assert_eq!(v2::parse(&header(0x21, 0x22, &[])), Err(Error::Length { claimed: 0, needed: 36 }));
}

#[test]
fn canonical_leaves_all_but_mapped_addresses_alone() {
    let same = ["192.0.2.1:1", "[2001:db8::1]:2", "[::1]:3", "[::192.0.2.1]:4", "[fe80::1%3]:5"];
    for text in same {
        let address: SocketAddr = text.parse().unwrap();
        assert_eq!(canonical(address), address);
    }
    assert_eq!(canonical("[::ffff:192.0.2.1]:9".parse().unwrap()), "192.0.2.1:9".parse().unwrap());
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

/// Bytes that get past the first checks often: a signature, plausible fields, a length near the truth.
fn nearly_a_header() -> impl Strategy<Value = Vec<u8>> {
    let family = prop_oneof![Just(0u8), Just(0x11), Just(0x12), Just(0x21), Just(0x22), Just(0x32), any::<u8>()];
    let command = prop_oneof![4 => Just(0x21u8), 1 => Just(0x20), 1 => any::<u8>()];
    (command, family, any::<i8>(), prop::collection::vec(prop_oneof![2 => Just(0u8), 1 => any::<u8>()], 0..300))
        .prop_map(|(command, family, off, rest)| {
            let mut bytes = header(command, family, &rest);
            let claimed = (rest.len() as i32 + i32::from(off).clamp(-3, 3)).max(0) as u16;
            bytes[14..16].copy_from_slice(&claimed.to_be_bytes());
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_was_emitted_is_parsed(source in address(), destination in address(), stream: bool, payload: Vec<u8>) {
        let transport = if stream { Transport::Stream } else { Transport::Datagram };
        let mut bytes = emitted(Addresses { source, destination }, transport);
        let len = bytes.len();
        bytes.extend(&payload);
        let parsed = v2::parse(&bytes).unwrap();
        prop_assert_eq!((parsed.len, parsed.transport, parsed.command), (len, transport, Command::Proxy));
        let read = parsed.addresses.unwrap();
        prop_assert_eq!(read.canonical(), Addresses { source, destination }.canonical());
        if source.is_ipv4() == destination.is_ipv4() {
            prop_assert_eq!(read, Addresses { source, destination });
        }
    }

    #[test]
    fn every_prefix_of_a_header_is_too_short(source in address(), destination in address()) {
        let bytes = emitted(Addresses { source, destination }, Transport::Datagram);
        for cut in 0..bytes.len() {
            let needed = if cut < FIXED { FIXED } else { bytes.len() };
            prop_assert_eq!(v2::parse(&bytes[..cut]), Err(Error::TooShort { needed, had: cut }));
        }
    }

    #[test]
    fn anything_is_an_answer_and_only_the_header_counts(bytes in prop_oneof![nearly_a_header(), any::<Vec<u8>>()]) {
        if let Ok(parsed) = v2::parse(&bytes) {
            prop_assert!((FIXED..=bytes.len()).contains(&parsed.len));
            prop_assert_eq!(bytes[..12].to_vec(), SIGNATURE.to_vec());
            // What follows the header changes nothing, and the header alone is a header.
            prop_assert_eq!(v2::parse(&bytes[..parsed.len]), Ok(parsed));
        }
    }
}
