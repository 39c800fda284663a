//! What runs, for everyone who only wants to look: readers never wait for a transaction or a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kakei_config::{Document, Name, Sorted};
use kakei_proxy::seam::BindKey;
use kakei_proxy::secure::Certificate;
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};

use crate::certificates::Certificates;
use crate::drains::Cuts;
use crate::health::HealthView;
use crate::history::History;

/// What runs.
#[derive(Clone, Debug)]
pub struct View {
    /// The operator's document.
    pub document: Arc<Document>,
    /// The same with addresses in the place of host names.
    pub resolved: Arc<Document>,
    /// What it was compiled into.
    pub snapshot: Arc<Snapshot>,
    /// Whether every worker has said that it runs this generation.
    pub acknowledged: bool,
    /// The verdicts of active health checks.
    pub health: HealthView,
    /// The generations so far.
    pub history: History,
    /// Where each bind really is: port 0 resolved.
    pub locals: Arc<BTreeMap<BindKey, SocketAddr>>,
    /// Whether the process drains.
    pub draining: bool,
    /// Workers whose thread has ended for good, which none should.
    pub stopped: BTreeSet<u16>,
    /// How many workers there are.
    pub workers: u16,
    /// The certificates that run, by name.
    pub certificates: Sorted<Name, Arc<Certificate>>,
    /// Where the admin API is over TCP: port 0 resolved.
    pub api: Option<SocketAddr>,
    /// What was ended because something was changed under it.
    pub cuts: Arc<Cuts>,
    /// When the process started.
    pub started: Instant,
}

impl View {
    /// A view of a document that nothing runs: what to look things up in without a proxy.
    pub fn of(document: Document) -> Self {
        View::new(document, Generation(0), Shared { workers: 1, balance_seed: 0 })
    }

    /// A view of a document that no worker has acknowledged.
    pub(crate) fn new(document: Document, generation: Generation, shared: Shared) -> Self {
        View {
            snapshot: Arc::new(Snapshot::compile(&document, generation, shared, None)),
            resolved: Arc::new(document.clone()),
            document: Arc::new(document),
            acknowledged: false,
            health: HealthView::default(),
            history: History::default(),
            locals: Arc::default(),
            draining: false,
            stopped: BTreeSet::new(),
            workers: shared.workers,
            certificates: Sorted::default(),
            api: None,
            cuts: Arc::default(),
            started: Instant::now(),
        }
    }

    /// The same with what its document names and doesn't hold.
    pub(crate) fn with(mut self, certificates: &Certificates) -> Self {
        let Snapshot { generation, shared, .. } = *self.snapshot;
        let materials = certificates.materials();
        self.snapshot = Arc::new(Snapshot::compile_with(&self.document, generation, shared, None, materials));
        self.certificates = certificates.all().clone();
        self
    }

    /// The generation that runs.
    pub fn generation(&self) -> Generation {
        self.snapshot.generation
    }

    /// Whether clients may be sent here.
    pub fn ready(&self) -> bool {
        self.acknowledged && !self.draining && self.stopped.is_empty()
    }

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The addresses of a listener as they really are, in the order of the document.
    pub fn local_addrs(&self, binds: &[BindKey]) -> Vec<SocketAddr> {
        binds.iter().map(|bind| self.locals.get(bind).copied().unwrap_or(bind.address)).collect()
    }
}
