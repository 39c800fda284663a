//! Sending: messages that gather from two arenas, given to the kernel by `sendmmsg`, trains as one (GSO).
//! Decides nothing about failures: it asks.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use kakei_proxy::seam::Span;
use rustix::io::retry_on_intr;
use rustix::net::SendFlags;

use super::cmsg::Control;
use super::name::Name;

/// The most datagrams in a train (UDP_MAX_SEGMENTS of every kernel that has GSO).
pub const MAX_TRAIN_DATAGRAMS: usize = 64;
/// The most bytes in a train: what fits an IPv4 datagram.
pub const MAX_TRAIN_BYTES: usize = 65_507;

/// Messages per system call.
const BATCH: usize = 64;
/// GSO's segment size (24 bytes), pktinfo of either family (40).
const CONTROL: usize = 64;

/// Where a message goes and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// To whom; none on a connected socket.
    pub to: Option<SocketAddr>,
    /// From which local address; none leaves it to the kernel.
    pub from: Option<IpAddr>,
    /// 0: one datagram. Otherwise the length of every datagram of the train but the last.
    pub segment: u16,
}

/// A part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// In [`Arenas::head`].
    Head(Span),
    /// In [`Arenas::body`].
    Body(Span),
}

/// Where the bytes lie.
#[derive(Clone, Copy, Debug)]
pub struct Arenas<'a> {
    /// What [`Part::Head`] points into.
    pub head: &'a [u8],
    /// What [`Part::Body`] points into.
    pub body: &'a [u8],
}

impl Part {
    fn of(self, arenas: Arenas<'_>) -> &[u8] {
        match self {
            Part::Head(span) => span.of(arenas.head),
            Part::Body(span) => span.of(arenas.body),
        }
    }
}

/// What to do about a message that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on with the next one.
    Skip,
    /// Try it again.
    Retry,
    /// Leave it and all after it.
    Stop,
}

/// What a batch cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// System calls.
    pub calls: u64,
    /// Messages that the kernel took: walks through its network stack.
    pub messages: u64,
}

/// Send one datagram that lies in one piece, never waiting: the cheapest call. `to` is none on a connected socket.
pub fn send_one(socket: BorrowedFd<'_>, to: Option<SocketAddr>, bytes: &[u8]) -> io::Result<()> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let sent = retry_on_intr(|| match to {
        Some(to) => rustix::net::sendto(socket, bytes, flags, &to),
        None => rustix::net::send(socket, bytes, flags),
    });
    Ok(sent.map(drop)?)
}

#[derive(Clone, Debug)]
struct Planned {
    target: Target,
    parts: Range<usize>,
}

/// A message as the kernel would get it, gathered into one piece: for tests.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg(test)]
pub(crate) struct Message {
    pub(crate) target: Target,
    pub(crate) bytes: Vec<u8>,
    pub(crate) parts: usize,
}

/// Messages to one socket. Keeps its memory between uses.
#[derive(Default)]
pub struct SendBatch {
    messages: Vec<Planned>,
    parts: Vec<Part>,
    raw: Raw,
}

/// What the kernel is given; rebuilt, pointers and all, for every run of at most [`BATCH`] messages.
#[derive(Default)]
struct Raw {
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    names: Vec<Name>,
    controls: Vec<Control<CONTROL>>,
}

// SAFETY: its raw pointers are written by `encode` and used only before the next one, within one call of `send_all`;
// between calls nothing looks at them.
unsafe impl Send for Raw {}

impl SendBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forget all messages.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.parts.clear();
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Begin a message; it has no bytes yet.
    pub fn begin(&mut self, target: Target) {
        self.messages.push(Planned { target, parts: self.parts.len()..self.parts.len() });
    }

    /// Append bytes to the message begun last. At most 1,024 parts to a message: the kernel refuses more.
    pub fn part(&mut self, part: Part) {
        if let Some(message) = self.messages.last_mut() {
            self.parts.push(part);
            message.parts.end = self.parts.len();
        }
    }

    #[cfg(test)]
    pub(crate) fn messages(&self, arenas: Arenas<'_>) -> impl Iterator<Item = Message> {
        self.messages.iter().map(move |planned| {
            let parts = &self.parts[planned.parts.clone()];
            let bytes = parts.iter().flat_map(|part| part.of(arenas)).copied().collect();
            Message { target: planned.target, bytes, parts: parts.len() }
        })
    }

    /// Send all messages in order, never waiting. `failed` is asked about each message that the kernel refuses.
    /// Panics where a part lies outside its arena.
    pub fn send_all(
        &mut self,
        socket: BorrowedFd<'_>,
        arenas: Arenas<'_>,
        mut failed: impl FnMut(usize, &io::Error) -> Verdict,
    ) -> Stats {
        let mut stats = Stats::default();
        let mut base = 0;
        while base < self.messages.len() {
            let run = base..self.messages.len().min(base + BATCH);
            let mut at = base;
            self.raw.encode(&self.messages[run.clone()], &self.parts, arenas);
            while at < run.end {
                stats.calls += 1;
                match self.raw.send(socket, at - base) {
                    Ok(sent) => {
                        stats.messages += sent as u64;
                        at += sent;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => match failed(at, &error) {
                        Verdict::Skip => at += 1,
                        Verdict::Retry => {}
                        Verdict::Stop => return stats,
                    },
                }
            }
            base = run.end;
        }
        stats
    }
}

impl Raw {
    fn encode(&mut self, messages: &[Planned], parts: &[Part], arenas: Arenas<'_>) {
        self.vectors.clear();
        self.names.clear();
        self.controls.clear();
        self.headers.clear();
        // First everything that is pointed to, so that nothing moves once a pointer to it was taken.
        let used = messages.first().map_or(0, |m| m.parts.start)..messages.last().map_or(0, |m| m.parts.end);
        self.vectors.extend(parts[used.clone()].iter().map(|part| {
            let bytes = part.of(arenas);
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
        }));
        self.names.resize(messages.len(), Name::EMPTY);
        self.controls.resize(messages.len(), Control::EMPTY);
        for ((message, name), control) in messages.iter().zip(&mut self.names).zip(&mut self.controls) {
            // SAFETY: all zeroes is a valid mmsghdr: null pointers and zero lengths.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            let raw = &mut header.msg_hdr;
            if let Some(to) = message.target.to {
                let (encoded, len) = Name::encode(to);
                *name = encoded;
                raw.msg_name = (&raw mut *name).cast();
                raw.msg_namelen = len;
            }
            let len = write_control(control, &message.target);
            if len > 0 {
                raw.msg_control = (&raw mut *control).cast();
                raw.msg_controllen = len as _;
            }
            let range = message.parts.start - used.start..message.parts.end - used.start;
            raw.msg_iovlen = range.len() as _;
            raw.msg_iov = self.vectors[range].as_mut_ptr();
            self.headers.push(header);
        }
    }

    /// Send from header `from` on; how many the kernel took, at least one.
    fn send(&mut self, socket: BorrowedFd<'_>, from: usize) -> io::Result<usize> {
        let (flags, headers) = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL, &mut self.headers[from..]);
        let sent = if let [only] = headers {
            // A single message is cheaper without the loop in the kernel.
            // SAFETY: the header was written by `encode` from slices that are still borrowed by our caller, and from
            // vectors, names and control messages of ours that were not touched since; the kernel only reads what it
            // points to.
            let result = unsafe { libc::sendmsg(socket.as_raw_fd(), &only.msg_hdr, flags) };
            if result < 0 { -1 } else { 1 }
        } else {
            let count = headers.len() as libc::c_uint;
            // SAFETY: as above, for `count` headers; the kernel writes only their `msg_len`.
            unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, flags) }
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

fn write_control(control: &mut Control<CONTROL>, target: &Target) -> usize {
    let mut at = 0;
    if target.segment > 0 {
        at = control.put(at, (libc::SOL_UDP, libc::UDP_SEGMENT), &target.segment.to_ne_bytes());
    }
    match target.from {
        Some(IpAddr::V4(ip)) => {
            let mut info = [0u8; 12];
            info[4..8].copy_from_slice(&ip.octets());
            control.put(at, (libc::IPPROTO_IP, libc::IP_PKTINFO), &info)
        }
        Some(IpAddr::V6(ip)) => {
            let mut info = [0u8; 20];
            info[..16].copy_from_slice(&ip.octets());
            control.put(at, (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), &info)
        }
        None => at,
    }
}
