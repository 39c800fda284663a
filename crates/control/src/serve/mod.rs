//! HTTP connections, bounded: how many, how long, how slow. One request a connection. Knows no path.

mod door;
mod guests;
mod remote;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

pub use self::door::Door;
pub(crate) use self::guests::Guest;
use self::guests::Guests;
pub(crate) use self::remote::serve_remote;
use crate::access::Peer;

/// Time in which a request's head must have come.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Time in which a connection must be over, body, answer and all.
const CONNECTION_TIME: Duration = Duration::from_secs(60);

/// Why a side door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Another process answers there.
    #[error("the admin socket {0} is in use by a running process; stop that, or choose another path in [admin] socket")]
    InUse(PathBuf),
    /// No socket can have this path.
    #[error("the admin socket {0} can't be made: a socket's path has at most 107 bytes; choose a shorter one")]
    TooLong(PathBuf),
    /// Something else than a socket is there.
    #[error("the admin socket {0} can't be made: there is a file of that name that is not a socket; remove it")]
    NotASocket(PathBuf),
    /// The file system refused.
    #[error("the admin socket {path} can't be made: {error}")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What was said.
        error: io::Error,
    },
    /// The metrics address can't be bound.
    #[error("the metrics address {address} can't be bound: {error}; choose another in [admin] metrics")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// What was said.
        error: io::Error,
    },
}

/// Bind the metrics address.
pub async fn bind_metrics(address: SocketAddr) -> Result<TcpListener, DoorError> {
    TcpListener::bind(address).await.map_err(|error| DoorError::Metrics { address, error })
}

/// Serve on TCP, whoever it is, until the future is dropped.
pub async fn serve_tcp(mut listener: TcpListener, router: Router) {
    let guests = Guests::new();
    loop {
        let (stream, _) = Listener::accept(&mut listener).await;
        let guest = guests.enter().await;
        spawn(stream, router.clone(), None, guest);
    }
}

/// Let in whoever comes. `Listener::accept` rests after an error of its own accord, so that a missing descriptor makes no
/// busy loop.
async fn accept<L: Listener>(
    listener: &mut L,
    guests: &Guests,
    router: &Router,
    know: impl Fn(&L::Io, &Arc<Guest>) -> Peer,
) {
    loop {
        let (stream, _) = listener.accept().await;
        let guest = guests.enter().await;
        let peer = know(&stream, &guest);
        guests.know(&guest, peer.role());
        spawn(stream, router.clone(), Some(peer), guest);
    }
}

/// Serve a connection by itself, until it is over or has to make room.
fn spawn(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    peer: Option<Peer>,
    guest: Arc<Guest>,
) {
    tokio::spawn(async move {
        tokio::select! {
            () = connection(stream, router, peer) => {}
            () = guest.must_go() => {}
        }
    });
}

/// One connection; its requests are those of `peer`, where that is known.
async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router, peer: Option<Peer>) {
    let routes = TowerToHyperService::new(router);
    // Not as a layer of the router: that is made anew for each route there is.
    let service = service_fn(move |mut request: Request<Incoming>| {
        if let Some(peer) = &peer {
            request.extensions_mut().insert(peer.clone());
        }
        routes.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // A client that went away or ran out of time learns nothing from us, and nobody else cares.
    let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
}
