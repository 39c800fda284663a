//! Names of certificates as text: distinguished ones in the form of RFC 4514, alternative ones with their kind. Everything
//! but printable ASCII is escaped, so that they may stand in a field or a log line.

use std::fmt::Write;
use std::net::IpAddr;

use super::der::{Element, Reader};
use super::{Malformed, OBJECT, SEQUENCE};

const SET: u8 = 0x31;
const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const IA5: u8 = 0x16;

/// Attributes that have a short name (RFC 4514, section 3), by their object identifiers.
const ATTRIBUTES: [(&[u8], &str); 9] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
];

/// A distinguished name: the last part of it comes first.
pub(super) fn distinguished(sequence: &[u8]) -> Result<String, Malformed> {
    let (mut parts, mut all) = (Vec::new(), Reader(sequence));
    while let Some(part) = all.next()? {
        if part.tag != SET {
            return Err(Malformed);
        }
        let (mut text, mut attributes) = (String::new(), Reader(part.content));
        while let Some(attribute) = attributes.next()? {
            if attribute.tag != SEQUENCE {
                return Err(Malformed);
            }
            if !text.is_empty() {
                text.push('+');
            }
            write_attribute(attribute.content, &mut text)?;
        }
        parts.push(text);
    }
    parts.reverse();
    Ok(parts.join(","))
}

fn write_attribute(attribute: &[u8], out: &mut String) -> Result<(), Malformed> {
    let mut parts = Reader(attribute);
    let kind = parts.one(OBJECT)?;
    let value = parts.next()?.ok_or(Malformed)?;
    let known = ATTRIBUTES.iter().find(|(object, _)| *object == kind).map(|(_, name)| *name);
    match known {
        Some(name) => out.push_str(name),
        None => write_object(kind, out),
    }
    out.push('=');
    match (known, value) {
        (Some(_), Element { tag: UTF8 | PRINTABLE | IA5, content, .. }) => write_value(content, out),
        (_, Element { whole, .. }) => {
            out.push('#');
            whole.iter().for_each(|byte| write_byte(*byte, out));
        }
    }
    Ok(())
}

/// Dots and numbers.
fn write_object(object: &[u8], out: &mut String) {
    let mut number: u64 = 0;
    let mut is_first = true;
    for byte in object {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        // The first two numbers are one.
        let (first, rest) = match number {
            0..=39 => (0, number),
            40..=79 => (1, number - 40),
            _ => (2, number - 80),
        };
        let _ = if is_first { write!(out, "{first}.{rest}") } else { write!(out, ".{number}") };
        (is_first, number) = (false, 0);
    }
}

/// A value of RFC 4514, section 2.4.
fn write_value(value: &[u8], out: &mut String) {
    for (at, &byte) in value.iter().enumerate() {
        let is_outside = at == 0 || at + 1 == value.len();
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => out.extend(['\\', char::from(byte)]),
            b'#' if at == 0 => out.push_str("\\#"),
            b' ' if is_outside => out.push_str("\\ "),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                out.push('\\');
                write_byte(byte, out);
            }
        }
    }
}

fn write_byte(byte: u8, out: &mut String) {
    let _ = write!(out, "{byte:02x}");
}

/// The alternative names that have a form in text.
pub(super) fn alternative(sequence: &[u8]) -> Result<Vec<String>, Malformed> {
    let (mut names, mut all) = (Vec::new(), Reader(sequence));
    while let Some(Element { tag, content, .. }) = all.next()? {
        let kind = match tag {
            0x81 => "email:",
            0x82 => "DNS:",
            0x86 => "URI:",
            0x87 => {
                let v4 = <[u8; 4]>::try_from(content).map(IpAddr::from);
                let v6 = <[u8; 16]>::try_from(content).map(IpAddr::from);
                names.extend(v4.or(v6).map(|address| format!("IP:{address}")));
                continue;
            }
            _ => continue,
        };
        let mut name = kind.to_owned();
        write_value(content, &mut name);
        names.push(name);
    }
    Ok(names)
}
