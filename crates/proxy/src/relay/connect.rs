//! From a connection that can be routed to one that is joined with a backend: route, choose, connect, and again with
//! another backend where that fails. The client notices nothing of it.

use kakei_wire::client_hello::ClientHello;

use super::connection::{Ending, Phase, Side};
use super::{RelayId, Relays};
use crate::balance;
use crate::client;
use crate::cluster::{BackendKey, ClusterKey, LiveBackend};
use crate::record::CloseReason;
use crate::seam::{Gather, Op, OpenError, SocketId, Span};
use crate::snapshot::Asked;
use crate::stats::BackendMetric;
use crate::waiting::Turn;
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

impl Relays {
    /// Where the connection goes, by what its client is and said.
    pub(super) fn route(&mut self, world: &mut World, tick: &mut Tick<'_>, id: RelayId, hello: Option<ClientHello>) {
        let relay = &mut self.relays[id];
        let hello = hello.unwrap_or_default();
        let asked = Asked { source: relay.client().ip(), sni: hello.server_name.as_deref(), alpn: &hello.alpn };
        let from = (relay.listener, relay.client(), relay.dialled());
        world.seen.note_connection(tick.now, from, (asked.sni, asked.alpn));
        let target = world.listeners[relay.listener].spec.route(&asked).cloned();
        relay.detail.sni = hello.server_name;
        let Some(target) = target else { return self.end(world, tick, id, CloseReason::NoRoute) };
        let Some(&cluster) = world.cluster_names.get(&target.cluster) else {
            return self.end(world, tick, id, CloseReason::NoBackend);
        };
        relay.knobs = Some(std::sync::Arc::clone(&world.clusters[cluster].spec.tcp));
        relay.cluster = Some(cluster);
        relay.target = Some(target);
        self.restless += usize::from(relay.minds_its_route());
        self.place(world, tick, id);
    }

    /// Connect to a backend, or wait for one with room, or end.
    pub(super) fn place(&mut self, world: &mut World, tick: &mut Tick<'_>, id: RelayId) {
        match self.choose(world, id) {
            // Those that wait were here first.
            Choice::Backend(_) if self.relays[id].cluster.is_some_and(|cluster| self.is_waited_for(cluster)) => {
                self.queues.stir();
                self.enqueue(world, tick, id);
            }
            Choice::Backend(backend) => self.connect(world, tick, id, backend),
            Choice::Full => self.enqueue(world, tick, id),
            Choice::Exhausted => self.give_up(world, tick, id),
            Choice::Nobody => self.end(world, tick, id, CloseReason::NoBackend),
        }
    }

    /// The same for one that waits. A cluster all of whose backends are down may have one again in time; one that was
    /// removed never will.
    pub(super) fn place_waiting(&mut self, world: &mut World, tick: &mut Tick<'_>, id: RelayId) -> Turn {
        match self.choose(world, id) {
            Choice::Backend(backend) => {
                self.dequeue(world, id);
                let relay = &mut self.relays[id];
                relay.detail.queued += tick.now - relay.since;
                self.connect(world, tick, id, backend);
            }
            Choice::Exhausted => self.give_up(world, tick, id),
            Choice::Nobody if self.is_of_removed(world, id) => self.end(world, tick, id, CloseReason::NoBackend),
            // What it tried may have room for the others.
            Choice::Full if !self.relays[id].tried().is_empty() => return Turn::PassedOver,
            Choice::Full | Choice::Nobody => return Turn::Blocked,
        }
        Turn::Done
    }

    /// All that could be tried have failed: that the last one did is why.
    fn give_up(&mut self, world: &mut World, tick: &mut Tick<'_>, id: RelayId) {
        let failed = self.relays[id].opening.as_ref().and_then(|opening| opening.failed);
        self.end(world, tick, id, failed.unwrap_or(CloseReason::ConnectFailed));
    }

    fn is_of_removed(&self, world: &World, id: RelayId) -> bool {
        self.relays[id].cluster.is_some_and(|cluster| world.clusters[cluster].removed)
    }

    fn choose(&self, world: &mut World, id: RelayId) -> Choice {
        let relay = &self.relays[id];
        let (Some(key), Some(knobs)) = (relay.cluster, &relay.knobs) else { return Choice::Nobody };
        let affinity = balance::source_affinity(world.balance_seed, knobs.affinity, relay.client());
        let cluster = &mut world.clusters[key];
        if !cluster.takes_work() {
            return Choice::Nobody;
        }
        let tried = relay.tried();
        let most = cluster.connections_per_backend();
        let has_room = |connections: u32| most == 0 || connections < most;
        // A document whose backend is its own listener is refused, but a host name may come to have that address.
        let is_dialled = |live: &LiveBackend| live.spec.address.ip() == Some(relay.local);
        let is_out = |backend: BackendKey, live: &LiveBackend| tried.contains(&backend) || is_dialled(live);
        let chosen = cluster
            .choose(affinity, &mut world.rng, |backend, live| !is_out(backend, live) && has_room(live.connections));
        match chosen {
            Some(backend) => Choice::Backend(backend),
            None if cluster.members().all(|backend| is_out(backend, &cluster.backends[backend])) => Choice::Exhausted,
            None => Choice::Full,
        }
    }

    fn connect(&mut self, world: &mut World, tick: &mut Tick<'_>, id: RelayId, backend: BackendKey) {
        let socket = world.insert(Socket::Backend(id));
        let relay = &mut self.relays[id];
        let Some(cluster) = relay.cluster else { return };
        relay.set_socket(Side::Backend, socket);
        relay.backend = Some(backend);
        (relay.phase, relay.since) = (Phase::Connecting, tick.now);
        relay.detail.attempts += 1;
        let live = &mut world.clusters[cluster].backends[backend];
        live.take(relay.minds_its_backend());
        live.values[BackendMetric::ConnectionsOpened] += 1;
        let keepalive = relay.knobs.as_ref().and_then(|knobs| knobs.keepalive);
        tick.ask(Op::Connect { socket, remote: live.spec.address.clone(), keepalive });
        self.arm(world, id);
    }

    /// The PROXY header that the stream to the backend begins with.
    pub(crate) fn write_introduction(&self, world: &World, id: RelayId, out: &mut Vec<u8>) {
        let Some(relay) = self.relays.get(id) else { return };
        let Some(cluster) = relay.cluster.and_then(|cluster| world.clusters.get(cluster)) else { return };
        let tlvs =
            relay.opening.as_ref().map_or(&[][..], |opening| &opening.buffer[opening.tlvs_at..opening.payload_at]);
        let version = cluster.spec.send_proxy_protocol;
        client::write_proxy_header(version, (relay.client(), relay.dialled()), tlvs, out);
    }

    /// The stream to the backend is open: what the client sent so far goes there, behind the PROXY header where that
    /// didn't go before.
    pub(crate) fn handle_opened(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        (id, socket): (RelayId, SocketId),
        is_introduced: bool,
    ) {
        let step = self.step;
        let head = Span { start: tick.out.bytes.len() as u32, len: 0 };
        if !is_introduced {
            self.write_introduction(world, id, &mut tick.out.bytes);
        }
        let Some(relay) = self.relays.get_mut(id).filter(|relay| relay.phase == Phase::Connecting) else { return };
        relay.detail.connect = Some(tick.now - relay.since);
        (relay.phase, relay.since, relay.moved) = (Phase::Established, tick.now, tick.now);
        let opening = relay.opening.take().unwrap_or_default();
        let payload = &opening.buffer[opening.payload_at..];
        tick.out.bytes.extend_from_slice(payload);
        let head = Span { len: tick.out.bytes.len() as u32 - head.start, ..head };
        if head.len > 0 {
            tick.ask(Op::Write { socket, bytes: Gather { head, body: Span::EMPTY } });
            relay.lane_mut(Side::Client).written = step;
        }
        let client = relay.socket(Side::Client);
        let has_ended = relay.lane(Side::Client).ending != Ending::Open;
        self.count_moved(world, id, Side::Client, payload.len() as u64);
        if has_ended {
            self.pass_end(world, tick, id, Side::Client);
        } else {
            tick.ask(Op::Credit { socket: client, on: true });
        }
        if self.relays[id].lane(Side::Backend).rest.is_blocked() {
            // The client takes nothing yet of what was said below.
            tick.ask(Op::Credit { socket, on: false });
        }
        self.arm(world, id);
    }

    /// The stream to the backend could not be opened, and is gone: another backend, while there may be attempts.
    pub(crate) fn handle_connect_failed(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: RelayId,
        error: Option<OpenError>,
    ) {
        let lacks = error == Some(OpenError::NoDescriptors);
        self.connect_elsewhere(world, tick, id, (CloseReason::ConnectFailed, !lacks));
    }

    /// The attempt came to nothing, and its stream is gone.
    pub(super) fn connect_elsewhere(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: RelayId,
        (reason, may_retry): (CloseReason, bool),
    ) {
        let Some(relay) = self.relays.get_mut(id) else { return };
        let (Phase::Connecting, Some(cluster), Some(backend)) = (relay.phase, relay.cluster, relay.backend) else {
            // A stream that a restored worker could not take over.
            return self.handle_broken(world, tick, (id, Side::Backend));
        };
        relay.set_socket(Side::Backend, SocketId::default());
        let opening = relay.opening.get_or_insert_default();
        opening.tried.push(backend);
        opening.failed = Some(reason);
        let attempts = relay.knobs.as_ref().map_or(1, |knobs| knobs.attempts);
        let may_retry = relay.detail.attempts < attempts && may_retry;
        world.clusters[cluster].backends[backend].values[BackendMetric::ConnectFailures] += 1;
        self.leave_backend(world, id);
        if may_retry && !world.clusters[cluster].removed {
            self.place(world, tick, id);
        } else {
            self.end(world, tick, id, reason);
        }
        world.settle_backend(cluster, backend);
    }

    /// Give the place on the backend back.
    pub(super) fn leave_backend(&mut self, world: &mut World, id: RelayId) -> Option<(ClusterKey, BackendKey)> {
        let relay = &mut self.relays[id];
        let (cluster, backend) = (relay.cluster?, relay.backend.take()?);
        relay.drains.leave_backend();
        world.clusters[cluster].backends[backend].give_back(relay.minds_its_backend());
        self.queues.stir();
        Some((cluster, backend))
    }
}
