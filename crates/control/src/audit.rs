//! A line for every change that was asked for, whatever came of it: who, from where, what, why, which generation ran before
//! and after. It stands in the log, and in a file of its own where there is one. Decides nothing.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use kakei_proxy::snapshot::Generation;
use serde::Serialize;
use tracing::{error, info, warn};

use crate::handle::Asked;
use crate::{history, opened, wall};

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Came {
    /// A new generation runs.
    Applied,
    /// There was nothing to change.
    Unchanged,
    /// A generation that waited stays.
    Confirmed,
    /// Nothing is different.
    Refused,
    /// It was published, and some worker has not said that it runs it.
    Unacknowledged,
    /// Whoever asked went, or took too long, before it was whole: nothing is different.
    Abandoned,
}

/// One line.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    pub(crate) time: String,
    pub(crate) origin: &'static str,
    pub(crate) who: Option<String>,
    pub(crate) from: Option<String>,
    pub(crate) operation: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) generation_before: Generation,
    pub(crate) generation_after: Generation,
    pub(crate) outcome: Came,
    pub(crate) changes: Vec<String>,
    pub(crate) reason: Option<String>,
}

impl Record {
    /// What was asked for, before anything came of it.
    pub(crate) fn of(asked: &Asked, running: Generation) -> Self {
        Record {
            time: wall::rfc3339(SystemTime::now()),
            origin: asked.origin,
            who: asked.by.clone(),
            from: asked.from.clone(),
            operation: asked.operation.clone(),
            message: asked.message.clone(),
            generation_before: running,
            generation_after: running,
            outcome: Came::Unchanged,
            changes: Vec::new(),
            reason: None,
        }
    }

    /// Nothing came of it, for this reason.
    pub(crate) fn refused(self, reason: impl ToString) -> Self {
        Record { outcome: Came::Refused, reason: Some(reason.to_string()), ..self }
    }

    /// It was done, and this generation runs now.
    pub(crate) fn done(self, outcome: Came, generation: Generation, changes: Vec<String>) -> Self {
        Record { outcome, generation_after: generation, changes: history::told(changes), ..self }
    }

    /// In words, for the log.
    fn words(&self) -> String {
        let mut words = format!("audit: {}", self.operation.as_deref().unwrap_or(self.origin));
        let (who, from) = (self.who.as_deref(), self.from.as_deref());
        words.extend(who.map(|who| format!(" by {who}")));
        words.extend(from.map(|from| format!(" from {from}")));
        words.extend(self.message.as_ref().map(|message| format!(", \u{201c}{message}\u{201d}")));
        let (before, after) = (self.generation_before.0, self.generation_after.0);
        words += &match self.outcome {
            Came::Applied => format!(": applied, generation {before} -> {after}"),
            Came::Unacknowledged => format!(": published, generation {before} -> {after}"),
            Came::Confirmed => format!(": generation {after} is confirmed"),
            Came::Unchanged => format!(": nothing to change, generation {after} runs"),
            Came::Refused => format!(": refused, generation {after} runs"),
            Came::Abandoned => format!(": abandoned, generation {after} runs"),
        };
        words.extend(self.reason.as_ref().map(|reason| format!(": {reason}")));
        if !self.changes.is_empty() {
            words += &format!(": {}", self.changes.join("; "));
        }
        words
    }
}

/// Where lines go. A copy writes to the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audit(Arc<Mutex<Target>>);

/// Lines a minute about those who may do nothing.
const OF_STRANGERS: u32 = 100;
const MINUTE: Duration = Duration::from_secs(60);

/// What was written about those who may do nothing, in this minute.
#[derive(Debug, Default)]
struct Strangers {
    since: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Strangers {
    /// How many had no line before this one; none: it has none either.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now - since >= MINUTE) {
            (self.since, self.written) = (Some(now), 0);
        }
        if self.written == OF_STRANGERS {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[derive(Debug, Default)]
struct Target {
    path: Option<String>,
    file: Option<File>,
    /// Lines that could not be written to the file.
    lost: u64,
    strangers: Strangers,
}

impl Audit {
    /// Write a line.
    pub(crate) fn write(&self, record: &Record) {
        match record.outcome {
            Came::Refused | Came::Unacknowledged | Came::Abandoned => warn!("{}", record.words()),
            Came::Applied | Came::Confirmed | Came::Unchanged => info!("{}", record.words()),
        }
        let mut target = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Target { path, file, lost, .. } = &mut *target;
        let Some(open) = file else { return };
        let mut line = serde_json::to_vec(record).expect("its keys are strings");
        line.push(b'\n');
        if let Err(error) = open.write_all(&line) {
            *lost += 1;
            error!("the audit log {} can't be written: {error}", path.as_deref().unwrap_or_default());
        }
    }

    /// Write a line about somebody who may do nothing, unless there were too many of these: whoever it is could write
    /// without end.
    pub(crate) fn write_stranger(&self, now: Instant, record: Record) {
        let left_out = self.0.lock().unwrap_or_else(PoisonError::into_inner).strangers.admit(now);
        let Some(left_out) = left_out else { return };
        let further = format!(" ({left_out} before it, of whoever may do nothing, have no line)");
        let reason = record.reason.map(|reason| if left_out == 0 { reason } else { reason + &further });
        self.write(&Record { reason, ..record });
    }

    /// Open what is to be written to from now on, if that is another file than now.
    pub(crate) fn prepare(&self, path: Option<&str>) -> io::Result<Prepared> {
        let target = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if target.path.as_deref() == path {
            return Ok(Prepared::Same);
        }
        Ok(Prepared::Other(path.map(str::to_owned).zip(path.map(open).transpose()?)))
    }

    /// Go over to it.
    pub(crate) fn follow(&self, prepared: Prepared) {
        let Prepared::Other(to) = prepared else { return };
        let mut target = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (target.path, target.file) = to.unzip();
    }

    /// Open the file again, after a rotation. Where that fails the old one goes on.
    pub(crate) fn reopen(&self) {
        let mut target = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = &target.path else { return };
        match open(path) {
            Ok(file) => target.file = Some(file),
            Err(error) => error!("the audit log {path} can't be opened again: {error}"),
        }
    }

    /// Lines that could not be written to the file.
    pub(crate) fn lost(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).lost
    }
}

/// A file that is to be written to.
#[derive(Debug)]
pub(crate) enum Prepared {
    Same,
    Other(Option<(String, File)>),
}

fn open(path: &str) -> io::Result<File> {
    opened::to_append(path.as_ref(), 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let asked =
            Asked { origin: "api", by: Some("CN=ann".into()), from: Some("192.0.2.7:5".into()), ..Asked::default() };
        Record::of(&asked, Generation(3))
    }

    #[test]
    fn who_may_do_nothing_fills_no_disk_and_is_counted() {
        let (mut strangers, begin) = (Strangers::default(), Instant::now());
        let admitted = (0..1_000).filter(|_| strangers.admit(begin).is_some()).count();
        assert_eq!(admitted, OF_STRANGERS as usize);
        assert_eq!(strangers.admit(begin + MINUTE / 2), None);
        assert_eq!(strangers.admit(begin + MINUTE), Some(901));
        assert_eq!(strangers.admit(begin + MINUTE), Some(0));
    }

    #[test]
    fn a_line_says_who_what_and_what_came_of_it() {
        let applied = record().done(Came::Applied, Generation(4), vec!["listener l: added".into()]);
        assert_eq!(
            applied.words(),
            "audit: api by CN=ann from 192.0.2.7:5: applied, generation 3 -> 4: listener l: added"
        );
        let refused = Record { operation: Some("PUT /v1/config".into()), ..record() }.refused("it is so");
        assert_eq!(
            refused.words(),
            "audit: PUT /v1/config by CN=ann from 192.0.2.7:5: refused, generation 3 runs: it is so"
        );
    }

    #[test]
    fn lines_go_to_the_file_that_is_named_now() {
        let room = std::env::temp_dir().join(format!("kakei-audit-{}", std::process::id()));
        std::fs::create_dir_all(&room).unwrap();
        let path = |name: &str| room.join(name).to_str().unwrap().to_owned();
        let audit = Audit::default();
        audit.write(&record());
        audit.follow(audit.prepare(Some(&path("a"))).unwrap());
        assert!(matches!(audit.prepare(Some(&path("a"))), Ok(Prepared::Same)));
        audit.write(&record().refused("a"));
        std::fs::rename(path("a"), path("a.1")).unwrap();
        audit.reopen();
        audit.write(&record().refused("b"));
        assert!(audit.prepare(Some(&path("no/where"))).is_err());
        audit.write(&record().refused("c"));
        let lines = |name: &str| std::fs::read_to_string(path(name)).unwrap().lines().count();
        assert_eq!((lines("a.1"), lines("a"), audit.lost()), (1, 2, 0));
        std::fs::remove_dir_all(room).unwrap();
    }
}
