//! The probes of a cluster in flight: which socket carries which. The schedule and the verdicts are `health`'s.

use std::collections::BTreeMap;

use crate::cluster::BackendKey;
use crate::health::{Check, Checker, ProbeId};
use crate::seam::SocketId;
use crate::timers::TimerKey;

/// A probe in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) socket: SocketId,
    pub(crate) backend: BackendKey,
    pub(crate) check: Check,
}

/// Active checks, in the one worker that probes.
#[derive(Debug, Default)]
pub(crate) struct Probing {
    pub(crate) checker: Checker<BackendKey>,
    pub(crate) sockets: BTreeMap<ProbeId, Asked>,
    pub(crate) timer: Option<TimerKey>,
}
