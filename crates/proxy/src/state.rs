//! A worker written down: everything alive, versioned, so that another worker (of another process, of a newer
//! version) goes on where this one stopped. Plain data; deadlines are times left, sockets the ids they had.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use kakei_config::{HttpListener, Name, OnChange, Protocol, StreamProxyProtocol, TcpKnobs, UdpKnobs};
use serde::{Deserialize, Serialize};

use crate::arrival::Counted;
use crate::change::Change;
use crate::cluster::Budget;
use crate::hash::Keyed;
use crate::health::{Check, PassiveState, Signal};
use crate::http::HttpState;
use crate::record::ConnectionDetail;
use crate::relay::{Ending, Mode, Opening, Phase};
use crate::seam::BindKey;
use crate::snapshot::{Backend, Generation};
use crate::stats::{Series, Times};
use crate::unsent::Unsent;
use crate::worker::Drain;

/// The version of [`WorkerState`]'s schema.
pub const SCHEMA: u32 = 8;

/// Everything alive in a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerState {
    /// [`SCHEMA`] of the writer.
    pub schema: u32,
    /// The generation it ran: it is read back over the same one.
    pub generation: Generation,
    pub(crate) rng: u64,
    /// The key of what is counted by what a peer chose.
    pub(crate) hash: Keyed,
    pub(crate) epoch: u64,
    pub(crate) drain: Drain,
    pub(crate) values: Vec<u64>,
    pub(crate) listeners: Vec<ListenerState>,
    pub(crate) fronts: Vec<FrontState>,
    pub(crate) clusters: Vec<ClusterState>,
    /// Contracts of flows, each written once.
    pub(crate) knobs: Vec<UdpKnobs>,
    pub(crate) flows: Vec<FlowState>,
    /// Contracts of connections, each written once.
    pub(crate) connection_knobs: Vec<TcpKnobs>,
    /// Those that wait in the order of their waiting.
    pub(crate) relays: Vec<RelayState>,
    pub(crate) http: HttpState,
    pub(crate) other_times: Option<Box<Times>>,
}

/// Why a state could not be read back. Nothing was changed by trying.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Written by a version that this one doesn't know.
    #[error("the state has schema {found}; this version reads {SCHEMA}")]
    Schema {
        /// The writer's.
        found: u32,
    },
    /// To be read back over the generation it was written over, then published to.
    #[error("the state belongs to generation {}, not {}", found.0, given.0)]
    Generation {
        /// The state's.
        found: Generation,
        /// What was given.
        given: Generation,
    },
    /// It names what it doesn't hold: it was damaged.
    #[error("the state is damaged: {0}")]
    Damaged(&'static str),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ListenerState {
    pub(crate) name: Name,
    /// What still counts of it, where it is gone from the configuration.
    pub(crate) removed: Option<RemovedState>,
    pub(crate) values: Vec<u64>,
    pub(crate) drops: Vec<u64>,
    pub(crate) closes: Vec<u64>,
    pub(crate) connection_closes: Vec<u64>,
    pub(crate) exchange_closes: Vec<u64>,
    pub(crate) refusals: Vec<u64>,
    /// How long requests took.
    pub(crate) times: Vec<(Series, Box<Times>)>,
    /// How far ahead of its pace admission is.
    pub(crate) ahead: Duration,
}

/// What live flows of a removed listener are held to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RemovedState {
    /// Time left.
    pub(crate) left: Duration,
    pub(crate) protocol: Protocol,
    pub(crate) max_datagram_size: u32,
    pub(crate) trusted: Vec<IpNet>,
    pub(crate) preread_timeout: Duration,
    pub(crate) reads_hello: bool,
    pub(crate) http: Option<HttpContractState>,
}

/// What the part of a listener that speaks HTTP holds those to who are past its routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct HttpContractState {
    pub(crate) knobs: HttpListener,
    pub(crate) workers: u16,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FrontState {
    pub(crate) socket: u64,
    pub(crate) bind: BindKey,
    pub(crate) port: u16,
    /// Index of its listener.
    pub(crate) listener: usize,
    /// Time left, where it drains.
    pub(crate) draining: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClusterState {
    pub(crate) name: Name,
    pub(crate) removed: bool,
    /// What connections that are being opened begin with, were it removed.
    pub(crate) send_proxy_protocol: StreamProxyProtocol,
    pub(crate) retries: Budget,
    pub(crate) times: Option<Box<Times>>,
    pub(crate) backends: Vec<BackendState>,
    pub(crate) sockets: Vec<SharedSocketState>,
    pub(crate) values: Vec<u64>,
    pub(crate) drops: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BackendState {
    pub(crate) spec: Backend,
    pub(crate) removed: bool,
    pub(crate) up: bool,
    /// Since it came up.
    pub(crate) up_for: Duration,
    pub(crate) passive: PassiveState,
    pub(crate) signals: Vec<(Check, Signal)>,
    pub(crate) values: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SharedSocketState {
    pub(crate) socket: u64,
    pub(crate) v6: bool,
    pub(crate) seat: crate::cluster::Seat,
    pub(crate) open: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FlowState {
    pub(crate) front: u64,
    pub(crate) peer: SocketAddr,
    pub(crate) local: IpAddr,
    pub(crate) believed: Option<crate::client::Believed>,
    /// Indices of what it belongs to.
    pub(crate) listener: usize,
    pub(crate) cluster: usize,
    pub(crate) backend: usize,
    pub(crate) knobs: usize,
    pub(crate) route: Option<Name>,
    pub(crate) phase: crate::datagram::Phase,
    pub(crate) age: Duration,
    pub(crate) idle_in: Duration,
    pub(crate) token: u32,
    pub(crate) traffic: crate::datagram::Traffic,
    /// Its own socket; none on a shared one.
    pub(crate) socket: Option<u64>,
    pub(crate) lease: Option<crate::cluster::Lease>,
    pub(crate) open: bool,
    pub(crate) keyed: bool,
    pub(crate) introduced: bool,
    pub(crate) retried: bool,
    pub(crate) kept: KeptState,
    pub(crate) stashed: Vec<StashedState>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeptState {
    None,
    Pending(Vec<u8>),
    Spare(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StashedState {
    pub(crate) segment: u16,
    pub(crate) count: u32,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RelayState {
    pub(crate) client: u64,
    /// The stream to its backend, where there is one.
    pub(crate) server: Option<u64>,
    /// From the client, from the backend.
    pub(crate) lanes: [LaneState; 2],
    pub(crate) phase: Phase,
    /// Since the phase began, since it was accepted, since bytes moved.
    pub(crate) since: Duration,
    pub(crate) age: Duration,
    pub(crate) moved: Duration,
    /// Indices of what it belongs to.
    pub(crate) listener: usize,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) believed: Option<crate::client::Believed>,
    pub(crate) counted: Counted,
    /// The route that it came by and what its change does, once it was routed.
    pub(crate) route: Option<(Option<Name>, OnChange)>,
    pub(crate) cluster: Option<usize>,
    pub(crate) backend: Option<usize>,
    pub(crate) knobs: Option<usize>,
    /// What it holds until it is connected, and the backends that it tried.
    pub(crate) opening: Option<(Opening, Vec<usize>)>,
    /// Time left, and why.
    pub(crate) drains: Vec<(Duration, Change)>,
    pub(crate) detail: ConnectionDetail,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LaneState {
    pub(crate) bytes: u64,
    pub(crate) rest: Unsent,
    pub(crate) ending: Ending,
    pub(crate) mode: Mode,
}
