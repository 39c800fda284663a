//! The checkers' own account of flows, kept from what went over the wire and from the documents alone.
//! Believes nothing that the proxy counts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use kakei_config::Name;
use kakei_proxy::seam::Instant;

use super::terms::Terms;

/// What one flow is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// The front socket's bind: a listener that is renamed keeps its flows.
    pub(crate) bind: SocketAddr,
    pub(crate) peer: SocketAddr,
    /// Where it arrived: replies leave from there.
    pub(crate) local: SocketAddr,
    /// Who the client is: as an inbound header said it, or the peer.
    pub(crate) client: SocketAddr,
    /// The address that the client dialled: as an inbound header said it, or where it arrived.
    pub(crate) dialled: SocketAddr,
}

/// A flow's place at its backend: the proxy's address there, and the backend's.
pub(crate) type Pair = (SocketAddr, SocketAddr);

/// A flow, as seen from outside.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) worker: u16,
    /// The listener that admitted it.
    pub(crate) listener: Name,
    pub(crate) key: Key,
    pub(crate) terms: Terms,
    pub(crate) pair: Pair,
    pub(crate) opened: Instant,
    pub(crate) forwards: u64,
    pub(crate) forward_bytes: u64,
    pub(crate) returns: u64,
    pub(crate) return_bytes: u64,
    /// Sends that failed, either way.
    pub(crate) failed: u64,
    /// Of these, replies that the worker was told of while the flow lived.
    pub(crate) taken_back: u64,
    /// Forwards that the worker counts now: those that failed too, until it is told.
    pub(crate) counted: u64,
    /// Its `requests` cap was reached; it stays so.
    pub(crate) spent: bool,
    pub(crate) last_front: Instant,
    pub(crate) last_back: Option<Instant>,
    pub(crate) last_sequence: u64,
    pub(crate) moved: bool,
    /// Something about it can't be told from outside (empty datagrams, two generations at once): counts are not held
    /// against it.
    pub(crate) fuzzy: bool,
    pub(crate) closed: Option<Instant>,
}

impl Flow {
    /// Whether it forwards nothing more.
    pub(crate) fn is_spent(&self) -> bool {
        self.spent
    }

    /// The worker counts one more forward.
    pub(crate) fn count_forward(&mut self) {
        self.counted += 1;
        let cap = u64::from(self.terms.knobs().requests);
        self.spent |= cap > 0 && self.counted >= cap;
    }

    /// Whether nothing else ends it but its one datagram, by a socket that stays.
    pub(crate) fn ends_by_its_send(&self) -> bool {
        let knobs = self.terms.knobs();
        knobs.requests == 1 && !knobs.expects_reply && knobs.upstream == kakei_config::Upstream::Shared
    }

    /// Whether the first reply ends it.
    pub(crate) fn ends_by_its_reply(&self) -> bool {
        self.terms.knobs().responses == 1
    }

    /// Its sends that failed and that its record may count nevertheless.
    pub(crate) fn doubtful(&self) -> u64 {
        self.failed - self.taken_back
    }

    /// Whether its replies can be told from those of other flows.
    pub(crate) fn owns_pair(&self) -> bool {
        let knobs = self.terms.knobs();
        knobs.expects_reply || knobs.upstream == kakei_config::Upstream::PerFlow
    }

    /// Whether it may go over to another backend, and keep a datagram meanwhile.
    pub(crate) fn may_move(&self) -> bool {
        let knobs = self.terms.knobs();
        let moves = [knobs.on_backend_removed, knobs.on_backend_down].contains(&kakei_config::OnBackend::Move);
        moves || knobs.retry_on_unreachable
    }

    /// When it must have ended.
    pub(crate) fn latest_end(&self) -> Instant {
        let knobs = self.terms.knobs();
        let after_front = if self.is_spent() { knobs.back_timeout } else { knobs.front_timeout };
        let idle = match self.last_back {
            Some(back) if back > self.last_front => back + knobs.back_timeout,
            Some(back) if back == self.last_front => back + knobs.back_timeout.max(after_front),
            _ => self.last_front + after_front,
        };
        match knobs.lifetime {
            Some(lifetime) => idle.min(self.opened + lifetime),
            None => idle,
        }
    }

    /// Before when it must not end by idleness.
    pub(crate) fn earliest_idle(&self) -> Instant {
        let knobs = self.terms.knobs();
        let after_front = if self.is_spent() { knobs.back_timeout } else { knobs.front_timeout };
        match self.last_back {
            Some(back) if back > self.last_front => back + knobs.back_timeout,
            Some(back) if back == self.last_front => back + knobs.back_timeout.min(after_front),
            _ => self.last_front + after_front,
        }
    }
}

/// What is known about one client key in one worker.
#[derive(Debug, Default)]
pub(crate) struct KeyState {
    /// Live flows, oldest first.
    pub(crate) flows: Vec<usize>,
    /// When datagrams came in since the last flow was opened.
    pub(crate) waiting: Vec<Instant>,
    /// When flows may have been admitted: whenever a datagram came in or was sent.
    pub(crate) seen: BTreeSet<Instant>,
    /// Empty datagrams that were not forwarded yet: when they came, their sequence, their request.
    pub(crate) empties: VecDeque<(Instant, u64, u64)>,
    /// Its client sent empty datagrams, which can't be told apart.
    pub(crate) sends_empty: bool,
    pub(crate) fuzzy: bool,
}

/// One worker's flows.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    pub(crate) all: Vec<Flow>,
    /// By worker, then key.
    pub(crate) keys: BTreeMap<(u16, Key), KeyState>,
    /// Who owns a pair now.
    pub(crate) pairs: BTreeMap<Pair, usize>,
    /// When a pair was given back, and whether its flow was answered.
    pub(crate) released: BTreeMap<Pair, (Instant, bool)>,
    pub(crate) live: u64,
}

impl Flows {
    /// The flow that the next datagram of this key belongs to.
    pub(crate) fn current(&self, worker: u16, key: &Key) -> Option<usize> {
        let state = self.keys.get(&(worker, key.clone()))?;
        state.flows.iter().rev().copied().find(|&at| !self.all[at].is_spent())
    }

    pub(crate) fn open(&mut self, flow: Flow) -> usize {
        let at = self.all.len();
        let state = self.keys.entry((flow.worker, flow.key.clone())).or_default();
        state.flows.push(at);
        state.waiting.clear();
        if flow.owns_pair() {
            self.pairs.insert(flow.pair, at);
        }
        self.live += 1;
        self.all.push(flow);
        at
    }

    pub(crate) fn move_to(&mut self, at: usize, pair: Pair) {
        let flow = &mut self.all[at];
        if self.pairs.get(&flow.pair) == Some(&at) {
            self.pairs.remove(&flow.pair);
        }
        flow.pair = pair;
        flow.moved = true;
        if flow.owns_pair() {
            self.pairs.insert(pair, at);
        }
    }

    pub(crate) fn close(&mut self, at: usize, now: Instant, certain: bool) {
        let flow = &mut self.all[at];
        flow.closed = Some(now);
        self.live -= 1;
        if self.pairs.get(&flow.pair) == Some(&at) {
            self.pairs.remove(&flow.pair);
            // What can't be told for sure counts as answered: then the shorter rest will do.
            let cap = u64::from(flow.terms.knobs().responses);
            let complete = cap > 0 && flow.returns >= cap && flow.returns >= flow.forwards;
            let answered = flow.fuzzy || flow.failed > 0 || complete;
            if certain {
                self.released.insert(flow.pair, (now, answered));
            }
        }
        if let Some(state) = self.keys.get_mut(&(flow.worker, flow.key.clone())) {
            state.flows.retain(|other| *other != at);
        }
    }
}
