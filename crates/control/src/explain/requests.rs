//! Where a request would go: the decision of the same table that workers look it up in, and why the others lost.

use std::sync::Arc;

use kakei_config::{PathMatch, ServerName};
use kakei_proxy::snapshot::{Action, HttpListener, Mismatch, Rule, Target};

use super::{Considered, Explanation, Question};

/// Routes that are shown: those that come nearest.
const SHOWN: usize = 100;

/// The target that the request goes to (none of them: no route), or none at all where the answer is complete.
pub(super) fn follow(
    answer: &mut Explanation,
    http: &HttpListener,
    question: &Question,
) -> Option<Option<Arc<Target>>> {
    let url = question.url.as_deref().unwrap_or("http:///");
    let method = question.method.as_deref().unwrap_or("GET");
    let Some(decided) = http.decide(question.client.ip(), method, url) else {
        answer.dropped = Some("bad_request");
        answer.verdict = format!("refused: {url} has a host or a path that can't be one (400)");
        return None;
    };
    let mut taken = false;
    for (rule, mismatch) in decided.considered.iter().take(SHOWN) {
        answer.considered.push(row(*mismatch, rule, taken));
        taken |= mismatch.is_none();
    }
    let Some(rule) = decided.rule else { return Some(None) };
    let by = rule.route.as_ref().map_or("the listener's default".to_owned(), |route| format!("route {route}"));
    let action = match rule.action() {
        Action::Forward(target) => return Some(Some(Arc::clone(target))),
        Action::Split(split) => {
            let shares: Vec<String> = split.iter().map(|(to, weight)| format!("{} {weight}", to.cluster)).collect();
            format!("shared by weight: {}", shares.join(", "))
        }
        Action::Redirect(redirect) => format!("redirected by {}", redirect.status),
        Action::Respond(respond) => format!("answered by {}", respond.status),
    };
    answer.route = rule.route.clone();
    answer.verdict = format!("by {by}: {action}");
    None
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
