//! The workers' counters added up, by name. Knows what a sum of each gauge means; prints nothing.

use std::collections::BTreeMap;

use kakei_config::Name;
use kakei_proxy::stats::{
    BackendMetric, BackendStats, ClusterStats, ListenerMetric, ListenerStats, Stats, Times, Values, WorkerMetric,
};

/// Every worker's counters, added up where they concern the same object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// Of each worker that answered, by its index.
    pub workers: Vec<(u16, Values<{ WorkerMetric::COUNT }>)>,
    /// By listener.
    pub listeners: BTreeMap<Name, ListenerStats>,
    /// By cluster; backends in the order of the first worker that has them.
    pub clusters: BTreeMap<Name, ClusterStats>,
    /// How long requests took to the clusters that aren't counted one by one.
    pub other_times: Option<Box<Times>>,
}

impl Sums {
    /// Add up the copies of the workers that answered, each with its index.
    pub fn of<'a>(copies: impl IntoIterator<Item = (u16, &'a Stats)>) -> Self {
        let mut sums = Sums::default();
        for (index, copy) in copies {
            sums.workers.push((index, copy.worker));
            copy.listeners.iter().for_each(|listener| sums.add_listener(listener));
            copy.clusters.iter().for_each(|cluster| sums.add_cluster(cluster));
            add_times(&mut sums.other_times, copy.other_times.as_deref());
        }
        sums
    }

    /// The counters of one backend.
    pub fn backend(&self, cluster: &Name, backend: &Name) -> Option<&BackendStats> {
        self.clusters.get(cluster)?.backends.iter().find(|b| b.backend == *backend)
    }

    fn add_listener(&mut self, other: &ListenerStats) {
        let Some(mine) = self.listeners.get_mut(&other.listener) else {
            self.listeners.insert(other.listener.clone(), other.clone());
            return;
        };
        let draining = mine.values[ListenerMetric::Draining].max(other.values[ListenerMetric::Draining]);
        mine.values.add(&other.values);
        mine.values[ListenerMetric::Draining] = draining;
        mine.drops.add(&other.drops);
        mine.closes.add(&other.closes);
        mine.connection_closes.add(&other.connection_closes);
        mine.exchange_closes.add(&other.exchange_closes);
        mine.refusals.add(&other.refusals);
        for (series, theirs) in &other.times {
            match mine.times.binary_search_by(|(known, _)| known.cmp(series)) {
                Ok(at) => mine.times[at].1.add(theirs),
                Err(at) => mine.times.insert(at, (series.clone(), theirs.clone())),
            }
        }
    }

    fn add_cluster(&mut self, other: &ClusterStats) {
        let Some(mine) = self.clusters.get_mut(&other.cluster) else {
            self.clusters.insert(other.cluster.clone(), other.clone());
            return;
        };
        mine.values.add(&other.values);
        mine.drops.add(&other.drops);
        add_times(&mut mine.times, other.times.as_deref());
        for theirs in &other.backends {
            match mine.backends.iter_mut().find(|b| b.backend == theirs.backend && b.address == theirs.address) {
                Some(backend) => add_backend(backend, theirs),
                None => mine.backends.push(theirs.clone()),
            }
        }
    }
}

fn add_times(mine: &mut Option<Box<Times>>, other: Option<&Times>) {
    if let Some(other) = other {
        mine.get_or_insert_default().add(other);
    }
}

/// A backend is up when every worker uses it, and drains while any worker has flows left on it.
fn add_backend(mine: &mut BackendStats, other: &BackendStats) {
    let up = mine.values[BackendMetric::Up].min(other.values[BackendMetric::Up]);
    let draining = mine.values[BackendMetric::Draining].max(other.values[BackendMetric::Draining]);
    mine.values.add(&other.values);
    mine.values[BackendMetric::Up] = up;
    mine.values[BackendMetric::Draining] = draining;
}

/// What all backends of a cluster have of something, those that are gone but not unused included.
pub fn of_backends(cluster: &ClusterStats, metric: BackendMetric) -> u64 {
    cluster.backends.iter().map(|backend| backend.values[metric]).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(flows: u64, up: u64) -> Stats {
        let mut backend = BackendStats {
            backend: Name::new("b"),
            address: "127.0.0.1:53".parse().unwrap(),
            values: Values::default(),
        };
        backend.values[BackendMetric::FlowsLive] = flows;
        backend.values[BackendMetric::Up] = up;
        let mut listener = ListenerStats {
            listener: Name::new("dns"),
            values: Values::default(),
            drops: Values::default(),
            closes: Values::default(),
            connection_closes: Values::default(),
            exchange_closes: Values::default(),
            refusals: Values::default(),
            times: Vec::new(),
        };
        listener.values[ListenerMetric::DatagramsIn] = 10 * flows;
        listener.values[ListenerMetric::Draining] = 1;
        let cluster = ClusterStats {
            cluster: Name::new("c"),
            values: Values::default(),
            drops: Values::default(),
            backends: vec![backend],
            times: None,
        };
        Stats { listeners: vec![listener], clusters: vec![cluster], ..Stats::default() }
    }

    #[test]
    fn counters_add_and_flags_stay_flags() {
        let (a, b) = (stats(3, 1), stats(4, 0));
        let sums = Sums::of([(0, &a), (1, &b)]);
        let backend = sums.backend(&"c".into(), &"b".into()).unwrap();
        assert_eq!(backend.values[BackendMetric::FlowsLive], 7);
        assert_eq!(backend.values[BackendMetric::Up], 0, "down in one worker");
        let listener = &sums.listeners[&Name::new("dns")];
        assert_eq!(listener.values[ListenerMetric::DatagramsIn], 70);
        assert_eq!(listener.values[ListenerMetric::Draining], 1);
        assert_eq!(of_backends(&sums.clusters[&Name::new("c")], BackendMetric::FlowsLive), 7);
        assert_eq!(sums.workers.len(), 2);
    }
}
