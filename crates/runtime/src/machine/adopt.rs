//! Sockets that live on under another worker's ids. It says which it goes on with before it asks for anything else. Its
//! ids are its own: one of them may be what another socket was called before, so all sockets leave their places before
//! the first takes its new one. What nobody goes on with is closed. Moves no bytes and tells nothing new.

use kakei_proxy::seam::{Event, OpenError, SocketId};
use slotmap::SecondaryMap;

use super::Io;
use super::sockets::Entry;

/// Sockets between two workers.
#[derive(Debug)]
pub(super) struct Succession {
    /// Those that nobody goes on with yet, by the ids that they had.
    left: SecondaryMap<SocketId, Entry>,
    /// What the ids became.
    renamed: SecondaryMap<SocketId, SocketId>,
    /// New ids of what isn't there.
    missing: Vec<SocketId>,
}

impl Succession {
    fn new_id(&self, was: SocketId) -> Option<SocketId> {
        self.renamed.get(was).copied()
    }
}

impl Io {
    /// A worker goes on with this socket. What the one before it still sends is in the kernel then.
    pub(super) fn adopt(&mut self, was: SocketId, socket: SocketId, heads: &[u8]) {
        let mut succession = match self.succession.take() {
            Some(begun) => begun,
            None => {
                self.flush_all(heads);
                Succession { left: self.sockets.leave(), renamed: SecondaryMap::new(), missing: Vec::new() }
            }
        };
        succession.renamed.insert(was, socket);
        match succession.left.remove(was) {
            Some(entry) if self.epoll.rename(entry.fd(), socket, entry.interest()).is_ok() => {
                let is_taken = self.sockets.insert(socket, entry);
                debug_assert!(is_taken, "a worker names a socket once");
                // What was noted under the old id is not lost.
                self.sockets.list(socket);
            }
            gone => {
                succession.missing.push(socket);
                succession.left.extend(gone.map(|entry| (was, entry)));
            }
        }
        self.succession = Some(succession);
    }

    /// The worker has named all that it goes on with: what was queued for it is by its ids, and the rest is closed.
    pub(super) fn succeed(&mut self) {
        let Some(mut succession) = self.succession.take() else { return };
        self.lose_pipes(&mut succession);
        for (socket, _) in &mut self.writing.blocked {
            // What nobody is told of keeps its place: those behind it lie behind its bytes.
            *socket = succession.new_id(*socket).unwrap_or_default();
        }
        for stream in self.sockets.streams_mut() {
            stream.source = stream.source.and_then(|source| succession.new_id(source));
            stream.lane = stream.lane.take().and_then(|mut lane| {
                lane.to = succession.new_id(lane.to)?;
                Some(lane)
            });
        }
        self.backlog.retain_mut(|event| {
            let Some(socket) = socket_of(event) else { return true };
            let renamed = succession.new_id(*socket);
            *socket = renamed.unwrap_or_default();
            renamed.is_some()
        });
        self.paused = self.paused.iter().filter_map(|front| succession.new_id(*front)).collect();
        let Succession { mut left, missing, .. } = succession;
        for (_, entry) in left.drain() {
            self.discard(entry);
        }
        for socket in missing {
            let is_told =
                |event: &Event| matches!(event, Event::OpenFailed { socket: failed, .. } if *failed == socket);
            if !self.backlog.iter().any(is_told) {
                self.failed(socket, OpenError::Other);
            }
        }
    }

    /// A pipe of which either end has no successor is lost to whom its bytes go to.
    fn lose_pipes(&mut self, succession: &mut Succession) {
        let left = &succession.left;
        let stay = self.sockets.streams_mut().filter_map(|stream| stream.moves_to());
        let mut targets: Vec<SocketId> = stay.filter(|to| left.contains_key(*to)).collect();
        targets.extend(succession.left.values_mut().filter_map(|entry| entry.stream_mut()?.moves_to()));
        for target in targets {
            let stream = match succession.left.get_mut(target) {
                Some(entry) => entry.stream_mut(),
                None => succession.new_id(target).and_then(|target| self.sockets.stream_mut(target)),
            };
            if let Some(stream) = stream {
                stream.misses = true;
            }
        }
    }
}

/// The socket that an event is about.
fn socket_of(event: &mut Event) -> Option<&mut SocketId> {
    match event {
        Event::Datagram(datagram) => Some(&mut datagram.socket),
        Event::Accepted(accepted) => Some(&mut accepted.front),
        Event::AcceptFailed { front, .. } => Some(front),
        Event::Piped { from, .. } => Some(from),
        Event::Opened { socket, .. }
        | Event::OpenFailed { socket, .. }
        | Event::Unreachable { socket, .. }
        | Event::SendFailed { socket, .. }
        | Event::Overflow { socket, .. }
        | Event::Data { socket, .. }
        | Event::Eof { socket }
        | Event::Broken { socket, .. }
        | Event::Blocked { socket, .. }
        | Event::Drained { socket } => Some(socket),
        Event::Verified { .. } | Event::Command { .. } => None,
    }
}
