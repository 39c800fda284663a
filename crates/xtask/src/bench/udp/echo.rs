//! The backends: many sockets in one process that answer every datagram, or only count. It never looks into a payload beyond its head.

use std::io::{BufRead, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendto, setsockopt, sockopt};

use super::datagram::{Batch, Head, LARGE, Phase, backend, open};
use crate::bench::answer;
use crate::bench::args::Words;

/// The epoll token of standard input, on which the counters are asked for.
const ASKED: u64 = u64::MAX;

struct Echo {
    sockets: Vec<OwnedFd>,
    /// Answer only what opens a flow.
    sink: bool,
    /// Take trains whole.
    trains: bool,
    batch: Batch,
    /// The beginning of a train. The rest is counted and dropped in the kernel: to copy it would make the sink the bottleneck.
    begin: [u8; LARGE],
    measured: u64,
}

/// Run the backends: `port= count= sink= trains=`. A line on standard input is answered by the number of measured datagrams so far.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let words = Words::read(args)?;
    let port: u16 = words.get("port")?;
    let count: usize = words.get("count")?;
    let trains = words.get("trains")?;
    let sockets = (0..count).map(|i| open(backend(i, port))).collect::<Result<Vec<_>, _>>()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|e| format!("epoll: {e}"))?;
    for (i, socket) in sockets.iter().enumerate() {
        if trains {
            setsockopt(socket, sockopt::UdpGroSegment, &true).map_err(|e| format!("UDP_GRO: {e}"))?;
        }
        epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, i as u64)).map_err(|e| format!("epoll: {e}"))?;
    }
    epoll.add(std::io::stdin(), EpollEvent::new(EpollFlags::EPOLLIN, ASKED)).map_err(|e| format!("epoll: {e}"))?;
    let echo = Echo { sockets, sink: words.get("sink")?, trains, batch: Batch::new(), begin: [0; LARGE], measured: 0 };
    answer("ready");
    echo.serve(&epoll)
}

impl Echo {
    fn serve(mut self, epoll: &Epoll) -> Result<(), String> {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(ready) => ready,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(e) => return Err(format!("epoll: {e}")),
            };
            for event in &events[..ready] {
                match event.data() {
                    ASKED if !self.report() => return Ok(()),
                    ASKED => {}
                    socket if self.trains => self.take_train(socket as usize),
                    socket => self.take_batch(socket as usize),
                }
            }
        }
    }

    /// Answer the parent's question; whether there is still a parent.
    fn report(&self) -> bool {
        let asked = std::io::stdin().lock().read_line(&mut String::new()).is_ok_and(|len| len > 0);
        if asked {
            answer(&self.measured.to_string());
        }
        asked
    }

    fn take_batch(&mut self, socket: usize) {
        self.batch.take(&self.sockets[socket]);
        self.measured += self.batch.payloads().filter(|p| is_measured(p)).count() as u64;
        let sink = self.sink;
        self.batch.give_back(&self.sockets[socket], |payload| !sink || opens(payload));
    }

    fn take_train(&mut self, socket: usize) {
        let fd = self.sockets[socket].as_raw_fd();
        let mut space = nix::cmsg_space!(i32);
        let (len, segment, peer) = {
            let mut slices = [IoSliceMut::new(&mut self.begin)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
            let Ok(got) = recvmsg::<SockaddrIn>(fd, &mut slices, Some(&mut space), flags) else {
                return;
            };
            let segment = got.cmsgs().into_iter().flatten().find_map(|c| match c {
                ControlMessageOwned::UdpGroSegments(size) => Some(size as usize),
                _ => None,
            });
            (got.bytes, segment.unwrap_or(got.bytes).max(1), got.address)
        };
        let payload = &self.begin[..len.min(LARGE)];
        if is_measured(payload) {
            self.measured += len.div_ceil(segment) as u64;
        }
        if let (true, Some(peer)) = (opens(payload), peer) {
            // An answer that can't be sent shows as a flow that didn't open.
            let _ = sendto(fd, payload, &peer, MsgFlags::MSG_DONTWAIT);
        }
    }
}

fn is_measured(payload: &[u8]) -> bool {
    Head::parse(payload).is_some_and(|h| h.phase == Phase::Measured as u8)
}

fn opens(payload: &[u8]) -> bool {
    Head::parse(payload).is_some_and(|h| h.phase == Phase::Open as u8)
}
