//! Errors as RFC 9457 problem documents. Adds nothing to what the refusal says.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::refusal::Refusal;

/// A problem document.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    body: Map<String, Value>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, word: &str, detail: impl Into<String>) -> Self {
        let mut body = Map::new();
        body.insert("type".into(), format!("urn:kakei:problem:{word}").into());
        body.insert("title".into(), status.canonical_reason().unwrap_or("Error").into());
        body.insert("status".into(), status.as_u16().into());
        body.insert("detail".into(), detail.into().into());
        Problem { status, body }
    }

    fn and(mut self, key: &str, value: Value) -> Self {
        self.body.insert(key.into(), value);
        self
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let problem = Problem::new(status, refusal.word(), refusal.to_string());
        match refusal {
            Refusal::Invalid(diagnostics) => problem.and("errors", diagnostics.to_json()),
            Refusal::NotReady { errors, .. } => problem.and("errors", errors.to_json()),
            Refusal::NeedsRestart(keys) => problem.and("keys", json!(keys)),
            Refusal::Mismatch { running, .. } => problem.and("generation", json!(running)),
            _ => problem,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Value::Object(self.body).to_string();
        (self.status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}
