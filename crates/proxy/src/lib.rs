//! What a worker decides: flows, routing, balancing, health, limits. Pure: no socket, no clock, no thread, no
//! randomness but its seed. See [`worker::Worker`] for how it is driven.

mod arrival;
pub mod balance;
mod candidates;
mod change;
mod client;
mod cluster;
mod cuts;
mod datagram;
mod hash;
pub mod health;
mod http;
mod joined;
pub mod limits;
mod listener;
mod own;
mod probes;
mod publish;
pub mod record;
mod relay;
mod restore;
mod routes;
mod save;
pub mod seam;
pub mod secure;
mod secured;
mod seen;
pub mod snapshot;
pub mod state;
pub mod stats;
mod streams;
mod timers;
mod trie;
mod unsent;
mod waiting;
pub mod worker;
mod world;
