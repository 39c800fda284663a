//! Version 2, the binary one: section 2.2 of HAProxy's `proxy-protocol.txt`. No panic on any input, no read past the
//! length that the header claims, no allocation but for what is appended.
//!
//! ```text
//!  0          12        13        14       16           16 + addresses   16 + length
//!  +----------+---------+---------+--------+------------+----------------+
//!  | signature| version | family  | length | addresses  | TLVs           | payload
//!  |          | command | transp. |        |            |                |
//!  +----------+---------+---------+--------+------------+----------------+
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use super::{Addresses, Command, Header, MAX_STREAM_HEADER, StreamError, Transport, as_v6, crc32c};

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
/// `PP2_TYPE_CRC32C`, section 2.2.3.
const TLV_CRC32C: u8 = 0x03;

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
    /// The header's checksum says that it isn't what was sent.
    #[error("wrong CRC32c")]
    Checksum,
}

/// Read the header that `bytes` begin with. TLVs are checked to fill the header exactly, and against the checksum where
/// there is one; what they say is left alone.
pub fn parse(bytes: &[u8]) -> Result<Header, Error> {
    let matching = SIGNATURE.len().min(bytes.len());
    if bytes[..matching] != SIGNATURE[..matching] {
        return Err(Error::Signature);
    }
    let too_short = |needed| Error::TooShort { needed, had: bytes.len() };
    let fixed: &[u8; FIXED] = bytes.first_chunk().ok_or(too_short(FIXED))?;
    let command = command(fixed[12])?;
    let len = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let whole = bytes.get(..len).ok_or(too_short(len))?;
    let header = Header { len, command, transport: Transport::Unspecified, addresses: None, tlvs_at: len };
    match command {
        // Section 2.2: the receiver "must discard the protocol block including the family which is ignored".
        Command::Local => Ok(header),
        Command::Proxy => proxied(header, fixed[13], whole),
    }
}

/// As [`super::parse_stream`], for bytes that begin as the signature does.
pub(super) fn parse_stream(bytes: &[u8]) -> Result<Option<Header>, StreamError> {
    match parse(&bytes[..bytes.len().min(MAX_STREAM_HEADER)]) {
        Ok(header) => Ok(Some(header)),
        Err(Error::TooShort { needed, .. }) if needed > MAX_STREAM_HEADER => Err(StreamError::TooLong(needed)),
        Err(Error::TooShort { needed, .. }) => {
            check_fixed(bytes, needed)?;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// What can be said of a header that isn't whole: what is there of its fixed part, and of the length that it claims.
fn check_fixed(bytes: &[u8], len: usize) -> Result<(), Error> {
    let Some(&version_command) = bytes.get(SIGNATURE.len()) else { return Ok(()) };
    let (Command::Proxy, Some(&family)) = (command(version_command)?, bytes.get(SIGNATURE.len() + 1)) else {
        return Ok(());
    };
    let (_, block) = self::family(family)?;
    match bytes.len() < FIXED || len - FIXED >= block.len() {
        true => Ok(()),
        false => Err(Error::Length { claimed: len - FIXED, needed: block.len() }),
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

/// What the addresses are.
#[derive(Clone, Copy)]
enum Block {
    /// Of no known form.
    Unspecified,
    V4,
    V6,
    Unix,
}

impl Block {
    fn len(self) -> usize {
        match self {
            Block::Unspecified => 0,
            Block::V4 => ADDRESSES_V4,
            Block::V6 => ADDRESSES_V6,
            Block::Unix => ADDRESSES_UNIX,
        }
    }
}

/// The combinations of family and transport that section 2.2 expects; every other must be refused.
fn family(byte: u8) -> Result<(Transport, Block), Error> {
    match byte {
        0x00 => Ok((Transport::Unspecified, Block::Unspecified)),
        0x11 => Ok((Transport::Stream, Block::V4)),
        0x12 => Ok((Transport::Datagram, Block::V4)),
        0x21 => Ok((Transport::Stream, Block::V6)),
        0x22 => Ok((Transport::Datagram, Block::V6)),
        0x31 => Ok((Transport::Stream, Block::Unix)),
        0x32 => Ok((Transport::Datagram, Block::Unix)),
        other => Err(Error::Family(other)),
    }
}

fn proxied(header: Header, byte: u8, whole: &[u8]) -> Result<Header, Error> {
    let (transport, block) = family(byte)?;
    let body = &whole[FIXED..];
    let addresses = match block {
        // It is skipped unread.
        Block::Unspecified => return Ok(header),
        Block::V4 => Some(addresses_v4(body)?),
        Block::V6 => Some(addresses_v6(body)?),
        // A receiver without Unix addresses "falls back to the UNSPEC mode".
        Block::Unix => None,
    };
    let tlvs = body.get(block.len()..).ok_or(Error::Length { claimed: body.len(), needed: block.len() })?;
    check_tlvs(tlvs, whole)?;
    Ok(Header { transport, addresses, tlvs_at: header.len - tlvs.len(), ..header })
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

/// They fill their place exactly, and the checksum is right where there is one.
fn check_tlvs(tlvs: &[u8], whole: &[u8]) -> Result<(), Error> {
    let mut rest = tlvs;
    let mut checksum = None;
    while let Some((&[kind, high, low], value)) = rest.split_first_chunk::<TLV_HEAD>() {
        let (value, after) = value.split_at_checked(usize::from(u16::from_be_bytes([high, low]))).ok_or(Error::Tlv)?;
        if kind == TLV_CRC32C {
            let value: [u8; 4] = value.try_into().map_err(|_| Error::Tlv)?;
            let twice = checksum.replace((u32::from_be_bytes(value), whole.len() - after.len() - 4));
            if twice.is_some() {
                return Err(Error::Tlv);
            }
        }
        rest = after;
    }
    match checksum {
        _ if !rest.is_empty() => Err(Error::Tlv),
        Some((claimed, at)) if claimed != checksum_of(whole, at) => Err(Error::Checksum),
        _ => Ok(()),
    }
}

/// Section 2.2.3: over the whole header, with the four bytes of the checksum, which are at `at`, as zeroes.
fn checksum_of(whole: &[u8], at: usize) -> u32 {
    crc32c::of(&[&whole[..at], &[0; 4], &whole[at + 4..]])
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

/// Append the header of a stream, with `tlvs` (well-formed, as [`parse`] found them) after the addresses; a checksum
/// among them is put right. No addresses: of an unspecified family. Mixed families are written as [`emit`] does.
/// False, and nothing is appended, where it would be longer than a header can say.
pub fn emit_stream(command: Command, addresses: Option<Addresses>, tlvs: &[u8], out: &mut Vec<u8>) -> bool {
    let mut header = [0; MAX_EMITTED];
    let len = match (command, addresses) {
        (Command::Local, _) => emit_local(&mut header),
        (Command::Proxy, None) => fixed(Command::Proxy, 0x00, 0, &mut header),
        (Command::Proxy, Some(addresses)) => emit(addresses, Transport::Stream, &mut header),
    };
    let Ok(length) = u16::try_from(len - FIXED + tlvs.len()) else { return false };
    header[14..16].copy_from_slice(&length.to_be_bytes());
    let start = out.len();
    out.extend_from_slice(&header[..len]);
    out.extend_from_slice(tlvs);
    put_checksum_right(&mut out[start..], len);
    true
}

/// The addresses before it may be others than those that it was computed over.
fn put_checksum_right(whole: &mut [u8], tlvs_at: usize) {
    let mut at = tlvs_at;
    while let Some(&[kind, high, low]) = whole[at..].first_chunk::<TLV_HEAD>() {
        let (value, length) = (at + TLV_HEAD, usize::from(u16::from_be_bytes([high, low])));
        if value + length > whole.len() {
            return;
        }
        if kind == TLV_CRC32C && length == 4 {
            let checksum = checksum_of(whole, value);
            whole[value..value + 4].copy_from_slice(&checksum.to_be_bytes());
            return;
        }
        at = value + length;
    }
}
