//! The PROXY protocol: who the client behind a proxy is. Says what a header means, never whether its sender may be
//! believed.
//!
//! Each version of the format is a module that parses to and emits from the types here. Datagrams carry
//! [version 2](v2) only, streams begin with either: [`parse_stream`].

pub mod v1;
pub mod v2;

mod crc32c;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// The longest header that a stream may begin with. A version 2 header may claim sixteen times as much; what is sent
/// (addresses, a name, what is known of a certificate) needs a few hundred bytes.
pub const MAX_STREAM_HEADER: usize = 4096;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the header, everything that comes after the addresses included: the payload begins here.
    pub len: usize,
    /// On whose behalf it was sent.
    pub command: Command,
    /// What the client spoke to the first proxy.
    pub transport: Transport,
    /// The client and whom it dialled; none where the sender's own addresses are meant or the family isn't IP.
    pub addresses: Option<Addresses>,
    /// Where the TLVs begin, which reach up to `len`: there is none where the two are equal, as always in version 1
    /// and where version 2 gives the block no known form (LOCAL, an unspecified family).
    pub tlvs_at: usize,
}

/// On whose behalf a header was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// The proxy's own (a health check): the real addresses count.
    Local,
    /// A client's.
    Proxy,
}

/// What the client spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Not said.
    Unspecified,
    /// TCP, or a stream on a Unix socket.
    Stream,
    /// UDP, or datagrams on a Unix socket.
    Datagram,
}

/// The two ends of what the client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// Whom it dialled.
    pub destination: SocketAddr,
}

impl Addresses {
    /// The same, with v4-mapped IPv6 addresses as the IPv4 addresses they stand for.
    pub fn canonical(self) -> Self {
        Addresses { source: canonical(self.source), destination: canonical(self.destination) }
    }
}

/// Why a stream doesn't begin with a header. Always the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StreamError {
    /// The bytes are the beginning of neither version.
    #[error("no PROXY protocol header")]
    NoHeader,
    /// A version 2 header over [`MAX_STREAM_HEADER`].
    #[error("the header claims {0} bytes, more than the {MAX_STREAM_HEADER} that are allowed")]
    TooLong(usize),
    /// A version 1 header that is none.
    #[error(transparent)]
    V1(#[from] v1::Error),
    /// A version 2 header that is none.
    #[error(transparent)]
    V2(#[from] v2::Error),
}

/// The header, of either version, that a stream begins with; none while more bytes are needed to say. Bytes that
/// can't become a header are an error as soon as the first wrong one of the signature, the command, the family and the
/// length (version 2) or of the line (version 1) is there. Never looks past [`MAX_STREAM_HEADER`].
pub fn parse_stream(bytes: &[u8]) -> Result<Option<Header>, StreamError> {
    match bytes.first() {
        None => Ok(None),
        Some(first) if *first == v1::SIGNATURE[0] => Ok(v1::parse(bytes)?),
        Some(first) if *first == v2::SIGNATURE[0] => v2::parse_stream(bytes),
        Some(_) => Err(StreamError::NoHeader),
    }
}

/// An address with a v4-mapped IPv6 one (`::ffff:192.0.2.1`) as the IPv4 address it stands for.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}

/// An address in IPv6 form, an IPv4 one v4-mapped.
fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}
