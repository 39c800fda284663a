//! Streams under TLS: what happens to them goes to the layer first, and what that makes of it to whoever the stream
//! belongs to, as if there were no TLS. Composes; decides nothing.

use crate::relay::Side;
use crate::seam::{Gather, Op, Outbox, SocketId, Span};
use crate::secure::{End, Opened, Told, Took};
use crate::streams::Owner;
use crate::worker::Worker;
use crate::world::Tick;

impl Worker {
    /// Bytes arrived on a stream under TLS.
    pub(crate) fn receive_secured(&mut self, tick: &mut Tick<'_>, socket: SocketId, bytes: Span) {
        match self.secure.receive(&mut self.world, tick.now, socket, bytes.of(tick.bytes)) {
            Took::Nothing => {}
            Took::Before(header) => self.pass_plain(tick, socket, &header),
            Took::Told(told) => self.pass_told(tick, socket, told),
        }
    }

    /// The peer of one sends nothing more.
    pub(crate) fn end_secured(&mut self, tick: &mut Tick<'_>, socket: SocketId) {
        let end = self.secure.receive_end(&mut self.world, socket);
        self.pass_end(tick, socket, end);
    }

    /// One is dead.
    pub(crate) fn break_secured(&mut self, tick: &mut Tick<'_>, socket: SocketId) {
        match self.secure.break_off(&mut self.world, socket) {
            Some(end) => self.pass_end(tick, socket, Some(end)),
            None => self.pass_broken(tick, socket),
        }
    }

    /// One took only a part of what was written. The rest stays with the layer.
    pub(crate) fn block_secured(&mut self, tick: &mut Tick<'_>, socket: SocketId, rest: Span) {
        if self.secure.block(socket, rest.of(tick.bytes)) {
            self.pass_blocked(tick, socket, Span::EMPTY);
        }
    }

    /// One takes bytes again.
    pub(crate) fn drain_secured(&mut self, tick: &mut Tick<'_>, socket: SocketId) {
        if self.secure.drain(socket) {
            self.pass_drained(tick, socket);
        }
    }

    /// Go on with some of the handshakes that wait.
    pub(crate) fn run_handshakes(&mut self, tick: &mut Tick<'_>) {
        let mut done = 0;
        while let Some(socket) = self.secure.next_handshake(done) {
            if !self.is_owned(socket) {
                continue;
            }
            let told = self.secure.shake(&mut self.world, tick, socket);
            self.pass_told(tick, socket, told);
            done += 1;
        }
        self.secure.pause_queue(tick);
    }

    /// The time for a handshake is over.
    pub(crate) fn expire_handshake(&mut self, tick: &mut Tick<'_>, socket: SocketId) {
        if self.is_owned(socket) {
            let end = self.secure.expire(&mut self.world, socket);
            self.pass_end(tick, socket, end);
        }
    }

    fn pass_told(&mut self, tick: &mut Tick<'_>, socket: SocketId, told: Told) {
        let Told { opened, is_blocked, plain, end } = told;
        if let Some(opened) = opened {
            match (opened, self.owner(socket)) {
                (Opened::Client(secured), Some(Owner::Relay(id, _))) => {
                    self.relays.handle_secured(&mut self.world, tick, id, &secured);
                }
                (Opened::Early(secured), Some(Owner::Session(id))) => self.http.handle_early(tick, id, secured),
                (Opened::Client(secured), Some(Owner::Session(id))) => {
                    self.http.handle_secured(&mut self.world, tick, id, secured);
                }
                (Opened::Client(_) | Opened::Early(_), _) | (_, None) => {}
                (Opened::Backend(detail), Some(owner)) => self.pass_opened(tick, socket, (owner, Some(detail))),
            }
            if is_blocked && self.is_owned(socket) {
                self.pass_blocked(tick, socket, Span::EMPTY);
            }
        }
        if !plain.is_empty() && self.is_owned(socket) {
            self.pass_plain(tick, socket, &plain);
        }
        self.secure.give_back(plain);
        self.pass_end(tick, socket, end);
    }

    fn pass_end(&mut self, tick: &mut Tick<'_>, socket: SocketId, end: Option<End>) {
        let Some(end) = end.filter(|_| self.is_owned(socket)) else { return };
        match (end, self.owner(socket)) {
            (_, None) => {}
            (End::Closed | End::Gone, _) => self.pass_eof(tick, socket),
            (End::Broken(reason, error), Some(Owner::Relay(id, side))) => {
                self.relays.handle_cut(&mut self.world, tick, (id, side), (reason, error));
            }
            (End::Broken(reason, error), Some(Owner::Upstream(id))) => {
                self.http.handle_upstream_cut(&mut self.world, tick, id, (reason, error));
                self.settle_http(tick);
            }
            (End::Broken(reason, _), Some(Owner::Session(id))) => {
                self.http.handle_client_gone(&mut self.world, tick, id, reason);
            }
            (End::Broken(..), _) => self.pass_broken(tick, socket),
            (End::Refused(reason, detail), Some(Owner::Relay(id, Side::Client))) => {
                self.relays.handle_unsecured(&mut self.world, tick, id, (reason, detail));
            }
            (End::Refused(reason, detail), Some(Owner::Session(id))) => {
                self.http.handle_unsecured(&mut self.world, tick, id, (reason, detail));
            }
            (End::Refused(_, detail), Some(owner)) => self.pass_unsecured(tick, socket, (owner, detail)),
        }
    }

    /// Bytes that lie with us for whoever the stream belongs to. What it asks for may name them.
    fn pass_plain(&mut self, tick: &mut Tick<'_>, socket: SocketId, plain: &[u8]) {
        let mark = tick.out.ops.len();
        let mut inner = Tick { now: tick.now, wall: tick.wall, bytes: plain, out: tick.out };
        self.pass_data(&mut inner, socket, Span { start: 0, len: plain.len() as u32 });
        keep(tick.out, mark, plain);
    }

    /// Whether a stream is under TLS. One whose owner ended it in this step is nobody's: nothing that happens to it is of
    /// any meaning.
    pub(crate) fn is_secured(&self, socket: SocketId) -> bool {
        self.secure.holds(socket) && self.is_owned(socket)
    }

    fn is_owned(&self, socket: SocketId) -> bool {
        self.world.sockets.contains_key(socket)
    }
}

/// Operations from `mark` on name bytes that are about to go: let them name bytes of the outbox.
fn keep(out: &mut Outbox, mark: usize, bytes: &[u8]) {
    for at in mark..out.ops.len() {
        let Op::Write { bytes: gather, .. } = out.ops[at] else { continue };
        if gather.body.len > 0 {
            let start = out.bytes.len();
            let head = gather.head.start as usize..(gather.head.start + gather.head.len) as usize;
            out.bytes.extend_from_within(head);
            out.bytes.extend_from_slice(gather.body.of(bytes));
            let head = Span { start: start as u32, len: (out.bytes.len() - start) as u32 };
            if let Op::Write { bytes: gather, .. } = &mut out.ops[at] {
                *gather = Gather { head, body: Span::EMPTY };
            }
        }
    }
}
