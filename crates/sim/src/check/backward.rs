//! Backend datagrams: what a worker is given of them and what it returns to clients.

use super::{Truth, Untold};
use crate::machine::{Given, Outgoing};
use crate::payload::{self, Identity};

impl Truth {
    /// A worker is given a backend's datagram.
    pub(super) fn reply_received(&mut self, worker: u16, given: &Given) {
        let owner = self.flows.pairs.get(&(given.local, given.peer)).copied();
        let owner = owner.filter(|&at| self.flows.all[at].worker == worker);
        match payload::identify(&given.bytes) {
            Identity::Reply(id) if (id as usize) < self.ledger.answers.len() => {
                self.counters.replies_received += 1;
                let answer = &mut self.ledger.answers[id as usize];
                answer.delivered += 1;
                answer.flow = owner;
                if let Some(at) = owner {
                    self.workers[usize::from(worker)].must_return.push((id, at));
                }
            }
            Identity::Empty => {
                self.counters.replies_received += 1;
                let truth = &mut self.workers[usize::from(worker)];
                truth.empty_replies.extend(owner);
                truth.empties_given += 1;
            }
            _ => {}
        }
    }

    /// A worker sent a datagram to a client, or failed to.
    pub(super) fn returned(&mut self, worker: u16, out: &Outgoing, done: bool) {
        let flow = self.check_return(worker, out, done);
        if !done {
            let untold = flow.map_or(Untold::Other, |at| {
                let flow = &self.flows.all[at];
                Untold::Return(at, !flow.fuzzy && flow.ends_by_its_reply())
            });
            self.workers[usize::from(worker)].untold.push_back(untold);
        }
    }

    /// The flow that it was of, where that can be told.
    fn check_return(&mut self, worker: u16, out: &Outgoing, done: bool) -> Option<usize> {
        let id = match payload::identify(&out.bytes) {
            Identity::Reply(id) if (id as usize) < self.ledger.answers.len() => id,
            Identity::Empty => {
                self.returned_empty(worker, out, done);
                return None;
            }
            _ => {
                let what = format!("{} bytes that no backend sent went to {}", out.bytes.len(), out.to);
                self.violated(Some(worker), what);
                return None;
            }
        };
        self.counters.replies_returned += u64::from(done);
        let answer = &mut self.ledger.answers[id as usize];
        answer.returned += 1;
        let (request, len, flow) = (answer.request, answer.len, answer.flow);
        let excess = answer.returned > answer.delivered;
        if excess {
            self.violated(Some(worker), format!("reply {id} was returned more often than received"));
        }
        if *out.bytes != *payload::reply(id, len) {
            self.violated(Some(worker), format!("reply {id} was changed on its way to {}", out.to));
        }
        if let Some(request) = request.map(|id| &self.ledger.requests[id as usize]) {
            let (peer, dialled) = (request.peer, request.dialled);
            if peer != out.to {
                self.violated(Some(worker), format!("reply {id} to {peer} was returned to {}", out.to));
            }
            if dialled != out.from {
                let what = format!("reply {id} to {peer}, who dialled {dialled}, came from {}", out.from);
                self.violated(Some(worker), what);
            }
        }
        if let Some(at) = flow {
            self.count_return(worker, at, (id, out.bytes.len() as u64), done);
        }
        flow
    }

    /// An empty reply: it must have come in for a flow of this client.
    fn returned_empty(&mut self, worker: u16, out: &Outgoing, done: bool) {
        self.counters.replies_returned += u64::from(done);
        let of_client = |at: &usize| {
            let key = &self.flows.all[*at].key;
            key.peer == out.to && key.local == out.from
        };
        let given = &self.workers[usize::from(worker)].empty_replies;
        let Some(place) = given.iter().position(of_client) else {
            if self.workers[usize::from(worker)].empties_given > 0 {
                return;
            }
            return self.violated(Some(worker), format!("an empty reply that no backend sent went to {}", out.to));
        };
        if let Some(at) = self.workers[usize::from(worker)].empty_replies.remove(place) {
            self.count_return(worker, at, (u64::MAX, 0), done);
        }
    }

    fn count_return(&mut self, worker: u16, at: usize, what: (u64, u64), done: bool) {
        let (id, bytes) = what;
        let flow = &mut self.flows.all[at];
        flow.last_back = Some(self.now);
        if done {
            flow.returns += 1;
            flow.return_bytes += bytes;
        } else {
            flow.failed += 1;
        }
        let cap = u64::from(flow.terms.knobs().responses);
        let (over, after_end) =
            (cap > 0 && flow.returns > cap && !flow.fuzzy, flow.closed.is_some_and(|at| at < self.now));
        if over {
            self.violated(Some(worker), format!("reply {id} is one more than the {cap} that flow {at} takes"));
        }
        if after_end {
            self.violated(Some(worker), format!("reply {id} was returned by flow {at}, which had ended"));
        }
    }

    /// A reply to a live flow is returned in the step it came with, unless the flow ends or leaves its backend.
    pub(super) fn check_returned(&mut self, worker: u16, id: u64, at: usize) {
        let answer = &self.ledger.answers[id as usize];
        let flow = &self.flows.all[at];
        if answer.returned == 0 && !flow.fuzzy && !flow.may_move() && flow.closed.is_none() {
            self.violated(Some(worker), format!("reply {id} to the live flow {at} was not returned"));
        }
    }
}
