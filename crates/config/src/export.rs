//! The document written down: canonical text that reads back as the same document. One tree serves both syntaxes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::diff::Kind;
use crate::model::{Backend, BackendAddress, Cluster, Document, Name};
use crate::schema::{self, Object};
use crate::tree::Node;

impl Document {
    /// The document as a tree. Everything that holds is written out, defaults included, so that it means the same to a
    /// later version; options that are off by being left out stay left out, and so do those sections of HTTP that are
    /// as if nothing was said, since most objects have nothing to do with them.
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
        let backends = self.clusters.values().flat_map(|cluster| &cluster.backends);
        let hosts = backends.filter_map(|backend| match &backend.address {
            BackendAddress::Host(host, _) => Some(Arc::clone(host)),
            BackendAddress::Ip(_) | BackendAddress::Unix(_) => None,
        });
        hosts.collect()
    }

    /// The document with a backend for each address of a host name in the place of the one that has the name. It is
    /// called `NAME@ADDRESS`, whether there are more or not, so that what it is called doesn't change with the others.
    /// A host name without addresses is no backend.
    pub fn resolved(&self, answers: &BTreeMap<Arc<str>, Vec<IpAddr>>) -> Document {
        let clusters = self.clusters.iter().map(|(name, cluster)| {
            let mut taken = BTreeSet::new();
            let mut tls = cluster.tls.clone();
            let mut backends = Vec::new();
            for backend in &cluster.backends {
                let found = resolve(backend, answers).into_iter().filter(|one| taken.insert(one.address.clone()));
                let at = backends.len();
                backends.extend(found);
                if let (Some(tls), BackendAddress::Host(host, _)) = (&mut tls, &backend.address) {
                    tls.hosts.extend(backends[at..].iter().map(|one: &Backend| (one.name.clone(), Arc::clone(host))));
                }
            }
            (name.clone(), Cluster { backends, tls, ..cluster.clone() })
        });
        Document { clusters: clusters.collect(), ..self.clone() }
    }
}

fn resolve(backend: &Backend, answers: &BTreeMap<Arc<str>, Vec<IpAddr>>) -> Vec<Backend> {
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
    fn a_host_is_as_many_backends_as_it_has_addresses() {
        let host = Backend { weight: 3, ..Backend::at(BackendAddress::Host("app.test".into(), 80)) };
        let unknown = Backend::at(BackendAddress::Host("gone.test".into(), 80));
        let plain = Backend::at(SocketAddr::from(([10, 0, 0, 2], 80)));
        let tls = Some(ClusterTls::default());
        let cluster = Cluster { backends: vec![plain.clone(), host, unknown], tls, ..Cluster::default() };
        let document = Document { clusters: [("c".into(), cluster)].into(), ..Document::default() };
        assert_eq!(document.hosts().len(), 2);
        let addresses = ["10.0.0.2", "10.0.0.1", "2001:db8::1"].map(|ip| ip.parse().unwrap()).to_vec();
        let resolved = document.resolved(&[("app.test".into(), addresses)].into());
        let backends = &resolved.clusters[&Name::new("c")].backends;
        let hosts = &resolved.clusters[&Name::new("c")].tls.as_ref().unwrap().hosts;
        assert_eq!(hosts.len(), 2, "the plain one has none: {hosts:?}");
        assert_eq!(&*hosts[&Name::new("app.test:80@10.0.0.1")], "app.test");
        let names: Vec<&str> = backends.iter().map(|backend| backend.name.as_str()).collect();
        assert_eq!(names, ["10.0.0.2:80", "app.test:80@10.0.0.1", "app.test:80@2001:db8::1"]);
        assert_eq!((backends[0].weight, backends[1].weight), (plain.weight, 3));
    }
}
