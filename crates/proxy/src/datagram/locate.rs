//! Finding the flows of a whole batch before any of it is handled. Each pass does one read that may miss the caches for
//! every datagram, and none of them waits for another's, so a table larger than the caches costs a fraction of its
//! misses. Decides nothing: what is found here is checked when it is used.

use slotmap::Key;

use super::Datagrams;
use super::flow::{Flow, FlowId};
use super::key::Arrival;
use crate::seam::Event;
use crate::world::{Socket, World};

/// What was found for the events of a step.
#[derive(Debug, Default)]
pub(super) struct Located {
    /// By event: the flow that it may be about, or the null id.
    flows: Vec<FlowId>,
    /// Datagrams of clients: the number of the event, and the hash of its key.
    hashes: Vec<(u32, u64)>,
    /// Keeps the reads from being thought useless.
    touched: u64,
    /// Whether the step was given no datagram, but other events.
    is_afterwards: bool,
}

impl Datagrams {
    /// Find for each event the flow that it may be about.
    pub(crate) fn locate(&mut self, world: &World, events: &[Event]) {
        let Datagrams { flows, index, hash, located, .. } = self;
        located.flows.clear();
        located.hashes.clear();
        located.is_afterwards = !events.is_empty();
        for (number, event) in (0..).zip(events) {
            let mut flow = FlowId::default();
            if let Event::Datagram(datagram) = event {
                located.is_afterwards = false;
                match world.sockets.get(datagram.socket) {
                    Some(&Socket::Flow(id)) => flow = id,
                    Some(Socket::Front(_)) => located.hashes.push((number, Arrival::seen(datagram).hash(hash))),
                    Some(&Socket::Shared { cluster, v6, seat }) => {
                        let pool = &world.clusters[cluster].pools[usize::from(v6)];
                        flow = pool.flow(seat, datagram.peer).unwrap_or_default();
                    }
                    _ => {}
                }
            }
            located.flows.push(flow);
        }
        for &(number, hash) in &located.hashes {
            // The first of those that have the same few bits of their hashes in the table.
            located.flows[number as usize] = index.find(hash, |_| true).copied().unwrap_or_default();
        }
        let touched = located.flows.iter().filter_map(|id| flows.get(*id)).map(touch);
        located.touched = touched.fold(0, u64::wrapping_add);
    }

    /// The step is over. A machine that was given failures to tell tells all of them before it receives anything: with
    /// a step that was given a datagram, or nothing at all, what was sent before it is settled.
    pub(crate) fn settle_ended(&mut self) {
        if !self.located.is_afterwards {
            self.ended.forget_before(self.step);
        }
    }

    /// What `locate` found for the event of that number.
    pub(crate) fn located(&self, event: usize) -> FlowId {
        self.located.flows.get(event).copied().unwrap_or_default()
    }

    /// The flow that takes this key's datagrams: the located one if it does.
    pub(super) fn find_from(&self, located: FlowId, key: &Arrival) -> Option<FlowId> {
        match self.flows.get(located) {
            Some(flow) if flow.is_keyed() && flow.key.is(key) => Some(located),
            _ => self.find(key),
        }
    }
}

/// Read a word of each cache line that handling a datagram needs: none of these is further than a line from the next.
fn touch(flow: &Flow) -> u64 {
    let Flow { key, life, upstream, timer, armed, .. } = flow;
    let words = life.traffic.requests ^ u64::from(life.token) ^ armed.as_nanos() ^ key.front.data().as_ffi();
    words ^ u64::from(timer.is_some()) ^ u64::from(upstream.open)
}
