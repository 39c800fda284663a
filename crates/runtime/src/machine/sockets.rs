//! The table of open sockets by the worker's ids, and which of them may have something to read. Stale ids find
//! nothing. A socket that was opened holds no buffer and no queue of its own.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use kakei_proxy::limits::TABLE_BYTES;
use kakei_proxy::seam::SocketId;
use slotmap::SecondaryMap;

use super::epoll::{Interest, Ready};
use super::pace::Pace;
use super::stream::Stream;
use crate::front::FrontSocket;

/// No send, or write, waits; it is the last one.
pub(super) const NONE: u32 = u32::MAX;

/// What waits for one socket in this tick: the numbers of the first and the last send, or write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue {
    pub(super) socket: SocketId,
    pub(super) first: u32,
    pub(super) last: u32,
}

/// What a socket is.
#[derive(Debug)]
pub(super) enum Kind {
    /// A front socket, shared with the engine.
    Front(Arc<FrontSocket>),
    /// Datagrams to one peer.
    Connected {
        fd: OwnedFd,
        /// Its send buffer is as large as it gets.
        grown: bool,
        pace: Pace,
        /// Its error queue may hold something.
        errors: bool,
    },
    /// Datagrams to many peers.
    Shared {
        fd: OwnedFd,
        /// Its error queue may hold something.
        errors: bool,
    },
    /// A stream. Boxed: what it needs beside its descriptor, sockets of flows don't.
    Stream(Box<Stream>),
}

impl Kind {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Kind::Front(front) => front.as_fd(),
            Kind::Connected { fd, .. } | Kind::Shared { fd, .. } => fd.as_fd(),
            Kind::Stream(stream) => stream.fd.as_fd(),
        }
    }

    /// The address that a front socket is bound to; unspecified on a wildcard, and where nobody asks.
    pub(super) fn local(&self) -> IpAddr {
        match self {
            Kind::Front(front) => front.local.ip(),
            Kind::Connected { .. } | Kind::Shared { .. } | Kind::Stream(..) => Ipv4Addr::UNSPECIFIED.into(),
        }
    }
}

/// An open socket. There may be one for each flow.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    /// The longest datagram that may leave in a train.
    pub(super) longest: u16,
    /// It stands in the list of those that may have something to read.
    pub(super) listed: bool,
    /// What it received last was large.
    pub(super) bulky: bool,
    /// The number of its queue of this tick.
    pub(super) queue: u32,
}

impl Entry {
    pub(super) fn new(kind: Kind) -> Self {
        Entry { kind, longest: u16::MAX, listed: false, bulky: false, queue: NONE }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.kind.fd()
    }

    /// What it is, if it is a stream.
    pub(super) fn stream_mut(&mut self) -> Option<&mut Stream> {
        match &mut self.kind {
            Kind::Stream(stream) => Some(&mut **stream),
            Kind::Front(_) | Kind::Connected { .. } | Kind::Shared { .. } => None,
        }
    }

    pub(super) fn interest(&self) -> Interest {
        match self.kind {
            Kind::Front(_) | Kind::Shared { .. } => Interest::Read,
            Kind::Connected { .. } => Interest::Unread,
            Kind::Stream(_) => Interest::Both,
        }
    }
}

/// All open sockets of a machine.
#[derive(Debug)]
pub(super) struct Sockets {
    entries: SecondaryMap<SocketId, Entry>,
    ready: VecDeque<SocketId>,
}

impl Sockets {
    pub(super) fn new() -> Self {
        let entries = SecondaryMap::with_capacity(TABLE_BYTES / size_of::<Entry>());
        Sockets { entries, ready: VecDeque::new() }
    }

    pub(super) fn get_mut(&mut self, id: SocketId) -> Option<&mut Entry> {
        self.entries.get_mut(id)
    }

    /// False where a newer socket has the place of this id already.
    pub(super) fn insert(&mut self, id: SocketId, entry: Entry) -> bool {
        self.entries.insert(id, entry);
        self.entries.contains_key(id)
    }

    pub(super) fn remove(&mut self, id: SocketId) -> Option<Entry> {
        self.entries.remove(id)
    }

    pub(super) fn contains(&self, id: SocketId) -> bool {
        self.entries.contains_key(id)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The stream of that id, to look at.
    pub(super) fn stream(&self, id: SocketId) -> Option<&Stream> {
        match self.entries.get(id) {
            Some(Entry { kind: Kind::Stream(stream), .. }) => Some(stream),
            _ => None,
        }
    }

    /// The stream of that id.
    pub(super) fn stream_mut(&mut self, id: SocketId) -> Option<&mut Stream> {
        self.entries.get_mut(id)?.stream_mut()
    }

    /// All streams.
    pub(super) fn streams_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.entries.values_mut().filter_map(Entry::stream_mut)
    }

    /// All of them leave their places, by the ids that they had.
    pub(super) fn leave(&mut self) -> SecondaryMap<SocketId, Entry> {
        self.ready.clear();
        self.entries.values_mut().for_each(|entry| entry.listed = false);
        std::mem::take(&mut self.entries)
    }

    /// Take out all of them.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Entry> {
        self.ready.clear();
        self.entries.drain().map(|(_, entry)| entry)
    }

    /// Note what epoll reported of a socket: what may have something to read has its turn. Whether something else waited
    /// for it too.
    pub(super) fn note(&mut self, ready: &Ready) -> bool {
        let Some(entry) = self.entries.get_mut(ready.socket) else { return false };
        let (has_turn, ends_wait) = match &mut entry.kind {
            Kind::Stream(stream) => stream.note(ready),
            Kind::Connected { errors, .. } | Kind::Shared { errors, .. } => {
                *errors |= ready.error;
                (true, false)
            }
            Kind::Front(_) => (true, false),
        };
        if has_turn && !std::mem::replace(&mut entry.listed, true) {
            self.ready.push_back(ready.socket);
        }
        ends_wait
    }

    /// It may have something to read.
    pub(super) fn list(&mut self, id: SocketId) {
        if let Some(entry) = self.entries.get_mut(id)
            && !std::mem::replace(&mut entry.listed, true)
        {
            self.ready.push_back(id);
        }
    }

    /// The one that waited longest for its turn.
    pub(super) fn next_listed(&mut self) -> Option<SocketId> {
        while let Some(id) = self.ready.pop_front() {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.listed = false;
                return Some(id);
            }
        }
        None
    }

    /// How many turns there are, those of closed sockets included.
    pub(super) fn listed(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn any_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot of the table is 4 bytes more, rounded up to 8.
    #[test]
    fn an_open_socket_stays_small() {
        assert_eq!(size_of::<Entry>(), 24);
    }
}
