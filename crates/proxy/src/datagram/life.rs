//! The life of a flow: phases, counters, caps, deadlines (docs/UDP.md, sections 3 to 5). Pure; knows no address,
//! no socket and no table.

use std::sync::Arc;

use kakei_config::UdpKnobs;
use serde::{Deserialize, Serialize};

use crate::record::CloseReason;
use crate::seam::Instant;

/// Where a flow is in its life: strictly forward. One that closes is gone, so `Closing` has no value here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Its socket to the backend isn't open yet.
    AwaitingBackend,
    /// It forwards and returns.
    Established,
    /// Its `requests` cap is spent: it only returns.
    Lingering,
}

/// The contract that was captured at admission, and how much of it is used up.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) knobs: Arc<UdpKnobs>,
    pub(crate) phase: Phase,
    pub(crate) admitted: Instant,
    /// When it ends if nothing comes.
    pub(crate) idle: Instant,
    /// Bumped by every push of `idle`: an expiry that was armed before is stale.
    pub(crate) token: u32,
    pub(crate) traffic: Traffic,
    /// Whether it stays where it is though that can't be reached: it was moved for that once, or it was answered.
    pub(crate) retried: bool,
}

/// What went through: datagrams and payload bytes. Saturating.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    pub(crate) requests: u64,
    pub(crate) request_bytes: u64,
    pub(crate) responses: u64,
    pub(crate) response_bytes: u64,
}

/// What an expiry means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// The deadline was pushed since: come again at its new place.
    Stale,
    /// The flow ends.
    Due(CloseReason),
}

impl Life {
    pub(crate) fn new(now: Instant, knobs: Arc<UdpKnobs>) -> Self {
        let idle = now + knobs.front_timeout;
        let (phase, traffic) = (Phase::AwaitingBackend, Traffic::default());
        Life { knobs, phase, admitted: now, idle, token: 0, traffic, retried: false }
    }

    /// The first socket to a backend is open.
    pub(crate) fn handle_opened(&mut self) {
        if self.phase == Phase::AwaitingBackend {
            self.advance(Phase::Established);
        }
    }

    /// How many more client datagrams may be forwarded.
    pub(crate) fn requests_left(&self) -> u64 {
        match self.knobs.requests {
            0 => u64::MAX,
            // Spent, whatever became of what was forwarded.
            _ if self.phase == Phase::Lingering => 0,
            cap => u64::from(cap).saturating_sub(self.traffic.requests),
        }
    }

    /// How many more replies may be returned.
    pub(crate) fn responses_left(&self) -> u64 {
        match self.knobs.responses {
            0 => u64::MAX,
            cap => u64::from(cap).saturating_sub(self.traffic.responses),
        }
    }

    /// Whether it moves to another backend once this one can't be reached.
    pub(crate) fn may_retry(&self) -> bool {
        self.knobs.retry_on_unreachable && self.traffic.responses == 0 && !self.retried
    }

    /// A client datagram came that can't be forwarded yet.
    pub(crate) fn handle_kept(&mut self, now: Instant) {
        self.push(now + self.knobs.front_timeout);
    }

    /// Client datagrams were forwarded; says why the flow ends, if it does.
    pub(crate) fn handle_forwarded(&mut self, now: Instant, datagrams: u32, bytes: u64) -> Option<CloseReason> {
        debug_assert!(self.phase == Phase::Established, "only an established flow forwards");
        self.traffic.requests = self.traffic.requests.saturating_add(u64::from(datagrams));
        self.traffic.request_bytes = self.traffic.request_bytes.saturating_add(bytes);
        if self.requests_left() > 0 {
            self.push(now + self.knobs.front_timeout);
            return None;
        }
        // From here on only replies can come, so only their timeout counts.
        self.push(now + self.knobs.back_timeout);
        self.advance(Phase::Lingering);
        (!self.knobs.expects_reply).then_some(CloseReason::RequestsReached)
    }

    /// Forwards that were counted and then failed. A spent cap stays spent; says why the flow ends where that leaves it
    /// with nothing to wait for.
    pub(crate) fn handle_unsent(&mut self, datagrams: u32, bytes: u64) -> Option<CloseReason> {
        self.traffic.requests = self.traffic.requests.saturating_sub(u64::from(datagrams));
        self.traffic.request_bytes = self.traffic.request_bytes.saturating_sub(bytes);
        let sent_nothing = self.traffic.requests == 0 && self.traffic.responses == 0;
        (self.phase == Phase::Lingering && sent_nothing).then_some(CloseReason::Aborted)
    }

    /// Replies were returned; says why the flow ends, if it does.
    pub(crate) fn handle_returned(&mut self, now: Instant, datagrams: u32, bytes: u64) -> Option<CloseReason> {
        self.traffic.responses = self.traffic.responses.saturating_add(u64::from(datagrams));
        self.traffic.response_bytes = self.traffic.response_bytes.saturating_add(bytes);
        self.push(now + self.knobs.back_timeout);
        (self.responses_left() == 0).then_some(CloseReason::ResponsesReached)
    }

    /// Returns that were counted and then failed. The backend answered nevertheless: the flow stays with it.
    pub(crate) fn handle_unreturned(&mut self, datagrams: u32, bytes: u64) {
        self.traffic.responses = self.traffic.responses.saturating_sub(u64::from(datagrams));
        self.traffic.response_bytes = self.traffic.response_bytes.saturating_sub(bytes);
        self.retried = true;
    }

    /// The instant at which the flow ends if nothing comes.
    pub(crate) fn deadline(&self) -> Instant {
        self.idle.min(self.lifetime())
    }

    /// An expiry that was armed when the token was `token`.
    pub(crate) fn handle_expiry(&self, now: Instant, token: u32) -> Expiry {
        if now >= self.lifetime() {
            Expiry::Due(CloseReason::Lifetime)
        } else if token == self.token && now >= self.idle {
            Expiry::Due(CloseReason::Idle)
        } else {
            Expiry::Stale
        }
    }

    fn lifetime(&self) -> Instant {
        self.knobs.lifetime.map_or(Instant::FAR, |lifetime| self.admitted + lifetime)
    }

    fn push(&mut self, idle: Instant) {
        self.idle = idle;
        self.token = self.token.wrapping_add(1);
    }

    fn advance(&mut self, to: Phase) {
        debug_assert!(self.phase < to, "a flow goes strictly forward: {:?} to {to:?}", self.phase);
        self.phase = to;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn life(knobs: UdpKnobs) -> Life {
        let mut life = Life::new(at(0), Arc::new(knobs));
        life.handle_opened();
        life
    }

    #[test]
    fn a_stale_expiry_does_nothing() {
        let mut life = life(UdpKnobs::default());
        let (armed, token) = (life.deadline(), life.token);
        life.handle_forwarded(at(29), 1, 10);
        assert_eq!(life.handle_expiry(armed, token), Expiry::Stale);
        assert_eq!(life.handle_expiry(life.deadline(), life.token), Expiry::Due(CloseReason::Idle));
    }

    #[test]
    fn the_direction_of_the_last_datagram_sets_the_deadline() {
        let knobs = UdpKnobs {
            front_timeout: Duration::from_secs(60),
            back_timeout: Duration::from_secs(5),
            ..UdpKnobs::default()
        };
        let mut life = life(knobs);
        assert_eq!(life.deadline(), at(60));
        life.handle_returned(at(10), 1, 1);
        assert_eq!(life.deadline(), at(15));
        life.handle_forwarded(at(12), 1, 1);
        assert_eq!(life.deadline(), at(72));
    }

    #[test]
    fn traffic_does_not_push_the_lifetime() {
        let mut life = life(UdpKnobs { lifetime: Some(Duration::from_secs(100)), ..UdpKnobs::default() });
        for second in 0..100 {
            life.handle_forwarded(at(second), 1, 1);
            life.handle_returned(at(second), 1, 1);
        }
        assert_eq!(life.deadline(), at(100));
        assert_eq!(life.handle_expiry(at(100), 0), Expiry::Due(CloseReason::Lifetime));
    }

    #[test]
    fn a_flow_lingers_at_its_requests_cap_until_its_reply() {
        let mut life = life(UdpKnobs { requests: 1, responses: 1, ..UdpKnobs::default() });
        assert_eq!(life.handle_forwarded(at(1), 1, 1), None);
        assert_eq!((life.phase, life.requests_left()), (Phase::Lingering, 0));
        assert_eq!(life.handle_returned(at(2), 1, 1), Some(CloseReason::ResponsesReached));
    }

    #[test]
    fn one_way_traffic_ends_at_its_requests_cap() {
        let mut life = life(UdpKnobs { requests: 2, expects_reply: false, ..UdpKnobs::default() });
        assert_eq!(life.handle_forwarded(at(1), 1, 1), None);
        assert_eq!(life.handle_forwarded(at(1), 1, 1), Some(CloseReason::RequestsReached));
    }

    #[test]
    fn counters_saturate_and_a_spent_cap_stays_spent() {
        let mut life = life(UdpKnobs { requests: 3, ..UdpKnobs::default() });
        life.traffic.requests = u64::MAX - 1;
        life.handle_forwarded(at(1), 5, u64::MAX);
        life.handle_unsent(u32::MAX, 0);
        assert_eq!((life.traffic.requests, life.requests_left()), (u64::MAX - u64::from(u32::MAX), 0));
    }

    #[test]
    fn what_was_not_sent_is_not_recorded_and_a_flow_that_sent_nothing_waits_for_nothing() {
        let mut life = life(UdpKnobs { requests: 2, ..UdpKnobs::default() });
        life.handle_forwarded(at(1), 2, 20);
        assert_eq!(life.handle_unsent(1, 10), None);
        assert_eq!((life.traffic.requests, life.traffic.request_bytes, life.requests_left()), (1, 10, 0));
        assert_eq!(life.handle_unsent(1, 10), Some(CloseReason::Aborted));
    }

    #[test]
    #[should_panic(expected = "strictly forward")]
    #[cfg(debug_assertions)]
    fn a_flow_never_goes_back() {
        life(UdpKnobs::default()).advance(Phase::AwaitingBackend);
    }
}
