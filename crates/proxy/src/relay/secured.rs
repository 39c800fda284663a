//! What TLS below a client's stream has to say: it may be used from now on, or never.

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
}
