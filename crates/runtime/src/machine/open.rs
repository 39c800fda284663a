//! Opening and closing: what `Listen`, `OpenDatagram`, `Connect`, `Close`, `Unbind` and `Adopt` ask for. Answers by
//! events for the next step.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use kakei_proxy::seam::{BindKey, Event, OpenError, Remote, SocketId};
use kakei_proxy::snapshot::Snapshot;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::sockets::{Entry, Kind};
use super::{Io, errors};
use crate::front::local_addr;
use crate::udp;

/// Queues of a socket to one backend, in bytes: some trains of 64 KiB, with what the kernel adds.
const CONNECTED_BUFFER: usize = 1 << 20;
/// The same for a socket with many flows.
const SHARED_BUFFER: usize = 4 << 20;
/// Descriptors that are left to the rest of the process: its admin socket, its logs, its new listeners.
const RESERVE: u64 = 64;

impl Io {
    pub(super) fn listen(&mut self, socket: SocketId, bind: BindKey) {
        let Some(front) = self.fronts.get(&bind).map(Arc::clone) else {
            return self.failed(socket, OpenError::Other);
        };
        let local = front.local;
        self.register(socket, Kind::Front(front), local, true);
    }

    pub(super) fn open_datagram(&mut self, socket: SocketId, remote: Remote) {
        match datagram(remote).and_then(|(kind, local)| Ok((self.spare(kind)?, local))) {
            Ok((kind, local)) => self.register(socket, kind, local, true),
            Err(error) => self.failed(socket, errors::open(&error)),
        }
    }

    pub(super) fn connect(&mut self, socket: SocketId, remote: SocketAddr) {
        let opened = stream(remote);
        match opened.and_then(|(fd, done, local)| Ok((self.spare(Kind::Stream(fd, !done))?, done, local))) {
            Ok((kind, done, local)) => self.register(socket, kind, local, done),
            Err(error) => self.failed(socket, errors::open(&error)),
        }
    }

    /// A connecting stream became writable, or failed.
    pub(super) fn finish_connect(&mut self, socket: SocketId) {
        let Some(Entry { kind: Kind::Stream(fd, connecting), .. }) = self.sockets.get_mut(socket) else { return };
        let stream = SockRef::from(&*fd);
        let local = match stream.take_error() {
            Ok(None) => match stream.peer_addr() {
                Ok(_) => local_addr(&stream),
                // Woken too early: it is still connecting.
                Err(_) => return,
            },
            Ok(Some(error)) | Err(error) => Err(error),
        };
        match local {
            Ok(local) => {
                *connecting = false;
                self.stats.opened += 1;
                self.backlog.push_back(Event::Opened { socket, local });
            }
            Err(error) => {
                self.sockets.remove(socket);
                self.failed(socket, errors::open(&error));
            }
        }
    }

    pub(super) fn close(&mut self, socket: SocketId) {
        if let Some(Entry { kind: Kind::Front(front), .. }) = self.sockets.remove(socket) {
            self.epoll.forget(front.as_fd());
        }
    }

    /// The worker is done with a bind. It stays prepared where the snapshot that the worker runs, or will run next,
    /// has it: then it was added again in the meantime.
    pub(super) fn unbind(&mut self, bind: BindKey, current: Option<&Snapshot>) {
        if !wanted(current, bind) {
            self.fronts.remove(&bind);
        }
    }

    pub(super) fn adopt(&mut self, was: SocketId, socket: SocketId) {
        let Some(entry) = self.sockets.remove(was) else {
            return self.failed(socket, OpenError::Other);
        };
        let renamed = self.epoll.rename(entry.fd(), socket, entry.interest());
        let entry = Entry { listed: false, ..entry };
        if renamed.is_err() || !self.sockets.insert(socket, entry) {
            self.sockets.remove(socket);
            return self.failed(socket, OpenError::Other);
        }
        // What was noted under the old id is not lost.
        self.sockets.list(socket);
    }

    /// The worker is gone: close what it opened, forget what it was to be told. Front sockets stay prepared.
    pub(super) fn abandon(&mut self) {
        for entry in self.sockets.drain() {
            if let Kind::Front(front) = entry.kind {
                self.epoll.forget(front.as_fd());
            }
        }
        self.backlog.clear();
        self.stats.sockets = 0;
    }

    /// After a restart nobody unbinds what the fresh worker never heard of.
    pub(super) fn retain_wanted(&mut self, current: Option<&Snapshot>) {
        self.fronts.retain(|&bind, _| wanted(current, bind));
    }

    fn register(&mut self, socket: SocketId, kind: Kind, local: SocketAddr, done: bool) {
        let entry = Entry::new(kind);
        let interest = entry.interest();
        if let Err(error) = self.epoll.add(entry.fd(), socket, interest) {
            return self.failed(socket, errors::open(&error));
        }
        debug_assert!(!self.sockets.contains(socket), "a worker opens an id once");
        if !self.sockets.insert(socket, entry) {
            return self.failed(socket, OpenError::Other);
        }
        if done {
            self.stats.opened += 1;
            self.backlog.push_back(Event::Opened { socket, local });
        }
    }

    /// The socket, unless the process needs its descriptor more: the kernel gives the lowest free number, so a high
    /// one says that few are left.
    fn spare(&self, kind: Kind) -> io::Result<Kind> {
        match u64::try_from(kind.fd().as_raw_fd()) {
            Ok(number) if number < self.descriptors => Ok(kind),
            _ => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        }
    }

    pub(super) fn failed(&mut self, socket: SocketId, error: OpenError) {
        self.stats.open_failures += 1;
        self.backlog.push_back(Event::OpenFailed { socket, error });
    }
}

/// The number from which on descriptors are the rest of the process's.
pub(super) fn descriptors() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    limit - RESERVE.min(limit / 4)
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
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    // A kernel without GRO gives single datagrams: slower, not wrong.
    let _ = udp::set_gro(socket.as_fd(), true);
    if let Remote::Connected(_) = remote {
        udp::set_receive_buffer(socket.as_fd(), CONNECTED_BUFFER);
        socket.connect(&SockAddr::from(address))?;
        let local = local_addr(&socket)?;
        return Ok((Kind::Connected(OwnedFd::from(socket)), local));
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    udp::set_receive_buffer(socket.as_fd(), SHARED_BUFFER);
    udp::set_send_buffer(socket.as_fd(), SHARED_BUFFER);
    udp::report_errors(socket.as_fd(), address.is_ipv6())?;
    socket.bind(&SockAddr::from(address))?;
    let local = local_addr(&socket)?;
    Ok((Kind::Shared(OwnedFd::from(socket)), local))
}

/// A stream to `remote`, and whether it is connected already.
fn stream(remote: SocketAddr) -> io::Result<(OwnedFd, bool, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(remote), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    let done = match socket.connect(&SockAddr::from(remote)) {
        Ok(()) => true,
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => false,
        Err(error) => return Err(error),
    };
    let local = local_addr(&socket)?;
    Ok((OwnedFd::from(socket), done, local))
}
