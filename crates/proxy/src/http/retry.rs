//! What went wrong with a try, and whether there is another one: only where nothing can happen twice that must not, and
//! within what the cluster may be burdened with.

use std::time::Duration;

use kakei_config::RetryOn;
use kakei_wire::http1::{Body, Piece, ResponseHead};

use super::Http;
use super::exchange::{Exchange, ExchangeId, Phase};
use crate::cluster::{BackendKey, LiveBackend, LiveCluster};
use crate::record::CloseReason;
use crate::seam::Instant;
use crate::stats::{BackendMetric, ListenerMetric};
use crate::world::{Tick, World};

/// What went wrong with a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The backend can't be connected to.
    Connect,
    /// The backend can't be spoken to in TLS.
    Secure,
    /// We can't open a connection: that says nothing about the backend.
    Lack,
    /// The backend broke the connection before its response began.
    Reset,
    /// The same by what TLS says of it.
    Cut(CloseReason),
    /// Its response did not begin in time.
    Timeout,
    /// In the same time it didn't ask for a body that its client holds back until then. Many that read the body all the
    /// same say nothing, so it counts against none: any client could bring that about.
    Unasked,
    /// Its response was malformed.
    Malformed,
    /// Its response has a status that asks for another try.
    Status(u16),
}

impl Fault {
    pub(super) fn reason(self) -> CloseReason {
        match self {
            Fault::Connect => CloseReason::ConnectFailed,
            Fault::Secure => CloseReason::BackendTls,
            Fault::Cut(reason) => reason,
            Fault::Lack => CloseReason::Aborted,
            Fault::Reset => CloseReason::BackendReset,
            Fault::Timeout | Fault::Unasked => CloseReason::ResponseTimeout,
            Fault::Malformed | Fault::Status(_) => CloseReason::BadResponse,
        }
    }

    fn is_reset(self) -> bool {
        matches!(self, Fault::Reset | Fault::Cut(_))
    }

    /// Whether a route that says this asks for another try.
    fn is_named_by(self, on: RetryOn) -> bool {
        match on {
            RetryOn::Connect => matches!(self, Fault::Connect | Fault::Secure),
            RetryOn::Reset => self.is_reset(),
            RetryOn::Timeout => matches!(self, Fault::Timeout | Fault::Unasked),
            RetryOn::Status(status) => self == Fault::Status(status),
        }
    }
}

impl Http {
    /// A try failed before its response began.
    pub(super) fn fail(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId, fault: Fault) {
        let exchange = &mut self.exchanges[id];
        let place = exchange.place();
        let (mut is_stale, mut said_something) = (false, false);
        if let Some(upstream) = exchange.upstream.take()
            && let Some(connection) = self.upstreams.get(upstream)
        {
            said_something = exchange.interim > 0 || connection.reading_has_begun();
            is_stale = fault.is_reset() && connection.requests > 1 && !said_something;
            self.close_upstream(world, tick, upstream);
        }
        let exchange = &mut self.exchanges[id];
        if is_stale && !exchange.revived && exchange.may_be_sent_again(fault) {
            exchange.revived = true;
            // It was the connection that failed it.
            exchange.tries = exchange.tries.saturating_sub(1);
            return self.try_again(world, tick, id);
        }
        if let Some((cluster, backend)) = place {
            let values = &mut world.clusters[cluster].backends[backend].values;
            if matches!(fault, Fault::Connect | Fault::Secure | Fault::Lack) {
                values[BackendMetric::ConnectFailures] += 1;
            }
            if !is_stale && !matches!(fault, Fault::Lack | Fault::Unasked | Fault::Status(_)) {
                self.failures.push((cluster, backend));
            }
            if !said_something
                && self.has_another(world, tick.now, id, fault)
                && world.clusters[cluster].retries.spend()
            {
                world.clusters[cluster].backends[backend].values[BackendMetric::Retries] += 1;
                let exchange = &mut self.exchanges[id];
                exchange.tried.push(backend);
                exchange.failed = Some(fault.reason());
                return self.try_again(world, tick, id);
            }
        }
        let reason = fault.reason();
        // It keeps its backend until then: the record names it.
        self.refuse(world, tick, id, (Exchange::fault_status(reason), reason));
    }

    /// Leave the backend that failed, and look for one anew.
    fn try_again(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId) {
        self.leave_backend(world, id);
        if let Some(session) = self.sessions.get_mut(self.exchanges[id].session) {
            session.drains.leave_backend();
        }
        self.exchanges[id].enter(Phase::Deciding, tick.now);
        self.place(world, tick, id);
    }

    /// Whether its route wants another try after this, and there is a backend that it didn't try.
    fn has_another(&self, world: &World, now: Instant, id: ExchangeId, fault: Fault) -> bool {
        let exchange = &self.exchanges[id];
        let has_others =
            |cluster| exchange.untried(&world.clusters[cluster], now).any(|backend| exchange.backend != Some(backend));
        exchange.wants_another(fault) && exchange.cluster.is_some_and(has_others)
    }

    /// Whether a response of this status is not the one that the client gets; then there is another try already.
    pub(super) fn retries_status(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: ExchangeId,
        (head, rest): (&ResponseHead<'_>, &[u8]),
    ) -> bool {
        let exchange = &self.exchanges[id];
        let Some(cluster) = exchange.cluster else { return false };
        let fault = Fault::Status(head.response.status);
        let is_held = exchange.is_held() && !exchange.is_question();
        if is_held || !self.has_another(world, tick.now, id, fault) || !world.clusters[cluster].retries.has() {
            return false;
        }
        // All of the response is there: the connection is as good as after any other.
        let is_clean = (exchange.request_ended || exchange.is_question()) && is_all_of(head, rest);
        if is_clean && let Some(upstream) = self.exchanges[id].upstream.take() {
            self.upstreams[upstream].keeps = head.keeps();
            self.give_up_upstream(world, tick, upstream, is_clean);
        }
        self.fail(world, tick, id, fault);
        true
    }

    /// What a response says about its backend.
    pub(super) fn judge(&mut self, world: &mut World, tick: &Tick<'_>, id: ExchangeId, status: u16) {
        let exchange = &self.exchanges[id];
        let Some((cluster, backend)) = exchange.place() else { return };
        let waited = self.waited(exchange, tick.now);
        let cluster_of = &mut world.clusters[cluster];
        let passive = cluster_of.spec.health.as_ref().and_then(|health| health.passive.as_ref());
        let is_bad = passive.is_some_and(|check| {
            check.status.iter().any(|range| range.contains(status))
                || check.latency.zip(waited).is_some_and(|(most, waited)| waited > most)
        });
        match is_bad {
            true => self.failures.push((cluster, backend)),
            false => cluster_of.backends[backend].passive.handle_success(),
        }
    }

    /// How long it waited for its response since the backend had all that it was to be sent. None: it hasn't yet, so what
    /// the backend waits for may be the client.
    fn waited(&self, exchange: &Exchange, now: Instant) -> Option<Duration> {
        let session = &self.sessions[exchange.session];
        match exchange.is_question() {
            true => Some(now - exchange.since),
            false => exchange.request_ended.then(|| now - exchange.since.max(session.since)),
        }
    }

    /// Give the place on the backend back. What it was sent and has sent is counted.
    pub(super) fn leave_backend(&mut self, world: &mut World, id: ExchangeId) {
        let exchange = &mut self.exchanges[id];
        let (Some(cluster), Some(backend)) = (exchange.cluster, exchange.backend.take()) else { return };
        exchange.left = Some(backend);
        let (sent, returned) = (exchange.sent_bytes(), exchange.response_bytes);
        let listener = self.sessions[exchange.session].arrived.listener;
        world.listeners[listener].values[ListenerMetric::BytesForwarded] += sent;
        let live = &mut world.clusters[cluster].backends[backend];
        live.values[BackendMetric::BytesSent] += sent;
        live.values[BackendMetric::BytesReturned] += returned;
        live.give_back_request();
        self.queues.stir();
        world.settle_backend(cluster, backend);
    }
}

impl Exchange {
    /// Whether it was on its way to a backend before: then it waited for one, or need not have.
    pub(super) fn had_its_turn(&self) -> bool {
        self.revived || !self.tried.is_empty()
    }

    /// Whether it goes over a connection that carried nothing before: one that waits may be dead, and what it asks for
    /// can't be asked for twice. It gets that for itself anyway.
    pub(super) fn needs_new(&self) -> bool {
        let becomes_another = self.protocols.is_some() || self.traits.is_connect;
        self.revived || becomes_another && !self.is_question()
    }

    /// The backend that its cookie leads to, where that may be gone on with and has room: new clients may have no way
    /// there, so nobody waits for it.
    pub(super) fn seat(&self, cluster: &LiveCluster, now: Instant) -> Option<BackendKey> {
        let most = cluster.connections_per_backend();
        let is_free = |seat: &BackendKey| {
            !self.tried.contains(seat) && cluster.honours(now, *seat) && has_room(&cluster.backends[*seat], most)
        };
        self.sticky.filter(is_free)
    }

    /// The backends that it may go to and that did not fail it.
    pub(super) fn untried(&self, cluster: &LiveCluster, now: Instant) -> impl Iterator<Item = BackendKey> {
        let members = cluster.members().filter(|backend| !self.tried.contains(backend));
        self.seat(cluster, now).into_iter().chain(members)
    }

    /// Whether nothing can happen twice that must not, and everything is at hand.
    fn may_be_sent_again(&self, fault: Fault) -> bool {
        match fault {
            // Nothing was sent.
            Fault::Connect | Fault::Secure => true,
            _ => self.is_idempotent() && self.is_whole && (self.protocols.is_none() || self.is_question()),
        }
    }

    /// How much of its body the backend that it has was sent, or is being sent.
    fn sent_bytes(&self) -> u64 {
        let is_there = matches!(self.phase, Phase::Sent | Phase::Responding);
        if is_there && !self.is_question() { self.request_bytes } else { 0 }
    }

    fn wants_another(&self, fault: Fault) -> bool {
        let Some(rule) = &self.rule else { return false };
        let retry = &rule.spec.retry;
        self.tries <= retry.attempts
            && retry.on.iter().any(|on| fault.is_named_by(*on))
            && self.may_be_sent_again(fault)
            && self.interim == 0
    }
}

/// Whether what came behind a response's head is its body, to the last byte.
fn is_all_of(head: &ResponseHead<'_>, rest: &[u8]) -> bool {
    let (mut body, mut at) = (Body::new(head.response.length, head.until_close), 0);
    loop {
        match body.next(rest, at) {
            Ok(Piece::Data { from, len }) => at = from + len,
            Ok(Piece::End { at }) => return at == rest.len(),
            Ok(Piece::Nothing) | Err(_) => return false,
        }
    }
}

/// Whether one more request finds a connection to a backend that may have `most`; 0: as many as there are.
pub(super) fn has_room(live: &LiveBackend, most: u32) -> bool {
    most == 0 || !live.idle.is_empty() || live.connections + live.upstreams < most
}
