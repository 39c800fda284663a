//! A request to a backend: which one, on which connection, or in the queue for one with room; then its bytes.

use kakei_config::StreamProxyProtocol;
use kakei_wire::http1::chunk_head;

use super::Http;
use super::exchange::{Exchange, ExchangeId, Framing, Phase};
use super::retry::has_room;
use super::session::Input;
use super::upstream::{Upstream, UpstreamId};
use crate::client;
use crate::cluster::{BackendKey, ClusterKey};
use crate::limits::{COPIED_CHUNK, REPLAY};
use crate::record::CloseReason;
use crate::seam::{Gather, Instant, Op, Span};
use crate::stats::{BackendMetric, ListenerMetric};
use crate::waiting::{Queueing, Turn, Waiting};
use crate::world::{Socket, Tick, World};

/// What came of looking for a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Backend(BackendKey),
    /// Some that could be tried have no room.
    Full,
    /// None is left to be tried.
    Exhausted,
    /// None takes work.
    Nobody,
}

impl Http {
    /// Send the request to a backend, or have it wait for one with room, or answer that there is none.
    pub(super) fn place(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId) {
        let Some(cluster) = self.exchanges[id].cluster else { return };
        match self.choose(world, tick.now, id) {
            // Those that wait were here first, but for who had its turn before them; and not for a backend that takes
            // nobody but who has its cookie.
            Choice::Backend(backend)
                if !self.exchanges[id].had_its_turn()
                    && self.queues.is_waited_for(cluster)
                    && world.clusters[cluster].is_one(backend) =>
            {
                self.queues.stir();
                self.enqueue(world, tick, id);
            }
            Choice::Backend(backend) => self.assign(world, tick, id, (cluster, backend)),
            Choice::Full => self.enqueue(world, tick, id),
            Choice::Exhausted => self.give_up(world, tick, id),
            Choice::Nobody => self.refuse(world, tick, id, (503, CloseReason::NoBackend)),
        }
    }

    /// All that could be tried have failed: that the last one did is why.
    fn give_up(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId) {
        let reason = self.exchanges[id].failed.unwrap_or(CloseReason::ConnectFailed);
        self.refuse(world, tick, id, (Exchange::fault_status(reason), reason));
    }

    fn choose(&self, world: &mut World, now: Instant, id: ExchangeId) -> Choice {
        let exchange = &self.exchanges[id];
        let Some(key) = exchange.cluster else { return Choice::Nobody };
        let cluster = &mut world.clusters[key];
        let (most, tried) = (cluster.connections_per_backend(), &exchange.tried);
        if let Some(seat) = exchange.seat(cluster, now) {
            return Choice::Backend(seat);
        }
        if !cluster.takes_work() {
            return Choice::Nobody;
        }
        if most == 0 && tried.is_empty() {
            let chosen = cluster.pick(exchange.affinity, &mut world.rng);
            return chosen.map_or(Choice::Nobody, Choice::Backend);
        }
        let chosen = cluster.choose(exchange.affinity, &mut world.rng, |backend, live| {
            !tried.contains(&backend) && has_room(live, most)
        });
        match chosen {
            Some(backend) => Choice::Backend(backend),
            None if exchange.untried(cluster, now).next().is_none() => Choice::Exhausted,
            None => Choice::Full,
        }
    }

    /// The request goes to this backend, on a connection that waits for one, or on a new one.
    fn assign(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId, place: (ClusterKey, BackendKey)) {
        let exchange = &mut self.exchanges[id];
        exchange.backend = Some(place.1);
        exchange.tries += 1;
        exchange.lapse.connect = None;
        if let Some(detail) = &mut exchange.detail {
            (detail.attempts, detail.reused) = (detail.attempts + 1, false);
        }
        let needs_new = exchange.needs_new();
        world.clusters[place.0].backends[place.1].take_request();
        if needs_new {
            self.make_room(world, tick, place);
        } else if let Some(upstream) = self.take_idle(world, tick, place) {
            let exchange = &mut self.exchanges[id];
            exchange.upstream = Some(upstream);
            if let Some(detail) = &mut exchange.detail {
                detail.reused = true;
            }
            self.upstreams[upstream].occupy(id);
            world.clusters[place.0].backends[place.1].values[BackendMetric::Reused] += 1;
            return self.dispatch(tick, id);
        }
        self.connect(world, tick, id, place);
    }

    fn connect(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId, place: (ClusterKey, BackendKey)) {
        let exchange = &mut self.exchanges[id];
        let live = &mut world.clusters[place.0].backends[place.1];
        live.upstreams += 1;
        live.values[BackendMetric::ConnectionsOpened] += 1;
        let remote = live.spec.address.clone();
        let keepalive = exchange.tcp.as_ref().and_then(|knobs| knobs.keepalive);
        let upstream = self.upstreams.insert_with_key(|upstream| {
            let socket = world.insert(Socket::Upstream(upstream));
            tick.ask(Op::Connect { socket, remote, keepalive });
            Upstream::new(socket, place, id, tick.now)
        });
        exchange.upstream = Some(upstream);
        exchange.enter(Phase::Connecting, tick.now);
        // Until there is somewhere to send it to, no more than what is here is taken of a body.
        let session = &mut self.sessions[exchange.session];
        if !exchange.request_ended {
            session.set_credit(tick, false);
        }
        let session = exchange.session;
        self.arm_session(session);
    }

    /// The PROXY header that the connection begins with.
    pub(crate) fn write_introduction(&self, world: &World, id: UpstreamId, out: &mut Vec<u8>) {
        let Some(upstream) = self.upstreams.get(id) else { return };
        let Some(exchange) = upstream.exchange.and_then(|exchange| self.exchanges.get(exchange)) else { return };
        let version = world.clusters[upstream.place.0].spec.send_proxy_protocol;
        let arrived = &self.sessions[exchange.session].arrived;
        client::write_proxy_header(version, (arrived.client(), arrived.dialled()), &[], out);
    }

    /// The connection to the backend is open: its PROXY header goes first, where that didn't go before.
    pub(crate) fn handle_upstream_opened(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: UpstreamId,
        is_introduced: bool,
    ) {
        let Some(upstream) = self.upstreams.get_mut(id) else { return };
        let place = upstream.place;
        upstream.opened = tick.now;
        let Some(exchange) = upstream.exchange else { return };
        if self.exchanges[exchange].phase != Phase::Connecting {
            return;
        }
        if world.clusters[place.0].spec.send_proxy_protocol != StreamProxyProtocol::Off {
            // It speaks for this client from now on, and for nobody else.
            self.upstreams[id].is_private = true;
            let start = tick.out.bytes.len() as u32;
            if !is_introduced {
                self.write_introduction(world, id, &mut tick.out.bytes);
            }
            let head = Span { start, len: tick.out.bytes.len() as u32 - start };
            if head.len > 0 {
                self.upstreams[id].write(tick, Gather { head, body: Span::EMPTY });
            }
        }
        let waited = tick.now - self.exchanges[exchange].since;
        self.exchanges[exchange].lapse.connect = Some(waited);
        self.dispatch(tick, exchange);
    }

    /// Send what is there of the request; the rest of it follows as it comes.
    fn dispatch(&mut self, tick: &mut Tick<'_>, id: ExchangeId) {
        let exchange = &mut self.exchanges[id];
        let Some(upstream) = exchange.upstream else { return };
        exchange.enter(Phase::Sent, tick.now);
        exchange.moved = tick.now;
        let head = tick.out.put(&exchange.kept);
        self.upstreams[upstream].write(tick, Gather { head, body: Span::EMPTY });
        let exchange = &mut self.exchanges[id];
        if !exchange.is_idempotent() {
            // It is never sent twice.
            exchange.is_whole = false;
            let kept = std::mem::take(&mut exchange.kept);
            self.recycle(kept);
        }
        let exchange = &self.exchanges[id];
        let session = exchange.session;
        if !exchange.request_ended && !exchange.is_held() && !self.upstreams[upstream].rest.is_blocked() {
            // It was not heard while there was nowhere to send to: its time begins now.
            self.sessions[session].moved = tick.now;
            self.sessions[session].set_credit(tick, true);
        }
        self.arm_session(session);
    }

    /// A part of the request's body, on its way to the backend.
    pub(super) fn send_body(&mut self, tick: &mut Tick<'_>, id: ExchangeId, piece: (Input<'_>, usize, usize)) {
        self.send_piece(tick, id, piece);
        let exchange = &self.exchanges[id];
        let owes = exchange.upstream.is_some_and(|upstream| self.upstreams[upstream].rest.is_blocked());
        if owes {
            // It may not have taken all of the request before this one.
            self.sessions[exchange.session].set_credit(tick, false);
        }
    }

    fn send_piece(&mut self, tick: &mut Tick<'_>, id: ExchangeId, (input, from, len): (Input<'_>, usize, usize)) {
        let bytes = &input.bytes[from..from + len];
        match self.exchanges[id].request_framing {
            Framing::Chunked => {
                let mut chunk = self.buffer();
                chunk_head(len, &mut chunk);
                chunk.extend_from_slice(bytes);
                chunk.extend_from_slice(b"\r\n");
                self.send(tick, id, &chunk);
                self.recycle(chunk);
            }
            Framing::Plain if len <= COPIED_CHUNK || self.exchanges[id].phase != Phase::Sent => {
                self.send(tick, id, bytes);
            }
            Framing::Plain => {
                let gather = input.gather(tick, from, len);
                self.keep(id, bytes);
                if let Some(upstream) = self.exchanges[id].upstream {
                    self.upstreams[upstream].write(tick, gather);
                }
            }
        }
    }

    /// Bytes of the request: kept while they may be needed (again), sent where there is somewhere to send them to.
    pub(super) fn send(&mut self, tick: &mut Tick<'_>, id: ExchangeId, bytes: &[u8]) {
        let is_there = matches!(self.exchanges[id].phase, Phase::Sent | Phase::Responding);
        if !is_there {
            return self.exchanges[id].kept.extend_from_slice(bytes);
        }
        self.keep(id, bytes);
        if let Some(upstream) = self.exchanges[id].upstream {
            let head = tick.out.put(bytes);
            self.upstreams[upstream].write(tick, Gather { head, body: Span::EMPTY });
        }
    }

    fn keep(&mut self, id: ExchangeId, bytes: &[u8]) {
        let exchange = &mut self.exchanges[id];
        if exchange.is_whole && exchange.kept.len() + bytes.len() <= REPLAY && exchange.phase == Phase::Sent {
            exchange.kept.extend_from_slice(bytes);
        } else {
            exchange.is_whole = false;
        }
    }

    fn enqueue(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId) {
        let exchange = &mut self.exchanges[id];
        let (Some(cluster), Some(knobs)) = (exchange.cluster, exchange.tcp.clone()) else { return };
        // Who had its turn is one too many for nobody, where anybody may wait at all.
        let had_its_turn = exchange.had_its_turn();
        if knobs.queue == 0 || !had_its_turn && self.queues.len(cluster) >= knobs.queue {
            return self.refuse(world, tick, id, (503, CloseReason::QueueFull));
        }
        let exchange = &mut self.exchanges[id];
        exchange.enter(Phase::Queued, tick.now);
        let session = exchange.session;
        if !exchange.request_ended {
            self.sessions[session].set_credit(tick, false);
        }
        let listener = self.sessions[session].arrived.listener;
        world.listeners[listener].values[ListenerMetric::RequestsQueued] += 1;
        match had_its_turn {
            true => self.queues.join_first(cluster, id),
            false => self.queues.join(cluster, id),
        }
        self.arm_session(session);
    }

    /// It waits no longer, for whatever reason.
    pub(super) fn dequeue(&mut self, world: &mut World, id: ExchangeId) {
        let exchange = &self.exchanges[id];
        let (Phase::Queued, Some(cluster)) = (exchange.phase, exchange.cluster) else { return };
        let listener = self.sessions[exchange.session].arrived.listener;
        world.listeners[listener].values[ListenerMetric::RequestsQueued] -= 1;
        let exchanges = &self.exchanges;
        self.queues.leave(cluster, id, |id| exchanges.get(id).is_some_and(|other| other.phase == Phase::Queued));
    }

    /// Whether anybody waits for a backend of this cluster.
    pub(crate) fn is_waited_for(&self, cluster: ClusterKey) -> bool {
        self.queues.is_waited_for(cluster)
    }
}

impl Queueing for Http {
    type Id = ExchangeId;

    fn queues(&mut self) -> &mut Waiting<ExchangeId> {
        &mut self.queues
    }

    fn waits(&self, id: ExchangeId) -> bool {
        self.exchanges.get(id).is_some_and(|exchange| exchange.phase == Phase::Queued)
    }

    /// A cluster all of whose backends are down may have one again in time; one that was removed never will.
    fn take_turn(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId) -> Turn {
        let Some(cluster) = self.exchanges[id].cluster else { return Turn::Done };
        match self.choose(world, tick.now, id) {
            Choice::Backend(backend) => {
                self.dequeue(world, id);
                let exchange = &mut self.exchanges[id];
                exchange.end_wait(tick.now);
                exchange.enter(Phase::Deciding, tick.now);
                self.assign(world, tick, id, (cluster, backend));
            }
            Choice::Exhausted => self.give_up(world, tick, id),
            Choice::Nobody if world.clusters[cluster].removed => {
                self.refuse(world, tick, id, (503, CloseReason::NoBackend));
            }
            // What it tried may have room for the others.
            Choice::Full if !self.exchanges[id].tried.is_empty() => return Turn::PassedOver,
            Choice::Full | Choice::Nobody => return Turn::Blocked,
        }
        Turn::Done
    }
}
