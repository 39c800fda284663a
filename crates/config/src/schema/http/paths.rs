//! Paths that routes match, and templates that make other paths of them. No request is looked at here.

use regex_automata::meta::Regex;
use regex_automata::util::syntax;

use super::text::Text;
use crate::bounds::{MAX_PATTERN_BYTES, MAX_PATTERNS_BYTES};
use crate::diagnostics::{Collector, quoted};
use crate::model::{Document, PathMatch};
use crate::schema::values::{mismatch, text};
use crate::schema::{At, Codec, Shape, shape};
use crate::template::{Piece, pieces, places};
use crate::tree::{Entry, Value};

/// A path: a prefix by whole segments, one path, or a regular expression.
pub(in crate::schema) struct PathOf;

impl Codec for PathOf {
    type Of = PathMatch;

    fn describe(&self) -> String {
        "prefix like `/api`, `{ exact = \"/x\" }`, or `{ regex = \"/v[0-9]+/.*\" }`".into()
    }

    fn shape(&self) -> Shape {
        let table = |key| shape::table([(key, true, shape::of("string"))]);
        shape::either([shape::text("prefix"), table("exact"), table("regex")])
    }

    fn has_key(&self, key: &str) -> bool {
        matches!(key, "exact" | "regex")
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<PathMatch> {
        let entry = match &at.node.value {
            Value::Text(prefix) => {
                let path = plain(prefix, at, problems)?;
                let cut = if path == "/" { path } else { path.strip_suffix('/').unwrap_or(path) };
                return Some(PathMatch::Prefix(cut.to_owned()));
            }
            Value::Table(entries) if entries.len() == 1 => &entries[0],
            Value::Table(_) => return not_one(at, problems),
            _ => {
                mismatch(at, "a prefix like \"/api\", or a table with `exact` or `regex`", problems);
                return None;
            }
        };
        let here = at.entry(entry);
        match entry.name() {
            "exact" => {
                let path = text(&here, "a path like \"/x\"", problems)?;
                Some(PathMatch::Exact(plain(path, &here, problems)?.to_owned()))
            }
            "regex" => pattern(&here, problems).map(PathMatch::Regex),
            _ => not_one(at, problems),
        }
    }

    fn write(&self, value: &PathMatch) -> Option<Value> {
        let table = |key, text: &str| Some(Value::Table(vec![Entry::new(key, Value::text(text.to_owned()))]));
        match value {
            PathMatch::Any => None,
            PathMatch::Prefix(path) => Some(Value::text(path.clone())),
            PathMatch::Exact(path) => table("exact", path),
            PathMatch::Regex(pattern) => table("regex", pattern),
        }
    }
}

fn not_one(at: &At<'_>, problems: &mut Collector) -> Option<PathMatch> {
    at.report(format!("{} must have exactly one of `exact`, `regex`", at.subject()), problems)
        .help("a prefix is written alone: `path = \"/api\"`");
    None
}

/// A path in the one spelling that requests' paths are compared in, or a report of why it isn't.
fn plain<'t>(path: &'t str, at: &At<'_>, problems: &mut Collector) -> Option<&'t str> {
    let wrong = if !path.starts_with('/') {
        "doesn't begin with `/`"
    } else if path.contains(['?', '#']) {
        "has a `?` or `#`, which end a path; parameters are matched by `query`"
    } else if has_escape(path) {
        "has a `%`-escape; paths are compared decoded, so write the character itself"
    } else if path.contains('\\') {
        "has a backslash, which counts as a slash when paths are compared"
    } else if path.chars().any(char::is_control) {
        "has a control character"
    } else if path.contains("//") || path.split('/').any(|segment| matches!(segment, "." | "..")) {
        "has `//`, `/.` or `/..`, which no path has when it is compared"
    } else {
        return Some(path);
    };
    at.report(format!("{}: `{}` {wrong}", at.subject(), quoted(path)), problems);
    None
}

fn has_escape(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.windows(3).any(|piece| piece[0] == b'%' && piece[1].is_ascii_hexdigit() && piece[2].is_ascii_hexdigit())
}

/// An expression that the whole path must match, as the data plane compiles it.
fn compile(pattern: &str) -> Result<Regex, String> {
    // What closes a group that it didn't open, or comments out what follows, would compile between brackets only or alone only.
    let dialect = syntax::Config::new().utf8(false);
    syntax::parse_with(pattern, &dialect).map_err(|why| reason(&why.to_string()))?;
    let sizes = Regex::config().nfa_size_limit(Some(MAX_PATTERN_BYTES)).hybrid_cache_capacity(MAX_PATTERN_BYTES);
    let built = Regex::builder().configure(sizes).syntax(dialect).build(&format!("^(?:{pattern})$"));
    built.map_err(|why| match why.size_limit() {
        Some(_) => format!(
            "it takes more than {} KiB when it is compiled; `(?-u)` at its begin leaves letters that aren't ASCII out",
            MAX_PATTERN_BYTES >> 10
        ),
        None => reason(&why.to_string()),
    })
}

/// The last line of a parser's message, which says why; what stands before it draws the text.
fn reason(message: &str) -> String {
    let line = message.trim_end().lines().next_back().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

fn pattern(at: &At<'_>, problems: &mut Collector) -> Option<String> {
    let text = text(at, "a regular expression like \"/v[0-9]+/.*\"", problems)?;
    if problems.patterns_bytes >= MAX_PATTERNS_BYTES {
        let most = MAX_PATTERNS_BYTES >> 20;
        let message =
            format!("{}: the document's regular expressions take more than {most} MiB together", at.subject());
        at.report(message, problems);
        return None;
    }
    let compiled = compile(text);
    problems.patterns_bytes += compiled.as_ref().map_or(MAX_PATTERN_BYTES, Regex::memory_usage);
    match compiled {
        Ok(_) if begins_otherwise(text) => {
            let message = format!("{}: `{}` matches no path: all begin with `/`", at.subject(), quoted(text));
            at.report(message, problems).help(format!("did you mean `/{}`?", quoted(text)));
            None
        }
        Ok(_) => Some(text.to_owned()),
        Err(why) => {
            let message = format!("{}: `{}` isn't a regular expression: {why}", at.subject(), quoted(text));
            at.report(message, problems);
            None
        }
    }
}

/// Whether all that an expression matches is sure to begin with another character than a path. Only the plainest ones are
/// looked through: those without a choice that begin with a character that stands for itself, and has to be there.
fn begins_otherwise(pattern: &str) -> bool {
    let mut rest = pattern.chars();
    let first = rest.next().filter(|first| *first != '/' && !r"\.+*?()|[]{}^$".contains(*first));
    let may_be_missing = rest.next().is_some_and(|next| matches!(next, '*' | '?' | '{'));
    first.is_some() && !may_be_missing && !pattern.contains('|')
}

/// What the regular expressions of a valid document take together, in bytes: as much as those of its parts together.
pub(crate) fn patterns_bytes(document: &Document) -> usize {
    let patterns = document.routes.values().filter_map(|route| match &route.path {
        PathMatch::Regex(pattern) => compile(pattern).ok(),
        PathMatch::Any | PathMatch::Exact(_) | PathMatch::Prefix(_) => None,
    });
    patterns.map(|pattern| pattern.memory_usage()).sum()
}

/// A path with places for parts of the one that matched.
pub(super) const TEMPLATE: Text = Text {
    what: "path, with `{path}`, `{rest}`, `{1}`…",
    wrong: |text| {
        if !["/", "{path}", "{rest}"].iter().any(|begin| text.starts_with(begin)) {
            return Some("isn't a path: it begins with `/`, `{path}` or `{rest}`");
        }
        let texts = || {
            pieces(text).filter_map(|piece| match piece {
                Piece::Text(text) => Some(text),
                Piece::Place(_) => None,
            })
        };
        if texts().any(|text| text.contains(['{', '}'])) {
            Some("has a `{` or `}` that belongs to no placeholder")
        } else if texts().any(|text| text.contains(['?', '#'])) {
            Some("has a `?` or `#`, which end a path")
        } else if !texts().all(is_encoded) {
            Some(
                "has a character that no path in a message has: what isn't ASCII, blanks and the like are written as `%`-escapes",
            )
        } else {
            None
        }
    },
};

/// Whether it is as a path in a message must be (RFC 3986 3.3).
fn is_encoded(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().all(|(at, byte)| match byte {
        b'%' => bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)),
        byte => byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(byte),
    })
}

/// The placeholders that have names.
pub(super) const PLACES: [&str; 2] = ["path", "rest"];

/// The first placeholder of a template that a route's paths have no part for, and what is wrong with it.
pub(super) fn wrong_template<'t>(template: &'t str, path: &PathMatch) -> Option<(&'t str, String)> {
    let mut captures = None;
    places(template).find_map(|name| Some((name, wrong_place(name, path, &mut captures)?)))
}

/// What is wrong with a placeholder; how many groups the route's regular expression has is found out once.
fn wrong_place(name: &str, path: &PathMatch, captures: &mut Option<usize>) -> Option<String> {
    let shown = quoted(name);
    match name {
        "path" => None,
        "rest" if matches!(path, PathMatch::Prefix(_)) => None,
        "rest" => Some("`{rest}` is what follows a prefix, and the route's `path` isn't one".into()),
        number if number.bytes().all(|byte| byte.is_ascii_digit()) => {
            let PathMatch::Regex(pattern) = path else {
                return Some(format!(
                    "`{{{shown}}}` is a part of a regular expression, and the route's `path` isn't one"
                ));
            };
            let known = *captures.get_or_insert_with(|| compile(pattern).map_or(0, |regex| regex.captures_len() - 1));
            let is_one = number.parse().is_ok_and(|number: usize| (1..=known).contains(&number));
            (!is_one).then(|| format!("there is no `{{{shown}}}`: the route's regular expression has {known} groups"))
        }
        _ => Some(format!("`{{{shown}}}` is unknown; there are `{{path}}`, `{{rest}}`, and `{{1}}` and so on")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_one_alone_and_between_its_anchors() {
        for right in ["/a", "/a|/b", "(?i)/A", "(?x) /a", "", "/[^/]+/(?<id>[0-9]+)", "(?-u)/\\w{40}"] {
            assert!(compile(right).is_ok(), "{right}");
        }
        assert!(!compile("/a|/b").unwrap().is_match("/ax"));
        for wrong in ["/a)|(/b", "/(a", "(?x)/a # and so on", "/\\", "/[a", "*", "/(?=a)", "/(a)\\1", "/\\w{1000}"] {
            assert!(compile(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_expression_that_no_path_can_match_is_told_where_that_is_plain() {
        for never in ["x.*", "api/(v1)", "x", "é", "a+/", "%41"] {
            assert!(begins_otherwise(never), "{never}");
            assert!(!compile(never).unwrap().is_match("/"), "{never}");
        }
        for other in
            ["/x", ".*", "", "^/x", "(x|/)", "x|/y", "x?/y", "x*/y", "x{0}/y", "[^x].*", "(?x) /a", "\\x2f.*", "^x"]
        {
            assert!(!begins_otherwise(other), "{other}");
        }
    }

    #[test]
    fn a_template_has_no_part_that_its_path_lacks() {
        let (any, prefix) = (PathMatch::Any, PathMatch::Prefix("/a".into()));
        let (exact, regex) = (PathMatch::Exact("/a".into()), PathMatch::Regex("/(a)/(?<b>b)|/(?:c)".into()));
        let right = [("/x{path}", &any), ("{rest}", &prefix), ("{path}", &exact), ("/{2}{1}{path}", &regex)];
        for (template, path) in right {
            assert_eq!(((TEMPLATE.wrong)(template), wrong_template(template, path)), (None, None), "{template}");
        }
        let lacking = [("/{rest}", &any), ("/{rest}", &regex), ("/{1}", &prefix), ("/{3}", &regex), ("/{0}", &regex)];
        let unknown = [("/{b}", &regex), ("/{99999999999999999999}", &regex)];
        for (template, path) in lacking.into_iter().chain(unknown) {
            assert!(wrong_template(template, path).is_some(), "{template}");
        }
        for wrong in [
            "",
            "x",
            "{1}",
            "/{path",
            "/path}",
            "/{{path}}",
            "/{}",
            "/{+1}",
            "/a b",
            "/a?b",
            "/a#b",
            "/é",
            "/%2",
            "/%zz",
        ] {
            assert!((TEMPLATE.wrong)(wrong).is_some(), "{wrong}");
        }
        assert!((TEMPLATE.wrong)("/%C3%A9/a,b;c=d").is_none());
    }
}
