//! What can be changed under something alive, for every protocol. Decides nothing.

use serde::{Deserialize, Serialize};

use crate::seam::Instant;

/// What was changed under something alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    /// Its backend is gone from the configuration.
    BackendRemoved,
    /// Its backend was found down.
    BackendDown,
    /// Its route is gone, or leads elsewhere.
    RouteChanged,
    /// Where it arrived nobody is let in any more.
    Drained,
}

/// A deadline that a change has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drain {
    pub(crate) until: Instant,
    pub(crate) change: Change,
}
