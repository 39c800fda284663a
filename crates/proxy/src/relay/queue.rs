//! Connections that wait for a backend with room: in order, bounded, by cluster. Their deadline is `life`'s.

use super::connection::Phase;
use super::{RelayId, Relays};
use crate::cluster::ClusterKey;
use crate::record::CloseReason;
use crate::stats::ListenerMetric;
use crate::waiting::{Queueing, Turn, Waiting};
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
}

impl Queueing for Relays {
    type Id = RelayId;

    fn queues(&mut self) -> &mut Waiting<RelayId> {
        &mut self.queues
    }

    fn waits(&self, id: RelayId) -> bool {
        self.relays.get(id).is_some_and(|relay| relay.phase == Phase::Queued)
    }

    fn take_turn(&mut self, world: &mut World, tick: &mut Tick<'_>, id: RelayId) -> Turn {
        self.place_waiting(world, tick, id)
    }
}
