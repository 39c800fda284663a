//! The end of a relay: everything that it held is given back, once, its streams are closed as the reason asks for, and
//! its record is left.

use super::connection::{Phase, Relay, Side};
use super::{RelayId, Relays};
use crate::arrival;
use crate::record::{CloseReason, Detail, Record};
use crate::seam::{Op, SocketId};
use crate::stats::{BackendMetric, ListenerMetric};
use crate::world::{Tick, World};

/// How a stream is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Its peer sees the end of it.
    Orderly,
    /// Its peer sees a reset: it must not take what came for the whole.
    Reset,
}

impl Relays {
    /// End a relay.
    pub(crate) fn end(&mut self, world: &mut World, tick: &mut Tick<'_>, id: RelayId, reason: CloseReason) {
        self.dequeue(world, id);
        let place = self.leave_backend(world, id);
        let Some(mut relay) = self.relays.remove(id) else { return };
        if relay.phase == Phase::Queued {
            relay.detail.queued += tick.now - relay.since;
            // It may have been all that those behind it waited for.
            self.queues.stir();
        }
        self.restless -= usize::from(relay.minds_its_route());
        if let Some((timer, _)) = relay.timer {
            world.timers.cancel(timer);
        }
        for side in [Side::Client, Side::Backend] {
            let is_secured = world.listeners[relay.listener].spec.tls.is_some();
            close(world, tick, relay.socket(side), manner(&relay, (side, is_secured), reason));
        }
        arrival::release(world, relay.listener, relay.counted, relay.client().ip());
        let listener = &mut world.listeners[relay.listener];
        listener.connection_closes.0[reason as usize] += 1;
        world.note_cut(reason, (relay.listener, relay.route(), place), |cut| cut.connections += 1);
        let listener = &mut world.listeners[relay.listener];
        let undelivered = |side| relay.lane(side).bytes - relay.lane(side).delivered();
        listener.values[ListenerMetric::BytesForwarded] -= undelivered(Side::Client);
        if let Some((cluster, backend)) = place {
            let values = &mut world.clusters[cluster].backends[backend].values;
            values[BackendMetric::BytesSent] -= undelivered(Side::Client);
            values[BackendMetric::BytesReturned] -= undelivered(Side::Backend);
        }
        if world.records && !is_bare(&relay, reason) {
            tick.ask(Op::Record(Box::new(record(world, tick, &relay, (place, reason)))));
        }
        if let Some((cluster, backend)) = place {
            world.settle_backend(cluster, backend);
        }
        world.settle_listener(relay.listener);
    }
}

/// Whether a client came and went and said nothing: somebody's health check. It leaves no record.
fn is_bare(relay: &Relay, reason: CloseReason) -> bool {
    let said_nothing = relay.opening.as_ref().is_none_or(|opening| opening.buffer.is_empty());
    relay.phase == Phase::Preread && reason == CloseReason::ClientGone && said_nothing
}

/// `is_secured`: TLS ends at the listener.
fn manner(relay: &Relay, (side, is_secured): (Side, bool), reason: CloseReason) -> Manner {
    let owes = relay.lane(side.other()).rest.is_blocked();
    match reason {
        CloseReason::Closed | CloseReason::ClientGone => Manner::Orderly,
        // Nobody is here who could have told it why.
        CloseReason::ClientHello if !is_secured => Manner::Reset,
        // It was told why, in TLS or in plain, and is to read that.
        CloseReason::TlsTimeout
        | CloseReason::TlsMissing
        | CloseReason::TlsUnknownName
        | CloseReason::TlsNoCommon
        | CloseReason::TlsClientAlert
        | CloseReason::TlsError
        | CloseReason::TlsTooLong
        | CloseReason::ClientCertificate
        | CloseReason::ClientHello
            if relay.phase == Phase::Preread =>
        {
            Manner::Orderly
        }
        CloseReason::Idle
        | CloseReason::Lifetime
        | CloseReason::Drain
        | CloseReason::BackendRemoved
        | CloseReason::BackendDown
        | CloseReason::RouteChanged
            if relay.phase == Phase::Established && !owes =>
        {
            Manner::Orderly
        }
        _ => Manner::Reset,
    }
}

fn close(world: &mut World, tick: &mut Tick<'_>, socket: SocketId, manner: Manner) {
    if world.forget(socket).is_some() {
        tick.ask(match manner {
            Manner::Orderly => Op::Close { socket },
            Manner::Reset => Op::Reset { socket },
        });
    }
}

fn record(
    world: &World,
    tick: &Tick<'_>,
    relay: &Relay,
    (place, reason): (Option<(crate::cluster::ClusterKey, crate::cluster::BackendKey)>, CloseReason),
) -> Record {
    let backend = place.map(|(cluster, backend)| &world.clusters[cluster].backends[backend].spec);
    Record {
        listener: world.listeners[relay.listener].spec.name.clone(),
        route: relay.route().cloned(),
        cluster: relay.target.as_ref().map(|target| target.cluster.clone()),
        backend: backend.map(|backend| backend.name.clone()),
        backend_address: backend.map(|backend| backend.address.clone()),
        client: relay.client(),
        local: relay.dialled(),
        admitted: relay.accepted,
        duration: tick.now - relay.accepted,
        request_bytes: relay.lane(Side::Client).delivered(),
        response_bytes: relay.lane(Side::Backend).delivered(),
        reason,
        detail: Detail::Connection(relay.detail.clone()),
    }
}
