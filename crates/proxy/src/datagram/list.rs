//! Live flows as operators see them. Changes nothing.

use super::Datagrams;
use super::flow::Flow;
use super::life::Phase;
use crate::limits::PER_LISTING;
use crate::seam::{Filter, FlowView, Instant};
use crate::world::{Socket, World};

impl Datagrams {
    /// The flows that match, up to the filter's limit.
    pub(crate) fn list(&self, world: &World, now: Instant, filter: &Filter) -> Vec<FlowView> {
        let views = self.flows.values().map(|flow| view(world, now, flow));
        views.filter(|view| matches(filter, view)).take(filter.limit.min(PER_LISTING)).collect()
    }
}

fn matches(filter: &Filter, view: &FlowView) -> bool {
    filter.listener.as_ref().is_none_or(|name| *name == view.listener)
        && filter.route.as_ref().is_none_or(|name| view.route.as_ref() == Some(name))
        && filter.cluster.as_ref().is_none_or(|name| *name == view.cluster)
        && filter.backend.as_ref().is_none_or(|name| *name == view.backend)
        && filter.client.is_none_or(|client| client == view.client.ip())
}

fn view(world: &World, now: Instant, flow: &Flow) -> FlowView {
    let backend = &world.clusters[flow.cluster].backends[flow.backend].spec;
    let front_port = match world.sockets.get(flow.key.front) {
        Some(Socket::Front(front)) => front.port,
        _ => 0,
    };
    let phase = match flow.life.phase {
        Phase::AwaitingBackend => "awaiting_backend",
        Phase::Established => "established",
        Phase::Lingering => "lingering",
    };
    FlowView {
        listener: world.listeners[flow.listener].spec.name.clone(),
        route: flow.target.route.clone(),
        cluster: flow.target.cluster.clone(),
        backend: backend.name.clone(),
        backend_address: backend.address.clone(),
        client: flow.key.client(),
        peer: flow.key.peer(),
        local: flow.dialled(front_port),
        age_ms: (now - flow.life.admitted).as_millis() as u64,
        expires_in_ms: (flow.life.deadline() - now).as_millis() as u64,
        ends_in_ms: super::sweep::ends_at(world, flow).map(|at| (at - now).as_millis() as u64),
        requests: flow.life.traffic.requests,
        responses: flow.life.traffic.responses,
        phase: phase.to_owned(),
    }
}
