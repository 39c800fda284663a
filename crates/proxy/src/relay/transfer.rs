//! Bytes and ends, from either stream to the other. What the other does not take is kept here, and nothing more is
//! received until it does: at most one read for each direction.

use super::connection::{Ending, Mode, Phase, Side};
use super::{RelayId, Relays};
use crate::limits::{BULKY_READ, PIPE_AFTER, SMALL_MOVE, UNPIPE_AFTER};
use crate::record::CloseReason;
use crate::seam::{Gather, Op, Span};
use crate::stats::{BackendMetric, ListenerMetric};
use crate::unsent::Unsent;
use crate::world::{Tick, World};

impl Relays {
    /// Bytes arrived on one of the streams.
    pub(crate) fn handle_data(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        (id, from): (RelayId, Side),
        bytes: Span,
    ) {
        let step = self.step;
        let Some(relay) = self.relays.get_mut(id) else { return };
        if relay.phase != Phase::Established {
            return self.handle_early(world, tick, (id, from), bytes);
        }
        relay.moved = tick.now;
        let to = relay.socket(from.other());
        let lane = relay.lane_mut(from);
        if lane.rest.is_blocked() {
            // The machine owes us not to: but what it tells comes after what is kept.
            lane.rest.keep(bytes.of(tick.bytes));
        } else {
            tick.ask(Op::Write { socket: to, bytes: Gather { head: Span::EMPTY, body: bytes } });
            lane.written = step;
            if let Mode::Copied { bulky } = &mut lane.mode {
                *bulky = if bytes.len as usize >= BULKY_READ { *bulky + 1 } else { 0 };
                if *bulky >= PIPE_AFTER {
                    lane.mode = Mode::Piped { small: 0 };
                    let from = relay.socket(from);
                    tick.ask(Op::Pipe { from, to });
                }
            }
        }
        self.count_moved(world, id, from, u64::from(bytes.len));
    }

    /// Bytes of a client that no backend is there for yet.
    fn handle_early(&mut self, world: &mut World, tick: &mut Tick<'_>, (id, from): (RelayId, Side), bytes: Span) {
        if from == Side::Client {
            let bytes = bytes.of(tick.bytes);
            match self.relays[id].phase {
                Phase::Preread => self.handle_preread(world, tick, id, bytes),
                _ => self.relays[id].opening.get_or_insert_default().buffer.extend_from_slice(bytes),
            }
        }
    }

    /// Count payload that was given to the stream opposite `from`.
    pub(super) fn count_moved(&mut self, world: &mut World, id: RelayId, from: Side, bytes: u64) {
        let relay = &mut self.relays[id];
        relay.lane_mut(from).bytes += bytes;
        let (Some(cluster), Some(backend)) = (relay.cluster, relay.backend) else { return };
        let values = &mut world.clusters[cluster].backends[backend].values;
        match from {
            Side::Client => {
                values[BackendMetric::BytesSent] += bytes;
                world.listeners[relay.listener].values[ListenerMetric::BytesForwarded] += bytes;
            }
            Side::Backend => values[BackendMetric::BytesReturned] += bytes,
        }
    }

    /// A stream took only a part of what was written to it.
    pub(crate) fn handle_blocked(&mut self, tick: &mut Tick<'_>, (id, to): (RelayId, Side), rest: Span) {
        let Some(relay) = self.relays.get_mut(id) else { return };
        let from = to.other();
        let source = relay.socket(from);
        let lane = relay.lane_mut(from);
        debug_assert!(!lane.rest.is_blocked(), "nothing is written to a stream that is blocked");
        lane.rest = Unsent::blocked(rest.of(tick.bytes));
        // Neither the end nor the pipe that was asked for behind the write came about.
        lane.mode = Mode::default();
        match lane.ending {
            Ending::Open => tick.ask(Op::Credit { socket: source, on: false }),
            Ending::Ended => {}
            Ending::Passed => lane.ending = Ending::Ended,
        }
    }

    /// A stream that was blocked takes bytes again.
    pub(crate) fn handle_drained(&mut self, world: &mut World, tick: &mut Tick<'_>, (id, to): (RelayId, Side)) {
        let step = self.step;
        let Some(relay) = self.relays.get_mut(id) else { return };
        let (from, socket) = (to.other(), relay.socket(to));
        let source = relay.socket(from);
        relay.moved = tick.now;
        let lane = relay.lane_mut(from);
        let Some(rest) = lane.rest.drain() else { return };
        if !rest.is_empty() {
            let head = tick.out.put(&rest);
            tick.ask(Op::Write { socket, bytes: Gather { head, body: Span::EMPTY } });
        }
        // What is kept below is written too, and may block again.
        lane.written = step;
        match lane.ending {
            Ending::Open => tick.ask(Op::Credit { socket: source, on: true }),
            Ending::Ended | Ending::Passed => self.pass_end(world, tick, id, from),
        }
    }

    /// The machine moved bytes past the worker.
    pub(crate) fn handle_piped(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        (id, from): (RelayId, Side),
        bytes: u64,
    ) {
        let Some(relay) = self.relays.get_mut(id) else { return };
        relay.moved = tick.now;
        let source = relay.socket(from);
        if let Mode::Piped { small } = &mut relay.lane_mut(from).mode {
            *small = if bytes < SMALL_MOVE { *small + 1 } else { 0 };
            if *small >= UNPIPE_AFTER {
                relay.lane_mut(from).mode = Mode::default();
                tick.ask(Op::Unpipe { from: source });
            }
        }
        self.count_moved(world, id, from, bytes);
    }

    /// A stream sends nothing more.
    pub(crate) fn handle_eof(&mut self, world: &mut World, tick: &mut Tick<'_>, (id, from): (RelayId, Side)) {
        let Some(relay) = self.relays.get_mut(id) else { return };
        let lane = relay.lane_mut(from);
        if lane.ending != Ending::Open {
            return;
        }
        lane.ending = Ending::Ended;
        let is_kept = lane.rest.is_blocked();
        match relay.phase {
            Phase::Established if is_kept => {}
            Phase::Established => self.pass_end(world, tick, id, from),
            Phase::Preread => self.handle_preread_end(world, tick, id),
            // It goes to the backend behind what came before it.
            Phase::Queued | Phase::Connecting => {}
        }
    }

    /// Tell the other stream that nothing more comes, once nothing is kept for it; the relay ends with the second end.
    pub(super) fn pass_end(&mut self, world: &mut World, tick: &mut Tick<'_>, id: RelayId, from: Side) {
        let step = self.step;
        let relay = &mut self.relays[id];
        relay.moved = tick.now;
        relay.lane_mut(from).ending = Ending::Passed;
        if relay.lane(from).says_end {
            relay.lane_mut(from).written = step;
        }
        if relay.lane(from.other()).ending != Ending::Passed {
            let to = relay.socket(from.other());
            return tick.ask(Op::Shutdown { socket: to });
        }
        let may_block = [from, from.other()].into_iter().any(|side| relay.lane(side).written == step);
        if may_block {
            let to = relay.socket(from.other());
            tick.ask(Op::Shutdown { socket: to });
            self.finishing.push((step, id));
        } else {
            self.end(world, tick, id, CloseReason::Closed);
        }
    }

    /// End the relays whose last bytes, written in the last step, were taken.
    pub(crate) fn finish(&mut self, world: &mut World, tick: &mut Tick<'_>) {
        // Those of this step come last, and their turn is the next one.
        let earlier = self.finishing.iter().take_while(|(step, _)| *step != self.step).count();
        let earlier: Vec<(u32, RelayId)> = self.finishing.drain(..earlier).collect();
        for (_, id) in earlier {
            // What was said then may have blocked, and have been said again in this step: then it may block again.
            if self.finishing.iter().any(|(_, again)| *again == id) {
                continue;
            }
            let passed = |side| self.relays.get(id).is_some_and(|relay| relay.lane(side).ending == Ending::Passed);
            if passed(Side::Client) && passed(Side::Backend) {
                self.end(world, tick, id, CloseReason::Closed);
            }
        }
    }

    /// A stream broke: so does the other.
    pub(crate) fn handle_broken(&mut self, world: &mut World, tick: &mut Tick<'_>, (id, side): (RelayId, Side)) {
        let Some(relay) = self.relays.get(id) else { return };
        let reason = match (side, relay.phase) {
            (Side::Client, Phase::Established) => CloseReason::ClientReset,
            (Side::Client, _) => CloseReason::ClientGone,
            (Side::Backend, _) => CloseReason::BackendReset,
        };
        self.end(world, tick, id, reason);
    }
}
