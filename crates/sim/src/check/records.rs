//! The access-log records: one for each flow, with what really happened. The only way a flow is believed to have ended.

use kakei_config::OnBackend;
use kakei_proxy::record::{CloseReason, Record};

use super::flows::Flow;
use super::{TICK, Truth};

impl Truth {
    /// A worker says that a flow ended.
    pub(crate) fn record(&mut self, worker: u16, record: &Record) {
        self.counters.flows_recorded += 1;
        let Some(at) = self.flow_of(worker, record) else {
            let blurred = self.flows.keys.iter().any(|((w, key), state)| {
                *w == worker && state.fuzzy && key.client == record.client && key.dialled == record.local
            });
            if requests_of(record) > 0 && !blurred {
                self.violated(Some(worker), format!("a record of no flow: {record:?}"));
            }
            return;
        };
        if self.is_certain(at) {
            if let Some(what) = self.wrong_counts(at, record) {
                self.violated(Some(worker), format!("flow {at}: {what}: {record:?}"));
            }
            if let Some(what) = self.wrong_reason(worker, &self.flows.all[at], record) {
                self.violated(Some(worker), format!("flow {at}: {what}: {record:?}"));
            }
        }
        let certain = self.is_certain(at);
        self.flows.close(at, self.now, certain);
    }

    /// Whether a record of this client's flows can be told from those of its other flows: where nothing fails, or where
    /// it has one flow.
    pub(super) fn is_certain(&self, at: usize) -> bool {
        let flow = &self.flows.all[at];
        let state = self.flows.keys.get(&(flow.worker, flow.key.clone()));
        state.is_some_and(|state| !state.fuzzy && !state.sends_empty && (self.calm || state.flows.len() == 1))
    }

    /// The live flow that a record is about: of that client and backend, with those counts where several are.
    fn flow_of(&self, worker: u16, record: &Record) -> Option<usize> {
        let of_key = self
            .flows
            .keys
            .iter()
            .filter(|((w, key), _)| *w == worker && key.client == record.client && key.dialled == record.local);
        let live = of_key.flat_map(|(_, state)| state.flows.iter().copied());
        let live: Vec<usize> = live.filter(|at| self.flows.all[*at].listener == record.listener).collect();
        let fits = |at: &&usize| {
            let flow = &self.flows.all[**at];
            let admitted = flow.opened >= record.admitted && self.may_be_admitted(flow, record);
            let within = |told: u64, seen: u64| told >= seen && told <= seen + flow.doubtful();
            let near = within(requests_of(record), flow.forwards) && within(responses_of(record), flow.returns);
            let exact = (flow.forwards, flow.returns) == (requests_of(record), responses_of(record));
            let bytes = flow.forward_bytes == record.request_bytes && flow.return_bytes == record.response_bytes;
            let blurred = flow.fuzzy || flow.failed > 0;
            let counts = if exact && bytes { 4 } else { 2 * u8::from(near && blurred) + u8::from(blurred) };
            let waited = flow.opened.since(record.admitted);
            let right = self.wrong_reason(worker, flow, record).is_none();
            (admitted, counts, Some(flow.pair.1) == backend_of(record), right, std::cmp::Reverse(waited))
        };
        let best = live.iter().max_by_key(|at| fits(at)).copied();
        // A flow that forwarded nothing was never seen.
        best.filter(|at| requests_of(record) > 0 || self.flows.all[*at].forwards == 0)
    }

    /// Whether something happened to this client when the record says that the flow was admitted.
    fn may_be_admitted(&self, flow: &Flow, record: &Record) -> bool {
        let state = self.flows.keys.get(&(flow.worker, flow.key.clone()));
        state.is_some_and(|state| state.seen.contains(&record.admitted))
    }

    fn wrong_counts(&self, at: usize, record: &Record) -> Option<&'static str> {
        let flow = &self.flows.all[at];
        if record.listener != flow.listener || record.cluster.as_ref() != Some(&flow.terms.cluster) && !flow.fuzzy {
            return Some("its listener or cluster is wrong");
        }
        if record.route != flow.terms.route && !flow.fuzzy {
            return Some("its route is wrong");
        }
        if flow.fuzzy {
            return None;
        }
        if !self.may_be_admitted(flow, record) {
            return Some("nothing came in when it was admitted");
        }
        if self.now.since(record.admitted) != record.duration {
            return Some("its duration is wrong");
        }
        let within = |told: u64, seen: u64| told >= seen && told <= seen + flow.doubtful();
        if !within(requests_of(record), flow.forwards) || !within(responses_of(record), flow.returns) {
            return Some("its datagrams are miscounted");
        }
        if flow.failed > 0 {
            return None;
        }
        let bytes = record.request_bytes == flow.forward_bytes && record.response_bytes == flow.return_bytes;
        (!bytes).then_some("its bytes are miscounted")
    }

    fn wrong_reason(&self, worker: u16, flow: &Flow, record: &Record) -> Option<&'static str> {
        if flow.fuzzy {
            return None;
        }
        let knobs = flow.terms.knobs();
        let gone = |at: usize| {
            let cluster = self.generations[at].cluster(&flow.terms.cluster);
            cluster.is_none_or(|cluster| {
                cluster
                    .backends
                    .iter()
                    .all(|b| b.address.ip() != Some(flow.pair.1) || Some(&b.name) != record.backend.as_ref())
            })
        };
        let health = |at: usize| self.generations[at].cluster(&flow.terms.cluster).is_some_and(|c| c.health.is_some());
        let current = self.current_generation(worker);
        let listening = current.is_some_and(|at| {
            let listener = self.generations[at].document.listeners.get(&flow.listener);
            listener.is_some_and(|listener| listener.bind.contains(&flow.key.bind))
        });
        let right = match record.reason {
            CloseReason::Idle => self.now >= flow.earliest_idle(),
            CloseReason::Lifetime => knobs.lifetime.is_some_and(|lifetime| record.duration >= lifetime),
            CloseReason::ResponsesReached => {
                let cap = u64::from(knobs.responses);
                cap > 0 && flow.returns + flow.failed >= cap
            }
            CloseReason::RequestsReached => !knobs.expects_reply && (flow.is_spent() || flow.failed > 0),
            CloseReason::Drain => self.workers[usize::from(worker)].draining.is_some() || !listening,
            CloseReason::BackendRemoved => knobs.on_backend_removed != OnBackend::Keep && current.is_none_or(gone),
            CloseReason::BackendDown => {
                let by_health = flow.terms.config.health.is_some() || current.is_some_and(health);
                knobs.on_backend_down != OnBackend::Keep && by_health
            }
            CloseReason::Aborted => flow.moved || self.counters.open_failures > 0,
            // Those of connections.
            _ => false,
        };
        let lifetime_over = knobs.lifetime.is_some_and(|lifetime| record.duration > lifetime + self.tick + TICK);
        if !right {
            Some("that is no reason to end")
        } else if lifetime_over && !self.workers[usize::from(worker)].behind {
            Some("it outlived its lifetime")
        } else {
            None
        }
    }
}

fn requests_of(record: &Record) -> u64 {
    record.datagrams().map_or(0, |(requests, _)| requests)
}

fn responses_of(record: &Record) -> u64 {
    record.datagrams().map_or(0, |(_, responses)| responses)
}

fn backend_of(record: &Record) -> Option<std::net::SocketAddr> {
    record.backend_address.as_ref().and_then(|address| address.ip())
}
