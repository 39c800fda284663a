//! The access-log record: one for each flow and connection, made when it ends. Knows no format and no file.

use std::net::SocketAddr;
use std::time::Duration;

use kakei_config::Name;
use serde::{Deserialize, Serialize};

use crate::seam::{Endpoint, Instant};

/// Why a flow or a connection ended.
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
    /// Both peers had sent all that they had.
    Closed,
    /// The client went before anything was owed to it: while it was prereading, waiting or connecting.
    ClientGone,
    /// The client broke it off.
    ClientReset,
    /// The backend broke it off.
    BackendReset,
    /// No backend could be connected to, by as many attempts as there may be.
    ConnectFailed,
    /// What must come before it is routed did not come in time.
    PrereadTimeout,
    /// Its PROXY header was missing, malformed or too long.
    ProxyHeader,
    /// Its ClientHello was malformed or too long.
    ClientHello,
    /// No route matches and the listener has no cluster.
    NoRoute,
    /// The cluster has no backend that takes a connection.
    NoBackend,
    /// As many wait for a backend already as may.
    QueueFull,
    /// It waited too long for a backend with room.
    QueueTimeout,
    /// The route that it came by was changed or removed and says so.
    RouteChanged,
    /// The client that its PROXY header names has as many as it may.
    OverLimit,
    /// A request was answered by a backend, and all of both was passed on.
    Completed,
    /// A request was answered as its route says: a redirect or an answer of the proxy's own.
    Answered,
    /// A request became a connection of its own.
    Upgraded,
    /// A request was malformed, or could have been read in two ways.
    BadRequest,
    /// A request's head or body was larger than it may be.
    TooLarge,
    /// A request asked for what is not done here.
    NotAllowed,
    /// A request's head did not come in time.
    HeadTimeout,
    /// A request's body did not go on in time.
    BodyTimeout,
    /// The client took nothing of its response for too long.
    WriteTimeout,
    /// The backend's response did not begin, or did not go on, in time.
    ResponseTimeout,
    /// A request took longer than it may as a whole.
    RequestTimeout,
    /// The backend's response was malformed, or could have been read in two ways.
    BadResponse,
    /// The client's address may not pass the route.
    Denied,
    /// The client did not say who it is, or not truly.
    Unauthorized,
    /// There were more requests than may be.
    RateLimited,
}

impl CloseReason {
    /// Every reason, in the order of the counters.
    pub const ALL: [CloseReason; 37] = [
        CloseReason::Idle,
        CloseReason::Lifetime,
        CloseReason::ResponsesReached,
        CloseReason::RequestsReached,
        CloseReason::Drain,
        CloseReason::BackendRemoved,
        CloseReason::BackendDown,
        CloseReason::Aborted,
        CloseReason::Closed,
        CloseReason::ClientGone,
        CloseReason::ClientReset,
        CloseReason::BackendReset,
        CloseReason::ConnectFailed,
        CloseReason::PrereadTimeout,
        CloseReason::ProxyHeader,
        CloseReason::ClientHello,
        CloseReason::NoRoute,
        CloseReason::NoBackend,
        CloseReason::QueueFull,
        CloseReason::QueueTimeout,
        CloseReason::RouteChanged,
        CloseReason::OverLimit,
        CloseReason::Completed,
        CloseReason::Answered,
        CloseReason::Upgraded,
        CloseReason::BadRequest,
        CloseReason::TooLarge,
        CloseReason::NotAllowed,
        CloseReason::HeadTimeout,
        CloseReason::BodyTimeout,
        CloseReason::WriteTimeout,
        CloseReason::ResponseTimeout,
        CloseReason::RequestTimeout,
        CloseReason::BadResponse,
        CloseReason::Denied,
        CloseReason::Unauthorized,
        CloseReason::RateLimited,
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
            CloseReason::Closed => "closed",
            CloseReason::ClientGone => "client_gone",
            CloseReason::ClientReset => "client_reset",
            CloseReason::BackendReset => "backend_reset",
            CloseReason::ConnectFailed => "connect_failed",
            CloseReason::PrereadTimeout => "preread_timeout",
            CloseReason::ProxyHeader => "proxy_header",
            CloseReason::ClientHello => "client_hello",
            CloseReason::NoRoute => "no_route",
            CloseReason::NoBackend => "no_backend",
            CloseReason::QueueFull => "queue_full",
            CloseReason::QueueTimeout => "queue_timeout",
            CloseReason::RouteChanged => "route_changed",
            CloseReason::OverLimit => "over_limit",
            CloseReason::Completed => "completed",
            CloseReason::Answered => "answered",
            CloseReason::Upgraded => "upgraded",
            CloseReason::BadRequest => "bad_request",
            CloseReason::TooLarge => "too_large",
            CloseReason::NotAllowed => "not_allowed",
            CloseReason::HeadTimeout => "head_timeout",
            CloseReason::BodyTimeout => "body_timeout",
            CloseReason::WriteTimeout => "write_timeout",
            CloseReason::ResponseTimeout => "response_timeout",
            CloseReason::RequestTimeout => "request_timeout",
            CloseReason::BadResponse => "bad_response",
            CloseReason::Denied => "denied",
            CloseReason::Unauthorized => "unauthorized",
            CloseReason::RateLimited => "rate_limited",
        }
    }
}

/// What a flow or a connection was, for the access log. Byte counts never include PROXY protocol headers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The listener that admitted it.
    pub listener: Name,
    /// The route that matched; none: the listener's default cluster, or it ended before it was routed.
    pub route: Option<Name>,
    /// The cluster; none: it ended before it was routed.
    pub cluster: Option<Name>,
    /// The backend; none: it ended before one was chosen.
    pub backend: Option<Name>,
    /// Its address.
    pub backend_address: Option<Endpoint>,
    /// Who the client is (an inbound PROXY header believed).
    pub client: SocketAddr,
    /// The address it dialled.
    pub local: SocketAddr,
    /// When it was admitted.
    pub admitted: Instant,
    /// How long it lived.
    pub duration: Duration,
    /// Bytes that went to the backend.
    pub request_bytes: u64,
    /// Bytes that went to the client.
    pub response_bytes: u64,
    /// Why it ended.
    pub reason: CloseReason,
    /// What only one protocol has.
    pub detail: Detail,
}

impl Record {
    /// Datagrams forwarded and returned; none for a connection.
    pub fn datagrams(&self) -> Option<(u64, u64)> {
        match self.detail {
            Detail::Flow { requests, responses } => Some((requests, responses)),
            Detail::Connection(_) | Detail::Exchange(_) => None,
        }
    }
}

/// The part of a record that only one protocol has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    /// Of a UDP flow.
    Flow {
        /// Datagrams forwarded to the backend.
        requests: u64,
        /// Datagrams returned to the client.
        responses: u64,
    },
    /// Of a TCP connection.
    Connection(ConnectionDetail),
    /// Of an HTTP request and its response.
    Exchange(Box<ExchangeDetail>),
}

/// What only an exchange's record has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExchangeDetail {
    /// The method.
    pub method: String,
    /// The host, as the client wrote it.
    pub host: String,
    /// Path and query, as the client wrote them.
    pub target: String,
    /// `HTTP/1.1` or the like.
    pub version: String,
    /// What the client says that it is (`User-Agent`).
    pub user_agent: Option<String>,
    /// Where the client says that it comes from (`Referer`).
    pub referer: Option<String>,
    /// Who the client is, where it had to say so.
    pub user: Option<String>,
    /// What the request is known by (`X-Request-Id`).
    pub request_id: Option<String>,
    /// The status that the client got; none: it got none.
    pub status: Option<u16>,
    /// How many backends were tried.
    pub attempts: u32,
    /// Whether the connection to the backend was there already.
    pub reused: bool,
    /// How long it waited for a backend with room.
    pub queued: Duration,
    /// How long the connection to the backend took, where one was opened.
    pub connect: Option<Duration>,
    /// From its head to the head of the response; none: there was none.
    pub first_byte: Option<Duration>,
}

/// What only a connection's record has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConnectionDetail {
    /// The server name of its ClientHello, where that was read.
    pub sni: Option<String>,
    /// How many backends were tried.
    pub attempts: u32,
    /// How long it waited for a backend with room.
    pub queued: Duration,
    /// How long the attempt that succeeded took to connect; none: none did.
    pub connect: Option<Duration>,
}
