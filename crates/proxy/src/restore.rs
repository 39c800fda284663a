//! Reading a worker back: a fresh worker that goes on where the one that was written down stopped. Its sockets live on
//! in the machine under the ids they had; the first step asks to adopt them.

use std::collections::BTreeMap;
use std::sync::Arc;

use kakei_config::{TcpKnobs, UdpKnobs};
use slotmap::KeyData;

use crate::cluster::{BackendKey, ClusterKey, LiveBackend, LiveCluster, Pool, Seat};
use crate::health::SignalState;
use crate::limits::SHARED_SOCKETS;
use crate::listener::{Front, ListenerKey, LiveListener};
use crate::seam::{Instant, Op, Outbox, SocketId, Wall};
use crate::snapshot::{Cluster, Listener, Snapshot};
use crate::state::{ClusterState, FrontState, ListenerState, RestoreError, SCHEMA, SharedSocketState, WorkerState};
use crate::stats::{ListenerMetric, Values};
use crate::worker::{Role, Worker};
use crate::world::{Due, Socket, Tick, World};

/// What indices and old socket ids stand for while a worker is read back.
pub(crate) struct Known {
    listeners: Vec<ListenerKey>,
    clusters: Vec<(ClusterKey, Vec<BackendKey>)>,
    knobs: Vec<Arc<UdpKnobs>>,
    connection_knobs: Vec<Arc<TcpKnobs>>,
    sockets: BTreeMap<u64, SocketId>,
}

/// What is needed to read something back.
pub(crate) struct Reading<'a> {
    pub(crate) world: &'a mut World,
    pub(crate) known: &'a mut Known,
    pub(crate) now: Instant,
    pub(crate) snapshot: &'a Snapshot,
}

impl Known {
    pub(crate) fn listener(&self, at: usize) -> Result<ListenerKey, RestoreError> {
        self.listeners.get(at).copied().ok_or(RestoreError::Damaged("a listener is missing"))
    }

    pub(crate) fn backend(&self, cluster: usize, at: usize) -> Result<(ClusterKey, BackendKey), RestoreError> {
        let (key, backends) = self.clusters.get(cluster).ok_or(RestoreError::Damaged("a cluster is missing"))?;
        backends.get(at).map(|backend| (*key, *backend)).ok_or(RestoreError::Damaged("a backend is missing"))
    }

    pub(crate) fn cluster(&self, at: usize) -> Result<ClusterKey, RestoreError> {
        self.clusters.get(at).map(|(key, _)| *key).ok_or(RestoreError::Damaged("a cluster is missing"))
    }

    pub(crate) fn connection_knobs(&self, at: usize) -> Result<Arc<TcpKnobs>, RestoreError> {
        self.connection_knobs.get(at).cloned().ok_or(RestoreError::Damaged("a connection's contract is missing"))
    }

    pub(crate) fn knobs(&self, at: usize) -> Result<Arc<UdpKnobs>, RestoreError> {
        self.knobs.get(at).cloned().ok_or(RestoreError::Damaged("a flow's contract is missing"))
    }

    pub(crate) fn socket(&self, was: u64) -> Result<SocketId, RestoreError> {
        self.sockets.get(&was).copied().ok_or(RestoreError::Damaged("a socket is missing"))
    }

    /// A socket that lives on, with the id that it has from now on.
    pub(crate) fn adopt(&mut self, world: &mut World, was: u64, role: Socket) -> SocketId {
        let socket = world.insert(role);
        self.sockets.insert(was, socket);
        socket
    }
}

impl Worker {
    /// A worker that goes on where `state` was written down, over the generation that it ran. Its first step, which
    /// must be given no event that names a socket by its old id, begins with an [`Op::Adopt`] for each socket that
    /// lives on; the machine closes the others and renames what it has queued.
    ///
    /// # Errors
    /// The state is of another schema or generation, or damaged.
    pub fn restore(role: Role, now: Instant, state: WorkerState, snapshot: &Snapshot) -> Result<Self, RestoreError> {
        if state.schema != SCHEMA {
            return Err(RestoreError::Schema { found: state.schema });
        }
        if state.generation != snapshot.generation {
            return Err(RestoreError::Generation { found: state.generation, given: snapshot.generation });
        }
        let mut worker = Worker::new(role);
        let world = &mut worker.world;
        world.rng = fastrand::Rng::with_seed(state.rng);
        world.hash = state.hash;
        world.other_times = state.other_times;
        world.values = Values::from_slice(&state.values);
        world.balance_seed = snapshot.shared.balance_seed;
        world.is_alone = snapshot.shared.workers <= 1;
        world.records = snapshot.records;
        world.has_many_routes = snapshot.has_many_routes();
        world.seen.resize(snapshot.traffic);
        worker.datagrams.succeed(state.epoch);
        worker.drain = state.drain;
        let mut known = Known {
            listeners: Vec::new(),
            clusters: Vec::new(),
            knobs: state.knobs.into_iter().map(Arc::new).collect(),
            connection_knobs: state.connection_knobs.into_iter().map(Arc::new).collect(),
            sockets: BTreeMap::new(),
        };
        for listener in state.listeners {
            known.listeners.push(restore_listener(world, now, listener, snapshot)?);
        }
        for front in state.fronts {
            restore_front(world, now, &mut known, front)?;
        }
        for cluster in &state.clusters {
            restore_cluster(world, now, &mut known, (cluster, snapshot))?;
        }
        let running = world.clusters.values().filter(|cluster| !cluster.removed);
        world.running = running.map(|cluster| (cluster.spec.name.clone(), Arc::clone(&cluster.spec))).collect();
        for flow in state.flows {
            worker.datagrams.restore(world, now, &mut known, flow)?;
        }
        for relay in state.relays {
            worker.relays.restore(world, now, &mut known, relay)?;
        }
        worker.relays.resume(world, now);
        worker.http.restore(Reading { world, known: &mut known, now, snapshot }, state.http)?;
        // What lived on a removed one may be left out of the state.
        known.listeners.iter().for_each(|key| world.settle_listener(*key));
        let adoptions = known.sockets.iter().map(|(was, &socket)| {
            let was = SocketId::from(KeyData::from_ffi(*was));
            Op::Adopt { was, socket }
        });
        worker.pending = adoptions.collect();
        worker.resume(now, &known, &state.clusters);
        Ok(worker)
    }

    /// Arm what is armed for clusters as a whole, and go on with what was under way.
    fn resume(&mut self, now: Instant, known: &Known, states: &[ClusterState]) {
        let mut out = Outbox::default();
        let mut tick = Tick { now, wall: Wall::default(), bytes: &[], out: &mut out };
        for ((key, backends), state) in known.clusters.iter().zip(states) {
            let cluster = &mut self.world.clusters[*key];
            cluster.pools.iter_mut().for_each(|pool| pool.restore_rests(now));
            if cluster.pools.iter().any(Pool::may_shrink) {
                let at = now + crate::limits::SHARED_REST_OWED;
                cluster.idle_pools = Some(self.world.timers.arm(at, Due::IdlePools(*key)));
            }
            self.configure_probes(&mut tick, *key);
            for (&backend, state) in backends.iter().zip(&state.backends) {
                for &(check, signal) in &state.signals {
                    let address = &state.spec.address;
                    let checker = &mut self.world.clusters[*key].probing.checker;
                    checker.restore(SignalState { backend, address: address.clone(), check, signal });
                }
                if state.removed || !self.world.clusters[*key].backends[backend].is_up(now) {
                    self.leave_backend_without_http((*key, backend), state.removed);
                }
                self.world.settle_backend(*key, backend);
            }
            self.world.arm_review(now, *key);
            self.world.settle_cluster(*key);
        }
        self.pending.append(&mut out.ops);
    }
}

/// What is counted of streams, and of requests on them, while they live.
const OF_STREAMS: [ListenerMetric; 5] = [
    ListenerMetric::ConnectionsLive,
    ListenerMetric::ConnectionsQueued,
    ListenerMetric::RequestsLive,
    ListenerMetric::RequestsQueued,
    ListenerMetric::HandshakesLive,
];

fn restore_listener(
    world: &mut World,
    now: Instant,
    state: ListenerState,
    snapshot: &Snapshot,
) -> Result<ListenerKey, RestoreError> {
    let removed = state.removed.as_ref().map(|removed| now + removed.left);
    let spec = match (state.removed, snapshot.listener(&state.name)) {
        (None, Some(spec)) => Arc::clone(spec),
        (None, None) => return Err(RestoreError::Damaged("a listener is not in the generation")),
        (Some(removed), _) => Arc::new(Listener::remnant(state.name, removed)),
    };
    let mut listener = LiveListener::new(spec, world.hash);
    listener.removed = removed;
    listener.values = Values::from_slice(&state.values);
    // What is read back counts anew: not all is written down, streams under TLS are not.
    for live in OF_STREAMS {
        listener.values[live] = 0;
    }
    listener.drops = Values::from_slice(&state.drops);
    listener.closes = Values::from_slice(&state.closes);
    listener.connection_closes = Values::from_slice(&state.connection_closes);
    listener.exchange_closes = Values::from_slice(&state.exchange_closes);
    listener.refusals = Values::from_slice(&state.refusals);
    listener.times.restore(state.times);
    listener.admission.rate.due = (now + state.ahead).as_nanos();
    let key = world.listeners.insert(listener);
    if let Some(until) = removed {
        world.timers.arm(until, Due::Listener(key));
    }
    Ok(key)
}

fn restore_front(world: &mut World, now: Instant, known: &mut Known, state: FrontState) -> Result<(), RestoreError> {
    let draining = state.draining.map(|left| now + left);
    let listener = known.listener(state.listener)?;
    let front = Front { bind: state.bind, port: state.port, listener, draining, flows: 0 };
    let socket = known.adopt(world, state.socket, Socket::Front(Box::new(front)));
    if let Some(until) = draining {
        world.timers.arm(until, Due::Front(socket));
    }
    Ok(())
}

fn restore_cluster(
    world: &mut World,
    now: Instant,
    known: &mut Known,
    (state, snapshot): (&ClusterState, &Snapshot),
) -> Result<(), RestoreError> {
    let spec = match (state.removed, snapshot.cluster(&state.name)) {
        (false, Some(spec)) => Arc::clone(spec),
        (false, None) => return Err(RestoreError::Damaged("a cluster is not in the generation")),
        (true, _) => Arc::new(Cluster::remnant(state.name.clone(), state.send_proxy_protocol)),
    };
    let mut cluster = LiveCluster::new(Arc::clone(&spec));
    cluster.removed = state.removed;
    cluster.retries = state.retries;
    cluster.times = state.times.clone();
    cluster.values = Values::from_slice(&state.values);
    cluster.drops = Values::from_slice(&state.drops);
    cluster.backends.clear();
    let backends = state.backends.iter().map(|state| {
        let mut live = LiveBackend::new(state.spec.clone(), now.before(state.up_for));
        live.removed = state.removed;
        live.up = state.up;
        live.passive = crate::health::Passive::restore(now, state.passive);
        live.values = Values::from_slice(&state.values);
        cluster.backends.insert(live)
    });
    let backends: Vec<BackendKey> = backends.collect();
    cluster.rebuild(now);
    let key = world.clusters.insert(cluster);
    world.cluster_names.insert(state.name.clone(), key);
    known.clusters.push((key, backends));
    for &SharedSocketState { socket, v6, seat, open } in &state.sockets {
        if matches!(seat, Seat::Numbered(index) if usize::from(index) >= SHARED_SOCKETS) {
            return Err(RestoreError::Damaged("a shared socket has a seat that no pool has"));
        }
        let socket = known.adopt(world, socket, Socket::Shared { cluster: key, v6, seat });
        world.clusters[key].pools[usize::from(v6)].restore_socket(seat, socket, open);
    }
    Ok(())
}
