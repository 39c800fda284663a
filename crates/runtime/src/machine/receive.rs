//! What arrives: readiness into turns, turns into datagrams in slots, errors of the network into events. A turn is
//! bounded, so that a flood on one socket starves no other.

use std::os::fd::AsFd;
use std::time::Duration;
use std::{io, mem};

use kakei_proxy::limits::EVENTS_PER_STEP;
use kakei_proxy::seam::{Datagram, Event, SocketId, Transport};

use super::errors;
use super::open::NOWHERE;
use super::pace::Pace;
use super::sockets::Kind;
use super::{Io, SLOTS};
use crate::udp;

/// Datagrams in a turn, at least: more than one, since only a short read says that a queue was drained.
const SHARE: usize = 8;
/// Large trains in a turn, and bytes in a tick: what is received is sent on while it is still in the cache.
const BULKY_SHARE: usize = 8;
const BYTES_PER_TICK: usize = 512 << 10;
/// From this length on a message is bulky.
const BULKY: u32 = 16 << 10;
/// Errors of the network that one turn looks at.
const ERRORS: usize = 16;

/// What became of a turn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Drained,
    More,
}

impl Io {
    /// Wait for readiness and note it.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.epoll.wait(timeout)?;
        let Io { epoll, sockets, .. } = self;
        let mut waited = std::mem::take(&mut self.reported);
        waited.extend(epoll.ready().filter(|ready| sockets.note(ready)));
        for ready in waited.drain(..) {
            self.end_wait(ready);
        }
        self.reported = waited;
        Ok(())
    }

    /// Fill the slots, the ready sockets in turn.
    pub(super) fn receive(&mut self, events: &mut Vec<Event>) {
        let turns = self.sockets.listed();
        let share = SLOTS.checked_div(turns).unwrap_or(0).max(SHARE);
        let mut bytes = 0;
        for _ in 0..turns {
            let is_full = events.len() + 2 * SHARE > EVENTS_PER_STEP;
            if self.receiving.free() == 0 || bytes >= BYTES_PER_TICK || is_full {
                return;
            }
            let Some(socket) = self.sockets.next_listed() else { return };
            if self.turn(socket, share, &mut bytes, events) == Turn::More {
                self.sockets.list(socket);
            }
        }
    }

    fn turn(&mut self, socket: SocketId, share: usize, bytes: &mut usize, events: &mut Vec<Event>) -> Turn {
        let Some(entry) = self.sockets.get_mut(socket) else { return Turn::Drained };
        match &entry.kind {
            Kind::Stream(_) => return self.stream_turn(socket, events),
            Kind::Front(front) if front.transport == Transport::Tcp => return self.accept_turn(socket, events),
            _ => {}
        }
        let bulky = entry.bulky;
        if let Kind::Connected { errors, .. } | Kind::Shared { errors, .. } = &mut entry.kind
            && mem::take(errors)
            && self.read_errors(socket) == Turn::More
        {
            return Turn::More;
        }
        let asked = self.receiving.free().min(if bulky { BULKY_SHARE } else { share });
        for _ in 0..ERRORS {
            self.stats.receive_calls += 1;
            match self.take(socket, asked, bytes, events) {
                Ok(turn) => return turn,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Turn::Drained,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if errors::about_peer(&error) => self.note_error(socket),
                // Nothing that the network did; the next arrival is reported again.
                Err(_) => return Turn::Drained,
            }
        }
        Turn::More
    }

    /// Receive by one call.
    fn take(&mut self, socket: SocketId, asked: usize, bytes: &mut usize, events: &mut Vec<Event>) -> io::Result<Turn> {
        let Some(entry) = self.sockets.get_mut(socket) else { return Ok(Turn::Drained) };
        if let Kind::Connected { fd, pace: pace @ Pace::Lone(_), .. } = &mut entry.kind {
            let span = self.receiving.recv_one(fd.as_fd())?;
            pace.note_one();
            *bytes += span.len as usize;
            self.stats.receive_messages += 1;
            self.stats.receive_datagrams += 1;
            let (peer, local) = (NOWHERE, NOWHERE.ip());
            events.push(Event::Datagram(Datagram { socket, peer, local, segment: 0, bytes: span }));
            // What else is there is reported again.
            return Ok(Turn::Drained);
        }
        let slots = self.receiving.recv(entry.fd(), asked)?;
        let is_short = slots.len() < asked;
        if let Kind::Connected { fd, pace, .. } = &mut entry.kind {
            pace.note(slots.len(), asked, fd);
        }
        self.tell(socket, slots, bytes, events);
        Ok(if is_short { Turn::Drained } else { Turn::More })
    }

    /// Datagrams in slots become events.
    fn tell(&mut self, socket: SocketId, slots: std::ops::Range<usize>, bytes: &mut usize, events: &mut Vec<Event>) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        self.stats.receive_messages += slots.len() as u64;
        entry.bulky = false;
        for received in slots.filter_map(|slot| self.receiving.get(slot)) {
            if let (Some(counter), Kind::Front(front)) = (received.dropped, &entry.kind) {
                let datagrams = u64::from(front.newly_dropped(counter));
                if datagrams > 0 {
                    self.stats.overflows += datagrams;
                    events.push(Event::Overflow { socket, datagrams });
                }
            }
            let len = received.bytes.len;
            *bytes += len as usize;
            entry.bulky |= len >= BULKY;
            self.stats.receive_trains += u64::from(received.segment > 0);
            self.stats.receive_datagrams += len
                .checked_div(u32::from(received.segment))
                .map_or(1, |_| u64::from(len.div_ceil(u32::from(received.segment))));
            let local = received.local.unwrap_or_else(|| entry.kind.local());
            events.push(Event::Datagram(Datagram {
                socket,
                peer: received.peer,
                local,
                segment: received.segment,
                bytes: received.bytes,
            }));
        }
    }

    /// A call on the socket got an error of the network. It took the place of nothing: the call can be made again.
    pub(super) fn note_error(&mut self, socket: SocketId) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        match entry.kind {
            Kind::Connected { .. } | Kind::Shared { .. } => {
                // What the call got stands in the queue too, and is told from there.
                self.read_errors(socket);
            }
            Kind::Front(_) | Kind::Stream(..) => {}
        }
    }

    /// Read the error queue of a socket to backends.
    fn read_errors(&mut self, socket: SocketId) -> Turn {
        let Some(entry) = self.sockets.get_mut(socket) else { return Turn::Drained };
        let has_many_peers = matches!(entry.kind, Kind::Shared { .. });
        for _ in 0..ERRORS {
            match udp::next_error(entry.fd()) {
                Ok(Some((peer, error))) if errors::about_peer(&error) => {
                    self.stats.unreachable += 1;
                    let peer = has_many_peers.then_some(peer);
                    self.backlog.push_back(Event::Unreachable { socket, peer });
                }
                Ok(_) => {}
                Err(error) if errors::about_peer(&error) || error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Turn::Drained,
            }
        }
        if let Kind::Connected { errors, .. } | Kind::Shared { errors, .. } = &mut entry.kind {
            *errors = true;
        }
        self.sockets.list(socket);
        Turn::More
    }
}
