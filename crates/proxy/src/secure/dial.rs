//! Streams to backends: where a handshake begins on our side, and what is known of a backend from earlier ones, which
//! is this worker's alone. Who is told of it is decided elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::Error;
use rustls::client::{ClientConfig, UnbufferedClientConnection};
use rustls::pki_types::ServerName;

use super::Secure;
use super::cluster::{self, ClusterTls};
use super::session::{Connection, Session};
use super::stream::{Peer, Stage, Stream};
use crate::cluster::{BackendKey, ClusterKey};
use crate::seam::{SocketId, Wall};
use crate::world::World;

/// Where a stream leads, and what it begins with.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) place: (ClusterKey, BackendKey),
    /// Whether it carries requests.
    pub(crate) is_http: bool,
    /// What goes before TLS.
    pub(crate) introduction: Vec<u8>,
}

/// A handshake that is about to begin.
#[derive(Debug)]
pub(super) struct Dial {
    config: Arc<ClientConfig>,
    server: ServerName<'static>,
}

/// A backend, as it is known from earlier handshakes.
#[derive(Debug)]
pub(super) struct Known {
    tls: Arc<ClusterTls>,
    config: ClientConfig,
}

impl Secure {
    /// A stream to a backend is open: its handshake takes its turn.
    pub(crate) fn dial(&mut self, world: &World, wall: Wall, socket: SocketId, way: Way) {
        let dial = dial(&mut self.known, world, wall, &way).map(Box::new);
        let mut stream = Stream::new(Peer::Backend(way.place), Stage::Dialling(dial));
        stream.output = way.introduction;
        self.streams.insert(socket, Box::new(stream));
        self.queue(socket);
    }

    /// What backends are held to may have changed, and some may be gone.
    pub(crate) fn forget_backends(&mut self, world: &World) {
        self.known.retain(|(cluster, backend), known| {
            let cluster = world.clusters.get(*cluster).filter(|cluster| cluster.backends.contains_key(*backend));
            cluster.and_then(|cluster| cluster.spec.tls.as_ref()).is_some_and(|tls| Arc::ptr_eq(tls, &known.tls))
        });
    }
}

fn dial(known: &mut BTreeMap<(ClusterKey, BackendKey), Known>, world: &World, wall: Wall, way: &Way) -> Option<Dial> {
    let cluster = world.clusters.get(way.place.0)?;
    let tls = cluster.spec.tls.as_ref()?;
    let server = tls.server(&cluster.backends.get(way.place.1)?.spec.name)?;
    if known.get(&way.place).is_none_or(|known| !Arc::ptr_eq(&known.tls, tls)) {
        known.insert(way.place, Known { tls: Arc::clone(tls), config: tls.config()? });
    }
    let protocols = match way.is_http {
        true => vec![b"http/1.1".to_vec()],
        false => tls.spec.alpn.iter().map(|name| name.clone().into_bytes()).collect(),
    };
    Some(Dial { config: cluster::at(&known[&way.place].config, wall, &protocols), server })
}

impl Dial {
    /// Say the first word.
    pub(super) fn begin(self) -> Result<Session, Error> {
        let connection = UnbufferedClientConnection::new(self.config, self.server)?;
        Ok(Session::new(Connection::Client(connection), false))
    }
}
