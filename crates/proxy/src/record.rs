//! The access-log record: one for each flow and connection, made when it ends. Knows no format and no file.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kakei_config::Name;
use serde::{Deserialize, Serialize};

use crate::seam::{Endpoint, Instant};

/// Whose doing an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// What the client did, or failed to do.
    Client,
    /// What the backend, or all that there are, did or failed to do.
    Backend,
    /// What the proxy was told to hold to, or ran out of.
    Proxy,
    /// A change, or the end of the process.
    Operator,
    /// Client and backend were done with each other.
    Both,
}

impl Party {
    /// The word in logs.
    pub fn name(self) -> &'static str {
        match self {
            Party::Client => "client",
            Party::Backend => "backend",
            Party::Proxy => "proxy",
            Party::Operator => "operator",
            Party::Both => "both",
        }
    }
}

/// The closed vocabulary of ends: each reason with whose doing it is, its word, and what it says.
macro_rules! reasons {
    ($($variant:ident: $party:ident, $name:literal, $doc:literal;)*) => {
        /// Why a flow, a connection or a request ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum CloseReason { $(#[doc = $doc] $variant,)* }

        impl CloseReason {
            /// Every reason, in the order of the counters.
            pub const ALL: [CloseReason; [$($name),*].len()] = [$(CloseReason::$variant,)*];

            /// The word in logs and metrics.
            pub fn name(self) -> &'static str {
                match self { $(CloseReason::$variant => $name,)* }
            }

            /// Whose doing it is.
            pub fn by(self) -> Party {
                match self { $(CloseReason::$variant => Party::$party,)* }
            }

            /// What it says.
            pub fn meaning(self) -> &'static str {
                match self { $(CloseReason::$variant => $doc,)* }
            }
        }
    };
}

reasons! {
    Idle: Proxy, "idle", "Nothing came from either side for as long as its timeout.";
    Lifetime: Proxy, "lifetime", "Its lifetime was over.";
    ResponsesReached: Proxy, "responses_reached", "Its last reply was returned.";
    RequestsReached: Proxy, "requests_reached", "Its last request was forwarded and no reply is expected.";
    Drain: Operator, "drain", "The listener or the process drained and the time for it was over.";
    BackendRemoved: Operator, "backend_removed", "Its backend was removed and its cluster says `close` (or `move`, and there is no other).";
    BackendDown: Backend, "backend_down", "Its backend went down and its cluster says `close` (or `move`, and there is no other).";
    Aborted: Proxy, "aborted", "Its socket to the backend could not be opened, or nothing of it could be sent.";
    Closed: Both, "closed", "Both peers had sent all that they had, or a connection for requests ended in order.";
    ClientGone: Client, "client_gone", "The client went before anything was owed to it: while it was prereading, waiting or connecting.";
    ClientReset: Client, "client_reset", "The client broke it off.";
    BackendReset: Backend, "backend_reset", "The backend broke it off.";
    ConnectFailed: Backend, "connect_failed", "No backend could be connected to, by as many attempts as there may be.";
    PrereadTimeout: Client, "preread_timeout", "What must come before it is routed did not come in time.";
    ProxyHeader: Client, "proxy_header", "Its PROXY header was missing, malformed or too long.";
    ClientHello: Client, "client_hello", "Its ClientHello was malformed or too long.";
    NoRoute: Proxy, "no_route", "No route matches and the listener has no cluster.";
    NoBackend: Backend, "no_backend", "The cluster has no backend that takes a connection.";
    QueueFull: Proxy, "queue_full", "As many wait for a backend already as may.";
    QueueTimeout: Proxy, "queue_timeout", "It waited too long for a backend with room.";
    RouteChanged: Operator, "route_changed", "The route that it came by was changed or removed and says so.";
    OverLimit: Proxy, "over_limit", "The client that its PROXY header names has as many as it may.";
    Completed: Backend, "completed", "A request was answered by a backend, and all of both was passed on.";
    Answered: Proxy, "answered", "A request was answered as its route says: a redirect or an answer of the proxy's own.";
    Upgraded: Backend, "upgraded", "A request became a connection of its own.";
    BadRequest: Client, "bad_request", "A request was malformed, or could have been read in two ways.";
    TooLarge: Client, "too_large", "A request's head or body was larger than it may be.";
    NotAllowed: Proxy, "not_allowed", "A request asked for what is not done here.";
    HeadTimeout: Client, "head_timeout", "A request's head did not come in time.";
    BodyTimeout: Client, "body_timeout", "A request's body did not go on in time.";
    WriteTimeout: Client, "write_timeout", "The client took nothing of its response for too long.";
    ResponseTimeout: Backend, "response_timeout", "The backend's response did not begin, or did not go on, in time.";
    RequestTimeout: Proxy, "request_timeout", "A request took longer than it may as a whole.";
    BadResponse: Backend, "bad_response", "The backend's response was malformed, or could have been read in two ways; or its status asked for another try, and no backend was left for it.";
    Denied: Proxy, "denied", "The client's address may not pass the route.";
    Unauthorized: Client, "unauthorized", "The client did not say who it is, or not truly.";
    AuthBusy: Proxy, "auth_busy", "A password could not be checked: as many are being checked as may, or it took too long.";
    AuthUnavailable: Backend, "auth_unavailable", "The service that says who may pass could not be asked, did not answer in time, or said that it failed.";
    RateLimited: Proxy, "rate_limited", "There were more requests than may be.";
    TlsTimeout: Client, "tls_timeout", "Its TLS handshake was not over in time.";
    TlsMissing: Client, "tls_missing", "It should have begun with TLS, and did not.";
    TlsUnknownName: Client, "tls_unknown_name", "It asked for a server name that no certificate is for.";
    TlsNoCommon: Client, "tls_no_common", "It has no version, cipher suite, key exchange or protocol of TLS in common with the listener.";
    TlsClientAlert: Client, "tls_client_alert", "The client broke its TLS handshake off: it does not trust the certificate, or has no use for what was agreed on.";
    TlsError: Client, "tls_error", "The peer broke the rules of TLS.";
    TlsTooLong: Client, "tls_too_long", "Its TLS handshake had more bytes than one may have.";
    TlsTruncated: Client, "tls_truncated", "It ended without saying so in TLS: what came may not be all.";
    Misdirected: Client, "misdirected", "A request came to a host that the connection's certificate is not for.";
    BackendTls: Backend, "backend_tls", "No TLS handshake with a backend came to an end, by as many attempts as there may be; or the backend broke the rules of TLS later.";
    BackendTruncated: Backend, "backend_truncated", "The backend ended without saying so in TLS: what came may not be all.";
    ClientCertificate: Client, "client_certificate", "The client showed no certificate where one is asked for, or one that does not count.";
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
    /// Bytes that went to the backend; of a request, those of its body that were taken of the client.
    pub request_bytes: u64,
    /// Bytes that went to the client; of a request's response, those of its body.
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

impl Detail {
    /// What TLS came to; none: it came without.
    pub fn tls(&self) -> Option<&TlsDetail> {
        match self {
            Detail::Flow { .. } => None,
            Detail::Connection(detail) => detail.tls.as_deref(),
            Detail::Exchange(detail) => detail.tls.as_deref(),
        }
    }

    /// What TLS to the backend came to; none: it was spoken to without, or by a connection that was there already.
    pub fn backend_tls(&self) -> Option<&TlsDetail> {
        match self {
            Detail::Flow { .. } => None,
            Detail::Connection(detail) => detail.backend_tls.as_deref(),
            Detail::Exchange(detail) => detail.backend_tls.as_deref(),
        }
    }
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
    /// The trace that it belongs to, in hexadecimal digits (`traceparent`).
    pub trace_id: Option<String>,
    /// The status that the client got; none: it got none.
    pub status: Option<u16>,
    /// How many backends were tried.
    pub attempts: u32,
    /// Whether the connection to the backend was there already.
    pub reused: bool,
    /// Whether it went on before its client's TLS handshake was over.
    #[serde(default)]
    pub early: bool,
    /// How long it waited until it was known whether it may pass; none: it didn't have to.
    #[serde(default)]
    pub checked: Option<Duration>,
    /// How long it waited for a backend with room.
    pub queued: Duration,
    /// How long the connection to the backend took, where one was opened.
    pub connect: Option<Duration>,
    /// From its head to the head of the response; none: there was none.
    pub first_byte: Option<Duration>,
    /// What its client's connection agreed on in TLS; none: it came without.
    pub tls: Option<Arc<TlsDetail>>,
    /// What was agreed on with the backend where a connection was opened in TLS, or why that came to nothing.
    #[serde(default)]
    pub backend_tls: Option<Arc<TlsDetail>>,
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
    /// What was agreed on in TLS, or offered where that came to nothing; none: it came without.
    pub tls: Option<Arc<TlsDetail>>,
    /// What was agreed on with the backend, or why that came to nothing; none: it is spoken to without.
    #[serde(default)]
    pub backend_tls: Option<Arc<TlsDetail>>,
}

/// What a peer and the proxy agreed on in TLS; or what the client offered, where that came to nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TlsDetail {
    /// `1.2` or `1.3`.
    pub version: Option<String>,
    /// The cipher suite, by its name in IANA's registry.
    pub cipher: Option<String>,
    /// The server name that the client asked for.
    pub sni: Option<String>,
    /// The protocol that was agreed on.
    pub alpn: Option<String>,
    /// Whether it went on from an earlier handshake.
    pub resumed: bool,
    /// The certificate that the client was shown.
    pub certificate: Option<Name>,
    /// The versions that the client offered, where the handshake failed.
    pub offered_versions: Vec<String>,
    /// The protocols that the client offered, where the handshake failed.
    pub offered_alpn: Vec<String>,
    /// Why the handshake failed, in words.
    pub error: Option<String>,
    /// Whose certificate the client showed; none: it showed none.
    #[serde(default)]
    pub client: Option<Arc<ClientCertificate>>,
}

impl TlsDetail {
    /// Of a handshake that nobody waits for any longer.
    pub(crate) fn late() -> Arc<Self> {
        Arc::new(TlsDetail { error: Some("the handshake was not over in time".into()), ..TlsDetail::default() })
    }
}

/// A client's certificate that somebody vouched for. All of it is printable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificate {
    /// Whose it is, in the form of RFC 4514; empty: it doesn't say so.
    pub subject: String,
    /// Its alternative names, each with its kind, with commas between them.
    pub names: String,
    /// Its SHA-256, in hexadecimal digits.
    pub fingerprint: String,
}
