//! The tables of the reference, made from the options themselves. The prose around them is written by hand.

use super::admin::{ADMIN, PEERS, TCP as ADMIN_TCP};
use super::cluster::{BACKEND, CLUSTER, KNOBS, TCP_KNOBS};
use super::health::{HEALTH, PASSIVE, TCP, UDP};
use super::http::{
    AUTH, BASIC, ERRORS, FORWARD, HSTS, HTTP_CHECK, HTTP_KNOBS, HTTP_LISTENER, RATE_LIMIT, REDIRECT, REQUEST, RESPOND,
    RESPONSE, RETRY, STICKY, TIMEOUTS, TLS_REDIRECT,
};
use super::listener::{LIMITS, LISTENER, PROXY_PROTOCOL, ROUTE, SOURCE_NETWORK};
use super::sections::{ACCESS_LOG, DOCUMENT, WORKERS};
use super::tls::{CERTIFICATE, CLIENT_CERTIFICATES, CLUSTER_TLS, LISTENER_TLS};
use super::{Field, Section};
use crate::tree::Value;

/// Markdown tables of every key: what may be written, the default, the meaning; one table for each section, in the order
/// of the document. `docs/CONFIGURATION.md` holds the same text, and a test compares them.
pub fn reference() -> String {
    [
        table("The document", &DOCUMENT),
        table("`[admin]`", &ADMIN),
        table("`[admin.peers]`", &PEERS),
        table("`[admin.tcp]`", &ADMIN_TCP),
        table("`[workers]`", &WORKERS),
        table("`[access_log]`", &ACCESS_LOG),
        table("`[listeners.NAME]`", &LISTENER),
        table("`redirect_to_tls` of a listener", &TLS_REDIRECT),
        table("`limits` of a listener", &LIMITS),
        table("`limits.source_network` of a listener", &SOURCE_NETWORK),
        table("`proxy_protocol` of a listener", &PROXY_PROTOCOL),
        table("`tls` of a listener", &LISTENER_TLS),
        table("`tls.client_certificates` of a listener", &CLIENT_CERTIFICATES),
        table("`http` of a listener", &HTTP_LISTENER),
        table("`hsts` of a listener's `http`, and of a route", &HSTS),
        table("`errors` of a listener's `http`, and of a route", &ERRORS),
        table("`[routes.NAME]`", &ROUTE),
        table("`redirect` of a route", &REDIRECT),
        table("`respond` of a route", &RESPOND),
        table("`request` of a route", &REQUEST),
        table("`response` of a route", &RESPONSE),
        table("`timeouts` of a route", &TIMEOUTS),
        table("`retry` of a route", &RETRY),
        table("`auth` of a route", &AUTH),
        table("`auth.basic` of a route", &BASIC),
        table("`auth.forward` of a route", &FORWARD),
        table("One of `rate_limits` of a route", &RATE_LIMIT),
        table("`[clusters.NAME]`", &CLUSTER),
        table("A backend as a table", &BACKEND),
        table("`udp` of a cluster", &KNOBS),
        table("`tcp` of a cluster", &TCP_KNOBS),
        table("`http` of a cluster", &HTTP_KNOBS),
        table("`http.sticky` of a cluster", &STICKY),
        table("`tls` of a cluster", &CLUSTER_TLS),
        table("`health` of a cluster", &HEALTH),
        table("`health.udp`", &UDP),
        table("`health.tcp`", &TCP),
        table("`health.http`", &HTTP_CHECK),
        table("`health.passive`", &PASSIVE),
        table("`[certificates.NAME]`", &CERTIFICATE),
    ]
    .join("\n")
}

fn table<T>(title: &str, section: &Section<T>) -> String {
    let blank = (section.blank)();
    let mut text = format!("### {title}\n\n| key | value | default | meaning |\n|---|---|---|---|\n");
    for field in section.fields {
        let value = (field.describe)().replace('|', "\\|");
        text.push_str(&format!("| `{}` | {value} | {} | {} |\n", field.key, default(field, &blank), field.doc));
    }
    text
}

fn default<T>(field: &Field<T>, blank: &T) -> String {
    match (field.write)(blank) {
        _ if field.required => "required".into(),
        Some(Value::Text(text)) if !text.is_empty() => format!("`\"{text}\"`"),
        Some(Value::Bool(flag)) => format!("`{flag}`"),
        Some(Value::Integer(number)) => format!("`{number}`"),
        Some(Value::List(items)) if items.is_empty() => "`[]`".into(),
        _ => String::new(),
    }
}
