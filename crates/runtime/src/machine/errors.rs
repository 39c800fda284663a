//! What the system's error numbers mean to a worker. One table for each direction.

use std::io;

use kakei_proxy::seam::{BrokenBy, OpenError, SendError};

/// Why a socket could not be opened.
pub(super) fn open(error: &io::Error) -> OpenError {
    match error.raw_os_error().unwrap_or(0) {
        libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC => OpenError::NoDescriptors,
        libc::EADDRNOTAVAIL | libc::EADDRINUSE | libc::EAGAIN => OpenError::NoPorts,
        libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::EAFNOSUPPORT | libc::EACCES => {
            OpenError::Unreachable
        }
        libc::ECONNREFUSED | libc::ETIMEDOUT | libc::ECONNRESET | libc::ENETDOWN | libc::ENOENT => {
            OpenError::Unreachable
        }
        _ => OpenError::Other,
    }
}

/// Why a message was not sent.
pub(super) fn send(error: &io::Error) -> SendError {
    match error.raw_os_error().unwrap_or(0) {
        libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => SendError::QueueFull,
        libc::EMSGSIZE => SendError::TooBig,
        // A route that forbids it.
        libc::EACCES => SendError::Unreachable,
        _ if about_peer(error) => SendError::Unreachable,
        _ => SendError::Other,
    }
}

/// What killed a stream.
pub(super) fn broken(error: &io::Error) -> BrokenBy {
    match error.raw_os_error().unwrap_or(0) {
        libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED | libc::ENOTCONN | libc::ECONNREFUSED => BrokenBy::Peer,
        libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENETDOWN | libc::EHOSTDOWN => {
            BrokenBy::Network
        }
        _ => BrokenBy::Other,
    }
}

/// Whether it says that a peer can't be reached.
pub(super) fn about_peer(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().unwrap_or(0),
        libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::ENETDOWN
            | libc::ENONET
            | libc::ENOPROTOOPT
            | libc::EPROTO
    )
}

/// Whether a send got it in place of an earlier datagram: the network reports these only afterwards.
pub(super) fn of_earlier(error: &io::Error) -> bool {
    matches!(error.raw_os_error().unwrap_or(0), libc::ECONNREFUSED | libc::ENOPROTOOPT | libc::EPROTO)
}
