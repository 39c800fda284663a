//! Version 1, the line of text: section 2.1 of HAProxy's `proxy-protocol.txt`. No panic on any input, no look past the
//! 107 bytes that a line may have, no allocation.
//!
//! ```text
//! PROXY TCP4 192.0.2.1 198.51.100.7 49153 443\r\n
//! PROXY UNKNOWN\r\n
//! ```

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use super::{Addresses, Command, Header, Transport, as_v6};

/// What every line begins with.
pub const SIGNATURE: [u8; 6] = *b"PROXY ";
/// The longest line, its CRLF included.
pub const MAX: usize = 107;

/// What is wrong with the bytes. Always the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// They don't begin with the signature.
    #[error("no PROXY protocol v1 signature")]
    Signature,
    /// Neither TCP4 nor TCP6 nor UNKNOWN.
    #[error("a PROXY line of an unknown protocol")]
    Protocol,
    /// No CRLF within [`MAX`] bytes.
    #[error("a PROXY line of more than {MAX} bytes")]
    TooLong,
    /// A CR without its LF, or an LF without its CR.
    #[error("a PROXY line that does not end with CRLF")]
    LineEnd,
    /// Not an address of the line's family as the specification writes it.
    #[error("malformed address in a PROXY line")]
    Address,
    /// Not a decimal number up to 65535 without leading zeroes.
    #[error("malformed port in a PROXY line")]
    Port,
    /// Fewer or more than two addresses and two ports.
    #[error("a PROXY line needs two addresses and two ports")]
    Fields,
}

/// What a line says it is about.
#[derive(Clone, Copy, PartialEq)]
enum Protocol {
    Tcp4,
    Tcp6,
    Unknown,
}

/// Read the line that `bytes` begin with; none while it can become one but its end isn't there. A wrong address is told
/// once it ends, any other wrong byte at once.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Error> {
    let matching = SIGNATURE.len().min(bytes.len());
    if bytes[..matching] != SIGNATURE[..matching] {
        return Err(Error::Signature);
    }
    let bytes = &bytes[..bytes.len().min(MAX)];
    let Some((protocol, at)) = protocol(&bytes[matching..])? else { return Ok(None) };
    let rest = &bytes[matching + at..];
    let end = line_end(rest)?;
    let addresses = match protocol {
        // Section 2.1: "the receiver must ignore anything presented before the CRLF is found".
        Protocol::Unknown => None,
        tcp => {
            // A CR whose LF is still to come belongs to no field.
            let so_far = rest.strip_suffix(b"\r").unwrap_or(rest);
            fields(tcp, end.map_or(so_far, |end| &rest[..end]), end.is_some())?
        }
    };
    let Some(end) = end else {
        return if bytes.len() == MAX { Err(Error::TooLong) } else { Ok(None) };
    };
    let len = matching + at + end + 2;
    let transport = if protocol == Protocol::Unknown { Transport::Unspecified } else { Transport::Stream };
    Ok(Some(Header { len, command: Command::Proxy, transport, addresses, tlvs_at: len }))
}

/// The word after the signature and where the rest begins; none while the word isn't there.
fn protocol(bytes: &[u8]) -> Result<Option<(Protocol, usize)>, Error> {
    const WORDS: [(&[u8], Protocol); 3] =
        [(b"TCP4 ", Protocol::Tcp4), (b"TCP6 ", Protocol::Tcp6), (b"UNKNOWN", Protocol::Unknown)];
    for (word, protocol) in WORDS {
        if bytes.starts_with(word) {
            return Ok(Some((protocol, word.len())));
        }
        if word.starts_with(bytes) {
            return Ok(None);
        }
    }
    Err(Error::Protocol)
}

/// Where the CRLF is. "The receiver must not tolerate a single CR or LF character".
fn line_end(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let Some(at) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else { return Ok(None) };
    match &bytes[at..] {
        [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => Ok(Some(at)),
        _ => Err(Error::LineEnd),
    }
}

/// Two addresses and two ports, exactly one space between them. Where the line isn't whole its last field may yet grow
/// and says nothing but that it can.
fn fields(protocol: Protocol, bytes: &[u8], whole: bool) -> Result<Option<Addresses>, Error> {
    let (mut ips, mut ports) = ([IpAddr::V4(Ipv4Addr::UNSPECIFIED); 2], [0; 2]);
    let mut given = 0;
    let mut rest = bytes;
    loop {
        let space = rest.iter().position(|&byte| byte == b' ');
        let field = &rest[..space.unwrap_or(rest.len())];
        match (given, space.is_some() || whole) {
            (0 | 1, true) => ips[given] = address(protocol, field)?,
            (2 | 3, true) => ports[given - 2] = port(field)?,
            (0 | 1, false) if !field.iter().all(|byte| may_be_in_address(protocol, *byte)) => {
                return Err(Error::Address);
            }
            (2 | 3, false) if !field.is_empty() => drop(port(field)?),
            (4.., _) => return Err(Error::Fields),
            _ => {}
        }
        given += 1;
        match space {
            Some(space) => rest = &rest[space + 1..],
            None if !whole => return Ok(None),
            None if given < 4 => return Err(Error::Fields),
            None => break,
        }
    }
    let [source, destination] = [0, 1].map(|at| SocketAddr::new(ips[at], ports[at]));
    Ok(Some(Addresses { source, destination }))
}

/// Heading zeroes are refused by the standard library too. An IPv6 address may end in dotted form, as `inet_ntop`, and so
/// other proxies, write mapped ones.
fn address(protocol: Protocol, field: &[u8]) -> Result<IpAddr, Error> {
    let text = std::str::from_utf8(field).map_err(|_| Error::Address)?;
    match protocol {
        Protocol::Tcp4 => text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| Error::Address),
        _ => text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| Error::Address),
    }
}

fn may_be_in_address(protocol: Protocol, byte: u8) -> bool {
    match protocol {
        Protocol::Tcp4 => byte.is_ascii_digit() || byte == b'.',
        _ => byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'),
    }
}

fn port(field: &[u8]) -> Result<u16, Error> {
    let canonical = match field {
        [] => false,
        [b'0'] => true,
        [first, ..] => *first != b'0' && field.iter().all(u8::is_ascii_digit),
    };
    let text = std::str::from_utf8(field).ok().filter(|_| canonical).ok_or(Error::Port)?;
    text.parse().map_err(|_| Error::Port)
}

/// Write the line of a client's stream to the front of `out` and say how long it is. Where the two addresses differ in
/// family both are written in IPv6 form, the IPv4 one v4-mapped. No addresses: `UNKNOWN`.
pub fn emit(addresses: Option<Addresses>, out: &mut [u8; MAX]) -> usize {
    let mut free = &mut out[..];
    let written = match addresses {
        None => write!(free, "PROXY UNKNOWN\r\n"),
        Some(Addresses { source, destination }) => {
            let ports = (source.port(), destination.port());
            match (source.ip(), destination.ip()) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    write!(free, "PROXY TCP4 {source} {destination} {} {}\r\n", ports.0, ports.1)
                }
                (source, destination) => {
                    let (source, destination) = (Sets(as_v6(source)), Sets(as_v6(destination)));
                    write!(free, "PROXY TCP6 {source} {destination} {} {}\r\n", ports.0, ports.1)
                }
            }
        }
    };
    debug_assert!(written.is_ok(), "the longest line fits");
    MAX - free.len()
}

/// An address as sets of hexadecimal digits, which is all that section 2.1 has: no dotted form for mapped ones.
struct Sets(Ipv6Addr);

impl std::fmt::Display for Sets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0.to_ipv4_mapped(), self.0.segments()) {
            (Some(_), [.., high, low]) => write!(f, "::ffff:{high:x}:{low:x}"),
            (None, _) => self.0.fmt(f),
        }
    }
}
