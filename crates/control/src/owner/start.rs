//! Bringing the control thread up: engine, side doors, first generation; all of it or an error. Holds no state after.

use std::sync::Arc;
use std::thread::JoinHandle;

use kakei_config::{Document, WorkerCount};
use kakei_proxy::secure::LIFETIME;
use kakei_proxy::snapshot::{Generation, Shared};
use kakei_proxy::worker::{Role, Worker};
use kakei_runtime::engine::{Engine, EngineConfig};
use kakei_runtime::step::Step;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use super::ask::Bell;
use super::{Counts, Owner};
use crate::access_log::LogWriter;
use crate::api;
use crate::certificates::{Certificates, Purpose};
use crate::handle::{Handle, Request};
use crate::names::Names;
use crate::refusal::Refusal;
use crate::serve::{self, Door, DoorError};
use crate::store::{Store, StoreError};
use crate::view::View;

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
    /// The generation that the document gets; none: one more than the state directory holds, or 1.
    pub generation: Option<Generation>,
    /// Seeds everything random, and keys the balancers' hashes.
    pub seed: u64,
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
    pub fn start(options: Options) -> Result<Self, StartError> {
        let (ready, started) = oneshot::channel();
        let body = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(StartError::Thread(error)))),
            };
            runtime.block_on(live(options, ready));
        };
        let thread =
            std::thread::Builder::new().name("kakei-control".into()).spawn(body).map_err(StartError::Thread)?;
        match crate::wait(started) {
            Ok(handle) => Ok(Control { handle: handle?, thread }),
            Err(_) => Err(StartError::Engine("the control thread ended".into())),
        }
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

type Ready = oneshot::Sender<Result<Handle, StartError>>;

async fn live(options: Options, ready: Ready) {
    let doors = options.document.admin.clone();
    let (requests, queue) = mpsc::channel::<Request>(QUEUE);
    let begun = async {
        let mut owner = begin(options, Worker::new)?;
        let handle = Handle { requests, view: owner.0.watchers.subscribe() };
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
        Err(error) => return drop(ready.send(Err(error))),
    };
    let mut side = tokio::task::JoinSet::new();
    if let Some(door) = door {
        side.spawn(door.serve(api::router(handle.clone())));
    }
    if let Some(metrics) = metrics {
        side.spawn(serve::serve_tcp(metrics, api::public_router(handle.clone())));
    }
    if ready.send(Ok(handle)).is_ok() {
        owner.run(queue).await;
    }
    side.shutdown().await;
}

/// The owner with its engine, running nothing yet; and the first generation.
pub(super) fn begin<W, F>(options: Options, make: F) -> Result<(Owner, First), StartError>
where
    W: Step,
    F: Fn(Role) -> W + Clone + Send + 'static,
{
    let Options { document, origin, generation, seed } = options;
    let workers = match document.workers.count {
        WorkerCount::Fixed(count) => count,
        WorkerCount::Auto => std::thread::available_parallelism().map_or(1, |n| n.get().min(1024) as u16),
    };
    let store = document.admin.state.as_deref().map(Store::open).transpose()?;
    let generation = match (generation, &store) {
        (Some(generation), _) => generation,
        (None, Some(store)) => Generation(store.load()?.map_or(0, |(kept, _)| kept.0) + 1),
        (None, None) => Generation(1),
    };
    let config = EngineConfig { workers, pin: document.workers.pin, seed, records: RECORDS };
    let mut engine = Engine::start_with(config, make).map_err(|error| StartError::Engine(error.to_string()))?;
    let bell = Bell::of(&engine).map_err(StartError::Thread)?;
    let records = engine.records().expect("a fresh engine has its records to give");
    let log = LogWriter::start(records).map_err(StartError::Thread)?;
    let shared = Shared { workers, balance_seed: seed };
    let view = View::new(Document::default(), Generation(0), shared);
    let owner = Owner {
        engine,
        bell,
        next_ticket: 0,
        running: vec![Generation(0); usize::from(workers)],
        log,
        store,
        names: Names::start(),
        certificates: Certificates::default(),
        rotation: rotation(),
        watchers: watch::Sender::new(Arc::new(view.clone())),
        view,
        drain: None,
        counts: Counts::default(),
    };
    Ok((owner, First { document, generation, origin }))
}

/// When session tickets get a new key: half as often as one may be kept, since the last key but one goes then.
fn rotation() -> tokio::time::Interval {
    let period = std::time::Duration::from_secs(u64::from(LIFETIME) / 2);
    tokio::time::interval_at(tokio::time::Instant::now() + period, period)
}

pub(super) struct First {
    document: Document,
    generation: Generation,
    origin: &'static str,
}

impl Owner {
    pub(super) async fn publish_first(&mut self, first: First) -> Result<(), StartError> {
        let changes: Vec<String> =
            kakei_config::diff(&self.view.document, &first.document).iter().map(ToString::to_string).collect();
        self.names.want(first.document.hosts());
        self.names.first().await;
        let loaded = self.load(&first.document, Purpose::Start).map_err(StartError::Refused)?;
        loaded.warnings.iter().for_each(|warning| warn!("{warning}"));
        self.publish(first.document, first.generation, loaded.certificates).map_err(StartError::Refused)?;
        self.confirm(first.origin, changes).await.map_err(StartError::Refused)?;
        info!("generation {} runs on {} worker(s)", first.generation.0, self.view.workers);
        Ok(())
    }
}
