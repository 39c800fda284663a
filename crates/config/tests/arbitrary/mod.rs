//! Arbitrary valid documents, and texts to start mutations from.

mod http;
mod tls;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use ipnet::IpNet;
use kakei_config::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) const SEEDS: &[&str] = &[
    include_str!("../errors/dangling.toml"),
    include_str!("../errors/duplicates.toml"),
    include_str!("../errors/health.toml"),
    include_str!("../errors/addresses.toml"),
    include_str!("../errors/wrong-types.toml"),
    include_str!("../errors/later.toml"),
    include_str!("../errors/http-values.toml"),
    include_str!("../errors/http-routes.toml"),
    include_str!("../errors/tls.toml"),
    include_str!("../errors/tls-backends.toml"),
    include_str!("../errors/tls-clients.toml"),
];

pub(super) fn name() -> impl Strategy<Value = Name> {
    prop_oneof![3 => "[a-d]", 1 => "[A-Za-z0-9._:/\\[\\]-]{1,128}"].prop_map(Name::new)
}

fn ip() -> impl Strategy<Value = IpAddr> {
    let v6 = any::<u128>().prop_map(Ipv6Addr::from).prop_filter("is read as IPv4", |v6| v6.to_ipv4_mapped().is_none());
    prop_oneof![
        (0u8..4).prop_map(|last| IpAddr::from(Ipv4Addr::new(10, 0, 0, last))),
        any::<u32>().prop_map(|v4| IpAddr::from(Ipv4Addr::from(v4))),
        v6.prop_map(IpAddr::from),
    ]
}

/// The address of a single host, or of all there are.
fn host() -> impl Strategy<Value = IpAddr> {
    let is_one = |ip: &IpAddr| !ip.is_multicast() && *ip != IpAddr::V4(Ipv4Addr::BROADCAST);
    ip().prop_filter("is no host's", is_one)
}

/// Ports from here on are of backends: none of them is where a listener is.
const SENT_TO: u16 = 32_768;

fn bound() -> impl Strategy<Value = SocketAddr> {
    (host(), prop_oneof![Just(0), 1u16..4, 0..SENT_TO]).prop_map(SocketAddr::from)
}

fn sent_to() -> impl Strategy<Value = SocketAddr> {
    let scoped = (1u16.., 1u32..9).prop_map(|(port, scope)| {
        SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), port, 0, scope))
    });
    let plain = (host(), SENT_TO..).prop_map(SocketAddr::from);
    let plain = plain.prop_filter("can't be sent to", |a| !a.ip().is_unspecified());
    prop_oneof![9 => plain, 1 => scoped]
}

pub(super) fn network() -> impl Strategy<Value = IpNet> {
    (ip(), any::<u8>()).prop_filter_map("would be IPv4", |(ip, length)| {
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        Some(IpNet::new_assert(ip, length % (longest + 1)).trunc())
    })
}

pub(super) fn time(least: u64) -> impl Strategy<Value = Duration> {
    let least = Duration::from_millis(least);
    prop_oneof![
        (0u64..100).prop_map(Duration::from_secs),
        (0u64..400_000_000_000).prop_map(Duration::from_nanos),
        (0u64..87_600).prop_map(|hours| Duration::from_secs(hours * 3600)),
    ]
    .prop_map(move |time| time.max(least))
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z/.]{1,20}", "[^\u{0}]{1,20}"]
}

/// The certificate of its TCP door is chosen by [`tls::connect`].
fn admin() -> impl Strategy<Value = Admin> {
    let peer = prop_oneof![any::<u32>().prop_map(PeerId::Uid), any::<u32>().prop_map(PeerId::Gid)];
    let peers = apart(peer).prop_map(|(read_only, read_write)| AdminPeers { read_only, read_write });
    let files = (option::of(path()), option::of(path()), option::of(path()));
    let watch = option::of(time(100));
    (files, option::of(bound()), peers, option::of(tls::admin()), watch).prop_map(
        |((socket, state, audit_log), metrics, peers, tcp, watch_files)| Admin {
            socket,
            metrics,
            state,
            audit_log,
            watch_files,
            peers,
            tcp,
        },
    )
}

/// Two lists that have nothing in common.
fn apart<T: Clone + PartialEq + std::fmt::Debug>(
    of: impl Strategy<Value = T>,
) -> impl Strategy<Value = (Vec<T>, Vec<T>)> {
    (vec(of, 0..5), any::<usize>()).prop_map(|(mut all, cut)| {
        let mut seen = Vec::new();
        all.retain(|one| {
            !seen.contains(one) && {
                seen.push(one.clone());
                true
            }
        });
        let rest = all.split_off(cut % (all.len() + 1));
        (all, rest)
    })
}

fn workers() -> impl Strategy<Value = Workers> {
    let count = prop_oneof![Just(WorkerCount::Auto), (1u16..=1_024).prop_map(WorkerCount::Fixed)];
    (count, any::<bool>(), option::of(0u32..65_536)).prop_map(|(count, pin, traffic)| Workers { count, pin, traffic })
}

fn access_log() -> impl Strategy<Value = AccessLog> {
    (option::of(path()), select(vec![LogFormat::Json, LogFormat::Text, LogFormat::Common, LogFormat::Combined]))
        .prop_map(|(to, format)| AccessLog { to, format })
}

fn listener() -> impl Strategy<Value = Listener> {
    let limits = (1u32.., any::<u32>(), 0u32..3).prop_map(|(flows, flows_per_source, new_flows_per_second)| Limits {
        flows,
        flows_per_source,
        new_flows_per_second,
        ..Limits::default()
    });
    let udp = (limits, Just(Protocol::Udp));
    let networks = (1u8..=32, 1u8..=128).prop_map(|(v4, v6)| SourceNetwork { v4, v6 });
    let refuse = select(vec![Refuse::Reset, Refuse::Silence]);
    let connections = (1u32.., any::<u32>(), any::<u32>(), any::<u32>(), networks, refuse).prop_map(|limits| Limits {
        connections: limits.0,
        connections_per_source: limits.1,
        connections_per_network: limits.2,
        new_connections_per_second: limits.3,
        source_network: limits.4,
        refuse: limits.5,
        ..Limits::default()
    });
    let streams = (connections, select(vec![Protocol::Tcp, Protocol::Http]));
    let limits = prop_oneof![1 => udp, 2 => streams];
    let times = (time(0), time(1));
    (vec(bound(), 1..4), limits, 1u32..=65_507, vec(network(), 0..3), times, http::listener()).prop_map(
        |(bind, (limits, protocol), max_datagram_size, trusted, (drain_timeout, preread_timeout), http)| Listener {
            protocol,
            bind,
            cluster: None,
            redirect_to_tls: None,
            limits,
            max_datagram_size,
            proxy_protocol: InboundProxyProtocol { trusted },
            preread_timeout: match protocol {
                Protocol::Udp => Listener::default().preread_timeout,
                Protocol::Tcp | Protocol::Http => preread_timeout,
            },
            tls: None,
            http: if protocol == Protocol::Http { http } else { HttpListener::default() },
            drain_timeout,
        },
    )
}

fn backend() -> impl Strategy<Value = Backend> {
    (option::of(name()), address(), prop_oneof![Just(1), 0u32..=256], any::<bool>()).prop_map(
        |(name, address, weight, backup)| {
            let name = name.unwrap_or_else(|| Name::new(address.to_string()));
            Backend { name, address, weight, backup }
        },
    )
}

fn knobs() -> impl Strategy<Value = UdpKnobs> {
    let on_backend = || select(vec![OnBackend::Keep, OnBackend::Move, OnBackend::Close]);
    let send = select(vec![SendProxyProtocol::Off, SendProxyProtocol::First, SendProxyProtocol::Every]);
    let counts = (0u32..3, any::<u32>(), any::<bool>());
    let times = (time(1), time(1), option::of(time(1)));
    let words = (
        select(vec![Affinity::SourceIp, Affinity::SourceIpPort]),
        select(vec![Upstream::PerFlow, Upstream::Shared]),
        send,
        on_backend(),
        on_backend(),
    );
    (counts, times, words, any::<bool>()).prop_map(|(counts, times, words, retry_on_unreachable)| UdpKnobs {
        affinity: words.0,
        responses: counts.0,
        requests: counts.1,
        expects_reply: counts.2 || counts.0 > 0,
        front_timeout: times.0,
        back_timeout: times.1,
        lifetime: times.2,
        upstream: words.1,
        send_proxy_protocol: words.2,
        on_backend_removed: words.3,
        on_backend_down: words.4,
        retry_on_unreachable,
    })
}

fn on_change() -> impl Strategy<Value = OnChange> {
    prop_oneof![Just(OnChange::Keep), Just(OnChange::Close), time(0).prop_map(OnChange::Drain)]
}

fn connection_knobs() -> impl Strategy<Value = TcpKnobs> {
    let times = (time(1), option::of(time(1)), option::of(time(1)), option::of(1u64..=32_767), time(1));
    let counts = (1u32..=16, any::<u32>(), 0u32..=1_000_000);
    let affinity = select(vec![Affinity::SourceIp, Affinity::SourceIpPort]);
    (times, counts, affinity, on_change(), on_change()).prop_map(
        |(times, counts, affinity, on_backend_removed, on_backend_down)| TcpKnobs {
            affinity,
            connect_timeout: times.0,
            attempts: counts.0,
            idle_timeout: times.1,
            lifetime: times.2,
            keepalive: times.3.map(Duration::from_secs),
            connections_per_backend: counts.1,
            queue: counts.2,
            queue_timeout: times.4,
            on_backend_removed,
            on_backend_down,
        },
    )
}

fn address() -> impl Strategy<Value = BackendAddress> {
    prop_oneof![
        4 => sent_to().prop_map(BackendAddress::Ip),
        1 => ("[a-z]{1,8}(\\.[a-z]{1,8}){0,2}", 1u16..).prop_map(|(host, port)| BackendAddress::Host(host.into(), port)),
    ]
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof!["[ -~]{0,9}".prop_map(String::into_bytes), vec(any::<u8>(), 0..9)]
}

fn health() -> impl Strategy<Value = Health> {
    let expect = prop_oneof![Just(Expect::Any), payload().prop_map(Expect::Exact), payload().prop_map(Expect::Prefix)];
    let port = || option::of(1u16..);
    let udp = (payload(), expect, port()).prop_map(|(send, expect, port)| UdpCheck { send, expect, port });
    let expected =
        || prop_oneof![Just(Expect::Any), payload().prop_map(Expect::Exact), payload().prop_map(Expect::Prefix)];
    let tcp = (payload(), option::of(expected()), port(), option::of(any::<bool>()))
        .prop_map(|(send, expect, port, tls)| TcpCheck { send, expect, port, tls });
    let passive =
        (1u32..=1_000, time(1), http::statuses(0), option::of(time(1))).prop_map(|(fall, eject, status, latency)| {
            PassiveCheck { fall, eject, eject_max: eject.max(Duration::from_secs(300)), status, latency }
        });
    let checks = (option::of(udp), option::of(tcp), option::of(http::check()), option::of(passive))
        .prop_filter("no check", |(udp, tcp, http, passive)| {
            udp.is_some() || tcp.is_some() || http.is_some() || passive.is_some()
        });
    let times = (time(10), time(1)).prop_map(|(interval, timeout)| (interval, timeout.min(interval / 2)));
    (checks, times, 1u32..=1_000, 1u32..=1_000, any::<bool>()).prop_map(
        |((udp, tcp, http, passive), (interval, timeout), rise, fall, fail_open)| Health {
            udp,
            tcp,
            http,
            passive,
            interval,
            timeout,
            rise,
            fall,
            fail_open,
        },
    )
}

fn cluster() -> impl Strategy<Value = Cluster> {
    use Balance::*;
    let balance = select(vec![RoundRobin, Random, Least, P2c, Hrw, Maglev]);
    let header = select(vec![StreamProxyProtocol::Off, StreamProxyProtocol::V1, StreamProxyProtocol::V2]);
    let knobs = (knobs(), connection_knobs(), http::knobs(), header);
    let ready = (any::<bool>(), option::of((1u64..20_000).prop_map(Duration::from_millis)), 0u32..9);
    (balance, vec(backend(), 0..5), knobs, option::of(health()), (time(0), ready)).prop_map(
        |(balance, mut backends, (udp, tcp, http, send_proxy_protocol), health, (slow_start, ready))| {
            let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
            backends.retain(|backend| names.insert(backend.name.clone()) && addresses.insert(backend.address.clone()));
            let (is_probed, ready_within, ready_min) = ready;
            let is_checked = health.as_ref().is_some_and(Health::is_active);
            let ready = if is_probed && is_checked { Ready::Probed } else { Ready::AtOnce };
            Cluster {
                balance,
                backends,
                udp,
                tcp,
                http,
                send_proxy_protocol,
                health: health.map(Box::new),
                slow_start,
                tls: None,
                ready,
                ready_within,
                ready_min,
            }
        },
    )
}

fn named<T: std::fmt::Debug + Clone>(of: impl Strategy<Value = T>) -> impl Strategy<Value = Objects<T>> {
    vec((name(), of), 0..4).prop_map(|objects| objects.into_iter().collect())
}

/// A document that is valid as a whole: names exist, addresses and networks don't meet.
pub(crate) fn document() -> impl Strategy<Value = Document> {
    // Boxed: together they are larger than a test's stack.
    let route = http::route().boxed();
    let routes = vec((name(), any::<usize>(), any::<usize>(), vec(network(), 1..4), route), 0..4).boxed();
    let default_clusters = vec(option::of(any::<usize>()), 4);
    let objects = (named(listener().boxed()).boxed(), named(cluster().boxed()).boxed(), routes, default_clusters);
    let secure = (named(tls::certificate()), vec(option::of(tls::listener()), 4), vec(option::of(tls::cluster()), 4));
    let secure = (secure, vec(http::strict(), 4));
    (admin(), workers(), access_log(), objects, secure).prop_map(|(admin, workers, access_log, objects, secure)| {
        let (secure, strict) = secure;
        let (listeners, clusters, routes, default_clusters) = objects;
        let (certificates, tls, to_backends) = secure;
        let names: Vec<Name> = certificates.keys().cloned().collect();
        let routed = Objects::default();
        let mut document = Document { admin, workers, access_log, listeners, clusters, certificates, routes: routed };
        for (listener, tls) in document.listeners.values_mut().zip(tls) {
            listener.tls = tls.and_then(|tls| tls::connected(tls, listener.protocol, &names));
        }
        connect(&mut document, routes, &default_clusters);
        for (listener, strict) in document.listeners.values_mut().zip(strict) {
            http::keep_to_tls(listener, strict);
        }
        tls::connect(&mut document, to_backends, &names);
        document
    })
}

type RouteParts = (Name, usize, usize, Vec<IpNet>, Route);

fn connect(document: &mut Document, routes: Vec<RouteParts>, default_clusters: &[Option<usize>]) {
    let clusters: Vec<Name> = document.clusters.keys().cloned().collect();
    let mut taken = BTreeSet::new();
    for (listener, choice) in document.listeners.values_mut().zip(default_clusters) {
        listener.bind.retain(|address| taken.insert(*address));
        listener.cluster = choice.and_then(|n| clusters.get(n % clusters.len().max(1)).cloned());
    }
    document.listeners.retain(|_, listener| !listener.bind.is_empty());
    let listeners: Vec<Name> = document.listeners.keys().cloned().collect();
    if listeners.is_empty() || clusters.is_empty() {
        return;
    }
    let mut matched = BTreeSet::new();
    for (name, listener, cluster, mut source, http) in routes {
        let listener = listeners[listener % listeners.len()].clone();
        source.retain(|network| matched.insert((listener.clone(), *network)));
        if !source.is_empty() && !document.routes.contains_key(&name) {
            let cluster = clusters[cluster % clusters.len()].clone();
            if document.listeners[&listener].protocol == Protocol::Http {
                let tls = document.listeners[&listener].tls.as_ref();
                let hsts = http.hsts.filter(|_| tls.is_some());
                let resumes = tls.is_some_and(|tls| tls.tickets && tls.client_certificates.is_none());
                let early_data = http.early_data && resumes;
                let route = Route { listener, source, hsts, early_data, ..http };
                document.routes.insert(name, http::connected(route, cluster));
                continue;
            }
            let is_tcp = document.listeners[&listener].protocol == Protocol::Tcp;
            let (sni, alpn, on_change) = match is_tcp && cluster.as_str().len() % 2 == 1 {
                true => (
                    vec![ServerName::Exact("a.test".into()), ServerName::Under("b.test".into())],
                    vec!["h2".to_owned()],
                    OnChange::Drain(Duration::from_secs(3)),
                ),
                false => (Vec::new(), Vec::new(), OnChange::Keep),
            };
            document.routes.insert(
                name,
                Route { listener, source, sni, alpn, cluster: Some(cluster), on_change, ..Route::default() },
            );
        }
    }
}

/// Two documents with the same clusters, which have some of their backends in common, in any order.
pub(crate) fn relatives() -> impl Strategy<Value = (Document, Document)> {
    let pool = vec(backend(), 6).prop_map(|mut pool| {
        let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        pool.retain(|backend| names.insert(backend.name.clone()) && addresses.insert(backend.address.clone()));
        pool
    });
    let order = || Just((0..6).collect::<Vec<usize>>()).prop_shuffle();
    let choices = (0usize..6, order(), 0usize..6, order(), vec(0u32..3, 6));
    (document(), cluster(), pool, choices).prop_map(|(mut a, cluster, pool, choices)| {
        let (left_out_of_a, order_of_a, left_out_of_b, order_of_b, weights) = choices;
        let chosen = |order: Vec<usize>, left_out: usize| {
            order.into_iter().skip(left_out).filter_map(|n| pool.get(n).cloned()).collect::<Vec<_>>()
        };
        let mut b = a.clone();
        let name = Name::new("shared");
        a.clusters.insert(name.clone(), Cluster { backends: chosen(order_of_a, left_out_of_a), ..cluster.clone() });
        let mut backends = chosen(order_of_b, left_out_of_b);
        backends.iter_mut().zip(weights).for_each(|(backend, weight)| backend.weight = weight);
        b.clusters.insert(name, Cluster { backends, ..cluster });
        (a, b)
    })
}
