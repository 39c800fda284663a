//! Changes that bring backends which have to pass first (`ready = "probed"`): looked up, then probed as candidates that
//! nothing leads to, and published once they have passed; or refused, and nothing was. Nobody is held up meanwhile: other
//! changes are made, and a change that has waited is judged again by what runs then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kakei_config::{Backend, BackendAddress, Cluster, Diagnostics, Document, Fault, Health, Name, Ready};
use kakei_proxy::health::Check;
use kakei_proxy::seam::{Candidate, Command, Endpoint, ProbeSaid, Probed};
use kakei_proxy::snapshot::Cluster as Compiled;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tracing::info;

use super::Owner;
use super::publish::Planned;
use crate::events::What as Happened;
use crate::handle::{Change, Outcome, What};
use crate::health::words;
use crate::refusal::Refusal;
use crate::system::{System, Workers};

/// Changes that may wait at one time.
const WAITING: usize = 16;
/// How often it is looked whether who asked is still there, and worker 0 knows what to probe.
const LOOK: Duration = Duration::from_millis(250);
/// The first probes of a change are spread: so far apart, and over so long at most.
const APART: Duration = Duration::from_millis(1);
const SPREAD: Duration = Duration::from_secs(2);

pub(super) type Answer = oneshot::Sender<Result<Outcome, Refusal>>;

/// A backend of a cluster, as it is called once it has an address.
type Key = (Name, Name);

/// What was found out for a change so far.
#[derive(Debug, Default)]
pub(super) struct Proven {
    /// When its time is over; none: it has not waited yet.
    until: Option<Instant>,
    /// Where each backend is that was probed, and whether it passed.
    backends: BTreeMap<Key, (Endpoint, bool)>,
}

impl Proven {
    /// Backends that come with the change and have not passed.
    pub(super) fn doubted(&self) -> BTreeMap<Name, BTreeSet<Name>> {
        let mut doubted: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
        for ((cluster, backend), _) in self.backends.iter().filter(|(_, (_, passed))| !passed) {
            doubted.entry(cluster.clone()).or_default().insert(backend.clone());
        }
        doubted
    }

    fn knows(&self, cluster: &Name, backend: &Backend) -> bool {
        let found = self.backends.get(&(cluster.clone(), backend.name.clone()));
        found.is_some_and(|(address, _)| Endpoint::of(&backend.address).as_ref() == Some(address))
    }
}

/// A change that waits.
pub(super) struct Preparing {
    change: Change,
    answer: Answer,
    proven: Proven,
    until: Instant,
    waits: Waits,
    /// What of the document it is about, to place errors in.
    about: Document,
}

/// For what.
enum Waits {
    /// Addresses of host names.
    Hosts(Vec<Sought>),
    /// Probes of candidates.
    Probes(Vec<Trial>),
}

/// A host name without an address.
struct Sought {
    spot: Spot,
    host: Arc<str>,
}

/// Where a backend stands in the document.
#[derive(Clone)]
struct Spot {
    cluster: Name,
    at: usize,
    backend: Name,
}

/// A cluster whose new backends are probed.
struct Trial {
    number: u64,
    compiled: Arc<Compiled>,
    spread: Duration,
    /// So many have to pass.
    enough: usize,
    on: Vec<Probation>,
}

/// A backend that is probed.
struct Probation {
    spot: Spot,
    name: Name,
    address: Endpoint,
    passed: Option<bool>,
    /// What came of its newest probe.
    said: Option<(Check, ProbeSaid)>,
}

/// Backends that a change brings to a cluster that has them pass first.
struct Brought<'a> {
    cluster: &'a Name,
    spec: &'a Cluster,
    backends: Vec<(usize, &'a Backend)>,
}

/// How a change that waits stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Waits,
    Passed,
    Failed,
}

impl Trial {
    fn standing(&self) -> Standing {
        let count = |passed| self.on.iter().filter(|one| one.passed == passed).count();
        match () {
            () if count(Some(true)) >= self.enough => Standing::Passed,
            () if count(Some(true)) + count(None) < self.enough => Standing::Failed,
            () => Standing::Waits,
        }
    }
}

impl Preparing {
    fn standing<S: System>(&self, owner: &Owner<S>) -> Standing {
        match &self.waits {
            Waits::Hosts(hosts) if hosts.iter().all(|sought| owner.has_address(&sought.host)) => Standing::Passed,
            Waits::Hosts(_) => Standing::Waits,
            Waits::Probes(trials) => {
                let all: Vec<Standing> = trials.iter().map(Trial::standing).collect();
                let has = |standing| all.contains(&standing);
                match () {
                    () if has(Standing::Failed) => Standing::Failed,
                    () if has(Standing::Waits) => Standing::Waits,
                    () => Standing::Passed,
                }
            }
        }
    }

    /// The same where its time is over, or who asked has gone, too.
    fn is_over<S: System>(&self, owner: &Owner<S>) -> bool {
        let is_late = Instant::now() >= self.until;
        is_late || self.answer.is_closed() || owner.drain.is_some() || self.standing(owner) != Standing::Waits
    }
}

/// Ready when it is to be looked at those that wait; never where there are none.
pub(super) async fn due(preparing: &[Preparing], news: bool) {
    let Some(until) = preparing.iter().map(|waits| waits.until).min() else { return std::future::pending().await };
    if !news {
        sleep_until(until.min(Instant::now() + LOOK)).await;
    }
}

impl<S: System> Owner<S> {
    /// Carry a change out, or have it wait for what it brings.
    pub(super) async fn take(&mut self, mut change: Change, answer: Answer, mut proven: Proven) {
        let (asked, record) = (change.asked.clone(), self.record(&change));
        let outcome = match self.plan(&change) {
            Err(refusal) => Err(refusal),
            Ok(planned) if change.dry_run || planned.is_nothing() => {
                let waits = told(&brings(&self.view.document, planned.document()));
                let outcome = self.carry_out(change, planned, &Proven::default()).await;
                outcome.map(|outcome| Outcome { waits, ..outcome })
            }
            Ok(planned) => match self.lacks(&planned, &proven) {
                None => self.carry_out(change, planned, &proven).await,
                Some(_) if self.drain.is_some() => Err(Refusal::Draining),
                Some(_) if self.preparing.len() >= WAITING => {
                    Err(Refusal::Busy(format!("{WAITING} changes wait for their backends already")))
                }
                Some((waits, about, lines)) => {
                    let within = about.clusters.values().map(within).max().unwrap_or_default();
                    let lines = proven.until.is_none().then_some(lines);
                    let until = *proven.until.get_or_insert_with(|| Instant::now() + within);
                    if !matches!(change.what, What::Edits(_)) {
                        // A whole document would take back what others change meanwhile.
                        change.expected = Some(vec![self.view.generation()]);
                    }
                    let begun = Preparing { change, answer, proven, until, waits, about };
                    return self.begin(begun, lines);
                }
            },
        };
        self.write_down(&asked, record, &outcome);
        // A client that no longer waits for its answer is no reason not to have done the work.
        let _ = answer.send(outcome);
    }

    /// A change waits from now on; what for is said when it begins to.
    fn begin(&mut self, begun: Preparing, waits: Option<Vec<String>>) {
        let has_hosts = !begun.about.hosts().is_empty();
        if let Some(waits) = waits {
            info!("a change waits, asked for by {}: {}", begun.change.asked, waits.join("; "));
            self.events.say(Happened::Preparing { asked: begun.change.asked.to_string(), waits });
        }
        self.preparing.push(begun);
        if has_hosts {
            self.want_hosts();
        }
        self.tell_candidates();
    }

    /// Go on with changes that have waited long enough, for better or worse.
    pub(super) async fn look_at_preparing(&mut self) {
        self.news = false;
        let all = std::mem::take(&mut self.preparing);
        let (over, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|waits| waits.is_over(self));
        self.preparing = rest;
        if over.is_empty() {
            // A worker that was too busy to be told may not be any more.
            if !self.candidates_told {
                self.tell_candidates();
            }
            return;
        }
        self.tell_candidates();
        let had_hosts = over.iter().any(|waits| !waits.about.hosts().is_empty());
        for waits in over {
            self.go_on(waits).await;
        }
        if had_hosts {
            self.want_hosts();
        }
    }

    async fn go_on(&mut self, waits: Preparing) {
        let standing = waits.standing(self);
        let refusal = match standing {
            _ if waits.answer.is_closed() => Refusal::Abandoned,
            _ if self.drain.is_some() => Refusal::Draining,
            Standing::Passed => {
                let Preparing { change, answer, mut proven, waits, .. } = waits;
                if let Waits::Probes(trials) = waits {
                    let probed = trials.into_iter().flat_map(|trial| trial.on);
                    proven.backends.extend(probed.map(|one| {
                        let Spot { cluster, .. } = one.spot;
                        ((cluster, one.name), (one.address, one.passed == Some(true)))
                    }));
                }
                return self.take(change, answer, proven).await;
            }
            Standing::Waits | Standing::Failed => self.not_ready(&waits),
        };
        let outcome = Err(refusal);
        self.write_down(&waits.change.asked, self.record(&waits.change), &outcome);
        let _ = waits.answer.send(outcome);
    }

    /// What a change still has to wait for, the clusters that it is about, and that in words; none: nothing.
    fn lacks(&self, planned: &Planned, proven: &Proven) -> Option<(Waits, Document, Vec<String>)> {
        let brought = brings(&self.view.document, planned.document());
        if brought.is_empty() {
            return None;
        }
        let clusters = brought.iter().map(|one| (one.cluster.clone(), one.spec.clone()));
        let about = Document { clusters: clusters.collect(), ..Document::default() };
        let sought: Vec<Sought> = brought.iter().flat_map(|one| self.sought(one)).collect();
        if !sought.is_empty() {
            return Some((Waits::Hosts(sought), about, told(&brought)));
        }
        let resolved = self.resolved.next(planned.document(), self.names.known());
        let trials = brought.iter().filter_map(|one| self.trial(one, resolved.document(), (planned, proven)));
        let mut trials: Vec<Trial> = trials.collect();
        let all: usize = trials.iter().map(|trial| trial.on.len()).sum();
        let spread = APART.saturating_mul(u32::try_from(all - all.min(1)).unwrap_or(u32::MAX)).min(SPREAD);
        trials.iter_mut().for_each(|trial| trial.spread = spread);
        (!trials.is_empty()).then(|| (Waits::Probes(trials), about, told(&brought)))
    }

    fn sought<'a>(&'a self, brought: &'a Brought<'_>) -> impl Iterator<Item = Sought> + 'a {
        brought.backends.iter().filter_map(|(at, backend)| match &backend.address {
            BackendAddress::Host(host, _) if !self.has_address(host) => {
                let spot = Spot { cluster: brought.cluster.clone(), at: *at, backend: backend.name.clone() };
                Some(Sought { spot, host: Arc::clone(host) })
            }
            _ => None,
        })
    }

    fn has_address(&self, host: &Arc<str>) -> bool {
        self.names.known().get(host).is_some_and(|addresses| !addresses.is_empty())
    }

    fn trial(
        &self,
        brought: &Brought<'_>,
        resolved: &Document,
        (planned, proven): (&Planned, &Proven),
    ) -> Option<Trial> {
        let health = brought.spec.health.as_ref().filter(|health| health.is_active())?;
        let spec = resolved.clusters.get(brought.cluster)?;
        let mut backends = Vec::new();
        let mut on = Vec::new();
        for (at, written) in &brought.backends {
            let spot = Spot { cluster: brought.cluster.clone(), at: *at, backend: written.name.clone() };
            for backend in spec.backends.iter().filter(|backend| stands_for(written, backend)) {
                let Some(address) = Endpoint::of(&backend.address) else { continue };
                if is_checked(health, &address) {
                    backends.push(backend.clone());
                    let (spot, name) = (spot.clone(), backend.name.clone());
                    on.push(Probation { spot, name, address, passed: None, said: None });
                }
            }
        }
        if backends.iter().all(|backend| proven.knows(brought.cluster, backend)) {
            return None;
        }
        let enough = match brought.spec.ready_min {
            0 => on.len(),
            some => on.len().min(usize::try_from(some).unwrap_or(usize::MAX)),
        };
        let materials = planned.certificates.materials();
        let shared = self.view.snapshot.shared;
        let compiled = Arc::new(Compiled::candidate(brought.cluster, spec, backends, (shared, materials)));
        Some(Trial { number: 0, compiled, spread: Duration::ZERO, enough, on })
    }

    /// Tell worker 0 which clusters are to be probed: all of them, whatever it knows.
    pub(super) fn tell_candidates(&mut self) {
        let trials = self.preparing.iter_mut().flat_map(|waits| match &mut waits.waits {
            Waits::Probes(trials) => trials.iter_mut(),
            Waits::Hosts(_) => [].iter_mut(),
        });
        let mut candidates = Vec::new();
        for trial in trials {
            if trial.number == 0 {
                self.candidates += 1;
                trial.number = self.candidates;
            }
            let (cluster, spread) = (Arc::clone(&trial.compiled), trial.spread);
            candidates.push(Candidate { number: trial.number, cluster, spread });
        }
        let ticket = self.ticket();
        self.candidates_told = self.engine.send(0, ticket, Command::Candidates(candidates)).is_ok();
    }

    /// A probe of a candidate ended.
    pub(super) fn on_probed(&mut self, probed: Probed) {
        let trials = self.preparing.iter_mut().flat_map(|waits| match &mut waits.waits {
            Waits::Probes(trials) => trials.iter_mut(),
            Waits::Hosts(_) => [].iter_mut(),
        });
        let Some(trial) = trials.into_iter().find(|trial| trial.number == probed.candidate) else { return };
        let is_it = |one: &&mut Probation| one.name == probed.backend && one.address == probed.address;
        let Some(one) = trial.on.iter_mut().find(is_it) else { return };
        one.said = Some((probed.check, probed.said));
        one.passed = probed.verdict.or(one.passed);
        self.news = true;
    }

    /// The names that count: of what runs, and of what waits.
    pub(super) fn want_hosts(&mut self) {
        let mut hosts = self.view.document.hosts();
        for waits in &self.preparing {
            hosts.extend(waits.about.hosts());
        }
        self.names.want(hosts);
    }

    fn not_ready(&self, waits: &Preparing) -> Refusal {
        let fault = |spot: &Spot, message: String| Fault {
            section: "clusters",
            name: spot.cluster.clone(),
            key: "backends",
            item: Some(spot.at),
            message,
            help: Some("mend it, or give it more time with `ready_within`, or let others do with `ready_min`".into()),
        };
        let faults: Vec<Fault> = match &waits.waits {
            Waits::Hosts(hosts) => {
                let lacking = hosts.iter().filter(|sought| !self.has_address(&sought.host));
                let said = |sought: &Sought| match self.names.failure(&sought.host) {
                    Some(error) => format!("`{}` has no address: {error}", sought.spot.backend),
                    None => format!("`{}` has no address: no name server has answered", sought.spot.backend),
                };
                lacking.map(|sought| fault(&sought.spot, said(sought))).collect()
            }
            Waits::Probes(trials) => {
                let failed = trials.iter().filter(|trial| trial.standing() != Standing::Passed);
                let lacking = failed.flat_map(|trial| &trial.on).filter(|one| one.passed != Some(true));
                lacking.map(|one| fault(&one.spot, one.to_string())).collect()
            }
        };
        let said: Vec<String> =
            faults.iter().map(|fault| format!("cluster {}: {}", fault.name, fault.message)).collect();
        let errors = Diagnostics::of(faults, &waits.about, None);
        Refusal::NotReady { said: said.join("; "), errors: errors.unwrap_or_default() }
    }
}

impl std::fmt::Display for Probation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = &self.name;
        match &self.address {
            address if address.to_string() == name.as_str() => write!(f, "`{name}` ")?,
            address => write!(f, "`{name}` ({address}) ")?,
        }
        let verdict = if self.passed == Some(false) { "is down" } else { "has not passed in time" };
        let Some((check, said)) = &self.said else { return f.write_str("was not probed in time") };
        let check = match check {
            Check::Udp => "udp",
            Check::Tcp => "tcp",
            Check::Http => "http",
        };
        write!(f, "{verdict}: by `health.{check}` ")?;
        match said {
            ProbeSaid::Right => f.write_str("it passed, and not yet by the others"),
            said => f.write_str(&words(said)),
        }
    }
}

/// What a change brings that has to pass first.
fn brings<'a>(running: &'a Document, next: &'a Document) -> Vec<Brought<'a>> {
    let differing = running.clusters.differences(&next.clusters);
    let probed = differing.filter_map(|(name, before, after)| {
        let spec = &**after.filter(|cluster| cluster.ready == Ready::Probed)?;
        let is_old = |backend: &Backend| {
            let is_it = |old: &Backend| old.name == backend.name && old.address == backend.address;
            before.is_some_and(|before| before.backends.iter().any(is_it))
        };
        let fresh = spec.backends.iter().enumerate().filter(|(_, backend)| backend.weight > 0 && !is_old(backend));
        let brought = Brought { cluster: name, spec, backends: fresh.collect() };
        (!brought.backends.is_empty()).then_some(brought)
    });
    probed.collect()
}

/// One line for each cluster that is waited for.
fn told(brought: &[Brought<'_>]) -> Vec<String> {
    let line = |one: &Brought<'_>| {
        let names: Vec<&str> = one.backends.iter().map(|(_, backend)| backend.name.as_str()).collect();
        let is_checked = one.spec.health.as_deref().is_some_and(Health::is_active);
        let what = if is_checked { "probes" } else { "addresses" };
        let some = match one.spec.ready_min as usize {
            min if min > 0 && min < names.len() => format!("{min} of "),
            _ => String::new(),
        };
        let within = within(one.spec);
        format!("cluster {}: waits for {what} of {some}{}, {within:?} at most", one.cluster, names.join(", "))
    };
    brought.iter().map(line).collect()
}

fn within(cluster: &Cluster) -> Duration {
    cluster.ready_within.unwrap_or(Cluster::READY_WITHIN)
}

/// Whether a backend with an address is what this one is written as.
fn stands_for(written: &Backend, backend: &Backend) -> bool {
    match &written.address {
        BackendAddress::Host(..) => {
            backend.name.as_str().strip_prefix(written.name.as_str()).is_some_and(|rest| rest.starts_with('@'))
        }
        BackendAddress::Ip(_) | BackendAddress::Unix(_) => {
            written.name == backend.name && written.address == backend.address
        }
    }
}

/// Whether any of the checks can be made there.
fn is_checked(health: &Health, address: &Endpoint) -> bool {
    let by_stream = health.tcp.is_some() || health.http.is_some();
    by_stream || matches!(address, Endpoint::Ip(_))
}
