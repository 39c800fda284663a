//! Ends: of exchanges, whose connections go on or don't; of clients' connections. Everything that was held is given
//! back, once, and a record is left.

use super::Http;
use super::answer::count_status;
use super::exchange::{ExchangeId, Phase, Traits};
use super::session::{Session, SessionId, Stage};
use crate::arrival;
use crate::change::{Change, Drain};
use crate::limits::LINGER;
use crate::record::{CloseReason, Detail, Record};
use crate::seam::{Gather, Op, Span};
use crate::stats::{ListenerMetric, Sample};
use crate::world::{Tick, World};

impl Http {
    /// An exchange is over, and its client was told all that it gets: its connection goes on with the next request, or
    /// ends in order.
    pub(super) fn conclude(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId, reason: CloseReason) {
        let Some((traits, id)) = self.finish(world, tick, id, reason) else { return };
        let is_read = self.sessions[id].stage == Stage::Waiting;
        // What happened to the route or the backend of this request is nothing to the next one.
        let drain = std::mem::take(&mut self.sessions[id].drains).first();
        let drain = drain.filter(|_| self.still_holds(world, tick, id, Change::Drained).is_some());
        if !traits.keeps || drain.is_some() {
            if let Some(Drain { until, .. }) = drain {
                // Its time to read what it is told last is bounded too, also where that for what was under way is over.
                let until = until.max(tick.now + LINGER);
                self.sessions[id].drains.set(Drain { until, change: Change::Drained });
            }
            // What is left of a body would be left unread; and where a bad request ends, nobody knows.
            let is_done = traits.is_last && is_read && reason != CloseReason::BadRequest;
            return if is_done { self.part(tick, id) } else { self.close_session(tick, id) };
        }
        let session = &mut self.sessions[id];
        session.stage = Stage::Idle;
        session.since = tick.now;
        match (session.input.is_empty(), session.rest.is_blocked()) {
            (true, false) => session.set_credit(tick, true),
            (false, false) => self.resume.push(id),
            // It goes on once the client took what it was sent.
            (_, true) => {}
        }
        self.arm_session(id);
    }

    /// An exchange is over, and so is its client's connection: the client went, or must not take what came for the whole.
    pub(super) fn abort(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId, reason: CloseReason) {
        let Some((_, session)) = self.finish(world, tick, id, reason) else { return };
        let is_gone = reason == CloseReason::ClientGone;
        self.drop_session(world, tick, session, (reason, is_gone));
    }

    /// Everything that an exchange held is given back. What it was, and whose.
    pub(super) fn finish(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: ExchangeId,
        reason: CloseReason,
    ) -> Option<(Traits, SessionId)> {
        if !self.exchanges.contains_key(id) {
            return None;
        }
        self.dequeue(world, id);
        if let Some(upstream) = self.exchanges[id].upstream.take() {
            if let Some(connection) = self.upstreams.get_mut(upstream) {
                connection.exchange = None;
                connection.keeps = false;
            }
            self.close_upstream(world, tick, upstream);
        }
        let exchange = &mut self.exchanges[id];
        if exchange.phase == Phase::Queued {
            exchange.end_wait(tick.now);
            // It may have been all that those behind it waited for.
            self.queues.stir();
        }
        exchange.note_checked(tick.now);
        exchange.lapse.whole = tick.now - exchange.began;
        let place = exchange.place();
        self.count(world, id, reason);
        if world.records {
            let record = self.record(world, id, reason);
            tick.ask(Op::Record(Box::new(record)));
        }
        self.leave_backend(world, id);
        let exchange = &mut self.exchanges[id];
        debug_assert!(place.is_none() || exchange.backend.is_none(), "its place was given back");
        let (traits, session) = (exchange.traits, exchange.session);
        self.rates.release(std::mem::take(&mut exchange.permits));
        let kept = std::mem::take(&mut exchange.kept);
        self.recycle(kept);
        self.exchanges.remove(id);
        self.sessions[session].exchange = None;
        self.sessions[session].body = Default::default();
        Some((traits, session))
    }

    fn count(&mut self, world: &mut World, id: ExchangeId, reason: CloseReason) {
        let exchange = &self.exchanges[id];
        let listener = &mut world.listeners[self.sessions[exchange.session].arrived.listener];
        listener.values[ListenerMetric::RequestsLive] -= 1;
        count_status(&mut listener.values, exchange.status);
        listener.exchange_closes.0[reason as usize] += 1;
        let place = exchange.place();
        let came_by = self.sessions[exchange.session].arrived.listener;
        let sample = Sample::from(&exchange.lapse);
        if let Some(rule) = &exchange.rule {
            listener.times.observe(rule, &sample);
        }
        if let Some(cluster) = exchange.cluster.and_then(|cluster| world.clusters.get_mut(cluster)) {
            let times = if cluster.spec.is_timed { &mut cluster.times } else { &mut world.other_times };
            times.get_or_insert_default().observe(&sample);
        }
        world.note_cut(reason, (came_by, exchange.route(), place), |cut| cut.requests += 1);
    }

    fn record(&mut self, world: &World, id: ExchangeId, reason: CloseReason) -> Record {
        let exchange = &mut self.exchanges[id];
        let mut detail = exchange.detail.take().unwrap_or_default();
        detail.status = (exchange.status > 0).then_some(exchange.status);
        detail.request_id = exchange.request_id.as_ref().map(ToString::to_string);
        let lapse = exchange.lapse;
        (detail.queued, detail.connect) = (lapse.queued.unwrap_or_default(), lapse.connect);
        (detail.first_byte, detail.checked) = (lapse.first_byte, lapse.checked);
        let session = &self.sessions[exchange.session];
        let backend = exchange.last_backend(world).map(|live| &live.spec);
        Record {
            listener: world.listeners[session.arrived.listener].spec.name.clone(),
            route: exchange.route().cloned(),
            cluster: exchange.cluster_name().cloned(),
            backend: backend.map(|backend| backend.name.clone()),
            backend_address: backend.map(|backend| backend.address.clone()),
            client: session.arrived.client(),
            local: session.arrived.dialled(),
            admitted: exchange.began,
            duration: lapse.whole,
            request_bytes: exchange.request_bytes,
            response_bytes: exchange.response_bytes + exchange.own_bytes,
            reason,
            detail: Detail::Exchange(detail),
        }
    }

    /// Tell the client that this is the end, and give it time to read what it was told: closing at once, with bytes of
    /// it unread, would be a reset, and take that from it (RFC 9112 9.6).
    pub(super) fn close_session(&mut self, tick: &mut Tick<'_>, id: SessionId) {
        let session = &mut self.sessions[id];
        session.stage = Stage::Closing;
        session.since = tick.now;
        // Also where the time for what was under way is over.
        session.drains.put_off(tick.now + LINGER);
        session.input = Vec::new();
        session.set_credit(tick, true);
        if !session.rest.is_blocked() {
            tick.ask(Op::Shutdown { socket: session.socket });
        }
        self.arm_session(id);
    }

    /// Close a client's connection on which nothing is under way.
    pub(super) fn end_session(&mut self, world: &mut World, tick: &mut Tick<'_>, id: SessionId, reason: CloseReason) {
        self.drop_session(world, tick, id, (reason, true));
    }

    /// Break a client's connection off.
    pub(super) fn cut_session(&mut self, world: &mut World, tick: &mut Tick<'_>, id: SessionId, reason: CloseReason) {
        self.drop_session(world, tick, id, (reason, false));
    }

    fn drop_session(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: SessionId,
        (reason, is_orderly): (CloseReason, bool),
    ) {
        let Some(session) = self.sessions.get(id) else { return };
        debug_assert!(session.exchange.is_none(), "an exchange ends before its session");
        let (socket, owes) = (session.socket, session.may_owe(tick.now));
        if world.forget(socket).is_some() {
            tick.ask(if is_orderly && !owes { Op::Close { socket } } else { Op::Reset { socket } });
        }
        if let Some(session) = self.forget_session(world, id) {
            let listener = session.arrived.listener;
            world.listeners[listener].connection_closes.0[reason as usize] += 1;
            arrival::release(world, listener, session.arrived.counted, session.arrived.client().ip());
            world.settle_listener(listener);
        }
    }

    /// Take a session out, whose connection was closed or is somebody else's from now on.
    pub(super) fn forget_session(&mut self, world: &mut World, id: SessionId) -> Option<Session> {
        let session = self.sessions.remove(id)?;
        if let Some((timer, _)) = session.timer {
            world.timers.cancel(timer);
        }
        Some(session)
    }

    /// The client takes bytes again.
    pub(crate) fn handle_client_drained(&mut self, tick: &mut Tick<'_>, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.moved = tick.now;
        // What is kept below is written too, and may block again.
        session.written = Some(tick.now);
        if let Some(rest) = session.rest.drain().filter(|rest| !rest.is_empty()) {
            let head = tick.out.put(&rest);
            session.write(tick, Gather { head, body: Span::EMPTY });
        }
        match (session.stage, session.exchange) {
            (Stage::Closing, _) => {
                // It has all of what it was told last: its time to read that begins.
                session.since = tick.now;
                tick.ask(Op::Shutdown { socket: session.socket });
            }
            (_, Some(exchange)) => {
                let exchange = &mut self.exchanges[exchange];
                exchange.moved = tick.now;
                let upstream = exchange.upstream.and_then(|upstream| self.upstreams.get_mut(upstream));
                if let Some(upstream) = upstream {
                    upstream.set_credit(tick, true);
                }
            }
            (Stage::Idle, None) if !session.input.is_empty() => self.resume.push(id),
            (_, None) => session.set_credit(tick, true),
        }
        self.arm_session(id);
    }
}
