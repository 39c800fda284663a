//! Connections that wait for a backend with room: in order, bounded, by cluster. Their deadline is `life`'s.

use super::connection::Phase;
use super::{RelayId, Relays};
use crate::cluster::ClusterKey;
use crate::limits::QUEUE_TRIES_PER_STEP;
use crate::record::CloseReason;
use crate::stats::ListenerMetric;
use crate::world::{Tick, World};

impl Relays {
    /// Who takes work may have changed.
    pub(crate) fn stir(&mut self) {
        self.queues.stir();
    }

    /// Whether there may be room on a backend that nobody was given yet.
    pub(crate) fn is_stirred(&self) -> bool {
        self.queues.is_stirred()
    }

    /// Whether anybody waits for a backend of this cluster.
    pub(crate) fn is_waited_for(&self, cluster: ClusterKey) -> bool {
        self.queues.is_waited_for(cluster)
    }

    /// Wait for a backend with room, where there is a place to wait.
    pub(super) fn enqueue(&mut self, world: &mut World, tick: &mut Tick<'_>, id: RelayId) {
        let relay = &mut self.relays[id];
        let (Some(cluster), Some(knobs)) = (relay.cluster, &relay.knobs) else { return };
        if self.queues.len(cluster) >= knobs.queue {
            return self.end(world, tick, id, CloseReason::QueueFull);
        }
        (relay.phase, relay.since) = (Phase::Queued, tick.now);
        self.wait(world, id);
        self.arm(world, id);
    }

    /// Stand at the end of the queue.
    pub(super) fn wait(&mut self, world: &mut World, id: RelayId) {
        let relay = &self.relays[id];
        let Some(cluster) = relay.cluster else { return };
        world.listeners[relay.listener].values[ListenerMetric::ConnectionsQueued] += 1;
        self.queues.join(cluster, id);
    }

    /// It waits no longer, for whatever reason.
    pub(super) fn dequeue(&mut self, world: &mut World, id: RelayId) {
        let relay = &self.relays[id];
        let (Phase::Queued, Some(cluster)) = (relay.phase, relay.cluster) else { return };
        world.listeners[relay.listener].values[ListenerMetric::ConnectionsQueued] -= 1;
        let relays = &self.relays;
        self.queues.leave(cluster, id, |id| relays.get(id).is_some_and(|relay| relay.phase == Phase::Queued));
    }

    /// Connect those that wait and for which there is room now, the longest waiting first; tell those for which there
    /// never will be.
    pub(crate) fn serve_queues(&mut self, world: &mut World, tick: &mut Tick<'_>) {
        for cluster in self.queues.take_stirred() {
            self.serve_queue(world, tick, cluster);
        }
    }

    fn serve_queue(&mut self, world: &mut World, tick: &mut Tick<'_>, cluster: ClusterKey) {
        for _ in 0..QUEUE_TRIES_PER_STEP {
            let relays = &self.relays;
            let waits = |id: RelayId| relays.get(id).is_some_and(|relay| relay.phase == Phase::Queued);
            let Some(id) = self.queues.next(cluster, waits) else { return };
            if !self.place_waiting(world, tick, id) {
                return self.queues.put_back(cluster, id);
            }
        }
        self.queues.stir();
    }
}
