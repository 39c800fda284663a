//! How datagrams' costs are shown: the studies, their columns, the figures of an outcome. Measures nothing.

use super::stand::Outcome;
use crate::bench::report::{Column, Fault, Figures, Table};

const COST: &[Column] = &[
    ("CPU ns/dgram", "cpu_ns", 1.0, 0),
    ("user ns", "user_ns", 1.0, 0),
    ("core %", "busy", 100.0, 0),
    ("carried/s", "carried_per_s", 1.0, 0),
    ("lost %", "loss", 100.0, 3),
    ("p50 us", "p50_ns", 1e-3, 0),
    ("p99 us", "p99_ns", 1e-3, 0),
];
const SATURATION: &[Column] = &[
    ("sent/s", "rate", 1.0, 0),
    ("carried/s", "carried_per_s", 1.0, 0),
    ("core %", "busy", 100.0, 0),
    ("carried/s of a full core", "full_core_per_s", 1.0, 0),
    ("CPU ns/dgram", "cpu_ns", 1.0, 0),
    ("core % beyond", "busy_beyond", 100.0, 0),
    ("generator late %", "late_beyond", 100.0, 1),
    ("lost at 80 %", "lost_at_80", 1.0, 0),
    ("of", "sent_at_80", 1.0, 0),
];
const MEMORY: &[Column] = &[
    ("bytes/flow in the process", "rss_per_flow", 1.0, 0),
    ("bytes/flow in the kernel's socket slabs", "slab_per_flow", 1.0, 0),
    ("MiB at one flow", "rss_start", 1.0 / 1_048_576.0, 1),
    ("flows without an answer", "unopened", 1.0, 0),
];

/// The studies, in the order in which they are shown.
pub(super) const TABLES: &[Table] = &[
    Table { study: "cost", cost: "cpu_ns", columns: COST },
    Table { study: "known", cost: "cpu_ns", columns: COST },
    Table { study: "saturation", cost: "cpu_ns", columns: SATURATION },
    Table { study: "workers", cost: "cpu_ns", columns: SATURATION },
    Table { study: "memory", cost: "rss_per_flow", columns: MEMORY },
];

/// What a smoke run must not show.
pub(super) const FAULTS: &[Fault] = &[
    ("loss", 0.5, "lost more than half of all datagrams"),
    ("strayed", 0.0, "sent answers to sockets that had not asked"),
    ("unopened", 0.0, "left flows without an answer"),
];

/// The figures of an outcome.
pub(super) fn figures(outcome: &Outcome) -> Figures {
    let mut found = Figures::from([
        ("carried_per_s", outcome.carried() / outcome.seconds.max(1e-9)),
        ("sent", outcome.sent),
        ("lost", outcome.lost()),
        ("loss", outcome.loss()),
        ("skipped", outcome.skipped),
        ("strayed", outcome.strayed),
        ("unopened", outcome.unopened),
        ("p50_ns", outcome.p50_ns),
        ("p99_ns", outcome.p99_ns),
    ]);
    // Without a proxy there is nothing that used a CPU.
    if outcome.usage.cpu_ns > 0 {
        found.extend([
            ("cpu_ns", outcome.cpu_ns()),
            ("user_ns", outcome.cpu_ns() * outcome.user_share()),
            ("user_share", outcome.user_share()),
            ("busy", outcome.busy()),
        ]);
    }
    if let Some(calm) = outcome.calm {
        found.extend([("calm", calm.share), ("calm_ns", calm.cpu_ns)]);
    }
    found
}
