//! A request that becomes a connection of its own: by `Upgrade` (WebSocket) or by CONNECT. Both streams are handed to
//! whoever asked for the step, with what was read of them and not passed on.

use std::sync::Arc;

use kakei_wire::http1::{RequestHead, ResponseHead, Version};
use kakei_wire::message::{Fields, Known, Length, tokens};

use super::Http;
use super::exchange::{Exchange, ExchangeId, Phase};
use super::retry::Fault;
use crate::joined::Joined;
use crate::record::CloseReason;
use crate::world::{Tick, World};

impl Http {
    /// The backend switches protocols, which the client must have asked for (RFC 9110 7.8).
    pub(super) fn switch(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId, head: &ResponseHead<'_>) {
        let exchange = &mut self.exchanges[id];
        if exchange.is_held() || !exchange.asked_for(&head.response.fields) {
            return self.fail(world, tick, id, Fault::Malformed);
        }
        exchange.enter(Phase::Responding, tick.now);
        exchange.status = head.response.status;
        self.judge(world, tick, id, head.response.status);
        let seat = self.seat_line(world, tick.now, id);
        self.write_head(tick, id, head, &seat);
        self.hand_over(world, tick, id);
    }

    /// The backend opened the way that CONNECT asked for.
    pub(super) fn tunnel(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId, head: &ResponseHead<'_>) {
        self.exchanges[id].traits.keeps = true;
        self.write_head(tick, id, head, &[]);
        self.hand_over(world, tick, id);
    }

    fn hand_over(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId) {
        let exchange = &mut self.exchanges[id];
        let taken = (exchange.place(), exchange.target(), exchange.tcp.clone(), exchange.upstream.take());
        let (Some(place), Some(target), Some(knobs), Some(upstream)) = taken else { return };
        exchange.lapse.first_byte = Some(tick.now - exchange.began);
        // Its place on the backend is taken over before it is given back, so that nothing forgets the backend between.
        world.clusters[place.0].backends[place.1].live += 1;
        let finished = self.finish(world, tick, id, CloseReason::Upgraded);
        let session = finished.and_then(|(_, session)| self.forget_session(world, session));
        if let (Some(connection), Some(session)) = (self.upstreams.get_mut(upstream), session) {
            let (backend, to_backend) = (connection.socket, std::mem::take(&mut connection.rest));
            if !session.credit {
                tick.ask(crate::seam::Op::Credit { socket: session.socket, on: true });
            }
            self.upgraded.push(Joined {
                arrived: session.arrived,
                client: session.socket,
                backend,
                place,
                target: Arc::new(target),
                knobs,
                drains: session.drains,
                to_client: session.rest,
                to_backend,
                from_client: session.input,
                from_backend: Vec::new(),
            });
            self.forget_upstream(world, upstream);
        }
        world.clusters[place.0].backends[place.1].live -= 1;
    }
}

impl Exchange {
    /// Whether its connection becomes what it asked for, and nothing besides.
    fn asked_for(&self, fields: &Fields<'_>) -> bool {
        let mut becomes = fields.known(Known::Upgrade).flat_map(tokens).peekable();
        let asked = self.protocols.as_deref().unwrap_or_default();
        let is_asked = |one: &[u8]| tokens(asked).any(|asked| asked.eq_ignore_ascii_case(one));
        becomes.peek().is_some() && becomes.all(is_asked)
    }
}

/// The protocols that a request asks to become one of, as a list; none: it asks for none that may be, or can't. One with a
/// body could not be told from what follows it, and a CONNECT becomes something else already.
pub(super) fn protocols(head: &RequestHead<'_>) -> Option<Box<[u8]>> {
    let request = &head.request;
    let may = head.connection.upgrade
        && head.version == Version::Http11
        && request.length == Length::None
        && request.method != "CONNECT";
    let asked = || request.fields.known(Known::Upgrade).flat_map(tokens).filter(|one| !carries_requests(one));
    (may && asked().next().is_some()).then(|| asked().collect::<Vec<_>>().join(&b", "[..]).into_boxed_slice())
}

/// Whether a protocol is one of HTTP again, or TLS with it inside: who speaks that to a backend gets past every route, limit
/// and password. RFC 9113 (3.1) has given that way into HTTP/2 up.
fn carries_requests(protocol: &[u8]) -> bool {
    let begins = |with: &[u8]| protocol.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    let is_one = |names: &[&[u8]]| names.iter().any(|name| protocol.eq_ignore_ascii_case(name));
    begins(b"http/") || begins(b"tls/") || is_one(&[b"h2c", b"h2", b"h3", b"http", b"tls"])
}
