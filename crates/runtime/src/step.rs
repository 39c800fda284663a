//! What a machine drives: anything that steps. Static dispatch; it knows nothing of sockets.

use kakei_proxy::seam::{Inbox, Instant, Outbox};
use kakei_proxy::worker::Worker;

/// A step function with the contract of [`Worker::step`].
pub trait Step {
    /// Handle the inbox and what is due, leave operations in `out`, say when to be called again at the latest.
    fn step(&mut self, now: Instant, inbox: Inbox<'_>, out: &mut Outbox) -> Option<Instant>;
}

impl Step for Worker {
    fn step(&mut self, now: Instant, inbox: Inbox<'_>, out: &mut Outbox) -> Option<Instant> {
        Worker::step(self, now, inbox, out)
    }
}
