//! The certificates that run, as operators want to see them. Their keys are shown to nobody.

use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use kakei_config::Name;
use kakei_proxy::secure::{Certificate, KeyKind};
use schemars::JsonSchema;
use serde::Serialize;

use crate::handle::Handle;
use crate::view::View;
use crate::wall;

/// A certificate.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Certificate")]
pub(super) struct Row {
    name: Name,
    /// The names and addresses that it is for.
    hosts: Vec<String>,
    /// `elliptic` or `rsa`.
    key: &'static str,
    issuer: String,
    not_before: String,
    not_after: String,
    /// Below zero where it has expired.
    expires_in_seconds: i64,
    /// SHA-256 of the certificate.
    fingerprint: String,
    /// The listeners that show it.
    listeners: Vec<Name>,
}

pub(super) async fn list(State(handle): State<Handle>) -> Json<Vec<Row>> {
    let view = handle.view();
    let now = wall::unix_seconds(SystemTime::now()).cast_signed();
    Json(view.certificates.iter().map(|(_, certificate)| row(certificate, &view, now)).collect())
}

fn row(certificate: &Certificate, view: &View, now: i64) -> Row {
    let names = certificate.names.iter().map(ToString::to_string);
    let shows = |tls: &kakei_config::ListenerTls| tls.shows(&certificate.name);
    let listeners = view.document.listeners.iter().filter(|(_, listener)| listener.tls.as_ref().is_some_and(shows));
    Row {
        name: certificate.name.clone(),
        hosts: names.chain(certificate.addresses.iter().map(ToString::to_string)).collect(),
        key: match certificate.kind() {
            KeyKind::Elliptic => "elliptic",
            KeyKind::Rsa => "rsa",
        },
        issuer: certificate.issuer.clone(),
        not_before: wall::seconds(certificate.not_before),
        not_after: wall::seconds(certificate.not_after),
        expires_in_seconds: certificate.not_after - now,
        fingerprint: certificate.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect(),
        listeners: listeners.map(|(name, _)| name.clone()).collect(),
    }
}
