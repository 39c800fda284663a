//! The real program on loopback: real clients, real backends, real signals. Needs no network but that.
//! `cfg(test)` on each module says to clippy that `unwrap` is fine there.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod asked;
#[cfg(test)]
mod auth;
#[cfg(test)]
mod changes;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod drains;
#[cfg(test)]
mod generations;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod http;
#[cfg(test)]
mod http_seen;
#[cfg(test)]
mod metered;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod options;
#[cfg(test)]
mod planned;
#[cfg(test)]
mod ready;
#[cfg(test)]
mod signals;
#[cfg(test)]
mod smuggling;
#[cfg(test)]
mod spliced;
#[cfg(test)]
mod sticky;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod tls_backends;
#[cfg(test)]
mod tls_clients;
#[cfg(test)]
mod tls_early;
#[cfg(test)]
mod tls_only;
#[cfg(test)]
mod traffic;
