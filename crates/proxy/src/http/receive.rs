//! A client's bytes: a PROXY header, heads, bodies. Requests of one connection are taken one after the other.

use kakei_wire::http1::{BodyError, HeadError, Limits, Piece};
use kakei_wire::proxy_protocol;

use super::Http;
use super::decide::Refused;
use super::exchange::{Exchange, ExchangeId, Framing};
use super::session::{Input, Session, SessionId, Stage};
use crate::arrival::{self, Arrived};
use crate::client::Believed;
use crate::limits::{ANSWERED, PIPELINED, WRITTEN};
use crate::record::CloseReason;
use crate::seam::{Accepted, Op, SocketId, Span};
use crate::snapshot::HttpListener;
use crate::world::{Socket, Tick, World};

/// Whether to look at more of what came.
enum Next {
    /// From there on.
    At(usize),
    /// What stands from there on has to wait.
    Keep(usize),
    /// Nothing of it matters any more.
    Drop,
}

impl Http {
    /// A client was let in. Gives its stream.
    pub(crate) fn handle_accepted(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        (accepted, arrived): (Accepted, Arrived),
    ) -> SocketId {
        let spec = &world.listeners[arrived.listener].spec;
        let stage = match (spec.trusted.is_empty(), &spec.tls) {
            (false, _) => Stage::Introduction,
            (true, Some(_)) => Stage::Handshake,
            (true, None) => Stage::Idle,
        };
        let id = self.sessions.insert_with_key(|id| {
            let socket = world.insert(Socket::Session(id));
            tick.ask(Op::Accept { arrival: accepted.arrival, socket, credit: true });
            Session::new(socket, arrived, stage)
        });
        self.arm_session(id);
        self.sessions[id].socket
    }

    /// Bytes of a client.
    pub(crate) fn handle_client_data(&mut self, world: &mut World, tick: &mut Tick<'_>, id: SessionId, span: Span) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        if session.stage != Stage::Idle && !session.rest.is_blocked() {
            // Empty lines are no sign of life, and a request begins a time of its own. Who owes it to take something gets
            // no more time by sending.
            session.moved = tick.now;
        }
        if session.input.is_empty() {
            let input = Input::lent(tick, span);
            return self.feed(world, tick, id, input);
        }
        if session.stage == Stage::Waiting {
            session.input.extend_from_slice(span.of(tick.bytes));
            return session.hear_ahead(tick);
        }
        let mut kept = std::mem::take(&mut session.input);
        kept.extend_from_slice(span.of(tick.bytes));
        self.feed(world, tick, id, Input::kept(&kept));
    }

    /// The next request, or a part of it, is there already.
    pub(super) fn resume(&mut self, world: &mut World, tick: &mut Tick<'_>, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        if matches!(session.stage, Stage::Idle | Stage::Head | Stage::Body) && !session.input.is_empty() {
            let kept = std::mem::take(&mut session.input);
            self.feed(world, tick, id, Input::kept(&kept));
        }
    }

    fn feed(&mut self, world: &mut World, tick: &mut Tick<'_>, id: SessionId, input: Input<'_>) {
        let (mut at, mut begun, said) = (0, 0, tick.out.bytes.len());
        let is_full = |begun: usize, tick: &Tick<'_>| {
            let written = tick.out.bytes.len();
            begun >= PIPELINED || written > WRITTEN || written - said > ANSWERED
        };
        let kept = loop {
            let Some(session) = self.sessions.get_mut(id) else { return };
            let stage = session.stage;
            let next = match stage {
                Stage::Introduction => self.introduce(world, tick, id, (input, at)),
                Stage::Idle | Stage::Head if is_full(begun, tick) => Next::Keep(at),
                Stage::Idle if session.rest.is_blocked() => Next::Keep(at),
                Stage::Idle | Stage::Head => self.read_head(world, tick, id, (input, at)),
                Stage::Body if self.is_held(id) => Next::Keep(at),
                Stage::Body => self.read_body(world, tick, id, (input, at)),
                Stage::Waiting | Stage::Handshake => Next::Keep(at),
                Stage::Closing => {
                    if at < input.bytes.len() {
                        self.hear_behind_last(tick, id);
                    }
                    Next::Drop
                }
            };
            begun += usize::from(stage != Stage::Body);
            match next {
                Next::At(next) => at = next,
                Next::Keep(at) => break at,
                Next::Drop => return,
            }
        };
        let Some(session) = self.sessions.get_mut(id) else { return };
        let is_left = kept < input.bytes.len();
        if is_left {
            session.input = input.bytes[kept..].to_vec();
        }
        match session.stage {
            // It goes on once the client took what it was sent, or with the next step.
            Stage::Idle if is_left && session.rest.is_blocked() => session.set_credit(tick, false),
            Stage::Idle | Stage::Head if is_left && is_full(begun, tick) => {
                session.set_credit(tick, false);
                self.later.push(id);
            }
            Stage::Introduction | Stage::Handshake | Stage::Idle | Stage::Head => session.set_credit(tick, true),
            // All of it is here, also where there is nowhere to send it to yet.
            Stage::Waiting => session.hear_ahead(tick),
            // A body's pace is its backend's.
            Stage::Body | Stage::Closing => {}
        }
        self.arm_session(id);
    }

    /// Whether the request under way may not pass yet: its body waits.
    fn is_held(&self, id: SessionId) -> bool {
        let exchange = self.sessions.get(id).and_then(|session| self.exchanges.get(session.exchange?));
        exchange.is_some_and(Exchange::is_held)
    }

    fn introduce(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: SessionId,
        (input, at): (Input<'_>, usize),
    ) -> Next {
        let session = &mut self.sessions[id];
        match proxy_protocol::parse_stream(&input.bytes[at..]) {
            Ok(None) => Next::Keep(at),
            Ok(Some(header)) => {
                session.arrived.believed = header.addresses.map(|addresses| Box::new(Believed::from(addresses)));
                let is_secure = world.listeners[session.arrived.listener].spec.tls.is_some();
                session.stage = if is_secure { Stage::Handshake } else { Stage::Idle };
                match arrival::count_client(world, session.arrived.listener, session.arrived.client().ip()) {
                    Some(counted) => {
                        session.arrived.counted = counted;
                        Next::At(at + header.len)
                    }
                    None => {
                        self.cut_session(world, tick, id, CloseReason::OverLimit);
                        Next::Drop
                    }
                }
            }
            Err(_) => {
                self.cut_session(world, tick, id, CloseReason::ProxyHeader);
                Next::Drop
            }
        }
    }

    fn read_head(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: SessionId,
        (input, at): (Input<'_>, usize),
    ) -> Next {
        let session = &mut self.sessions[id];
        let bytes = &input.bytes[at..];
        if session.stage == Stage::Idle {
            match bytes {
                // RFC 9112 2.2: empty lines before a request are passed over.
                [b'\r', b'\n', ..] => return Next::At(at + 2),
                [] | [b'\r'] => return Next::Keep(at),
                _ => {
                    session.stage = Stage::Head;
                    if session.requests > 0 {
                        session.since = tick.now;
                    }
                }
            }
        }
        let Some(http) = world.listeners[session.arrived.listener].spec.http.clone() else {
            // The listener speaks something else by now.
            self.end_session(world, tick, id, CloseReason::Closed);
            return Next::Drop;
        };
        let limits = limits(&http);
        let mut heads = std::mem::take(&mut self.heads);
        let next = match heads.find_request(&mut session.scan, bytes, &limits) {
            Ok(None) => Next::Keep(at),
            Ok(Some((head, len))) => {
                self.begin(world, tick, id, (http, &head));
                Next::At(at + len)
            }
            Err(error) => {
                self.reject_head(world, tick, id, error);
                Next::Drop
            }
        };
        self.heads = heads;
        next
    }

    fn read_body(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: SessionId,
        (input, at): (Input<'_>, usize),
    ) -> Next {
        let session = &mut self.sessions[id];
        let Some(exchange) = session.exchange else { return Next::Drop };
        match session.body.next(input.bytes, at) {
            Ok(Piece::Data { from, len }) => {
                self.pass_request(world, tick, exchange, (input, from, len));
                Next::At(from + len)
            }
            Ok(Piece::Nothing) => Next::Keep(input.bytes.len()),
            Ok(Piece::End { at }) => {
                session.stage = Stage::Waiting;
                session.since = tick.now;
                self.pass_request_end(tick, exchange);
                Next::At(at)
            }
            Err(error) => {
                let reason = match error {
                    BodyError::TooManyTrailers => CloseReason::TooLarge,
                    _ => CloseReason::BadRequest,
                };
                self.refuse(world, tick, exchange, (error.status(), reason));
                Next::Drop
            }
        }
    }

    /// A part of a request's body.
    fn pass_request(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: ExchangeId,
        (input, from, len): (Input<'_>, usize, usize),
    ) {
        let exchange = &mut self.exchanges[id];
        exchange.moved = tick.now;
        let (most, bytes) = (exchange.http.knobs.max_body, exchange.request_bytes + len as u64);
        if most > 0 && bytes > most {
            return self.refuse(world, tick, id, (413, CloseReason::TooLarge));
        }
        exchange.request_bytes = bytes;
        self.send_body(tick, id, (input, from, len));
    }

    fn pass_request_end(&mut self, tick: &mut Tick<'_>, id: ExchangeId) {
        let exchange = &mut self.exchanges[id];
        exchange.request_ended = true;
        exchange.moved = tick.now;
        if exchange.request_framing == Framing::Chunked {
            let session = &self.sessions[exchange.session];
            let mut end = b"0\r\n".to_vec();
            session.body.write_trailers(|name| !exchange.extras().request.removes(name), &mut end);
            end.extend_from_slice(b"\r\n");
            self.send(tick, id, &end);
        }
        self.sessions[self.exchanges[id].session].body = Default::default();
    }

    /// A head that can't be answered by anything but its error.
    fn reject_head(&mut self, world: &mut World, tick: &mut Tick<'_>, id: SessionId, error: HeadError) {
        self.refuse_unread(world, tick, id, refusal(error));
    }

    /// The client sends nothing more.
    pub(crate) fn handle_client_eof(&mut self, world: &mut World, tick: &mut Tick<'_>, id: SessionId) {
        self.handle_client_gone(world, tick, id, CloseReason::ClientGone);
    }

    /// The client's connection broke.
    pub(crate) fn handle_client_broken(&mut self, world: &mut World, tick: &mut Tick<'_>, id: SessionId) {
        self.handle_client_gone(world, tick, id, CloseReason::ClientReset);
    }

    /// The client is gone, for this reason.
    pub(crate) fn handle_client_gone(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: SessionId,
        reason: CloseReason,
    ) {
        let Some(session) = self.sessions.get(id) else { return };
        match session.exchange {
            Some(exchange) => self.abort(world, tick, exchange, reason),
            // Its last answer may not have been taken yet.
            None if reason == CloseReason::ClientGone && session.may_owe(tick.now) => self.close_session(tick, id),
            None => {
                let is_between = matches!(session.stage, Stage::Idle | Stage::Closing);
                let is_orderly = reason == CloseReason::ClientGone && is_between;
                self.end_session(world, tick, id, if is_orderly { CloseReason::Closed } else { reason });
            }
        }
    }
}

/// How a head that can't be read is answered, and why.
pub(super) fn refusal(error: HeadError) -> Refused {
    let reason = match error {
        HeadError::LineTooLong | HeadError::TooLong | HeadError::TooManyFields => CloseReason::TooLarge,
        _ => CloseReason::BadRequest,
    };
    (error.status(), reason)
}

/// The bounds of a listener's heads.
pub(super) fn limits(http: &HttpListener) -> Limits {
    Limits {
        line: http.knobs.max_request_line as usize,
        head: http.knobs.max_head as usize,
        fields: http.knobs.max_fields as usize,
    }
}
