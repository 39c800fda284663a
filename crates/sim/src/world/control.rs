//! The control side: publishes generations to every worker, relays health, asks for counters, writes workers down and
//! restores them, drains. Its timing is the seed's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kakei_config::{Document, Name};
use kakei_proxy::seam::{
    BackendHealth, BindKey, Candidate, Command, Filter, Instant, Notice, Reply, Ticket, Transport,
};
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::state::WorkerState;

use super::candidates::Trial;
use super::{Happening, World};
use crate::documents::Author;
use crate::profile::Profile;

/// What a worker was asked.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    Publish(Arc<Snapshot>),
    Health(BackendHealth),
    Candidates(Vec<Candidate>),
    Stats,
    LastStats,
    Flows,
    State { restore: bool },
    Drain { within: Option<Duration> },
}

/// The control side.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) document: Document,
    author: Author,
    pub(super) shared: Shared,
    snapshot: Option<Arc<Snapshot>>,
    generation: u64,
    /// Workers that have not acknowledged the newest generation.
    unacknowledged: usize,
    /// What each worker runs.
    running: Vec<Option<Arc<Snapshot>>>,
    asked: BTreeMap<(usize, Ticket), Asked>,
    tickets: u64,
    /// Commands reach a worker in the order in which they were given.
    last_delivery: Vec<Instant>,
    pub(super) drained: BTreeMap<usize, Instant>,
    draining: bool,
    rng: Rng,
    /// A change that is tried out.
    pub(super) trial: Option<Trial>,
    /// Candidates so far, and those that worker 0 may tell of.
    pub(super) candidates: u64,
    pub(super) probing: BTreeSet<u64>,
    /// Backends that begin as down with what is published next.
    pub(super) doubted: BTreeMap<Name, BTreeSet<Name>>,
}

impl Control {
    pub(super) fn new(document: Document, author: Author, profile: &Profile, mut rng: Rng) -> Self {
        let workers = usize::from(profile.workers);
        Control {
            document,
            author,
            shared: Shared { workers: profile.workers, balance_seed: rng.u64(..) },
            snapshot: None,
            generation: 0,
            unacknowledged: 0,
            running: vec![None; workers],
            asked: BTreeMap::new(),
            tickets: 0,
            last_delivery: vec![Instant::ZERO; workers],
            drained: BTreeMap::new(),
            draining: false,
            rng,
            trial: None,
            candidates: 0,
            probing: BTreeSet::new(),
            doubted: BTreeMap::new(),
        }
    }
}

impl World {
    /// Compile the document and give it to every worker.
    pub(super) fn publish(&mut self) {
        let control = &mut self.control;
        control.generation += 1;
        let previous = control.snapshot.as_deref();
        let generation = Generation(control.generation);
        let mut snapshot = crate::compile(&control.document, generation, control.shared, previous);
        snapshot.doubted = std::mem::take(&mut control.doubted);
        let snapshot = Arc::new(snapshot);
        self.truth.generation(&control.document);
        self.backends.provide(&control.document);
        for listener in control.document.listeners.values() {
            for &address in &listener.bind {
                self.host.prepare(BindKey { transport: Transport::Udp, address });
            }
        }
        control.snapshot = Some(Arc::clone(&snapshot));
        control.unacknowledged = self.machines.len();
        self.truth.counters.changes += 1;
        for worker in 0..self.machines.len() {
            self.give(worker, Asked::Publish(Arc::clone(&snapshot)));
        }
    }

    /// Change the document, unless the last change is still under way or a bind is still being given up.
    pub(super) fn change(&mut self) {
        if self.control.draining {
            return;
        }
        if self.control.unacknowledged > 0 || self.control.trial.is_some() {
            return self.agenda.at(self.now + Duration::from_millis(7), Happening::Change);
        }
        let mut document = self.control.document.clone();
        let what = self.control.author.change(&mut document);
        self.trace.line(self.now, || format!("generation {}: {what}", self.control.generation + 1));
        if self.profile.candidates {
            return self.try_out(document);
        }
        self.control.document = document;
        self.publish();
    }

    /// Hand a command to a worker after a moment.
    pub(super) fn give(&mut self, worker: usize, asked: Asked) {
        let delay = Duration::from_micros(self.control.rng.u64(0..4_000));
        let at = (self.now + delay).max(self.control.last_delivery[worker]);
        self.control.last_delivery[worker] = at;
        self.agenda.at(at, Happening::Command { worker, asked });
    }

    /// A command reaches a worker.
    pub(super) fn command(&mut self, worker: usize, asked: Asked) {
        if self.control.running[worker].is_none() && !matches!(asked, Asked::Publish(_)) {
            return;
        }
        let command = match &asked {
            Asked::Publish(snapshot) => Command::Publish(Arc::clone(snapshot)),
            Asked::Health(health) => Command::Health(health.clone()),
            Asked::Candidates(candidates) => Command::Candidates(candidates.clone()),
            Asked::Stats | Asked::LastStats => Command::Stats,
            Asked::Flows => Command::Flows(Filter { limit: 1_000, ..Filter::default() }),
            Asked::State { .. } => Command::Snapshot,
            Asked::Drain { within } => Command::Drain { within: *within },
        };
        self.control.tickets += 1;
        let ticket = Ticket(self.control.tickets);
        if let Asked::Drain { .. } = asked {
            self.truth.drains(worker as u16);
        }
        self.control.asked.insert((worker, ticket), asked);
        self.machines[worker].command(ticket, command);
        self.wake(worker);
    }

    /// A worker answered.
    pub(super) fn answered(&mut self, worker: usize, ticket: Ticket, reply: Reply) {
        let index = worker as u16;
        let Some(asked) = self.control.asked.remove(&(worker, ticket)) else {
            return self.truth.violated(Some(index), format!("answers {ticket:?}, which nobody asked"));
        };
        match (asked, reply) {
            (Asked::Publish(snapshot), Reply::Published(generation)) => {
                self.truth.published(index, generation.0 - 1);
                self.control.running[worker] = Some(snapshot);
                self.control.unacknowledged -= 1;
            }
            (Asked::Health(_) | Asked::Drain { .. }, Reply::Done) => {}
            (Asked::Candidates(candidates), Reply::Done) => self.candidates_told(worker, &candidates),
            (Asked::Stats, Reply::Stats(stats)) => {
                self.truth.sockets(index, self.machines[worker].upstream_sockets(), &stats);
                self.truth.stats(index, &stats);
            }
            (Asked::LastStats, Reply::Stats(stats)) => self.truth.last_stats(index, &stats),
            (Asked::Flows, Reply::Flows(flows)) => self.truth.listed(index, &flows),
            (Asked::State { restore }, Reply::State(state)) => self.written_down(worker, &state, restore),
            (asked, reply) => {
                self.truth.violated(Some(index), format!("answers {reply:?} to {asked:?}"));
            }
        }
    }

    /// A worker was written down; perhaps another goes on in its place.
    fn written_down(&mut self, worker: usize, state: &WorkerState, restore: bool) {
        let index = worker as u16;
        let read = serde_json::to_string(state).and_then(|text| serde_json::from_str::<WorkerState>(&text));
        let read = match read {
            Ok(read) => read,
            Err(error) => return self.truth.violated(Some(index), format!("its state can't be read back: {error}")),
        };
        if read != *state {
            return self.truth.violated(Some(index), "its state is read back otherwise than it was written".into());
        }
        let Some(snapshot) = self.control.running[worker].clone().filter(|_| restore) else { return };
        self.trace.line(self.now, || format!("worker {worker} is restored"));
        match self.machines[worker].restore(self.now, read, &snapshot) {
            Ok(()) => {
                self.truth.restored(index);
                self.candidates_lost(worker);
            }
            Err(error) => self.truth.violated(Some(index), format!("can't be restored: {error}")),
        }
    }

    /// A worker tells something unasked.
    pub(super) fn noticed(&mut self, worker: usize, notice: Notice) {
        self.trace.line(self.now, || format!("worker {worker} tells {notice:?}"));
        match notice {
            Notice::Health(health) => {
                if worker != 0 {
                    self.truth.violated(Some(worker as u16), "probes, which only worker 0 may".into());
                }
                for other in 1..self.machines.len() {
                    self.give(other, Asked::Health(health.clone()));
                }
            }
            Notice::Ejected { .. } | Notice::Cut(_) => {}
            Notice::Probed(probed) => self.probed(worker, &probed),
            Notice::Drained => {
                if !self.control.draining || self.control.drained.insert(worker, self.now).is_some() {
                    self.truth.violated(Some(worker as u16), "says that it is drained, untrue or twice".into());
                }
            }
        }
    }

    /// Drain every worker, once no change is under way.
    pub(super) fn drain(&mut self) {
        if self.control.unacknowledged > 0 || self.control.trial.is_some() {
            return self.agenda.at(self.now + Duration::from_millis(7), Happening::Drain);
        }
        self.control.draining = true;
        let within = self.rng.bool().then(|| Duration::from_millis(self.rng.u64(1..2_000)));
        for worker in 0..self.machines.len() {
            self.give(worker, Asked::Drain { within });
        }
    }

    /// Ask every worker for its counters at the very end, and let it answer.
    pub(super) fn last_stats(&mut self) {
        for worker in 0..self.machines.len() {
            self.command(worker, Asked::LastStats);
        }
        while let Some((at, what)) = self.agenda.next() {
            self.now = at;
            self.happens(what);
            if !self.truth.violations.is_empty() {
                return;
            }
        }
        if !self.control.asked.is_empty() {
            self.truth.violated(None, format!("{} commands were never answered", self.control.asked.len()));
        }
        for (worker, pace) in self.paces.iter().enumerate() {
            if pace.wake.is_some() {
                let what = format!("asks to be called at {:?}, with nothing left to do", pace.wake);
                self.truth.violated(Some(worker as u16), what);
            }
        }
    }
}
