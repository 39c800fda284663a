//! What is measured: CPU per datagram at equal rates, saturation, memory, known flows, workers. Each round runs the peers one after another.

use std::time::Duration;

use super::datagram::SMALLEST;
use super::peers::Peer;
use super::report::figures;
use super::stand::{Load, Outcome, Setup, Shape, Stand};
use crate::bench::ground::{Course, Tools};
use crate::bench::programs::Peer as _;
use crate::bench::report::{At, Figures};
use crate::bench::say;

type Report = crate::bench::report::Report<Peer>;

/// Backends where there are many flows: enough for a proxy that shares upstream sockets between flows of different backends.
const MANY_BACKENDS: usize = 100;
/// Backends at 100,000 flows.
const MOST_BACKENDS: usize = 1000;
/// Losing more than this share ends a search for saturation.
const LOSS: f64 = 0.001;
/// The rates that a search for saturation tries at most. It ends before, but for trains: beyond the last rate of these the
/// generator and the backends, who share a core, are what is saturated.
const PROBES: usize = 14;

/// What a run does: who, how often, how long, which.
pub(super) struct Plan {
    pub(super) peers: Vec<Peer>,
    pub(super) course: Course,
    /// What the rates of the scenarios are multiplied by.
    pub(super) scale: f64,
}

impl Plan {
    fn wants(&self, name: &str) -> bool {
        self.course.wants(name, |part| SCENARIOS.iter().any(|s| s.name == part))
    }

    fn load(&self, size: usize, flows: usize, rate: f64) -> Load {
        let load = Load::new(size, flows, rate);
        Load { measure: Duration::from_secs_f64(self.course.seconds), ..load }
    }
}

/// A load that all peers get at the same rate.
struct Scenario {
    name: &'static str,
    shape: Shape,
    size: usize,
    flows: usize,
    rate: f64,
}

const fn scenario(name: &'static str, shape: Shape, size: usize, flows: usize, rate: f64) -> Scenario {
    Scenario { name, shape, size, flows, rate }
}

/// Rates are such that nginx and Envoy stay below about two thirds of a core: low rates measure wake-ups, not datagrams.
const SCENARIOS: &[Scenario] = &[
    scenario("rr-64-1", Shape::RequestReply, 64, 1, 60_000.0),
    scenario("rr-64-100", Shape::RequestReply, 64, 100, 60_000.0),
    scenario("rr-64-10000", Shape::RequestReply, 64, 10_000, 45_000.0),
    scenario("rr-1200-1", Shape::RequestReply, 1200, 1, 60_000.0),
    scenario("rr-1200-100", Shape::RequestReply, 1200, 100, 60_000.0),
    scenario("rr-1200-10000", Shape::RequestReply, 1200, 10_000, 45_000.0),
    scenario("oneway-64-1", Shape::OneWay, 64, 1, 120_000.0),
    scenario("oneway-64-100", Shape::OneWay, 64, 100, 120_000.0),
    scenario("oneway-64-10000", Shape::OneWay, 64, 10_000, 80_000.0),
    scenario("oneway-1200-1", Shape::OneWay, 1200, 1, 120_000.0),
    scenario("oneway-1200-100", Shape::OneWay, 1200, 100, 120_000.0),
    scenario("oneway-1200-10000", Shape::OneWay, 1200, 10_000, 80_000.0),
    scenario("trains-1200-1", Shape::Trains, 0, 1, 150_000.0),
];

/// The scenarios whose saturation is searched.
const SATURATED: &[&str] = &["rr-64-100", "rr-64-10000", "rr-1200-100", "oneway-64-100", "trains-1200-1"];

fn backends(flows: usize) -> usize {
    match flows {
        0..=1000 => 1,
        1001..=20_000 => MANY_BACKENDS,
        _ => MOST_BACKENDS,
    }
}

/// All studies that the plan wants.
pub(super) fn run(tools: &Tools, plan: &Plan, report: &mut Report) {
    cost(tools, plan, report);
    if plan.course.smoke {
        return;
    }
    known(tools, plan, report);
    saturation(tools, plan, report);
    memory(tools, plan, report);
    workers(tools, plan, report);
}

fn cost(tools: &Tools, plan: &Plan, report: &mut Report) {
    for s in SCENARIOS.iter().filter(|s| plan.wants("cost") || plan.wants(s.name)) {
        if plan.course.smoke && !["rr-64-100", "rr-64-10000", "oneway-1200-1", "trains-1200-1"].contains(&s.name) {
            continue;
        }
        let rate = s.rate * plan.scale;
        let flows = if plan.course.smoke { s.flows.min(500) } else { s.flows };
        let setup = Setup::new(s.shape, backends(s.flows));
        for round in 0..plan.course.rounds {
            for &peer in &plan.peers {
                let done = Stand::start(tools, peer, setup).and_then(|mut st| st.load(plan.load(s.size, flows, rate)));
                note(report, "cost", (s.name, round), peer, done);
            }
        }
    }
}

/// What a datagram costs in user space when few and when very many flows are known.
fn known(tools: &Tools, plan: &Plan, report: &mut Report) {
    if !plan.wants("known") {
        return;
    }
    let setup = Setup::new(Shape::RequestReply, MOST_BACKENDS);
    for round in 0..plan.course.rounds {
        for (name, flows) in [("known-100", 100), ("known-100000", 100_000)] {
            for peer in plan.peers.iter().copied().filter(|p| *p == Peer::KakeiShared) {
                let load = Load {
                    measure: Duration::from_secs_f64(plan.course.seconds * 3.0),
                    ..plan.load(64, flows, 30_000.0)
                };
                let done = Stand::start(tools, peer, setup).and_then(|mut stand| stand.load(load));
                note(report, "known", (name, round), peer, done);
            }
        }
    }
}

fn saturation(tools: &Tools, plan: &Plan, report: &mut Report) {
    let wanted = |s: &&Scenario| SATURATED.contains(&s.name) && plan.wants(&format!("saturation-{}", s.name));
    for s in SCENARIOS.iter().filter(wanted) {
        for round in 0..plan.course.rounds.min(3) {
            for &peer in &plan.peers {
                let setup = Setup::new(s.shape, backends(s.flows));
                let done = Stand::start(tools, peer, setup).and_then(|mut stand| search(&mut stand, s.size, s.flows));
                note_figures(report, "saturation", (s.name, round), peer, done);
            }
        }
    }
}

/// Two workers on two cores beside one on one; generator and backends run on both cores in both cases.
fn workers(tools: &Tools, plan: &Plan, report: &mut Report) {
    if !plan.wants("workers") {
        return;
    }
    for round in 0..plan.course.rounds.min(3) {
        for (name, workers, cores) in [("workers-1", 1, "0"), ("workers-2", 2, "0,1")] {
            for peer in plan.peers.iter().copied().filter(|p| p.is_kakei()) {
                let setup = Setup { workers, cores: (cores, "0,1"), ..Setup::new(Shape::RequestReply, 1) };
                let done = Stand::start(tools, peer, setup).and_then(|mut stand| {
                    let fixed = stand.load(plan.load(64, 100, 30_000.0))?;
                    let mut found = search(&mut stand, 64, 100)?;
                    found.insert("cpu_ns", fixed.cpu_ns());
                    // What was done at the full pace of one core was done at another rate.
                    found.retain(|key, _| !key.starts_with("calm"));
                    Ok(found)
                });
                note_figures(report, "workers", (name, round), peer, done);
            }
        }
    }
}

/// Resident memory and kernel slabs before and after many flows were opened that then stay idle.
fn memory(tools: &Tools, plan: &Plan, report: &mut Report) {
    for (name, flows) in [("memory-10000", 10_000), ("memory-100000", 100_000)] {
        if !plan.wants(name) {
            continue;
        }
        // A socket for each of 100,000 flows is more than a process may have open here.
        for peer in plan.peers.iter().copied().filter(|p| flows == 10_000 || *p == Peer::KakeiShared) {
            if peer == Peer::Direct {
                continue;
            }
            let done = Stand::start(tools, peer, Setup::new(Shape::RequestReply, backends(flows)))
                .and_then(|mut stand| idle_flows(&mut stand, flows));
            note_figures(report, "memory", (name, 0), peer, done);
        }
    }
}

fn idle_flows(stand: &mut Stand, flows: usize) -> Result<Figures, String> {
    let none = Load { warm: Duration::ZERO, measure: Duration::ZERO, ..Load::new(64, 1, 0.0) };
    stand.load(none)?;
    let (rss, slab) = stand.memory();
    let opened = stand.load(Load { flows, ..none })?;
    let (rss_after, slab_after) = stand.memory();
    let live = (flows as f64 - opened.unopened).max(1.0);
    Ok(Figures::from([
        ("rss_start", rss as f64),
        ("rss_per_flow", rss_after.saturating_sub(rss) as f64 / live),
        ("slab_per_flow", slab_after.saturating_sub(slab) as f64 / live),
        ("unopened", opened.unopened),
    ]))
}

/// The highest rate at which next to nothing is lost, and what is lost at 80 % of it.
fn search(stand: &mut Stand, size: usize, flows: usize) -> Result<Figures, String> {
    let size = size.max(SMALLEST);
    let probe = |stand: &mut Stand, rate: f64, time: Duration| {
        stand.load(Load { warm: Duration::from_millis(150), measure: time, ..Load::new(size, flows, rate) })
    };
    let short = Duration::from_millis(700);
    let good = |o: &Outcome| o.loss() <= LOSS && o.skipped <= 0.02 * (o.sent + o.skipped);
    let (mut low, mut high, mut rate) = (0.0, None, 20_000.0);
    let (mut best, mut beyond) = (Outcome::default(), Outcome::default());
    for _ in 0..PROBES {
        let mut outcome = probe(stand, rate, short)?;
        if !good(&outcome) {
            // One hiccup of the machine must not end the search.
            outcome = probe(stand, rate, short)?;
        }
        if good(&outcome) {
            (low, best) = (rate, outcome);
        } else {
            (high, beyond) = (Some(rate), outcome);
        }
        rate = high.map_or(rate * 1.4, |high: f64| (low + high) / 2.0);
        if high.is_some_and(|high| high - low < 0.04 * high) {
            break;
        }
    }
    let at_80 = probe(stand, low * 0.8, Duration::from_secs(2))?;
    let mut found = figures(&best);
    if let Some(busy) = found.get("busy").copied().filter(|b| *b > 0.0) {
        found.insert("full_core_per_s", best.carried() / best.seconds.max(1e-9) / busy);
    }
    found.extend([
        ("rate", low),
        ("busy_beyond", beyond.busy()),
        ("late_beyond", beyond.skipped / (beyond.sent + beyond.skipped).max(1.0)),
        ("lost_at_80", at_80.lost()),
        ("sent_at_80", at_80.sent),
        ("late_at_80", at_80.skipped),
    ]);
    Ok(found)
}

fn note(report: &mut Report, study: &'static str, at: (&str, usize), peer: Peer, done: Result<Outcome, String>) {
    note_figures(report, study, at, peer, done.map(|outcome| figures(&outcome)));
}

fn note_figures(
    report: &mut Report,
    study: &'static str,
    at: (&str, usize),
    peer: Peer,
    done: Result<Figures, String>,
) {
    let (name, round) = at;
    match done {
        Ok(figures) => {
            let short: Vec<_> = [
                "cpu_ns",
                "user_ns",
                "calm",
                "calm_ns",
                "carried_per_s",
                "loss",
                "skipped",
                "unopened",
                "rss_per_flow",
            ]
            .iter()
            .filter_map(|key| Some(format!("{key} {:.3}", figures.get(key)?)))
            .collect();
            say(&format!("{study} {name} round {round} {}: {}", peer.name(), short.join(", ")));
            report.add(At { study, scenario: name, round }, peer, figures);
        }
        Err(why) => {
            say(&format!("{study} {name} round {round} {}: {why}", peer.name()));
            report.note(format!("{study} {name}: {why}"));
        }
    }
}
