//! What is measured: bulk, messages, short connections, idle connections.

use std::time::Duration;

use super::peers::{Load, Peer, Shape};
use crate::bench::ground::Tools;
use crate::bench::stand::{Times, Unit};
use crate::bench::studies::{CROWD, Plan, Scenario, memory, rounds};

type Report = crate::bench::report::Report<Peer>;

/// Connections of a smoke run, at most.
const FEW: usize = 200;

/// Study, name, shape, connections.
const SCENARIOS: &[(&str, &str, Shape, usize)] = &[
    ("bulk", "bulk-down-1", Shape::Down, 1),
    ("bulk", "bulk-down-8", Shape::Down, 8),
    ("bulk", "bulk-up-8", Shape::Up, 8),
    ("messages", "messages-64", Shape::Messages, 64),
    ("messages", "messages-1000", Shape::Messages, 1_000),
    ("visits", "visits-64", Shape::Visits, 64),
];

/// All scenarios that the plan wants.
pub(super) fn run(tools: &Tools, plan: &Plan<Peer>, report: &mut Report) {
    let names = |part: &str| SCENARIOS.iter().any(|(_, name, ..)| *name == part);
    let times = plan.course.times();
    let wanted: Vec<_> = SCENARIOS
        .iter()
        .filter(|(_, name, ..)| plan.course.wants(name, names))
        .map(|&(study, name, shape, connections)| {
            let connections = if plan.course.smoke { connections.min(FEW) } else { connections };
            let unit = if matches!(shape, Shape::Down | Shape::Up) { Unit::Bytes } else { Unit::Times };
            Scenario { study, name, load: Load { shape, connections, times }, unit }
        })
        .collect();
    rounds(tools, plan, &wanted, report, |_, _| false);
    let times = Times { warm: Duration::ZERO, measure: Duration::ZERO };
    memory(tools, plan, report, CROWD, |connections| Load { shape: Shape::Idle, connections, times });
}
