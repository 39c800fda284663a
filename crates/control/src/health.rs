//! What the probing worker found, so that it can be told again: to a worker that started afresh, after a new
//! generation, and to whoever asks. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use kakei_config::{Name, Sorted};
use kakei_proxy::seam::{BackendHealth, ProbeSaid};
use kakei_proxy::snapshot::{Backend, Snapshot};

/// What came of a probe, in words.
pub(crate) fn words(said: &ProbeSaid) -> String {
    match said {
        ProbeSaid::Right => "it passed".to_owned(),
        ProbeSaid::Unreachable => "nobody can be reached there".to_owned(),
        ProbeSaid::Unsecured(error) => format!("no TLS came about: {error}"),
        ProbeSaid::Late => "it did not answer in time".to_owned(),
        ProbeSaid::Wrong(Some(status)) => format!("it answered with status {status}, and not as is expected"),
        ProbeSaid::Wrong(None) => "it did not answer as is expected".to_owned(),
        ProbeSaid::Ended => "it ended the connection before it had answered".to_owned(),
        ProbeSaid::Unsent => "nothing could be sent: the proxy lacks descriptors or ports".to_owned(),
    }
}

/// The last verdict about each backend that is checked actively.
#[derive(Clone, Debug, Default)]
pub struct HealthView {
    verdicts: Sorted<(Name, Name), BackendHealth>,
}

impl HealthView {
    /// Take a verdict in. Whether it differs from what was known.
    pub fn record(&mut self, verdict: BackendHealth) -> bool {
        let key = (verdict.cluster.clone(), verdict.backend.clone());
        let is_same = |old: &BackendHealth| (old.up, &old.address) == (verdict.up, &verdict.address);
        !self.verdicts.insert(key, verdict.clone()).as_ref().is_some_and(is_same)
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
                self.record(BackendHealth { cluster, backend: backend.name.clone(), address, up: false, why: None });
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
