//! Many flows at once: those of a backend that went, of a front or a listener whose time to drain is over. Found in
//! one pass, visited within a budget for each step.

use kakei_config::OnBackend;

use super::Datagrams;
use super::flow::{Flow, FlowId};
use crate::cluster::{BackendKey, ClusterKey};
use crate::limits::SWEPT_PER_STEP;
use crate::record::CloseReason;
use crate::seam::Instant;
use crate::world::{Socket, Tick, World};

/// Why flows are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Their backend is gone from the configuration.
    BackendRemoved,
    /// Their backend was found down.
    BackendDown,
    /// Their front's or listener's time to drain is over.
    Drained,
}

/// Flows still to be visited.
#[derive(Debug)]
pub(super) struct Sweep {
    flows: Vec<FlowId>,
    cause: Cause,
}

impl Datagrams {
    /// Visit the flows of a backend that went.
    pub(crate) fn sweep_backend(&mut self, world: &World, cluster: ClusterKey, backend: BackendKey, cause: Cause) {
        let restless = world.clusters[cluster].backends.get(backend).is_some_and(|live| live.restless > 0);
        if restless {
            self.sweep(cause, |flow| flow.backend == backend && flow.cluster == cluster);
        }
    }

    /// Visit the flows whose front or listener has drained for as long as it may.
    pub(crate) fn sweep_drained(&mut self, world: &World, tick: &Tick<'_>) {
        self.sweep(Cause::Drained, |flow| is_over(world, tick, flow));
    }

    /// Visit some of the flows that are to be visited.
    pub(crate) fn run_sweeps(&mut self, world: &mut World, tick: &mut Tick<'_>) {
        for _ in 0..SWEPT_PER_STEP {
            let Some(sweep) = self.sweeps.last_mut() else { return };
            let cause = sweep.cause;
            match sweep.flows.pop() {
                Some(id) => self.visit(world, tick, id, cause),
                None => drop(self.sweeps.pop()),
            }
        }
    }

    fn sweep(&mut self, cause: Cause, affected: impl Fn(&Flow) -> bool) {
        let flows: Vec<FlowId> = self.flows.iter().filter(|(_, flow)| affected(flow)).map(|(id, _)| id).collect();
        if !flows.is_empty() {
            self.sweeps.push(Sweep { flows, cause });
        }
    }

    /// Obey the flow's policy, if what it was to be visited for still holds.
    fn visit(&mut self, world: &mut World, tick: &mut Tick<'_>, id: FlowId, cause: Cause) {
        let Some(flow) = self.flows.get(id) else { return };
        let backend = &world.clusters[flow.cluster].backends[flow.backend];
        let (policy, reason) = match cause {
            Cause::BackendRemoved if backend.removed => {
                (flow.life.knobs.on_backend_removed, CloseReason::BackendRemoved)
            }
            Cause::BackendDown if !backend.is_up(tick.now) => {
                (flow.life.knobs.on_backend_down, CloseReason::BackendDown)
            }
            Cause::Drained if is_over(world, tick, flow) => (OnBackend::Close, CloseReason::Drain),
            _ => return,
        };
        match policy {
            OnBackend::Keep => {}
            OnBackend::Move => self.move_or_end(world, tick, id, reason),
            OnBackend::Close => self.end(world, tick, id, reason),
        }
    }
}

/// Whether the flow's front or listener has drained for as long as it may.
fn is_over(world: &World, tick: &Tick<'_>, flow: &Flow) -> bool {
    ends_at(world, flow).is_some_and(|deadline| deadline <= tick.now)
}

/// When the flow's front or listener has drained for as long as it may; none: neither drains.
pub(super) fn ends_at(world: &World, flow: &Flow) -> Option<Instant> {
    let front = match world.sockets.get(flow.key.front) {
        Some(Socket::Front(front)) => front.draining,
        _ => None,
    };
    [front, world.listeners[flow.listener].removed].into_iter().flatten().min()
}
