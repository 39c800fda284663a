//! Clients' connections as operators see them. Changes nothing.

use super::Http;
use super::exchange::{Exchange, Phase};
use super::session::{Session, Stage};
use crate::seam::{ConnectionView, Filter, Instant};
use crate::world::World;

impl Http {
    /// The connections that match, at most `limit`.
    pub(crate) fn list(&self, world: &World, now: Instant, filter: &Filter, limit: usize) -> Vec<ConnectionView> {
        let with_exchange = |session: &Session| session.exchange.and_then(|id| self.exchanges.get(id));
        let all = self.sessions.values().map(|session| (session, with_exchange(session)));
        let matching = all.filter(|(session, exchange)| matches(world, filter, session, *exchange));
        matching.take(limit).map(|(session, exchange)| self.view(world, now, session, exchange)).collect()
    }

    fn view(&self, world: &World, now: Instant, session: &Session, exchange: Option<&Exchange>) -> ConnectionView {
        let backend = exchange.and_then(Exchange::place);
        let backend = backend.and_then(|(cluster, backend)| world.clusters[cluster].backends.get(backend));
        let phase = match (session.stage, exchange.map(|exchange| exchange.phase)) {
            (Stage::Introduction, _) => "preread",
            (Stage::Closing, _) => "closing",
            (Stage::Idle, _) => "idle",
            (_, None | Some(Phase::Deciding)) => "request",
            (_, Some(Phase::Guarded)) => "authorizing",
            _ if exchange.is_some_and(Exchange::is_question) => "authorizing",
            (_, Some(Phase::Queued)) => "queued",
            (_, Some(Phase::Connecting)) => "connecting",
            (_, Some(Phase::Sent)) => "waiting",
            (_, Some(Phase::Responding)) => "responding",
        };
        let kept = exchange.map_or(0, |exchange| exchange.kept.len());
        ConnectionView {
            listener: world.listeners[session.arrived.listener].spec.name.clone(),
            route: exchange.and_then(|exchange| exchange.route().cloned()),
            cluster: exchange.and_then(|exchange| exchange.cluster_name().cloned()),
            backend: backend.map(|live| live.spec.name.clone()),
            backend_address: backend.map(|live| live.spec.address.clone()),
            client: session.arrived.client(),
            peer: session.arrived.peer,
            local: session.arrived.dialled(),
            sni: None,
            age_ms: (now - session.arrived.at).as_millis() as u64,
            expires_in_ms: self.deadline(world, session).map(|at| (at - now).as_millis() as u64),
            ends_in_ms: session.drains.first().map(|drain| (drain.until - now).as_millis() as u64),
            request_bytes: exchange.map_or(0, |exchange| exchange.request_bytes),
            response_bytes: exchange.map_or(0, |exchange| exchange.response_bytes),
            buffered: (session.input.len() + session.rest.len() + kept) as u64,
            phase: phase.to_owned(),
            requests: Some(session.requests),
            request: exchange.and_then(|exchange| {
                let of = exchange.detail.as_ref()?;
                Some(format!("{} {}{}", of.method, of.host, of.target))
            }),
            draining: !session.drains.is_empty() || backend.is_some_and(|live| live.removed),
        }
    }
}

fn matches(world: &World, filter: &Filter, session: &Session, exchange: Option<&Exchange>) -> bool {
    let cluster = exchange.and_then(Exchange::cluster_name);
    let backend = || {
        let (cluster, backend) = exchange?.place()?;
        Some(&world.clusters[cluster].backends.get(backend)?.spec.name)
    };
    filter.listener.as_ref().is_none_or(|name| *name == world.listeners[session.arrived.listener].spec.name)
        && filter.route.as_ref().is_none_or(|name| exchange.is_some_and(|exchange| exchange.route() == Some(name)))
        && filter.cluster.as_ref().is_none_or(|name| cluster == Some(name))
        && filter.backend.as_ref().is_none_or(|name| backend() == Some(name))
        && filter.client.is_none_or(|client| client == session.arrived.client().ip())
}
