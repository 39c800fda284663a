//! Asking workers, and waiting for their answers with a bound. What a worker is asked is decided elsewhere.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use kakei_proxy::seam::{Command, Reply, Ticket};
use kakei_runtime::engine::{Engine, EngineEvent};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::Owner;

/// The engine's event descriptor, watched by the control thread's reactor.
pub(super) struct Bell(AsyncFd<OwnedFd>);

impl Bell {
    #[expect(deprecated, reason = "its unsafe successor asks for what an OwnedFd gives anyway")]
    pub(super) fn of(engine: &Engine) -> io::Result<Self> {
        Ok(Bell(AsyncFd::new(engine.events_fd()?)?))
    }
}

/// The engine's next event. Dropping the future loses none.
pub(super) async fn next(engine: &mut Engine, bell: &Bell) -> EngineEvent {
    loop {
        if let Some(event) = engine.try_event() {
            return event;
        }
        let Ok(mut guard) = bell.0.readable().await else {
            // The reactor is going away, and this future with it.
            return std::future::pending().await;
        };
        if let Some(event) = engine.try_event() {
            return event;
        }
        guard.clear_ready();
    }
}

impl Owner {
    /// Send a command whose answer nobody waits for.
    pub(super) fn tell(&mut self, worker: u16, command: Command) {
        let ticket = self.ticket();
        if let Err(error) = self.engine.send(worker, ticket, command) {
            warn!("worker {worker} was not told: {error}");
        }
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// Ask every worker and wait for all answers; a worker that died or has not answered by then has none.
    pub(super) async fn ask_all(&mut self, command: &Command, within: Duration) -> BTreeMap<u16, Reply> {
        let mut waiting: BTreeMap<u16, Ticket> = BTreeMap::new();
        for worker in 0..self.view.workers {
            let ticket = self.ticket();
            if self.engine.send(worker, ticket, command.clone()).is_ok() {
                waiting.insert(worker, ticket);
            }
        }
        let mut answers = BTreeMap::new();
        let until = Instant::now() + within;
        while !waiting.is_empty() {
            let Ok(event) = timeout_at(until, next(&mut self.engine, &self.bell)).await else { break };
            match event {
                EngineEvent::Reply { worker, ticket, reply } if waiting.get(&worker) == Some(&ticket) => {
                    waiting.remove(&worker);
                    answers.insert(worker, reply);
                }
                EngineEvent::WorkerPanicked { worker, .. } | EngineEvent::WorkerStopped { worker, .. } => {
                    waiting.remove(&worker);
                    self.on_event(event);
                }
                other => self.on_event(other),
            }
        }
        answers
    }

    /// Wait until every worker runs the view's generation, or the time is over.
    pub(super) async fn wait_acknowledged(&mut self, within: Duration) {
        let until = Instant::now() + within;
        while !self.view.acknowledged {
            let Ok(event) = timeout_at(until, next(&mut self.engine, &self.bell)).await else { return };
            self.on_event(event);
        }
    }
}
