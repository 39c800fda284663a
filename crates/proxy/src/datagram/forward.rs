//! To the backend: what was received or kept is sent, with the PROXY header where the flow carries one.

use std::net::SocketAddr;

use kakei_config::SendProxyProtocol;
use kakei_wire::proxy_protocol::{Addresses, Transport, v2};

use super::Datagrams;
use super::ended::{EndedFlow, Headers};
use super::flow::{Flow, FlowId, Kept};
use super::key::Arrival;
use super::run::{Place, Run};
use super::saved::INTRODUCES;
use super::stash::Stashed;
use crate::cluster::{BackendKey, ClusterKey};
use crate::limits::MAX_DATAGRAM;
use crate::listener::ListenerKey;
use crate::record::CloseReason;
use crate::seam::{Gather, Op, Outbox, Send, SocketId, Span};
use crate::stats::{BackendMetric, DropReason, ListenerMetric, WorkerMetric};
use crate::world::{Socket, Tick, World};

/// What became of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sent {
    datagrams: u32,
    /// Payload only.
    bytes: u64,
    too_big: u32,
}

impl Datagrams {
    /// Send a run to the flow's backend. Its socket is open and its `requests` cap has room for all of it.
    pub(super) fn forward(&mut self, world: &mut World, tick: &mut Tick<'_>, id: FlowId, run: Run) {
        let sent = self.emit(world, tick, id, run);
        let flow = &mut self.flows[id];
        let listener = &mut world.listeners[flow.listener];
        listener.drop(DropReason::TooBig, sent.too_big);
        listener.values[ListenerMetric::DatagramsForwarded] += u64::from(sent.datagrams);
        listener.values[ListenerMetric::BytesForwarded] += sent.bytes;
        if sent.datagrams == 0 {
            flow.life.handle_kept(tick.now);
            return self.arm(world, id);
        }
        if flow.life.may_retry() {
            let arena = if run.place == Place::Inbox { tick.bytes } else { &tick.out.bytes };
            flow.kept = Some(Box::new(Kept::Spare(run.last().bytes.of(arena).into())));
        }
        let ended = flow.life.handle_forwarded(tick.now, sent.datagrams, sent.bytes);
        if !flow.is_keyed() {
            self.leave(id);
        }
        match ended {
            Some(reason) => self.end_by_sending(world, tick, id, reason),
            None => self.arm(world, id),
        }
    }

    /// The socket that the flow waits for is open: what it kept goes first.
    pub(crate) fn handle_opened(&mut self, world: &mut World, tick: &mut Tick<'_>, id: FlowId, socket: SocketId) {
        let Some(flow) = self.flows.get_mut(id).filter(|flow| flow.upstream.socket == socket) else { return };
        flow.upstream.open = true;
        flow.life.handle_opened();
        let (key, listener) = (flow.key.arrival(), flow.listener);
        let stashed = self.stash.take_all(id);
        match flow.kept.take().map(|kept| *kept) {
            Some(Kept::Pending(bytes)) => {
                let bytes = tick.out.put(&bytes);
                self.forward_kept(world, tick, (id, key, listener), Run { place: Place::Outbox, bytes, segment: 0 });
            }
            // Forwarded once already, so it counts no more.
            Some(Kept::Spare(bytes)) => {
                let bytes = tick.out.put(&bytes);
                self.emit(world, tick, id, Run { place: Place::Outbox, bytes, segment: 0 });
            }
            None => {}
        }
        for Stashed { bytes, segment, .. } in stashed {
            let bytes = tick.out.put(&bytes);
            self.forward_kept(world, tick, (id, key, listener), Run { place: Place::Outbox, bytes, segment });
        }
    }

    /// Forward what was kept; what the flow may not take any more opens the next one, as if it came only now.
    fn forward_kept(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        (id, key, listener): (FlowId, Arrival, ListenerKey),
        run: Run,
    ) {
        // A removed listener goes with its last flow, which may be this one: then nobody is left to count or to open for.
        let Some(live) = world.listeners.get_mut(listener) else { return };
        live.unkeep(run.count());
        let left = self.flows.get(id).map_or(0, |flow| flow.life.requests_left());
        let rest = match left {
            0 => Some(run),
            left => {
                let (taken, rest) = run.split(left);
                self.forward(world, tick, id, taken);
                rest
            }
        };
        if let (Some(rest), Some(live)) = (rest, world.listeners.get_mut(listener)) {
            live.unreceive(rest.count());
            self.offer(world, tick, (key, FlowId::default()), rest);
        }
    }

    /// Send a run and count it on the backend.
    fn emit(&mut self, world: &mut World, tick: &mut Tick<'_>, id: FlowId, run: Run) -> Sent {
        let tag = self.tag(id);
        let flow = &mut self.flows[id];
        let backend = &world.clusters[flow.cluster].backends[flow.backend];
        let out = Emitter {
            tag,
            to: flow.upstream.lease.is_some().then_some(backend.address()),
            socket: flow.upstream.socket,
        };
        let mut sent = Sent::default();
        match flow.life.knobs.send_proxy_protocol {
            SendProxyProtocol::First if !flow.upstream.introduced => {
                let (first, rest) = run.split(1);
                let introducing = Emitter { tag: tag ^ INTRODUCES, ..out };
                sent.add(introducing.send_headed(tick.out, first, &header(flow, world)));
                flow.upstream.introduced = sent.datagrams > 0;
                if let Some(rest) = rest {
                    sent.add(out.send(tick.out, rest));
                }
            }
            SendProxyProtocol::Every => {
                let header = header(flow, world);
                run.each().for_each(|single| sent.add(out.send_headed(tick.out, single, &header)));
            }
            SendProxyProtocol::Off | SendProxyProtocol::First => sent.add(out.send(tick.out, run)),
        }
        let backend = &mut world.clusters[flow.cluster].backends[flow.backend];
        backend.values[BackendMetric::DatagramsSent] += u64::from(sent.datagrams);
        backend.values[BackendMetric::BytesSent] += sent.bytes;
        sent
    }

    /// Forwards that were counted and then failed.
    pub(crate) fn handle_forward_failed(&mut self, world: &mut World, tick: &mut Tick<'_>, failure: &Failure) {
        let (id, introduced) = self.tagged(failure.tag);
        let Some(flow) = self.flows.get_mut(id) else {
            let ended = self.ended.take_note(id);
            let known = ended.filter(|ended| world.listeners.contains_key(ended.listener));
            let Some(EndedFlow { listener, cluster, backend, headers, .. }) = known else {
                world.values[WorkerMetric::LateSendFailures] += u64::from(failure.datagrams);
                return;
            };
            let bytes = failure.payload(headers, introduced);
            return take_back_forwarded(world, listener, (cluster, backend), (failure, bytes));
        };
        // Where the backend hasn't seen the one header of the flow, the next datagram carries it.
        flow.upstream.introduced &= !introduced;
        let bytes = failure.payload(headers(flow, world), introduced);
        let ended = flow.life.handle_unsent(failure.datagrams, bytes);
        // What counts as dropped now isn't sent again.
        flow.forget_spare();
        take_back_forwarded(world, flow.listener, (flow.cluster, flow.backend), (failure, bytes));
        if let Some(reason) = ended {
            self.end(world, tick, id, reason);
        }
    }

    /// The flow that a failed send was of; it may have ended.
    pub(crate) fn flow_of(&self, failure: &Failure) -> FlowId {
        self.tagged(failure.tag).0
    }

    /// End a flow that sent its last. Whether that was sent is told afterwards.
    pub(super) fn end_by_sending(&mut self, world: &mut World, tick: &mut Tick<'_>, id: FlowId, reason: CloseReason) {
        let flow = &self.flows[id];
        self.ended.put(EndedFlow {
            id,
            step: self.step,
            listener: flow.listener,
            cluster: flow.cluster,
            backend: flow.backend,
            headers: headers(flow, world),
        });
        self.end(world, tick, id, reason);
    }
}

/// What counted as forwarded counts as dropped. A flow that was moved since has another backend, which was sent nothing
/// of this.
fn take_back_forwarded(
    world: &mut World,
    listener: ListenerKey,
    (cluster, backend): (ClusterKey, BackendKey),
    (failure, bytes): (&Failure, u64),
) {
    let listener = &mut world.listeners[listener];
    listener.values[ListenerMetric::DatagramsForwarded] -= u64::from(failure.datagrams);
    listener.values[ListenerMetric::BytesForwarded] -= bytes;
    listener.drop(failure.reason, failure.datagrams);
    let live = world.clusters.get_mut(cluster).and_then(|cluster| cluster.backends.get_mut(backend));
    let Some(live) = live else { return };
    let sent = &mut live.values[BackendMetric::DatagramsSent];
    *sent = sent.saturating_sub(u64::from(failure.datagrams));
    let sent = &mut live.values[BackendMetric::BytesSent];
    *sent = sent.saturating_sub(bytes);
}

/// Sends that failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) tag: u64,
    pub(crate) datagrams: u32,
    /// On the wire.
    pub(crate) bytes: u32,
    pub(crate) reason: DropReason,
    /// Whether the system says that the peer can't be reached.
    pub(crate) unreachable: bool,
}

impl Failure {
    /// Its bytes without those of headers.
    fn payload(&self, headers: Headers, introduced: bool) -> u64 {
        u64::from(self.bytes).saturating_sub(headers.among(self.datagrams, introduced))
    }
}

/// A PROXY header, ready to be sent.
struct Header {
    bytes: [u8; v2::MAX_EMITTED],
    len: usize,
}

/// The header that tells the backend who the client is and which address it dialled.
fn header(flow: &Flow, world: &World) -> Header {
    let port = match world.sockets.get(flow.key.front) {
        Some(Socket::Front(front)) => front.port,
        _ => 0,
    };
    let addresses = Addresses { source: flow.key.client(), destination: flow.dialled(port) };
    let mut bytes = [0; v2::MAX_EMITTED];
    let len = v2::emit(addresses, Transport::Datagram, &mut bytes);
    Header { bytes, len }
}

/// Which of the flow's datagrams carry a header.
fn headers(flow: &Flow, world: &World) -> Headers {
    match flow.life.knobs.send_proxy_protocol {
        SendProxyProtocol::Off => Headers::None,
        SendProxyProtocol::First => Headers::First(header(flow, world).len as u8),
        SendProxyProtocol::Every => Headers::Every(header(flow, world).len as u8),
    }
}

/// Writes a flow's sends.
#[derive(Clone, Copy)]
struct Emitter {
    tag: u64,
    socket: SocketId,
    to: Option<SocketAddr>,
}

impl Emitter {
    /// A run as it is.
    fn send(&self, out: &mut Outbox, run: Run) -> Sent {
        if run.longest() > MAX_DATAGRAM {
            return Sent { too_big: run.count(), ..Sent::default() };
        }
        self.op(out, run.segment, run.gather());
        Sent { datagrams: run.count(), bytes: u64::from(run.bytes.len), too_big: 0 }
    }

    /// One datagram behind a header.
    fn send_headed(&self, out: &mut Outbox, single: Run, header: &Header) -> Sent {
        if single.bytes.len as usize + header.len > MAX_DATAGRAM as usize {
            return Sent { too_big: 1, ..Sent::default() };
        }
        let head = out.put(&header.bytes[..header.len]);
        let bytes = match single.place {
            Place::Inbox => Gather { head, body: single.bytes },
            // Bytes of the outbox go out as one span, so they follow their header.
            Place::Outbox => {
                let from = single.bytes.start as usize;
                out.bytes.extend_from_within(from..from + single.bytes.len as usize);
                Gather { head: Span { len: head.len + single.bytes.len, ..head }, body: Span::EMPTY }
            }
        };
        self.op(out, 0, bytes);
        Sent { datagrams: 1, bytes: u64::from(single.bytes.len), too_big: 0 }
    }

    fn op(&self, out: &mut Outbox, segment: u16, bytes: Gather) {
        let Emitter { tag, socket, to } = *self;
        out.ops.push(Op::Send(Send { socket, to, from: None, segment, bytes, tag }));
    }
}

impl Sent {
    fn add(&mut self, more: Sent) {
        self.datagrams += more.datagrams;
        self.bytes += more.bytes;
        self.too_big += more.too_big;
    }
}
