//! `kakei run` and `serve`: from a document to a proxy in the foreground.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kakei::config::{
    self, AccessLog, Admin, Backend, Cluster, Document, Listener, Objects, Protocol, UdpKnobs, WorkerCount, Workers,
};
use kakei::control::serve::DoorError;
use kakei::control::{Control, Options, Refusal, StartError};
use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::{debug, warn};

use super::document::Source;
use crate::cli::{Run, Serve};
use crate::say::Failure;
use crate::supervise;

/// Where `run` looks for a kept document when it is told neither a file nor a directory.
const DEFAULT_STATE: &str = "/var/lib/kakei";

pub(super) fn run(run: Run) -> Result<(), Failure> {
    let admin = AdminGiven { socket: run.socket, state: run.state };
    let (path, given) = (run.config.clone(), admin.clone());
    let read = move || {
        let mut document = match &path {
            Some(path) => Source::read(path)?.document()?,
            None => kept(given.state.as_deref().unwrap_or(DEFAULT_STATE))?,
        };
        given.overlay(&mut document);
        Ok(Options { document, origin: "start", seed: kakei::random_seed(), last: path.is_none() })
    };
    // Standard input can be read only once.
    let file = run.config.filter(|path| path.as_os_str() != "-");
    go(read, file, admin)
}

/// What stands in for the document that ran last: where that is kept.
fn kept(directory: &str) -> Result<Document, Failure> {
    if !Path::new(directory).is_dir() {
        return Err(nothing(directory, 0));
    }
    let admin = Admin { state: Some(directory.to_owned()), ..Admin::default() };
    Ok(Document { admin, ..Document::default() })
}

fn nothing(directory: &str, generations: usize) -> Failure {
    let found = match generations {
        0 => "has none".to_owned(),
        1 => "has 1 generation, which can't be run".to_owned(),
        _ => format!("has {generations} generations, none of which can be run"),
    };
    Failure::usage(format!(
        "there is nothing to run: give a document with -c FILE, or a state directory that holds one with --state DIR \
         ({directory} {found})"
    ))
}

/// What the command line says about the side doors: it goes before what a document says.
#[derive(Clone, Debug, Default)]
pub(crate) struct AdminGiven {
    socket: Option<String>,
    state: Option<String>,
}

impl AdminGiven {
    pub(crate) fn overlay(&self, document: &mut Document) {
        document.admin.socket = self.socket.clone().or(document.admin.socket.take());
        document.admin.state = self.state.clone().or(document.admin.state.take());
    }
}

pub(super) fn serve(serve: Serve) -> Result<(), Failure> {
    let document = serve_document(serve)?;
    config::check(&document).map_err(|errors| Failure::usage(errors.to_string()))?;
    let options = Options { document, origin: "start", seed: kakei::random_seed(), last: false };
    go(move || Ok(options), None, AdminGiven::default())
}

fn serve_document(serve: Serve) -> Result<Document, Failure> {
    let protocol = serve.from[0].protocol;
    if serve.from.iter().any(|from| from.protocol != protocol) {
        return Err(Failure::usage("--from takes addresses of one protocol; a document can have both"));
    }
    let of_udp =
        [("--requests", serve.requests > 0), ("--responses", serve.responses > 0), ("--one-way", serve.one_way)];
    if let Some((option, _)) = of_udp.iter().find(|(_, given)| *given && protocol != Protocol::Udp) {
        return Err(Failure::usage(format!("{option} is for UDP, which --from doesn't speak")));
    }
    let timeout = Duration::from_secs(u64::from(serve.timeout));
    let cluster = Cluster {
        balance: serve.balance.into(),
        backends: serve.to.iter().cloned().map(Backend::at).collect(),
        udp: UdpKnobs {
            requests: serve.requests,
            responses: serve.responses,
            expects_reply: !serve.one_way,
            front_timeout: timeout,
            back_timeout: timeout,
            ..UdpKnobs::default()
        },
        ..Cluster::default()
    };
    let listener = Listener {
        protocol,
        bind: serve.from.iter().map(|from| from.address).collect(),
        cluster: Some("backends".into()),
        drain_timeout: timeout,
        ..Default::default()
    };
    Ok(Document {
        admin: Admin { socket: serve.socket, metrics: serve.metrics, ..Admin::default() },
        workers: Workers { count: serve.workers.map_or(WorkerCount::Auto, WorkerCount::Fixed), ..Workers::default() },
        access_log: AccessLog { to: serve.access_log, ..AccessLog::default() },
        listeners: [("front".into(), listener)].into(),
        routes: Objects::default(),
        clusters: [("backends".into(), cluster)].into(),
        certificates: Objects::default(),
    })
}

fn go(
    read: impl FnOnce() -> Result<Options, Failure> + Send + 'static,
    file: Option<PathBuf>,
    admin: AdminGiven,
) -> Result<(), Failure> {
    raise_descriptors();
    // Before anything runs, so that no signal finds its default action.
    let signals =
        supervise::Signals::catch().map_err(|error| Failure::refused(format!("signals can't be caught: {error}")))?;
    let read = || read().map_err(Begun::Unread);
    let control = Control::start_with(read).map_err(|begun| begun.failure(file.as_deref()))?;
    supervise::Supervisor::new(control, file, admin).run(signals)
}

/// Why nothing runs.
enum Begun {
    /// There is no document.
    Unread(Failure),
    /// It can't be gone by.
    Refused(StartError),
}

impl From<StartError> for Begun {
    fn from(error: StartError) -> Self {
        Begun::Refused(error)
    }
}

impl Begun {
    /// In words; errors of the document at their places in that file.
    fn failure(self, file: Option<&Path>) -> Failure {
        match (self, file.map(Source::read)) {
            (Begun::Unread(failure), _) => failure,
            (Begun::Refused(StartError::Refused(Refusal::Invalid(errors))), Some(Ok(source))) => source.placed(errors),
            (Begun::Refused(error), _) => error.into(),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            // A document whose certificates can't be used is as wrong as one that can't be read.
            StartError::Refused(Refusal::Invalid(errors)) => Failure::drawn(format!("{errors}\n")),
            StartError::Door(error @ DoorError::TooLong(_)) => Failure::usage(error),
            StartError::NothingKept(directory, generations) => nothing(&directory, generations),
            error => Failure::refused(error),
        }
    }
}

/// A flow may need a descriptor: take all that the system grants without asking anyone.
fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => debug!("up to {:?} descriptors may be open", limit.maximum),
        Err(error) => warn!("the limit of open descriptors can't be raised: {error}"),
    }
}
