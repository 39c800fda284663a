//! A stream as the machine knows it: what was reported of it and what of that is dealt with. Holds no bytes but those
//! in a kernel pipe.

use std::os::fd::OwnedFd;

use kakei_proxy::seam::SocketId;

use super::epoll::Ready;
use super::pipe::Pipe;

/// A stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) fd: OwnedFd,
    pub(super) phase: Phase,
    /// Whether it was accepted, not connected.
    pub(super) accepted: bool,
    /// Whether the worker wants what it receives.
    pub(super) credit: bool,
    /// Something may be there to be read.
    pub(super) readable: bool,
    /// The end was reported: a short read isn't the last thing to be read.
    pub(super) ended: bool,
    /// The peer refuses what is written.
    pub(super) refuses: bool,
    /// It has sent urgent data (RFC 9293 3.8.5): reads end in front of it, and splices find nothing behind it.
    pub(super) urgent: bool,
    /// The worker was told that it is dead.
    pub(super) dead: bool,
    /// The worker holds what it did not take.
    pub(super) blocked: bool,
    /// It did not take all of the last write.
    pub(super) owes: bool,
    /// What was in a pipe to it is lost. Nothing that is written behind makes up for that.
    pub(super) misses: bool,
    /// Where its bytes go without being shown.
    pub(super) lane: Option<Lane>,
    /// Whose bytes come here without being shown.
    pub(super) source: Option<SocketId>,
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Open,
    /// The worker was told that nothing more comes from it, or that it is dead.
    Told,
}

/// A direction that the machine moves by itself.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) to: SocketId,
    /// Only while there are bytes in it.
    pub(super) pipe: Option<Pipe>,
    /// How many.
    pub(super) held: usize,
    /// The source has ended.
    pub(super) ended: bool,
    /// The worker wants to see the bytes again.
    pub(super) leaving: bool,
}

impl Lane {
    pub(super) fn new(to: SocketId) -> Self {
        Lane { to, pipe: None, held: 0, ended: false, leaving: false }
    }
}

impl Stream {
    /// What epoll reported: whether it is to be read, and whether something else waited for that.
    pub(super) fn note(&mut self, ready: &Ready) -> (bool, bool) {
        self.readable |= ready.readable;
        self.ended |= ready.ended;
        self.urgent |= ready.urgent;
        if self.phase == Phase::Connecting {
            return (false, true);
        }
        let is_awaited = self.blocked || self.source.is_some();
        (ready.readable && (self.credit || ready.error), ready.writable && is_awaited)
    }

    /// Whether its bytes have to be read, and can't go through a pipe.
    pub(super) fn must_be_read(&self) -> bool {
        self.urgent || self.refuses
    }

    /// Where the bytes in its pipe go, if there are any.
    pub(super) fn moves_to(&self) -> Option<SocketId> {
        self.lane.as_ref().filter(|lane| lane.held > 0).map(|lane| lane.to)
    }

    pub(super) fn new(fd: OwnedFd, phase: Phase, (accepted, credit): (bool, bool)) -> Self {
        Stream {
            fd,
            phase,
            accepted,
            credit,
            readable: false,
            ended: false,
            refuses: false,
            urgent: false,
            dead: false,
            blocked: false,
            owes: false,
            misses: false,
            lane: None,
            source: None,
        }
    }
}
