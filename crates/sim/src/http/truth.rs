//! What must hold of a run: every answer to its request, no request twice that must not be, nothing lost where nothing
//! failed, everything given back in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use kakei_config::{Document, Name};
use kakei_proxy::limits::STREAM_READ;
use kakei_proxy::record::{CloseReason, Detail, Record};
use kakei_proxy::seam::{Instant, Notice, Op, Reply};
use kakei_proxy::stats::{BackendMetric, ListenerMetric, Stats};

use super::HttpReport;
use super::client::{Ask, Came, Client};
use super::documents::{MARK, cluster_of};
use super::guards;
use super::machine::Machine;
use super::rates::{Pass, Rates};
use super::rooms::Rooms;
use super::server::Seen;
use super::tallies::Tallies;

/// What is known beside the proxy.
#[derive(Debug)]
pub(super) struct Truth {
    is_peaceful: bool,
    /// Everything is to end by a drain.
    pub(super) drains: bool,
    /// Every request that some client may have sent, and how often backends saw it whole.
    asked: BTreeMap<u64, (Ask, u32)>,
    records: u64,
    tallies: Tallies,
    pub(super) rates: Rates,
    rooms: Rooms,
    /// How long a service may be asked, where one is.
    waits: Option<Duration>,
    /// Whether the second user was there, since when.
    second: Vec<(Instant, bool)>,
    /// Of which change the second cluster's route was since when.
    marks: Vec<(Instant, u64)>,
    /// Which clusters there are, and since when the second one is gone.
    clusters: BTreeSet<Name>,
    gone: Option<Instant>,
    /// Of which it was when a request began, and of which its answer says that it was.
    began: BTreeMap<u64, Instant>,
    marked: BTreeMap<u64, u64>,
    /// By worker and cluster: requests that waited for a backend, from when to when.
    waited: BTreeMap<(usize, Name), Vec<(Instant, Instant)>>,
    /// Backends that say of themselves that they aren't well.
    sick: BTreeSet<SocketAddr>,
    /// What a probed backend said in a row, and since when it counts as down.
    said: BTreeMap<SocketAddr, (u32, Option<Instant>)>,
    fall: u32,
    /// Clusters of which a backend is left alone for good reason even if there is no other.
    closed: BTreeSet<&'static str>,
    /// By worker: from when to when it said that it leaves a backend alone.
    ejected: BTreeMap<(usize, SocketAddr), (Instant, Instant)>,
}

impl Truth {
    pub(super) fn new(document: &Document, workers: u16, is_peaceful: bool) -> Self {
        let fails_open = |name: &str| {
            let cluster = document.clusters.get(&Name::new(name));
            cluster.and_then(|cluster| cluster.health.as_ref()).is_none_or(|health| health.fail_open)
        };
        let health = document.clusters.get(&Name::new("three")).and_then(|three| three.health.as_ref());
        Truth {
            is_peaceful,
            drains: false,
            asked: BTreeMap::new(),
            records: 0,
            tallies: Tallies::default(),
            rates: Rates::new(document, workers),
            rooms: Rooms::new(document, workers),
            waits: guards::waits(document),
            second: vec![(Instant::ZERO, guards::has_second(document))],
            marks: vec![(Instant::ZERO, 0)],
            clusters: document.clusters.keys().cloned().collect(),
            gone: None,
            began: BTreeMap::new(),
            marked: BTreeMap::new(),
            waited: BTreeMap::new(),
            sick: BTreeSet::new(),
            said: BTreeMap::new(),
            fall: health.map_or(u32::MAX, |health| health.fall),
            closed: ["one", "three"].into_iter().filter(|name| !fails_open(name)).collect(),
            ejected: BTreeMap::new(),
        }
    }

    /// The number of the next request that somebody may send.
    pub(super) fn next_id(&self) -> u64 {
        self.asked.last_key_value().map_or(1, |(id, _)| id + 1)
    }

    pub(super) fn invite(&mut self, client: &Client) {
        self.asked.extend(client.asks.iter().map(|ask| (ask.id, (ask.clone(), 0))));
    }

    /// The document is another one from now on.
    pub(super) fn publish(&mut self, now: Instant, document: &Document) {
        self.clusters = document.clusters.keys().cloned().collect();
        match document.clusters.contains_key(&Name::new("two")) {
            true => self.gone = None,
            false => drop(self.gone.get_or_insert(now)),
        }
        let has_second = guards::has_second(document);
        if self.second.last().is_some_and(|(_, last)| *last != has_second) {
            self.second.push((now, has_second));
        }
        let set = document.routes.get(&Name::new("two")).map(|route| &route.response.set);
        let mark = set.and_then(|set| set.get(MARK)?.parse().ok()).unwrap_or(0);
        if self.marks.last().is_some_and(|(_, last)| *last != mark) {
            self.marks.push((now, mark));
        }
    }

    pub(super) fn is_peaceful(&self) -> bool {
        self.is_peaceful
    }

    /// A backend of those that are probed may fall ill, or recover.
    pub(super) fn sicken(&mut self, rng: &mut Rng) {
        if self.is_peaceful || rng.u8(0..60) > 0 {
            return;
        }
        let address = SocketAddr::from(([10, 0, 3, rng.u8(1..5)], 80));
        if !self.sick.remove(&address) {
            self.sick.insert(address);
        }
    }

    pub(super) fn wind_down(&mut self) {
        self.sick.clear();
    }

    pub(super) fn is_well(&self, address: SocketAddr) -> bool {
        !self.sick.contains(&address)
    }

    /// A worker was told all that a backend has to say of itself.
    pub(super) fn probed(&mut self, now: Instant, address: SocketAddr, said: Option<bool>) {
        let Some(is_well) = said else { return };
        let (in_a_row, down) = self.said.entry(address).or_default();
        if is_well {
            (*in_a_row, *down) = (0, None);
            return;
        }
        *in_a_row += 1;
        if *in_a_row >= self.fall {
            down.get_or_insert(now);
        }
    }

    /// What a worker says unasked.
    pub(super) fn notice(&mut self, now: Instant, worker: usize, notice: &Notice) {
        if let Notice::Ejected { backend, for_, .. } = notice
            && let Ok(address) = backend.as_str().parse()
        {
            self.ejected.insert((worker, address), (now, now + *for_));
        }
    }

    /// A worker chose this backend for a request.
    pub(super) fn chosen(&self, worker: usize, at: Instant, address: SocketAddr) -> Result<(), String> {
        let down = self.said.get(&address).and_then(|(_, down)| *down);
        if down.is_some_and(|since| since < at) {
            return Err(format!("chooses {address}, which is down"));
        }
        let ejected = self.ejected.get(&(worker, address));
        let is_ejected = ejected.is_some_and(|(from, until)| *from < at && at < *until);
        match is_ejected && self.closed.contains(cluster_of(address)) {
            true => Err(format!("chooses {address}, which it ejected")),
            false => Ok(()),
        }
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
            if let Some(claims) = &ask.claims {
                report.counters.passed += 1;
                if claims.must_not_pass() {
                    report.violations.push(format!("request {} passed with {claims:?}", seen.id));
                }
            }
            if *times > 1 && (!ask.is_idempotent() || self.is_peaceful) {
                report.violations.push(format!("request {} ({}) was seen {times} times", seen.id, ask.method));
            }
        }
    }

    /// A client got answers.
    pub(super) fn came(&mut self, came: &Came, answered: &[u64], report: &mut HttpReport) {
        report.counters.answered += came.answered;
        report.counters.errors += came.errors.len() as u64;
        self.marked.extend(came.marks.iter().copied());
        for (id, status) in &came.errors {
            let Some((ask, _)) = self.asked.get(id) else { continue };
            if ask.claims.is_some_and(|claims| claims.cant_get(*status)) {
                report.violations.push(format!("request {id} got {status} with {:?}", ask.claims));
            }
            if ask.may_be_refused(*status) {
                report.counters.stopped += u64::from(ask.claims.is_some());
                report.counters.limited += u64::from(*status == 429);
                continue;
            }
            // The second cluster is changed under way; whoever is on what was closed may hear of that.
            if self.is_peaceful && ask.is_stable() && !self.drains {
                report.violations.push(format!("request {id} got {status}, and nothing was wrong"));
            }
        }
        for id in answered {
            if self.asked.get(id).is_some_and(|(ask, times)| *times == 0 && !ask.has_body() && ask.is_forwarded()) {
                report.violations.push(format!("request {id} was answered, and no backend saw it"));
            }
        }
    }

    /// A client's connection broke.
    pub(super) fn broke(&self, client: &Client, report: &mut HttpReport) {
        // With several requests under way, what one of the changed cluster does befalls those before it.
        let is_stable = client.asks.iter().all(Ask::is_stable);
        if self.is_peaceful && is_stable && !self.drains && !client.is_done() {
            report.violations.push(format!("request {:?} was broken off, and nothing was wrong", client.current()));
        }
    }

    pub(super) fn record(&mut self, worker: usize, record: &Record) -> Result<(), String> {
        self.records += 1;
        self.tallies.add(record);
        let Detail::Exchange(detail) = &record.detail else { return Ok(()) };
        if detail.status.is_some_and(|status| !(100..600).contains(&status)) {
            return Err(format!("a record with a strange status: {record:?}"));
        }
        let id = detail.target.split_once("id=").and_then(|(_, id)| id.parse::<u64>().ok());
        let Some((ask, _)) = id.and_then(|id| self.asked.get(&id)) else { return Ok(()) };
        if let Some(claims) = &ask.claims {
            let user = detail.user.as_deref();
            let is_known = matches!(record.reason, CloseReason::Completed | CloseReason::Upgraded);
            let is_wrong = is_known && user != Some(&claims.user(ask.id));
            if is_wrong || record.reason == CloseReason::Unauthorized && user.is_some_and(|user| !claims.knows(user)) {
                return Err(format!("says that {user:?} claimed {claims:?}: {record:?}"));
            }
        }
        self.began.insert(ask.id, record.admitted);
        let ended = record.admitted + record.duration;
        if record.reason == CloseReason::QueueTimeout
            && record.cluster.as_ref().is_some_and(|cluster| cluster.as_str() == "two")
            && self.gone.is_some_and(|since| since < ended)
        {
            return Err(format!("waited for a backend of a cluster that is gone: {record:?}"));
        }
        // Who is held at a guard first comes to the queue later than it came to the proxy.
        let goes_straight = ask.claims.is_none();
        if let Some(cluster) =
            record.cluster.clone().filter(|_| goes_straight && !detail.queued.is_zero() && detail.attempts == 1)
        {
            let waited = (record.admitted, record.admitted + detail.queued);
            self.waited.entry((worker, cluster)).or_default().push(waited);
        }
        self.check_time(record, detail.attempts)?;
        guards::judge_wait(record, detail, ask.claims.is_some())?;
        let (began, ended) = (record.admitted, record.admitted + record.duration);
        self.rates.pass(ask.place, Pass { worker, key: ask.key, began, ended, reason: record.reason });
        Ok(())
    }

    /// Where nothing fails, nobody waits again or gives up: who came first goes first.
    fn check_queues(&self, report: &mut HttpReport) {
        for ((worker, cluster), waited) in self.waited.iter().filter(|_| self.is_peaceful) {
            let mut waited = waited.clone();
            waited.sort_unstable();
            let overtaken = waited.windows(2).find(|two| two[0].0 < two[1].0 && two[0].1 > two[1].1);
            if let Some(two) = overtaken {
                report
                    .violations
                    .push(format!("one that waits for {cluster} in worker {worker} is overtaken: {two:?}"));
            }
        }
    }

    /// An answer by a route that is changed was made as the route was when its request began.
    fn check_marks(&self, report: &mut HttpReport) {
        for (id, mark) in &self.marked {
            let Some(began) = self.began.get(id) else { continue };
            // At the instant of a change it may have been either.
            let before = self.marks.iter().rev().find(|(since, _)| since < began).map(|(_, mark)| *mark);
            let then = self.marks.iter().rev().find(|(since, _)| since <= began).map(|(_, mark)| *mark);
            if Some(*mark) != before && Some(*mark) != then {
                report.violations.push(format!("request {id} began with {then:?} and was answered with {mark}"));
            }
        }
    }

    /// Nobody waits longer for leave than may be, nor is told that nobody could be reached who was not tried.
    fn check_time(&self, record: &Record, attempts: u32) -> Result<(), String> {
        let waits = self.waits.filter(|_| record.route == Some("vouched".into()));
        let is_late = waits.is_some_and(|waits| record.duration > waits + Duration::from_secs(4));
        if is_late && record.reason == CloseReason::AuthUnavailable {
            return Err(format!("waits too long: {record:?}"));
        }
        match record.reason == CloseReason::ConnectFailed && attempts == 0 {
            true => Err(format!("tried nobody: {record:?}")),
            false => Ok(()),
        }
    }

    /// Who came as the second user was seen by a backend only if there was one when the request began.
    fn check_second(&self, report: &mut HttpReport) {
        let seen = self.asked.values().filter(|(ask, times)| *times > 0 && ask.claims.is_some());
        for (ask, _) in seen.filter(|(ask, _)| ask.claims.is_some_and(|claims| claims.is_by_second())) {
            let Some(began) = self.began.get(&ask.id) else { continue };
            // At the instant of a change it may have been either.
            let before = self.second.iter().rev().find(|(since, _)| since < began).is_some_and(|(_, there)| *there);
            let then = self.second.iter().rev().find(|(since, _)| since <= began).is_some_and(|(_, there)| *there);
            if !before && !then {
                report.violations.push(format!("request {} passed as somebody who was no user", ask.id));
            }
        }
    }

    /// What operators see.
    pub(super) fn views(&self, ops: &[Op], stats: Option<&Stats>, report: &mut HttpReport) {
        for op in ops {
            let Op::Reply { reply: Reply::Connections(views), .. } = op else { continue };
            if let Some(stats) = stats.filter(|_| self.is_peaceful) {
                self.rooms.check(views, stats, &mut report.violations);
            }
            for view in views {
                let kept = if view.phase == "authorizing" { HELD } else { KEPT };
                if view.buffered > kept {
                    report.violations.push(format!("{} bytes are kept for one client: {view:?}", view.buffered));
                }
            }
        }
    }

    /// The run is over.
    pub(super) fn end(&self, machines: &[&Machine], stats: &[&Stats], report: &mut HttpReport) {
        for machine in machines.iter().filter(|machine| !machine.is_idle()) {
            report.violations.push(format!("something never ends: {}", machine.what_is_left()));
        }
        if stats.len() != machines.len() {
            report.violations.push("no counters".to_owned());
        }
        stats.iter().for_each(|stats| check_gauges(stats, report));
        for of in stats.iter().flat_map(|stats| &stats.clusters).filter(|of| !self.clusters.contains(&of.cluster)) {
            report.violations.push(format!("nothing is on {}, which was removed, and it is still there", of.cluster));
        }
        let listeners = || stats.iter().flat_map(|stats| &stats.listeners);
        let ended: u64 = listeners().map(|listener| listener.exchange_closes.sum()).sum();
        let requests: u64 = listeners().map(|listener| listener.values[ListenerMetric::Requests]).sum();
        let unread: u64 = requests - ended.min(requests);
        if ended > requests || unread > 0 && self.is_peaceful {
            report.violations.push(format!("{requests} requests, of which {ended} ended"));
        }
        let opened: u64 = listeners().map(|listener| listener.values[ListenerMetric::ConnectionsOpened]).sum();
        let closed: u64 = listeners().map(|listener| listener.connection_closes.sum()).sum();
        if opened != closed {
            report.violations.push(format!("{opened} connections were opened, of which {closed} ended"));
        }
        self.tallies.check(listeners(), &mut report.violations);
        self.check_marks(report);
        self.check_second(report);
        self.check_queues(report);
        self.rates.check(&mut report.violations);
    }
}

/// Nothing is left of what is counted while it lives.
fn check_gauges(stats: &Stats, report: &mut HttpReport) {
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
}

/// The same of a request that may not pass yet: what was read with its head, and what of the answer before it was not taken.
const HELD: u64 = 2 * STREAM_READ as u64 + (16 << 10);

/// What a client's connection may have to keep: what it did not take, what wasn't looked at yet, what may be sent again,
/// each about one read.
const KEPT: u64 = 4 * STREAM_READ as u64;
