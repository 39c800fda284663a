//! Who may: asked before an operation reads a byte of its body, and again when a change of it is handed to the owner. What is
//! refused here, or never comes to be whole, has its audit line from here. Serves nothing itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::extract::{Extension, Request};
use axum::http::{StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;

use super::operations::Operation;
use super::problem::{Detail, Problem};
use super::terms;
use crate::access::{Peer, Role};
use crate::audit::{Came, Record};
use crate::handle::{Asked, Handle};
use crate::view::View;

/// Have an operation served to those who may, and to nobody else.
pub(super) fn dress(operation: &Operation, serving: MethodRouter<Handle>, handle: &Handle) -> MethodRouter<Handle> {
    // What is public is asked by machines that may add what they like, as at the metrics address.
    let asks_nothing = operation.query.is_none() && !operation.is_public;
    let (needs, handle) = (operation.needs, handle.clone());
    serving.route_layer(middleware::from_fn(move |peer: Option<Extension<Peer>>, request: Request, next| {
        let is_idle = asks_nothing && request.uri().query().is_some_and(|query| !query.is_empty());
        guard((needs, is_idle), handle.clone(), peer.map(|Extension(peer)| peer), request, next)
    }))
}

/// `is_idle`: it has a query, of an operation that knows none.
async fn guard(
    (needs, is_idle): (Role, bool),
    handle: Handle,
    peer: Option<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(peer) = peer else {
        return Problem::new(StatusCode::FORBIDDEN, "forbidden", "nobody said who asks").into_response();
    };
    let attempt = (needs == Role::ReadWrite).then(|| Arc::new(Attempt::of(&handle, &peer, &request)));
    if peer.role() < Some(needs) {
        let problem = forbidden(&peer, needs);
        attempt.iter().for_each(|attempt| attempt.forbidden(problem.detail()));
        return problem.into_response();
    }
    if let Some(attempt) = &attempt {
        request.extensions_mut().insert(Arc::clone(attempt));
    }
    let response = match is_idle {
        true => Problem::bad_request("nothing is known here that could stand in the query").into_response(),
        false => next.run(request).await,
    };
    peer.guest.serve(false);
    if let Some(attempt) = attempt {
        // Where the owner has heard of it, what is said of it is its own.
        match response.extensions().get() {
            Some(Detail { is_cut: true, .. }) => {}
            Some(Detail { text, .. }) if response.status() == StatusCode::FORBIDDEN => attempt.forbidden(text),
            Some(Detail { text, .. }) => attempt.refused(text),
            None => attempt.refused(response.status().as_str()),
        }
    }
    response
}

pub(super) fn forbidden(peer: &Peer, needs: Role) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "forbidden", peer.lacks(needs))
}

/// A change that is asked for, as long as the owner has not heard of it: then its audit line is the owner's.
pub(super) struct Attempt {
    handle: Handle,
    asked: Asked,
    /// Whether it is no change, but only asked what one would be.
    is_question: bool,
    /// Whether who asks may do nothing at all.
    is_strange: bool,
    is_told: AtomicBool,
}

impl Attempt {
    fn of(handle: &Handle, peer: &Peer, request: &Request) -> Self {
        let is_strange = peer.role().is_none();
        let asked = Asked {
            message: terms::message_of(request.uri()),
            ..asked(peer, request.method().as_str(), request.uri())
        };
        let is_question = terms::is_question(request.uri());
        Attempt { handle: handle.clone(), asked, is_question, is_strange, is_told: AtomicBool::new(false) }
    }

    /// It is the owner's from now on, by whom it is asked for.
    pub(super) fn hand_over(&self) {
        self.is_told.store(true, Ordering::Relaxed);
    }

    fn refused(&self, reason: &str) {
        if self.is_told.swap(true, Ordering::Relaxed) || self.is_question {
            return;
        }
        match self.is_strange {
            true => self.handle.turned_away(&self.asked, reason),
            false => self.handle.refused(&self.asked, reason),
        }
    }

    /// For want of a role: a question has its line, too.
    fn forbidden(&self, reason: &str) {
        if self.is_question {
            self.hand_over();
            let record = self.record().refused(reason);
            match self.is_strange {
                true => self.handle.audit.write_stranger(Instant::now(), record),
                false => self.handle.audit.write(&record),
            }
        }
        self.refused(reason);
    }

    fn record(&self) -> Record {
        Record::of(&self.asked, View::generation(&self.handle.view()))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.is_told.swap(true, Ordering::Relaxed) && !self.is_question {
            let reason = Some("it was broken off before it was whole".to_owned());
            self.handle.audit.write(&Record { outcome: Came::Abandoned, reason, ..self.record() });
        }
    }
}

/// Who asks, where they are, and how.
pub(super) fn asked(peer: &Peer, method: &str, uri: &Uri) -> Asked {
    Asked {
        origin: "api",
        by: peer.name(),
        from: peer.from().map(|from| from.to_string()),
        operation: Some(format!("{method} {}", uri.path())),
        message: None,
    }
}
