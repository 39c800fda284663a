//! From the client: which flow a datagram belongs to, whether one is admitted for it, whether it can go on at once.
//! The order of the checks is that of docs/UDP.md, section 7.

use std::net::SocketAddr;

use super::Datagrams;
use super::flow::{FlowId, Kept};
use super::key::{self, Arrival};
use super::run::{Place, Run};
use crate::listener::{ListenerKey, LiveListener};
use crate::seam::{Datagram, SocketId};
use crate::stats::{DropReason, ListenerMetric};
use crate::world::{Tick, World};

impl Datagrams {
    /// A datagram or a train arrived at a front socket.
    /// `located` may be the flow that it belongs to.
    pub(crate) fn handle_client(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        datagram: Datagram,
        located: FlowId,
    ) {
        let Some(front) = world.front_mut(datagram.socket) else { return };
        let listener = front.listener;
        if front.draining.is_none() {
            return self.receive(world, tick, (datagram, listener), located);
        }
        let front = *front;
        match world.heir(&front, SocketAddr::new(datagram.local, front.port)) {
            Some(heir) => self.receive_for(world, tick, datagram, (listener, heir)),
            None => self.receive(world, tick, (datagram, listener), located),
        }
    }

    /// The front drains and another one takes its new clients: what isn't of a flow that it has is as if it had come
    /// there.
    fn receive_for(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        datagram: Datagram,
        (listener, heir): (ListenerKey, SocketId),
    ) {
        let spec = std::sync::Arc::clone(&world.listeners[listener].spec);
        let arrival = Arrival::seen(&datagram);
        let Some(front) = world.front_mut(heir) else { return };
        let (own, others) = ((datagram.socket, listener), (heir, front.listener));
        if spec.trusted.is_empty() {
            let (socket, listener) = if self.find(&arrival).is_some() { own } else { others };
            return self.receive(world, tick, (Datagram { socket, ..datagram }, listener), FlowId::default());
        }
        for single in Run::received(datagram.bytes, datagram.segment).each() {
            let believed = key::read_header(&spec, datagram.peer, single.bytes.of(tick.bytes));
            let is_known = believed.is_ok_and(|(believed, _)| self.find(&Arrival { believed, ..arrival }).is_some());
            let (socket, listener) = if is_known { own } else { others };
            let single = Datagram { socket, segment: 0, bytes: single.bytes, ..datagram };
            self.receive(world, tick, (single, listener), FlowId::default());
        }
    }

    fn receive(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        (datagram, key): (Datagram, ListenerKey),
        located: FlowId,
    ) {
        let listener = &mut world.listeners[key];
        let Some(run) = within_size(listener, Run::received(datagram.bytes, datagram.segment)) else { return };
        let arrival = Arrival::seen(&datagram);
        if listener.spec.trusted.is_empty() {
            return self.offer(world, tick, (arrival, located), run);
        }
        let spec = std::sync::Arc::clone(&listener.spec);
        for single in run.each() {
            match key::read_header(&spec, datagram.peer, single.bytes.of(tick.bytes)) {
                Ok((believed, len)) => {
                    let arrival = Arrival { believed, ..arrival };
                    let payload = Run::received(single.bytes.skip(len), 0);
                    self.offer(world, tick, (arrival, FlowId::default()), payload);
                }
                Err(reason) => world.listeners[key].refuse(reason, 1),
            }
        }
    }

    /// Give a run to its flow, and what that flow may not take any more to the next one.
    pub(super) fn offer(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        (key, located): (Arrival, FlowId),
        run: Run,
    ) {
        let mut rest = Some(run);
        while let Some(run) = rest {
            let id = match self.find_from(located, &key) {
                Some(id) => id,
                None => match self.admit(world, tick, &key) {
                    Ok(id) => id,
                    Err(reason) => {
                        let Some(front) = world.front_mut(key.front) else { return };
                        let listener = front.listener;
                        return world.listeners[listener].refuse(reason, run.count());
                    }
                },
            };
            rest = self.pass(world, tick, id, run);
        }
    }

    /// Forward as much of a run as the flow may take, or keep it; returns the rest.
    fn pass(&mut self, world: &mut World, tick: &mut Tick<'_>, id: FlowId, run: Run) -> Option<Run> {
        let flow = &self.flows[id];
        let listener = &mut world.listeners[flow.listener];
        if !flow.upstream.open {
            listener.receive(run.count());
            self.keep(world, tick, id, run);
            return None;
        }
        let (taken, rest) = run.split(flow.life.requests_left());
        listener.receive(taken.count());
        self.forward(world, tick, id, taken);
        rest
    }

    /// Keep what can't be forwarded yet. What comes in the step in which the socket was asked for is stashed whole,
    /// since most machines have it open by the next one; after that the flow keeps the newest datagram only.
    fn keep(&mut self, world: &mut World, tick: &mut Tick<'_>, id: FlowId, run: Run) {
        let flow = &mut self.flows[id];
        world.listeners[flow.listener].values[ListenerMetric::DatagramsKept] += u64::from(run.count());
        let bytes = run.bytes.of(arena(tick, run));
        // Most likely the last one that asked.
        let has_just_asked = self.asked.iter().rev().any(|asked| *asked == id);
        if !has_just_asked || !self.stash.put(self.step, id, run, bytes) {
            self.supersede(world, id, run.count() - 1, run.last().bytes.of(arena(tick, run)).into());
        }
        self.flows[id].life.handle_kept(tick.now);
        self.arm(world, id);
    }

    /// Keep this datagram in place of everything that the flow kept before; `more` older ones came with it.
    pub(super) fn supersede(&mut self, world: &mut World, id: FlowId, more: u32, newest: Vec<u8>) {
        let flow = &mut self.flows[id];
        let stashed = self.stash.discard(id);
        let before = flow.kept.replace(Box::new(Kept::Pending(newest)));
        let was_kept = matches!(before.as_deref(), Some(Kept::Pending(_)));
        let superseded = more + stashed + u32::from(was_kept);
        let listener = &mut world.listeners[flow.listener];
        listener.unkeep(superseded);
        listener.drop(DropReason::Superseded, superseded);
    }
}

/// The arena that a run's bytes lie in.
fn arena<'a>(tick: &'a Tick<'_>, run: Run) -> &'a [u8] {
    match run.place {
        Place::Inbox => tick.bytes,
        Place::Outbox => &tick.out.bytes,
    }
}

/// The part of a run that isn't longer than the listener allows: all of it, its short tail, or nothing.
fn within_size(listener: &mut LiveListener, run: Run) -> Option<Run> {
    let limit = listener.spec.max_datagram_size;
    if run.longest() <= limit {
        return Some(run);
    }
    let tail = run.last();
    let fits = tail.longest() <= limit;
    listener.refuse(DropReason::Truncated, run.count() - u32::from(fits));
    fits.then_some(tail)
}
