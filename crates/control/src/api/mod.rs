//! The admin API: HTTP and JSON on the admin socket, and the little of it that is shown on the metrics address.
//! Reads what runs from the view; everything else it asks of the owner. Decides nothing about traffic.

mod certificates;
mod changes;
mod config;
mod drains;
mod events;
mod objects;
mod problem;
mod terms;

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};

use self::problem::Problem;
use crate::handle::Handle;
use crate::metrics;

/// The longest request body.
pub const MAX_BODY: usize = kakei_config::MAX_DOCUMENT_BYTES;
/// Time in which a request, its body included, must be answered.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// Everything: for the admin socket, which only its owner can open.
pub fn router(handle: Handle) -> Router {
    let api = Router::new()
        .route("/v1/config", get(config::read).put(config::replace))
        .route("/v1/status", get(objects::status))
        .route("/v1/listeners", get(objects::listeners))
        .route("/v1/routes", get(objects::routes))
        .route("/v1/clusters", get(objects::clusters))
        .route("/v1/backends", get(objects::backends))
        .route("/v1/certificates", get(certificates::list))
        .route("/v1/flows", get(objects::flows))
        .route("/v1/connections", get(objects::connections))
        .route("/v1/drains/{kind}/{name}", get(drains::report))
        .route("/v1/changes", post(changes::batch))
        .route("/v1/rollback", post(changes::rollback))
        .route("/v1/confirm", post(changes::confirm_any))
        .route("/v1/diff", get(changes::diff))
        .route("/v1/events", get(events::events))
        .route("/v1/generations", get(objects::generations))
        .route("/v1/generations/{generation}", get(changes::generation))
        .route("/v1/generations/{generation}/confirm", post(changes::confirm))
        .route("/v1/explain", get(objects::explain))
        .route("/v1/clusters/{cluster}/backends", post(config::add_backend))
        .route(
            "/v1/clusters/{cluster}/backends/{backend}",
            delete(config::remove_backend).patch(config::weigh_backend),
        );
    bounded(api.merge(public()), handle)
}

/// What anyone who reaches the metrics address may see.
pub fn public_router(handle: Handle) -> Router {
    bounded(public(), handle)
}

fn public() -> Router<Handle> {
    Router::new()
        .route("/metrics", get(exposition))
        .route("/healthz", get(async || "the process lives\n"))
        .route("/readyz", get(readiness))
}

fn bounded(routes: Router<Handle>, handle: Handle) -> Router {
    routes
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "unknown-path", "there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "this path does not take this method")
        })
        .layer(middleware::from_fn(in_time))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(handle)
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIME, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("the request was not complete or not answered within {} s", REQUEST_TIME.as_secs());
            Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", detail).into_response()
        }
    }
}

async fn exposition(State(handle): State<Handle>) -> Result<Response, Problem> {
    let counters = handle.counters().await?;
    let text = metrics::render(&counters.sums, &counters.process);
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

async fn readiness(State(handle): State<Handle>) -> (StatusCode, String) {
    let view = handle.view();
    let generation = view.generation().0;
    let not_ready = match () {
        () if view.draining => "draining\n".to_owned(),
        () if !view.stopped.is_empty() => "a worker has stopped\n".to_owned(),
        () if !view.acknowledged => format!("generation {generation} is not acknowledged yet\n"),
        () => return (StatusCode::OK, format!("generation {generation} runs\n")),
    };
    (StatusCode::SERVICE_UNAVAILABLE, not_ready)
}
