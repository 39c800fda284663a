//! Opening and closing: what `Listen`, `OpenDatagram`, `Connect`, `Close` and `Unbind` ask for. Answers by
//! events for the next step.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use kakei_proxy::seam::{BindKey, Endpoint, Event, OpenError, Remote, SocketId, Transport};
use kakei_proxy::snapshot::Snapshot;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::pace::Pace;
use super::sockets::{Entry, Kind};
use super::stream::{Phase, Stream};
use super::streams::end;
use super::write::Writer;
use super::{Io, errors};
use crate::clock;
use crate::front::local_addr;
use crate::udp;

/// Queues of a socket to one backend, in bytes: some trains of 64 KiB, with what the kernel adds.
const CONNECTED_BUFFER: usize = 1 << 20;
/// The same for a socket with many flows.
const SHARED_BUFFER: usize = 4 << 20;
/// How long no port is asked for where the system had none.
const PORTS_PAUSE: Duration = Duration::from_millis(100);
/// What is said of an address that nobody asks for.
pub(super) const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// Between two probes of a peer that may be gone.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

impl Io {
    pub(super) fn listen(&mut self, socket: SocketId, bind: BindKey) {
        let Some(front) = self.fronts.get(&bind).map(Arc::clone) else {
            return self.failed(socket, OpenError::Other);
        };
        let local = front.local;
        if bind.transport == Transport::Tcp {
            self.descriptors.expect_streams();
        }
        self.register(socket, Kind::Front(front));
        self.opened(socket, local);
    }

    pub(super) fn open_datagram(&mut self, socket: SocketId, remote: Remote) {
        if self.ports_at.is_some_and(|at| clock::now() < at) {
            return self.failed(socket, OpenError::NoPorts);
        }
        self.ports_at = None;
        match datagram(remote).and_then(|(kind, local)| Ok((self.spare(kind)?, local))) {
            Ok((kind, local)) => {
                self.register(socket, kind);
                self.opened(socket, local);
            }
            Err(error) => {
                // The system looks through all of its ports for that, which takes milliseconds.
                if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EADDRINUSE)) {
                    self.ports_at = Some(clock::now() + PORTS_PAUSE);
                }
                self.failed(socket, errors::open(&error));
            }
        }
    }

    pub(super) fn connect(&mut self, socket: SocketId, remote: &Endpoint, keepalive: Option<Duration>) {
        let made = stream(remote, keepalive).and_then(|(fd, phase)| {
            let kind = self.spare(Kind::Stream(Box::new(Stream::new(fd, phase, (false, true)))))?;
            Ok((kind, phase))
        });
        match made {
            Ok((kind, phase)) => {
                self.register(socket, kind);
                if phase == Phase::Open {
                    self.opened(socket, NOWHERE);
                }
            }
            Err(error) => self.failed(socket, errors::open(&error)),
        }
    }

    /// A connecting stream became writable, or failed.
    pub(super) fn finish_connect(&mut self, socket: SocketId, is_error: bool) {
        let Some(stream) = self.sockets.stream_mut(socket) else { return };
        let error = if is_error { SockRef::from(&stream.fd).take_error() } else { Ok(None) };
        match error {
            Ok(None) => {
                stream.phase = Phase::Open;
                let is_readable = stream.readable;
                self.opened(socket, NOWHERE);
                if is_readable {
                    self.sockets.list(socket);
                }
            }
            Ok(Some(error)) | Err(error) => {
                self.close(socket);
                self.failed(socket, errors::open(&error));
            }
        }
    }

    pub(super) fn close(&mut self, socket: SocketId) {
        self.leave_lanes(socket);
        let Some(entry) = self.sockets.remove(socket) else { return };
        if let Kind::Front(_) = entry.kind {
            self.paused.retain(|paused| *paused != socket);
        }
        self.discard(entry);
    }

    /// What was a socket's is given up with it.
    pub(super) fn discard(&mut self, entry: Entry) {
        match entry.kind {
            Kind::Front(front) => self.epoll.forget(front.as_fd()),
            Kind::Stream(stream) => {
                self.freed(&stream);
                end(*stream);
            }
            Kind::Connected { .. } | Kind::Shared { .. } => {}
        }
    }

    /// The worker is done with a bind. It stays prepared where the snapshot that the worker runs, or will run next,
    /// has it: then it was added again in the meantime. None is given where the worker drains.
    pub(super) fn unbind(&mut self, bind: BindKey, current: Option<&Snapshot>) {
        if !wanted(current, bind) {
            self.fronts.remove(&bind);
        }
    }

    /// The worker is gone: close what it opened, forget what it was to be told. Front sockets stay prepared.
    pub(super) fn abandon(&mut self) {
        let targets: Vec<SocketId> = self.sockets.streams_mut().filter_map(|stream| stream.moves_to()).collect();
        for target in targets {
            if let Some(stream) = self.sockets.stream_mut(target) {
                stream.misses = true;
            }
        }
        for entry in self.sockets.drain() {
            match entry.kind {
                Kind::Front(front) => self.epoll.forget(front.as_fd()),
                Kind::Stream(stream) => end(*stream),
                Kind::Connected { .. } | Kind::Shared { .. } => {}
            }
        }
        self.backlog.clear();
        // What it asked is answered to nobody.
        self.epoch += 1;
        self.writing = Writer::default();
        (self.clients, self.servers) = (0, 0);
        self.forget_arrivals();
        self.paused.clear();
        self.stats.sockets = 0;
    }

    /// After a restart nobody unbinds what the fresh worker never heard of.
    pub(super) fn retain_wanted(&mut self, current: Option<&Snapshot>) {
        self.fronts.retain(|&bind, _| wanted(current, bind));
    }

    pub(super) fn register(&mut self, socket: SocketId, kind: Kind) {
        let entry = Entry::new(kind);
        let interest = entry.interest();
        if let Err(error) = self.epoll.add(entry.fd(), socket, interest) {
            return self.failed(socket, errors::open(&error));
        }
        debug_assert!(!self.sockets.contains(socket), "a worker opens an id once");
        if let Kind::Stream(stream) = &entry.kind {
            self.clients += u64::from(stream.accepted);
            self.servers += u64::from(!stream.accepted);
        }
        if !self.sockets.insert(socket, entry) {
            self.failed(socket, OpenError::Other);
        }
    }

    fn opened(&mut self, socket: SocketId, local: SocketAddr) {
        // Where it could not be registered that was said already.
        if self.sockets.contains(socket) {
            self.stats.opened += 1;
            self.backlog.push_back(Event::Opened { socket, local });
        }
    }

    /// The socket, unless the process needs its descriptor more.
    fn spare(&self, kind: Kind) -> io::Result<Kind> {
        let number = kind.fd().as_raw_fd();
        let is_spare = match kind {
            Kind::Connected { .. } | Kind::Shared { .. } => self.descriptors.spare_for_datagrams(number),
            Kind::Front(_) | Kind::Stream(_) => self.descriptors.spare(number),
        };
        if is_spare { Ok(kind) } else { Err(io::Error::from_raw_os_error(libc::EMFILE)) }
    }

    pub(super) fn failed(&mut self, socket: SocketId, error: OpenError) {
        self.stats.open_failures += 1;
        self.backlog.push_back(Event::OpenFailed { socket, error });
    }
}

fn wanted(current: Option<&Snapshot>, bind: BindKey) -> bool {
    current.is_some_and(|snapshot| snapshot.binds().any(|wanted| wanted == bind))
}

fn datagram(remote: Remote) -> io::Result<(Kind, SocketAddr)> {
    let address = match remote {
        Remote::Connected(address) => address,
        Remote::AnyV4 => (Ipv4Addr::UNSPECIFIED, 0).into(),
        Remote::AnyV6 => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    if let Remote::Connected(_) = remote {
        let (socket, local) = to_another(address, || connected(address))?;
        let fd = OwnedFd::from(socket);
        return Ok((Kind::Connected { fd, grown: false, pace: Pace::FIRST, errors: false }, local));
    }
    let socket = unconnected(address)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A kernel without GRO gives single datagrams: slower, not wrong.
    let _ = udp::set_gro(socket.as_fd(), true);
    udp::set_receive_buffer(socket.as_fd(), SHARED_BUFFER);
    udp::set_send_buffer(socket.as_fd(), SHARED_BUFFER);
    udp::report_errors(socket.as_fd(), address.is_ipv6())?;
    socket.bind(&SockAddr::from(address))?;
    let local = local_addr(&socket)?;
    Ok((Kind::Shared { fd: OwnedFd::from(socket), errors: false }, local))
}

fn unconnected(address: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))
}

/// A datagram socket that goes to one address, and its own.
fn connected(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    let socket = unconnected(address)?;
    udp::set_receive_buffer(socket.as_fd(), CONNECTED_BUFFER);
    // Without this the system keeps to itself that a host or a network can't be reached.
    udp::report_errors(socket.as_fd(), address.is_ipv6())?;
    socket.connect(&SockAddr::from(address))?;
    let local = local_addr(&socket)?;
    Ok((socket, local))
}

/// A socket that `open` makes and that isn't its own peer: the port that the system picks for it may be the one of a
/// backend on this machine that is down, and what is sent would come back as an answer. While the first one is held the
/// next is given another port.
fn to_another(
    address: SocketAddr,
    open: impl Fn() -> io::Result<(Socket, SocketAddr)>,
) -> io::Result<(Socket, SocketAddr)> {
    let first = open()?;
    let made = if first.1 == address { open()? } else { first };
    if made.1 == address { Err(io::Error::from_raw_os_error(libc::ECONNREFUSED)) } else { Ok(made) }
}

/// A stream to `remote`, and how far it is.
fn stream(remote: &Endpoint, keepalive: Option<Duration>) -> io::Result<(OwnedFd, Phase)> {
    let (socket, address) = match remote {
        Endpoint::Ip(address) => {
            let domain = Domain::for_address(*address);
            let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
            socket.set_tcp_nodelay(true)?;
            if let Some(time) = keepalive {
                socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(time).with_interval(KEEPALIVE_INTERVAL))?;
            }
            (socket, SockAddr::from(*address))
        }
        Endpoint::Unix(path) => {
            (Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?, SockAddr::unix(&**path)?)
        }
    };
    let phase = match socket.connect(&address) {
        Ok(()) => Phase::Open,
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Phase::Connecting,
        // A Unix socket whose queue is full says so by the word for something else.
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && matches!(remote, Endpoint::Unix(_)) => {
            return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
        }
        Err(error) => return Err(error),
    };
    // The port that the system picked is the backend's own: nobody else is there.
    if let Endpoint::Ip(remote) = remote
        && local_addr(&socket)? == *remote
    {
        return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    }
    Ok((OwnedFd::from(socket), phase))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loopback has no network between that could say something; a closed port is told in the same way to those who ask.
    #[test]
    fn a_connected_socket_asks_for_what_the_network_says() {
        for ip in ["127.0.0.1:0", "[::1]:0"] {
            let closed = std::net::UdpSocket::bind(ip).unwrap().local_addr().unwrap();
            let (kind, _) = datagram(Remote::Connected(closed)).unwrap();
            SockRef::from(&kind.fd()).send(b"x").unwrap();
            let told = (0..200).find_map(|_| {
                std::thread::sleep(Duration::from_millis(5));
                udp::next_error(kind.fd()).ok().flatten()
            });
            assert_eq!(
                told.map(|(peer, error)| (peer, error.kind())),
                Some((closed, io::ErrorKind::ConnectionRefused))
            );
        }
    }

    /// A socket that is bound there and connected to where it is bound.
    fn own_peer(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
        let socket = unconnected(address)?;
        socket.bind(&SockAddr::from(address))?;
        let local = local_addr(&socket)?;
        socket.connect(&SockAddr::from(local))?;
        Ok((socket, local))
    }

    #[test]
    fn no_socket_is_given_out_that_is_its_own_peer() {
        let (first, address) = own_peer((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        drop(first);
        let (made, attempts) = (std::cell::RefCell::new(Vec::new()), std::cell::Cell::new(0));
        let open = || {
            attempts.set(attempts.get() + 1);
            let (socket, local) = if attempts.get() == 1 { own_peer(address)? } else { connected(address)? };
            made.borrow_mut().push(local);
            Ok((socket, local))
        };
        let (_, local) = to_another(address, open).unwrap();
        assert_eq!(made.into_inner(), [address, local]);
        assert_ne!(local, address);
        let again = || {
            let (socket, _) = connected(address)?;
            Ok((socket, address))
        };
        let refused = to_another(address, again).map(|(_, local)| local).map_err(|error| errors::open(&error));
        assert_eq!(refused, Err(OpenError::Unreachable));
    }

    /// The system goes through the even ports one behind the other, with some left out: before long it comes to the one
    /// that is connected to. Nobody listens there, so nothing may come of it.
    #[test]
    fn a_stream_that_would_be_its_own_peer_is_refused() {
        let free = |_| {
            let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            SocketAddr::new(address.ip(), address.port() & !1)
        };
        let is_free = |address: &SocketAddr| std::net::TcpListener::bind(address).is_ok();
        let address = (0..100).map(free).find(is_free).expect("a free port");
        let made = (0..50_000).filter_map(|_| stream(&Endpoint::Ip(address), None).ok());
        let mut locals = made.map(|(fd, _)| SockRef::from(&fd).local_addr().unwrap().as_socket().unwrap());
        assert!(locals.all(|local| local != address));
    }
}
