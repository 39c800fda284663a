//! What TLS below a connection has to say: it may be used from now on, or never, or not any more; and which hosts a
//! client's is for.

use std::sync::Arc;

use super::Http;
use super::exchange::ExchangeId;
use super::retry::Fault;
use super::session::{SessionId, Stage};
use super::upstream::UpstreamId;
use crate::record::{CloseReason, ConnectionDetail, Detail, TlsDetail};
use crate::seam::Op;
use crate::secure::Secured;
use crate::world::{Tick, World};

impl Http {
    /// The client's handshake is over. What it sent before is nobody else's.
    pub(crate) fn handle_secured(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: SessionId,
        secured: Arc<Secured>,
    ) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        if !session.is_early {
            return self.begin_secured(tick, id, secured);
        }
        session.prove(tick);
        if let Some(exchange) = session.exchange {
            self.let_go_on(world, tick, exchange);
        }
    }

    /// Early data of the client is there, and its handshake isn't over.
    pub(crate) fn handle_early(&mut self, tick: &Tick<'_>, id: SessionId, secured: Arc<Secured>) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.is_early = true;
            self.begin_secured(tick, id, secured);
        }
    }

    fn begin_secured(&mut self, tick: &Tick<'_>, id: SessionId, secured: Arc<Secured>) {
        let session = &mut self.sessions[id];
        session.secured = Some(secured);
        session.stage = Stage::Idle;
        (session.since, session.moved) = (tick.now, tick.now);
        self.arm_session(id);
    }

    /// The client's handshake came to nothing, and so does what came of its early data.
    pub(crate) fn handle_unsecured(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: SessionId,
        (reason, detail): (CloseReason, Arc<TlsDetail>),
    ) {
        if let Some(exchange) = self.sessions.get(id).and_then(|session| session.exchange) {
            self.finish(world, tick, exchange, reason);
        }
        let Some(session) = self.sessions.get(id) else { return };
        if world.records {
            let name = world.listeners[session.arrived.listener].spec.name.clone();
            let sni = detail.sni.clone();
            let detail = ConnectionDetail { sni, tls: Some(detail), ..ConnectionDetail::default() };
            let what = (reason, Detail::Connection(detail));
            let record = session.arrived.unrouted(name, (session.arrived.at, tick.now), what);
            tick.ask(Op::Record(Box::new(record)));
        }
        self.end_session(world, tick, id, reason);
    }

    /// The handshake with a backend is over: its connection is of use from now on.
    pub(crate) fn handle_upstream_secured(&mut self, id: UpstreamId, detail: Arc<TlsDetail>) {
        self.note_upstream(id, |known| *known = Some(detail));
    }

    /// The handshake with a backend came to nothing.
    pub(crate) fn handle_upstream_unsecured(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: UpstreamId,
        detail: Arc<TlsDetail>,
    ) {
        self.note_upstream(id, |known| *known = Some(detail));
        match self.upstreams.get(id).and_then(|upstream| upstream.exchange) {
            Some(exchange) => self.fail(world, tick, exchange, Fault::Secure),
            None => self.close_upstream(world, tick, id),
        }
    }

    /// The time for connecting is over.
    pub(super) fn fail_to_connect(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: ExchangeId,
        shakes_hands: bool,
    ) {
        if let Some(upstream) = self.exchanges[id].upstream.filter(|_| shakes_hands) {
            self.note_upstream(upstream, |known| *known = Some(TlsDetail::late()));
            let place = self.exchanges[id].place();
            place.into_iter().for_each(|place| world.note_late_handshake(place));
        }
        self.fail(world, tick, id, if shakes_hands { Fault::Secure } else { Fault::Connect });
    }

    /// A backend's connection is of no use any more: the backend broke the rules, or went without a word.
    pub(crate) fn handle_upstream_cut(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: UpstreamId,
        (reason, error): (CloseReason, Option<String>),
    ) {
        if error.is_some() {
            self.note_upstream(id, |known| {
                let detail = known.as_deref().cloned().unwrap_or_default();
                *known = Some(Arc::new(TlsDetail { error, ..detail }));
            });
        }
        self.lose_upstream(world, tick, id, (reason, Fault::Cut(reason)));
    }

    fn note_upstream(&mut self, id: UpstreamId, note: impl FnOnce(&mut Option<Arc<TlsDetail>>)) {
        let exchange = self.upstreams.get(id).and_then(|upstream| upstream.exchange);
        let exchange = exchange.and_then(|exchange| self.exchanges.get_mut(exchange));
        if let Some(detail) = exchange.and_then(|exchange| exchange.detail.as_mut()) {
            note(&mut detail.backend_tls);
        }
    }

    /// Whether a request to this host may come by this connection: a certificate that isn't for it proved nothing
    /// about it (RFC 9110, section 7.4).
    pub(super) fn is_directed(&self, id: SessionId, host: &str) -> bool {
        let secured = self.sessions.get(id).and_then(|session| session.secured.as_ref());
        host.is_empty() || secured.is_none_or(|secured| secured.certificate.covers(host))
    }
}
