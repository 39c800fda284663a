//! A change as a transaction: checked wholly, prepared wholly, published as one pointer, acknowledged by all; or
//! refused, and nothing is different.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kakei_config::{Admin, Diagnostics, Document};
use kakei_proxy::seam::BindKey;
use kakei_proxy::snapshot::{Generation, Snapshot};
use tracing::{error, info};

use super::{Owner, joined};
use crate::certificates::{Certificates, Loaded, Purpose};
use crate::handle::{Change, Outcome, What};
use crate::refusal::Refusal;

/// Time in which every worker must have gone over to a new generation.
const PUBLISH_TIME: Duration = Duration::from_secs(10);

impl Owner {
    pub(super) async fn change(&mut self, change: Change) -> Result<Outcome, Refusal> {
        let running = self.view.generation();
        if let Some(expected) = change.expected.as_ref().filter(|expected| !expected.contains(&running)) {
            let expected = joined(expected.iter().map(|generation| generation.0));
            return Err(Refusal::Mismatch { running: running.0, expected });
        }
        let mut document = match change.what {
            What::Document(document) => *document,
            What::Edit(edit) => edit.apply(&self.view.document)?,
        };
        inherit(&self.view.document.admin, &mut document.admin);
        kakei_config::check(&document).map_err(Refusal::Invalid)?;
        let fixed = needs_restart(&self.view.document, &document);
        if !fixed.is_empty() {
            return Err(Refusal::NeedsRestart(fixed));
        }
        let diff = kakei_config::diff(&self.view.document, &document);
        let mut changes: Vec<String> = diff.iter().map(ToString::to_string).collect();
        let loaded = self.load(&document, Purpose::Change)?;
        changes.extend(loaded.renewed.iter().map(|name| format!("certificate {name}: its files hold another one")));
        if change.dry_run || changes.is_empty() {
            return Ok(Outcome { generation: running, applied: false, changes, warnings: Vec::new() });
        }
        if self.drain.is_some() {
            return Err(Refusal::Draining);
        }
        self.publish(document, Generation(running.0 + 1), loaded.certificates)?;
        info!("generation {}, asked for by {}: {}", running.0 + 1, change.origin, changes.join("; "));
        self.confirm(change.origin, changes).await
    }

    /// Everything that can be refused happens before the first worker hears of it.
    pub(super) fn publish(
        &mut self,
        document: Document,
        generation: Generation,
        certificates: Certificates,
    ) -> Result<(), Refusal> {
        let old = &self.view.snapshot;
        let document = Arc::new(document);
        let hosts = document.hosts();
        let resolved = match hosts.is_empty() {
            true => Arc::clone(&document),
            false => Arc::new(document.resolved(self.names.known())),
        };
        let materials = certificates.materials();
        let snapshot = Snapshot::compile_with(&resolved, generation, old.shared, Some(old), &materials);
        let snapshot = Arc::new(snapshot);
        let binds: Vec<BindKey> = snapshot.binds().collect();
        let prepared = self.engine.prepare(&binds).map_err(|error| Refusal::Bind(error.to_string()))?;
        if document.access_log != self.view.document.access_log {
            let path = document.access_log.to.clone().unwrap_or_default();
            let retarget = self.log.retarget(&document.access_log);
            retarget.map_err(|error| Refusal::AccessLog { path, error: error.to_string() })?;
        }
        let ticket = self.ticket();
        let published = self.engine.publish(ticket, Arc::clone(&snapshot), prepared);
        published.map_err(|error| Refusal::Busy(error.to_string()))?;
        self.view.locals = binds.into_iter().filter_map(|bind| Some((bind, self.engine.local_addr(bind)?))).collect();
        self.view.health.retain(&snapshot);
        self.view.snapshot = snapshot;
        self.view.document = document;
        self.view.resolved = resolved;
        self.names.want(hosts);
        self.view.certificates = certificates.all().cloned().collect();
        self.certificates = certificates;
        self.view.acknowledged = false;
        Ok(())
    }

    /// Host names stand for other addresses: the same generation, with other backends.
    pub(super) fn readdress(&mut self) {
        if let Err(refusal) = self.republish(self.certificates.clone()) {
            error!("backends' new addresses could not be published: {refusal}");
        }
    }

    /// Session tickets are sealed by a new key: the same generation, with other keys.
    pub(super) fn rotate_tickets(&mut self) {
        let mut certificates = self.certificates.clone();
        certificates.rotate();
        if let Err(refusal) = self.republish(certificates) {
            error!("a new key for session tickets could not be published: {refusal}");
        }
    }

    fn republish(&mut self, certificates: Certificates) -> Result<(), Refusal> {
        let (document, generation) = (Document::clone(&self.view.document), self.view.generation());
        let published = match self.drain {
            None => self.publish(document, generation, certificates),
            Some(_) => Ok(()),
        };
        self.show();
        published
    }

    /// The certificates of a document, as its files hold them now.
    pub(super) fn load(&self, document: &Document, purpose: Purpose) -> Result<Loaded, Refusal> {
        let loaded = self.certificates.load(document, purpose, SystemTime::now());
        loaded.map_err(|faults| Refusal::Invalid(Diagnostics::of(faults, document, None).unwrap_or_default()))
    }

    /// Wait for the workers, then write the generation down.
    pub(super) async fn confirm(&mut self, origin: &str, changes: Vec<String>) -> Result<Outcome, Refusal> {
        let generation = self.view.generation();
        self.wait_acknowledged(PUBLISH_TIME).await;
        // The probing worker knows itself; the others may have got a backend that an older verdict is about.
        (1..self.view.workers).for_each(|worker| self.tell_health(worker));
        self.counts.changes += 1;
        self.view.history.push(generation, origin, changes.clone());
        self.show();
        if !self.view.acknowledged {
            let late = (0..).zip(&self.running).filter(|&(_, &runs)| runs < generation);
            return Err(Refusal::Unacknowledged {
                generation,
                workers: joined(late.map(|(worker, _): (u16, _)| worker)),
            });
        }
        let warnings = self.keep(origin).into_iter().collect();
        Ok(Outcome { generation, applied: true, changes, warnings })
    }

    /// Write the running document down, where there is a place for it. What went wrong, if anything did: the change
    /// lives, but a restart would not bring it back.
    fn keep(&self, origin: &str) -> Option<String> {
        let store = self.store.as_ref()?;
        let error = store.save(&self.view.document, self.view.generation(), origin).err()?;
        error!("{error}; a restart would bring back an older document");
        Some(error.to_string())
    }

    /// Note that a worker runs this generation, and whether all run the newest now.
    pub(super) fn runs(&mut self, worker: u16, generation: Generation) {
        self.running[usize::from(worker)] = generation;
        let generation = self.view.generation();
        if !self.view.acknowledged && self.running.iter().all(|&runs| runs >= generation) {
            self.view.acknowledged = true;
            self.show();
        }
    }
}

/// An absent `admin` key has no opinion, since the command line may have given what runs: it stays what it is.
fn inherit(running: &Admin, next: &mut Admin) {
    next.socket = next.socket.take().or_else(|| running.socket.clone());
    next.metrics = next.metrics.or(running.metrics);
    next.state = next.state.take().or_else(|| running.state.clone());
}

/// The keys that differ and are fixed while the process lives.
fn needs_restart(running: &Document, next: &Document) -> Vec<String> {
    let differs = [
        ("workers.count", running.workers.count != next.workers.count),
        ("workers.pin", running.workers.pin != next.workers.pin),
        ("admin.socket", running.admin.socket != next.admin.socket),
        ("admin.metrics", running.admin.metrics != next.admin.metrics),
        ("admin.state", running.admin.state != next.admin.state),
    ];
    differs.into_iter().filter(|&(_, differs)| differs).map(|(key, _)| key.to_owned()).collect()
}
