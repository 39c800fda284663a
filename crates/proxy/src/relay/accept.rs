//! A client connects: whether it is let in. Nothing is allocated before that.

use std::net::IpAddr;

use kakei_config::Refuse;

use super::Relays;
use super::connection::{Counted, Opening, Relay, Side};
use crate::listener::{Bounds, LiveListener, Over};
use crate::seam::{Accepted, Instant, Op};
use crate::stats::{ListenerMetric, Refusal};
use crate::world::{Socket, Tick, World};

impl Relays {
    /// A client connected.
    pub(crate) fn handle_accepted(&mut self, world: &mut World, tick: &mut Tick<'_>, accepted: Accepted) {
        let arrival = accepted.arrival;
        let Some(front) = world.front_mut(accepted.front) else {
            return tick.ask(Op::Refuse { arrival, how: Refuse::Reset });
        };
        let (key, draining) = (front.listener, front.draining.is_some());
        let listener = &mut world.listeners[key];
        let counted = match let_in(listener, tick.now, (accepted.peer.ip(), draining)) {
            Ok(counted) => counted,
            Err(reason) => {
                listener.turn_away(reason);
                let how = if reason == Refusal::Draining { Refuse::Reset } else { listener.spec.limits.refuse };
                return tick.ask(Op::Refuse { arrival, how });
            }
        };
        listener.values[ListenerMetric::ConnectionsOpened] += 1;
        listener.values[ListenerMetric::ConnectionsLive] += 1;
        let expects_header = !listener.spec.trusted.is_empty();
        let prereads = expects_header || listener.spec.reads_hello();
        let id = self.relays.insert(Relay::new(tick.now, key, (accepted.peer, accepted.local)));
        let socket = world.insert(Socket::Client(id));
        tick.ask(Op::Accept { arrival, socket, credit: prereads });
        let relay = &mut self.relays[id];
        relay.set_socket(Side::Client, socket);
        relay.counted = counted;
        if prereads {
            relay.opening = Some(Box::new(Opening { expects_header, ..Opening::default() }));
            self.arm(world, id);
        } else {
            self.route(world, tick, id, None);
        }
    }

    /// The client that a PROXY header names counts from now on. False where it has as many as it may.
    pub(super) fn count_client(&mut self, world: &mut World, tick: &Tick<'_>, id: super::RelayId) -> bool {
        let relay = &mut self.relays[id];
        let (source, listener) = (relay.client().ip(), &mut world.listeners[relay.listener]);
        let bounds = Bounds::of_connections(&listener.spec.limits);
        debug_assert!(tick.now >= relay.accepted, "time never goes back");
        match listener.admission.admit_source(source, &bounds) {
            Ok(()) => {
                relay.counted =
                    Counted::In(listener.admission.take_network(source, listener.spec.limits.source_network));
                true
            }
            Err(over) => {
                listener.turn_away(refusal(over));
                false
            }
        }
    }
}

fn let_in(listener: &mut LiveListener, now: Instant, (peer, draining): (IpAddr, bool)) -> Result<Counted, Refusal> {
    if draining {
        return Err(Refusal::Draining);
    }
    let bounds = Bounds::of_connections(&listener.spec.limits);
    if listener.spec.trusted.is_empty() {
        listener.admission.admit(now, peer, &bounds).map_err(refusal)?;
        return Ok(Counted::In(listener.admission.take_network(peer, listener.spec.limits.source_network)));
    }
    if !listener.spec.trusted.iter().any(|network| network.contains(&peer)) {
        return Err(Refusal::Untrusted);
    }
    listener.admission.admit_unknown(now, &bounds).map_err(refusal)?;
    Ok(Counted::Nowhere)
}

fn refusal(over: Over) -> Refusal {
    match over {
        Over::Live => Refusal::ConnectionLimit,
        Over::Source => Refusal::SourceLimit,
        Over::Network => Refusal::NetworkLimit,
        Over::Rate => Refusal::RateLimit,
    }
}
