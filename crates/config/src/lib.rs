//! What the operator wants, as plain data: the document, its errors with their places, its semantic diff.
//!
//! This crate is given text and returns values; it never opens a file or a socket and knows no wire format.

pub mod model;

pub use model::*;
