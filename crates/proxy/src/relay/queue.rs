//! Connections that wait for a backend with room: in order, bounded, by cluster. Their deadline is `life`'s.

use std::collections::VecDeque;

use slotmap::SecondaryMap;

use super::connection::Phase;
use super::{RelayId, Relays};
use crate::cluster::ClusterKey;
use crate::limits::QUEUE_TRIES_PER_STEP;
use crate::record::CloseReason;
use crate::stats::ListenerMetric;
use crate::world::{Tick, World};

/// How many that gave up may stand in an order beyond those that wait.
const SLACK: usize = 64;

/// The queues of a worker.
#[derive(Debug, Default)]
pub(super) struct Queues {
    waiting: SecondaryMap<ClusterKey, Queue>,
    /// Since they were looked at, there may have come room.
    stirred: bool,
}

#[derive(Debug, Default)]
struct Queue {
    /// In the order of their coming. Some may be gone by now.
    ids: VecDeque<RelayId>,
    /// Those that are not.
    len: u32,
}

impl Queues {
    /// There may be room.
    pub(super) fn stir(&mut self) {
        self.stirred = true;
    }

    fn leave(&mut self, cluster: ClusterKey) {
        let Some(queue) = self.waiting.get_mut(cluster) else { return };
        queue.len -= 1;
        if queue.len == 0 {
            self.waiting.remove(cluster);
        }
    }
}

impl Relays {
    /// Who takes work may have changed.
    pub(crate) fn stir(&mut self) {
        self.queues.stir();
    }

    /// Whether others wait for a backend of the relay's cluster.
    pub(super) fn is_waited_for(&self, id: RelayId) -> bool {
        self.relays[id].cluster.is_some_and(|cluster| self.queues.waiting.contains_key(cluster))
    }

    /// Wait for a backend with room, where there is a place to wait.
    pub(super) fn enqueue(&mut self, world: &mut World, tick: &mut Tick<'_>, id: RelayId) {
        let relay = &mut self.relays[id];
        let (Some(cluster), Some(knobs)) = (relay.cluster, &relay.knobs) else { return };
        let length = self.queues.waiting.get(cluster).map_or(0, |queue| queue.len);
        if length >= knobs.queue {
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
        if let Some(entry) = self.queues.waiting.entry(cluster) {
            let queue = entry.or_default();
            queue.ids.push_back(id);
            queue.len += 1;
        }
    }

    /// It waits no longer, for whatever reason.
    pub(super) fn dequeue(&mut self, world: &mut World, id: RelayId) {
        let relay = &self.relays[id];
        let (Phase::Queued, Some(cluster)) = (relay.phase, relay.cluster) else { return };
        world.listeners[relay.listener].values[ListenerMetric::ConnectionsQueued] -= 1;
        self.queues.leave(cluster);
        // Those that gave up stand in the order until their turn comes, which may be never.
        let Some(queue) = self.queues.waiting.get_mut(cluster) else { return };
        if queue.ids.len() > 2 * queue.len as usize + SLACK {
            let relays = &self.relays;
            let waits = |id: RelayId| relays.get(id).is_some_and(|relay| relay.phase == Phase::Queued);
            queue.ids.retain(|&waiting| waiting != id && waits(waiting));
        }
    }

    /// Whether a budget cut the serving short.
    pub(super) fn has_more_to_serve(&self) -> bool {
        self.queues.stirred && !self.queues.waiting.is_empty()
    }

    /// Connect those that wait and for which there is room now, the longest waiting first.
    pub(super) fn serve_queues(&mut self, world: &mut World, tick: &mut Tick<'_>) {
        if !std::mem::take(&mut self.queues.stirred) {
            return;
        }
        let clusters: Vec<ClusterKey> = self.queues.waiting.keys().collect();
        for cluster in clusters {
            self.serve_queue(world, tick, cluster);
        }
    }

    fn serve_queue(&mut self, world: &mut World, tick: &mut Tick<'_>, cluster: ClusterKey) {
        for _ in 0..QUEUE_TRIES_PER_STEP {
            let Some(id) = self.next_waiting(cluster) else { return };
            if !self.serve(world, tick, id) {
                if let Some(queue) = self.queues.waiting.get_mut(cluster) {
                    queue.ids.push_front(id);
                }
                return;
            }
        }
        self.queues.stir();
    }

    fn serve(&mut self, world: &mut World, tick: &mut Tick<'_>, id: RelayId) -> bool {
        let (phase, since) = (self.relays[id].phase, self.relays[id].since);
        debug_assert_eq!(phase, Phase::Queued, "only what waits is in a queue");
        let (listener, cluster) = (self.relays[id].listener, self.relays[id].cluster);
        let served = self.place_waiting(world, tick, id);
        debug_assert!(served || self.relays[id].since == since, "what goes on waiting waits since then");
        if let (true, Some(cluster)) = (served, cluster) {
            world.listeners[listener].values[ListenerMetric::ConnectionsQueued] -= 1;
            self.queues.leave(cluster);
        }
        served
    }

    /// The one that waits longest, taken out of the order.
    fn next_waiting(&mut self, cluster: ClusterKey) -> Option<RelayId> {
        let queue = self.queues.waiting.get_mut(cluster)?;
        let relays = &self.relays;
        let waits = |id: RelayId| relays.get(id).is_some_and(|relay| relay.phase == Phase::Queued);
        while let Some(id) = queue.ids.pop_front() {
            if waits(id) {
                return Some(id);
            }
        }
        None
    }
}
