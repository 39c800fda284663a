//! Every counter and gauge of a worker, each declared once: its name, kind, help text and labels.
//!
//! A worker counts in plain integers of its own; the control side asks for a copy, adds the workers' copies up and
//! prints them. Nothing here prints and nothing is shared.

mod times;

use std::ops::{Index, IndexMut};

use kakei_config::Name;
use serde::{Deserialize, Serialize};

pub use self::times::{Histogram, Lapse, Sample, Series, Timed, Times};
use crate::record::CloseReason;
use crate::seam::Endpoint;

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How many there were, in buckets, and their sum.
    Histogram,
}

/// The declaration of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name as exported, without the `_total` that a counter gets.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// What kind.
    pub kind: MetricKind,
}

/// A closed set of metrics with the same labels: an enum, its declarations and a table of values.
macro_rules! metrics {
    ($(#[$doc:meta])* $set:ident [$count:literal] { $($variant:ident: $kind:ident, $name:literal, $help:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $set { $(#[doc = $help] $variant,)* }

        impl $set {
            /// How many there are.
            pub const COUNT: usize = $count;
            /// Every one, in the order of the values.
            pub const ALL: [$set; $count] = [$($set::$variant,)*];

            /// Its declaration.
            pub const fn metric(self) -> Metric {
                match self {
                    $($set::$variant => Metric { name: $name, help: $help, kind: MetricKind::$kind },)*
                }
            }
        }

        impl Index<$set> for Values<$count> {
            type Output = u64;
            fn index(&self, metric: $set) -> &u64 { &self.0[metric as usize] }
        }

        impl IndexMut<$set> for Values<$count> {
            fn index_mut(&mut self, metric: $set) -> &mut u64 { &mut self.0[metric as usize] }
        }
    };
}

/// The values of a set of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Values<const N: usize>(pub [u64; N]);

impl<const N: usize> Default for Values<N> {
    fn default() -> Self {
        Values([0; N])
    }
}

impl<const N: usize> Values<N> {
    /// From values written down, perhaps by a version that knew fewer.
    pub fn from_slice(values: &[u64]) -> Self {
        Values(std::array::from_fn(|at| values.get(at).copied().unwrap_or(0)))
    }

    /// Add another worker's values.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = mine.saturating_add(theirs);
        }
    }

    /// The sum of all values.
    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }
}

metrics! {
    /// Labelled by listener. `DatagramsIn == DatagramsForwarded + drops + DatagramsKept`, always.
    ListenerMetric [27] {
        FlowsOpened: Counter, "kakei_flows_opened", "Flows admitted.";
        FlowsLive: Gauge, "kakei_flows_live", "Flows alive.";
        DatagramsIn: Counter, "kakei_client_datagrams", "Datagrams received from clients.";
        DatagramsForwarded: Counter, "kakei_forwarded_datagrams", "Client datagrams sent to backends.";
        BytesForwarded: Counter, "kakei_forwarded_bytes", "Payload bytes sent to backends.";
        DatagramsKept: Gauge, "kakei_kept_datagrams", "Client datagrams kept until a backend socket is open.";
        ReceiveOverflow: Counter, "kakei_receive_overflow_datagrams", "Datagrams the kernel dropped because a front socket's receive queue was full.";
        Draining: Gauge, "kakei_listener_draining", "1 while the listener admits nothing and lets its flows and connections end.";
        ConnectionsOpened: Counter, "kakei_connections_opened", "Connections accepted.";
        ConnectionsLive: Gauge, "kakei_connections_live", "Connections alive.";
        ConnectionsQueued: Gauge, "kakei_connections_queued", "Connections that wait for a backend with room.";
        AcceptFailures: Counter, "kakei_accept_failures", "Times that waiting connections could not be accepted for want of a descriptor; they go on waiting.";
        Requests: Counter, "kakei_requests", "HTTP requests whose head was read, or that were refused for it.";
        RequestsLive: Gauge, "kakei_requests_live", "HTTP requests under way.";
        Responses2xx: Counter, "kakei_responses_2xx", "HTTP responses of status 200 to 299 (and 101) to clients.";
        Responses3xx: Counter, "kakei_responses_3xx", "HTTP responses of status 300 to 399 to clients.";
        Responses4xx: Counter, "kakei_responses_4xx", "HTTP responses of status 400 to 499 to clients.";
        Responses5xx: Counter, "kakei_responses_5xx", "HTTP responses of status 500 to 599 to clients.";
        RequestsQueued: Gauge, "kakei_requests_queued", "HTTP requests that wait for a backend with room.";
        Handshakes12: Counter, "kakei_tls12_handshakes", "TLS handshakes with clients that ended with version 1.2.";
        Handshakes13: Counter, "kakei_tls13_handshakes", "TLS handshakes with clients that ended with version 1.3.";
        HandshakesResumed: Counter, "kakei_tls_resumed_handshakes", "Those of them that went on from an earlier one.";
        HandshakesFailed: Counter, "kakei_tls_failed_handshakes", "TLS handshakes with clients that came to nothing; by reason among the connections closed.";
        HandshakesLive: Gauge, "kakei_tls_handshakes_live", "TLS handshakes with clients that are under way.";
        RequestsEarly: Counter, "kakei_early_requests", "HTTP requests that came as TLS early data and went on before the handshake was over.";
        RequestsEarlyHeld: Counter, "kakei_early_held_requests", "HTTP requests that came as TLS early data and waited for the end of the handshake.";
        EarlyDataRefused: Counter, "kakei_tls_refused_early_data", "TLS handshakes with clients whose early data was not taken: it comes again behind them.";
    }
}

metrics! {
    /// Labelled by cluster and backend.
    BackendMetric [21] {
        FlowsOpened: Counter, "kakei_backend_flows_opened", "Flows that this backend was chosen for.";
        FlowsLive: Gauge, "kakei_backend_flows_live", "Flows alive on this backend.";
        DatagramsSent: Counter, "kakei_backend_sent_datagrams", "Datagrams sent to the backend.";
        BytesSent: Counter, "kakei_backend_sent_bytes", "Payload bytes sent to the backend, of flows and connections.";
        DatagramsReturned: Counter, "kakei_backend_returned_datagrams", "Datagrams of the backend returned to clients.";
        BytesReturned: Counter, "kakei_backend_returned_bytes", "Payload bytes of the backend returned to clients, of flows and connections.";
        Unreachable: Counter, "kakei_backend_unreachable", "ICMP errors about the backend.";
        OpenFailed: Counter, "kakei_backend_open_failures", "Sockets to the backend that could not be opened.";
        Up: Gauge, "kakei_backend_up", "1 while the backend is up; one of weight 0 takes nothing new all the same.";
        Draining: Gauge, "kakei_backend_draining", "1 while the backend is gone from the configuration and flows or connections live on it.";
        ConnectionsOpened: Counter, "kakei_backend_connections_opened", "Connections that this backend was chosen for, those that could not be opened included.";
        ConnectionsLive: Gauge, "kakei_backend_connections_live", "Connections on this backend, those that are being opened included.";
        ConnectFailures: Counter, "kakei_backend_connect_failures", "Connections to the backend that could not be opened.";
        Requests: Counter, "kakei_backend_requests", "HTTP requests that this backend was chosen for, each try counted.";
        RequestsLive: Gauge, "kakei_backend_requests_live", "HTTP requests under way on this backend.";
        Reused: Counter, "kakei_backend_reused_connections", "HTTP requests that took a connection that was there already.";
        Retries: Counter, "kakei_backend_retries", "HTTP requests that were tried again after this backend failed them.";
        Handshakes12: Counter, "kakei_backend_tls12_handshakes", "TLS handshakes with the backend that ended with version 1.2, those of health checks included.";
        Handshakes13: Counter, "kakei_backend_tls13_handshakes", "TLS handshakes with the backend that ended with version 1.3, those of health checks included.";
        HandshakesResumed: Counter, "kakei_backend_tls_resumed_handshakes", "Those of them that went on from an earlier one.";
        HandshakesFailed: Counter, "kakei_backend_tls_failed_handshakes", "TLS handshakes with the backend that came to nothing, those of health checks included.";
    }
}

metrics! {
    /// Labelled by cluster. `RepliesIn == RepliesReturned + drops`, always.
    ClusterMetric [3] {
        RepliesIn: Counter, "kakei_replies", "Datagrams received from backends.";
        RepliesReturned: Counter, "kakei_returned_replies", "Datagrams of backends returned to clients.";
        SharedSockets: Gauge, "kakei_shared_sockets", "Sockets in the shared upstream pool.";
    }
}

metrics! {
    /// Of a worker as a whole.
    WorkerMetric [7] {
        Steps: Counter, "kakei_worker_steps", "Steps taken.";
        Events: Counter, "kakei_worker_events", "Events handled.";
        StaleEvents: Counter, "kakei_worker_stale_events", "Events about sockets that were closed already.";
        StaleReplies: Counter, "kakei_worker_stale_replies", "Datagrams received on sockets that were closed already.";
        LateSendFailures: Counter, "kakei_worker_late_send_failures", "Datagrams whose send failed after their flow had ended by something else: they stay counted as forwarded or returned.";
        TimersFired: Counter, "kakei_worker_timers", "Deadlines that came due.";
        Generation: Gauge, "kakei_generation", "The generation that the worker runs.";
    }
}

/// Why a datagram was dropped: each drop has exactly one reason and is counted once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// Longer than `max_datagram_size`.
    Truncated,
    /// The inbound PROXY header was missing, malformed, or from a network that is not trusted.
    ProxyHeader,
    /// The flow key extractor refused it.
    Invalid,
    /// The listener drains and admits no flow.
    Draining,
    /// No route matches and the listener has no cluster.
    NoRoute,
    /// The cluster has no backend that takes a flow.
    NoBackend,
    /// The flow table is full.
    FlowLimit,
    /// The source has as many flows as it may.
    SourceLimit,
    /// Too many new flows in a second.
    RateLimit,
    /// A newer datagram took its place while the flow waited for its backend.
    Superseded,
    /// The socket to the backend could not be opened.
    NoSocket,
    /// The flow ended while it was kept.
    Unsent,
    /// The kernel's send queue was full.
    QueueFull,
    /// The send failed otherwise.
    SendError,
    /// A backend's datagram for a flow that is gone.
    UnknownFlow,
    /// Header and payload are over the path's limit.
    TooBig,
}

impl DropReason {
    /// How many there are.
    pub const COUNT: usize = 16;
    /// Every reason, in the order of the counters.
    pub const ALL: [DropReason; DropReason::COUNT] = [
        DropReason::Truncated,
        DropReason::ProxyHeader,
        DropReason::Invalid,
        DropReason::Draining,
        DropReason::NoRoute,
        DropReason::NoBackend,
        DropReason::FlowLimit,
        DropReason::SourceLimit,
        DropReason::RateLimit,
        DropReason::Superseded,
        DropReason::NoSocket,
        DropReason::Unsent,
        DropReason::QueueFull,
        DropReason::SendError,
        DropReason::UnknownFlow,
        DropReason::TooBig,
    ];

    /// The word in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::Truncated => "truncated",
            DropReason::ProxyHeader => "proxy_header",
            DropReason::Invalid => "invalid",
            DropReason::Draining => "draining",
            DropReason::NoRoute => "no_route",
            DropReason::NoBackend => "no_backend",
            DropReason::FlowLimit => "flow_limit",
            DropReason::SourceLimit => "source_limit",
            DropReason::RateLimit => "rate_limit",
            DropReason::Superseded => "superseded",
            DropReason::NoSocket => "no_socket",
            DropReason::Unsent => "unsent",
            DropReason::QueueFull => "queue_full",
            DropReason::SendError => "send_error",
            DropReason::UnknownFlow => "unknown_flow",
            DropReason::TooBig => "too_big",
        }
    }
}

/// Why a client was turned away when it connected: each has exactly one reason and is counted once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The listener drains and admits nothing.
    Draining,
    /// As many connections live as may.
    ConnectionLimit,
    /// The source has as many as it may.
    SourceLimit,
    /// The source's network has as many as it may.
    NetworkLimit,
    /// Too many in a second.
    RateLimit,
    /// A PROXY header is needed, and the peer is not trusted to send one.
    Untrusted,
    /// As many TLS handshakes are under way as may.
    HandshakeLimit,
}

impl Refusal {
    /// How many there are.
    pub const COUNT: usize = 7;
    /// Every reason, in the order of the counters.
    pub const ALL: [Refusal; Refusal::COUNT] = [
        Refusal::Draining,
        Refusal::ConnectionLimit,
        Refusal::SourceLimit,
        Refusal::NetworkLimit,
        Refusal::RateLimit,
        Refusal::Untrusted,
        Refusal::HandshakeLimit,
    ];

    /// The word in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Draining => "draining",
            Refusal::ConnectionLimit => "connection_limit",
            Refusal::SourceLimit => "source_limit",
            Refusal::NetworkLimit => "network_limit",
            Refusal::RateLimit => "rate_limit",
            Refusal::Untrusted => "untrusted",
            Refusal::HandshakeLimit => "handshake_limit",
        }
    }
}

/// Client datagrams dropped, by reason; labels listener and reason.
pub const REQUEST_DROPS: Metric =
    Metric { name: "kakei_dropped_datagrams", help: "Client datagrams dropped, by reason.", kind: MetricKind::Counter };
/// Backend datagrams dropped, by reason; labels cluster and reason.
pub const REPLY_DROPS: Metric =
    Metric { name: "kakei_dropped_replies", help: "Backend datagrams dropped, by reason.", kind: MetricKind::Counter };
/// Flows ended, by reason; labels listener and reason.
pub const FLOWS_CLOSED: Metric =
    Metric { name: "kakei_flows_closed", help: "Flows ended, by reason.", kind: MetricKind::Counter };
/// Connections ended, by reason; labels listener and reason.
pub const CONNECTIONS_CLOSED: Metric =
    Metric { name: "kakei_connections_closed", help: "Connections ended, by reason.", kind: MetricKind::Counter };
/// HTTP requests ended, by reason; labels listener and reason.
pub const REQUESTS_ENDED: Metric =
    Metric { name: "kakei_requests_ended", help: "HTTP requests ended, by reason.", kind: MetricKind::Counter };
/// Clients turned away when they connected, by reason; labels listener and reason.
pub const REFUSED: Metric =
    Metric { name: "kakei_refused_connections", help: "Connections refused, by reason.", kind: MetricKind::Counter };

/// Drops by [`DropReason`], in its order.
pub type Drops = Values<{ DropReason::COUNT }>;
/// Flows or connections ended by [`CloseReason`], in its order.
pub type Closes = Values<{ CloseReason::ALL.len() }>;

/// Clients turned away by [`Refusal`], in its order.
pub type Refusals = Values<{ Refusal::COUNT }>;

/// A copy of a worker's counters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Of the worker as a whole.
    pub worker: Values<{ WorkerMetric::COUNT }>,
    /// By listener, in the order of their names.
    pub listeners: Vec<ListenerStats>,
    /// By cluster, in the order of their names.
    pub clusters: Vec<ClusterStats>,
    /// How long requests to clusters took whose times aren't counted one by one.
    pub other_times: Option<Box<Times>>,
}

/// A listener's counters. They live on while a listener of that name drains or is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerStats {
    /// Which.
    pub listener: Name,
    /// Its values.
    pub values: Values<{ ListenerMetric::COUNT }>,
    /// Client datagrams dropped.
    pub drops: Drops,
    /// Flows ended.
    pub closes: Closes,
    /// Connections ended.
    pub connection_closes: Closes,
    /// HTTP requests ended.
    pub exchange_closes: Closes,
    /// Clients turned away.
    pub refusals: Refusals,
    /// How long requests took, by route; those without any are left out.
    pub times: Vec<(Series, Box<Times>)>,
}

/// A cluster's counters.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterStats {
    /// Which.
    pub cluster: Name,
    /// Its values.
    pub values: Values<{ ClusterMetric::COUNT }>,
    /// Backend datagrams dropped.
    pub drops: Drops,
    /// Its backends, those that still carry flows after their removal too.
    pub backends: Vec<BackendStats>,
    /// How long requests took; none: there were none, or they are counted among the others.
    pub times: Option<Box<Times>>,
}

/// A backend's counters.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendStats {
    /// Which.
    pub backend: Name,
    /// Where it is.
    pub address: Endpoint,
    /// Its values.
    pub values: Values<{ BackendMetric::COUNT }>,
}
