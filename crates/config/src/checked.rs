//! A document that was found valid, and what of its objects has to do with each other: a change of it is judged by what it
//! changes and by what has to do with that. The verdict is that of a look at the whole; where it is a bad one, the whole is
//! looked at, so that everything that is wrong is said.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::bounds::{MAX_OVERLAPS, MAX_PATTERNS_BYTES};
use crate::diagnostics::Diagnostics;
use crate::diff::Kind;
use crate::model::{
    Admin, Backend, BackendAddress, ClientCertificateMode, Cluster, Document, Listener, Name, Protocol, Route,
};
use crate::sorted::Sorted;
use crate::{schema, validate};

/// So many changed objects are looked at in one go: what a look takes is no more than they take.
const PIECE: usize = 1_024;

/// See the module's words. A copy costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    document: Document,
    /// Who has to do with what: a hash of that, and the object. Two that only have the hash in common are looked at for
    /// nothing.
    ties: Sorted<(u64, Kind, Name), ()>,
    costs: Costs,
}

/// What is bounded for a document as a whole; at most so much as is said here.
#[derive(Clone, Copy, Debug, Default)]
struct Costs {
    overlaps: usize,
    patterns: usize,
}

/// What several objects may have to do with.
#[derive(Hash)]
enum Topic<'a> {
    /// They name this object, or would if it were there.
    Named(Kind, &'a Name),
    /// Listeners that are bound here.
    Bound(std::net::SocketAddr),
    /// Routes of HTTP that ask for the same: of this listener, at this host; by the hash of the rest.
    Asked(&'a Name, Option<&'a crate::model::ServerName>, u64),
    /// Routes of other protocols that do.
    Matched(&'a Name, Option<&'a crate::model::ServerName>, Option<&'a str>, Option<&'a ipnet::IpNet>),
}

type Object = (Kind, Name);

impl Checked {
    /// A document that is known to be valid, since it was read: nothing is looked at.
    pub fn of_valid(document: Document) -> Self {
        let changed = changed(&Document::default(), &document);
        Checked { ties: all_ties(&document, &changed), costs: Costs::of(&document), document }
    }

    /// A document whose objects were read one by one: what several of them have to do with each other is looked at.
    ///
    /// # Errors
    /// As [`crate::check`].
    pub fn of_objects(document: Document) -> Result<Self, Diagnostics> {
        let checked = Checked::of_valid(document);
        if !(crate::goes_together(&checked.document) && checked.costs.are_bounded()) {
            crate::check(&checked.document)?;
        }
        Ok(checked)
    }

    /// The document.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// What this document becomes by a change. It costs what the change changes, and what has to do with that.
    ///
    /// # Errors
    /// As [`crate::check`].
    pub fn next(&self, document: Document) -> Result<Self, Diagnostics> {
        let mut next = Checked { document, ties: self.ties.clone(), costs: self.costs };
        let mut changed = changed(&self.document, &next.document);
        let turned: Vec<Object> = changed.iter().filter(|object| self.turns(&next.document, object)).cloned().collect();
        for (_, listener) in turned {
            changed.extend(self.tied(topic(&Topic::Named(Kind::Listener, &listener))));
        }
        next.tie_anew(&self.document, &changed);
        if !next.holds(changed) {
            crate::check(&next.document)?;
            next.costs = Costs::of(&next.document);
        }
        Ok(next)
    }

    /// Have these objects tied as they are now, not as they were.
    fn tie_anew(&mut self, before: &Document, changed: &BTreeSet<Object>) {
        if self.ties.is_empty() {
            self.ties = all_ties(&self.document, changed);
            return;
        }
        for object in changed {
            let (old, new) = (ties(before, object), ties(&self.document, object));
            for tie in old.iter().filter(|tie| !new.contains(tie)) {
                self.ties.remove(tie);
            }
            for tie in new.into_iter().filter(|tie| !old.contains(tie)) {
                self.ties.insert(tie, ());
            }
        }
    }

    /// Whether nothing is wrong with what these objects have to do with. It adds what that costs.
    fn holds(&mut self, changed: BTreeSet<Object>) -> bool {
        let mut changed = changed.into_iter().peekable();
        while changed.peek().is_some() {
            let part = self.part(changed.by_ref().take(PIECE));
            self.costs = self.costs.and(Costs::of(&part));
            if crate::check(&part).is_err() {
                return false;
            }
        }
        if !self.costs.are_bounded() {
            // What several parts have in common was counted several times.
            self.costs = Costs::of(&self.document);
        }
        self.costs.are_bounded()
    }

    /// Whether it is a listener whose routes are judged otherwise from now on: by another protocol or by none, by what it
    /// asks of clients, by where it is.
    fn turns(&self, next: &Document, (kind, name): &Object) -> bool {
        let now = &self.document;
        let speaks_otherwise =
            || protocol(now, name) != protocol(next, name) || of_tls(now, name) != of_tls(next, name);
        *kind == Kind::Listener && (speaks_otherwise() || bound(now, name) != bound(next, name))
    }

    /// The objects that have to do with something.
    fn tied(&self, tie: u64) -> impl Iterator<Item = Object> {
        let from = self.ties.from(&(tie, Kind::Admin, Name::default()));
        from.take_while(move |((of, ..), ())| *of == tie).map(|((_, kind, name), ())| (*kind, name.clone()))
    }

    /// The part of the document that these objects are in, and all that has to do with them.
    fn part(&self, changed: impl Iterator<Item = Object>) -> Document {
        let whole = &self.document;
        let (admin, workers, access_log) = (whole.admin.clone(), whole.workers, whole.access_log.clone());
        let mut part = Document { admin, workers, access_log, ..Document::default() };
        named_by_admin(&whole.admin).for_each(|(kind, name)| self.add(&mut part, kind, name));
        for (kind, name) in changed {
            let naming = Topic::Named(kind, &name);
            let topics = match kind {
                Kind::Listener => match whole.listeners.get(&name) {
                    Some(listener) => listener.bind.iter().map(|bind| topic(&Topic::Bound(*bind))).collect(),
                    None => vec![topic(&naming)],
                },
                Kind::Route => match whole.routes.get(&name) {
                    Some(route) => matched(route, protocol(whole, &route.listener)),
                    None => Vec::new(),
                },
                Kind::Cluster
                    if whole
                        .clusters
                        .get(&name)
                        .is_none_or(|cluster| is_special(cluster) || self.is_bound(cluster)) =>
                {
                    vec![topic(&naming)]
                }
                Kind::Certificate if !whole.certificates.contains_key(&name) => vec![topic(&naming)],
                _ => Vec::new(),
            };
            self.add(&mut part, kind, &name);
            for (kind, name) in topics.into_iter().flat_map(|topic| self.tied(topic)) {
                self.add(&mut part, kind, &name);
            }
        }
        part
    }

    /// Whether a listener may be where one of its backends is.
    fn is_bound(&self, cluster: &Cluster) -> bool {
        let addresses = cluster.backends.iter().filter_map(|backend| match &backend.address {
            BackendAddress::Ip(address) => Some(*address),
            _ => None,
        });
        let mut binds = addresses.flat_map(|address| [address, validate::every(address)]);
        binds.any(|bind| self.tied(topic(&Topic::Bound(bind))).next().is_some())
    }

    /// Put an object into a part of the document, and all that it names.
    fn add(&self, part: &mut Document, kind: Kind, name: &Name) {
        let whole = &self.document;
        match kind {
            Kind::Listener => {
                let Some(listener) = whole.listeners.shared(name) else { return };
                part.listeners.insert_shared(name.clone(), Arc::clone(listener));
                named_by_listener(listener).for_each(|(kind, name)| self.add(part, kind, name));
            }
            Kind::Route => {
                let Some(route) = whole.routes.shared(name) else { return };
                part.routes.insert_shared(name.clone(), Arc::clone(route));
                named_by_route(route).for_each(|(kind, name)| self.add(part, kind, name));
            }
            Kind::Cluster => {
                let Some(cluster) = whole.clusters.shared(name) else { return };
                part.clusters.insert_shared(name.clone(), Arc::clone(cluster));
                named_by_cluster(cluster).for_each(|(kind, name)| self.add(part, kind, name));
            }
            Kind::Certificate => {
                let certificate = whole.certificates.shared(name).cloned();
                certificate.and_then(|certificate| part.certificates.insert_shared(name.clone(), certificate));
            }
            Kind::Admin | Kind::Workers | Kind::AccessLog => {}
        }
    }
}

impl Costs {
    fn of(document: &Document) -> Self {
        Costs { overlaps: validate::overlaps(document), patterns: schema::patterns_bytes(document) }
    }

    /// At most so much as a whole takes of which this and that are parts.
    fn and(self, other: Costs) -> Self {
        Costs { overlaps: self.overlaps + other.overlaps, patterns: self.patterns + other.patterns }
    }

    fn are_bounded(self) -> bool {
        self.overlaps <= MAX_OVERLAPS && self.patterns < MAX_PATTERNS_BYTES
    }
}

fn changed(old: &Document, new: &Document) -> BTreeSet<Object> {
    let of = |kind| move |name: &Name| (kind, name.clone());
    let listeners = old.listeners.differences(&new.listeners).map(|(name, ..)| of(Kind::Listener)(name));
    let routes = old.routes.differences(&new.routes).map(|(name, ..)| of(Kind::Route)(name));
    let clusters = old.clusters.differences(&new.clusters).map(|(name, ..)| of(Kind::Cluster)(name));
    let certificates = old.certificates.differences(&new.certificates).map(|(name, ..)| of(Kind::Certificate)(name));
    let admin = (old.admin != new.admin).then(|| (Kind::Admin, Name::default()));
    listeners.chain(routes).chain(clusters).chain(certificates).chain(admin).collect()
}

fn protocol(document: &Document, listener: &Name) -> Option<Protocol> {
    document.listeners.get(listener).map(|listener| listener.protocol)
}

/// Whether it speaks TLS, how it asks for certificates, whether it gives tickets, and which protocols it agrees on.
fn of_tls<'a>(document: &'a Document, listener: &Name) -> Option<(Option<ClientCertificateMode>, bool, &'a [String])> {
    let tls = document.listeners.get(listener)?.tls.as_ref()?;
    Some((tls.client_certificates.as_ref().map(|clients| clients.mode), tls.tickets, &tls.alpn))
}

/// Where it is, as far as what it leads to must not be there.
fn bound<'a>(document: &'a Document, listener: &Name) -> Option<&'a [std::net::SocketAddr]> {
    let listener = document.listeners.get(listener).filter(|listener| listener.protocol != Protocol::Http)?;
    Some(&listener.bind)
}

/// Whether it is one that not every listener can lead to.
fn is_special(cluster: &Cluster) -> bool {
    let is_local = |backend: &Backend| matches!(backend.address, BackendAddress::Unix(_));
    cluster.tls.is_some() || cluster.backends.iter().any(is_local)
}

/// All that an object of this document has to do with.
fn ties(document: &Document, (kind, name): &Object) -> BTreeSet<(u64, Kind, Name)> {
    let topics: Vec<u64> = match kind {
        Kind::Listener => document.listeners.get(name).map_or_else(Vec::new, |listener| {
            let bound = listener.bind.iter().map(|bind| topic(&Topic::Bound(*bind)));
            bound.chain(named_by_listener(listener).map(|(kind, name)| topic(&Topic::Named(kind, name)))).collect()
        }),
        Kind::Route => document.routes.get(name).map_or_else(Vec::new, |route| {
            let mut topics = matched(route, protocol(document, &route.listener));
            topics.extend(named_by_route(route).map(|(kind, name)| topic(&Topic::Named(kind, name))));
            topics
        }),
        Kind::Cluster => document.clusters.get(name).map_or_else(Vec::new, |cluster| {
            named_by_cluster(cluster).map(|(kind, name)| topic(&Topic::Named(kind, name))).collect()
        }),
        _ => Vec::new(),
    };
    topics.into_iter().map(|topic| (topic, *kind, name.clone())).collect()
}

fn all_ties(document: &Document, objects: &BTreeSet<Object>) -> Sorted<(u64, Kind, Name), ()> {
    objects.iter().flat_map(|object| ties(document, object)).map(|tie| (tie, ())).collect()
}

fn named_by_listener(listener: &Listener) -> impl Iterator<Item = (Kind, &Name)> {
    let tls = listener.tls.iter().flat_map(|tls| tls.certificates.named().iter().chain(&tls.default));
    listener.cluster.iter().map(|name| (Kind::Cluster, name)).chain(tls.map(|name| (Kind::Certificate, name)))
}

/// It is in every part of a document, and so is what it names.
fn named_by_admin(admin: &Admin) -> impl Iterator<Item = (Kind, &Name)> {
    admin.tcp.iter().map(|tcp| (Kind::Certificate, &tcp.certificate))
}

fn named_by_cluster(cluster: &Cluster) -> impl Iterator<Item = (Kind, &Name)> {
    let certificate = cluster.tls.iter().filter_map(|tls| tls.certificate.as_ref());
    certificate.map(|name| (Kind::Certificate, name))
}

fn named_by_route(route: &Route) -> impl Iterator<Item = (Kind, &Name)> {
    let clusters = route.cluster.iter().chain(route.split.keys());
    let clusters = clusters.chain(route.auth.forward.iter().map(|forward| &forward.cluster));
    [(Kind::Listener, &route.listener)].into_iter().chain(clusters.map(|name| (Kind::Cluster, name)))
}

/// What other routes may ask for as well as this one.
fn matched(route: &Route, protocol: Option<Protocol>) -> Vec<u64> {
    let Route { listener, host, sni, alpn, source, .. } = route;
    match protocol {
        Some(Protocol::Http) => {
            let rest = hash(&(&route.path, &route.headers, &route.query));
            each(host).map(|host| topic(&Topic::Asked(listener, host, rest))).collect()
        }
        Some(Protocol::Udp | Protocol::Tcp) => {
            let named = each(sni).flat_map(|sni| each(alpn).map(move |alpn| (sni, alpn.map(String::as_str))));
            let all = named.flat_map(|(sni, alpn)| each(source).map(move |source| (sni, alpn, source)));
            all.map(|(sni, alpn, source)| topic(&Topic::Matched(listener, sni, alpn, source))).collect()
        }
        None => Vec::new(),
    }
}

/// Every item, or none as the only one.
fn each<T>(items: &[T]) -> impl Iterator<Item = Option<&T>> {
    items.iter().map(Some).chain(items.is_empty().then_some(None))
}

fn topic(topic: &Topic<'_>) -> u64 {
    hash(topic)
}

/// The same for the same within one process.
fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}
