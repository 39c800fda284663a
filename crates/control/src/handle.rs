//! The door to the control thread: what can be asked, and handles that ask it. A handle owns no state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use kakei_config::{Document, Kind, Name};
use kakei_proxy::seam::{ConnectionView, Filter, FlowView, RateUse};
use kakei_proxy::snapshot::{Generation, Metered};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use crate::audit::{Audit, Record};
use crate::edit::Edit;
use crate::events::{self, Events};
use crate::explain::{self, Explanation, Question};
use crate::history::Entry;
use crate::refusal::Refusal;
use crate::sums::Sums;
use crate::traffic::Traffic;
use crate::view::View;
use crate::wall;

/// What is said of a document that nothing comes in by.
pub const NO_LISTENERS: &str = "the document has no listener: nothing comes in";

/// A change that is asked for.
#[derive(Clone, Debug)]
pub struct Change {
    /// What is to be different.
    pub what: What,
    /// Who asks, and why.
    pub asked: Asked,
    /// Only if this generation runs.
    pub expected: Option<Vec<Generation>>,
    /// Only say what would change.
    pub dry_run: bool,
    /// It is taken back unless it is confirmed.
    pub confirm: Option<Confirm>,
    /// With `dry_run`: say what it would do to so many requests, connections and flows of those that came last.
    pub traffic: Option<usize>,
}

/// What a change is.
#[derive(Clone, Debug)]
pub enum What {
    /// The whole document.
    Document(Box<Document>),
    /// Objects of it, one after the other: all of them, or none.
    Edits(Vec<Edit>),
    /// These objects stay as they are; what the files that they name hold is read again.
    Reread(BTreeSet<(Kind, Name)>),
    /// What a generation was; without one, what ran before.
    Rollback(Option<Generation>),
    /// What ran before a change that wasn't confirmed, or that a guard stopped.
    TakenBack(Arc<Document>),
}

/// Who asks for a change, and why.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Where it comes from: `start`, `sighup`, `api`, `library`, `rollback`, `files`.
    pub origin: &'static str,
    /// Who asks, where that is known.
    pub by: Option<String>,
    /// Where they are, where that isn't this machine.
    pub from: Option<String>,
    /// How they asked: `PUT /v1/config`.
    pub operation: Option<String>,
    /// Why, in their words.
    pub message: Option<String>,
}

impl Asked {
    /// Who asks, and where they are.
    fn whom(&self) -> Option<String> {
        let by = self.by.as_ref()?;
        Some(self.from.as_ref().map_or_else(|| by.clone(), |from| format!("{by}, {from}")))
    }

    /// What is written down of a generation that is asked for so.
    pub(crate) fn entry(
        &self,
        generation: Generation,
        changes: Vec<String>,
        confirm: Option<Confirm>,
        now: SystemTime,
    ) -> Entry {
        Entry {
            generation,
            at: wall::rfc3339(now),
            origin: self.origin.to_owned(),
            by: self.whom(),
            message: self.message.clone(),
            confirm_by: confirm.map(|confirm| wall::unix_seconds(now + confirm.within)),
            guard_errors: confirm.and_then(|confirm| confirm.errors),
            guard_unhealthy: confirm.and_then(|confirm| confirm.unhealthy),
            changes,
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.origin)?;
        if let Some(by) = self.whom() {
            write!(f, " ({by})")?;
        }
        match &self.message {
            Some(message) => write!(f, ", \u{201c}{message}\u{201d}"),
            None => Ok(()),
        }
    }
}

/// What a change must come through to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirm {
    /// The time in which it has to be confirmed.
    pub within: Duration,
    /// It is taken back sooner when more than so many of a hundred requests were answered with a status of 500 or more.
    pub errors: Option<u8>,
    /// It is taken back sooner when more than so many of a hundred backends that are checked are down.
    pub unhealthy: Option<u8>,
}

impl Change {
    /// This change, whatever runs.
    pub fn new(what: What, origin: &'static str) -> Self {
        let asked = Asked { origin, ..Asked::default() };
        Change { what, asked, expected: None, dry_run: false, confirm: None, traffic: None }
    }

    /// Go over to this document, whatever runs.
    pub fn to(document: Document, origin: &'static str) -> Self {
        Change::new(What::Document(Box::new(document)), origin)
    }

    /// Make this edit, whatever runs.
    pub fn edit(edit: Edit, origin: &'static str) -> Self {
        Change::new(What::Edits(vec![edit]), origin)
    }
}

/// What a change came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Outcome {
    /// The generation that runs now.
    pub generation: Generation,
    /// Whether it was published by this change: false for a dry run, and where there was nothing to change.
    pub applied: bool,
    /// What is (or would be) different, one line a change.
    pub changes: Vec<String>,
    /// What it waits for (or would) before it is published, one line for each cluster.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<String>,
    /// What lives on that, and what becomes of it, one line for each object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub touches: Vec<String>,
    /// What it would do to traffic as it was seen lately, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// What was changed at run time since a whole document was applied last, and is (or would be) lost with this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<String>,
    /// Until when it has to be confirmed, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm_by: Option<u64>,
    /// What went wrong beside it, without undoing the change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What the owner is asked.
#[derive(Debug)]
pub(crate) enum Request {
    Change(Change, oneshot::Sender<Result<Outcome, Refusal>>),
    Confirm(Option<Generation>, Asked, oneshot::Sender<Result<Generation, Refusal>>),
    Kept(Generation, oneshot::Sender<Result<Document, Refusal>>),
    Counters(oneshot::Sender<Counters>),
    Flows(Filter, oneshot::Sender<Result<Vec<FlowView>, Refusal>>),
    Connections(Filter, oneshot::Sender<Result<Vec<ConnectionView>, Refusal>>),
    Rates(Arc<Metered>, oneshot::Sender<BTreeMap<u16, Vec<RateUse>>>),
    ReopenLogs,
    Drain(Option<Duration>, oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

/// Everything that is counted.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Of the workers that answered in time.
    pub sums: Sums,
    /// Of the process.
    pub process: crate::metrics::Process,
}

/// Asks the control thread. Cheap to clone; works in any async runtime, and in none with [`crate::wait`].
#[derive(Clone, Debug)]
pub struct Handle {
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) view: watch::Receiver<Arc<View>>,
    pub(crate) events: Events,
    pub(crate) audit: Audit,
    /// How many changes were refused.
    pub(crate) refused: Arc<AtomicU64>,
}

impl Handle {
    /// What runs at this moment.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// What happens, as it happens.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// A change that was asked for can't be one, so that the owner never hears of it: it is written down, told and counted as
    /// any other that is refused.
    pub fn refused(&self, asked: &Asked, reason: &str) {
        self.audit.write(&Record::of(asked, self.view().generation()).refused(reason));
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.events.say(events::What::Refused { asked: asked.to_string(), reason: reason.to_owned() });
    }

    /// The same of somebody who may do nothing here, and not told: the newest events are kept for those who may look, and
    /// whoever asks without end must not push them out, nor fill a disk.
    pub(crate) fn turned_away(&self, asked: &Asked, reason: &str) {
        self.audit.write_stranger(Instant::now(), Record::of(asked, self.view().generation()).refused(reason));
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Carry out a transaction. Dropping the future does not undo it; while it waits for backends that it brings, and
    /// nothing is published of it, that gives it up.
    pub async fn change(&self, change: Change) -> Result<Outcome, Refusal> {
        self.ask(|reply| Request::Change(change, reply)).await?
    }

    /// Confirm the generation that waits for it (this one, where one is named), and give its number.
    pub async fn confirm(&self, generation: Option<Generation>, asked: Asked) -> Result<Generation, Refusal> {
        self.ask(|reply| Request::Confirm(generation, asked, reply)).await?
    }

    /// What a generation was.
    pub async fn kept(&self, generation: Generation) -> Result<Document, Refusal> {
        self.ask(|reply| Request::Kept(generation, reply)).await?
    }

    /// The counters of all workers, added up.
    pub async fn counters(&self) -> Result<Counters, Refusal> {
        self.ask(Request::Counters).await
    }

    /// Live flows of all workers, at most `filter.limit`.
    pub async fn flows(&self, filter: Filter) -> Result<Vec<FlowView>, Refusal> {
        self.ask(|reply| Request::Flows(filter, reply)).await?
    }

    /// Live connections of all workers, at most `filter.limit`.
    pub async fn connections(&self, filter: Filter) -> Result<Vec<ConnectionView>, Refusal> {
        self.ask(|reply| Request::Connections(filter, reply)).await?
    }

    /// Where a datagram, a connection or a request would go, and why not elsewhere.
    pub async fn explain(&self, question: &Question) -> Result<Explanation, Refusal> {
        let sums = self.counters().await?.sums;
        let mut answer = explain::live(&self.view(), Some(&sums), question);
        if let Some(metered) = answer.metered.clone() {
            answer.rate(&self.ask(|reply| Request::Rates(metered, reply)).await?);
        }
        Ok(answer)
    }

    /// Open the access log's file again, after a rotation.
    pub async fn reopen_logs(&self) -> Result<(), Refusal> {
        self.requests.send(Request::ReopenLogs).await.map_err(|_| Refusal::Stopped)
    }

    /// Admit nothing more; ready when the last flow is gone or the time is over (each listener's own where none is
    /// given). The process goes on until [`Handle::stop`].
    pub async fn drain(&self, within: Option<Duration>) -> Result<(), Refusal> {
        self.ask(|reply| Request::Drain(within, reply)).await
    }

    /// End every worker now and write what is left of the access log.
    pub async fn stop(&self) -> Result<(), Refusal> {
        self.ask(Request::Stop).await
    }

    /// Ready when the control thread has ended.
    pub async fn ended(&self) {
        self.requests.closed().await;
    }

    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(make(reply)).await.map_err(|_| Refusal::Stopped)?;
        answer.await.map_err(|_| Refusal::Stopped)
    }
}
