//! The seam between a worker and its machine: everything that can happen, everything that can be asked for.
//!
//! A machine collects a batch of [`Event`]s, steps the worker, carries out every [`Op`] and waits until something
//! happens or the wake-up is due. What holds on both sides:
//!
//! * The worker allocates every [`SocketId`]; the machine only maps it to what it opened. An id carries a generation:
//!   an event that names a closed socket finds nothing and does nothing, and so does an operation.
//! * Bytes of events lie in one arena of the machine's, lent for one step ([`Inbox::bytes`]); bytes that the worker
//!   makes lie in [`Outbox::bytes`], given back when the step's operations were carried out. Events and operations
//!   name bytes by [`Span`]: nothing here has a lifetime, everything can be printed, compared and replayed.
//! * Operations are carried out in order for each socket, all of them before the machine waits again.
//!   What an operation brings about ([`Event::Opened`], [`Event::SendFailed`], …) comes with the next step, which the
//!   machine takes without waiting.
//! * Sends are optimistic: silence means success.
//!
//! Nothing here knows how a machine does what it is asked for.

mod command;
mod inbox;
mod stream;
mod time;
mod verify;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use kakei_config::Refuse;
use serde::{Deserialize, Serialize};

pub use self::command::{
    BackendHealth, Candidate, Command, ConnectionView, Cut, CutOf, Filter, FlowView, Notice, ProbeSaid, Probed,
    RateUse, Reply, Seen, SeenWhat, Ticket, Used,
};
pub use self::inbox::{Gather, Inbox, Outbox, Span};
pub use self::stream::{Accepted, Arrival, BrokenBy, Endpoint};
pub use self::time::{Instant, Wall};
pub use self::verify::{Job, Password, Verdict, Verify};
use crate::record::Record;

slotmap::new_key_type! {
    /// A socket, named by the worker that asked for it; carries a generation.
    pub struct SocketId;
}

/// An address that a listener is bound to: what a front socket is known by across configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BindKey {
    /// The transport.
    pub transport: Transport,
    /// The address as configured; port 0 where a free port was asked for.
    pub address: SocketAddr,
}

/// What a socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// Streams.
    Tcp,
}

/// What can happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// A datagram arrived, or a train of them.
    Datagram(Datagram),
    /// [`Op::Listen`], [`Op::OpenDatagram`] or [`Op::Connect`] was carried out.
    Opened {
        /// The socket.
        socket: SocketId,
        /// Its own address; unspecified for a stream, about which nobody asks.
        local: SocketAddr,
    },
    /// One of them could not be; the id is free, nothing needs closing.
    OpenFailed {
        /// The socket that is not there.
        socket: SocketId,
        /// Why.
        error: OpenError,
    },
    /// The network says that a peer of this socket can't be reached (ICMP, or a refused connected send).
    Unreachable {
        /// The socket.
        socket: SocketId,
        /// Which peer, on a socket with several; none on a connected one.
        peer: Option<SocketAddr>,
    },
    /// A send was not carried out, wholly or from some datagram of the train on.
    SendFailed {
        /// The socket.
        socket: SocketId,
        /// [`Send::tag`].
        tag: u64,
        /// How many datagrams were not sent.
        datagrams: u32,
        /// How many payload bytes that were: wire bytes of [`Send::bytes`], header included.
        bytes: u32,
        /// Why.
        error: SendError,
    },
    /// The kernel dropped datagrams since the last such event because the socket's receive queue was full.
    Overflow {
        /// The socket.
        socket: SocketId,
        /// How many.
        datagrams: u64,
    },
    /// A client connected. Answered in the same step by [`Op::Accept`] or [`Op::Refuse`]; else it is reset.
    Accepted(Accepted),
    /// Connections wait that could not be accepted. They go on waiting; the machine tries again by itself.
    AcceptFailed {
        /// The front socket.
        front: SocketId,
        /// Why.
        error: OpenError,
    },
    /// Bytes of a stream arrived; at most one such event for each stream and step.
    Data {
        /// The stream.
        socket: SocketId,
        /// The bytes, in [`Inbox::bytes`]; at least one, at most [`crate::limits::STREAM_READ`].
        bytes: Span,
    },
    /// The peer sends nothing more. What it sent before was told, or piped on, wholly.
    Eof {
        /// The stream.
        socket: SocketId,
    },
    /// The stream is dead in both directions. It still has to be closed.
    Broken {
        /// The stream.
        socket: SocketId,
        /// What killed it.
        by: BrokenBy,
    },
    /// The stream took only a part of what was written. Comes with the very next step, before anything new is
    /// received; until `Drained` nothing may be written to it or piped into it. A shutdown that was asked for after
    /// the write was not carried out.
    Blocked {
        /// The stream.
        socket: SocketId,
        /// What it did not take, in [`Inbox::bytes`]; at least one byte.
        rest: Span,
    },
    /// A stream that was blocked takes bytes again.
    Drained {
        /// The stream.
        socket: SocketId,
    },
    /// Bytes were moved by [`Op::Pipe`] since the last such event; at most one for each stream and step.
    Piped {
        /// Where they came from.
        from: SocketId,
        /// How many reached the other stream.
        bytes: u64,
    },
    /// [`Op::Verify`] was carried out; each is answered by exactly one such event, whenever that may be.
    Verified {
        /// Which.
        job: Job,
        /// What was found out.
        verdict: Verdict,
    },
    /// The control side asks for something; exactly one [`Op::Reply`] answers each ticket.
    Command {
        /// What the reply names.
        ticket: Ticket,
        /// What is asked for.
        command: Command,
    },
}

/// A datagram, or a train of equal-sized datagrams of one sender that the kernel received as one (GRO).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The socket it arrived on.
    pub socket: SocketId,
    /// Who sent it. On a socket that is connected it says nothing: nobody else can have.
    pub peer: SocketAddr,
    /// On a front socket the local address it was sent to (pktinfo), or the one that the socket is bound to. On a
    /// socket to backends it says nothing.
    pub local: IpAddr,
    /// 0: one datagram. Otherwise the length of every datagram of the train but the last, which may be shorter.
    pub segment: u16,
    /// The bytes, in [`Inbox::bytes`].
    pub bytes: Span,
}

/// Why a socket could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenError {
    /// The process or the system has no file descriptor left.
    NoDescriptors,
    /// No free local port.
    NoPorts,
    /// The network refused (no route, connection refused, timed out, bad family).
    Unreachable,
    /// Anything else.
    Other,
}

/// Why datagrams were not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SendError {
    /// The socket's or the device's queue is full.
    QueueFull,
    /// Over the path's limit.
    TooBig,
    /// The peer can't be reached.
    Unreachable,
    /// Anything else.
    Other,
}

/// What can be asked for.
#[derive(Clone, Debug)]
pub enum Op {
    /// Start to receive on the prepared front socket of `bind`. Answered by `Opened` or `OpenFailed`.
    Listen {
        /// The id it gets.
        socket: SocketId,
        /// Which one.
        bind: BindKey,
    },
    /// Open a datagram socket to backends. Answered by `Opened` or `OpenFailed`.
    OpenDatagram {
        /// The id it gets.
        socket: SocketId,
        /// Where it goes.
        remote: Remote,
    },
    /// Open a stream to `remote`. Answered by `Opened` or `OpenFailed`. What it receives is told (as after
    /// [`Op::Credit`]).
    Connect {
        /// The id it gets.
        socket: SocketId,
        /// Where it goes.
        remote: Endpoint,
        /// Idle time after which the kernel probes the peer.
        keepalive: Option<Duration>,
    },
    /// Send a datagram or a train.
    Send(Send),
    /// Take over a client that connected in this step.
    Accept {
        /// Which one.
        arrival: Arrival,
        /// The id it gets.
        socket: SocketId,
        /// Whether what it receives is told at once; else after [`Op::Credit`].
        credit: bool,
    },
    /// Turn a client away that connected in this step.
    Refuse {
        /// Which one.
        arrival: Arrival,
        /// How.
        how: Refuse,
    },
    /// Write to a stream. Silence means that the kernel took all of it; else [`Event::Blocked`] comes. Several writes
    /// of one step go out together.
    Write {
        /// The stream.
        socket: SocketId,
        /// The bytes.
        bytes: Gather,
    },
    /// End the stream in this direction, after everything that was written. Nothing comes of it where a write of
    /// this step is blocked.
    Shutdown {
        /// The stream.
        socket: SocketId,
    },
    /// Say this behind everything that was written, as far as the stream takes it at once: what it doesn't take is
    /// nobody's loss, and nothing is told of it. The last that is asked of a stream, but for its [`Op::Close`].
    Farewell {
        /// The stream.
        socket: SocketId,
        /// The bytes, of the worker's own.
        bytes: Span,
    },
    /// Whether to receive from a stream. Without credit neither bytes nor the end of them are told, but that the
    /// stream broke is.
    Credit {
        /// The stream.
        socket: SocketId,
        /// Yes or no.
        on: bool,
    },
    /// From now on move what `from` receives to `to` without showing it, as far as `to` takes it. The peer's end of
    /// `from` is told ([`Event::Eof`]) once everything before it reached `to`. Nothing may be written to `to`
    /// meanwhile. A machine that can't goes on with [`Event::Data`]. [`Op::Credit`] counts as before. Nothing comes of
    /// it (as of a shutdown) where a write of this very step to `to` is blocked: then it may be asked for again.
    Pipe {
        /// Where the bytes come from.
        from: SocketId,
        /// Where they go.
        to: SocketId,
    },
    /// Go back to [`Event::Data`] for this stream, as soon as what was taken from it reached the other.
    Unpipe {
        /// Where the bytes came from.
        from: SocketId,
    },
    /// Kill a stream: its peer sees a reset. Its id is free afterwards.
    Reset {
        /// The stream.
        socket: SocketId,
    },
    /// Close a socket. Its id is free afterwards; a front socket stays prepared and can be listened on again. A
    /// stream's peer sees an orderly end, where it has sent nothing that was not received, and where the stream took
    /// all that is meant for it: one that took its last write only in part, or that was to be given what is still on
    /// its way from [`Op::Pipe`]'s source, is reset, as by [`Op::Reset`]. So no end passes a part for the whole; but
    /// a Unix socket has no reset, and its peer sees an end. It is the same where a machine closes what nobody named
    /// ([`Op::Adopt`]), stops, or lost its worker; a process that is killed has its streams ended in order.
    Close {
        /// The socket.
        socket: SocketId,
    },
    /// Give up the prepared front socket of a bind that the configuration no longer has, or of any where the worker
    /// drains. Comes after its `Close`.
    Unbind {
        /// Which one.
        bind: BindKey,
    },
    /// A socket that a restored worker took over: known to the machine as `was`, from now on as `socket`. What is being
    /// piped from it or into it goes on being piped, and what is queued to be told of it is told by the new id. All of
    /// them come in a row, before anything else of that worker: an id may be new for one socket and old for another.
    /// What none of them names is closed.
    Adopt {
        /// The id in the worker that was written down.
        was: SocketId,
        /// The id from now on.
        socket: SocketId,
    },
    /// Find out beside the worker, which goes on meanwhile, whether a password is right. Answered by
    /// [`Event::Verified`], also where as much is being found out as can be.
    Verify(Box<Verify>),
    /// The answer to a command.
    Reply {
        /// Whose.
        ticket: Ticket,
        /// The answer.
        reply: Reply,
    },
    /// Tell the control side.
    Notice(Notice),
    /// An access-log record. A machine that can't keep up drops it and counts that.
    Record(Box<Record>),
}

/// How a datagram socket to backends is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remote {
    /// Connected to one peer: the kernel drops what comes from others and reports ICMP errors for it.
    Connected(SocketAddr),
    /// Bound to a free port of the IPv4 family, for many peers; ICMP errors come with the peer's address.
    AnyV4,
    /// The same for IPv6.
    AnyV6,
}

/// A datagram or a train to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Send {
    /// By which socket.
    pub socket: SocketId,
    /// To whom; none on a connected socket.
    pub to: Option<SocketAddr>,
    /// From which local address (pktinfo); none leaves it to the kernel.
    pub from: Option<IpAddr>,
    /// As [`Datagram::segment`]: 0, or the length of each datagram on the wire but the last.
    pub segment: u16,
    /// What is sent: the worker's own bytes, then received ones.
    pub bytes: Gather,
    /// Comes back in [`Event::SendFailed`]: the flow it was for, or 0.
    pub tag: u64,
}
