//! What comes before a connection is routed: a PROXY header, a ClientHello. Bounded in bytes here, in time by `life`.

use kakei_wire::client_hello::{self, ClientHello, Reading};
use kakei_wire::proxy_protocol;

use super::connection::Side;
use super::{RelayId, Relays};
use crate::client::Believed;
use crate::record::CloseReason;
use crate::seam::Op;
use crate::world::{Tick, World};

/// What the bytes so far say.
enum Read {
    /// More are needed.
    More,
    /// It can be routed.
    Routable(Option<ClientHello>),
    /// It can't be.
    Bad(CloseReason),
}

impl Relays {
    /// Bytes of a client that isn't routed yet.
    pub(super) fn handle_preread(&mut self, world: &mut World, tick: &mut Tick<'_>, id: RelayId, bytes: &[u8]) {
        let relay = &mut self.relays[id];
        let opening = relay.opening.get_or_insert_default();
        opening.buffer.extend_from_slice(bytes);
        match self.read(world, id) {
            Read::More => {}
            Read::Bad(reason) => self.end(world, tick, id, reason),
            Read::Routable(hello) => {
                let socket = self.relays[id].socket(Side::Client);
                tick.ask(Op::Credit { socket, on: false });
                self.route(world, tick, id, hello);
            }
        }
    }

    fn read(&mut self, world: &mut World, id: RelayId) -> Read {
        if let Some(read) = self.read_header(world, id) {
            return read;
        }
        let relay = &self.relays[id];
        if relay.opening.as_ref().is_some_and(|opening| opening.expects_handshake) {
            return Read::More;
        }
        if !world.listeners[relay.listener].spec.reads_hello() {
            return Read::Routable(None);
        }
        let Some(opening) = &relay.opening else { return Read::More };
        match client_hello::parse(&opening.buffer[opening.payload_at..]) {
            Ok(Reading::More) => Read::More,
            Ok(Reading::NotTls) => Read::Routable(None),
            Ok(Reading::Hello(hello)) => Read::Routable(Some(hello)),
            Err(_) => Read::Bad(CloseReason::ClientHello),
        }
    }

    /// The PROXY header, where one is still to come; what is said where there is nothing to go on with.
    fn read_header(&mut self, world: &mut World, id: RelayId) -> Option<Read> {
        let relay = &mut self.relays[id];
        let opening = relay.opening.as_mut().filter(|opening| opening.expects_header)?;
        let header = match proxy_protocol::parse_stream(&opening.buffer) {
            Ok(Some(header)) => header,
            Ok(None) => return Some(Read::More),
            Err(_) => return Some(Read::Bad(CloseReason::ProxyHeader)),
        };
        opening.expects_header = false;
        (opening.payload_at, opening.tlvs_at) = (header.len, header.tlvs_at);
        relay.believed = header.addresses.map(|addresses| Box::new(Believed::from(addresses)));
        match self.count_client(world, id) {
            true => None,
            false => Some(Read::Bad(CloseReason::OverLimit)),
        }
    }

    /// The client sends nothing more, and what it sent does not say where it goes.
    pub(super) fn handle_preread_end(&mut self, world: &mut World, tick: &mut Tick<'_>, id: RelayId) {
        let opening = self.relays[id].opening.as_ref();
        let reason = match opening {
            // A health check of whoever stands before us: it connects and closes, and nothing is wrong.
            Some(opening) if opening.buffer.len() == opening.payload_at => CloseReason::ClientGone,
            Some(opening) if opening.expects_header => CloseReason::ProxyHeader,
            Some(_) => CloseReason::ClientHello,
            None => CloseReason::ClientGone,
        };
        self.end(world, tick, id, reason);
    }
}
