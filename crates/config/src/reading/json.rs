//! JSON text to the tree. Structure and places are ours, since serde_json keeps neither places nor duplicate keys;
//! what a string or a number says is serde_json's.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{duplicate, fits};
use crate::bounds::MAX_DEPTH;
use crate::diagnostics::{Collector, Diagnostic};
use crate::tree::{Entry, Node, Value};

/// Reads the text; none when its syntax is broken (the first error is reported: JSON can't be recovered).
pub(crate) fn read(text: &str, problems: &mut Collector) -> Option<Node> {
    if !fits(text, problems) {
        return None;
    }
    let mut reader = Reader { text, at: 0, problems };
    let read = reader.value(0).and_then(|node| {
        reader.blanks();
        if reader.at == text.len() { Ok(node) } else { Err(reader.unexpected("the end of the document")) }
    });
    match read {
        Ok(node) => Some(node),
        Err(Broken { message, span }) => {
            problems.report(Diagnostic::new(message, String::new(), Some(span)));
            None
        }
    }
}

struct Reader<'a, 'p> {
    text: &'a str,
    at: usize,
    problems: &'p mut Collector,
}

struct Broken {
    message: String,
    span: Range<usize>,
}

impl Reader<'_, '_> {
    fn value(&mut self, depth: usize) -> Result<Node, Broken> {
        self.blanks();
        let start = self.at;
        if depth > MAX_DEPTH {
            let message = format!("the document nests more than {MAX_DEPTH} levels deep");
            return Err(Broken { message, span: start..start + 1 });
        }
        let value = match self.peek() {
            Some(b'{') => self.table(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Value::text(self.string()?.0),
            Some(b'-' | b'0'..=b'9' | b'a'..=b'z') => self.word()?,
            _ => return Err(self.unexpected("a value")),
        };
        Ok(Node { value, span: start..self.at })
    }

    fn table(&mut self, depth: usize) -> Result<Value, Broken> {
        self.at += 1;
        let mut entries: Vec<Entry> = Vec::new();
        let mut known: BTreeMap<String, Range<usize>> = BTreeMap::new();
        self.blanks();
        if self.take(b'}') {
            return Ok(Value::Table(entries));
        }
        loop {
            self.blanks();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("a key in double quotes"));
            }
            let (name, span) = self.string()?;
            self.blanks();
            if !self.take(b':') {
                return Err(self.unexpected("`:`"));
            }
            let node = self.value(depth + 1)?;
            if let Some(first) = known.get(&name) {
                duplicate(&name, self.problems, span).and(String::new(), Some(first.clone()), "first here");
            } else {
                known.insert(name.clone(), span.clone());
                entries.push(Entry { key: Node { value: Value::text(name), span }, node });
            }
            self.blanks();
            if self.take(b'}') {
                return Ok(Value::Table(entries));
            }
            if !self.take(b',') {
                return Err(self.unexpected("`,` or `}`"));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, Broken> {
        self.at += 1;
        let mut items = Vec::new();
        self.blanks();
        if self.take(b']') {
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.blanks();
            if self.take(b']') {
                return Ok(Value::List(items));
            }
            if !self.take(b',') {
                return Err(self.unexpected("`,` or `]`"));
            }
        }
    }

    /// A string, from its opening to its closing quote.
    fn string(&mut self) -> Result<(String, Range<usize>), Broken> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        self.at += 1;
        while let Some(&byte) = bytes.get(self.at) {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                let span = start..self.at;
                return match serde_json::from_str(&self.text[span.clone()]) {
                    Ok(text) => Ok((text, span)),
                    Err(error) => Err(broken_leaf("string", &error, span)),
                };
            }
        }
        self.at = bytes.len();
        Err(Broken { message: "this isn't JSON: a string doesn't end".into(), span: start..bytes.len() })
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> Result<Value, Broken> {
        let start = self.at;
        let rest = &self.text.as_bytes()[start..];
        let inside = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        self.at += rest.iter().take_while(|byte| inside(byte)).count();
        let word = &self.text[start..self.at];
        match word {
            "null" => return Ok(Value::Null),
            "true" => return Ok(Value::Bool(true)),
            "false" => return Ok(Value::Bool(false)),
            _ => {}
        }
        let number: serde_json::Number =
            serde_json::from_str(word).map_err(|error| broken_leaf("value", &error, start..self.at))?;
        let whole = number.as_i128();
        Ok(whole.map_or_else(|| Value::Float(number.as_f64().unwrap_or(f64::NAN)), Value::Integer))
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let here = self.peek() == Some(byte);
        self.at += usize::from(here);
        here
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn unexpected(&self, wanted: &str) -> Broken {
        let (found, length) = match self.text[self.at..].chars().next() {
            Some(c) => (format!("`{}`", c.escape_debug()), c.len_utf8()),
            None => ("the end of the document".to_owned(), 0),
        };
        let message = format!("this isn't JSON: expected {wanted}, found {found}");
        Broken { message, span: self.at..self.at + length }
    }
}

fn broken_leaf(what: &str, error: &serde_json::Error, span: Range<usize>) -> Broken {
    let reason = error.to_string();
    let reason = reason.split(" at line").next().unwrap_or_default();
    Broken { message: format!("this isn't JSON: the {what} is wrong: {reason}"), span }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ours(text: &str) -> Option<serde_json::Value> {
        let mut problems = Collector::default();
        read(text, &mut problems).map(|node| node.value.to_json())
    }

    #[test]
    fn agrees_with_serde_json_on_curious_texts() {
        let texts = [
            "",
            " ",
            "{}",
            "[]",
            "[1,]",
            "{,}",
            "{\"a\":1,}",
            "01",
            "-",
            "-0",
            "1e5",
            "1.",
            ".5",
            "nul",
            "nulll",
            "true",
            "\"\\u00e9\\n\"",
            "\"\\x\"",
            "\"\u{1}\"",
            "\"open",
            "\"\\",
            "[[[]]]",
            "{\"a\":{\"b\":[null,false]}} x",
            "\u{feff}{}",
            "{\"a\" 1}",
            "é",
            "[1 2]",
            "9223372036854775807",
            "\"\\ud800\"",
            "\"é\\",
            "+1",
        ];
        for text in texts {
            let theirs: Option<serde_json::Value> = serde_json::from_str(text).ok();
            assert_eq!(ours(text).is_some(), theirs.is_some(), "{text:?}");
            assert_eq!(ours(text), theirs, "{text:?}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(1_000_000);
        assert_eq!(ours(&deep), None);
        let fine = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert!(ours(&fine).is_some());
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json_on_arbitrary_text(text in "[\\[\\]{}:,\"a0-9 \\\\.eE+-]{0,24}") {
            let theirs: Option<serde_json::Value> = serde_json::from_str(&text).ok();
            let mut problems = Collector::default();
            let read = read(&text, &mut problems);
            prop_assert_eq!(read.is_some(), theirs.is_some());
        }
    }
}
