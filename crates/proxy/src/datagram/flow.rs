//! A flow: its key, where it goes, its socket, what it keeps. What it may do is `life`'s to say.

use std::net::SocketAddr;
use std::sync::Arc;

use super::key::FlowKey;
use super::life::{Life, Phase};
use crate::cluster::{BackendKey, ClusterKey, Lease};
use crate::listener::ListenerKey;
use crate::seam::{Instant, SocketId};
use crate::snapshot::Target;
use crate::timers::TimerKey;

slotmap::new_key_type! {
    /// A flow; carries a generation.
    pub struct FlowId;
}

/// A flow. There may be very many, so whatever only few of them have stands behind a word.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) key: FlowKey,
    pub(crate) life: Life,
    pub(crate) listener: ListenerKey,
    pub(crate) target: Arc<Target>,
    pub(crate) cluster: ClusterKey,
    pub(crate) backend: BackendKey,
    pub(crate) upstream: Upstream,
    pub(crate) kept: Option<Box<Kept>>,
    /// The armed deadline.
    pub(crate) timer: Option<TimerKey>,
    /// The instant that it is armed for; of no meaning without.
    pub(crate) armed: Instant,
}

/// A flow's way to its backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upstream {
    pub(crate) socket: SocketId,
    /// None: the socket is the flow's own, connected.
    pub(crate) lease: Option<Lease>,
    pub(crate) open: bool,
    /// Whether this backend has been sent the PROXY header of a flow that carries it once.
    pub(crate) introduced: bool,
}

/// The one datagram that a flow may keep.
#[derive(Debug)]
pub(crate) enum Kept {
    /// Not forwarded yet: the newest since the socket was asked for.
    Pending(Vec<u8>),
    /// Forwarded already, to be sent again where the backend can't be reached (`retry_on_unreachable`).
    Spare(Vec<u8>),
}

impl Upstream {
    /// No way there yet.
    pub(crate) fn none() -> Self {
        Upstream { socket: SocketId::default(), lease: None, open: false, introduced: false }
    }
}

impl Flow {
    /// Where replies go, and what the record calls the address that the client dialled.
    pub(crate) fn dialled(&self, front_port: u16) -> SocketAddr {
        self.key.believed().map_or(SocketAddr::new(self.key.local, front_port), |believed| believed.destination)
    }

    /// Whether its client's datagrams are for this flow: then the index leads here.
    pub(crate) fn is_keyed(&self) -> bool {
        self.life.phase != Phase::Lingering
    }

    /// The backend answered: nothing needs to be sent again.
    pub(crate) fn forget_spare(&mut self) {
        if matches!(self.kept.as_deref(), Some(Kept::Spare(_))) {
            self.kept = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timers;
    use crate::world::{Due, Socket};

    /// What a flow takes in the worker. A slot of a table is 4 bytes more, rounded up to 8; beside these there are
    /// about 13 bytes of index, and slack where tables grow.
    #[test]
    fn a_flow_its_socket_and_its_deadline_stay_small() {
        assert_eq!(size_of::<Flow>(), 192);
        assert_eq!(size_of::<Socket>(), 16);
        assert_eq!(size_of::<timers::Entry<Due>>(), 32);
    }
}
