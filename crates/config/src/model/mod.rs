//! The document as plain data: every object has a name, and the name is its identity across changes.
//!
//! Values here are already valid one by one (a weight is in range, a duration is positive where it must be);
//! what concerns several objects (dangling names, two listeners on one address) is checked by validation.
//! The model never says how a value was written; places in the text belong to parsing.

mod admin;
mod health;
mod http;
mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::objects::Objects;

pub use self::admin::*;
pub use self::health::*;
pub use self::http::*;
pub use self::tls::*;

/// The name of an object: its identity across changes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(inline))]
#[serde(transparent)]
pub struct Name(Arc<str>);

impl Name {
    /// A name from text. Validity (1 to 128 of `[A-Za-z0-9._:/\[\]-]`) is the parser's to check.
    pub fn new(text: impl AsRef<str>) -> Self {
        Name(Arc::from(text.as_ref()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Name {
    fn default() -> Self {
        Name::new("")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Name::new(text)
    }
}

/// Everything the operator wants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// The admin socket, the metrics address, the state directory.
    pub admin: Admin,
    /// How many workers, and where they run.
    pub workers: Workers,
    /// Where access-log records go, and how they are written.
    pub access_log: AccessLog,
    /// What listens, by name.
    pub listeners: Objects<Listener>,
    /// What refines a listener, by name.
    pub routes: Objects<Route>,
    /// Groups of backends, by name.
    pub clusters: Objects<Cluster>,
    /// What listeners prove by who they are, by name.
    #[serde(default)]
    pub certificates: Objects<Certificate>,
}

/// How many workers run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerCount {
    /// One per core.
    #[default]
    Auto,
    /// This many, 1 to 1,024.
    Fixed(u16),
}

/// The threads of the data plane. Changing them needs a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Workers {
    /// How many workers run.
    pub count: WorkerCount,
    /// Whether worker n is pinned to the n-th core this process may use.
    pub pin: bool,
    /// How many requests, connections and flows each keeps of those that it routed last; none: [`Workers::TRAFFIC`].
    #[serde(default)]
    pub traffic: Option<u32>,
}

impl Workers {
    /// How many are kept where nothing is said.
    pub const TRAFFIC: u32 = 1_024;
}

/// How an access-log record is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// One line of `key=value` words.
    Text,
    /// The common log format of web servers.
    Common,
    /// The same with `Referer` and `User-Agent`.
    Combined,
}

/// Where access-log records go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AccessLog {
    /// `stdout`, `stderr`, or a file's path; none: no access log.
    pub to: Option<String>,
    /// How a record is written.
    pub format: LogFormat,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Datagrams.
    Udp,
    /// Streams.
    Tcp,
    /// Requests, over streams.
    Http,
}

/// A place where clients arrive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listener {
    /// What it speaks.
    pub protocol: Protocol,
    /// The addresses it is bound to; at least one, none twice. Port 0 takes a free port.
    pub bind: Vec<SocketAddr>,
    /// Where what no route matches goes; none: it is dropped as `no_route`.
    pub cluster: Option<Name>,
    /// What no route matches is sent to the same place over TLS; not together with a cluster. HTTP without TLS only.
    pub redirect_to_tls: Option<TlsRedirect>,
    /// What is admitted.
    pub limits: Limits,
    /// The longest datagram that is forwarded, in bytes, 1 to 65,507, any inbound PROXY header included.
    pub max_datagram_size: u32,
    /// Inbound PROXY protocol headers.
    pub proxy_protocol: InboundProxyProtocol,
    /// How long what must come before a connection is routed (a PROXY header, a ClientHello) may take. TCP only.
    pub preread_timeout: Duration,
    /// What TLS clients are held to; none: it speaks without TLS.
    pub tls: Option<ListenerTls>,
    /// What only HTTP has.
    pub http: HttpListener,
    /// How long live flows and connections may go on after the listener was removed or the process was told to stop.
    pub drain_timeout: Duration,
}

impl Default for Listener {
    fn default() -> Self {
        Listener {
            protocol: Protocol::Udp,
            bind: Vec::new(),
            cluster: None,
            redirect_to_tls: None,
            limits: Limits::default(),
            max_datagram_size: crate::bounds::MAX_DATAGRAM_BYTES,
            proxy_protocol: InboundProxyProtocol::default(),
            preread_timeout: Duration::from_secs(5),
            tls: None,
            http: HttpListener::default(),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// What a listener admits. Each bound is divided among the workers, rounded up. Which ones count says the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// UDP: live flows; at least 1.
    pub flows: u32,
    /// UDP: live flows of one source address; 0: unlimited.
    pub flows_per_source: u32,
    /// UDP: flows admitted in a second (with a burst of as many); 0: unlimited.
    pub new_flows_per_second: u32,
    /// TCP: live connections; at least 1.
    pub connections: u32,
    /// TCP: live connections of one source address; 0: unlimited.
    pub connections_per_source: u32,
    /// TCP: live connections of one source network; 0: unlimited.
    pub connections_per_network: u32,
    /// TCP: connections accepted in a second (with a burst of as many); 0: unlimited.
    pub new_connections_per_second: u32,
    /// TCP: what is one source network.
    pub source_network: SourceNetwork,
    /// TCP: how a connection over a limit is refused.
    pub refuse: Refuse,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            flows: 100_000,
            flows_per_source: 0,
            new_flows_per_second: 0,
            connections: 100_000,
            connections_per_source: 0,
            connections_per_network: 0,
            new_connections_per_second: 0,
            source_network: SourceNetwork::default(),
            refuse: Refuse::default(),
        }
    }
}

/// How long a prefix addresses of one source network have in common, in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceNetwork {
    /// Of IPv4 addresses, 1 to 32.
    pub v4: u8,
    /// Of IPv6 addresses, 1 to 128.
    pub v6: u8,
}

impl Default for SourceNetwork {
    fn default() -> Self {
        SourceNetwork { v4: 24, v6: 56 }
    }
}

/// How a connection is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refuse {
    /// The client is told at once, by a reset.
    #[default]
    Reset,
    /// The client is told nothing.
    Silence,
}

/// Inbound PROXY protocol: expected on every datagram and connection from a trusted network; what comes from every
/// other is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboundProxyProtocol {
    /// Networks whose datagrams and connections carry a header. Empty: no header is looked for.
    pub trusted: Vec<IpNet>,
}

/// What refines a listener. The most specific one that matches wins, whatever the order of the file: an exact host or
/// server name, then the longer wildcard, then any; then an exact path, a regular expression (the longer first), the
/// longer prefix; then one that names methods or protocols; then more header fields and query parameters; then the
/// longest source network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Route {
    /// The listener it refines.
    pub listener: Name,
    /// Client networks it matches; empty: every client. On a UDP listener at least one.
    pub source: Vec<IpNet>,
    /// Server names of the ClientHello it matches; empty: any, and what is no TLS. TCP only.
    pub sni: Vec<ServerName>,
    /// Protocols of which the ClientHello offers one (ALPN); empty: any, and what is no TLS. TCP only.
    pub alpn: Vec<String>,
    /// Hosts it matches; empty: any. HTTP only, as all that follows but `cluster` and `on_change`.
    pub host: Vec<ServerName>,
    /// Paths it matches.
    pub path: PathMatch,
    /// Methods it matches; empty: any.
    pub method: Vec<String>,
    /// Header fields it asks for, by name in lower case.
    pub headers: BTreeMap<String, ValueMatch>,
    /// Query parameters it asks for, by name.
    pub query: BTreeMap<String, ValueMatch>,
    /// Where what it matches goes; none: one of the next three says what becomes of it.
    pub cluster: Option<Name>,
    /// Clusters that share what it matches, by weight.
    pub split: BTreeMap<Name, u32>,
    /// It is sent elsewhere.
    pub redirect: Option<Box<Redirect>>,
    /// It is answered by the proxy itself.
    pub respond: Option<Box<Respond>>,
    /// What is changed in requests.
    pub request: RequestEdits,
    /// What is changed in responses.
    pub response: FieldEdits,
    /// What clients that come over TLS are told of coming otherwise; none: what the listener says.
    #[serde(default)]
    pub hsts: Option<Hsts>,
    /// How long it may take.
    pub timeouts: RouteTimeouts,
    /// When it is tried again.
    pub retry: Retry,
    /// Who may pass.
    pub auth: Auth,
    /// How much may pass.
    pub rate_limits: Vec<RateLimit>,
    /// Whether a client must have shown a certificate; none: what the listener says.
    #[serde(default)]
    pub client_certificates: Option<ClientCertificateMode>,
    /// Client networks that may pass; empty: all.
    pub allow: Vec<IpNet>,
    /// Client networks that may not pass; looked at first.
    pub deny: Vec<IpNet>,
    /// Whether a request may become a connection by `Upgrade` (WebSocket).
    pub upgrade: bool,
    /// Whether a request may become a connection by `CONNECT`.
    pub connect: bool,
    /// Whether a request that nothing comes of twice may go on before its client's TLS handshake is over.
    #[serde(default)]
    pub early_data: bool,
    /// The bodies of answers that the proxy makes; what is none here is the listener's.
    pub errors: ErrorBodies,
    /// What a change of this route does to connections that live on it. Not UDP.
    pub on_change: OnChange,
}

impl Route {
    /// The keys by which it says something of this field of its responses, in any case.
    pub fn says_of<'a>(&'a self, field: &'a str) -> impl Iterator<Item = [&'static str; 2]> + 'a {
        let is_it = move |name: &String| name.eq_ignore_ascii_case(field);
        let edits = &self.response;
        let answers = self.respond.iter().flat_map(|respond| respond.headers.keys());
        let ways = [
            (edits.set.keys().any(is_it), ["response", "set"]),
            (edits.add.keys().any(is_it), ["response", "add"]),
            (edits.remove.iter().any(is_it), ["response", "remove"]),
            (answers.into_iter().any(is_it), ["respond", "headers"]),
        ];
        ways.into_iter().filter(|(says, _)| *says).map(|(_, way)| way)
    }
}

impl Default for Route {
    fn default() -> Self {
        Route {
            listener: Name::default(),
            source: Vec::new(),
            sni: Vec::new(),
            alpn: Vec::new(),
            host: Vec::new(),
            path: PathMatch::Any,
            method: Vec::new(),
            headers: BTreeMap::new(),
            query: BTreeMap::new(),
            cluster: None,
            split: BTreeMap::new(),
            redirect: None,
            respond: None,
            request: RequestEdits::default(),
            response: FieldEdits::default(),
            hsts: None,
            timeouts: RouteTimeouts::default(),
            retry: Retry::default(),
            auth: Auth::default(),
            rate_limits: Vec::new(),
            client_certificates: None,
            allow: Vec::new(),
            deny: Vec::new(),
            upgrade: true,
            connect: false,
            early_data: false,
            errors: ErrorBodies::default(),
            on_change: OnChange::default(),
        }
    }
}

/// A server name to be matched: lower-case ASCII, without a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerName {
    /// This one: `imap.example.com`.
    Exact(Arc<str>),
    /// Every one with one or more labels before this suffix: `*.example.com` is held as `example.com`.
    Under(Arc<str>),
}

impl ServerName {
    /// Whether a client that asks for `name` is meant.
    pub fn covers(&self, name: &str) -> bool {
        match self {
            ServerName::Exact(exact) => **exact == *name,
            ServerName::Under(suffix) => {
                name.strip_suffix(&**suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
        }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerName::Exact(name) => f.write_str(name),
            ServerName::Under(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

/// What a change does to connections that live on what was changed or removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnChange {
    /// They go on.
    #[default]
    Keep,
    /// They go on for at most this long.
    Drain(Duration),
    /// They end.
    Close,
}

/// How a backend is chosen. Weights count in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// In turn, smoothly by weight.
    #[default]
    RoundRobin,
    /// At random, by weight.
    Random,
    /// The fewest live flows over weight.
    Least,
    /// The better of two random backends.
    P2c,
    /// Highest random weight (rendezvous) over the affinity hash.
    Hrw,
    /// Maglev table lookup of the affinity hash.
    Maglev,
}

/// A group of backends that serve the same thing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// How one is chosen.
    pub balance: Balance,
    /// The backends; names are unique. May be empty: then everything is dropped as `no_backend`.
    pub backends: Vec<Backend>,
    /// What flows to this cluster are held to.
    pub udp: UdpKnobs,
    /// What connections to this cluster are held to.
    pub tcp: TcpKnobs,
    /// What connections that carry requests are held to besides.
    pub http: HttpKnobs,
    /// The PROXY protocol header that a connection to a backend begins with.
    pub send_proxy_protocol: StreamProxyProtocol,
    /// Health checks; none: every backend counts as up.
    pub health: Option<Box<Health>>,
    /// How long a backend that came up takes to reach its full weight; zero: at once.
    pub slow_start: Duration,
    /// TLS to the backends; none: they are spoken to without.
    #[serde(default)]
    pub tls: Option<ClusterTls>,
    /// What backends that a change brings have to pass before any of it is published.
    #[serde(default)]
    pub ready: Ready,
    /// How long that may take, or the change is refused; none: [`Cluster::READY_WITHIN`].
    #[serde(default)]
    pub ready_within: Option<Duration>,
    /// So many of them have to pass; 0, or where there are fewer: all.
    #[serde(default)]
    pub ready_min: u32,
}

/// What makes backends ready that a change brings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ready {
    /// That they are configured.
    #[default]
    AtOnce,
    /// That their host names have addresses, and the cluster's checks have passed on them.
    Probed,
}

impl Cluster {
    /// How long a change waits for its backends where nothing is said.
    pub const READY_WITHIN: Duration = Duration::from_secs(10);
}

impl Backend {
    /// A backend that is named by its address.
    pub fn at(address: impl Into<BackendAddress>) -> Self {
        let address = address.into();
        Backend { name: Name::new(address.to_string()), address, weight: 1, backup: false }
    }
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "WrittenBackend"))]
pub struct Backend {
    /// Its identity in the cluster; the address as text where none was given.
    pub name: Name,
    /// Where it is.
    pub address: BackendAddress,
    /// Its share, 0 to 256; 0 takes no new flow.
    pub weight: u32,
    /// Whether it is used only when no other backend is up.
    pub backup: bool,
}

/// Where a backend is. Written as text: `10.0.0.1:80`, `unix:/run/app.sock`, `app.internal:8080`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub enum BackendAddress {
    /// An address and a port.
    Ip(SocketAddr),
    /// A Unix stream socket's path. TCP only.
    Unix(Arc<str>),
    /// A host name and a port; resolved while the proxy runs, each of its addresses a backend.
    Host(Arc<str>, u16),
}

impl BackendAddress {
    /// The address, where it is one.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            BackendAddress::Ip(address) => Some(*address),
            BackendAddress::Unix(_) | BackendAddress::Host(..) => None,
        }
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackendAddress::Ip(address) => write!(f, "{address}"),
            BackendAddress::Unix(path) => write!(f, "unix:{path}"),
            BackendAddress::Host(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl From<BackendAddress> for String {
    fn from(address: BackendAddress) -> Self {
        address.to_string()
    }
}

impl FromStr for BackendAddress {
    type Err = String;

    /// The text form, as far as its shape goes; whether a host name can be one is the parser's to check.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(BackendAddress::Ip(address));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(BackendAddress::Unix(path.into()));
        }
        let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = parts.ok_or("it is an address and a port, a host name and a port, or unix: and a path")?;
        Ok(BackendAddress::Host(host.into(), port))
    }
}

impl<'de> Deserialize<'de> for BackendAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl From<SocketAddr> for BackendAddress {
    fn from(address: SocketAddr) -> Self {
        BackendAddress::Ip(address)
    }
}

/// The PROXY protocol header that a connection to a backend begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamProxyProtocol {
    /// None.
    #[default]
    Off,
    /// The text form.
    V1,
    /// The binary form, with what came in beside the addresses.
    V2,
}

/// The knobs of a connection, captured when its backend is chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TcpKnobs {
    /// What the balancer hashes.
    pub affinity: Affinity,
    /// How long one attempt to connect to a backend may take.
    pub connect_timeout: Duration,
    /// How many backends are tried before the client is given up, 1 to 16.
    pub attempts: u32,
    /// Time without a byte in either direction after which a connection ends; none: unlimited.
    pub idle_timeout: Option<Duration>,
    /// Absolute time from its acceptance; none: unlimited.
    pub lifetime: Option<Duration>,
    /// Idle time after which the kernel probes whether a peer is still there; none: never.
    pub keepalive: Option<Duration>,
    /// Live connections to one backend, divided among the workers, rounded up; 0: unlimited.
    pub connections_per_backend: u32,
    /// Connections that wait for a backend with room, divided among the workers, rounded up; 0: none waits.
    pub queue: u32,
    /// How long one may wait.
    pub queue_timeout: Duration,
    /// When the backend was removed from the configuration.
    pub on_backend_removed: OnChange,
    /// When the backend was found down.
    pub on_backend_down: OnChange,
}

impl Default for TcpKnobs {
    fn default() -> Self {
        TcpKnobs {
            affinity: Affinity::default(),
            connect_timeout: Duration::from_secs(5),
            attempts: 3,
            idle_timeout: Some(Duration::from_secs(3_600)),
            lifetime: None,
            keepalive: Some(Duration::from_secs(60)),
            connections_per_backend: 0,
            queue: 1_024,
            queue_timeout: Duration::from_secs(5),
            on_backend_removed: OnChange::default(),
            on_backend_down: OnChange::default(),
        }
    }
}

/// What the balancer's hash is taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Affinity {
    /// The client's address.
    #[default]
    SourceIp,
    /// The client's address and port.
    SourceIpPort,
}

/// How flows reach backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Upstream {
    /// A connected socket for each flow.
    #[default]
    PerFlow,
    /// A pool of sockets, each with at most one flow to each backend (any number for one-way traffic).
    Shared,
}

/// Which datagrams to a backend carry a PROXY protocol v2 header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SendProxyProtocol {
    /// None.
    #[default]
    Off,
    /// The first of each flow.
    First,
    /// Every one.
    Every,
}

/// What becomes of a flow whose backend is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBackend {
    /// It stays with it.
    #[default]
    Keep,
    /// It goes on with another backend.
    Move,
    /// It ends.
    Close,
}

/// The knobs of a flow, captured at its admission.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UdpKnobs {
    /// What the balancer hashes.
    pub affinity: Affinity,
    /// Close after this many replies were returned; 0: unlimited.
    pub responses: u32,
    /// After this many client datagrams were forwarded the next one opens a new flow; 0: unlimited.
    pub requests: u32,
    /// False for one-way traffic: a flow at its `requests` cap closes at once.
    pub expects_reply: bool,
    /// Idle time after the last datagram from the client.
    pub front_timeout: Duration,
    /// Idle time after the last datagram from the backend.
    pub back_timeout: Duration,
    /// Absolute time from admission; none: unlimited.
    pub lifetime: Option<Duration>,
    /// Socket strategy.
    pub upstream: Upstream,
    /// Outbound PROXY protocol.
    pub send_proxy_protocol: SendProxyProtocol,
    /// When the backend was removed from the configuration.
    pub on_backend_removed: OnBackend,
    /// When the backend was found down.
    pub on_backend_down: OnBackend,
    /// Whether a flow without a reply so far moves once to another backend on an ICMP error.
    pub retry_on_unreachable: bool,
}

impl Default for UdpKnobs {
    fn default() -> Self {
        UdpKnobs {
            affinity: Affinity::default(),
            responses: 0,
            requests: 0,
            expects_reply: true,
            front_timeout: Duration::from_secs(30),
            back_timeout: Duration::from_secs(30),
            lifetime: None,
            upstream: Upstream::default(),
            send_proxy_protocol: SendProxyProtocol::default(),
            on_backend_removed: OnBackend::default(),
            on_backend_down: OnBackend::default(),
            retry_on_unreachable: false,
        }
    }
}
