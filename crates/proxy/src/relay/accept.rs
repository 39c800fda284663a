//! A client was let in: what its connection begins with.

use super::Relays;
use super::connection::{Opening, Relay, Side};
use crate::arrival::{self, Arrived};
use crate::seam::{Accepted, Op, SocketId};
use crate::world::{Socket, Tick, World};

impl Relays {
    /// A client was let in. Gives its stream.
    pub(crate) fn handle_accepted(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        (accepted, arrived): (Accepted, Arrived),
    ) -> SocketId {
        let arrival = accepted.arrival;
        let listener = &world.listeners[arrived.listener];
        let expects_header = !listener.spec.trusted.is_empty();
        let expects_handshake = listener.spec.tls.is_some();
        let prereads = expects_header || expects_handshake || listener.spec.reads_hello();
        let counted = arrived.counted;
        let id = self.relays.insert(Relay::new(tick.now, arrived.listener, (arrived.peer, arrived.local)));
        let socket = world.insert(Socket::Client(id));
        tick.ask(Op::Accept { arrival, socket, credit: prereads });
        let relay = &mut self.relays[id];
        relay.set_socket(Side::Client, socket);
        relay.counted = counted;
        if prereads {
            relay.opening = Some(Box::new(Opening { expects_header, expects_handshake, ..Opening::default() }));
            self.arm(world, id);
        } else {
            self.route(world, tick, id, None);
        }
        socket
    }

    /// The client that a PROXY header names counts from now on. False where it has as many as it may.
    pub(super) fn count_client(&mut self, world: &mut World, id: super::RelayId) -> bool {
        let relay = &mut self.relays[id];
        match arrival::count_client(world, relay.listener, relay.client().ip()) {
            Some(counted) => {
                relay.counted = counted;
                true
            }
            None => false,
        }
    }
}
