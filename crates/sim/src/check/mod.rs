//! The checkers: they see every datagram that goes into and comes out of every worker, know who sent it and why, and
//! say where that breaks the contract of flows. Independent of the proxy: nothing here reads what the proxy counts but
//! to compare it with its own account.

mod backward;
pub(crate) mod flows;
mod forward;
mod ledger;
mod records;
mod stats;
mod terms;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use kakei_config::{Document, Name, SendProxyProtocol};
use kakei_proxy::limits::{EVENTS_PER_STEP, SWEPT_PER_STEP, TIMERS_PER_STEP};
use kakei_proxy::seam::{BindKey, Command, Event, Instant};
use kakei_wire::proxy_protocol::v2;

use self::flows::Flows;
pub(crate) use self::ledger::Ledger;
use self::stats::ListenerAccount;
use self::terms::Generation;
use crate::machine::{Batch, Kind, Outgoing, Stepped};
use crate::report::Violation;

/// Beyond this many the run is over anyway.
const VIOLATIONS: usize = 20;
/// A tick of the proxy's timers.
pub(crate) const TICK: Duration = Duration::from_millis(2);

/// What is known about one worker.
#[derive(Debug, Default)]
struct WorkerTruth {
    /// Which generation it ran from when on.
    generations: Vec<(Instant, usize)>,
    /// The generation that this step publishes.
    publishing: Option<usize>,
    owners: BTreeMap<BindKey, Name>,
    draining: Option<Instant>,
    restored: bool,
    /// Whether the last step was cut short by a budget, with what was due left over.
    behind: bool,
    steps: u64,
    /// Requests given in this step to a live flow, which must go on.
    must_forward: Vec<(u64, usize)>,
    /// Answers given in this step to a live flow, which must be returned.
    must_return: Vec<(u64, usize)>,
    /// How many empty replies this step was given.
    empties_given: u32,
    /// Front sockets may close in this step, with what it brings them.
    changing: bool,
    /// Flows that were given an empty reply in this step.
    empty_replies: VecDeque<usize>,
    /// Sends that failed and that the worker was not told of yet.
    untold: VecDeque<Untold>,
    /// Of those that it was told of, the datagrams of which it may not know any more whose they were.
    orphaned: u64,
}

/// A datagram that was not sent.
#[derive(Clone, Copy, Debug)]
enum Untold {
    /// Of this flow, to its backend; whether that ended it, and nothing else did.
    Forward(usize, bool),
    /// The same, to its client.
    Return(usize, bool),
    /// Whose it was can't be told, or it was nobody's.
    Other,
}

/// The independent account of a run.
#[derive(Debug)]
pub(crate) struct Truth {
    pub(crate) ledger: Ledger,
    pub(crate) flows: Flows,
    pub(crate) violations: Vec<Violation>,
    pub(crate) counters: Counters,
    pub(crate) calm: bool,
    workers: Vec<WorkerTruth>,
    generations: Vec<Generation>,
    accounts: BTreeMap<(u16, Name), ListenerAccount>,
    /// Which backend an affinity went to, by cluster as it was configured.
    chosen: BTreeMap<Vec<u8>, std::net::SocketAddr>,
    sequence: u64,
    now: Instant,
    pub(crate) tick: Duration,
}

/// What happened, counted by the checkers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Client datagrams that workers were given.
    pub requests_received: u64,
    /// Client datagrams that went out to backends.
    pub requests_forwarded: u64,
    /// Backend datagrams that workers were given.
    pub replies_received: u64,
    /// Backend datagrams that went out to clients.
    pub replies_returned: u64,
    /// Sends that failed.
    pub sends_failed: u64,
    /// Flows that were seen to open.
    pub flows_opened: u64,
    /// Records of flows that ended.
    pub flows_recorded: u64,
    /// Flows that went over to another backend.
    pub flows_moved: u64,
    /// Generations published to all workers.
    pub changes: u64,
    /// Workers replaced by what another wrote down.
    pub restores: u64,
    /// Steps of all workers.
    pub steps: u64,
    /// Health probes seen by backends.
    pub probes: u64,
    /// Probes of what was not published yet, and backends that were published before they had passed.
    pub candidates_probed: u64,
    /// See there.
    pub doubted: u64,
    /// Sockets that could not be opened.
    pub open_failures: u64,
    /// ICMP errors delivered.
    pub unreachable: u64,
}

impl Truth {
    pub(crate) fn new(workers: u16, calm: bool, lateness: Duration) -> Self {
        Truth {
            ledger: Ledger::default(),
            flows: Flows::default(),
            violations: Vec::new(),
            counters: Counters::default(),
            calm,
            workers: (0..workers).map(|_| WorkerTruth::default()).collect(),
            generations: Vec::new(),
            accounts: BTreeMap::new(),
            chosen: BTreeMap::new(),
            sequence: 0,
            now: Instant::ZERO,
            tick: TICK + lateness,
        }
    }

    /// The contract is broken.
    pub(crate) fn violated(&mut self, worker: Option<u16>, what: String) {
        if self.violations.len() < VIOLATIONS {
            self.violations.push(Violation { at: self.now, worker, what });
        }
    }

    /// A generation is about to be published.
    pub(crate) fn generation(&mut self, document: &Document) {
        self.generations.push(Generation::new(document));
        self.is_probed(document);
    }

    /// What is probed from now on may be this document's.
    pub(crate) fn is_probed(&mut self, document: &Document) {
        for cluster in document.clusters.values() {
            if let Some(check) = cluster.health.as_ref().and_then(|health| health.udp.as_ref()) {
                let answer = match &check.expect {
                    kakei_config::Expect::Any => b"alive".to_vec(),
                    kakei_config::Expect::Exact(bytes) => bytes.clone(),
                    kakei_config::Expect::Prefix(bytes) => [bytes.as_slice(), b"..."].concat(),
                };
                // One that leads to another port than its backend's begins with no header.
                if cluster.udp.send_proxy_protocol == SendProxyProtocol::Off || check.port.is_some() {
                    self.ledger.probes.insert(check.send.clone(), answer.clone());
                }
                if cluster.udp.send_proxy_protocol != SendProxyProtocol::Off {
                    let mut header = [0; v2::MAX_EMITTED];
                    let len = v2::emit_local(&mut header);
                    self.ledger.probes.insert([&header[..len], &check.send].concat(), answer);
                }
            }
        }
    }

    /// The worker was told to drain.
    pub(crate) fn drains(&mut self, worker: u16) {
        self.workers[usize::from(worker)].draining.get_or_insert(self.now);
    }

    /// The worker was replaced by one that goes on.
    pub(crate) fn restored(&mut self, worker: u16) {
        self.counters.restores += 1;
        for untold in std::mem::take(&mut self.workers[usize::from(worker)].untold) {
            if let Untold::Forward(at, _) = untold {
                self.flows.all[at].fuzzy = true;
            }
        }
        self.workers[usize::from(worker)].restored = true;
    }

    /// The worker answered that it runs this generation.
    pub(crate) fn published(&mut self, worker: u16, generation: u64) {
        let at = &mut self.workers[usize::from(worker)];
        if at.publishing != Some(generation as usize) {
            self.violated(Some(worker), format!("runs generation {generation}, which it was not given"));
        }
    }

    fn current_generation(&self, worker: u16) -> Option<usize> {
        self.workers[usize::from(worker)].generations.last().map(|(_, generation)| *generation)
    }

    /// A step begins: what the worker is given.
    pub(crate) fn step_begins(&mut self, worker: u16, now: Instant, batch: &Batch, publishing: Option<u64>) {
        self.now = now;
        let truth = &mut self.workers[usize::from(worker)];
        truth.publishing = publishing.map(|generation| generation as usize);
        truth.must_forward.clear();
        truth.must_return.clear();
        truth.empty_replies.clear();
        truth.empties_given = 0;
        truth.steps += 1;
        self.counters.steps += 1;
        if batch.events.len() > EVENTS_PER_STEP {
            self.violated(Some(worker), "the machine handed over too many events".into());
        }
        self.told_of_failures(worker, batch);
        // The machine hands commands over before datagrams.
        if let Some(generation) = publishing {
            self.adopt_generation(worker, generation as usize);
        }
        let ends = |event: &Event| matches!(event, Event::Command { command: Command::Drain { .. }, .. });
        let truth = &mut self.workers[usize::from(worker)];
        truth.changing = publishing.is_some() || truth.draining.is_some() || batch.events.iter().any(ends);
        for given in &batch.given {
            match given.kind {
                Kind::Front(bind) => self.received(worker, bind, given),
                _ => self.reply_received(worker, given),
            }
        }
    }

    /// The worker is told of sends that failed: it takes them back, unless their flow's cap was reached by them. It
    /// knows whose they were also where their flow ended by them.
    fn told_of_failures(&mut self, worker: u16, batch: &Batch) {
        for event in &batch.events {
            let Event::SendFailed { datagrams, .. } = event else { continue };
            for _ in 0..*datagrams {
                let truth = &mut self.workers[usize::from(worker)];
                let untold = truth.untold.pop_front().unwrap_or(Untold::Other);
                let is_known = match untold {
                    Untold::Forward(at, ended_it) => {
                        let flow = &mut self.flows.all[at];
                        flow.counted -= u64::from(!flow.spent);
                        ended_it && self.goes_on(worker, at)
                    }
                    Untold::Return(at, ended_it) => {
                        let flow = &mut self.flows.all[at];
                        flow.taken_back += u64::from(flow.closed.is_none());
                        ended_it && self.goes_on(worker, at)
                    }
                    Untold::Other => false,
                };
                self.workers[usize::from(worker)].orphaned += u64::from(!is_known);
            }
        }
    }

    /// Whether what a flow stands on is as it was.
    fn goes_on(&self, worker: u16, at: usize) -> bool {
        let flow = &self.flows.all[at];
        let Some(generation) = self.current_generation(worker).map(|at| &self.generations[at]) else { return false };
        let listener = generation.document.listeners.get(&flow.listener);
        listener.is_some_and(|listener| listener.bind.contains(&flow.key.bind))
            && generation.cluster(&flow.terms.cluster).is_some()
            && self.workers[usize::from(worker)].draining.is_none()
    }

    fn adopt_generation(&mut self, worker: u16, generation: usize) {
        let truth = &mut self.workers[usize::from(worker)];
        truth.generations.push((self.now, generation));
        let document = &self.generations[generation].document;
        for (name, listener) in &document.listeners {
            for &address in &listener.bind {
                let bind = BindKey { transport: kakei_proxy::seam::Transport::Udp, address };
                truth.owners.insert(bind, name.clone());
            }
        }
    }

    /// A datagram went onto the wire.
    pub(crate) fn sent(&mut self, worker: u16, outgoing: &Outgoing) {
        if outgoing.front {
            self.returned(worker, outgoing, true);
        } else {
            self.forwarded(worker, outgoing, true);
        }
    }

    /// A datagram did not go onto the wire, and the worker will be told.
    pub(crate) fn not_sent(&mut self, worker: u16, outgoing: &Outgoing) {
        self.counters.sends_failed += 1;
        if outgoing.front {
            self.returned(worker, outgoing, false);
        } else {
            self.forwarded(worker, outgoing, false);
        }
    }

    /// A step is over.
    pub(crate) fn step_ends(&mut self, worker: u16, given: usize, stepped: &Stepped) {
        let truth = &mut self.workers[usize::from(worker)];
        let (forwards, returns) = (std::mem::take(&mut truth.must_forward), std::mem::take(&mut truth.must_return));
        let budget = 4 * given + 3 * (TIMERS_PER_STEP + SWEPT_PER_STEP) + 64;
        truth.behind = stepped.wake == Some(self.now);
        for (id, flow) in forwards {
            self.check_forwarded(worker, id, flow);
        }
        for (id, flow) in returns {
            self.check_returned(worker, id, flow);
        }
        if stepped.ops > budget {
            self.violated(Some(worker), format!("{} operations in a step that was given {given}", stepped.ops));
        }
        if self.workers[usize::from(worker)].steps.is_multiple_of(16) {
            self.check_deadlines(worker, stepped.wake);
        }
    }

    /// No flow outlives its deadlines, and the worker asks to be called in time.
    fn check_deadlines(&mut self, worker: u16, wake: Option<Instant>) {
        if self.workers[usize::from(worker)].behind {
            return;
        }
        let late = self.flows.keys.range((worker, lowest())..).take_while(|((w, _), _)| *w == worker);
        let live = late.flat_map(|(_, state)| state.flows.iter().copied());
        let mut found = Vec::new();
        for at in live {
            let flow = &self.flows.all[at];
            let end = flow.latest_end();
            if flow.fuzzy || !self.is_certain(at) {
                continue;
            }
            if end + self.tick < self.now {
                found.push(format!("flow {at} of {} outlives its deadline {end:?}", flow.key.peer));
            } else if wake.is_none_or(|wake| wake > end + TICK && wake > self.now) {
                found.push(format!("flow {at} of {} ends at {end:?}, but the wake-up is {wake:?}", flow.key.peer));
            }
        }
        for what in found {
            self.violated(Some(worker), what);
        }
    }

    /// After everything: nothing may be left.
    pub(crate) fn ends(&mut self, now: Instant) {
        self.now = now;
        let left = self
            .flows
            .all
            .iter()
            .enumerate()
            .filter(|(at, flow)| flow.closed.is_none() && self.calm && self.is_certain(*at));
        let left: Vec<String> = left
            .map(|(at, flow)| format!("flow {at} of {} in worker {} never ended", flow.key.peer, flow.worker))
            .collect();
        for what in left {
            self.violated(None, what);
        }
    }
}

fn lowest() -> flows::Key {
    let zero = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
    flows::Key { bind: zero, peer: zero, local: zero, client: zero, dialled: zero }
}
