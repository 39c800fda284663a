//! When to probe which backend of a cluster, and what the results mean. Opens nothing, sends nothing.
//!
//! Driven by its caller: [`Checker::poll`] until it has nothing more, again at [`Checker::next_deadline`]; for each
//! [`Probe`] the caller opens a socket to its remote address, sends [`Checker::payload`] (UDP) and says what happened
//! by one of the `handle_*`. A probe has ended when `handle_success` and the like were called for it, when `poll` says
//! that it expired, or when [`Changes::closed`] names it: then its socket is of no more use. What is said about a
//! probe that has ended does nothing.
//!
//! Every call costs O(log backends) but [`Checker::reconfigure`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use kakei_config::{Expect, Health};
use serde::{Deserialize, Serialize};

use super::{Signal, request};
use crate::seam::{Endpoint, Instant};

/// How a backend is probed. Each is a signal of its own; a backend is up while all that are configured are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// A datagram and the reply to it.
    Udp,
    /// A TCP connection.
    Tcp,
    /// A request and the response to it.
    Http,
}

impl Check {
    const ALL: [Check; 3] = [Check::Udp, Check::Tcp, Check::Http];
}

/// A backend to be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<K> {
    /// The caller's name for it; no two have the same.
    pub key: K,
    /// Where it is. Another address under the same key is another backend.
    pub address: Endpoint,
    /// Whether it is down until its checks say otherwise, where nothing is known of it.
    pub unproven: bool,
}

/// Names a probe; never used twice by one checker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProbeId(u64);

/// A probe to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe<K> {
    /// Its name.
    pub id: ProbeId,
    /// Which backend.
    pub backend: K,
    /// How.
    pub check: Check,
    /// Where: the backend's address with the check's port.
    pub remote: Endpoint,
}

/// A backend changed from up to down, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<K> {
    /// Which.
    pub backend: K,
    /// What it is now.
    pub up: bool,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<K> {
    /// Send this probe.
    Probe(Probe<K>),
    /// A probe was not answered in time.
    Expired {
        /// Which.
        probe: ProbeId,
        /// What changed by that.
        verdict: Option<Verdict<K>>,
    },
}

/// What a reconfiguration brought about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes<K> {
    /// Probes in flight that were given up.
    pub closed: Vec<ProbeId>,
    /// Backends that stayed and came up, because the check that held them down is gone.
    pub verdicts: Vec<Verdict<K>>,
}

/// A signal written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalState<K> {
    /// Of which backend.
    pub backend: K,
    /// Its address.
    pub address: Endpoint,
    /// Of which check.
    pub check: Check,
    /// The signal.
    pub signal: Signal,
}

/// Probes the backends of one cluster.
#[derive(Clone, Debug)]
pub struct Checker<K> {
    /// None: nothing is probed.
    health: Option<Box<Health>>,
    /// In the order of their keys.
    watched: Vec<Watched<K>>,
    /// One entry for each slot: its probe's deadline while one is in flight, else when the next one is due.
    timers: BTreeSet<(Instant, usize, Check)>,
    in_flight: BTreeMap<ProbeId, (usize, Check)>,
    /// What streams that are probed said so far.
    received: BTreeMap<ProbeId, Vec<u8>>,
    next_probe: u64,
    /// Whether the probe that ended last succeeded.
    succeeded: bool,
}

/// A backend and its slots, one for each [`Check`] that is configured.
#[derive(Clone, Debug)]
struct Watched<K> {
    target: Target<K>,
    slots: [Option<Slot>; Check::ALL.len()],
}

/// One kind of probe of one backend; at most one is in flight.
#[derive(Clone, Debug)]
struct Slot {
    signal: Signal,
    /// Whether a probe ever succeeded.
    passed: bool,
    remote: Endpoint,
    /// When the next probe is due.
    next: Instant,
    /// The probe in flight and its deadline.
    in_flight: Option<(ProbeId, Instant)>,
}

impl Slot {
    fn timer(&self) -> Instant {
        self.in_flight.map_or(self.next, |(_, deadline)| deadline)
    }
}

impl<K: Copy> Watched<K> {
    fn is_up(&self) -> bool {
        self.slots.iter().flatten().all(|slot| slot.signal.is_up())
    }

    /// What changed since it was `was_up`.
    fn verdict(&self, was_up: bool) -> Option<Verdict<K>> {
        let up = self.is_up();
        (up != was_up).then_some(Verdict { backend: self.target.key, up })
    }
}

impl<K> Default for Checker<K> {
    fn default() -> Self {
        Checker {
            health: None,
            watched: Vec::new(),
            timers: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            received: BTreeMap::new(),
            next_probe: 0,
            succeeded: false,
        }
    }
}

impl<K: Copy + Ord> Checker<K> {
    /// A checker that probes nothing until it is configured.
    pub fn new() -> Self {
        Checker::default()
    }

    /// The next thing to do; none: nothing until [`Checker::next_deadline`].
    pub fn poll(&mut self, now: Instant) -> Option<Action<K>> {
        let &(due, at, check) = self.timers.first()?;
        if due > now {
            return None;
        }
        match self.watched[at].slots[check as usize].as_ref()?.in_flight {
            Some((probe, _)) => Some(Action::Expired { probe, verdict: self.settle(probe, Some(false)) }),
            None => self.start(now, at, check).map(Action::Probe),
        }
    }

    /// When [`Checker::poll`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|&(due, _, _)| due)
    }

    /// The payload of UDP probes.
    pub fn payload(&self) -> &[u8] {
        self.health.as_ref().and_then(|health| health.udp.as_ref()).map_or(&[], |udp| &udp.send)
    }

    /// What is written to a stream that is probed; empty: nothing.
    pub fn stream_payload(&self) -> &[u8] {
        self.health.as_ref().and_then(|health| health.tcp.as_ref()).map_or(&[], |tcp| &tcp.send)
    }

    /// Whether a stream that is probed must say something before that is a success.
    pub fn expects_bytes(&self) -> bool {
        self.health.as_ref().and_then(|health| health.tcp.as_ref()).is_some_and(|tcp| tcp.expect.is_some())
    }

    /// Whether such a check speaks the TLS of its cluster: one that has a port of its own does if it says so.
    pub fn speaks_tls(&self, check: Check) -> bool {
        let Some(health) = &self.health else { return false };
        let of = |tls: Option<bool>, port: Option<u16>| tls.unwrap_or(port.is_none());
        match check {
            Check::Udp => false,
            Check::Tcp => health.tcp.as_ref().is_some_and(|check| of(check.tls, check.port)),
            Check::Http => health.http.as_ref().is_some_and(|check| of(check.tls, check.port)),
        }
    }

    /// What is asked of a backend that is probed by HTTP.
    pub fn request(&self, probe: &Probe<K>) -> Vec<u8> {
        let check = self.health.as_ref().and_then(|health| health.http.as_ref());
        check.map_or_else(Vec::new, |check| request::write(check, &probe.remote))
    }

    /// The backend sends nothing more. That is a failure, unless what it said says otherwise.
    pub fn handle_ended(&mut self, probe: ProbeId) -> Option<Verdict<K>> {
        let health = self.health.as_ref()?;
        let check = health.http.as_ref();
        let expects_silence = health
            .tcp
            .as_ref()
            .is_some_and(|tcp| matches!(&tcp.expect, Some(Expect::Exact(bytes)) if bytes.is_empty()));
        let received = self.received.get(&probe).map_or(&[][..], Vec::as_slice);
        let is_right = match (self.in_flight.get(&probe)?, check) {
            ((_, Check::Http), Some(check)) => request::judge(check, received, true) == Some(true),
            // That nothing is said can be what is expected.
            ((_, Check::Tcp), _) => expects_silence,
            _ => false,
        };
        self.settle(probe, Some(is_right))
    }

    /// Bytes came on a stream. The probe goes on while they are the beginning of what is expected.
    pub fn handle_bytes(&mut self, probe: ProbeId, bytes: &[u8]) -> Option<Verdict<K>> {
        if let (_, Check::Http) = self.in_flight.get(&probe)? {
            let check = self.health.as_ref()?.http.as_ref()?;
            let received = self.received.entry(probe).or_default();
            received.extend_from_slice(bytes);
            let is_right = request::judge(check, received, false)?;
            return self.settle(probe, Some(is_right));
        }
        let (_, Check::Tcp) = self.in_flight.get(&probe)? else { return None };
        let (expected, is_exact) = match self.health.as_ref()?.tcp.as_ref()?.expect.as_ref() {
            None | Some(Expect::Any) => (&[][..], false),
            Some(Expect::Exact(bytes)) => (&bytes[..], true),
            Some(Expect::Prefix(bytes)) => (&bytes[..], false),
        };
        let received = self.received.entry(probe).or_default();
        let missing = expected.len() - received.len().min(expected.len());
        received.extend_from_slice(&bytes[..bytes.len().min(missing)]);
        let (is_right, is_whole) = (expected.starts_with(received), received.len() >= expected.len());
        if is_right && !is_whole {
            return None;
        }
        // What comes later isn't waited for; what came with it is more than was expected.
        let is_more = is_exact && bytes.len() > missing;
        self.settle(probe, Some(is_right && !is_more))
    }

    /// A probe's socket is open. That is all a TCP probe asks for, and nothing yet for a UDP one.
    pub fn handle_opened(&mut self, probe: ProbeId) -> Option<Verdict<K>> {
        match self.in_flight.get(&probe)? {
            (_, Check::Tcp) => self.settle(probe, Some(true)),
            (_, Check::Udp | Check::Http) => None,
        }
    }

    /// A datagram came back. It ends a UDP probe: well, or badly where it isn't what was expected.
    pub fn handle_reply(&mut self, probe: ProbeId, bytes: &[u8]) -> Option<Verdict<K>> {
        let (_, Check::Udp) = self.in_flight.get(&probe)? else { return None };
        let expected = match &self.health.as_ref()?.udp.as_ref()?.expect {
            Expect::Any => true,
            Expect::Exact(whole) => bytes == whole,
            Expect::Prefix(prefix) => bytes.starts_with(prefix),
        };
        self.settle(probe, Some(expected))
    }

    /// The backend can't be reached: refused, no route, an ICMP error.
    pub fn handle_failed(&mut self, probe: ProbeId) -> Option<Verdict<K>> {
        self.settle(probe, Some(false))
    }

    /// The probe was never sent for a reason of our own (no descriptor, no port): it says nothing about the backend.
    pub fn handle_skipped(&mut self, probe: ProbeId) {
        self.settle(probe, None);
    }

    /// Whether the probe that ended last did so well.
    pub fn succeeded(&self) -> bool {
        self.succeeded
    }

    /// Whether every check of a backend has succeeded once.
    pub fn has_passed(&self, backend: K) -> bool {
        let passed = |at: usize| self.watched[at].slots.iter().flatten().all(|slot| slot.passed);
        self.find(backend).is_some_and(passed)
    }

    /// Have the next probes of all come within this time, evenly spread: for one that was configured just now.
    pub fn hasten(&mut self, now: Instant, within: Duration) {
        let all = self.timers.len().max(1) as u64;
        let gap = within.as_nanos() as u64 / all;
        let mut turn = now;
        for (at, watched) in self.watched.iter_mut().enumerate() {
            for (check, slot) in Check::ALL.into_iter().zip(&mut watched.slots) {
                let Some(slot) = slot.as_mut().filter(|slot| slot.in_flight.is_none()) else { continue };
                self.timers.remove(&(slot.timer(), at, check));
                slot.next = slot.next.min(turn);
                self.timers.insert((slot.timer(), at, check));
                turn = turn + Duration::from_nanos(gap);
            }
        }
    }

    /// Whether a backend is up; none: it isn't known here.
    pub fn is_up(&self, backend: K) -> Option<bool> {
        self.find(backend).map(|at| self.watched[at].is_up())
    }

    /// The probe of this name, while it is in flight.
    pub fn probe(&self, id: ProbeId) -> Option<Probe<K>> {
        let &(at, check) = self.in_flight.get(&id)?;
        let watched = &self.watched[at];
        let remote = watched.slots[check as usize].as_ref()?.remote.clone();
        Some(Probe { id, backend: watched.target.key, check, remote })
    }

    /// Every signal, to be written down. Probes in flight aren't: a restored checker sends new ones.
    pub fn signals(&self) -> impl Iterator<Item = SignalState<K>> + '_ {
        self.watched.iter().flat_map(|watched| {
            let Target { key: backend, address, .. } = &watched.target;
            let slot = |check| watched.slots[check as usize].as_ref();
            Check::ALL.into_iter().filter_map(move |check| {
                slot(check).map(|slot| SignalState {
                    backend: *backend,
                    address: address.clone(),
                    check,
                    signal: slot.signal,
                })
            })
        })
    }

    /// Take over a signal that was written down, where its backend is still at that address and checked that way.
    pub fn restore(&mut self, state: SignalState<K>) {
        let Some(at) = self.find(state.backend) else { return };
        let watched = &mut self.watched[at];
        if let (true, Some(slot)) = (watched.target.address == state.address, &mut watched.slots[state.check as usize])
        {
            slot.signal = state.signal;
        }
    }

    /// Go over to these checks of these backends. A backend that stays (same key, same address) keeps its signals,
    /// its turn, and its probe in flight unless that probe would be another one now. The first probes of new
    /// backends are spread evenly over the interval.
    pub fn reconfigure(
        &mut self,
        now: Instant,
        health: Option<&Health>,
        targets: impl IntoIterator<Item = Target<K>>,
        rng: &mut fastrand::Rng,
    ) -> Changes<K> {
        let mut changes = Changes { closed: Vec::new(), verdicts: Vec::new() };
        let same_udp = self.health.as_ref().map(|h| &h.udp) == health.map(|h| &h.udp);
        let same_tcp = self.health.as_ref().map(|h| &h.tcp) == health.map(|h| &h.tcp);
        let same_http = self.health.as_ref().map(|h| &h.http) == health.map(|h| &h.http);
        let old = std::mem::take(&mut self.watched);
        let mut old: BTreeMap<K, Watched<K>> = old.into_iter().map(|watched| (watched.target.key, watched)).collect();
        let targets: BTreeMap<K, Target<K>> = targets.into_iter().map(|target| (target.key, target)).collect();
        for target in targets.into_values() {
            let is_same = |kept: &&mut Watched<K>| kept.target.address == target.address;
            let mut kept = old.get_mut(&target.key).filter(is_same);
            let was_up = kept.as_ref().map(|kept| kept.is_up());
            let slots = Check::ALL.map(|check| {
                let remote = remote(health?, check, &target.address)?;
                let slot = kept.as_mut().and_then(|kept| kept.slots[check as usize].take());
                let mut slot = slot.unwrap_or_else(|| Slot::fresh(remote.clone(), !target.unproven));
                let is_same = match check {
                    Check::Udp => same_udp,
                    Check::Tcp => same_tcp,
                    Check::Http => same_http,
                };
                if slot.remote != remote || !is_same {
                    changes.closed.extend(slot.in_flight.take().map(|(probe, _)| probe));
                    slot.remote = remote;
                }
                Some(slot)
            });
            let watched = Watched { target, slots };
            changes.verdicts.extend(was_up.and_then(|was_up| watched.verdict(was_up)));
            self.watched.push(watched);
        }
        let gone = old.values().flat_map(|watched| watched.slots.iter().flatten());
        changes.closed.extend(gone.filter_map(|slot| slot.in_flight).map(|(probe, _)| probe));
        self.health = health.cloned().map(Box::new);
        self.schedule(now, rng);
        changes
    }

    /// Give the slots that have none a first turn, and index all of them.
    fn schedule(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        let interval = self.health.as_ref().map_or(Duration::ZERO, |health| health.interval);
        let slots = || self.watched.iter().flat_map(|watched| watched.slots.iter().flatten());
        let fresh = slots().filter(|slot| slot.next == Instant::FAR).count() as u64;
        // Nanoseconds between two first turns, and where in that gap all of them lie.
        let gap = interval.as_nanos() as u64 / fresh.max(1);
        let mut turn = now + Duration::from_nanos(rng.u64(..=gap));
        self.timers.clear();
        self.in_flight.clear();
        let in_flight = self.watched.iter().flat_map(|watched| watched.slots.iter().flatten());
        let in_flight: BTreeSet<ProbeId> =
            in_flight.filter_map(|slot| slot.in_flight.map(|(probe, _)| probe)).collect();
        self.received.retain(|probe, _| in_flight.contains(probe));
        for (at, watched) in self.watched.iter_mut().enumerate() {
            for (check, slot) in Check::ALL.into_iter().zip(&mut watched.slots) {
                let Some(slot) = slot else { continue };
                if slot.next == Instant::FAR {
                    slot.next = turn;
                    turn = turn + Duration::from_nanos(gap);
                }
                // The interval may have become shorter.
                slot.next = slot.next.min(now + interval);
                self.timers.insert((slot.timer(), at, check));
                self.in_flight.extend(slot.in_flight.map(|(probe, _)| (probe, (at, check))));
            }
        }
    }

    fn start(&mut self, now: Instant, at: usize, check: Check) -> Option<Probe<K>> {
        let health = self.health.as_ref()?;
        let slot = self.watched[at].slots[check as usize].as_mut()?;
        let id = ProbeId(self.next_probe);
        self.next_probe += 1;
        self.timers.remove(&(slot.timer(), at, check));
        slot.next = following(slot.next, now, health.interval);
        slot.in_flight = Some((id, now + health.timeout));
        self.timers.insert((slot.timer(), at, check));
        self.in_flight.insert(id, (at, check));
        self.probe(id)
    }

    /// End a probe with a success, a failure, or nothing said.
    fn settle(&mut self, probe: ProbeId, success: Option<bool>) -> Option<Verdict<K>> {
        self.received.remove(&probe);
        let (at, check) = self.in_flight.remove(&probe)?;
        let health = self.health.as_ref()?;
        let watched = &mut self.watched[at];
        let was_up = watched.is_up();
        let slot = watched.slots[check as usize].as_mut()?;
        self.timers.remove(&(slot.timer(), at, check));
        slot.in_flight = None;
        self.timers.insert((slot.timer(), at, check));
        self.succeeded = success == Some(true);
        slot.passed |= self.succeeded;
        match success {
            Some(true) => slot.signal.handle_success(health.rise),
            Some(false) => slot.signal.handle_failure(health.fall),
            None => None,
        };
        watched.verdict(was_up)
    }

    fn find(&self, backend: K) -> Option<usize> {
        self.watched.binary_search_by_key(&backend, |watched| watched.target.key).ok()
    }
}

impl Slot {
    /// A slot whose first turn isn't set yet.
    fn fresh(remote: Endpoint, up: bool) -> Self {
        Slot { signal: Signal::of(up), passed: false, remote, next: Instant::FAR, in_flight: None }
    }
}

/// Where a check of the backend at `address` goes; none: that check isn't configured.
fn remote(health: &Health, check: Check, address: &Endpoint) -> Option<Endpoint> {
    let port = match check {
        Check::Udp => health.udp.as_ref()?.port,
        Check::Tcp => health.tcp.as_ref()?.port,
        Check::Http => health.http.as_ref()?.port,
    };
    match (address, check) {
        (Endpoint::Ip(ip), _) => Some(SocketAddr::new(ip.ip(), port.unwrap_or(ip.port())).into()),
        (Endpoint::Unix(_), Check::Tcp | Check::Http) => Some(address.clone()),
        (Endpoint::Unix(_), Check::Udp) => None,
    }
}

/// The turn after the one that was due at `due`, later than `now`. A caller that came late keeps the turns spread:
/// those it missed are left out.
fn following(due: Instant, now: Instant, interval: Duration) -> Instant {
    let interval = (interval.as_nanos() as u64).max(1);
    let missed = (now - due).as_nanos() as u64 / interval;
    due + Duration::from_nanos(interval.saturating_mul(missed + 1))
}
