//! Datagrams that arrived in the very step in which their flow asked for its socket. Most machines have the socket
//! open by the next step, so a burst that opens a flow loses nothing. Bounded; nothing stays here for two steps.

use std::collections::VecDeque;

use super::flow::FlowId;
use super::run::Run;
use crate::limits::{STASH_BYTES, STASH_RUNS};

/// The stashed runs, oldest first.
#[derive(Debug, Default)]
pub(super) struct Stash {
    runs: VecDeque<Stashed>,
    bytes: usize,
}

/// A run, with its bytes.
#[derive(Debug)]
pub(super) struct Stashed {
    pub(super) step: u32,
    pub(super) flow: FlowId,
    pub(super) segment: u16,
    pub(super) count: u32,
    pub(super) bytes: Box<[u8]>,
}

impl Stash {
    /// Keep a run until the next step; false where there is no room.
    pub(super) fn put(&mut self, step: u32, flow: FlowId, run: Run, bytes: &[u8]) -> bool {
        if self.runs.len() >= STASH_RUNS || self.bytes + bytes.len() > STASH_BYTES {
            return false;
        }
        self.bytes += bytes.len();
        self.runs.push_back(Stashed { step, flow, segment: run.segment, count: run.count(), bytes: bytes.into() });
        true
    }

    /// The oldest run of this flow. Sockets open in the order in which they were asked for, so it is near the front.
    fn take(&mut self, flow: FlowId) -> Option<Stashed> {
        let at = self.runs.iter().position(|stashed| stashed.flow == flow)?;
        let stashed = self.runs.remove(at)?;
        self.bytes -= stashed.bytes.len();
        Some(stashed)
    }

    /// The runs of this flow, oldest first.
    pub(super) fn take_all(&mut self, flow: FlowId) -> Vec<Stashed> {
        std::iter::from_fn(|| self.take(flow)).collect()
    }

    /// Forget the runs of this flow: how many datagrams they were.
    pub(super) fn discard(&mut self, flow: FlowId) -> u32 {
        std::iter::from_fn(|| self.take(flow)).map(|stashed| stashed.count).sum()
    }

    /// A flow whose oldest run came before `step`.
    pub(super) fn overdue(&self, step: u32) -> Option<FlowId> {
        self.runs.front().filter(|stashed| stashed.step != step).map(|stashed| stashed.flow)
    }

    /// Put a run back that was written down.
    pub(super) fn restore(&mut self, stashed: Stashed) {
        self.bytes += stashed.bytes.len();
        self.runs.push_back(stashed);
    }

    /// Every run, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Stashed> {
        self.runs.iter()
    }
}

impl Stashed {
    /// The length of its last datagram.
    pub(super) fn last_len(&self) -> usize {
        self.bytes.len() - (self.count as usize - 1) * usize::from(self.segment)
    }
}
