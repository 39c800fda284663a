//! What the proxy counts, compared with itself (the identities of its counters) and with the checkers' own account.

use kakei_config::Name;
use kakei_proxy::seam::FlowView;
use kakei_proxy::stats::{ClusterMetric, ClusterStats, DropReason, ListenerMetric, ListenerStats, Stats, WorkerMetric};

use super::Truth;

/// What went through one listener of one worker.
#[derive(Debug, Default)]
pub(crate) struct ListenerAccount {
    pub(crate) received: u64,
    pub(crate) forwarded: u64,
    pub(crate) failed: u64,
    pub(crate) truncated: u64,
    pub(crate) bad_header: u64,
    /// A change came in one step with datagrams, so that nobody outside can tell which rule they fell under.
    pub(crate) uncertain: bool,
}

impl Truth {
    /// A worker's counters, at any moment.
    pub(crate) fn stats(&mut self, worker: u16, stats: &Stats) {
        for listener in &stats.listeners {
            if let Some(what) = wrong_listener(listener) {
                self.violated(Some(worker), what);
            }
        }
        for cluster in &stats.clusters {
            if let Some(what) = wrong_cluster(cluster) {
                self.violated(Some(worker), what);
            }
        }
        let (late, orphaned) =
            (stats.worker[WorkerMetric::LateSendFailures], self.workers[usize::from(worker)].orphaned);
        if late > orphaned {
            let what = format!("{late} sends that failed are on nobody, and at most {orphaned} can be");
            self.violated(Some(worker), what);
        }
        if self.calm {
            self.calm_drops(worker, stats);
        }
    }

    /// Open sockets to backends are bounded by flows, pools and probes, and what this step opened.
    pub(crate) fn sockets(&mut self, worker: u16, open: usize, stats: &Stats) {
        let flows: u64 = stats.listeners.iter().map(|l| l.values[ListenerMetric::FlowsLive]).sum();
        let pools: u64 = stats.clusters.iter().map(|c| c.values[ClusterMetric::SharedSockets]).sum();
        let backends: u64 = stats.clusters.iter().map(|c| c.backends.len() as u64).sum();
        let slack = kakei_proxy::limits::EVENTS_PER_STEP as u64;
        if open as u64 > flows + pools + 2 * backends + slack {
            let what = format!("{open} sockets for {flows} flows, {pools} pooled and {backends} backends");
            self.violated(Some(worker), what);
        }
    }

    /// A worker's live flows, as it lists them.
    pub(crate) fn listed(&mut self, worker: u16, flows: &[FlowView]) {
        for view in flows {
            let known = self.flows.keys.iter().any(|((w, key), state)| {
                let same = *w == worker && key.peer == view.peer && key.client == view.client;
                same && (!state.flows.is_empty() || !state.waiting.is_empty() || state.fuzzy)
            });
            if !known {
                self.violated(Some(worker), format!("lists a flow that nobody opened: {view:?}"));
            }
        }
    }

    /// A worker's counters when everything has ended.
    pub(crate) fn last_stats(&mut self, worker: u16, stats: &Stats) {
        self.stats(worker, stats);
        for listener in &stats.listeners {
            for gauge in [ListenerMetric::FlowsLive, ListenerMetric::DatagramsKept] {
                if listener.values[gauge] != 0 {
                    let what = format!("{} has {} {gauge:?} at the end", listener.listener, listener.values[gauge]);
                    self.violated(Some(worker), what);
                }
            }
            if let Some(what) = self.wrong_account(worker, listener) {
                self.violated(Some(worker), what);
            }
        }
        for cluster in &stats.clusters {
            let backends = cluster.backends.iter().map(|b| b.values[kakei_proxy::stats::BackendMetric::FlowsLive]);
            let live: u64 = backends.sum();
            let pool = cluster.values[ClusterMetric::SharedSockets];
            if live + pool != 0 {
                let what = format!("{} has {live} flows and {pool} pooled sockets at the end", cluster.cluster);
                self.violated(Some(worker), what);
            }
        }
    }

    /// The counters of a listener that was there all the time, against what really went through it.
    fn wrong_account(&self, worker: u16, stats: &ListenerStats) -> Option<String> {
        let name = &stats.listener;
        let always = self.generations.iter().all(|generation| generation.document.listeners.contains_key(name));
        let account = self.accounts.get(&(worker, name.clone()))?;
        if !always {
            return None;
        }
        let drops = |reason: DropReason| stats.drops.0[reason as usize];
        let compared = [
            ("received", stats.values[ListenerMetric::DatagramsIn], account.received, !account.uncertain),
            ("truncated", drops(DropReason::Truncated), account.truncated, !account.uncertain),
            ("bad headers", drops(DropReason::ProxyHeader), account.bad_header, !account.uncertain),
        ];
        let wrong = compared.into_iter().find(|(_, told, seen, certain)| *certain && told != seen);
        wrong.map(|(what, told, seen, _)| format!("{name} counts {told} {what}, really {seen}"))
    }

    /// Where nothing fails, nothing is dropped that the operator did not ask to drop.
    fn calm_drops(&mut self, worker: u16, stats: &Stats) {
        let never = [
            DropReason::FlowLimit,
            DropReason::SourceLimit,
            DropReason::RateLimit,
            DropReason::NoSocket,
            DropReason::QueueFull,
            DropReason::SendError,
            DropReason::TooBig,
            DropReason::NoBackend,
            DropReason::NoRoute,
            DropReason::Invalid,
        ];
        for listener in &stats.listeners {
            for reason in never {
                let dropped = listener.drops.0[reason as usize];
                if dropped > 0 && !self.may_drop(&listener.listener, reason) {
                    let what = format!("{} dropped {dropped} as {} in calm weather", listener.listener, reason.name());
                    self.violated(Some(worker), what);
                }
            }
        }
    }

    /// Whether some generation gives a reason to drop.
    fn may_drop(&self, listener: &Name, reason: DropReason) -> bool {
        let configured = self.generations.iter().filter_map(|g| Some((g, g.document.listeners.get(listener)?)));
        configured.into_iter().any(|(generation, listener)| match reason {
            DropReason::NoRoute => listener.cluster.is_none(),
            DropReason::NoBackend => {
                generation.document.clusters.values().any(|c| c.backends.iter().all(|b| b.weight == 0))
            }
            DropReason::FlowLimit => listener.limits.flows < 10_000,
            DropReason::SourceLimit => listener.limits.flows_per_source > 0,
            DropReason::RateLimit => listener.limits.new_flows_per_second > 0,
            _ => false,
        })
    }
}

fn wrong_listener(stats: &ListenerStats) -> Option<String> {
    let value = |metric: ListenerMetric| stats.values[metric];
    let (received, forwarded) = (value(ListenerMetric::DatagramsIn), value(ListenerMetric::DatagramsForwarded));
    let (dropped, kept) = (stats.drops.sum(), value(ListenerMetric::DatagramsKept));
    if received != forwarded + dropped + kept {
        let name = &stats.listener;
        return Some(format!("{name}: {received} in, but {forwarded} forwarded + {dropped} dropped + {kept} kept"));
    }
    let (opened, closed, live) =
        (value(ListenerMetric::FlowsOpened), stats.closes.sum(), value(ListenerMetric::FlowsLive));
    (opened != closed + live).then(|| format!("{}: {opened} opened, {closed} closed, {live} live", stats.listener))
}

fn wrong_cluster(stats: &ClusterStats) -> Option<String> {
    let (received, returned) = (stats.values[ClusterMetric::RepliesIn], stats.values[ClusterMetric::RepliesReturned]);
    let dropped = stats.drops.sum();
    let wrong = received != returned + dropped;
    wrong.then(|| format!("{}: {received} replies in, but {returned} returned + {dropped} dropped", stats.cluster))
}
