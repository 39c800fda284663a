//! Front sockets: one per worker and bind, in a reuse-port group. Binds them, says in one sentence why it could not,
//! and never decides which are wanted.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kakei_proxy::seam::{BindKey, Transport};
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use crate::machine::KEEPALIVE_INTERVAL;
use crate::udp;

/// Clients that may wait to be accepted; the system may allow fewer.
const BACKLOG: i32 = 4_096;
/// Idle time after which the kernel probes a client.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// What a front socket asks for as its queue: a burst of 4 MiB may wait while a worker is busy.
const BUFFER: usize = 4 << 20;

/// One worker's socket of a bind. Shared between the engine, which keeps it open, and one machine.
#[derive(Debug)]
pub(crate) struct FrontSocket {
    socket: Socket,
    /// Its address, with the port that was really taken.
    pub(crate) local: SocketAddr,
    pub(crate) transport: Transport,
    /// The kernel's drop counter as last seen. It belongs to the socket, not to the time it is listened on.
    dropped: AtomicU32,
}

impl FrontSocket {
    /// How many datagrams were dropped since the last call, given the kernel's counter.
    pub(crate) fn newly_dropped(&self, counter: u32) -> u32 {
        counter.wrapping_sub(self.dropped.swap(counter, Ordering::Relaxed))
    }
}

impl AsFd for FrontSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The sockets of one bind, one for each worker in order.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) bind: BindKey,
    pub(crate) local: SocketAddr,
    pub(crate) sockets: Vec<Arc<FrontSocket>>,
}

impl Group {
    /// Let clients connect. Only once all are bound: who listens first would take what is meant for all.
    pub(crate) fn listen(&self) -> Result<(), BindError> {
        let streams = self.sockets.iter().filter(|socket| socket.transport == Transport::Tcp);
        let failed = |error| BindError { bind: self.bind, reason: reason(&error) };
        streams.map(|socket| socket.socket.listen(BACKLOG)).try_for_each(|listened| listened.map_err(failed))
    }
}

/// Why an address could not be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindReason {
    /// The port is privileged.
    Permission,
    /// Another socket has it.
    InUse,
    /// No interface of this machine has the address.
    NotOurs,
    /// No file descriptor is left.
    NoDescriptors,
    /// Any other error number of the system.
    System(i32),
}

/// An address that could not be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindError {
    /// Which.
    pub bind: BindKey,
    /// Why.
    pub reason: BindReason,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.bind.address)?;
        match self.reason {
            BindReason::Permission => f.write_str("permission denied (ports under 1024 need CAP_NET_BIND_SERVICE)"),
            BindReason::InUse => f.write_str("address in use"),
            BindReason::NotOurs => f.write_str("not an address of this machine"),
            BindReason::NoDescriptors => f.write_str("no file descriptor left"),
            BindReason::System(errno) => write!(f, "{}", io::Error::from_raw_os_error(errno)),
        }
    }
}

impl std::error::Error for BindError {}

/// Bind a group of `workers` sockets. `shared`: whether this engine itself holds an address that overlaps with it.
pub(crate) fn bind(bind: BindKey, workers: usize, shared: bool) -> Result<Group, BindError> {
    let failed = |error: io::Error| BindError { bind, reason: reason(&error) };
    // SO_REUSEPORT lets any process of the same user join the group and take a part of the traffic, silently: a
    // second Kakei on the same port would steal from the first. So the first socket is bound without it, which fails
    // where anybody has the port, and joins the group afterwards; nobody can come between the two.
    let first = socket(bind.transport, bind.address, shared).map_err(failed)?;
    let local = local_addr(&first).map_err(failed)?;
    first.set_reuse_port(true).map_err(failed)?;
    let mut sockets = vec![first];
    while sockets.len() < workers.max(1) {
        sockets.push(socket(bind.transport, local, true).map_err(failed)?);
    }
    let transport = bind.transport;
    let sockets =
        sockets.into_iter().map(|socket| FrontSocket { socket, local, transport, dropped: AtomicU32::new(0) });
    Ok(Group { bind, local, sockets: sockets.map(Arc::new).collect() })
}

fn socket(transport: Transport, address: SocketAddr, reuse: bool) -> io::Result<Socket> {
    let (kind, protocol) = match transport {
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
    };
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if reuse {
        socket.set_reuse_port(true)?;
    }
    match transport {
        Transport::Udp => prepare_datagrams(&socket, address)?,
        Transport::Tcp => prepare_streams(&socket)?,
    }
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

fn prepare_datagrams(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    udp::report_overflow(socket.as_fd())?;
    if address.ip().is_unspecified() {
        udp::report_local_address(socket.as_fd(), address.is_ipv6())?;
    }
    udp::set_receive_buffer(socket.as_fd(), BUFFER);
    udp::set_send_buffer(socket.as_fd(), BUFFER);
    // A kernel without GRO gives single datagrams: slower, not wrong.
    let _ = udp::set_gro(socket.as_fd(), true);
    Ok(())
}

/// What is set here, accepted clients have from the beginning.
fn prepare_streams(socket: &Socket) -> io::Result<()> {
    // Connections of an earlier process that linger don't keep this one from its port; one that listens does.
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL))
}

pub(crate) fn local_addr(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

fn reason(error: &io::Error) -> BindReason {
    match error.raw_os_error().unwrap_or(0) {
        libc::EACCES | libc::EPERM => BindReason::Permission,
        libc::EADDRINUSE => BindReason::InUse,
        libc::EADDRNOTAVAIL => BindReason::NotOurs,
        libc::EMFILE | libc::ENFILE => BindReason::NoDescriptors,
        errno => BindReason::System(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> BindKey {
        BindKey { transport: Transport::Udp, address: address.parse().unwrap() }
    }

    #[test]
    fn a_free_port_is_the_same_for_all_workers() {
        let group = bind(key("127.0.0.1:0"), 3, false).unwrap();
        assert_ne!(group.local.port(), 0);
        assert!(group.sockets.iter().all(|s| local_addr(&s.socket).unwrap() == group.local));
    }

    #[test]
    fn a_group_of_somebody_else_is_not_joined() {
        let theirs = bind(key("127.0.0.1:0"), 2, false).unwrap();
        let same = BindKey { address: theirs.local, ..theirs.bind };
        let error = bind(same, 2, false).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: address in use", theirs.local));
        drop(theirs);
        bind(same, 2, false).unwrap();
    }

    #[test]
    fn clients_connect_only_once_all_may() {
        let tcp = |address: SocketAddr| BindKey { transport: Transport::Tcp, address };
        let wide = bind(tcp("0.0.0.0:0".parse().unwrap()), 2, false).unwrap();
        wide.listen().unwrap();
        let place = SocketAddr::from(([127, 0, 0, 1], wide.local.port()));
        let narrow = bind(tcp(place), 2, true).unwrap();
        let is_taken_by = |group: &Group| {
            let _client = std::net::TcpStream::connect(place).unwrap();
            group.sockets.iter().any(|socket| socket.socket.accept().is_ok())
        };
        assert!(!is_taken_by(&narrow));
        assert!(is_taken_by(&wide));
        narrow.listen().unwrap();
        assert!(is_taken_by(&narrow));
    }

    #[test]
    fn errors_are_sentences() {
        let error = bind(key("203.0.113.9:5353"), 1, false).unwrap_err();
        assert_eq!(error.to_string(), "203.0.113.9:5353: not an address of this machine");
        let denied =
            BindError { bind: key("127.0.0.1:53"), reason: reason(&io::Error::from_raw_os_error(libc::EACCES)) };
        assert_eq!(denied.to_string(), "127.0.0.1:53: permission denied (ports under 1024 need CAP_NET_BIND_SERVICE)");
    }

    #[test]
    fn drops_are_counted_from_the_last_time() {
        let group = bind(key("127.0.0.1:0"), 1, false).unwrap();
        assert_eq!(group.sockets[0].newly_dropped(7), 7);
        assert_eq!(group.sockets[0].newly_dropped(9), 2);
    }
}
