//! A worker on a simulated machine of streams: given what happened, taken at its word, written down and read back. The
//! same for every world of streams; knows neither who is at the other end of one nor what must hold of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use kakei_proxy::seam::{Command, Event, Inbox, Instant, Op, Outbox, Reply, SocketId, Span, Ticket};
use kakei_proxy::snapshot::Snapshot;
use kakei_proxy::worker::{Role, Worker};

/// Steps that a worker may ask for at once before it is said never to come to rest.
const ROUNDS: u32 = 200;

/// The machine's side of streams, carried out to the letter.
pub(crate) trait Host {
    /// Who is at the other end of its streams, and what is known of them.
    type Scene: Scene;

    /// Where it keeps what the next step is told.
    fn desk(&mut self) -> &mut Desk;

    /// Carry out what a step asked for.
    fn carry_out(&mut self, now: Instant, out: &Outbox, scene: &mut Self::Scene);

    /// The worker is about to be another one: what that doesn't take over is nobody's.
    fn leave(&mut self);

    /// The other one asked for what it takes over, which has new names: whatever names it is to use those.
    fn take_over(&mut self, scene: &mut Self::Scene);
}

/// What a host's streams lead to.
pub(crate) trait Scene {
    /// A worker made a step.
    fn stepped(&mut self);

    /// What was wrong so far.
    fn violations(&mut self) -> &mut Vec<String>;
}

/// What the next step is told, and its bytes.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    arena: Vec<u8>,
    pub(crate) pending: VecDeque<Event>,
    blocked: Vec<(SocketId, Vec<u8>)>,
    /// During a hand-over: what names streams as the worker before did.
    left: Left,
}

/// See [`Desk`].
#[derive(Debug, Default)]
struct Left {
    pending: VecDeque<Event>,
    blocked: Vec<(SocketId, Vec<u8>)>,
}

impl Desk {
    /// Begin with what the next step is told.
    pub(crate) fn clear(&mut self, events: &mut Vec<Event>) {
        self.arena.clear();
        events.extend(self.pending.drain(..));
    }

    /// Bytes that came.
    pub(crate) fn put(&mut self, bytes: impl IntoIterator<Item = u8>) -> Span {
        let start = self.arena.len();
        self.arena.extend(bytes);
        Span { start: start as u32, len: (self.arena.len() - start) as u32 }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.arena
    }

    /// What was not taken of a write.
    pub(crate) fn block(&mut self, socket: SocketId, rest: &[u8]) {
        self.blocked.push((socket, rest.to_vec()));
    }

    /// Several writes of one step go out together: whether this one follows another that was not taken whole.
    pub(crate) fn follows_blocked(&mut self, socket: SocketId, bytes: &[u8]) -> bool {
        let rest = self.blocked.iter_mut().find(|(blocked, _)| *blocked == socket);
        rest.map(|(_, rest)| rest.extend_from_slice(bytes)).is_some()
    }

    /// A stream is gone.
    pub(crate) fn forget(&mut self, socket: SocketId) {
        self.blocked.retain(|(blocked, _)| *blocked != socket);
    }

    /// What was not taken, for the very next step.
    fn tell_blocked(&mut self, events: &mut Vec<Event>) {
        if self.blocked.is_empty() {
            return;
        }
        self.arena.clear();
        for (socket, rest) in std::mem::take(&mut self.blocked) {
            let rest = self.put(rest);
            events.push(Event::Blocked { socket, rest });
        }
    }

    /// From now on names are another worker's.
    fn leave(&mut self) {
        self.left = Left { pending: std::mem::take(&mut self.pending), blocked: std::mem::take(&mut self.blocked) };
    }

    /// What is still to be told from before is told under new names, or to nobody where there is none.
    pub(crate) fn rename(&mut self, renamed: &BTreeMap<SocketId, SocketId>) {
        let Left { pending, blocked } = std::mem::take(&mut self.left);
        let pending = pending.into_iter().filter_map(|mut event| {
            if let Event::Opened { socket, .. } | Event::OpenFailed { socket, .. } | Event::Drained { socket } =
                &mut event
            {
                *socket = *renamed.get(socket)?;
            }
            Some(event)
        });
        let blocked = blocked.into_iter().filter_map(|(socket, rest)| Some((*renamed.get(&socket)?, rest)));
        let now = (std::mem::take(&mut self.pending), std::mem::take(&mut self.blocked));
        self.pending = pending.chain(now.0).collect();
        self.blocked = blocked.chain(now.1).collect();
    }
}

/// A worker, and what it is on.
pub(crate) struct Driven<H> {
    role: Role,
    worker: Worker,
    pub(crate) host: H,
    pub(crate) events: Vec<Event>,
    out: Outbox,
    wake: Option<Instant>,
}

impl<H: Host> Driven<H> {
    /// A worker that is told to begin with a generation.
    pub(crate) fn new(role: Role, host: H, snapshot: &Arc<Snapshot>) -> Self {
        let publish = Event::Command { ticket: Ticket(0), command: Command::Publish(Arc::clone(snapshot)) };
        let worker = Worker::new(role);
        Driven { role, worker, host, events: vec![publish], out: Outbox::default(), wake: None }
    }

    /// Give the worker everything, carry out what it asks for, and go on while that must not wait.
    pub(crate) fn step(&mut self, now: Instant, scene: &mut H::Scene) -> Vec<Op> {
        let mut all = Vec::new();
        for round in 0.. {
            all.extend(self.step_once(now, scene));
            if round > ROUNDS {
                scene.violations().push("the worker never comes to rest".to_owned());
            }
            if !self.is_behind(now) || !scene.violations().is_empty() {
                return all;
            }
        }
        all
    }

    /// One step of it, which leaves what was not taken to the next one.
    pub(crate) fn step_once(&mut self, now: Instant, scene: &mut H::Scene) -> Vec<Op> {
        self.give(now, scene);
        self.host.desk().tell_blocked(&mut self.events);
        self.out.ops.clone()
    }

    fn give(&mut self, now: Instant, scene: &mut H::Scene) {
        self.out.clear();
        let inbox = Inbox { events: &mut self.events, bytes: self.host.desk().bytes(), wall: crate::wall_at(now) };
        self.wake = self.worker.step(now, inbox, &mut self.out);
        scene.stepped();
        self.host.carry_out(now, &self.out, scene);
    }

    /// Whether it must not wait.
    pub(crate) fn is_behind(&self, now: Instant) -> bool {
        !self.events.is_empty() || self.wake == Some(now)
    }

    pub(crate) fn command(&mut self, now: Instant, command: Command, scene: &mut H::Scene) -> Vec<Op> {
        self.events.push(Event::Command { ticket: Ticket(1), command });
        self.step(now, scene)
    }

    /// Write the worker down as text at the end of the next step, and go on with one that was read back. What both asked
    /// for.
    pub(crate) fn hand_over(
        &mut self,
        now: Instant,
        (seed, snapshot): (u64, &Snapshot),
        scene: &mut H::Scene,
    ) -> Vec<Op> {
        self.events.push(Event::Command { ticket: Ticket(2), command: Command::Snapshot });
        self.give(now, scene);
        let mut ops = self.out.ops.clone();
        match self.read_back(now, seed, snapshot) {
            Ok(worker) => self.worker = worker,
            Err(wrong) => scene.violations().push(wrong),
        }
        self.host.leave();
        self.host.desk().leave();
        self.out.clear();
        let mut none = Vec::new();
        self.wake =
            self.worker.step(now, Inbox { events: &mut none, bytes: &[], wall: crate::wall_at(now) }, &mut self.out);
        self.host.carry_out(now, &self.out, scene);
        self.host.take_over(scene);
        self.host.desk().tell_blocked(&mut self.events);
        ops.extend(self.out.ops.iter().cloned());
        ops
    }

    fn read_back(&self, now: Instant, seed: u64, snapshot: &Snapshot) -> Result<Worker, String> {
        let state = self.out.ops.iter().find_map(|op| match op {
            Op::Reply { reply: Reply::State(state), .. } => Some(state),
            _ => None,
        });
        let text = serde_json::to_string(state.ok_or("no state was given")?);
        let state = text.and_then(|text| serde_json::from_str(&text));
        let state = state.map_err(|error| format!("a state that can't be read: {error}"))?;
        let restored = Worker::restore(Role { seed, ..self.role }, now, state, snapshot);
        restored.map_err(|error| format!("a state that is refused: {error}"))
    }
}

/// The counters among what was asked for.
pub(crate) fn stats(ops: &[Op]) -> Option<&kakei_proxy::stats::Stats> {
    ops.iter().find_map(|op| match op {
        Op::Reply { reply: Reply::Stats(stats), .. } => Some(&**stats),
        _ => None,
    })
}
