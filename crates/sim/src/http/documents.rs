//! The documents of runs of HTTP: two clusters, of which one is changed, and the limits that requests stand under.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use fastrand::Rng;
use kakei_config::{
    AccessLog, Backend, Balance, Cluster, Document, Health, HttpKnobs, HttpListener, Listener, LogFormat, OnChange,
    PassiveCheck, PathMatch, Protocol, Retry, RetryOn, Route, RouteTimeouts, TcpKnobs,
};

/// The cluster that an address is of.
pub(super) fn cluster_of(address: SocketAddr) -> &'static str {
    match address.ip() {
        std::net::IpAddr::V4(v4) if v4.octets()[2] == 2 => "two",
        _ => "one",
    }
}

fn backend(cluster: u8, rng: &mut Rng) -> Backend {
    Backend::at(SocketAddr::from((Ipv4Addr::new(10, 0, cluster, rng.u8(1..5)), 80)))
}

pub(super) fn document(rng: &mut Rng, is_peaceful: bool) -> Document {
    let ms = |rng: &mut Rng, from: u64, to: u64| Duration::from_millis(rng.u64(from..to));
    let http = HttpListener {
        head_timeout: ms(rng, 3_000, 10_000),
        body_timeout: ms(rng, 3_000, 10_000),
        write_timeout: ms(rng, 3_000, 10_000),
        keep_alive: ms(rng, 500, 5_000),
        keep_alive_requests: if rng.bool() && !is_peaceful { rng.u32(1..5) } else { 0 },
        ..HttpListener::default()
    };
    let http = if is_peaceful {
        let long = Duration::from_secs(3_600);
        HttpListener { head_timeout: long, body_timeout: long, write_timeout: long, keep_alive: long, ..http }
    } else {
        http
    };
    let listener = Listener {
        protocol: Protocol::Http,
        bind: vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80))],
        http,
        ..Listener::default()
    };
    let routes = ["one", "two"].map(|name| (name.into(), route(name, rng, is_peaceful)));
    let clusters = [("one".into(), cluster(1, rng, is_peaceful)), ("two".into(), cluster(2, rng, is_peaceful))];
    Document {
        access_log: AccessLog { to: Some("stdout".into()), format: LogFormat::Json },
        listeners: [("web".into(), listener)].into(),
        routes: routes.into(),
        clusters: clusters.into(),
        ..Document::default()
    }
}

fn route(name: &str, rng: &mut Rng, is_peaceful: bool) -> Route {
    let timeouts = match is_peaceful {
        true => RouteTimeouts { request: None, response: Duration::from_secs(3_600), idle: Duration::from_secs(3_600) },
        false => RouteTimeouts {
            request: rng.bool().then(|| Duration::from_secs(rng.u64(5..30))),
            response: Duration::from_millis(rng.u64(500..8_000)),
            idle: Duration::from_millis(rng.u64(1_000..8_000)),
        },
    };
    Route {
        listener: "web".into(),
        path: PathMatch::Prefix(format!("/{name}")),
        cluster: Some(name.into()),
        timeouts,
        retry: Retry {
            attempts: rng.u32(0..4),
            on: vec![RetryOn::Connect, RetryOn::Reset, RetryOn::Timeout, RetryOn::Status(503)],
            budget: 20,
        },
        ..Route::default()
    }
}

fn cluster(number: u8, rng: &mut Rng, is_peaceful: bool) -> Cluster {
    let mut backends: Vec<Backend> = (0..rng.u32(1..4)).map(|_| backend(number, rng)).collect();
    backends.dedup_by(|a, b| a.address == b.address);
    backends.sort_by(|a, b| a.address.cmp(&b.address));
    backends.dedup_by(|a, b| a.address == b.address);
    let limited = rng.bool();
    let queue = if is_peaceful { 1_000 } else { rng.u32(0..6) };
    Cluster {
        balance: [Balance::RoundRobin, Balance::Least, Balance::P2c, Balance::Hrw][rng.usize(0..4)],
        backends,
        tcp: TcpKnobs {
            connect_timeout: Duration::from_millis(if is_peaceful { 3_600_000 } else { rng.u64(200..2_000) }),
            connections_per_backend: if limited { rng.u32(1..5) } else { 0 },
            queue,
            queue_timeout: if is_peaceful {
                Duration::from_secs(3_600)
            } else {
                Duration::from_millis(rng.u64(100..3_000))
            },
            on_backend_removed: if number == 2 && rng.bool() { OnChange::Close } else { OnChange::Keep },
            idle_timeout: Some(Duration::from_secs(20)),
            ..TcpKnobs::default()
        },
        http: HttpKnobs {
            idle_timeout: (rng.u8(0..5) > 0).then(|| Duration::from_millis(rng.u64(100..5_000))),
            max_age: rng.bool().then(|| Duration::from_millis(rng.u64(100..5_000))),
            max_requests: if rng.bool() { rng.u32(1..6) } else { 0 },
            sticky: None,
        },
        health: (!is_peaceful && rng.bool()).then(|| Health {
            passive: Some(PassiveCheck {
                fall: 2,
                eject: Duration::from_millis(400),
                eject_max: Duration::from_secs(2),
                ..PassiveCheck::default()
            }),
            fail_open: rng.bool(),
            ..Health::default()
        }),
        ..Cluster::default()
    }
}

/// Change something of the second cluster or its route; never of the first.
pub(super) fn edit(document: &mut Document, rng: &mut Rng) {
    let Some(two) = document.clusters.get_mut(&kakei_config::Name::new("two")) else { return };
    match rng.u8(0..3) {
        0 => {
            let new = backend(2, rng);
            if two.backends.iter().all(|old| old.address != new.address) {
                two.backends.push(new);
            }
        }
        1 if two.backends.len() > 1 => {
            let at = rng.usize(0..two.backends.len());
            two.backends.remove(at);
        }
        _ => {
            let number = rng.u32(0..100);
            let respond = kakei_config::Respond { status: 404, ..kakei_config::Respond::default() };
            let route = Route {
                listener: "web".into(),
                path: PathMatch::Prefix(format!("/other{number}")),
                respond: Some(respond),
                ..Route::default()
            };
            let name = kakei_config::Name::new(format!("other{number}"));
            if document.routes.remove(&name).is_none() {
                document.routes.insert(name, route);
            }
        }
    }
}
