//! The end of a flow: everything that it held is given back, once, and its record is left.

use super::Datagrams;
use super::flow::{Flow, FlowId, Kept, Upstream};
use super::life::Expiry;
use crate::cluster::{ClusterKey, Pool, Rest};
use crate::record::{CloseReason, Detail, Record};
use crate::seam::{Instant, Op, OpenError, SocketId};
use crate::stats::{BackendMetric, DropReason};
use crate::world::{Due, Socket, Tick, World};

impl Datagrams {
    /// A flow's armed deadline came.
    pub(crate) fn handle_due(&mut self, world: &mut World, tick: &mut Tick<'_>, id: FlowId, token: u32) {
        let Some(flow) = self.flows.get_mut(id) else { return };
        flow.timer = None;
        match flow.life.handle_expiry(tick.now, token) {
            Expiry::Due(reason) => self.end(world, tick, id, reason),
            Expiry::Stale => self.arm(world, id),
        }
    }

    /// The flow's socket could not be opened.
    pub(crate) fn handle_open_failed(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        (id, error): (FlowId, OpenError),
    ) {
        let Some(flow) = self.flows.get(id) else { return };
        world.clusters[flow.cluster].backends[flow.backend].values[BackendMetric::OpenFailed] += 1;
        if matches!(error, OpenError::NoDescriptors | OpenError::NoPorts) {
            self.close_parted(world, tick);
        }
        if error == OpenError::Unreachable && self.retry(world, tick, id) {
            return;
        }
        self.end_dropping(world, tick, id, (CloseReason::Aborted, DropReason::NoSocket));
    }

    /// End a flow.
    pub(crate) fn end(&mut self, world: &mut World, tick: &mut Tick<'_>, id: FlowId, reason: CloseReason) {
        self.end_dropping(world, tick, id, (reason, DropReason::Unsent));
    }

    fn end_dropping(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: FlowId,
        (reason, why): (CloseReason, DropReason),
    ) {
        if self.flows.get(id).is_some_and(Flow::is_keyed) {
            self.leave(id);
        }
        let stashed = self.stash.discard(id);
        let Some(flow) = self.flows.remove(id) else { return };
        if let Some(timer) = flow.timer {
            world.timers.cancel(timer);
        }
        if !self.part(world, tick, (id, &flow), reason) {
            Self::disconnect(world, tick, &flow, Some(reason));
        }
        Self::settle_off(world, &flow);
        let listener = &mut world.listeners[flow.listener];
        let unsent = stashed + u32::from(matches!(flow.kept.as_deref(), Some(Kept::Pending(_))));
        listener.unkeep(unsent);
        listener.drop(why, unsent);
        listener.release(flow.key.client().ip());
        listener.closes.0[reason as usize] += 1;
        let place = Some((flow.cluster, flow.backend));
        world.note_cut(reason, (flow.listener, flow.target.route.as_ref(), place), |cut| cut.flows += 1);
        let front_port = match world.front_mut(flow.key.front) {
            Some(front) => {
                front.flows -= 1;
                front.port
            }
            None => 0,
        };
        if world.records {
            tick.ask(Op::Record(Box::new(record(world, tick, &flow, (front_port, reason)))));
        }
        world.settle_backend(flow.cluster, flow.backend);
        world.settle_front(tick, flow.key.front);
        world.settle_listener(flow.listener);
    }

    /// Give the flow's socket up, or its place in the shared ones. It ended for that reason, or goes on with another.
    pub(super) fn disconnect(world: &mut World, tick: &mut Tick<'_>, flow: &Flow, ended: Option<CloseReason>) {
        let Upstream { socket, lease, .. } = flow.upstream;
        let Some(lease) = lease else {
            if let Some(Socket::Flow(_)) = world.sockets.get(socket) {
                world.close(tick, socket);
            }
            return;
        };
        let traffic = &flow.life.traffic;
        // Only a cap on replies says how many there are: a backend may send more of them than it was asked questions.
        let is_complete = ended == Some(CloseReason::ResponsesReached);
        let is_answered = is_complete && traffic.responses >= traffic.requests && !flow.life.retried;
        let rest = if is_answered { Rest::Answered } else { Rest::Owed };
        let cluster = &mut world.clusters[flow.cluster];
        let address = cluster.backends[flow.backend].address();
        let pool = cluster.pool_mut(address);
        pool.release(tick.now, lease, rest);
        Self::review_pools(world, tick.now, flow.cluster);
    }

    /// Have a cluster's shared sockets looked at that may be given up by then.
    fn review_pools(world: &mut World, now: Instant, key: ClusterKey) {
        let cluster = &mut world.clusters[key];
        if cluster.idle_pools.is_none() {
            let at = now + crate::limits::SHARED_REST_OWED;
            cluster.idle_pools = Some(world.timers.arm(at, Due::IdlePools(key)));
        }
    }

    /// The shared sockets that nobody has needed for a while are closed.
    pub(crate) fn handle_pools_due(world: &mut World, tick: &mut Tick<'_>, key: ClusterKey) {
        let Some(cluster) = world.clusters.get_mut(key) else { return };
        cluster.idle_pools = None;
        let sockets: Vec<SocketId> = cluster.pools.iter_mut().flat_map(|pool| pool.trim(tick.now)).collect();
        if cluster.pools.iter().any(Pool::may_shrink) {
            Self::review_pools(world, tick.now, key);
        }
        sockets.into_iter().for_each(|socket| world.close(tick, socket));
        world.settle_cluster(key);
    }

    /// Nothing will be sent any more: the shared sockets that nothing holds a place on are closed at once.
    pub(crate) fn close_idle_pools(world: &mut World, tick: &mut Tick<'_>, key: ClusterKey) {
        let Some(cluster) = world.clusters.get_mut(key) else { return };
        let idle = cluster.pools.iter_mut().filter(|pool| pool.is_idle());
        let sockets: Vec<SocketId> = idle.flat_map(|pool| pool.clear()).collect();
        sockets.into_iter().for_each(|socket| world.close(tick, socket));
        world.settle_cluster(key);
    }
}

fn record(world: &World, tick: &Tick<'_>, flow: &Flow, (front_port, reason): (u16, CloseReason)) -> Record {
    let backend = &world.clusters[flow.cluster].backends[flow.backend].spec;
    let traffic = &flow.life.traffic;
    Record {
        listener: world.listeners[flow.listener].spec.name.clone(),
        route: flow.target.route.clone(),
        cluster: Some(flow.target.cluster.clone()),
        backend: Some(backend.name.clone()),
        backend_address: Some(backend.address.clone()),
        client: flow.key.client(),
        local: flow.dialled(front_port),
        admitted: flow.life.admitted,
        duration: tick.now - flow.life.admitted,
        request_bytes: traffic.request_bytes,
        response_bytes: traffic.response_bytes,
        reason,
        detail: Detail::Flow { requests: traffic.requests, responses: traffic.responses },
    }
}
