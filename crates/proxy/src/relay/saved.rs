//! Relays written down and read back: both ends, what is kept between them, how far their ends have come, deadlines as
//! time left. What is being piped stays in the machine and moves with its streams.

use std::sync::Arc;

use super::Relays;
use super::connection::{Ending, Lane, Phase, Relay, RelayId, Side};
use crate::arrival;
use crate::change::{Change, Drains};
use crate::restore::Known;
use crate::save::{Table, raw};
use crate::seam::{Instant, SocketId};
use crate::snapshot::Target;
use crate::state::{LaneState, RelayState, RestoreError};
use crate::world::{Socket, World};

impl Relays {
    /// Every relay, written down; those that wait in the order of their waiting.
    pub(crate) fn save(&self, now: Instant, table: &mut Table, is_plain: impl Fn(SocketId) -> bool) -> Vec<RelayState> {
        let is_plain = |relay: &&Relay| [Side::Client, Side::Backend].iter().all(|side| is_plain(relay.socket(*side)));
        let waits = |relay: &&Relay| relay.phase == Phase::Queued;
        let waiting = self.queues.order().filter_map(|id| self.relays.get(id)).filter(waits);
        let others = self.relays.values().filter(|relay| !waits(relay));
        waiting.chain(others).filter(is_plain).map(|relay| save_relay(now, table, relay)).collect()
    }

    /// Put a relay back.
    pub(crate) fn restore(
        &mut self,
        world: &mut World,
        now: Instant,
        known: &mut Known,
        state: RelayState,
    ) -> Result<(), RestoreError> {
        let listener = known.listener(state.listener)?;
        let mut relay = Relay::new(now.before(state.age), listener, (state.peer, state.local));
        relay.phase = state.phase;
        relay.since = now.before(state.since);
        relay.moved = now.before(state.moved);
        relay.believed = state.believed.map(Box::new);
        relay.counted = state.counted;
        relay.detail = state.detail;
        relay.drains = Drains::restore(state.drains, now);
        relay.knobs = state.knobs.map(|at| known.connection_knobs(at)).transpose()?;
        if let Some(cluster) = state.cluster {
            let cluster = known.cluster(cluster)?;
            let (route, on_change) = state.route.unwrap_or_default();
            let name = world.clusters[cluster].spec.name.clone();
            relay.cluster = Some(cluster);
            relay.target = Some(Arc::new(Target { route, cluster: name, on_change }));
        }
        if let Some((cluster, backend)) = state.cluster.zip(state.backend) {
            relay.backend = Some(known.backend(cluster, backend)?.1);
        }
        relay.opening = state.opening.map(|(opening, tried)| {
            let key = |at: usize| known.backend(state.cluster.unwrap_or(usize::MAX), at).ok().map(|(_, key)| key);
            let tried = tried.into_iter().filter_map(key).collect();
            Box::new(super::connection::Opening { tried, ..opening })
        });
        if relay.opening.as_ref().is_some_and(|opening| !opening.is_sound()) {
            return Err(RestoreError::Damaged("a connection's first bytes are not where they should be"));
        }
        for (side, lane) in [Side::Client, Side::Backend].into_iter().zip(state.lanes) {
            let LaneState { bytes, rest, ending, mode } = lane;
            *relay.lane_mut(side) = Lane { bytes, rest, ending, mode, written: self.step, says_end: false };
        }
        self.enter(world, known, relay, [Some(state.client), state.server])
    }

    /// Give a relay that was read back its sockets, its places and its deadline.
    fn enter(
        &mut self,
        world: &mut World,
        known: &mut Known,
        relay: Relay,
        sockets: [Option<u64>; 2],
    ) -> Result<(), RestoreError> {
        let id = self.relays.insert(relay);
        let relay = &mut self.relays[id];
        for (side, was) in [Side::Client, Side::Backend].into_iter().zip(sockets) {
            let Some(was) = was else { continue };
            let role = if side == Side::Client { Socket::Client(id) } else { Socket::Backend(id) };
            relay.set_socket(side, known.adopt(world, was, role));
        }
        let is_sound = match relay.phase {
            Phase::Preread => relay.backend.is_none(),
            Phase::Queued => relay.cluster.is_some() && relay.knobs.is_some() && relay.backend.is_none(),
            Phase::Connecting | Phase::Established => relay.backend.is_some() && sockets[1].is_some(),
        };
        if !is_sound {
            return Err(RestoreError::Damaged("a connection lacks what its phase needs"));
        }
        self.restless += usize::from(relay.minds_its_route());
        if let (Some(cluster), Some(backend)) = (relay.cluster, relay.backend) {
            world.clusters[cluster].backends[backend].take(relay.minds_its_backend());
        }
        arrival::count_again(world, relay.listener, relay.counted, relay.client().ip());
        if relay.phase == Phase::Queued {
            self.wait(world, id);
        }
        self.arm(world, id);
        if [Side::Client, Side::Backend].iter().all(|side| self.relays[id].lane(*side).ending == Ending::Passed) {
            self.finishing.push((self.step, id));
        }
        Ok(())
    }

    /// Go on with what was under way when the worker was written down.
    pub(crate) fn resume(&mut self, world: &World, now: Instant) {
        self.queues.stir();
        let listeners: Vec<_> = world.listeners.keys().collect();
        listeners.into_iter().for_each(|listener| self.sweep_routes(listener));
        let undrained: Vec<RelayId> =
            self.relays.iter().filter(|(_, relay)| !relay.drains.has(Change::Drained)).map(|(id, _)| id).collect();
        for id in undrained {
            let until = world.listeners[self.relays[id].listener].drains_until(now);
            self.sweep_one(id, (Change::Drained, until));
        }
    }
}

fn save_relay(now: Instant, table: &mut Table, relay: &Relay) -> RelayState {
    let place = relay.cluster.zip(relay.backend);
    let socket = |side| match relay.socket(side) {
        socket if socket == SocketId::default() => None,
        socket => Some(raw(socket)),
    };
    let cluster = relay.cluster.map(|cluster| table.cluster(cluster));
    let lane = |side| {
        let lane: &Lane = relay.lane(side);
        LaneState { bytes: lane.bytes, rest: lane.rest.clone(), ending: lane.ending, mode: lane.mode }
    };
    RelayState {
        client: raw(relay.socket(Side::Client)),
        server: socket(Side::Backend),
        lanes: [lane(Side::Client), lane(Side::Backend)],
        phase: relay.phase,
        since: now - relay.since,
        age: now - relay.accepted,
        moved: now - relay.moved,
        listener: table.listener(relay.listener),
        peer: relay.peer,
        local: relay.local,
        believed: relay.believed.as_deref().copied(),
        counted: relay.counted,
        route: relay.target.as_ref().map(|target| (target.route.clone(), target.on_change)),
        cluster,
        backend: place.map(|(cluster, backend)| table.backend(cluster, backend).1),
        knobs: relay.knobs.as_ref().map(|knobs| table.connection_knobs(knobs)),
        opening: relay.opening.as_deref().map(|opening| {
            let tried = opening.tried.iter().filter_map(|backend| table.known_backend(relay.cluster?, *backend));
            (opening.clone(), tried.collect())
        }),
        drains: relay.drains.state(now),
        detail: relay.detail.clone(),
    }
}
