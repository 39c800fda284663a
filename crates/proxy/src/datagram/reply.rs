//! From the backend: a datagram goes back to the socket that asked, from the address that it dialled.

use super::Datagrams;
use super::flow::FlowId;
use super::forward::Failure;
use super::run::Run;
use crate::cluster::{ClusterKey, Seat};
use crate::seam::{Datagram, Op, Send};
use crate::stats::{BackendMetric, ClusterMetric, DropReason, WorkerMetric};
use crate::world::{Socket, Tick, World};

impl Datagrams {
    /// A datagram or a train arrived on a flow's own socket.
    pub(crate) fn handle_reply(&mut self, world: &mut World, tick: &mut Tick<'_>, id: FlowId, datagram: Datagram) {
        let Some(flow) = self.flows.get(id) else { return };
        let run = Run::received(datagram.bytes, datagram.segment);
        let cluster = flow.cluster;
        world.clusters[cluster].values[ClusterMetric::RepliesIn] += u64::from(run.count());
        let (taken, rest) = run.split(flow.life.responses_left());
        self.give_back(world, tick, id, taken);
        if let (Some(rest), Some(cluster)) = (rest, world.clusters.get_mut(cluster)) {
            cluster.drop(DropReason::UnknownFlow, rest.count());
        }
    }

    /// A datagram or a train arrived on a shared socket: whose it is, the backend's address tells.
    pub(crate) fn handle_shared_reply(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        (cluster, seat): (ClusterKey, Seat),
        datagram: Datagram,
    ) {
        match world.clusters[cluster].pool_mut(datagram.peer).flow(seat, datagram.peer) {
            Some(id) => self.handle_reply(world, tick, id, datagram),
            None => {
                let count = Run::received(datagram.bytes, datagram.segment).count();
                let cluster = &mut world.clusters[cluster];
                cluster.pool_mut(datagram.peer).disturb(tick.now, seat, datagram.peer);
                cluster.values[ClusterMetric::RepliesIn] += u64::from(count);
                cluster.drop(DropReason::UnknownFlow, count);
            }
        }
    }

    fn give_back(&mut self, world: &mut World, tick: &mut Tick<'_>, id: FlowId, run: Run) {
        let tag = self.tag(id);
        let flow = &mut self.flows[id];
        let count = run.count();
        let bytes = u64::from(run.bytes.len);
        let is_wildcard = matches!(world.sockets.get(flow.key.front),
            Some(Socket::Front(front)) if front.bind.address.ip().is_unspecified());
        tick.ask(Op::Send(Send {
            socket: flow.key.front,
            to: Some(flow.key.peer()),
            from: is_wildcard.then_some(flow.key.local),
            segment: run.segment,
            bytes: run.gather(),
            tag,
        }));
        let cluster = &mut world.clusters[flow.cluster];
        cluster.values[ClusterMetric::RepliesReturned] += u64::from(count);
        let backend = &mut cluster.backends[flow.backend];
        backend.passive.handle_success();
        backend.values[BackendMetric::DatagramsReturned] += u64::from(count);
        backend.values[BackendMetric::BytesReturned] += bytes;
        flow.forget_spare();
        match flow.life.handle_returned(tick.now, count, bytes) {
            Some(reason) => self.end_by_sending(world, tick, id, reason),
            None => self.arm(world, id),
        }
    }

    /// Returns that were counted and then failed.
    pub(crate) fn handle_return_failed(&mut self, world: &mut World, failure: &Failure) {
        let id = self.flow_of(failure);
        let (count, bytes) = (u64::from(failure.datagrams), u64::from(failure.bytes));
        let place = match self.flows.get_mut(id) {
            Some(flow) => {
                flow.life.handle_unreturned(failure.datagrams, bytes);
                Some((flow.cluster, flow.backend))
            }
            None => self.ended.take_note(id).map(|ended| (ended.cluster, ended.backend)),
        };
        let live = place.and_then(|(key, backend)| Some((world.clusters.get_mut(key)?, backend)));
        let Some((cluster, backend)) = live else {
            world.values[WorkerMetric::LateSendFailures] += count;
            return;
        };
        cluster.values[ClusterMetric::RepliesReturned] -= count;
        cluster.drop(failure.reason, failure.datagrams);
        // A flow that was moved since has another backend, which returned nothing of this.
        let Some(backend) = cluster.backends.get_mut(backend) else { return };
        let returned = &mut backend.values[BackendMetric::DatagramsReturned];
        *returned = returned.saturating_sub(count);
        let returned = &mut backend.values[BackendMetric::BytesReturned];
        *returned = returned.saturating_sub(bytes);
    }
}
