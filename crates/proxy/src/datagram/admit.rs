//! A new flow: whether one is admitted, where it goes, and its way there. Nothing is allocated before admission.

use std::net::SocketAddr;
use std::sync::Arc;

use kakei_config::{OnBackend, Upstream as Strategy};

use super::Datagrams;
use super::flow::{Flow, FlowId, Upstream};
use super::key::{self, Arrival};
use super::life::Life;
use crate::balance;
use crate::record::CloseReason;
use crate::seam::{Instant, Op, Remote};
use crate::snapshot::Asked;
use crate::stats::{BackendMetric, DropReason};
use crate::world::{Socket, Tick, World};

impl Datagrams {
    /// Admit a flow for `key`, or say why not.
    pub(super) fn admit(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        key: &Arrival,
    ) -> Result<FlowId, DropReason> {
        let client = key.client();
        key::check_client(client)?;
        let front = world.front_mut(key.front).ok_or(DropReason::Draining)?;
        if front.draining.is_some() {
            return Err(DropReason::Draining);
        }
        let (listener_key, port) = (front.listener, front.port);
        let is_wildcard = front.bind.address.ip().is_unspecified();
        key::check_loop(key.peer, SocketAddr::new(key.local, port))?;
        if world.is_own(key.peer) {
            return Err(DropReason::Invalid);
        }
        if is_wildcard {
            world.own.note(key.local);
        }
        let dialled = key.believed.map_or(SocketAddr::new(key.local, port), |believed| believed.destination);
        world.seen.note_flow(tick.now, (listener_key, client, dialled));
        let listener = &mut world.listeners[listener_key];
        let target = Arc::clone(listener.spec.route(&Asked::source(client.ip())).ok_or(DropReason::NoRoute)?);
        let cluster_key = *world.cluster_names.get(&target.cluster).ok_or(DropReason::NoBackend)?;
        let cluster = &mut world.clusters[cluster_key];
        if !cluster.takes_work() {
            return Err(DropReason::NoBackend);
        }
        listener.admit(tick.now, client.ip())?;
        let knobs = Arc::clone(&cluster.spec.knobs);
        let affinity = balance::source_affinity(world.balance_seed, knobs.affinity, client);
        let backend = cluster.pick(affinity, &mut world.rng).expect("a cluster that takes work has a backend to pick");
        let id = self.flows.insert(Flow {
            key: key.keep(),
            life: Life::new(tick.now, knobs),
            listener: listener_key,
            target,
            cluster: cluster_key,
            backend,
            upstream: Upstream::none(),
            kept: None,
            timer: None,
            armed: Instant::FAR,
        });
        if let Some(front) = world.front_mut(key.front) {
            front.flows += 1;
        }
        self.enter(id);
        self.settle_on(world, id);
        if !self.connect(world, tick, id) {
            self.end(world, tick, id, CloseReason::Aborted);
            return Err(DropReason::NoSocket);
        }
        self.arm(world, id);
        Ok(id)
    }

    /// Count the flow on its backend.
    pub(super) fn settle_on(&mut self, world: &mut World, id: FlowId) {
        let flow = &self.flows[id];
        let backend = &mut world.clusters[flow.cluster].backends[flow.backend];
        backend.live += 1;
        backend.restless += u32::from(is_restless(flow));
        backend.values[BackendMetric::FlowsOpened] += 1;
    }

    /// Count the flow off its backend.
    pub(super) fn settle_off(world: &mut World, flow: &Flow) {
        let backend = &mut world.clusters[flow.cluster].backends[flow.backend];
        backend.live -= 1;
        backend.restless -= u32::from(is_restless(flow));
    }

    /// Find or ask for the socket to the flow's backend; false where there is no room for another, or where it would
    /// lead back here.
    pub(super) fn connect(&mut self, world: &mut World, tick: &mut Tick<'_>, id: FlowId) -> bool {
        let flow = &mut self.flows[id];
        let address = world.clusters[flow.cluster].backends[flow.backend].address();
        if is_dialled(world, flow, address) {
            return false;
        }
        flow.upstream = match flow.life.knobs.upstream {
            Strategy::PerFlow => {
                let socket = world.insert(Socket::Flow(id));
                tick.ask(Op::OpenDatagram { socket, remote: Remote::Connected(address) });
                Upstream { socket, lease: None, open: false, introduced: false }
            }
            Strategy::Shared => {
                let one_way = !flow.life.knobs.expects_reply;
                let pool = world.clusters[flow.cluster].pool_mut(address);
                let Some(place) = pool.acquire(tick.now, address, id, one_way) else { return false };
                let socket = place.socket.unwrap_or_else(|| {
                    let seat = place.lease.seat();
                    let role = Socket::Shared { cluster: flow.cluster, v6: address.is_ipv6(), seat };
                    let socket = world.insert(role);
                    world.clusters[flow.cluster].pool_mut(address).handle_asked(seat, socket);
                    let remote = if address.is_ipv6() { Remote::AnyV6 } else { Remote::AnyV4 };
                    tick.ask(Op::OpenDatagram { socket, remote });
                    socket
                });
                if place.open {
                    flow.life.handle_opened();
                }
                Upstream { socket, lease: Some(place.lease), open: place.open, introduced: false }
            }
        };
        if !flow.upstream.open {
            self.asked.push(id);
        }
        true
    }
}

/// Whether a backend is the very address that the flow's client dialled. A document that says so is refused, but a host
/// name may come to have it.
fn is_dialled(world: &World, flow: &Flow, backend: SocketAddr) -> bool {
    let port = match world.sockets.get(flow.key.front) {
        Some(Socket::Front(front)) => front.port,
        _ => 0,
    };
    backend == SocketAddr::new(flow.key.local, port)
}

/// Whether the flow doesn't simply stay when its backend goes.
pub(super) fn is_restless(flow: &Flow) -> bool {
    let knobs = &flow.life.knobs;
    knobs.on_backend_removed != OnBackend::Keep || knobs.on_backend_down != OnBackend::Keep
}
