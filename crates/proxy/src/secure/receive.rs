//! What happens to a stream under TLS, turned into what whoever it belongs to is to be told.

use super::{End, Secure, Told};
use crate::record::CloseReason;
use crate::seam::{Instant, SocketId};
use crate::world::World;

/// What came of bytes.
pub(crate) enum Took {
    /// They wait for their turn.
    Nothing,
    /// These come before TLS, and are for whoever the stream belongs to.
    Before(Vec<u8>),
    /// They were of a stream in use.
    Told(Told),
}

impl Secure {
    /// Bytes arrived.
    pub(crate) fn receive(&mut self, world: &mut World, now: Instant, socket: SocketId, bytes: &[u8]) -> Took {
        let Some(stream) = self.streams.get_mut(socket) else { return Took::Nothing };
        if stream.is_opening() {
            return self.receive_early(world, now, socket, bytes).map_or(Took::Nothing, Took::Before);
        }
        let Some(session) = stream.session().filter(|session| !session.has_ended) else { return Took::Nothing };
        let mut told = Told { plain: std::mem::take(&mut self.plain), ..Told::default() };
        let took = session.take(bytes, &mut self.room, &mut told.plain);
        if session.has_ended {
            told.end = Some(End::Closed);
        }
        if session.owes() {
            self.dirty.push(socket);
        }
        if let Err(error) = took {
            told.end = Some(End::Broken(stream.reason(CloseReason::TlsError), Some(error.to_string())));
            stream.end();
        }
        Took::Told(told)
    }

    /// The peer sends nothing more. Where it did not say so in TLS, what came may not be all (RFC 8446, section 6.1).
    pub(crate) fn receive_end(&mut self, world: &mut World, socket: SocketId) -> Option<End> {
        let stream = self.streams.get_mut(socket)?;
        if stream.is_opening() {
            return Some(self.leave_early(world, socket));
        }
        let has_ended = stream.session()?.has_ended;
        (!has_ended).then(|| End::Broken(stream.reason(CloseReason::TlsTruncated), None))
    }

    /// The stream is dead. Whether whoever it belongs to is to be told of that as it is.
    pub(crate) fn break_off(&mut self, world: &mut World, socket: SocketId) -> Option<End> {
        let stream = self.streams.get_mut(socket)?;
        let end = stream.is_opening().then(|| self.leave_early(world, socket));
        let stream = &mut self.streams[socket];
        stream.end();
        stream.output = Vec::new();
        end
    }

    /// The peer took only a part. Whether whoever it belongs to is to be told.
    pub(crate) fn block(&mut self, socket: SocketId, rest: &[u8]) -> bool {
        let Some(stream) = self.streams.get_mut(socket) else { return false };
        stream.is_blocked = true;
        // Records that were made since go behind it.
        stream.output.splice(..0, rest.iter().copied());
        stream.session().is_some()
    }

    /// The peer takes bytes again. Whether whoever it belongs to is to be told.
    pub(crate) fn drain(&mut self, socket: SocketId) -> bool {
        let Some(stream) = self.streams.get_mut(socket) else { return false };
        stream.is_blocked = false;
        self.dirty.push(socket);
        stream.session().is_some()
    }
}
