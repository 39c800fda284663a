//! Many changes as one, and the way back: batches, confirmations, rollbacks, what generations were and how they differ.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use kakei_proxy::snapshot::Generation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::beside;
use super::config::{answer, etag, path, query, shown};
use super::problem::Problem;
use super::terms::Terms;
use crate::access::{Peer, Role};
use crate::edit::Edit;
use crate::handle::{Handle, What};
use crate::strict::Object;

/// The most edits of one transaction.
const EDITS: usize = 100_000;

/// `POST /v1/changes`: all of them as one transaction.
pub(super) async fn batch(
    State(handle): State<Handle>,
    terms: Terms,
    body: Result<Json<Vec<Object<Edit>>>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(edits) = body.map_err(|rejection| Problem::json(&rejection))?;
    if edits.is_empty() || edits.len() > EDITS {
        return Err(Problem::bad_request(format!("a transaction is a list of 1 to {EDITS} changes")));
    }
    let edits = edits.into_iter().map(|Object(edit)| edit).collect();
    answer(handle.change(terms.change(What::Edits(edits))?).await)
}

/// Where to go back to.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Back {
    /// The generation; without it, the one that ran before.
    to: Option<Generation>,
}

/// `POST /v1/rollback`
pub(super) async fn rollback(
    State(handle): State<Handle>,
    terms: Terms,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| Problem::body(&rejection))?;
    let Object(Back { to }) = match body.trim_ascii() {
        [] => Object(Back::default()),
        body => serde_json::from_slice(body)
            .map_err(|error| Problem::bad_request(format!("the body is {{\"to\": GENERATION}}: {error}")))?,
    };
    answer(handle.change(terms.change(What::Rollback(to))?).await)
}

/// What stays.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Confirmed {
    /// The generation.
    generation: Generation,
}

type Number = Result<Path<u64>, PathRejection>;

fn number(number: Number) -> Result<Generation, Problem> {
    Ok(Generation(path(number)?))
}

/// `POST /v1/generations/{generation}/confirm`
pub(super) async fn confirm(
    State(handle): State<Handle>,
    generation: Number,
    terms: Terms,
) -> Result<Json<Confirmed>, Problem> {
    let generation = handle.confirm(Some(number(generation)?), terms.only_asked()?).await?;
    Ok(Json(Confirmed { generation }))
}

/// `POST /v1/confirm`: whichever waits.
pub(super) async fn confirm_any(State(handle): State<Handle>, terms: Terms) -> Result<Json<Confirmed>, Problem> {
    let generation = handle.confirm(None, terms.only_asked()?).await?;
    Ok(Json(Confirmed { generation }))
}

/// `GET /v1/generations/{generation}`: its document.
pub(super) async fn generation(
    State(handle): State<Handle>,
    Extension(peer): Extension<Peer>,
    asked: Number,
) -> Result<Response, Problem> {
    let generation = number(asked)?;
    let (kept, whose) = (handle.kept(generation).await?, peer.clone());
    let make = move || {
        let document = shown(kept, &whose);
        ([(header::ETAG, etag(generation))], Json(document.to_json_value())).into_response()
    };
    beside::made(&peer, make).await
}

/// Which generations.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Span {
    from: u64,
    to: u64,
}

/// What makes one generation of another.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Differences {
    /// The one to start from.
    from: u64,
    /// The one to come to.
    to: u64,
    /// In words, one line for each.
    changes: Vec<String>,
    /// Object by object, and option by option.
    differences: Vec<kakei_config::Change>,
}

/// `GET /v1/diff?from=&to=`: what makes one generation of another.
pub(super) async fn diff(
    State(handle): State<Handle>,
    Extension(peer): Extension<Peer>,
    asked: Result<Query<Span>, QueryRejection>,
) -> Result<Response, Problem> {
    let Span { from, to } = query(asked)?;
    let (before, after) = (handle.kept(Generation(from)).await?, handle.kept(Generation(to)).await?);
    let sees_all = matches!(peer.role(), Some(Role::ReadWrite));
    let make = move || {
        let differences = match sees_all {
            true => kakei_config::diff(&before, &after),
            false => kakei_config::diff_without_secrets(&before, &after),
        };
        let changes = differences.iter().flat_map(kakei_config::Change::lines).collect();
        Json(Differences { from, to, changes, differences }).into_response()
    };
    beside::made(&peer, make).await
}
