//! Whether a backend is up, for every protocol. Pure state machines: the caller opens sockets, sends and receives, and
//! says what came of it; nothing here knows what a backend is beyond a key and an address.
//!
//! * [`Checker`] probes the backends of one cluster and gives verdicts, by [`Signal`]s that count results in a row.
//! * [`Passive`] counts the network's errors about one backend's live traffic.
//! * [`slow_start`] says how much weight a backend has that came up lately.

mod checker;
mod passive;
mod request;
mod signal;
mod slow_start;
#[cfg(test)]
mod tests;

pub use self::checker::{Action, Changes, Check, Checker, Probe, ProbeId, SignalState, Target, Verdict};
pub use self::passive::{Passive, PassiveState};
pub(crate) use self::request::status;
pub use self::signal::Signal;
pub use self::slow_start::{effective_weight, next_step};
