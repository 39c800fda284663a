//! The options that only HTTP has. What concerns several objects is not checked here.

use std::time::Duration;

use super::http_values::{
    FieldName, FieldText, HashText, Head, HostText, LongSize, MapOf, Method, NameOf, PathOf, Plain, RateKeyOf,
    RetryOnOf, Sparse, Status, StatusRangeOf, TargetPath, TemplateText, ValueMatchOf, Weight,
};
use super::network::Network;
use super::values::{Flag, LONGEST, Reference, Size, Time, TimeOrNone, Whole};
use super::{ListOf, Maybe, Section, Table, field, independent};
use crate::model::{
    Auth, BasicAuth, ErrorBodies, FieldEdits, ForwardAuth, HttpCheck, HttpKnobs, HttpListener, Name, RateLimit,
    Redirect, RequestEdits, Respond, Retry, RouteTimeouts, Sticky,
};

const SOME: Time = Time { min: Duration::from_millis(1), max: LONGEST };
const UNLIMITED: Whole<u32> = Whole { min: 0, max: u32::MAX, zero: Some("unlimited") };

pub(super) const HTTP_LISTENER: Section<HttpListener> = Section {
    blank: HttpListener::default,
    fields: &[
        field!(head_timeout: SOME, "time for a request's head, from its first byte, or from the connection's acceptance"),
        field!(body_timeout: SOME, "time between two pieces of a request's body"),
        field!(write_timeout: SOME, "time in which a client must take something of its response"),
        field!(keep_alive: SOME, "time that a connection may wait for its next request"),
        field!(keep_alive_requests: UNLIMITED, "requests of one connection"),
        field!(max_request_line: Size { min: 64, max: 64 << 10 }, "the longest request line; 414 beyond"),
        field!(max_head: Size { min: 256, max: 256 << 10 }, "the longest head, request line and fields together; 431 beyond"),
        field!(max_fields: Whole::<u32> { min: 1, max: 256, zero: None }, "the most fields of a head; 431 beyond"),
        field!(max_body: LongSize, "the longest body of a request; 413 beyond"),
        field!(trusted: ListOf { of: Network, filled: false },
            "networks whose `Forwarded`, `X-Forwarded-*` and `X-Request-Id` are believed and added to; from everybody else they are dropped"),
        field!(x_forwarded: Flag, "whether `X-Forwarded-For`, `-Proto`, `-Host` and `-Port` are sent to backends"),
        field!(forwarded: Flag, "whether `Forwarded` (RFC 7239) is sent to backends"),
        field!(request_id: Flag, "whether `X-Request-Id` is sent to backends"),
        field!(via: Maybe(FieldName), "the name in `Via`; left out: none is added"),
        field!(errors: Sparse(Table(&ERROR_BODIES)), "the bodies of answers that the proxy makes"),
    ],
    later: &[],
    finish: independent,
};

pub(super) const ERROR_BODIES: Section<ErrorBodies> = Section {
    blank: ErrorBodies::default,
    fields: &[
        field!(text: Maybe(Plain), "as `text/plain`; `{status}`, `{reason}` and `{request_id}` stand for what they say"),
        field!(html: Maybe(Plain), "as `text/html`"),
        field!(json: Maybe(Plain), "as `application/json`"),
    ],
    later: &[],
    finish: independent,
};

pub(super) const REDIRECT: Section<Redirect> = Section {
    blank: || Redirect { status: 302, ..Redirect::default() },
    fields: &[
        field!(status: Status { of: &[301, 302, 303, 307, 308] }, "how"),
        field!(scheme: Maybe(super::http_values::Scheme), "another scheme; left out: the request's"),
        field!(host: Maybe(HostText), "another host; left out: the request's"),
        field!(port: Maybe(Whole::<u16> { min: 1, max: u16::MAX, zero: None }), "another port; left out: the request's, where scheme and host are"),
        field!(path: Maybe(TemplateText), "another path, with `{path}`, `{rest}` and captures; left out: the request's"),
        field!(query: Maybe(Plain), "another query; left out: the request's; empty: none"),
    ],
    later: &[],
    finish: independent,
};

pub(super) const RESPOND: Section<Respond> = Section {
    blank: || Respond { status: 200, ..Respond::default() },
    fields: &[
        field!(status: Status { of: &[] }, "its status"),
        field!(headers: Sparse(MapOf { key: FieldName, of: FieldText }), "its header fields"),
        field!(body: Sparse(Plain), "its body"),
    ],
    later: &[],
    finish: independent,
};

pub(super) const FIELD_EDITS: Section<FieldEdits> = Section {
    blank: FieldEdits::default,
    fields: &[
        field!(set: Sparse(MapOf { key: Head, of: FieldText }), "fields with their only value"),
        field!(add: Sparse(MapOf { key: Head, of: FieldText }), "fields with one more value"),
        field!(remove: Sparse(ListOf { of: Head, filled: false }), "fields that are taken out"),
    ],
    later: &[],
    finish: independent,
};

pub(super) const REQUEST_EDITS: Section<RequestEdits> = Section {
    blank: RequestEdits::default,
    fields: &[
        field!(set: Sparse(MapOf { key: Head, of: FieldText }), "fields with their only value"),
        field!(add: Sparse(MapOf { key: Head, of: FieldText }), "fields with one more value"),
        field!(remove: Sparse(ListOf { of: Head, filled: false }), "fields that are taken out"),
        field!(host: Maybe(HostText), "another `Host`"),
        field!(path: Maybe(TemplateText), "another path, with `{path}`, `{rest}` and captures; the query stays"),
    ],
    later: &[],
    finish: independent,
};

pub(super) const ROUTE_TIMEOUTS: Section<RouteTimeouts> = Section {
    blank: RouteTimeouts::default,
    fields: &[
        field!(request: TimeOrNone(SOME), "from a request's head to the end of its response, all tries together"),
        field!(response: SOME, "from the end of a request to its response's head, for each try"),
        field!(idle: SOME, "between two pieces of a response's body"),
    ],
    later: &[],
    finish: independent,
};

pub(super) const RETRY: Section<Retry> = Section {
    blank: Retry::default,
    fields: &[
        field!(attempts: Whole::<u32> { min: 0, max: 10, zero: Some("none") }, "further tries of one request"),
        field!(on: ListOf { of: RetryOnOf, filled: false }, "what asks for one; but for `connect`, only where the method is idempotent and the body at hand"),
        field!(budget: Whole::<u32> { min: 1, max: 100, zero: None }, "further tries in a hundred requests; ten are always allowed"),
    ],
    later: &[],
    finish: independent,
};

pub(super) const AUTH: Section<Auth> = Section {
    blank: Auth::default,
    fields: &[
        field!(basic: Maybe(Table(&BASIC_AUTH)), "by user name and password"),
        field!(forward: Maybe(Table(&FORWARD_AUTH)), "by asking a service"),
    ],
    later: &[],
    finish: independent,
};

pub(super) const BASIC_AUTH: Section<BasicAuth> = Section {
    blank: || BasicAuth { realm: "restricted".into(), ..BasicAuth::default() },
    fields: &[
        field!(realm: FieldText, "what the client's program shows"),
        field!(users: MapOf { key: super::http_values::UserName, of: HashText }, "by user name: a hash of the password, argon2 (`$argon2id$…`) or bcrypt (`$2b$…`)", required),
    ],
    later: &[],
    finish: independent,
};

pub(super) const FORWARD_AUTH: Section<ForwardAuth> = Section {
    blank: || ForwardAuth {
        cluster: Name::default(),
        path: "/".into(),
        copy: Vec::new(),
        timeout: Duration::from_secs(5),
    },
    fields: &[
        field!(cluster: Reference("cluster"), "the service", required),
        field!(path: TargetPath, "the path that it is asked at"),
        field!(copy: ListOf { of: Head, filled: false }, "fields of its answer that go into the request"),
        field!(timeout: SOME, "time for its answer"),
    ],
    later: &[],
    finish: independent,
};

pub(super) const RATE_LIMIT: Section<RateLimit> = Section {
    blank: RateLimit::default,
    fields: &[
        field!(by: RateKeyOf, "who shares it"),
        field!(requests: UNLIMITED, "requests in `per`"),
        field!(per: SOME, "the time for these"),
        field!(burst: Whole { min: 0, max: u32::MAX, zero: Some("as many as `requests`") }, "requests that may come at once"),
        field!(concurrent: UNLIMITED, "requests at one time"),
    ],
    later: &[],
    finish: |limit, at, problems| {
        if limit.requests == 0 && limit.concurrent == 0 {
            at.report_key(
                format!("{} limits nothing: it has neither `requests` nor `concurrent`", at.subject()),
                problems,
            );
        }
    },
};

pub(super) const HTTP_KNOBS: Section<HttpKnobs> = Section {
    blank: HttpKnobs::default,
    fields: &[
        field!(idle_timeout: TimeOrNone(SOME), "time that a connection to a backend may wait for its next request; none: it carries one request only"),
        field!(max_age: TimeOrNone(SOME), "age at which it gets no further request"),
        field!(max_requests: UNLIMITED, "requests of one connection"),
        field!(sticky: Maybe(Table(&STICKY)), "a signed cookie that leads a client to the backend that it had"),
    ],
    later: &[],
    finish: independent,
};

pub(super) const STICKY: Section<Sticky> = Section {
    blank: || Sticky { cookie: "kakei".into(), secret: String::new(), max_age: None, secure: false },
    fields: &[
        field!(cookie: FieldName, "the cookie's name"),
        field!(secret: super::http_values::Secret, "what it is signed with, at least 16 bytes", required),
        field!(max_age: TimeOrNone(SOME), "how long a browser keeps it; none: as long as it runs"),
        field!(secure: Flag, "whether a browser sends it over TLS only"),
    ],
    later: &[],
    finish: independent,
};

pub(super) const HTTP_CHECK: Section<HttpCheck> = Section {
    blank: HttpCheck::default,
    fields: &[
        field!(method: Method, "the request's method"),
        field!(path: TargetPath, "its path"),
        field!(host: Maybe(HostText), "its `Host`; left out: the backend's address"),
        field!(headers: Sparse(MapOf { key: Head, of: FieldText }), "further header fields"),
        field!(status: ListOf { of: StatusRangeOf, filled: true }, "statuses that are well"),
        field!(body_prefix: Maybe(Plain), "how the body must begin"),
        field!(port: Maybe(Whole::<u16> { min: 1, max: u16::MAX, zero: None }), "the port probed; left out: the backend's own"),
    ],
    later: &[],
    finish: independent,
};

/// The options of a route that only HTTP has, to be put into its table.
pub(super) const METHODS: Sparse<ListOf<Method>> = Sparse(ListOf { of: Method, filled: false });
pub(super) const MATCHES: Sparse<MapOf<Head, ValueMatchOf>> = Sparse(MapOf { key: Head, of: ValueMatchOf });
pub(super) const PARAMETERS: Sparse<MapOf<super::http_values::AnyKey, ValueMatchOf>> =
    Sparse(MapOf { key: super::http_values::AnyKey, of: ValueMatchOf });
pub(super) const SPLIT: Sparse<NameOf<Weight>> = Sparse(NameOf(Weight));
pub(super) const PATH: Sparse<PathOf> = Sparse(PathOf);
