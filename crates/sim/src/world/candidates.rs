//! Changes that are tried out before they are published: worker 0 probes what they bring, which nothing that runs may notice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kakei_config::{Document, Health, Name};
use kakei_proxy::seam::{Candidate, Instant, ProbeSaid, Probed};
use kakei_proxy::secure::Materials;
use kakei_proxy::snapshot::Cluster;

use super::control::Asked;
use super::{Happening, World};

/// In calm weather everything has passed after this time: that is more than a probe and its answer take.
const ENOUGH: Duration = Duration::from_millis(400);

/// A change that is tried out.
#[derive(Debug)]
pub(super) struct Trial {
    document: Document,
    /// When worker 0 knew of it; none: it doesn't yet.
    since: Option<Instant>,
    /// Whether the worker was another one meanwhile, which knows nothing of it.
    lost: bool,
    /// By number of its candidate: the cluster, and who of its backends has passed.
    clusters: BTreeMap<u64, (Name, BTreeMap<Name, bool>)>,
}

impl World {
    /// Have worker 0 probe what this document brings, and publish it after a while.
    pub(super) fn try_out(&mut self, document: Document) {
        self.truth.is_probed(&document);
        self.backends.provide(&document);
        let mut candidates = Vec::new();
        let mut clusters = BTreeMap::new();
        for (name, spec) in &document.clusters {
            let running = self.control.document.clusters.get(name);
            let is_new = |backend: &kakei_config::Backend| running.is_none_or(|old| !old.backends.contains(backend));
            let backends: Vec<_> = spec.backends.iter().filter(|backend| is_new(backend)).cloned().collect();
            if backends.is_empty() || !spec.health.as_deref().is_some_and(Health::is_active) {
                continue;
            }
            self.control.candidates += 1;
            let number = self.control.candidates;
            clusters.insert(number, (name.clone(), backends.iter().map(|b| (b.name.clone(), false)).collect()));
            let shared = (self.control.shared, &Materials::default());
            let cluster = Arc::new(Cluster::candidate(name, spec, backends, shared));
            candidates.push(Candidate { number, cluster, spread: Duration::from_millis(self.rng.u64(0..50)) });
        }
        self.control.probing.extend(clusters.keys());
        self.control.trial = Some(Trial { document, since: None, lost: false, clusters });
        self.give(0, Asked::Candidates(candidates));
        let at = self.now + Duration::from_millis(self.rng.u64(1..1_500));
        self.agenda.at(at, Happening::Promote);
    }

    /// Publish what was tried out; who has not passed begins as down.
    pub(super) fn promote(&mut self) {
        let Some(trial) = self.control.trial.take() else { return };
        let waited = trial.since.map(|since| self.now.since(since));
        let is_due = self.truth.calm && !trial.lost && waited.is_some_and(|waited| waited > ENOUGH);
        for (number, (cluster, backends)) in trial.clusters {
            let failed: BTreeSet<Name> = backends.into_iter().filter(|(_, passed)| !passed).map(|(b, _)| b).collect();
            if is_due && !failed.is_empty() {
                self.truth.violated(Some(0), format!("candidate {number}: {failed:?} were not probed, or failed"));
            }
            self.truth.counters.doubted += failed.len() as u64;
            if !failed.is_empty() {
                self.control.doubted.insert(cluster, failed);
            }
        }
        self.control.document = trial.document;
        self.publish();
        self.give(0, Asked::Candidates(Vec::new()));
    }

    /// Worker 0 knows which candidates count: it may tell of no others from now on.
    pub(super) fn candidates_told(&mut self, worker: usize, candidates: &[Candidate]) {
        debug_assert_eq!(worker, 0, "only the probing worker is asked");
        self.control.probing = candidates.iter().map(|candidate| candidate.number).collect();
        let is_trial = |trial: &&mut Trial| candidates.iter().all(|one| trial.clusters.contains_key(&one.number));
        if let Some(trial) = self.control.trial.as_mut().filter(|_| !candidates.is_empty()).filter(is_trial) {
            trial.since = Some(self.now);
        }
    }

    /// A worker was read back: candidates are not written down.
    pub(super) fn candidates_lost(&mut self, worker: usize) {
        if let Some(trial) = self.control.trial.as_mut().filter(|_| worker == 0) {
            trial.lost = true;
        }
    }

    pub(super) fn probed(&mut self, worker: usize, probed: &Probed) {
        self.truth.counters.candidates_probed += 1;
        if worker != 0 || !self.control.probing.contains(&probed.candidate) {
            return self.truth.violated(Some(worker as u16), format!("tells of what nobody has it probe: {probed:?}"));
        }
        if self.truth.calm && probed.said != ProbeSaid::Right {
            self.truth.violated(Some(0), format!("fails a backend that answers: {probed:?}"));
        }
        let clusters = self.control.trial.as_mut().map(|trial| &mut trial.clusters);
        let Some((_, backends)) = clusters.and_then(|clusters| clusters.get_mut(&probed.candidate)) else { return };
        let Some(passed) = backends.get_mut(&probed.backend) else { return };
        let had_passed = std::mem::replace(passed, probed.verdict.unwrap_or(*passed));
        if *passed && !had_passed && probed.said != ProbeSaid::Right {
            self.truth.violated(Some(0), format!("passes a backend by a failure: {probed:?}"));
        }
    }
}
