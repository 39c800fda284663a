//! Why a request to the control side was not carried out: one closed set, with the HTTP status of each.

use kakei_config::{Diagnostics, Kind, Name};
use kakei_proxy::snapshot::Generation;

/// Why nothing was changed, or nothing can be answered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// The document is not valid.
    #[error("the document has {} error{}", .0.count(), if .0.count() == 1 { "" } else { "s" })]
    Invalid(Diagnostics),
    /// The request itself makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// Another generation runs than the one that the change was made against.
    #[error("generation {running} runs, the change was made against {expected}; read the document again and repeat it")]
    Mismatch {
        /// What runs.
        running: u64,
        /// What the client expected.
        expected: String,
        /// What generations behind that have changed, as far as it is remembered: one line each.
        since: Vec<String>,
    },
    /// An address can't be bound.
    #[error("{0}; nothing was changed")]
    Bind(String),
    /// The access log can't be opened.
    #[error("the access log {path} can't be opened: {error}; nothing was changed")]
    AccessLog {
        /// Where it was to go.
        path: String,
        /// Why not.
        error: String,
    },
    /// The file of audit lines can't be opened.
    #[error("the audit log {path} can't be opened: {error}; nothing was changed")]
    AuditLog {
        /// Where it was to go.
        path: String,
        /// Why not.
        error: String,
    },
    /// The change concerns what is fixed while the process lives.
    #[error("{} can only change with a restart; nothing was changed", .0.join(", "))]
    NeedsRestart(Vec<String>),
    /// There is no such object.
    #[error("there is no {kind} {name:?}")]
    Unknown {
        /// `cluster`, `backend` and so on.
        kind: &'static str,
        /// What was named.
        name: Name,
    },
    /// There is one already.
    #[error("cluster {cluster:?} has a backend {backend:?} already; remove it first or choose another name")]
    Exists {
        /// The cluster.
        cluster: Name,
        /// The backend.
        backend: Name,
    },
    /// There is another object of that name.
    #[error("there is a {kind} {name:?} already, and it is a different one; set its options, or remove it first")]
    Taken {
        /// What it is.
        kind: Kind,
        /// Its name.
        name: Name,
    },
    /// A generation isn't kept, or can't be read; 0: what ran before the first one.
    #[error("{}", not_kept(.0))]
    NotKept(u64),
    /// Nothing waits for a confirmation, or something else does.
    #[error("{0}")]
    NothingToConfirm(String),
    /// Another change waits to be confirmed.
    #[error(
        "generation {generation} waits to be confirmed for {seconds} s more: confirm it, or roll it back for good, first; nothing was changed"
    )]
    Unconfirmed {
        /// Which generation.
        generation: u64,
        /// For how long.
        seconds: u64,
    },
    /// Backends that the change brings have not passed.
    #[error("backends of this change are not ready, and nothing was changed: {said}")]
    NotReady {
        /// Which, and what was found out about each.
        said: String,
        /// The same, each at its place.
        errors: Diagnostics,
    },
    /// Who asked has gone while the change waited.
    #[error("who asked has gone before the backends had passed; nothing was changed")]
    Abandoned,
    /// The generation can't be written down.
    #[error("{0}; nothing was changed")]
    State(String),
    /// A worker has too much to do to be told.
    #[error("{0}; nothing was changed, try again")]
    Busy(String),
    /// The process drains and takes no change.
    #[error("the proxy is draining and takes no change")]
    Draining,
    /// The generation was published, and some worker has not said that it runs it.
    #[error("generation {} was published, but worker {} has not acknowledged it yet; see `kakei status`", .generation.0, .workers)]
    Unacknowledged {
        /// Which generation.
        generation: Generation,
        /// Which workers, as text.
        workers: String,
    },
    /// The workers did not answer in time.
    #[error("no worker answered in time")]
    Timeout,
    /// The control thread has ended.
    #[error("the proxy has stopped")]
    Stopped,
}

fn not_kept(generation: &u64) -> String {
    match generation {
        0 => "nothing ran before generation 1".to_owned(),
        _ => format!("generation {generation} is not kept; `kakei history` lists those that are"),
    }
}

/// Of so many errors of a document it is said in words what they are.
const TOLD: usize = 5;

impl Refusal {
    /// The same, and what is wrong with a document: for whoever gets no list of that.
    pub fn in_words(&self) -> String {
        let Refusal::Invalid(errors) = self else { return self.to_string() };
        let said: Vec<&str> = errors.iter().take(TOLD).map(|error| error.message.as_str()).collect();
        match errors.count() - said.len() {
            0 => format!("{self}: {}", said.join("; ")),
            more => format!("{self}: {}; and {more} more", said.join("; ")),
        }
    }

    /// The HTTP status that says it.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::BadRequest(_) => 400,
            Refusal::Unknown { .. } | Refusal::NotKept(_) => 404,
            Refusal::Bind(_)
            | Refusal::AccessLog { .. }
            | Refusal::AuditLog { .. }
            | Refusal::NeedsRestart(_)
            | Refusal::Exists { .. }
            | Refusal::Taken { .. }
            | Refusal::NothingToConfirm(_)
            | Refusal::Unconfirmed { .. }
            | Refusal::NotReady { .. } => 409,
            Refusal::Mismatch { .. } => 412,
            Refusal::Invalid(_) => 422,
            Refusal::Busy(_) | Refusal::Draining | Refusal::Abandoned | Refusal::Stopped => 503,
            Refusal::State(_) => 507,
            Refusal::Unacknowledged { .. } | Refusal::Timeout => 504,
        }
    }

    /// The word that names it in a problem document: the last part of its `type`.
    pub fn word(&self) -> &'static str {
        match self {
            Refusal::Invalid(_) => "invalid-document",
            Refusal::BadRequest(_) => "bad-request",
            Refusal::Mismatch { .. } => "generation-mismatch",
            Refusal::Bind(_) => "address-not-bound",
            Refusal::AccessLog { .. } => "access-log",
            Refusal::AuditLog { .. } => "audit-log",
            Refusal::NeedsRestart(_) => "needs-restart",
            Refusal::Unknown { .. } => "unknown-object",
            Refusal::Exists { .. } | Refusal::Taken { .. } => "object-exists",
            Refusal::NotKept(_) => "generation-not-kept",
            Refusal::NothingToConfirm(_) => "nothing-to-confirm",
            Refusal::Unconfirmed { .. } => "unconfirmed",
            Refusal::NotReady { .. } => "not-ready",
            Refusal::Abandoned => "abandoned",
            Refusal::State(_) => "state-not-written",
            Refusal::Busy(_) => "busy",
            Refusal::Draining => "draining",
            Refusal::Unacknowledged { .. } => "not-acknowledged",
            Refusal::Timeout => "timeout",
            Refusal::Stopped => "stopped",
        }
    }
}
