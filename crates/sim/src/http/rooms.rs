//! Whether anybody waits for a backend that has room: by what a worker shows of its connections and what it counts, in
//! runs in which nothing fails, so that every backend of a cluster that isn't changed may be chosen.

use std::collections::BTreeMap;

use kakei_config::{Document, Name};
use kakei_proxy::seam::ConnectionView;
use kakei_proxy::stats::{BackendMetric, Stats};

/// How many connections one worker may have to each backend, of clusters that are never changed and say so.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    most: BTreeMap<Name, u64>,
}

impl Rooms {
    /// Each worker keeps its share of a bound, rounded up.
    pub(super) fn new(document: &Document, workers: u16) -> Self {
        let bounded = ["one", "three"].into_iter().filter_map(|name| {
            let most = document.clusters.get(&Name::new(name))?.tcp.connections_per_backend;
            (most > 0).then(|| (name.into(), u64::from(most.div_ceil(u32::from(workers)))))
        });
        Rooms { most: bounded.collect() }
    }

    /// What a worker shows and counts at one moment, with nothing left for it to do.
    pub(super) fn check(&self, views: &[ConnectionView], stats: &Stats, violations: &mut Vec<String>) {
        let waiting = views.iter().filter(|view| view.phase == "queued");
        for view in waiting {
            let Some((cluster, most)) = view.cluster.as_ref().and_then(|name| self.most.get_key_value(name)) else {
                continue;
            };
            let backends = stats.clusters.iter().filter(|of| of.cluster == *cluster).flat_map(|of| &of.backends);
            let mut with_room = backends.filter(|backend| backend.values[BackendMetric::ConnectionsLive] < *most);
            if let Some(backend) = with_room.next() {
                violations.push(format!("waits for {cluster}, and {} has room: {view:?}", backend.address));
            }
        }
    }
}
