//! What is measured: requests on connections that stay and on fresh ones, routes, WebSocket, large bodies, idle connections.

use std::time::Duration;

use super::peers::{Load, Peer, Shape};
use crate::bench::ground::Tools;
use crate::bench::programs::Peer as _;
use crate::bench::stand::{Times, Unit};
use crate::bench::studies::{CROWD, Plan, Scenario, memory, rounds};

type Report = crate::bench::report::Report<Peer>;

/// Connections and routes of a smoke run, at most.
const FEW: (usize, usize) = (100, 1_000);
/// The study whose scenarios are compared with its first one.
const ROUTES: &str = "routes";

const MANY_ROUTES: usize = 10_000;
const SETTLING: Duration = Duration::from_millis(1500);

const SMALL: usize = 100;
const MEDIUM: usize = 16 << 10;
const LARGE: usize = 16 << 20;

const fn load(shape: Shape, connections: usize, down: usize) -> Load {
    Load {
        shape,
        connections,
        down,
        up: 0,
        routes: 0,
        tls: None,
        times: Times { warm: Duration::ZERO, measure: Duration::ZERO },
    }
}

const fn routed(shape: Shape, routes: usize) -> Load {
    Load { routes, ..load(shape, 64, SMALL) }
}

const SCENARIOS: &[(&str, &str, Load)] = &[
    ("requests", "100b-64", load(Shape::Requests, 64, SMALL)),
    ("requests", "16k-64", load(Shape::Requests, 64, MEDIUM)),
    ("requests", "100b-512", load(Shape::Requests, 512, SMALL)),
    ("requests", "fresh-64", load(Shape::Fresh, 64, SMALL)),
    (ROUTES, "routes-1", routed(Shape::Requests, 1)),
    (ROUTES, "routes-1000", routed(Shape::Requests, 1_000)),
    (ROUTES, "routes-100000", routed(Shape::Requests, 100_000)),
    (ROUTES, "same-1000", routed(Shape::OneRoute, 1_000)),
    (ROUTES, "same-100000", routed(Shape::OneRoute, 100_000)),
    ("websocket", "websocket-64", load(Shape::WebSocket, 64, 0)),
    ("bulk", "bulk-down-8", load(Shape::Requests, 8, LARGE)),
    ("bulk", "bulk-up-8", Load { up: LARGE, ..load(Shape::Requests, 8, SMALL) }),
];

/// Those that a smoke run leaves out: they would show nothing new in little time.
const LONG: &[&str] = &["100b-512", "routes-1", "routes-100000", "same-1000", "same-100000"];

/// All scenarios that the plan wants.
pub(super) fn run(tools: &Tools, plan: &Plan<Peer>, report: &mut Report) {
    let names = |part: &str| SCENARIOS.iter().any(|(_, name, _)| *name == part);
    let times = plan.course.times();
    let wanted: Vec<_> = SCENARIOS
        .iter()
        .filter(|(_, name, _)| plan.course.wants(name, names) && !(plan.course.smoke && LONG.contains(name)))
        .map(|&(study, name, load)| {
            let (connections, routes) = match plan.course.smoke {
                true => (load.connections.min(FEW.0), load.routes.min(FEW.1)),
                false => (load.connections, load.routes),
            };
            // Who has read a large document is busy with it for a while after it serves.
            let more = if routes > MANY_ROUTES { SETTLING } else { Duration::ZERO };
            let times = Times { warm: times.warm + more, ..times };
            let unit = if study == "bulk" { Unit::Bytes } else { Unit::Times };
            Scenario { study, name, load: Load { connections, routes, times, ..load }, unit }
        })
        .collect();
    let is_too_long = |load: &Load, peer: Peer| peer == Peer::Sozu && load.routes > MANY_ROUTES;
    for s in wanted.iter().filter(|s| plan.peers.iter().any(|peer| is_too_long(&s.load, *peer))) {
        report.note(format!("{}: sozu takes longer than a minute to start, and was left out", s.name));
    }
    // Without a proxy there is no route.
    let is_spared =
        |s: &Scenario<Load>, peer: Peer| s.study == ROUTES && peer.program().is_none() || is_too_long(&s.load, peer);
    rounds(tools, plan, &wanted, report, is_spared);
    beside_one_route(report);
    // Kakei keeps a file for the backend of each client whether it needs one or not.
    memory(tools, plan, report, CROWD, |connections| Load { connections, ..load(Shape::Idle, 0, SMALL) });
}

/// What a request costs with all routes, in parts of what it cost in the same round with one.
fn beside_one_route(report: &mut Report) {
    let costs: Vec<_> = report.rows.iter().filter(|r| r.study == ROUTES && r.scenario == "routes-1").collect();
    let costs: Vec<_> = costs.iter().map(|r| (r.peer, r.rounds.clone())).collect();
    for row in report.rows.iter_mut().filter(|r| r.study == ROUTES) {
        let Some((_, one)) = costs.iter().find(|(peer, _)| *peer == row.peer) else { continue };
        for (round, figures) in &mut row.rounds {
            let cost = |figures: &crate::bench::report::Figures| figures.get("cpu_us").copied();
            if let (Some(here), Some(there)) = (cost(figures), one.get(round).and_then(cost)) {
                figures.insert("to_one", here / there.max(1e-9));
            }
        }
    }
}
