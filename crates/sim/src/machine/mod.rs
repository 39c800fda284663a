//! The simulated machines of one process: the machine's side of the seam, carried out to the letter, without a socket.
//!
//! A [`Host`] holds what the kernel holds (bound front sockets, local ports, receive queues); each [`Machine`] drives
//! one worker. Never decides anything that a kernel would not decide.

mod collect;
mod execute;
mod host;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;

use fastrand::Rng;
use kakei_proxy::record::Record;
use kakei_proxy::seam::{BindKey, Command, Event, Inbox, Instant, Notice, Outbox, Reply, SendError, SocketId, Ticket};
use kakei_proxy::snapshot::Snapshot;
use kakei_proxy::state::WorkerState;
use kakei_proxy::worker::{Role, Worker};

pub(crate) use self::host::Host;
use crate::profile::MachineFaults;

/// What a socket is, as the kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The prepared socket of a bind.
    Front(BindKey),
    /// A datagram socket with one peer.
    Connected(SocketAddr),
    /// A datagram socket for many peers.
    Any,
    /// A stream to this peer.
    Stream(SocketAddr),
}

/// An open socket.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) id: SocketId,
    pub(crate) kind: Kind,
    /// Where it is bound; what a peer sees.
    pub(crate) local: SocketAddr,
    /// Received and not yet handed to the worker. A front socket's lie with its bind.
    pub(crate) queue: VecDeque<Arrived>,
    /// The next send fails with an ICMP error that came in.
    pub(crate) refused: bool,
}

/// A datagram in a receive queue.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) bytes: Rc<[u8]>,
}

/// A datagram as a worker was given it, alone or in a train.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) kind: Kind,
    pub(crate) peer: SocketAddr,
    /// The address it was sent to, port included.
    pub(crate) local: SocketAddr,
    pub(crate) bytes: Rc<[u8]>,
}

/// What came of a step.
#[derive(Debug)]
pub(crate) enum Effect {
    /// A datagram went onto the wire.
    Sent(Outgoing),
    /// A datagram did not.
    NotSent(Outgoing, SendError),
    /// The control side is answered.
    Reply(Ticket, Reply),
    /// The control side is told.
    Notice(Notice),
    /// A flow ended.
    Record(Box<Record>),
    /// A stream is being opened; its outcome is told by [`Machine::stream_opened`].
    Stream { serial: u64, remote: SocketAddr },
    /// One could not be.
    OpenFailed,
    /// The worker broke the seam's contract.
    Misuse(String),
}

/// A datagram that a worker sends.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) front: bool,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Rc<[u8]>,
}

/// What a step was given and what came of it.
#[derive(Debug, Default)]
pub(crate) struct Stepped {
    pub(crate) effects: Vec<Effect>,
    pub(crate) ops: usize,
    pub(crate) wake: Option<Instant>,
}

/// What is handed to one step.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Event>,
    pub(crate) given: Vec<Given>,
    /// Datagrams that the events tell to have overflowed a queue.
    pub(crate) overflow: u64,
}

/// One worker's machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) role: Role,
    worker: Worker,
    sockets: BTreeMap<u64, Socket>,
    names: BTreeMap<SocketId, u64>,
    /// After a restore, until the worker's first step: sockets by the ids of the worker that was written down.
    orphans: BTreeMap<SocketId, u64>,
    pending: VecDeque<Event>,
    commands: VecDeque<(Ticket, Command)>,
    /// Until when no socket can be opened.
    pub(crate) no_descriptors_until: Instant,
    faults: MachineFaults,
    rng: Rng,
    arena: Vec<u8>,
    out: Outbox,
    serials: u64,
}

impl Machine {
    pub(crate) fn new(role: Role, faults: MachineFaults, rng: Rng) -> Self {
        Machine {
            role,
            worker: Worker::new(role),
            sockets: BTreeMap::new(),
            names: BTreeMap::new(),
            orphans: BTreeMap::new(),
            pending: VecDeque::new(),
            commands: VecDeque::new(),
            no_descriptors_until: Instant::ZERO,
            faults,
            rng,
            arena: Vec::new(),
            out: Outbox::default(),
            serials: 0,
        }
    }

    /// Hand a command over with the next step.
    pub(crate) fn command(&mut self, ticket: Ticket, command: Command) {
        self.commands.push_back((ticket, command));
    }

    /// Whether a step has to come at once.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Open sockets that are not front sockets.
    pub(crate) fn upstream_sockets(&self) -> usize {
        self.sockets.values().filter(|socket| !matches!(socket.kind, Kind::Front(_))).count()
    }

    /// Open sockets.
    pub(crate) fn open_sockets(&self) -> usize {
        self.sockets.len()
    }

    /// Step the worker over this batch and carry out what it asks for.
    pub(crate) fn step(&mut self, now: Instant, host: &mut Host, batch: &mut Batch) -> Stepped {
        let mut out = std::mem::take(&mut self.out);
        let inbox = Inbox { events: &mut batch.events, bytes: &self.arena, wall: crate::wall_at(now) };
        let wake = self.worker.step(now, inbox, &mut out);
        let mut stepped = Stepped { ops: out.ops.len(), wake, ..Stepped::default() };
        if !batch.events.is_empty() {
            stepped.effects.push(Effect::Misuse(format!("a step left {} events", batch.events.len())));
        }
        self.execute(now, host, &mut out, &mut stepped.effects);
        self.close_orphans(host);
        out.clear();
        self.out = out;
        stepped
    }

    /// Replace the worker by one that goes on from `state`. The next batch must be empty.
    pub(crate) fn restore(&mut self, now: Instant, state: WorkerState, snapshot: &Snapshot) -> Result<(), String> {
        self.worker = Worker::restore(self.role, now, state, snapshot).map_err(|error| error.to_string())?;
        self.orphans = std::mem::take(&mut self.names);
        Ok(())
    }

    /// Whether the worker was restored and has not yet said which sockets live on.
    pub(crate) fn is_adopting(&self) -> bool {
        !self.orphans.is_empty()
    }

    /// The outcome of opening a stream.
    pub(crate) fn stream_opened(&mut self, serial: u64, error: Option<kakei_proxy::seam::OpenError>) {
        let Some(socket) = self.sockets.get(&serial) else { return };
        let (id, local) = (socket.id, socket.local);
        self.pending.push_back(match error {
            None => Event::Opened { socket: id, local },
            Some(error) => Event::OpenFailed { socket: id, error },
        });
        if error.is_some() {
            self.sockets.remove(&serial);
            self.names.remove(&id);
        }
    }

    /// An ICMP error about `peer` came in on the socket `serial`.
    pub(crate) fn unreachable(&mut self, serial: u64, peer: SocketAddr) {
        let Some(socket) = self.sockets.get_mut(&serial) else { return };
        let connected = matches!(socket.kind, Kind::Connected(_));
        if connected && self.rng.u8(0..5) == 0 {
            socket.refused = true;
            return;
        }
        self.pending.push_back(Event::Unreachable { socket: socket.id, peer: (!connected).then_some(peer) });
    }

    /// A datagram came in on the socket `serial`; false where its queue is full or it takes none of this peer.
    pub(crate) fn arrive(&mut self, serial: u64, arrived: Arrived) -> bool {
        let Some(socket) = self.sockets.get_mut(&serial) else { return false };
        if let Kind::Connected(peer) = socket.kind
            && peer != arrived.peer
        {
            return false;
        }
        socket.queue.push_back(arrived);
        true
    }

    fn close_orphans(&mut self, host: &mut Host) {
        for (_, serial) in std::mem::take(&mut self.orphans) {
            self.close(serial, host);
        }
    }
}
