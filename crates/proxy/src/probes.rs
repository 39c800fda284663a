//! Health checks as this worker carries them out: probes to sockets, what comes back to verdicts. Only worker 0 probes
//! and tells the others; errors about live traffic are every worker's own. The schedule is `health`'s.

use std::net::SocketAddr;

use kakei_config::SendProxyProtocol;

use crate::change::Change;
use crate::client;
use crate::cluster::{Asked, BackendKey, ClusterKey, LiveBackend};
use crate::datagram::FlowId;
use crate::health::{self, Action, Check, Probe, ProbeId, Target, Verdict};
use crate::seam::{BackendHealth, Endpoint, Gather, Notice, Op, OpenError, ProbeSaid, Remote, Send, SocketId, Span};
use crate::stats::BackendMetric;
use crate::worker::{Drain, Worker};
use crate::world::{Due, Socket, Tick};

/// A probe of a cluster.
pub(crate) type ClusterProbe = (ClusterKey, ProbeId);

impl Worker {
    /// The cluster's checks or backends changed.
    pub(crate) fn configure_probes(&mut self, tick: &mut Tick<'_>, key: ClusterKey) {
        let Some(cluster) = self.world.clusters.get_mut(key) else { return };
        let is_up = |live: &LiveBackend| live.is_up(tick.now);
        let down: Vec<BackendKey> =
            cluster.backends.iter().filter(|(_, live)| !is_up(live)).map(|(key, _)| key).collect();
        cluster.forget_verdicts(tick.now);
        let back: Vec<BackendKey> = down.into_iter().filter(|key| is_up(&cluster.backends[*key])).collect();
        back.into_iter().for_each(|backend| self.return_backend((key, backend), Change::BackendDown));
        if self.role.index != 0 || self.drain != Drain::No {
            return;
        }
        let world = &mut self.world;
        let Some(cluster) = world.clusters.get_mut(key) else { return };
        let probed = cluster.backends.iter().filter(|(_, live)| !live.removed);
        let targets =
            probed.map(|(key, live)| Target { key, address: live.spec.address.clone(), unproven: live.unproven });
        let targets: Vec<_> = targets.collect();
        let health = cluster.spec.health.clone();
        let changes = cluster.probing.checker.reconfigure(tick.now, health.as_deref(), targets, &mut world.rng);
        for probe in changes.closed {
            let _ = self.close_probe(tick, (key, probe));
        }
        for verdict in changes.verdicts {
            self.pronounce(tick, key, verdict, None);
        }
        self.arm_probes(key);
    }

    /// The cluster's probes are due.
    pub(crate) fn probe(&mut self, tick: &mut Tick<'_>, key: ClusterKey) {
        let Some(cluster) = self.world.clusters.get_mut(key) else { return };
        cluster.probing.timer = None;
        while let Some(action) = self.world.clusters[key].probing.checker.poll(tick.now) {
            match action {
                Action::Probe(probe) => self.send_probe(tick, key, probe),
                Action::Expired { probe, verdict } => {
                    self.note_late_probe((key, probe));
                    self.settle_probe(tick, (key, probe), (ProbeSaid::Late, verdict));
                }
            }
        }
        self.arm_probes(key);
    }

    /// A probe is late: in the middle of a handshake, that is one that failed.
    fn note_late_probe(&mut self, (key, id): ClusterProbe) {
        let asked = self.world.clusters[key].probing.sockets.get(&id);
        if let Some(asked) = asked.filter(|asked| self.secure.shakes_hands(asked.socket)) {
            let backend = asked.backend;
            self.world.note_late_handshake((key, backend));
        }
    }

    fn send_probe(&mut self, tick: &mut Tick<'_>, cluster: ClusterKey, probe: Probe<BackendKey>) {
        let socket = self.world.insert(Socket::Probe(Box::new((cluster, probe.id))));
        let asked = Asked { socket, backend: probe.backend, check: probe.check };
        self.world.clusters[cluster].probing.sockets.insert(probe.id, asked);
        match (probe.check, probe.remote) {
            (Check::Udp, Endpoint::Ip(remote)) => {
                tick.ask(Op::OpenDatagram { socket, remote: Remote::Connected(remote) });
            }
            (_, remote) => tick.ask(Op::Connect { socket, remote, keepalive: None }),
        }
    }

    /// A probe's socket is open. The PROXY header goes first, where it didn't go before.
    pub(crate) fn handle_probe_opened(
        &mut self,
        tick: &mut Tick<'_>,
        (key, id): ClusterProbe,
        (socket, is_introduced): (SocketId, bool),
    ) {
        let checker = &self.world.clusters[key].probing.checker;
        let Some(probe) = checker.probe(id) else {
            let _ = self.close_probe(tick, (key, id));
            return;
        };
        let said = match probe.check {
            Check::Udp => checker.payload().to_vec(),
            Check::Tcp => checker.stream_payload().to_vec(),
            Check::Http => checker.request(&probe),
        };
        let is_over = probe.check == Check::Tcp && !checker.expects_bytes();
        let start = tick.out.bytes.len() as u32;
        // Who connects, and goes without a word, is no client that a backend asks for its name.
        if !(is_introduced || is_over && said.is_empty()) {
            self.write_probe_introduction((key, id), &mut tick.out.bytes);
        }
        tick.out.bytes.extend_from_slice(&said);
        let head = Span { start, len: tick.out.bytes.len() as u32 - start };
        let bytes = Gather { head, body: Span::EMPTY };
        match probe.check {
            Check::Udp => tick.ask(Op::Send(Send { socket, to: None, from: None, segment: 0, bytes, tag: 0 })),
            Check::Tcp | Check::Http if head.len > 0 => tick.ask(Op::Write { socket, bytes }),
            Check::Tcp | Check::Http => {}
        }
        if is_over {
            let verdict = self.world.clusters[key].probing.checker.handle_opened(id);
            self.settle_probe(tick, (key, id), (ProbeSaid::Right, verdict));
        }
    }

    /// The PROXY header that a probe begins with: that of the proxy itself. What leads elsewhere than to where the
    /// backend's clients are sent begins with none.
    pub(crate) fn write_probe_introduction(&self, (key, id): ClusterProbe, out: &mut Vec<u8>) {
        let Some(cluster) = self.world.clusters.get(key) else { return };
        let Some(probe) = cluster.probing.checker.probe(id) else { return };
        if cluster.backends.get(probe.backend).is_none_or(|live| live.spec.address != probe.remote) {
            return;
        }
        match probe.check {
            Check::Udp if cluster.spec.knobs.send_proxy_protocol != SendProxyProtocol::Off => {
                client::write_own_datagram_header(out);
            }
            Check::Udp => {}
            Check::Tcp | Check::Http => client::write_own_header(cluster.spec.send_proxy_protocol, out),
        }
    }

    /// Bytes of a stream that is probed. Probes end with the first bytes that say something.
    pub(crate) fn handle_probe_data(&mut self, tick: &mut Tick<'_>, (key, id): ClusterProbe, bytes: &[u8]) {
        let checker = &mut self.world.clusters[key].probing.checker;
        let verdict = checker.handle_bytes(id, bytes);
        if checker.probe(id).is_none() {
            let said = if checker.succeeded() { ProbeSaid::Right } else { ProbeSaid::Wrong(health::status(bytes)) };
            self.settle_probe(tick, (key, id), (said, verdict));
        }
    }

    /// A stream that is probed ended or broke before what was expected had come; or it did not even take what is sent.
    pub(crate) fn handle_probe_broken(&mut self, tick: &mut Tick<'_>, (key, id): ClusterProbe) {
        let checker = &mut self.world.clusters[key].probing.checker;
        let verdict = checker.handle_ended(id);
        let said = if checker.succeeded() { ProbeSaid::Right } else { ProbeSaid::Ended };
        self.settle_probe(tick, (key, id), (said, verdict));
    }

    pub(crate) fn handle_probe_reply(&mut self, tick: &mut Tick<'_>, (key, id): ClusterProbe, bytes: &[u8]) {
        let checker = &mut self.world.clusters[key].probing.checker;
        let verdict = checker.handle_reply(id, bytes);
        let said = if checker.succeeded() { ProbeSaid::Right } else { ProbeSaid::Wrong(None) };
        self.settle_probe(tick, (key, id), (said, verdict));
    }

    /// The probe's socket could not be opened, and is gone. A lack of our own says nothing about the backend.
    pub(crate) fn handle_probe_failed(&mut self, tick: &mut Tick<'_>, (key, id): ClusterProbe, error: OpenError) {
        let checker = &mut self.world.clusters[key].probing.checker;
        let (said, verdict) = match error {
            OpenError::Unreachable => (ProbeSaid::Unreachable, checker.handle_failed(id)),
            OpenError::NoDescriptors | OpenError::NoPorts | OpenError::Other => {
                checker.handle_skipped(id);
                (ProbeSaid::Unsent, None)
            }
        };
        self.settle_probe(tick, (key, id), (said, verdict));
    }

    pub(crate) fn handle_probe_unreachable(&mut self, tick: &mut Tick<'_>, (key, id): ClusterProbe) {
        let verdict = self.world.clusters[key].probing.checker.handle_failed(id);
        self.settle_probe(tick, (key, id), (ProbeSaid::Unreachable, verdict));
    }

    /// The TLS handshake of a stream that is probed came to nothing.
    pub(crate) fn handle_probe_unsecured(&mut self, tick: &mut Tick<'_>, (key, id): ClusterProbe, error: String) {
        let verdict = self.world.clusters[key].probing.checker.handle_failed(id);
        self.settle_probe(tick, (key, id), (ProbeSaid::Unsecured(error), verdict));
    }

    /// A probe is over.
    fn settle_probe(
        &mut self,
        tick: &mut Tick<'_>,
        (key, id): ClusterProbe,
        (said, verdict): (ProbeSaid, Option<Verdict<BackendKey>>),
    ) {
        let asked = self.close_probe(tick, (key, id));
        match (self.world.clusters[key].candidate, asked) {
            (Some(number), Some(asked)) => self.tell_probed(tick, (key, number), asked, said),
            (Some(_), None) => {}
            (None, _) => {
                if let Some(verdict) = verdict {
                    self.pronounce(tick, key, verdict, Some(said));
                }
            }
        }
        self.arm_probes(key);
    }

    fn close_probe(&mut self, tick: &mut Tick<'_>, (key, id): ClusterProbe) -> Option<Asked> {
        let asked = self.world.clusters[key].probing.sockets.remove(&id)?;
        self.world.close(tick, asked.socket);
        Some(asked)
    }

    /// Act on a verdict, and have the other workers told.
    fn pronounce(
        &mut self,
        tick: &mut Tick<'_>,
        key: ClusterKey,
        verdict: Verdict<BackendKey>,
        said: Option<ProbeSaid>,
    ) {
        let cluster = &self.world.clusters[key];
        let Some(backend) = cluster.backends.get(verdict.backend) else { return };
        let health = BackendHealth {
            cluster: cluster.spec.name.clone(),
            backend: backend.spec.name.clone(),
            address: backend.spec.address.clone(),
            up: verdict.up,
            why: said.filter(|_| !verdict.up),
        };
        self.take_verdict(tick, &health);
        tick.ask(Op::Notice(Notice::Health(health)));
    }

    pub(crate) fn arm_probes(&mut self, key: ClusterKey) {
        let world = &mut self.world;
        let Some(cluster) = world.clusters.get_mut(key) else { return };
        let probing = &mut cluster.probing;
        match (probing.timer, probing.checker.next_deadline()) {
            (Some(timer), Some(at)) => world.timers.rearm(timer, at, Due::Probes(key)),
            (None, Some(at)) => probing.timer = Some(world.timers.arm(at, Due::Probes(key))),
            (Some(timer), None) => {
                world.timers.cancel(timer);
                probing.timer = None;
            }
            (None, None) => {}
        }
    }

    /// The worker drains: nothing is probed any more.
    pub(crate) fn stop_probes(&mut self, tick: &mut Tick<'_>) {
        let keys: Vec<ClusterKey> = self.world.clusters.keys().collect();
        for key in keys {
            let probing = &mut self.world.clusters[key].probing;
            let changes = probing.checker.reconfigure(tick.now, None, [], &mut self.world.rng);
            for probe in changes.closed {
                let _ = self.close_probe(tick, (key, probe));
            }
            self.arm_probes(key);
        }
    }

    /// The network says that a flow's backend can't be reached.
    pub(crate) fn note_unreachable(&mut self, tick: &mut Tick<'_>, id: FlowId) {
        if let Some((cluster, backend)) = self.datagrams.backend_of(id) {
            self.note_unreachable_backend(tick, cluster, backend);
        }
    }

    /// The same about an address, where no one flow is concerned.
    pub(crate) fn note_unreachable_address(&mut self, tick: &mut Tick<'_>, key: ClusterKey, address: SocketAddr) {
        let mut backends = self.world.clusters[key].backends.iter();
        let found = backends.find(|(_, live)| live.spec.address.ip() == Some(address)).map(|(backend, _)| backend);
        if let Some(backend) = found {
            self.note_unreachable_backend(tick, key, backend);
        }
    }

    fn note_unreachable_backend(&mut self, tick: &mut Tick<'_>, key: ClusterKey, backend: BackendKey) {
        // What is told of a flow that ended may be about one that was removed since.
        let live = self.world.clusters.get_mut(key).and_then(|cluster| cluster.backends.get_mut(backend));
        let Some(live) = live else { return };
        live.values[BackendMetric::Unreachable] += 1;
        self.note_failure(tick, (key, backend));
    }

    /// A connection to a backend could not be opened.
    pub(crate) fn note_connect_failed(&mut self, tick: &mut Tick<'_>, place: (ClusterKey, BackendKey)) {
        self.note_failure(tick, place);
    }

    /// A connection to a backend was opened.
    pub(crate) fn note_connected(&mut self, (key, backend): (ClusterKey, BackendKey)) {
        self.world.clusters[key].backends[backend].passive.handle_success();
    }

    /// Something went wrong with live traffic of a backend: enough of it in a row eject it. Where a cluster fails open
    /// its last backend stays: to leave it would be to use it all the same.
    fn note_failure(&mut self, tick: &mut Tick<'_>, (key, backend): (ClusterKey, BackendKey)) {
        let cluster = &mut self.world.clusters[key];
        let Some(health) = &cluster.spec.health else { return };
        let Some(check) = health.passive.clone() else { return };
        let others = cluster.backends.iter().filter(|(other, _)| *other != backend);
        let is_last = !others.into_iter().any(|(_, live)| live.is_member() && live.is_up(tick.now));
        if health.fail_open && is_last {
            return;
        }
        let live = &mut cluster.backends[backend];
        if let Some(until) = live.passive.handle_error(tick.now, &check) {
            let (name, of) = (live.spec.name.clone(), cluster.spec.name.clone());
            tick.ask(Op::Notice(Notice::Ejected { cluster: of, backend: name, for_: until - tick.now }));
            cluster.rebuild(tick.now);
            self.world.arm_review(tick.now, key);
            self.leave_backend(tick, (key, backend), false);
            // Others may take its place.
            self.stir();
        }
    }
}
