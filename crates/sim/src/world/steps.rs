//! When workers are stepped, and what becomes of what they ask for.

use std::time::Duration;

use kakei_proxy::seam::{Command, Event, Instant};

use super::{Happening, Place, World};
use crate::machine::{Batch, Effect, Outgoing};
use crate::network::{Carried, Packet};

/// Steps in a row at one instant without an event before it is called a busy loop.
const BUSY: u32 = 2_000;

/// When a worker is stepped next.
#[derive(Debug, Default)]
pub(super) struct Pace {
    due: Option<Instant>,
    serial: u64,
    /// The wake-up that the worker asked for last.
    pub(super) wake: Option<Instant>,
    /// Steps in a row without an event and without time passing.
    idle_steps: u32,
    last: Instant,
}

impl World {
    /// Something happened for this worker: it is stepped soon.
    pub(super) fn wake(&mut self, worker: usize) {
        let lateness = self.profile.machine.lateness.as_micros() as u64;
        let soon = Duration::from_micros(self.rng.u64(0..=lateness / 2 + 20));
        self.step_at(worker, self.now + soon);
    }

    fn step_at(&mut self, worker: usize, at: Instant) {
        let pace = &mut self.paces[worker];
        if pace.due.is_some_and(|due| due <= at) {
            return;
        }
        pace.due = Some(at);
        pace.serial += 1;
        self.agenda.at(at, Happening::Step { worker, serial: pace.serial });
    }

    /// A worker takes a step.
    pub(super) fn step(&mut self, worker: usize, serial: u64) {
        let pace = &mut self.paces[worker];
        if pace.serial != serial {
            return;
        }
        pace.due = None;
        let quiet = pace.wake.is_none_or(|wake| wake > self.now);
        let (mut batch, more) = self.machines[worker].collect(&mut self.host, quiet);
        let (events, given) = (batch.events.len(), batch.given.len());
        let publishing = published_in(&batch);
        let index = worker as u16;
        self.truth.step_begins(index, self.now, &batch, publishing.map(|generation| generation - 1));
        self.trace_batch(worker, &batch);
        let mut stepped = self.machines[worker].step(self.now, &mut self.host, &mut batch);
        for effect in std::mem::take(&mut stepped.effects) {
            self.carry_out(worker, effect);
        }
        self.truth.step_ends(index, given + events, &stepped);
        let pace = &mut self.paces[worker];
        pace.wake = stepped.wake;
        let idle = events == 0 && pace.last == self.now;
        pace.idle_steps = if idle { pace.idle_steps + 1 } else { 0 };
        pace.last = self.now;
        if pace.idle_steps > BUSY {
            self.truth.violated(Some(index), format!("steps in circles: wake-up {:?} again and again", stepped.wake));
        }
        self.schedule_next(worker, more);
    }

    fn schedule_next(&mut self, worker: usize, more: bool) {
        let pending = self.machines[worker].has_pending() || self.machines[worker].is_adopting();
        let wake = self.paces[worker].wake;
        if more || pending || wake.is_some_and(|wake| wake <= self.now) {
            let pause = if self.rng.bool() { 0 } else { self.rng.u64(1..=30) };
            self.step_at(worker, self.now + Duration::from_micros(pause));
        } else if let Some(wake) = wake {
            let lateness = self.profile.machine.lateness.as_micros() as u64;
            let late = if self.rng.u8(0..3) == 0 { 0 } else { self.rng.u64(0..=lateness) };
            self.step_at(worker, wake + Duration::from_micros(late));
        }
    }

    fn carry_out(&mut self, worker: usize, effect: Effect) {
        let index = worker as u16;
        match effect {
            Effect::Sent(out) => {
                self.truth.sent(index, &out);
                self.trace_sent(worker, &out, "sends");
                let place = if out.front { Place::Client } else { Place::Backend };
                self.put_on_wire(Packet { from: out.from, to: out.to, what: Carried::Datagram(out.bytes) }, place);
            }
            Effect::NotSent(out, error) => {
                self.truth.not_sent(index, &out);
                self.trace.line(self.now, || format!("worker {worker} can't send to {}: {error:?}", out.to));
            }
            Effect::Reply(ticket, reply) => self.answered(worker, ticket, reply),
            Effect::Notice(notice) => self.noticed(worker, notice),
            Effect::Record(record) => {
                self.trace.line(self.now, || format!("worker {worker} {record:?}"));
                self.trace.fold(self.now, record.reason.name().as_bytes());
                self.truth.record(index, &record);
            }
            Effect::Stream { serial, remote } => {
                let up = self.backends.is_up(remote, self.now);
                let cut_off = self.network.is_cut_off(remote.ip(), self.now);
                let error = (!up).then_some(kakei_proxy::seam::OpenError::Unreachable);
                let after = self.network.delay(remote.ip(), remote.ip()) * 2;
                if !cut_off {
                    self.agenda.at(self.now + after, Happening::Stream { worker, serial, error });
                }
            }
            Effect::OpenFailed => self.truth.counters.open_failures += 1,
            Effect::Misuse(what) => self.truth.violated(Some(index), what),
        }
    }

    fn trace_sent(&mut self, worker: usize, out: &Outgoing, verb: &str) {
        let head = &out.bytes[..out.bytes.len().min(48)];
        self.trace.fold(self.now, head);
        self.trace.fold(self.now, &out.to.port().to_le_bytes());
        self.trace.fold(self.now, &out.from.port().to_le_bytes());
        let truth = &self.truth;
        self.trace.line(self.now, || {
            let what = crate::payload::identify(&out.bytes);
            let what =
                truth.ledger.locate(&out.bytes).map_or_else(|| format!("{what:?}"), |l| format!("request {}", l.id));
            format!("worker {worker} {verb} {what} ({} B) {} -> {}", out.bytes.len(), out.from, out.to)
        });
    }

    fn trace_batch(&mut self, worker: usize, batch: &Batch) {
        if batch.events.is_empty() {
            return;
        }
        let truth = &self.truth;
        for event in &batch.events {
            if !matches!(event, Event::Datagram(_)) {
                self.trace.line(self.now, || match event {
                    Event::Command { command: Command::Publish(snapshot), .. } => {
                        format!("worker {worker} is given generation {}", snapshot.generation.0)
                    }
                    _ => format!("worker {worker} gets {event:?}"),
                });
            }
        }
        for given in &batch.given {
            self.trace.line(self.now, || {
                let what = crate::payload::identify(&given.bytes);
                let what = truth
                    .ledger
                    .locate(&given.bytes)
                    .map_or_else(|| format!("{what:?}"), |l| format!("request {}", l.id));
                format!("worker {worker} gets {what} ({} B) {} -> {}", given.bytes.len(), given.peer, given.local)
            });
        }
    }
}

fn published_in(batch: &Batch) -> Option<u64> {
    batch.events.iter().find_map(|event| match event {
        Event::Command { command: Command::Publish(snapshot), .. } => Some(snapshot.generation.0),
        _ => None,
    })
}
