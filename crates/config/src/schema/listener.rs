//! The options of listeners and of the routes that refine them.

use std::time::Duration;

use super::http::{
    AUTH, ERRORS, FIELD_MATCHES, HSTS, HTTP_LISTENER, HostMatch, Method, PARAMETER_MATCHES, PathOf, RATE_LIMIT,
    REDIRECT, REQUEST, RESPOND, RESPONSE, RETRY, SPLIT, TIMEOUTS, TLS_REDIRECT, settle,
};
use super::network::{Address, Network};
use super::streams::{AfterChange, ProtocolName, ServerNameOf};
use super::tls::{CLIENT_CERTIFICATE_MODE, LISTENER_TLS};
use super::values::{Flag, LONGEST, Reference, Size, Time, UNLIMITED, Whole, Words};
use super::{Boxed, ListOf, Maybe, Section, Sparse, Table, field, independent};
use crate::bounds::MAX_DATAGRAM_BYTES;
use crate::model::{InboundProxyProtocol, Limits, Listener, Protocol, Refuse, Route, SourceNetwork};
use crate::tree::{Node, Value};

const PROTOCOL: Words<Protocol> =
    Words { of: &[("udp", Protocol::Udp), ("tcp", Protocol::Tcp), ("http", Protocol::Http)], later: &[] };

/// Whether a listener says what it speaks.
pub(crate) fn speaks(listener: &Node) -> bool {
    let said = listener.value.get("protocol").map(|node| &node.value);
    PROTOCOL.of.iter().any(|(word, _)| matches!(said, Some(Value::Text(text)) if text == word))
}

pub(super) const LISTENER: Section<Listener> = Section {
    blank: Listener::default,
    fields: &[
        field!(protocol: PROTOCOL, "what it speaks", required),
        field!(bind: ListOf { of: Address::Bind, filled: true }, "where clients arrive; port 0 takes a free port", required),
        field!(cluster: Maybe(Reference("cluster")), "where what no route matches goes; left out: it is dropped as `no_route`"),
        field!(redirect_to_tls: Maybe(Table(&TLS_REDIRECT)),
            "HTTP without `tls`, in the place of `cluster`: what no route matches is sent to the same host, path and query over TLS; left out: it isn't"),
        field!(limits: Table(&LIMITS), "what is admitted"),
        field!(max_datagram_size: Size { min: 1, max: MAX_DATAGRAM_BYTES },
            "the longest datagram that is forwarded, an inbound PROXY header included; longer ones are dropped as `truncated`"),
        field!(proxy_protocol: Table(&PROXY_PROTOCOL), "inbound PROXY protocol headers: v2 on datagrams, v1 or v2 on connections"),
        field!(preread_timeout: Time { min: Duration::from_millis(1), max: LONGEST },
            "TCP and HTTP: how long what must come before a connection is routed (a PROXY header, a ClientHello) may take"),
        field!(tls: Maybe(Table(&LISTENER_TLS)), "TCP and HTTP: TLS ends here; left out: it is spoken without, or goes on to the backend as it is"),
        field!(http: Sparse(Table(&HTTP_LISTENER)), "HTTP: what it holds its clients to"),
        field!(drain_timeout: Time { min: Duration::ZERO, max: LONGEST },
            "how long live flows and connections may go on after the listener was removed or the process was told to stop"),
    ],
    later: &[],
    finish: independent,
};

pub(super) const LIMITS: Section<Limits> = Section {
    blank: Limits::default,
    fields: &[
        field!(flows: Whole { min: 1, max: u32::MAX, zero: None }, "UDP: live flows"),
        field!(flows_per_source: UNLIMITED, "UDP: live flows of one source address"),
        field!(new_flows_per_second: UNLIMITED, "UDP: flows admitted in a second, with a burst of as many"),
        field!(connections: Whole { min: 1, max: u32::MAX, zero: None }, "TCP and HTTP: live connections"),
        field!(connections_per_source: UNLIMITED, "TCP and HTTP: live connections of one source address"),
        field!(connections_per_network: UNLIMITED, "TCP and HTTP: live connections of one source network"),
        field!(new_connections_per_second: UNLIMITED, "TCP and HTTP: connections accepted in a second, with a burst of as many"),
        field!(source_network: Table(&SOURCE_NETWORK), "TCP and HTTP: what is one source network"),
        field!(refuse: REFUSE, "TCP and HTTP: whether a client over a limit is reset, or told nothing"),
    ],
    later: &[],
    finish: independent,
};

const REFUSE: Words<Refuse> = Words { of: &[("reset", Refuse::Reset), ("silence", Refuse::Silence)], later: &[] };

pub(super) const SOURCE_NETWORK: Section<SourceNetwork> = Section {
    blank: SourceNetwork::default,
    fields: &[
        field!(v4: Whole::<u8> { min: 1, max: 32, zero: None }, "bits that IPv4 addresses of one network have in common"),
        field!(v6: Whole::<u8> { min: 1, max: 128, zero: None }, "bits that IPv6 addresses of one network have in common"),
    ],
    later: &[],
    finish: independent,
};

pub(super) const PROXY_PROTOCOL: Section<InboundProxyProtocol> = Section {
    blank: InboundProxyProtocol::default,
    fields: &[field!(trusted: ListOf { of: Network, filled: false },
        "networks whose datagrams and connections must carry a header; headers, and connections, from elsewhere are refused; empty: no header is looked for")],
    later: &[],
    finish: independent,
};

pub(super) const ROUTE: Section<Route> = Section {
    blank: Route::default,
    fields: &[
        field!(listener: Reference("listener"), "the listener it refines", required),
        field!(source: ListOf { of: Network, filled: false }, "client networks it matches; left out: every client"),
        field!(sni: ListOf { of: ServerNameOf, filled: false },
            "TCP: server names of the ClientHello it matches; left out: any, and what is no TLS"),
        field!(alpn: ListOf { of: ProtocolName, filled: false },
            "TCP: protocols of which the ClientHello offers one; left out: any, and what is no TLS"),
        field!(host: Sparse(ListOf { of: HostMatch, filled: false }), "HTTP, as what follows: hosts it matches; left out: any"),
        field!(path: PathOf, "paths it matches, written decoded: a prefix by whole segments, one path, or all that match an expression; left out: any"),
        field!(method: Sparse(ListOf { of: Method, filled: false }), "methods it matches; left out: any"),
        field!(headers: FIELD_MATCHES, "header fields it asks for"),
        field!(query: PARAMETER_MATCHES, "query parameters it asks for, written decoded"),
        field!(cluster: Maybe(Reference("cluster")),
            "where what it matches goes; UDP and TCP routes need it, an HTTP route may have one of the next three in its place"),
        field!(split: SPLIT, "clusters that share what it matches, by weight"),
        field!(redirect: Maybe(Boxed(Table(&REDIRECT))), "clients are sent elsewhere"),
        field!(respond: Maybe(Boxed(Table(&RESPOND))), "the proxy answers itself"),
        field!(request: Sparse(Table(&REQUEST)), "what is changed in requests"),
        field!(response: Sparse(Table(&RESPONSE)), "what is changed in responses"),
        field!(hsts: Maybe(Table(&HSTS)),
            "`Strict-Transport-Security` of responses, where the listener has `tls`; left out: what the listener's `http.hsts` says"),
        field!(timeouts: Sparse(Table(&TIMEOUTS)), "how long requests may take"),
        field!(retry: Sparse(Table(&RETRY)), "when a request is tried again on another backend"),
        field!(auth: Sparse(Table(&AUTH)), "who may pass; left out: everybody"),
        field!(rate_limits: Sparse(ListOf { of: Table(&RATE_LIMIT), filled: false }), "how much may pass; over one of them a request is answered by 429"),
        field!(client_certificates: Maybe(CLIENT_CERTIFICATE_MODE),
            "`required`: who shows no certificate gets 403, where the listener's `tls` asks for one and doesn't insist; left out: what the listener says"),
        field!(allow: Sparse(ListOf { of: Network, filled: false }), "client networks that may pass; left out: all"),
        field!(deny: Sparse(ListOf { of: Network, filled: false }), "client networks that may not pass; looked at before `allow`"),
        field!(upgrade: Flag, "whether a request may become a connection by `Upgrade` (WebSocket, but nothing that carries requests again, such as `h2c`); `false`: it goes on without that"),
        field!(connect: Flag, "whether a request may become a connection by `CONNECT`"),
        field!(early_data: Flag,
            "whether GET, HEAD, OPTIONS and TRACE without a body may come as TLS 1.3 early data (0-RTT), which somebody else may send again; others wait for the handshake"),
        field!(errors: Sparse(Table(&ERRORS)), "the bodies of answers that the proxy makes; what is left out is the listener's"),
        field!(on_change: AfterChange, "TCP and HTTP: what becomes of connections that came by it when it is removed or leads elsewhere"),
    ],
    later: &[],
    finish: settle,
};
