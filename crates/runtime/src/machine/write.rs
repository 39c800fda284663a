//! Writes to streams: gathered for each stream and given to the kernel together. What it does not take goes back to the
//! worker in the very next step; the machine keeps nothing.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd};

use kakei_proxy::seam::{BrokenBy, Event, Gather, SocketId, Span};
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};

use super::sockets::{Kind, NONE, Queue};
use super::stream::Phase;
use super::{Io, errors};

/// Parts of one call: as many as the system takes at most is far more.
const PARTS: usize = 64;

/// A write that waits for the flush, and the next one of its stream.
#[derive(Debug)]
struct Pending {
    bytes: Gather,
    next: u32,
}

/// The writes of a tick, and what was not taken of them.
#[derive(Default)]
pub(super) struct Writer {
    pending: Vec<Pending>,
    /// Of the streams that have pending writes, in the order of their first.
    pub(super) queues: Vec<Queue>,
    /// What streams did not take, by stream, in `rests`.
    pub(super) blocked: Vec<(SocketId, Span)>,
    pub(super) rests: Vec<u8>,
}

impl Writer {
    /// All of the tick's writes were given to the kernel.
    pub(super) fn clear(&mut self) {
        self.queues.clear();
        self.pending.clear();
    }
}

impl Io {
    pub(super) fn write(&mut self, socket: SocketId, bytes: Gather) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        if bytes.is_empty() {
            return;
        }
        let number = self.writing.pending.len() as u32;
        let Writer { pending, queues, .. } = &mut self.writing;
        if let Some(queue) = queues.get_mut(entry.queue as usize) {
            let last = &mut pending[queue.last as usize];
            if last.bytes.absorbs(bytes) {
                return;
            }
            (last.next, queue.last) = (number, number);
        } else {
            entry.queue = queues.len() as u32;
            queues.push(Queue { socket, first: number, last: number });
        }
        pending.push(Pending { bytes, next: NONE });
    }

    /// Write what isn't missed where it isn't taken.
    pub(super) fn bid_farewell(&mut self, socket: SocketId, last: &[u8], heads: &[u8]) {
        self.flush_stream(socket, heads);
        let Io { sockets, stats, .. } = self;
        if let Some(stream) = sockets.stream(socket).filter(|stream| !stream.owes) {
            let taken = write_parts(stream.fd.as_fd(), &[IoSlice::new(last)], &mut stats.stream_writes);
            stats.stream_bytes_written += taken.unwrap_or(0) as u64;
        }
    }

    /// Write what waits for one stream.
    pub(super) fn flush_stream(&mut self, socket: SocketId, heads: &[u8]) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        let queue = self.writing.queues.get(std::mem::replace(&mut entry.queue, NONE) as usize);
        let Some(&Queue { first: number, .. }) = queue else { return };
        let result = match self.writing.pending.get(number as usize) {
            // Nearly all: room for one write is made ready faster than for many.
            Some(Pending { next: NONE, .. }) => self.give::<2>(socket, number, heads),
            _ => self.give::<PARTS>(socket, number, heads),
        };
        if let Err(error) = result {
            self.conclude_write(socket, &error);
        }
    }

    /// Give a stream's writes from `number` on to the kernel while it takes all of them, in calls of `MOST` parts at
    /// most; what it doesn't take is kept.
    fn give<const MOST: usize>(&mut self, socket: SocketId, mut number: u32, heads: &[u8]) -> io::Result<()> {
        let Some(entry) = self.sockets.get_mut(socket) else { return Ok(()) };
        let fd = entry.fd();
        let bodies = self.receiving.bytes();
        let mut parts: [IoSlice<'_>; MOST] = [IoSlice::new(&[]); MOST];
        let mut result = Ok(());
        while let Some(first) = self.writing.pending.get(number as usize) {
            let (mut count, mut next) = (0, Some(first));
            while let Some(pending) = next.filter(|_| count + 2 <= MOST) {
                for part in [pending.bytes.head.of(heads), pending.bytes.body.of(bodies)] {
                    if !part.is_empty() {
                        parts[count] = IoSlice::new(part);
                        count += 1;
                    }
                }
                number = pending.next;
                next = self.writing.pending.get(number as usize);
            }
            let parts = &parts[..count];
            let length: usize = parts.iter().map(|part| part.len()).sum();
            let taken = if result.is_ok() { write_parts(fd, parts, &mut self.stats.stream_writes) } else { Ok(0) };
            let taken = taken.unwrap_or_else(|error| {
                result = Err(error);
                0
            });
            self.stats.stream_bytes_written += taken as u64;
            if taken < length {
                if result.is_ok() {
                    result = Err(io::ErrorKind::WouldBlock.into());
                }
                keep(&mut self.writing.rests, parts, taken);
            }
        }
        if let Kind::Stream(stream) = &mut entry.kind {
            stream.owes = result.is_err();
        }
        result
    }

    /// The stream did not take all: it is blocked, or dead.
    fn conclude_write(&mut self, socket: SocketId, error: &io::Error) {
        // All that lies before it is others' of this tick.
        let start = self.writing.blocked.last().map_or(0, |(_, rest)| rest.start + rest.len);
        let rest = Span { start, len: self.writing.rests.len() as u32 - start };
        let Some(stream) = self.sockets.stream_mut(socket) else { return };
        if error.kind() == io::ErrorKind::WouldBlock {
            stream.blocked = true;
            self.stats.stream_blocks += 1;
            self.writing.blocked.push((socket, rest));
            return;
        }
        self.writing.rests.truncate(start as usize);
        self.refused(socket, errors::broken(error));
    }

    /// The peer takes nothing more. What it sent before it went may still be there, and is read first.
    pub(super) fn refused(&mut self, socket: SocketId, by: BrokenBy) {
        let Some(stream) = self.sockets.stream_mut(socket) else { return };
        (stream.refuses, stream.ended, stream.readable) = (true, true, true);
        if stream.credit && stream.phase == Phase::Open {
            self.sockets.list(socket);
        } else {
            self.tell_broken(socket, by);
        }
    }

    /// What was not taken, as events of the next step.
    pub(super) fn tell_blocked(&mut self, events: &mut Vec<Event>) {
        events.extend(self.writing.blocked.drain(..).map(|(socket, rest)| Event::Blocked { socket, rest }));
    }
}

/// Give parts to the kernel until it has all or takes no more: how many bytes it took.
fn write_parts(fd: std::os::fd::BorrowedFd<'_>, parts: &[IoSlice<'_>], calls: &mut u64) -> io::Result<usize> {
    debug_assert!(fd.as_raw_fd() >= 0, "a stream has a descriptor");
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        *calls += 1;
        let sent = match parts {
            [one] => send(fd, one, flags),
            several => sendmsg(fd, several, &mut SendAncillaryBuffer::default(), flags),
        };
        match sent {
            Ok(taken) => return Ok(taken),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Append what lies behind the first `taken` bytes.
fn keep(rests: &mut Vec<u8>, parts: &[IoSlice<'_>], mut taken: usize) {
    for part in parts {
        let skipped = taken.min(part.len());
        taken -= skipped;
        rests.extend_from_slice(&part[skipped..]);
    }
}
