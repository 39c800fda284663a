//! Streams: clients let in and turned away, bytes read, ends told. A turn reads once, so that no stream starves another.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use kakei_proxy::limits::STREAM_READ;
use kakei_proxy::seam::{Accepted, Arrival, BrokenBy, Event, OpenError, Refuse, SocketId};
use rustix::net::{Shutdown, SocketFlags, acceptfrom_with, getsockname, shutdown};
use socket2::SockRef;

use super::epoll::Ready;
use super::receive::Turn;
use super::sockets::{Entry, Kind};
use super::stream::{Phase, Stream};
use super::{Io, errors};
use crate::clock;

/// Clients that one turn of a front accepts.
const ACCEPTS: usize = 64;
/// How long a front waits for a descriptor before it tries again.
const PAUSE: Duration = Duration::from_millis(100);

impl Io {
    /// Accept clients of a front socket.
    pub(super) fn accept_turn(&mut self, front: SocketId, events: &mut Vec<Event>) -> Turn {
        for _ in 0..ACCEPTS {
            let Some(Entry { kind: Kind::Front(socket), .. }) = self.sockets.get_mut(front) else {
                return Turn::Drained;
            };
            if !self.descriptors.promise() {
                return self.pause(front, events);
            }
            let accepted = acceptfrom_with(&**socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC);
            match &accepted {
                Ok((fd, _)) => self.descriptors.keep(fd.as_raw_fd()),
                Err(_) => self.descriptors.take_back(),
            }
            match accepted {
                Ok((fd, peer)) => {
                    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                    let local = if socket.local.ip().is_unspecified() { local_of(&fd) } else { Some(socket.local) };
                    // A client that is gone already has no addresses.
                    let (Some(peer), Some(local)) = (peer, local) else { continue };
                    self.stats.accepted += 1;
                    let arrival = Arrival(self.arrivals.len() as u32);
                    self.arrivals.push(Some(fd));
                    events.push(Event::Accepted(Accepted { front, arrival, peer, local }));
                }
                Err(rustix::io::Errno::AGAIN) => return Turn::Drained,
                Err(error) if is_shortage(error) => return self.pause(front, events),
                // The client is gone, or the network had a word about it: the next one.
                Err(_) => {}
            }
        }
        Turn::More
    }

    /// Count what is open, and what accepted clients will need for their backends.
    pub(super) fn count_descriptors(&mut self) {
        let arrived = self.arrivals.len() as u64;
        let owed = (self.clients + arrived).saturating_sub(self.servers);
        self.descriptors.count(self.sockets.len() as u64 + arrived, owed);
    }

    /// There is no descriptor for the next client. Those that wait go on waiting.
    fn pause(&mut self, front: SocketId, events: &mut Vec<Event>) -> Turn {
        self.stats.accept_pauses += 1;
        events.push(Event::AcceptFailed { front, error: OpenError::NoDescriptors });
        self.paused.push(front);
        self.resume_at = Some(clock::now() + PAUSE);
        Turn::Drained
    }

    /// Fronts that wait for a descriptor try again, if it is time, or where one was freed.
    pub(super) fn resume_paused(&mut self) {
        if self.resume_at.is_some_and(|at| at <= clock::now()) {
            self.resume_at = None;
            for front in std::mem::take(&mut self.paused) {
                self.sockets.list(front);
            }
        }
    }

    pub(super) fn accept(&mut self, arrival: Arrival, socket: SocketId, credit: bool) {
        let taken = self.arrivals.get_mut(arrival.0 as usize).and_then(Option::take);
        let Some(fd) = taken else { return self.failed(socket, OpenError::Other) };
        self.register(socket, Kind::Stream(Box::new(Stream::new(fd, Phase::Open, (true, credit)))));
    }

    pub(super) fn refuse(&mut self, arrival: Arrival, how: Refuse) {
        if let Some(fd) = self.arrivals.get_mut(arrival.0 as usize).and_then(Option::take) {
            self.stats.refused += 1;
            match how {
                Refuse::Reset => reset(fd),
                Refuse::Silence => drop_silently(fd),
            }
        }
    }

    /// The step is over: who was not answered is turned away.
    pub(super) fn forget_arrivals(&mut self) {
        self.arrivals.drain(..).flatten().for_each(reset);
    }

    pub(super) fn credit(&mut self, socket: SocketId, on: bool) {
        let Some(stream) = self.sockets.stream_mut(socket) else { return };
        stream.credit = on;
        if on && stream.readable {
            self.sockets.list(socket);
        }
    }

    pub(super) fn shutdown(&mut self, socket: SocketId, heads: &[u8]) {
        self.flush_stream(socket, heads);
        if let Some(stream) = self.sockets.stream_mut(socket)
            && !stream.blocked
        {
            // One that is dead is told otherwise.
            let _ = shutdown(&stream.fd, Shutdown::Write);
        }
    }

    pub(super) fn reset(&mut self, socket: SocketId) {
        self.leave_lanes(socket);
        if let Some(Entry { kind: Kind::Stream(stream), .. }) = self.sockets.remove(socket) {
            self.freed(&stream);
            reset(stream.fd);
        }
    }

    /// Nothing is moved from or to this stream any more.
    pub(super) fn leave_lanes(&mut self, socket: SocketId) {
        let source = self.sockets.stream_mut(socket).and_then(|stream| stream.source.take());
        self.leave_lane(socket);
        if let Some(source) = source {
            self.leave_lane(source);
        }
    }

    /// A stream's descriptor is about to be closed.
    pub(super) fn freed(&mut self, stream: &Stream) {
        match stream.accepted {
            true => self.clients = self.clients.saturating_sub(1),
            false => self.servers = self.servers.saturating_sub(1),
        }
        if !self.paused.is_empty() {
            self.resume_at = Some(clock::now());
        }
    }

    /// Something waited for what epoll reported of a stream: to be connected, or to be written to.
    pub(super) fn end_wait(&mut self, ready: Ready) {
        let socket = ready.socket;
        let Some(stream) = self.sockets.stream_mut(socket) else { return };
        if stream.phase == Phase::Connecting {
            self.finish_connect(socket, ready.error);
        } else if std::mem::take(&mut stream.blocked) {
            self.backlog.push_back(Event::Drained { socket });
        } else if let Some(source) = stream.source {
            self.sockets.list(source);
        }
    }

    /// Read once.
    pub(super) fn stream_turn(&mut self, socket: SocketId, events: &mut Vec<Event>) -> Turn {
        let Some(stream) = self.sockets.stream_mut(socket) else { return Turn::Drained };
        match stream.phase {
            Phase::Connecting => return Turn::Drained,
            Phase::Open => {}
            Phase::Told => {
                self.look_for_death(socket);
                return Turn::Drained;
            }
        }
        if stream.lane.is_some() {
            return self.pipe_turn(socket);
        }
        if !stream.credit {
            self.look_for_death(socket);
            return Turn::Drained;
        }
        if !stream.readable {
            return Turn::Drained;
        }
        if !self.receiving.has_room() {
            return Turn::More;
        }
        self.stats.stream_reads += 1;
        match self.receiving.recv_stream(std::os::fd::AsFd::as_fd(&stream.fd)) {
            Ok(bytes) if bytes.len == 0 => {
                stream.readable = false;
                match stream.refuses {
                    true => self.tell_broken(socket, BrokenBy::Peer),
                    false => self.tell_end(socket),
                }
                Turn::Drained
            }
            Ok(bytes) => {
                self.stats.stream_bytes_read += u64::from(bytes.len);
                events.push(Event::Data { socket, bytes });
                let is_drained = (bytes.len as usize) < STREAM_READ && !stream.ended && !stream.urgent;
                stream.readable = !is_drained;
                if is_drained { Turn::Drained } else { Turn::More }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stream.readable = false;
                if stream.refuses {
                    self.tell_broken(socket, BrokenBy::Peer);
                }
                Turn::Drained
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Turn::More,
            Err(error) => {
                self.tell_broken(socket, errors::broken(&error));
                Turn::Drained
            }
        }
    }

    /// A stream that is not read, or has nothing more to be read, was reported broken: whether it is, or has only ended.
    fn look_for_death(&mut self, socket: SocketId) {
        let Some(stream) = self.sockets.stream_mut(socket) else { return };
        if !stream.ended || stream.dead {
            return;
        }
        if let Ok(Some(error)) | Err(error) = SockRef::from(&stream.fd).take_error() {
            self.tell_broken(socket, errors::broken(&error));
        }
    }

    pub(super) fn tell_end(&mut self, socket: SocketId) {
        if let Some(stream) = self.sockets.stream_mut(socket)
            && stream.phase == Phase::Open
        {
            stream.phase = Phase::Told;
            self.backlog.push_back(Event::Eof { socket });
        }
    }

    pub(super) fn tell_broken(&mut self, socket: SocketId, by: BrokenBy) {
        let Some(stream) = self.sockets.stream_mut(socket) else { return };
        if !std::mem::replace(&mut stream.dead, true) {
            stream.phase = Phase::Told;
            self.backlog.push_back(Event::Broken { socket, by });
        }
    }
}

fn is_shortage(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].contains(&error)
}

fn local_of(fd: &OwnedFd) -> Option<SocketAddr> {
    SocketAddr::try_from(getsockname(fd).ok()?).ok()
}

/// Close in order, or by a reset where the peer would miss something in front of the end: it would pass a part for the
/// whole.
pub(super) fn end(stream: Stream) {
    if stream.owes || stream.misses {
        reset(stream.fd);
    }
}

/// Close so that the peer sees a reset.
fn reset(fd: OwnedFd) {
    let _ = SockRef::from(&fd).set_linger(Some(Duration::ZERO));
}

/// Close so that the peer sees nothing: a connection under repair goes without a word. Where that isn't allowed, the
/// reset gets no further than the next host.
fn drop_silently(fd: OwnedFd) {
    let socket = SockRef::from(&fd);
    if rustix_repair(&fd).is_err() {
        let _ = socket.set_ttl_v4(1);
        let _ = socket.set_unicast_hops_v6(1);
        let _ = socket.set_linger(Some(Duration::ZERO));
    }
}

fn rustix_repair(fd: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option's value is an int that lives through the call, and its length is given.
    let set = unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_REPAIR, (&raw const on).cast(), length)
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
