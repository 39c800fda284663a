//! A request became a connection of its own: both of its streams are a relay from now on.

use super::Relays;
use super::connection::{Phase, Relay, Side};
use crate::change::Change;
use crate::joined::Joined;
use crate::seam::{Gather, Op, Span};
use crate::unsent::Unsent;
use crate::world::{Socket, Tick, World};

impl Relays {
    /// Take over two streams, with what was read of them and not passed on; and whether the end of either direction, the
    /// client's first, is told by bytes.
    pub(crate) fn adopt(&mut self, world: &mut World, tick: &mut Tick<'_>, joined: Joined, says_end: [bool; 2]) {
        let Joined { arrived, client, backend, place, .. } = joined;
        let arrived_by = arrived.listener;
        // What its client asked before is no part of it, and none of its time.
        let mut relay = Relay::new(tick.now, arrived.listener, (arrived.peer, arrived.local));
        relay.set_socket(Side::Client, client);
        relay.set_socket(Side::Backend, backend);
        relay.phase = Phase::Established;
        relay.believed = arrived.believed;
        relay.counted = arrived.counted;
        relay.target = Some(joined.target);
        relay.knobs = Some(joined.knobs);
        relay.drains = joined.drains;
        (relay.cluster, relay.backend) = (Some(place.0), Some(place.1));
        relay.detail.attempts = 1;
        for (side, says_end) in [Side::Client, Side::Backend].into_iter().zip(says_end) {
            let lane = relay.lane_mut(side);
            lane.says_end = says_end;
            // The last of the request, and the answer to it, may be of this step, and not taken.
            lane.written = self.step;
        }
        self.restless += usize::from(relay.minds_its_route());
        let live = &mut world.clusters[place.0].backends[place.1];
        live.take(relay.minds_its_backend());
        let id = self.relays.insert(relay);
        for (socket, role) in [(client, Socket::Client(id)), (backend, Socket::Backend(id))] {
            if let Some(known) = world.sockets.get_mut(socket) {
                *known = role;
            }
        }
        self.pass_on(world, tick, id, Side::Client, (joined.to_backend, joined.from_client));
        self.pass_on(world, tick, id, Side::Backend, (joined.to_client, joined.from_backend));
        self.arm(world, id);
        // Who is visited for a drain may become this in the middle of it.
        if !self.relays[id].drains.has(Change::Drained) && self.still_holds(world, tick, id, Change::Drained).is_some()
        {
            let until = world.listeners[arrived_by].drains_until(tick.now);
            self.sweep_one(id, (Change::Drained, until));
        }
    }

    /// What was read from `from` and not passed on goes to the other stream, behind what that did not take yet.
    /// What was owed before is the request's or its answer's, and was counted with it.
    fn pass_on(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: super::RelayId,
        from: Side,
        (mut owed, read): (Unsent, Vec<u8>),
    ) {
        self.count_moved(world, id, from, read.len() as u64);
        let relay = &mut self.relays[id];
        let (source, to) = (relay.socket(from), relay.socket(from.other()));
        let lane = relay.lane_mut(from);
        if owed.is_blocked() {
            owed.keep(&read);
            lane.rest = owed;
            tick.ask(Op::Credit { socket: source, on: false });
        } else if !read.is_empty() {
            let head = tick.out.put(&read);
            tick.ask(Op::Write { socket: to, bytes: Gather { head, body: Span::EMPTY } });
        }
    }
}
