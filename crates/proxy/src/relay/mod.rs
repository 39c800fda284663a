//! TCP connections: a client's stream joined with a backend's. Read in this order: `connection` (what a relay is),
//! `accept`, `preread` (what comes before it is routed), `connect` (routing, attempts, the queue), `transfer` (bytes
//! and ends in both directions), `life` (deadlines), `end`, `sweep` (many relays at once). Knows nothing of datagrams.

mod accept;
mod adopt;
mod connect;
mod connection;
mod end;
mod life;
mod list;
mod preread;
mod queue;
mod saved;
mod secured;
mod sweep;
mod transfer;

use slotmap::SlotMap;

use self::connection::Relay;
pub(crate) use self::connection::{Ending, Mode, Opening, Phase, RelayId, Side};
pub(crate) use self::life::Due;
use self::sweep::Sweep;
use crate::cluster::{BackendKey, ClusterKey};
use crate::seam::SocketId;
use crate::waiting::Waiting;

/// The relays of a worker.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    relays: SlotMap<RelayId, Relay>,
    /// Those that wait for a backend with room.
    queues: Waiting<RelayId>,
    /// Relays whose last bytes were written in that step: they end once it is known that they were taken.
    finishing: Vec<(u32, RelayId)>,
    /// Relays still to be visited because what they stand on was changed.
    sweeps: Vec<Sweep>,
    /// How many relays came by a route whose change they don't simply outlive.
    restless: usize,
    /// Counts steps, to tell whether a write may still turn out to be blocked.
    step: u32,
}

impl Relays {
    /// A step begins.
    pub(crate) fn begin(&mut self) {
        self.step = self.step.wrapping_add(1);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.relays.len()
    }

    /// Whether something is left to be done at once.
    pub(crate) fn is_behind(&self) -> bool {
        !self.finishing.is_empty() || !self.sweeps.is_empty() || self.queues.has_more_to_serve()
    }

    /// The backend that a relay is on or is being connected to.
    pub(crate) fn backend_of(&self, id: RelayId) -> Option<(ClusterKey, BackendKey)> {
        let relay = self.relays.get(id)?;
        Some((relay.cluster?, relay.backend?))
    }

    /// Its stream to a backend, where one was asked for.
    pub(crate) fn backend_socket(&self, id: RelayId) -> Option<SocketId> {
        self.relays.get(id).map(|relay| relay.socket(Side::Backend))
    }
}
