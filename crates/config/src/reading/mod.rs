//! From text to the tree with places, for each syntax. Knows no option: what the keys mean is `schema`'s.

pub(crate) mod toml;

pub(crate) mod json;

use crate::bounds::MAX_DOCUMENT_BYTES;
use crate::diagnostics::{Collector, Diagnostic};

/// Whether the text is short enough to be read at all.
fn fits(text: &str, problems: &mut Collector) -> bool {
    let fits = text.len() <= MAX_DOCUMENT_BYTES;
    if !fits {
        let message = format!("the document has {} bytes; at most {MAX_DOCUMENT_BYTES} are read", text.len());
        problems.report(Diagnostic::new(message, String::new(), Some(0..0)));
    }
    fits
}

/// A key that stands in one table twice.
fn duplicate<'p>(key: &str, problems: &'p mut Collector, again: std::ops::Range<usize>) -> &'p mut Diagnostic {
    let message = format!("the key `{}` stands twice in one table", crate::diagnostics::quoted(key));
    problems.report(Diagnostic::new(message, String::new(), Some(again)))
}
