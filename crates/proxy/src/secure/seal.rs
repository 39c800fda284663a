//! What a step asks of streams under TLS, turned into what the machine can do: what is written becomes records, an end
//! is said in TLS first. The machine is never asked to move a stream's bytes by itself: it would move ciphertext, and it
//! may always go on without.

use super::session::Session;
use super::stream::Stage;
use super::{Secure, Stream};
use crate::seam::{Gather, Op, Outbox, SocketId, Span};
use crate::world::{Tick, World};

impl Secure {
    /// Go through what the step asks for, once nothing comes on top.
    pub(crate) fn seal(&mut self, world: &mut World, tick: &mut Tick<'_>) {
        if self.streams.is_empty() {
            return;
        }
        let mut ops = std::mem::take(&mut self.ops);
        std::mem::swap(&mut ops, &mut tick.out.ops);
        for op in ops.drain(..) {
            self.seal_one(world, tick, op);
        }
        self.ops = ops;
        for socket in std::mem::take(&mut self.dirty) {
            if let Some(stream) = self.streams.get_mut(socket) {
                stream.flush(tick.out, socket);
            }
        }
    }

    fn seal_one(&mut self, world: &mut World, tick: &mut Tick<'_>, op: Op) {
        let (Op::Write { socket, .. } | Op::Shutdown { socket } | Op::Close { socket } | Op::Reset { socket }) = op
        else {
            let is_ours = match op {
                Op::Pipe { from, to } => self.streams.contains_key(from) || self.streams.contains_key(to),
                Op::Unpipe { from } => self.streams.contains_key(from),
                _ => false,
            };
            if !is_ours {
                tick.ask(op);
            }
            return;
        };
        let Some(stream) = self.streams.get_mut(socket) else { return tick.ask(op) };
        match op {
            Op::Write { bytes, .. } => {
                let (Span { start, len }, room) = (bytes.head, &mut self.room);
                let (head, body) = (start as usize..start as usize + len as usize, bytes.body.of(tick.bytes));
                stream.speak(tick.out, socket, |session, made| session.write(made, head, body, room));
            }
            Op::Shutdown { .. } => {
                stream.say_end(tick.out, socket);
                tick.ask(op);
            }
            Op::Close { .. } | Op::Reset { .. } => {
                // Who was refused, or broke the rules, is to learn of it: a reset could overtake that.
                let is_told = matches!(stream.stage, Stage::Ended) && !stream.output.is_empty();
                let is_orderly = matches!(op, Op::Close { .. }) || is_told;
                if is_orderly {
                    stream.take_leave(tick.out, socket);
                }
                self.leave_opening(world, socket);
                self.streams.remove(socket);
                tick.ask(if is_orderly { Op::Close { socket } } else { Op::Reset { socket } });
            }
            _ => {}
        }
    }
}

impl Stream {
    /// Ask for what waits to be written, where the peer takes bytes.
    fn flush(&mut self, out: &mut Outbox, socket: SocketId) {
        if !self.is_blocked {
            self.ask(out, socket, |_, _| {});
        }
    }

    /// Say something, behind what waits to be written.
    fn speak(&mut self, out: &mut Outbox, socket: SocketId, say: impl FnOnce(&mut Session, &mut Vec<u8>)) {
        self.ask(out, socket, |stream, made| {
            if let Some(session) = stream.session() {
                say(session, made);
            }
        });
    }

    fn ask(&mut self, out: &mut Outbox, socket: SocketId, say: impl FnOnce(&mut Stream, &mut Vec<u8>)) {
        let start = out.bytes.len();
        out.bytes.append(&mut std::mem::take(&mut self.output));
        if let Some(session) = self.any_session() {
            session.drain(&mut out.bytes);
        }
        say(self, &mut out.bytes);
        let head = Span { start: start as u32, len: (out.bytes.len() - start) as u32 };
        if self.is_blocked {
            self.output = out.bytes.split_off(start);
        } else if head.len > 0 {
            out.ops.push(Op::Write { socket, bytes: Gather { head, body: Span::EMPTY } });
        }
    }

    /// Say in TLS that nothing more is written.
    fn say_end(&mut self, out: &mut Outbox, socket: SocketId) {
        self.speak(out, socket, Session::close);
    }

    /// The same of a stream that is closed at once. What the peer was sent before must not be lost with it where the
    /// kernel, full of that, doesn't take the end in TLS too.
    fn take_leave(&mut self, out: &mut Outbox, socket: SocketId) {
        self.flush(out, socket);
        let (start, is_blocked) = (out.bytes.len(), self.is_blocked);
        if let Some(session) = self.session().filter(|_| !is_blocked) {
            session.close(&mut out.bytes);
        }
        let bytes = Span { start: start as u32, len: (out.bytes.len() - start) as u32 };
        if bytes.len > 0 {
            out.ops.push(Op::Farewell { socket, bytes });
        }
    }
}
