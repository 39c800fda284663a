//! Many connections at once, because something under them was changed: their policy is theirs from the beginning. Found
//! in one go where something went, then visited within a budget for each step.

use kakei_config::OnChange;

use super::Http;
use super::exchange::{Exchange, Phase};
use super::session::{Session, SessionId, Stage};
use crate::change::{Change, Drain};
use crate::cluster::{BackendKey, ClusterKey};
use crate::limits::{LINGER, SWEPT_PER_STEP};
use crate::listener::{Front, ListenerKey};
use crate::record::CloseReason;
use crate::seam::Instant;
use crate::world::{Socket, Tick, World};

/// Sessions still to be visited.
#[derive(Debug)]
pub(super) struct Sweep {
    sessions: Vec<SessionId>,
    change: Change,
    /// With `Drained`: until when they may go on.
    until: Instant,
}

impl Http {
    /// Visit what is on a backend that went.
    pub(crate) fn sweep_backend(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        place: (ClusterKey, BackendKey),
        change: Change,
    ) {
        let Some(live) = world.clusters[place.0].backends.get_mut(place.1) else { return };
        if change == Change::BackendRemoved {
            for socket in std::mem::take(&mut live.idle) {
                if let Some(&Socket::Upstream(id)) = world.sockets.get(socket) {
                    self.close_upstream(world, tick, id);
                }
            }
        }
        let minds = |knobs: &kakei_config::TcpKnobs| match change {
            Change::BackendRemoved => knobs.on_backend_removed != OnChange::Keep,
            _ => knobs.on_backend_down != OnChange::Keep,
        };
        self.sweep(change, Instant::FAR, |_, exchange| {
            exchange.is_some_and(|exchange| {
                exchange.place() == Some(place) && exchange.tcp.as_ref().is_some_and(|knobs| minds(knobs))
            })
        });
    }

    /// A backend is there again, or up: whoever was to leave it by a deadline may stay.
    pub(crate) fn return_backend(&mut self, place: (ClusterKey, BackendKey), change: Change) {
        for session in self.sessions.values_mut().filter(|session| session.drains.has(change)) {
            let exchange = session.exchange.and_then(|id| self.exchanges.get(id));
            if exchange.is_some_and(|exchange| exchange.place() == Some(place)) {
                session.drains.take_back(change);
            }
        }
    }

    /// A front lets clients in to its listener, again: whoever came to that by it may stay.
    pub(crate) fn return_front(&mut self, front: &Front) {
        let by_it =
            |session: &&mut Session| session.arrived.listener == front.listener && front.covers(session.arrived.local);
        self.sessions.values_mut().filter(by_it).for_each(|session| session.drains.take_back(Change::Drained));
    }

    /// Visit the sessions of a listener whose routes may have changed.
    pub(crate) fn sweep_routes(&mut self, listener: ListenerKey) {
        self.sweep(Change::RouteChanged, Instant::FAR, |session, exchange| {
            let minds = |exchange: &Exchange| exchange.on_change().is_some_and(|policy| policy != OnChange::Keep);
            session.arrived.listener == listener && exchange.is_some_and(minds)
        });
    }

    /// A front is its listener's no more: what came to that by it may go on until then.
    pub(crate) fn sweep_front(&mut self, front: &Front, until: Instant) {
        self.sweep(Change::Drained, until, |session, _| {
            session.arrived.listener == front.listener && front.covers(session.arrived.local)
        });
    }

    /// Nobody is let in to a listener any more: what came to it may go on until then.
    pub(crate) fn sweep_listener(&mut self, listener: ListenerKey, until: Instant) {
        self.sweep(Change::Drained, until, |session, _| session.arrived.listener == listener);
    }

    fn sweep(&mut self, change: Change, until: Instant, affected: impl Fn(&Session, Option<&Exchange>) -> bool) {
        let exchange = |session: &Session| session.exchange.and_then(|id| self.exchanges.get(id));
        let affected = self.sessions.iter().filter(|(_, session)| affected(session, exchange(session)));
        let sessions: Vec<SessionId> = affected.map(|(id, _)| id).collect();
        if !sessions.is_empty() {
            self.sweeps.push(Sweep { sessions, change, until });
        }
    }

    /// Visit some of the sessions that are to be visited.
    pub(super) fn run_sweeps(&mut self, world: &mut World, tick: &mut Tick<'_>) {
        for _ in 0..SWEPT_PER_STEP {
            let Some(sweep) = self.sweeps.last_mut() else { return };
            let (change, until) = (sweep.change, sweep.until);
            match sweep.sessions.pop() {
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
        self.stay(tick);
        self.arm_sessions(world);
    }

    /// Obey the policy that the exchange began with, if what it was to be visited for still holds.
    fn visit(&mut self, world: &mut World, tick: &mut Tick<'_>, id: SessionId, (change, until): (Change, Instant)) {
        let Some(reason) = self.still_holds(world, tick, id, change) else {
            if let Some(session) = self.sessions.get_mut(id) {
                session.drains.take_back(change);
            }
            return;
        };
        let exchange = self.sessions[id].exchange.map(|exchange| (exchange, &self.exchanges[exchange]));
        let knobs = exchange.and_then(|(_, exchange)| exchange.tcp.as_ref());
        let policy = match change {
            Change::BackendRemoved => knobs.map(|knobs| knobs.on_backend_removed),
            Change::BackendDown => knobs.map(|knobs| knobs.on_backend_down),
            Change::RouteChanged => exchange.and_then(|(_, exchange)| exchange.on_change()),
            Change::Drained => Some(OnChange::Drain(until - tick.now)),
        };
        match (policy.unwrap_or_default(), exchange.map(|(id, _)| id)) {
            (OnChange::Keep, _) => {}
            // Nothing is under way: there is nothing to wait for but that the last answer is taken, and not for ever.
            (OnChange::Drain(_) | OnChange::Close, None) => {
                if self.sessions[id].stage != Stage::Closing {
                    self.close_session(tick, id);
                }
                let told = self.sessions[id].since;
                self.drain(id, Drain { until: until.max(told + LINGER), change });
            }
            (OnChange::Drain(time), Some(exchange)) => {
                let exchange = &mut self.exchanges[exchange];
                if change == Change::Drained && exchange.phase != Phase::Responding {
                    exchange.traits.keeps = false;
                }
                self.drain(id, Drain { until: tick.now + time, change });
            }
            (OnChange::Close, Some(exchange)) => self.refuse(world, tick, exchange, (503, reason)),
        }
    }

    fn drain(&mut self, id: SessionId, drain: Drain) {
        if self.sessions[id].drains.set(drain) {
            self.arm_session(id);
        }
    }

    /// Why a session would end by a change, if that hasn't been taken back.
    pub(super) fn still_holds(
        &self,
        world: &World,
        tick: &Tick<'_>,
        id: SessionId,
        change: Change,
    ) -> Option<CloseReason> {
        let session = self.sessions.get(id)?;
        let exchange = session.exchange.and_then(|id| self.exchanges.get(id));
        let backend = || {
            let (cluster, backend) = exchange?.place()?;
            world.clusters[cluster].backends.get(backend)
        };
        match change {
            Change::BackendRemoved => backend().is_some_and(|live| live.removed).then_some(CloseReason::BackendRemoved),
            Change::BackendDown => {
                backend().is_some_and(|live| !live.is_up(tick.now)).then_some(CloseReason::BackendDown)
            }
            Change::RouteChanged => {
                let target = exchange?.target()?;
                let leads = world.listeners[session.arrived.listener].spec.leads_to(&target);
                (!leads).then_some(CloseReason::RouteChanged)
            }
            Change::Drained => {
                let lets_in = world.fronts().any(|(_, front)| {
                    front.listener == session.arrived.listener
                        && front.draining.is_none()
                        && front.covers(session.arrived.local)
                });
                (!lets_in).then_some(CloseReason::Drain)
            }
        }
    }
}
