//! A change as a transaction: checked wholly, prepared wholly, published as one pointer, acknowledged by all; or
//! refused, and nothing is different.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kakei_config::{Admin, Checked, Diagnostics, Document, Kind, Name};
use kakei_proxy::seam::{BindKey, Command, Reply};
use kakei_proxy::snapshot::{Generation, Snapshot};
use kakei_runtime::engine::CommandError;
use tracing::error;

use super::prepare::Proven;
use super::{ANSWER_TIME, Owner, joined};
use crate::access_log::Target;
use crate::audit::{Came, Record};
use crate::certificates::{Certificates, Loaded, Purpose};
use crate::edit::Edit;
use crate::events::What as Happened;
use crate::handle::{Asked, Change, NO_LISTENERS, Outcome, What};
use crate::history::{self, Entry};
use crate::refusal::Refusal;
use crate::system::{System, Workers};
use crate::traffic::{self, Traffic};

/// Time in which every worker must have gone over to a new generation.
const PUBLISH_TIME: Duration = Duration::from_secs(10);

/// What is written down of a change before any worker hears of it.
pub(super) struct Keep<'a> {
    pub(super) entry: &'a Entry,
    pub(super) changes: &'a [kakei_config::Change],
}

/// A change that was judged against what runs.
pub(super) struct Planned {
    checked: Checked,
    diff: Vec<kakei_config::Change>,
    pub(super) certificates: Certificates,
    outcome: Outcome,
    is_whole: bool,
}

impl Planned {
    /// What is to run.
    pub(super) fn document(&self) -> &Document {
        self.checked.document()
    }

    /// Whether it is what runs already.
    pub(super) fn is_nothing(&self) -> bool {
        self.outcome.changes.is_empty()
    }
}

impl<S: System> Owner<S> {
    /// Carry a change out, whatever it brings.
    pub(super) async fn change(&mut self, change: Change) -> Result<Outcome, Refusal> {
        let planned = self.plan(&change)?;
        self.carry_out(change, planned, &Proven::default()).await
    }

    /// The audit line of a change, before anything came of it. One that is only asked about changes nothing, and has none.
    pub(super) fn record(&self, change: &Change) -> Option<Record> {
        (!change.dry_run).then(|| Record::of(&change.asked, self.view.generation()))
    }

    /// Write down what came of a change, and tell of it where it was refused.
    pub(super) fn write_down(&self, asked: &Asked, record: Option<Record>, outcome: &Result<Outcome, Refusal>) {
        if let (Some(_), Err(refusal)) = (&record, outcome) {
            self.note_refusal(asked, refusal.to_string());
        }
        self.write_line(record, outcome);
    }

    /// Write down what came of a change.
    pub(super) fn write_line(&self, record: Option<Record>, outcome: &Result<Outcome, Refusal>) {
        let generation = self.view.generation();
        let line = record.map(|record| match outcome {
            Ok(done) if done.applied => record.done(Came::Applied, generation, done.changes.clone()),
            Ok(_) => record,
            Err(refusal @ Refusal::Unacknowledged { .. }) => {
                let published = record.done(Came::Unacknowledged, generation, Vec::new());
                Record { reason: Some(refusal.to_string()), ..published }
            }
            Err(refusal @ Refusal::Abandoned) => {
                Record { outcome: Came::Abandoned, reason: Some(refusal.to_string()), ..record }
            }
            Err(refusal) => record.refused(refusal.in_words()),
        });
        line.into_iter().for_each(|line| self.doors.audit.write(&line));
    }

    /// What a change is against what runs, if it may be at all.
    pub(super) fn plan(&mut self, change: &Change) -> Result<Planned, Refusal> {
        let running = self.view.generation();
        if let Some(expected) = change.expected.as_ref().filter(|expected| !expected.contains(&running)) {
            let known = expected.iter().filter(|expected| **expected < running).max();
            let since = known.map(|known| self.view.history.since(*known)).unwrap_or_default();
            let expected = joined(expected.iter().map(|generation| generation.0));
            return Err(Refusal::Mismatch { running: running.0, expected, since });
        }
        self.mind_pending(change)?;
        let is_whole = matches!(change.what, What::Document(_));
        let edited: Option<BTreeSet<(Kind, Name)>> = match &change.what {
            What::Edits(edits) => Some(edits.iter().map(Edit::object).collect()),
            What::Reread(objects) => Some(objects.clone()),
            _ => None,
        };
        let checked = self.meant(change.what.clone())?;
        let document = checked.document();
        let fixed = needs_restart(&self.view.document, document);
        if !fixed.is_empty() {
            return Err(Refusal::NeedsRestart(fixed));
        }
        let diff = kakei_config::diff(&self.view.document, document);
        let purpose = match &change.what {
            What::Rollback(_) | What::TakenBack(_) => Purpose::Back,
            _ => edited.as_ref().map_or(Purpose::Change, Purpose::Edits),
        };
        let loaded = self.load(document, purpose)?;
        let mut outcome = Outcome { generation: running, applied: false, ..Outcome::default() };
        outcome.changes = diff.iter().flat_map(kakei_config::Change::lines).collect();
        outcome.changes.extend(loaded.renewed);
        outcome.warnings = loaded.warnings;
        if is_whole {
            outcome.warnings.extend(document.listeners.is_empty().then(|| NO_LISTENERS.to_owned()));
            match self.drift(&diff) {
                Ok(drift) => outcome.drift = drift,
                Err(error) => outcome.warnings.push(format!("{error}; what was changed at run time can't be told")),
            }
        }
        Ok(Planned { checked, diff, certificates: loaded.certificates, outcome, is_whole })
    }

    /// Publish what was planned just now, or only say it.
    pub(super) async fn carry_out(
        &mut self,
        change: Change,
        planned: Planned,
        proven: &Proven,
    ) -> Result<Outcome, Refusal> {
        let is_nothing = planned.is_nothing();
        let Planned { checked, diff, certificates, mut outcome, is_whole } = planned;
        if change.dry_run {
            outcome.touches = self.touches(&diff, checked.document()).await;
            if let Some(limit) = change.traffic {
                outcome.traffic = Some(self.traffic(checked.document(), &certificates, limit).await?);
            }
        }
        if change.dry_run || is_nothing {
            return Ok(outcome);
        }
        if self.drain.is_some() {
            return Err(Refusal::Draining);
        }
        outcome.generation = self.store.next();
        let changes = history::told(outcome.changes.clone());
        let entry = change.asked.entry(outcome.generation, changes.clone(), change.confirm, self.system.now());
        let (before, shown) = (Arc::clone(&self.view.document), self.view.certificates.clone());
        let keep = Keep { entry: &entry, changes: &diff };
        self.doubted = proven.doubted();
        let published = self.publish(checked, outcome.generation, certificates, Some(keep));
        self.doubted.clear();
        published?;
        self.mind_expiry_of_new(&shown);
        self.await_confirmation(&entry, change.confirm, before).await;
        outcome.confirm_by = entry.confirm_by;
        let asked = change.asked.to_string();
        self.acknowledge(Some(entry)).await?;
        self.events.say(Happened::Generation { generation: outcome.generation, asked, changes });
        outcome.applied = true;
        if is_whole {
            outcome.warnings.extend(self.apply_whole());
        }
        Ok(outcome)
    }

    /// What a document would do to traffic as it was seen lately.
    async fn traffic(
        &mut self,
        document: &Document,
        certificates: &Certificates,
        limit: usize,
    ) -> Result<Traffic, Refusal> {
        let limit = limit.min(traffic::LOOKED_AT);
        let replies = self.ask_all(&Command::Traffic(limit), ANSWER_TIME).await;
        if replies.is_empty() {
            return Err(Refusal::Timeout);
        }
        let seen = replies.into_values().filter_map(|reply| match reply {
            Reply::Traffic(seen) => Some(seen),
            _ => None,
        });
        let seen = seen.flatten().collect();
        let running = &self.view.snapshot;
        let resolved = self.resolved.next(document, self.names.known());
        let (generation, materials) = (running.generation, certificates.materials());
        let planned = Snapshot::compile_with(resolved.document(), generation, running.shared, Some(running), materials);
        Ok(traffic::compare(running, &planned, seen, limit))
    }

    /// The document that a change means, checked.
    fn meant(&mut self, what: What) -> Result<Checked, Refusal> {
        let is_back = matches!(what, What::Rollback(_) | What::TakenBack(_));
        let mut document = match what {
            What::Document(document) => *document,
            What::Edits(edits) => {
                let mut document = Document::clone(&self.view.document);
                edits.into_iter().try_for_each(|edit| edit.apply(&mut document))?;
                document
            }
            What::Reread(_) => Document::clone(&self.view.document),
            What::Rollback(Some(to)) => self.kept(to)?,
            What::Rollback(None) => {
                // A number may be left out: of a file that can't be read. What files brought has the document that was
                // there, and is none to go back from.
                let documents = self.view.history.entries().filter(|entry| entry.origin != super::files::FILES);
                let before = documents.rev().nth(1).map(|entry| entry.generation);
                // Generation 0 is what ran before the first: nothing.
                self.kept(before.ok_or(Refusal::NotKept(self.view.generation().0.saturating_sub(1)))?)?
            }
            What::TakenBack(before) => Document::clone(&before),
        };
        if is_back {
            place(&self.view.document.admin, &mut document.admin);
        }
        inherit(&self.view.document.admin, &mut document.admin);
        self.checked.next(document).map_err(Refusal::Invalid)
    }

    /// What a generation was.
    pub(super) fn kept(&mut self, generation: Generation) -> Result<Document, Refusal> {
        if generation == self.view.generation() {
            return Ok(Document::clone(&self.view.document));
        }
        let kept = self.store.document(generation).map_err(|error| Refusal::State(error.to_string()))?;
        kept.ok_or_else(|| match self.store.has(generation) {
            true => Refusal::State(format!(
                "generation {} can't be read: its file, or one that it builds on, is damaged, as the log says",
                generation.0
            )),
            false => Refusal::NotKept(generation.0),
        })
    }

    /// Everything that can be refused happens before the first worker hears of it.
    pub(super) fn publish(
        &mut self,
        checked: Checked,
        generation: Generation,
        certificates: Certificates,
        keep: Option<Keep<'_>>,
    ) -> Result<(), Refusal> {
        let old = Arc::clone(&self.view.snapshot);
        let document = Arc::new(checked.document().clone());
        let resolved = self.resolved.next(&document, self.names.known());
        let materials = certificates.materials();
        let mut snapshot = Snapshot::compile_with(resolved.document(), generation, old.shared, Some(&old), materials);
        snapshot.doubted.clone_from(&self.doubted);
        let snapshot = Arc::new(snapshot);
        let opened = self.doors.open(&document.admin, &certificates)?;
        let binds: Vec<BindKey> = snapshot.binds().collect();
        let prepared = self.engine.prepare(&binds).map_err(|error| Refusal::Bind(error.to_string()))?;
        let log = self.prepare_log(&document)?;
        if let Some(Keep { entry, changes }) = &keep {
            self.store.commit(entry, changes, &document).map_err(|error| Refusal::State(error.to_string()))?;
        }
        // The last that can be refused: room in the workers' mailboxes, and addresses that would take something away from
        // others as soon as they are bound.
        let ticket = self.ticket();
        if let Err(error) = self.engine.publish(ticket, Arc::clone(&snapshot), prepared) {
            self.forget(generation, keep.is_some());
            return Err(match error {
                CommandError::Bind(error) => Refusal::Bind(error.to_string()),
                error => Refusal::Busy(error.to_string()),
            });
        }
        log.into_iter().for_each(|log| self.log.retarget(log));
        let locals = binds.into_iter().filter_map(|bind| Some((bind, self.engine.local_addr(bind)?)));
        self.view.locals = Arc::new(locals.collect());
        self.doors.follow(&document.admin, opened);
        self.files.follow(document.admin.watch_files);
        self.view.api = self.doors.local();
        self.turned = old.clusters.differences(&snapshot.clusters).map(|(name, ..)| name.clone()).collect();
        self.view.health.retain(&snapshot, &self.turned);
        self.view.health.doubt(&snapshot, &self.doubted);
        self.view.snapshot = snapshot;
        self.view.document = document;
        self.view.resolved = Arc::new(resolved.document().clone());
        if !resolved.has_hosts_of(&self.resolved) {
            self.want_hosts();
        }
        self.resolved = resolved;
        self.checked = checked;
        self.view.certificates = certificates.all().clone();
        self.certificates = certificates;
        self.view.acknowledged = false;
        Ok(())
    }

    /// Where the access log goes from now on, if that is elsewhere: open already, since a document whose log can't be must
    /// never be written down, for a start would fail by it.
    fn prepare_log(&self, document: &Document) -> Result<Option<Target>, Refusal> {
        let to = &document.access_log;
        if *to == self.view.document.access_log {
            return Ok(None);
        }
        let path = to.to.clone().unwrap_or_default();
        let failed = |error: std::io::Error| Refusal::AccessLog { path, error: error.to_string() };
        Target::open(to).map(Some).map_err(failed)
    }

    /// A generation that was written down and never published.
    fn forget(&mut self, generation: Generation, was_written: bool) {
        if was_written && let Err(error) = self.store.discard(generation) {
            error!("{error}; a restart would bring back generation {}, which was refused", generation.0);
        }
    }

    /// Host names stand for other addresses: the same generation, with other backends.
    pub(super) fn readdress(&mut self) {
        let resolved = self.resolved.next(&self.view.document, self.names.known());
        if resolved.document() == self.resolved.document() {
            // It is about a change that waits.
            return;
        }
        if let Err(refusal) = self.republish(self.certificates.clone()) {
            error!("backends' new addresses could not be published: {refusal}");
        }
    }

    /// Session tickets are sealed by a new key: the same generation, with other keys.
    pub(super) fn rotate_tickets(&mut self) {
        let mut certificates = self.certificates.clone();
        certificates.rotate(self.system.now());
        if let Err(refusal) = self.republish(certificates) {
            error!("a new key for session tickets could not be published: {refusal}");
        }
    }

    fn republish(&mut self, certificates: Certificates) -> Result<(), Refusal> {
        let (checked, generation) = (self.checked.clone(), self.view.generation());
        let published = match self.drain {
            None => self.publish(checked, generation, certificates, None),
            Some(_) => Ok(()),
        };
        self.show();
        published
    }

    /// The certificates of a document, as its files hold them now.
    pub(super) fn load(&self, document: &Document, purpose: Purpose<'_>) -> Result<Loaded, Refusal> {
        let loaded = self.certificates.load(document, purpose, self.system.now());
        loaded.map_err(|faults| Refusal::Invalid(Diagnostics::of(faults, document, None).unwrap_or_default()))
    }

    /// Wait for the workers. The generation is written down already; `entry` is what is known of it where it is a new one.
    pub(super) async fn acknowledge(&mut self, entry: Option<Entry>) -> Result<(), Refusal> {
        let generation = self.view.generation();
        self.wait_acknowledged(PUBLISH_TIME).await;
        // The probing worker knows itself; the others may have got a backend that an older verdict is about.
        self.tell_health_of_turned();
        self.counts.changes += 1;
        entry.into_iter().for_each(|entry| self.view.history.push(entry));
        self.show();
        if !self.view.acknowledged {
            let late = (0..).zip(&self.running).filter(|&(_, &runs)| runs < generation);
            return Err(Refusal::Unacknowledged {
                generation,
                workers: joined(late.map(|(worker, _): (u16, _)| worker)),
            });
        }
        Ok(())
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
pub(super) fn inherit(running: &Admin, next: &mut Admin) {
    next.socket = next.socket.take().or_else(|| running.socket.clone());
    next.metrics = next.metrics.or(running.metrics);
    next.state = next.state.take().or_else(|| running.state.clone());
}

/// Have where this process is in the place of where another one was: that is no part of what it ran.
pub(super) fn place(running: &Admin, kept: &mut Admin) {
    kept.socket.clone_from(&running.socket);
    kept.state.clone_from(&running.state);
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
