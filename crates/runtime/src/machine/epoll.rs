//! epoll with the few uses that a machine has: add once, mostly edge-triggered; forget; wait. Knows no events of a worker.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use kakei_proxy::seam::SocketId;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use slotmap::{Key, KeyData};

/// Readiness reports per system call.
const REPORTS: usize = 256;
/// The machine's own eventfd. No socket id has these bits: the index of a real one is below `u32::MAX`.
const WAKE: u64 = u64::MAX;

/// What a socket waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Datagrams, or clients, arrive.
    Read,
    /// Datagrams are there: it is reported again as long as not all of them were read.
    Unread,
    /// A stream: bytes arrive, bytes can be written, the peer ends.
    Both,
}

/// What was reported of a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) socket: SocketId,
    pub(super) error: bool,
    /// Something can be read, the end of a stream included.
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The peer sends nothing more.
    pub(super) ended: bool,
    /// Urgent data came.
    pub(super) urgent: bool,
}

pub(super) struct Epoll {
    fd: OwnedFd,
    reports: Vec<Event>,
}

impl Epoll {
    /// `wake` makes [`Epoll::wait`] return. It is never read: each write to it is an edge of its own.
    pub(super) fn new(wake: impl AsFd) -> io::Result<Self> {
        let fd = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&fd, wake, EventData::new_u64(WAKE), EventFlags::IN | EventFlags::ET)?;
        Ok(Epoll { fd, reports: Vec::with_capacity(REPORTS) })
    }

    pub(super) fn add(&self, socket: BorrowedFd<'_>, id: SocketId, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.fd, socket, data(id), flags(interest))?)
    }

    /// The same socket by another id. What is readable is reported again.
    pub(super) fn rename(&self, socket: BorrowedFd<'_>, id: SocketId, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.fd, socket, data(id), flags(interest))?)
    }

    /// Only for sockets that somebody else keeps open: closing does the same.
    pub(super) fn forget(&self, socket: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.fd, socket);
    }

    /// Wait, without end where there is no timeout. A signal ends it like a timeout.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(|t| Timespec { tv_sec: t.as_secs() as _, tv_nsec: t.subsec_nanos() as _ });
        self.reports.clear();
        match epoll::wait(&self.fd, spare_capacity(&mut self.reports), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What the last wait reported.
    pub(super) fn ready(&self) -> impl Iterator<Item = Ready> {
        self.reports.iter().filter(|report| report.data.u64() != WAKE).map(|report| {
            let (flags, data) = (report.flags, report.data);
            let error = flags.intersects(EventFlags::ERR | EventFlags::HUP);
            let ended = error || flags.contains(EventFlags::RDHUP);
            Ready {
                socket: SocketId::from(KeyData::from_ffi(data.u64())),
                error,
                readable: ended || flags.contains(EventFlags::IN),
                writable: flags.contains(EventFlags::OUT),
                ended,
                urgent: flags.contains(EventFlags::PRI),
            }
        })
    }
}

fn data(id: SocketId) -> EventData {
    EventData::new_u64(id.data().as_ffi())
}

fn flags(interest: Interest) -> EventFlags {
    match interest {
        Interest::Read => EventFlags::ET | EventFlags::IN,
        Interest::Unread => EventFlags::IN,
        Interest::Both => EventFlags::ET | EventFlags::IN | EventFlags::PRI | EventFlags::OUT | EventFlags::RDHUP,
    }
}
