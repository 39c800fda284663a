//! Streams in virtual time: one whole worker between clients and backends that send bytes which nobody else has, with
//! short reads and writes, resets at any byte, stalls, refused connects, lack of descriptors, changes of the
//! configuration, and hand-overs at any moment. One seed is one run.
//!
//! Simpler than the world of datagrams: there is no network between an actor and the machine but the actor's own pace.

mod actors;
mod documents;
mod machine;
mod truth;

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kakei_config::Document;
use kakei_proxy::limits::{EVENTS_PER_STEP, STREAM_READ};
use kakei_proxy::seam::{Command, Event, Filter, Inbox, Instant, Op, Outbox, Reply, Ticket};
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::worker::{Role, Worker};

use self::actors::Actor;
use self::documents::Author;
use self::machine::Machine;
use self::truth::Truth;

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct StreamReport {
    /// Which run.
    pub seed: u64,
    /// What was wrong, the first of it.
    pub violations: Vec<String>,
    /// How often what happened: so that a test can tell that anything did.
    pub counters: StreamCounters,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounters {
    /// Steps of the worker.
    pub steps: u64,
    /// Clients that connected.
    pub clients: u64,
    /// Connections that ended with both sides' bytes delivered.
    pub completed: u64,
    /// Bytes that reached an actor.
    pub bytes: u64,
    /// Bytes of them that the machine moved by itself.
    pub piped: u64,
    /// Writes that were not taken whole.
    pub blocked: u64,
    /// Attempts to connect that failed.
    pub failed_connects: u64,
    /// Resets by actors.
    pub resets: u64,
    /// Generations published.
    pub changes: u64,
    /// Workers written down and read back.
    pub restores: u64,
    /// Times that clients had to wait for want of a descriptor.
    pub shortages: u64,
}

impl StreamReport {
    /// Whether nothing was wrong.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

const SHARED: Shared = Shared { workers: 1, balance_seed: 77 };
/// Steps in which things happen, and then those in which everything must come to an end.
const BUSY: u64 = 700;
const WINDING_DOWN: u64 = 6_000;

/// A run.
struct World {
    now: Instant,
    rng: Rng,
    worker: Worker,
    machine: Machine,
    author: Author,
    document: Document,
    snapshot: Arc<Snapshot>,
    actors: Vec<Actor>,
    truth: Truth,
    events: Vec<Event>,
    out: Outbox,
    wake: Option<Instant>,
    report: StreamReport,
    drains: bool,
}

/// The run of this seed.
pub fn run_streams(seed: u64) -> StreamReport {
    let mut rng = Rng::with_seed(seed ^ 0x57e4_3a11);
    let mut author = Author::new(rng.fork());
    let document = author.document();
    let snapshot = Arc::new(Snapshot::compile(&document, Generation(1), SHARED, None));
    let mut world = World {
        now: Instant::from_nanos(1_000_000_000_000),
        worker: Worker::new(Role { index: 0, seed: rng.u64(..) }),
        machine: Machine::new(rng.fork()),
        author,
        snapshot: Arc::clone(&snapshot),
        truth: Truth::new(&document),
        document,
        actors: Vec::new(),
        events: vec![Event::Command { ticket: Ticket(0), command: Command::Publish(snapshot) }],
        out: Outbox::default(),
        wake: None,
        report: StreamReport { seed, ..StreamReport::default() },
        drains: false,
        rng,
    };
    world.run();
    world.report
}

impl World {
    fn run(&mut self) {
        self.step();
        for busy in 0..BUSY {
            if !self.report.violations.is_empty() {
                return;
            }
            self.happen(busy);
        }
        self.drains = self.rng.bool();
        if self.drains {
            self.command(Command::Drain { within: Some(Duration::from_secs(20)) });
        }
        self.machine.wind_down();
        self.actors.iter_mut().for_each(Actor::wind_down);
        for _ in 0..WINDING_DOWN {
            if !self.report.violations.is_empty() || (self.machine.is_idle() && self.events.is_empty()) {
                break;
            }
            self.happen(u64::MAX);
        }
        let ops = self.command(Command::Stats);
        self.truth.end(&self.actors, &self.machine, stats(&ops), &mut self.report);
    }

    /// Let some time pass, let things happen in it, step.
    fn happen(&mut self, busy: u64) {
        let pause = match self.rng.u8(0..20) {
            0 => Duration::from_millis(self.rng.u64(0..3_000)),
            1..=4 => Duration::from_millis(self.rng.u64(0..50)),
            _ => Duration::from_micros(self.rng.u64(0..500)),
        };
        self.now = self.now + pause;
        if busy < BUSY {
            self.arrive();
            self.change();
        }
        self.machine.collect(self.now, &mut self.actors, &mut self.events, &mut self.report.counters);
        debug_assert!(self.events.len() <= EVENTS_PER_STEP, "a step is given no more than it may be");
        self.step();
        if busy < BUSY && self.rng.u8(0..40) == 0 {
            self.restore();
        }
        if self.rng.u8(0..25) == 0 {
            let ops = self.command(Command::Connections(Filter { limit: 10_000, ..Filter::default() }));
            self.truth.views(&ops, &mut self.report);
        }
    }

    fn arrive(&mut self) {
        if self.rng.u8(0..6) != 0 || self.report.counters.clients >= 60 {
            return;
        }
        let Some(listener) = self.machine.any_front(&self.document, &mut self.rng) else { return };
        let id = self.actors.len();
        self.actors.push(Actor::client(id, listener, &self.document, &mut self.rng));
        self.machine.wait_to_be_accepted(id);
        self.report.counters.clients += 1;
    }

    fn change(&mut self) {
        if self.rng.u8(0..30) != 0 {
            return;
        }
        self.author.edit(&mut self.document);
        if let Err(errors) = kakei_config::check(&self.document) {
            self.report.violations.push(format!("the author wrote what can't be: {errors}"));
            return;
        }
        let next = Generation(self.snapshot.generation.0 + 1);
        self.snapshot = Arc::new(Snapshot::compile(&self.document, next, SHARED, Some(&self.snapshot)));
        self.truth.publish(self.now, &self.document);
        self.report.counters.changes += 1;
        self.command(Command::Publish(Arc::clone(&self.snapshot)));
    }

    fn command(&mut self, command: Command) -> Vec<Op> {
        self.events.push(Event::Command { ticket: Ticket(1), command });
        self.step()
    }

    /// Give the worker everything, carry out what it asks for, and go on while that must not wait.
    fn step(&mut self) -> Vec<Op> {
        let mut all = Vec::new();
        for round in 0.. {
            self.out.clear();
            let inbox = Inbox { events: &mut self.events, bytes: self.machine.bytes(), wall: crate::wall_at(self.now) };
            self.wake = self.worker.step(self.now, inbox, &mut self.out);
            self.report.counters.steps += 1;
            all.extend(self.out.ops.iter().cloned());
            self.machine.carry_out(self.now, &self.out, &mut self.actors, (&mut self.truth, &mut self.report));
            // What was not taken comes with the very next step, before anything else is received.
            self.machine.tell_blocked(&mut self.events);
            let goes_on = !self.events.is_empty() || self.wake == Some(self.now);
            if !goes_on || round > 200 || !self.report.violations.is_empty() {
                if round > 200 {
                    self.report.violations.push("the worker never comes to rest".to_owned());
                }
                return all;
            }
        }
        all
    }

    /// Write the worker down as text, and go on with one that was read back.
    fn restore(&mut self) {
        self.report.counters.restores += 1;
        self.events.push(Event::Command { ticket: Ticket(2), command: Command::Snapshot });
        self.out.clear();
        let inbox = Inbox { events: &mut self.events, bytes: self.machine.bytes(), wall: crate::wall_at(self.now) };
        self.worker.step(self.now, inbox, &mut self.out);
        self.machine.carry_out(self.now, &self.out, &mut self.actors, (&mut self.truth, &mut self.report));
        let state = self.out.ops.iter().find_map(|op| match op {
            Op::Reply { reply: Reply::State(state), .. } => Some(state),
            _ => None,
        });
        let Some(state) = state else { return self.report.violations.push("no state was given".to_owned()) };
        let read = serde_json::to_string(state).and_then(|text| serde_json::from_str(&text));
        let restored = match read {
            Ok(state) => Worker::restore(Role { index: 0, seed: self.rng.u64(..) }, self.now, state, &self.snapshot),
            Err(error) => return self.report.violations.push(format!("a state that can't be read: {error}")),
        };
        match restored {
            Ok(worker) => self.worker = worker,
            Err(error) => return self.report.violations.push(format!("a state that is refused: {error}")),
        }
        self.machine.hand_over();
        self.out.clear();
        let mut none = Vec::new();
        let inbox = Inbox { events: &mut none, bytes: &[], wall: crate::wall_at(self.now) };
        self.wake = self.worker.step(self.now, inbox, &mut self.out);
        self.machine.carry_out(self.now, &self.out, &mut self.actors, (&mut self.truth, &mut self.report));
        self.machine.end_hand_over(&mut self.report);
        self.machine.tell_blocked(&mut self.events);
        self.step();
    }
}

fn stats(ops: &[Op]) -> Option<&kakei_proxy::stats::Stats> {
    ops.iter().find_map(|op| match op {
        Op::Reply { reply: Reply::Stats(stats), .. } => Some(&**stats),
        _ => None,
    })
}

/// What one direction may have to keep, and what comes before a connection is routed.
const KEPT: u64 = 2 * STREAM_READ as u64 + (24 << 10);
