//! How scenarios of streams are gone through: round by round, peer by peer, each noted. Knows no scenario.

use super::ground::{Course, Tools};
use super::programs::Peer;
use super::report::{At, Column, Fault, Figures, Report};
use super::say;
use super::stand::{Proxy, Unit, idle, measure};

/// Idle connections of a smoke run.
const FEW: usize = 200;
/// Files that a process has open beside those of idle connections.
const OTHER_FILES: usize = 120;

/// Rates and delays, for studies whose units are times.
pub(super) const PACE: [Column; 4] = [
    ("core %", "busy", 100.0, 0),
    ("p50 us", "p50_ns", 1e-3, 0),
    ("p99 us", "p99_ns", 1e-3, 0),
    ("wrong", "wrong", 1.0, 0),
];
pub(super) const BULK: &[Column] = &[
    ("CPU s/GiB", "cpu_s", 1.0, 3),
    ("user s/GiB", "user_s", 1.0, 3),
    ("Gbit/s", "gbit_per_s", 1.0, 2),
    ("core %", "busy", 100.0, 0),
    ("wrong", "wrong", 1.0, 0),
];
pub(super) const MEMORY: &[Column] = &[
    ("bytes/connection in the process", "rss_per_connection", 1.0, 0),
    ("bytes/connection in the kernel's socket slabs", "slab_per_connection", 1.0, 0),
    ("connections", "units", 1.0, 0),
    ("MiB at one connection", "rss_start", 1.0 / 1_048_576.0, 1),
    ("unopened", "unopened", 1.0, 0),
];

/// What a smoke run must not show.
pub(super) const FAULTS: &[Fault] = &[
    ("wrong", 0.0, "changed what it carried"),
    ("lost", 0.0, "lost connections"),
    ("unopened", 0.0, "left connections without an answer"),
    // A client that comes before the first ticket does can't go on from one.
    ("unlike", 16.0, "made other handshakes than were wanted"),
    ("idle", 0.0, "carried nothing"),
];

/// What a run does: who, how often, how long, which.
pub(super) struct Plan<P> {
    pub(super) peers: Vec<P>,
    pub(super) course: Course,
}

/// A load with its name, and the study that it belongs to.
pub(super) struct Scenario<L> {
    pub(super) study: &'static str,
    pub(super) name: &'static str,
    pub(super) load: L,
    pub(super) unit: Unit,
}

/// Go through `scenarios`: those of one study take turns, so that they can be compared too.
pub(super) fn rounds<P: Proxy>(
    tools: &Tools,
    plan: &Plan<P>,
    scenarios: &[Scenario<P::Load>],
    report: &mut Report<P>,
    spares: impl Fn(&Scenario<P::Load>, P) -> bool,
) {
    let mut rest = scenarios;
    while let Some(first) = rest.first() {
        let length = rest.iter().take_while(|s| s.study == first.study).count();
        let (study, others) = rest.split_at(length);
        for round in 0..plan.course.rounds {
            for s in study {
                for peer in plan.peers.iter().copied().filter(|peer| !spares(s, *peer)) {
                    let done = measure(tools, peer, s.load, s.unit);
                    note(report, At { study: s.study, scenario: s.name, round }, peer, done);
                }
            }
        }
        rest = others;
    }
}

/// Idle connections.
#[derive(Clone, Copy)]
pub(super) struct Crowd {
    pub(super) name: &'static str,
    /// How many, where as many files may be open.
    pub(super) connections: usize,
    /// How many files a proxy has open for each.
    pub(super) files: usize,
}

/// The crowd of plain connections.
pub(super) const CROWD: Crowd = Crowd { name: "memory-10000", connections: 10_000, files: 2 };

/// Resident memory before and after many connections were opened that then stay idle.
pub(super) fn memory<P: Proxy>(
    tools: &Tools,
    plan: &Plan<P>,
    report: &mut Report<P>,
    crowd: Crowd,
    load: impl Fn(usize) -> P::Load,
) {
    if !plan.course.wants("memory", |_| false) {
        return;
    }
    let most = tools.files.saturating_sub(OTHER_FILES) / crowd.files;
    let connections = if plan.course.smoke { FEW } else { crowd.connections.min(most) };
    if connections == most {
        report.note(format!("{} open files allow {most} idle connections, not {}", tools.files, crowd.connections));
    }
    // Coming to rest takes time, which a smoke run has for our own only.
    let is_wanted = |peer: &P| peer.program().is_some() && !plan.course.smoke;
    for round in 0..plan.course.rounds.min(3) {
        for peer in plan.peers.iter().copied().filter(|peer| peer.is_kakei() || is_wanted(peer)) {
            let done = idle(tools, peer, load(connections));
            note(report, At { study: "memory", scenario: crowd.name, round }, peer, done);
        }
    }
}

fn note<P: Peer>(report: &mut Report<P>, at: At<'_>, peer: P, done: Result<Figures, String>) {
    let At { scenario, round, .. } = at;
    match done {
        Ok(figures) => {
            let keys = [
                "cpu_s",
                "gbit_per_s",
                "cpu_us",
                "user_us",
                "calm",
                "calm_us",
                "per_s",
                "busy",
                "wrong",
                "lost",
                "unlike",
                "unopened",
                "rss_per_connection",
            ];
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
            if peer.is_kakei() {
                // What can't be measured of ours is a fault, even where everything else can.
                report.add(at, peer, Figures::from([("idle", 1.0)]));
            }
        }
    }
}
