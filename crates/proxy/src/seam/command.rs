//! What the control side asks of a worker, what it is answered, and what a worker tells unasked.
//!
//! A command is carried out at a step boundary and answered by exactly one reply; it never waits.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kakei_config::Name;
use serde::{Deserialize, Serialize};

use super::Endpoint;
use crate::health::Check;
use crate::record::CloseReason;
use crate::snapshot::{Cluster, Generation, Metered, Snapshot};
use crate::state::WorkerState;
use crate::stats::Stats;

/// Names a command, so that its reply can be found. Unique for each worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What can be asked of a worker.
#[derive(Clone, Debug)]
pub enum Command {
    /// Go over to this generation. The front sockets of its new binds are prepared already. Answer: `Published`.
    Publish(Arc<Snapshot>),
    /// Admit nothing more; live flows end by themselves or after `within`. Answer: `Done`; then `Notice::Drained`.
    Drain {
        /// At most this long; each listener's own `drain_timeout` where none.
        within: Option<Duration>,
    },
    /// What the probing worker found. Answer: `Done`.
    Health(BackendHealth),
    /// Probe the backends of these clusters, which nothing leads to, and of none that was asked for before and isn't
    /// among them. Only worker 0 is asked. Answer: `Done`; then a `Notice::Probed` for each probe that ended.
    Candidates(Vec<Candidate>),
    /// Copy the counters. Answer: `Stats`.
    Stats,
    /// List live flows. Answer: `Flows`.
    Flows(Filter),
    /// List live connections. Answer: `Connections`.
    Connections(Filter),
    /// List what was routed lately, at most so many of each kind, the newest first. Answer: `Traffic`.
    Traffic(usize),
    /// Say how much of a route's rate limits is used up, for a request that doesn't come and counts nowhere.
    /// Answer: `Rates`.
    Rates(Arc<Metered>),
    /// Write down everything alive. The worker goes on. Answer: `State`.
    Snapshot,
}

/// Which flows or connections to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Filter {
    /// Only of this listener.
    pub listener: Option<Name>,
    /// Only by this route.
    pub route: Option<Name>,
    /// Only of this cluster.
    pub cluster: Option<Name>,
    /// Only to this backend.
    pub backend: Option<Name>,
    /// Only of this client.
    pub client: Option<IpAddr>,
    /// At most this many; bounded by [`crate::limits::PER_LISTING`].
    pub limit: usize,
}

/// The answer to a command.
#[derive(Clone, Debug)]
pub enum Reply {
    /// It was done.
    Done,
    /// The worker runs this generation now.
    Published(Generation),
    /// The counters.
    Stats(Box<Stats>),
    /// Live flows.
    Flows(Vec<FlowView>),
    /// Live connections.
    Connections(Vec<ConnectionView>),
    /// What was routed lately.
    Traffic(Vec<Seen>),
    /// How much of each of the route's limits is used up, in their order.
    Rates(Vec<RateUse>),
    /// Everything alive.
    State(Box<WorkerState>),
}

/// A live flow as operators see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "Flow"))]
pub struct FlowView {
    /// The listener that admitted it.
    pub listener: Name,
    /// The route it matched; none: the listener's default.
    pub route: Option<Name>,
    /// The cluster it goes to.
    pub cluster: Name,
    /// The backend.
    pub backend: Name,
    /// Its address.
    pub backend_address: Endpoint,
    /// Who the client is (an inbound PROXY header believed).
    pub client: SocketAddr,
    /// The socket that asked.
    pub peer: SocketAddr,
    /// The address it dialled.
    pub local: SocketAddr,
    /// Time since admission, in milliseconds.
    pub age_ms: u64,
    /// Time until its next deadline, in milliseconds.
    pub expires_in_ms: u64,
    /// Time until it ends whatever its traffic, because what it stands on was changed; none: nothing says so.
    pub ends_in_ms: Option<u64>,
    /// Datagrams forwarded.
    pub requests: u64,
    /// Datagrams returned.
    pub responses: u64,
    /// `awaiting_backend`, `established`, or `lingering`.
    pub phase: String,
}

/// A live connection as operators see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "Connection"))]
pub struct ConnectionView {
    /// The listener that accepted it.
    pub listener: Name,
    /// The route it matched; none: the listener's default, or none yet.
    pub route: Option<Name>,
    /// The cluster it goes to, once that is known.
    pub cluster: Option<Name>,
    /// The backend, once one is chosen.
    pub backend: Option<Name>,
    /// Its address.
    pub backend_address: Option<Endpoint>,
    /// Who the client is (an inbound PROXY header believed).
    pub client: SocketAddr,
    /// The socket that connected.
    pub peer: SocketAddr,
    /// The address it dialled.
    pub local: SocketAddr,
    /// The server name of its ClientHello, where that was read.
    pub sni: Option<String>,
    /// Time since it was accepted, in milliseconds.
    pub age_ms: u64,
    /// Time until its next deadline, in milliseconds; none: it has none.
    pub expires_in_ms: Option<u64>,
    /// Time until it ends whatever its traffic, because what it stands on was changed; none: nothing says so.
    pub ends_in_ms: Option<u64>,
    /// Bytes from the client to the backend.
    pub request_bytes: u64,
    /// Bytes from the backend to the client.
    pub response_bytes: u64,
    /// Bytes that wait in the worker, both directions.
    pub buffered: u64,
    /// `preread`, `queued`, `connecting`, `established`, or `half_closed`; with HTTP `preread`, `idle`, `request`, `authorizing`,
    /// `queued`, `connecting`, `waiting`, `responding`, or `closing`.
    pub phase: String,
    /// HTTP: how many requests came by it, the one under way included; none: it doesn't speak HTTP.
    pub requests: Option<u32>,
    /// HTTP: method, host and target of the request that is under way, where the access log is on.
    pub request: Option<String>,
    /// Whether it must end by a deadline because what it stood on was changed.
    pub draining: bool,
}

/// A cluster that is probed before it is published.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What it is called in `Notice::Probed`; never used twice.
    pub number: u64,
    /// The cluster, with the backends that are to be probed.
    pub cluster: Arc<Cluster>,
    /// The first probes are spread over this time.
    pub spread: Duration,
}

/// A probe of a candidate's backend ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Which candidate.
    pub candidate: u64,
    /// The backend.
    pub backend: Name,
    /// Its address.
    pub address: Endpoint,
    /// By which check.
    pub check: Check,
    /// What came of it.
    pub said: ProbeSaid,
    /// What is known by it: that every check has passed, that the checks say the backend is down; none: neither yet.
    pub verdict: Option<bool>,
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeSaid {
    /// What was expected.
    Right,
    /// No connection, or the network says that nobody is there.
    Unreachable,
    /// A connection, and no TLS over it: why.
    Unsecured(String),
    /// Nothing in time.
    Late,
    /// Something else than was expected; of a response with this status.
    Wrong(Option<u16>),
    /// An end before what was expected had come.
    Ended,
    /// It was not sent: the proxy lacks a descriptor or a port.
    Unsent,
}

/// Something that was routed lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The listener that it came by.
    pub listener: Name,
    /// Who the client is (an inbound PROXY header believed).
    pub client: SocketAddr,
    /// The address it dialled.
    pub local: SocketAddr,
    /// When, in milliseconds before now.
    pub ago_ms: u64,
    /// What.
    pub what: SeenWhat,
}

/// What it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeenWhat {
    /// A flow's first datagram.
    Flow,
    /// A connection.
    Connection {
        /// The server name of its ClientHello, where that was read.
        sni: Option<String>,
        /// The protocols that it offers.
        alpn: Vec<Vec<u8>>,
    },
    /// A request.
    Request {
        /// Its head, as far as routes match by it: no other field, and none that says who somebody is.
        head: Vec<u8>,
        /// Whether its client showed a certificate.
        has_certificate: bool,
    },
}

/// How much of a rate limit is used up in one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateUse {
    /// Of the requests in a time; none: it doesn't bound them.
    pub paced: Option<Used>,
    /// Of the requests at one time; none: it doesn't bound them.
    pub concurrent: Option<Used>,
    /// There is no room to count these requests by themselves: they count with others for which there is none.
    pub is_shared: bool,
}

/// How many requests are used up of those that may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// So many.
    pub used: u32,
    /// Of so many: what one worker may let pass without a pause, or at one time.
    pub most: u32,
    /// After how long one more may pass: at once, or later; none: when one of those under way ends.
    pub next: Option<Duration>,
}

/// Whether a backend is up, as the probing worker tells all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendHealth {
    /// The cluster.
    pub cluster: Name,
    /// The backend.
    pub backend: Name,
    /// Its address, so that a verdict about an older one of the same name does nothing.
    pub address: Endpoint,
    /// The verdict.
    pub up: bool,
    /// Where it is down: what came of the newest probe.
    #[serde(skip)]
    pub why: Option<ProbeSaid>,
}

/// What was ended because something was changed under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// What was changed.
    pub of: CutOf,
    /// Why it was ended.
    pub reason: CloseReason,
    /// Flows.
    pub flows: u64,
    /// Connections without a request under way.
    pub connections: u64,
    /// Requests.
    pub requests: u64,
}

/// What something was ended for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CutOf {
    /// A listener that drains, or has an address less.
    Listener(Name),
    /// A route that was changed or removed.
    Route(Name),
    /// A cluster's backend that was removed, or went down.
    Backend(Name, Name),
}

/// What a worker tells unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An active check changed its verdict: to be told to every other worker.
    Health(BackendHealth),
    /// Failures of live traffic ejected a backend in this worker, until `for_` has passed.
    Ejected {
        /// The cluster.
        cluster: Name,
        /// The backend.
        backend: Name,
        /// For how long.
        for_: Duration,
    },
    /// A probe of a candidate ended.
    Probed(Probed),
    /// What an operator's change, or a backend that went down, has ended in this step: by a deadline, or at once.
    Cut(Cut),
    /// After `Drain`: the last flow and connection are gone and every socket is closed.
    Drained,
}
