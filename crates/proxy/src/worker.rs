//! The worker: one pure function from what happened to what to do.
//!
//! ```
//! use std::sync::Arc;
//! use kakei_proxy::seam::{Inbox, Instant, Outbox};
//! use kakei_proxy::worker::{Role, Worker};
//!
//! let mut worker = Worker::new(Role { index: 0, seed: 7 });
//! let (mut events, arena, mut out) = (Vec::new(), vec![0u8; 65_536], Outbox::default());
//! let wake = worker.step(Instant::ZERO, Inbox { events: &mut events, bytes: &arena }, &mut out);
//! assert!(out.ops.is_empty() && wake.is_none());
//! ```

use crate::seam::{Inbox, Instant, Outbox};

/// Which worker of the process this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// 0 to workers − 1. Worker 0 probes backends and tells the others by [`crate::seam::Notice::Health`].
    pub index: u16,
    /// Seeds everything random.
    pub seed: u64,
}

/// A worker.
#[derive(Debug)]
pub struct Worker {
    role: Role,
}

impl Worker {
    /// A worker that listens nowhere until its first `Command::Publish`.
    pub fn new(role: Role) -> Self {
        Worker { role }
    }

    /// Handle everything in the inbox and every deadline that is due (each within its budget), leave what to do in
    /// the outbox, and say when to call again at the latest. `now` never goes back; a wake-up equal to `now` means
    /// that a budget cut the work short.
    pub fn step(&mut self, now: Instant, inbox: Inbox<'_>, out: &mut Outbox) -> Option<Instant> {
        let _ = (now, out, self.role);
        inbox.events.clear();
        None
    }
}
