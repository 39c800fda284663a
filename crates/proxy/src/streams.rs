//! What happens to streams: to the relay or the health check that it belongs to. Composes; decides nothing.

use crate::arrival;
use crate::cluster::{BackendKey, ClusterKey};
use crate::http::{SessionId, UpstreamId};
use crate::relay::{Due, RelayId, Side};
use crate::seam::{Accepted, OpenError, SocketId, Span};
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
        match self.world.sockets.get(socket) {
            Some(&Socket::Client(id)) => Some(Owner::Relay(id, Side::Client)),
            Some(&Socket::Backend(id)) => Some(Owner::Relay(id, Side::Backend)),
            Some(&Socket::Session(id)) => Some(Owner::Session(id)),
            Some(&Socket::Upstream(id)) => Some(Owner::Upstream(id)),
            Some(&Socket::Probe { cluster, probe }) => Some(Owner::Probe(cluster, probe)),
            Some(Socket::Front(_) | Socket::Flow(_) | Socket::Shared { .. }) | None => {
                self.world.values[WorkerMetric::StaleEvents] += 1;
                None
            }
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
            self.relays.adopt(&mut self.world, tick, joined);
        }
        for place in self.http.take_failures() {
            if self.world.clusters.get(place.0).is_some_and(|cluster| cluster.backends.contains_key(place.1)) {
                self.note_connect_failed(tick, place);
            }
        }
    }

    /// A connection to an HTTP backend is open.
    pub(crate) fn handle_upstream_opened(&mut self, tick: &mut Tick<'_>, id: UpstreamId) {
        self.http.handle_upstream_opened(&mut self.world, tick, id);
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

    /// A relay's stream to its backend is open.
    pub(crate) fn handle_connected(&mut self, tick: &mut Tick<'_>, id: RelayId, socket: SocketId) {
        if let Some(place) = self.relays.backend_of(id) {
            self.note_connected(place);
        }
        self.relays.handle_opened(&mut self.world, tick, id, socket);
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
                self.world.close(tick, socket);
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
