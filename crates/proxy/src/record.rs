//! The access-log record: one for each flow, made when it ends. Knows no format and no file.

use std::net::SocketAddr;
use std::time::Duration;

use kakei_config::Name;
use serde::{Deserialize, Serialize};

use crate::seam::Instant;

/// Why a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    /// No datagram in either direction for as long as its timeout.
    Idle,
    /// Its lifetime was over.
    Lifetime,
    /// Its last reply was returned.
    ResponsesReached,
    /// Its last request was forwarded and no reply is expected.
    RequestsReached,
    /// The listener or the process drained and the time for it was over.
    Drain,
    /// Its backend was removed and its cluster says `close` (or `move`, and there is no other).
    BackendRemoved,
    /// Its backend went down and its cluster says `close` (or `move`, and there is no other).
    BackendDown,
    /// Its socket to the backend could not be opened.
    Aborted,
}

impl CloseReason {
    /// Every reason, in the order of the counters.
    pub const ALL: [CloseReason; 8] = [
        CloseReason::Idle,
        CloseReason::Lifetime,
        CloseReason::ResponsesReached,
        CloseReason::RequestsReached,
        CloseReason::Drain,
        CloseReason::BackendRemoved,
        CloseReason::BackendDown,
        CloseReason::Aborted,
    ];

    /// The word in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::Idle => "idle",
            CloseReason::Lifetime => "lifetime",
            CloseReason::ResponsesReached => "responses_reached",
            CloseReason::RequestsReached => "requests_reached",
            CloseReason::Drain => "drain",
            CloseReason::BackendRemoved => "backend_removed",
            CloseReason::BackendDown => "backend_down",
            CloseReason::Aborted => "aborted",
        }
    }
}

/// What a flow was, for the access log. Byte counts never include PROXY protocol headers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowRecord {
    /// The listener that admitted it.
    pub listener: Name,
    /// The route that matched; none: the listener's default cluster.
    pub route: Option<Name>,
    /// The cluster.
    pub cluster: Name,
    /// The backend.
    pub backend: Name,
    /// Its address.
    pub backend_address: SocketAddr,
    /// Who the client is (an inbound PROXY header believed).
    pub client: SocketAddr,
    /// The address it dialled.
    pub local: SocketAddr,
    /// When it was admitted.
    pub admitted: Instant,
    /// How long it lived.
    pub duration: Duration,
    /// Datagrams forwarded to the backend.
    pub requests: u64,
    /// Their bytes.
    pub request_bytes: u64,
    /// Datagrams returned to the client.
    pub responses: u64,
    /// Their bytes.
    pub response_bytes: u64,
    /// Why it ended.
    pub reason: CloseReason,
}
