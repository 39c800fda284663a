//! Socket addresses as the kernel lays them out (`sockaddr_in`, `sockaddr_in6`), read and written as bytes.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for an address of either family: family (2, host order), port (2, network order), then
/// IPv4: address (4); IPv6: flow info (4), address (16), scope (4, host order).
#[derive(Clone, Copy, Debug)]
#[repr(C, align(4))]
pub(crate) struct Name([u8; Name::LEN]);

impl Name {
    pub(crate) const LEN: usize = 28;
    pub(crate) const EMPTY: Name = Name([0; Name::LEN]);

    /// The address written down, and its length there.
    pub(crate) fn encode(address: SocketAddr) -> (Self, u32) {
        let mut raw = [0u8; Name::LEN];
        raw[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(v4) => {
                raw[0..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                raw[4..8].copy_from_slice(&v4.ip().octets());
                (Name(raw), 16)
            }
            SocketAddr::V6(v6) => {
                raw[0..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
                raw[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                raw[8..24].copy_from_slice(&v6.ip().octets());
                raw[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                (Name(raw), 28)
            }
        }
    }

    /// The address, where these `len` bytes are one. Flow information is left out: it is no part of an identity.
    pub(crate) fn decode(&self, len: u32) -> Option<SocketAddr> {
        let raw = self.0.get(..len as usize)?;
        let family = i32::from(u16::from_ne_bytes(*raw.first_chunk()?));
        let port = u16::from_be_bytes(*raw.get(2..4)?.first_chunk()?);
        match family {
            libc::AF_INET => {
                let ip: [u8; 4] = *raw.get(4..8)?.first_chunk()?;
                Some(SocketAddrV4::new(Ipv4Addr::from(ip), port).into())
            }
            libc::AF_INET6 => {
                let ip: [u8; 16] = *raw.get(8..24)?.first_chunk()?;
                let scope = u32::from_ne_bytes(*raw.get(24..28)?.first_chunk()?);
                Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope).into())
            }
            _ => None,
        }
    }
}

const _: () = assert!(size_of::<libc::sockaddr_in>() == 16 && size_of::<libc::sockaddr_in6>() == Name::LEN);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_come_back() {
        let scoped = SocketAddr::from(SocketAddrV6::new("fe80::1".parse().unwrap(), 9, 0, 3));
        for address in ["127.0.0.2:53".parse().unwrap(), "[2001:db8::1]:65535".parse().unwrap(), scoped] {
            let (name, len) = Name::encode(address);
            assert_eq!(name.decode(len), Some(address));
        }
        assert_eq!(Name::EMPTY.decode(16), None);
        assert_eq!(Name::encode("127.0.0.1:1".parse().unwrap()).0.decode(3), None);
    }
}
