//! What the operator wants, as plain data: the document, its errors with their places, its semantic diff.
//!
//! This crate is given text and returns values; it never opens a file or a socket and knows no wire format.
//!
//! A document goes through four rooms: `reading` turns TOML or JSON into one tree with places, `schema` turns the tree
//! into the model (each option is declared there once, for reading, writing and the reference), `validate` checks what
//! concerns several objects, and `diagnostics` says what is wrong. Every error is collected, not only the first.

mod bounds;
mod checked;
#[cfg(feature = "schema")]
mod described;
mod diagnostics;
mod diff;
mod export;
mod faults;
pub mod model;
mod objects;
mod reading;
mod schema;
mod secrets;
mod sorted;
pub mod template;
mod tree;
mod validate;

pub use bounds::{MAX_DIAGNOSTICS, MAX_DOCUMENT_BYTES, MAX_FIELDS};
pub use checked::Checked;
pub use diagnostics::{Diagnostic, Diagnostics, Place, Position, Related};
pub use diff::{
    ApplyError, BackendChange, Change, Edit, FieldChange, Kind, amend, apply, check_keys, diff, in_one_line, put,
};
pub use export::{Answers, Resolved};
pub use faults::{Fault, Written};
pub use model::*;
pub use objects::{Differing, Each, Objects};
pub use schema::{json_schema, reference};
pub use secrets::diff_without_secrets;
pub use sorted::{Difference, Differences, Iter, Sorted};
pub use tree::{Entry, Node, Value};

use std::time::Duration;

use diagnostics::Collector;
use schema::At;

/// TOML text as a value, whose keys nobody looked at: a part of a document, such as the options of one object.
///
/// # Errors
/// Where it is no TOML.
pub fn toml_value(text: &str) -> Result<Value, Diagnostics> {
    let mut problems = Collector::default();
    let root = reading::toml::read(text, &mut problems);
    match (problems.finish(Some(text)), root) {
        (None, Some(root)) => Ok(root.value),
        (found, _) => Err(found.unwrap_or_default()),
    }
}

/// A duration as the document writes it: `30s`, `1m30s`, `250ms`; none: it is none.
pub fn parse_duration(text: &str) -> Option<Duration> {
    schema::read_duration(text)
}

/// Reads a TOML document. On failure every error that was found is returned, sorted by place.
///
/// # Errors
/// Syntax errors, unknown keys, impossible values, dangling names, and whatever else the document gets wrong.
pub fn parse_toml(text: &str) -> Result<Document, Diagnostics> {
    let mut problems = Collector::default();
    let root = reading::toml::read(text, &mut problems);
    understand(root, problems, text)
}

/// Reads a JSON document: the same model, the same keys.
///
/// # Errors
/// As [`parse_toml`].
pub fn parse_json(text: &str) -> Result<Document, Diagnostics> {
    let mut problems = Collector::default();
    let root = reading::json::read(text, &mut problems);
    understand(root, problems, text)
}

/// Checks a document that was built by hand or by [`apply`], as if it had been written down and read again.
/// The places in the result have pointers only.
///
/// # Errors
/// As [`parse_toml`].
pub fn check(document: &Document) -> Result<(), Diagnostics> {
    let mut problems = Collector::default();
    let root = document.to_tree();
    let again = schema::document(&At::root(&root), &mut problems);
    validate::document(&again, Some(&root), &mut problems);
    problems.finish(None).map_or(Ok(()), Err)
}

/// Whether nothing is wrong with what objects, each of which can be, have to do with each other.
fn goes_together(document: &Document) -> bool {
    let mut problems = Collector::default();
    validate::document(document, None, &mut problems);
    problems.finish(None).is_none()
}

fn understand(root: Option<Node>, mut problems: Collector, text: &str) -> Result<Document, Diagnostics> {
    let document = root.map(|root| {
        let document = schema::document(&At::root(&root), &mut problems);
        validate::document(&document, Some(&root), &mut problems);
        document
    });
    match (problems.finish(Some(text)), document) {
        (None, Some(document)) => Ok(document),
        (Some(diagnostics), _) => Err(diagnostics),
        (None, None) => Err(Diagnostics::default()),
    }
}
