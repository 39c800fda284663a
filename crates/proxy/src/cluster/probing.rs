//! The probes of a cluster in flight: which socket carries which. The schedule and the verdicts are `health`'s.

use std::collections::BTreeMap;

use crate::cluster::BackendKey;
use crate::health::{Checker, ProbeId};
use crate::seam::SocketId;
use crate::timers::TimerKey;

/// Active checks, in the one worker that probes.
#[derive(Debug, Default)]
pub(crate) struct Probing {
    pub(crate) checker: Checker<BackendKey>,
    pub(crate) sockets: BTreeMap<ProbeId, SocketId>,
    pub(crate) timer: Option<TimerKey>,
}
