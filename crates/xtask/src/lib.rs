//! What keeps the tree as it is meant to be: house rules, benchmarks, real peers. Nothing that Kakei ships depends on it.

pub mod bench;
pub mod tidy;
