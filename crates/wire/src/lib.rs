//! What bytes mean: the wire formats that Kakei speaks. Pure functions from bytes to values and back; knows no socket,
//! no clock and no other crate of the workspace, and never allocates in proportion to a length that a peer claims.

pub mod certificate;
pub mod client_hello;
pub mod http1;
pub mod message;
pub mod proxy_protocol;
