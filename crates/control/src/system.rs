//! What the owner stands on: workers, a disk, host names, and the clock on the wall. The program has them of the operating
//! system; whoever tries the owner makes them up. Decides nothing.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::SystemTime;

use kakei_proxy::seam::{BindKey, Command, Ticket};
use kakei_proxy::snapshot::Snapshot;
use kakei_proxy::worker::Role;
use kakei_runtime::engine::{BindError, CommandError, Engine, EngineConfig, EngineEvent, Prepared, StartError};
use kakei_runtime::records::RecordReader;
use kakei_runtime::stats::MachineStats;
use kakei_runtime::step::Step;
use tokio::io::unix::AsyncFd;

use crate::names::Names;
use crate::store::{Store, StoreError};

/// Where workers, generations, host names and the time come from.
pub trait System {
    /// The workers.
    type Workers: Workers;

    /// Start the workers. They listen nowhere until something is published.
    ///
    /// # Errors
    /// When the system refuses what they need.
    fn start(&mut self, config: EngineConfig) -> Result<Self::Workers, StartError>;

    /// Where generations are kept, given the document's state directory.
    ///
    /// # Errors
    /// When it can't be used.
    fn store(&mut self, state: Option<&str>) -> Result<Store, StoreError>;

    /// Who looks host names up.
    fn names(&mut self) -> Names;

    /// What the clock on the wall says.
    fn now(&self) -> SystemTime;
}

/// The workers and what they listen on, as the contract of [`Engine`] has it.
pub trait Workers {
    /// Front sockets that are bound and wait for their snapshot. Dropped, those that are new are closed.
    type Prepared;

    /// Bind those of `binds` that are not bound yet, all or none.
    ///
    /// # Errors
    /// When one of them can't be bound.
    fn prepare(&mut self, binds: &[BindKey]) -> Result<Self::Prepared, BindError>;

    /// Hand the snapshot to every worker that lives, each of which answers the ticket.
    ///
    /// # Errors
    /// When one of them is busy; then none was told.
    fn publish(
        &mut self,
        ticket: Ticket,
        snapshot: Arc<Snapshot>,
        prepared: Self::Prepared,
    ) -> Result<(), CommandError>;

    /// Ask one worker something.
    ///
    /// # Errors
    /// When it can't be told.
    fn send(&mut self, worker: u16, ticket: Ticket, command: Command) -> Result<(), CommandError>;

    /// What a worker says next. Dropping the future loses nothing.
    fn event(&mut self) -> impl Future<Output = EngineEvent>;

    /// The address that a bind really has; none where it isn't bound.
    fn local_addr(&self, bind: BindKey) -> Option<SocketAddr>;

    /// The records of what ended, once; none where nobody makes any.
    fn records(&mut self) -> Option<RecordReader>;

    /// What a worker's machine counts.
    fn machine_stats(&self, worker: u16) -> Option<MachineStats>;

    /// Stop all workers at once.
    fn stop(self);
}

/// The operating system.
#[derive(Debug)]
pub(crate) struct Real<F> {
    make: F,
}

impl<F> Real<F> {
    /// With workers that are made by this.
    pub(crate) fn of(make: F) -> Self {
        Real { make }
    }
}

impl<W: Step, F: Fn(Role) -> W + Clone + Send + 'static> System for Real<F> {
    type Workers = Threads;

    fn start(&mut self, config: EngineConfig) -> Result<Threads, StartError> {
        Ok(Threads::of(Engine::start_with(config, self.make.clone())?)?)
    }

    fn store(&mut self, state: Option<&str>) -> Result<Store, StoreError> {
        state.map_or_else(|| Ok(Store::in_memory()), Store::open)
    }

    fn names(&mut self) -> Names {
        Names::start()
    }

    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// The engine, and its event descriptor watched by the control thread's reactor.
#[derive(Debug)]
pub(crate) struct Threads {
    engine: Engine,
    bell: AsyncFd<OwnedFd>,
}

impl Threads {
    #[expect(deprecated, reason = "its unsafe successor asks for what an OwnedFd gives anyway")]
    fn of(engine: Engine) -> io::Result<Self> {
        let bell = AsyncFd::new(engine.events_fd()?)?;
        Ok(Threads { engine, bell })
    }
}

impl Workers for Threads {
    type Prepared = Prepared;

    fn prepare(&mut self, binds: &[BindKey]) -> Result<Prepared, BindError> {
        self.engine.prepare(binds)
    }

    fn publish(&mut self, ticket: Ticket, snapshot: Arc<Snapshot>, prepared: Prepared) -> Result<(), CommandError> {
        self.engine.publish(ticket, snapshot, prepared)
    }

    fn send(&mut self, worker: u16, ticket: Ticket, command: Command) -> Result<(), CommandError> {
        self.engine.send(worker, ticket, command)
    }

    async fn event(&mut self) -> EngineEvent {
        loop {
            if let Some(event) = self.engine.try_event() {
                return event;
            }
            let Ok(mut guard) = self.bell.readable().await else {
                // The reactor is going away, and this future with it.
                return std::future::pending().await;
            };
            if let Some(event) = self.engine.try_event() {
                return event;
            }
            guard.clear_ready();
        }
    }

    fn local_addr(&self, bind: BindKey) -> Option<SocketAddr> {
        self.engine.local_addr(bind)
    }

    fn records(&mut self) -> Option<RecordReader> {
        self.engine.records()
    }

    fn machine_stats(&self, worker: u16) -> Option<MachineStats> {
        self.engine.machine_stats(worker)
    }

    fn stop(self) {
        self.engine.stop();
    }
}
