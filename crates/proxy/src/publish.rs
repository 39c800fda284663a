//! Going over to a generation, draining, and the verdicts that come from outside: what changes and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::change::Change;
use crate::cluster::{ClusterKey, LiveCluster, Reshaped};
use crate::datagram::Datagrams;
use crate::listener::{Front, ListenerKey, LiveListener};
use crate::seam::{BackendHealth, BindKey, Instant, Op, SocketId, Transport};
use crate::snapshot::{Listener, Snapshot};
use crate::stats::WorkerMetric;
use crate::worker::{Drain, Worker};
use crate::world::{Due, Socket, Tick};

impl Worker {
    /// Go over to a generation. Clusters first: a route never points at one that isn't there yet.
    pub(crate) fn publish(&mut self, tick: &mut Tick<'_>, snapshot: &Snapshot) {
        self.world.balance_seed = snapshot.shared.balance_seed;
        self.world.records = snapshot.records;
        self.world.has_many_routes = snapshot.has_many_routes();
        self.world.is_alone = snapshot.shared.workers <= 1;
        self.world.seen.resize(snapshot.traffic);
        self.world.values[WorkerMetric::Generation] = snapshot.generation.0;
        self.publish_clusters(tick, snapshot);
        self.publish_listeners(tick, snapshot);
    }

    fn publish_clusters(&mut self, tick: &mut Tick<'_>, snapshot: &Snapshot) {
        let running = std::mem::replace(&mut self.world.running, snapshot.clusters.clone());
        let differing: Vec<_> = running.differences(&snapshot.clusters).collect();
        for (name, ..) in differing.iter().filter(|(_, _, after)| after.is_none()) {
            let Some(&key) = self.world.cluster_names.get(*name) else { continue };
            let reshaped = self.world.clusters[key].remove(tick.now);
            self.settle_cluster_change(tick, key, reshaped);
        }
        for spec in differing.into_iter().filter_map(|(_, _, after)| after) {
            let (key, reshaped) = match self.world.cluster_names.get(&spec.name) {
                Some(&key) => (key, self.world.clusters[key].reshape(tick.now, Arc::clone(spec))),
                None => {
                    let key = self.world.clusters.insert(LiveCluster::new(Arc::clone(spec)));
                    self.world.cluster_names.insert(spec.name.clone(), key);
                    (key, Reshaped { changed: true, ..Reshaped::default() })
                }
            };
            if let Some(doubted) = snapshot.doubted.get(&spec.name) {
                self.world.clusters[key].doubt(tick.now, doubted);
            }
            self.settle_cluster_change(tick, key, reshaped);
        }
        self.secure.forget_backends(&self.world);
    }

    /// Everything that follows from a change of a cluster.
    fn settle_cluster_change(&mut self, tick: &mut Tick<'_>, key: ClusterKey, reshaped: Reshaped) {
        if !reshaped.changed {
            return;
        }
        for backend in reshaped.returned {
            self.return_backend((key, backend), Change::BackendRemoved);
        }
        for backend in reshaped.removed {
            self.leave_backend(tick, (key, backend), true);
        }
        if reshaped.begins_otherwise {
            self.http.retire_upstreams(&mut self.world, tick, key);
        }
        if reshaped.waits_otherwise {
            self.http.hold_idle(&mut self.world, tick, key);
        }
        self.stir();
        self.configure_probes(tick, key);
        self.world.arm_review(tick.now, key);
        if let Some(cluster) = self.world.clusters.get_mut(key) {
            cluster.forget_backends();
            if cluster.removed && cluster.pools.iter().all(|pool| pool.is_idle()) {
                Datagrams::close_idle_pools(&mut self.world, tick, key);
            }
        }
        self.world.settle_cluster(key);
    }

    fn publish_listeners(&mut self, tick: &mut Tick<'_>, snapshot: &Snapshot) {
        let is_gone = |live: &LiveListener| live.removed.is_none() && !live.is_in(snapshot);
        let listeners = self.world.listeners.iter();
        let removed: Vec<ListenerKey> = listeners.filter(|(_, live)| is_gone(live)).map(|(key, _)| key).collect();
        let wanted = self.turn_listeners(snapshot);
        for key in removed.iter().copied() {
            let live = &mut self.world.listeners[key];
            let until = tick.now + live.spec.drain_timeout;
            live.removed = Some(until);
            self.world.timers.arm(until, Due::Listener(key));
            self.sweep_listener(key, until);
        }
        if self.drain != Drain::No {
            return;
        }
        let left = self.turn_fronts(tick, wanted);
        removed.into_iter().chain(left).for_each(|key| self.world.settle_listener(key));
    }

    /// Listeners are what the generation says. Gives those that its addresses belong to.
    fn turn_listeners(&mut self, snapshot: &Snapshot) -> BTreeMap<BindKey, ListenerKey> {
        let world = &mut self.world;
        let identity = |spec: &Listener| (spec.name.clone(), spec.protocol);
        let known: BTreeMap<_, _> = world.listeners.iter().map(|(key, live)| (identity(&live.spec), key)).collect();
        let mut wanted: BTreeMap<BindKey, ListenerKey> = BTreeMap::new();
        for (_, spec) in snapshot.listeners.iter_shared() {
            let key = match known.get(&identity(spec)) {
                Some(&key) => {
                    let live = &mut world.listeners[key];
                    if !Arc::ptr_eq(&live.spec, spec) {
                        self.relays.sweep_routes(key);
                        self.http.sweep_routes(key);
                    }
                    live.spec = Arc::clone(spec);
                    live.times.retain(spec);
                    live.removed = None;
                    key
                }
                None => world.listeners.insert(LiveListener::new(Arc::clone(spec), world.hash)),
            };
            wanted.extend(spec.binds.iter().map(|bind| (*bind, key)));
        }
        wanted
    }

    /// Fronts that stay go to the listener that has their address now, others drain, new ones are listened on. Gives
    /// those who lost one to another listener: it may have been the last thing that kept them.
    fn turn_fronts(
        &mut self,
        tick: &mut Tick<'_>,
        mut wanted: BTreeMap<BindKey, ListenerKey>,
    ) -> BTreeSet<ListenerKey> {
        let mut lost = BTreeSet::new();
        let world = &mut self.world;
        let fronts: Vec<(SocketId, Front)> = world.fronts().map(|(socket, front)| (socket, *front)).collect();
        for (socket, front) in fronts {
            let next = wanted.remove(&front.bind);
            let left = &world.listeners[front.listener];
            let until = tick.now + left.spec.drain_timeout;
            // What came to one that is gone by it drains already.
            if next != Some(front.listener) && front.bind.transport == Transport::Tcp && left.removed.is_none() {
                self.relays.sweep_front(&front, until);
                self.http.sweep_front(&front, until);
            }
            match (next, world.front_mut(socket)) {
                (Some(listener), Some(front)) => {
                    let returns = front.listener != listener || front.draining.is_some();
                    if front.listener != listener {
                        lost.insert(front.listener);
                    }
                    (front.listener, front.draining) = (listener, None);
                    if returns {
                        let front = *front;
                        self.relays.return_front(&front);
                        self.http.return_front(&front);
                    }
                }
                _ => world.drain_front(socket, until),
            }
        }
        for (bind, listener) in wanted {
            let front = Front { bind, port: bind.address.port(), listener, draining: None, flows: 0 };
            if world.listeners[listener].admission.live > 0 {
                self.relays.return_front(&front);
                self.http.return_front(&front);
            }
            let socket = world.insert(Socket::Front(Box::new(front)));
            tick.ask(Op::Listen { socket, bind });
        }
        lost
    }

    /// Admit nothing more; let what is alive end by itself, or at the deadline.
    pub(crate) fn drain(&mut self, tick: &mut Tick<'_>, within: Option<Duration>) {
        if self.drain == Drain::No {
            self.drain = Drain::Underway;
        }
        let listeners = self.world.listeners.iter();
        let until = |live: &LiveListener| tick.now + within.unwrap_or(live.spec.drain_timeout);
        let ends: BTreeMap<ListenerKey, Instant> = listeners.map(|(key, live)| (key, until(live))).collect();
        let fronts: Vec<(SocketId, ListenerKey)> =
            self.world.fronts().map(|(socket, front)| (socket, front.listener)).collect();
        for (socket, listener) in fronts {
            self.world.drain_front(socket, ends[&listener]);
        }
        // All of them, whatever front they came by and whether it is still there.
        ends.into_iter().for_each(|(listener, until)| self.sweep_listener(listener, until));
        self.stop_probes(tick);
    }

    /// Nobody is let in to a listener any more: what came to it may go on until then.
    fn sweep_listener(&mut self, listener: ListenerKey, until: Instant) {
        if self.world.listeners.get(listener).is_some_and(|live| live.admission.live > 0) {
            self.relays.sweep_listener(listener, until);
            self.http.sweep_listener(listener, until);
        }
    }

    /// Take over what the probing worker found.
    pub(crate) fn take_verdict(&mut self, tick: &mut Tick<'_>, verdict: &BackendHealth) {
        let Some(&key) = self.world.cluster_names.get(&verdict.cluster) else { return };
        if let Some(backend) = self.world.clusters[key].handle_health(tick.now, verdict) {
            self.world.arm_review(tick.now, key);
            self.stir();
            match verdict.up {
                false => self.leave_backend(tick, (key, backend), false),
                // It may be ejected yet.
                true if self.world.clusters[key].backends[backend].is_up(tick.now) => {
                    self.return_backend((key, backend), Change::BackendDown);
                }
                true => {}
            }
        }
    }
}
