//! Deadlines: the earliest of those that a client's connection stands under is armed, and looked at again when it comes,
//! so that requests that go well cost no timer. Which one it was says what becomes of it.

use super::Http;
use super::exchange::{Exchange, ExchangeId, Phase};
use super::retry::Fault;
use super::session::{Session, SessionId, Stage};
use super::upstream::UpstreamId;
use crate::change::Change;
use crate::limits::{LINGER, LINGER_IN_ALL};
use crate::record::CloseReason;
use crate::seam::{Instant, SocketId};
use crate::world::{Due, Tick, World};

/// What ends at a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// The time for a PROXY header.
    Introduction,
    /// The time for a request that has not begun.
    KeepAlive,
    Head,
    Body,
    Write,
    Linger,
    /// The time in which it must be known whether the request may pass.
    Guard,
    Queue,
    Connect,
    Response,
    /// The time in which the backend must ask for a body that its client holds back until then, or answer without it.
    Expectation,
    /// The time between two pieces of a response.
    Stall,
    Request,
    Drain(Change),
}

impl Http {
    /// When the connection must be looked at, as things stand, and what for.
    fn deadline_of(&self, world: &World, session: &Session) -> (Instant, Limit) {
        let listener = &world.listeners[session.arrived.listener].spec;
        let knobs = listener.http.as_ref().map(|http| &http.knobs);
        let exchange = session.exchange.and_then(|id| self.exchanges.get(id));
        let own = knobs.map(|knobs| match session.stage {
            Stage::Introduction | Stage::Handshake => (session.since + listener.opening_timeout(), Limit::Introduction),
            Stage::Idle if session.requests == 0 => (session.since + knobs.head_timeout, Limit::KeepAlive),
            Stage::Idle if session.rest.is_blocked() => (session.moved + knobs.write_timeout, Limit::Write),
            Stage::Idle => (session.since.max(session.moved) + knobs.keep_alive, Limit::KeepAlive),
            Stage::Head => (session.since + knobs.head_timeout, Limit::Head),
            Stage::Closing if session.rest.is_blocked() => (session.moved + knobs.write_timeout, Limit::Linger),
            Stage::Closing => {
                let silent = session.since.max(session.moved) + LINGER;
                (silent.min(session.since + LINGER_IN_ALL), Limit::Linger)
            }
            Stage::Body | Stage::Waiting if session.rest.is_blocked() => {
                (session.moved + knobs.write_timeout, Limit::Write)
            }
            Stage::Body if session.credit => {
                // A client that is answered already may wait with its body, or leave it out, and one that waits to be
                // asked for it has its time from then on (RFC 9110 10.1.1).
                let is_answered = |exchange: &&Exchange| exchange.traits.expects || exchange.phase == Phase::Responding;
                let answered = exchange.filter(is_answered);
                let moved = answered.map_or(session.moved, |exchange| exchange.moved.max(session.moved));
                (moved.max(session.since) + knobs.body_timeout, Limit::Body)
            }
            Stage::Body | Stage::Waiting => (Instant::FAR, Limit::Body),
        });
        let mut first = own.unwrap_or((Instant::FAR, Limit::KeepAlive));
        // Of two at one instant the one that is named first.
        let mut stands_under = |at: Instant, limit: Limit| {
            if at < first.0 {
                first = (at, limit);
            }
        };
        if let Some(exchange) = exchange {
            let (at, limit) = exchange_deadline(session, exchange);
            stands_under(at, limit);
            if let Some(at) = exchange.known_by() {
                stands_under(at, Limit::Guard);
            }
            if let Some(total) = exchange.extras().timeouts.request {
                stands_under(exchange.began + total, Limit::Request);
            }
        }
        if let Some(drain) = session.drains.first() {
            stands_under(drain.until, Limit::Drain(drain.change));
        }
        first
    }

    /// When it must end, as things stand; none: it has no deadline.
    pub(super) fn deadline(&self, world: &World, session: &Session) -> Option<Instant> {
        let (at, _) = self.deadline_of(world, session);
        (at != Instant::FAR).then_some(at)
    }

    /// See to it that the connection is looked at no later than its deadline: at the end of the step, since much may
    /// happen to it in one.
    pub(super) fn arm_session(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(id).filter(|session| !session.moves_deadline) {
            session.moves_deadline = true;
            self.unarmed.push(id);
        }
    }

    /// Arm the deadlines of those to whom something happened.
    pub(super) fn arm_sessions(&mut self, world: &mut World) {
        let mut unarmed = std::mem::take(&mut self.unarmed);
        for id in unarmed.drain(..) {
            let Some(session) = self.sessions.get(id) else { continue };
            let (at, _) = self.deadline_of(world, session);
            let timer = session.timer;
            let session = &mut self.sessions[id];
            session.moves_deadline = false;
            session.timer = arm(world, timer, at, Due::Session(id));
        }
        self.unarmed = unarmed;
    }

    /// See to it that a waiting connection to a backend is looked at when it has waited long enough.
    pub(super) fn arm_upstream(&mut self, world: &mut World, id: UpstreamId) {
        let upstream = &self.upstreams[id];
        let Some(idle) = world.clusters[upstream.place.0].spec.http.idle_timeout else { return };
        let (at, timer) = (upstream.since + idle, upstream.timer);
        self.upstreams[id].timer = arm(world, timer, at, Due::Upstream(id));
    }

    /// A backend's connection may have waited long enough.
    pub(crate) fn handle_upstream_due(&mut self, world: &mut World, tick: &mut Tick<'_>, id: UpstreamId) {
        let Some(upstream) = self.upstreams.get_mut(id) else { return };
        upstream.timer = None;
        if upstream.exchange.is_some() {
            return;
        }
        let idle = world.clusters[upstream.place.0].spec.http.idle_timeout;
        match idle {
            Some(idle) if tick.now - upstream.since < idle => self.arm_upstream(world, id),
            _ => self.discard_idle(world, tick, id),
        }
    }

    /// The stream to a backend that the connection's request waits for.
    pub(crate) fn opening(&self, id: SessionId) -> Option<SocketId> {
        let exchange = self.exchanges.get(self.sessions.get(id)?.exchange?)?;
        let upstream = exchange.upstream.filter(|_| exchange.phase == Phase::Connecting)?;
        self.upstreams.get(upstream).map(|upstream| upstream.socket)
    }

    /// A client's connection is due. What is told beside is whether the stream that its request waits for is open, and
    /// shakes hands.
    pub(crate) fn handle_session_due(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: SessionId,
        shakes_hands: bool,
    ) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.timer = None;
        let session = &self.sessions[id];
        let (at, limit) = self.deadline_of(world, session);
        if at > tick.now {
            return self.arm_session(id);
        }
        match (limit, session.exchange) {
            (Limit::Introduction, _) => self.cut_session(world, tick, id, CloseReason::PrereadTimeout),
            (Limit::KeepAlive, _) => self.end_session(world, tick, id, CloseReason::Idle),
            (Limit::Head, _) => self.refuse_unread(world, tick, id, (408, CloseReason::HeadTimeout)),
            (Limit::Drain(change), exchange) => match (self.still_holds(world, tick, id, change), exchange) {
                (Some(reason), Some(exchange)) => self.refuse(world, tick, exchange, (503, reason)),
                (Some(reason), None) => self.end_session(world, tick, id, reason),
                (None, _) => {
                    // What it stood on came back in time.
                    self.sessions[id].drains.take_back(change);
                    self.arm_session(id);
                }
            },
            (Limit::Write, None) => self.cut_session(world, tick, id, CloseReason::WriteTimeout),
            (Limit::Write, Some(exchange)) => self.abort(world, tick, exchange, CloseReason::WriteTimeout),
            (Limit::Body, Some(exchange)) => self.refuse(world, tick, exchange, (408, CloseReason::BodyTimeout)),
            (Limit::Guard, Some(exchange)) => self.expire_guard(world, tick, exchange),
            (Limit::Queue, Some(exchange)) => self.refuse(world, tick, exchange, (503, CloseReason::QueueTimeout)),
            (Limit::Connect, Some(exchange)) => self.fail_to_connect(world, tick, exchange, shakes_hands),
            (Limit::Response, Some(exchange)) => self.fail(world, tick, exchange, Fault::Timeout),
            (Limit::Expectation, Some(exchange)) => self.fail(world, tick, exchange, Fault::Unasked),
            (Limit::Stall, Some(exchange)) => self.end_stalled(world, tick, exchange),
            (Limit::Request, Some(exchange)) => self.refuse(world, tick, exchange, (504, CloseReason::RequestTimeout)),
            // It took nothing of its last answer.
            (Limit::Linger, _) if session.rest.is_blocked() => {
                self.cut_session(world, tick, id, CloseReason::WriteTimeout);
            }
            // It was given its time to read.
            (Limit::Linger, _) | (_, None) => self.end_session(world, tick, id, CloseReason::Closed),
        }
        if self.sessions.get(id).is_some_and(|session| session.timer.is_none()) {
            self.arm_session(id);
        }
    }

    /// Nothing moves in the middle of a response. Where the backend takes what comes of the request, and that is not all
    /// yet, it may have nothing to say: it is the client that stopped.
    fn end_stalled(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId) {
        let exchange = &self.exchanges[id];
        if !exchange.request_ended && !exchange.is_held() && self.sessions[exchange.session].credit {
            return self.refuse(world, tick, id, (408, CloseReason::BodyTimeout));
        }
        if let Some(place) = exchange.place() {
            self.failures.push(place);
        }
        self.refuse(world, tick, id, (504, CloseReason::ResponseTimeout));
    }
}

/// The deadline of what the exchange waits for from its backend.
fn exchange_deadline(session: &Session, exchange: &Exchange) -> (Instant, Limit) {
    let never = (Instant::FAR, Limit::Response);
    let (Some(knobs), Some(rule)) = (&exchange.tcp, &exchange.rule) else { return never };
    let timeouts = &rule.extras().timeouts;
    match exchange.phase {
        Phase::Deciding | Phase::Guarded => never,
        Phase::Queued => (exchange.since + knobs.queue_timeout, Limit::Queue),
        Phase::Connecting => (exchange.since + knobs.connect_timeout, Limit::Connect),
        Phase::Sent if exchange.request_ended => {
            (exchange.since.max(session.since) + timeouts.response, Limit::Response)
        }
        // The backend takes nothing of the request.
        Phase::Sent if !session.credit => (exchange.moved + timeouts.response, Limit::Response),
        Phase::Sent if exchange.holds_back() => (exchange.since + timeouts.response, Limit::Expectation),
        Phase::Sent => never,
        // The client takes nothing of the response: that is its own deadline.
        Phase::Responding if session.rest.is_blocked() => never,
        Phase::Responding => (exchange.moved + timeouts.idle, Limit::Stall),
    }
}

/// Move a deadline forward where it has to come earlier. One that comes too early finds nothing due and is armed again.
fn arm(
    world: &mut World,
    timer: Option<(crate::timers::TimerKey, Instant)>,
    at: Instant,
    due: Due,
) -> Option<(crate::timers::TimerKey, Instant)> {
    match timer {
        _ if at == Instant::FAR => timer,
        Some((_, armed)) if armed <= at => timer,
        Some((key, _)) => {
            world.timers.rearm(key, at, due);
            Some((key, at))
        }
        None => Some((world.timers.arm(at, due), at)),
    }
}
