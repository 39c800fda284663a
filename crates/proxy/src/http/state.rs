//! What is written down of HTTP: a client's connection with its request, that with its backend's connection. Plain data;
//! deadlines are times, sockets the ids they had, everything else of the worker its place in the worker's own state.

use std::net::SocketAddr;
use std::time::Duration;

use kakei_config::{Name, Route};
use kakei_wire::http1::Body;
use serde::{Deserialize, Serialize};

use super::answer::Accepts;
use super::exchange::{Framing, Phase, RequestId, Traits};
use super::guard::Guard;
use super::rate::{Permit, RateState};
use super::session::Stage;
use super::upstream::Reading;
use crate::arrival::Counted;
use crate::change::Change;
use crate::client::Believed;
use crate::record::{CloseReason, ExchangeDetail};
use crate::state::HttpContractState;
use crate::stats::Lapse;
use crate::unsent::Unsent;

/// Everything alive in a worker that speaks HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct HttpState {
    /// What exchanges began with, each written once: listeners' contracts, and routes.
    pub(super) contracts: Vec<(Name, HttpContractState)>,
    pub(super) rules: Vec<RuleState>,
    /// Those whose requests wait for a backend come first, in the order of their waiting.
    pub(super) sessions: Vec<SessionState>,
    /// Of each backend, the one that was used last at the end.
    pub(super) idle: Vec<IdleState>,
    pub(super) rates: Vec<RateState>,
    /// The number of the next question about a password.
    pub(super) next_job: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RuleState {
    /// None: what the listener does with everything else.
    pub(super) route: Option<Name>,
    pub(super) spec: Route,
    pub(super) is_timed: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SessionState {
    pub(super) socket: u64,
    /// Index of its listener.
    pub(super) listener: usize,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) believed: Option<Believed>,
    pub(super) counted: Counted,
    /// Since it was accepted, since the stage began, since bytes moved.
    pub(super) age: Duration,
    pub(super) since: Duration,
    pub(super) moved: Duration,
    pub(super) stage: Stage,
    pub(super) input: Vec<u8>,
    pub(super) body: Body,
    pub(super) rest: Unsent,
    pub(super) credit: bool,
    pub(super) requests: u32,
    /// Time left, and why.
    pub(super) drains: Vec<(Duration, Change)>,
    pub(super) exchange: Option<Box<ExchangeState>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ExchangeState {
    /// Indices of what it began with.
    pub(super) contract: usize,
    pub(super) rule: Option<usize>,
    /// The path that it was routed by, where the route needs that.
    #[serde(default)]
    pub(super) path: Option<Vec<u8>>,
    pub(super) cluster: Option<usize>,
    pub(super) backend: Option<usize>,
    pub(super) knobs: Option<usize>,
    pub(super) phase: Phase,
    /// Since the phase began, since the request did, since bytes moved.
    pub(super) since: Duration,
    pub(super) age: Duration,
    pub(super) moved: Duration,
    pub(super) traits: Traits,
    /// What it asks to become, where it does.
    pub(super) protocols: Option<Vec<u8>>,
    /// What it waits for that may not pass yet; time left for that.
    pub(super) guard: Option<(Guard, Duration)>,
    pub(super) request_ended: bool,
    /// Of the request, of the response.
    pub(super) framing: [Framing; 2],
    pub(super) kept: Vec<u8>,
    pub(super) is_whole: bool,
    pub(super) status: u16,
    /// Indices of backends; what is gone by now isn't among them.
    pub(super) tried: Vec<usize>,
    pub(super) tries: u32,
    /// Why the last of these did not come to an answer.
    #[serde(default)]
    pub(super) failed: Option<CloseReason>,
    pub(super) revived: bool,
    pub(super) interim: u8,
    pub(super) sticky: Option<usize>,
    pub(super) accepts: Accepts,
    pub(super) affinity: u64,
    /// Of the request, of the response.
    pub(super) bytes: [u64; 2],
    /// Of an answer of the proxy's own.
    pub(super) own_bytes: u64,
    pub(super) lapse: Lapse,
    pub(super) request_id: Option<RequestId>,
    pub(super) retry_after: Option<u32>,
    pub(super) permits: Vec<Permit>,
    pub(super) detail: Option<Box<ExchangeDetail>>,
    pub(super) upstream: Option<UpstreamState>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct UpstreamState {
    pub(super) socket: u64,
    /// Since it was opened, since it waits.
    pub(super) age: Duration,
    pub(super) since: Duration,
    pub(super) requests: u32,
    pub(super) reading: Reading,
    pub(super) input: Vec<u8>,
    pub(super) body: Body,
    pub(super) rest: Unsent,
    pub(super) credit: bool,
    pub(super) keeps: bool,
    pub(super) is_private: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct IdleState {
    /// Indices of where it leads.
    pub(super) cluster: usize,
    pub(super) backend: usize,
    pub(super) upstream: UpstreamState,
}
