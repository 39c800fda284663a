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
use kakei_proxy::seam::{Command, Filter, Instant, Op};
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::worker::Role;

use self::actors::Actor;
use self::documents::Author;
use self::machine::Machine;
use self::truth::Truth;
use crate::driven::{self, Driven, stats};

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
    driven: Driven<Machine>,
    author: Author,
    document: Document,
    snapshot: Arc<Snapshot>,
    scene: Scene,
}

/// What is around the worker's machine.
struct Scene {
    actors: Vec<Actor>,
    truth: Truth,
    report: StreamReport,
}

impl driven::Scene for Scene {
    fn stepped(&mut self) {
        self.report.counters.steps += 1;
    }

    fn violations(&mut self) -> &mut Vec<String> {
        &mut self.report.violations
    }
}

/// The run of this seed.
pub fn run_streams(seed: u64) -> StreamReport {
    let mut rng = Rng::with_seed(seed ^ 0x57e4_3a11);
    let mut author = Author::new(seed % 8 == 6, rng.fork());
    let document = author.document();
    let snapshot = Arc::new(Snapshot::compile(&document, Generation(1), SHARED, None));
    let role = Role { index: 0, seed: rng.u64(..) };
    let report = StreamReport { seed, ..StreamReport::default() };
    let mut world = World {
        now: Instant::from_nanos(1_000_000_000_000),
        driven: Driven::new(role, Machine::new(rng.fork()), &snapshot),
        author,
        snapshot,
        scene: Scene { actors: Vec::new(), truth: Truth::new(&document), report },
        document,
        rng,
    };
    world.run();
    world.scene.report
}

impl World {
    fn run(&mut self) {
        self.driven.step(self.now, &mut self.scene);
        for busy in 0..BUSY {
            if !self.scene.report.violations.is_empty() {
                return;
            }
            self.happen(busy);
        }
        if self.rng.bool() {
            self.command(Command::Drain { within: Some(Duration::from_secs(20)) });
        }
        self.driven.host.wind_down();
        self.scene.actors.iter_mut().for_each(Actor::wind_down);
        for _ in 0..WINDING_DOWN {
            if !self.scene.report.violations.is_empty() || (self.driven.host.is_idle() && self.driven.events.is_empty())
            {
                break;
            }
            self.happen(u64::MAX);
        }
        let ops = self.command(Command::Stats);
        let Scene { actors, truth, report } = &mut self.scene;
        truth.end(actors, &self.driven.host, stats(&ops), report);
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
        let Driven { host, events, .. } = &mut self.driven;
        host.collect(self.now, &mut self.scene.actors, events, &mut self.scene.report.counters);
        debug_assert!(events.len() <= EVENTS_PER_STEP, "a step is given no more than it may be");
        self.driven.step(self.now, &mut self.scene);
        if busy < BUSY && self.rng.u8(0..40) == 0 {
            self.restore();
        }
        if self.rng.u8(0..25) == 0 {
            let ops = self.command(Command::Connections(Filter { limit: 10_000, ..Filter::default() }));
            self.scene.truth.views(&ops, &mut self.scene.report);
        }
    }

    fn arrive(&mut self) {
        if self.rng.u8(0..6) != 0 || self.scene.report.counters.clients >= 60 {
            return;
        }
        let Some(listener) = self.driven.host.any_front(&self.document, &mut self.rng) else { return };
        let id = self.scene.actors.len();
        self.scene.actors.push(Actor::client(id, listener, &self.document, &mut self.rng));
        self.driven.host.wait_to_be_accepted(id);
        self.scene.report.counters.clients += 1;
    }

    fn change(&mut self) {
        if self.rng.u8(0..30) != 0 {
            return;
        }
        self.author.edit(&mut self.document);
        if let Err(errors) = kakei_config::check(&self.document) {
            self.scene.report.violations.push(format!("the author wrote what can't be: {errors}"));
            return;
        }
        let next = Generation(self.snapshot.generation.0 + 1);
        self.snapshot = Arc::new(crate::compile(&self.document, next, SHARED, Some(&self.snapshot)));
        self.scene.truth.publish(self.now, &self.document);
        self.scene.report.counters.changes += 1;
        self.command(Command::Publish(Arc::clone(&self.snapshot)));
    }

    fn command(&mut self, command: Command) -> Vec<Op> {
        self.driven.command(self.now, command, &mut self.scene)
    }

    /// Write the worker down as text, and go on with one that was read back.
    fn restore(&mut self) {
        self.scene.report.counters.restores += 1;
        let seed = self.rng.u64(..);
        self.driven.hand_over(self.now, (seed, &self.snapshot), &mut self.scene);
        self.driven.step(self.now, &mut self.scene);
    }
}

/// What one direction may have to keep, and what comes before a connection is routed.
const KEPT: u64 = 2 * STREAM_READ as u64 + (24 << 10);
