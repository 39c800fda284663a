//! Heads that come whole and have nothing unusual, as nearly all do: looked through once, and noted on the way. What isn't
//! taken here is left to [`Scan`](super::Scan) and to the grammar, which say what is wrong with it; what is taken, they
//! would take too, and read alike.

use super::Version;
use super::head::{Heads, Limits, MAX_FIELDS};
use crate::message::{Field, Known, is_token_byte};

/// The bytes that may stand in a token.
static TOKEN: [bool; 256] = {
    let (mut token, mut byte) = ([false; 256], 0);
    while byte < token.len() {
        token[byte] = is_token_byte(byte as u8);
        byte += 1;
    }
    token
};

impl Heads {
    /// Notes the fields whose lines begin there, up to the empty line: where that ends.
    pub(super) fn quick_fields(&mut self, bytes: &[u8], mut at: usize, limits: &Limits) -> Option<usize> {
        self.fields.clear();
        let most = limits.fields.min(MAX_FIELDS);
        loop {
            let line = bytes.get(at..)?;
            if let [b'\r', b'\n', ..] = line {
                let len = at + 2;
                return (len <= limits.head).then_some(len);
            }
            let name = token_len(line)?;
            if name == 0 || line[name] != b':' || self.fields.len() == most {
                return None;
            }
            let begin = match line[name + 1..] {
                [b' ', next, ..] if !is_blank(next) => name + 2,
                ref rest => name + 1 + rest.iter().position(|byte| !is_blank(*byte))?,
            };
            let end = begin + text_len(&line[begin..])?;
            let [b'\r', b'\n', ..] = line[end..] else { return None };
            let value = line[begin..end].trim_ascii_end();
            self.fields.push(Field {
                start: at as u32,
                name: u16::try_from(name).ok()?,
                known: Known::of(&line[..name]),
                // An empty one lies right behind the colon.
                value: (at + if value.is_empty() { name + 1 } else { begin }) as u32,
                value_len: value.len() as u32,
                end: (at + end + 2) as u32,
            });
            at += end + 2;
        }
    }
}

/// How many bytes of a token stand there, where something follows it.
pub(super) fn token_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while TOKEN[usize::from(*bytes.get(at)?)] {
        at += 1;
    }
    Some(at)
}

/// How many bytes of a text stand there, where a control follows it. A tab is none.
pub(super) fn text_len(bytes: &[u8]) -> Option<usize> {
    run(bytes, controls, |byte| byte == b'\t' || !byte.is_ascii_control())
}

/// How many bytes stand there that may stand anywhere in a target.
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    run(bytes, unlike_targets, is_plain).unwrap_or(bytes.len())
}

/// Whether a byte may stand anywhere in a target: printable ones but the hash, and the question mark begins something.
pub(super) fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'#' | b'?')
}

/// How many bytes stand there that belong together, where one follows that doesn't. `marks` looks at eight at a time: the
/// lowest bit that it sets lies in the first of them that may not belong.
fn run(bytes: &[u8], marks: impl Fn(u64) -> u64, belongs: impl Fn(u8) -> bool) -> Option<usize> {
    let mut at = 0;
    loop {
        if let Some(eight) = bytes.get(at..)?.first_chunk() {
            let marked = marks(u64::from_le_bytes(*eight));
            if marked == 0 {
                at += 8;
                continue;
            }
            at += marked.trailing_zeros() as usize / 8;
        }
        if !belongs(*bytes.get(at)?) {
            return Some(at);
        }
        at += 1;
    }
}

/// Each of eight bytes.
const fn each(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// Marks this byte.
fn is(eight: u64, byte: u8) -> u64 {
    let zero = eight ^ each(byte);
    zero.wrapping_sub(each(1)) & !zero
}

/// Marks controls.
fn controls(eight: u64) -> u64 {
    let below_space = eight.wrapping_sub(each(b' ')) & !eight;
    (below_space | is(eight, 0x7f)) & each(0x80)
}

/// Marks what isn't printed, hashes and question marks.
fn unlike_targets(eight: u64) -> u64 {
    let unprinted = eight.wrapping_sub(each(b'!')) | eight.wrapping_add(each(1)) | eight;
    (unprinted | is(eight, b'#') | is(eight, b'?')) & each(0x80)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The version and the end of the line that stand behind a request's target.
pub(super) fn version(bytes: &[u8]) -> Option<Version> {
    match bytes.first_chunk()? {
        b" HTTP/1.1\r\n" => Some(Version::Http11),
        b" HTTP/1.0\r\n" => Some(Version::Http10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_ends_at_the_first_control(
            bytes in proptest::collection::vec(prop_oneof![4 => 0x20..0x7fu8, 1 => 0x80..=0xffu8, 1 => Just(b'\t'), 1 => any::<u8>()], 0..40)
        ) {
            let ends = bytes.iter().position(|byte| byte.is_ascii_control() && *byte != b'\t');
            prop_assert_eq!(text_len(&bytes), ends);
        }

        #[test]
        fn a_token_ends_at_the_first_byte_that_is_none(
            bytes in proptest::collection::vec(prop_oneof![9 => "[!-~]".prop_map(|text| text.as_bytes()[0]), 1 => any::<u8>()], 0..40)
        ) {
            prop_assert_eq!(token_len(&bytes), bytes.iter().position(|byte| !is_token_byte(*byte)));
        }

        #[test]
        fn a_target_is_plain_up_to_its_query_or_what_can_not_stand_there(
            bytes in proptest::collection::vec(prop_oneof![9 => "[!-~]".prop_map(|text| text.as_bytes()[0]), 1 => any::<u8>()], 0..40)
        ) {
            let ends = bytes.iter().position(|byte| !(0x21..0x7f).contains(byte) || b"#?".contains(byte));
            prop_assert_eq!(plain_len(&bytes), ends.unwrap_or(bytes.len()));
        }
    }
}
