//! Payloads that carry their own identity, and PROXY protocol v2 headers: written and read here a second time, so that
//! the checkers depend on nothing that they check.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// What a datagram of the simulation is, told from its bytes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// A client's datagram: an index into the ledger's requests.
    Request(u64),
    /// A backend's datagram: an index into the ledger's replies.
    Reply(u64),
    /// Of length zero: it can't say.
    Empty,
    /// Nothing that a simulated peer made (a health probe, or a mutilated payload).
    Unknown,
}

const REQUEST: [u8; 2] = [0xa7, 0x51];
const REPLY: [u8; 2] = [0xa7, 0x52];

/// The least length of a payload that carries an identity.
pub(crate) const LEAST: usize = 10;

/// The payload of a request.
pub(crate) fn request(id: u64, len: usize) -> Vec<u8> {
    filled(REQUEST, id, len)
}

/// The payload of a reply.
pub(crate) fn reply(id: u64, len: usize) -> Vec<u8> {
    filled(REPLY, id, len)
}

fn filled(magic: [u8; 2], id: u64, len: usize) -> Vec<u8> {
    debug_assert!(len == 0 || len >= LEAST, "a payload has room for its identity");
    let mut bytes = Vec::with_capacity(len);
    if len == 0 {
        return bytes;
    }
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&id.to_be_bytes());
    let mut noise = (id ^ u64::from(magic[1]) << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while bytes.len() < len {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        let take = (len - bytes.len()).min(8);
        bytes.extend_from_slice(&noise.to_le_bytes()[..take]);
    }
    bytes
}

/// What these bytes say they are.
pub(crate) fn identify(bytes: &[u8]) -> Identity {
    if bytes.is_empty() {
        return Identity::Empty;
    }
    if bytes.len() < LEAST {
        return Identity::Unknown;
    }
    let mut id = [0; 8];
    id.copy_from_slice(&bytes[2..LEAST]);
    match [bytes[0], bytes[1]] {
        REQUEST => Identity::Request(u64::from_be_bytes(id)),
        REPLY => Identity::Reply(u64::from_be_bytes(id)),
        _ => Identity::Unknown,
    }
}

/// The twelve bytes that every PROXY protocol v2 header begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// What a PROXY protocol v2 header says; IPv4 addresses that were written in IPv6 form are IPv4 here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    /// Its length, TLVs included.
    pub(crate) len: usize,
}

/// What a datagram begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Headed {
    /// Payload.
    Bare,
    /// A header for a datagram of IPv4 or IPv6.
    Good(Header),
    /// The signature and then nothing valid.
    Bad,
}

/// The mixed families' rule: both in IPv6 form.
fn same_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    (
        SocketAddr::new(mapped(source.ip()).into(), source.port()),
        SocketAddr::new(mapped(destination.ip()).into(), destination.port()),
    )
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// A header, with `tlv` bytes of padding as one TLV of type NOOP where that is at least 3.
pub(crate) fn header(source: SocketAddr, destination: SocketAddr, tlv: usize) -> Vec<u8> {
    let (source, destination) = same_family(source, destination);
    let mut bytes = SIGNATURE.to_vec();
    bytes.push(0x21);
    bytes.push(if source.is_ipv4() { 0x12 } else { 0x22 });
    let addresses = if source.is_ipv4() { 12 } else { 36 };
    let tlv = if tlv < 3 { 0 } else { tlv };
    bytes.extend_from_slice(&((addresses + tlv) as u16).to_be_bytes());
    for ip in [source.ip(), destination.ip()] {
        match ip {
            IpAddr::V4(v4) => bytes.extend_from_slice(&v4.octets()),
            IpAddr::V6(v6) => bytes.extend_from_slice(&v6.octets()),
        }
    }
    bytes.extend_from_slice(&source.port().to_be_bytes());
    bytes.extend_from_slice(&destination.port().to_be_bytes());
    if tlv > 0 {
        bytes.push(0x04);
        bytes.extend_from_slice(&((tlv - 3) as u16).to_be_bytes());
        bytes.resize(bytes.len() + tlv - 3, 0);
    }
    bytes
}

/// Reads what a datagram begins with.
pub(crate) fn headed(bytes: &[u8]) -> Headed {
    if !bytes.starts_with(&SIGNATURE) {
        return Headed::Bare;
    }
    parse(bytes).map_or(Headed::Bad, Headed::Good)
}

fn parse(bytes: &[u8]) -> Option<Header> {
    let fixed = bytes.get(12..16)?;
    let len = 16 + usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    let rest = bytes.get(16..len)?;
    if fixed[0] != 0x21 {
        return None;
    }
    let port = |at: usize| rest.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    let (source, destination, at) = match fixed[1] {
        0x12 => (ipv4(rest.get(0..4)?), ipv4(rest.get(4..8)?), 8),
        0x22 => (ipv6(rest.get(0..16)?), ipv6(rest.get(16..32)?), 32),
        _ => return None,
    };
    let (source_port, destination_port) = (port(at)?, port(at + 2)?);
    Some(Header {
        source: SocketAddr::new(source.to_canonical(), source_port),
        destination: SocketAddr::new(destination.to_canonical(), destination_port),
        len,
    })
}

fn ipv4(bytes: &[u8]) -> IpAddr {
    IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn ipv6(bytes: &[u8]) -> IpAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(bytes);
    IpAddr::from(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_says_what_it_is() {
        assert_eq!(identify(&request(77, 10)), Identity::Request(77));
        assert_eq!(identify(&reply(78, 900)), Identity::Reply(78));
        assert_eq!(identify(&[]), Identity::Empty);
        assert_eq!(identify(&[0xa7, 0x51]), Identity::Unknown);
        assert_ne!(request(1, 100)[10..], request(2, 100)[10..]);
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let (a, b): (SocketAddr, SocketAddr) = ("192.0.2.1:9".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap());
        for tlv in [0, 3, 40] {
            let mut bytes = header(a, a, tlv);
            bytes.extend_from_slice(b"rest");
            let Headed::Good(read) = headed(&bytes) else { panic!("{bytes:?}") };
            assert_eq!((read.source, read.destination, &bytes[read.len..]), (a, a, &b"rest"[..]));
        }
        let Headed::Good(mixed) = headed(&header(a, b, 0)) else { panic!("mixed families") };
        assert_eq!(mixed.source.ip().to_canonical(), a.ip());
        assert_eq!(headed(&header(a, b, 0)[..20]), Headed::Bad);
        assert_eq!(headed(b"plain"), Headed::Bare);
    }
}
