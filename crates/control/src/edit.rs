//! Changes of one object, as the next whole document: an edit is a transaction like any other. Publishes nothing.

use kakei_config::{Backend, Cluster, Document, Name};

use crate::refusal::Refusal;

/// A change of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Add a backend at the end of a cluster.
    AddBackend {
        /// The cluster.
        cluster: Name,
        /// The backend.
        backend: Backend,
    },
    /// Remove a backend.
    RemoveBackend {
        /// The cluster.
        cluster: Name,
        /// The backend.
        backend: Name,
    },
    /// Give a backend another weight; 0 drains it: it takes no new flow.
    WeighBackend {
        /// The cluster.
        cluster: Name,
        /// The backend.
        backend: Name,
        /// Its share from now on.
        weight: u32,
    },
}

impl Edit {
    /// The document after this edit of `document`.
    pub fn apply(self, document: &Document) -> Result<Document, Refusal> {
        let mut next = document.clone();
        match self {
            Edit::AddBackend { cluster, backend } => {
                let of = find_cluster(&mut next, &cluster)?;
                if of.backends.iter().any(|b| b.name == backend.name) {
                    return Err(Refusal::Exists { cluster, backend: backend.name });
                }
                of.backends.push(backend);
            }
            Edit::RemoveBackend { cluster, backend } => {
                let of = find_cluster(&mut next, &cluster)?;
                let at = find_backend(of, &backend)?;
                of.backends.remove(at);
            }
            Edit::WeighBackend { cluster, backend, weight } => {
                let of = find_cluster(&mut next, &cluster)?;
                let at = find_backend(of, &backend)?;
                of.backends[at].weight = weight;
            }
        }
        Ok(next)
    }
}

fn find_cluster<'a>(document: &'a mut Document, name: &Name) -> Result<&'a mut Cluster, Refusal> {
    document.clusters.get_mut(name).ok_or_else(|| Refusal::Unknown { kind: "cluster", name: name.clone() })
}

fn find_backend(cluster: &Cluster, name: &Name) -> Result<usize, Refusal> {
    let found = cluster.backends.iter().position(|b| b.name == *name);
    found.ok_or_else(|| Refusal::Unknown { kind: "backend", name: name.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(name: &str, weight: u32) -> Backend {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 53)).into();
        Backend { name: name.into(), address, weight, backup: false }
    }

    fn document() -> Document {
        let cluster = Cluster { backends: vec![backend("a", 1)], ..Cluster::default() };
        Document { clusters: [("c".into(), cluster)].into(), ..Document::default() }
    }

    #[test]
    fn edits_change_one_backend_and_nothing_else() {
        let added = Edit::AddBackend { cluster: "c".into(), backend: backend("b", 2) }.apply(&document()).unwrap();
        assert_eq!(added.clusters[&Name::new("c")].backends, [backend("a", 1), backend("b", 2)]);
        let weighed = Edit::WeighBackend { cluster: "c".into(), backend: "a".into(), weight: 0 }.apply(&added).unwrap();
        assert_eq!(weighed.clusters[&Name::new("c")].backends, [backend("a", 0), backend("b", 2)]);
        let removed = Edit::RemoveBackend { cluster: "c".into(), backend: "b".into() }.apply(&added).unwrap();
        assert_eq!(removed, document());
    }

    #[test]
    fn edits_of_what_is_not_there_are_refused() {
        let no_cluster = Edit::RemoveBackend { cluster: "x".into(), backend: "a".into() }.apply(&document());
        assert!(matches!(no_cluster, Err(Refusal::Unknown { kind: "cluster", .. })));
        let no_backend = Edit::WeighBackend { cluster: "c".into(), backend: "x".into(), weight: 1 }.apply(&document());
        assert!(matches!(no_backend, Err(Refusal::Unknown { kind: "backend", .. })));
        let twice = Edit::AddBackend { cluster: "c".into(), backend: backend("a", 1) }.apply(&document());
        assert!(matches!(twice, Err(Refusal::Exists { .. })));
    }
}
