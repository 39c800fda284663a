//! A flow: its key, where it goes, its socket, what it keeps. What it may do is `life`'s to say.

use std::net::SocketAddr;
use std::sync::Arc;

use super::key::FlowKey;
use super::life::Life;
use crate::cluster::{BackendKey, ClusterKey, Lease};
use crate::listener::ListenerKey;
use crate::seam::{Instant, SocketId};
use crate::snapshot::Target;
use crate::timers::TimerKey;

slotmap::new_key_type! {
    /// A flow; carries a generation.
    pub struct FlowId;
}

/// A flow.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) key: FlowKey,
    pub(crate) life: Life,
    pub(crate) listener: ListenerKey,
    pub(crate) target: Arc<Target>,
    pub(crate) cluster: ClusterKey,
    pub(crate) backend: BackendKey,
    pub(crate) upstream: Upstream,
    pub(crate) kept: Kept,
    /// The armed deadline, and the instant it is armed for.
    pub(crate) timer: Option<(TimerKey, Instant)>,
    /// Whether the index leads here.
    pub(crate) keyed: bool,
    /// Whether this backend has been sent the PROXY header of a flow that carries it once.
    pub(crate) introduced: bool,
    /// Whether it was moved away from a backend that could not be reached.
    pub(crate) retried: bool,
}

/// A flow's way to its backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upstream {
    pub(crate) socket: SocketId,
    /// None: the socket is the flow's own, connected.
    pub(crate) lease: Option<Lease>,
    pub(crate) open: bool,
    /// The step in which the socket was asked for.
    pub(crate) asked: u32,
}

/// The one datagram that a flow may keep.
#[derive(Debug, Default)]
pub(crate) enum Kept {
    #[default]
    None,
    /// Not forwarded yet: the newest since the socket was asked for.
    Pending(Thin),
    /// Forwarded already, to be sent again where the backend can't be reached (`retry_on_unreachable`).
    Spare(Thin),
}

/// Bytes behind one word: most flows keep nothing, so they don't pay for a length.
pub(crate) type Thin = Box<Vec<u8>>;

impl Flow {
    /// Where replies go, and what the record calls the address that the client dialled.
    pub(crate) fn dialled(&self, front_port: u16) -> SocketAddr {
        match &self.key.believed {
            Some(believed) => believed.destination,
            None => SocketAddr::new(self.key.local, front_port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside these a flow takes about 16 bytes of index, 40 of its deadline, and slack where tables grow.
    #[test]
    fn a_flow_and_its_socket_stay_small() {
        assert!(size_of::<Flow>() <= 240, "{} bytes", size_of::<Flow>());
        assert!(size_of::<crate::world::Socket>() <= 32, "{} bytes", size_of::<crate::world::Socket>());
    }
}
