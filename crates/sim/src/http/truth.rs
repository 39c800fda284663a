//! What must hold of a run: every answer to its request, no request twice that must not be, nothing lost where nothing
//! failed, everything given back in the end.

use std::collections::BTreeMap;

use kakei_proxy::limits::STREAM_READ;
use kakei_proxy::record::{Detail, Record};
use kakei_proxy::seam::{Op, Reply};
use kakei_proxy::stats::{BackendMetric, ListenerMetric, Stats};

use super::HttpReport;
use super::client::{Ask, Came, Client};
use super::machine::Machine;
use super::server::Seen;

/// What is known beside the proxy.
#[derive(Debug)]
pub(super) struct Truth {
    is_peaceful: bool,
    /// Every request that some client may have sent, and how often backends saw it whole.
    asked: BTreeMap<u64, (Ask, u32)>,
    records: u64,
}

impl Truth {
    pub(super) fn new(is_peaceful: bool) -> Self {
        Truth { is_peaceful, asked: BTreeMap::new(), records: 0 }
    }

    pub(super) fn invite(&mut self, client: &Client) {
        self.asked.extend(client.asks.iter().map(|ask| (ask.id, (ask.clone(), 0))));
    }

    /// Backends saw requests whole.
    pub(super) fn saw(&mut self, seen: &[Seen], report: &mut HttpReport) {
        for seen in seen {
            let Some((ask, times)) = self.asked.get_mut(&seen.id) else {
                report.violations.push(format!("request {} was sent by nobody", seen.id));
                continue;
            };
            *times += 1;
            report.counters.seen += 1;
            report.counters.reused += u64::from(seen.reused);
            report.counters.repeated += u64::from(*times == 2);
            if *times > 1 && (!ask.is_idempotent() || self.is_peaceful) {
                report.violations.push(format!("request {} ({}) was seen {times} times", seen.id, ask.method));
            }
        }
    }

    /// A client got answers.
    pub(super) fn came(&mut self, came: &Came, answered: &[u64], report: &mut HttpReport) {
        report.counters.answered += came.answered;
        report.counters.errors += came.errors.len() as u64;
        for (id, status) in &came.errors {
            // The second cluster is changed under way; whoever is on what was closed may hear of that.
            let is_stable = self.asked.get(id).is_some_and(|(ask, _)| ask.cluster == "one");
            if self.is_peaceful && is_stable {
                report.violations.push(format!("request {id} got {status}, and nothing was wrong"));
            }
        }
        for id in answered {
            if self.asked.get(id).is_some_and(|(ask, times)| *times == 0 && !ask.has_body()) {
                report.violations.push(format!("request {id} was answered, and no backend saw it"));
            }
        }
    }

    /// A client's connection broke.
    pub(super) fn broke(&self, client: &Client, report: &mut HttpReport) {
        // With several requests under way, what one of the changed cluster does befalls those before it.
        let is_stable = client.asks.iter().all(|ask| ask.cluster == "one");
        if self.is_peaceful && is_stable && !client.is_done() {
            report.violations.push(format!("request {:?} was broken off, and nothing was wrong", client.current()));
        }
    }

    pub(super) fn record(&mut self, record: &Record) -> Result<(), String> {
        self.records += 1;
        match &record.detail {
            Detail::Exchange(detail) if detail.status.is_some_and(|status| !(100..600).contains(&status)) => {
                Err(format!("a record with a strange status: {record:?}"))
            }
            _ => Ok(()),
        }
    }

    /// What operators see.
    pub(super) fn views(&self, ops: &[Op], report: &mut HttpReport) {
        for op in ops {
            let Op::Reply { reply: Reply::Connections(views), .. } = op else { continue };
            for view in views {
                if view.buffered > KEPT {
                    report.violations.push(format!("{} bytes are kept for one client: {view:?}", view.buffered));
                }
            }
        }
    }

    /// The run is over.
    pub(super) fn end(&self, machine: &Machine, stats: Option<&Stats>, report: &mut HttpReport) {
        if !machine.is_idle() {
            report.violations.push(format!("something never ends: {}", machine.what_is_left()));
        }
        let Some(stats) = stats else { return report.violations.push("no counters".to_owned()) };
        for listener in &stats.listeners {
            let live = [ListenerMetric::ConnectionsLive, ListenerMetric::RequestsLive, ListenerMetric::RequestsQueued];
            for metric in live.into_iter().filter(|metric| listener.values[*metric] != 0) {
                report.violations.push(format!("{metric:?} is {} in the end", listener.values[metric]));
            }
        }
        for backend in stats.clusters.iter().flat_map(|cluster| &cluster.backends) {
            let live = [BackendMetric::ConnectionsLive, BackendMetric::RequestsLive, BackendMetric::FlowsLive];
            for metric in live.into_iter().filter(|metric| backend.values[*metric] != 0) {
                report.violations.push(format!("{metric:?} of {} is {}", backend.address, backend.values[metric]));
            }
        }
        let ended: u64 = stats.listeners.iter().map(|listener| listener.exchange_closes.sum()).sum();
        let requests: u64 = stats.listeners.iter().map(|listener| listener.values[ListenerMetric::Requests]).sum();
        let unread: u64 = requests - ended.min(requests);
        if ended > requests || unread > 0 && self.is_peaceful {
            report.violations.push(format!("{requests} requests, of which {ended} ended"));
        }
    }
}

/// What a client's connection may have to keep: what it did not take, what wasn't looked at yet, what may be sent again,
/// each about one read.
const KEPT: u64 = 4 * STREAM_READ as u64;
