//! The generator's sockets: clients that it connects, backends that it accepts, in one table and one epoll. Knows no load.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::secured::Sessions;

/// The epoll token of the backend's listener.
const LISTENER: u64 = u64::MAX;
/// How many events one wait takes.
const EVENTS: usize = 256;
const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// Something to be read or an end of it, once for every time that it comes.
pub(in crate::bench) const EDGES: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);

/// A socket's place in the table; used again once it is closed.
pub(in crate::bench) type Slot = usize;

/// What came of a read or a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::bench) enum Moved {
    Bytes(usize),
    /// Nothing now.
    Wait,
    /// The other side has ended its stream.
    End,
    /// The connection is lost.
    Lost,
}

/// What has happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::bench) enum Happened {
    /// Connections wait to be accepted.
    Arrived,
    /// A socket can be read or written, or its peer has ended.
    Ready(Slot),
}

pub(in crate::bench) struct Net {
    epoll: OwnedFd,
    listener: OwnedFd,
    front: SocketAddrV4,
    sockets: Vec<Option<OwnedFd>>,
    free: Vec<Slot>,
    events: Vec<Event>,
    /// Where clients speak TLS.
    sessions: Option<RefCell<Sessions>>,
}

impl Net {
    /// Listen as the backend on a port of the loopback (0: a free one).
    pub(in crate::bench) fn new(backend: u16) -> Result<Net, String> {
        let at = SocketAddrV4::new(Ipv4Addr::LOCALHOST, backend);
        let listen = || {
            let listener = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, FLAGS, None)?;
            sockopt::set_socket_reuseaddr(&listener, true)?;
            // What a connection inherits: answers leave at once.
            sockopt::set_tcp_nodelay(&listener, true)?;
            rustix::net::bind(&listener, &at)?;
            rustix::net::listen(&listener, 4096)?;
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
            Ok((listener, epoll))
        };
        let (listener, epoll) = listen().map_err(|e: Errno| format!("the backend's listener: {e}"))?;
        let events = Vec::with_capacity(EVENTS);
        Ok(Net { epoll, listener, front: at, sockets: Vec::new(), free: Vec::new(), events, sessions: None })
    }

    /// The port that the backend listens on.
    pub(in crate::bench) fn port(&self) -> Result<u16, String> {
        let at = rustix::net::getsockname(&self.listener).map_err(|e| format!("the listener's address: {e}"))?;
        SocketAddrV4::try_from(at).map(|at| at.port()).map_err(|e| format!("the listener's address: {e}"))
    }

    /// Where clients connect to.
    pub(in crate::bench) fn aim(&mut self, front: SocketAddrV4) {
        self.front = front;
    }

    /// Have clients that are begun from now on speak TLS.
    pub(super) fn secure(&mut self, sessions: Option<Sessions>) {
        self.sessions = sessions.map(RefCell::new);
    }

    /// Handshakes so far that were others than wanted.
    pub(super) fn unlike(&self) -> u64 {
        self.sessions.as_ref().map_or(0, |sessions| sessions.borrow().unlike())
    }

    /// Begin a client's connection.
    pub(in crate::bench) fn connect(&mut self, interest: EventFlags) -> Result<Slot, Errno> {
        let fd = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, FLAGS, None)?;
        sockopt::set_tcp_nodelay(&fd, true)?;
        match rustix::net::connect(&fd, &self.front) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let slot = self.keep(fd, interest)?;
        if let Some(sessions) = &mut self.sessions {
            sessions.get_mut().begin(slot);
        }
        Ok(slot)
    }

    /// Take one connection that waits at the backend.
    pub(in crate::bench) fn accept(&mut self, interest: EventFlags) -> Option<Slot> {
        let fd = rustix::net::accept_with(&self.listener, FLAGS).ok()?;
        self.keep(fd, interest).ok()
    }

    fn keep(&mut self, fd: OwnedFd, interest: EventFlags) -> Result<Slot, Errno> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.sockets.push(None);
            self.sockets.len() - 1
        });
        epoll::add(&self.epoll, &fd, EventData::new_u64(slot as u64), interest)?;
        self.sockets[slot] = Some(fd);
        Ok(slot)
    }

    pub(in crate::bench) fn close(&mut self, slot: Slot) {
        if self.sockets[slot].take().is_some() {
            self.free.push(slot);
        }
        if let Some(sessions) = &mut self.sessions {
            sessions.get_mut().end(slot);
        }
    }

    /// Close every connection, those that wait to be accepted too.
    pub(in crate::bench) fn close_all(&mut self) {
        while rustix::net::accept_with(&self.listener, FLAGS).is_ok() {}
        (0..self.sockets.len()).for_each(|slot| self.close(slot));
    }

    pub(in crate::bench) fn read(&self, slot: Slot, into: &mut [u8]) -> Moved {
        let Some(fd) = &self.sockets[slot] else { return Moved::Wait };
        let secured = self.sessions.as_ref().and_then(|sessions| sessions.borrow_mut().read(slot, fd, into));
        secured.unwrap_or_else(|| receive(fd, into))
    }

    /// Take up to `scratch.len()` bytes without looking at them: the kernel drops them uncopied, where they are plain.
    pub(in crate::bench) fn discard(&self, slot: Slot, scratch: &mut [u8]) -> Moved {
        let Some(fd) = &self.sockets[slot] else { return Moved::Wait };
        let secured = self.sessions.as_ref().and_then(|sessions| sessions.borrow_mut().read(slot, fd, scratch));
        secured.unwrap_or_else(|| receive_by(fd, scratch, RecvFlags::TRUNC))
    }

    pub(in crate::bench) fn write(&self, slot: Slot, bytes: &[u8]) -> Moved {
        let Some(fd) = &self.sockets[slot] else { return Moved::Wait };
        let secured = self.sessions.as_ref().and_then(|sessions| sessions.borrow_mut().write(slot, fd, bytes));
        secured.unwrap_or_else(|| send(fd, bytes))
    }

    /// Wait for events, at most `time`; how many came.
    pub(in crate::bench) fn wait(&mut self, time: Duration) -> usize {
        self.events.clear();
        let timeout = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)).unwrap_or(0)
    }

    /// Event number `index` of the last wait.
    pub(in crate::bench) fn event(&self, index: usize) -> Happened {
        match self.events[index].data.u64() {
            LISTENER => Happened::Arrived,
            slot => Happened::Ready(slot as Slot),
        }
    }
}

/// Receive bytes as they are.
pub(super) fn receive(fd: &OwnedFd, into: &mut [u8]) -> Moved {
    receive_by(fd, into, RecvFlags::empty())
}

fn receive_by(fd: &OwnedFd, into: &mut [u8], flags: RecvFlags) -> Moved {
    match rustix::net::recv(fd, into, flags) {
        Ok((_, 0)) => Moved::End,
        Ok((_, n)) => Moved::Bytes(n),
        Err(error) => stopped(error),
    }
}

/// Send bytes as they are.
pub(super) fn send(fd: &OwnedFd, bytes: &[u8]) -> Moved {
    match rustix::net::send(fd, bytes, SendFlags::NOSIGNAL) {
        Ok(n) => Moved::Bytes(n),
        Err(error) => stopped(error),
    }
}

fn stopped(error: Errno) -> Moved {
    match error {
        // A connection that is still being made says that it isn't there yet.
        Errno::AGAIN | Errno::INTR | Errno::NOTCONN => Moved::Wait,
        _ => Moved::Lost,
    }
}
