//! Regular expressions of paths: anchored at both ends, bounded in size, without backtracking.

use regex_automata::meta::Regex;
use regex_automata::util::syntax;

/// The most memory that one compiled expression may take, in bytes: a document that needs more is refused.
const SIZE: usize = 1 << 20;

/// An expression that the whole path must match; none: it isn't one, or is too large. Validation refuses these.
pub(super) fn compile(text: &str) -> Option<Regex> {
    Regex::builder()
        .configure(Regex::config().nfa_size_limit(Some(SIZE)).hybrid_cache_capacity(SIZE))
        .syntax(syntax::Config::new().utf8(false))
        .build(&format!("^(?:{text})$"))
        .ok()
}
