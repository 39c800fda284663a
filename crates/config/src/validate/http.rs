//! What concerns several objects where one of them is a route of an HTTP listener, or asks for what only HTTP has.
//! It compiles no table; how a request is matched is not known here.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::{Check, Spot, each};
use crate::bounds::MAX_OVERLAPS;
use crate::diagnostics::Diagnostic;
use crate::model::{Document, HttpListener, Name, PathMatch, Protocol, Route, ServerName, ValueMatch};
use crate::schema::{ACTIONS, Step};
use crate::tree::Value;

/// What a route of an HTTP listener may ask for.
const ASKED_OF_HTTP: [&str; 6] = ["host", "path", "method", "headers", "query", "source"];

impl<'a> Check<'a, '_> {
    /// The clusters that HTTP's options name.
    pub(super) fn http_clusters(&mut self, name: &Name, route: &Route) {
        for cluster in route.split.keys() {
            let way = [Step::Key("routes"), Step::Key(name.as_str()), Step::Key("split"), Step::Key(cluster.as_str())];
            self.exists("cluster", cluster, &way);
        }
        if let Some(forward) = &route.auth.forward {
            let way = ["auth", "forward", "cluster"].map(Step::Key);
            let way = [&[Step::Key("routes"), Step::Key(name.as_str())][..], &way].concat();
            self.exists("cluster", &forward.cluster, &way);
        }
    }

    /// What only HTTP has, on a listener that doesn't speak it.
    pub(super) fn http_listeners(&mut self) {
        let document = self.document;
        for (name, _) in document.listeners.iter().filter(|(_, listener)| listener.http != HttpListener::default()) {
            if self.spoken(name).is_none_or(|protocol| protocol == Protocol::Http) {
                continue;
            }
            let way = [Step::Key("listeners"), Step::Key(name.as_str()), Step::Key("http")];
            self.report(format!("listener `{name}`: `http` is for HTTP, which it doesn't speak"), &way);
        }
    }

    /// A route says what becomes of what it matches. One that couldn't be read was reported where it stands.
    pub(super) fn acts(&mut self, name: &Name, route: &Route, protocol: Option<Protocol>) {
        let acts = route.cluster.is_some() || !route.split.is_empty();
        if acts || route.redirect.is_some() || route.respond.is_some() {
            return;
        }
        let message = format!("route `{name}` lacks `cluster`");
        if !self.problems.has_room() {
            self.problems.report(Diagnostic::new(message, String::new(), None));
            return;
        }
        let way = [Step::Key("routes"), Step::Key(name.as_str())];
        let (_, node) = self.find(&way);
        if ACTIONS.iter().all(|key| node.value.get(key).is_none()) {
            let help = match protocol {
                Some(Protocol::Http) => "it takes: name of a cluster; or `split`, `redirect` or `respond` in its place",
                _ => "it takes: name of a cluster",
            };
            self.report(message, &way).help(help);
        }
    }

    /// A route of an HTTP listener.
    pub(super) fn http_route(&mut self, name: &Name, route: &Route) {
        let way = |key| [Step::Key("routes"), Step::Key(name.as_str()), Step::Key(key)];
        self.asks_for_certificates(name, route);
        self.is_strict_by_tls(name, route);
        self.may_come_early(name, route);
        for (key, given) in [("sni", !route.sni.is_empty()), ("alpn", !route.alpn.is_empty())] {
            if given {
                let message = format!("route `{name}`: `{key}` belongs to TLS passthrough on a TCP listener");
                let help = format!("listener `{}` speaks HTTP, where `host` is matched", route.listener);
                self.report(message, &way(key)).help(help);
            }
        }
        let asks = !route.host.is_empty()
            || route.path != PathMatch::Any
            || !route.method.is_empty()
            || !route.headers.is_empty()
            || !route.query.is_empty()
            || !route.source.is_empty();
        if !asks && (route.cluster.is_some() || !route.split.is_empty()) && self.asks_nothing(name, &ASKED_OF_HTTP) {
            let message = format!(
                "route `{name}` matches everything: it has no `host`, `path`, `method`, `headers`, `query` or `source`"
            );
            let help = "where everything goes is the listener's own `cluster`; where it needs more than that, write `path = \"/\"`";
            self.report(message, &way("")[..2]).help(help);
        }
    }

    /// Whether nothing that a route could ask for stands there, be it right or wrong.
    pub(super) fn asks_nothing(&self, name: &Name, keys: &[&str]) -> bool {
        if !self.problems.has_room() {
            return true;
        }
        let (_, node) = self.find(&[Step::Key("routes"), Step::Key(name.as_str())]);
        keys.iter().all(|key| {
            node.value.get(key).is_none_or(|node| match &node.value {
                Value::List(items) => items.is_empty(),
                Value::Table(entries) => entries.is_empty(),
                _ => false,
            })
        })
    }

    /// What only HTTP has, on a route of a listener that speaks something else.
    pub(super) fn only_http(&mut self, name: &Name, route: &Route, protocol: &str) {
        for key in http_options(route) {
            let message =
                format!("route `{name}`: `{key}` is for HTTP; listener `{}` speaks {protocol}", route.listener);
            self.report(message, &[Step::Key("routes"), Step::Key(name.as_str()), Step::Key(key)]);
        }
    }

    /// No two routes of an HTTP listener match exactly the same.
    pub(super) fn http_matches(&mut self) {
        let routes = http_routes(self.document);
        self.once("host", routes.iter().map(|(name, route)| (*name, &route.host[..])));
        self.once("method", routes.iter().map(|(name, route)| (*name, &route.method[..])));
        self.once("source", routes.iter().map(|(name, route)| (*name, &route.source[..])));
        let overlaps = Overlaps::of(routes);
        for ((first, second), what) in overlaps.found {
            self.same(first, second, &what);
        }
        if overlaps.steps > MAX_OVERLAPS {
            let message = "the routes ask for too many combinations of hosts, methods and sources to be compared";
            self.report(message.into(), &[Step::Key("routes")]).help("split them by `path`, or list less in each");
        }
    }

    /// An item stands in a list of one route once.
    fn once<T: Ord + ToString + 'a>(&mut self, list: &str, routes: impl Iterator<Item = (&'a Name, &'a [T])>) {
        let items = routes
            .flat_map(|(name, list)| list.iter().enumerate().map(move |(n, item)| ((name, item), Spot { name, n })));
        self.unique("routes", list, items, |(_, item), name, _| {
            format!("route `{name}`: `{}` stands twice", crate::diagnostics::quoted(&item.to_string()))
        });
    }

    /// Whether all that a route asks for could be read: what couldn't may be what tells it from another.
    fn is_whole(&self, name: &Name) -> bool {
        let Some(route) = self.document.routes.get(name) else { return false };
        if self.root.is_none() {
            return true;
        }
        let (_, node) = self.find(&[Step::Key("routes"), Step::Key(name.as_str())]);
        let asked = |key| match node.value.get(key).map(|node| &node.value) {
            None => 0,
            Some(Value::List(items)) => items.len(),
            Some(Value::Table(entries)) => entries.len(),
            Some(_) => usize::MAX,
        };
        (route.path == PathMatch::Any) == node.value.get("path").is_none()
            && asked("host") == route.host.len()
            && asked("method") == route.method.len()
            && asked("source") == route.source.len()
            && asked("headers") == route.headers.len()
            && asked("query") == route.query.len()
    }

    /// Reports two routes that match the same; the one that stands later in the text is at fault.
    fn same(&mut self, first: &Name, second: &Name, what: &str) {
        if !self.problems.has_room() {
            self.problems.report(Diagnostic::new(String::new(), String::new(), None));
            return;
        }
        if !self.is_whole(first) || !self.is_whole(second) {
            return;
        }
        let find = |name: &Name| self.find(&[Step::Key("routes"), Step::Key(name.as_str())]);
        let mut places = [(first, find(first)), (second, find(second))];
        places.sort_by_key(|(_, (_, node))| node.span.start);
        let [(other, (other_pointer, other_node)), (name, (pointer, node))] = places;
        let message = format!("route `{name}` matches exactly what route `{other}` does{what}");
        let (span, other_span) = (node.span.clone(), other_node.span.clone());
        self.problems.report(Diagnostic::new(message, pointer, Some(span))).and(
            other_pointer,
            Some(other_span),
            "the other one",
        );
    }
}

fn http_routes(document: &Document) -> Vec<Named<'_>> {
    let is_http = |name: &Name| document.listeners.get(name).is_some_and(|of| of.protocol == Protocol::Http);
    document.routes.iter().filter(|(_, route)| is_http(&route.listener)).collect()
}

/// How many hosts, methods and sources of routes that have a host in common are compared with each other: of a document,
/// as many as of its parts together, where each has all the routes that have a host in common with one of its own.
pub(crate) fn overlaps(document: &Document) -> usize {
    Overlaps::of(http_routes(document)).steps
}

/// The options that only HTTP has and that say something. Defaults may be written out, as in an exported document.
fn http_options(route: &Route) -> impl Iterator<Item = &'static str> {
    let fresh = Route::default();
    let options = [
        ("host", !route.host.is_empty()),
        ("path", route.path != PathMatch::Any),
        ("method", !route.method.is_empty()),
        ("headers", !route.headers.is_empty()),
        ("query", !route.query.is_empty()),
        ("split", !route.split.is_empty()),
        ("redirect", route.redirect.is_some()),
        ("respond", route.respond.is_some()),
        ("request", route.request != fresh.request),
        ("response", route.response != fresh.response),
        ("hsts", route.hsts.is_some()),
        ("timeouts", route.timeouts != fresh.timeouts),
        ("retry", route.retry != fresh.retry),
        ("auth", route.auth != fresh.auth),
        ("rate_limits", !route.rate_limits.is_empty()),
        ("client_certificates", route.client_certificates.is_some()),
        ("allow", !route.allow.is_empty()),
        ("deny", !route.deny.is_empty()),
        ("upgrade", route.upgrade != fresh.upgrade),
        ("connect", route.connect != fresh.connect),
        ("early_data", route.early_data),
        ("errors", route.errors != fresh.errors),
    ];
    options.into_iter().filter_map(|(key, given)| given.then_some(key))
}

type Named<'a> = (&'a Name, &'a Route);

type Values = BTreeMap<String, ValueMatch>;

/// What routes that match the same have in common as a whole.
type Alike<'a> = (&'a Name, &'a PathMatch, &'a Values, &'a Values);

/// Pairs of routes that have a host, a method and a source in common. Routes that differ in their hosts, as nearly all
/// do, cost as much as they have hosts; what the others cost is bounded.
#[derive(Default)]
struct Overlaps<'a> {
    found: BTreeMap<(&'a Name, &'a Name), String>,
    steps: usize,
}

impl<'a> Overlaps<'a> {
    fn of(routes: Vec<Named<'a>>) -> Self {
        let mut alike: BTreeMap<Alike<'_>, Vec<Named<'_>>> = BTreeMap::new();
        for (name, route) in routes {
            let key = (&route.listener, &route.path, &route.headers, &route.query);
            alike.entry(key).or_default().push((name, route));
        }
        let mut overlaps = Overlaps::default();
        for routes in alike.values() {
            for (host, routes) in shared(routes, |route| &route.host) {
                overlaps.of_host(host, &routes);
            }
        }
        overlaps
    }

    fn of_host(&mut self, host: Option<&'a ServerName>, routes: &[Named<'a>]) {
        if !self.step(routes, |route| &route.method) {
            return;
        }
        for (method, routes) in shared(routes, |route| &route.method) {
            if !self.step(&routes, |route| &route.source) {
                return;
            }
            for (source, routes) in shared(&routes, |route| &route.source) {
                self.keep(&routes, (host, method, source));
            }
        }
    }

    /// Count what a look at this list of each costs. Whether there is room for it.
    fn step<T: 'a>(&mut self, routes: &[Named<'a>], list: fn(&Route) -> &Vec<T>) -> bool {
        let has_room = self.steps <= MAX_OVERLAPS;
        if has_room {
            self.steps += routes.iter().map(|(_, route)| list(route).len().max(1)).sum::<usize>();
        }
        has_room
    }

    fn keep(
        &mut self,
        routes: &[Named<'a>],
        (host, method, source): (Option<&ServerName>, Option<&String>, Option<&IpNet>),
    ) {
        let [(first, _), rest @ ..] = routes else { return };
        for (other, _) in rest.iter().filter(|(other, _)| other != first) {
            self.found.entry((*first, *other)).or_insert_with(|| {
                let parts = [
                    host.map(|host| format!("host `{host}`")),
                    method.map(|method| format!("method `{method}`")),
                    source.map(|source| format!("source `{source}`")),
                ];
                let parts: Vec<String> = parts.into_iter().flatten().collect();
                if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) }
            });
        }
    }
}

/// The items of a list that several routes have, each with these.
fn shared<'a, T: Ord>(routes: &[Named<'a>], list: fn(&Route) -> &Vec<T>) -> Vec<(Option<&'a T>, Vec<Named<'a>>)> {
    if routes.len() < 2 {
        return Vec::new();
    }
    let mut by: BTreeMap<Option<&T>, Vec<Named<'_>>> = BTreeMap::new();
    for (name, route) in routes {
        each(list(route)).into_iter().for_each(|(_, item)| by.entry(item).or_default().push((*name, *route)));
    }
    by.into_iter().filter(|(_, routes)| routes.len() > 1).collect()
}
