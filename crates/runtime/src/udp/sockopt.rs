//! Socket options of datagram sockets. Where an option is only a wish, the refusal is no error.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Receive trains of equal-sized datagrams as one.
pub fn set_gro(socket: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    set(socket, (libc::SOL_UDP, libc::UDP_GRO), i32::from(on))
}

/// Report with each datagram which local address it was sent to.
pub fn report_local_address(socket: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    if v6 {
        set(socket, (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO), 1)
    } else {
        set(socket, (libc::IPPROTO_IP, libc::IP_PKTINFO), 1)
    }
}

/// Report how many datagrams the kernel dropped because the receive queue was full.
pub fn report_overflow(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, (libc::SOL_SOCKET, libc::SO_RXQ_OVFL), 1)
}

/// Keep ICMP errors, with the peer they concern, in the socket's error queue.
pub fn report_errors(socket: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    if v6 {
        set(socket, (libc::IPPROTO_IPV6, libc::IPV6_RECVERR), 1)
    } else {
        set(socket, (libc::IPPROTO_IP, libc::IP_RECVERR), 1)
    }
}

/// Ask for a receive buffer of `bytes`, over the system's limit where that is allowed. A wish.
pub fn set_receive_buffer(socket: BorrowedFd<'_>, bytes: usize) {
    wish(socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, bytes);
}

/// Ask for a send buffer of `bytes`, over the system's limit where that is allowed. A wish.
pub fn set_send_buffer(socket: BorrowedFd<'_>, bytes: usize) {
    wish(socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, bytes);
}

fn wish(socket: BorrowedFd<'_>, forced: i32, polite: i32, bytes: usize) {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    if set(socket, (libc::SOL_SOCKET, forced), bytes).is_err() {
        let _ = set(socket, (libc::SOL_SOCKET, polite), bytes);
    }
}

fn set(socket: BorrowedFd<'_>, (level, name): (i32, i32), value: i32) -> io::Result<()> {
    // SAFETY: neither rustix nor socket2 has all of these options. The value is an i32 that lives through the call,
    // its length is given, and the kernel only reads it; the descriptor is open as long as the borrow.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
