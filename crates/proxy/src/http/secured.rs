//! What TLS below a client's connection has to say: it may be used from now on, or never; and which hosts it is for.

use std::sync::Arc;

use super::Http;
use super::session::{SessionId, Stage};
use crate::record::{CloseReason, ConnectionDetail, Detail, TlsDetail};
use crate::seam::Op;
use crate::secure::Secured;
use crate::world::{Tick, World};

impl Http {
    /// The client's handshake is over.
    pub(crate) fn handle_secured(&mut self, tick: &Tick<'_>, id: SessionId, secured: Arc<Secured>) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.secured = Some(secured);
        session.stage = Stage::Idle;
        (session.since, session.moved) = (tick.now, tick.now);
        self.arm_session(id);
    }

    /// The client's handshake came to nothing.
    pub(crate) fn handle_unsecured(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: SessionId,
        (reason, detail): (CloseReason, Arc<TlsDetail>),
    ) {
        let Some(session) = self.sessions.get(id) else { return };
        if world.records {
            let name = world.listeners[session.arrived.listener].spec.name.clone();
            let sni = detail.sni.clone();
            let detail = ConnectionDetail { sni, tls: Some(detail), ..ConnectionDetail::default() };
            let what = (reason, Detail::Connection(detail));
            let record = session.arrived.unrouted(name, (session.arrived.at, tick.now), what);
            tick.ask(Op::Record(Box::new(record)));
        }
        world.listeners[session.arrived.listener].connection_closes.0[reason as usize] += 1;
        self.end_session(world, tick, id, None);
    }

    /// Whether a request to this host may come by this connection: a certificate that isn't for it proved nothing
    /// about it (RFC 9110, section 7.4).
    pub(super) fn is_directed(&self, id: SessionId, host: &str) -> bool {
        let secured = self.sessions.get(id).and_then(|session| session.secured.as_ref());
        host.is_empty() || secured.is_none_or(|secured| secured.certificate.covers(host))
    }
}
