//! What the fuzz targets of whole workers stand on: bytes as decisions, small documents, machines without a kernel.
//! Knows nothing of libFuzzer.

mod client;
pub mod document;
pub mod machine;
/// The simulator's: real ciphers, seeded randomness, a key exchange of no worth.
#[path = "../../crates/sim/tests/secured/provider.rs"]
mod provider;
pub mod script;
pub mod secured;
