//! Receiving: slots in one arena, filled by `recvmmsg`. Allocates only when made.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

use kakei_proxy::limits::STREAM_READ;
use kakei_proxy::seam::Span;
use rustix::net::RecvFlags;

use super::cmsg::Control;
use super::name::Name;

/// The bytes of a slot: any datagram and any train fits.
pub const SLOT: usize = 65_536;

/// From slot to slot: an odd number of cache lines more than a slot, so that the beginnings of slots, which are all
/// that small datagrams touch, spread over the sets of the cache instead of sharing one.
const STRIDE: usize = SLOT + 192;

/// The part of all streams: some full reads, or many small ones side by side.
const STREAMS: usize = 8 * STREAM_READ;

/// GRO's segment size (24 bytes), pktinfo of either family (40), the overflow counter (24).
const CONTROL: usize = 96;

/// What was received into a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Who sent it.
    pub peer: SocketAddr,
    /// The local address it was sent to, where the socket reports that.
    pub local: Option<IpAddr>,
    /// 0: one datagram. Otherwise the length of every datagram of the train but the last.
    pub segment: u16,
    /// The bytes, in [`RecvBatch::bytes`].
    pub bytes: Span,
    /// How many datagrams the kernel dropped on this socket so far (wrapping), where the socket reports that and any were.
    pub dropped: Option<u32>,
}

/// An array whose elements the kernel writes through pointers that are kept between calls; a `Vec` or `Box` would
/// claim to be the only way to them.
struct Fixed<T> {
    first: NonNull<T>,
    len: usize,
}

impl<T: Copy> Fixed<T> {
    fn new(from: Vec<T>) -> Self {
        let whole = Box::leak(from.into_boxed_slice());
        let len = whole.len();
        Fixed { first: NonNull::from(whole).cast(), len }
    }

    fn at(&self, index: usize) -> *mut T {
        assert!(index < self.len, "an index inside the array");
        // SAFETY: the index was checked, so that the result stays inside the allocation.
        unsafe { self.first.as_ptr().add(index) }
    }

    fn get(&self, index: usize) -> &T {
        // SAFETY: `at` points to an initialised element; the kernel writes only during `recv`, which has `&mut` of
        // the whole batch, so that no reference from here lives then.
        unsafe { &*self.at(index) }
    }

    fn get_mut(&mut self, index: usize) -> &mut T {
        // SAFETY: as in `get`; and `&mut self` makes it the only reference.
        unsafe { &mut *self.at(index) }
    }
}

impl<T> Drop for Fixed<T> {
    fn drop(&mut self) {
        let whole = ptr::slice_from_raw_parts_mut(self.first.as_ptr(), self.len);
        // SAFETY: pointer and length came from `Box::leak` in `new`, and nothing else gives them back.
        drop(unsafe { Box::from_raw(whole) });
    }
}

#[derive(Clone, Copy)]
struct Slot {
    vector: libc::iovec,
    name: Name,
    control: Control<CONTROL>,
}

/// Slots for received datagrams. Slots fill up over several calls of [`RecvBatch::recv`] on any sockets, until
/// [`RecvBatch::clear`] empties all of them.
pub struct RecvBatch {
    headers: Fixed<libc::mmsghdr>,
    slots: Fixed<Slot>,
    arena: Fixed<u8>,
    used: usize,
    /// How much of the streams' part, which lies behind the slots, is used.
    streamed: usize,
}

// SAFETY: its raw pointers point only into the three arrays that it owns and that move with it (by pointer).
unsafe impl Send for RecvBatch {}

impl RecvBatch {
    /// Room for `slots` datagrams or trains. Memory that was never received into is never touched.
    pub fn new(slots: usize) -> Self {
        let arena = Fixed::new(vec![0u8; slots * STRIDE + STREAMS]);
        let slot = |index: usize| Slot {
            vector: libc::iovec { iov_base: arena.at(index * STRIDE).cast(), iov_len: SLOT },
            name: Name::EMPTY,
            control: Control::EMPTY,
        };
        let slots = Fixed::new((0..slots).map(slot).collect());
        let headers = Fixed::new((0..slots.len).map(|index| header(slots.at(index))).collect());
        RecvBatch { headers, slots, arena, used: 0, streamed: 0 }
    }

    /// How many slots are free.
    pub fn free(&self) -> usize {
        self.headers.len - self.used
    }

    /// Where all slots lie.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the arena is initialised and `len` long; the kernel writes into it only during `recv`, which has
        // `&mut self`.
        unsafe { std::slice::from_raw_parts(self.arena.first.as_ptr(), self.arena.len) }
    }

    /// Whether a stream may still be read.
    pub fn has_room(&self) -> bool {
        STREAMS - self.streamed >= STREAM_READ
    }

    /// Receive from a stream: the bytes, none at its end. What streams say lies side by side, behind the slots.
    pub fn recv_stream(&mut self, socket: BorrowedFd<'_>) -> io::Result<Span> {
        let start = self.headers.len * STRIDE + self.streamed;
        let most = STREAM_READ.min(STREAMS - self.streamed);
        debug_assert!(start + most <= self.arena.len, "the streams' part ends with the arena");
        // SAFETY: `most` bytes from `start` on lie inside the arena and are initialised, and no other reference into it
        // lives while `self` is borrowed mutably.
        let room = unsafe { std::slice::from_raw_parts_mut(self.arena.at(start), most) };
        // Not by the C library: there this call is one that a thread can be cancelled in, and pays for that each time.
        let (_, count) = rustix::net::recv(socket, room, RecvFlags::DONTWAIT)?;
        self.streamed += count;
        Ok(Span { start: start as u32, len: count as u32 })
    }

    /// Receive one datagram from a socket that is connected and told of no trains, without being told who sent it: the
    /// cheapest call. Its slot is named by nobody else. Panics where no slot is free.
    pub fn recv_one(&mut self, socket: BorrowedFd<'_>) -> io::Result<Span> {
        assert!(self.used < self.headers.len, "a slot is free");
        let start = self.used * STRIDE;
        // SAFETY: a slot's bytes lie inside the arena and are initialised, and no other reference into it lives while
        // `self` is borrowed mutably.
        let room = unsafe { std::slice::from_raw_parts_mut(self.arena.at(start), SLOT) };
        let (_, count) = rustix::net::recv(socket, room, RecvFlags::DONTWAIT)?;
        // An address of no length is none.
        self.headers.get_mut(self.used).msg_hdr.msg_namelen = 0;
        self.used += 1;
        Ok(Span { start: start as u32, len: count as u32 })
    }

    /// Receive what is there, at most `max` and as much as there are free slots. Fewer than asked for means that the
    /// queue was drained. Returns the slots that were filled; never waits.
    pub fn recv(&mut self, socket: BorrowedFd<'_>, max: usize) -> io::Result<Range<usize>> {
        self.recv_with(socket, max, libc::MSG_DONTWAIT)
    }

    /// As [`RecvBatch::recv`], but on a blocking socket waits for the first datagram (as long as its read timeout).
    pub fn recv_blocking(&mut self, socket: BorrowedFd<'_>, max: usize) -> io::Result<Range<usize>> {
        self.recv_with(socket, max, libc::MSG_WAITFORONE)
    }

    fn recv_with(&mut self, socket: BorrowedFd<'_>, max: usize, flags: i32) -> io::Result<Range<usize>> {
        let (from, count) = (self.used, max.min(self.free()));
        if count == 0 {
            return Ok(from..from);
        }
        let headers = self.headers.at(from);
        // SAFETY: `count` headers from `headers` on lie in the array; each points to one slot, and that to its part
        // of the arena, with true lengths, all owned by `self` and borrowed from nowhere while `&mut self` is held.
        let got = unsafe { libc::recvmmsg(socket.as_raw_fd(), headers, count as libc::c_uint, flags, ptr::null_mut()) };
        let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        self.used += got;
        Ok(from..self.used)
    }

    /// What lies in a slot; none where nothing was received into it since [`RecvBatch::clear`], or by no address.
    pub fn get(&self, slot: usize) -> Option<Received> {
        if slot >= self.used {
            return None;
        }
        let header = self.headers.get(slot);
        let Slot { name, control, .. } = self.slots.get(slot);
        let peer = name.decode(header.msg_hdr.msg_namelen)?;
        let bytes = Span { start: (slot * STRIDE) as u32, len: header.msg_len.min(SLOT as u32) };
        let mut received = Received { peer, local: None, segment: 0, bytes, dropped: None };
        for (kind, data) in control.messages(header.msg_hdr.msg_controllen as _) {
            note(&mut received, kind, data);
        }
        Some(received)
    }

    /// Empty all slots.
    pub fn clear(&mut self) {
        for index in 0..self.used {
            let header = &mut self.headers.get_mut(index).msg_hdr;
            header.msg_namelen = Name::LEN as u32;
            header.msg_controllen = CONTROL as _;
            header.msg_flags = 0;
        }
        (self.used, self.streamed) = (0, 0);
    }
}

fn header(slot: *mut Slot) -> libc::mmsghdr {
    // SAFETY: all zeroes is a valid mmsghdr: null pointers and zero lengths. It has private padding on some targets,
    // so that no literal can be written.
    let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
    // SAFETY: `slot` points to a slot; its field is only named here, not read.
    let vector = unsafe { &raw mut (*slot).vector };
    // SAFETY: as above.
    let name = unsafe { &raw mut (*slot).name };
    // SAFETY: as above.
    let control = unsafe { &raw mut (*slot).control };
    header.msg_hdr.msg_iov = vector;
    header.msg_hdr.msg_iovlen = 1;
    header.msg_hdr.msg_name = name.cast();
    header.msg_hdr.msg_namelen = Name::LEN as u32;
    header.msg_hdr.msg_control = control.cast();
    header.msg_hdr.msg_controllen = CONTROL as _;
    header
}

fn note(received: &mut Received, kind: (i32, i32), data: &[u8]) {
    match kind {
        (libc::SOL_UDP, libc::UDP_GRO) => {
            let segment = data.first_chunk().map_or(0, |raw| i32::from_ne_bytes(*raw));
            let segment = u16::try_from(segment).unwrap_or(0);
            // A train of one is a datagram.
            received.segment = if u32::from(segment) < received.bytes.len { segment } else { 0 };
        }
        // struct in_pktinfo: interface, the address to answer from, the address in the header. The two differ only
        // for broadcast and multicast, which nothing can be sent from.
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            received.local = data.get(4..8).and_then(|raw| raw.first_chunk::<4>()).map(|ip| Ipv4Addr::from(*ip).into());
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            received.local = data.first_chunk::<16>().map(|ip| Ipv6Addr::from(*ip).into());
        }
        (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
            received.dropped = data.first_chunk().map(|raw| u32::from_ne_bytes(*raw));
        }
        _ => {}
    }
}

/// Take one entry off the error queue of a socket that [`super::report_errors`] was set on: the peer that the
/// datagram went to, and the error of the network; none where the entry tells of no peer or of our own side.
pub(crate) fn next_error(socket: BorrowedFd<'_>) -> io::Result<Option<(SocketAddr, io::Error)>> {
    let mut name = Name::EMPTY;
    let mut control = Control::<256>::EMPTY;
    // SAFETY: all zeroes is a valid msghdr, as in `header`.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = Name::LEN as u32;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: name and control live through the call and their lengths are true; there is no room for the payload,
    // which is not asked for.
    let result = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let reported = control.messages(header.msg_controllen as _).find_map(|(kind, data)| {
        // struct sock_extended_err: errno (4), origin (1), ...
        let errno = i32::from_ne_bytes(*data.first_chunk()?);
        let origin = *data.get(4)?;
        let network = matches!(
            (kind, origin),
            ((libc::IPPROTO_IP, libc::IP_RECVERR), libc::SO_EE_ORIGIN_ICMP)
                | ((libc::IPPROTO_IPV6, libc::IPV6_RECVERR), libc::SO_EE_ORIGIN_ICMP6)
        );
        network.then(|| io::Error::from_raw_os_error(errno))
    });
    Ok(name.decode(header.msg_namelen).zip(reported))
}
