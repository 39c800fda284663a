//! Asking workers, and waiting for their answers with a bound. What a worker is asked is decided elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use kakei_proxy::seam::{Command, Reply, Ticket};
use kakei_runtime::engine::EngineEvent;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::Owner;
use crate::system::{System, Workers};

impl<S: System> Owner<S> {
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
            let Ok(event) = timeout_at(until, self.engine.event()).await else { break };
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
            let Ok(event) = timeout_at(until, self.engine.event()).await else { return };
            self.on_event(event);
        }
    }

    /// Where the workers drain, have them end what is alive and write it down, and wait until all have, or the time is
    /// over.
    pub(super) async fn cut_drain_short(&mut self, within: Duration) {
        let goes_on = |drain: &Option<super::Drain>| drain.as_ref().is_some_and(|drain| !drain.left.is_empty());
        if goes_on(&self.drain) {
            let workers = 0..self.view.workers;
            workers.for_each(|worker| self.tell(worker, Command::Drain { within: Some(Duration::ZERO) }));
        }
        let until = Instant::now() + within;
        while goes_on(&self.drain) {
            let Ok(event) = timeout_at(until, self.engine.event()).await else { return };
            self.on_event(event);
        }
    }
}
