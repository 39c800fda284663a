//! Certificates (X.509, RFC 5280): who one is for, in words. Whether anybody should believe it is not asked here: that is
//! for whoever verified it before.

mod der;
mod names;

use std::fmt;

use self::der::{Element, Reader};

/// Who a certificate is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Its distinguished name, in the form of RFC 4514; empty: it has none.
    pub name: String,
    /// Its alternative names, each with its kind before it: `DNS:`, `email:`, `URI:`, `IP:`. Other kinds are left out.
    pub alternative: Vec<String>,
    /// The second since 1970 until which it is valid; none: for ever, as far as anybody could say.
    pub not_after: Option<i64>,
}

/// Bytes that are no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is no certificate")
    }
}

impl std::error::Error for Malformed {}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OBJECT: u8 = 0x06;
/// Version and extensions of a certificate, each in a wrapper of its own.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// `subjectAltName`: 2.5.29.17.
const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// Who the certificate is for. What comes out of it is printable ASCII, whatever it holds; allocations are no larger than
/// some times its length.
///
/// # Errors
/// It is malformed, as far as it had to be looked at.
pub fn subject(der: &[u8]) -> Result<Subject, Malformed> {
    let mut certificate = Reader(Reader(der).one(SEQUENCE)?);
    let mut rest = Reader(certificate.one(SEQUENCE)?);
    rest.maybe(VERSION)?;
    rest.one(INTEGER)?;
    rest.one(SEQUENCE)?;
    rest.one(SEQUENCE)?;
    let not_after = not_after(rest.one(SEQUENCE)?)?;
    let name = names::distinguished(rest.one(SEQUENCE)?)?;
    rest.one(SEQUENCE)?;
    let mut alternative = Vec::new();
    while let Some(Element { tag, content, .. }) = rest.next()? {
        if tag == EXTENSIONS {
            alternative = extensions(content)?;
        }
    }
    Ok(Subject { name, alternative, not_after })
}

fn not_after(validity: &[u8]) -> Result<Option<i64>, Malformed> {
    let mut validity = Reader(validity);
    validity.next()?.ok_or(Malformed)?;
    let until = validity.next()?.ok_or(Malformed)?.content;
    // RFC 5280, section 4.1.2.5: two digits of the year until 2049, and then four.
    let (year, rest) = until.split_at_checked(until.len().saturating_sub(11)).ok_or(Malformed)?;
    if !matches!(year.len(), 2 | 4) {
        return Err(Malformed);
    }
    let number = |digits: &[u8]| {
        let digit = |number: i64, byte: &u8| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0'));
        digits.iter().try_fold(0, digit).ok_or(Malformed)
    };
    let year = match (year.len(), number(year)?) {
        (2, year) => year + if year < 50 { 2000 } else { 1900 },
        (4, 9999) => return Ok(None),
        (4, year) => year,
        _ => return Err(Malformed),
    };
    let part = |at: usize| number(&rest[2 * at..2 * at + 2]);
    let (month, day) = (part(0)?, part(1)?);
    if rest[10] != b'Z' || !(1..=12).contains(&month) {
        return Err(Malformed);
    }
    // Years that begin with March have the leap day last.
    let years = if month > 2 { year } else { year - 1 };
    let days = years * 365 + years / 4 - years / 100 + years / 400 + (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    const TO_1970: i64 = 719_468;
    Ok(Some((days - TO_1970) * 86_400 + part(2)? * 3_600 + part(3)? * 60 + part(4)?))
}

fn extensions(wrapped: &[u8]) -> Result<Vec<String>, Malformed> {
    let mut all = Reader(Reader(wrapped).one(SEQUENCE)?);
    let mut alternative = Vec::new();
    while let Some(one) = all.next()? {
        let mut parts = Reader(one.content);
        if parts.one(OBJECT)? != ALTERNATIVE_NAME {
            continue;
        }
        // Whether it is critical stands between.
        while let Some(part) = parts.next()? {
            if part.tag == OCTETS {
                alternative = names::alternative(Reader(part.content).one(SEQUENCE)?)?;
            }
        }
    }
    Ok(alternative)
}
