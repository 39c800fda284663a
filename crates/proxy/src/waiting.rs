//! Those that wait for a backend with room: in order, by cluster, bounded by whoever lets them wait. Knows neither what
//! waits nor for how long it may.

use std::collections::VecDeque;

use slotmap::SecondaryMap;

use crate::cluster::ClusterKey;
use crate::limits::QUEUE_TRIES_PER_STEP;
use crate::world::{Tick, World};

/// How many that gave up may stand in an order beyond those that wait.
const SLACK: usize = 64;

/// The queues of a worker.
#[derive(Debug)]
pub(crate) struct Waiting<Id> {
    queues: SecondaryMap<ClusterKey, Queue<Id>>,
    /// Since they were looked at, there may have come room.
    stirred: bool,
}

#[derive(Debug)]
struct Queue<Id> {
    /// In the order of their coming. Some may be gone by now.
    ids: VecDeque<Id>,
    /// Those that are not.
    len: u32,
}

impl<Id> Default for Waiting<Id> {
    fn default() -> Self {
        Waiting { queues: SecondaryMap::new(), stirred: false }
    }
}

impl<Id: Copy + PartialEq> Waiting<Id> {
    /// There may be room.
    pub(crate) fn stir(&mut self) {
        self.stirred = true;
    }

    /// Whether there may be room that nobody was given yet.
    pub(crate) fn is_stirred(&self) -> bool {
        self.stirred
    }

    /// Whether anybody waits there.
    pub(crate) fn is_waited_for(&self, cluster: ClusterKey) -> bool {
        self.queues.contains_key(cluster)
    }

    /// How many wait there.
    pub(crate) fn len(&self, cluster: ClusterKey) -> u32 {
        self.queues.get(cluster).map_or(0, |queue| queue.len)
    }

    /// Everybody who stands in an order, those that gave up included: each queue from its begin to its end.
    pub(crate) fn order(&self) -> impl Iterator<Item = Id> + '_ {
        self.queues.values().flat_map(|queue| queue.ids.iter().copied())
    }

    /// Stand at the end of a queue.
    pub(crate) fn join(&mut self, cluster: ClusterKey, id: Id) {
        self.enter(cluster, |ids| ids.push_back(id));
    }

    /// Stand before all others: who had its turn, and has to wait once more.
    pub(crate) fn join_first(&mut self, cluster: ClusterKey, id: Id) {
        self.enter(cluster, |ids| ids.push_front(id));
    }

    fn enter(&mut self, cluster: ClusterKey, place: impl FnOnce(&mut VecDeque<Id>)) {
        if let Some(entry) = self.queues.entry(cluster) {
            let queue = entry.or_insert_with(|| Queue { ids: VecDeque::new(), len: 0 });
            place(&mut queue.ids);
            queue.len += 1;
        }
    }

    /// One that waited doesn't any more, for whatever reason. Those that gave up stand in the order until their turn
    /// comes, which may be never: `waits` says who is not of them.
    pub(crate) fn leave(&mut self, cluster: ClusterKey, id: Id, waits: impl Fn(Id) -> bool) {
        self.serve(cluster);
        let Some(queue) = self.queues.get_mut(cluster) else { return };
        if queue.ids.len() > 2 * queue.len as usize + SLACK {
            queue.ids.retain(|&waiting| waiting != id && waits(waiting));
        }
    }

    /// One that was taken out of the order is waited for no longer.
    fn serve(&mut self, cluster: ClusterKey) {
        let Some(queue) = self.queues.get_mut(cluster) else { return };
        queue.len -= 1;
        if queue.len == 0 {
            self.queues.remove(cluster);
        }
    }

    /// The first in the order, taken out of it; it may have given up.
    fn pop(&mut self, cluster: ClusterKey) -> Option<Id> {
        self.queues.get_mut(cluster)?.ids.pop_front()
    }

    /// These go on waiting, in this order and before all others.
    fn put_back(&mut self, cluster: ClusterKey, ids: Vec<Id>) {
        if let Some(queue) = self.queues.get_mut(cluster) {
            ids.into_iter().rev().for_each(|id| queue.ids.push_front(id));
        }
    }

    /// Whether a budget cut the serving short.
    pub(crate) fn has_more_to_serve(&self) -> bool {
        self.stirred && !self.queues.is_empty()
    }

    /// Clusters whose queues are to be looked at, since there may have come room.
    pub(crate) fn take_stirred(&mut self) -> Vec<ClusterKey> {
        match std::mem::take(&mut self.stirred) {
            true => self.queues.keys().collect(),
            false => Vec::new(),
        }
    }
}

/// What came of somebody's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It waits no longer.
    Done,
    /// It goes on waiting, for what those behind it need not have.
    PassedOver,
    /// It goes on waiting, and so does everybody behind it.
    Blocked,
}

/// Where connections, or requests, wait.
pub(crate) trait Queueing {
    type Id: Copy + PartialEq;

    fn queues(&mut self) -> &mut Waiting<Self::Id>;

    /// Whether it didn't give up meanwhile.
    fn waits(&self, id: Self::Id) -> bool;

    /// Send one that waits where there is room now, or tell it that there never will be.
    fn take_turn(&mut self, world: &mut World, tick: &mut Tick<'_>, id: Self::Id) -> Turn;

    /// Give everybody their turn where there may be room, the longest waiting first.
    fn serve_queues(&mut self, world: &mut World, tick: &mut Tick<'_>) {
        for cluster in self.queues().take_stirred() {
            self.serve_queue(world, tick, cluster);
        }
    }

    fn serve_queue(&mut self, world: &mut World, tick: &mut Tick<'_>, cluster: ClusterKey) {
        let (mut passed, mut served) = (Vec::new(), false);
        let ends = (0..QUEUE_TRIES_PER_STEP).find_map(|_| {
            let Some(id) = self.queues().pop(cluster) else { return Some(()) };
            let turn = if self.waits(id) { self.take_turn(world, tick, id) } else { Turn::Done };
            match turn {
                Turn::Done => served = true,
                Turn::PassedOver | Turn::Blocked => passed.push(id),
            }
            (turn == Turn::Blocked).then_some(())
        });
        self.queues().put_back(cluster, passed);
        // Where nobody could be served, a further look without a change would find the same.
        if ends.is_none() && served {
            self.queues().stir();
        }
    }
}
