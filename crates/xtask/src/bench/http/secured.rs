//! `cargo xtask bench tls`: Kakei beside HAProxy and nginx on requests that come by TLS: handshakes, full and resumed,
//! connections that stay, large bodies, idle connections. What differs from `bench http` is the clients' side alone.

use std::path::Path;
use std::time::Duration;

use super::peers::{self, Load, Shape};
use super::routes;
use crate::bench::certificate;
use crate::bench::compare;
use crate::bench::generator::secured::Handshakes;
use crate::bench::ground::Tools;
use crate::bench::programs::{self, Program};
use crate::bench::report::{self, Column, Table};
use crate::bench::stand::{Job, Proxy, Times, Unit};
use crate::bench::studies::{BULK, Crowd, MEMORY, PACE, Plan, Scenario, memory, rounds};

const HELP: &str = "\
cargo xtask bench tls [OPTIONS]

  --smoke          few connections, one short round: for CI; fails when Kakei doesn't serve or makes other handshakes
  --json FILE      write everything that was measured
  --only A,B       only scenarios whose name contains A or B (full-64, resumed-64, 100b-64, 16k-64, bulk-down-8, memory)
  --peers A,B      only these: kakei, haproxy, nginx
";

const CPU: Column = ("CPU us/connection", "cpu_us", 1.0, 1);
const USER: Column = ("user us", "user_us", 1.0, 2);
const LOST: Column = ("lost", "lost", 1.0, 0);
const MIB: Column = ("MiB", "rss", 1.0 / 1_048_576.0, 1);
const HANDSHAKES: &[Column] = &[
    CPU,
    USER,
    ("connections/s", "per_s", 1.0, 0),
    PACE[0],
    PACE[1],
    PACE[2],
    PACE[3],
    LOST,
    ("other handshakes", "unlike", 1.0, 0),
    MIB,
];
const REQUESTS: &[Column] = &[
    ("CPU us/request", "cpu_us", 1.0, 2),
    USER,
    ("requests/s", "per_s", 1.0, 0),
    PACE[0],
    PACE[1],
    PACE[2],
    PACE[3],
    LOST,
    MIB,
];

const TABLES: &[Table] = &[
    Table { study: "handshakes", cost: "cpu_us", columns: HANDSHAKES },
    Table { study: "requests", cost: "cpu_us", columns: REQUESTS },
    Table { study: "bulk", cost: "cpu_s", columns: BULK },
    Table { study: "memory", cost: "rss_per_connection", columns: MEMORY },
];

const SMALL: usize = 100;
const MEDIUM: usize = 16 << 10;
const LARGE: usize = 16 << 20;
const CROWD: Crowd = Crowd { name: "memory-5000", connections: 5_000, files: 2 };

const SCENARIOS: &[(&str, &str, Load)] = &[
    ("handshakes", "full-64", load(Shape::Fresh, 64, SMALL, Handshakes::Full)),
    ("handshakes", "resumed-64", load(Shape::Fresh, 64, SMALL, Handshakes::Resumed)),
    ("requests", "100b-64", load(Shape::Requests, 64, SMALL, Handshakes::Full)),
    ("requests", "16k-64", load(Shape::Requests, 64, MEDIUM, Handshakes::Full)),
    ("bulk", "bulk-down-8", load(Shape::Requests, 8, LARGE, Handshakes::Full)),
];

const fn load(shape: Shape, connections: usize, down: usize, handshakes: Handshakes) -> Load {
    let times = Times { warm: Duration::ZERO, measure: Duration::ZERO };
    Load { shape, connections, down, up: 0, routes: 0, tls: Some(handshakes), times }
}

/// Run the comparison.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    compare(args, HELP, TABLES, study)
}

/// All scenarios that the plan wants.
fn study(tools: &Tools, plan: &Plan<Peer>, report: &mut report::Report<Peer>) {
    if let Err(why) = certificate::make(&tools.dir, &routes::host(0)) {
        return report.note(format!("there is no certificate: {why}"));
    }
    let names = |part: &str| SCENARIOS.iter().any(|(_, name, _)| *name == part);
    let times = plan.course.times();
    let wanted: Vec<_> = SCENARIOS
        .iter()
        .filter(|(_, name, _)| plan.course.wants(name, names))
        .map(|&(study, name, load)| {
            let unit = if study == "bulk" { Unit::Bytes } else { Unit::Times };
            Scenario { study, name, load: Load { times, ..load }, unit }
        })
        .collect();
    rounds(tools, plan, &wanted, report, |_, _| false);
    memory(tools, plan, report, CROWD, |connections| load(Shape::Idle, connections, SMALL, Handshakes::Full));
}

/// The proxies of `bench http` that are compared under TLS. There is no `direct`: the backend speaks in plain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
enum Peer {
    Kakei,
    Haproxy,
    Nginx,
}

impl Peer {
    fn plain(self) -> peers::Peer {
        match self {
            Peer::Kakei => peers::Peer::Kakei,
            Peer::Haproxy => peers::Peer::Haproxy,
            Peer::Nginx => peers::Peer::Nginx,
        }
    }
}

impl programs::Peer for Peer {
    const ALL: &'static [(Peer, &'static str, Option<Program>)] = &[
        (Peer::Kakei, "kakei", Some(Program::Kakei)),
        (Peer::Haproxy, "haproxy", Some(Program::Haproxy)),
        (Peer::Nginx, "nginx", Some(Program::Nginx)),
    ];
    const OURS: Peer = Peer::Kakei;
}

impl Proxy for Peer {
    type Load = Load;
    const HELPER: &'static str = <peers::Peer as Proxy>::HELPER;

    fn words(self, load: Load, dir: &Path) -> Vec<(&'static str, String)> {
        self.plain().words(load, dir)
    }

    fn configure(self, load: Load, job: &Job<'_>) -> Result<Vec<String>, String> {
        self.plain().configure(load, job)
    }
}
