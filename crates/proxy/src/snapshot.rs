//! A generation: the operator's document compiled into what a worker looks things up in. Immutable once made.
//!
//! Objects that a change does not touch are the same `Arc`s as in the generation before it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use kakei_config::{
    Balance, Document, Health, HttpKnobs, Limits, Name, Objects, OnChange, Protocol, RateKey, RateLimit, Route,
    StreamProxyProtocol, TcpKnobs, UdpKnobs, Workers,
};
use kakei_wire::message::is_taken_for;
use serde::{Deserialize, Serialize};

use crate::http::strict;
pub use crate::http::{Action, Decided, Imagined, Metered, Mismatch, Rule, Seats, Table, Wanted};
use crate::limits::TIMED;
pub use crate::routes::{Asked, Considered, Routes};
use crate::seam::{BindKey, Endpoint, Transport};
use crate::secure::{ClusterTls, ListenerTls, Materials, Stale};
pub use crate::seen::{Asks, is_secret};
use crate::state::{HttpContractState, RemovedState};
use crate::stats::Series;

/// The number of a snapshot; grows by one with each published change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(inline))]
#[serde(transparent)]
pub struct Generation(pub u64);

/// What every worker of a process has in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// How many workers there are; limits are divided by it.
    pub workers: u16,
    /// Keys the balancers' hashes, so that every worker chooses alike; handed on at an upgrade.
    pub balance_seed: u64,
}

/// A generation.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Which.
    pub generation: Generation,
    /// What all workers have in common.
    pub shared: Shared,
    /// Whether ended flows leave an access-log record.
    pub records: bool,
    /// How many requests, connections and flows each worker keeps of those that it routed last.
    pub traffic: usize,
    /// What it was compiled from.
    pub document: Document,
    /// Listeners by name.
    pub listeners: Objects<Listener>,
    /// Clusters by name.
    pub clusters: Objects<Cluster>,
    /// Backends that come with this generation and begin as down, by cluster: they have not passed yet.
    pub doubted: BTreeMap<Name, BTreeSet<Name>>,
    /// How many routes and clusters are counted one by one.
    timed: Timed,
    /// The clusters whose backends are spoken to in TLS.
    secured: Objects<()>,
    /// What all TLS was compiled with.
    materials: Materials,
}

/// The objects whose requests' times are counted by themselves: those that were, and of those that are new as many as may
/// be. So none loses what was counted of it while it is there, and all workers count the same ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Timed {
    routes: usize,
    clusters: usize,
}

/// A listener, ready to be looked up.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Its identity.
    pub name: Name,
    /// What it speaks. Under the same name what speaks something else is another listener.
    pub protocol: Protocol,
    /// Where it is bound.
    pub binds: Vec<BindKey>,
    /// One worker's share of its limits.
    pub limits: Limits,
    /// The longest datagram, in bytes.
    pub max_datagram_size: u32,
    /// Networks whose datagrams carry a PROXY header.
    pub trusted: Vec<IpNet>,
    /// How long what comes before a connection is routed may take.
    pub preread_timeout: Duration,
    /// How long live flows may go on after its removal.
    pub drain_timeout: Duration,
    /// What refines it.
    pub routes: Routes,
    /// What it holds HTTP clients to, and where their requests go; none: it speaks something else.
    pub http: Option<Arc<HttpListener>>,
    /// TLS, where it ends here.
    pub tls: Option<Arc<ListenerTls>>,
    /// Of a removed one, whose routes are gone: whether its connections still wait for a ClientHello.
    reads_hello: bool,
    /// Where all others go.
    pub default: Option<Arc<Target>>,
}

/// The part of a listener that speaks HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpListener {
    /// What it holds its clients to.
    pub knobs: kakei_config::HttpListener,
    /// What refines it.
    pub table: Table,
    /// What becomes of everything else; none: 404.
    pub default: Option<Arc<Rule>>,
    /// The line that tells clients that came over TLS to go on so, where a route doesn't say otherwise.
    pub(crate) strict: Option<Vec<u8>>,
    /// How many workers share its limits.
    pub workers: u16,
}

impl HttpListener {
    /// Whether programs that read `_` in a field's name as `-` may mistake it for one that a route of this listener or a
    /// limit of that rule goes by.
    pub(crate) fn may_mistake(&self, rule: &Rule, name: &[u8]) -> bool {
        if !name.contains(&b'_') {
            return false;
        }
        let is_mistaken = |one: &str| is_taken_for(name, one.as_bytes()) && !name.eq_ignore_ascii_case(one.as_bytes());
        let limited = |limit: &RateLimit| matches!(&limit.by, RateKey::Header(one) if is_mistaken(one));
        self.table.asks().may_mistake(name) || rule.spec.rate_limits.iter().any(limited)
    }

    /// What is left of one, in a state that was read back, for the requests that began with it: they are routed already.
    pub(crate) fn remnant(state: HttpContractState) -> Self {
        let strict = state.knobs.hsts.as_ref().map(strict::line);
        HttpListener { knobs: state.knobs, table: Table::default(), default: None, strict, workers: state.workers }
    }
}

/// Where a flow or a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// By which route; none: the listener's default.
    pub route: Option<Name>,
    /// The cluster.
    pub cluster: Name,
    /// What a change of the route does to connections that came by it.
    pub on_change: OnChange,
}

impl Target {
    /// Whether it is the same place by the same route, whatever a change of that does.
    pub(crate) fn is_as(&self, other: &Target) -> bool {
        (&self.route, &self.cluster) == (&other.route, &other.cluster)
    }
}

/// A cluster, ready to be balanced over.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Its identity.
    pub name: Name,
    /// How a backend is chosen.
    pub balance: Balance,
    /// The backends, in the order of the document.
    pub backends: Vec<Backend>,
    /// What flows are held to; captured at admission.
    pub knobs: Arc<UdpKnobs>,
    /// What connections are held to, one worker's share of it; captured when a backend is chosen.
    pub tcp: Arc<TcpKnobs>,
    /// What connections that carry requests are held to besides.
    pub http: Arc<HttpKnobs>,
    /// The cookies that lead clients to their backends, where it has them.
    pub seats: Option<Arc<Seats>>,
    /// The PROXY protocol header that a connection begins with.
    pub send_proxy_protocol: StreamProxyProtocol,
    /// Health checks.
    pub health: Option<Box<Health>>,
    /// Time to full weight.
    pub slow_start: Duration,
    /// TLS to the backends; none: they are spoken to without.
    pub tls: Option<Arc<ClusterTls>>,
    /// Whether the times of requests to it are counted by themselves.
    pub is_timed: bool,
}

/// A backend, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Its identity in the cluster.
    pub name: Name,
    /// Where it is.
    pub address: Endpoint,
    /// Its share.
    pub weight: u32,
    /// Whether it is used only when no other backend is up.
    pub backup: bool,
}

impl Listener {
    /// What is left of a removed listener in a state that was read back: what its live flows are held to.
    pub(crate) fn remnant(name: Name, state: RemovedState) -> Self {
        Listener {
            name,
            protocol: state.protocol,
            binds: Vec::new(),
            limits: Limits::default(),
            max_datagram_size: state.max_datagram_size,
            trusted: state.trusted,
            preread_timeout: state.preread_timeout,
            drain_timeout: state.left,
            routes: Routes::default(),
            http: state.http.map(|contract| Arc::new(HttpListener::remnant(contract))),
            tls: None,
            reads_hello: state.reads_hello,
            default: None,
        }
    }

    /// Where a client goes; none: nowhere (`no_route`).
    pub fn route<'a>(&'a self, asked: &Asked<'a>) -> Option<&'a Arc<Target>> {
        self.routes.find(asked).or(self.default.as_ref())
    }

    /// Whether a route asks for what only a ClientHello says, and nobody else reads it.
    pub fn reads_hello(&self) -> bool {
        self.tls.is_none() && (self.routes.reads_hello() || self.reads_hello)
    }

    /// Whether it is the same one as that, though other things may be asked of it.
    pub(crate) fn is_same(&self, other: &Listener) -> bool {
        (&self.name, self.protocol) == (&other.name, other.protocol)
    }

    /// How long what comes before a connection is routed may take, all of it together.
    pub(crate) fn opening_timeout(&self) -> Duration {
        self.tls.as_ref().map_or(Duration::ZERO, |tls| tls.spec.handshake_timeout) + self.preread_timeout
    }

    /// Whether a route of this listener, or its default, still leads where that one did.
    pub(crate) fn leads_to(&self, target: &Target) -> bool {
        self.default.as_deref().is_some_and(|default| default.is_as(target))
            || self.routes.leads_to(target)
            || self.http.as_ref().is_some_and(|http| http.table.leads_to(target))
    }
}

impl Cluster {
    /// A cluster that is not published, only to be probed: of these backends, which have addresses already.
    pub fn candidate(
        name: &Name,
        cluster: &kakei_config::Cluster,
        backends: Vec<kakei_config::Backend>,
        (shared, materials): (Shared, &Materials),
    ) -> Self {
        let balance = Balance::default();
        let tls = cluster.tls.as_ref().map(|spec| Arc::new(ClusterTls::compile(spec, &backends, materials)));
        let probed = kakei_config::Cluster { balance, backends, ..cluster.clone() };
        Cluster { tls, ..compile_cluster(name, &probed, shared) }
    }

    /// What is left of a removed cluster in a state that was read back: the flows on its backends.
    pub(crate) fn remnant(name: Name, send_proxy_protocol: StreamProxyProtocol) -> Self {
        Cluster {
            name,
            balance: Balance::default(),
            backends: Vec::new(),
            knobs: Arc::default(),
            tcp: Arc::default(),
            http: Arc::default(),
            seats: None,
            send_proxy_protocol,
            health: None,
            slow_start: Duration::ZERO,
            tls: None,
            is_timed: false,
        }
    }
}

impl Snapshot {
    /// Compile a validated document that asks for no TLS, or of which nobody wants any: a listener with TLS refuses
    /// every client, and a cluster with TLS fails every connection. It costs what of `previous` has changed; the rest is
    /// shared with it.
    pub fn compile(document: &Document, generation: Generation, shared: Shared, previous: Option<&Snapshot>) -> Self {
        Snapshot::compile_with(document, generation, shared, previous, &Materials::default())
    }

    /// The same, with what the document names and doesn't hold.
    pub fn compile_with(
        document: &Document,
        generation: Generation,
        shared: Shared,
        previous: Option<&Snapshot>,
        materials: &Materials,
    ) -> Self {
        let nothing = Snapshot::nothing(shared);
        let base = previous.filter(|previous| previous.shared == shared).unwrap_or(&nothing);
        let records = document.access_log.to.is_some();
        let traffic = usize::try_from(document.workers.traffic.unwrap_or(Workers::TRAFFIC)).unwrap_or(0);
        let mut snapshot = Snapshot {
            generation,
            records,
            traffic,
            document: document.clone(),
            doubted: BTreeMap::new(),
            materials: materials.clone(),
            ..base.clone()
        };
        let stale = Stale::of(&base.materials, materials);
        snapshot.turn_clusters(base, (materials, &stale));
        snapshot.turn_listeners(base, (materials, &stale));
        snapshot
    }

    /// What the first one is compiled from.
    fn nothing(shared: Shared) -> Self {
        Snapshot {
            generation: Generation(0),
            shared,
            records: false,
            traffic: 0,
            document: Document::default(),
            listeners: Objects::default(),
            clusters: Objects::default(),
            doubted: BTreeMap::new(),
            secured: Objects::default(),
            materials: Materials::default(),
            timed: Timed::default(),
        }
    }

    fn turn_clusters(&mut self, base: &Snapshot, (materials, stale): (&Materials, &Stale<'_>)) {
        let document = self.document.clone();
        let differing = base.document.clusters.differences(&document.clusters);
        let mut turned: BTreeMap<&Name, _> = differing.map(|(name, _, after)| (name, after)).collect();
        // Who vouches for backends, and what the proxy shows them, may be others.
        for (name, ()) in base.secured.iter().filter(|_| stale.is_of_clusters()) {
            let cluster = document.clusters.shared(name);
            if cluster.and_then(|cluster| cluster.tls.as_ref()).is_some_and(|tls| stale.is_of_cluster(tls)) {
                turned.entry(name).or_insert(cluster);
            }
        }
        for (name, _) in turned.iter().filter(|(_, after)| after.is_none()) {
            let gone = self.clusters.remove_shared(name);
            self.timed.clusters -= usize::from(gone.is_some_and(|gone| gone.is_timed));
            self.secured.remove(name);
        }
        for (name, after) in turned {
            let Some(cluster) = after else { continue };
            let old = base.cluster(name);
            let is_timed = old.map_or_else(|| admit(&mut self.timed.clusters, name), |old| old.is_timed);
            let tls = cluster.tls.as_ref().map(|spec| {
                let made = ClusterTls::compile(spec, &cluster.backends, materials);
                reuse(old.and_then(|old| old.tls.as_ref()), made)
            });
            match tls {
                Some(_) => drop(self.secured.insert(name.clone(), ())),
                None => drop(self.secured.remove(name)),
            }
            let made = Cluster { is_timed, tls, ..compile_cluster(name, cluster, self.shared) };
            self.clusters.insert_shared(name.clone(), reuse(old, made));
        }
    }

    fn turn_listeners(&mut self, base: &Snapshot, (materials, stale): (&Materials, &Stale<'_>)) {
        let document = self.document.clone();
        let mut turning = Turning::of(&base.document, &document);
        let table = |name: &Name| base.listener(name).and_then(|old| Some(&old.http.as_ref()?.table));
        for name in turning.gone.iter().chain(&turning.anew) {
            let rules = table(name).into_iter().flat_map(Table::rules);
            self.timed.routes -= rules.filter(|rule| rule.is_timed).count();
        }
        for (name, turned) in turning.turned.iter().filter(|(name, _)| !turning.anew.contains(*name)) {
            let Some(table) = table(name).filter(|_| document.listeners.contains_key(name)) else { continue };
            let gone = turned.iter().filter(|(name, after)| after.is_none() && is_timed(table, name));
            self.timed.routes -= gone.count();
        }
        turning.gone.iter().for_each(|name| drop(self.listeners.remove_shared(name)));
        // Certificates and the keys of tickets may be other ones.
        for (name, listener) in document.listeners.iter().filter(|_| stale.is_anything()) {
            if listener.tls.as_ref().is_some_and(|tls| stale.is_of_listener(tls)) {
                turning.turned.entry(name).or_default();
            }
        }
        for (name, turned) in &turning.turned {
            let Some(listener) = document.listeners.get(name) else { continue };
            let old = base.listener(name);
            let kept = old.filter(|_| !turning.anew.contains(name)).map(|old| &**old);
            let tls = (materials, stale, kept);
            let made = compile_listener((name, listener), self.shared, tls, (turned, &mut self.timed));
            self.listeners.insert_shared((*name).clone(), reuse(old, made));
        }
    }

    /// The listener of that name.
    pub fn listener(&self, name: &Name) -> Option<&Arc<Listener>> {
        self.listeners.shared(name)
    }

    /// Whether a listener has so many routes that it pays to read ahead what requests need of them.
    pub(crate) fn has_many_routes(&self) -> bool {
        self.listeners.values().any(|listener| listener.http.as_ref().is_some_and(|http| http.table.has_many_routes()))
    }

    /// The cluster of that name.
    pub fn cluster(&self, name: &Name) -> Option<&Arc<Cluster>> {
        self.clusters.shared(name)
    }

    /// Every address that is bound, each once.
    pub fn binds(&self) -> impl Iterator<Item = BindKey> + '_ {
        self.listeners.values().flat_map(|listener| listener.binds.iter().copied())
    }
}

/// Whether the times of one that is new are counted by themselves.
fn admit(timed: &mut usize, name: &Name) -> bool {
    let has_room = *timed < TIMED && name.as_str() != Series::OTHER;
    *timed += usize::from(has_room);
    has_room
}

fn is_timed(table: &Table, name: &Name) -> bool {
    table.rule(name).is_some_and(|rule| rule.is_timed)
}

/// What of the listeners and their routes is other than before.
struct Turning<'a> {
    /// Listeners that are compiled again, and those of their routes that are other than before.
    turned: BTreeMap<&'a Name, Vec<Turned<'a>>>,
    /// Those of them that begin with nothing: the routes are all there are.
    anew: BTreeSet<&'a Name>,
    /// Listeners that are no more.
    gone: Vec<&'a Name>,
}

/// A route as it is from now on; none: it is gone.
type Turned<'a> = (&'a Name, Option<&'a Arc<Route>>);

impl<'a> Turning<'a> {
    fn of(old: &'a Document, new: &'a Document) -> Self {
        let (mut turned, mut anew, mut gone): (BTreeMap<&Name, Vec<Turned<'_>>>, BTreeSet<_>, Vec<_>) =
            Default::default();
        for (name, before, after) in old.listeners.differences(&new.listeners) {
            let Some(after) = after else {
                gone.push(name);
                continue;
            };
            turned.entry(name).or_default();
            if before.is_none_or(|before| before.protocol != after.protocol) {
                anew.insert(name);
            }
        }
        for (name, before, after) in old.routes.differences(&new.routes) {
            let place = after.map(|route| &route.listener);
            let left = before.map(|route| &route.listener).filter(|before| Some(*before) != place);
            for (listener, after) in
                left.map(|listener| (listener, None)).into_iter().chain(place.map(|at| (at, after)))
            {
                turned.entry(listener).or_default().push((name, after));
            }
        }
        if !anew.is_empty() {
            turned.iter_mut().filter(|(name, _)| anew.contains(*name)).for_each(|(_, turned)| turned.clear());
            for (name, route) in new.routes.iter_shared().filter(|(_, route)| anew.contains(&route.listener)) {
                turned.entry(&route.listener).or_default().push((name, Some(route)));
            }
        }
        Turning { turned, anew, gone }
    }
}

/// The old object where it equals the new one.
fn reuse<T: PartialEq>(old: Option<&Arc<T>>, new: T) -> Arc<T> {
    match old {
        Some(old) if **old == new => Arc::clone(old),
        _ => Arc::new(new),
    }
}

fn compile_listener(
    (name, listener): (&Name, &kakei_config::Listener),
    shared: Shared,
    (materials, stale, previous): (&Materials, &Stale<'_>, Option<&Listener>),
    (turned, timed): (&[Turned<'_>], &mut Timed),
) -> Listener {
    let transport = match listener.protocol {
        Protocol::Udp => Transport::Udp,
        Protocol::Tcp | Protocol::Http => Transport::Tcp,
    };
    let is_http = listener.protocol == Protocol::Http;
    let mut routes = previous.map(|old| old.routes.clone()).unwrap_or_default();
    let http = is_http.then(|| {
        let old = previous.and_then(|old| old.http.as_ref());
        let mut table = old.map(|old| old.table.clone()).unwrap_or_default();
        let turned = turned.iter().map(|&(name, after)| {
            let known = table.rule(name).map(|rule| rule.is_timed);
            (name, after.map(|route| (route, known.unwrap_or_else(|| admit(&mut timed.routes, name)))))
        });
        let turned: Vec<_> = turned.collect();
        table.turn(&turned);
        let made = HttpListener {
            knobs: listener.http.clone(),
            table,
            default: default_of(listener).map(Arc::new),
            strict: listener.http.hsts.as_ref().map(strict::line),
            workers: shared.workers,
        };
        reuse(old, made)
    });
    if !is_http {
        routes.turn(turned);
    }
    let tls = listener.tls.as_ref().map(|spec| {
        let old = previous.and_then(|old| old.tls.as_ref());
        let is_early = http.as_ref().is_some_and(|http| http.table.allows_early());
        let is_alike = |old: &&Arc<ListenerTls>| old.spec == *spec && old.allows_early == is_early;
        match old.filter(|old| is_alike(old) && !stale.is_of_listener(spec)) {
            Some(old) => Arc::clone(old),
            None => {
                let what = (is_http, is_early, shared.workers);
                reuse(old, ListenerTls::compile(spec, materials, what, old.map(|old| &**old)))
            }
        }
    });
    let to = |cluster| Arc::new(Target { route: None, cluster, on_change: OnChange::Keep });
    Listener {
        name: name.clone(),
        protocol: listener.protocol,
        binds: listener.bind.iter().map(|&address| BindKey { transport, address }).collect(),
        limits: share(listener.limits, shared.workers),
        max_datagram_size: listener.max_datagram_size,
        trusted: listener.proxy_protocol.trusted.clone(),
        preread_timeout: listener.preread_timeout,
        drain_timeout: listener.drain_timeout,
        routes,
        http,
        tls,
        reads_hello: false,
        default: listener.cluster.clone().map(to),
    }
}

/// What becomes of requests that no route matches.
fn default_of(listener: &kakei_config::Listener) -> Option<Rule> {
    let elsewhere = listener.redirect_to_tls.as_ref().map(Rule::redirect_to_tls);
    listener.cluster.clone().map(Rule::default_of).or(elsewhere)
}

/// One worker's share, rounded up; 0 stays unlimited.
fn share(limits: Limits, workers: u16) -> Limits {
    let part = |whole: u32| whole.div_ceil(u32::from(workers.max(1)));
    Limits {
        flows: part(limits.flows).max(1),
        flows_per_source: part(limits.flows_per_source),
        new_flows_per_second: part(limits.new_flows_per_second),
        connections: part(limits.connections).max(1),
        connections_per_source: part(limits.connections_per_source),
        connections_per_network: part(limits.connections_per_network),
        new_connections_per_second: part(limits.new_connections_per_second),
        ..limits
    }
}

fn compile_cluster(name: &Name, cluster: &kakei_config::Cluster, shared: Shared) -> Cluster {
    let backends = cluster.backends.iter().filter_map(|backend| {
        let kakei_config::Backend { name, address, weight, backup } = backend;
        // The control side puts addresses in the place of host names; one that has none yet is no backend.
        Some(Backend { name: name.clone(), address: Endpoint::of(address)?, weight: *weight, backup: *backup })
    });
    let backends: Vec<Backend> = backends.collect();
    let seats = cluster.http.sticky.as_ref().map(|sticky| Arc::new(Seats::compile(name, sticky, &backends)));
    let part = |whole: u32| whole.div_ceil(u32::from(shared.workers.max(1)));
    let tcp = TcpKnobs {
        connections_per_backend: part(cluster.tcp.connections_per_backend),
        queue: part(cluster.tcp.queue),
        ..cluster.tcp.clone()
    };
    Cluster {
        name: name.clone(),
        balance: cluster.balance,
        backends,
        knobs: Arc::new(cluster.udp.clone()),
        tcp: Arc::new(tcp),
        http: Arc::new(cluster.http.clone()),
        seats,
        send_proxy_protocol: cluster.send_proxy_protocol,
        health: cluster.health.clone(),
        slow_start: cluster.slow_start,
        tls: None,
        is_timed: false,
    }
}

#[cfg(test)]
mod tests {
    use kakei_config::{PathMatch, Respond};

    use super::*;

    fn document(routes: impl IntoIterator<Item = String>) -> Document {
        let listener = kakei_config::Listener { protocol: Protocol::Http, ..Default::default() };
        let route = |name: String| {
            let path = PathMatch::Prefix(format!("/{name}"));
            let respond = Some(Respond { status: 200, ..Respond::default() }.into());
            (Name::new(&name), Route { listener: "web".into(), path, respond, ..Route::default() })
        };
        Document {
            listeners: [("web".into(), listener)].into(),
            routes: routes.into_iter().map(route).collect(),
            ..Document::default()
        }
    }

    fn timed_of(snapshot: &Snapshot) -> BTreeSet<Name> {
        let http = snapshot.listener(&"web".into()).unwrap().http.as_ref().unwrap();
        http.table.rules().filter(|rule| rule.is_timed).filter_map(|rule| rule.route.clone()).collect()
    }

    #[test]
    fn as_many_routes_as_may_be_are_counted_one_by_one_and_stay_so() {
        let shared = Shared { workers: 2, balance_seed: 0 };
        let names = |range: std::ops::Range<usize>| range.map(|number| format!("m{number:04}"));
        let first = Snapshot::compile(&document(names(0..TIMED + 50)), Generation(1), shared, None);
        let counted = timed_of(&first);
        assert_eq!(counted.len(), TIMED);
        // What comes before them by name takes the place of none, and one called as the others are is one of them.
        let more = ["a".to_owned(), "other".to_owned()];
        let second = document(names(0..TIMED + 50).chain(more.clone()));
        let second = Snapshot::compile(&second, Generation(2), shared, Some(&first));
        assert_eq!(timed_of(&second), counted);
        // A place that gets free is for one that comes, not for one that was counted among the others.
        let third = document(names(1..TIMED + 50).chain(more.clone()).chain(["z".to_owned()]));
        let third = Snapshot::compile(&third, Generation(3), shared, Some(&second));
        assert_eq!(timed_of(&third).len(), TIMED);
        assert!(timed_of(&third).contains(&Name::new("z")) && !timed_of(&third).contains(&Name::new("a")));
        let few = Snapshot::compile(&document(more), Generation(1), shared, None);
        assert_eq!(timed_of(&few), [Name::new("a")].into());
    }
}
