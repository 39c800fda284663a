//! How hyper's server reads the bytes of a client, over a connection in memory, polled by hand: no runtime, no time.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::HeaderValue;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};

use super::{Message, Reading, Why};

/// A connection that says all of its bytes and ends, and takes everything.
struct Wire<'a>(&'a [u8]);

impl Read for Wire<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let (now, later) = self.0.split_at(self.0.len().min(buf.remaining()));
        buf.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The body of every answer.
struct Nothing;

impl Body for Nothing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

/// Every request of the bytes, until they end, the connection does, or something is refused.
pub(crate) fn read(bytes: &[u8]) -> Reading {
    let (tell, told) = mpsc::channel();
    let service = service_fn(|request: Request<Incoming>| {
        let tell = tell.clone();
        async move {
            let ends = *request.method() == Method::CONNECT;
            let message = message(&request);
            let read = content(request.into_body()).await.map(|body| Message { body, ..message });
            tell.send(read).expect("somebody listens");
            let mut answer = Response::new(Nothing);
            if ends {
                *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
                answer.headers_mut().insert("connection", HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut connection = pin!(http1::Builder::new().half_close(true).serve_connection(Wire(bytes), service));
    let mut context = Context::from_waker(Waker::noop());
    // It yields now and then; with all the bytes at hand it never waits.
    let ended = (0..10_000).find_map(|_| match connection.as_mut().poll(&mut context) {
        Poll::Ready(ended) => Some(ended),
        Poll::Pending => None,
    });
    let ended = ended.expect("it ends");
    let (mut messages, mut refused) = (Vec::new(), None);
    for read in told.try_iter() {
        match read {
            Ok(message) => messages.push(message),
            Err(error) => refused = refusal(&error),
        }
    }
    let refused = refused.or_else(|| ended.err().as_ref().and_then(refusal));
    Reading { messages, refused, closes: false }
}

/// What is cut off is no refusal.
fn refusal(error: &hyper::Error) -> Option<Why> {
    (!error.is_incomplete_message()).then(|| Why::Theirs(format!("{error:?}")))
}

fn message(request: &Request<Incoming>) -> Message {
    let uri = request.uri();
    let mut message = Message {
        method: request.method().to_string(),
        authority: uri.authority().map(ToString::to_string),
        target: uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        is_old: request.version() == Version::HTTP_10,
        ..Message::default()
    };
    for (name, value) in request.headers() {
        message.fields.entry(name.to_string()).or_default().push(value.as_bytes().to_vec());
    }
    message
}

async fn content(mut body: Incoming) -> Result<Vec<u8>, hyper::Error> {
    let mut content = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        if let Ok(data) = frame?.into_data() {
            content.extend_from_slice(&data);
        }
    }
    Ok(content)
}
