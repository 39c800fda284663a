//! The admin API: HTTP and JSON, and the little of it that is shown on the metrics address. Read in this order: `operations`
//! (what there is), `guard` (who may), `terms` (under what a change is asked for), then those who serve.
//! Reads what runs from the view; everything else it asks of the owner. Decides nothing about traffic.

mod operations;

mod guard;
mod openapi;
mod problem;
mod terms;

mod beside;
mod certificates;
mod changes;
mod config;
mod drains;
mod events;
mod health;
mod objects;

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

pub use self::openapi::description;
use self::operations::OPERATIONS;
use self::problem::Problem;
use crate::handle::Handle;

/// The longest request body.
pub const MAX_BODY: usize = kakei_config::MAX_DOCUMENT_BYTES;
/// Time in which a request, its body included, must be answered.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// Everything, for those who may: whoever serves it says with each connection who that is.
pub(crate) fn router(handle: Handle) -> Router {
    let routes = OPERATIONS.iter().fold(Router::new(), |router, operation| {
        operation.add_to(router, |serving| guard::dress(operation, serving, &handle))
    });
    bounded(routes, handle)
}

/// What anyone who reaches the metrics address may see.
pub(crate) fn public_router(handle: Handle) -> Router {
    let public = OPERATIONS.iter().filter(|operation| operation.is_public);
    let routes = public.fold(Router::new(), |router, operation| operation.add_to(router, |serving| serving));
    bounded(routes, handle)
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
