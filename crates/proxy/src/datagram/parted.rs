//! Sockets of one-way flows that ended with their last datagram. What the network says of that comes later, and only to
//! who still has the socket: so a few are kept for a moment, the newest ones. They receive nothing for anybody.

use std::collections::VecDeque;

use super::Datagrams;
use super::flow::{Flow, FlowId};
use crate::cluster::{BackendKey, ClusterKey};
use crate::limits::{PARTED_FOR, PARTED_SOCKETS};
use crate::record::CloseReason;
use crate::seam::{Instant, SocketId};
use crate::timers::TimerKey;
use crate::world::{Due, Socket, Tick, World};

/// A socket whose flow ended.
#[derive(Clone, Copy, Debug)]
struct PartedSocket {
    socket: SocketId,
    flow: FlowId,
    place: (ClusterKey, BackendKey),
    until: Instant,
}

/// Those that are kept, oldest first.
#[derive(Debug, Default)]
pub(super) struct Parted {
    sockets: VecDeque<PartedSocket>,
    /// When the oldest is closed.
    timer: Option<TimerKey>,
}

impl Parted {
    /// Where the flow of that id went.
    pub(super) fn backend_of(&self, id: FlowId) -> Option<(ClusterKey, BackendKey)> {
        self.sockets.iter().find(|parted| parted.flow == id).map(|parted| parted.place)
    }
}

impl Datagrams {
    /// Keep the socket of a flow that ended for that reason, where something may be said of what it sent; false where
    /// there is nothing to wait for.
    pub(super) fn part(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        (id, flow): (FlowId, &Flow),
        reason: CloseReason,
    ) -> bool {
        let socket = flow.upstream.socket;
        // Shared ones stay open anyway.
        let is_own = flow.upstream.lease.is_none() && matches!(world.sockets.get(socket), Some(Socket::Flow(_)));
        if reason != CloseReason::RequestsReached || !is_own {
            return false;
        }
        if self.parted.sockets.len() == PARTED_SOCKETS
            && let Some(oldest) = self.parted.sockets.pop_front()
        {
            world.close(tick, oldest.socket);
        }
        let until = tick.now + PARTED_FOR;
        self.parted.sockets.push_back(PartedSocket { socket, flow: id, place: (flow.cluster, flow.backend), until });
        if self.parted.timer.is_none() {
            self.parted.timer = Some(world.timers.arm(until, Due::Parted));
        }
        true
    }

    /// Nothing more is to be expected of those that were kept for long enough.
    pub(crate) fn handle_parted_due(&mut self, world: &mut World, tick: &mut Tick<'_>) {
        self.parted.timer = None;
        while let Some(parted) = self.parted.sockets.pop_front_if(|parted| parted.until <= tick.now) {
            world.close(tick, parted.socket);
        }
        self.parted.timer = self.parted.sockets.front().map(|oldest| world.timers.arm(oldest.until, Due::Parted));
    }

    /// Close all of them: what they take is needed, or nothing will be sent any more.
    pub(crate) fn close_parted(&mut self, world: &mut World, tick: &mut Tick<'_>) {
        if let Some(timer) = self.parted.timer.take() {
            world.timers.cancel(timer);
        }
        while let Some(parted) = self.parted.sockets.pop_front() {
            world.close(tick, parted.socket);
        }
    }
}
