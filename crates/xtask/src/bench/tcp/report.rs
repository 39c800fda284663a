//! How streams' costs are shown: the studies and their columns. Measures nothing.

use crate::bench::report::{Column, Table};
use crate::bench::studies::{BULK, MEMORY, PACE};

const MESSAGES: &[Column] = &[
    ("CPU us/message", "cpu_us", 1.0, 2),
    ("user us", "user_us", 1.0, 2),
    ("messages/s", "per_s", 1.0, 0),
    PACE[0],
    PACE[1],
    PACE[2],
    PACE[3],
];
const VISITS: &[Column] = &[
    ("CPU us/connection", "cpu_us", 1.0, 2),
    ("user us", "user_us", 1.0, 2),
    ("connections/s", "per_s", 1.0, 0),
    PACE[0],
    PACE[1],
    PACE[2],
    ("lost", "lost", 1.0, 0),
];

/// The studies, in the order in which they are shown.
pub(super) const TABLES: &[Table] = &[
    Table { study: "bulk", cost: "cpu_s", columns: BULK },
    Table { study: "messages", cost: "cpu_us", columns: MESSAGES },
    Table { study: "visits", cost: "cpu_us", columns: VISITS },
    Table { study: "memory", cost: "rss_per_connection", columns: MEMORY },
];
