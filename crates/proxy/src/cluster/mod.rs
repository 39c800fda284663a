//! A cluster as it lives in a worker: its backends, the balancer over those that take work, its shared sockets.
//! Protocol-neutral; it holds no flow and sends nothing.

mod backend;
mod budget;
mod pool;
mod probing;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use kakei_config::{Balance, Name};
use slotmap::SlotMap;

pub(crate) use self::backend::{BackendKey, LiveBackend};
pub(crate) use self::budget::Budget;
pub(crate) use self::pool::{Lease, Pool, Rest, Seat};
pub(crate) use self::probing::{Asked, Probing};
use crate::balance::{Balancer, Member};
use crate::health::{self, Passive};
use crate::seam::{BackendHealth, Instant};
use crate::snapshot::Cluster;
use crate::stats::{ClusterMetric, ClusterStats, DropReason, Drops, Times, Values};
use crate::timers::TimerKey;

slotmap::new_key_type! {
    /// A live cluster; carries a generation.
    pub(crate) struct ClusterKey;
}

/// A cluster that is configured, or was and still has flows.
#[derive(Debug)]
pub(crate) struct LiveCluster {
    pub(crate) spec: Arc<Cluster>,
    /// Gone from the configuration.
    pub(crate) removed: bool,
    /// It is not configured, only probed: by this number.
    pub(crate) candidate: Option<u64>,
    pub(crate) backends: SlotMap<BackendKey, LiveBackend>,
    /// Those that take work, in the balancer's order.
    members: Vec<(BackendKey, Member)>,
    balancer: Balancer,
    /// Shared sockets, for IPv4 and IPv6 backends.
    pub(crate) pools: [Pool; 2],
    pub(crate) probing: Probing,
    /// When membership or weights change by themselves: an ejection ends, a slow start goes on.
    pub(crate) review: Option<TimerKey>,
    /// When idle shared sockets are given up.
    pub(crate) idle_pools: Option<TimerKey>,
    pub(crate) values: Values<{ ClusterMetric::COUNT }>,
    pub(crate) drops: Drops,
    /// How long requests took, where they are counted by themselves; none: there were none.
    pub(crate) times: Option<Box<Times>>,
    /// Further tries of requests that it may be burdened with.
    pub(crate) retries: Budget,
}

/// Backends that went by a change of the configuration, or came.
#[derive(Debug, Default)]
pub(crate) struct Reshaped {
    /// Whether anything is other than before.
    pub(crate) changed: bool,
    /// Whether connections to backends begin otherwise from now on: in another TLS or without, with a PROXY header or
    /// without.
    pub(crate) begins_otherwise: bool,
    /// Whether connections that wait for a request may do so for another time.
    pub(crate) waits_otherwise: bool,
    pub(crate) removed: Vec<BackendKey>,
    /// Those that are there again while something still lives on them.
    pub(crate) returned: Vec<BackendKey>,
}

impl LiveCluster {
    pub(crate) fn new(spec: Arc<Cluster>) -> Self {
        let balancer = Balancer::new(spec.balance, &[]);
        let mut cluster = LiveCluster {
            balancer,
            removed: false,
            candidate: None,
            backends: SlotMap::with_capacity_and_key(spec.backends.len()),
            members: Vec::new(),
            pools: [Pool::new(), Pool::new()],
            probing: Probing::default(),
            review: None,
            idle_pools: None,
            values: Values::default(),
            drops: Drops::default(),
            times: None,
            retries: Budget::default(),
            spec,
        };
        // What is there from the beginning is at its full weight: there is nothing to spare it from.
        cluster.adopt_backends(Instant::ZERO);
        cluster.rebuild(Instant::ZERO);
        cluster
    }

    /// Go over to `spec`: backends of the same name and address stay what they are.
    pub(crate) fn reshape(&mut self, now: Instant, spec: Arc<Cluster>) -> Reshaped {
        if !self.removed && Arc::ptr_eq(&self.spec, &spec) {
            return Reshaped::default();
        }
        if self.spec.balance != spec.balance {
            self.balancer = Balancer::new(spec.balance, &[]);
            self.members.clear();
        }
        self.removed = false;
        let begins_otherwise = self.spec.tls.as_ref().map(Arc::as_ptr) != spec.tls.as_ref().map(Arc::as_ptr)
            || self.spec.send_proxy_protocol != spec.send_proxy_protocol;
        let waits_otherwise = self.spec.http.idle_timeout != spec.http.idle_timeout;
        self.spec = spec;
        let removed = self.retire_backends();
        let returned = self.adopt_backends(now);
        self.rebuild(now);
        Reshaped { changed: true, begins_otherwise, waits_otherwise, removed, returned }
    }

    /// These backends came with what it is now, and have not passed yet.
    pub(crate) fn doubt(&mut self, now: Instant, doubted: &BTreeSet<Name>) {
        let meant = |live: &&mut LiveBackend| !live.removed && doubted.contains(&live.spec.name);
        for live in self.backends.values_mut().filter(meant) {
            (live.up, live.unproven) = (false, true);
        }
        self.rebuild(now);
    }

    /// The cluster is gone from the configuration.
    pub(crate) fn remove(&mut self, now: Instant) -> Reshaped {
        self.removed = true;
        let gone = Cluster { backends: Vec::new(), health: None, ..Cluster::clone(&self.spec) };
        self.spec = Arc::new(gone);
        let reshaped = Reshaped { changed: true, removed: self.retire_backends(), ..Reshaped::default() };
        self.rebuild(now);
        reshaped
    }

    fn retire_backends(&mut self) -> Vec<BackendKey> {
        let spec = Arc::clone(&self.spec);
        let is_gone = |live: &LiveBackend| {
            !live.removed && !spec.backends.iter().any(|b| b.name == live.spec.name && b.address == live.spec.address)
        };
        let gone: Vec<BackendKey> =
            self.backends.iter().filter(|(_, live)| is_gone(live)).map(|(key, _)| key).collect();
        for &key in &gone {
            self.backends[key].removed = true;
        }
        gone
    }

    /// Backends are what is configured. Those that had been removed.
    fn adopt_backends(&mut self, now: Instant) -> Vec<BackendKey> {
        let mut returned = Vec::new();
        for spec in &self.spec.backends {
            let same =
                |(_, live): &(_, &mut LiveBackend)| live.spec.name == spec.name && live.spec.address == spec.address;
            match self.backends.iter_mut().find(same) {
                Some((key, live)) => {
                    if live.removed {
                        live.revive(now);
                        returned.push(key);
                    }
                    live.spec = spec.clone();
                }
                None => {
                    self.backends.insert(LiveBackend::new(spec.clone(), now));
                }
            }
        }
        returned
    }

    /// Verdicts of checks that aren't there any more are none, and no ejection lasts longer than the checks allow.
    pub(crate) fn forget_verdicts(&mut self, now: Instant) {
        let health = self.spec.health.as_deref();
        let longest = health.and_then(|health| health.passive.as_ref()).map(|check| check.eject_max);
        for live in self.backends.values_mut() {
            if health.is_none() {
                (live.up, live.unproven) = (true, false);
            }
            match longest {
                Some(longest) => live.passive.limit(now, longest),
                None => live.passive = Passive::default(),
            }
        }
        self.rebuild(now);
    }

    /// Choose anew who takes work and with which weight, after anything that may change it.
    pub(crate) fn rebuild(&mut self, now: Instant) {
        let mut members = self.members_where(now, |live| live.is_up(now) && !live.spec.backup);
        if members.is_empty() {
            members = self.members_where(now, |live| live.is_up(now));
        }
        if members.is_empty() && self.spec.health.as_ref().is_none_or(|health| health.fail_open) {
            members = self.members_where(now, |live| !live.spec.backup);
            if members.is_empty() {
                members = self.members_where(now, |_| true);
            }
        }
        if members != self.members {
            self.members = members;
            let bare: Vec<Member> = self.members.iter().map(|(_, member)| *member).collect();
            self.balancer.rebuild(&bare);
        }
    }

    fn members_where(&self, now: Instant, takes: impl Fn(&LiveBackend) -> bool) -> Vec<(BackendKey, Member)> {
        let taking = self.backends.iter().filter(|(_, live)| live.is_member() && takes(live));
        let mut members: Vec<(BackendKey, Member)> = taking
            .map(|(key, live)| {
                let weight = health::effective_weight(live.spec.weight, live.up_for(now), self.spec.slow_start);
                (key, Member { identity: live.identity, weight })
            })
            .collect();
        // The order is part of what some balancers decide by: it must not depend on the history of this worker.
        members.sort_by(|(a, _), (b, _)| self.backends[*a].spec.name.cmp(&self.backends[*b].spec.name));
        members
    }

    /// When `rebuild` would choose otherwise, by the mere passing of time.
    pub(crate) fn review_at(&self, now: Instant) -> Option<Instant> {
        let times = self.backends.values().filter(|live| !live.removed).flat_map(|live| {
            let up_for = live.up_for(now);
            let step = health::next_step(up_for, self.spec.slow_start).map(|after| now.before(up_for) + after);
            [step, live.passive.ejected_until(now)]
        });
        times.flatten().min()
    }

    /// Those that were ejected, and whose time for that is over.
    pub(crate) fn returned(&self, now: Instant) -> Vec<BackendKey> {
        let is_back = |live: &LiveBackend| live.is_up(now) && live.passive.ended(now).is_some();
        self.backends.iter().filter(|(_, live)| is_back(live)).map(|(key, _)| key).collect()
    }

    /// The most connections to one backend, 0: as many as there are. As it is now, whatever it was when somebody began to
    /// wait: it is about the backend.
    pub(crate) fn connections_per_backend(&self) -> u32 {
        self.spec.tcp.connections_per_backend
    }

    /// Whether there is anyone to pick.
    pub(crate) fn takes_work(&self) -> bool {
        !self.members.is_empty()
    }

    /// The backend for work with this affinity.
    pub(crate) fn pick(&mut self, affinity: u64, rng: &mut fastrand::Rng) -> Option<BackendKey> {
        let (members, backends) = (&self.members, &self.backends);
        let at = self.balancer.pick(affinity, |index| backends[members[index].0].live, rng)?;
        Some(self.members[at].0)
    }

    /// Another backend than `not` for work with this affinity.
    pub(crate) fn pick_other(&mut self, not: BackendKey, affinity: u64, rng: &mut fastrand::Rng) -> Option<BackendKey> {
        self.choose(affinity, rng, |backend, _| backend != not)
    }

    /// The backend for work with this affinity, among those that `takes` names.
    pub(crate) fn choose(
        &mut self,
        affinity: u64,
        rng: &mut fastrand::Rng,
        takes: impl Fn(BackendKey, &LiveBackend) -> bool,
    ) -> Option<BackendKey> {
        let backends = &self.backends;
        let takes = |backend: BackendKey| takes(backend, &backends[backend]);
        if self.members.iter().all(|(backend, _)| takes(*backend)) {
            return self.pick(affinity, rng);
        }
        let (members, balance) = (&self.members, self.spec.balance);
        if balance == Balance::RoundRobin {
            let at = self.balancer.pick_in_turn(|at| takes(members[at].0))?;
            return Some(members[at].0);
        }
        // Rare, and these need no large table. Each looks at what the policy looks at: load, the affinity, or nothing.
        let rest: Vec<(BackendKey, Member)> = self.members.iter().filter(|(key, _)| takes(*key)).copied().collect();
        let bare: Vec<Member> = rest.iter().map(|(_, member)| *member).collect();
        let policy = match balance {
            Balance::Least | Balance::P2c => Balance::Least,
            Balance::RoundRobin | Balance::Random => Balance::Random,
            Balance::Hrw | Balance::Maglev => Balance::Hrw,
        };
        let at = Balancer::new(policy, &bare).pick(affinity, |index| backends[rest[index].0].live, rng)?;
        Some(rest[at].0)
    }

    /// Those that take work.
    pub(crate) fn members(&self) -> impl Iterator<Item = BackendKey> {
        self.members.iter().map(|(backend, _)| *backend)
    }

    /// Whether it is one of those.
    pub(crate) fn is_one(&self, backend: BackendKey) -> bool {
        self.members().any(|member| member == backend)
    }

    /// Whether a client that has been led to this backend before may go there again. That its weight is 0, or that it
    /// is a backup, keeps only others away.
    pub(crate) fn honours(&self, now: Instant, backend: BackendKey) -> bool {
        let is_there = |live: &LiveBackend| !live.removed && live.is_up(now);
        self.backends.get(backend).is_some_and(is_there) || self.is_one(backend)
    }

    /// The configured backend of that name.
    pub(crate) fn find(&self, name: &Name) -> Option<BackendKey> {
        self.backends.iter().find(|(_, live)| !live.removed && live.spec.name == *name).map(|(key, _)| key)
    }

    /// Take over a verdict of the active checks. Returns the backend if that changed anything.
    pub(crate) fn handle_health(&mut self, now: Instant, verdict: &BackendHealth) -> Option<BackendKey> {
        let key = self.find(&verdict.backend)?;
        let live = &mut self.backends[key];
        if live.up == verdict.up || live.spec.address != verdict.address {
            return None;
        }
        live.up = verdict.up;
        if verdict.up {
            live.up_since = now;
            live.unproven = false;
        }
        self.rebuild(now);
        Some(key)
    }

    /// The pool for backends of this address family.
    pub(crate) fn pool_mut(&mut self, backend: SocketAddr) -> &mut Pool {
        &mut self.pools[usize::from(backend.is_ipv6())]
    }

    /// Count dropped backend datagrams.
    pub(crate) fn drop(&mut self, reason: DropReason, datagrams: u32) {
        self.drops.0[reason as usize] += u64::from(datagrams);
    }

    /// Forget removed backends that nothing lives on.
    pub(crate) fn forget_backends(&mut self) {
        self.backends.retain(|_, live| !live.removed || !live.is_unused());
    }

    /// Nothing is left that would need this cluster.
    pub(crate) fn is_gone(&self) -> bool {
        self.removed && self.backends.is_empty() && self.pools.iter().all(|pool| pool.sockets() == 0)
    }

    pub(crate) fn stats(&self, now: Instant) -> ClusterStats {
        let mut values = self.values;
        values[ClusterMetric::SharedSockets] = self.pools.iter().map(Pool::sockets).sum::<usize>() as u64;
        let mut backends: Vec<_> = self.backends.values().map(|live| live.stats(now)).collect();
        backends.sort_by(|a, b| (&a.backend, &a.address).cmp(&(&b.backend, &b.address)));
        let times = self.times.clone();
        ClusterStats { cluster: self.spec.name.clone(), values, drops: self.drops, backends, times }
    }
}
