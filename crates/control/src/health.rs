//! What the probing worker found, so that it can be told again: to a worker that started afresh, after a new
//! generation, and to whoever asks. Decides nothing.

use std::collections::BTreeMap;

use kakei_config::Name;
use kakei_proxy::seam::BackendHealth;
use kakei_proxy::snapshot::Snapshot;

/// The last verdict about each backend that is checked actively.
#[derive(Clone, Debug, Default)]
pub struct HealthView {
    verdicts: BTreeMap<(Name, Name), BackendHealth>,
}

impl HealthView {
    /// Take a verdict in. Whether it differs from what was known.
    pub fn record(&mut self, verdict: BackendHealth) -> bool {
        let key = (verdict.cluster.clone(), verdict.backend.clone());
        self.verdicts.insert(key, verdict.clone()).is_none_or(|old| old != verdict)
    }

    /// Forget verdicts about backends that this generation does not have, at that address.
    pub fn retain(&mut self, snapshot: &Snapshot) {
        self.verdicts.retain(|(cluster, name), verdict| {
            let Some(cluster) = snapshot.cluster(cluster) else { return false };
            cluster.health.is_some() && cluster.backends.iter().any(|b| b.name == *name && b.address == verdict.address)
        });
    }

    /// Every verdict.
    pub fn all(&self) -> impl Iterator<Item = &BackendHealth> {
        self.verdicts.values()
    }

    /// Whether this backend is up by what the probing worker said; none where it has said nothing.
    pub fn up(&self, cluster: &Name, backend: &Name) -> Option<bool> {
        self.verdicts.get(&(cluster.clone(), backend.clone())).map(|verdict| verdict.up)
    }
}
