//! Shared upstream sockets: many flows leave by one socket, at most one of them to each backend, so that a reply is
//! told by the socket it came to and the backend it came from. One-way flows, which are owed no reply, have one
//! socket in common. Opens nothing itself: it says which socket to open.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use hashbrown::HashMap;

use crate::datagram::FlowId;
use crate::limits::SHARED_SOCKETS;
use crate::seam::{Instant, SocketId};

/// One address family's shared sockets of a cluster.
#[derive(Debug)]
pub(crate) struct Pool {
    sockets: Vec<PoolSocket>,
    lanes: Vec<Lane>,
    /// Lanes of addresses that nothing went to lately: the next new address takes one of them.
    vacant: Vec<u32>,
    by_address: HashMap<SocketAddr, u32, foldhash::fast::FixedState>,
    common: PoolSocket,
    /// Leases that are held.
    leased: u32,
    /// After a restore: from when on pairs may be used that no flow was put back in.
    rested_from: Option<Instant>,
}

/// The place of a flow in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "LeaseState", into = "LeaseState")]
pub(crate) enum Lease {
    /// A one-way flow on the common socket.
    Common,
    /// A numbered socket, held towards one backend address.
    Pair {
        /// Which backend address.
        lane: u32,
        /// Which socket.
        index: u16,
    },
}

/// A lease as it is written down.
#[derive(serde::Serialize, serde::Deserialize)]
struct LeaseState {
    /// None: on the common socket.
    lane: Option<u32>,
    /// Of no meaning on the common one.
    index: u16,
}

/// Which socket of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Seat {
    /// One of the numbered ones.
    Numbered(u16),
    /// The one that one-way flows have in common.
    Common,
}

#[derive(Debug, Default)]
struct PoolSocket {
    id: Option<SocketId>,
    open: bool,
    waiting: Vec<FlowId>,
    /// Flows that hold a pair of it.
    held: u32,
    /// When the last of its pairs that rest is free.
    rests_until: Instant,
}

/// What flows to one backend address use.
#[derive(Debug, Default)]
struct Lane {
    /// By socket: the flow that holds the pair.
    flows: Vec<Option<FlowId>>,
    /// How many of them are held.
    held: u32,
    /// Pairs that rest, with the instant from which they are free: after answered flows, and after others.
    resting: [VecDeque<(Instant, u16)>; 2],
    /// Pairs that something came to while they rested, and how long they rest for it.
    disturbed: HashMap<u16, Instant, foldhash::fast::FixedState>,
    /// Free pairs whose socket is not there: to be taken where no other is free, the lowest first.
    parked: BinaryHeap<Reverse<u16>>,
}

/// A place in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acquired {
    pub(crate) lease: Lease,
    /// Its socket, if there is one already.
    pub(crate) socket: Option<SocketId>,
    pub(crate) open: bool,
}

/// How long a pair rests when it is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// No reply is outstanding.
    Answered,
    /// A reply may still come.
    Owed,
}

impl Rest {
    fn duration(self) -> Duration {
        match self {
            Rest::Answered => crate::limits::SHARED_REST_ANSWERED,
            Rest::Owed => crate::limits::SHARED_REST_OWED,
        }
    }
}

impl Pool {
    pub(crate) fn new() -> Self {
        Pool {
            sockets: Vec::new(),
            lanes: Vec::new(),
            vacant: Vec::new(),
            by_address: HashMap::default(),
            common: PoolSocket::default(),
            leased: 0,
            rested_from: None,
        }
    }

    /// A place for `flow` to `backend`; none where the pool is as large as it may be. Where the place has no socket
    /// yet, open one and say so with [`Pool::handle_asked`]; where it isn't open yet, the flow is told by
    /// [`Pool::handle_opened`].
    pub(crate) fn acquire(
        &mut self,
        now: Instant,
        backend: SocketAddr,
        flow: FlowId,
        one_way: bool,
    ) -> Option<Acquired> {
        let lease = match one_way {
            true => Lease::Common,
            false => self.lease(now, backend, flow)?,
        };
        self.leased += 1;
        let socket = self.socket_mut(lease.seat());
        if !socket.open {
            socket.waiting.push(flow);
        }
        Some(Acquired { lease, socket: socket.id, open: socket.open })
    }

    fn lease(&mut self, now: Instant, backend: SocketAddr, flow: FlowId) -> Option<Lease> {
        let lane = self.lane(backend);
        let Pool { sockets, lanes, .. } = self;
        let entry = &mut lanes[lane as usize];
        // A socket that is there before one that must be opened.
        let ready = entry.rested(now, sockets).or_else(|| entry.unused(sockets));
        let index = match ready.or_else(|| entry.parked.pop().map(|Reverse(index)| index)) {
            Some(index) => index,
            None if sockets.len() < SHARED_SOCKETS => {
                sockets.push(PoolSocket::default());
                entry.flows.push(None);
                (entry.flows.len() - 1) as u16
            }
            None => return None,
        };
        debug_assert!(entry.flows[usize::from(index)].is_none(), "a pair has one flow at a time");
        entry.flows[usize::from(index)] = Some(flow);
        entry.held += 1;
        sockets[usize::from(index)].held += 1;
        Some(Lease::Pair { lane, index })
    }

    /// The socket of that place was asked for.
    pub(crate) fn handle_asked(&mut self, seat: Seat, id: SocketId) {
        self.socket_mut(seat).id = Some(id);
    }

    /// A socket is open: these flows waited for it.
    pub(crate) fn handle_opened(&mut self, seat: Seat) -> Vec<FlowId> {
        let socket = self.socket_mut(seat);
        socket.open = true;
        std::mem::take(&mut socket.waiting)
    }

    /// A socket could not be opened: these flows waited for it. The next flow in its place asks again.
    pub(crate) fn handle_failed(&mut self, seat: Seat) -> Vec<FlowId> {
        let socket = self.socket_mut(seat);
        socket.id = None;
        std::mem::take(&mut socket.waiting)
    }

    /// Give a place back.
    pub(crate) fn release(&mut self, now: Instant, lease: Lease, rest: Rest) {
        self.leased -= 1;
        if let Lease::Pair { lane, index } = lease {
            let Pool { sockets, lanes, .. } = self;
            let (lane, socket) = (&mut lanes[lane as usize], &mut sockets[usize::from(index)]);
            lane.flows[usize::from(index)] = None;
            lane.held -= 1;
            socket.held -= 1;
            if socket.id.is_none() {
                // It never opened, so nothing was sent by it.
                return lane.parked.push(Reverse(index));
            }
            let free = now + rest.duration();
            lane.resting[rest as usize].push_back((free, index));
            socket.rests_until = socket.rests_until.max(free);
        }
    }

    /// A datagram came to a pair that nobody holds: more may, so it rests anew.
    pub(crate) fn disturb(&mut self, now: Instant, seat: Seat, peer: SocketAddr) {
        let Seat::Numbered(index) = seat else { return };
        let Some(&lane) = self.by_address.get(&peer) else { return };
        let Pool { sockets, lanes, .. } = self;
        let lane = &mut lanes[lane as usize];
        if usize::from(index) < lane.flows.len() {
            let free = now + Rest::Owed.duration();
            lane.disturbed.insert(index, free);
            let socket = &mut sockets[usize::from(index)];
            socket.rests_until = socket.rests_until.max(free);
        }
    }

    /// Give up the numbered sockets that nobody has needed for a while, and the lanes; everything, where nobody has a
    /// place and nothing rests.
    pub(crate) fn trim(&mut self, now: Instant) -> Vec<SocketId> {
        if self.is_idle() && self.sockets.iter().all(|socket| socket.rests_until <= now) {
            return self.clear();
        }
        let unneeded =
            |socket: &&mut PoolSocket| socket.held == 0 && socket.rests_until + crate::limits::SHARED_REST_OWED <= now;
        let mut given_up = Vec::new();
        for socket in self.sockets.iter_mut().filter(unneeded) {
            given_up.extend(socket.id.take());
            socket.open = false;
        }
        let Pool { by_address, lanes, vacant, .. } = self;
        by_address.retain(|_, lane| {
            let is_over = lanes[*lane as usize].is_over(now);
            if is_over {
                lanes[*lane as usize] = Lane::default();
                vacant.push(*lane);
            }
            !is_over
        });
        given_up
    }

    /// The flow that a datagram from `peer` belongs to.
    pub(crate) fn flow(&self, seat: Seat, peer: SocketAddr) -> Option<FlowId> {
        let Seat::Numbered(index) = seat else { return None };
        let lane = self.by_address.get(&peer)?;
        self.lanes[*lane as usize].flows.get(usize::from(index)).copied().flatten()
    }

    /// No flow has a place here.
    pub(crate) fn is_idle(&self) -> bool {
        self.leased == 0
    }

    /// Whether it has sockets that nobody holds a place on.
    pub(crate) fn may_shrink(&self) -> bool {
        let is_unheld = |socket: &PoolSocket| socket.held == 0 && socket.id.is_some();
        self.sockets.iter().any(is_unheld) || (self.is_idle() && self.common.id.is_some())
    }

    /// Sockets that are open or asked for.
    pub(crate) fn sockets(&self) -> usize {
        self.sockets.iter().chain([&self.common]).filter(|socket| socket.id.is_some()).count()
    }

    /// Every socket with its seat and whether it is open.
    pub(crate) fn seats(&self) -> impl Iterator<Item = (Seat, SocketId, bool)> + '_ {
        let numbered = self.sockets.iter().enumerate().map(|(index, socket)| (Seat::Numbered(index as u16), socket));
        let all = numbered.chain([(Seat::Common, &self.common)]);
        all.filter_map(|(seat, socket)| socket.id.map(|id| (seat, id, socket.open)))
    }

    /// Give every socket up; the pool is as new. Only when idle.
    pub(crate) fn clear(&mut self) -> Vec<SocketId> {
        debug_assert!(self.is_idle(), "no flow loses its socket");
        let ids = self.seats().map(|(_, id, _)| id).collect();
        *self = Pool::new();
        ids
    }

    /// Put a flow back where it was written down, with its socket.
    pub(crate) fn restore(&mut self, backend: SocketAddr, lease: Lease, flow: FlowId) -> Lease {
        self.leased += 1;
        let Lease::Pair { index, .. } = lease else { return lease };
        let lane = self.lane(backend);
        let entry = &mut self.lanes[lane as usize];
        entry.held += 1;
        let at = usize::from(index);
        if entry.flows.len() <= at {
            entry.flows.resize(at + 1, None);
        }
        entry.flows[at] = Some(flow);
        if let Some(socket) = self.sockets.get_mut(at) {
            socket.held += 1;
        }
        Lease::Pair { lane, index }
    }

    /// After every flow and socket was put back: what no flow holds rests as after an unanswered one, towards backends
    /// that no flow was put back for too, since who held a pair before was not written down.
    pub(crate) fn restore_rests(&mut self, now: Instant) {
        let free = now + Rest::Owed.duration();
        self.rested_from = Some(free);
        self.sockets.iter_mut().for_each(|socket| socket.rests_until = free);
        let sockets = self.sockets.len();
        self.lanes.iter_mut().for_each(|lane| lane.rest_all(sockets, free));
    }

    /// Put a socket back where it was written down; `waiting` flows are told when it opens.
    pub(crate) fn restore_socket(&mut self, seat: Seat, id: SocketId, open: bool) {
        if let Seat::Numbered(index) = seat
            && self.sockets.len() <= usize::from(index)
        {
            self.sockets.resize_with(usize::from(index) + 1, PoolSocket::default);
        }
        let socket = self.socket_mut(seat);
        socket.id = Some(id);
        socket.open = open;
    }

    /// Let a restored flow wait for its socket.
    pub(crate) fn restore_waiting(&mut self, seat: Seat, flow: FlowId) {
        self.socket_mut(seat).waiting.push(flow);
    }

    fn socket_mut(&mut self, seat: Seat) -> &mut PoolSocket {
        match seat {
            Seat::Numbered(index) => &mut self.sockets[usize::from(index)],
            Seat::Common => &mut self.common,
        }
    }

    fn lane(&mut self, address: SocketAddr) -> u32 {
        let Pool { by_address, lanes, vacant, rested_from, sockets, .. } = self;
        *by_address.entry(address).or_insert_with(|| {
            let mut lane = Lane::default();
            if let Some(free) = *rested_from {
                lane.rest_all(sockets.len(), free);
            }
            if let Some(at) = vacant.pop() {
                lanes[at as usize] = lane;
                return at;
            }
            lanes.push(lane);
            (lanes.len() - 1) as u32
        })
    }
}

impl Lane {
    /// A pair that has rested and whose socket is there.
    fn rested(&mut self, now: Instant, sockets: &[PoolSocket]) -> Option<u16> {
        for queue in 0..self.resting.len() {
            while let Some((_, index)) = self.resting[queue].pop_front_if(|(free, _)| *free <= now) {
                let longer = self.disturbed.remove(&index).filter(|free| *free > now);
                match (longer, sockets[usize::from(index)].id) {
                    (Some(free), _) => self.resting[Rest::Owed as usize].push_back((free, index)),
                    (None, Some(_)) => return Some(index),
                    (None, None) => self.parked.push(Reverse(index)),
                }
            }
        }
        None
    }

    /// A pair that no flow had so far and whose socket is there.
    fn unused(&mut self, sockets: &[PoolSocket]) -> Option<u16> {
        while let Some(socket) = sockets.get(self.flows.len()) {
            let index = self.flows.len() as u16;
            self.flows.push(None);
            match socket.id {
                Some(_) => return Some(index),
                None => self.parked.push(Reverse(index)),
            }
        }
        None
    }

    /// Whether no flow holds a pair and none rests.
    fn is_over(&self, now: Instant) -> bool {
        let rests = self.resting.iter().flatten().any(|(free, _)| *free > now);
        self.held == 0 && !rests && self.disturbed.values().all(|free| *free <= now)
    }

    /// Whatever of `sockets` no flow holds rests until `free`.
    fn rest_all(&mut self, sockets: usize, free: Instant) {
        self.flows.resize(self.flows.len().max(sockets), None);
        let unheld = self.flows.iter().enumerate().filter(|(_, flow)| flow.is_none()).map(|(index, _)| index as u16);
        self.resting = [VecDeque::new(), unheld.map(|index| (free, index)).collect()];
    }
}

impl Lease {
    /// The socket that goes with it.
    pub(crate) fn seat(self) -> Seat {
        match self {
            Lease::Pair { index, .. } => Seat::Numbered(index),
            Lease::Common => Seat::Common,
        }
    }
}

impl From<LeaseState> for Lease {
    fn from(LeaseState { lane, index }: LeaseState) -> Self {
        lane.map_or(Lease::Common, |lane| Lease::Pair { lane, index })
    }
}

impl From<Lease> for LeaseState {
    fn from(lease: Lease) -> Self {
        match lease {
            Lease::Common => LeaseState { lane: None, index: 0 },
            Lease::Pair { lane, index } => LeaseState { lane: Some(lane), index },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_written_down_as_lane_and_index() {
        let written = [
            (Lease::Common, r#"{"lane":null,"index":0}"#),
            (Lease::Pair { lane: 3, index: 32_767 }, r#"{"lane":3,"index":32767}"#),
        ];
        for (lease, text) in written {
            assert_eq!(serde_json::to_string(&lease).expect("plain data"), text);
            assert_eq!(serde_json::from_str::<Lease>(text).expect("as written"), lease);
        }
        assert_eq!(size_of::<Option<Lease>>(), 8);
    }

    #[test]
    fn restored_sockets_rest_towards_every_backend() {
        let (now, flow) = (Instant::from_nanos(7), FlowId::default());
        let backend = |last: u8| SocketAddr::from(([10, 0, 0, last], 53));
        let mut pool = Pool::new();
        pool.restore_socket(Seat::Numbered(0), SocketId::default(), true);
        pool.restore_rests(now);
        let fresh = pool.acquire(now, backend(1), flow, false).expect("there is room");
        assert_eq!((fresh.lease.seat(), fresh.socket), (Seat::Numbered(1), None));
        let later = now + Rest::Owed.duration();
        let rested = pool.acquire(later, backend(2), flow, false).expect("there is room");
        assert_eq!((rested.lease.seat(), rested.open), (Seat::Numbered(0), true));
    }
}
