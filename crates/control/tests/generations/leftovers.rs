//! Nothing of what was removed is left once its time is over; and at the end of all traffic, nothing but what the document has.

use std::collections::BTreeSet;
use std::time::Duration;

use kakei_config::{Cluster, Name, OnBackend, OnChange};
use kakei_control::Handle;
use kakei_control::sums::{Sums, of_backends};
use kakei_proxy::seam::Filter;
use kakei_proxy::stats::{BackendMetric, ListenerMetric};
use tokio::time::sleep;

use crate::author::Wish;
use crate::model::Model;
use crate::run::Run;

/// Milliseconds that it may take beside what policies say, and what they may take more where workers are late.
const SLACK: u64 = 1_500;
const LATE: u64 = 20_000;

/// How long something may go on; none: as long as it likes.
fn time_of(policy: OnChange) -> Option<Duration> {
    match policy {
        OnChange::Keep => None,
        OnChange::Drain(time) => Some(time),
        OnChange::Close => Some(Duration::ZERO),
    }
}

/// How long what lives on a removed cluster may go on.
fn bounded(cluster: &Cluster) -> Option<Duration> {
    let streams = time_of(cluster.tcp.on_backend_removed)?;
    (cluster.udp.on_backend_removed != OnBackend::Keep).then_some(streams)
}

impl Model {
    /// When something went that is not there any more, where that was in this process's life.
    fn went(&self, is_there: impl Fn(u64) -> bool) -> Option<(u64, u64)> {
        let last = self.ran.iter().rev().position(|ran| is_there(*ran))?;
        let at = self.ran.len() - 1 - last;
        let after = *self.ran.get(at + 1)?;
        let since = *self.since.get(&after)?;
        Some((self.ran[at], since))
    }

    /// Listeners and clusters that must be gone by now.
    fn gone(&self, now: u64, slack: u64) -> Vec<(&'static str, Name)> {
        let mut gone = Vec::new();
        let newest = self.document();
        let all = self.documents.values().flat_map(|document| document.names().map(|(_, name)| name.clone()));
        for name in all.collect::<BTreeSet<_>>() {
            let listened = |ran: u64| self.documents[&ran].listeners.contains_key(&name);
            if !newest.listeners.contains_key(&name)
                && let Some((last, since)) = self.went(listened)
            {
                let drains = self.documents[&last].listeners[&name].drain_timeout.as_millis() as u64;
                gone.extend((now > since + drains + slack).then(|| ("listener", name.clone())));
            }
            let versions = || self.documents.values().filter_map(|document| document.clusters.get(&name));
            let clustered = |ran: u64| self.documents[&ran].clusters.contains_key(&name);
            if !newest.clusters.contains_key(&name)
                && let Some((_, since)) = self.went(clustered)
                && let Some(most) = versions().map(bounded).max().flatten()
                && versions().all(|version| bounded(version).is_some())
            {
                let drains = most.as_millis() as u64;
                gone.extend((now > since + drains + slack).then(|| ("cluster", name.clone())));
            }
        }
        gone
    }

    /// Routes on which no connection may be any more: they went, and every version of them bounded that.
    fn left_routes(&self, now: u64, slack: u64) -> Vec<Name> {
        let newest = self.document();
        let all: BTreeSet<&Name> = self.documents.values().flat_map(|document| document.routes.keys()).collect();
        let is_left = |name: &&Name| {
            let times = || {
                let versions = self.documents.values().filter_map(|document| document.routes.get(name));
                versions.map(|route| time_of(route.on_change))
            };
            let went = self.went(|ran| self.documents[&ran].routes.contains_key(name));
            let most = times().max().flatten().filter(|_| times().all(|time| time.is_some()));
            let over = |((_, since), most): ((u64, u64), Duration)| now > since + most.as_millis() as u64 + slack;
            !newest.routes.contains_key(name) && went.zip(most).is_some_and(over)
        };
        all.into_iter().filter(is_left).cloned().collect()
    }
}

impl Run {
    pub(crate) async fn look_for_leftovers(&self, handle: &Handle) {
        let late = self.world.borrow().wrongs.stalls > 0;
        let slack = if late { LATE } else { SLACK };
        let gone = self.model.borrow().gone(self.now(), slack);
        let routes = self.model.borrow().left_routes(self.now(), slack);
        let Ok(counters) = handle.counters().await else { return };
        if self.world.borrow().is_over() {
            return;
        }
        let filter = Filter { limit: 10_000, ..Filter::default() };
        let connections = handle.connections(filter).await.unwrap_or_default();
        if self.world.borrow().is_over() {
            return;
        }
        let is_back = |name: &Name| handle.view().document.routes.contains_key(name);
        let on = |name: &&Name| connections.iter().any(|connection| connection.route.as_ref() == Some(name));
        if let Some(route) = routes.iter().find(on).filter(|name| !is_back(name)) {
            self.violate(format!("route {route} is gone, and connections that came by it go on"));
        }
        self.judge.borrow_mut().counters.gone += (gone.len() + routes.len()) as u64;
        let sums = counters.sums;
        for (kind, name) in gone {
            let is_left = match kind {
                "listener" => sums.listeners.contains_key(&name),
                _ => sums.clusters.contains_key(&name),
            };
            // It may have come back while it was asked.
            let document = self.model.borrow().document();
            let is_back = document.listeners.contains_key(&name) || document.clusters.contains_key(&name);
            let running = handle.view();
            let is_coming =
                running.document.listeners.contains_key(&name) || running.document.clusters.contains_key(&name);
            if is_left && !is_back && !is_coming {
                self.violate(format!("{kind} {name} is gone, and the workers still have it"));
            }
        }
    }

    /// Nobody asks for anything any more: go back to some generations, let all traffic end, and look at what is left.
    pub(crate) async fn finish(&self, handle: &Handle) {
        self.await_pending().await;
        for _ in 0..3 {
            let back = {
                let (mut rng, model) = (self.rng.borrow_mut(), self.model.borrow());
                rng.choice(model.ran.iter().copied())
            };
            let question = self.question_of(handle, back.map(|back| Wish::Back(Some(back))));
            self.change(handle, question).await;
            sleep(Duration::from_millis(1_500)).await;
            self.await_pending().await;
        }
        self.world.borrow_mut().is_busy = false;
        for _ in 0..400 {
            sleep(Duration::from_millis(100)).await;
            if self.world.borrow().outside.clients.values().all(|client| client.is_gone) {
                break;
            }
        }
        sleep(Duration::from_millis(8_000)).await;
        let Ok(counters) = handle.counters().await else { return };
        let workers = self.world.borrow().machines.len();
        if counters.sums.workers.len() != workers {
            self.violate(format!("{} of {workers} workers answer", counters.sums.workers.len()));
        }
        if let Err(wrong) = self.judge_end(handle, &counters.sums) {
            self.violate(format!("at the end of all traffic {wrong}"));
        }
    }

    async fn await_pending(&self) {
        for _ in 0..300 {
            if self.model.borrow().pending.is_none() {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn judge_end(&self, handle: &Handle, sums: &Sums) -> Result<(), String> {
        let view = handle.view();
        let document = &view.resolved;
        let left: Vec<&Name> = sums.listeners.keys().filter(|name| !document.listeners.contains_key(name)).collect();
        let clusters: Vec<&Name> = sums.clusters.keys().filter(|name| !document.clusters.contains_key(name)).collect();
        if !left.is_empty() || !clusters.is_empty() {
            return Err(format!("the workers have listeners {left:?} and clusters {clusters:?}, which are gone"));
        }
        for (name, listener) in &sums.listeners {
            let live = [ListenerMetric::FlowsLive, ListenerMetric::ConnectionsLive, ListenerMetric::RequestsLive];
            let live = live.map(|metric| listener.values[metric]);
            if live != [0; 3] {
                return Err(format!("flows, connections and requests of listener {name} live on: {live:?}"));
            }
        }
        for (name, cluster) in &sums.clusters {
            let metrics = [BackendMetric::FlowsLive, BackendMetric::ConnectionsLive, BackendMetric::RequestsLive];
            let live = metrics.map(|metric| of_backends(cluster, metric));
            let is_probed = document.clusters[name].health.is_some();
            if live != [0; 3] && !is_probed {
                return Err(format!("flows, connections and requests to cluster {name} live on: {live:?}"));
            }
            let has: BTreeSet<&Name> = cluster.backends.iter().map(|backend| &backend.backend).collect();
            if view.document.clusters[name].backends.iter().any(|backend| backend.address.ip().is_none()) {
                continue;
            }
            let must: BTreeSet<&Name> = document.clusters[name].backends.iter().map(|backend| &backend.name).collect();
            if has != must {
                return Err(format!("cluster {name} has backends {has:?} instead of {must:?}"));
            }
        }
        let world = self.world.borrow();
        let probed = document.clusters.values().filter(|cluster| cluster.health.is_some());
        let probes: usize = probed.map(|cluster| cluster.backends.len()).sum();
        for (number, machine) in world.machines.iter().enumerate() {
            let binds = view.snapshot.binds().collect();
            if machine.held != binds {
                return Err(format!("worker {number} holds {:?} instead of {binds:?}", machine.held));
            }
            if machine.open_sockets() > probes {
                return Err(format!(
                    "worker {number} has {} sockets open, and {probes} probes",
                    machine.open_sockets()
                ));
            }
        }
        Ok(())
    }
}
