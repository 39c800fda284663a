//! Who still holds something: a listener, a route, a cluster, a backend. Since when, until when, and what deadlines and
//! policies have cut of it so far. Asks no worker and changes nothing.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use kakei_config::{Name, OnBackend, OnChange};
use kakei_proxy::seam::{ConnectionView, Cut, CutOf, Filter, FlowView};
use kakei_proxy::stats::{BackendMetric, ListenerMetric};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;
use crate::sums::Sums;
use crate::view::View;
use crate::wall;

/// Objects of which it is remembered what was cut.
const REMEMBERED: usize = 256;
/// Holders that are shown where nobody says how many.
pub const SHOWN: usize = 100;

/// What may be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "HeldKind")]
pub enum Kind {
    /// Where clients arrive.
    Listener,
    /// What refines it.
    Route,
    /// A group of backends.
    Cluster,
    /// One of them.
    Backend,
}

/// Something that may be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// A backend's cluster.
    pub cluster: Option<Name>,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, &self.cluster) {
            (Kind::Listener, _) => write!(f, "listener {}", self.name),
            (Kind::Route, _) => write!(f, "route {}", self.name),
            (Kind::Backend, Some(cluster)) => write!(f, "backend {} of cluster {cluster}", self.name),
            (Kind::Cluster | Kind::Backend, _) => write!(f, "cluster {}", self.name),
        }
    }
}

impl Held {
    /// Which flows and connections hold it.
    pub fn filter(&self, limit: usize) -> Filter {
        let name = Some(self.name.clone());
        let all = Filter { limit, ..Filter::default() };
        match self.kind {
            Kind::Listener => Filter { listener: name, ..all },
            Kind::Route => Filter { route: name, ..all },
            Kind::Cluster => Filter { cluster: name, ..all },
            Kind::Backend => Filter { cluster: self.cluster.clone(), backend: name, ..all },
        }
    }
}

impl From<&CutOf> for Held {
    fn from(of: &CutOf) -> Self {
        match of.clone() {
            CutOf::Listener(name) => Held { kind: Kind::Listener, name, cluster: None },
            CutOf::Route(name) => Held { kind: Kind::Route, name, cluster: None },
            CutOf::Backend(cluster, name) => Held { kind: Kind::Backend, name, cluster: Some(cluster) },
        }
    }
}

/// How many of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "HeldCounts")]
pub struct Counts {
    /// Flows.
    pub flows: u64,
    /// Connections that carry no request.
    pub connections: u64,
    /// Requests under way.
    pub requests: u64,
}

impl Counts {
    /// All together.
    pub fn all(self) -> u64 {
        self.flows + self.connections + self.requests
    }

    fn add(&mut self, cut: &Cut) {
        self.flows += cut.flows;
        self.connections += cut.connections;
        self.requests += cut.requests;
    }
}

impl From<&Cut> for Counts {
    fn from(cut: &Cut) -> Self {
        Counts { flows: cut.flows, connections: cut.connections, requests: cut.requests }
    }
}

/// What was cut of the objects that something was cut of last, the newest at the end. Bounded.
#[derive(Clone, Debug, Default)]
pub struct Cuts(VecDeque<(Held, Counts)>);

impl Cuts {
    /// Something was cut.
    pub(crate) fn note(&mut self, cut: &Cut) {
        let held = Held::from(&cut.of);
        let known = self.0.iter().position(|(of, _)| *of == held);
        let (_, mut counts) = known.and_then(|at| self.0.remove(at)).unwrap_or((held.clone(), Counts::default()));
        counts.add(cut);
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((held, counts));
    }

    fn of(&self, held: &Held) -> Option<Counts> {
        let is_it = |of: &Held| match held.kind {
            Kind::Cluster => of.kind == Kind::Backend && of.cluster.as_ref() == Some(&held.name),
            _ => of == held,
        };
        let mut found = self.0.iter().filter(|(of, _)| is_it(of)).peekable();
        found.peek()?;
        let sum = |sum: Counts, (_, one): &(Held, Counts)| Counts {
            flows: sum.flows + one.flows,
            connections: sum.connections + one.connections,
            requests: sum.requests + one.requests,
        };
        Some(found.fold(Counts::default(), sum))
    }
}

/// The answer.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DrainReport")]
pub struct Report {
    kind: Kind,
    name: Name,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Name>,
    /// `admitting`, `draining` (it takes nothing new), or `gone` (nothing is left of it).
    state: &'static str,
    /// How many hold it.
    held: Counts,
    /// What becomes of them, in words.
    policy: Vec<String>,
    /// When the last of them has to be gone, RFC 3339; none: nothing says so.
    until: Option<String>,
    /// The oldest of them.
    holders: Vec<Holder>,
    /// What was cut of it by deadlines and policies, as far as that is remembered.
    cut: Counts,
}

/// Who holds it.
#[derive(Debug, Serialize, JsonSchema)]
struct Holder {
    /// `flow`, `connection` or `request`.
    what: &'static str,
    client: SocketAddr,
    listener: Name,
    route: Option<Name>,
    cluster: Option<Name>,
    backend: Option<Name>,
    phase: String,
    /// Method, host and target, where the access log is on.
    request: Option<String>,
    /// Since when, RFC 3339; and for how long, in milliseconds.
    since: String,
    age_ms: u64,
    /// By when it has to be gone because of a change; none: it may stay as long as it lives.
    until: Option<String>,
    ends_in_ms: Option<u64>,
}

/// What the workers were found to have.
#[derive(Debug)]
pub struct Found {
    /// What they count.
    pub sums: Sums,
    /// The flows that hold it.
    pub flows: Vec<FlowView>,
    /// The connections that do.
    pub connections: Vec<ConnectionView>,
}

/// Who holds it.
///
/// # Errors
/// It is nowhere: not in the document, not in a worker, and nothing was cut of it.
pub fn report(view: &View, held: &Held, found: Found, shown: usize) -> Result<Report, Refusal> {
    let now = SystemTime::now();
    let Found { sums, flows, connections } = found;
    let mut holders: Vec<Holder> = flows.into_iter().map(|flow| of_flow(now, flow)).collect();
    holders.extend(connections.into_iter().map(|connection| of_connection(now, connection)));
    let count = |what| holders.iter().filter(|holder| holder.what == what).count() as u64;
    let listed = Counts { flows: count("flow"), connections: count("connection"), requests: count("request") };
    let counted = counted(held, &sums);
    let held_by = Counts {
        flows: listed.flows.max(counted.flows),
        connections: listed.connections.max(counted.connections),
        requests: listed.requests.max(counted.requests),
    };
    let cut = view.cuts.of(held);
    let state = match admits(view, held, &sums) {
        Some(true) if !view.draining => "admitting",
        Some(_) => "draining",
        None if held_by.all() > 0 => "draining",
        None if cut.is_some() || is_left(held, &sums) => "gone",
        None => return Err(unknown(held)),
    };
    // The last is gone by then only if each has to be.
    let latest = holders.iter().try_fold(0, |latest: u64, holder| Some(latest.max(holder.ends_in_ms?)));
    let until = latest.filter(|_| !holders.is_empty());
    holders.sort_by_key(|holder| std::cmp::Reverse(holder.age_ms));
    holders.truncate(shown);
    Ok(Report {
        kind: held.kind,
        name: held.name.clone(),
        cluster: held.cluster.clone(),
        state,
        held: held_by,
        policy: policy(view, held),
        until: until.map(|ms| wall::rfc3339(now + Duration::from_millis(ms))),
        holders,
        cut: cut.unwrap_or_default(),
    })
}

fn unknown(held: &Held) -> Refusal {
    let kind = match held.kind {
        Kind::Listener => "listener",
        Kind::Route => "route",
        Kind::Cluster => "cluster",
        Kind::Backend => "backend",
    };
    Refusal::Unknown { kind, name: held.name.clone() }
}

fn of_flow(now: SystemTime, flow: FlowView) -> Holder {
    let (since, until) = times(now, flow.age_ms, flow.ends_in_ms);
    Holder {
        what: "flow",
        client: flow.client,
        listener: flow.listener,
        route: flow.route,
        cluster: Some(flow.cluster),
        backend: Some(flow.backend),
        phase: flow.phase,
        request: None,
        since,
        age_ms: flow.age_ms,
        until,
        ends_in_ms: flow.ends_in_ms,
    }
}

fn of_connection(now: SystemTime, connection: ConnectionView) -> Holder {
    let (since, until) = times(now, connection.age_ms, connection.ends_in_ms);
    let is_idle = matches!(&*connection.phase, "preread" | "idle" | "closing");
    Holder {
        what: if connection.requests.is_some() && !is_idle { "request" } else { "connection" },
        client: connection.client,
        listener: connection.listener,
        route: connection.route,
        cluster: connection.cluster,
        backend: connection.backend,
        phase: connection.phase,
        request: connection.request,
        since,
        age_ms: connection.age_ms,
        until,
        ends_in_ms: connection.ends_in_ms,
    }
}

fn times(now: SystemTime, age_ms: u64, ends_in_ms: Option<u64>) -> (String, Option<String>) {
    let since = now.checked_sub(Duration::from_millis(age_ms)).unwrap_or(SystemTime::UNIX_EPOCH);
    let until = ends_in_ms.map(|ms| wall::rfc3339(now + Duration::from_millis(ms)));
    (wall::rfc3339(since), until)
}

/// Whether it takes what is new; none: it is not configured.
fn admits(view: &View, held: &Held, sums: &Sums) -> Option<bool> {
    let document = &view.document;
    let takes = |cluster: &Name, name: Option<&Name>| {
        let cluster = view.resolved.clusters.get(cluster)?;
        let mut meant =
            cluster.backends.iter().filter(|backend| name.is_none_or(|name| backend.name == *name)).peekable();
        if name.is_some() {
            meant.peek()?;
        }
        Some(cluster.backends.is_empty() || meant.any(|backend| backend.weight > 0))
    };
    match held.kind {
        Kind::Listener => {
            document.listeners.get(&held.name)?;
            let draining = sums.listeners.get(&held.name).map(|of| of.values[ListenerMetric::Draining]);
            Some(draining.unwrap_or_default() == 0)
        }
        Kind::Route => document.routes.get(&held.name).map(|_| true),
        Kind::Cluster => takes(&held.name, None),
        Kind::Backend => takes(held.cluster.as_ref()?, Some(&held.name)),
    }
}

/// Whether workers still count something of it.
fn is_left(held: &Held, sums: &Sums) -> bool {
    match held.kind {
        Kind::Listener => sums.listeners.contains_key(&held.name),
        Kind::Route => false,
        Kind::Cluster => sums.clusters.contains_key(&held.name),
        Kind::Backend => held.cluster.as_ref().is_some_and(|cluster| sums.backend(cluster, &held.name).is_some()),
    }
}

/// What the workers count: listings are bounded, and counts aren't.
fn counted(held: &Held, sums: &Sums) -> Counts {
    match held.kind {
        Kind::Listener => {
            let value = |metric| sums.listeners.get(&held.name).map_or(0, |of| of.values[metric]);
            let requests = value(ListenerMetric::RequestsLive);
            let connections = value(ListenerMetric::ConnectionsLive).saturating_sub(requests);
            Counts { flows: value(ListenerMetric::FlowsLive), connections, requests }
        }
        Kind::Route => Counts::default(),
        Kind::Cluster | Kind::Backend => {
            let cluster = held.cluster.as_ref().unwrap_or(&held.name);
            let of = sums.clusters.get(cluster).into_iter().flat_map(|of| &of.backends);
            let meant = of.filter(|backend| held.kind == Kind::Cluster || backend.backend == held.name);
            let add = |sum: Counts, backend: &kakei_proxy::stats::BackendStats| Counts {
                flows: sum.flows + backend.values[BackendMetric::FlowsLive],
                requests: sum.requests + backend.values[BackendMetric::RequestsLive],
                // Those that wait for a request hold nothing: only the clients' own count.
                connections: 0,
            };
            meant.fold(Counts::default(), add)
        }
    }
}

/// What becomes of those that hold it, in words.
fn policy(view: &View, held: &Held) -> Vec<String> {
    let document = &view.document;
    match held.kind {
        Kind::Listener => {
            let of = document.listeners.get(&held.name);
            of.map(|of| format!("removed: what lives on it may go on for {:?}", of.drain_timeout)).into_iter().collect()
        }
        Kind::Route => {
            let of = document.routes.get(&held.name);
            of.map(|of| format!("changed or removed: a connection by it {}", on_change(of.on_change)))
                .into_iter()
                .collect()
        }
        Kind::Cluster | Kind::Backend => {
            let Some(of) = document.clusters.get(held.cluster.as_ref().unwrap_or(&held.name)) else {
                return Vec::new();
            };
            vec![
                "of weight 0: what lives on it stays".to_owned(),
                format!(
                    "removed: a flow {}, a connection or request {}",
                    on_backend(of.udp.on_backend_removed),
                    on_change(of.tcp.on_backend_removed)
                ),
                format!(
                    "down: a flow {}, a connection or request {}",
                    on_backend(of.udp.on_backend_down),
                    on_change(of.tcp.on_backend_down)
                ),
            ]
        }
    }
}

/// What such a policy does, as the predicate of a sentence.
pub(crate) fn on_change(policy: OnChange) -> String {
    match policy {
        OnChange::Keep => "goes on".to_owned(),
        OnChange::Drain(time) => format!("may go on for {time:?}"),
        OnChange::Close => "is closed".to_owned(),
    }
}

/// The same of flows.
pub(crate) fn on_backend(policy: OnBackend) -> &'static str {
    match policy {
        OnBackend::Keep => "stays with it",
        OnBackend::Move => "moves to another backend",
        OnBackend::Close => "is closed",
    }
}

#[cfg(test)]
mod tests {
    use kakei_proxy::record::CloseReason;

    use super::*;

    #[test]
    fn cuts_add_up_by_what_they_are_about_and_the_oldest_are_forgotten() {
        let cut = |of: CutOf| Cut { of, reason: CloseReason::Drain, flows: 1, connections: 2, requests: 3 };
        let backend = |name: &str| CutOf::Backend("c".into(), name.into());
        let mut cuts = Cuts::default();
        for name in ["a", "a", "b"] {
            cuts.note(&cut(backend(name)));
        }
        let held = |kind, name: &str, cluster: Option<&str>| Held {
            kind,
            name: name.into(),
            cluster: cluster.map(Into::into),
        };
        let of = |cuts: &Cuts, held: &Held| cuts.of(held).map(Counts::all);
        assert_eq!(of(&cuts, &held(Kind::Backend, "a", Some("c"))), Some(12));
        assert_eq!(of(&cuts, &held(Kind::Cluster, "c", None)), Some(18));
        assert_eq!(of(&cuts, &held(Kind::Listener, "a", None)), None);
        for number in 0..REMEMBERED {
            cuts.note(&cut(CutOf::Listener(Name::new(format!("l{number}")))));
        }
        assert_eq!(of(&cuts, &held(Kind::Cluster, "c", None)), None);
    }
}
