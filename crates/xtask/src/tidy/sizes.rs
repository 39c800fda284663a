//! Sizes that keep a file readable. A size that must be passed stands in the table of exceptions with its reason;
//! what is named there may not grow further.

use super::Complaint;
use super::source::Source;

const FILE_LINES: usize = 800;
const FUNCTION_LINES: usize = 70;
const ARGUMENTS: usize = 5;
const INDENTATION: usize = 6;
const INDENT: usize = 4;
/// `mod tests` and a property test's macro stand around what a test says.
const TEST_INDENTATION: usize = INDENTATION + 2;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// Lines of a file, without those of tests.
    File,
    /// Lines of a function.
    Function,
    /// Arguments of a function, without `self`.
    Arguments,
    /// Levels of indentation in a file.
    Indentation,
}

/// A size that may be passed, up to `limit`.
pub(super) struct Exception {
    pub(super) size: Size,
    pub(super) path: &'static str,
    /// The function's name; empty for a file's sizes.
    pub(super) item: &'static str,
    pub(super) limit: usize,
    pub(super) reason: &'static str,
}

/// The ratchet: entries are lowered and removed, never raised.
pub(super) const EXCEPTIONS: &[Exception] = &[];

/// One measure that is too large.
struct Excess {
    size: Size,
    item: String,
    line: usize,
    measured: usize,
}

pub(super) fn check(sources: &[Source], exceptions: &[Exception], complaints: &mut Vec<Complaint>) {
    let mut used = vec![false; exceptions.len()];
    for source in sources {
        for excess in measure(source) {
            let exception = exceptions
                .iter()
                .position(|e| e.size == excess.size && e.path == source.path && e.item == excess.item.as_str());
            if let Some(at) = exception {
                used[at] = true;
                if excess.measured <= exceptions[at].limit && !exceptions[at].reason.is_empty() {
                    continue;
                }
            }
            let Excess { size, item, line, measured } = excess;
            complaints.push(Complaint {
                path: source.path.clone(),
                line,
                rule: "size",
                what: say(size, &item, measured),
            });
        }
    }
    for (exception, _) in exceptions.iter().zip(used).filter(|(_, used)| !used) {
        let what =
            format!("the exception for {:?} `{}` is no longer needed: remove it", exception.size, exception.item);
        complaints.push(Complaint { path: exception.path.to_owned(), line: 1, rule: "size", what });
    }
}

fn say(size: Size, item: &str, measured: usize) -> String {
    match size {
        Size::File => {
            format!("{measured} lines without tests, at most {FILE_LINES}: is there a room that wants to be made?")
        }
        Size::Function => format!("`{item}` has {measured} lines, at most {FUNCTION_LINES}"),
        Size::Arguments => format!("`{item}` takes {measured} arguments, at most {ARGUMENTS}"),
        Size::Indentation => format!(
            "{measured} levels of indentation, at most {INDENTATION} (in tests {TEST_INDENTATION}): make a function of it"
        ),
    }
}

fn measure(source: &Source) -> Vec<Excess> {
    let mut found = Vec::new();
    let mut see = |size, item: &str, line, measured, limit| {
        if measured > limit {
            found.push(Excess { size, item: item.to_owned(), line, measured });
        }
    };
    see(Size::File, "", 1, source.lines(), FILE_LINES);
    for function in &source.functions {
        see(Size::Function, &function.name, function.line, function.lines, FUNCTION_LINES);
        see(Size::Arguments, &function.name, function.line, function.arguments, ARGUMENTS);
    }
    let deepest = |tests: bool| {
        let lines = source.indents.iter().filter(|(line, _)| source.is_test(*line) == tests);
        lines.max_by_key(|(_, column)| *column).map_or((1, 0), |(line, column)| (*line, column / INDENT))
    };
    for (tests, limit) in [(false, INDENTATION), (true, TEST_INDENTATION)] {
        let (line, levels) = deepest(tests);
        see(Size::Indentation, "", line, levels, limit);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(code: &str, exceptions: &[Exception]) -> Vec<String> {
        let mut found = Vec::new();
        check(&[Source::parse("crates/a/src/a.rs", code).unwrap()], exceptions, &mut found);
        found.into_iter().map(|complaint| complaint.what).collect()
    }

    fn function(lines: usize) -> String {
        format!("fn long() {{\n{}}}\n", "    g();\n".repeat(lines - 2))
    }

    #[test]
    fn a_long_function_is_found() {
        assert_eq!(complaints(&function(70), &[]).len(), 0);
        assert_eq!(complaints(&function(71), &[]), ["`long` has 71 lines, at most 70"]);
        let method = format!("impl A {{\n{}}}\n", function(71));
        assert_eq!(complaints(&method, &[]).len(), 1);
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_do_not_count() {
        let lines = "const A: u8 = 0;\n".repeat(800);
        assert_eq!(complaints(&lines, &[]).len(), 0);
        assert_eq!(complaints(&format!("{lines}const B: u8 = 0;\n"), &[]).len(), 1);
        assert_eq!(complaints(&format!("{lines}#[cfg(test)]\nmod tests {{\n{lines}}}\n"), &[]).len(), 0);
    }

    #[test]
    fn many_arguments_are_found_and_self_is_none() {
        assert_eq!(complaints("fn f(a: A, b: B, c: C, d: D, e: E, f: F) {}", &[]).len(), 1);
        assert_eq!(complaints("impl A { fn f(&self, a: A, b: B, c: C, d: D, e: E) {} }", &[]).len(), 0);
        assert_eq!(complaints("impl A { fn f(&self, a: A, b: B, c: C, d: D, e: E, f: F) {} }", &[]).len(), 1);
    }

    #[test]
    fn deep_indentation_is_found_but_not_in_a_text() {
        let deep = format!("fn f() {{\n{}g();\n}}\n", " ".repeat(28));
        assert_eq!(complaints(&deep, &[]).len(), 1);
        let text = format!("const A: &str = \"a\n{}b\";\n", " ".repeat(40));
        assert_eq!(complaints(&text, &[]).len(), 0);
        let test = |levels: usize| format!("#[cfg(test)]\nfn f() {{\n{}g();\n}}\n", "    ".repeat(levels));
        assert_eq!(complaints(&test(8), &[]).len(), 0);
        assert_eq!(complaints(&test(9), &[]).len(), 1);
        let even = format!("fn f() {{\n{}g();\n}}\n", " ".repeat(24));
        assert_eq!(complaints(&even, &[]).len(), 0);
    }

    #[test]
    fn an_exception_holds_up_to_its_limit_and_must_be_needed() {
        let exception =
            |limit, reason| Exception { size: Size::Function, path: "crates/a/src/a.rs", item: "long", limit, reason };
        assert_eq!(complaints(&function(75), &[exception(75, "a table")]).len(), 0);
        assert_eq!(complaints(&function(76), &[exception(75, "a table")]).len(), 1);
        assert_eq!(complaints(&function(75), &[exception(75, "")]).len(), 1, "a reason is needed");
        assert_eq!(complaints(&function(10), &[exception(75, "a table")]).len(), 1, "no longer needed");
    }
}
