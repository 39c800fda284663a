//! Live connections as operators see them. Changes nothing.

use super::Relays;
use super::connection::{Ending, Phase, Relay, Side};
use crate::limits::PER_LISTING;
use crate::seam::{ConnectionView, Filter, Instant};
use crate::world::World;

impl Relays {
    /// The connections that match, up to the filter's limit.
    pub(crate) fn list(&self, world: &World, now: Instant, filter: &Filter) -> Vec<ConnectionView> {
        let matching = self.relays.values().filter(|relay| matches(world, filter, relay));
        matching.take(filter.limit.min(PER_LISTING)).map(|relay| self.view(world, now, relay)).collect()
    }

    fn view(&self, world: &World, now: Instant, relay: &Relay) -> ConnectionView {
        let backend =
            relay.cluster.zip(relay.backend).map(|(cluster, backend)| &world.clusters[cluster].backends[backend]);
        let is_half_closed =
            [Side::Client, Side::Backend].into_iter().any(|side| relay.lane(side).ending != Ending::Open);
        let phase = match relay.phase {
            Phase::Preread => "preread",
            Phase::Queued => "queued",
            Phase::Connecting => "connecting",
            Phase::Established if is_half_closed => "half_closed",
            Phase::Established => "established",
        };
        ConnectionView {
            listener: world.listeners[relay.listener].spec.name.clone(),
            route: relay.route().cloned(),
            cluster: relay.target.as_ref().map(|target| target.cluster.clone()),
            backend: backend.map(|live| live.spec.name.clone()),
            backend_address: backend.map(|live| live.spec.address.clone()),
            client: relay.client(),
            peer: relay.peer,
            local: relay.dialled(),
            sni: relay.detail.sni.clone(),
            age_ms: (now - relay.accepted).as_millis() as u64,
            expires_in_ms: self.deadline(world, relay).map(|at| (at - now).as_millis() as u64),
            ends_in_ms: relay.drains.first().map(|drain| (drain.until - now).as_millis() as u64),
            request_bytes: relay.lane(Side::Client).delivered(),
            response_bytes: relay.lane(Side::Backend).delivered(),
            buffered: relay.buffered() as u64,
            phase: phase.to_owned(),
            requests: None,
            request: None,
            draining: !relay.drains.is_empty() || backend.is_some_and(|live| live.removed),
        }
    }
}

fn matches(world: &World, filter: &Filter, relay: &Relay) -> bool {
    let backend = || Some(&world.clusters[relay.cluster?].backends[relay.backend?].spec.name);
    filter.listener.as_ref().is_none_or(|name| *name == world.listeners[relay.listener].spec.name)
        && filter.route.as_ref().is_none_or(|name| relay.route() == Some(name))
        && filter
            .cluster
            .as_ref()
            .is_none_or(|name| relay.target.as_ref().is_some_and(|target| target.cluster == *name))
        && filter.backend.as_ref().is_none_or(|name| backend() == Some(name))
        && filter.client.is_none_or(|client| client == relay.client().ip())
}
