//! Reading and changing what runs: the whole document, or one backend of it. Each change is one transaction.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use kakei_config::{Document, Name};
use kakei_proxy::snapshot::Generation;
use schemars::JsonSchema;
use serde::Deserialize;

use super::beside;
use super::problem::Problem;
use super::terms::Terms;
use crate::access::{Peer, Role};
use crate::edit::{Edit, NewBackend};
use crate::handle::{Handle, Outcome, What};
use crate::refusal::Refusal;
use crate::strict::Object;

type QueryOf<T> = Result<Query<T>, QueryRejection>;

pub(super) fn query<T>(query: QueryOf<T>) -> Result<T, Problem> {
    query.map(|Query(query)| query).map_err(|rejection| Problem::bad_request(rejection.body_text()))
}

type PathOf<T> = Result<Path<T>, PathRejection>;

/// What a path names.
pub(super) fn path<T>(path: PathOf<T>) -> Result<T, Problem> {
    path.map(|Path(path)| path).map_err(|rejection| Problem::bad_request(rejection.body_text()))
}

/// `GET /v1/config`: the document that runs, in canonical form; TOML where the client asks for it.
pub(super) async fn read(
    State(handle): State<Handle>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let view = handle.view();
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let wants_toml = wants_toml(accept);
    let whose = peer.clone();
    let make = move || {
        let document = shown(Document::clone(&view.document), &whose);
        let (media, text) = match wants_toml {
            true => ("application/toml", document.to_toml()),
            false => ("application/json", document.to_json_value().to_string()),
        };
        ([(header::CONTENT_TYPE, media.to_owned()), (header::ETAG, etag(view.generation()))], text).into_response()
    };
    beside::made(&peer, make).await
}

/// Whether TOML is named, and no less welcome than JSON (RFC 9110, 12.5.1).
fn wants_toml(accept: &str) -> bool {
    let ranges: Vec<(&str, f32)> = accept.split(',').filter_map(range).collect();
    let weight =
        |name: &str| ranges.iter().find(|(media, _)| media.eq_ignore_ascii_case(name)).map(|(_, weight)| *weight);
    let toml = weight("application/toml").unwrap_or_default();
    let json = ["application/json", "application/*", "*/*"].into_iter().find_map(weight).unwrap_or_default();
    toml > 0.0 && toml >= json
}

/// A range of media types, and how welcome they are.
fn range(text: &str) -> Option<(&str, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next()?;
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    // What is no number says nothing.
    Some((media, weight.map_or(1.0, |weight| weight.parse().unwrap_or(1.0))))
}

/// A document as it is shown to somebody: its secrets only to those who may change them.
pub(super) fn shown(document: Document, peer: &Peer) -> Document {
    match peer.role() {
        Some(Role::ReadWrite) => document,
        _ => document.without_secrets(),
    }
}

/// `PUT /v1/config`: go over to this document.
pub(super) async fn replace(
    State(handle): State<Handle>,
    terms: Terms,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| Problem::body(&rejection))?;
    let document = parse(&headers, &body)?;
    answer(handle.change(terms.change(What::Document(Box::new(document)))?).await)
}

fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Document, Problem> {
    let text = std::str::from_utf8(body)
        .map_err(|error| Problem::bad_request(format!("the document is not UTF-8: {error}")))?;
    let media = headers.get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or("application/json");
    // Media types have no case (RFC 9110, 8.3.1).
    let parsed = match media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/json" => kakei_config::parse_json(text),
        "application/toml" => kakei_config::parse_toml(text),
        other => {
            let detail = format!("a document is application/toml or application/json, not {other:?}");
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", detail));
        }
    };
    parsed.map_err(|diagnostics| Refusal::Invalid(diagnostics).into())
}

/// `POST /v1/clusters/{cluster}/backends`
pub(super) async fn add_backend(
    State(handle): State<Handle>,
    cluster: PathOf<Name>,
    terms: Terms,
    body: Result<Json<NewBackend>, JsonRejection>,
) -> Result<Response, Problem> {
    let cluster = path(cluster)?;
    let Json(new) = body.map_err(|rejection| Problem::json(&rejection))?;
    edit(&handle, Edit::AddBackend { cluster, backend: new.into() }, terms).await
}

/// `DELETE /v1/clusters/{cluster}/backends/{backend}`
pub(super) async fn remove_backend(
    State(handle): State<Handle>,
    of: PathOf<(Name, Name)>,
    terms: Terms,
) -> Result<Response, Problem> {
    let (cluster, backend) = path(of)?;
    edit(&handle, Edit::RemoveBackend { cluster, backend }, terms).await
}

/// What can be different about a backend.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BackendPatch {
    /// Its share; 0 drains it.
    weight: u32,
}

/// `PATCH /v1/clusters/{cluster}/backends/{backend}`
pub(super) async fn weigh_backend(
    State(handle): State<Handle>,
    of: PathOf<(Name, Name)>,
    terms: Terms,
    body: Result<Json<Object<BackendPatch>>, JsonRejection>,
) -> Result<Response, Problem> {
    let (cluster, backend) = path(of)?;
    let Json(Object(BackendPatch { weight })) = body.map_err(|rejection| Problem::json(&rejection))?;
    edit(&handle, Edit::WeighBackend { cluster, backend, weight }, terms).await
}

async fn edit(handle: &Handle, edit: Edit, terms: Terms) -> Result<Response, Problem> {
    answer(handle.change(terms.change(What::Edits(vec![edit]))?).await)
}

pub(super) fn answer(outcome: Result<Outcome, Refusal>) -> Result<Response, Problem> {
    let outcome = outcome?;
    Ok(([(header::ETAG, etag(outcome.generation))], Json(outcome)).into_response())
}

pub(super) fn etag(generation: Generation) -> String {
    format!("\"{}\"", generation.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_is_given_to_who_likes_it_no_less_than_json() {
        for accept in [
            "application/toml",
            "text/html, Application/TOML",
            "application/toml;q=0.5, application/json;q=0.4",
            "application/toml, */*",
            "application/toml, application/json",
        ] {
            assert!(wants_toml(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "application/toml;q=0",
            "application/toml; q=0.5, application/json",
            "application/toml;q=0.1, */*",
            "application/json",
        ] {
            assert!(!wants_toml(accept), "{accept}");
        }
    }
}
