//! A flow goes on with another backend: because its own went, or could not be reached. It stays the same flow.

use super::Datagrams;
use super::flow::{FlowId, Upstream};
use super::life::Phase;
use crate::balance;
use crate::record::CloseReason;
use crate::world::{Tick, World};

impl Datagrams {
    /// The network says that the flow's backend can't be reached: a flow that had no reply so far moves once, and
    /// sends its last datagram again, where its cluster says so.
    pub(crate) fn handle_unreachable(&mut self, world: &mut World, tick: &mut Tick<'_>, id: FlowId) {
        if self.flows.get(id).is_some_and(|flow| flow.upstream.open) {
            self.retry(world, tick, id);
        }
    }

    /// Move a flow whose backend can't be reached, once; false where it may not, or there is no other backend.
    pub(super) fn retry(&mut self, world: &mut World, tick: &mut Tick<'_>, id: FlowId) -> bool {
        let Some(flow) = self.flows.get_mut(id).filter(|flow| flow.life.may_retry()) else { return false };
        flow.life.retried = true;
        self.reroute(world, tick, id)
    }

    /// Move the flow to another backend of its cluster, or end it where there is none. One that lingers owes nothing
    /// to another backend, so it stays. What was sent already isn't sent again: nothing says that it did not arrive.
    pub(super) fn move_or_end(&mut self, world: &mut World, tick: &mut Tick<'_>, id: FlowId, reason: CloseReason) {
        let Some(flow) = self.flows.get_mut(id) else { return };
        let lingers = flow.life.phase == Phase::Lingering;
        if !lingers {
            flow.forget_spare();
        }
        if !lingers && !self.reroute(world, tick, id) {
            self.end(world, tick, id, reason);
        }
    }

    /// Move the flow; false where there is no other backend.
    fn reroute(&mut self, world: &mut World, tick: &mut Tick<'_>, id: FlowId) -> bool {
        let Some(flow) = self.flows.get(id) else { return false };
        let (cluster_key, from) = (flow.cluster, flow.backend);
        let affinity = balance::source_affinity(world.balance_seed, flow.life.knobs.affinity, flow.key.client());
        let Some(to) = world.clusters[cluster_key].pick_other(from, affinity, &mut world.rng) else { return false };
        Self::disconnect(world, tick, flow, None);
        Self::settle_off(world, flow);
        let flow = &mut self.flows[id];
        // It was given up: should there be no room for another, nothing is given up twice.
        flow.upstream = Upstream::none();
        flow.backend = to;
        self.settle_on(world, id);
        world.settle_backend(cluster_key, from);
        if !self.connect(world, tick, id) {
            self.end(world, tick, id, CloseReason::Aborted);
        } else if self.flows[id].upstream.open {
            let socket = self.flows[id].upstream.socket;
            self.handle_opened(world, tick, id, socket);
        }
        true
    }

    /// What stayed in the stash for a step: its flows wait for longer, so each keeps only its newest datagram.
    pub(crate) fn settle_stash(&mut self, world: &mut World) {
        while let Some(id) = self.stash.overdue(self.step) {
            let runs = self.stash.take_all(id);
            let Some(newest) = runs.last() else { return };
            let total: u32 = runs.iter().map(|run| run.count).sum();
            let start = newest.bytes.len() - newest.last_len();
            let bytes = newest.bytes[start..].into();
            self.supersede(world, id, total - 1, bytes);
        }
    }
}
