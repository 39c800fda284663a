//! The one owner of the engine and of the desired state: every change and every question to the workers goes through
//! its queue, one at a time. It waits for workers only with a bound, and never on the data path.

mod ask;
mod cuts;
mod drift;
mod expiry;
mod files;
mod machine;
mod pending;
mod prepare;
mod publish;
mod start;
mod touches;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kakei_config::{Checked, Document, Name, Resolved};
use kakei_proxy::seam::{BackendHealth, Command, ConnectionView, Filter, FlowView, Notice, RateUse, Reply};
use kakei_proxy::secure::Certificate;
use kakei_proxy::snapshot::{Generation, Metered};
use kakei_proxy::stats::{Metric, MetricKind};
use kakei_runtime::engine::EngineEvent;
use kakei_runtime::stats::MachineStats;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

pub use self::start::{Control, Options, StartError};
use crate::access_log::LogWriter;
use crate::audit::{Came, Record};
use crate::certificates::Certificates;
use crate::doors::Doors;
use crate::events::{Events, What};
use crate::handle::{Asked, Counters, Request};
use crate::health::words;
use crate::metrics::Process;
use crate::names::Names;
use crate::refusal::Refusal;
use crate::store::Store;
use crate::sums::Sums;
use crate::system::{System, Workers};
use crate::view::View;

/// Time in which the workers must answer a question.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// Time in which workers that drain may end what is alive and write it down, before they are stopped.
const LAST_TIME: Duration = Duration::from_millis(500);

/// See the module's words.
struct Owner<S: System> {
    /// What all of it stands on.
    system: S,
    engine: S::Workers,
    next_ticket: u64,
    /// The generation that each worker said it runs.
    running: Vec<Generation>,
    log: LogWriter,
    /// Generations that can be gone back to.
    store: Store,
    /// The generation that waits to be confirmed.
    pending: Option<pending::Pending>,
    /// The whole document that was applied last, before what was changed of it at run time, where the store could not
    /// take it.
    unwritten: Option<Document>,
    /// The document that runs, with what it takes to judge changes of it.
    checked: Checked,
    /// The same with addresses in the place of host names.
    resolved: Resolved,
    /// The clusters that are other ones since what runs was published.
    turned: Vec<Name>,
    /// What backends' host names stand for.
    names: Names,
    /// What listeners show, and what session tickets are sealed by.
    certificates: Certificates,
    /// When those get a new key.
    rotation: tokio::time::Interval,
    /// Whether their files changed.
    files: files::Watch,
    /// When it is looked which of them expire soon.
    expiry: tokio::time::Interval,
    view: View,
    watchers: watch::Sender<Arc<View>>,
    events: Events,
    /// Who may use the admin API, and where its audit lines go.
    doors: Doors,
    drain: Option<Drain>,
    counts: Counts,
    /// Changes that wait for the backends that they bring.
    preparing: Vec<prepare::Preparing>,
    /// Something was heard that they may wait for.
    news: bool,
    /// How many clusters were probed for them so far, and whether worker 0 knows the newest.
    candidates: u64,
    candidates_told: bool,
    /// What was cut and is still to be told.
    untold: cuts::Untold,
    /// Backends that begin as down with what is published next.
    doubted: BTreeMap<Name, BTreeSet<Name>>,
}

/// A drain that goes on.
struct Drain {
    /// Workers that have flows left.
    left: BTreeSet<u16>,
    /// Who waits for its end.
    waiters: Vec<oneshot::Sender<()>>,
}

/// What the control side itself counts.
#[derive(Default)]
struct Counts {
    changes: u64,
    /// The doors count here, too.
    refused: Arc<AtomicU64>,
}

impl<S: System> Owner<S> {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            // In this order, so that a seed replays it: what is due is rare, and what is asked for comes last.
            let done = tokio::select! {
                biased;
                () = pending::due(self.pending.as_ref()) => {
                    self.look_at_pending().await;
                    ControlFlow::Continue(())
                }
                _ = self.expiry.tick() => {
                    self.mind_expiry();
                    ControlFlow::Continue(())
                }
                _ = self.rotation.tick() => {
                    self.rotate_tickets();
                    ControlFlow::Continue(())
                }
                () = cuts::due(&self.untold) => {
                    self.tell_cuts();
                    ControlFlow::Continue(())
                }
                () = prepare::due(&self.preparing, self.news) => {
                    self.look_at_preparing().await;
                    ControlFlow::Continue(())
                }
                found = files::due(&mut self.files) => {
                    self.mind_files(found).await;
                    ControlFlow::Continue(())
                }
                () = self.names.changed() => {
                    self.readdress();
                    self.news = true;
                    ControlFlow::Continue(())
                }
                event = self.engine.event() => {
                    self.on_event(event);
                    ControlFlow::Continue(())
                }
                request = requests.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => ControlFlow::Break(None),
                },
            };
            if let ControlFlow::Break(told) = done {
                return self.finish(told).await;
            }
        }
    }

    async fn serve(&mut self, request: Request) -> ControlFlow<Option<oneshot::Sender<()>>> {
        // A client that no longer waits for its answer is no reason not to have done the work: sends may fail.
        match request {
            Request::Change(change, reply) => self.take(change, reply, prepare::Proven::default()).await,
            Request::Confirm(generation, asked, reply) => {
                let record = Record::of(&asked, self.view.generation());
                let outcome = self.confirm(generation);
                self.doors.audit.write(&match &outcome {
                    Ok(confirmed) => record.done(Came::Confirmed, *confirmed, Vec::new()),
                    Err(refusal) => record.refused(refusal),
                });
                if let Err(refusal) = &outcome {
                    self.note_refusal(&asked, refusal.to_string());
                }
                let _ = reply.send(outcome);
            }
            Request::Kept(generation, reply) => {
                let _ = reply.send(self.kept(generation));
            }
            Request::Counters(reply) => {
                let _ = reply.send(self.counters().await);
            }
            Request::Flows(filter, reply) => {
                let _ = reply.send(self.flows(filter).await);
            }
            Request::Connections(filter, reply) => {
                let _ = reply.send(self.connections(filter).await);
            }
            Request::Rates(of, reply) => {
                let _ = reply.send(self.rates(of).await);
            }
            Request::ReopenLogs => {
                self.log.reopen();
                self.doors.audit.reopen();
            }
            Request::Drain(within, reply) => self.start_drain(within, reply),
            Request::Stop(reply) => return ControlFlow::Break(Some(reply)),
        }
        ControlFlow::Continue(())
    }

    /// Tell and count a change that was refused: each that has an audit line for it.
    fn note_refusal(&self, asked: &Asked, reason: String) {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        self.events.say(What::Refused { asked: asked.to_string(), reason });
    }

    /// What the engine tells unasked, and late answers, which nobody waits for.
    fn on_event(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::Reply { worker, reply: Reply::Published(generation), .. } => self.runs(worker, generation),
            EngineEvent::Reply { .. } => {}
            EngineEvent::Notice { worker, notice } => self.on_notice(worker, notice),
            EngineEvent::WorkerPanicked { worker, message, .. } => {
                error!("worker {worker} panicked, its flows are lost, a fresh one takes its place: {message}");
                self.events.say(What::WorkerLost { worker, reason: message });
                self.running[usize::from(worker)] = Generation(0);
            }
            EngineEvent::WorkerRestarted { worker, generation } => {
                self.runs(worker, generation);
                self.brief(worker);
            }
            EngineEvent::WorkerStopped { worker, error } => {
                let reason = error.unwrap_or_else(|| "it was told to".to_owned());
                error!("worker {worker} has stopped for good: {reason}");
                self.events.say(What::WorkerLost { worker, reason });
                self.view.stopped.insert(worker);
                self.on_drained(worker);
                self.show();
            }
        }
    }

    fn on_notice(&mut self, worker: u16, notice: Notice) {
        match notice {
            Notice::Health(verdict) => {
                if self.view.health.record(verdict.clone()) {
                    let state = if verdict.up { "up" } else { "down" };
                    let why = verdict.why.as_ref().map(words);
                    let because = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
                    info!(
                        "backend {} of cluster {} ({}) is {state}{because}",
                        verdict.backend, verdict.cluster, verdict.address
                    );
                    self.events.say(What::Health {
                        cluster: verdict.cluster.clone(),
                        backend: verdict.backend.clone(),
                        address: verdict.address.to_string(),
                        up: verdict.up,
                        why,
                    });
                    self.show();
                }
                for other in (0..self.view.workers).filter(|&other| other != worker) {
                    self.tell(other, Command::Health(verdict.clone()));
                }
            }
            Notice::Ejected { cluster, backend, for_ } => {
                warn!(
                    "worker {worker} ejected backend {backend} of cluster {cluster} for {for_:?}: its live traffic fails"
                );
                let for_ms = u64::try_from(for_.as_millis()).unwrap_or(u64::MAX);
                self.events.say(What::Ejected { cluster, backend, worker, for_ms });
            }
            Notice::Cut(cut) => self.on_cut(cut),
            Notice::Probed(probed) => self.on_probed(probed),
            Notice::Drained => self.on_drained(worker),
        }
    }

    /// A fresh worker knows nothing of its backends' health; a draining process wants no new flow from it.
    fn brief(&mut self, worker: u16) {
        self.tell_health(worker);
        if worker == 0 && !self.preparing.is_empty() {
            self.tell_candidates();
        }
        if self.drain.is_some() {
            self.tell(worker, Command::Drain { within: None });
        }
    }

    /// Tell the workers what is known of the health of clusters that are other ones now. The probing one knows it.
    fn tell_health_of_turned(&mut self) {
        let turned = std::mem::take(&mut self.turned);
        let verdicts = turned.iter().flat_map(|name| self.view.health.of(name));
        let verdicts: Vec<BackendHealth> = verdicts.cloned().collect();
        for verdict in verdicts {
            (1..self.view.workers).for_each(|worker| self.tell(worker, Command::Health(verdict.clone())));
        }
    }

    /// Tell a worker all that is known of the backends' health.
    fn tell_health(&mut self, worker: u16) {
        let verdicts: Vec<BackendHealth> = self.view.health.all().cloned().collect();
        for verdict in verdicts {
            self.tell(worker, Command::Health(verdict));
        }
    }

    async fn counters(&mut self) -> Counters {
        let replies = self.ask_all(&Command::Stats, ANSWER_TIME).await;
        let copies = replies.iter().filter_map(|(&worker, reply)| match reply {
            Reply::Stats(stats) => Some((worker, &**stats)),
            _ => None,
        });
        let sums = Sums::of(copies);
        let mut process =
            Process { uptime: self.view.uptime(), workers: u64::from(self.view.workers), ..Process::default() };
        process.measure();
        process.values = self.values();
        let expiry = |(name, made): (&Name, &Arc<Certificate>)| (name.clone(), made.not_after);
        process.certificates = self.view.certificates.iter().map(expiry).collect();
        Counters { sums, process }
    }

    /// The metrics that no worker counts.
    fn values(&self) -> Vec<(Metric, u64)> {
        let counter = |name, help, value| (Metric { name, help, kind: MetricKind::Counter }, value);
        let mut values = vec![
            counter("kakei_changes", "Generations published.", self.counts.changes),
            counter("kakei_changes_refused", "Changes that were refused.", self.counts.refused.load(Ordering::Relaxed)),
            counter(
                "kakei_audit_log_lost",
                "Audit lines that could not be written to their file.",
                self.doors.audit.lost(),
            ),
            counter("kakei_access_log_lines", "Access-log lines written.", self.log.written()),
            counter("kakei_access_log_lost", "Access-log lines that could not be written.", self.log.lost()),
        ];
        let machines: Vec<MachineStats> =
            (0..self.view.workers).filter_map(|worker| self.engine.machine_stats(worker)).collect();
        values.extend(machine::values(&machines));
        values
    }

    /// What each worker says that answers in time.
    async fn rates(&mut self, of: Arc<Metered>) -> BTreeMap<u16, Vec<RateUse>> {
        let replies = self.ask_all(&Command::Rates(of), ANSWER_TIME).await;
        let said = replies.into_iter().filter_map(|(worker, reply)| match reply {
            Reply::Rates(uses) => Some((worker, uses)),
            _ => None,
        });
        said.collect()
    }

    async fn flows(&mut self, filter: Filter) -> Result<Vec<FlowView>, Refusal> {
        let of = |reply| match reply {
            Reply::Flows(flows) => Some(flows),
            _ => None,
        };
        let by = |flow: &FlowView| (flow.listener.clone(), flow.client, flow.local);
        self.list(filter.limit, &Command::Flows(filter), of, by).await
    }

    async fn connections(&mut self, filter: Filter) -> Result<Vec<ConnectionView>, Refusal> {
        let of = |reply| match reply {
            Reply::Connections(connections) => Some(connections),
            _ => None,
        };
        let by = |connection: &ConnectionView| (connection.listener.clone(), connection.client, connection.local);
        self.list(filter.limit, &Command::Connections(filter), of, by).await
    }

    /// What all workers list, in order, at most `limit`.
    async fn list<T, K: Ord>(
        &mut self,
        limit: usize,
        command: &Command,
        of: impl Fn(Reply) -> Option<Vec<T>>,
        by: impl Fn(&T) -> K,
    ) -> Result<Vec<T>, Refusal> {
        let replies = self.ask_all(command, ANSWER_TIME).await;
        if replies.is_empty() {
            return Err(Refusal::Timeout);
        }
        let mut all: Vec<T> = replies.into_values().filter_map(of).flatten().collect();
        all.sort_by_cached_key(by);
        all.truncate(limit);
        Ok(all)
    }

    fn start_drain(&mut self, within: Option<Duration>, reply: oneshot::Sender<()>) {
        let drain = self.drain.get_or_insert_with(|| Drain {
            left: (0..self.view.workers).filter(|worker| !self.view.stopped.contains(worker)).collect(),
            waiters: Vec::new(),
        });
        if drain.left.is_empty() {
            let _ = reply.send(());
            return;
        }
        drain.waiters.push(reply);
        info!("draining: no new flow is admitted, live flows end by themselves");
        self.events.say(What::Draining);
        for worker in 0..self.view.workers {
            self.tell(worker, Command::Drain { within });
        }
        self.view.draining = true;
        self.news = true;
        self.show();
    }

    fn on_drained(&mut self, worker: u16) {
        let Some(drain) = &mut self.drain else { return };
        drain.left.remove(&worker);
        if drain.left.is_empty() {
            info!("drained: the last flow has ended");
            self.events.say(What::Drained);
            for waiter in drain.waiters.drain(..) {
                let _ = waiter.send(());
            }
        }
    }

    /// Let readers see what is known now.
    fn show(&self) {
        self.watchers.send_replace(Arc::new(self.view.clone()));
    }

    async fn finish(mut self, told: Option<oneshot::Sender<()>>) {
        self.cut_drain_short(LAST_TIME).await;
        self.tell_cuts();
        self.engine.stop();
        self.log.finish();
        info!("stopped");
        if let Some(told) = told {
            let _ = told.send(());
        }
    }
}

/// The names that a set of things has, joined for a sentence.
fn joined(names: impl IntoIterator<Item = impl ToString>) -> String {
    names.into_iter().map(|name| name.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
