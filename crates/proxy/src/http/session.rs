//! A client's connection: what it is in the middle of reading, what it did not take yet, which exchange it waits for.
//! An idle one holds no buffer. Decides nothing.

use std::sync::Arc;

use kakei_wire::http1::{Body, Scan};
use serde::{Deserialize, Serialize};

use super::Http;
use super::exchange::ExchangeId;
use crate::arrival::Arrived;
use crate::change::Drains;
use crate::limits::PIPELINED_BYTES;
use crate::record::ClientCertificate;
use crate::seam::{Gather, Instant, Op, SocketId, Span};
use crate::secure::Secured;
use crate::timers::TimerKey;
use crate::unsent::Unsent;
use crate::world::Tick;

slotmap::new_key_type! {
    /// A client's connection; carries a generation.
    pub(crate) struct SessionId;
}

/// What a client's bytes are, at this point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// A PROXY header comes first.
    Introduction,
    /// A TLS handshake, which is somebody else's.
    Handshake,
    /// Nothing of the next request is there.
    Idle,
    /// A part of a head is.
    Head,
    /// A request's body.
    Body,
    /// The request is there wholly; its response isn't.
    Waiting,
    /// Nothing is looked at any more: the client is told that this is the end, and given time to read it.
    Closing,
}

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) socket: SocketId,
    pub(super) arrived: Arrived,
    /// What its TLS came to; none: it comes without, or is in the middle of its handshake.
    pub(super) secured: Option<Arc<Secured>>,
    /// Its TLS handshake isn't over: what came may have been sent before, by anybody (RFC 8446, section 8).
    pub(super) is_early: bool,
    pub(super) stage: Stage,
    /// Since when.
    pub(super) since: Instant,
    /// When bytes of it came, or were taken, last; while it takes nothing, since when.
    pub(super) moved: Instant,
    /// What came and waits: a part of a head, or the next requests.
    pub(super) input: Vec<u8>,
    pub(super) scan: Scan,
    pub(super) body: Body,
    /// What the client did not take yet.
    pub(super) rest: Unsent,
    /// When something was written last.
    pub(super) written: Option<Instant>,
    /// Whether its bytes are received.
    pub(super) credit: bool,
    pub(super) exchange: Option<ExchangeId>,
    pub(super) requests: u32,
    /// It ends by then because what it stands on was changed.
    pub(super) drains: Drains,
    /// The armed deadline, and the instant it is armed for.
    pub(super) timer: Option<(TimerKey, Instant)>,
    /// Whether its deadline is to be looked at again at the end of this step.
    pub(super) moves_deadline: bool,
}

impl Session {
    /// The certificate that its client showed.
    pub(super) fn shown(&self) -> Option<&ClientCertificate> {
        self.secured.as_ref()?.detail.client.as_deref()
    }

    pub(super) fn new(socket: SocketId, arrived: Arrived, stage: Stage) -> Self {
        let at = arrived.at;
        Session {
            socket,
            arrived,
            secured: None,
            is_early: false,
            stage,
            since: at,
            moved: at,
            input: Vec::new(),
            scan: Scan::default(),
            body: Body::Ended,
            rest: Unsent::default(),
            written: None,
            credit: true,
            exchange: None,
            requests: 0,
            drains: Drains::default(),
            timer: None,
            moves_deadline: false,
        }
    }

    /// Write to the client, behind what it did not take yet.
    #[inline]
    pub(super) fn write(&mut self, tick: &mut Tick<'_>, bytes: Gather) {
        if self.rest.is_blocked() {
            self.rest.keep(bytes.head.of(&tick.out.bytes));
            self.rest.keep(bytes.body.of(tick.bytes));
        } else {
            self.written = Some(tick.now);
            tick.write(self.socket, bytes);
        }
    }

    /// Whether the client may not have taken all of what was written: that is known with the next step only.
    pub(super) fn may_owe(&self, now: Instant) -> bool {
        self.rest.is_blocked() || self.written == Some(now)
    }

    /// Whether to receive from the client. While its handshake goes on its bytes are not ours alone: how many come by
    /// then is bounded otherwise.
    pub(super) fn set_credit(&mut self, tick: &mut Tick<'_>, on: bool) {
        if self.credit != on {
            self.credit = on;
            if !self.is_early {
                tick.ask(Op::Credit { socket: self.socket, on });
            }
        }
    }

    /// Its request is there: a client that goes is to be heard, but what it sends ahead has bounds.
    pub(super) fn hear_ahead(&mut self, tick: &mut Tick<'_>) {
        let hears = self.input.len() < PIPELINED_BYTES;
        self.set_credit(tick, hears);
    }

    /// Nobody else sent what came.
    pub(super) fn prove(&mut self, tick: &mut Tick<'_>) {
        self.is_early = false;
        if !std::mem::replace(&mut self.credit, true) {
            self.set_credit(tick, false);
        }
    }
}

/// Bytes that came, whether they still lie in the machine's arena or were kept.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) bytes: &'a [u8],
    /// Where they lie in the arena.
    pub(super) lent: Option<Span>,
}

impl<'a> Input<'a> {
    /// Bytes of the arena.
    pub(super) fn lent(tick: &Tick<'a>, span: Span) -> Self {
        Input { bytes: span.of(tick.bytes), lent: Some(span) }
    }

    /// Bytes that were kept.
    pub(super) fn kept(bytes: &'a [u8]) -> Self {
        Input { bytes, lent: None }
    }

    /// A part of them, ready to be written: copied only where they don't lie in the arena.
    pub(super) fn gather(&self, tick: &mut Tick<'_>, from: usize, len: usize) -> Gather {
        match self.lent {
            Some(span) => Gather { head: Span::EMPTY, body: Span { start: span.start + from as u32, len: len as u32 } },
            None => Gather { head: tick.out.put(&self.bytes[from..from + len]), body: Span::EMPTY },
        }
    }
}

impl Http {
    /// The client took only a part of what was written.
    pub(crate) fn handle_client_blocked(&mut self, tick: &mut Tick<'_>, id: SessionId, rest: Span) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.rest = Unsent::blocked(rest.of(tick.bytes));
        session.moved = tick.now;
        let upstream = session.exchange.and_then(|exchange| self.exchanges[exchange].upstream);
        if let Some(upstream) = upstream.and_then(|upstream| self.upstreams.get_mut(upstream)) {
            upstream.set_credit(tick, false);
        }
        self.arm_session(id);
    }
}
