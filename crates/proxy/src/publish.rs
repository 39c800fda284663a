//! Going over to a generation, draining, and the verdicts that come from outside: what changes and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::{ClusterKey, LiveCluster, Reshaped};
use crate::datagram::Datagrams;
use crate::http::Http;
use crate::listener::{Front, ListenerKey, LiveListener};
use crate::relay::Relays;
use crate::seam::{BackendHealth, BindKey, Op, SocketId};
use crate::snapshot::Snapshot;
use crate::stats::WorkerMetric;
use crate::worker::{Drain, Worker};
use crate::world::{Due, Socket, Tick, World};

impl Worker {
    /// Go over to a generation. Clusters first: a route never points at one that isn't there yet.
    pub(crate) fn publish(&mut self, tick: &mut Tick<'_>, snapshot: &Snapshot) {
        self.world.balance_seed = snapshot.shared.balance_seed;
        self.world.records = snapshot.records;
        self.world.has_many_routes = snapshot.has_many_routes();
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
        for backend in reshaped.removed {
            self.leave_backend(tick, (key, backend), true);
        }
        if reshaped.resecured {
            self.http.retire_upstreams(&mut self.world, tick, key);
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
        let world = &mut self.world;
        let gone = |live: &LiveListener| live.removed.is_none() && snapshot.listener(&live.spec.name).is_none();
        let removed: Vec<ListenerKey> =
            world.listeners.iter().filter(|(_, live)| gone(live)).map(|(key, _)| key).collect();
        let names: BTreeMap<_, _> = world.listeners.iter().map(|(key, live)| (live.spec.name.clone(), key)).collect();
        let mut wanted: BTreeMap<BindKey, ListenerKey> = BTreeMap::new();
        for (_, spec) in snapshot.listeners.iter_shared() {
            let key = match names.get(&spec.name) {
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
        for key in removed.iter().copied() {
            let live = &mut world.listeners[key];
            let until = tick.now + live.spec.drain_timeout;
            live.removed = Some(until);
            world.timers.arm(until, Due::Listener(key));
        }
        if self.drain != Drain::No {
            return;
        }
        Self::turn_fronts((world, &mut self.relays, &mut self.http), tick, wanted);
        removed.into_iter().for_each(|key| world.settle_listener(key));
    }

    /// Fronts that stay go to the listener that has their address now, others drain, new ones are listened on.
    fn turn_fronts(
        (world, relays, http): (&mut World, &mut Relays, &mut Http),
        tick: &mut Tick<'_>,
        mut wanted: BTreeMap<BindKey, ListenerKey>,
    ) {
        let fronts: Vec<(SocketId, BindKey)> = world.fronts().map(|(socket, front)| (socket, front.bind)).collect();
        for (socket, bind) in fronts {
            match wanted.remove(&bind) {
                Some(listener) => {
                    if let Some(front) = world.front_mut(socket) {
                        front.listener = listener;
                        front.draining = None;
                    }
                }
                None => drain_front((world, relays, http), tick, socket, None),
            }
        }
        for (bind, listener) in wanted {
            let front = Front { bind, port: bind.address.port(), listener, draining: None, flows: 0 };
            let socket = world.insert(Socket::Front(Box::new(front)));
            tick.ask(Op::Listen { socket, bind });
        }
    }

    /// Admit nothing more; let what is alive end by itself, or at the deadline.
    pub(crate) fn drain(&mut self, tick: &mut Tick<'_>, within: Option<Duration>) {
        if self.drain == Drain::No {
            self.drain = Drain::Underway;
        }
        let fronts: Vec<SocketId> = self.world.fronts().map(|(socket, _)| socket).collect();
        for socket in fronts {
            drain_front((&mut self.world, &mut self.relays, &mut self.http), tick, socket, within);
        }
        if let Some(within) = within {
            self.relays.sweep_all(tick.now + within);
            self.http.sweep_all(tick.now + within);
        }
        self.stop_probes(tick);
    }

    /// Take over what the probing worker found.
    pub(crate) fn take_verdict(&mut self, tick: &mut Tick<'_>, verdict: &BackendHealth) {
        let Some(&key) = self.world.cluster_names.get(&verdict.cluster) else { return };
        if let Some(backend) = self.world.clusters[key].handle_health(tick.now, verdict) {
            self.world.arm_review(tick.now, key);
            self.stir();
            if !verdict.up {
                self.leave_backend(tick, (key, backend), false);
            }
        }
    }
}

/// A front admits no flow any more and its flows end in time. One that drains already isn't given more time.
fn drain_front(
    (world, relays, http): (&mut World, &mut Relays, &mut Http),
    tick: &mut Tick<'_>,
    socket: SocketId,
    within: Option<Duration>,
) {
    let Some(front) = world.front_mut(socket) else { return };
    let listener = front.listener;
    let within = within.unwrap_or(world.listeners[listener].spec.drain_timeout);
    let until = tick.now + within;
    let Some(front) = world.front_mut(socket) else { return };
    if front.draining.is_none_or(|already| until < already) {
        front.draining = Some(until);
        world.timers.arm(until, Due::Front(socket));
        relays.sweep_front(world, socket, until);
        http.sweep_front(world, socket, until);
    }
    world.settle_front(tick, socket);
}
