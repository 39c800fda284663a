//! The options of listeners and of the routes that refine them.

use std::time::Duration;

use super::network::{Address, Network};
use super::values::{LONGEST, Reference, Size, Time, Whole, Words};
use super::{ListOf, Maybe, Section, Table, field, independent};
use crate::bounds::MAX_DATAGRAM_BYTES;
use crate::model::{InboundProxyProtocol, Limits, Listener, Name, OnChange, Protocol, Route};

const PROTOCOL: Words<Protocol> = Words { of: &[("udp", Protocol::Udp), ("tcp", Protocol::Tcp)], later: &["http"] };
const UNLIMITED: Whole<u32> = Whole { min: 0, max: u32::MAX, zero: Some("unlimited") };

pub(super) const LISTENER: Section<Listener> = Section {
    blank: Listener::default,
    fields: &[
        field!(protocol: PROTOCOL, "what it speaks", required),
        field!(bind: ListOf { of: Address::Bind, filled: true }, "where clients arrive; port 0 takes a free port", required),
        field!(cluster: Maybe(Reference("cluster")), "where what no route matches goes; left out: it is dropped as `no_route`"),
        field!(limits: Table(&LIMITS), "what is admitted"),
        field!(max_datagram_size: Size { min: 1, max: MAX_DATAGRAM_BYTES },
            "the longest datagram that is forwarded, an inbound PROXY header included; longer ones are dropped as `truncated`"),
        field!(proxy_protocol: Table(&PROXY_PROTOCOL), "inbound PROXY protocol v2 headers"),
        field!(drain_timeout: Time { min: Duration::ZERO, max: LONGEST },
            "how long live flows may go on after the listener was removed or the process was told to stop"),
    ],
    later: &[("tls", "TLS")],
    finish: independent,
};

pub(super) const LIMITS: Section<Limits> = Section {
    blank: Limits::default,
    fields: &[
        field!(flows: Whole { min: 1, max: u32::MAX, zero: None }, "live flows"),
        field!(flows_per_source: UNLIMITED, "live flows of one source address"),
        field!(new_flows_per_second: UNLIMITED, "flows admitted in a second, with a burst of as many"),
    ],
    later: &[],
    finish: independent,
};

pub(super) const PROXY_PROTOCOL: Section<InboundProxyProtocol> = Section {
    blank: InboundProxyProtocol::default,
    fields: &[field!(trusted: ListOf { of: Network, filled: false },
        "networks whose datagrams must carry a header; those from elsewhere are dropped as `proxy_header`; empty: no header is looked for")],
    later: &[],
    finish: independent,
};

pub(super) const ROUTE: Section<Route> = Section {
    blank: || Route {
        listener: Name::new(""),
        source: Vec::new(),
        sni: Vec::new(),
        alpn: Vec::new(),
        cluster: Name::new(""),
        on_change: OnChange::default(),
    },
    fields: &[
        field!(listener: Reference("listener"), "the listener it refines", required),
        field!(source: ListOf { of: Network, filled: true }, "client networks it matches", required),
        field!(cluster: Reference("cluster"), "where what it matches goes", required),
    ],
    later: &[
        ("sni", "TLS"),
        ("host", "HTTP"),
        ("path", "HTTP"),
        ("method", "HTTP"),
        ("headers", "HTTP"),
        ("split", "HTTP"),
        ("redirect", "HTTP"),
        ("respond", "HTTP"),
        ("timeouts", "HTTP"),
        ("retry", "HTTP"),
        ("request", "HTTP"),
        ("on_change", "TCP and HTTP"),
    ],
    finish: independent,
};
