//! Batches of datagrams: many per system call, trains of equal-sized datagrams as one (GRO in, GSO out), local
//! addresses and drop counts by control messages. Safe to use from outside; knows no flows.
//!
//! ```
//! use std::net::UdpSocket;
//! use std::os::fd::AsFd;
//! use kakei_runtime::udp::{Arenas, Part, RecvBatch, SendBatch, Target, Verdict, set_gro};
//! use kakei_proxy::seam::Span;
//!
//! let (a, b) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
//! b.set_read_timeout(Some(std::time::Duration::from_secs(1)))?;
//! set_gro(b.as_fd(), true)?;
//!
//! // Three datagrams of four bytes leave as one train...
//! let mut sending = SendBatch::new();
//! sending.begin(Target { to: Some(b.local_addr()?), from: None, segment: 4 });
//! sending.part(Part::Body(Span { start: 0, len: 12 }));
//! sending.send_all(a.as_fd(), Arenas { head: &[], body: b"onesnexttail" }, |_, error| panic!("{error}"));
//!
//! // ...and arrive as one.
//! let mut receiving = RecvBatch::new(8);
//! let got = receiving.recv_blocking(b.as_fd(), 8)?;
//! let train = receiving.get(got.start).expect("it was received");
//! assert_eq!((train.segment, train.bytes.of(receiving.bytes())), (4, &b"onesnexttail"[..]));
//! # Ok::<(), std::io::Error>(())
//! ```

mod recv;
mod send;

mod cmsg;
mod name;
mod sockopt;

pub(crate) use self::recv::next_error;
pub use self::recv::{Received, RecvBatch, SLOT};
#[cfg(test)]
pub(crate) use self::send::Message;
pub use self::send::{Arenas, MAX_TRAIN_BYTES, MAX_TRAIN_DATAGRAMS, Part, SendBatch, Stats, Target, Verdict, send_one};
pub use self::sockopt::{
    report_errors, report_local_address, report_overflow, set_gro, set_receive_buffer, set_send_buffer,
};
