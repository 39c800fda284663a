//! `traceparent` (W3C Trace Context): whether it is one, and which trace it names. Makes none.

use super::{Fields, Known};

/// What a message says about the trace that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace<'a> {
    /// Nothing.
    None,
    /// The trace's id: 32 hexadecimal digits.
    Of(&'a str),
    /// Something that can't be read: who doesn't begin a trace anew must not pass it on, nor the `tracestate` with it.
    Wrong,
}

/// What these fields say.
pub fn trace<'a>(fields: &Fields<'a>) -> Trace<'a> {
    let mut values = fields.known(Known::Traceparent);
    match (values.next(), values.next()) {
        (None, _) => Trace::None,
        (Some(value), None) => trace_id(value).map_or(Trace::Wrong, Trace::Of),
        (Some(_), Some(_)) => Trace::Wrong,
    }
}

/// The id in `VERSION-TRACE-PARENT-FLAGS`, all in lower-case hexadecimal digits. A later version may say more behind it.
fn trace_id(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = text.splitn(5, '-');
    let mut part = |len: usize| {
        let is_hex = |part: &&str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        parts.next().filter(|part| part.len() == len).filter(is_hex)
    };
    let (version, id, parent, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let says_more = parts.next().is_some();
    let is_known = version == "00" && !says_more || version != "00" && version != "ff";
    (is_known && !is_zero(id) && !is_zero(parent)).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_taken_as_the_specification_has_it() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let good = [
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-is",
        ];
        for value in good {
            assert_eq!(trace_id(value.as_bytes()), Some(id), "{value}");
        }
        let bad = [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what",
            "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
        ];
        for value in bad {
            assert_eq!(trace_id(value.as_bytes()), None, "{value}");
        }
        assert_eq!(trace_id(b"00-4bf92f3577b34da6a3ce929d0e0e473\xff-00f067aa0ba902b7-01"), None);
    }
}
