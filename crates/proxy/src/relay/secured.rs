//! What TLS below a relay's streams has to say: they may be used from now on, or never, or not any more.

use std::sync::Arc;

use kakei_wire::client_hello::ClientHello;

use super::connection::{Phase, Side};
use super::{RelayId, Relays};
use crate::record::{CloseReason, TlsDetail};
use crate::seam::Op;
use crate::secure::Secured;
use crate::world::{Tick, World};

impl Relays {
    /// The client's handshake is over: what it asked for says where it goes.
    pub(crate) fn handle_secured(&mut self, world: &mut World, tick: &mut Tick<'_>, id: RelayId, secured: &Secured) {
        let Some(relay) = self.relays.get_mut(id).filter(|relay| relay.phase == Phase::Preread) else { return };
        relay.detail.tls = Some(Arc::clone(&secured.detail));
        relay.lane_mut(Side::Backend).says_end = true;
        if let Some(opening) = &mut relay.opening {
            opening.expects_handshake = false;
        }
        let socket = relay.socket(Side::Client);
        tick.ask(Op::Credit { socket, on: false });
        let hello = ClientHello {
            server_name: secured.detail.sni.clone(),
            alpn: secured.alpn.clone(),
            ..ClientHello::default()
        };
        self.route(world, tick, id, Some(hello));
    }

    /// The client's handshake came to nothing.
    pub(crate) fn handle_unsecured(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: RelayId,
        (reason, detail): (CloseReason, Arc<TlsDetail>),
    ) {
        if let Some(relay) = self.relays.get_mut(id) {
            relay.detail.sni = detail.sni.clone();
            relay.detail.tls = Some(detail);
            self.end(world, tick, id, reason);
        }
    }

    /// The handshake with the backend is over: the stream is of use from now on.
    pub(crate) fn handle_backend_secured(&mut self, id: RelayId, detail: Arc<TlsDetail>) {
        if let Some(relay) = self.relays.get_mut(id) {
            relay.detail.backend_tls = Some(detail);
            relay.lane_mut(Side::Client).says_end = true;
        }
    }

    /// The handshake with the backend came to nothing, and the stream is gone.
    pub(crate) fn handle_backend_unsecured(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: RelayId,
        detail: Arc<TlsDetail>,
    ) {
        if let Some(relay) = self.relays.get_mut(id) {
            relay.detail.backend_tls = Some(detail);
            self.connect_elsewhere(world, tick, id, (CloseReason::BackendTls, true));
        }
    }

    /// A stream is of no use any more: whoever is there broke the rules, or went without a word.
    pub(crate) fn handle_cut(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        (id, side): (RelayId, Side),
        (reason, error): (CloseReason, Option<String>),
    ) {
        let Some(relay) = self.relays.get_mut(id) else { return };
        if let (Side::Backend, Some(error)) = (side, error) {
            let detail = relay.detail.backend_tls.as_deref().cloned().unwrap_or_default();
            relay.detail.backend_tls = Some(Arc::new(TlsDetail { error: Some(error), ..detail }));
        }
        self.end(world, tick, id, reason);
    }
}
