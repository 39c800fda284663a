//! What a change would do to traffic as it was seen lately: each request, connection and flow that is kept runs through the
//! router of what runs and through that of what would, which are the workers' own. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use kakei_config::{ClientCertificateMode, Name};
use kakei_proxy::seam::{BindKey, Seen, SeenWhat};
use kakei_proxy::snapshot::{Action, Asked, HttpListener, Listener, Snapshot, is_secret};
use schemars::JsonSchema;
use serde::Serialize;

/// The most of each kind that are looked at.
pub const LOOKED_AT: usize = 10_000;
/// Differences that are told one by one, those that most of the traffic has.
const TOLD: usize = 100;
/// Examples of each.
const EXAMPLES: usize = 3;

/// Where something goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Destination {
    /// The listener; none: nobody listens any more where it came.
    listener: Option<Name>,
    /// The route; none: the listener's default, or none at all.
    route: Option<Name>,
    /// `cluster shop`, `split shop 95, canary 5`, `redirect 308`, `answer 403`, `refused 404`, `dropped`.
    to: String,
}

/// What differs in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "TrafficDifference")]
pub struct Difference {
    /// `request`, `connection` or `flow`.
    what: &'static str,
    /// How many.
    count: usize,
    /// Where they go now.
    from: Destination,
    /// Where they would.
    to: Destination,
    /// The newest of them.
    examples: Vec<String>,
}

/// How many of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "SeenCounts")]
pub struct Counts {
    /// Request heads.
    requests: usize,
    /// Connections that carry none.
    connections: usize,
    /// Flows.
    flows: usize,
}

impl Counts {
    fn add(&mut self, what: &'static str) {
        match what {
            "request" => self.requests += 1,
            "connection" => self.connections += 1,
            _ => self.flows += 1,
        }
    }
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Traffic {
    /// What was looked at.
    looked_at: Counts,
    /// For how long back, in milliseconds.
    seen_within_ms: u64,
    /// Those of it that would go elsewhere, or get another answer.
    changed: Counts,
    /// How, those first that most of it has.
    differences: Vec<Difference>,
    /// Fields and query parameters that routes of the one or the other ask for and that weren't kept: all of this was
    /// judged as if it had none of them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    unknown: BTreeSet<String>,
}

/// Run what was seen through both.
pub fn compare(running: &Snapshot, planned: &Snapshot, mut seen: Vec<Seen>, limit: usize) -> Traffic {
    seen.sort_by_key(|one| one.ago_ms);
    seen.truncate(limit);
    let mut answer = Traffic { seen_within_ms: seen.last().map_or(0, |one| one.ago_ms), ..Traffic::default() };
    let mut differences: BTreeMap<(&'static str, Destination, Destination), (usize, Vec<String>)> = BTreeMap::new();
    let mut listeners: BTreeSet<&Name> = BTreeSet::new();
    for one in &seen {
        let what = match one.what {
            SeenWhat::Request { .. } => "request",
            SeenWhat::Connection { .. } => "connection",
            SeenWhat::Flow => "flow",
        };
        answer.looked_at.add(what);
        listeners.insert(&one.listener);
        let (before, after) = (running.listener(&one.listener), successor(running, planned, &one.listener));
        let (from, to) = (destination(before.map(|found| &**found), one), destination(after, one));
        if from.0 == to.0 {
            continue;
        }
        answer.changed.add(what);
        let (count, examples) = differences.entry((what, from.0, to.0)).or_default();
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(example(one, from.1, to.1));
        }
    }
    answer.unknown = listeners.into_iter().flat_map(|name| unknown(running, planned, name)).collect();
    let differences = differences.into_iter();
    let told = differences.map(|((what, from, to), (count, examples))| Difference { what, count, from, to, examples });
    answer.differences = told.collect();
    answer.differences.sort_by_key(|difference| std::cmp::Reverse(difference.count));
    answer.differences.truncate(TOLD);
    answer
}

/// Who listens from then on where this listener does: the one of its name, where it keeps an address; else whoever gets one.
fn successor<'a>(running: &'a Snapshot, planned: &'a Snapshot, name: &Name) -> Option<&'a Listener> {
    let binds: &[BindKey] = running.listener(name).map_or(&[], |listener| &listener.binds);
    let keeps = |listener: &&Listener| listener.binds.iter().any(|bind| binds.contains(bind));
    let same = planned.listener(name).map(|found| &**found).filter(keeps);
    same.or_else(|| planned.listeners.values().find(keeps))
}

/// Where something goes, and what of it differs from one to the next, which is shown with an example only.
fn destination(listener: Option<&Listener>, seen: &Seen) -> (Destination, Option<String>) {
    let Some(listener) = listener else {
        return (Destination { listener: None, route: None, to: "nobody listens".to_owned() }, None);
    };
    let name = Some(listener.name.clone());
    let lost = |to: &str| (Destination { listener: name.clone(), route: None, to: to.to_owned() }, None);
    let (sni, alpn): (Option<&str>, &[Vec<u8>]) = match (&seen.what, &listener.http) {
        (SeenWhat::Request { head, has_certificate }, Some(http)) => {
            let (route, to, detail) = of_request(http, seen, (head, *has_certificate));
            return (Destination { listener: name, route, to }, detail);
        }
        (SeenWhat::Request { .. }, None) => return lost("the listener speaks no HTTP"),
        (_, Some(_)) => return lost("the listener speaks HTTP"),
        (SeenWhat::Connection { sni, alpn }, None) => (sni.as_deref(), alpn),
        (SeenWhat::Flow, None) => (None, &[]),
    };
    match listener.route(&Asked { source: seen.client.ip(), sni, alpn }) {
        Some(target) => {
            let (route, to) = (target.route.clone(), format!("cluster {}", target.cluster));
            (Destination { listener: name, route, to }, None)
        }
        None => lost("no route: it is dropped"),
    }
}

fn of_request(
    http: &HttpListener,
    seen: &Seen,
    (head, has_certificate): (&[u8], bool),
) -> (Option<Name>, String, Option<String>) {
    let decided = http.decide_head(seen.client.ip(), head);
    let route = decided.rule.as_ref().and_then(|rule| rule.route.clone());
    let asks = |mode: Option<ClientCertificateMode>| mode == Some(ClientCertificateMode::Required) && !has_certificate;
    let to = match (&decided.rule, decided.refused) {
        (_, Some((status, reason))) => format!("refused {status} ({})", reason.name()),
        (None, None) => "no route".to_owned(),
        (Some(rule), None) if asks(rule.spec.client_certificates) => "refused 403 (client_certificate)".to_owned(),
        (Some(rule), None) => match rule.action() {
            Action::Forward(cluster) => format!("cluster {cluster}"),
            Action::Split(split) => {
                let shares: Vec<String> = split.iter().map(|(to, weight)| format!("{to} {weight}")).collect();
                format!("split {}", shares.join(", "))
            }
            Action::Redirect(redirect) => {
                return (route, format!("redirect {}", redirect.status), decided.target);
            }
            Action::Respond(respond) => format!("answer {}", respond.status),
        },
    };
    (route, to, None)
}

fn example(seen: &Seen, from: Option<String>, to: Option<String>) -> String {
    let what = match &seen.what {
        SeenWhat::Request { head, .. } => asked_for(head),
        SeenWhat::Connection { sni: Some(sni), .. } => format!("{} for {sni}", seen.local),
        SeenWhat::Connection { sni: None, .. } | SeenWhat::Flow => seen.local.to_string(),
    };
    let led = match (from, to) {
        (_, Some(to)) => format!(", to {to}"),
        (Some(from), None) => format!(", to {from} so far"),
        (None, None) => String::new(),
    };
    format!("{what} of {}{led}", seen.client)
}

/// Method, host and target of a head.
fn asked_for(head: &[u8]) -> String {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let host = lines.next().and_then(|line| line.strip_prefix("Host: ")).filter(|_| method != "CONNECT");
    format!("{method} {}{target}", host.unwrap_or_default())
}

/// Names that routes ask for, and that nothing says of what was seen whether it had them.
fn unknown(running: &Snapshot, planned: &Snapshot, name: &Name) -> Vec<String> {
    let before = running.listener(name).and_then(|listener| listener.http.as_ref());
    let after = successor(running, planned, name).and_then(|listener| listener.http.as_ref());
    let Some(after) = after else { return Vec::new() };
    let before = before.map(|before| before.table.asks());
    let keeps_field = |wanted: &str| before.is_some_and(|before| before.kept_fields().any(|name| name == wanted));
    let keeps_parameter = |wanted: &str| {
        before.is_some_and(|before| before.parameters().any(|name| name == wanted) && !is_secret(wanted))
    };
    let asks = after.table.asks();
    let fields = asks.fields().filter(|name| *name != "host" && !keeps_field(name)).map(|name| format!("field {name}"));
    let parameters = asks.parameters().filter(|name| !keeps_parameter(name)).map(|name| format!("parameter {name}"));
    fields.chain(parameters).collect()
}
