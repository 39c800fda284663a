//! What only HTTP has: what a request must be like to match a route, what becomes of it, what connections to clients
//! and to backends are held to. Plain data, as the rest of the model.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Name;

/// What an HTTP listener holds its clients to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpListener {
    /// Time for a request's head, from its first byte (or from the connection's acceptance) on.
    pub head_timeout: Duration,
    /// Time between two pieces of a request's body.
    pub body_timeout: Duration,
    /// Time in which a client must take something of what is written to it.
    pub write_timeout: Duration,
    /// Time that a connection may wait for its next request.
    pub keep_alive: Duration,
    /// Requests of one connection; 0: unlimited.
    pub keep_alive_requests: u32,
    /// The longest request line, in bytes; longer ones are answered by 414.
    pub max_request_line: u32,
    /// The longest head, request line and fields together, in bytes; longer ones are answered by 431.
    pub max_head: u32,
    /// The most fields of a head; more are answered by 431.
    pub max_fields: u32,
    /// The longest body of a request, in bytes; longer ones are answered by 413. 0: unlimited.
    pub max_body: u64,
    /// What becomes of a request whose path programs read differently.
    pub ambiguous_paths: AmbiguousPaths,
    /// Networks whose `Forwarded`, `X-Forwarded-*` and `X-Request-Id` are believed and added to; from everybody else
    /// these fields are dropped.
    pub trusted: Vec<IpNet>,
    /// Whether `X-Forwarded-For`, `-Proto`, `-Host` and `-Port` are sent to backends.
    pub x_forwarded: bool,
    /// Whether `Forwarded` (RFC 7239) is sent to backends.
    pub forwarded: bool,
    /// Whether `X-Request-Id` is sent to backends.
    pub request_id: bool,
    /// The name by which the proxy appears in `Via`; none: it adds no `Via`.
    pub via: Option<String>,
    /// What clients that come over TLS are told of coming otherwise; none: nothing.
    pub hsts: Option<Hsts>,
    /// The bodies of answers that the proxy makes.
    pub errors: ErrorBodies,
}

impl Default for HttpListener {
    fn default() -> Self {
        HttpListener {
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(60),
            keep_alive_requests: 0,
            max_request_line: 8 << 10,
            max_head: 32 << 10,
            max_fields: 100,
            max_body: 0,
            ambiguous_paths: AmbiguousPaths::Pass,
            trusted: Vec::new(),
            x_forwarded: true,
            forwarded: false,
            request_id: true,
            via: None,
            hsts: None,
            errors: ErrorBodies::default(),
        }
    }
}

/// What becomes of a request whose path programs read differently: with `.` or `..`, empty segments, backslashes, or
/// escapes of these. It is always routed by the most lenient reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AmbiguousPaths {
    /// It goes on as the client wrote it.
    #[default]
    Pass,
    /// It goes on as it was matched.
    Normalise,
    /// It is answered by 400.
    Refuse,
}

/// That clients come by TLS from now on, and by nothing else (RFC 6797).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hsts {
    /// How long a client remembers it, in whole seconds; 0: it forgets it.
    pub max_age: Duration,
    /// Whether it holds for the names under the host too.
    pub include_subdomains: bool,
    /// Whether the host may be put on the lists that browsers come with.
    pub preload: bool,
}

impl Default for Hsts {
    fn default() -> Self {
        Hsts { max_age: Duration::from_secs(365 * 86_400), include_subdomains: false, preload: false }
    }
}

impl std::fmt::Display for Hsts {
    /// As the value of `Strict-Transport-Security` (RFC 6797 6.1).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "max-age={}", self.max_age.as_secs())?;
        if self.include_subdomains {
            f.write_str("; includeSubDomains")?;
        }
        if self.preload {
            f.write_str("; preload")?;
        }
        Ok(())
    }
}

/// Where a client is sent that came without TLS: to the same host, path and query over it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TlsRedirect {
    /// The port that clients reach TLS at.
    pub port: u16,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

impl Default for TlsRedirect {
    fn default() -> Self {
        TlsRedirect { port: 443, status: 308 }
    }
}

/// The bodies of answers that the proxy makes, by what the client accepts; none: the built-in one. `{status}`,
/// `{reason}` and `{request_id}` stand for what they say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorBodies {
    /// As `text/plain`.
    pub text: Option<String>,
    /// As `text/html`.
    pub html: Option<String>,
    /// As `application/json`.
    pub json: Option<String>,
}

/// What a path must be like. Compared with the path as it is normalised for matching.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathMatch {
    /// Any.
    #[default]
    Any,
    /// Begins with this, by whole segments: `/api` is the prefix of `/api` and `/api/x`, not of `/apix`. Without a
    /// trailing slash, but for `/`.
    Prefix(String),
    /// This one.
    Exact(String),
    /// All of it matches this regular expression.
    Regex(String),
}

/// What a header field or a query parameter must be like.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueMatch {
    /// It is there.
    Present,
    /// It is there with this value.
    Exact(String),
}

/// Where a client is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// `http` or `https`; none: the request's.
    pub scheme: Option<String>,
    /// Another host; none: the request's.
    pub host: Option<String>,
    /// Another port; none: the request's, where neither scheme nor host is another one.
    pub port: Option<u16>,
    /// Another path, with `{path}`, `{rest}` (what comes after the route's prefix), `{1}`… (captures of its regular
    /// expression); none: the request's.
    pub path: Option<String>,
    /// Another query, without `?`; none: the request's; empty: none.
    pub query: Option<String>,
}

impl Redirect {
    /// Whether it leads to a host that only the request can name.
    pub fn needs_host(&self) -> bool {
        self.host.is_none() && (self.scheme.is_some() || self.port.is_some())
    }
}

/// An answer that the proxy gives itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Respond {
    /// 200 to 599.
    pub status: u16,
    /// Its header fields, by name as written.
    pub headers: BTreeMap<String, String>,
    /// Its body; empty: none.
    pub body: String,
}

/// Changes of header fields: first what is removed, then what is set in the place of what is there, then what is added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FieldEdits {
    /// Fields, by name, with their only value from now on. Parts of the request's path may stand in it, as in
    /// [`Redirect::path`].
    pub set: BTreeMap<String, String>,
    /// Fields, by name, with one more value, the same.
    pub add: BTreeMap<String, String>,
    /// Names of fields that are taken out.
    pub remove: Vec<String>,
}

/// Changes of a request before it goes to a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestEdits {
    /// Fields, by name, with their only value from now on; as [`FieldEdits::set`].
    pub set: BTreeMap<String, String>,
    /// Fields, by name, with one more value, the same.
    pub add: BTreeMap<String, String>,
    /// Names of fields that are taken out.
    pub remove: Vec<String>,
    /// Another `Host`; none: the client's.
    pub host: Option<String>,
    /// Another path, as [`Redirect::path`]; the query stays.
    pub path: Option<String>,
}

/// How long a route's requests may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteTimeouts {
    /// From the request's head to the end of its response, all tries together; none: unlimited.
    pub request: Option<Duration>,
    /// From the end of the request, or from its sending where nothing more comes of it, to the response's head; for
    /// each try.
    pub response: Duration,
    /// Between two pieces of a response's body.
    pub idle: Duration,
}

impl RouteTimeouts {
    /// Those of a route that says nothing of them.
    pub const DEFAULT: RouteTimeouts =
        RouteTimeouts { request: None, response: Duration::from_secs(60), idle: Duration::from_secs(60) };
}

impl Default for RouteTimeouts {
    fn default() -> Self {
        RouteTimeouts::DEFAULT
    }
}

/// What makes a request be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryOn {
    /// The backend can't be connected to. Nothing was sent, so every method may be tried again.
    Connect,
    /// The backend broke the connection before its response began.
    Reset,
    /// The response didn't begin in time.
    Timeout,
    /// The response has this status.
    Status(u16),
}

/// When a request is tried again on another backend. But for `connect`, only where its method is idempotent and its
/// body, if any, is still at hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// How many further tries, 0 to 10.
    pub attempts: u32,
    /// After what.
    pub on: Vec<RetryOn>,
    /// Further tries in a hundred requests of the route, 1 to 100; some are always allowed.
    pub budget: u32,
}

impl Retry {
    /// The budget of a route that says nothing of it.
    pub const DEFAULT_BUDGET: u32 = 20;
}

impl Default for Retry {
    fn default() -> Self {
        let budget = Retry::DEFAULT_BUDGET;
        Retry { attempts: 2, on: vec![RetryOn::Connect, RetryOn::Reset], budget }
    }
}

/// Who may pass a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Auth {
    /// By user name and password (RFC 7617).
    pub basic: Option<Box<BasicAuth>>,
    /// By asking a service.
    pub forward: Option<Box<ForwardAuth>>,
}

/// User names and their passwords' hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BasicAuth {
    /// What the client's program shows.
    pub realm: String,
    /// By user name: a hash in the PHC form of argon2 (`$argon2id$…`) or of bcrypt (`$2b$…`).
    pub users: BTreeMap<String, String>,
}

/// A service that says whether a request may pass: 2xx lets it, every other answer goes to the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardAuth {
    /// The service.
    pub cluster: Name,
    /// The path that it is asked at.
    pub path: String,
    /// The request's fields that it hears; empty: all that are not about one connection or a body.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Fields of its answer that go into the request.
    pub copy: Vec<String>,
    /// The field of its answer that says who the client is, for the access log.
    #[serde(default)]
    pub user: Option<String>,
    /// Time for its answer.
    pub timeout: Duration,
}

/// Who shares a rate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateKey {
    /// Each client address has its own.
    #[default]
    Client,
    /// Each value of this header field has its own.
    Header(String),
    /// All requests of the route share one.
    Route,
}

/// A limit of a route's requests; over it they are answered by 429. A worker keeps its share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RateLimit {
    /// Who shares it.
    pub by: RateKey,
    /// Requests in `per`; 0: unlimited.
    pub requests: u32,
    /// The time for these.
    pub per: Duration,
    /// Requests that may come at once; 0: as many as `requests`.
    pub burst: u32,
    /// Requests at one time; 0: unlimited.
    pub concurrent: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        RateLimit { by: RateKey::Client, requests: 0, per: Duration::from_secs(1), burst: 0, concurrent: 0 }
    }
}

/// What connections to a cluster's HTTP backends are held to, beside its `tcp` options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpKnobs {
    /// Time that a connection to a backend may wait for its next request; none: it is closed after one.
    pub idle_timeout: Option<Duration>,
    /// Age at which a connection gets no further request; none: any.
    pub max_age: Option<Duration>,
    /// Requests of one connection; 0: unlimited.
    pub max_requests: u32,
    /// A cookie that leads a client to the backend that it had.
    pub sticky: Option<Sticky>,
}

impl Default for HttpKnobs {
    fn default() -> Self {
        HttpKnobs { idle_timeout: Some(Duration::from_secs(30)), max_age: None, max_requests: 0, sticky: None }
    }
}

/// A cookie that names a backend. It is signed, so that no client can choose one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sticky {
    /// The cookie's name.
    pub cookie: String,
    /// What it is signed with; at least 16 bytes.
    pub secret: String,
    /// How long a browser keeps it; none: as long as it runs.
    pub max_age: Option<Duration>,
    /// Whether a browser sends it over TLS only.
    pub secure: bool,
    /// Whether a browser sends it with what other sites asked it for.
    pub same_site: SameSite,
}

impl Default for Sticky {
    fn default() -> Self {
        Sticky { cookie: "kakei".into(), secret: String::new(), max_age: None, secure: false, same_site: SameSite::Lax }
    }
}

/// Whether a browser sends a cookie with what other sites asked it for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    /// Only where it goes there by a link.
    #[default]
    Lax,
    /// Never.
    Strict,
    /// Always.
    None,
}

/// A range of status codes, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StatusRange {
    /// The first.
    pub from: u16,
    /// The last.
    pub to: u16,
}

impl StatusRange {
    /// Whether it is one of them.
    pub fn contains(&self, status: u16) -> bool {
        (self.from..=self.to).contains(&status)
    }
}

/// Send a request, expect a response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpCheck {
    /// Its method.
    pub method: String,
    /// Its path, with a query where one is needed.
    pub path: String,
    /// Its `Host`; none: the backend's address.
    pub host: Option<String>,
    /// Further header fields.
    pub headers: BTreeMap<String, String>,
    /// What is well.
    pub status: Vec<StatusRange>,
    /// How the body must begin; none: whatever it is.
    pub body_prefix: Option<String>,
    /// The port probed; none: the backend's own.
    pub port: Option<u16>,
    /// Whether it speaks the cluster's TLS; none: unless it has a port of its own.
    #[serde(default)]
    pub tls: Option<bool>,
}

impl Default for HttpCheck {
    fn default() -> Self {
        HttpCheck {
            method: "GET".into(),
            path: "/".into(),
            host: None,
            headers: BTreeMap::new(),
            status: vec![StatusRange { from: 200, to: 399 }],
            body_prefix: None,
            port: None,
            tls: None,
        }
    }
}
