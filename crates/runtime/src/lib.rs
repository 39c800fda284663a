//! How the machine does it: epoll, datagram batches, threads, pinning, and all the unsafe code. It decides nothing:
//! it knows no protocol above UDP, no route and no limit but its own budgets.
//!
//! * [`engine::Engine`] starts one thread per worker, binds front sockets and talks to the workers.
//! * [`udp`] sends and receives datagrams in batches; it stands by itself.
//! * A machine (private) drives one [`step::Step`] on one thread: collect, step, flush, wait.
#![cfg(target_os = "linux")]

pub mod clock;
pub mod engine;
pub mod front;
pub mod passwords;
pub mod records;
pub mod stats;
pub mod step;
pub mod udp;

mod beside;
mod machine;
mod mailbox;
mod wake;
