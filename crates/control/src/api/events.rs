//! `GET /v1/events`: what happens, as server-sent events. Who reads slowly misses what was forgotten meanwhile, and is told
//! so by the numbers; who comes again with `Last-Event-ID` goes on where it was.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use tokio::sync::mpsc;

use crate::access::Peer;
use crate::events::{Event, Events};
use crate::handle::Handle;

/// Events that wait for one reader.
const WAITING: usize = 16;
/// So often something is sent, so that who went away is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) async fn events(
    State(handle): State<Handle>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    let events = handle.events().clone();
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.trim().parse().ok());
    let from = events.behind(last);
    let (texts, inbox) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        tokio::select! {
            () = tell(events, from, texts) => {}
            () = peer.expelled() => {}
        }
    });
    let fields = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (fields, Body::new(Stream(inbox))).into_response()
}

/// Tell one reader everything from there on, until it goes.
async fn tell(events: Events, mut last: u64, texts: mpsc::Sender<String>) {
    let mut newest = events.newest();
    // The head goes out at once.
    if texts.send(": events\n\n".to_owned()).await.is_err() {
        return;
    }
    loop {
        newest.mark_unchanged();
        for event in events.after(last) {
            last = event.id;
            if texts.send(text(&event)).await.is_err() {
                return;
            }
        }
        let heard = tokio::select! {
            changed = newest.changed() => changed.is_ok(),
            () = tokio::time::sleep(KEEP_ALIVE) => texts.send(": nothing new\n\n".to_owned()).await.is_ok(),
            () = texts.closed() => false,
        };
        if !heard {
            return;
        }
    }
}

fn text(event: &Arc<Event>) -> String {
    let data = serde_json::to_value(event).expect("its keys are strings");
    let name = data["event"].as_str().unwrap_or_default();
    format!("id: {}\nevent: {name}\ndata: {data}\n\n", event.id)
}

/// Texts as a body without an end of its own.
struct Stream(mpsc::Receiver<String>);

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|text| text.map(|text| Ok(Frame::data(text.into()))))
    }
}
