//! The options of clusters, their backends, and the flows to them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::health::HEALTH;
use super::http::HTTP_KNOBS;
use super::streams::{AfterChange, Whereabouts};
use super::tls::CLUSTER_TLS;
use super::values::{Flag, LONGEST, Time, TimeOrNone, UNLIMITED, Whole, Words, mismatch, text, wrong_name};
use super::{At, Boxed, Codec, ListOf, Maybe, Section, Shape, Sparse, Table, field, independent, shape};
use crate::bounds::MAX_WEIGHT;
use crate::diagnostics::Collector;
use crate::model::{
    Affinity, Backend, Balance, Cluster, Name, OnBackend, Ready, SendProxyProtocol, StreamProxyProtocol, TcpKnobs,
    UdpKnobs, Upstream,
};
use crate::tree::Value;

const BALANCE: Words<Balance> = Words {
    of: &[
        ("round_robin", Balance::RoundRobin),
        ("random", Balance::Random),
        ("least", Balance::Least),
        ("p2c", Balance::P2c),
        ("hrw", Balance::Hrw),
        ("maglev", Balance::Maglev),
    ],
    later: &[],
};
const AFFINITY: Words<Affinity> =
    Words { of: &[("source_ip", Affinity::SourceIp), ("source_ip_port", Affinity::SourceIpPort)], later: &[] };
const UPSTREAM: Words<Upstream> =
    Words { of: &[("per_flow", Upstream::PerFlow), ("shared", Upstream::Shared)], later: &[] };
const SEND_PROXY_PROTOCOL: Words<SendProxyProtocol> = Words {
    of: &[("off", SendProxyProtocol::Off), ("first", SendProxyProtocol::First), ("every", SendProxyProtocol::Every)],
    later: &[],
};
const ON_BACKEND: Words<OnBackend> =
    Words { of: &[("keep", OnBackend::Keep), ("move", OnBackend::Move), ("close", OnBackend::Close)], later: &[] };
const READY: Words<Ready> = Words { of: &[("at_once", Ready::AtOnce), ("probed", Ready::Probed)], later: &[] };
const ENOUGH: Whole<u32> = Whole { min: 0, max: 1_000_000, zero: Some("all") };
/// A change must be answered before the admin API gives its request up.
const LONGEST_READY: Duration = Duration::from_secs(20);
const IDLE: Time = Time { min: Duration::from_millis(1), max: LONGEST };

pub(super) const CLUSTER: Section<Cluster> = Section {
    blank: Cluster::default,
    fields: &[
        field!(balance: BALANCE, "how a backend is chosen; weights count in all of them"),
        field!(backends: ListOf { of: BackendOf, filled: false },
            "the servers; with none, what comes is dropped as `no_backend`"),
        field!(udp: Table(&KNOBS), "what flows to this cluster are held to"),
        field!(tcp: Table(&TCP_KNOBS), "what connections to this cluster are held to"),
        field!(http: Sparse(Table(&HTTP_KNOBS)), "what connections that carry requests are held to besides"),
        field!(send_proxy_protocol: STREAM_PROXY_PROTOCOL, "TCP and HTTP: the PROXY protocol header that a connection to a backend begins with"),
        field!(tls: Maybe(Table(&CLUSTER_TLS)), "TCP and HTTP: backends are spoken to in TLS, and have to prove who they are; left out: they are spoken to without"),
        field!(health: Maybe(Boxed(Table(&HEALTH))), "how backends are found up or down; left out: all count as up"),
        field!(slow_start: Time { min: Duration::ZERO, max: LONGEST },
            "how long a backend that came up takes to reach its full weight; 0s: at once"),
        field!(ready: Sparse(READY),
            "when backends that a change brings are there: `at_once`, or `probed`: once their host names have addresses and the checks have passed on them; until then nothing of the change is published, and it is refused where they fail"),
        field!(ready_within: Maybe(Time { min: Duration::from_millis(1), max: LONGEST_READY }),
            "`ready = \"probed\"`: how long a change waits for that; left out: 10s"),
        field!(ready_min: Sparse(ENOUGH),
            "`ready = \"probed\"`: so many of the backends that a change brings have to pass; all where there are fewer"),
    ],
    later: &[],
    finish: independent,
};

pub(super) const BACKEND: Section<Backend> = Section {
    blank: || Backend {
        name: Name::new(""),
        address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into(),
        weight: 1,
        backup: false,
    },
    fields: &[
        field!(name: BackendName, "its identity in the cluster; left out: its address as text"),
        field!(address: Whereabouts, "where it is", required),
        field!(weight: Whole { min: 0, max: MAX_WEIGHT, zero: Some("it takes no new flow") }, "its share"),
        field!(backup: Flag, "used only while no other backend is up"),
    ],
    later: &[],
    finish: |backend, at, _| {
        if at.node.value.get("name").is_none() {
            backend.name = Name::new(backend.address.to_string());
        }
    },
};

const ATTEMPTS: Whole<u32> = Whole { min: 1, max: 16, zero: None };
const QUEUE: Whole<u32> = Whole { min: 0, max: 1_000_000, zero: Some("none waits") };
const STREAM_PROXY_PROTOCOL: Words<StreamProxyProtocol> = Words {
    of: &[("off", StreamProxyProtocol::Off), ("v1", StreamProxyProtocol::V1), ("v2", StreamProxyProtocol::V2)],
    later: &[],
};

pub(super) const TCP_KNOBS: Section<TcpKnobs> = Section {
    blank: TcpKnobs::default,
    fields: &[
        field!(affinity: AFFINITY, "what the balancer hashes"),
        field!(connect_timeout: IDLE, "how long one attempt to connect to a backend may take"),
        field!(attempts: ATTEMPTS, "how many backends are tried before the client is given up"),
        field!(idle_timeout: TimeOrNone(IDLE), "time without a byte in either direction after which a connection ends"),
        field!(lifetime: TimeOrNone(IDLE), "time from its acceptance after which a connection ends, whatever its traffic"),
        field!(keepalive: TimeOrNone(Time { min: Duration::from_secs(1), max: Duration::from_secs(32_767) }),
            "idle time after which the kernel probes whether a backend is still there"),
        field!(connections_per_backend: UNLIMITED, "live connections to one backend; each worker holds its share, rounded up"),
        field!(queue: QUEUE, "connections that wait for a backend with room; each worker holds its share, rounded up"),
        field!(queue_timeout: IDLE, "how long one may wait"),
        field!(on_backend_removed: AfterChange, "what becomes of connections whose backend was removed from the configuration"),
        field!(on_backend_down: AfterChange, "what becomes of connections whose backend was found down"),
    ],
    later: &[],
    finish: independent,
};

pub(super) const KNOBS: Section<UdpKnobs> = Section {
    blank: UdpKnobs::default,
    fields: &[
        field!(affinity: AFFINITY, "what the balancer hashes"),
        field!(responses: UNLIMITED, "a flow closes after this many replies"),
        field!(requests: UNLIMITED, "after this many forwarded datagrams of a client the next one opens a new flow"),
        field!(expects_reply: Flag, "`false` for one-way traffic: a flow that reaches `requests` closes at once"),
        field!(front_timeout: IDLE, "idle time after the last datagram from the client"),
        field!(back_timeout: IDLE, "idle time after the last datagram from the backend"),
        field!(lifetime: TimeOrNone(IDLE), "time from admission after which a flow ends, whatever its traffic"),
        field!(upstream: UPSTREAM, "a connected socket for each flow, or a pool of sockets that flows share"),
        field!(send_proxy_protocol: SEND_PROXY_PROTOCOL, "which datagrams to a backend carry a PROXY protocol v2 header"),
        field!(on_backend_removed: ON_BACKEND, "what becomes of flows whose backend was removed from the configuration"),
        field!(on_backend_down: ON_BACKEND, "what becomes of flows whose backend was found down"),
        field!(retry_on_unreachable: Flag,
            "whether a flow without a reply so far moves once to another backend on an ICMP error"),
    ],
    later: &[],
    finish: |knobs, at, problems| {
        if !knobs.expects_reply && knobs.responses > 0 {
            one_way_with_replies(knobs, at, problems);
        }
    },
};

fn one_way_with_replies(knobs: &UdpKnobs, at: &At<'_>, problems: &mut Collector) {
    let message = format!(
        "{}: `responses = {}` waits for replies, but `expects_reply = false` says that none come",
        at.subject(),
        knobs.responses
    );
    let place = |key| at.node.value.get(key).map(|node| node.span.clone());
    let (responses, expects) = (place("responses"), place("expects_reply"));
    let diagnostic = crate::diagnostics::Diagnostic::new(message, format!("{}/responses", at.pointer()), responses);
    problems
        .report(diagnostic)
        .and(format!("{}/expects_reply", at.pointer()), expects, "no reply is expected here")
        .help("leave out one of the two");
}

struct BackendName;

impl Codec for BackendName {
    type Of = Name;

    fn describe(&self) -> String {
        "name".into()
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<Name> {
        let name = text(at, "a name", problems)?;
        // A scoped IPv6 address, which is a name too, has a `%`.
        match wrong_name(name, "._:/[]-%") {
            Some(wrong) => {
                at.report(format!("{}: {wrong}", at.subject()), problems);
                None
            }
            None => Some(Name::new(name)),
        }
    }

    fn write(&self, value: &Name) -> Option<Value> {
        Some(Value::text(value.as_str().to_owned()))
    }
}

/// A backend: its address alone, or a table.
struct BackendOf;

impl Codec for BackendOf {
    type Of = Backend;

    fn describe(&self) -> String {
        format!("{}, or table", Whereabouts.describe())
    }

    fn shape(&self) -> Shape {
        shape::either([Whereabouts.shape(), BACKEND.shape()])
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<Backend> {
        match &at.node.value {
            Value::Text(_) => {
                let address = Whereabouts.read(at, problems)?;
                Some(Backend::at(address))
            }
            Value::Table(_) => Table(&BACKEND).read(at, problems),
            _ => {
                mismatch(at, "an address like \"10.0.0.1:53\" or a table with `address`", problems);
                None
            }
        }
    }

    /// As short as it can be said: the address alone, a table without a name that is the address, a table.
    fn write(&self, value: &Backend) -> Option<Value> {
        let named = value.name.as_str() != value.address.to_string();
        if !named && value.weight == 1 && !value.backup {
            return Whereabouts.write(&value.address);
        }
        match BACKEND.entries(value) {
            Value::Table(mut entries) => {
                entries.retain(|entry| named || entry.name() != "name");
                Some(Value::Table(entries))
            }
            other => Some(other),
        }
    }
}
