//! What the flow table's fuzz target stands on: bytes as decisions, small documents, a machine without a kernel.
//! Knows nothing of libFuzzer.

pub mod document;
pub mod machine;
pub mod script;
