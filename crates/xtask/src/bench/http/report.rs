//! How requests' costs are shown: the studies and their columns. Measures nothing.

use crate::bench::report::{Column, Table};
use crate::bench::studies::{BULK, MEMORY, PACE};

const CPU: Column = ("CPU us/request", "cpu_us", 1.0, 2);
const USER: Column = ("user us", "user_us", 1.0, 2);
const RATE: Column = ("requests/s", "per_s", 1.0, 0);
const LOST: Column = ("lost", "lost", 1.0, 0);
const MIB: Column = ("MiB", "rss", 1.0 / 1_048_576.0, 1);

const REQUESTS: &[Column] = &[CPU, USER, RATE, PACE[0], PACE[1], PACE[2], PACE[3], LOST, MIB];
const ROUTES: &[Column] =
    &[CPU, ("beside one route", "to_one", 1.0, 2), USER, RATE, PACE[0], PACE[1], PACE[2], PACE[3], LOST, MIB];
const MESSAGES: &[Column] = &[
    ("CPU us/message", "cpu_us", 1.0, 2),
    USER,
    ("messages/s", "per_s", 1.0, 0),
    PACE[0],
    PACE[1],
    PACE[2],
    PACE[3],
    MIB,
];

/// The studies, in the order in which they are shown.
pub(super) const TABLES: &[Table] = &[
    Table { study: "requests", cost: "cpu_us", columns: REQUESTS },
    Table { study: "routes", cost: "cpu_us", columns: ROUTES },
    Table { study: "websocket", cost: "cpu_us", columns: MESSAGES },
    Table { study: "bulk", cost: "cpu_s", columns: BULK },
    Table { study: "memory", cost: "rss_per_connection", columns: MEMORY },
];
