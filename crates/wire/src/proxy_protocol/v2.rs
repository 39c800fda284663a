//! Version 2, the binary one: section 2.2 of HAProxy's `proxy-protocol.txt`. No panic on any input, no read past the
//! length that the header claims, no allocation.
//!
//! ```text
//!  0          12        13        14       16           16 + addresses   16 + length
//!  +----------+---------+---------+--------+------------+----------------+
//!  | signature| version | family  | length | addresses  | TLVs (skipped) | payload
//!  |          | command | transp. |        |            |                |
//!  +----------+---------+---------+--------+------------+----------------+
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use super::{Addresses, Command, Header, Transport};

/// What every header begins with.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes before the addresses.
pub const FIXED: usize = 16;
/// The longest header that [`emit`] writes: the fixed part and two IPv6 addresses with ports.
pub const MAX_EMITTED: usize = FIXED + ADDRESSES_V6;

const ADDRESSES_V4: usize = 12;
const ADDRESSES_V6: usize = 36;
const ADDRESSES_UNIX: usize = 216;
/// Type and length of a TLV.
const TLV_HEAD: usize = 3;

/// What is wrong with the bytes. Always the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The bytes end before the header does.
    #[error("the header needs {needed} bytes, {had} are there")]
    TooShort {
        /// Bytes needed, as far as can be said from those that are there.
        needed: usize,
        /// Bytes there.
        had: usize,
    },
    /// They don't begin with the signature.
    #[error("no PROXY protocol v2 signature")]
    Signature,
    /// Another version than 2.
    #[error("PROXY protocol version {0} in a version 2 header")]
    Version(u8),
    /// Neither LOCAL nor PROXY.
    #[error("unknown command {0:#x}")]
    Command(u8),
    /// Not one of the combinations of family and transport that the specification names.
    #[error("unknown family and transport {0:#04x}")]
    Family(u8),
    /// The length that the header claims can't hold the addresses of its family.
    #[error("the header claims {claimed} bytes, its addresses need {needed}")]
    Length {
        /// Bytes claimed after the fixed part.
        claimed: usize,
        /// Bytes that the addresses need.
        needed: usize,
    },
    /// A TLV reaches past the end of the header, or the rest is too short for one.
    #[error("malformed TLV")]
    Tlv,
}

/// Read the header that `bytes` begin with. TLVs are checked to fill the header exactly, and skipped.
pub fn parse(bytes: &[u8]) -> Result<Header, Error> {
    let matching = SIGNATURE.len().min(bytes.len());
    if bytes[..matching] != SIGNATURE[..matching] {
        return Err(Error::Signature);
    }
    let too_short = |needed| Error::TooShort { needed, had: bytes.len() };
    let (fixed, rest) = bytes.split_first_chunk::<FIXED>().ok_or(too_short(FIXED))?;
    let command = command(fixed[12])?;
    let claimed = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let body = rest.get(..claimed).ok_or(too_short(FIXED + claimed))?;
    let header = Header { len: FIXED + claimed, command, transport: Transport::Unspecified, addresses: None };
    match command {
        // Section 2.2: the receiver "must discard the protocol block including the family which is ignored".
        Command::Local => Ok(header),
        Command::Proxy => proxied(header, fixed[13], body),
    }
}

fn command(byte: u8) -> Result<Command, Error> {
    match (byte >> 4, byte & 0xf) {
        (2, 0) => Ok(Command::Local),
        (2, 1) => Ok(Command::Proxy),
        (2, other) => Err(Error::Command(other)),
        (version, _) => Err(Error::Version(version)),
    }
}

/// The combinations of family and transport that section 2.2 expects; every other must be refused.
fn proxied(header: Header, family: u8, body: &[u8]) -> Result<Header, Error> {
    let (transport, addresses, used) = match family {
        // The block of an unspecified family has no known form: it is skipped unread.
        0x00 => return Ok(header),
        0x11 => (Transport::Stream, Some(addresses_v4(body)?), ADDRESSES_V4),
        0x12 => (Transport::Datagram, Some(addresses_v4(body)?), ADDRESSES_V4),
        0x21 => (Transport::Stream, Some(addresses_v6(body)?), ADDRESSES_V6),
        0x22 => (Transport::Datagram, Some(addresses_v6(body)?), ADDRESSES_V6),
        // A receiver without Unix addresses "falls back to the UNSPEC mode".
        0x31 => (Transport::Stream, None, ADDRESSES_UNIX),
        0x32 => (Transport::Datagram, None, ADDRESSES_UNIX),
        other => return Err(Error::Family(other)),
    };
    let tlvs = body.get(used..).ok_or(Error::Length { claimed: body.len(), needed: used })?;
    check_tlvs(tlvs)?;
    Ok(Header { transport, addresses, ..header })
}

fn addresses_v4(body: &[u8]) -> Result<Addresses, Error> {
    let block: &[u8; ADDRESSES_V4] =
        body.first_chunk().ok_or(Error::Length { claimed: body.len(), needed: ADDRESSES_V4 })?;
    let [a, b, c, d, e, f, g, h, ports @ ..] = *block;
    Ok(pair(Ipv4Addr::new(a, b, c, d).into(), Ipv4Addr::new(e, f, g, h).into(), ports))
}

fn addresses_v6(body: &[u8]) -> Result<Addresses, Error> {
    let wrong = Error::Length { claimed: body.len(), needed: ADDRESSES_V6 };
    let (source, rest) = body.split_first_chunk::<16>().ok_or(wrong)?;
    let (destination, rest) = rest.split_first_chunk::<16>().ok_or(wrong)?;
    let ports = *rest.first_chunk::<4>().ok_or(wrong)?;
    Ok(pair(Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into(), ports))
}

fn pair(source: IpAddr, destination: IpAddr, ports: [u8; 4]) -> Addresses {
    let [a, b, c, d] = ports;
    Addresses {
        source: SocketAddr::new(source, u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([c, d])),
    }
}

fn check_tlvs(mut rest: &[u8]) -> Result<(), Error> {
    while let Some((&[_, high, low], value)) = rest.split_first_chunk::<TLV_HEAD>() {
        rest = value.get(usize::from(u16::from_be_bytes([high, low]))..).ok_or(Error::Tlv)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(Error::Tlv) }
}

/// Write the header of a client's datagram or stream to the front of `out` and say how long it is.
/// Where the two addresses differ in family both are written in IPv6 form, the IPv4 one v4-mapped.
/// [`Transport::Unspecified`] writes a header without addresses.
pub fn emit(addresses: Addresses, transport: Transport, out: &mut [u8; MAX_EMITTED]) -> usize {
    let transport = match transport {
        Transport::Unspecified => return fixed(Command::Proxy, 0x00, 0, out),
        Transport::Stream => 0x1,
        Transport::Datagram => 0x2,
    };
    let Addresses { source, destination } = addresses;
    let ports = {
        let ([a, b], [c, d]) = (source.port().to_be_bytes(), destination.port().to_be_bytes());
        [a, b, c, d]
    };
    if let (IpAddr::V4(source), IpAddr::V4(destination)) = (source.ip(), destination.ip()) {
        out[16..20].copy_from_slice(&source.octets());
        out[20..24].copy_from_slice(&destination.octets());
        out[24..28].copy_from_slice(&ports);
        return fixed(Command::Proxy, 0x10 | transport, ADDRESSES_V4, out);
    }
    out[16..32].copy_from_slice(&as_v6(source.ip()).octets());
    out[32..48].copy_from_slice(&as_v6(destination.ip()).octets());
    out[48..52].copy_from_slice(&ports);
    fixed(Command::Proxy, 0x20 | transport, ADDRESSES_V6, out)
}

/// Write the header of what the proxy itself sends (a health check) and say how long it is.
pub fn emit_local(out: &mut [u8; MAX_EMITTED]) -> usize {
    fixed(Command::Local, 0x00, 0, out)
}

fn fixed(command: Command, family: u8, length: usize, out: &mut [u8; MAX_EMITTED]) -> usize {
    debug_assert!(length <= ADDRESSES_V6, "an emitted header has addresses and nothing more");
    out[..12].copy_from_slice(&SIGNATURE);
    out[12] = match command {
        Command::Local => 0x20,
        Command::Proxy => 0x21,
    };
    out[13] = family;
    out[14..16].copy_from_slice(&(length as u16).to_be_bytes());
    FIXED + length
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}
