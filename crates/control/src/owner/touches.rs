//! What lives on the objects that a change is about, and what becomes of it by their own policies: told before the change
//! is made. Changes nothing.

use std::collections::BTreeMap;

use kakei_config::{Backend, Change as Difference, Cluster, Document, Kind, Name};
use kakei_proxy::limits::PER_LISTING;
use kakei_proxy::seam::{ConnectionView, Filter};
use kakei_proxy::stats::{BackendMetric, ListenerMetric};

use super::Owner;
use crate::drains::{on_backend, on_change};
use crate::sums::Sums;
use crate::system::System;

/// Live connections by the route that they matched.
type ByRoute = BTreeMap<Name, u64>;

impl<S: System> Owner<S> {
    /// One line for each object that something lives on.
    pub(super) async fn touches(&mut self, differences: &[Difference], next: &Document) -> Vec<String> {
        if differences.is_empty() {
            return Vec::new();
        }
        let sums = self.counters().await.sums;
        let routes = differences.iter().any(|difference| difference.kind() == Kind::Route);
        let by_route = if routes { self.by_route().await } else { ByRoute::new() };
        let running = &self.view.document;
        let lines = differences.iter().flat_map(|difference| match difference.kind() {
            Kind::Listener => of_listener(running, next, difference.name(), &sums),
            Kind::Route => of_route(running, difference.name(), &by_route),
            Kind::Cluster => of_cluster(running, next, difference.name(), &sums),
            Kind::Admin | Kind::Workers | Kind::AccessLog | Kind::Certificate => Vec::new(),
        });
        lines.collect()
    }

    async fn by_route(&mut self) -> ByRoute {
        let filter = Filter { limit: PER_LISTING, ..Filter::default() };
        // Nobody who answers has nothing to say.
        let connections: Vec<ConnectionView> = self.connections(filter).await.unwrap_or_default();
        let mut by_route = ByRoute::new();
        for route in connections.into_iter().filter_map(|connection| connection.route) {
            *by_route.entry(route).or_default() += 1;
        }
        by_route
    }
}

fn of_listener(running: &Document, next: &Document, name: &Name, sums: &Sums) -> Vec<String> {
    let (Some(before), Some(counted)) = (running.listeners.get(name), sums.listeners.get(name)) else {
        return Vec::new();
    };
    let live = |metric| counted.values[metric];
    let (flows, connections) = (live(ListenerMetric::FlowsLive), live(ListenerMetric::ConnectionsLive));
    let drain = format!("may go on for {:?}", before.drain_timeout);
    let whose = match next.listeners.get(name) {
        None => String::new(),
        Some(after) => {
            let gone = before.bind.iter().filter(|bind| !after.bind.contains(bind));
            let gone: Vec<String> = gone.map(ToString::to_string).collect();
            if gone.is_empty() {
                return Vec::new();
            }
            format!("those that came by {}: ", gone.join(" and "))
        }
    };
    let subject = format!("listener {name}: {whose}");
    lines(&subject, [(flows, "flow", drain.clone()), (connections, "connection", drain)])
}

fn of_route(running: &Document, name: &Name, by_route: &ByRoute) -> Vec<String> {
    let (Some(route), Some(&live)) = (running.routes.get(name), by_route.get(name)) else { return Vec::new() };
    lines(&format!("route {name}: "), [(live, "connection", on_change(route.on_change))])
}

/// Of a cluster, what lives on backends that go: removed, or at another address.
fn of_cluster(running: &Document, next: &Document, name: &Name, sums: &Sums) -> Vec<String> {
    let Some(before) = running.clusters.get(name) else { return Vec::new() };
    let stays = |backend: &Backend| {
        let same = |other: &Backend| other.name == backend.name && other.address == backend.address;
        next.clusters.get(name).is_some_and(|after| after.backends.iter().any(same))
    };
    let gone = before.backends.iter().filter(|backend| !stays(backend));
    gone.flat_map(|backend| of_backend(before, (name, &backend.name), sums)).collect()
}

fn of_backend(cluster: &Cluster, (name, backend): (&Name, &Name), sums: &Sums) -> Vec<String> {
    // A host name stands for several, each called after it.
    let is_of = |called: &Name| {
        called == backend || called.as_str().strip_prefix(backend.as_str()).is_some_and(|rest| rest.starts_with('@'))
    };
    let counted = sums.clusters.get(name).into_iter().flat_map(|cluster| &cluster.backends);
    let of = counted.filter(|counted| is_of(&counted.backend));
    let (mut flows, mut connections) = (0, 0);
    for counted in of {
        flows += counted.values[BackendMetric::FlowsLive];
        connections += counted.values[BackendMetric::ConnectionsLive] + counted.values[BackendMetric::RequestsLive];
    }
    let of_flows = on_backend(cluster.udp.on_backend_removed);
    let subject = format!("cluster {name}: backend {backend}: ");
    let of_connections = on_change(cluster.tcp.on_backend_removed);
    lines(&subject, [(flows, "flow", of_flows.to_owned()), (connections, "connection or request", of_connections)])
}

/// What lives, and what becomes of each.
fn lines<const N: usize>(subject: &str, live: [(u64, &str, String); N]) -> Vec<String> {
    let some = live.into_iter().filter(|(count, ..)| *count > 0);
    some.map(|(count, what, fate)| format!("{subject}{count} × {what} live, each {fate}")).collect()
}
