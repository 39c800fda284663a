//! The API over TCP: TLS first, and in it a certificate of the client. Who can't show a good one never gets to say anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tracing::{error, warn};

use super::connection;
use super::guests::{Guest, Guests};
use crate::access::{Client, Peer, Rules};
use crate::doors::Remote;

/// Time in which a handshake must be over.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// Refused handshakes are told so often at most.
const PAUSE: Duration = Duration::from_secs(1);

/// Serve wherever the rules have it, until the future is dropped. Connections that are let in outlive the address that they
/// came by.
pub(crate) async fn serve_remote(mut rules: watch::Receiver<Arc<Rules>>, router: Router) {
    let hall = Arc::new(Hall { guests: Guests::new(), rules: rules.clone(), router, refused: Refused::default() });
    loop {
        let remote = rules.borrow_and_update().remote.clone();
        let listener = remote.as_ref().map(|remote| Arc::clone(&remote.listener));
        let moved = async {
            loop {
                rules.changed().await?;
                let now = rules.borrow_and_update().remote.as_ref().map(|remote| Arc::clone(&remote.listener));
                if now.as_ref().map(Arc::as_ptr) != listener.as_ref().map(Arc::as_ptr) {
                    return Ok::<_, watch::error::RecvError>(());
                }
            }
        };
        let accepting = async {
            match &remote {
                Some(remote) => accept(remote, &hall).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = accepting => {}
            moved = moved => if moved.is_err() { return },
        }
    }
}

/// What all connections have in common.
struct Hall {
    guests: Guests,
    rules: watch::Receiver<Arc<Rules>>,
    router: Router,
    refused: Refused,
}

async fn accept(remote: &Remote, hall: &Arc<Hall>) {
    let copied = remote.listener.try_clone().and_then(TcpListener::from_std);
    let mut listener = match copied {
        Ok(listener) => listener,
        Err(error) => {
            error!("the admin API can't be served at {}: {error}", remote.local);
            return std::future::pending().await;
        }
    };
    loop {
        let (stream, from) = Listener::accept(&mut listener).await;
        let guest = hall.guests.enter().await;
        let hall = Arc::clone(hall);
        tokio::spawn(async move {
            tokio::select! {
                () = welcome(stream, from, &hall, &guest) => {}
                () = guest.must_go() => {}
            }
        });
    }
}

/// One connection, by the rules of the moment in which it begins.
async fn welcome(stream: TcpStream, from: SocketAddr, hall: &Hall, guest: &Arc<Guest>) {
    // Not the whole of it, which holds the address.
    let parts = |remote: &Arc<Remote>| (Arc::clone(&remote.config), Arc::clone(&remote.verifier));
    let standing = hall.rules.borrow().remote.as_ref().map(parts);
    let Some((config, verifier)) = standing else { return };
    let handshake = TlsAcceptor::from(config).accept(stream);
    let stream = match tokio::time::timeout(HANDSHAKE_TIME, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return hall.refused.tell(from, &error.to_string()),
        Err(_) => return hall.refused.tell(from, "its handshake was not over in time"),
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
    let client = Client::of(chain.into_iter().map(|der| der.into_owned()).collect(), from, verifier);
    let peer = Peer::client(client, hall.rules.clone(), Arc::clone(guest));
    hall.guests.know(guest, peer.role());
    connection(stream, hall.router.clone(), Some(peer)).await;
}

/// Tells of clients that were refused, sparingly: anybody can be one.
#[derive(Default)]
struct Refused {
    untold: AtomicU64,
    told: std::sync::Mutex<Option<Instant>>,
}

impl Refused {
    fn tell(&self, from: SocketAddr, why: &str) {
        let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if told.is_some_and(|told| told.elapsed() < PAUSE) {
            self.untold.fetch_add(1, Ordering::Relaxed);
            return;
        }
        *told = Some(Instant::now());
        match self.untold.swap(0, Ordering::Relaxed) {
            0 => warn!("a client of the admin API was refused: {from}: {why}"),
            more => warn!("a client of the admin API was refused, and {more} before it: {from}: {why}"),
        }
    }
}
