//! A relay: two streams, what lies between them, and where it stands. An idle one holds no buffer. Decides nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use kakei_config::{Name, OnChange, TcpKnobs};
use serde::{Deserialize, Serialize};

use crate::arrival::Counted;
use crate::change::Drains;
use crate::client::Believed;
use crate::cluster::{BackendKey, ClusterKey};
use crate::listener::ListenerKey;
use crate::record::{CloseReason, ConnectionDetail};
use crate::seam::{Instant, SocketId};
use crate::snapshot::Target;
use crate::timers::TimerKey;
use crate::unsent::Unsent;

slotmap::new_key_type! {
    /// A relay; carries a generation.
    pub struct RelayId;
}

/// One of the two streams of a relay; also the direction that begins there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Backend,
}

impl Side {
    pub(crate) fn other(self) -> Side {
        match self {
            Side::Client => Side::Backend,
            Side::Backend => Side::Client,
        }
    }
}

/// A connection from its acceptance to its end.
#[derive(Debug)]
pub(crate) struct Relay {
    /// The client's stream, and the backend's once it was asked for.
    sockets: [SocketId; 2],
    /// By where the bytes come from.
    lanes: [Lane; 2],
    pub(crate) phase: Phase,
    /// When the phase began.
    pub(crate) since: Instant,
    pub(crate) accepted: Instant,
    /// When bytes moved last.
    pub(crate) moved: Instant,
    pub(crate) listener: ListenerKey,
    /// The socket that connected.
    pub(crate) peer: SocketAddr,
    /// The address that it dialled.
    pub(crate) local: SocketAddr,
    pub(crate) believed: Option<Box<Believed>>,
    pub(crate) counted: Counted,
    /// Where it was routed to.
    pub(crate) target: Option<Arc<Target>>,
    pub(crate) cluster: Option<ClusterKey>,
    /// Set while it holds a place there.
    pub(crate) backend: Option<BackendKey>,
    /// What it is held to; captured when it is routed.
    pub(crate) knobs: Option<Arc<TcpKnobs>>,
    /// Until a backend is connected.
    pub(crate) opening: Option<Box<Opening>>,
    /// It ends by then because what it stands on was changed.
    pub(crate) drains: Drains,
    /// The armed deadline, and the instant it is armed for.
    pub(crate) timer: Option<(TimerKey, Instant)>,
    pub(crate) detail: ConnectionDetail,
}

/// Where a relay stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// It waits for what says where it goes.
    Preread,
    /// It waits for a backend with room.
    Queued,
    /// A stream to its backend is being opened.
    Connecting,
    /// Bytes move.
    Established,
}

/// One direction.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// Payload that was written or piped to the other stream; what is in `rest` included.
    pub(crate) bytes: u64,
    /// What the other stream did not take yet; of an upgraded connection the last of what was before it too.
    pub(crate) rest: Unsent,
    pub(crate) ending: Ending,
    pub(crate) mode: Mode,
    /// The step of the last write.
    pub(crate) written: u32,
    /// Whether its end is told by bytes below, in TLS.
    pub(crate) says_end: bool,
}

/// How far the end of a direction has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ending {
    /// More may come.
    #[default]
    Open,
    /// Nothing more comes; the other stream isn't told yet.
    Ended,
    /// The other stream was told.
    Passed,
}

/// How the bytes of a direction move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// Through the worker; so many bulky reads came in a row.
    Copied { bulky: u8 },
    /// Past the worker; so many small moves came in a row.
    Piped { small: u8 },
}

impl Default for Mode {
    fn default() -> Self {
        Mode::Copied { bulky: 0 }
    }
}

/// What is only needed until a backend is connected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opening {
    /// What the client sent so far.
    pub(crate) buffer: Vec<u8>,
    /// Whether the PROXY header is still to come.
    pub(crate) expects_header: bool,
    /// Whether its TLS handshake is still to come, which is somebody else's.
    #[serde(skip)]
    pub(crate) expects_handshake: bool,
    /// Where the client's own bytes begin in the buffer.
    pub(crate) payload_at: usize,
    /// Where its PROXY header's TLVs begin; they end where the payload begins.
    pub(crate) tlvs_at: usize,
    /// Backends that could not be connected to.
    #[serde(skip)]
    pub(crate) tried: Vec<BackendKey>,
    /// What was wrong with the last of them, where that has a name of its own.
    #[serde(skip)]
    pub(crate) failed: Option<CloseReason>,
}

impl Relay {
    pub(crate) fn new(accepted: Instant, listener: ListenerKey, (peer, local): (SocketAddr, SocketAddr)) -> Self {
        Relay {
            sockets: [SocketId::default(); 2],
            lanes: [Lane::default(), Lane::default()],
            phase: Phase::Preread,
            since: accepted,
            accepted,
            moved: accepted,
            listener,
            peer,
            local,
            believed: None,
            counted: Counted::Nowhere,
            target: None,
            cluster: None,
            backend: None,
            knobs: None,
            opening: None,
            drains: Drains::default(),
            timer: None,
            detail: ConnectionDetail::default(),
        }
    }

    pub(crate) fn socket(&self, side: Side) -> SocketId {
        self.sockets[side as usize]
    }

    pub(crate) fn set_socket(&mut self, side: Side, socket: SocketId) {
        self.sockets[side as usize] = socket;
    }

    /// The direction that begins at `side`.
    pub(crate) fn lane(&self, side: Side) -> &Lane {
        &self.lanes[side as usize]
    }

    pub(crate) fn lane_mut(&mut self, side: Side) -> &mut Lane {
        &mut self.lanes[side as usize]
    }

    /// Who the client is: as an inbound header said it, or as seen.
    pub(crate) fn client(&self) -> SocketAddr {
        self.believed.as_ref().map_or(self.peer, |believed| believed.source)
    }

    /// The address that the client dialled.
    pub(crate) fn dialled(&self) -> SocketAddr {
        self.believed.as_ref().map_or(self.local, |believed| believed.destination)
    }

    /// Whether it doesn't simply stay when its backend goes.
    pub(crate) fn minds_its_backend(&self) -> bool {
        let stays =
            |knobs: &TcpKnobs| knobs.on_backend_removed == OnChange::Keep && knobs.on_backend_down == OnChange::Keep;
        self.knobs.as_ref().is_some_and(|knobs| !stays(knobs))
    }

    /// The route that it came by; none: the listener's default, or none yet.
    pub(crate) fn route(&self) -> Option<&Name> {
        self.target.as_ref()?.route.as_ref()
    }

    /// Whether it doesn't simply stay when its route changes.
    pub(crate) fn minds_its_route(&self) -> bool {
        self.target.as_ref().is_some_and(|target| target.on_change != OnChange::Keep)
    }

    /// Backends that it could not be connected to.
    pub(crate) fn tried(&self) -> &[BackendKey] {
        self.opening.as_ref().map_or(&[], |opening| &opening.tried)
    }

    /// Bytes that wait in the worker.
    pub(crate) fn buffered(&self) -> usize {
        let rests = self.lanes.iter().map(|lane| lane.rest.len());
        rests.sum::<usize>() + self.opening.as_ref().map_or(0, |opening| opening.buffer.len())
    }
}

impl Opening {
    /// Whether what it says of its bytes can be true.
    pub(crate) fn is_sound(&self) -> bool {
        self.tlvs_at <= self.payload_at && self.payload_at <= self.buffer.len()
    }
}

impl Lane {
    /// Payload that reached the other stream's kernel.
    pub(crate) fn delivered(&self) -> u64 {
        self.bytes.saturating_sub(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_relay_stays_small() {
        assert!(size_of::<Relay>() <= 512, "{} bytes", size_of::<Relay>());
        assert!(size_of::<crate::world::Socket>() <= 32, "{} bytes", size_of::<crate::world::Socket>());
    }
}
