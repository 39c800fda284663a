//! Many changes as one, and the way back: batches, confirmations, rollbacks, what generations were and how they differ.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use kakei_proxy::snapshot::Generation;
use serde::Deserialize;
use serde_json::json;

use super::config::{answer, etag, json_problem, query};
use super::problem::Problem;
use super::terms::Terms;
use crate::edit::Edit;
use crate::handle::{Handle, What};

/// The most edits of one transaction.
const EDITS: usize = 100_000;

/// `POST /v1/changes`: all of them as one transaction.
pub(super) async fn batch(
    State(handle): State<Handle>,
    terms: Terms,
    body: Result<Json<Vec<Edit>>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(edits) = body.map_err(json_problem)?;
    if edits.is_empty() || edits.len() > EDITS {
        return Err(Problem::bad_request(format!("a transaction is a list of 1 to {EDITS} changes")));
    }
    answer(handle.change(terms.change(What::Edits(edits))).await)
}

/// Where to go back to.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Back {
    /// The generation; without it, the one that ran before.
    to: Option<Generation>,
}

/// `POST /v1/rollback`
pub(super) async fn rollback(State(handle): State<Handle>, terms: Terms, body: Bytes) -> Result<Response, Problem> {
    let Back { to } = match body.trim_ascii() {
        [] => Back::default(),
        body => serde_json::from_slice(body)
            .map_err(|error| Problem::bad_request(format!("the body is {{\"to\": GENERATION}}: {error}")))?,
    };
    answer(handle.change(terms.change(What::Rollback(to))).await)
}

type Number = Result<Path<u64>, PathRejection>;

fn number(number: Number) -> Result<Generation, Problem> {
    let Path(number) = number.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    Ok(Generation(number))
}

/// `POST /v1/generations/{generation}/confirm`
pub(super) async fn confirm(
    State(handle): State<Handle>,
    generation: Number,
    terms: Terms,
) -> Result<Response, Problem> {
    let confirmed = handle.confirm(Some(number(generation)?), terms.only_asked()?).await?;
    Ok(Json(json!({"generation": confirmed})).into_response())
}

/// `POST /v1/confirm`: whichever waits.
pub(super) async fn confirm_any(State(handle): State<Handle>, terms: Terms) -> Result<Response, Problem> {
    let confirmed = handle.confirm(None, terms.only_asked()?).await?;
    Ok(Json(json!({"generation": confirmed})).into_response())
}

/// `GET /v1/generations/{generation}`: its document.
pub(super) async fn generation(State(handle): State<Handle>, asked: Number) -> Result<Response, Problem> {
    let generation = number(asked)?;
    let document = handle.kept(generation).await?;
    Ok(([(header::ETAG, etag(generation))], Json(document.to_json_value())).into_response())
}

/// Which generations.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Span {
    from: u64,
    to: u64,
}

/// `GET /v1/diff?from=&to=`: what makes one generation of another.
pub(super) async fn diff(
    State(handle): State<Handle>,
    asked: Result<Query<Span>, QueryRejection>,
) -> Result<Response, Problem> {
    let Span { from, to } = query(asked)?;
    let (before, after) = (handle.kept(Generation(from)).await?, handle.kept(Generation(to)).await?);
    let differences = kakei_config::diff(&before, &after);
    let lines: Vec<String> = differences.iter().flat_map(kakei_config::Change::lines).collect();
    Ok(Json(json!({"from": from, "to": to, "changes": lines, "differences": differences})).into_response())
}
