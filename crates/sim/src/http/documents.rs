//! The documents of runs of HTTP: three clusters, of which the second is changed and the third is probed; a second
//! listener that comes and goes; routes by path and method to clusters, elsewhere, to fixed answers, and with rate limits.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use fastrand::Rng;
use kakei_config::{
    AccessLog, Backend, Balance, Cluster, Document, FieldEdits, Health, HttpCheck, HttpKnobs, HttpListener, Listener,
    LogFormat, Name, Objects, OnChange, PassiveCheck, PathMatch, Protocol, RateKey, RateLimit, Redirect, RequestEdits,
    Respond, Retry, RetryOn, Route, RouteTimeouts, ServerName, TcpKnobs,
};
use kakei_proxy::limits::MANY_ROUTES;

use super::guards;

const _: () = assert!(
    kakei_config::MAX_FIELDS as usize == kakei_wire::http1::MAX_FIELDS,
    "a listener can be told to take as many fields as are read, and no more"
);

/// The port of the listener that is always there, and of the one that comes and goes.
pub(super) const WEB: u16 = 80;
pub(super) const ASIDE: u16 = 81;
/// So many more routes that the worker reads ahead.
const CROWD: usize = MANY_ROUTES + 100;
/// What probes ask for.
pub(super) const HEALTH: &str = "/health";
/// The field of responses by the second cluster's route that says of which change it is.
pub(super) const MARK: &str = "x-mark";
/// The field of responses that says what was asked for, by all routes but those to the third cluster.
pub(super) const ASKED: &str = "x-asked";
/// The field by which some rate limits go.
pub(super) const KEY: &str = "x-key";
/// How many values it has.
pub(super) const KEYS: u64 = 2;
/// What the fixed answer says.
pub(super) const FIXED: &str = "nothing but this";

/// The cluster that an address is of.
pub(super) fn cluster_of(address: SocketAddr) -> &'static str {
    match address.ip() {
        std::net::IpAddr::V4(v4) if v4.octets()[2] == 2 => "two",
        std::net::IpAddr::V4(v4) if v4.octets()[2] == 3 => "three",
        std::net::IpAddr::V4(v4) if v4.octets()[2] == 4 => "gate",
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
    let listener = |port: u16| Listener {
        protocol: Protocol::Http,
        bind: vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))],
        http: http.clone(),
        ..Listener::default()
    };
    let mut clusters: Objects<Cluster> =
        [("one", 1), ("two", 2), ("three", 3)].map(|(name, at)| (name.into(), cluster(at, rng, is_peaceful))).into();
    // A late step makes a probe fail, and in peace nothing may.
    if let Some(three) = clusters.get_mut(&Name::new("three")).filter(|_| !is_peaceful) {
        let passive = three.health.take().and_then(|health| health.passive);
        three.health = Some(probed(passive, rng).into());
    }
    let listeners = [("web".into(), listener(WEB)), ("aside".into(), listener(ASIDE))];
    Document {
        access_log: AccessLog { to: Some("stdout".into()), format: LogFormat::Json },
        listeners: listeners.into(),
        routes: routes(rng, is_peaceful),
        clusters,
        ..Document::default()
    }
}

/// Have some routes ask who the client is.
pub(super) fn guard(document: &mut Document, rng: &mut Rng, is_peaceful: bool) {
    let of = (route("one", rng, is_peaceful), cluster(4, rng, is_peaceful));
    guards::add(document, of, rng, is_peaceful);
}

/// Where a backend is down as soon as probes say so.
fn probed(passive: Option<PassiveCheck>, rng: &mut Rng) -> Health {
    let check = HttpCheck { path: HEALTH.into(), ..HttpCheck::default() };
    Health {
        http: Some(check),
        passive,
        interval: Duration::from_millis(rng.u64(300..900)),
        timeout: Duration::from_millis(250),
        rise: rng.u32(1..3),
        fall: rng.u32(1..3),
        fail_open: false,
        ..Health::default()
    }
}

fn routes(rng: &mut Rng, is_peaceful: bool) -> Objects<Route> {
    let own = |listener: &str, name: &str, route: Route| Route {
        listener: listener.into(),
        path: PathMatch::Prefix(format!("/{name}")),
        ..route
    };
    let mut routes: Objects<Route> = Objects::default();
    for name in ["one", "two", "three"] {
        let route = route(name, rng, is_peaceful);
        routes.insert(Name::new(format!("aside-{name}")), own("aside", name, route.clone()));
        routes.insert(name.into(), own("web", name, route));
    }
    let elsewhere = |route: Route, cluster: &str| Route {
        request: RequestEdits { path: Some(format!("/{cluster}{{rest}}")), ..RequestEdits::default() },
        ..route
    };
    let paced = RateLimit {
        requests: rng.u32(1..4),
        per: Duration::from_secs(rng.u64(1..6)),
        burst: rng.u32(0..3),
        by: limited_by(rng),
        ..RateLimit::default()
    };
    let few = RateLimit { concurrent: rng.u32(1..4), by: limited_by(rng), ..RateLimit::default() };
    for (name, limit) in [("paced", paced), ("few", few)] {
        let route = Route { rate_limits: vec![limit], ..elsewhere(route("one", rng, is_peaceful), "one") };
        routes.insert(name.into(), own("web", name, route));
    }
    for (name, methods, cluster) in [("reads", ["GET", "HEAD"], "one"), ("writes", ["POST", "PUT"], "three")] {
        let method = methods.map(str::to_owned).to_vec();
        let route = Route { method, ..elsewhere(route(cluster, rng, is_peaceful), cluster) };
        routes.insert(name.into(), own("web", "by-method", route));
    }
    let path = Some("/one{rest}".to_owned());
    let redirect = Redirect { status: 307, scheme: None, host: None, port: None, path, query: None };
    let moved = Route { redirect: Some(redirect.into()), response: says_asked(), ..Route::default() };
    routes.insert("moved".into(), own("web", "moved", moved));
    let respond = Respond { status: 200, body: FIXED.into(), ..Respond::default() };
    let fixed = Route { respond: Some(respond.into()), response: says_asked(), ..Route::default() };
    routes.insert("fixed".into(), own("web", "fixed", fixed));
    routes
}

/// Have responses say what was asked for.
fn says_asked() -> FieldEdits {
    FieldEdits { set: [(ASKED.to_owned(), "{path}".to_owned())].into(), ..FieldEdits::default() }
}

fn limited_by(rng: &mut Rng) -> RateKey {
    if rng.bool() { RateKey::Route } else { RateKey::Header(KEY.into()) }
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
        cluster: Some(name.into()),
        response: if name == "three" { FieldEdits::default() } else { says_asked() },
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
            on_backend_removed: if number == 2 { policy(rng) } else { OnChange::Keep },
            idle_timeout: Some(Duration::from_secs(20)),
            ..TcpKnobs::default()
        },
        http: HttpKnobs {
            idle_timeout: (rng.u8(0..5) > 0).then(|| Duration::from_millis(rng.u64(100..5_000))),
            max_age: rng.bool().then(|| Duration::from_millis(rng.u64(100..5_000))),
            max_requests: if rng.bool() { rng.u32(1..6) } else { 0 },
            sticky: None,
        },
        health: (!is_peaceful && rng.bool()).then(|| {
            Health {
                passive: Some(PassiveCheck {
                    fall: 2,
                    eject: Duration::from_millis(400),
                    eject_max: Duration::from_secs(2),
                    ..PassiveCheck::default()
                }),
                fail_open: rng.bool(),
                ..Health::default()
            }
            .into()
        }),
        ..Cluster::default()
    }
}

fn policy(rng: &mut Rng) -> OnChange {
    match rng.u8(0..4) {
        0 => OnChange::Close,
        1 => OnChange::Drain(Duration::from_millis(rng.u64(0..2_000))),
        _ => OnChange::Keep,
    }
}

/// Put very many routes beside those that there are, which ask for the host that every client names.
pub(super) fn crowd(document: &mut Document) {
    let named = |name: &str| ServerName::Exact(name.into());
    let names: Vec<Name> = document.routes.keys().cloned().collect();
    for name in names {
        let Some(route) = document.routes.get_mut(&name) else { continue };
        route.host = vec![named("a.test")];
    }
    for number in 0..CROWD {
        let respond = Some(Respond { status: 404, ..Respond::default() }.into());
        let host = vec![named(&format!("h{number}.test"))];
        let route = Route { listener: "web".into(), host, respond, ..Route::default() };
        document.routes.insert(Name::new(format!("crowd{number}")), route);
    }
}

/// Change something of the second cluster, its route, or what nobody asks for; the listener aside goes or comes. Never
/// anything of the first and the third.
pub(super) fn edit(document: &mut Document, rng: &mut Rng, (changes, retires): (u64, bool)) {
    if retires && rng.u8(0..4) == 0 {
        return retire(document, rng);
    }
    match rng.u8(0..6) {
        0 => {
            let new = backend(2, rng);
            let Some(two) = document.clusters.get_mut(&Name::new("two")) else { return };
            if two.backends.iter().all(|old| old.address != new.address) {
                two.backends.push(new);
            }
        }
        1 | 2 => {
            let Some(two) = document.clusters.get_mut(&Name::new("two")).filter(|two| two.backends.len() > 1) else {
                return;
            };
            let at = rng.usize(0..two.backends.len());
            two.backends.remove(at);
        }
        3 => {
            let Some(route) = document.routes.get_mut(&Name::new("two")) else { return };
            route.response.set.insert(MARK.to_owned(), changes.to_string());
            route.timeouts.response += Duration::from_millis(1);
        }
        4 => edit_aside(document, rng),
        _ => {
            let number = rng.u32(0..100);
            let respond = Respond { status: 404, ..Respond::default() };
            let path = PathMatch::Prefix(format!("/other{number}"));
            let route = Route { listener: "web".into(), path, respond: Some(respond.into()), ..Route::default() };
            let name = Name::new(format!("other{number}"));
            if document.routes.remove(&name).is_none() {
                document.routes.insert(name, route);
            }
        }
    }
}

/// The second cluster goes, and its routes say so; or they come back to it.
fn retire(document: &mut Document, rng: &mut Rng) {
    let name = Name::new("two");
    let gone = document.clusters.remove(&name).is_some();
    if !gone {
        document.clusters.insert(name.clone(), cluster(2, rng, false));
    }
    for route in ["two", "aside-two"] {
        let Some(route) = document.routes.get_mut(&Name::new(route)) else { continue };
        route.cluster = (!gone).then(|| name.clone());
        route.respond = gone.then(|| Respond { status: 503, ..Respond::default() }.into());
    }
}

/// The listener goes with its routes, or comes back with them.
fn edit_aside(document: &mut Document, rng: &mut Rng) {
    let names = ["one", "two", "three"];
    if document.listeners.remove(&Name::new("aside")).is_some() {
        names.iter().for_each(|name| drop(document.routes.remove(&Name::new(format!("aside-{name}")))));
        return;
    }
    let Some(web) = document.listeners.get(&Name::new("web")) else { return };
    let mut aside = Listener { bind: vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, ASIDE))], ..web.clone() };
    aside.drain_timeout = Duration::from_millis(rng.u64(500..5_000));
    document.listeners.insert("aside".into(), aside);
    for name in names {
        let Some(route) = document.routes.get(&Name::new(name)) else { continue };
        let route = Route { listener: "aside".into(), ..route.clone() };
        document.routes.insert(Name::new(format!("aside-{name}")), route);
    }
}
