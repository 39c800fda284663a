//! What the benchmark's datagrams carry, and sockets that take and give many at once. Decides nothing about load.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockType, SockaddrIn, bind, recvmmsg, sendmmsg, setsockopt,
    socket, sockopt,
};

/// The smallest payload that carries a header.
pub(super) const SMALLEST: usize = 16;
/// A segment of a train, and the large size of single datagrams.
pub(super) const LARGE: usize = 1200;
/// How many datagrams one system call takes or gives.
const BATCH: usize = 32;
/// The receive buffer asked for on the benchmark's own sockets.
const BUFFER: usize = 4 << 20;

/// Which part of a run a datagram belongs to: only `Measured` ones count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Phase {
    /// Opens a flow; always answered, by a sink too.
    Open = 0,
    Warm = 1,
    Measured = 2,
}

/// The head of a datagram: which flow, which phase, when it was sent (nanoseconds since the load began).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) flow: u32,
    pub(super) phase: u8,
    pub(super) sent_ns: u64,
}

impl Head {
    pub(super) fn emit(self, into: &mut [u8]) {
        into[0..4].copy_from_slice(&self.flow.to_le_bytes());
        into[4] = self.phase;
        into[8..16].copy_from_slice(&self.sent_ns.to_le_bytes());
    }

    /// `None` where the datagram is too short to be ours.
    pub(super) fn parse(from: &[u8]) -> Option<Head> {
        let flow = u32::from_le_bytes(from.get(0..4)?.try_into().ok()?);
        let sent_ns = u64::from_le_bytes(from.get(8..16)?.try_into().ok()?);
        Some(Head { flow, phase: from[4], sent_ns })
    }
}

/// A bound, non-blocking IPv4 datagram socket with a large receive buffer.
pub(super) fn open(at: SocketAddrV4) -> Result<OwnedFd, String> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Inet, SockType::Datagram, flags, None).map_err(|e| format!("no socket: {e}"))?;
    // Without it a scheduling gap of a few milliseconds would count as the proxy's loss.
    setsockopt(&fd, sockopt::RcvBuf, &BUFFER).map_err(|e| format!("SO_RCVBUF: {e}"))?;
    bind(fd.as_raw_fd(), &SockaddrIn::from(at)).map_err(|e| format!("{at} can't be bound: {e}"))?;
    Ok(fd)
}

/// The address of the benchmark's backend number `index`.
pub(super) fn backend(index: usize, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(127, 0, 1 + (index / 250) as u8, 1 + (index % 250) as u8), port)
}

/// The source address number `index` of the benchmark's clients.
pub(super) fn client(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 1, (index / 250) as u8, 1 + (index % 250) as u8)
}

/// Takes datagrams from sockets, many per system call, and can send them back.
pub(super) struct Batch {
    buffers: Vec<[u8; 2048]>,
    taken: Vec<(usize, Option<SockaddrIn>)>,
    receive: MultiHeaders<SockaddrIn>,
    send: MultiHeaders<SockaddrIn>,
}

impl Batch {
    pub(super) fn new() -> Batch {
        Batch {
            buffers: vec![[0; 2048]; BATCH],
            taken: Vec::with_capacity(BATCH),
            receive: MultiHeaders::preallocate(BATCH, None),
            send: MultiHeaders::preallocate(BATCH, None),
        }
    }

    /// Whether the last take filled the batch, so that the socket may hold more.
    pub(super) fn full(&self) -> bool {
        self.taken.len() == BATCH
    }

    /// Take what waits on `fd`, up to one batch; how many came. An ICMP error counts as nothing.
    pub(super) fn take(&mut self, fd: &impl AsFd) -> usize {
        self.taken.clear();
        let mut slices: Vec<_> = self.buffers.iter_mut().map(|b| [IoSliceMut::new(b)]).collect();
        let raw = fd.as_fd().as_raw_fd();
        if let Ok(results) = recvmmsg(raw, &mut self.receive, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None) {
            self.taken.extend(results.map(|r| (r.bytes, r.address)));
        }
        self.taken.len()
    }

    /// The payloads of the last take.
    pub(super) fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        self.buffers.iter().zip(&self.taken).map(|(buffer, (len, _))| &buffer[..(*len).min(2048)])
    }

    /// Send those of the last take that `which` picks back to where they came from.
    pub(super) fn give_back(&mut self, fd: &impl AsFd, which: impl Fn(&[u8]) -> bool) {
        let mut slices = Vec::with_capacity(self.taken.len());
        let mut peers = Vec::with_capacity(self.taken.len());
        for (buffer, (len, peer)) in self.buffers.iter().zip(&self.taken) {
            if which(&buffer[..*len]) {
                slices.push([IoSlice::new(&buffer[..*len])]);
                peers.push(*peer);
            }
        }
        let raw = fd.as_fd().as_raw_fd();
        let mut done = 0;
        while done < slices.len() {
            let sent = sendmmsg(raw, &mut self.send, &slices[done..], &peers[done..], [], MsgFlags::MSG_DONTWAIT)
                .map(Iterator::count);
            match sent {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(n) => done += n,
                // The error belongs to one datagram (a peer that is gone): the others go on.
                Err(_) => done += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_survives_the_way() {
        let head = Head { flow: 70_000, phase: Phase::Measured as u8, sent_ns: 1 << 40 };
        let mut bytes = [0; SMALLEST];
        head.emit(&mut bytes);
        assert_eq!(Head::parse(&bytes), Some(head));
        assert_eq!(Head::parse(&bytes[..15]), None);
    }

    #[test]
    fn a_batch_takes_and_gives_back() {
        let server = open("127.0.0.1:0".parse().unwrap()).unwrap();
        let at: SockaddrIn = nix::sys::socket::getsockname(server.as_raw_fd()).unwrap();
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(SocketAddrV4::from(at)).unwrap();
        client.set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
        for text in ["one", "two", ""] {
            client.send(text.as_bytes()).unwrap();
        }
        let mut batch = Batch::new();
        assert_eq!(batch.take(&server), 3);
        assert_eq!(batch.payloads().collect::<Vec<_>>(), [&b"one"[..], b"two", b""]);
        batch.give_back(&server, |payload| payload != b"one");
        let mut buffer = [0; 8];
        assert_eq!(client.recv(&mut buffer).unwrap(), 3);
        assert_eq!(&buffer[..3], b"two");
        assert_eq!(client.recv(&mut buffer).unwrap(), 0);
        assert_eq!(batch.take(&server), 0);
    }

    #[test]
    fn backends_and_clients_have_addresses_of_their_own() {
        let mut seen = std::collections::BTreeSet::new();
        assert!((0..2000).all(|i| seen.insert(*backend(i, 1).ip()) && seen.insert(client(i))));
    }
}
