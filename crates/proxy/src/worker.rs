//! The worker: one pure function from what happened to what to do.
//!
//! ```
//! use kakei_proxy::seam::{Inbox, Instant, Outbox, Wall};
//! use kakei_proxy::worker::{Role, Worker};
//!
//! let mut worker = Worker::new(Role { index: 0, seed: 7 });
//! let (mut events, arena, mut out) = (Vec::new(), vec![0u8; 65_536], Outbox::default());
//! let wake = worker.step(Instant::ZERO, Inbox { events: &mut events, bytes: &arena, wall: Wall::default() }, &mut out);
//! assert!(out.ops.is_empty() && wake.is_none());
//! ```

use crate::change::Change;
use crate::cluster::{BackendKey, ClusterKey, Seat};
use crate::datagram::{Cause, Datagrams, Failure, FlowId};
use crate::http::Http;
use crate::limits::{PER_LISTING, TIMERS_PER_STEP};
use crate::relay::{Relays, Side};
use crate::seam::{
    Command, Datagram, Event, Inbox, Instant, Notice, Op, OpenError, Outbox, Reply, SendError, SocketId, Ticket,
};
use crate::secure::Secure;
use crate::stats::{DropReason, ListenerMetric, Stats, WorkerMetric};
use crate::waiting::Queueing;
use crate::world::{Due, Socket, Tick, World};

/// Which worker of the process this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// 0 to workers − 1. Worker 0 probes backends and tells the others by [`Notice::Health`].
    pub index: u16,
    /// Seeds everything random.
    pub seed: u64,
}

/// A worker.
#[derive(Debug)]
pub struct Worker {
    pub(crate) role: Role,
    pub(crate) world: World,
    pub(crate) datagrams: Datagrams,
    pub(crate) relays: Relays,
    pub(crate) http: Http,
    pub(crate) secure: Secure,
    pub(crate) drain: Drain,
    /// Who asked in this step for the worker to be written down.
    pub(crate) asked: Vec<Ticket>,
    /// Asked for before the first step, by a worker that was read back.
    pub(crate) pending: Vec<Op>,
}

/// Whether the worker as a whole ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Drain {
    No,
    /// It admits nothing; `Notice::Drained` is still owed.
    Underway,
    /// It holds nothing any more.
    Done,
}

impl Worker {
    /// A worker that listens nowhere until its first `Command::Publish`.
    pub fn new(role: Role) -> Self {
        let world = World::new(fastrand::Rng::with_seed(role.seed));
        Worker {
            role,
            datagrams: Datagrams::new(world.hash),
            relays: Relays::default(),
            http: Http::default(),
            secure: Secure::default(),
            world,
            drain: Drain::No,
            asked: Vec::new(),
            pending: Vec::new(),
        }
    }

    /// Handle everything in the inbox and every deadline that is due (each within its budget), leave what to do in
    /// the outbox, and say when to call again at the latest. `now` never goes back; a wake-up equal to `now` means
    /// that a budget cut the work short.
    pub fn step(&mut self, now: Instant, inbox: Inbox<'_>, out: &mut Outbox) -> Option<Instant> {
        let mut tick = Tick { now, wall: inbox.wall, bytes: inbox.bytes, out };
        self.world.values[WorkerMetric::Steps] += 1;
        self.world.values[WorkerMetric::Events] += inbox.events.len() as u64;
        self.world.seen.begin();
        self.datagrams.begin();
        self.relays.begin();
        tick.out.ops.append(&mut self.pending);
        self.datagrams.locate(&self.world, inbox.events);
        self.http.read_ahead(&self.world, inbox.events, inbox.bytes);
        for (number, event) in inbox.events.drain(..).enumerate() {
            let located = self.datagrams.located(number);
            self.handle(&mut tick, event, located);
        }
        self.run_handshakes(&mut tick);
        self.relays.finish(&mut self.world, &mut tick);
        let timers_left = self.fire_timers(&mut tick);
        self.datagrams.settle_stash(&mut self.world);
        self.datagrams.settle_ended();
        self.datagrams.run_sweeps(&mut self.world, &mut tick);
        self.relays.run_sweeps(&mut self.world, &mut tick);
        if self.relays.is_stirred() || self.http.is_stirred() {
            // A place that a connection of one kind gave up may be what one of the other kind waits for.
            self.stir();
        }
        self.relays.serve_queues(&mut self.world, &mut tick);
        self.http.settle(&mut self.world, &mut tick);
        self.settle_http(&mut tick);
        self.forget_clusters();
        self.world.settle_fronts(&mut tick);
        self.world.tell_cuts(&mut tick);
        let is_over = self.settle_drain(&mut tick);
        self.write_down(&mut tick);
        self.secure.seal(&mut self.world, &mut tick);
        if is_over {
            // Not before: whoever was shaking hands has its deadline taken back with its end.
            self.world.rest();
        }
        let is_behind =
            self.datagrams.is_behind() || self.relays.is_behind() || self.http.is_behind() || self.secure.is_behind();
        match self.drain != Drain::Done && (timers_left || is_behind) {
            true => Some(now),
            false => self.world.timers.next(),
        }
    }

    fn handle(&mut self, tick: &mut Tick<'_>, event: Event, located: FlowId) {
        match event {
            Event::Datagram(datagram) => self.handle_datagram(tick, datagram, located),
            Event::Opened { socket, local } => self.handle_opened(tick, socket, local.port()),
            Event::OpenFailed { socket, error } => self.handle_open_failed(tick, socket, error),
            Event::Unreachable { socket, peer } => self.handle_unreachable(tick, socket, peer),
            Event::SendFailed { socket, tag, datagrams, bytes, error } => {
                let reason = match error {
                    SendError::QueueFull => DropReason::QueueFull,
                    SendError::TooBig => DropReason::TooBig,
                    SendError::Unreachable | SendError::Other => DropReason::SendError,
                };
                let unreachable = error == SendError::Unreachable;
                self.handle_send_failed(tick, socket, &Failure { tag, datagrams, bytes, reason, unreachable });
            }
            Event::Overflow { socket, datagrams } => {
                if let Some(front) = self.world.front_mut(socket) {
                    let listener = front.listener;
                    self.world.listeners[listener].values[ListenerMetric::ReceiveOverflow] += datagrams;
                }
            }
            Event::Accepted(accepted) => self.handle_accepted(tick, accepted),
            Event::AcceptFailed { front, .. } => self.handle_accept_failed(front),
            Event::Data { socket, bytes } => self.handle_data(tick, socket, bytes),
            Event::Eof { socket } => self.handle_eof(tick, socket),
            Event::Broken { socket, .. } => self.handle_broken(tick, socket),
            Event::Blocked { socket, rest } => self.handle_blocked(tick, socket, rest),
            Event::Drained { socket } => self.handle_drained(tick, socket),
            Event::Piped { from, bytes } => self.handle_piped(tick, from, bytes),
            Event::Verified { job, verdict } => self.http.handle_verified(&mut self.world, tick, (job, verdict)),
            Event::Command { ticket, command } => self.handle_command(tick, ticket, command),
        }
    }

    fn handle_datagram(&mut self, tick: &mut Tick<'_>, datagram: Datagram, located: FlowId) {
        let Worker { world, datagrams, .. } = self;
        match world.sockets.get(datagram.socket) {
            Some(Socket::Front(_)) => datagrams.handle_client(world, tick, datagram, located),
            Some(&Socket::Flow(id)) => datagrams.handle_reply(world, tick, id, datagram),
            Some(&Socket::Shared { cluster, seat, .. }) => {
                datagrams.handle_shared_reply(world, tick, (cluster, seat), datagram);
            }
            Some(Socket::Probe(probe)) => {
                let probe = **probe;
                self.handle_probe_reply(tick, probe, datagram.bytes.of(tick.bytes));
            }
            Some(Socket::Client(_) | Socket::Backend(_) | Socket::Session(_) | Socket::Upstream(_)) | None => {
                world.values[WorkerMetric::StaleReplies] += 1;
            }
        }
    }

    fn handle_opened(&mut self, tick: &mut Tick<'_>, socket: SocketId, port: u16) {
        let Worker { world, datagrams, .. } = self;
        match world.sockets.get_mut(socket) {
            Some(Socket::Front(front)) => {
                front.port = port;
                world.own.handle_fronts_changed();
            }
            Some(&mut Socket::Flow(id)) => datagrams.handle_opened(world, tick, id, socket),
            Some(&mut Socket::Shared { cluster, v6, seat }) => {
                let waiting = world.clusters[cluster].pools[usize::from(v6)].handle_opened(seat);
                waiting.into_iter().for_each(|id| datagrams.handle_opened(world, tick, id, socket));
            }
            Some(Socket::Backend(_) | Socket::Upstream(_) | Socket::Probe(_)) => {
                self.handle_stream_opened(tick, socket);
            }
            Some(Socket::Client(_) | Socket::Session(_)) => {}
            None => world.values[WorkerMetric::StaleEvents] += 1,
        }
    }

    fn handle_open_failed(&mut self, tick: &mut Tick<'_>, socket: SocketId, error: OpenError) {
        let Worker { world, datagrams, .. } = self;
        match world.forget(socket) {
            // The listener's other workers go on; the control side sees the gap in `kakei get listeners`.
            Some(Socket::Front(front)) => world.settle_listener(front.listener),
            Some(Socket::Flow(id)) => {
                if error == OpenError::Unreachable {
                    self.note_unreachable(tick, id);
                }
                self.datagrams.handle_open_failed(&mut self.world, tick, (id, error));
            }
            Some(Socket::Shared { cluster, v6, seat }) => {
                let waiting = world.clusters[cluster].pools[usize::from(v6)].handle_failed(seat);
                // No backend's fault: the socket has none yet.
                waiting.into_iter().for_each(|id| datagrams.handle_open_failed(world, tick, (id, OpenError::Other)));
            }
            Some(Socket::Backend(id)) => self.handle_connect_failed(tick, id, error),
            // A stream that the machine could not take over or on: it is gone like any that breaks.
            Some(Socket::Client(id)) => self.relays.handle_broken(world, tick, (id, Side::Client)),
            Some(Socket::Session(id)) => self.http.handle_client_broken(world, tick, id),
            Some(Socket::Upstream(id)) => self.handle_upstream_failed(tick, id, error),
            Some(Socket::Probe(probe)) => self.handle_probe_failed(tick, *probe, error),
            None => world.values[WorkerMetric::StaleEvents] += 1,
        }
    }

    fn handle_unreachable(&mut self, tick: &mut Tick<'_>, socket: SocketId, peer: Option<std::net::SocketAddr>) {
        let id = match (self.world.sockets.get(socket), peer) {
            (Some(&Socket::Flow(id)), _) => Some(id),
            (Some(&Socket::Shared { cluster, seat: Seat::Common, .. }), Some(peer)) => {
                return self.note_unreachable_address(tick, cluster, peer);
            }
            (Some(&Socket::Shared { cluster, seat, .. }), Some(peer)) => {
                self.world.clusters[cluster].pool_mut(peer).flow(seat, peer)
            }
            (Some(Socket::Probe(probe)), _) => return self.handle_probe_unreachable(tick, **probe),
            _ => None,
        };
        match id {
            Some(id) => {
                self.note_unreachable(tick, id);
                self.datagrams.handle_unreachable(&mut self.world, tick, id);
            }
            None => self.world.values[WorkerMetric::StaleEvents] += 1,
        }
    }

    fn handle_send_failed(&mut self, tick: &mut Tick<'_>, socket: SocketId, failure: &Failure) {
        let Worker { world, datagrams, .. } = self;
        match world.sockets.get(socket) {
            Some(Socket::Front(_)) => datagrams.handle_return_failed(world, failure),
            Some(Socket::Flow(_) | Socket::Shared { .. }) => {
                let id = datagrams.flow_of(failure);
                if failure.unreachable {
                    self.note_unreachable(tick, id);
                }
                self.datagrams.handle_forward_failed(&mut self.world, tick, failure);
                if failure.unreachable {
                    self.datagrams.handle_unreachable(&mut self.world, tick, id);
                }
            }
            Some(Socket::Probe(probe)) => {
                let probe = **probe;
                let error =
                    if failure.reason == DropReason::SendError { OpenError::Unreachable } else { OpenError::Other };
                self.handle_probe_failed(tick, probe, error);
            }
            Some(Socket::Client(_) | Socket::Backend(_) | Socket::Session(_) | Socket::Upstream(_)) | None => {
                world.values[WorkerMetric::LateSendFailures] += u64::from(failure.datagrams);
            }
        }
    }

    fn handle_command(&mut self, tick: &mut Tick<'_>, ticket: Ticket, command: Command) {
        let reply = match command {
            Command::Publish(snapshot) => {
                let generation = snapshot.generation;
                self.publish(tick, &snapshot);
                Reply::Published(generation)
            }
            Command::Drain { within } => {
                self.drain(tick, within);
                Reply::Done
            }
            Command::Health(verdict) => {
                self.take_verdict(tick, &verdict);
                Reply::Done
            }
            Command::Candidates(candidates) => {
                self.turn_candidates(tick, candidates);
                Reply::Done
            }
            Command::Stats => Reply::Stats(Box::new(self.stats(tick.now))),
            Command::Flows(filter) => Reply::Flows(self.datagrams.list(&self.world, tick.now, &filter)),
            Command::Connections(filter) => {
                let mut connections = self.relays.list(&self.world, tick.now, &filter);
                let room = filter.limit.min(PER_LISTING) - connections.len();
                connections.extend(self.http.list(&self.world, tick.now, &filter, room));
                Reply::Connections(connections)
            }
            Command::Traffic(limit) => {
                let listeners = &self.world.listeners;
                Reply::Traffic(self.world.seen.list(listeners, tick.now, limit.min(PER_LISTING)))
            }
            Command::Rates(of) => Reply::Rates(self.http.rates(&self.world, tick.now, &of)),
            Command::Snapshot => return self.asked.push(ticket),
        };
        tick.ask(Op::Reply { ticket, reply });
    }

    /// Forget removed clusters that nobody needs any more.
    fn forget_clusters(&mut self) {
        let (relays, http) = (&self.relays, &self.http);
        self.world.forget_clusters(|cluster| relays.is_waited_for(cluster) || http.is_waited_for(cluster));
    }

    /// Answer those who asked for the worker as it is: at the end of the step, so that whatever it asked for before goes
    /// with it and nothing comes behind it. What it stands on was changed for all by then.
    fn write_down(&mut self, tick: &mut Tick<'_>) {
        for ticket in std::mem::take(&mut self.asked) {
            self.relays.finish_sweeps(&mut self.world, tick);
            self.http.finish_sweeps(&mut self.world, tick);
            let reply = Reply::State(Box::new(self.state(tick.now)));
            tick.ask(Op::Reply { ticket, reply });
        }
    }

    /// Handle deadlines that are due; whether some are left.
    fn fire_timers(&mut self, tick: &mut Tick<'_>) -> bool {
        for _ in 0..TIMERS_PER_STEP {
            let Some(due) = self.world.timers.poll(tick.now) else { return false };
            self.world.values[WorkerMetric::TimersFired] += 1;
            match due {
                Due::Flow(id, token) => self.datagrams.handle_due(&mut self.world, tick, id, token),
                Due::Relay(id) => self.handle_relay_due(tick, id),
                Due::Session(id) => {
                    let shakes_hands = self.http.opening(id).is_some_and(|socket| self.secure.holds(socket));
                    self.http.handle_session_due(&mut self.world, tick, id, shakes_hands);
                }
                Due::Upstream(id) => self.http.handle_upstream_due(&mut self.world, tick, id),
                Due::Handshake(socket) => self.expire_handshake(tick, socket),
                Due::Listener(_) => self.datagrams.sweep_drained(&self.world, tick),
                Due::Front(socket) => {
                    self.datagrams.sweep_drained(&self.world, tick);
                    self.world.leave_front(socket);
                }
                Due::Review(cluster) => self.review(tick, cluster),
                Due::Probes(cluster) => self.probe(tick, cluster),
                Due::Parted => self.datagrams.handle_parted_due(&mut self.world, tick),
                Due::IdlePools(cluster) => Datagrams::handle_pools_due(&mut self.world, tick, cluster),
            }
        }
        self.world.timers.next().is_some_and(|next| next <= tick.now)
    }

    /// Once a worker that drains as a whole has no flow any more, give up what is left and say so: true then.
    fn settle_drain(&mut self, tick: &mut Tick<'_>) -> bool {
        if self.drain != Drain::Underway
            || self.datagrams.len() > 0
            || self.relays.len() > 0
            || self.http.len() > 0
            || self.world.fronts().next().is_some()
        {
            return false;
        }
        self.http.close_idle(&mut self.world, tick);
        self.datagrams.close_parted(&mut self.world, tick);
        let clusters: Vec<ClusterKey> = self.world.clusters.keys().collect();
        for key in clusters {
            Datagrams::close_idle_pools(&mut self.world, tick, key);
        }
        self.drain = Drain::Done;
        tick.ask(Op::Notice(Notice::Drained));
        true
    }

    /// A copy of the counters.
    pub(crate) fn stats(&self, now: Instant) -> Stats {
        let world = &self.world;
        let mut listeners: Vec<_> =
            world.listeners.iter().map(|(key, listener)| listener.stats(world.is_draining(key, listener))).collect();
        listeners.sort_by(|a, b| a.listener.cmp(&b.listener));
        let mut clusters: Vec<_> =
            world.clusters.values().filter(|c| c.candidate.is_none()).map(|c| c.stats(now)).collect();
        clusters.sort_by(|a, b| a.cluster.cmp(&b.cluster));
        Stats { worker: world.values, listeners, clusters, other_times: world.other_times.clone() }
    }

    /// Who takes work in a cluster changed by the passing of time.
    fn review(&mut self, tick: &mut Tick<'_>, cluster: ClusterKey) {
        if let Some(live) = self.world.clusters.get_mut(cluster) {
            live.review = None;
            live.rebuild(tick.now);
            let returned = live.returned(tick.now);
            self.world.arm_review(tick.now, cluster);
            self.stir();
            returned.into_iter().for_each(|backend| self.return_backend((cluster, backend), Change::BackendDown));
        }
    }

    /// There may be room for some who wait for a backend, over whichever protocol.
    pub(crate) fn stir(&mut self) {
        self.relays.stir();
        self.http.stir();
    }

    /// A backend went down, or was removed: flows and connections obey their policy.
    pub(crate) fn leave_backend(&mut self, tick: &mut Tick<'_>, place: (ClusterKey, BackendKey), removed: bool) {
        let change = self.leave_backend_without_http(place, removed);
        self.http.sweep_backend(&mut self.world, tick, place, change);
    }

    /// The same where no requests are under way yet.
    pub(crate) fn leave_backend_without_http(
        &mut self,
        (cluster, backend): (ClusterKey, BackendKey),
        removed: bool,
    ) -> Change {
        let (cause, change) = match removed {
            true => (Cause::BackendRemoved, Change::BackendRemoved),
            false => (Cause::BackendDown, Change::BackendDown),
        };
        self.datagrams.sweep_backend(&self.world, cluster, backend, cause);
        self.relays.sweep_backend(&self.world, (cluster, backend), change);
        change
    }

    /// A backend is there again, or up: what was to leave it by a deadline may stay.
    pub(crate) fn return_backend(&mut self, place: (ClusterKey, BackendKey), change: Change) {
        self.relays.return_backend(&self.world, place, change);
        self.http.return_backend(place, change);
    }
}
