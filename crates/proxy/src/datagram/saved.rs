//! Flows written down and read back. What a flow must not lose to a hand-over is in its `FlowState`; nothing else is.

use std::sync::Arc;

use kakei_config::OnChange;
use slotmap::{Key, KeyData};

use super::Datagrams;
use super::admit::is_restless;
use super::flow::{Flow, FlowId, Kept, Upstream};
use super::key::Arrival;
use super::life::Life;
use super::stash::Stashed;
use crate::restore::Known;
use crate::save::{Table, raw};
use crate::seam::Instant;
use crate::snapshot::Target;
use crate::state::{FlowState, KeptState, RestoreError, StashedState};
use crate::world::{Socket, World};

/// Set in the tag of the send that carries the one PROXY header of its flow: a bit of the index, which never grows
/// that large.
pub(super) const INTRODUCES: u64 = 1 << 31;

impl Datagrams {
    /// Names this worker's flows to the machine: an id that an earlier worker gave out must not hit one of them.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Go on after a worker with this epoch.
    pub(crate) fn succeed(&mut self, epoch: u64) {
        self.epoch = epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    }

    /// What comes back with a failed send of this flow.
    pub(super) fn tag(&self, id: FlowId) -> u64 {
        id.data().as_ffi() ^ self.epoch
    }

    /// The flow of a tag (one that isn't there for another worker's tag), and whether the send introduced it.
    pub(super) fn tagged(&self, tag: u64) -> (FlowId, bool) {
        let raw = tag ^ self.epoch;
        (FlowId::from(KeyData::from_ffi(raw & !INTRODUCES)), raw & INTRODUCES != 0)
    }

    /// Every flow, written down.
    pub(crate) fn save(&self, now: Instant, table: &mut Table) -> Vec<FlowState> {
        self.flows.iter().map(|(id, flow)| self.save_flow(now, table, id, flow)).collect()
    }

    fn save_flow(&self, now: Instant, table: &mut Table, id: FlowId, flow: &Flow) -> FlowState {
        let (cluster, backend) = table.backend(flow.cluster, flow.backend);
        let stashed = self.stash.iter().filter(|stashed| stashed.flow == id).map(|stashed| StashedState {
            segment: stashed.segment,
            count: stashed.count,
            bytes: stashed.bytes.to_vec(),
        });
        FlowState {
            front: raw(flow.key.front),
            peer: flow.key.peer(),
            local: flow.key.local,
            believed: flow.key.believed().copied(),
            listener: table.listener(flow.listener),
            cluster,
            backend,
            knobs: table.knobs(&flow.life.knobs),
            route: flow.target.route.clone(),
            phase: flow.life.phase,
            age: now - flow.life.admitted,
            idle_in: flow.life.idle - now,
            token: flow.life.token,
            traffic: flow.life.traffic,
            socket: flow.upstream.lease.is_none().then_some(raw(flow.upstream.socket)),
            lease: flow.upstream.lease,
            open: flow.upstream.open,
            keyed: flow.is_keyed(),
            introduced: flow.upstream.introduced,
            retried: flow.life.retried,
            kept: match flow.kept.as_deref() {
                None => KeptState::None,
                Some(Kept::Pending(bytes)) => KeptState::Pending(bytes.clone()),
                Some(Kept::Spare(bytes)) => KeptState::Spare(bytes.clone()),
            },
            stashed: stashed.collect(),
        }
    }

    /// Put a flow back.
    pub(crate) fn restore(
        &mut self,
        world: &mut World,
        now: Instant,
        known: &mut Known,
        state: FlowState,
    ) -> Result<(), RestoreError> {
        let front = known.socket(state.front)?;
        let (cluster, backend) = known.backend(state.cluster, state.backend)?;
        let listener = known.listener(state.listener)?;
        let target = Target {
            route: state.route,
            cluster: world.clusters[cluster].spec.name.clone(),
            on_change: OnChange::Keep,
        };
        let mut life = Life::new(now, known.knobs(state.knobs)?);
        life.phase = state.phase;
        life.admitted = now.before(state.age);
        life.idle = now + state.idle_in;
        life.token = state.token;
        life.traffic = state.traffic;
        life.retried = state.retried;
        let kept = match state.kept {
            KeptState::None => None,
            KeptState::Pending(bytes) => Some(Box::new(Kept::Pending(bytes))),
            KeptState::Spare(bytes) => Some(Box::new(Kept::Spare(bytes))),
        };
        let (open, introduced) = (state.open, state.introduced);
        let upstream = Upstream { socket: front, lease: state.lease, open, introduced };
        let arrival = Arrival { front, peer: state.peer, local: state.local, believed: state.believed };
        let id = self.flows.insert(Flow {
            key: arrival.keep(),
            life,
            listener,
            target: Arc::new(target),
            cluster,
            backend,
            upstream,
            kept,
            timer: None,
            armed: Instant::FAR,
        });
        self.restore_upstream(world, known, id, state.socket)?;
        self.count_restored(world, id)?;
        if state.keyed {
            self.enter(id);
        }
        for StashedState { segment, count, bytes } in state.stashed {
            let bytes = bytes.into_boxed_slice();
            self.stash.restore(Stashed { step: self.step, flow: id, segment, count, bytes });
        }
        self.arm(world, id);
        Ok(())
    }

    fn restore_upstream(
        &mut self,
        world: &mut World,
        known: &mut Known,
        id: FlowId,
        own: Option<u64>,
    ) -> Result<(), RestoreError> {
        let flow = &mut self.flows[id];
        let Some(lease) = flow.upstream.lease else {
            let was = own.ok_or(RestoreError::Damaged("a flow has neither a socket nor a place on a shared one"))?;
            flow.upstream.socket = known.adopt(world, was, Socket::Flow(id));
            return Ok(());
        };
        let cluster = &mut world.clusters[flow.cluster];
        let address = cluster.backends[flow.backend].address();
        let pool = cluster.pool_mut(address);
        let seat = lease.seat();
        let missing = RestoreError::Damaged("a flow has a place on a shared socket that isn't there");
        flow.upstream.socket = pool.seats().find(|(known, ..)| *known == seat).ok_or(missing)?.1;
        flow.upstream.lease = Some(pool.restore(address, lease, id));
        if !flow.upstream.open {
            pool.restore_waiting(seat, id);
        }
        Ok(())
    }

    /// Take the places that the flow held; the counters were written down themselves.
    fn count_restored(&mut self, world: &mut World, id: FlowId) -> Result<(), RestoreError> {
        let flow = &self.flows[id];
        world.listeners[flow.listener].admission.take(flow.key.client().ip());
        let backend = &mut world.clusters[flow.cluster].backends[flow.backend];
        backend.live += 1;
        backend.restless += u32::from(is_restless(flow));
        let front = world.front_mut(flow.key.front);
        front.ok_or(RestoreError::Damaged("a flow has a front that isn't one"))?.flows += 1;
        Ok(())
    }
}
