//! What every protocol of a worker shares: listeners, clusters, sockets, deadlines, randomness. No flow is kept here.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use kakei_config::{Name, Objects};
use slotmap::SlotMap;

use crate::cluster::{BackendKey, ClusterKey, LiveCluster, Seat};
use crate::cuts::Cuts;
use crate::datagram::FlowId;
use crate::hash::Keyed;
use crate::http::{SessionId, UpstreamId};
use crate::limits::TABLE_BYTES;
use crate::listener::{Front, ListenerKey, LiveListener};
use crate::own::Own;
use crate::probes::ClusterProbe;
use crate::relay::RelayId;
use crate::seam::{Gather, Instant, Op, Outbox, SocketId, Transport, Wall};
use crate::seen::Rings;
use crate::snapshot::Cluster;
use crate::stats::{BackendMetric, Times, Values, WorkerMetric};
use crate::timers::Timers;

/// What a socket is for.
#[derive(Debug)]
pub(crate) enum Socket {
    /// Clients of a listener arrive here.
    /// Boxed: there are few of them, and many sockets of flows.
    Front(Box<Front>),
    /// One flow's way to its backend.
    Flow(FlowId),
    /// Several flows' way to their backends.
    Shared { cluster: ClusterKey, v6: bool, seat: Seat },
    /// A relay's client.
    Client(RelayId),
    /// A relay's backend.
    Backend(RelayId),
    /// A client that sends requests.
    Session(SessionId),
    /// A backend that answers them.
    Upstream(UpstreamId),
    /// A health check. Boxed, as the fronts.
    Probe(Box<ClusterProbe>),
}

/// What is due at a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// A flow's deadline, with the token it had when that was armed.
    Flow(FlowId, u32),
    /// A connection's deadline.
    Relay(RelayId),
    /// A client's, that sends requests.
    Session(SessionId),
    /// A backend's, that answers them.
    Upstream(UpstreamId),
    /// A TLS handshake should be over.
    Handshake(SocketId),
    /// A removed listener's last flows end.
    Listener(ListenerKey),
    /// A front socket's last flows end.
    Front(SocketId),
    /// Who takes work in a cluster may change.
    Review(ClusterKey),
    /// A cluster's probes are due.
    Probes(ClusterKey),
    /// Sockets of one-way flows that ended are closed.
    Parted,
    /// A cluster's idle shared sockets are given up.
    IdlePools(ClusterKey),
}

/// One step's time, bytes and output.
pub(crate) struct Tick<'a> {
    pub(crate) now: Instant,
    pub(crate) wall: Wall,
    pub(crate) bytes: &'a [u8],
    pub(crate) out: &'a mut Outbox,
}

impl Tick<'_> {
    #[inline]
    pub(crate) fn ask(&mut self, op: Op) {
        self.out.ops.push(op);
    }

    /// Write to a stream, in one piece with what was asked for last where that lies right before it.
    #[inline]
    pub(crate) fn write(&mut self, socket: SocketId, bytes: Gather) {
        if let Some(Op::Write { socket: last, bytes: before }) = self.out.ops.last_mut()
            && *last == socket
            && bytes.body.len == 0
            && before.absorbs(bytes)
        {
            return;
        }
        self.ask(Op::Write { socket, bytes });
    }
}

/// What every protocol shares.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) listeners: SlotMap<ListenerKey, LiveListener>,
    pub(crate) clusters: SlotMap<ClusterKey, LiveCluster>,
    /// By name; removed ones too, as long as anything lives on them.
    pub(crate) cluster_names: HashMap<Name, ClusterKey, FixedState>,
    /// Removed clusters that nothing lives on any more: forgotten at the end of the step, so that no key that somebody
    /// holds in it loses what it stands for.
    vacant: BTreeSet<ClusterKey>,
    /// The clusters of the generation that runs: the next one is compared with it.
    pub(crate) running: Objects<Cluster>,
    pub(crate) sockets: SlotMap<SocketId, Socket>,
    /// The few of them that are fronts, so that nobody looks for them among those of flows.
    fronts: Vec<SocketId>,
    pub(crate) own: Own,
    /// Those that are given up at the end of the step: who connects in it is still refused and counted.
    leaving: Vec<SocketId>,
    pub(crate) timers: Timers<Due>,
    pub(crate) rng: fastrand::Rng,
    pub(crate) hash: Keyed,
    /// Keys the balancers' hashes; the same in every worker.
    pub(crate) balance_seed: u64,
    /// Whether ended flows leave a record.
    pub(crate) records: bool,
    pub(crate) values: Values<{ WorkerMetric::COUNT }>,
    /// Whether a listener has so many routes that it pays to read ahead what requests need of them.
    pub(crate) has_many_routes: bool,
    /// Whether the process has no other worker.
    pub(crate) is_alone: bool,
    /// What was routed lately.
    pub(crate) seen: Rings,
    /// What was ended in this step because something was changed under it.
    pub(crate) cuts: Cuts,
    /// How long requests took to clusters whose times aren't counted one by one.
    pub(crate) other_times: Option<Box<Times>>,
}

impl World {
    pub(crate) fn new(mut rng: fastrand::Rng) -> Self {
        World {
            listeners: SlotMap::with_key(),
            clusters: SlotMap::with_key(),
            cluster_names: HashMap::default(),
            vacant: BTreeSet::new(),
            running: Objects::default(),
            sockets: SlotMap::with_capacity_and_key(TABLE_BYTES / size_of::<Socket>()),
            fronts: Vec::new(),
            own: Own::default(),
            leaving: Vec::new(),
            timers: Timers::new(),
            hash: Keyed::new(&mut rng),
            rng,
            balance_seed: 0,
            records: false,
            values: Values::default(),
            has_many_routes: false,
            is_alone: false,
            seen: Rings::default(),
            cuts: Cuts::new(),
            other_times: None,
        }
    }

    /// A handshake with a backend was not over in the time for connecting.
    pub(crate) fn note_late_handshake(&mut self, (cluster, backend): (ClusterKey, BackendKey)) {
        let live = self.clusters.get_mut(cluster).and_then(|cluster| cluster.backends.get_mut(backend));
        live.into_iter().for_each(|live| live.values[BackendMetric::HandshakesFailed] += 1);
    }

    /// A socket with this role.
    pub(crate) fn insert(&mut self, role: Socket) -> SocketId {
        let is_front = matches!(role, Socket::Front(_));
        let socket = self.sockets.insert(role);
        if is_front {
            self.fronts.push(socket);
            self.own.handle_fronts_changed();
        }
        socket
    }

    /// Forget a socket that is closed.
    pub(crate) fn forget(&mut self, socket: SocketId) -> Option<Socket> {
        let role = self.sockets.remove(socket)?;
        if matches!(role, Socket::Front(_)) {
            self.fronts.retain(|front| *front != socket);
            self.own.handle_fronts_changed();
        }
        Some(role)
    }

    /// Every front socket.
    pub(crate) fn fronts(&self) -> impl Iterator<Item = (SocketId, &Front)> {
        self.fronts.iter().filter_map(|&id| match self.sockets.get(id) {
            Some(Socket::Front(front)) => Some((id, &**front)),
            _ => None,
        })
    }

    /// Whether a listener lets in nobody any more: at no front, or under its name.
    pub(crate) fn is_draining(&self, key: ListenerKey, listener: &LiveListener) -> bool {
        match listener.removed {
            Some(_) => self.namesake(&listener.spec.name).is_none(),
            None => {
                let mut fronts = self.fronts().filter(|(_, front)| front.listener == key).peekable();
                fronts.peek().is_some() && fronts.all(|(_, front)| front.draining.is_some())
            }
        }
    }

    /// The listener that has a name now.
    fn namesake(&self, name: &Name) -> Option<ListenerKey> {
        self.listeners.iter().find(|(_, live)| live.removed.is_none() && live.spec.name == *name).map(|(key, _)| key)
    }

    /// Nothing will ever be due again.
    pub(crate) fn rest(&mut self) {
        self.timers = Timers::new();
        for cluster in self.clusters.values_mut() {
            (cluster.review, cluster.idle_pools, cluster.probing.timer) = (None, None, None);
        }
    }

    /// The front socket of that id.
    pub(crate) fn front_mut(&mut self, socket: SocketId) -> Option<&mut Front> {
        match self.sockets.get_mut(socket) {
            Some(Socket::Front(front)) => Some(front),
            _ => None,
        }
    }

    /// Close a socket and forget it.
    pub(crate) fn close(&mut self, tick: &mut Tick<'_>, socket: SocketId) {
        if self.forget(socket).is_some() {
            tick.ask(Op::Close { socket });
        }
    }

    /// Admit nothing more at a front, and have its flows end by then. One that drains already isn't given more time.
    pub(crate) fn drain_front(&mut self, socket: SocketId, until: Instant) {
        let Some(front) = self.front_mut(socket) else { return };
        if front.draining.is_none_or(|already| until < already) {
            front.draining = Some(until);
            self.timers.arm(until, Due::Front(socket));
        }
        self.leaving.push(socket);
    }

    /// Close the front sockets that drain and have nothing that lives on them.
    pub(crate) fn settle_fronts(&mut self, tick: &mut Tick<'_>) {
        std::mem::take(&mut self.leaving).into_iter().for_each(|socket| self.settle_front(tick, socket));
    }

    /// The front that takes the new clients of one that drains, if another takes what was dialled there too: as long
    /// as the socket of the more specific address is there, the system gives it everything that is sent there.
    pub(crate) fn heir(&self, draining: &Front, dialled: SocketAddr) -> Option<SocketId> {
        let takes = |front: &Front| {
            front.draining.is_none() && front.bind.transport == draining.bind.transport && front.covers(dialled)
        };
        let is_heir = draining.draining.is_some() && draining.bind.transport == Transport::Udp;
        self.fronts().find(|(_, front)| is_heir && takes(front)).map(|(socket, _)| socket)
    }

    /// The time for a front socket to drain is over.
    pub(crate) fn leave_front(&mut self, socket: SocketId) {
        self.leaving.push(socket);
    }

    /// Whether a front socket that drains is still read for its heir. Other workers may have flows on theirs of the
    /// same address: until they close it this one goes on being given a share of what comes there.
    fn is_read_for_heir(&self, now: Instant, front: &Front) -> bool {
        let dialled = SocketAddr::new(front.bind.address.ip(), front.port);
        !self.is_alone && front.draining.is_some_and(|until| now < until) && self.heir(front, dialled).is_some()
    }

    /// Close a front socket that drains, once nothing lives on it; then its listener, once it has no front and no flow.
    pub(crate) fn settle_front(&mut self, tick: &mut Tick<'_>, socket: SocketId) {
        let Some(front) = self.front_mut(socket).map(|front| *front) else { return };
        if front.draining.is_some() && front.flows == 0 && !self.is_read_for_heir(tick.now, &front) {
            let (bind, listener) = (front.bind, front.listener);
            self.close(tick, socket);
            tick.ask(Op::Unbind { bind });
            self.settle_listener(listener);
        }
    }

    /// Forget a removed listener that nothing lives on.
    pub(crate) fn settle_listener(&mut self, key: ListenerKey) {
        let Some(listener) = self.listeners.get(key) else { return };
        if listener.removed.is_some()
            && listener.admission.live == 0
            && !self.has_front(key)
            && let Some(gone) = self.listeners.remove(key)
            && let Some(heir) = self.namesake(&gone.spec.name)
        {
            self.listeners[heir].succeed(&gone);
        }
    }

    /// Forget a removed backend, and then its cluster, that nothing lives on.
    pub(crate) fn settle_backend(&mut self, key: ClusterKey, backend: BackendKey) {
        let Some(cluster) = self.clusters.get_mut(key) else { return };
        if cluster.backends.get(backend).is_some_and(|live| live.removed && live.is_unused()) {
            cluster.backends.remove(backend);
        }
        self.settle_cluster(key);
    }

    /// Have a removed cluster forgotten that nothing lives on.
    pub(crate) fn settle_cluster(&mut self, key: ClusterKey) {
        if self.clusters.get(key).is_some_and(LiveCluster::is_gone) {
            self.vacant.insert(key);
        }
    }

    /// Forget the removed clusters that nothing lives on and nobody waits for.
    pub(crate) fn forget_clusters(&mut self, is_waited_for: impl Fn(ClusterKey) -> bool) {
        for key in std::mem::take(&mut self.vacant) {
            if is_waited_for(key) {
                self.vacant.insert(key);
            } else if self.clusters.get(key).is_some_and(LiveCluster::is_gone)
                && let Some(cluster) = self.clusters.remove(key)
            {
                self.cluster_names.remove(&cluster.spec.name);
                let timers = [cluster.review, cluster.idle_pools, cluster.probing.timer];
                timers.into_iter().flatten().for_each(|timer| self.timers.cancel(timer));
            }
        }
    }

    /// Arm the deadline at which a cluster's membership changes by itself.
    pub(crate) fn arm_review(&mut self, now: Instant, key: ClusterKey) {
        let Some(cluster) = self.clusters.get_mut(key) else { return };
        let at = cluster.review_at(now);
        match (cluster.review, at) {
            (Some(timer), Some(at)) => self.timers.rearm(timer, at, Due::Review(key)),
            (None, Some(at)) => cluster.review = Some(self.timers.arm(at, Due::Review(key))),
            (Some(timer), None) => {
                self.timers.cancel(timer);
                cluster.review = None;
            }
            (None, None) => {}
        }
    }

    fn has_front(&self, key: ListenerKey) -> bool {
        self.fronts().any(|(_, front)| front.listener == key)
    }
}
