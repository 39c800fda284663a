//! Bytes from stream to stream inside the kernel (splice): a pipe is only held while bytes are in it. One turn is
//! bounded, like any other.

use std::io;
use std::os::fd::OwnedFd;

use kakei_proxy::seam::{BrokenBy, Event, SocketId};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::receive::Turn;
use super::stream::{Lane, Phase};
use super::{Io, errors};

/// What a pipe asks for as its size. The system may grant less.
const WANTED: usize = 1 << 20;
/// The most bytes in a pipe. By its places alone it could hold eight times as much.
const MOST: usize = 1 << 20;
/// Bytes that one turn moves.
const BUDGET: u64 = 2 << 20;
/// Pipes that are kept for the next who needs one.
const SPARE: usize = 64;
const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

/// A kernel pipe.
#[derive(Debug)]
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// Why moving stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The turn's budget is spent.
    Budget,
    /// The source has nothing.
    Empty,
    /// The target takes nothing.
    Full,
    /// The source is dead.
    Source(BrokenBy),
    /// The target is.
    Target(BrokenBy),
    /// The system has no pipe, or can't splice these.
    Impossible,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // A smaller one is slower, not wrong.
        let _ = fcntl_setpipe_size(&write, WANTED);
        Ok(Pipe { read, write })
    }

    /// Take bytes out of a stream: how many, 0 at its end.
    fn fill(&self, source: &OwnedFd, most: usize) -> Result<usize, Errno> {
        splice(source, None, &self.write, None, most, FLAGS)
    }
}

impl Io {
    pub(super) fn pipe(&mut self, from: SocketId, to: SocketId, heads: &[u8]) {
        self.flush_stream(to, heads);
        let is_taker = self.sockets.stream_mut(to).is_some_and(|to| !to.blocked && !to.refuses);
        let Some(source) = self.sockets.stream_mut(from).filter(|_| is_taker) else { return };
        if source.phase != Phase::Open || source.lane.is_some() || source.must_be_read() {
            return;
        }
        source.lane = Some(Lane::new(to));
        let is_readable = source.readable;
        if let Some(target) = self.sockets.stream_mut(to) {
            target.source = Some(from);
        }
        if is_readable {
            self.sockets.list(from);
        }
    }

    pub(super) fn unpipe(&mut self, from: SocketId) {
        let Some(lane) = self.sockets.stream_mut(from).and_then(|source| source.lane.as_mut()) else { return };
        lane.leaving = true;
        if lane.held == 0 {
            self.leave_lane(from);
        }
    }

    /// The worker sees the bytes of this stream again.
    pub(super) fn leave_lane(&mut self, from: SocketId) {
        let Some(source) = self.sockets.stream_mut(from) else { return };
        let Some(lane) = source.lane.take() else { return };
        let is_readable = source.readable;
        if let Some(target) = self.sockets.stream_mut(lane.to) {
            target.source = None;
            // What is in the pipe goes with it.
            target.misses |= lane.held > 0;
        }
        if is_readable {
            self.sockets.list(from);
        }
    }

    /// Move what is there, within the budget of a turn.
    pub(super) fn pipe_turn(&mut self, from: SocketId) -> Turn {
        let Some(source) = self.sockets.stream_mut(from) else { return Turn::Drained };
        let Some(mut lane) = source.lane.take() else { return Turn::Drained };
        let (moved, stop) = self.move_bytes(from, &mut lane);
        self.stats.splice_bytes += moved;
        let (to, held, ended, leaving) = (lane.to, lane.held, lane.ended, lane.leaving);
        if held == 0
            && let Some(pipe) = lane.pipe.take()
            && self.pipes.len() < SPARE
        {
            self.pipes.push(pipe);
        }
        if let Some(source) = self.sockets.stream_mut(from) {
            source.lane = Some(lane);
            source.readable &= stop != Stop::Empty;
        }
        if moved > 0 {
            self.backlog.push_back(Event::Piped { from, bytes: moved });
        }
        match stop {
            Stop::Source(by) => {
                self.leave_lane(from);
                self.tell_broken(from, by);
            }
            Stop::Target(by) => {
                self.leave_lane(from);
                self.refused(to, by);
            }
            Stop::Empty if ended => {
                self.leave_lane(from);
                self.tell_end(from);
            }
            Stop::Empty if leaving => self.leave_lane(from),
            Stop::Impossible => {
                self.leave_lane(from);
                return Turn::More;
            }
            Stop::Budget => return Turn::More,
            Stop::Empty | Stop::Full => {}
        }
        Turn::Drained
    }

    /// Fill the pipe and empty it, until one side has had enough.
    fn move_bytes(&mut self, from: SocketId, lane: &mut Lane) -> (u64, Stop) {
        let Io { sockets, pipes, stats, .. } = self;
        let (Some(source), Some(target)) = (sockets.stream(from), sockets.stream(lane.to)) else {
            return (0, Stop::Impossible);
        };
        let mut moved = 0;
        while moved < BUDGET {
            let may_read = source.credit && source.readable && !lane.ended && !lane.leaving;
            if lane.held == 0 && may_read && source.must_be_read() {
                return (moved, Stop::Impossible);
            }
            if lane.held == 0 && !may_read {
                return (moved, Stop::Empty);
            }
            if lane.pipe.is_none() {
                lane.pipe = pipes.pop().or_else(|| Pipe::new().ok());
            }
            let Some(pipe) = &lane.pipe else { return (moved, Stop::Impossible) };
            let mut stop = None;
            if may_read && !source.must_be_read() && lane.held < MOST {
                stats.splice_calls += 1;
                match pipe.fill(&source.fd, MOST - lane.held) {
                    Ok(0) if is_over(&source.fd) => lane.ended = true,
                    Ok(0) if lane.held == 0 => return (moved, Stop::Impossible),
                    Ok(bytes) => lane.held += bytes,
                    // The source is empty, or the pipe is full: which, is seen once the pipe is empty.
                    Err(Errno::AGAIN) if lane.held == 0 => return (moved, Stop::Empty),
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(Errno::INVAL) if lane.held == 0 => return (moved, Stop::Impossible),
                    // The system says so only once, and calls it an end from then on.
                    Err(error) => stop = Some(Stop::Source(errors::broken(&error.into()))),
                }
            }
            if lane.held > 0 {
                stats.splice_calls += 1;
                match splice(&pipe.read, None, &target.fd, None, lane.held, FLAGS) {
                    Ok(bytes) => {
                        lane.held -= bytes.min(lane.held);
                        moved += bytes as u64;
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => stop = stop.or(Some(Stop::Full)),
                    Err(error) => stop = stop.or(Some(Stop::Target(errors::broken(&error.into())))),
                }
            }
            if let Some(stop) = stop {
                return (moved, stop);
            }
        }
        (moved, Stop::Budget)
    }
}

/// Whether nothing more is to be read from a stream that said so to a splice, which takes urgent data for an end.
fn is_over(stream: &OwnedFd) -> bool {
    let mut byte = [0];
    !matches!(recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT), Ok((1.., _)))
}
