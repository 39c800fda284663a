//! A client connects by a stream: whether it is let in, who it is, what it is counted as. The same for every protocol
//! over streams. Nothing is allocated before it is let in; what the connection is for is the protocol's.

use std::net::{IpAddr, SocketAddr};

use kakei_config::{Name, Refuse};
use serde::{Deserialize, Serialize};

use crate::client::Believed;
use crate::listener::{Bounds, ListenerKey, LiveListener, Over};
use crate::record::{CloseReason, Detail, Record};
use crate::seam::{Accepted, Instant, Op};
use crate::stats::{ListenerMetric, Refusal};
use crate::world::{Tick, World};

/// How a connection is counted by its client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Counted {
    /// The client isn't known yet.
    Nowhere,
    /// By its address, and by the network that begins with this address.
    In(IpAddr),
}

/// A client that was let in.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) at: Instant,
    pub(crate) listener: ListenerKey,
    /// The socket that connected.
    pub(crate) peer: SocketAddr,
    /// The address that it dialled.
    pub(crate) local: SocketAddr,
    pub(crate) believed: Option<Box<Believed>>,
    pub(crate) counted: Counted,
}

impl Arrived {
    /// Who the client is: as an inbound header said it, or as seen.
    pub(crate) fn client(&self) -> SocketAddr {
        self.believed.as_ref().map_or(self.peer, |believed| believed.source)
    }

    /// The address that the client dialled.
    pub(crate) fn dialled(&self) -> SocketAddr {
        self.believed.as_ref().map_or(self.local, |believed| believed.destination)
    }

    /// What is written down of it where nothing of it was routed.
    pub(crate) fn unrouted(
        &self,
        listener: Name,
        (since, now): (Instant, Instant),
        (reason, detail): (CloseReason, Detail),
    ) -> Record {
        Record {
            listener,
            route: None,
            cluster: None,
            backend: None,
            backend_address: None,
            client: self.client(),
            local: self.dialled(),
            admitted: since,
            duration: now - since,
            request_bytes: 0,
            response_bytes: 0,
            reason,
            detail,
        }
    }
}

/// Let a client in that connected, or turn it away.
pub(crate) fn admit(world: &mut World, tick: &mut Tick<'_>, accepted: &Accepted) -> Option<Arrived> {
    let arrival = accepted.arrival;
    let Some(front) = world.front_mut(accepted.front) else {
        tick.ask(Op::Refuse { arrival, how: Refuse::Reset });
        return None;
    };
    let (key, draining) = (front.listener, front.draining.is_some());
    let listener = &mut world.listeners[key];
    let counted = match let_in(listener, tick.now, (accepted.peer.ip(), draining)) {
        Ok(counted) => counted,
        Err(reason) => {
            listener.turn_away(reason);
            let how = if reason == Refusal::Draining { Refuse::Reset } else { listener.spec.limits.refuse };
            tick.ask(Op::Refuse { arrival, how });
            return None;
        }
    };
    listener.values[ListenerMetric::ConnectionsOpened] += 1;
    listener.values[ListenerMetric::ConnectionsLive] += 1;
    Some(Arrived { at: tick.now, listener: key, peer: accepted.peer, local: accepted.local, believed: None, counted })
}

/// The client that a PROXY header names counts from now on. None where it has as many as it may.
pub(crate) fn count_client(world: &mut World, listener: ListenerKey, source: IpAddr) -> Option<Counted> {
    let listener = &mut world.listeners[listener];
    let bounds = Bounds::of_connections(&listener.spec.limits);
    match listener.admission.admit_source(source, &bounds) {
        Ok(()) => Some(Counted::In(listener.admission.take_network(source, listener.spec.limits.source_network))),
        Err(over) => {
            listener.turn_away(refusal(over));
            None
        }
    }
}

/// Count one that was let in before its worker was written down.
pub(crate) fn count_again(world: &mut World, listener: ListenerKey, counted: Counted, client: IpAddr) {
    let listener = &mut world.listeners[listener];
    listener.values[ListenerMetric::ConnectionsLive] += 1;
    let admission = &mut listener.admission;
    match counted {
        Counted::Nowhere => admission.take_unknown(),
        Counted::In(network) => {
            admission.take(client);
            admission.take_network_again(network);
        }
    }
}

/// Give back what `admit` took, and `count_client`.
pub(crate) fn release(world: &mut World, listener: ListenerKey, counted: Counted, client: IpAddr) {
    let listener = &mut world.listeners[listener];
    listener.values[ListenerMetric::ConnectionsLive] -= 1;
    match counted {
        Counted::Nowhere => listener.admission.release(None),
        Counted::In(network) => {
            listener.admission.release_network(network);
            listener.admission.release(Some(client));
        }
    }
}

fn let_in(listener: &mut LiveListener, now: Instant, (peer, draining): (IpAddr, bool)) -> Result<Counted, Refusal> {
    if draining {
        return Err(Refusal::Draining);
    }
    if let Some(tls) = &listener.spec.tls
        && listener.values[ListenerMetric::HandshakesLive] >= u64::from(tls.handshakes)
    {
        return Err(Refusal::HandshakeLimit);
    }
    let bounds = Bounds::of_connections(&listener.spec.limits);
    if listener.spec.trusted.is_empty() {
        listener.admission.admit(now, peer, &bounds).map_err(refusal)?;
        return Ok(Counted::In(listener.admission.take_network(peer, listener.spec.limits.source_network)));
    }
    if !listener.spec.trusted.iter().any(|network| network.contains(&peer)) {
        return Err(Refusal::Untrusted);
    }
    listener.admission.admit_unknown(now, &bounds).map_err(refusal)?;
    Ok(Counted::Nowhere)
}

fn refusal(over: Over) -> Refusal {
    match over {
        Over::Live => Refusal::ConnectionLimit,
        Over::Source => Refusal::SourceLimit,
        Over::Network => Refusal::NetworkLimit,
        Over::Rate => Refusal::RateLimit,
    }
}
