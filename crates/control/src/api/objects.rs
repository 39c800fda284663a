//! What there is, as operators want to see it: objects of the document with what the workers count about them.

use std::net::{IpAddr, SocketAddr};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use kakei_config::{Balance, Document, Name, PathMatch, Protocol};
use kakei_proxy::limits::PER_LISTING;
use kakei_proxy::seam::{ConnectionView, Filter, FlowView};
use kakei_proxy::stats::{BackendMetric, BackendStats, ListenerMetric};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::beside;
use super::config::query;
use super::problem::Problem;
use crate::access::Peer;
use crate::explain::{self, Explanation, Question};
use crate::handle::Handle;
use crate::history::Entry;
use crate::sums::{self, Sums};
use crate::view::View;

type QueryOf<T> = Result<axum::extract::Query<T>, axum::extract::rejection::QueryRejection>;
type Answer<T> = Result<Json<T>, Problem>;

/// The whole at a glance.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Status {
    version: &'static str,
    state: &'static str,
    generation: u64,
    uptime_seconds: u64,
    workers: u16,
    workers_answering: usize,
    listeners: Vec<ListenerRow>,
    clusters: Vec<ClusterRow>,
    metrics: Option<SocketAddr>,
    /// Where this API is over TCP.
    api: Option<SocketAddr>,
}

pub(super) async fn status(State(handle): State<Handle>) -> Answer<Status> {
    let counters = handle.counters().await?;
    let view = handle.view();
    let state = match (view.draining, view.acknowledged) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "publishing",
    };
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        state,
        generation: view.generation().0,
        uptime_seconds: view.uptime().as_secs(),
        workers: view.workers,
        workers_answering: counters.sums.workers.len(),
        listeners: listener_rows(&view, &counters.sums),
        clusters: cluster_rows(&view, &counters.sums),
        metrics: view.document.admin.metrics,
        api: view.api,
    }))
}

/// A listener.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Listener")]
pub(super) struct ListenerRow {
    name: Name,
    protocol: Protocol,
    /// `admitting` or `draining`.
    state: &'static str,
    bind: Vec<SocketAddr>,
    local: Vec<SocketAddr>,
    cluster: Option<Name>,
    flows_live: u64,
    flows_opened: u64,
    connections_live: u64,
    connections_opened: u64,
    connections_queued: u64,
    connections_refused: u64,
    requests: u64,
    requests_live: u64,
    requests_queued: u64,
    responses_2xx: u64,
    responses_3xx: u64,
    responses_4xx: u64,
    responses_5xx: u64,
    datagrams_in: u64,
    datagrams_forwarded: u64,
    datagrams_kept: u64,
    datagrams_dropped: u64,
    receive_overflow: u64,
}

pub(super) async fn listeners(State(handle): State<Handle>) -> Answer<Vec<ListenerRow>> {
    let counters = handle.counters().await?;
    Ok(Json(listener_rows(&handle.view(), &counters.sums)))
}

fn listener_rows(view: &View, sums: &Sums) -> Vec<ListenerRow> {
    let row = |(name, listener): (&Name, &kakei_config::Listener)| {
        let counted = sums.listeners.get(name);
        let value = |metric| counted.map_or(0, |of| of.values[metric]);
        let binds = view.snapshot.listener(name).map_or(&[][..], |compiled| &compiled.binds);
        ListenerRow {
            name: name.clone(),
            protocol: listener.protocol,
            state: if value(ListenerMetric::Draining) > 0 { "draining" } else { "admitting" },
            bind: listener.bind.clone(),
            local: view.local_addrs(binds),
            cluster: listener.cluster.clone(),
            flows_live: value(ListenerMetric::FlowsLive),
            flows_opened: value(ListenerMetric::FlowsOpened),
            connections_live: value(ListenerMetric::ConnectionsLive),
            connections_opened: value(ListenerMetric::ConnectionsOpened),
            connections_queued: value(ListenerMetric::ConnectionsQueued),
            connections_refused: counted.map_or(0, |of| of.refusals.sum()),
            requests: value(ListenerMetric::Requests),
            requests_live: value(ListenerMetric::RequestsLive),
            requests_queued: value(ListenerMetric::RequestsQueued),
            responses_2xx: value(ListenerMetric::Responses2xx),
            responses_3xx: value(ListenerMetric::Responses3xx),
            responses_4xx: value(ListenerMetric::Responses4xx),
            responses_5xx: value(ListenerMetric::Responses5xx),
            datagrams_in: value(ListenerMetric::DatagramsIn),
            datagrams_forwarded: value(ListenerMetric::DatagramsForwarded),
            datagrams_kept: value(ListenerMetric::DatagramsKept),
            datagrams_dropped: counted.map_or(0, |of| of.drops.sum()),
            receive_overflow: value(ListenerMetric::ReceiveOverflow),
        }
    };
    view.document.listeners.iter().map(row).collect()
}

/// A route.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Route")]
pub(super) struct RouteRow {
    name: Name,
    listener: Name,
    source: Vec<String>,
    host: Vec<String>,
    path: Option<String>,
    method: Vec<String>,
    cluster: Option<Name>,
    /// The clusters that share what it matches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    split: Vec<Name>,
    action: &'static str,
}

pub(super) async fn routes(
    State(handle): State<Handle>,
    Extension(peer): Extension<Peer>,
) -> Result<Response, Problem> {
    let view = handle.view();
    beside::made(&peer, move || Json(route_rows(&view.document)).into_response()).await
}

fn route_rows(document: &Document) -> Vec<RouteRow> {
    let rows = document.routes.iter().map(|(name, route)| RouteRow {
        name: name.clone(),
        listener: route.listener.clone(),
        source: route.source.iter().map(ToString::to_string).collect(),
        host: route.host.iter().map(ToString::to_string).collect(),
        path: match &route.path {
            PathMatch::Any => None,
            PathMatch::Prefix(path) => Some(path.clone()),
            PathMatch::Exact(path) => Some(format!("= {path}")),
            PathMatch::Regex(path) => Some(format!("~ {path}")),
        },
        method: route.method.clone(),
        cluster: route.cluster.clone(),
        split: route.split.keys().cloned().collect(),
        action: match (&route.redirect, &route.respond) {
            (Some(_), _) => "redirect",
            (_, Some(_)) => "respond",
            _ if route.cluster.is_none() => "split",
            _ => "forward",
        },
    });
    rows.collect()
}

/// A cluster.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Cluster")]
pub(super) struct ClusterRow {
    name: Name,
    balance: Balance,
    backends: usize,
    backends_up: usize,
    checked: bool,
    flows_live: u64,
    connections_live: u64,
    requests_live: u64,
    replies_dropped: u64,
}

pub(super) async fn clusters(State(handle): State<Handle>) -> Answer<Vec<ClusterRow>> {
    let counters = handle.counters().await?;
    Ok(Json(cluster_rows(&handle.view(), &counters.sums)))
}

fn cluster_rows(view: &View, sums: &Sums) -> Vec<ClusterRow> {
    let row = |(name, cluster): (&Name, &kakei_config::Cluster)| {
        let counted = sums.clusters.get(name);
        let up = cluster.backends.iter().filter(|b| backend_state(view, sums, name, b) == "up");
        ClusterRow {
            name: name.clone(),
            balance: cluster.balance,
            backends: cluster.backends.len(),
            backends_up: up.count(),
            checked: cluster.health.is_some(),
            flows_live: counted.map_or(0, |of| sums::of_backends(of, BackendMetric::FlowsLive)),
            connections_live: counted.map_or(0, |of| sums::of_backends(of, BackendMetric::ConnectionsLive)),
            requests_live: counted.map_or(0, |of| sums::of_backends(of, BackendMetric::RequestsLive)),
            replies_dropped: counted.map_or(0, |of| of.drops.sum()),
        }
    };
    view.resolved.clusters.iter().map(row).collect()
}

/// A backend.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Backend")]
pub(super) struct BackendRow {
    cluster: Name,
    name: Name,
    address: kakei_config::BackendAddress,
    weight: u32,
    backup: bool,
    /// `up`, `down`, `drained` (weight 0), or `removed` (gone from the document, with flows left on it).
    state: &'static str,
    flows_live: u64,
    flows_opened: u64,
    connections_live: u64,
    connections_opened: u64,
    connect_failures: u64,
    requests: u64,
    requests_live: u64,
    retries: u64,
    datagrams_sent: u64,
    bytes_sent: u64,
    datagrams_returned: u64,
    bytes_returned: u64,
    unreachable: u64,
    open_failures: u64,
}

pub(super) async fn backends(State(handle): State<Handle>) -> Answer<Vec<BackendRow>> {
    let sums = handle.counters().await?.sums;
    let view = handle.view();
    let mut rows = Vec::new();
    for (cluster, wanted) in &view.resolved.clusters {
        for backend in &wanted.backends {
            let state = backend_state(&view, &sums, cluster, backend);
            rows.push(backend_row(cluster, backend, state, counted(&sums, cluster, backend)));
        }
    }
    for (cluster, of) in &sums.clusters {
        let gone = of.backends.iter().filter(|stats| !configured(&view, cluster, stats));
        rows.extend(gone.map(|stats| {
            let (name, address) = (stats.backend.clone(), stats.address.clone().into());
            let backend = kakei_config::Backend { name, address, weight: 0, backup: false };
            backend_row(cluster, &backend, "removed", Some(stats))
        }));
    }
    Ok(Json(rows))
}

fn counted<'a>(sums: &'a Sums, cluster: &Name, backend: &kakei_config::Backend) -> Option<&'a BackendStats> {
    let of = sums.clusters.get(cluster)?;
    of.backends.iter().find(|stats| stats.backend == backend.name && backend.address == stats.address.clone().into())
}

fn configured(view: &View, cluster: &Name, stats: &BackendStats) -> bool {
    view.resolved.clusters.get(cluster).is_some_and(|c| {
        c.backends.iter().any(|b| b.name == stats.backend && b.address == stats.address.clone().into())
    })
}

fn backend_state(view: &View, sums: &Sums, cluster: &Name, backend: &kakei_config::Backend) -> &'static str {
    let up = match counted(sums, cluster, backend) {
        Some(stats) => stats.values[BackendMetric::Up] > 0,
        None => view.health.up(cluster, &backend.name).unwrap_or(true),
    };
    match (backend.weight, up) {
        (0, _) => "drained",
        (_, true) => "up",
        (_, false) => "down",
    }
}

fn backend_row(
    cluster: &Name,
    backend: &kakei_config::Backend,
    state: &'static str,
    counted: Option<&BackendStats>,
) -> BackendRow {
    let value = |metric| counted.map_or(0, |stats| stats.values[metric]);
    BackendRow {
        cluster: cluster.clone(),
        name: backend.name.clone(),
        address: backend.address.clone(),
        weight: backend.weight,
        backup: backend.backup,
        state,
        flows_live: value(BackendMetric::FlowsLive),
        flows_opened: value(BackendMetric::FlowsOpened),
        connections_live: value(BackendMetric::ConnectionsLive),
        connections_opened: value(BackendMetric::ConnectionsOpened),
        connect_failures: value(BackendMetric::ConnectFailures),
        requests: value(BackendMetric::Requests),
        requests_live: value(BackendMetric::RequestsLive),
        retries: value(BackendMetric::Retries),
        datagrams_sent: value(BackendMetric::DatagramsSent),
        bytes_sent: value(BackendMetric::BytesSent),
        datagrams_returned: value(BackendMetric::DatagramsReturned),
        bytes_returned: value(BackendMetric::BytesReturned),
        unreachable: value(BackendMetric::Unreachable),
        open_failures: value(BackendMetric::OpenFailed),
    }
}

/// Which flows or connections are wanted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    listener: Option<Name>,
    route: Option<Name>,
    cluster: Option<Name>,
    backend: Option<Name>,
    client: Option<IpAddr>,
    limit: Option<usize>,
}

impl From<ListQuery> for Filter {
    fn from(asked: ListQuery) -> Self {
        let limit = asked.limit.unwrap_or(1000).min(PER_LISTING);
        let ListQuery { listener, route, cluster, backend, client, .. } = asked;
        Filter { listener, route, cluster, backend, client, limit }
    }
}

pub(super) async fn flows(State(handle): State<Handle>, asked: QueryOf<ListQuery>) -> Answer<Vec<FlowView>> {
    Ok(Json(handle.flows(query(asked)?.into()).await?))
}

pub(super) async fn connections(
    State(handle): State<Handle>,
    asked: QueryOf<ListQuery>,
) -> Answer<Vec<ConnectionView>> {
    Ok(Json(handle.connections(query(asked)?.into()).await?))
}

pub(super) async fn generations(State(handle): State<Handle>) -> Json<Vec<Entry>> {
    Json(handle.view().history.entries().cloned().collect())
}

/// Whose datagram or connection is to be explained.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainQuery {
    protocol: Option<Protocol>,
    local: Option<SocketAddr>,
    listener: Option<Name>,
    client: Option<SocketAddr>,
    sni: Option<String>,
    alpn: Option<String>,
    url: Option<String>,
    method: Option<String>,
    /// One in a line.
    headers: Option<String>,
}

pub(super) async fn explain(State(handle): State<Handle>, asked: QueryOf<ExplainQuery>) -> Answer<Explanation> {
    let asked = query(asked)?;
    let missing = |what| Problem::bad_request(format!("`{what}` is missing"));
    if asked.local.is_none() && asked.url.is_none() {
        return Err(missing("local` or `url"));
    }
    let anyone = asked.url.as_ref().map(|_| explain::ANYONE);
    let fields = asked.headers.iter().flat_map(|headers| headers.split('\n')).filter(|line| !line.is_empty());
    let headers: Option<Vec<_>> = fields.map(explain::field).collect();
    let question = Question {
        protocol: asked.protocol.unwrap_or(if asked.url.is_some() { Protocol::Http } else { Protocol::Udp }),
        local: asked.local,
        listener: asked.listener,
        client: asked.client.or(anyone).ok_or_else(|| missing("client"))?,
        headers: headers.ok_or_else(|| Problem::bad_request("a line of `headers` is no `name: value`".to_owned()))?,
        sni: asked.sni,
        alpn: asked.alpn,
        url: asked.url,
        method: asked.method,
    };
    Ok(Json(handle.explain(&question).await?))
}
