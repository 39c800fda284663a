//! What the probing worker found, so that it can be told again: to a worker that started afresh, after a new
//! generation, and to whoever asks. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use kakei_config::{Name, Sorted};
use kakei_proxy::seam::BackendHealth;
use kakei_proxy::snapshot::{Backend, Snapshot};

/// The last verdict about each backend that is checked actively.
#[derive(Clone, Debug, Default)]
pub struct HealthView {
    verdicts: Sorted<(Name, Name), BackendHealth>,
}

impl HealthView {
    /// Take a verdict in. Whether it differs from what was known.
    pub fn record(&mut self, verdict: BackendHealth) -> bool {
        let key = (verdict.cluster.clone(), verdict.backend.clone());
        self.verdicts.insert(key, verdict.clone()).is_none_or(|old| old != verdict)
    }

    /// Forget verdicts about backends of these clusters that this generation does not have, at that address.
    pub fn retain<'a>(&mut self, snapshot: &Snapshot, clusters: impl IntoIterator<Item = &'a Name>) {
        for name in clusters {
            let cluster = snapshot.cluster(name).filter(|cluster| cluster.health.is_some());
            let stays = |verdict: &BackendHealth| {
                let is_it = |b: &Backend| b.name == verdict.backend && b.address == verdict.address;
                cluster.is_some_and(|cluster| cluster.backends.iter().any(is_it))
            };
            let gone: Vec<Name> = self.of(name).filter(|verdict| !stays(verdict)).map(|v| v.backend.clone()).collect();
            for backend in gone {
                self.verdicts.remove(&(name.clone(), backend));
            }
        }
    }

    /// Backends that came before they had passed are down until something else is said of them.
    pub fn doubt(&mut self, snapshot: &Snapshot, doubted: &BTreeMap<Name, BTreeSet<Name>>) {
        for (name, backends) in doubted {
            let of = snapshot.cluster(name).into_iter().flat_map(|cluster| &cluster.backends);
            for backend in of.filter(|backend| backends.contains(&backend.name)) {
                let (cluster, address) = (name.clone(), backend.address.clone());
                self.record(BackendHealth { cluster, backend: backend.name.clone(), address, up: false });
            }
        }
    }

    /// Every verdict.
    pub fn all(&self) -> impl Iterator<Item = &BackendHealth> {
        self.verdicts.iter().map(|(_, verdict)| verdict)
    }

    /// Those about backends of a cluster.
    pub fn of(&self, cluster: &Name) -> impl Iterator<Item = &BackendHealth> {
        let from = self.verdicts.from(&(cluster.clone(), Name::default()));
        from.take_while(move |((of, _), _)| of == cluster).map(|(_, verdict)| verdict)
    }

    /// Whether this backend is up by what the probing worker said; none where it has said nothing.
    pub fn up(&self, cluster: &Name, backend: &Name) -> Option<bool> {
        self.verdicts.get(&(cluster.clone(), backend.clone())).map(|verdict| verdict.up)
    }
}
