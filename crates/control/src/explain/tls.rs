//! What becomes of the handshake of a request that comes over TLS: which certificates its client may get, and whether they
//! are for the host that it asks. What a client of its own would accept is not known here.

use std::net::IpAddr;
use std::time::SystemTime;

use kakei_config::Name;
use kakei_proxy::secure::{Certificate, KeyKind};
use kakei_proxy::snapshot::Listener;
use schemars::JsonSchema;
use serde::Serialize;

use super::requests::host_and_port;
use super::{Explanation, Question};
use crate::certificates::{Certificates, Purpose};
use crate::view::View;
use crate::wall;

/// A handshake.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ExplainedHandshake")]
pub struct Shaken {
    /// The name that the client asks for; none: it asks for an address, and names nobody.
    pub server_name: Option<String>,
    /// The certificates that it may get, the preferred first.
    pub certificates: Vec<Met>,
    /// Whether the certificates could be read.
    pub is_read: bool,
}

/// A certificate that a client may get.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ExplainedCertificate")]
pub struct Met {
    /// Its name.
    pub name: Name,
    /// The kind of its key.
    pub key: &'static str,
    /// Until when it is valid, RFC 3339.
    pub not_after: String,
    /// Whether it is for the host that is asked.
    pub covers: bool,
    /// Why it is this one.
    pub why: &'static str,
}

/// Whether the client comes over TLS.
pub(super) fn is_asked(question: &Question) -> bool {
    let scheme = question.url.as_deref().and_then(|url| url.split_once("://")).map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
}

/// The same view with the certificates that its document names; where one can't be read, with none.
pub(super) fn with_files(view: View) -> View {
    match Certificates::default().load(&view.document, Purpose::Start, SystemTime::now()) {
        Ok(loaded) => view.with(&loaded.certificates),
        Err(_) => view,
    }
}

/// Say what becomes of the handshake. Whether the request ends by it.
pub(super) fn refuses(answer: &mut Explanation, view: &View, (listener, question): (&Listener, &Question)) -> bool {
    let Some(tls) = listener.tls.as_ref().filter(|_| is_asked(question)) else { return false };
    let host = host(question.url.as_deref().unwrap_or_default());
    let asked = question.sni.as_deref().unwrap_or(&host).trim_end_matches('.').to_ascii_lowercase();
    let is_address = asked.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    let server_name = (!is_address && !asked.is_empty()).then_some(asked);
    let is_read = !view.certificates.is_empty();
    let shown = tls.shown_to(server_name.as_deref());
    let row = |certificate: &Certificate| Met {
        name: certificate.name.clone(),
        key: if certificate.kind() == KeyKind::Rsa { "rsa" } else { "ecdsa" },
        not_after: wall::seconds(certificate.not_after),
        covers: certificate.covers(&host),
        why: match server_name.as_deref() {
            None => "the client asks for no name, and this is the default",
            Some(name) if certificate.covers(name) => "it is for the name that the client asks for",
            Some(_) => "no certificate is for the name that the client asks for, and this is the default",
        },
    };
    let certificates: Vec<Met> = shown.into_iter().map(|shown| row(shown)).collect();
    let nobody = is_read && certificates.is_empty();
    let misdirected = certificates.first().is_some_and(|first| !first.covers);
    if nobody {
        let what =
            server_name.as_ref().map_or("for a client that names nobody".to_owned(), |name| format!("for {name}"));
        answer.dropped = Some("tls_unknown_name");
        answer.verdict =
            format!("refused in the handshake: there is no certificate {what}, and no default (unrecognized_name)");
    } else if misdirected && !host.is_empty() {
        answer.dropped = Some("misdirected");
        answer.verdict = format!("refused: the certificate that the client gets isn't for {host} (421)");
    }
    answer.tls = Some(Shaken { server_name, certificates, is_read });
    answer.dropped.is_some()
}

/// The host of a URL: in lower case, without port and trailing dot.
fn host(url: &str) -> String {
    host_and_port(url).0.trim_end_matches('.').to_ascii_lowercase()
}
