//! A backend's bytes: heads, interim and final, and bodies, on their way to the client.

use kakei_wire::http1::{HeadError, Limits, Piece, ResponseHead, chunk_head};
use kakei_wire::message::Length;

use super::Http;
use super::exchange::{ExchangeId, Framing, Phase};
use super::retry::Fault;
use super::rewrite::write_response;
use super::session::Input;
use super::strict;
use super::upstream::{Reading, UpstreamId};
use crate::limits::{COPIED_CHUNK, INTERIM_RESPONSES, RESPONSE_HEAD};
use crate::record::CloseReason;
use crate::seam::{Gather, OpenError, Span};
use crate::world::{Tick, World};

/// Bounds of a response's head.
const LIMITS: Limits = Limits { line: RESPONSE_HEAD / 2, head: RESPONSE_HEAD, fields: kakei_wire::http1::MAX_FIELDS };

impl Http {
    /// Bytes of a backend.
    pub(crate) fn handle_upstream_data(&mut self, world: &mut World, tick: &mut Tick<'_>, id: UpstreamId, span: Span) {
        let Some(upstream) = self.upstreams.get_mut(id) else { return };
        let Some(exchange) = upstream.exchange else {
            // Nobody asked it anything: whatever it says would be taken for the answer to the next request.
            return self.discard_idle(world, tick, id);
        };
        self.exchanges[exchange].moved = tick.now;
        if upstream.input.is_empty() {
            let input = Input::lent(tick, span);
            return self.read_response(world, tick, (id, exchange), input);
        }
        let mut kept = std::mem::take(&mut upstream.input);
        kept.extend_from_slice(span.of(tick.bytes));
        self.read_response(world, tick, (id, exchange), Input::kept(&kept));
    }

    fn read_response(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        (id, exchange): (UpstreamId, ExchangeId),
        input: Input<'_>,
    ) {
        let mut at = 0;
        let socket = self.upstreams[id].socket;
        loop {
            // The exchange may have ended, and the connection may serve another one, or be gone or something else.
            let Some(upstream) = self.upstreams.get_mut(id).filter(|upstream| upstream.exchange == Some(exchange))
            else {
                if let Some(joined) = self.upgraded.last_mut().filter(|joined| joined.backend == socket) {
                    joined.from_backend = input.bytes[at..].to_vec();
                }
                return;
            };
            match upstream.reading {
                Reading::Head => match self.read_head_of(world, tick, (id, exchange), &input.bytes[at..]) {
                    Some(len) => at += len,
                    None => return,
                },
                Reading::Body => match upstream.body.next(input.bytes, at) {
                    Ok(Piece::Data { from, len }) => {
                        self.pass_response(world, tick, exchange, (input, from, len));
                        at = from + len;
                    }
                    Ok(Piece::Nothing) => return,
                    Ok(Piece::End { at: end }) => {
                        let is_clean = end == input.bytes.len();
                        return self.end_response(world, tick, exchange, is_clean);
                    }
                    Err(_) => return self.break_off(world, tick, exchange, CloseReason::BadResponse),
                },
            }
        }
    }

    /// A head, or a part of it: how long it was; none: that was all.
    fn read_head_of(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        (id, exchange): (UpstreamId, ExchangeId),
        bytes: &[u8],
    ) -> Option<usize> {
        let (mut heads, method) = (std::mem::take(&mut self.heads), self.exchanges[exchange].method());
        let upstream = &mut self.upstreams[id];
        let found = match heads.find_response(&mut upstream.scan, bytes, (&LIMITS, method)) {
            Ok(None) => {
                upstream.input = bytes.to_vec();
                None
            }
            Ok(Some((head, len))) => {
                match head.response.status {
                    101 => self.switch(world, tick, exchange, &head),
                    100..=199 => self.pass_interim(world, tick, exchange, &head),
                    _ => self.answer_with(world, tick, (id, exchange), (&head, &bytes[len..])),
                }
                Some(len)
            }
            Err(error) => {
                self.bad_response(world, tick, exchange, error);
                None
            }
        };
        self.heads = heads;
        found
    }

    /// An interim response goes on to who can read one (RFC 9110 15.2).
    fn pass_interim(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId, head: &ResponseHead<'_>) {
        let exchange = &mut self.exchanges[id];
        exchange.interim += 1;
        if exchange.interim > INTERIM_RESPONSES {
            return self.fail(world, tick, id, Fault::Malformed);
        }
        if exchange.traits.is_old || exchange.is_question() {
            return;
        }
        self.write_head(tick, id, head, &[]);
    }

    /// The response itself.
    fn answer_with(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        (upstream, id): (UpstreamId, ExchangeId),
        (head, rest): (&ResponseHead<'_>, &[u8]),
    ) {
        let (status, is_last) = (head.response.status, rest.is_empty());
        self.judge(world, tick, id, status);
        if self.retries_status(world, tick, id, (head, rest)) {
            return;
        }
        if self.hears_yes(tick, id, head) {
            return self.begin_passing_over(world, tick, (upstream, id), (head, is_last));
        }
        let exchange = &mut self.exchanges[id];
        exchange.lapse.first_byte = Some(tick.now - exchange.began);
        exchange.status = status;
        exchange.enter(Phase::Responding, tick.now);
        if exchange.traits.is_connect && (200..300).contains(&status) {
            return self.tunnel(world, tick, id, head);
        }
        exchange.response_framing = match (head.response.length, exchange.traits.is_old) {
            (Length::Unknown, false) => Framing::Chunked,
            (Length::Unknown, true) => {
                exchange.traits.keeps = false;
                Framing::Plain
            }
            _ => Framing::Plain,
        };
        exchange.is_whole = false;
        let kept = std::mem::take(&mut exchange.kept);
        let seat = self.seat_line(world, tick.now, id);
        self.write_head(tick, id, head, &seat);
        self.recycle(kept);
        self.begin_body(upstream, head);
        let exchange = &self.exchanges[id];
        if head.response.length == Length::None {
            self.end_response(world, tick, id, is_last);
        } else if exchange.is_held() && exchange.traits.is_head {
            self.cut_answer(world, tick, id);
        } else {
            let session = self.exchanges[id].session;
            self.arm_session(session);
        }
    }

    pub(super) fn write_head(&mut self, tick: &mut Tick<'_>, id: ExchangeId, head: &ResponseHead<'_>, extra: &[u8]) {
        let exchange = &self.exchanges[id];
        let start = tick.out.bytes.len();
        let strict = strict::told(exchange, &self.sessions[exchange.session]);
        write_response(exchange, head, (self.date.at(tick.wall), extra, strict), &mut tick.out.bytes);
        let head = Span { start: start as u32, len: (tick.out.bytes.len() - start) as u32 };
        self.sessions[exchange.session].write(tick, Gather { head, body: Span::EMPTY });
    }

    /// A part of the response's body.
    fn pass_response(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: ExchangeId,
        (input, from, len): (Input<'_>, usize, usize),
    ) {
        let exchange = &mut self.exchanges[id];
        if exchange.is_question() {
            return self.pass_over(world, tick, id, len);
        }
        exchange.response_bytes += len as u64;
        let (session, upstream) = (exchange.session, exchange.upstream);
        self.write_piece(tick, id, (input, from, len));
        // It may not have taken all of the answer before this one.
        if self.sessions[session].rest.is_blocked()
            && let Some(upstream) = upstream.and_then(|upstream| self.upstreams.get_mut(upstream))
        {
            upstream.set_credit(tick, false);
        }
    }

    fn write_piece(&mut self, tick: &mut Tick<'_>, id: ExchangeId, (input, from, len): (Input<'_>, usize, usize)) {
        let exchange = &mut self.exchanges[id];
        let session = &mut self.sessions[exchange.session];
        let bytes = &input.bytes[from..from + len];
        match exchange.response_framing {
            // In one piece with the head before it.
            Framing::Plain if len <= COPIED_CHUNK => {
                let head = tick.out.put(bytes);
                session.write(tick, Gather { head, body: Span::EMPTY });
            }
            Framing::Plain => {
                let gather = input.gather(tick, from, len);
                session.write(tick, gather);
            }
            Framing::Chunked => {
                let start = tick.out.bytes.len();
                chunk_head(len, &mut tick.out.bytes);
                let copied = len <= COPIED_CHUNK || input.lent.is_none();
                if copied {
                    tick.out.bytes.extend_from_slice(bytes);
                    tick.out.bytes.extend_from_slice(b"\r\n");
                }
                let head = Span { start: start as u32, len: (tick.out.bytes.len() - start) as u32 };
                if copied {
                    return session.write(tick, Gather { head, body: Span::EMPTY });
                }
                let body = input.gather(tick, from, len).body;
                session.write(tick, Gather { head, body });
                let head = tick.out.put(b"\r\n");
                session.write(tick, Gather { head, body: Span::EMPTY });
            }
        }
    }

    /// All of the response came.
    pub(super) fn end_response(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId, is_clean: bool) {
        let exchange = &mut self.exchanges[id];
        if exchange.is_question() {
            return self.end_question(world, tick, id, is_clean);
        }
        if exchange.response_framing == Framing::Chunked {
            let mut end = b"0\r\n".to_vec();
            if let Some(upstream) = exchange.upstream {
                let edits = &exchange.extras().response;
                self.upstreams[upstream].body.write_trailers(|name| !edits.removes(name), &mut end);
            }
            end.extend_from_slice(b"\r\n");
            let head = tick.out.put(&end);
            self.sessions[exchange.session].write(tick, Gather { head, body: Span::EMPTY });
        }
        // What is still to come of the request is for nobody any more.
        let is_complete = exchange.request_ended;
        exchange.traits.keeps &= is_complete;
        if let Some(upstream) = exchange.upstream.take() {
            self.upstreams[upstream].body = Default::default();
            self.give_up_upstream(world, tick, upstream, is_clean && is_complete);
        }
        let reason = self.exchanges[id].completion();
        self.conclude(world, tick, id, reason);
    }

    fn bad_response(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId, error: HeadError) {
        debug_assert!(error.status() >= 400, "every error of a head has a status");
        self.fail(world, tick, id, Fault::Malformed);
    }

    /// The backend sends nothing more.
    pub(crate) fn handle_upstream_eof(&mut self, world: &mut World, tick: &mut Tick<'_>, id: UpstreamId) {
        let Some(upstream) = self.upstreams.get(id) else { return };
        match (upstream.exchange, upstream.reading) {
            (None, _) => self.discard_idle(world, tick, id),
            (Some(exchange), Reading::Body) if upstream.body == kakei_wire::http1::Body::UntilClose => {
                self.end_response(world, tick, exchange, false);
            }
            (Some(exchange), Reading::Body) => self.break_off(world, tick, exchange, CloseReason::BackendReset),
            (Some(exchange), Reading::Head) => self.fail(world, tick, exchange, Fault::Reset),
        }
    }

    /// The backend's connection broke.
    pub(crate) fn handle_upstream_broken(&mut self, world: &mut World, tick: &mut Tick<'_>, id: UpstreamId) {
        self.lose_upstream(world, tick, id, (CloseReason::BackendReset, Fault::Reset));
    }

    /// The backend's connection is of no use any more, in the middle of a response or before it.
    pub(super) fn lose_upstream(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: UpstreamId,
        (reason, fault): (CloseReason, Fault),
    ) {
        let Some(upstream) = self.upstreams.get(id) else { return };
        match (upstream.exchange, upstream.reading) {
            (None, _) => self.discard_idle(world, tick, id),
            (Some(exchange), Reading::Body) => self.break_off(world, tick, exchange, reason),
            (Some(exchange), Reading::Head) => self.fail(world, tick, exchange, fault),
        }
    }

    /// A connection could not be opened, and is gone.
    pub(crate) fn handle_upstream_failed(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        (id, error): (UpstreamId, Option<OpenError>),
    ) {
        let Some(upstream) = self.upstreams.get(id) else { return };
        match upstream.exchange {
            Some(exchange) => {
                let lacks = error == Some(OpenError::NoDescriptors);
                self.fail(world, tick, exchange, if lacks { Fault::Lack } else { Fault::Connect });
            }
            None => self.forget_upstream(world, id),
        }
    }

    /// The response can't be finished: its client must not take what came for the whole.
    fn break_off(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId, reason: CloseReason) {
        if self.exchanges[id].is_question() {
            // Nothing of it reached the client.
            return self.fail(world, tick, id, Fault::Reset);
        }
        if let Some(place) = self.exchanges[id].place() {
            self.failures.push(place);
        }
        self.abort(world, tick, id, reason);
    }
}
