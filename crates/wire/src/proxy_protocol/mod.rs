//! The PROXY protocol: who the client behind a proxy is. Says what a header means, never whether its sender may be
//! believed.
//!
//! Each version of the format is a module that parses to and emits from the types here. Datagrams carry
//! [version 2](v2) only.

pub mod v2;

use std::net::SocketAddr;

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

/// An address with a v4-mapped IPv6 one (`::ffff:192.0.2.1`) as the IPv4 address it stands for.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}
