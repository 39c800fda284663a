//! Regular expressions of paths: anchored at both ends, bounded in size, without backtracking.

use std::borrow::Cow;
use std::ops::Range;

use regex_automata::meta::Regex;
use regex_automata::util::syntax;

/// The most memory that one compiled expression may take, in bytes: a document that needs more is refused.
const SIZE: usize = 1 << 20;

/// What each worker keeps at most of the states that matching has come by, for each of an expression's directions. One that
/// needs more is looked through state by state: slower, and no less right.
const CACHE: usize = 128 << 10;

/// An expression that the whole path must match. A byte of it that is no text (UTF-8) is a character of its own to it, so
/// that `.` and `[^/]` leave no gap.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Regex);

impl Pattern {
    /// None: it isn't one, or is too large. Validation refuses these.
    pub(super) fn compile(text: &str) -> Option<Self> {
        let regex = Regex::builder()
            .configure(Regex::config().nfa_size_limit(Some(SIZE)).hybrid_cache_capacity(CACHE))
            .syntax(syntax::Config::new().utf8(false).dot_matches_new_line(true))
            .build(&format!("^(?:{text})$"))
            .ok()?;
        Some(Pattern(regex))
    }

    /// Whether it matches a path, which is given as text.
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// What of a path that it matches its groups match, from the whole on.
    pub(super) fn captures(&self, path: &[u8]) -> Vec<Option<Range<usize>>> {
        let (mut captures, text) = (self.0.create_captures(), readable(path));
        self.0.captures(text.as_bytes(), &mut captures);
        let places = |span: regex_automata::Span| place(path, span.start)..place(path, span.end);
        captures.iter().map(|group| group.map(places)).collect()
    }
}

/// A path as text: a byte that belongs to none is one character.
pub(super) fn readable(path: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(path) {
        Ok(text) => text.into(),
        Err(_) => {
            let mut text = String::with_capacity(path.len() + 8);
            for chunk in path.utf8_chunks() {
                text.push_str(chunk.valid());
                text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
            }
            text.into()
        }
    }
}

/// Where in a path that stands which stands there in its text.
fn place(path: &[u8], at: usize) -> usize {
    let (mut passed, mut read) = (0, 0);
    for chunk in path.utf8_chunks() {
        let valid = chunk.valid().len();
        if at <= read + valid {
            return passed + (at - read);
        }
        let strange = (at - read - valid).div_ceil(char::REPLACEMENT_CHARACTER.len_utf8());
        if strange <= chunk.invalid().len() {
            return passed + valid + strange;
        }
        read += valid + chunk.invalid().len() * char::REPLACEMENT_CHARACTER.len_utf8();
        passed += valid + chunk.invalid().len();
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_of_a_path_gets_past_what_means_all() {
        for text in ["/admin/.*", "/admin/[^/]+", "(?i)/ADMIN/(.+)"] {
            let pattern = Pattern::compile(text).unwrap();
            for byte in (0..=u8::MAX).filter(|byte| *byte != b'/') {
                assert!(pattern.is_match(&readable(&[&b"/admin/"[..], &[byte]].concat())), "{text} {byte}");
                assert!(
                    pattern.is_match(&readable(&[&b"/admin/a"[..], &[byte, byte], "é".as_bytes()].concat())),
                    "{text} {byte}"
                );
            }
        }
        let digits = Pattern::compile("/[0-9]").unwrap();
        assert!(digits.is_match("/1") && !digits.is_match("/1\n") && !digits.is_match(&readable(b"/\xff")));
        assert!(Pattern::compile("/é{2}").unwrap().is_match("/éé"));
    }

    #[test]
    fn groups_are_what_stands_in_the_path_whatever_its_bytes() {
        let pattern = Pattern::compile("/([^/]*)/([^/]*)(/x)?").unwrap();
        let cases: [(&[u8], &[u8]); 6] = [
            (&b"a"[..], &b"b"[..]),
            (b"", b""),
            (b"\xff", b"b"),
            (b"a\xe2\x82", "é€".as_bytes()),
            (b"\xf0\x9f\x92", b"\xff\xfe\xfd"),
            ("\u{fffd}".as_bytes(), b"\x80z"),
        ];
        for (first, second) in cases {
            let path = [b"/", first, b"/", second].concat();
            let groups = pattern.captures(&path);
            let of = |at: usize| groups[at].clone().map(|range| &path[range]);
            assert_eq!([of(0), of(1), of(2), of(3)], [Some(&path[..]), Some(first), Some(second), None], "{path:?}");
        }
        assert!(pattern.captures(b"/a").iter().all(Option::is_none));
    }
}
