//! What concerns several objects: names that must exist, addresses and networks that must not meet.
//! It sees the model only; places are looked up in the tree when something is wrong.

mod http;
mod tls;

pub(crate) use self::http::overlaps;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::diagnostics::{Collector, Diagnostic, quoted};
use crate::model::{
    BackendAddress, Cluster, Document, Health, Limits, Listener, Name, OnChange, Protocol, Ready, Route,
};
use crate::schema::{self, Step, listed};
use crate::tree::{Entry, Node, Value};

/// Reports what the objects of the document do to each other, at their places in the tree; without one they have none, and
/// each was read wholly.
pub(crate) fn document(document: &Document, root: Option<&Node>, problems: &mut Collector) {
    let mut check = Check { document, root, unspoken: unspoken(root), problems };
    check.admin();
    check.listeners();
    check.binds();
    check.routes();
    check.matches();
    check.http_matches();
    check.protocols();
    for (name, cluster) in &document.clusters {
        check.backends(name, cluster);
        check.cluster_tls(name, cluster);
        check.readiness(name, cluster);
    }
}

struct Check<'a, 'p> {
    document: &'a Document,
    root: Option<&'a Node>,
    /// Listeners of which nobody knows what they speak.
    unspoken: BTreeSet<&'a str>,
    problems: &'p mut Collector,
}

/// Listeners whose `protocol` is missing or couldn't be read, which was reported where it stands.
fn unspoken(root: Option<&Node>) -> BTreeSet<&str> {
    let listeners = match root.and_then(|root| root.value.get("listeners")).map(|node| &node.value) {
        Some(Value::Table(entries)) => &entries[..],
        _ => &[],
    };
    listeners.iter().filter(|entry| !schema::speaks(&entry.node)).map(Entry::name).collect()
}

/// An item of an object's list.
#[derive(Clone, Copy)]
struct Spot<'a> {
    name: &'a Name,
    n: usize,
}

impl<'a> Check<'a, '_> {
    /// What a listener speaks; none where that isn't known: what depends on it is not checked then.
    fn spoken(&self, listener: &Name) -> Option<Protocol> {
        let known = self.document.listeners.get(listener).filter(|_| !self.unspoken.contains(listener.as_str()));
        known.map(|listener| listener.protocol)
    }

    fn listeners(&mut self) {
        let document = self.document;
        for (name, listener) in &document.listeners {
            if let Some(cluster) = &listener.cluster {
                let way = [Step::Key("listeners"), Step::Key(name.as_str()), Step::Key("cluster")];
                self.exists("cluster", cluster, &way);
            }
            self.tls(name, listener);
        }
    }

    fn routes(&mut self) {
        let document = self.document;
        for (name, route) in &document.routes {
            let way = |key| [Step::Key("routes"), Step::Key(name.as_str()), Step::Key(key)];
            self.exists("listener", &route.listener, &way("listener"));
            if let Some(cluster) = &route.cluster {
                self.exists("cluster", cluster, &way("cluster"));
            }
            self.http_clusters(name, route);
            self.acts(name, route, self.spoken(&route.listener));
        }
    }

    /// A name that couldn't be read is empty here, and was reported where it stands.
    fn exists(&mut self, kind: &str, name: &Name, way: &[Step<'_>]) {
        let document = self.document;
        let (known, names): (bool, Box<dyn Iterator<Item = &Name>>) = match kind {
            "listener" => (document.listeners.contains_key(name), Box::new(document.listeners.keys())),
            "certificate" => (document.certificates.contains_key(name), Box::new(document.certificates.keys())),
            _ => (document.clusters.contains_key(name), Box::new(document.clusters.keys())),
        };
        if known || name.as_str().is_empty() {
            return;
        }
        let message = format!("{}: there is no {kind} `{}`", schema::subject(&way[..2]), quoted(name.as_str()));
        if !self.problems.has_room() {
            self.problems.report(Diagnostic::new(message, String::new(), None));
            return;
        }
        let names: Vec<&str> = names.map(Name::as_str).take(MAX_CANDIDATES).collect();
        let meant = self.problems.suggester.nearest(name.as_str(), names.iter().copied());
        let diagnostic = self.report(message, way);
        match meant {
            Some(meant) => diagnostic.help(format!("did you mean `{meant}`?")),
            None if names.is_empty() => diagnostic.help(format!("the document has no {kind}s; add `[{kind}s.{name}]`")),
            None if names.len() <= 8 => diagnostic.help(format!("{kind}s are {}", listed(names.into_iter()))),
            None => diagnostic,
        };
    }

    fn binds(&mut self) {
        let listeners = self.document.listeners.iter();
        let spoken = listeners.filter_map(|(name, listener)| Some((name, listener, self.spoken(name)?)));
        let spoken: Vec<_> = spoken.collect();
        let bound = spoken.into_iter().flat_map(|(name, listener, protocol)| {
            // HTTP comes over TCP: the two can't share an address.
            let protocol = if protocol == Protocol::Http { Protocol::Tcp } else { protocol };
            listener.bind.iter().enumerate().map(move |(n, address)| ((protocol, *address), Spot { name, n }))
        });
        self.unique("listeners", "bind", bound, |(_, address), name, other| match other {
            None => format!("listener `{name}`: `{address}` is bound twice"),
            Some(other) => format!("listener `{name}`: `{address}` is bound by listener `{other}` already"),
        });
    }

    /// What only the other protocol has. Defaults may be written out, since an exported document has all of them.
    fn protocols(&mut self) {
        let document = self.document;
        let fresh = Limits::default();
        for (name, listener) in &document.listeners {
            let limits = &listener.limits;
            let udp = [
                ("flows", limits.flows != fresh.flows),
                ("flows_per_source", limits.flows_per_source != fresh.flows_per_source),
                ("new_flows_per_second", limits.new_flows_per_second != fresh.new_flows_per_second),
            ];
            let tcp = [
                ("connections", limits.connections != fresh.connections),
                ("connections_per_source", limits.connections_per_source != fresh.connections_per_source),
                ("connections_per_network", limits.connections_per_network != fresh.connections_per_network),
                ("new_connections_per_second", limits.new_connections_per_second != fresh.new_connections_per_second),
                ("source_network", limits.source_network != fresh.source_network),
                ("refuse", limits.refuse != fresh.refuse),
            ];
            if self.spoken(name) == Some(Protocol::Udp)
                && listener.preread_timeout != Listener::default().preread_timeout
            {
                let message =
                    format!("listener `{name}`: `preread_timeout` is for TCP and HTTP, which it doesn't speak");
                self.report(message, &[Step::Key("listeners"), Step::Key(name.as_str()), Step::Key("preread_timeout")]);
            }
            let (wrong, theirs, right): (&[_], _, _) = match self.spoken(name) {
                Some(Protocol::Udp) => (&tcp, "TCP", "flows"),
                Some(Protocol::Tcp | Protocol::Http) => (&udp, "UDP", "connections"),
                None => continue,
            };
            for (key, _) in wrong.iter().filter(|(_, given)| *given) {
                let message = format!("listener `{name}`: `{key}` limits {theirs}, which it doesn't speak");
                let way = [Step::Key("listeners"), Step::Key(name.as_str()), Step::Key("limits"), Step::Key(key)];
                self.report(message, &way).help(format!("its limits are `{right}` and the like"));
            }
        }
        for (name, route) in &document.routes {
            let Some(protocol) = self.spoken(&route.listener) else { continue };
            self.route_of(name, route, protocol);
        }
        self.http_listeners();
        self.unix_sockets();
        self.loops();
        self.groups();
    }

    fn route_of(&mut self, name: &Name, route: &Route, protocol: Protocol) {
        let way = |key| [Step::Key("routes"), Step::Key(name.as_str()), Step::Key(key)];
        match protocol {
            Protocol::Udp => self.only_http(name, route, "UDP"),
            Protocol::Tcp => {
                self.only_http(name, route, "TCP");
                self.is_agreed_on(name, route);
            }
            Protocol::Http => self.http_route(name, route),
        }
        match protocol {
            Protocol::Udp => {
                let tcp_only = [
                    ("sni", !route.sni.is_empty()),
                    ("alpn", !route.alpn.is_empty()),
                    ("on_change", route.on_change != OnChange::Keep),
                ];
                for (key, _) in tcp_only.iter().filter(|(_, given)| *given) {
                    let message =
                        format!("route `{name}`: `{key}` is for TCP; listener `{}` speaks UDP", route.listener);
                    self.report(message, &way(key)).help("a UDP route matches by `source`");
                }
                if self.is_bare(name, route) {
                    let message = format!("route `{name}` lacks `source`: nothing says what it matches");
                    self.report(message, &way("source")[..2]).help("give it the client networks that it is for");
                }
            }
            Protocol::Tcp if self.is_bare(name, route) => {
                let message = format!("route `{name}` matches everything: it has no `sni`, `alpn` or `source`");
                self.report(message, &way("source")[..2]).help("where everything goes is the listener's own `cluster`");
            }
            Protocol::Tcp | Protocol::Http => {}
        }
    }

    /// Whether nothing that a route of a TCP or UDP listener could ask for stands there, be it right or wrong.
    fn is_bare(&self, name: &Name, route: &Route) -> bool {
        asks_nothing(route) && self.asks_nothing(name, &ASKED)
    }

    /// A Unix socket takes no datagrams, and none are spoken in TLS.
    fn unix_sockets(&mut self) {
        let document = self.document;
        let of_listeners =
            document.listeners.iter().filter_map(|(name, listener)| Some((name, listener.cluster.as_ref()?)));
        let of_routes = document.routes.values().filter_map(|route| Some((&route.listener, route.cluster.as_ref()?)));
        let is_udp = |name: &Name| self.spoken(name) == Some(Protocol::Udp);
        let udp: BTreeMap<&Name, &Name> = of_listeners
            .chain(of_routes)
            .filter(|(name, _)| is_udp(name))
            .map(|(name, cluster)| (cluster, name))
            .collect();
        for (cluster, listener) in udp {
            if document.clusters.get(cluster).is_some_and(|cluster| cluster.tls.is_some()) {
                let message =
                    format!("cluster `{cluster}`: `tls` is for TCP and HTTP, and listener `{listener}` speaks UDP");
                self.report(message, &[Step::Key("clusters"), Step::Key(cluster.as_str()), Step::Key("tls")]);
            }
            let backends =
                document.clusters.get(cluster).into_iter().flat_map(|cluster| cluster.backends.iter().enumerate());
            for (n, _) in backends.filter(|(_, backend)| matches!(backend.address, BackendAddress::Unix(_))) {
                let message = format!(
                    "cluster `{cluster}`: a Unix socket takes no datagrams, and listener `{listener}` speaks UDP"
                );
                let way = [Step::Key("clusters"), Step::Key(cluster.as_str()), Step::Key("backends"), Step::Item(n)];
                self.report(message, &way).help("give it an address like `10.0.0.1:53`");
            }
        }
    }

    /// What a listener sends on must not come in by itself again. What comes over HTTP may be sent to another route so.
    fn loops(&mut self) {
        let document = self.document;
        let of_listeners =
            document.listeners.iter().filter_map(|(name, listener)| Some((name, listener.cluster.as_ref()?)));
        let of_routes = document.routes.values().filter_map(|route| Some((&route.listener, route.cluster.as_ref()?)));
        let ways: BTreeSet<(&Name, &Name)> = of_listeners.chain(of_routes).collect();
        for (name, cluster) in ways {
            let (Some(listener), Some(led)) = (document.listeners.get(name), document.clusters.get(cluster)) else {
                continue;
            };
            if !matches!(self.spoken(name), Some(Protocol::Udp | Protocol::Tcp)) {
                continue;
            }
            let is_own = |address: &SocketAddr| {
                let is_here = |bind| *address == bind || (address.ip().is_loopback() && every(*address) == bind);
                listener.bind.iter().copied().any(is_here)
            };
            for (n, backend) in led.backends.iter().enumerate() {
                let BackendAddress::Ip(address) = &backend.address else { continue };
                if !is_own(address) {
                    continue;
                }
                let message = format!(
                    "cluster `{cluster}`: `{address}` is where listener `{name}` is, which leads to it: a loop"
                );
                let way = [Step::Key("clusters"), Step::Key(cluster.as_str()), Step::Key("backends"), Step::Item(n)];
                self.report(message, &way);
            }
        }
    }

    /// Nobody can connect to a group of receivers, as one can send datagrams to it.
    fn groups(&mut self) {
        let document = self.document;
        let of_listeners = document
            .listeners
            .iter()
            .flat_map(|(name, listener)| listener.cluster.iter().map(move |cluster| (name, cluster)));
        let of_routes = document
            .routes
            .values()
            .flat_map(|route| route.cluster.iter().chain(route.split.keys()).map(|cluster| (&route.listener, cluster)));
        let connects = |name: &Name| matches!(self.spoken(name), Some(Protocol::Tcp | Protocol::Http));
        let connected: BTreeMap<&Name, &Name> = of_listeners
            .chain(of_routes)
            .filter(|(name, _)| connects(name))
            .map(|(name, cluster)| (cluster, name))
            .collect();
        for (cluster, listener) in connected {
            let backends = document.clusters.get(cluster).into_iter().flat_map(|cluster| cluster.backends.iter());
            for (n, backend) in backends.enumerate() {
                let BackendAddress::Ip(address) = &backend.address else { continue };
                if !address.ip().is_multicast() {
                    continue;
                }
                let message = format!(
                    "cluster `{cluster}`: `{address}` is a multicast address, which nobody connects to as listener `{listener}` does"
                );
                let way = [Step::Key("clusters"), Step::Key(cluster.as_str()), Step::Key("backends"), Step::Item(n)];
                self.report(message, &way).help("give it the address of a server");
            }
        }
    }

    /// No two routes of a listener match exactly the same.
    fn matches(&mut self) {
        let is_http = |route: &Route| self.spoken(&route.listener).is_none_or(|protocol| protocol == Protocol::Http);
        // What was wrong in a list fell out of it, and was reported where it stands.
        let is_left = |name: &Name, key: &&str| {
            let way = [Step::Key("routes"), Step::Key(name.as_str()), Step::Key(key)];
            self.problems.kept.contains_key(&schema::pointer(&way))
        };
        let is_misread = |name: &Name, route: &Route| asks_nothing(route) && ASKED.iter().any(|key| is_left(name, key));
        let routes = self.document.routes.iter().filter(|(_, route)| !is_http(route));
        let routes = routes.filter(|(name, route)| !is_misread(name, route));
        let matched = routes.flat_map(|(name, route)| {
            let (sni, alpn, source) = (each(&route.sni), each(&route.alpn), each(&route.source));
            let listed = if !route.source.is_empty() {
                "source"
            } else if !route.sni.is_empty() {
                "sni"
            } else {
                "alpn"
            };
            let ways = sni.into_iter().flat_map(move |sni| {
                let source = source.clone();
                alpn.clone().into_iter().flat_map(move |(_, alpn)| {
                    source.clone().into_iter().map(move |(s, source)| ((sni.0, s), (sni.1, alpn, source)))
                })
            });
            ways.map(move |((sni_at, source_at), way)| {
                let n = if listed == "source" { source_at } else { sni_at };
                (listed, ((&route.listener, way), Spot { name, n }))
            })
        });
        let matched: Vec<_> = matched.collect();
        for list in ["source", "sni", "alpn"] {
            let of_list = matched.iter().filter(|(listed, _)| *listed == list).map(|(_, item)| *item);
            self.unique("routes", list, of_list, |(listener, (sni, alpn, source)), name, other| {
                let parts =
                    [sni.map(ToString::to_string), alpn.map(ToString::to_string), source.map(ToString::to_string)];
                let what: Vec<String> = parts.into_iter().flatten().map(|part| format!("`{part}`")).collect();
                let what = if what.is_empty() { "everything".into() } else { what.join(" with ") };
                match other {
                    None => format!("route `{name}`: {what} stands twice"),
                    Some(other) => {
                        format!("route `{name}` matches {what} of listener `{listener}`, as route `{other}` does")
                    }
                }
            });
        }
    }

    /// What waits for something must have something to wait for.
    fn readiness(&mut self, name: &Name, cluster: &Cluster) {
        let is_checked = cluster.health.as_deref().is_some_and(Health::is_active);
        let has_hosts = cluster.backends.iter().any(|backend| matches!(backend.address, BackendAddress::Host(..)));
        if cluster.ready == Ready::AtOnce || is_checked || has_hosts {
            return;
        }
        let message = format!("cluster `{name}`: `ready = \"probed\"`, and nothing probes its backends");
        let way = [Step::Key("clusters"), Step::Key(name.as_str()), Step::Key("ready")];
        self.report(message, &way).help("give it `health` with `udp`, `tcp` or `http`, or leave out `ready`");
    }

    fn backends(&mut self, name: &'a Name, cluster: &'a Cluster) {
        let backends = || cluster.backends.iter().enumerate();
        let addresses = backends().map(|(n, backend)| (&backend.address, Spot { name, n }));
        self.unique("clusters", "backends", addresses, |address, name, _| {
            format!("cluster `{name}`: two backends have the address `{address}`; a larger share is a larger `weight`")
        });
        // Two of one address were reported just now; that they may be named by it too says nothing new.
        let mut seen = BTreeSet::new();
        let others = backends().filter(|(_, backend)| seen.insert(&backend.address));
        let names = others.map(|(n, backend)| (&backend.name, Spot { name, n }));
        self.unique("clusters", "backends", names, |backend, name, _| {
            format!("cluster `{name}`: two backends have the name `{}`", quoted(backend.as_str()))
        });
    }

    /// Reports each item of a list that is equal to an earlier one, in the same object or another.
    fn unique<K: Ord>(
        &mut self,
        objects: &str,
        list: &str,
        items: impl Iterator<Item = (K, Spot<'a>)>,
        message: impl Fn(&K, &Name, Option<&Name>) -> String,
    ) {
        let mut taken: BTreeMap<K, Spot<'a>> = BTreeMap::new();
        for (key, spot) in items {
            let Some(first) = taken.get(&key).copied() else {
                taken.insert(key, spot);
                continue;
            };
            if !self.problems.has_room() {
                let other = (spot.name != first.name).then_some(first.name);
                self.problems.report(Diagnostic::new(message(&key, spot.name, other), String::new(), None));
                continue;
            }
            let find = |spot: Spot<'a>| {
                self.find(&[Step::Key(objects), Step::Key(spot.name.as_str()), Step::Key(list), Step::Item(spot.n)])
            };
            let mut places = [(spot.name, find(spot)), (first.name, find(first))];
            // Objects come by name; the one that stands later in the text is at fault.
            if places[0].1.1.span.start < places[1].1.1.span.start {
                places.reverse();
            }
            let [(name, (pointer, node)), (other, (other_pointer, other_node))] = places;
            let text = message(&key, name, (name != other).then_some(other));
            let (span, other_span) = (node.span.clone(), other_node.span.clone());
            let diagnostic = Diagnostic::new(text, pointer, Some(span));
            self.problems.report(diagnostic).and(other_pointer, Some(other_span), "the other one");
        }
    }

    /// Only those that are kept have a place: to find one is to look through all that there is.
    fn report(&mut self, message: String, way: &[Step<'_>]) -> &mut Diagnostic {
        if !self.problems.has_room() {
            return self.problems.report(Diagnostic::new(message, String::new(), None));
        }
        let (pointer, node) = self.find(way);
        let span = node.span.clone();
        self.problems.report(Diagnostic::new(message, pointer, Some(span)))
    }

    /// The node at the end of a way through the model, as far as the tree has it, and its pointer.
    fn find(&self, way: &[Step<'_>]) -> (String, &'a Node) {
        let mut node = self.root.unwrap_or(&NOWHERE);
        let mut steps = Vec::with_capacity(way.len());
        for step in way {
            let next = match (*step, &node.value) {
                (Step::Key(key), value) => value.get(key).map(|node| (Step::Key(key), node)),
                (Step::Item(n), Value::List(items)) => {
                    let kept = self.problems.kept.get(&schema::pointer(&steps));
                    let n = kept.and_then(|kept| kept.get(n).copied()).unwrap_or(n);
                    items.get(n).map(|node| (Step::Item(n), node))
                }
                (Step::Item(_), _) => None,
            };
            let Some((step, found)) = next else {
                break;
            };
            steps.push(step);
            node = found;
        }
        (schema::pointer(&steps), node)
    }
}

/// Every address of the kind, at the same port.
pub(crate) fn every(address: SocketAddr) -> SocketAddr {
    let ip = if address.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    SocketAddr::new(ip, address.port())
}

static NOWHERE: Node = Node { value: Value::Null, span: 0..0 };

/// What a route of a TCP or UDP listener may ask for.
const ASKED: [&str; 3] = ["sni", "alpn", "source"];

/// Whether nothing of that was read.
fn asks_nothing(route: &Route) -> bool {
    route.sni.is_empty() && route.alpn.is_empty() && route.source.is_empty()
}

/// How many names are looked through for one that was meant.
const MAX_CANDIDATES: usize = 10_000;

/// Every item of a list with its place, or one that asks for nothing where the list is empty.
fn each<T>(list: &[T]) -> Vec<(usize, Option<&T>)> {
    match list {
        [] => vec![(0, None)],
        some => some.iter().map(Some).enumerate().collect(),
    }
}
