//! Many relays at once: those whose backend, route, front or listener was changed. Found in one pass and only where
//! any of them minds, visited within a budget for each step.

use kakei_config::OnChange;

use super::connection::Relay;
use super::{RelayId, Relays};
use crate::change::{Change, Drain};
use crate::cluster::{BackendKey, ClusterKey};
use crate::limits::SWEPT_PER_STEP;
use crate::listener::{Front, ListenerKey};
use crate::record::CloseReason;
use crate::seam::Instant;
use crate::world::{Tick, World};

/// Relays still to be visited.
#[derive(Debug)]
pub(super) struct Sweep {
    relays: Vec<RelayId>,
    change: Change,
    /// With `Drained`: until when they may go on.
    until: Instant,
}

impl Relays {
    /// Visit the relays of a backend that went.
    pub(crate) fn sweep_backend(&mut self, world: &World, place: (ClusterKey, BackendKey), change: Change) {
        let live = world.clusters[place.0].backends.get(place.1);
        if live.is_some_and(|live| live.restless > 0) {
            let on_it = |relay: &Relay| (relay.cluster, relay.backend) == (Some(place.0), Some(place.1));
            self.sweep(change, Instant::FAR, on_it);
        }
    }

    /// A backend is there again, or up: whoever was to leave it by a deadline may stay.
    pub(crate) fn return_backend(&mut self, world: &World, place: (ClusterKey, BackendKey), change: Change) {
        let live = world.clusters[place.0].backends.get(place.1);
        if live.is_some_and(|live| live.restless > 0) {
            let on_it = |relay: &&mut Relay| (relay.cluster, relay.backend) == (Some(place.0), Some(place.1));
            self.relays.values_mut().filter(on_it).for_each(|relay| relay.drains.take_back(change));
        }
    }

    /// A front lets clients in to its listener, again: whoever came to that by it may stay.
    pub(crate) fn return_front(&mut self, front: &Front) {
        let by_it = |relay: &&mut Relay| relay.listener == front.listener && front.covers(relay.local);
        self.relays.values_mut().filter(by_it).for_each(|relay| relay.drains.take_back(Change::Drained));
    }

    /// Visit the relays of a listener whose routes may have changed.
    pub(crate) fn sweep_routes(&mut self, listener: ListenerKey) {
        if self.restless > 0 {
            self.sweep(Change::RouteChanged, Instant::FAR, |relay| {
                relay.listener == listener && relay.minds_its_route()
            });
        }
    }

    /// A front is its listener's no more: what came to that by it may go on until then.
    pub(crate) fn sweep_front(&mut self, front: &Front, until: Instant) {
        self.sweep(Change::Drained, until, |relay| relay.listener == front.listener && front.covers(relay.local));
    }

    /// Nobody is let in to a listener any more: what came to it may go on until then.
    pub(crate) fn sweep_listener(&mut self, listener: ListenerKey, until: Instant) {
        self.sweep(Change::Drained, until, |relay| relay.listener == listener);
    }

    /// Visit one relay.
    pub(super) fn sweep_one(&mut self, id: RelayId, (change, until): (Change, Instant)) {
        self.sweeps.push(Sweep { relays: vec![id], change, until });
    }

    /// Visit some of the relays that are to be visited.
    pub(crate) fn run_sweeps(&mut self, world: &mut World, tick: &mut Tick<'_>) {
        for _ in 0..SWEPT_PER_STEP {
            let Some(sweep) = self.sweeps.last_mut() else { return };
            let (change, until) = (sweep.change, sweep.until);
            match sweep.relays.pop() {
                Some(id) => self.visit(world, tick, id, (change, until)),
                None => drop(self.sweeps.pop()),
            }
        }
    }

    /// Visit all that are to be visited.
    pub(crate) fn finish_sweeps(&mut self, world: &mut World, tick: &mut Tick<'_>) {
        while !self.sweeps.is_empty() {
            self.run_sweeps(world, tick);
        }
    }

    fn sweep(&mut self, change: Change, until: Instant, affected: impl Fn(&Relay) -> bool) {
        let relays: Vec<RelayId> = self.relays.iter().filter(|(_, relay)| affected(relay)).map(|(id, _)| id).collect();
        if !relays.is_empty() {
            self.sweeps.push(Sweep { relays, change, until });
        }
    }

    /// Obey the policy that the relay began with, if what it was to be visited for still holds.
    fn visit(&mut self, world: &mut World, tick: &mut Tick<'_>, id: RelayId, (change, until): (Change, Instant)) {
        let Some(reason) = self.still_holds(world, tick, id, change) else {
            self.relays.get_mut(id).into_iter().for_each(|relay| relay.drains.take_back(change));
            return;
        };
        let relay = &self.relays[id];
        let policy = match change {
            Change::BackendRemoved => relay.knobs.as_ref().map(|knobs| knobs.on_backend_removed),
            Change::BackendDown => relay.knobs.as_ref().map(|knobs| knobs.on_backend_down),
            Change::RouteChanged => relay.target.as_ref().map(|target| target.on_change),
            Change::Drained => Some(OnChange::Drain(until - tick.now)),
        };
        match policy.unwrap_or_default() {
            OnChange::Keep => {}
            OnChange::Drain(time) => self.drain(world, id, Drain { until: tick.now + time, change }),
            OnChange::Close => self.end(world, tick, id, reason),
        }
    }

    /// The relay ends by then, or earlier where it had to already.
    fn drain(&mut self, world: &mut World, id: RelayId, drain: Drain) {
        if self.relays[id].drains.set(drain) {
            self.arm(world, id);
        }
    }

    /// Why the relay would end by a change, if that hasn't been taken back.
    pub(super) fn still_holds(
        &self,
        world: &World,
        tick: &Tick<'_>,
        id: RelayId,
        change: Change,
    ) -> Option<CloseReason> {
        let relay = self.relays.get(id)?;
        let backend = || Some(&world.clusters[relay.cluster?].backends[relay.backend?]);
        let listener = &world.listeners[relay.listener];
        match change {
            Change::BackendRemoved => backend().is_some_and(|live| live.removed).then_some(CloseReason::BackendRemoved),
            Change::BackendDown => {
                backend().is_some_and(|live| !live.is_up(tick.now)).then_some(CloseReason::BackendDown)
            }
            Change::RouteChanged => {
                let target = relay.target.as_ref()?;
                (!listener.spec.leads_to(target)).then_some(CloseReason::RouteChanged)
            }
            Change::Drained => {
                let lets_in = world.fronts().any(|(_, front)| {
                    front.listener == relay.listener && front.draining.is_none() && front.covers(relay.local)
                });
                (!lets_in).then_some(CloseReason::Drain)
            }
        }
    }
}
