//! Answers that are as long as the document: made beside the control thread, so that no change waits while they are.

use std::sync::{Arc, LazyLock};

use axum::http::StatusCode;
use axum::response::Response;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::problem::Problem;
use crate::access::{Peer, Role};

/// Each of the two rows makes one answer at a time: those who may only look keep nobody waiting but each other.
static OWNERS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(1)));
static OTHERS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(1)));

/// The answer, its bytes too.
pub(super) async fn made(peer: &Peer, make: impl FnOnce() -> Response + Send + 'static) -> Result<Response, Problem> {
    let row = match peer.role() {
        Some(Role::ReadWrite) => &OWNERS,
        _ => &OTHERS,
    };
    let broken = || Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "broken", "the answer could not be made");
    let turn = Arc::clone(row).acquire_owned().await.map_err(|_| broken())?;
    // Whoever asked may go meanwhile; the turn lasts until the work is done.
    let work = move || (make(), turn).0;
    spawn_blocking(work).await.map_err(|_| broken())
}
