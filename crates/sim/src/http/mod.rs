//! HTTP in virtual time: one whole worker between clients that ask and backends that answer, each with a parser of its
//! own, every request and body unlike any other; with pieces of any size, pipelining, short writes, resets at any byte,
//! stalls, failing connects, dying idle connections, malformed answers, and changes of the configuration. One seed is
//! one run. In a peaceful run nothing fails outside the proxy, so that nothing may fail at all.

mod client;
mod documents;
mod machine;
mod message;
mod server;
mod truth;

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kakei_config::Document;
use kakei_proxy::limits::EVENTS_PER_STEP;
use kakei_proxy::seam::{Command, Event, Filter, Inbox, Instant, Op, Outbox, Reply, Ticket};
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::worker::{Role, Worker};

use self::machine::Machine;
use self::truth::Truth;

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct HttpReport {
    /// Which run.
    pub seed: u64,
    /// What was wrong, the first of it.
    pub violations: Vec<String>,
    /// How often what happened: so that a test can tell that anything did.
    pub counters: HttpCounters,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpCounters {
    /// Steps of the worker.
    pub steps: u64,
    /// Clients that connected.
    pub clients: u64,
    /// Responses of backends that reached their clients whole.
    pub answered: u64,
    /// Errors that the proxy answered by.
    pub errors: u64,
    /// Requests that backends saw whole.
    pub seen: u64,
    /// Requests that came on a connection that had served one before.
    pub reused: u64,
    /// Writes that were not taken whole.
    pub blocked: u64,
    /// Attempts to connect that failed.
    pub failed_connects: u64,
    /// Connections that a client or a backend broke.
    pub resets: u64,
    /// Generations published.
    pub changes: u64,
    /// Requests that became connections of their own.
    pub upgraded: u64,
    /// Requests that a backend saw more than once.
    pub repeated: u64,
}

impl HttpReport {
    /// Whether nothing was wrong.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

const SHARED: Shared = Shared { workers: 1, balance_seed: 77 };
/// Steps in which things happen, and then those in which everything must come to an end.
const BUSY: u64 = 600;
const WINDING_DOWN: u64 = 6_000;

/// A run.
struct World {
    now: Instant,
    rng: Rng,
    worker: Worker,
    machine: Machine,
    document: Document,
    snapshot: Arc<Snapshot>,
    truth: Truth,
    events: Vec<Event>,
    out: Outbox,
    wake: Option<Instant>,
    report: HttpReport,
}

/// The run of this seed.
pub fn run_http(seed: u64) -> HttpReport {
    let mut rng = Rng::with_seed(seed ^ 0x4774_7031);
    let is_peaceful = rng.u8(0..4) == 0;
    let document = documents::document(&mut rng, is_peaceful);
    let mut report = HttpReport { seed, ..HttpReport::default() };
    if let Err(errors) = kakei_config::check(&document) {
        report.violations.push(format!("the author wrote what can't be: {errors}"));
        return report;
    }
    let snapshot = Arc::new(Snapshot::compile(&document, Generation(1), SHARED, None));
    let mut world = World {
        now: Instant::from_nanos(1_000_000_000_000),
        worker: Worker::new(Role { index: 0, seed: rng.u64(..) }),
        machine: Machine::new(rng.fork(), is_peaceful),
        snapshot: Arc::clone(&snapshot),
        truth: Truth::new(is_peaceful),
        document,
        events: vec![Event::Command { ticket: Ticket(0), command: Command::Publish(snapshot) }],
        out: Outbox::default(),
        wake: None,
        report,
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
        self.machine.wind_down();
        for _ in 0..WINDING_DOWN {
            if !self.report.violations.is_empty() || (self.machine.is_idle() && self.events.is_empty()) {
                break;
            }
            self.happen(u64::MAX);
        }
        let drains = self.rng.bool();
        if drains {
            self.command(Command::Drain { within: Some(Duration::from_secs(5)) });
        }
        let ops = self.command(Command::Stats);
        let stats = ops.iter().find_map(|op| match op {
            Op::Reply { reply: Reply::Stats(stats), .. } => Some(&**stats),
            _ => None,
        });
        self.truth.end(&self.machine, stats, &mut self.report);
    }

    /// Let some time pass, let things happen in it, step.
    fn happen(&mut self, busy: u64) {
        let pause = match self.rng.u8(0..24) {
            0 => Duration::from_millis(self.rng.u64(0..1_500)),
            1..=4 => Duration::from_millis(self.rng.u64(0..40)),
            _ => Duration::from_micros(self.rng.u64(0..500)),
        };
        self.now = self.now + pause;
        if busy < BUSY {
            self.arrive();
            self.change();
        }
        self.machine.collect(self.now, &mut self.events, &mut self.report.counters);
        debug_assert!(self.events.len() <= EVENTS_PER_STEP, "a step is given no more than it may be");
        self.step();
        if self.rng.u8(0..25) == 0 {
            let ops = self.command(Command::Connections(Filter { limit: 10_000, ..Filter::default() }));
            self.truth.views(&ops, &mut self.report);
        }
    }

    fn arrive(&mut self) {
        if self.rng.u8(0..8) == 0 && self.report.counters.clients < 50 {
            self.machine.invite(&mut self.truth);
            self.report.counters.clients += 1;
        }
    }

    fn change(&mut self) {
        if self.rng.u8(0..30) != 0 {
            return;
        }
        documents::edit(&mut self.document, &mut self.rng);
        if let Err(errors) = kakei_config::check(&self.document) {
            self.report.violations.push(format!("the author wrote what can't be: {errors}"));
            return;
        }
        let next = Generation(self.snapshot.generation.0 + 1);
        self.snapshot = Arc::new(Snapshot::compile(&self.document, next, SHARED, Some(&self.snapshot)));
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
            self.machine.carry_out(self.now, &self.out, (&mut self.truth, &mut self.report));
            // What was not taken comes with the very next step, before anything else is received.
            self.machine.tell_blocked(&mut self.events);
            let goes_on = !self.events.is_empty() || self.wake == Some(self.now);
            if round > 200 {
                self.report.violations.push("the worker never comes to rest".to_owned());
            }
            if !goes_on || !self.report.violations.is_empty() {
                return all;
            }
        }
        all
    }
}
