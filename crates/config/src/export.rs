//! The document written down: canonical text that reads back as the same document. One tree serves both syntaxes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::diff::Kind;
use crate::model::{Backend, BackendAddress, Cluster, Document, Name};
use crate::objects::Objects;
use crate::schema::{self, Object};
use crate::sorted::Sorted;
use crate::tree::Node;

impl Document {
    /// The document as a tree. Everything that holds is written out, defaults included, so that it means the same to a
    /// later version; options that are off by being left out stay left out, and so do those sections of HTTP that are
    /// as if nothing was said, since most objects have nothing to do with them. What is as another option has it where it
    /// is left out is left out too, so that it goes on to follow that one.
    pub fn to_tree(&self) -> Node {
        schema::write_document(self)
    }

    /// The document as JSON, for [`crate::parse_json`].
    pub fn to_json_value(&self) -> serde_json::Value {
        self.to_tree().value.to_json()
    }

    /// The document as TOML text, for [`crate::parse_toml`].
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(&self.to_tree()).expect("the tree has string keys, whole numbers in range and no nulls")
    }
}

impl Document {
    /// One object as a tree; none where there is none of this name. A section has no name, and is always there.
    pub fn object(&self, kind: Kind, name: &Name) -> Option<Node> {
        match kind {
            Kind::Admin => Some(self.admin.write()),
            Kind::Workers => Some(self.workers.write()),
            Kind::AccessLog => Some(self.access_log.write()),
            Kind::Listener => self.listeners.get(name).map(Object::write),
            Kind::Route => self.routes.get(name).map(Object::write),
            Kind::Cluster => self.clusters.get(name).map(Object::write),
            Kind::Certificate => self.certificates.get(name).map(Object::write),
        }
    }

    /// The host names that stand in the place of backends' addresses.
    pub fn hosts(&self) -> BTreeSet<Arc<str>> {
        self.clusters.values().flat_map(hosts).cloned().collect()
    }

    /// Every object that has a name.
    pub fn names(&self) -> impl Iterator<Item = (Kind, &Name)> {
        let listeners = self.listeners.keys().map(|name| (Kind::Listener, name));
        let routes = self.routes.keys().map(|name| (Kind::Route, name));
        let clusters = self.clusters.keys().map(|name| (Kind::Cluster, name));
        listeners.chain(routes).chain(clusters).chain(self.certificates.keys().map(|name| (Kind::Certificate, name)))
    }

    /// Every object and section, by kind and name, and each as a tree of its own once it is asked for.
    pub fn objects(&self) -> impl Iterator<Item = (Kind, Name, Node)> {
        fn of<T: Object>(kind: Kind, objects: &Objects<T>) -> impl Iterator<Item = (Kind, Name, Node)> {
            objects.iter().map(move |(name, object)| (kind, name.clone(), object.write()))
        }
        let sections = [Kind::Admin, Kind::Workers, Kind::AccessLog].into_iter();
        let sections = sections.filter_map(|kind| Some((kind, Name::default(), self.object(kind, &Name::default())?)));
        let listeners = of(Kind::Listener, &self.listeners).chain(of(Kind::Route, &self.routes));
        let clusters = of(Kind::Cluster, &self.clusters).chain(of(Kind::Certificate, &self.certificates));
        sections.chain(listeners).chain(clusters)
    }
}

/// The addresses of hosts.
pub type Answers = Sorted<Arc<str>, Vec<IpAddr>>;

/// A document with addresses in the place of host names, and what it takes to go over to the next one.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// The clusters as they are written.
    written: Objects<Cluster>,
    answers: Answers,
    /// Hosts, and the clusters that have them.
    users: Sorted<(Arc<str>, Name), ()>,
    document: Document,
}

impl Resolved {
    /// The document, resolved.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Whether other host names stand in it.
    pub fn has_hosts_of(&self, other: &Resolved) -> bool {
        self.users.is_same(&other.users)
    }

    /// The document with a backend for each address of a host name in the place of the one that has the name. It is
    /// called `NAME@ADDRESS`, whether there are more or not, so that what it is called doesn't change with the others.
    /// A host name without addresses is no backend. It costs what is other than in this one.
    pub fn next(&self, document: &Document, answers: &Answers) -> Self {
        let mut users = self.users.clone();
        let mut changed = BTreeSet::new();
        for (name, before, after) in self.written.differences(&document.clusters) {
            changed.insert(name.clone());
            for host in before.into_iter().flat_map(|cluster| hosts(cluster)) {
                users.remove(&(Arc::clone(host), name.clone()));
            }
            for host in after.into_iter().flat_map(|cluster| hosts(cluster)) {
                users.insert((Arc::clone(host), name.clone()), ());
            }
        }
        for (host, ..) in self.answers.differences(answers).filter(|(_, before, after)| before != after) {
            let from = users.from(&(Arc::clone(host), Name::default()));
            changed.extend(from.take_while(|((of, _), ())| of == host).map(|((_, name), ())| name.clone()));
        }
        let mut clusters = self.document.clusters.clone();
        for name in changed {
            match document.clusters.shared(&name) {
                None => drop(clusters.remove_shared(&name)),
                Some(cluster) if hosts(cluster).next().is_none() => {
                    clusters.insert_shared(name, Arc::clone(cluster));
                }
                Some(cluster) => drop(clusters.insert_shared(name, Arc::new(resolve_in(cluster, answers)))),
            }
        }
        let (written, answers) = (document.clusters.clone(), answers.clone());
        Resolved { written, answers, users, document: Document { clusters, ..document.clone() } }
    }
}

/// The host names of a cluster's backends.
fn hosts(cluster: &Cluster) -> impl Iterator<Item = &Arc<str>> {
    cluster.backends.iter().filter_map(|backend| match &backend.address {
        BackendAddress::Host(host, _) => Some(host),
        BackendAddress::Ip(_) | BackendAddress::Unix(_) => None,
    })
}

fn resolve_in(cluster: &Cluster, answers: &Answers) -> Cluster {
    let owners = owners(cluster, answers);
    let mut tls = cluster.tls.clone();
    let mut backends = Vec::new();
    for backend in &cluster.backends {
        let found = resolve(backend, answers).into_iter();
        let at = backends.len();
        backends.extend(found.filter(|one| owners.get(&one.address).is_none_or(|(_, name)| **name == backend.name)));
        if let (Some(tls), BackendAddress::Host(host, _)) = (&mut tls, &backend.address) {
            tls.hosts.extend(backends[at..].iter().map(|one: &Backend| (one.name.clone(), Arc::clone(host))));
        }
    }
    Cluster { backends, tls, ..cluster.clone() }
}

/// Whose each address is, wherever they stand in the list: what is written by its address comes before what a host name
/// resolves to, and of several host names the backend whose own name comes first.
fn owners<'a>(cluster: &'a Cluster, answers: &Answers) -> BTreeMap<BackendAddress, (bool, &'a Name)> {
    let mut owners = BTreeMap::new();
    for backend in &cluster.backends {
        let claim = (matches!(backend.address, BackendAddress::Host(..)), &backend.name);
        for one in resolve(backend, answers) {
            owners.entry(one.address).and_modify(|first| *first = claim.min(*first)).or_insert(claim);
        }
    }
    owners
}

fn resolve(backend: &Backend, answers: &Answers) -> Vec<Backend> {
    let BackendAddress::Host(host, port) = &backend.address else { return vec![backend.clone()] };
    let addresses: BTreeSet<IpAddr> = answers.get(host).into_iter().flatten().copied().collect();
    let named = addresses.into_iter().map(|ip| Backend {
        name: Name::new(format!("{}@{ip}", backend.name)),
        address: SocketAddr::new(ip, *port).into(),
        ..backend.clone()
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ClusterTls;

    #[test]
    fn whose_an_address_is_does_not_depend_on_the_order() {
        let host = |name: &str, weight| {
            let of = Backend::at(BackendAddress::Host(name.into(), 80));
            Backend { weight, ..of }
        };
        let plain = Backend { weight: 0, ..Backend::at(SocketAddr::from(([10, 0, 0, 1], 80))) };
        let mut backends = vec![host("b.test", 2), plain, host("a.test", 3)];
        let addresses = |ips: &[&str]| ips.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
        let answers: Answers = [
            ("a.test".into(), addresses(&["10.0.0.1", "10.0.0.2"])),
            ("b.test".into(), addresses(&["10.0.0.1", "10.0.0.2", "10.0.0.3"])),
        ]
        .into_iter()
        .collect();
        for _ in 0..2 {
            let resolved = resolve_in(&Cluster { backends: backends.clone(), ..Cluster::default() }, &answers);
            let mut found: Vec<_> = resolved.backends.iter().map(|b| (b.name.as_str(), b.weight)).collect();
            found.sort_unstable();
            assert_eq!(found, [("10.0.0.1:80", 0), ("a.test:80@10.0.0.2", 3), ("b.test:80@10.0.0.3", 2)]);
            backends.reverse();
        }
    }

    #[test]
    fn a_host_is_as_many_backends_as_it_has_addresses() {
        let host = Backend { weight: 3, ..Backend::at(BackendAddress::Host("app.test".into(), 80)) };
        let unknown = Backend::at(BackendAddress::Host("gone.test".into(), 80));
        let plain = Backend::at(SocketAddr::from(([10, 0, 0, 2], 80)));
        let tls = Some(ClusterTls::default());
        let cluster = Cluster { backends: vec![plain.clone(), host, unknown], tls, ..Cluster::default() };
        let document = Document { clusters: [("c".into(), cluster)].into(), ..Document::default() };
        assert_eq!(document.hosts().len(), 2);
        let addresses = ["10.0.0.2", "10.0.0.1", "2001:db8::1"].map(|ip| ip.parse().unwrap()).to_vec();
        let answers: Answers = [("app.test".into(), addresses)].into_iter().collect();
        let unknown = Resolved::default().next(&document, &Answers::default());
        let resolved = unknown.next(&document, &answers);
        assert!(resolved.has_hosts_of(&unknown) && !resolved.has_hosts_of(&Resolved::default()));
        assert_eq!(unknown.document().clusters[&Name::new("c")].backends, std::slice::from_ref(&plain));
        let backends = &resolved.document().clusters[&Name::new("c")].backends;
        let hosts = &resolved.document().clusters[&Name::new("c")].tls.as_ref().unwrap().hosts;
        assert_eq!(hosts.len(), 2, "the plain one has none: {hosts:?}");
        assert_eq!(&*hosts[&Name::new("app.test:80@10.0.0.1")], "app.test");
        let names: Vec<&str> = backends.iter().map(|backend| backend.name.as_str()).collect();
        assert_eq!(names, ["10.0.0.2:80", "app.test:80@10.0.0.1", "app.test:80@2001:db8::1"]);
        assert_eq!((backends[0].weight, backends[1].weight), (plain.weight, 3));
        let without = Document { clusters: [("d".into(), Cluster::default())].into(), ..Document::default() };
        let gone = resolved.next(&without, &answers);
        assert_eq!(gone.document(), &without);
        assert!(gone.next(&document, &answers).document() == resolved.document());
    }
}
