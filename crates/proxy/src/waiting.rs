//! Those that wait for a backend with room: in order, by cluster, bounded by whoever lets them wait. Knows neither what
//! waits nor for how long it may.

use std::collections::VecDeque;

use slotmap::SecondaryMap;

use crate::cluster::ClusterKey;

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
        if let Some(entry) = self.queues.entry(cluster) {
            let queue = entry.or_insert_with(|| Queue { ids: VecDeque::new(), len: 0 });
            queue.ids.push_back(id);
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

    /// The one that waits longest, taken out of the order.
    pub(crate) fn next(&mut self, cluster: ClusterKey, waits: impl Fn(Id) -> bool) -> Option<Id> {
        let queue = self.queues.get_mut(cluster)?;
        while let Some(id) = queue.ids.pop_front() {
            if waits(id) {
                return Some(id);
            }
        }
        None
    }

    /// The one that `next` gave goes on waiting, as the first.
    pub(crate) fn put_back(&mut self, cluster: ClusterKey, id: Id) {
        if let Some(queue) = self.queues.get_mut(cluster) {
            queue.ids.push_front(id);
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
