//! What a worker decides: flows, routing, balancing, health, limits. Pure: no socket, no clock, no thread, no
//! randomness but its seed. See [`worker::Worker`] for how it is driven.

pub mod balance;
pub mod health;
pub mod limits;
pub mod record;
pub mod seam;
pub mod snapshot;
pub mod state;
pub mod stats;
pub mod worker;
