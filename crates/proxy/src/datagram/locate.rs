//! Finding the flows of a whole batch before any of it is handled: the reads of one datagram's flow don't wait for
//! those of the one before, so a table larger than the caches costs a fraction of its misses. Decides nothing: what
//! is found here is checked again when it is used.

use super::Datagrams;
use super::flow::{Flow, FlowId};
use super::key::Arrival;
use crate::seam::Event;
use crate::world::{Socket, World};

impl Datagrams {
    /// For each event, the flow that it is about, or the null id.
    pub(crate) fn locate(&mut self, world: &World, events: &[Event]) {
        let mut located = std::mem::take(&mut self.located);
        located.clear();
        located.extend(events.iter().map(|event| self.locate_one(world, event)));
        let touched = located.iter().filter_map(|id| self.flows.get(*id)).map(touch);
        self.touched = touched.fold(0, u64::wrapping_add);
        self.located = located;
    }

    /// What `locate` found for the event of that number.
    pub(crate) fn located(&self, event: usize) -> FlowId {
        self.located.get(event).copied().unwrap_or_default()
    }

    fn locate_one(&self, world: &World, event: &Event) -> FlowId {
        let Event::Datagram(datagram) = event else { return FlowId::default() };
        match world.sockets.get(datagram.socket) {
            Some(&Socket::Flow(id)) => id,
            Some(Socket::Front(_)) => {
                let key =
                    Arrival { front: datagram.socket, peer: datagram.peer, local: datagram.local, believed: None };
                self.find(&key).unwrap_or_default()
            }
            Some(&Socket::Shared { cluster, v6, seat }) => {
                world.clusters[cluster].pools[usize::from(v6)].flow(seat, datagram.peer).unwrap_or_default()
            }
            _ => FlowId::default(),
        }
    }

    /// The flow that takes this key's datagrams: the located one if it still does.
    pub(super) fn find_from(&self, located: FlowId, key: &Arrival) -> Option<FlowId> {
        match self.flows.get(located) {
            Some(flow) if flow.keyed && flow.key.is(key) => Some(located),
            _ => self.find(key),
        }
    }
}

/// Read a word of each cache line that handling a datagram needs.
fn touch(flow: &Flow) -> u64 {
    let life = &flow.life;
    let counters = life.traffic.responses ^ life.idle.as_nanos() ^ u64::from(life.token);
    counters ^ u64::from(flow.upstream.asked) ^ u64::from(flow.keyed) ^ u64::from(flow.key.peer.port())
}
