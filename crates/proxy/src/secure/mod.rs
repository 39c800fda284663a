//! TLS, between the machine's bytes and whoever a stream belongs to: those never know of it. Read in this order:
//! `certificate` and `shelf` (who a listener is), `tickets`, `listener` and `cluster` (their TLS, compiled), `session`
//! and `turn` (rustls, as bytes in and out), `client` (whose certificate a client showed), `stream` (a stream under TLS),
//! `dial` (where a backend's begins), `handshake` (until it may be used), `receive` (from then on), `seal` (what is written
//! to it becomes records). Knows nothing of relays, requests and routes.

mod certificate;
mod client;
mod cluster;
mod dial;
mod handshake;
mod listener;
mod materials;
mod receive;
mod seal;
mod session;
mod shelf;
mod stream;
mod tickets;
mod turn;
mod verifier;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use slotmap::SecondaryMap;

pub use self::certificate::{Certificate, KeyKind};
pub use self::cluster::{Anybody, ClusterTls};
use self::dial::Known;
pub(crate) use self::dial::Way;
pub use self::listener::ListenerTls;
pub(crate) use self::materials::Stale;
pub use self::materials::{Materials, Revoked};
pub(crate) use self::receive::Took;
use self::session::Room;
use self::stream::Stream;
pub use self::tickets::{LIFETIME, TicketKeys};
pub use self::verifier::clients as client_verifier;
use crate::cluster::{BackendKey, ClusterKey};
use crate::record::{CloseReason, TlsDetail};
use crate::seam::{Op, SocketId};

/// The streams of a worker that are under TLS.
#[derive(Debug, Default)]
pub(crate) struct Secure {
    streams: SecondaryMap<SocketId, Box<Stream>>,
    /// Those with something of a handshake to be looked at.
    queue: Queue,
    /// Those with records that were made and not asked to be written yet.
    dirty: Vec<SocketId>,
    /// Backends that handshakes were begun with.
    known: BTreeMap<(ClusterKey, BackendKey), Known>,
    /// Room for what comes out of one stream at a time.
    plain: Vec<u8>,
    /// Room for what goes in or out of one at a time, as it is there.
    room: Room,
    /// Room for a step's operations.
    ops: Vec<Op>,
}

/// Streams whose handshakes wait for their turn, the longest wait first. Those with backends have a row of their own: they
/// are as many as requests and health checks ask for, and clients that come in crowds must not make backends look slow.
#[derive(Debug, Default)]
struct Queue {
    clients: VecDeque<SocketId>,
    backends: VecDeque<SocketId>,
}

/// Who may be spoken to.
#[derive(Debug)]
pub(crate) enum Opened {
    /// A client whose handshake isn't over: what it sends may have been sent before, by anybody.
    Early(Arc<Secured>),
    Client(Arc<Secured>),
    Backend(Arc<TlsDetail>),
}

/// What a stream turned out to be, once its handshake was over.
#[derive(Debug)]
pub(crate) struct Secured {
    /// What was agreed on.
    pub(crate) detail: Arc<TlsDetail>,
    /// What the client was shown.
    pub(crate) certificate: Arc<Certificate>,
    /// The protocols to route by: what was agreed on, or else what the client offered.
    pub(crate) alpn: Vec<Vec<u8>>,
}

/// What whoever a stream belongs to is to be told, in this order.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Its handshake is over, or it has something to say before.
    pub(crate) opened: Option<Opened>,
    /// It takes nothing for now.
    pub(crate) is_blocked: bool,
    /// What came.
    pub(crate) plain: Vec<u8>,
    /// It came to an end.
    pub(crate) end: Option<End>,
}

/// How a stream ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The peer sends nothing more, and said so.
    Closed,
    /// The peer went, and what came may not be all; with what is wrong in words, where there are any.
    Broken(CloseReason, Option<String>),
    /// It never came to be of use. Its peer was told why, as far as it would understand.
    Refused(CloseReason, Arc<TlsDetail>),
    /// It never came to be of use, and nothing was begun.
    Gone,
}

impl Secure {
    /// Whether that stream is under TLS.
    pub(crate) fn holds(&self, socket: SocketId) -> bool {
        !self.streams.is_empty() && self.streams.contains_key(socket)
    }

    /// Whether that stream's handshake isn't over.
    pub(crate) fn shakes_hands(&self, socket: SocketId) -> bool {
        self.streams.get(socket).is_some_and(|stream| stream.is_opening())
    }

    /// Whether a handshake waits for its turn.
    pub(crate) fn is_behind(&self) -> bool {
        !self.queue.clients.is_empty() || !self.queue.backends.is_empty()
    }

    /// A buffer is of no more use.
    pub(crate) fn give_back(&mut self, mut plain: Vec<u8>) {
        plain.clear();
        self.plain = plain;
    }
}
