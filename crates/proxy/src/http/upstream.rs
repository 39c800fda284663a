//! A backend's connection: what it is in the middle of reading, what it did not take yet, which exchange it serves, and
//! how it waits for the next. Shared by all clients of a worker. Decides nothing about requests.

use kakei_wire::http1::{Body, Scan};
use serde::{Deserialize, Serialize};

use super::Http;
use super::exchange::{ExchangeId, Phase};
use crate::cluster::{BackendKey, ClusterKey};
use crate::seam::{Gather, Instant, Op, SocketId, Span};
use crate::timers::TimerKey;
use crate::unsent::Unsent;
use crate::world::{Tick, World};

slotmap::new_key_type! {
    /// A backend's connection; carries a generation.
    pub(crate) struct UpstreamId;
}

/// What a backend's bytes are, at this point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reading {
    /// A head, interim or final.
    Head,
    /// A response's body.
    Body,
}

/// A backend's connection.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(super) socket: SocketId,
    pub(super) place: (ClusterKey, BackendKey),
    /// The exchange that it serves; none: it waits.
    pub(super) exchange: Option<ExchangeId>,
    pub(super) opened: Instant,
    /// Since when it waits.
    pub(super) since: Instant,
    pub(super) requests: u32,
    pub(super) reading: Reading,
    /// A part of a head.
    pub(super) input: Vec<u8>,
    pub(super) scan: Scan,
    pub(super) body: Body,
    /// What the backend did not take yet.
    pub(super) rest: Unsent,
    pub(super) credit: bool,
    /// Whether the backend said that it goes on after this response.
    pub(super) keeps: bool,
    /// It speaks for one client only, or is not to be used again for another reason.
    pub(super) is_private: bool,
    /// The armed deadline, and the instant it is armed for.
    pub(super) timer: Option<(TimerKey, Instant)>,
}

impl Upstream {
    pub(super) fn new(socket: SocketId, place: (ClusterKey, BackendKey), exchange: ExchangeId, now: Instant) -> Self {
        Upstream {
            socket,
            place,
            exchange: Some(exchange),
            opened: now,
            since: now,
            requests: 1,
            reading: Reading::Head,
            input: Vec::new(),
            scan: Scan::default(),
            body: Body::Ended,
            rest: Unsent::default(),
            credit: true,
            keeps: false,
            is_private: false,
            timer: None,
        }
    }

    /// It serves this exchange from now on.
    pub(super) fn occupy(&mut self, exchange: ExchangeId) {
        self.exchange = Some(exchange);
        self.requests += 1;
        self.reading = Reading::Head;
        self.keeps = false;
    }

    /// Whether anything came of a response.
    pub(super) fn reading_has_begun(&self) -> bool {
        self.reading != Reading::Head || !self.input.is_empty()
    }

    /// Write to the backend, behind what it did not take yet.
    #[inline]
    pub(super) fn write(&mut self, tick: &mut Tick<'_>, bytes: Gather) {
        if self.rest.is_blocked() {
            self.rest.keep(bytes.head.of(&tick.out.bytes));
            self.rest.keep(bytes.body.of(tick.bytes));
        } else {
            tick.write(self.socket, bytes);
        }
    }

    /// Whether to receive from the backend.
    pub(super) fn set_credit(&mut self, tick: &mut Tick<'_>, on: bool) {
        if self.credit != on {
            self.credit = on;
            tick.ask(Op::Credit { socket: self.socket, on });
        }
    }
}

impl Http {
    /// A connection to this backend that waits for a request, taken out of those that do.
    pub(super) fn take_idle(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        (cluster, backend): (ClusterKey, BackendKey),
    ) -> Option<UpstreamId> {
        loop {
            let live = &mut world.clusters[cluster];
            let knobs = &live.spec.http;
            let (max_age, most, requests) = (knobs.max_age, knobs.idle_timeout, knobs.max_requests);
            let socket = live.backends[backend].idle.pop()?;
            let Some(&crate::world::Socket::Upstream(id)) = world.sockets.get(socket) else { continue };
            let upstream = &self.upstreams[id];
            let is_young = max_age.is_none_or(|age| tick.now - upstream.opened < age);
            // It may have been more when it was put here.
            let is_left = requests == 0 || upstream.requests < requests;
            if is_young && is_left && most.is_some_and(|most| tick.now - upstream.since < most) {
                return Some(id);
            }
            self.close_upstream(world, tick, id);
        }
    }

    /// A new connection to this backend goes before one that waits.
    pub(super) fn make_room(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        (cluster, backend): (ClusterKey, BackendKey),
    ) {
        let cluster = &world.clusters[cluster];
        let (live, most) = (&cluster.backends[backend], cluster.connections_per_backend());
        if most > 0
            && live.connections + live.upstreams >= most
            && let Some(&socket) = live.idle.first()
            && let Some(&crate::world::Socket::Upstream(id)) = world.sockets.get(socket)
        {
            self.discard_idle(world, tick, id);
        }
    }

    /// An exchange needs its connection no longer: the next one may have it, where nothing stands against that.
    pub(super) fn give_up_upstream(&mut self, world: &mut World, tick: &mut Tick<'_>, id: UpstreamId, is_clean: bool) {
        let Some(upstream) = self.upstreams.get_mut(id) else { return };
        upstream.exchange = None;
        let (cluster, backend) = upstream.place;
        let live = &mut world.clusters[cluster];
        let knobs = &live.spec.http;
        let may_wait = knobs.idle_timeout.is_some()
            && (knobs.max_requests == 0 || upstream.requests < knobs.max_requests)
            && knobs.max_age.is_none_or(|age| tick.now - upstream.opened < age)
            && !live.backends[backend].removed;
        let is_whole =
            upstream.keeps && !upstream.is_private && !upstream.rest.is_blocked() && upstream.input.is_empty();
        if !(is_clean && may_wait && is_whole) {
            return self.close_upstream(world, tick, id);
        }
        upstream.since = tick.now;
        upstream.set_credit(tick, true);
        let socket = upstream.socket;
        live.backends[backend].idle.push(socket);
        self.queues.stir();
        self.arm_upstream(world, id);
    }

    /// A connection that waits is of no more use.
    pub(super) fn discard_idle(&mut self, world: &mut World, tick: &mut Tick<'_>, id: UpstreamId) {
        let Some(upstream) = self.upstreams.get(id) else { return };
        let ((cluster, backend), socket) = (upstream.place, upstream.socket);
        let idle = &mut world.clusters[cluster].backends[backend].idle;
        if let Some(at) = idle.iter().position(|waiting| *waiting == socket) {
            idle.remove(at);
        }
        self.close_upstream(world, tick, id);
    }

    /// Connections to backends of that cluster begin otherwise from now on: none of before carries a further request.
    pub(crate) fn retire_upstreams(&mut self, world: &mut World, tick: &mut Tick<'_>, cluster: ClusterKey) {
        let all = self.upstreams.iter_mut().filter(|(_, upstream)| upstream.place.0 == cluster);
        let waiting = all.filter_map(|(id, upstream)| {
            upstream.is_private = true;
            upstream.exchange.is_none().then_some(id)
        });
        for id in waiting.collect::<Vec<_>>() {
            self.discard_idle(world, tick, id);
        }
    }

    /// How long connections to that cluster's backends may wait may be another time from now on, also for those that do.
    pub(crate) fn hold_idle(&mut self, world: &mut World, tick: &mut Tick<'_>, cluster: ClusterKey) {
        let live = &world.clusters[cluster];
        let most = live.spec.http.idle_timeout;
        let sockets = live.backends.values().flat_map(|backend| &backend.idle);
        let ids = sockets.filter_map(|socket| match world.sockets.get(*socket) {
            Some(&crate::world::Socket::Upstream(id)) => Some(id),
            _ => None,
        });
        for id in ids.collect::<Vec<_>>() {
            match most {
                Some(most) if tick.now - self.upstreams[id].since < most => self.arm_upstream(world, id),
                _ => self.discard_idle(world, tick, id),
            }
        }
    }

    /// No request will ever come again: connections that wait for one are of no more use.
    pub(crate) fn close_idle(&mut self, world: &mut World, tick: &mut Tick<'_>) {
        let idle: Vec<UpstreamId> =
            self.upstreams.iter().filter(|(_, upstream)| upstream.exchange.is_none()).map(|(id, _)| id).collect();
        for id in idle {
            self.discard_idle(world, tick, id);
        }
    }

    /// Close a connection, and forget it.
    pub(super) fn close_upstream(&mut self, world: &mut World, tick: &mut Tick<'_>, id: UpstreamId) {
        let Some(upstream) = self.upstreams.get(id) else { return };
        let is_open = world.forget(upstream.socket).is_some();
        if is_open {
            // What is still on its way is of no use to anybody: the backend is to know that at once.
            let socket = upstream.socket;
            let is_idle = upstream.keeps && !upstream.rest.is_blocked();
            tick.ask(if is_idle { Op::Close { socket } } else { Op::Reset { socket } });
        }
        self.forget_upstream(world, id);
    }

    /// Forget a connection that is closed.
    pub(super) fn forget_upstream(&mut self, world: &mut World, id: UpstreamId) {
        let Some(upstream) = self.upstreams.remove(id) else { return };
        let (cluster, backend) = upstream.place;
        if let Some((timer, _)) = upstream.timer {
            world.timers.cancel(timer);
        }
        world.clusters[cluster].backends[backend].upstreams -= 1;
        self.queues.stir();
        world.settle_backend(cluster, backend);
    }

    /// The backend took only a part of what was written.
    pub(crate) fn handle_upstream_blocked(&mut self, tick: &mut Tick<'_>, id: UpstreamId, rest: Span) {
        let Some(upstream) = self.upstreams.get_mut(id) else { return };
        upstream.rest = Unsent::blocked(rest.of(tick.bytes));
        let Some(exchange) = upstream.exchange else { return };
        let exchange = &mut self.exchanges[exchange];
        // The time in which it must take more begins.
        exchange.moved = tick.now;
        let session = exchange.session;
        if !exchange.request_ended {
            self.sessions[session].set_credit(tick, false);
        }
        self.arm_session(session);
    }

    /// The backend takes bytes again.
    pub(crate) fn handle_upstream_drained(&mut self, tick: &mut Tick<'_>, id: UpstreamId) {
        let Some(upstream) = self.upstreams.get_mut(id) else { return };
        if let Some(rest) = upstream.rest.drain().filter(|rest| !rest.is_empty()) {
            let head = tick.out.put(&rest);
            upstream.write(tick, Gather { head, body: Span::EMPTY });
        }
        let Some(exchange) = upstream.exchange else { return };
        let exchange = &mut self.exchanges[exchange];
        exchange.moved = tick.now;
        if !exchange.request_ended && !exchange.is_held() && matches!(exchange.phase, Phase::Sent | Phase::Responding) {
            self.sessions[exchange.session].set_credit(tick, true);
        }
    }
}
