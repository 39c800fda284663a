//! Errors as RFC 9457 problem documents. Adds nothing to what the refusal says.

use axum::extract::rejection::{BytesRejection, JsonRejection};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use kakei_config::Diagnostics;
use schemars::JsonSchema;
use serde::Serialize;

use crate::refusal::Refusal;

/// A problem document (RFC 9457).
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct Document {
    /// `urn:kakei:problem:` and a word that names the kind.
    r#type: String,
    /// The status in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// What is wrong, and what would be right.
    detail: String,
    /// Every error of an invalid document.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Diagnostics>,
    /// What needs a restart to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<String>>,
    /// The generation that runs, where another one was expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    /// What was changed since the one that was expected, as far as it is remembered: one line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    since: Vec<String>,
}

/// A problem, as an answer.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    document: Box<Document>,
    /// Whether the request never came to be whole.
    is_cut: bool,
}

/// What an answer that is a problem says, for whoever passes it on.
#[derive(Clone, Debug)]
pub(super) struct Detail {
    pub(super) text: String,
    pub(super) is_cut: bool,
}

impl Problem {
    pub(super) fn new(status: StatusCode, word: &str, detail: impl Into<String>) -> Self {
        let document = Document {
            r#type: format!("urn:kakei:problem:{word}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            errors: None,
            keys: None,
            generation: None,
            since: Vec::new(),
        };
        Problem { status, document: Box::new(document), is_cut: false }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// A body that could not be read: it is too long, or its client went.
    pub(super) fn body(rejection: &BytesRejection) -> Self {
        let is_cut = rejection.status() == StatusCode::BAD_REQUEST;
        Problem { is_cut, ..Problem::new(rejection.status(), "body", rejection.body_text()) }
    }

    /// A body that is not the JSON that it should be.
    pub(super) fn json(rejection: &JsonRejection) -> Self {
        match rejection {
            JsonRejection::BytesRejection(rejection) => Problem::body(rejection),
            other => Problem::new(other.status(), "body", other.body_text()),
        }
    }

    pub(super) fn detail(&self) -> &str {
        &self.document.detail
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut problem = Problem::new(status, refusal.word(), refusal.to_string());
        match refusal {
            Refusal::Invalid(diagnostics) => problem.document.errors = Some(diagnostics),
            Refusal::NotReady { errors, .. } => problem.document.errors = Some(errors),
            Refusal::NeedsRestart(keys) => problem.document.keys = Some(keys),
            Refusal::Mismatch { running, since, .. } => {
                problem.document.generation = Some(running);
                problem.document.since = since;
            }
            _ => {}
        }
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_string(&self.document).expect("its keys are strings");
        let detail = Detail { text: self.document.detail, is_cut: self.is_cut };
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        response.extensions_mut().insert(detail);
        response
    }
}
