//! A record as one line: a JSON object, `key=value` words, or the common and the combined log format. Whatever a client
//! sent, it stays where it is put: it can begin no line and no field. Opens no file.

use std::fmt::Write as _;
use std::time::SystemTime;

use kakei_config::LogFormat;
use kakei_proxy::record::{Detail, Record};

pub use super::fields::Line;
use super::fields::{FIELDS, Field, Value, method, referer, response_bytes, status, target, user, user_agent, version};
use crate::wall;

impl<'a> Line<'a> {
    /// The line of what ended at `ended`.
    pub fn new(record: &'a Record, ended: SystemTime) -> Self {
        Line { record, ended }
    }

    /// Append it to `lines`, newline included.
    pub fn write(&self, format: LogFormat, lines: &mut Vec<u8>) {
        match format {
            LogFormat::Json => self.json(lines),
            LogFormat::Text => self.text(lines),
            LogFormat::Common => self.common(lines),
            LogFormat::Combined => {
                self.common(lines);
                for value in [referer(self), user_agent(self)] {
                    lines.push(b' ');
                    quoted(&[value], lines);
                }
            }
        }
        lines.push(b'\n');
    }

    fn fields(&self) -> impl Iterator<Item = &'static Field> {
        FIELDS.iter().filter(|field| field.is_of(&self.record.detail))
    }

    fn json(&self, lines: &mut Vec<u8>) {
        for (number, field) in self.fields().enumerate() {
            lines.push(if number == 0 { b'{' } else { b',' });
            json_text(field.key, lines);
            lines.push(b':');
            match (field.value)(self) {
                Value::None => lines.extend_from_slice(b"null"),
                Value::Word(word) => json_text(&word, lines),
                Value::Sent(sent) => json_text(sent, lines),
                Value::Number(number) => lines.extend_from_slice(number.to_string().as_bytes()),
                Value::Flag(flag) => lines.extend_from_slice(flag.to_string().as_bytes()),
            }
        }
        lines.push(b'}');
    }

    fn text(&self, lines: &mut Vec<u8>) {
        let mut text = String::with_capacity(512);
        for field in self.fields() {
            let space = if text.is_empty() { "" } else { " " };
            let key = field.key;
            let written = match (field.value)(self) {
                Value::None => continue,
                Value::Word(word) if is_plain(&word) => write!(text, "{space}{key}={word}"),
                Value::Word(word) => write!(text, "{space}{key}={word:?}"),
                Value::Sent(sent) => write!(text, "{space}{key}={sent:?}"),
                Value::Number(number) => write!(text, "{space}{key}={number}"),
                Value::Flag(flag) => write!(text, "{space}{key}={flag}"),
            };
            written.expect("writing to a string never fails");
        }
        lines.extend_from_slice(text.as_bytes());
    }

    /// `client - user [time] "request" status bytes`, as servers have written it since NCSA's.
    fn common(&self, lines: &mut Vec<u8>) {
        let client = self.record.client.ip().to_canonical();
        lines.extend_from_slice(format!("{client} - ").as_bytes());
        plain(&user(self), lines);
        lines.extend_from_slice(format!(" [{}] ", wall::common(self.ended)).as_bytes());
        let kind = |name: &'static str| {
            [Value::Word(name.into()), Value::Word(self.record.local.to_string().into()), Value::Word("-".into())]
        };
        match &self.record.detail {
            Detail::Exchange(detail) if detail.method.is_empty() => quoted(&[Value::None], lines),
            Detail::Exchange(_) => quoted(&[method(self), target(self), version(self)], lines),
            Detail::Connection(_) => quoted(&kind("TCP"), lines),
            Detail::Flow { .. } => quoted(&kind("UDP"), lines),
        }
        for value in [status(self), response_bytes(self)] {
            lines.push(b' ');
            plain(&value, lines);
        }
    }
}

fn json_text(text: &str, lines: &mut Vec<u8>) {
    serde_json::to_writer(lines, text).expect("a text is always JSON");
}

/// Whether a word needs no quotes.
fn is_plain(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}

/// A field without quotes: it has no blank.
fn plain(value: &Value<'_>, lines: &mut Vec<u8>) {
    match value {
        Value::Number(number) => lines.extend_from_slice(number.to_string().as_bytes()),
        Value::Word(word) if !word.is_empty() => escaped(word, false, lines),
        Value::Sent(sent) if !sent.is_empty() => escaped(sent, false, lines),
        Value::Word(_) | Value::Sent(_) | Value::None | Value::Flag(_) => lines.push(b'-'),
    }
}

/// A field in quotes, of parts with a blank between.
fn quoted(parts: &[Value<'_>], lines: &mut Vec<u8>) {
    lines.push(b'"');
    for (number, part) in parts.iter().enumerate() {
        if number > 0 {
            lines.push(b' ');
        }
        match part {
            Value::Word(word) => escaped(word, true, lines),
            Value::Sent(sent) if !sent.is_empty() => escaped(sent, true, lines),
            other => plain(other, lines),
        }
    }
    lines.push(b'"');
}

/// Printable ASCII as it is, a quote and a backslash behind a backslash, every other byte as `\xhh`.
fn escaped(text: &str, blanks: bool, lines: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => lines.extend_from_slice(&[b'\\', byte]),
            b' ' if blanks => lines.push(byte),
            _ if byte.is_ascii_graphic() => lines.push(byte),
            _ => lines.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests;
