//! What whoever watches the process asks: metrics, whether it lives, whether clients may be sent here.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use crate::handle::Handle;
use crate::metrics;

pub(super) async fn exposition(State(handle): State<Handle>) -> Result<Response, Problem> {
    let counters = handle.counters().await?;
    let text = metrics::render(&counters.sums, &counters.process);
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

pub(super) async fn alive() -> &'static str {
    "the process lives\n"
}

pub(super) async fn readiness(State(handle): State<Handle>) -> (StatusCode, String) {
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
