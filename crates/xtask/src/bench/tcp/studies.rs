//! What is measured: bulk, messages, short connections, idle connections. Each round runs the peers one after another.

use std::time::Duration;

use super::peers::Peer;
use super::report::figures;
use super::stand::{Load, Shape, idle, measure};
use crate::bench::ground::{Course, Tools};
use crate::bench::programs::Peer as _;
use crate::bench::report::{At, Figures};
use crate::bench::say;

type Report = crate::bench::report::Report<Peer>;

const WARM: Duration = Duration::from_millis(400);
/// Connections of a smoke run, at most.
const FEW: usize = 200;
/// Idle connections, where as many files may be open.
const MANY: usize = 10_000;
/// Files that a process has open beside two for each connection.
const OTHER_FILES: usize = 120;

/// What a run does: who, how often, how long, which.
pub(super) struct Plan {
    pub(super) peers: Vec<Peer>,
    pub(super) course: Course,
}

impl Plan {
    fn wants(&self, name: &str) -> bool {
        self.course.wants(name, |part| SCENARIOS.iter().any(|s| s.name == part))
    }
}

struct Scenario {
    study: &'static str,
    name: &'static str,
    shape: Shape,
    connections: usize,
}

const fn scenario(study: &'static str, name: &'static str, shape: Shape, connections: usize) -> Scenario {
    Scenario { study, name, shape, connections }
}

const SCENARIOS: &[Scenario] = &[
    scenario("bulk", "bulk-down-1", Shape::Down, 1),
    scenario("bulk", "bulk-down-8", Shape::Down, 8),
    scenario("bulk", "bulk-up-8", Shape::Up, 8),
    scenario("messages", "messages-64", Shape::Messages, 64),
    scenario("messages", "messages-1000", Shape::Messages, 1_000),
    scenario("visits", "visits-64", Shape::Visits, 64),
];

/// All scenarios that the plan wants.
pub(super) fn run(tools: &Tools, plan: &Plan, report: &mut Report) {
    for s in SCENARIOS.iter().filter(|s| plan.wants(s.name)) {
        let connections = if plan.course.smoke { s.connections.min(FEW) } else { s.connections };
        let time = Duration::from_secs_f64(plan.course.seconds);
        let load =
            Load { shape: s.shape, connections, warm: if plan.course.smoke { WARM / 4 } else { WARM }, measure: time };
        for round in 0..plan.course.rounds {
            for &peer in &plan.peers {
                let done = measure(tools, peer, load).map(|outcome| figures(s.shape, &outcome));
                note(report, At { study: s.study, scenario: s.name, round }, peer, done);
            }
        }
    }
    memory(tools, plan, report);
}

/// Resident memory before and after many connections were opened that then stay idle.
fn memory(tools: &Tools, plan: &Plan, report: &mut Report) {
    if !plan.wants("memory") {
        return;
    }
    let most = tools.files.saturating_sub(OTHER_FILES) / 2;
    let connections = if plan.course.smoke { FEW } else { MANY.min(most) };
    if connections == most {
        report.note(format!("{} open files allow {most} idle connections, not {MANY}", tools.files));
    }
    for round in 0..plan.course.rounds.min(3) {
        for peer in plan.peers.iter().copied().filter(|peer| peer.program().is_some()) {
            let done = idle(tools, peer, connections);
            note(report, At { study: "memory", scenario: "memory-10000", round }, peer, done);
        }
    }
}

fn note(report: &mut Report, at: At<'_>, peer: Peer, done: Result<Figures, String>) {
    let At { scenario, round, .. } = at;
    match done {
        Ok(figures) => {
            let keys =
                ["cpu_s", "gbit_per_s", "cpu_us", "per_s", "busy", "wrong", "lost", "unopened", "rss_per_connection"];
            let short: Vec<_> = keys.iter().filter_map(|key| Some(format!("{key} {:.3}", figures.get(key)?))).collect();
            say(&format!("{scenario} round {round} {}: {}", peer.name(), short.join(", ")));
            for fault in ["wrong", "lost", "unopened"] {
                if figures.get(fault).is_some_and(|count| *count > 0.0) {
                    report.note(format!("{scenario}: {} has {fault} > 0", peer.name()));
                }
            }
            report.add(at, peer, figures);
        }
        Err(why) => {
            say(&format!("{scenario} round {round} {}: {why}", peer.name()));
            report.note(format!("{scenario}: {why}"));
        }
    }
}
