//! What keeps the tree as it is meant to be: house rules, benchmarks, real peers. Nothing that Kakei ships depends on it.
//!
//! ```
//! let complaint = xtask::tidy::Complaint {
//!     path: "crates/proxy/src/worker.rs".to_owned(),
//!     line: 7,
//!     rule: "banned",
//!     what: "`Mutex`: a worker shares nothing".to_owned(),
//! };
//! assert_eq!(complaint.to_string(), "crates/proxy/src/worker.rs:7: [banned] `Mutex`: a worker shares nothing");
//! ```

pub mod bench;
pub mod interop;
pub mod tidy;
pub mod tools;
