//! The epoll machine: one thread, one worker. Collect a batch of events, step the worker, carry out everything it
//! asks for, wait. Decides nothing: what it opens, sends and closes is the worker's word.

mod adopt;
mod descriptors;
mod epoll;
mod errors;
mod flush;
mod open;
mod pace;
mod pipe;
mod plan;
mod receive;
mod sockets;
mod stream;
mod streams;
mod write;

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use kakei_proxy::limits::WRITTEN_KEPT;
use kakei_proxy::seam::{BindKey, Command, Event, Inbox, Instant, Outbox, SocketId};
use kakei_proxy::snapshot::Snapshot;
use kakei_proxy::worker::Role;

use self::adopt::Succession;
use self::descriptors::Descriptors;
use self::epoll::{Epoll, Ready};
use self::flush::Sender;
pub(crate) use self::open::KEEPALIVE_INTERVAL;
use self::pipe::Pipe;
use self::sockets::Sockets;
use self::write::Writer;
use crate::beside::Seat;
use crate::clock;
use crate::front::FrontSocket;
use crate::mailbox::{AGAIN, Desk, Report};
use crate::stats::MachineStats;
use crate::step::Step;
use crate::udp::RecvBatch;

/// Slots of the arena: datagrams or trains per step.
const SLOTS: usize = 64;
/// Events of a step that are no datagrams. With one datagram and one overflow per slot a step stays within
/// [`kakei_proxy::limits::EVENTS_PER_STEP`].
const OTHER_EVENTS: usize = 128;
/// The first pause after a panic; it doubles with each further one, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// After this long without a panic the pause is the first again.
const CALM: Duration = Duration::from_secs(10);

const _: () = assert!(OTHER_EVENTS + 2 * SLOTS <= kakei_proxy::limits::EVENTS_PER_STEP);

/// Everything between a worker and the kernel.
struct Io {
    epoll: Epoll,
    sockets: Sockets,
    /// The prepared front sockets.
    fronts: HashMap<BindKey, Arc<FrontSocket>>,
    receiving: RecvBatch,
    sending: Sender,
    writing: Writer,
    /// Clients of this tick, until they are answered.
    arrivals: Vec<Option<OwnedFd>>,
    /// Fronts that wait for a descriptor, and when they try again.
    paused: Vec<SocketId>,
    resume_at: Option<Instant>,
    /// While the system has no port for a datagram socket: when it is asked again.
    ports_at: Option<Instant>,
    /// Kernel pipes without bytes.
    pipes: Vec<Pipe>,
    /// Streams that something waited for, of those that the last wait reported.
    reported: Vec<Ready>,
    /// What operations brought about, for the next step.
    backlog: VecDeque<Event>,
    stats: MachineStats,
    descriptors: Descriptors,
    /// Streams that were accepted, and those that were connected. Each of the former will need one of the latter.
    clients: u64,
    servers: u64,
    /// Who finds out what takes milliseconds.
    seat: Seat,
    /// How many workers this machine had before this one.
    epoch: u64,
    /// While a worker that was read back says what it goes on with.
    succession: Option<Succession>,
}

/// Which bytes a step is lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lent {
    /// What was received.
    Received,
    /// What streams did not take.
    Rests,
}

/// How often the worker had to be made anew.
#[derive(Default)]
struct Restarts {
    count: u64,
    pause: Duration,
    last: Option<Instant>,
    /// The fresh worker was not told the snapshot yet.
    publish: bool,
}

/// A machine and its worker.
pub(crate) struct Machine<W, F> {
    worker: W,
    make: F,
    role: Role,
    io: Io,
    desk: Desk,
    /// The snapshot published last.
    current: Option<Arc<Snapshot>>,
    /// The worker was told to drain: no bind is wanted any more.
    ending: bool,
    restarts: Restarts,
}

impl<W: Step, F: Fn(Role) -> W> Machine<W, F> {
    /// A machine on the thread that calls; the worker is made by `make`.
    pub(crate) fn new(role: Role, make: F, desk: Desk, seat: Seat) -> io::Result<Self> {
        let epoll = Epoll::new(&desk.line.machine)?;
        let others = rustix::io::dup(&desk.line.machine)?.as_raw_fd() as u64;
        let io = Io {
            epoll,
            sockets: Sockets::new(),
            fronts: HashMap::new(),
            receiving: RecvBatch::new(SLOTS),
            sending: Sender::default(),
            writing: Writer::default(),
            arrivals: Vec::new(),
            paused: Vec::new(),
            resume_at: None,
            ports_at: None,
            pipes: Vec::new(),
            reported: Vec::new(),
            backlog: VecDeque::new(),
            stats: MachineStats::default(),
            descriptors: Descriptors::new(others),
            clients: 0,
            servers: 0,
            seat,
            epoch: 0,
            succession: None,
        };
        let worker = make(role);
        Ok(Machine { worker, make, role, io, desk, current: None, ending: false, restarts: Restarts::default() })
    }

    /// Run until told to stop. Ends early only where epoll itself fails.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let result = self.turn();
        // The kernel would end in order also those that didn't take all.
        self.io.abandon();
        result
    }

    fn turn(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(OTHER_EVENTS + 2 * SLOTS);
        let mut out = Outbox::default();
        let mut wake = Some(clock::now());
        while !self.desk.stopping() {
            let wake_at = [wake, self.io.resume_at].into_iter().flatten().min();
            let timeout = wake_at.map(|at| at - clock::now());
            self.io.wait(if self.must_not_wait() { Some(Duration::ZERO) } else { timeout })?;
            let lent = self.collect(&mut events);
            let bytes = match lent {
                Lent::Received => self.io.receiving.bytes(),
                Lent::Rests => &self.io.writing.rests,
            };
            let inbox = Inbox { events: &mut events, bytes, wall: clock::wall() };
            // The worker may be left in any state by a panic: it is thrown away, and nothing else was lent mutably but
            // events and outbox, which are emptied.
            match catch_unwind(AssertUnwindSafe(|| self.worker.step(clock::now(), inbox, &mut out))) {
                Ok(next) => {
                    wake = next;
                    if lent == Lent::Rests {
                        // The worker has kept them. What is not taken of its writes now is laid down from the begin on.
                        self.io.writing.rests.clear();
                    }
                    let wanted = self.current.as_deref().filter(|_| !self.ending);
                    self.io.carry_out(&mut out, &mut self.desk, wanted);
                }
                Err(panic) => {
                    out.clear();
                    self.restart(&*panic);
                    wake = Some(clock::now());
                }
            }
            events.clear();
            self.io.count_descriptors();
            self.io.stats.ticks += 1;
            self.desk.line.stats.write(&self.io.stats);
            self.desk.flush();
        }
        Ok(())
    }

    fn must_not_wait(&self) -> bool {
        !self.io.backlog.is_empty()
            || !self.io.writing.blocked.is_empty()
            || self.io.sockets.any_ready()
            || self.desk.has_orders()
            || self.restarts.publish
    }

    /// What the next step is given: first what streams did not take, before anything new is received; then what the
    /// last step brought about, then orders, then what arrives.
    fn collect(&mut self, events: &mut Vec<Event>) -> Lent {
        if !self.io.writing.blocked.is_empty() {
            // All of it: who closes what it has written takes silence for having been taken.
            self.io.tell_blocked(events);
            return Lent::Rests;
        }
        self.io.writing.rests.clear();
        self.io.writing.rests.shrink_to(WRITTEN_KEPT);
        self.io.take_answers(&self.desk);
        let waiting = self.io.backlog.len().min(OTHER_EVENTS);
        events.extend(self.io.backlog.drain(..waiting));
        self.take_orders(events);
        self.io.receiving.clear();
        // A step that is full of failures gets no new work.
        if self.io.backlog.is_empty() {
            self.io.resume_paused();
            self.io.receive(events);
        }
        Lent::Received
    }

    fn take_orders(&mut self, events: &mut Vec<Event>) {
        let mut published = false;
        while events.len() < OTHER_EVENTS
            && let Some(order) = self.desk.take()
        {
            self.io.fronts.extend(order.sockets);
            if let Command::Publish(snapshot) = &order.command {
                self.current = Some(Arc::clone(snapshot));
                published = true;
            }
            self.ending |= matches!(order.command, Command::Drain { .. });
            events.push(Event::Command { ticket: order.ticket, command: order.command });
        }
        if !std::mem::take(&mut self.restarts.publish) {
            return;
        }
        self.io.retain_wanted(self.current.as_deref().filter(|_| !self.ending));
        if let Some(snapshot) = &self.current
            && !published
        {
            events.push(Event::Command { ticket: AGAIN, command: Command::Publish(Arc::clone(snapshot)) });
        }
    }

    /// The worker panicked: everything that it asked for is closed, front sockets stay prepared and their queues hold
    /// what arrives; a fresh worker starts from the current snapshot.
    fn restart(&mut self, panic: &(dyn Any + Send)) {
        self.io.abandon();
        self.io.stats.panics += 1;
        let unanswered = self.desk.give_up();
        self.desk.report(Report::Panicked { message: message_of(panic), unanswered });
        self.desk.flush();
        self.pause();
        self.restarts.count += 1;
        self.restarts.publish = true;
        let seed = mix(self.role.seed ^ self.restarts.count);
        self.worker = (self.make)(Role { seed, ..self.role });
    }

    fn pause(&mut self) {
        let now = clock::now();
        let calm = self.restarts.last.is_none_or(|last| now - last > CALM);
        self.restarts.pause = if calm { FIRST_PAUSE } else { (self.restarts.pause * 2).min(LAST_PAUSE) };
        let until = now + self.restarts.pause;
        while clock::now() < until && !self.desk.stopping() {
            thread::sleep((until - clock::now()).min(Duration::from_millis(20)));
        }
        self.restarts.last = Some(clock::now());
    }
}

/// What a panic said.
pub(crate) fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without words").to_owned()
}

/// Splitmix64's finalizer: a seed from a seed.
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
