//! Writing a worker down. Changes nothing: the worker goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use kakei_config::{TcpKnobs, UdpKnobs};
use slotmap::Key;

use crate::cluster::{BackendKey, ClusterKey, LiveCluster};
use crate::listener::{ListenerKey, LiveListener};
use crate::seam::{Instant, SocketId};
use crate::snapshot::{Generation, HttpListener};
use crate::state::{
    BackendState, ClusterState, FrontState, HttpContractState, ListenerState, RemovedState, SCHEMA, SharedSocketState,
    WorkerState,
};
use crate::stats::WorkerMetric;
use crate::worker::Worker;

/// What indices stand for while a worker is written down.
pub(crate) struct Table {
    listeners: Vec<ListenerKey>,
    clusters: Vec<(ClusterKey, Vec<BackendKey>)>,
    knobs: Once<UdpKnobs>,
    connection_knobs: Once<TcpKnobs>,
}

impl Table {
    pub(crate) fn listener(&self, key: ListenerKey) -> usize {
        self.listeners.iter().position(|known| *known == key).expect("every live listener is in the table")
    }

    pub(crate) fn cluster(&self, cluster: ClusterKey) -> usize {
        self.clusters.iter().position(|(known, _)| *known == cluster).expect("every live cluster is in it")
    }

    pub(crate) fn backend(&self, cluster: ClusterKey, backend: BackendKey) -> (usize, usize) {
        let within = self.known_backend(cluster, backend);
        (self.cluster(cluster), within.expect("every live backend is in it"))
    }

    /// The same for one that may be gone.
    pub(crate) fn known_backend(&self, cluster: ClusterKey, backend: BackendKey) -> Option<usize> {
        self.clusters[self.cluster(cluster)].1.iter().position(|known| *known == backend)
    }

    pub(crate) fn knobs(&mut self, knobs: &Arc<UdpKnobs>) -> usize {
        self.knobs.index_of(knobs)
    }

    pub(crate) fn connection_knobs(&mut self, knobs: &Arc<TcpKnobs>) -> usize {
        self.connection_knobs.index_of(knobs)
    }
}

/// Contracts, which many share: each once.
#[derive(Debug)]
pub(crate) struct Once<T> {
    pub(crate) all: Vec<Arc<T>>,
    /// By where they lie.
    known: BTreeMap<usize, usize>,
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Once { all: Vec::new(), known: BTreeMap::new() }
    }
}

impl<T> Once<T> {
    pub(crate) fn index_of(&mut self, one: &Arc<T>) -> usize {
        *self.known.entry(Arc::as_ptr(one).addr()).or_insert_with(|| {
            self.all.push(Arc::clone(one));
            self.all.len() - 1
        })
    }
}

impl Worker {
    pub(crate) fn state(&self, now: Instant) -> WorkerState {
        let world = &self.world;
        let backends = |cluster: &LiveCluster| cluster.backends.keys().collect();
        // Whoever has the others probed asks again.
        let configured = || world.clusters.iter().filter(|(_, cluster)| cluster.candidate.is_none());
        let mut table = Table {
            listeners: world.listeners.keys().collect(),
            clusters: configured().map(|(key, cluster)| (key, backends(cluster))).collect(),
            knobs: Once::default(),
            connection_knobs: Once::default(),
        };
        let flows = self.datagrams.save(now, &mut table);
        let is_plain = |socket| self.is_plain(socket);
        let relays = self.relays.save(now, &mut table, is_plain);
        let http = self.http.save(world, now, &mut table, is_plain);
        let fronts = world.fronts().map(|(socket, front)| FrontState {
            socket: raw(socket),
            bind: front.bind,
            port: front.port,
            listener: table.listener(front.listener),
            draining: front.draining.map(|until| until - now),
        });
        WorkerState {
            schema: SCHEMA,
            generation: Generation(world.values[WorkerMetric::Generation]),
            rng: world.rng.get_seed(),
            hash: world.hash,
            epoch: self.datagrams.epoch(),
            drain: self.drain,
            values: world.values.0.to_vec(),
            listeners: world.listeners.values().map(|listener| save_listener(now, listener)).collect(),
            fronts: fronts.collect(),
            clusters: configured().map(|(_, cluster)| save_cluster(now, cluster)).collect(),
            knobs: table.knobs.all.iter().map(|knobs| UdpKnobs::clone(knobs)).collect(),
            flows,
            connection_knobs: table.connection_knobs.all.iter().map(|knobs| TcpKnobs::clone(knobs)).collect(),
            relays,
            http,
            other_times: world.other_times.clone(),
        }
    }
}

/// A socket's id as it is written down.
pub(crate) fn raw(socket: SocketId) -> u64 {
    socket.data().as_ffi()
}

fn save_listener(now: Instant, listener: &LiveListener) -> ListenerState {
    ListenerState {
        name: listener.spec.name.clone(),
        removed: listener.removed.map(|until| RemovedState {
            left: until - now,
            protocol: listener.spec.protocol,
            max_datagram_size: listener.spec.max_datagram_size,
            trusted: listener.spec.trusted.clone(),
            preread_timeout: listener.spec.preread_timeout,
            reads_hello: listener.spec.reads_hello(),
            http: listener.spec.http.as_ref().map(|http| save_contract(http)),
        }),
        values: listener.values.0.to_vec(),
        drops: listener.drops.0.to_vec(),
        closes: listener.closes.0.to_vec(),
        connection_closes: listener.connection_closes.0.to_vec(),
        exchange_closes: listener.exchange_closes.0.to_vec(),
        refusals: listener.refusals.0.to_vec(),
        times: listener.times.stats(),
        ahead: Instant::from_nanos(listener.admission.rate.due) - now,
    }
}

pub(crate) fn save_contract(http: &HttpListener) -> HttpContractState {
    HttpContractState { knobs: http.knobs.clone(), workers: http.workers }
}

fn save_cluster(now: Instant, cluster: &LiveCluster) -> ClusterState {
    let backends = cluster.backends.iter().map(|(key, live)| {
        let signals = cluster.probing.checker.signals().filter(|state| state.backend == key);
        BackendState {
            spec: live.spec.clone(),
            removed: live.removed,
            up: live.up,
            up_for: live.up_for(now),
            passive: live.passive.state(now),
            signals: signals.map(|state| (state.check, state.signal)).collect(),
            values: live.values.0.to_vec(),
        }
    });
    let sockets = cluster.pools.iter().zip([false, true]).flat_map(|(pool, v6)| {
        pool.seats().map(move |(seat, socket, open)| SharedSocketState { socket: raw(socket), v6, seat, open })
    });
    ClusterState {
        name: cluster.spec.name.clone(),
        removed: cluster.removed,
        send_proxy_protocol: cluster.spec.send_proxy_protocol,
        retries: cluster.retries,
        times: cluster.times.clone(),
        backends: backends.collect(),
        sockets: sockets.collect(),
        values: cluster.values.0.to_vec(),
        drops: cluster.drops.0.to_vec(),
    }
}
