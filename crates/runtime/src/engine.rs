//! The engine: the workers' threads, the front sockets, and the mailboxes in between. Carries out what the control
//! side decides; decides nothing.
//!
//! One owner drives it: [`Engine::prepare`] binds what a new generation needs, [`Engine::publish`] hands it to every
//! worker, [`Engine::send`] asks one worker something; what comes back is read by [`Engine::try_event`] whenever the
//! engine's descriptor is readable.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use kakei_proxy::seam::{BindKey, Command, Notice, Reply, Ticket, Transport};
use kakei_proxy::snapshot::{Generation, Snapshot};
use kakei_proxy::worker::{Role, Worker};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::beside::{Answers, Bench};
use crate::front::{self, Group};
pub use crate::front::{BindError, BindReason};
use crate::machine::{Machine, message_of, mix};
use crate::mailbox::{self, Counter, Desk, Line, OUTSTANDING, Order, Report};
use crate::records::{self, Gate, RecordReader};
use crate::stats::{MachineStats, SharedStats};
use crate::step::Step;
use crate::wake::Wake;

/// How the engine is set up. It stays so until it is stopped.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// How many workers, at least 1.
    pub workers: u16,
    /// Whether worker n runs on the n-th core that this process may use.
    pub pin: bool,
    /// Seeds the workers, each differently.
    pub seed: u64,
    /// Access-log records that each worker may have waiting; 0: records are thrown away, uncounted.
    pub records: usize,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There must be a worker.
    #[error("at least one worker is needed")]
    NoWorkers,
    /// The system refused a thread or a descriptor.
    #[error("the system refused what a worker needs: {0}")]
    System(#[from] io::Error),
}

/// Why a command was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such worker.
    #[error("there is no worker {0}")]
    NoWorker(u16),
    /// It has too many unanswered commands.
    #[error("worker {0} has too many unanswered commands")]
    Busy(u16),
    /// Its thread has ended.
    #[error("worker {0} has stopped")]
    Stopped(u16),
    /// An address of what was to be published could not be had.
    #[error("{0}")]
    Bind(#[from] BindError),
}

/// What the workers say.
#[derive(Debug)]
pub enum EngineEvent {
    /// The answer to a command.
    Reply {
        /// Who answers.
        worker: u16,
        /// Which command.
        ticket: Ticket,
        /// The answer.
        reply: Reply,
    },
    /// Something unasked.
    Notice {
        /// Who says it.
        worker: u16,
        /// What.
        notice: Notice,
    },
    /// A worker panicked. Its flows are gone; a fresh one is being made.
    WorkerPanicked {
        /// Which.
        worker: u16,
        /// What the panic said.
        message: String,
        /// Commands that will never be answered.
        unanswered: Vec<Ticket>,
    },
    /// The fresh worker after a panic runs the snapshot that was published last.
    WorkerRestarted {
        /// Which.
        worker: u16,
        /// What it runs.
        generation: Generation,
    },
    /// A worker's thread has ended for good.
    WorkerStopped {
        /// Which.
        worker: u16,
        /// Why, where that was not [`Engine::stop`].
        error: Option<String>,
    },
}

/// Front sockets that are bound and wait for their snapshot. Dropped, it closes those that are new, and nothing that
/// runs has noticed: nobody listens on them yet, and what would take datagrams from a socket of ours is not bound yet.
#[derive(Debug)]
pub struct Prepared {
    groups: Vec<Arc<Group>>,
    /// Those that would.
    late: Vec<BindKey>,
}

impl Prepared {
    /// The address that a bind really has, its port taken where 0 was asked for.
    pub fn local_addr(&self, bind: BindKey) -> Option<SocketAddr> {
        self.groups.iter().find(|group| group.bind == bind).map(|group| group.local)
    }
}

/// One worker's thread as the engine sees it.
#[derive(Debug)]
struct Hand {
    counter: Counter,
    thread: Option<JoinHandle<Result<(), String>>>,
    outstanding: usize,
}

/// The workers and what they listen on.
#[derive(Debug)]
pub struct Engine {
    hands: Vec<Hand>,
    /// Every bind whose sockets are open: those of the snapshot, and those that some worker still drains.
    groups: HashMap<BindKey, Arc<Group>>,
    current: Option<Arc<Snapshot>>,
    /// Some group is not wanted any more.
    leaving: bool,
    /// The workers were told to drain: no bind is wanted any more.
    ending: bool,
    wake: Arc<Wake>,
    gate: Arc<Gate>,
    records: Option<RecordReader>,
    /// What takes milliseconds, for all workers.
    bench: Bench,
    turn: usize,
}

impl Engine {
    /// Start the workers. They listen nowhere until the first [`Engine::publish`].
    pub fn start(config: EngineConfig) -> Result<Engine, StartError> {
        Engine::start_with(config, Worker::new)
    }

    /// Start with workers of another kind, for tests and measurements of the machine alone.
    pub fn start_with<W, F>(config: EngineConfig, make: F) -> Result<Engine, StartError>
    where
        W: Step,
        F: Fn(Role) -> W + Clone + Send + 'static,
    {
        if config.workers == 0 {
            return Err(StartError::NoWorkers);
        }
        let wake = Arc::new(Wake::new()?);
        let gate = Arc::new(Gate::new(Wake::new()?));
        let (writers, reader) = records::channel(usize::from(config.workers), config.records, &gate);
        let mut engine = Engine {
            hands: Vec::new(),
            groups: HashMap::new(),
            current: None,
            leaving: false,
            ending: false,
            wake: Arc::clone(&wake),
            gate,
            records: Some(reader),
            bench: Bench::new(),
            turn: 0,
        };
        for (index, records) in (0..config.workers).zip(writers) {
            let line = Line {
                machine: Wake::new()?,
                engine: Arc::clone(&wake),
                stop: AtomicBool::new(false),
                stats: SharedStats::default(),
                answers: Answers::default(),
            };
            let (desk, counter) = mailbox::channel(line, records);
            let role = Role { index, seed: mix(config.seed ^ u64::from(index)) };
            let thread = engine.spawn(role, config.pin, make.clone(), desk)?;
            engine.hands.push(Hand { counter, thread: Some(thread), outstanding: 0 });
        }
        Ok(engine)
    }

    fn spawn<W, F>(&self, role: Role, pinned: bool, make: F, desk: Desk) -> io::Result<JoinHandle<Result<(), String>>>
    where
        W: Step,
        F: Fn(Role) -> W + Send + 'static,
    {
        let (wake, gate, seat) = (Arc::clone(&self.wake), Arc::clone(&self.gate), self.bench.seat());
        thread::Builder::new().name(format!("kakei-worker-{}", role.index)).spawn(move || {
            if pinned {
                pin(usize::from(role.index));
            }
            let ran = catch_unwind(AssertUnwindSafe(|| Machine::new(role, make, desk, seat).and_then(Machine::run)));
            // Here the machine is gone, and with it its ends of the rings: who looks now sees that.
            wake.wake();
            gate.open();
            match ran {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(panic) => Err(message_of(&*panic)),
            }
        })
    }

    /// How many workers there are.
    pub fn workers(&self) -> u16 {
        self.hands.len() as u16
    }

    /// Bind those of `binds` that are not bound yet. All or nothing; nobody listens on them before
    /// [`Engine::publish`].
    pub fn prepare(&mut self, binds: &[BindKey]) -> Result<Prepared, BindError> {
        self.release();
        let mut prepared = Prepared { groups: Vec::new(), late: Vec::new() };
        for &bind in binds {
            if prepared.groups.iter().any(|group| group.bind == bind) || prepared.late.contains(&bind) {
                continue;
            }
            let held = self.groups.get(&bind);
            let is_ours = self.groups.values().chain(&prepared.groups).any(|group| overlap(group, bind));
            match held {
                Some(group) => prepared.groups.push(Arc::clone(group)),
                None if is_ours && bind.transport == Transport::Udp => prepared.late.push(bind),
                None => prepared.groups.push(Arc::new(front::bind(bind, self.hands.len(), is_ours)?)),
            }
        }
        Ok(prepared)
    }

    /// The last that can be refused of what was prepared.
    fn finish(&self, prepared: &mut Prepared) -> Result<(), BindError> {
        for bind in std::mem::take(&mut prepared.late) {
            prepared.groups.push(Arc::new(front::bind(bind, self.hands.len(), true)?));
        }
        prepared
            .groups
            .iter()
            .filter(|group| !self.groups.contains_key(&group.bind))
            .try_for_each(|group| group.listen())
    }

    /// The address that a bind really has, its port taken where 0 was asked for; none where it is not bound.
    pub fn local_addr(&self, bind: BindKey) -> Option<SocketAddr> {
        self.groups.get(&bind).map(|group| group.local)
    }

    /// Hand the snapshot to every worker that lives, with the sockets that it does not have yet. Each answers
    /// `ticket` with [`Reply::Published`]. Where a worker is busy, or an address can't be had after all, nothing was
    /// done.
    pub fn publish(
        &mut self,
        ticket: Ticket,
        snapshot: Arc<Snapshot>,
        mut prepared: Prepared,
    ) -> Result<(), CommandError> {
        for (index, hand) in (0u16..).zip(&self.hands) {
            if hand.alive() && hand.outstanding >= OUTSTANDING {
                return Err(CommandError::Busy(index));
            }
        }
        self.finish(&mut prepared)?;
        for (index, hand) in self.hands.iter_mut().enumerate().filter(|(_, hand)| hand.alive()) {
            // Those that it has already are the very same ones. It may have given one up since, so all are sent.
            let sockets = prepared.groups.iter().filter_map(|group| Some((group.bind, group.sockets.get(index)?)));
            let sockets = sockets.map(|(bind, socket)| (bind, Arc::clone(socket))).collect();
            hand.order(Order { ticket, command: Command::Publish(Arc::clone(&snapshot)), sockets });
        }
        self.groups.extend(prepared.groups.into_iter().map(|group| (group.bind, group)));
        self.current = Some(snapshot);
        self.leaving = true;
        self.release();
        Ok(())
    }

    /// Ask one worker something. To publish, use [`Engine::publish`]. `Ticket(u64::MAX)` is the engine's own.
    pub fn send(&mut self, worker: u16, ticket: Ticket, command: Command) -> Result<(), CommandError> {
        let hand = self.hands.get_mut(usize::from(worker)).ok_or(CommandError::NoWorker(worker))?;
        if !hand.alive() {
            return Err(CommandError::Stopped(worker));
        }
        if hand.outstanding >= OUTSTANDING {
            return Err(CommandError::Busy(worker));
        }
        if let Command::Drain { .. } = command {
            (self.ending, self.leaving) = (true, true);
        }
        hand.order(Order { ticket, command, sockets: Vec::new() });
        Ok(())
    }

    /// What a worker said, the workers in turn; none where nobody has said anything more. Until then the engine's
    /// descriptor stays readable.
    pub fn try_event(&mut self) -> Option<EngineEvent> {
        if let Some(event) = self.look() {
            return Some(event);
        }
        // Whoever says something after this look makes it readable again.
        self.wake.clear();
        let late = self.look();
        match late {
            Some(_) => self.wake.wake(),
            None => self.release(),
        }
        late
    }

    fn look(&mut self) -> Option<EngineEvent> {
        for _ in 0..self.hands.len() {
            self.turn = (self.turn + 1) % self.hands.len();
            if let Some(event) = self.hands[self.turn].event(self.turn as u16) {
                return Some(event);
            }
        }
        None
    }

    /// The access-log records of all workers, for a thread of their own. Once; none afterwards.
    pub fn records(&mut self) -> Option<RecordReader> {
        self.records.take()
    }

    /// A worker's machine's counters.
    pub fn machine_stats(&self, worker: u16) -> Option<MachineStats> {
        Some(self.hands.get(usize::from(worker))?.counter.line.stats.read())
    }

    /// A second handle on the engine's descriptor, for whoever waits for events while the engine itself is in use.
    pub fn events_fd(&self) -> io::Result<OwnedFd> {
        self.wake.as_fd().try_clone_to_owned()
    }

    /// How many front sockets are open: for tests and for whoever counts descriptors.
    pub fn front_sockets(&self) -> usize {
        self.groups.values().map(|group| group.sockets.len()).sum()
    }

    /// Stop all workers, at once, and wait for their threads. Flows are not drained: [`Command::Drain`] does that.
    pub fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        for hand in &self.hands {
            hand.counter.line.stop.store(true, Ordering::Release);
            hand.counter.line.machine.wake();
        }
        for hand in &mut self.hands {
            if let Some(thread) = hand.thread.take() {
                let _ = thread.join();
            }
        }
    }

    /// Close the sockets of binds that the snapshot no longer has and every worker gave up; of all that they gave up,
    /// once they drain. Until then they are kept: a bind that comes back while its flows drain keeps its sockets, and
    /// what waits in their queues, and a group that loses one has the flows of the others go astray.
    fn release(&mut self) {
        if !self.leaving {
            return;
        }
        let Engine { groups, current, ending, .. } = self;
        let wanted = current.iter().filter(|_| !*ending).flat_map(|snapshot| snapshot.binds());
        let wanted: Vec<BindKey> = wanted.collect();
        let held = |group: &Arc<Group>| {
            Arc::strong_count(group) > 1 || group.sockets.iter().any(|socket| Arc::strong_count(socket) > 1)
        };
        groups.retain(|bind, group| wanted.contains(bind) || held(group));
        self.leaving = groups.keys().any(|bind| !wanted.contains(bind));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.halt();
    }
}

impl AsFd for Engine {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl AsRawFd for Engine {
    fn as_raw_fd(&self) -> RawFd {
        self.wake.as_fd().as_raw_fd()
    }
}

impl Hand {
    fn alive(&self) -> bool {
        !self.counter.replies.is_abandoned()
    }

    /// There is room: fewer are outstanding than the ring is long.
    fn order(&mut self, order: Order) {
        let pushed = self.counter.orders.push(order);
        debug_assert!(pushed.is_ok(), "an order has room while fewer are outstanding");
        self.outstanding += 1;
        self.counter.line.machine.wake();
    }

    fn event(&mut self, worker: u16) -> Option<EngineEvent> {
        // Before the rings: once it is gone, nothing more comes into them.
        let gone = !self.alive();
        if let Ok((ticket, reply)) = self.counter.replies.pop() {
            self.outstanding -= 1;
            return Some(EngineEvent::Reply { worker, ticket, reply });
        }
        match self.counter.report() {
            Some(Report::Notice(notice)) => Some(EngineEvent::Notice { worker, notice }),
            Some(Report::Panicked { message, unanswered }) => {
                self.outstanding -= unanswered.len();
                Some(EngineEvent::WorkerPanicked { worker, message, unanswered })
            }
            Some(Report::Restarted(generation)) => Some(EngineEvent::WorkerRestarted { worker, generation }),
            None if gone => {
                let ended = self.thread.take()?.join();
                let error = ended.unwrap_or_else(|panic| Err(message_of(&*panic))).err();
                Some(EngineEvent::WorkerStopped { worker, error })
            }
            None => None,
        }
    }
}

/// Whether two sockets could meet: the same port, and one address covers the other.
fn overlap(group: &Group, bind: BindKey) -> bool {
    let (held, asked) = (group.local, bind.address);
    let covers = held.ip() == asked.ip() || held.ip().is_unspecified() || asked.ip().is_unspecified();
    let is_same = held.port() == asked.port() && held.is_ipv4() == asked.is_ipv4();
    group.bind.transport == bind.transport && is_same && covers
}

/// Run this thread on the `n`-th core that it may use, counted round. A wish: where it is refused, it runs anywhere.
fn pin(n: usize) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
    let Some(&core) = n.checked_rem(cores.len()).and_then(|at| cores.get(at)) else { return };
    let mut only = CpuSet::new();
    only.set(core);
    let _ = sched_setaffinity(None, &only);
}
