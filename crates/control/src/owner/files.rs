//! Files that are read again when they change (`[admin] watch_files`): looked at beside the control thread, and where one
//! of them holds something else, a transaction like any other. Reads no file itself.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::{Owner, joined};
use crate::audit::Record;
use crate::certificates::{Changed, Object, Purpose, Seen};
use crate::events::What as Happened;
use crate::handle::{Asked, Change, What};
use crate::refusal::Refusal;
use crate::system::System;

/// So many objects are read again at one time: others are served in between.
const AT_ONCE: usize = 256;
/// Of so many files it is said that they changed.
const TOLD: usize = 5;

/// When files are looked at, and what was seen.
#[derive(Default)]
pub(super) struct Watch {
    every: Option<Duration>,
    next: Option<Instant>,
    looking: Option<JoinHandle<Vec<Changed>>>,
    seen: Seen,
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
            let seen = self.files.seen.clone();
            self.files.looking = Some(tokio::task::spawn_blocking(move || files.changed(&seen)));
            return;
        };
        self.files.wait();
        // What has to wait is found again.
        if found.is_empty() || self.files.every.is_none() || self.drain.is_some() || self.pending.is_some() {
            return;
        }
        let mut count = 0;
        let fits = found.iter().take_while(|changed| {
            count += changed.objects.len();
            count <= AT_ONCE
        });
        let fits = fits.count().max(1);
        if fits < found.len() {
            found.truncate(fits);
            self.files.next = Some(Instant::now());
        }
        if self.reread(&found).await {
            self.files.seen.note(found);
        }
    }

    /// Read again what stands on these files: what of it is wrong is said and stays as it was. Whether they need not be
    /// looked at until they change again.
    async fn reread(&mut self, changed: &[Changed]) -> bool {
        let all: BTreeSet<_> = changed.iter().flat_map(|changed| &changed.objects).cloned().collect();
        let mut right = BTreeSet::new();
        for object in all {
            let (document, one) = (self.view.document.clone(), BTreeSet::from([object]));
            match self.load(&document, Purpose::Edits(&one)) {
                Ok(_) => right.extend(one),
                Err(refusal) => {
                    let asked = asked(changed, &one);
                    let record = Record::of(&asked, self.view.generation()).refused(&refusal);
                    self.doors.audit.write(&Record { reason: Some(words(&refusal)), ..record });
                    self.refuse_files(&asked, &refusal);
                }
            }
        }
        let asked = asked(changed, &right);
        let change = Change { asked: asked.clone(), ..Change::new(What::Reread(right), FILES) };
        if self.plan(&change).is_ok_and(|planned| planned.is_nothing()) {
            // They were written anew, and hold the same; or none of them may be gone by.
            return true;
        }
        match self.change(change).await {
            Ok(_) | Err(Refusal::Unacknowledged { .. }) => true,
            Err(refusal) => {
                self.refuse_files(&asked, &refusal);
                matches!(refusal, Refusal::Invalid(_))
            }
        }
    }

    fn refuse_files(&mut self, asked: &Asked, refusal: &Refusal) {
        let reason = words(refusal);
        warn!("{asked}; what it holds now is not gone by: {reason}");
        self.counts.refused += 1;
        self.events.say(Happened::Refused { asked: asked.to_string(), reason });
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
const FILES: &str = "files";

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
