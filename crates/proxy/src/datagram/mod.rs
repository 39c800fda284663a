//! UDP flows (docs/UDP.md): from a client's datagram to a backend and back. Read in this order: `life` (the contract
//! of one flow), `flow` (what a flow is beside that), `receive` (client to backend), `reply` (backend to client),
//! `end` (teardown), `sweep` (many flows at once). Knows nothing of streams.

mod admit;
mod end;
mod ended;
mod flow;
mod forward;
mod key;
mod life;
mod list;
mod locate;
mod parted;
mod receive;
mod reply;
mod reroute;
mod run;
mod saved;
mod stash;
mod sweep;

use hashbrown::HashTable;
use slotmap::SlotMap;

use self::ended::Ended;
use self::flow::Flow;
pub(crate) use self::flow::FlowId;
pub(crate) use self::forward::Failure;
use self::key::Arrival;
pub(crate) use self::life::{Phase, Traffic};
use self::locate::Located;
use self::parted::Parted;
use self::stash::Stash;
pub(crate) use self::sweep::Cause;
use self::sweep::Sweep;
use crate::cluster::{BackendKey, ClusterKey};
use crate::hash::Keyed;
use crate::limits::TABLE_BYTES;
use crate::world::{Due, World};

/// The flows of a worker.
#[derive(Debug)]
pub(crate) struct Datagrams {
    flows: SlotMap<FlowId, Flow>,
    /// Flows that take client datagrams, by key; the key itself is in the flow.
    index: HashTable<FlowId>,
    hash: Keyed,
    /// Datagrams of flows that asked for their socket in this very step.
    stash: Stash,
    /// Flows still to be visited because their backend, front or listener went.
    sweeps: Vec<Sweep>,
    /// Tells the tags of this worker's sends from those of the one it goes on for.
    epoch: u64,
    /// Counts steps.
    step: u32,
    /// Flows that asked for their socket in this very step.
    asked: Vec<FlowId>,
    located: Located,
    ended: Ended,
    parted: Parted,
}

impl Datagrams {
    pub(crate) fn new(hash: Keyed) -> Self {
        Datagrams {
            flows: SlotMap::with_capacity_and_key(TABLE_BYTES / size_of::<Flow>()),
            index: HashTable::new(),
            hash,
            stash: Stash::default(),
            sweeps: Vec::new(),
            epoch: 0,
            step: 0,
            asked: Vec::new(),
            located: Located::default(),
            ended: Ended::default(),
            parted: Parted::default(),
        }
    }

    /// A step begins.
    pub(crate) fn begin(&mut self) {
        self.step = self.step.wrapping_add(1);
        self.asked.clear();
    }

    /// Live flows.
    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether work is left over from this step.
    pub(crate) fn is_behind(&self) -> bool {
        !self.sweeps.is_empty()
    }

    fn find(&self, key: &Arrival) -> Option<FlowId> {
        self.index.find(key.hash(&self.hash), |id| self.flows[*id].key.is(key)).copied()
    }

    /// From now on this flow takes its client's datagrams.
    fn enter(&mut self, id: FlowId) {
        let Datagrams { flows, index, hash, .. } = self;
        let hash_of = |id: &FlowId| flows[*id].key.arrival().hash(hash);
        index.insert_unique(hash_of(&id), id, hash_of);
    }

    /// From now on this flow takes no client datagram: the next one opens another.
    fn leave(&mut self, id: FlowId) {
        let hash = self.flows[id].key.arrival().hash(&self.hash);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
    }

    /// Have the flow's deadline polled. A deadline that only moved away is left where it is armed: when it fires the
    /// token tells that it is stale, and it is armed anew.
    fn arm(&mut self, world: &mut World, id: FlowId) {
        let flow = &mut self.flows[id];
        let (at, due) = (flow.life.deadline(), Due::Flow(id, flow.life.token));
        match flow.timer {
            None => flow.timer = Some(world.timers.arm(at, due)),
            Some(timer) if at < flow.armed => world.timers.rearm(timer, at, due),
            Some(_) => return,
        }
        flow.armed = at;
    }

    /// Where a flow goes, or went where it ended by what it sent.
    pub(crate) fn backend_of(&self, id: FlowId) -> Option<(ClusterKey, BackendKey)> {
        let of_ended = || self.ended.find(id).map(|flow| (flow.cluster, flow.backend));
        let live = self.flows.get(id).map(|flow| (flow.cluster, flow.backend));
        live.or_else(of_ended).or_else(|| self.parted.backend_of(id))
    }
}
