//! Bringing the control thread up: engine, side doors, first generation; all of it or an error. Holds no state after.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use kakei_config::{Admin, Checked, Document, Resolved, WorkerCount};
use kakei_proxy::secure::LIFETIME;
use kakei_proxy::snapshot::{Generation, Shared};
use kakei_proxy::worker::Worker;
use kakei_runtime::engine::EngineConfig;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use super::cuts::Untold;
use super::publish::{Keep, inherit, place};
use super::{Counts, Owner, expiry};
use crate::access_log::LogWriter;
use crate::api;
use crate::audit::{Came, Record};
use crate::certificates::{Certificates, Purpose};
use crate::doors::Doors;
use crate::events::Events;
use crate::handle::{Asked, Handle, Request};
use crate::history::{self, Entry};
use crate::refusal::Refusal;
use crate::serve::{self, Door, DoorError};
use crate::store::{Found, Store, StoreError};
use crate::system::{Real, System, Workers};
use crate::view::View;
use crate::wall;

/// Requests that may wait for the owner; more wait at their senders.
const QUEUE: usize = 64;
/// Access-log records of one worker that may wait for the log thread.
const RECORDS: usize = 16_384;

/// What a proxy is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// What it shall do; validated already.
    pub document: Document,
    /// Who says so: `start`, `library`.
    pub origin: &'static str,
    /// Seeds everything random, and keys the balancers' hashes.
    pub seed: u64,
    /// It shall do what the state directory holds; of the document only `socket`, `metrics` and `state` of `[admin]` count,
    /// where they are given, and are this process's own.
    pub last: bool,
}

/// Why a proxy could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The first generation was refused.
    #[error("{0}")]
    Refused(Refusal),
    /// A side door could not be opened.
    #[error("{0}")]
    Door(#[from] DoorError),
    /// The state directory can't be used.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The state directory holds nothing that could run, in so many generations.
    #[error("the state directory {0} holds no document that could run, in {1} generations")]
    NothingKept(String, usize),
    /// The machine could not be started.
    #[error("the workers can't be started: {0}")]
    Engine(String),
    /// The control thread could not be started.
    #[error("the control thread can't be started: {0}")]
    Thread(std::io::Error),
}

/// A running proxy's control thread.
#[derive(Debug)]
pub struct Control {
    handle: Handle,
    thread: JoinHandle<()>,
}

impl Control {
    /// Start everything and wait until every worker runs the first generation.
    ///
    /// # Errors
    /// When something that the document asks for can't be had.
    pub fn start(options: Options) -> Result<Self, StartError> {
        Control::start_with(|| Ok(options))
    }

    /// The same, where what runs is still to be read: that is done on the control thread. Allocators keep what a thread
    /// has freed for that thread, so reading elsewhere leaves memory behind that the control side never uses.
    ///
    /// # Errors
    /// What reading it said, or else as [`Control::start`].
    pub fn start_with<E>(read: impl FnOnce() -> Result<Options, E> + Send + 'static) -> Result<Self, E>
    where
        E: From<StartError> + Send + 'static,
    {
        let (ready, started) = oneshot::channel();
        let body = move || {
            let begun = read().and_then(|options| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                Ok((options, runtime.map_err(StartError::Thread)?))
            });
            match begun {
                Ok((options, runtime)) => runtime.block_on(live(options, ready)),
                // Who started it waits for this.
                Err(error) => drop(ready.send(Err(error))),
            }
        };
        let thread =
            std::thread::Builder::new().name("kakei-control".into()).spawn(body).map_err(StartError::Thread)?;
        match crate::wait(started) {
            Ok(handle) => Ok(Control { handle: handle?, thread }),
            Err(_) => Err(StartError::Engine("the control thread ended".into()).into()),
        }
    }

    /// The same in the runtime that this is called in, on another system, and without doors: what asks it, and the future
    /// that runs it until [`Handle::stop`].
    ///
    /// # Errors
    /// When something that the document asks for can't be had.
    pub async fn on<S: System>(system: S, options: Options) -> Result<(Handle, impl Future<Output = ()>), StartError> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let (mut owner, first) = begin(options, system)?;
        let handle = owner.handle(requests);
        owner.publish_first(first).await?;
        Ok((handle, owner.run(queue)))
    }

    /// What asks it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Wait for its end, after [`Handle::stop`].
    pub fn join(self) {
        // A panic was printed by its hook already.
        let _ = self.thread.join();
    }
}

type Ready<E> = oneshot::Sender<Result<Handle, E>>;

async fn live<E: From<StartError>>(options: Options, ready: Ready<E>) {
    let (requests, queue) = mpsc::channel::<Request>(QUEUE);
    let begun = async {
        let mut owner = begin(options, Real::of(Worker::new))?;
        let handle = owner.0.handle(requests);
        let doors = owner.1.doors.clone();
        let door = doors.socket.as_deref().map(|path| Door::open(path.as_ref())).transpose()?;
        let metrics = match doors.metrics {
            Some(address) => Some(serve::bind_metrics(address).await?),
            None => None,
        };
        owner.0.publish_first(owner.1).await?;
        Ok::<_, StartError>((owner.0, handle, door, metrics))
    };
    let (owner, handle, door, metrics) = match begun.await {
        Ok(begun) => begun,
        Err(error) => return drop(ready.send(Err(error.into()))),
    };
    let mut side = tokio::task::JoinSet::new();
    let (api, rules) = (api::router(handle.clone()), owner.doors.rules());
    if let Some(door) = door {
        side.spawn(door.serve(api.clone(), rules.clone()));
    }
    side.spawn(serve::serve_remote(rules, api));
    if let Some(metrics) = metrics {
        side.spawn(serve::serve_tcp(metrics, api::public_router(handle.clone())));
    }
    if ready.send(Ok(handle)).is_ok() {
        owner.run(queue).await;
    }
    side.shutdown().await;
}

/// The owner with its engine, running nothing yet; and the first generation.
pub(super) fn begin<S: System>(options: Options, mut system: S) -> Result<(Owner<S>, First), StartError> {
    let Options { document, origin, seed, last } = options;
    let mut store = system.store(document.admin.state.as_deref())?;
    let found = store.load()?;
    found.skipped.iter().for_each(|skipped| warn!("left out of the state: {skipped}"));
    let checked = match last {
        true => kept(&found, &document.admin)?,
        false => Checked::of_valid(document),
    };
    let document = checked.document();
    let workers = match document.workers.count {
        WorkerCount::Fixed(count) => count,
        WorkerCount::Auto => std::thread::available_parallelism().map_or(1, |n| n.get().min(1024) as u16),
    };
    let (pin, state) = (document.workers.pin, document.admin.state.clone());
    let first = First::of(checked, (origin, last), (&mut store, system.now()), found)?;
    let config = EngineConfig { workers, pin, seed, records: RECORDS };
    let mut engine = system.start(config).map_err(|error| StartError::Engine(error.to_string()))?;
    let log = LogWriter::start(engine.records()).map_err(StartError::Thread)?;
    let shared = Shared { workers, balance_seed: seed };
    let view = View::new(Document::default(), Generation(0), shared);
    let (certificates, age) = Certificates::within(state.as_deref(), system.now());
    let events = Events::begin(system.now());
    let owner = Owner {
        engine,
        next_ticket: 0,
        running: vec![Generation(0); usize::from(workers)],
        log,
        unwritten: None,
        checked: Checked::default(),
        resolved: Resolved::default(),
        turned: Vec::new(),
        store,
        pending: None,
        names: system.names(),
        certificates,
        rotation: rotation(age),
        files: super::files::Watch::default(),
        expiry: expiry::daily(),
        watchers: watch::Sender::new(Arc::new(view.clone())),
        view,
        events,
        doors: Doors::closed(),
        drain: None,
        counts: Counts::default(),
        system,
        preparing: Vec::new(),
        news: false,
        candidates: 0,
        candidates_told: true,
        untold: Untold::default(),
        doubted: BTreeMap::new(),
    };
    Ok((owner, first))
}

/// What ran last; where the side doors are is said by who starts it, as far as that is said.
fn kept(found: &Found, given: &Admin) -> Result<Checked, StartError> {
    let nothing = || StartError::NothingKept(given.state.clone().unwrap_or_default(), found.files);
    let (entry, mut document) = found.last.clone().ok_or_else(nothing)?;
    let mut own = given.clone();
    inherit(&document.admin, &mut own);
    let Admin { socket, metrics, state, .. } = own;
    document.admin = Admin { socket, metrics, state, ..document.admin };
    Checked::of_objects(document).map_err(|errors| {
        warn!("the document of generation {} is not valid: {errors}", entry.generation.0);
        nothing()
    })
}

/// When session tickets get a new key: half as often as one may be kept, since the last key but one goes then.
/// Those that are there may be old already.
fn rotation(age: Duration) -> tokio::time::Interval {
    let period = Duration::from_secs(u64::from(LIFETIME) / 2);
    tokio::time::interval_at(tokio::time::Instant::now() + period.saturating_sub(age), period)
}

/// Where the first generation comes from.
enum Origin {
    /// The operator's document, which is not what ran last.
    Asked,
    /// It is what ran last; it waits to be confirmed for so long still, and else gives way to what ran before it.
    Kept(Option<Box<(Entry, Duration, Document)>>),
    /// What ran last was not confirmed in its time: this ran before it.
    TakenBack,
}

/// What runs first.
pub(super) struct First {
    checked: Checked,
    generation: Generation,
    asked: Asked,
    from: Origin,
    /// The generations that were kept.
    entries: Vec<Entry>,
    /// What was kept last; none: nothing was.
    last: Option<Document>,
    /// What is asked for beside it.
    doors: Admin,
}

impl First {
    /// The document that was asked for, under the number that it has already where it is what ran last. One that was
    /// never confirmed in its time gives way to what ran before it.
    fn of(
        checked: Checked,
        (origin, is_last): (&'static str, bool),
        (store, now): (&mut Store, SystemTime),
        found: Found,
    ) -> Result<Self, StoreError> {
        let (entries, generation) = (found.entries, store.next());
        let asked = Asked { origin, ..Asked::default() };
        let before = entries.iter().nth_back(1).map(|entry| entry.generation);
        let doors = checked.document().admin.clone();
        let fresh = First { checked, generation, asked, from: Origin::Asked, entries, last: None, doors };
        let Some((entry, last)) = found.last else { return Ok(fresh) };
        let fresh = First { last: Some(last), ..fresh };
        if !is_last && !fresh.is_what_ran() {
            return Ok(fresh);
        }
        let before = match before.filter(|_| entry.confirm_by.is_some()) {
            Some(before) => store.document(before)?.and_then(|mut before| {
                place(&fresh.doors, &mut before.admin);
                Checked::of_objects(before).ok()
            }),
            None => None,
        };
        let left = entry.confirm_by.unwrap_or_default().saturating_sub(wall::unix_seconds(now));
        match (before, left) {
            (None, _) => Ok(First { generation: entry.generation, from: Origin::Kept(None), ..fresh }),
            (Some(before), 0) => {
                let message = format!("generation {} was not confirmed in its time", entry.generation.0);
                warn!("{message}: what ran before it runs again");
                let asked = Asked { origin: "rollback", message: Some(message), ..Asked::default() };
                Ok(First { checked: before, asked, from: Origin::TakenBack, ..fresh })
            }
            (Some(before), left) => {
                let waits = Box::new((entry.clone(), Duration::from_secs(left), before.document().clone()));
                Ok(First { generation: entry.generation, from: Origin::Kept(Some(waits)), ..fresh })
            }
        }
    }

    /// Whether the operator's document is what ran last. That was found in its state directory, by whatever path.
    fn is_what_ran(&self) -> bool {
        let document = self.checked.document();
        let mut last = self.last.clone();
        last.iter_mut().for_each(|last| last.admin.state.clone_from(&document.admin.state));
        last.as_ref() == Some(document)
    }
}

impl<S: System> Owner<S> {
    /// What asks this owner, by that queue.
    pub(super) fn handle(&self, requests: mpsc::Sender<Request>) -> Handle {
        Handle {
            requests,
            view: self.watchers.subscribe(),
            events: self.events.clone(),
            audit: self.doors.audit.clone(),
            refused: Arc::clone(&self.counts.refused),
        }
    }

    pub(super) async fn publish_first(&mut self, first: First) -> Result<(), StartError> {
        let document = first.checked.document();
        // Where nothing was kept all of it is new, and written whole.
        let diff = first.last.as_ref().map(|last| kakei_config::diff(last, document));
        let changes = match &diff {
            Some(diff) => history::told(diff.iter().flat_map(kakei_config::Change::lines).collect()),
            None => {
                let added = document.names().map(|(kind, name)| format!("{kind} {name}: added"));
                history::first(document.names().count(), added)
            }
        };
        let diff = diff.unwrap_or_default();
        if let (Some(newest), Origin::Asked) = (first.entries.last(), &first.from) {
            let (number, changes) = (newest.generation.0, changes.join("; "));
            warn!("the document is not what ran last (generation {number}, `kakei rollback {number}`): {changes}");
        }
        self.names.want(document.hosts());
        self.names.first().await;
        let purpose = match first.from {
            Origin::Asked => Purpose::Start,
            Origin::Kept(_) | Origin::TakenBack => Purpose::Again,
        };
        let loaded = self.load(document, purpose).map_err(StartError::Refused)?;
        loaded.warnings.iter().for_each(|warning| warn!("{warning}"));
        let entry = first.asked.entry(first.generation, changes, None, self.system.now());
        let entry = (!matches!(first.from, Origin::Kept(_))).then_some(entry);
        let keep = entry.as_ref().map(|entry| Keep { entry, changes: &diff });
        self.publish(first.checked, first.generation, loaded.certificates, keep).map_err(StartError::Refused)?;
        first.entries.into_iter().for_each(|entry| self.view.history.push(entry));
        let before = self.view.history.entries().next_back().map(|entry| entry.generation).unwrap_or_default();
        let line = entry
            .as_ref()
            .map(|entry| Record::of(&first.asked, before).done(Came::Applied, entry.generation, entry.changes.clone()));
        self.acknowledge(entry).await.map_err(StartError::Refused)?;
        line.into_iter().for_each(|line| self.doors.audit.write(&line));
        match first.from {
            // What went wrong was logged.
            Origin::Asked => drop(self.apply_whole()),
            Origin::Kept(Some(waits)) => {
                self.mind_applied();
                let (entry, left, before) = *waits;
                info!("generation {} waits to be confirmed for {} s more", entry.generation.0, left.as_secs());
                self.resume_confirmation(entry, left, before);
            }
            Origin::Kept(None) | Origin::TakenBack => self.mind_applied(),
        }
        info!("generation {} runs on {} worker(s)", self.view.generation().0, self.view.workers);
        Ok(())
    }
}
