//! What the operator's documents say, read a second time: which listener a datagram falls to, where its flow may go and
//! what it is held to. Uses nothing that the proxy compiled.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use kakei_config::{Backend, Cluster, Document, Listener, Name, UdpKnobs};
use kakei_proxy::seam::BindKey;

use crate::payload::{self, Headed};

/// What a flow was promised at its admission.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Terms {
    pub(crate) route: Option<Name>,
    pub(crate) cluster: Name,
    pub(crate) config: Rc<Cluster>,
}

/// What must become of a client datagram.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Longer than the listener takes.
    Truncated,
    /// A header that is missing, malformed or not to be trusted.
    BadHeader,
    /// It belongs to this client's flow, or asks for one.
    Good { client: SocketAddr, said_dialled: Option<SocketAddr> },
}

/// A document, read for checking.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) document: Document,
    clusters: Vec<(Name, Rc<Cluster>)>,
}

impl Generation {
    pub(crate) fn new(document: &Document) -> Self {
        let clusters = document.clusters.iter().map(|(name, cluster)| (name.clone(), Rc::new(cluster.clone())));
        Generation { clusters: clusters.collect(), document: document.clone() }
    }

    /// The listener that has this bind.
    pub(crate) fn listener_of(&self, bind: &BindKey) -> Option<(&Name, &Listener)> {
        self.document.listeners.iter().find(|(_, listener)| listener.bind.contains(&bind.address))
    }

    pub(crate) fn cluster(&self, name: &Name) -> Option<&Rc<Cluster>> {
        self.clusters.iter().find(|(known, _)| known == name).map(|(_, cluster)| cluster)
    }

    /// Where a flow of this client goes: the longest network first.
    pub(crate) fn terms(&self, listener: &Name, client: IpAddr) -> Option<Terms> {
        let routes = self.document.routes.iter().filter(|(_, route)| route.listener == *listener);
        let best = routes
            .flat_map(|(name, route)| route.source.iter().map(move |net| (net, name, route)))
            .filter(|(net, _, _)| net.contains(&client))
            .max_by_key(|(net, _, _)| net.prefix_len());
        let (route, cluster) = match best {
            Some((_, name, route)) => (Some(name.clone()), route.cluster.clone()?),
            None => (None, self.document.listeners.get(listener)?.cluster.clone()?),
        };
        let config = Rc::clone(self.cluster(&cluster)?);
        Some(Terms { route, cluster, config })
    }
}

/// What must become of a datagram on this listener.
pub(crate) fn verdict(listener: &Listener, peer: SocketAddr, bytes: &[u8]) -> Verdict {
    if bytes.len() > listener.max_datagram_size as usize {
        return Verdict::Truncated;
    }
    let bare = Verdict::Good { client: peer, said_dialled: None };
    let trusted = &listener.proxy_protocol.trusted;
    if trusted.is_empty() {
        return bare;
    }
    let is_trusted = trusted.iter().any(|net| net.contains(&peer.ip()));
    match (is_trusted, payload::headed(bytes)) {
        (true, Headed::Good(header)) => Verdict::Good { client: header.source, said_dialled: Some(header.destination) },
        (false, Headed::Bare) => bare,
        _ => Verdict::BadHeader,
    }
}

impl Terms {
    pub(crate) fn knobs(&self) -> &UdpKnobs {
        &self.config.udp
    }

    pub(crate) fn backend_at(&self, address: SocketAddr) -> Option<&Backend> {
        self.config.backends.iter().find(|backend| backend.address.ip() == Some(address))
    }
}
