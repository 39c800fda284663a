//! Files that are read again when they change (`[admin] watch_files`): looked at beside the control thread, and where one
//! of them holds something else, a transaction like any other. Reads no file itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::prepare::Proven;
use super::{Owner, joined};
use crate::audit::Record;
use crate::certificates::{Changed, Object, Purpose, Seen};
use crate::handle::{Asked, Change, What};
use crate::refusal::Refusal;
use crate::system::System;

/// So many objects are read again at one time: others are served in between.
const AT_ONCE: usize = 256;
/// What could not be gone by is tried again this often, also where its file stays what it is: a certificate may have been
/// from the future, and a file not to be had for the moment.
const AGAIN: Duration = Duration::from_secs(60);
/// Of so many files it is said that they changed.
const TOLD: usize = 5;

/// When files are looked at, and what was seen.
#[derive(Default)]
pub(super) struct Watch {
    every: Option<Duration>,
    next: Option<Instant>,
    looking: Option<JoinHandle<Vec<Changed>>>,
    seen: Seen,
    /// What was said last of what could not be gone by.
    wrong: BTreeMap<Object, String>,
    /// What was said last of a change that came to nothing.
    refused: Option<String>,
    /// When what is wrong is tried again.
    again: Option<Instant>,
}

impl Watch {
    /// Look as often as this from now on.
    pub(super) fn follow(&mut self, every: Option<Duration>) {
        if self.every != every {
            self.every = every;
            self.wait();
        }
    }

    fn wait(&mut self) {
        self.next = self.every.map(|every| Instant::now() + every);
    }
}

/// Ready when files are to be looked at (none), or were; never where they aren't watched.
pub(super) async fn due(watch: &mut Watch) -> Option<Vec<Changed>> {
    match (&mut watch.looking, watch.next) {
        (Some(looking), _) => {
            let found = looking.await;
            watch.looking = None;
            Some(found.unwrap_or_default())
        }
        (None, Some(next)) => {
            sleep_until(next).await;
            None
        }
        (None, None) => std::future::pending().await,
    }
}

impl<S: System> Owner<S> {
    /// Have files looked at, or go by what was found.
    pub(super) async fn mind_files(&mut self, found: Option<Vec<Changed>>) {
        let Some(mut found) = found else {
            let files = self.certificates.files();
            self.files.seen.keep(&files);
            if self.files.again.is_some_and(|again| again <= Instant::now()) {
                self.files.again = None;
                let wrong = std::mem::take(&mut self.files.wrong);
                self.files.seen.forget(&files, |object| wrong.contains_key(object));
                // Who names no file any more is wrong no longer.
                self.files.wrong = wrong.into_iter().filter(|(object, _)| files.names(object)).collect();
            }
            let seen = self.files.seen.clone();
            self.files.looking = Some(tokio::task::spawn_blocking(move || files.changed(&seen)));
            return;
        };
        self.files.wait();
        // What has to wait is found again.
        let is_held = self.drain.is_some() || self.pending.is_some() || !self.preparing.is_empty();
        if found.is_empty() || self.files.every.is_none() || is_held {
            return;
        }
        let mut count = 0;
        let fits = found.iter().take_while(|changed| {
            count += changed.objects.len();
            count <= AT_ONCE
        });
        let fits = fits.count().max(1);
        let is_all = fits == found.len();
        found.truncate(fits);
        if self.reread(&found).await {
            self.files.seen.note(found);
            if !is_all {
                self.files.next = Some(Instant::now());
            }
        }
    }

    /// Read again what stands on these files: what of it is wrong is said and stays as it was. Whether they need not be
    /// looked at until they change again.
    async fn reread(&mut self, changed: &[Changed]) -> bool {
        let all: BTreeSet<_> = changed.iter().flat_map(|changed| &changed.objects).cloned().collect();
        let right = self.right_of(changed, all);
        let asked = asked(changed, &right);
        let change = Change { asked: asked.clone(), ..Change::new(What::Reread(right), FILES) };
        let record = self.record(&change);
        let outcome = match self.plan(&change) {
            // They were written anew, and hold the same; or none of them may be gone by.
            Ok(planned) if planned.is_nothing() => return true,
            Ok(planned) => self.carry_out(change, planned, &Proven::default()).await,
            Err(refusal) => Err(refusal),
        };
        let said = outcome.as_ref().err().map(words);
        // What keeps being refused is said once.
        if said.is_none() || self.files.refused != said {
            self.write_line(record, &outcome);
        }
        match outcome {
            Ok(_) | Err(Refusal::Unacknowledged { .. }) => {
                self.files.refused = None;
                true
            }
            Err(refusal) => {
                if self.files.refused != said {
                    self.refuse_files(&asked, &refusal);
                    self.files.refused = said;
                }
                matches!(refusal, Refusal::Invalid(_))
            }
        }
    }

    /// Those of these objects that can be gone by. What is wrong with the others is said, and said again when it is
    /// something else.
    fn right_of(&mut self, changed: &[Changed], all: BTreeSet<Object>) -> BTreeSet<Object> {
        let document = self.view.document.clone();
        // A file that all of them name is read once so.
        if self.load(&document, Purpose::Edits(&all)).is_ok() {
            all.iter().for_each(|object| drop(self.files.wrong.remove(object)));
            return all;
        }
        let mut right = BTreeSet::new();
        for object in all {
            let one = BTreeSet::from([object.clone()]);
            let Err(refusal) = self.load(&document, Purpose::Edits(&one)) else {
                self.files.wrong.remove(&object);
                right.insert(object);
                continue;
            };
            self.files.again.get_or_insert_with(|| Instant::now() + AGAIN);
            let said = words(&refusal);
            if self.files.wrong.get(&object) != Some(&said) {
                let asked = asked(changed, &one);
                let record = Record::of(&asked, self.view.generation()).refused(&refusal);
                self.doors.audit.write(&Record { reason: Some(said.clone()), ..record });
                self.refuse_files(&asked, &refusal);
                self.files.wrong.insert(object, said);
            }
        }
        right
    }

    fn refuse_files(&self, asked: &Asked, refusal: &Refusal) {
        let reason = words(refusal);
        warn!("{asked}; what it holds now is not gone by: {reason}");
        self.note_refusal(asked, reason);
    }
}

/// What is wrong, where it is the document's: nobody else is told more of it.
fn words(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Invalid(errors) => errors.iter().map(|error| error.message.clone()).collect::<Vec<_>>().join("; "),
        other => other.to_string(),
    }
}

/// Where a change comes from that files brought.
pub(super) const FILES: &str = "files";

fn asked(changed: &[Changed], objects: &BTreeSet<Object>) -> Asked {
    let of = changed.iter().filter(|changed| !changed.objects.is_disjoint(objects));
    let paths: Vec<&str> = of.map(|changed| &*changed.path).collect();
    let more = paths.len().saturating_sub(TOLD);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    let message = Some(format!("{}{rest} changed", joined(&paths[..paths.len() - more])));
    Asked { origin: FILES, message, ..Asked::default() }
}

#[cfg(test)]
mod tests;
