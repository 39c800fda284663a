//! A worker written down: everything alive, versioned, so that another worker (of another process, of a newer
//! version) goes on where this one stopped.

use serde::{Deserialize, Serialize};

/// The version of [`WorkerState`]'s schema.
pub const SCHEMA: u32 = 1;

/// Everything alive in a worker. Deadlines are times left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerState {
    /// [`SCHEMA`] of the writer.
    pub schema: u32,
}
