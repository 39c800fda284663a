//! What happens to streams: to the relay or the health check that it belongs to. Composes; decides nothing.

use std::sync::Arc;

use crate::arrival;
use crate::cluster::{BackendKey, ClusterKey};
use crate::health::Check;
use crate::http::{SessionId, UpstreamId};
use crate::record::TlsDetail;
use crate::relay::{Due, RelayId, Side};
use crate::seam::{Accepted, OpenError, SocketId, Span};
use crate::secure::Way;
use crate::stats::{ListenerMetric, WorkerMetric};
use crate::worker::Worker;
use crate::world::{Socket, Tick};

/// Whose a stream is.
pub(crate) enum Owner {
    Relay(RelayId, Side),
    Session(SessionId),
    Upstream(UpstreamId),
    Probe(ClusterKey, crate::health::ProbeId),
}

impl Worker {
    pub(crate) fn owner(&mut self, socket: SocketId) -> Option<Owner> {
        let owner = self.owner_of(socket);
        if owner.is_none() {
            self.world.values[WorkerMetric::StaleEvents] += 1;
        }
        owner
    }

    fn owner_of(&self, socket: SocketId) -> Option<Owner> {
        match self.world.sockets.get(socket) {
            Some(&Socket::Client(id)) => Some(Owner::Relay(id, Side::Client)),
            Some(&Socket::Backend(id)) => Some(Owner::Relay(id, Side::Backend)),
            Some(&Socket::Session(id)) => Some(Owner::Session(id)),
            Some(&Socket::Upstream(id)) => Some(Owner::Upstream(id)),
            Some(Socket::Probe(probe)) => Some(Owner::Probe(probe.0, probe.1)),
            Some(Socket::Front(_) | Socket::Flow(_) | Socket::Shared { .. }) | None => None,
        }
    }

    /// A client connected: to whom its listener's protocol says.
    pub(crate) fn handle_accepted(&mut self, tick: &mut Tick<'_>, accepted: Accepted) {
        let Some(arrived) = arrival::admit(&mut self.world, tick, &accepted) else { return };
        let (listener, spec) = (arrived.listener, &self.world.listeners[arrived.listener].spec);
        let (tls, expects_header) = (spec.tls.clone(), !spec.trusted.is_empty());
        let socket = match spec.http {
            Some(_) => self.http.handle_accepted(&mut self.world, tick, (accepted, arrived)),
            None => self.relays.handle_accepted(&mut self.world, tick, (accepted, arrived)),
        };
        if let Some(tls) = tls {
            self.secure.accept(&mut self.world, tick.now, socket, (listener, tls, expects_header));
        }
    }

    /// What HTTP left to be done: connections that are relays from now on, backends that failed.
    pub(crate) fn settle_http(&mut self, tick: &mut Tick<'_>) {
        for joined in self.http.take_upgraded() {
            let says_end = [joined.backend, joined.client].map(|socket| self.secure.holds(socket));
            self.relays.adopt(&mut self.world, tick, joined, says_end);
        }
        for place in self.http.take_failures() {
            if self.world.clusters.get(place.0).is_some_and(|cluster| cluster.backends.contains_key(place.1)) {
                self.note_connect_failed(tick, place);
            }
        }
    }

    /// A stream to a backend is open. Where its cluster says so TLS comes first, and then whoever it belongs to is told.
    pub(crate) fn handle_stream_opened(&mut self, tick: &mut Tick<'_>, socket: SocketId) {
        let Some(owner) = self.owner(socket) else { return };
        match self.way_of(&owner) {
            Some(way) => self.secure.dial(&self.world, tick.wall, socket, way),
            None => self.pass_opened(tick, socket, (owner, None)),
        }
    }

    /// Where a stream leads that is to be under TLS.
    fn way_of(&self, owner: &Owner) -> Option<Way> {
        let (place, is_http) = match *owner {
            Owner::Relay(id, Side::Backend) => (self.relays.backend_of(id)?, false),
            Owner::Upstream(id) => (self.http.place_of(id)?, true),
            Owner::Probe(cluster, probe) => {
                let checker = &self.world.clusters.get(cluster)?.probing.checker;
                let probe = checker.probe(probe).filter(|probe| checker.speaks_tls(probe.check))?;
                ((cluster, probe.backend), probe.check == Check::Http)
            }
            Owner::Relay(_, Side::Client) | Owner::Session(_) => return None,
        };
        self.world.clusters.get(place.0)?.spec.tls.as_ref()?;
        let mut introduction = Vec::new();
        match *owner {
            Owner::Relay(id, _) => self.relays.write_introduction(&self.world, id, &mut introduction),
            Owner::Upstream(id) => self.http.write_introduction(&self.world, id, &mut introduction),
            Owner::Probe(cluster, probe) => self.write_probe_introduction((cluster, probe), &mut introduction),
            Owner::Session(_) => {}
        }
        Some(Way { place, is_http, introduction })
    }

    /// Whether a stream can be written down: TLS can't, also where it is still to begin.
    pub(crate) fn is_plain(&self, socket: SocketId) -> bool {
        let leads_to_tls = |owner: Owner| self.way_of(&owner).is_some();
        !self.secure.holds(socket) && !self.owner_of(socket).is_some_and(leads_to_tls)
    }

    /// A stream to a backend is of use; with what was agreed on in TLS, where that came first.
    pub(crate) fn pass_opened(
        &mut self,
        tick: &mut Tick<'_>,
        socket: SocketId,
        (owner, detail): (Owner, Option<Arc<TlsDetail>>),
    ) {
        let is_introduced = detail.is_some();
        match owner {
            Owner::Relay(id, Side::Backend) => {
                detail.into_iter().for_each(|detail| self.relays.handle_backend_secured(id, detail));
                if let Some(place) = self.relays.backend_of(id) {
                    self.note_connected(place);
                }
                self.relays.handle_opened(&mut self.world, tick, (id, socket), is_introduced);
            }
            Owner::Upstream(id) => {
                detail.into_iter().for_each(|detail| self.http.handle_upstream_secured(id, detail));
                self.http.handle_upstream_opened(&mut self.world, tick, id, is_introduced);
            }
            Owner::Probe(cluster, probe) => {
                self.handle_probe_opened(tick, (cluster, probe), (socket, is_introduced));
            }
            Owner::Relay(_, Side::Client) | Owner::Session(_) => {}
        }
    }

    /// No TLS came about on a stream to a backend, which is as bad as if it could not be opened.
    pub(crate) fn pass_unsecured(
        &mut self,
        tick: &mut Tick<'_>,
        socket: SocketId,
        (owner, detail): (Owner, Arc<TlsDetail>),
    ) {
        match owner {
            Owner::Relay(id, _) => {
                self.note_failed_place(tick, id);
                self.world.close(tick, socket);
                self.relays.handle_backend_unsecured(&mut self.world, tick, id, detail);
            }
            Owner::Upstream(id) => {
                self.http.handle_upstream_unsecured(&mut self.world, tick, id, detail);
                self.settle_http(tick);
            }
            Owner::Probe(cluster, probe) => {
                self.handle_probe_unsecured(tick, (cluster, probe), detail.error.clone().unwrap_or_default());
            }
            Owner::Session(_) => {}
        }
    }

    /// It could not be opened.
    pub(crate) fn handle_upstream_failed(&mut self, tick: &mut Tick<'_>, id: UpstreamId, error: OpenError) {
        self.http.handle_upstream_failed(&mut self.world, tick, (id, Some(error)));
        self.settle_http(tick);
    }

    pub(crate) fn handle_accept_failed(&mut self, front: SocketId) {
        if let Some(front) = self.world.front_mut(front) {
            let listener = front.listener;
            self.world.listeners[listener].values[ListenerMetric::AcceptFailures] += 1;
        }
    }

    pub(crate) fn handle_data(&mut self, tick: &mut Tick<'_>, socket: SocketId, bytes: Span) {
        match self.is_secured(socket) {
            true => self.receive_secured(tick, socket, bytes),
            false => self.pass_data(tick, socket, bytes),
        }
    }

    pub(crate) fn pass_data(&mut self, tick: &mut Tick<'_>, socket: SocketId, bytes: Span) {
        match self.owner(socket) {
            Some(Owner::Relay(id, side)) => self.relays.handle_data(&mut self.world, tick, (id, side), bytes),
            Some(Owner::Session(id)) => self.http.handle_client_data(&mut self.world, tick, id, bytes),
            Some(Owner::Upstream(id)) => {
                self.http.handle_upstream_data(&mut self.world, tick, id, bytes);
                self.settle_http(tick);
            }
            Some(Owner::Probe(cluster, probe)) => {
                self.handle_probe_data(tick, (cluster, probe), bytes.of(tick.bytes));
            }
            None => {}
        }
    }

    pub(crate) fn handle_eof(&mut self, tick: &mut Tick<'_>, socket: SocketId) {
        match self.is_secured(socket) {
            true => self.end_secured(tick, socket),
            false => self.pass_eof(tick, socket),
        }
    }

    pub(crate) fn pass_eof(&mut self, tick: &mut Tick<'_>, socket: SocketId) {
        match self.owner(socket) {
            Some(Owner::Relay(id, side)) => self.relays.handle_eof(&mut self.world, tick, (id, side)),
            Some(Owner::Session(id)) => self.http.handle_client_eof(&mut self.world, tick, id),
            Some(Owner::Upstream(id)) => self.http.handle_upstream_eof(&mut self.world, tick, id),
            Some(Owner::Probe(cluster, probe)) => self.handle_probe_broken(tick, (cluster, probe)),
            None => {}
        }
    }

    pub(crate) fn handle_broken(&mut self, tick: &mut Tick<'_>, socket: SocketId) {
        match self.is_secured(socket) {
            true => self.break_secured(tick, socket),
            false => self.pass_broken(tick, socket),
        }
    }

    pub(crate) fn pass_broken(&mut self, tick: &mut Tick<'_>, socket: SocketId) {
        match self.owner(socket) {
            Some(Owner::Relay(id, side)) => self.relays.handle_broken(&mut self.world, tick, (id, side)),
            Some(Owner::Session(id)) => self.http.handle_client_broken(&mut self.world, tick, id),
            Some(Owner::Upstream(id)) => self.http.handle_upstream_broken(&mut self.world, tick, id),
            Some(Owner::Probe(cluster, probe)) => self.handle_probe_broken(tick, (cluster, probe)),
            None => {}
        }
    }

    pub(crate) fn handle_blocked(&mut self, tick: &mut Tick<'_>, socket: SocketId, rest: Span) {
        match self.is_secured(socket) {
            true => self.block_secured(tick, socket, rest),
            false => self.pass_blocked(tick, socket, rest),
        }
    }

    pub(crate) fn pass_blocked(&mut self, tick: &mut Tick<'_>, socket: SocketId, rest: Span) {
        match self.owner(socket) {
            Some(Owner::Relay(id, side)) => self.relays.handle_blocked(tick, (id, side), rest),
            Some(Owner::Session(id)) => self.http.handle_client_blocked(tick, id, rest),
            Some(Owner::Upstream(id)) => self.http.handle_upstream_blocked(tick, id, rest),
            Some(Owner::Probe(cluster, probe)) => self.handle_probe_broken(tick, (cluster, probe)),
            None => {}
        }
    }

    pub(crate) fn handle_drained(&mut self, tick: &mut Tick<'_>, socket: SocketId) {
        match self.is_secured(socket) {
            true => self.drain_secured(tick, socket),
            false => self.pass_drained(tick, socket),
        }
    }

    pub(crate) fn pass_drained(&mut self, tick: &mut Tick<'_>, socket: SocketId) {
        match self.owner(socket) {
            Some(Owner::Relay(id, side)) => self.relays.handle_drained(&mut self.world, tick, (id, side)),
            Some(Owner::Session(id)) => self.http.handle_client_drained(tick, id),
            Some(Owner::Upstream(id)) => self.http.handle_upstream_drained(tick, id),
            Some(Owner::Probe(..)) | None => {}
        }
    }

    pub(crate) fn handle_piped(&mut self, tick: &mut Tick<'_>, from: SocketId, bytes: u64) {
        if let Some(Owner::Relay(id, side)) = self.owner(from) {
            self.relays.handle_piped(&mut self.world, tick, (id, side), bytes);
        }
    }

    /// It could not be opened. A lack of our own says nothing about the backend.
    pub(crate) fn handle_connect_failed(&mut self, tick: &mut Tick<'_>, id: RelayId, error: OpenError) {
        if error == OpenError::Unreachable {
            self.note_failed_place(tick, id);
        }
        self.relays.handle_connect_failed(&mut self.world, tick, id, Some(error));
    }

    /// A relay's deadline came.
    pub(crate) fn handle_relay_due(&mut self, tick: &mut Tick<'_>, id: RelayId) {
        if self.relays.handle_due(&mut self.world, tick, id) == Due::ConnectTimedOut {
            self.note_failed_place(tick, id);
            if let Some(socket) = self.relays.backend_socket(id) {
                let shakes_hands = self.secure.holds(socket);
                self.world.close(tick, socket);
                if shakes_hands {
                    let place = self.relays.backend_of(id);
                    place.into_iter().for_each(|place| self.world.note_late_handshake(place));
                    return self.relays.handle_backend_unsecured(&mut self.world, tick, id, TlsDetail::late());
                }
            }
            self.relays.handle_connect_failed(&mut self.world, tick, id, None);
        }
    }

    fn note_failed_place(&mut self, tick: &mut Tick<'_>, id: RelayId) {
        let place: Option<(ClusterKey, BackendKey)> = self.relays.backend_of(id);
        if let Some(place) = place {
            self.note_connect_failed(tick, place);
        }
    }
}
