//! HTTP in virtual time: one or two whole workers between clients that ask and backends that answer, each with a parser of its
//! own, every request and body unlike any other; with pieces of any size, pipelining, short writes, resets at any byte,
//! stalls, failing connects, dying idle connections, malformed answers, and changes of the configuration. One seed is
//! one run. In a peaceful run nothing fails outside the proxy, so that nothing may fail at all.

mod client;
mod cuts;
mod documents;
mod guards;
mod machine;
mod message;
mod nearly;
mod rates;
mod rooms;
mod server;
mod tallies;
mod truth;

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kakei_config::Document;
use kakei_proxy::limits::{EVENTS_PER_STEP, LINGER};
use kakei_proxy::seam::{Command, Event, Filter, Instant, Notice, Op, Reply, Ticket};
use kakei_proxy::snapshot::{Generation, Metered, Shared, Snapshot};
use kakei_proxy::worker::Role;

pub use self::cuts::Cuts;
use self::machine::Machine;
pub use self::nearly::drawn as drawn_cuts;
use self::rates::Whose;
use self::truth::Truth;
use crate::driven::{self, Driven, stats};

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
    /// Requests that came too fast, or too many at one time.
    pub limited: u64,
    /// Workers written down and read back.
    pub restores: u64,
    /// Requests that became connections of their own.
    pub upgraded: u64,
    /// Requests that a backend saw more than once.
    pub repeated: u64,
    /// Requests that had to say who their client is, and passed; and those that didn't pass for that.
    pub passed: u64,
    /// See above.
    pub stopped: u64,
    /// Questions that a service that says who may pass was asked.
    pub questions: u64,
    /// Passwords that were looked at.
    pub passwords: u64,
    /// Looks at how much of a rate was used up.
    pub looks: u64,
}

impl HttpReport {
    /// Whether nothing was wrong.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Steps in which things happen, and then those in which everything must come to an end.
const BUSY: u64 = 600;
const WINDING_DOWN: u64 = 6_000;
/// The time that a drain gives.
const DRAIN: Duration = Duration::from_secs(5);
/// How much later something may happen than it is due: what is between two steps at most, and a little.
const LATE: Duration = Duration::from_millis(1_600);

/// A run.
struct World {
    now: Instant,
    rng: Rng,
    /// The first one probes backends, and what it finds is told to the others.
    workers: Vec<Driven<Machine>>,
    shared: Shared,
    document: Document,
    snapshot: Arc<Snapshot>,
    scene: Scene,
    /// What is taken away of the routes that ask who the client is, where there are any.
    aside: Option<guards::Aside>,
    /// Whether somebody looks at how much of rates is used up.
    is_watched: bool,
    /// Whether there are very many routes that nobody asks for.
    is_crowded: bool,
}

/// What is around the workers' machines.
struct Scene {
    truth: Truth,
    report: HttpReport,
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
pub fn run_http(seed: u64) -> HttpReport {
    run(seed, Course::default())
}

/// The run of this seed in which nobody looks at how much of rates is used up.
pub fn run_http_unwatched(seed: u64) -> HttpReport {
    run(seed, Course { is_unwatched: true, ..Course::default() })
}

/// The run of this seed among so many routes that nobody asks for that the worker reads ahead.
pub fn run_http_crowded(seed: u64) -> HttpReport {
    run(seed, Course { is_crowded: true, ..Course::default() })
}

/// The run of this seed with routes that ask who the client is: by a password, by a service, by both.
pub fn run_http_guarded(seed: u64) -> HttpReport {
    run(seed, Course { is_guarded: true, ..Course::default() })
}

/// What is otherwise in a run than in the usual one.
#[derive(Clone, Copy, Default)]
struct Course {
    is_unwatched: bool,
    is_crowded: bool,
    is_guarded: bool,
}

fn run(seed: u64, course: Course) -> HttpReport {
    let Course { is_unwatched, is_crowded, is_guarded } = course;
    let mut rng = Rng::with_seed(seed ^ 0x4774_7031);
    let is_peaceful = rng.u8(0..4) == 0;
    let mut document = documents::document(&mut rng, is_peaceful);
    if is_guarded {
        documents::guard(&mut document, &mut rng, is_peaceful);
    }
    if is_crowded {
        documents::crowd(&mut document);
    }
    let mut report = HttpReport { seed, ..HttpReport::default() };
    if let Err(errors) = kakei_config::check(&document) {
        report.violations.push(format!("the author wrote what can't be: {errors}"));
        return report;
    }
    let shared = Shared { workers: rng.u16(1..=2), balance_seed: 77 };
    let snapshot = Arc::new(Snapshot::compile(&document, Generation(1), shared, None));
    let workers = (0..shared.workers).map(|index| {
        let role = Role { index, seed: rng.u64(..) };
        Driven::new(role, Machine::new(usize::from(index), rng.fork(), is_peaceful), &snapshot)
    });
    let workers = workers.collect();
    let mut world = World {
        now: Instant::from_nanos(1_000_000_000_000),
        workers,
        shared,
        snapshot,
        scene: Scene { truth: Truth::new(&document, shared.workers, is_peaceful), report },
        aside: is_guarded.then(guards::Aside::default),
        is_watched: !is_unwatched,
        is_crowded,
        document,
        rng,
    };
    world.run();
    world.scene.report
}

impl World {
    fn run(&mut self) {
        self.settle();
        for busy in 0..BUSY {
            if !self.scene.report.violations.is_empty() {
                return;
            }
            self.happen(busy);
        }
        self.scene.truth.wind_down();
        self.workers.iter_mut().for_each(|worker| worker.host.wind_down());
        let drains = self.rng.u8(0..4);
        if drains == 0 {
            self.scene.truth.drains = true;
            // With all that is under way.
            self.workers.iter_mut().for_each(|worker| worker.host.drip());
            self.command(&Command::Drain { within: Some(DRAIN) });
        }
        let until = self.now + DRAIN + LINGER + LATE;
        for _ in 0..WINDING_DOWN {
            if drains == 0 && self.now > until {
                self.check_drained();
            }
            let is_idle = self.workers.iter().all(|worker| worker.host.is_idle() && worker.events.is_empty());
            if !self.scene.report.violations.is_empty() || is_idle {
                break;
            }
            self.happen(u64::MAX);
        }
        if drains == 1 {
            self.command(&Command::Drain { within: Some(DRAIN) });
        }
        let ops = self.command(&Command::Stats);
        let all: Vec<_> = ops.iter().filter_map(|ops| stats(ops)).collect();
        let hosts: Vec<_> = self.workers.iter().map(|worker| &worker.host).collect();
        self.scene.truth.end(&hosts, &all, &mut self.scene.report);
    }

    /// Nobody may hold up a drain whose time is over.
    fn check_drained(&mut self) {
        let late = self.workers.iter().filter(|worker| worker.host.has_clients());
        let late: Vec<String> = late.map(|worker| worker.host.what_is_left()).collect();
        self.scene.report.violations.extend(late.into_iter().map(|what| format!("outlives a drain: {what}")));
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
            self.scene.truth.sicken(&mut self.rng);
        }
        for at in 0..self.workers.len() {
            let Driven { host, events, .. } = &mut self.workers[at];
            host.collect(self.now, events, &mut self.scene);
            debug_assert!(events.len() <= EVENTS_PER_STEP, "a step is given no more than it may be");
            if busy < BUSY && self.rng.u8(0..40) == 0 {
                self.restore(at);
            }
            self.step(at);
        }
        if self.rng.u8(0..25) == 0 {
            self.see();
        }
    }

    /// Look at what operators may. Who looks at rates too takes no step more for it.
    fn see(&mut self) {
        let shown = self.command(&Command::Connections(Filter { limit: 10_000, ..Filter::default() }));
        let whose = Whose::all().filter(|_| self.is_watched);
        let looks: Vec<_> = whose.filter_map(|whose| Some((whose, whose.metered(&self.snapshot)?))).collect();
        for worker in &mut self.workers {
            let asked = looks.iter().map(|(_, metered)| Command::Rates(Arc::clone(metered)));
            let commands = (1..).zip(std::iter::once(Command::Stats).chain(asked));
            worker.events.extend(commands.map(|(ticket, command)| Event::Command { ticket: Ticket(ticket), command }));
        }
        let answered = self.settle();
        for (worker, (shown, ops)) in shown.iter().zip(&answered).enumerate() {
            self.scene.truth.views(shown, stats(ops), &mut self.scene.report);
            self.check_looks(worker, ops, &looks);
        }
        let held_back = self.workers.iter().filter_map(|worker| worker.host.what_is_held_back());
        self.scene.report.violations.extend(held_back);
    }

    /// What a worker said of how much of rates is used up; their tickets follow that of the counters.
    fn check_looks(&mut self, worker: usize, ops: &[Op], looks: &[(Whose, Arc<Metered>)]) {
        let Scene { truth, report } = &mut self.scene;
        let said = ops.iter().filter_map(|op| match op {
            Op::Reply { ticket: Ticket(ticket), reply: Reply::Rates(said) } => Some((*ticket as usize - 2, said)),
            _ => None,
        });
        let said: Vec<_> = said.collect();
        if said.len() != looks.len() {
            report.violations.push(format!("of {} looks at rates {} were answered", looks.len(), said.len()));
        }
        for (at, said) in said {
            report.counters.looks += 1;
            let looked = truth.rates.looked(self.now, worker, looks[at].0, said);
            report.violations.extend(looked.err());
        }
    }

    fn arrive(&mut self) {
        if self.rng.u8(0..8) == 0 && self.scene.report.counters.clients < 50 {
            let at = self.rng.usize(0..self.workers.len());
            self.workers[at].host.invite(&mut self.scene.truth, self.aside.is_some());
            self.scene.report.counters.clients += 1;
        }
    }

    fn change(&mut self) {
        if self.rng.u8(0..30) != 0 {
            return;
        }
        let HttpReport { seed, counters, .. } = &self.scene.report;
        // In some runs the second cluster goes, and comes back.
        let how = (counters.changes + 1, seed % 8 == 6);
        let is_peaceful = self.scene.truth.is_peaceful();
        match &mut self.aside {
            Some(aside) if self.rng.bool() => guards::edit(&mut self.document, aside, &mut self.rng, is_peaceful),
            _ => documents::edit(&mut self.document, &mut self.rng, how),
        }
        if let Err(errors) = kakei_config::check(&self.document) {
            self.scene.report.violations.push(format!("the author wrote what can't be: {errors}"));
            return;
        }
        let next = Generation(self.snapshot.generation.0 + 1);
        // Which of very many routes have histograms of their own depends on which had some before.
        let compile = if self.is_crowded { Snapshot::compile } else { crate::compile };
        self.snapshot = Arc::new(compile(&self.document, next, self.shared, Some(&self.snapshot)));
        self.scene.truth.publish(self.now, &self.document);
        self.scene.report.counters.changes += 1;
        self.command(&Command::Publish(Arc::clone(&self.snapshot)));
    }

    /// Tell every worker; what each asked for then.
    fn command(&mut self, command: &Command) -> Vec<Vec<Op>> {
        for worker in &mut self.workers {
            worker.events.push(Event::Command { ticket: Ticket(1), command: command.clone() });
        }
        self.settle()
    }

    fn settle(&mut self) -> Vec<Vec<Op>> {
        (0..self.workers.len()).map(|at| self.step(at)).collect()
    }

    /// Let one worker make its steps, and tell the others what it found.
    fn step(&mut self, at: usize) -> Vec<Op> {
        let ops = self.workers[at].step(self.now, &mut self.scene);
        self.relay(at, &ops);
        ops
    }

    fn relay(&mut self, from: usize, ops: &[Op]) {
        for op in ops {
            let Op::Notice(Notice::Health(verdict)) = op else { continue };
            for other in (0..self.workers.len()).filter(|other| *other != from) {
                let command = Command::Health(verdict.clone());
                self.workers[other].events.push(Event::Command { ticket: Ticket(3), command });
                self.workers[other].step(self.now, &mut self.scene);
            }
        }
    }

    /// Write a worker down as text, and go on with one that was read back: with whatever just happened, or in the middle
    /// of what one step could not finish.
    fn restore(&mut self, at: usize) {
        self.scene.report.counters.restores += 1;
        if self.rng.bool() {
            let ops = self.workers[at].step_once(self.now, &mut self.scene);
            self.relay(at, &ops);
        }
        let seed = self.rng.u64(..);
        let ops = self.workers[at].hand_over(self.now, (seed, &self.snapshot), &mut self.scene);
        self.relay(at, &ops);
    }
}
