//! What would become of a request: the decision of the same table that workers look it up in, why the others lost, and
//! what the route does to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use kakei_config::{FieldEdits, PathMatch, ServerName};
use kakei_proxy::snapshot::{Action, Decided, HttpListener, Imagined, Listener, Mismatch, Rule, Target};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Considered, Explanation, Question, rates};
use crate::view::View;

/// Routes that are shown: those that come nearest.
const SHOWN: usize = 100;

/// What becomes of a request, beyond where it goes.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Requested {
    /// The method.
    pub method: String,
    /// What is asked for.
    pub url: String,
    /// The host that it is routed by.
    pub host: String,
    /// The path that it is routed by, normalised.
    pub path: String,
    /// The status of the proxy's own answer; none: a backend answers.
    pub status: Option<u16>,
    /// Where the client is sent.
    pub location: Option<String>,
    /// The networks that may pass; none: all.
    pub allow: Vec<String>,
    /// The networks that may not.
    pub deny: Vec<String>,
    /// Who must say who it is, and how.
    pub auth: Vec<String>,
    /// Limits that it counts against; `rates` of the answer says how much of them is used up.
    pub rate_limits: Vec<String>,
    /// Path and query that it goes on with.
    pub target: Option<String>,
    /// The `Host` that takes the place of the client's.
    pub sets_host: Option<String>,
    /// What is changed in its header fields.
    pub request: Edits,
    /// What is changed in those of its response.
    pub response: Edits,
    /// `Strict-Transport-Security` of its response; none: the proxy says none.
    pub hsts: Option<String>,
    /// What becomes of it where it comes as TLS early data; none: its listener takes none.
    pub early_data: Option<&'static str>,
}

/// Changes of header fields.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(rename = "FieldEdits")]
pub struct Edits {
    /// Fields that are taken out.
    pub remove: Vec<String>,
    /// Fields with their only value, as it is for this path.
    pub set: BTreeMap<String, String>,
    /// Fields with one more value.
    pub add: BTreeMap<String, String>,
}

/// The listener that a request without an address comes by: the one that is named, the only one that speaks HTTP, or the
/// only one of these that speaks as the URL's scheme says and is at its port. Otherwise what is to be said to the operator.
pub(super) fn listener_of<'a>(view: &'a View, question: &Question) -> Result<&'a Listener, String> {
    let all: Vec<&Listener> = view.snapshot.listeners.values().collect();
    let speaks: Vec<&Listener> = all.into_iter().filter(|listener| listener.http.is_some()).collect();
    if let Some(name) = &question.listener {
        let found = speaks.iter().find(|listener| listener.name == *name);
        return found.copied().ok_or_else(|| format!("no listener {name} speaks HTTP"));
    }
    let url = question.url.as_deref().unwrap_or_default();
    let speaks = of_scheme(url, speaks);
    let port = port_of(url);
    let at_port = |listener: &&Listener| {
        let bound = |address: SocketAddr| Some(address.port()) == port;
        listener.binds.iter().any(|bind| bound(view.locals.get(bind).copied().unwrap_or(bind.address)))
    };
    let fits: Vec<&Listener> = speaks.iter().copied().filter(at_port).collect();
    match (&speaks[..], &fits[..]) {
        ([], _) => Err("no listener speaks HTTP".to_owned()),
        ([only], _) | (_, [only]) => Ok(only),
        (some, _) => {
            let names: Vec<&str> = some.iter().map(|listener| listener.name.as_str()).collect();
            Err(format!(
                "several listeners speak HTTP ({}), and the URL's port doesn't tell which: name one",
                names.join(", ")
            ))
        }
    }
}

/// Those that are spoken to as the URL's scheme says. Where none is, somebody else ends TLS, or begins it, before them.
fn of_scheme<'a>(url: &str, listeners: Vec<&'a Listener>) -> Vec<&'a Listener> {
    let Some((scheme, _)) = url.split_once("://") else { return listeners };
    let is_secured = scheme.eq_ignore_ascii_case("https");
    let fits: Vec<&Listener> = listeners.iter().copied().filter(|one| one.tls.is_some() == is_secured).collect();
    if fits.is_empty() { listeners } else { fits }
}

fn port_of(url: &str) -> Option<u16> {
    let scheme = url.split_once("://").map_or("http", |(scheme, _)| scheme);
    match host_and_port(url) {
        (_, Some(port)) => port.parse().ok(),
        _ => Some(if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 }),
    }
}

/// The host of a URL as it is written, and the port that stands behind it.
pub(super) fn host_and_port(url: &str) -> (&str, Option<&str>) {
    let after = url.split_once("://").map_or(url, |(_, after)| after);
    let authority = after.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rsplit_once(':') {
        Some((before, port)) if !before.ends_with(':') && !port.ends_with(']') => (before, Some(port)),
        _ => (authority, None),
    }
}

/// The target that the request goes to; none: the answer is complete.
pub(super) fn follow(
    answer: &mut Explanation,
    (listener, http): (&Listener, &HttpListener),
    question: &Question,
) -> Option<Arc<Target>> {
    let url = question.url.as_deref().unwrap_or("http:///");
    let method = question.method.as_deref().unwrap_or("GET");
    let fields = &question.headers;
    let decided = http.decide(&Imagined { client: question.client.ip(), method, url, fields });
    let mut taken = false;
    for (rule, mismatch) in decided.considered.iter().take(SHOWN) {
        answer.considered.push(row(*mismatch, rule, taken));
        taken |= mismatch.is_none();
    }
    answer.metered.clone_from(&decided.metered);
    let request = requested((method, url), &decided);
    let rule = decided.rule.as_deref().filter(|_| listener.tls.is_some());
    let hsts = rule.and_then(|rule| http.strict(rule)).map(ToString::to_string);
    let early = rule.filter(|_| http.table.allows_early());
    let early_data = early.map(|rule| match rule.takes_early(method) {
        true => "it goes on at once, if it has no body and asks for no upgrade",
        false => "it waits for the end of the handshake",
    });
    answer.request = Some(Requested { hsts, early_data, ..request });
    let by = match decided.rule.as_ref().map(|rule| rule.route.as_ref()) {
        Some(Some(route)) => format!("route {route}"),
        _ => "the listener's default".to_owned(),
    };
    answer.route = decided.rule.as_ref().and_then(|rule| rule.route.clone());
    if let Some((status, reason)) = decided.refused {
        answer.dropped = Some(reason.name());
        answer.verdict = match (status, decided.rule) {
            (403, _) => format!("refused by {by}: {} may not pass (403)", question.client.ip()),
            (404, _) => "refused: no route matches and the listener has no cluster (404)".to_owned(),
            (405, Some(_)) => format!("refused by {by}: it doesn't allow CONNECT (405)"),
            _ => format!("refused: this is no request that is taken ({status})"),
        };
        return None;
    }
    let rule = decided.rule?;
    let action = match rule.action() {
        Action::Forward(cluster) => return Some(Arc::new(rule.target(cluster))),
        Action::Split(split) => {
            let shares: Vec<String> = split.iter().map(|(to, weight)| format!("{to} {weight}")).collect();
            format!("shared by weight: {}", shares.join(", "))
        }
        Action::Redirect(redirect) => {
            format!("redirected by {} to {}", redirect.status, decided.target.unwrap_or_default())
        }
        Action::Respond(respond) => format!("answered by {}", respond.status),
    };
    answer.verdict = format!("by {by}: {action}");
    None
}

fn requested((method, url): (&str, &str), decided: &Decided) -> Requested {
    let rule = decided.rule.as_deref();
    let (spec, action) = (rule.map(|rule| &*rule.spec), rule.map(Rule::action));
    let own = match action {
        Some(Action::Redirect(redirect)) => Some(redirect.status),
        Some(Action::Respond(respond)) => Some(respond.status),
        _ => None,
    };
    let is_redirect = matches!(action, Some(Action::Redirect(_)));
    Requested {
        method: method.to_owned(),
        url: url.to_owned(),
        host: decided.host.clone(),
        path: decided.path.clone(),
        status: decided.refused.map(|(status, _)| status).or(own),
        location: decided.target.clone().filter(|_| is_redirect && decided.refused.is_none()),
        allow: spec.map(|spec| shown(&spec.allow)).unwrap_or_default(),
        deny: spec.map(|spec| shown(&spec.deny)).unwrap_or_default(),
        auth: spec.map(auth).unwrap_or_default(),
        rate_limits: spec
            .map(|spec| spec.rate_limits.iter().flat_map(rates::words).map(|(_, words)| words).collect())
            .unwrap_or_default(),
        target: decided.target.clone().filter(|_| !is_redirect && decided.refused.is_none()),
        sets_host: spec.and_then(|spec| spec.request.host.clone()),
        request: Edits::of(&decided.edits[0]),
        hsts: None,
        early_data: None,
        response: Edits::of(&decided.edits[1]),
    }
}

impl Edits {
    fn of(edits: &FieldEdits) -> Self {
        let FieldEdits { set, add, remove } = edits.clone();
        Edits { remove, set, add }
    }
}

fn shown(list: &[impl ToString]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn auth(spec: &kakei_config::Route) -> Vec<String> {
    let basic = spec.auth.basic.as_ref();
    let basic = basic.map(|basic| format!("by password, {} users of {:?}", basic.users.len(), basic.realm));
    let forward = spec.auth.forward.as_ref();
    let forward = forward.map(|forward| format!("by asking cluster {} at {}", forward.cluster, forward.path));
    basic.into_iter().chain(forward).collect()
}

fn row(mismatch: Option<Mismatch>, rule: &Rule, taken: bool) -> Considered {
    let spec = &rule.spec;
    let hosts: Vec<String> = spec.host.iter().map(ServerName::to_string).collect();
    let path = match &spec.path {
        PathMatch::Any => String::new(),
        PathMatch::Prefix(path) => path.clone(),
        PathMatch::Exact(path) => format!("= {path}"),
        PathMatch::Regex(text) => format!("~ {text}"),
    };
    let why = match mismatch {
        None if !taken => "the most specific that matches",
        None => "a more specific one matched",
        Some(Mismatch::Host) => "the request is for another host",
        Some(Mismatch::Path) => "the request is for another path",
        Some(Mismatch::Method) => "the request has another method",
        Some(Mismatch::Header) => "the request lacks a header field, or has another value",
        Some(Mismatch::Query) => "the request lacks a query parameter, or has another value",
        Some(Mismatch::Source) => "the client is not in its networks",
    };
    Considered {
        route: rule.route.clone(),
        sni: None,
        alpn: None,
        source: None,
        asks: Some(format!("{} {path}", hosts.join(",")).trim().to_owned()),
        cluster: spec.cluster.clone(),
        matches: mismatch.is_none(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_its_port_or_its_scheme_does() {
        let cases = [
            ("http://a", Some(80)),
            ("https://a/b:9", Some(443)),
            ("http://a:8080/x", Some(8080)),
            ("http://[::1]/", Some(80)),
            ("http://[::1]:81?q", Some(81)),
            ("a:82/x", Some(82)),
            ("http://a:b/", None),
        ];
        for (url, port) in cases {
            assert_eq!(port_of(url), port, "{url}");
        }
    }
}
