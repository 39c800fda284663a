//! `GET /v1/drains/{kind}/{name}`: who still holds something.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use kakei_config::Name;
use kakei_proxy::limits::PER_LISTING;
use schemars::JsonSchema;
use serde::Deserialize;

use super::config::{path, query};
use super::problem::Problem;
use crate::drains::{self, Found, Held, Kind, Report, SHOWN};
use crate::handle::Handle;

/// What else may be said.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DrainQuery {
    /// A backend's cluster.
    cluster: Option<Name>,
    /// Holders that are shown.
    limit: Option<usize>,
}

pub(super) async fn report(
    State(handle): State<Handle>,
    of: Result<Path<(Kind, Name)>, PathRejection>,
    asked: Result<Query<DrainQuery>, QueryRejection>,
) -> Result<Json<Report>, Problem> {
    let (kind, name) = path(of)?;
    let DrainQuery { cluster, limit } = query(asked)?;
    if (kind == Kind::Backend) != cluster.is_some() {
        return Err(Problem::bad_request("`cluster` says whose backend is meant, and nothing else"));
    }
    let held = Held { kind, name, cluster };
    // Two questions and a count: what ends between them is held a moment longer here than it is.
    let (flows, connections) =
        (handle.flows(held.filter(PER_LISTING)).await?, handle.connections(held.filter(PER_LISTING)).await?);
    let found = Found { flows, connections, sums: handle.counters().await?.sums };
    let shown = limit.unwrap_or(SHOWN).min(PER_LISTING);
    Ok(Json(drains::report(&handle.view(), &held, found, shown)?))
}
