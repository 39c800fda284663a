//! Payloads of probes, written in hex or as text. What a probe does with them is not known here.

use super::values::{mismatch, text};
use super::{At, Codec, Shape, listed, shape};
use crate::bounds::MAX_PROBE_BYTES;
use crate::diagnostics::Collector;
use crate::model::Expect;
use crate::tree::{Entry, Value};

/// How bytes are written under a key of one's choice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Hex,
    Text,
}

/// Reads a payload written in one form.
pub(super) fn read_bytes(form: Form, at: &At<'_>, problems: &mut Collector) -> Option<Vec<u8>> {
    let bytes = match form {
        Form::Text => text(at, "a string", problems)?.as_bytes().to_vec(),
        Form::Hex => {
            let hex = text(at, "bytes in hex, like \"00 01 ff\"", problems)?;
            match read_hex(hex) {
                Ok(bytes) => bytes,
                Err(wrong) => {
                    at.report(format!("{} isn't hex: {wrong}", at.subject()), problems)
                        .help("two hex digits a byte; blanks, `:` and `_` may stand between bytes");
                    return None;
                }
            }
        }
    };
    if bytes.len() > MAX_PROBE_BYTES {
        let message =
            format!("{} has {} bytes; at most {MAX_PROBE_BYTES} are sent in a probe", at.subject(), bytes.len());
        at.report(message, problems);
        return None;
    }
    Some(bytes)
}

/// The form that a person would choose, and the text in it.
pub(super) fn write_bytes(bytes: &[u8]) -> (Form, String) {
    let printable = bytes.iter().all(|byte| (b' '..=b'~').contains(byte));
    match std::str::from_utf8(bytes) {
        Ok(text) if printable => (Form::Text, text.to_owned()),
        _ => (Form::Hex, bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}

fn read_hex(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if matches!(c, ' ' | ':' | '_' | '\n' | '\t') {
            continue;
        }
        let high = digit(c)?;
        let low = digit(chars.next().ok_or_else(|| "the last byte has one digit only".to_owned())?)?;
        bytes.push(high << 4 | low);
    }
    Ok(bytes)
}

fn digit(c: char) -> Result<u8, String> {
    let digit = c.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    digit.ok_or_else(|| format!("`{}` is no hex digit", c.escape_debug()))
}

/// What must come back: `"any"`, or bytes that are the whole reply or its beginning.
pub(super) struct Expected;

type Way = (&'static str, Form, fn(Vec<u8>) -> Expect);
const SHAPES: [Way; 4] = [
    ("exact_hex", Form::Hex, Expect::Exact),
    ("exact_text", Form::Text, Expect::Exact),
    ("prefix_hex", Form::Hex, Expect::Prefix),
    ("prefix_text", Form::Text, Expect::Prefix),
];

impl Codec for Expected {
    type Of = Expect;

    fn describe(&self) -> String {
        let keys = SHAPES.map(|(key, ..)| format!("`{{ {key} = \"…\" }}`"));
        format!("`any`, {}", keys.join(", "))
    }

    fn shape(&self) -> Shape {
        let tables = SHAPES.map(|(key, ..)| shape::table([(key, true, shape::of("string"))]));
        shape::either([shape::words(["any"])].into_iter().chain(tables))
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<Expect> {
        let keys = listed(SHAPES.iter().map(|(key, ..)| *key));
        match &at.node.value {
            Value::Text(word) if word == "any" => return Some(Expect::Any),
            Value::Table(entries) => {
                if let [entry] = &entries[..]
                    && let Some((_, form, make)) = SHAPES.iter().find(|(key, ..)| *key == entry.name())
                {
                    return read_bytes(*form, &at.entry(entry), problems).map(make);
                }
                at.report(format!("{} must have exactly one of {keys}", at.subject()), problems);
            }
            _ => {
                mismatch(at, &format!("`any` or a table with one of {keys}"), problems);
            }
        }
        None
    }

    fn write(&self, value: &Expect) -> Option<Value> {
        let (bytes, hex, text) = match value {
            Expect::Any => return Some(Value::text("any")),
            Expect::Exact(bytes) => (bytes, "exact_hex", "exact_text"),
            Expect::Prefix(bytes) => (bytes, "prefix_hex", "prefix_text"),
        };
        let (form, written) = write_bytes(bytes);
        let key = if form == Form::Hex { hex } else { text };
        Some(Value::Table(vec![Entry::new(key, Value::text(written))]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex() {
        assert_eq!(read_hex("00 01:ff_Ab"), Ok(vec![0, 1, 255, 171]));
        assert_eq!(read_hex(""), Ok(vec![]));
        assert!(read_hex("0").is_err());
        assert!(read_hex("0 0").is_err());
        assert!(read_hex("…").is_err());
    }
}
