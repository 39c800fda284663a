//! Deadlines: the earliest of those that a relay stands under is armed, and looked at again when it comes, so that
//! bytes that move cost no timer. Which one it was says why a relay ends.

use std::time::Duration;

use super::connection::{Phase, Relay};
use super::{RelayId, Relays};
use crate::change::Change;
use crate::record::CloseReason;
use crate::seam::Instant;
use crate::world::{Tick, World};

/// What a deadline that came means for whoever called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// It was dealt with.
    Settled,
    /// The attempt to connect took too long: its backend failed.
    ConnectTimedOut,
}

/// Why a relay would end at its next deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Preread,
    Queue,
    Connect,
    Idle,
    Lifetime,
    Drain(Change),
}

impl Relay {
    /// When it must end, as things stand, and what for.
    fn deadline(&self, preread: Duration) -> (Instant, Limit) {
        let knobs = self.knobs.as_deref();
        let phase = match self.phase {
            Phase::Preread => Some((self.accepted + preread, Limit::Preread)),
            Phase::Queued => knobs.map(|knobs| (self.since + knobs.queue_timeout, Limit::Queue)),
            Phase::Connecting => knobs.map(|knobs| (self.since + knobs.connect_timeout, Limit::Connect)),
            Phase::Established => {
                knobs.and_then(|knobs| knobs.idle_timeout).map(|idle| (self.moved + idle, Limit::Idle))
            }
        };
        let lifetime = knobs.and_then(|knobs| knobs.lifetime).map(|whole| (self.accepted + whole, Limit::Lifetime));
        let drain = self.drains.first().map(|drain| (drain.until, Limit::Drain(drain.change)));
        let all = [phase, lifetime, drain].into_iter().flatten();
        all.min_by_key(|(at, _)| *at).unwrap_or((Instant::FAR, Limit::Idle))
    }
}

impl Relays {
    /// When a relay must end, as things stand; none: it has no deadline.
    pub(super) fn deadline(&self, world: &World, relay: &Relay) -> Option<Instant> {
        let (at, _) = relay.deadline(world.listeners[relay.listener].spec.opening_timeout());
        (at != Instant::FAR).then_some(at)
    }

    /// See to it that the relay is looked at no later than its deadline.
    pub(super) fn arm(&mut self, world: &mut World, id: RelayId) {
        let relay = &mut self.relays[id];
        let (at, _) = relay.deadline(world.listeners[relay.listener].spec.opening_timeout());
        if at == Instant::FAR {
            return;
        }
        let due = crate::world::Due::Relay(id);
        relay.timer = match relay.timer {
            // One that comes too early finds nothing due and is armed again.
            Some((timer, armed)) if armed <= at => Some((timer, armed)),
            Some((timer, _)) => {
                world.timers.rearm(timer, at, due);
                Some((timer, at))
            }
            None => Some((world.timers.arm(at, due), at)),
        };
    }

    /// A relay's armed deadline came.
    pub(crate) fn handle_due(&mut self, world: &mut World, tick: &mut Tick<'_>, id: RelayId) -> Due {
        let Some(relay) = self.relays.get_mut(id) else { return Due::Settled };
        relay.timer = None;
        let (at, limit) = relay.deadline(world.listeners[relay.listener].spec.opening_timeout());
        if at > tick.now {
            self.arm(world, id);
            return Due::Settled;
        }
        let reason = match limit {
            Limit::Connect => return Due::ConnectTimedOut,
            Limit::Drain(change) => match self.still_holds(world, tick, id, change) {
                Some(reason) => reason,
                None => {
                    // What it stood on came back in time.
                    self.relays[id].drains.take_back(change);
                    self.arm(world, id);
                    return Due::Settled;
                }
            },
            Limit::Preread => CloseReason::PrereadTimeout,
            Limit::Queue => CloseReason::QueueTimeout,
            Limit::Idle => CloseReason::Idle,
            Limit::Lifetime => CloseReason::Lifetime,
        };
        self.end(world, tick, id, reason);
        Due::Settled
    }
}
