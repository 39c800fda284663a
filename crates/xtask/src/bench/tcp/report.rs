//! How streams' costs are shown: the studies, their columns, the figures of an outcome. Measures nothing.

use super::stand::{Outcome, Shape};
use crate::bench::report::{Column, Fault, Figures, Table};

const GIB: f64 = (1u64 << 30) as f64;

const BULK: &[Column] = &[
    ("CPU s/GiB", "cpu_s", 1.0, 3),
    ("user s/GiB", "user_s", 1.0, 3),
    ("Gbit/s", "gbit_per_s", 1.0, 2),
    ("core %", "busy", 100.0, 0),
    ("wrong", "wrong", 1.0, 0),
];
const MESSAGES: &[Column] = &[
    ("CPU us/message", "cpu_us", 1.0, 2),
    ("user us", "user_us", 1.0, 2),
    ("messages/s", "per_s", 1.0, 0),
    ("core %", "busy", 100.0, 0),
    ("p50 us", "p50_ns", 1e-3, 0),
    ("p99 us", "p99_ns", 1e-3, 0),
    ("wrong", "wrong", 1.0, 0),
];
const VISITS: &[Column] = &[
    ("CPU us/connection", "cpu_us", 1.0, 2),
    ("user us", "user_us", 1.0, 2),
    ("connections/s", "per_s", 1.0, 0),
    ("core %", "busy", 100.0, 0),
    ("p50 us", "p50_ns", 1e-3, 0),
    ("p99 us", "p99_ns", 1e-3, 0),
    ("lost", "lost", 1.0, 0),
];
const MEMORY: &[Column] = &[
    ("bytes/connection in the process", "rss_per_connection", 1.0, 0),
    ("bytes/connection in the kernel's socket slabs", "slab_per_connection", 1.0, 0),
    ("connections", "units", 1.0, 0),
    ("MiB at one connection", "rss_start", 1.0 / 1_048_576.0, 1),
    ("unopened", "unopened", 1.0, 0),
];

/// The studies, in the order in which they are shown.
pub(super) const TABLES: &[Table] = &[
    Table { study: "bulk", cost: "cpu_s", columns: BULK },
    Table { study: "messages", cost: "cpu_us", columns: MESSAGES },
    Table { study: "visits", cost: "cpu_us", columns: VISITS },
    Table { study: "memory", cost: "rss_per_connection", columns: MEMORY },
];

/// What a smoke run must not show.
pub(super) const FAULTS: &[Fault] = &[
    ("wrong", 0.0, "changed what it carried"),
    ("lost", 0.0, "lost connections"),
    ("unopened", 0.0, "left connections without an answer"),
    ("idle", 0.0, "carried nothing"),
];

/// The figures of an outcome.
pub(super) fn figures(shape: Shape, outcome: &Outcome) -> Figures {
    let (per_s, cpu_ns) = (outcome.units / outcome.seconds.max(1e-9), outcome.cpu_ns());
    let mut found = Figures::from([
        ("wrong", outcome.wrong),
        ("lost", outcome.lost),
        ("unopened", outcome.unopened),
        ("idle", f64::from(u8::from(outcome.units == 0.0))),
        ("p50_ns", outcome.p50_ns),
        ("p99_ns", outcome.p99_ns),
    ]);
    let bulk = matches!(shape, Shape::Down | Shape::Up);
    match bulk {
        true => found.insert("gbit_per_s", per_s * 8.0 / 1e9),
        false => found.insert("per_s", per_s),
    };
    // Without a proxy there is nothing that used a CPU.
    if outcome.usage.cpu_ns > 0 {
        let user_ns = cpu_ns * outcome.user_share();
        found.extend(match bulk {
            true => [("cpu_s", cpu_ns * GIB / 1e9), ("user_s", user_ns * GIB / 1e9), ("busy", outcome.busy())],
            false => [("cpu_us", cpu_ns / 1e3), ("user_us", user_ns / 1e3), ("busy", outcome.busy())],
        });
    }
    found
}
