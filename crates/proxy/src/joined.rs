//! Two streams that belong together from now on: what one protocol hands to another when a request becomes a connection
//! of its own. Decides nothing.

use std::sync::Arc;

use kakei_config::TcpKnobs;

use crate::arrival::Arrived;
use crate::change::Drains;
use crate::cluster::{BackendKey, ClusterKey};
use crate::seam::SocketId;
use crate::snapshot::Target;
use crate::unsent::Unsent;

/// A client's stream and a backend's, both open, both received from.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) arrived: Arrived,
    pub(crate) client: SocketId,
    pub(crate) backend: SocketId,
    pub(crate) place: (ClusterKey, BackendKey),
    pub(crate) target: Arc<Target>,
    pub(crate) knobs: Arc<TcpKnobs>,
    /// By when it has to be over, where what it stands on was changed already.
    pub(crate) drains: Drains,
    /// What the client did not take yet of what was said so far.
    pub(crate) to_client: Unsent,
    /// What the backend did not take yet.
    pub(crate) to_backend: Unsent,
    /// What the client sent already that wasn't passed on.
    pub(crate) from_client: Vec<u8>,
    /// What the backend sent already that wasn't passed on.
    pub(crate) from_backend: Vec<u8>,
}
