//! Flows that ended by what they sent: what a failure of that needs to know, which the machine tells only afterwards.
//! Bounded, and forgotten as soon as nothing more can be told of them.

use std::collections::VecDeque;

use super::flow::FlowId;
use crate::cluster::{BackendKey, ClusterKey};
use crate::limits::ENDED_FLOWS;
use crate::listener::ListenerKey;

/// A flow that ended by what it sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndedFlow {
    pub(super) id: FlowId,
    pub(super) step: u32,
    pub(super) listener: ListenerKey,
    pub(super) cluster: ClusterKey,
    pub(super) backend: BackendKey,
    pub(super) headers: Headers,
}

/// Which of a flow's datagrams carry a PROXY header, and how long that is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Headers {
    None,
    First(u8),
    Every(u8),
}

/// Those of which something may still be told, oldest first.
#[derive(Debug, Default)]
pub(super) struct Ended {
    flows: VecDeque<EndedFlow>,
    /// The place of the one that was found last: failures are told in the order of the sends.
    last: usize,
}

impl Headers {
    /// The bytes of headers among so many datagrams that failed; `introduced`: the first of the flow is among them.
    pub(super) fn among(self, datagrams: u32, introduced: bool) -> u64 {
        match self {
            Headers::Every(len) => u64::from(datagrams) * u64::from(len),
            Headers::First(len) if introduced => u64::from(len),
            Headers::None | Headers::First(_) => 0,
        }
    }
}

impl Ended {
    pub(super) fn put(&mut self, flow: EndedFlow) {
        if self.flows.len() == ENDED_FLOWS {
            self.flows.pop_front();
        }
        self.flows.push_back(flow);
    }

    /// Where the flow of that id is kept.
    fn place(&self, id: FlowId) -> Option<usize> {
        let count = self.flows.len();
        (0..count).map(|ahead| (self.last + ahead) % count).find(|&at| self.flows[at].id == id)
    }

    pub(super) fn find(&self, id: FlowId) -> Option<EndedFlow> {
        self.place(id).map(|at| self.flows[at])
    }

    /// The same, where the next ones will be asked for.
    pub(super) fn take_note(&mut self, id: FlowId) -> Option<EndedFlow> {
        self.last = self.place(id)?;
        Some(self.flows[self.last])
    }

    /// Forget those that ended before that step.
    pub(super) fn forget_before(&mut self, step: u32) {
        while self.flows.pop_front_if(|flow| flow.step != step).is_some() {}
        self.last = 0;
    }
}
