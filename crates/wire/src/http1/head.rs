//! What requests' and responses' heads have in common: versions, limits, fields, framing, the connection's options.

use std::mem::MaybeUninit;

use super::Scan;
use crate::message::{Field, Fields, Known, Length, tokens};

/// The most fields that a head may have, whatever a limit says.
pub const MAX_FIELDS: usize = 256;

/// The most of the buffer for fields that [`Heads`] keeps between heads.
pub(super) type Slots<'b> = [MaybeUninit<httparse::Header<'b>>; MAX_FIELDS];

/// A version that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// Bounds of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the first line, without its end.
    pub line: usize,
    /// Bytes of all of it.
    pub head: usize,
    /// Fields; at most [`MAX_FIELDS`].
    pub fields: usize,
}

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HeadError {
    /// A line ends with LF alone.
    #[error("a line ends without CR")]
    BareLineFeed,
    /// An empty line stands where the head begins.
    #[error("an empty line stands before it")]
    EmptyLine,
    /// The first line is longer than it may be.
    #[error("its first line is too long")]
    LineTooLong,
    /// It is longer than it may be.
    #[error("it is too long")]
    TooLong,
    /// It has more fields than it may have.
    #[error("it has too many fields")]
    TooManyFields,
    /// Its first line isn't one.
    #[error("its first line is malformed")]
    FirstLine,
    /// A version that isn't spoken.
    #[error("its version isn't spoken here")]
    Version,
    /// A field's line isn't one.
    #[error("a field's line is malformed")]
    Field,
    /// The target can't be one, or not with this method.
    #[error("its target is malformed")]
    Target,
    /// No `Host`, several, or one that isn't a host.
    #[error("its Host is missing, repeated or malformed")]
    Host,
    /// A `Content-Length` that is repeated or isn't a number.
    #[error("its Content-Length is repeated or malformed")]
    ContentLength,
    /// A `Transfer-Encoding` that is repeated, malformed, or of HTTP/1.0.
    #[error("its Transfer-Encoding is repeated or malformed")]
    TransferEncoding,
    /// A transfer coding that isn't known.
    #[error("its transfer coding isn't known")]
    UnknownCoding,
    /// Both `Content-Length` and `Transfer-Encoding`.
    #[error("it has both Content-Length and Transfer-Encoding")]
    TwoLengths,
    /// An expectation that isn't known.
    #[error("what it expects isn't known")]
    Expectation,
}

impl HeadError {
    /// The status that answers a request with it.
    pub fn status(self) -> u16 {
        match self {
            HeadError::LineTooLong => 414,
            HeadError::TooLong | HeadError::TooManyFields => 431,
            HeadError::Version => 505,
            HeadError::UnknownCoding => 501,
            HeadError::Expectation => 417,
            _ => 400,
        }
    }
}

/// Options of a connection that aren't known; nobody sends as many.
const MOST_OPTIONS: usize = 64;

/// Reads heads. Keeps nothing of them but room for where their fields lie.
#[derive(Debug, Default)]
pub struct Heads {
    pub(super) fields: Vec<Field>,
}

/// What a head says about its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// It ends after this message.
    pub close: bool,
    /// It goes on after this message; HTTP/1.0 says so.
    pub keep_alive: bool,
    /// It becomes something else: `Upgrade` says what.
    pub upgrade: bool,
    /// It names fields beyond those that are hop-by-hop anyway.
    pub names_others: bool,
}

impl Connection {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, HeadError> {
        let mut connection = Connection::default();
        if !fields.has(Known::Connection) {
            return Ok(connection);
        }
        let mut others = 0;
        for value in fields.known(Known::Connection) {
            // Nearly all say one thing, which is known.
            if !connection.note(value) {
                others += tokens(value).filter(|option| !connection.note(option)).count();
            }
        }
        connection.names_others = others > 0;
        // Each field is compared with each of them.
        if others > MOST_OPTIONS { Err(HeadError::TooManyFields) } else { Ok(connection) }
    }

    /// Whether it is an option that is known.
    fn note(&mut self, option: &[u8]) -> bool {
        match Known::of(option) {
            Some(Known::KeepAlive) => self.keep_alive = true,
            Some(Known::Upgrade) => self.upgrade = true,
            Some(_) => {}
            None if option.eq_ignore_ascii_case(b"close") => self.close = true,
            None => return false,
        }
        true
    }

    /// The fields that its options name beside those that are known. What a proxy goes by can't be taken away so.
    pub fn others<'a>(&self, fields: &Fields<'a>) -> Named<'a> {
        let values = self.names_others.then(|| fields.known(Known::Connection)).into_iter().flatten();
        Named(values.flat_map(tokens).filter(|option| Known::of(option).is_none()).collect())
    }
}

/// Fields that are named by a message's connection, and so go no further.
#[derive(Clone, Debug, Default)]
pub struct Named<'a>(Vec<&'a [u8]>);

impl Named<'_> {
    /// Whether a field is one of them.
    pub fn has(&self, name: &[u8]) -> bool {
        self.0.iter().any(|option| option.eq_ignore_ascii_case(name))
    }
}

impl Heads {
    /// The first line and the length of the head at the begin of `bytes`, which may come in pieces; none: more is needed.
    /// One that comes whole and has nothing unusual, as nearly all do, is looked through once, by the first of the two
    /// ways. Of every other one `scan` finds the end, and the second way reads it or says what is wrong.
    pub(super) fn find<'a, L>(
        &mut self,
        scan: &mut Scan,
        bytes: &'a [u8],
        limits: &Limits,
        (quick, parse): (
            impl Fn(&mut Heads, &'a [u8], &Limits) -> Option<(L, usize)>,
            impl Fn(&mut Heads, &'a [u8], &Limits) -> Result<L, HeadError>,
        ),
    ) -> Result<Option<(L, usize)>, HeadError> {
        let whole = if scan.has_begun() { None } else { quick(self, bytes, limits) };
        let found = match whole {
            Some(found) => found,
            None => {
                let Some(len) = scan.find(bytes, limits)? else { return Ok(None) };
                (parse(self, &bytes[..len], limits)?, len)
            }
        };
        *scan = Scan::default();
        Ok(Some(found))
    }

    /// Notes where the fields lie that were read from `bytes`.
    pub(super) fn note(
        &mut self,
        bytes: &[u8],
        headers: &[httparse::Header<'_>],
        most: usize,
    ) -> Result<(), HeadError> {
        self.fields.clear();
        if headers.len() > most {
            return Err(HeadError::TooManyFields);
        }
        let base = bytes.as_ptr() as usize;
        for header in headers {
            let start = header.name.as_ptr() as usize - base;
            // An empty value need not point into the line.
            let value = match header.value.is_empty() {
                true => start + header.name.len() + 1,
                false => header.value.as_ptr() as usize - base,
            };
            let rest = &bytes[value + header.value.len()..];
            let line_end = match rest {
                [b'\r', b'\n', ..] => 1,
                rest => memchr::memchr(b'\n', rest).ok_or(HeadError::Field)?,
            };
            self.fields.push(Field {
                start: start as u32,
                name: u16::try_from(header.name.len()).map_err(|_| HeadError::Field)?,
                known: Known::of(header.name.as_bytes()),
                value: value as u32,
                value_len: header.value.len() as u32,
                end: (value + header.value.len() + line_end + 1) as u32,
            });
        }
        Ok(())
    }
}

/// What the fields say of the body (RFC 9112 6.1 to 6.3); none: nothing.
pub(super) fn framing(fields: &Fields<'_>, version: Version) -> Result<Option<Length>, HeadError> {
    if !fields.has(Known::ContentLength) && !fields.has(Known::TransferEncoding) {
        return Ok(None);
    }
    // Its one value; there may be none.
    let one = |known, error| {
        let mut values = fields.known(known);
        let value = values.next();
        if values.next().is_some() { Err(error) } else { Ok(value) }
    };
    let length = one(Known::ContentLength, HeadError::ContentLength)?;
    let length = length.map(|length| number(length).ok_or(HeadError::ContentLength)).transpose()?;
    match (length, one(Known::TransferEncoding, HeadError::TransferEncoding)?) {
        (Some(_), Some(_)) => Err(HeadError::TwoLengths),
        (None, Some(_)) if version == Version::Http10 => Err(HeadError::TransferEncoding),
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Some(Length::Unknown)),
        (None, Some(coding)) => Err(unknown_coding(coding)),
        (Some(length), None) => Ok(Some(Length::Sized(length))),
        (None, None) => Ok(None),
    }
}

/// A well-formed list of codings is one that isn't spoken; everything else is malformed.
fn unknown_coding(coding: &[u8]) -> HeadError {
    let is_token = |token: &[u8]| token.iter().all(|byte| crate::message::is_token_byte(*byte));
    let mut chunked = 0;
    for token in tokens(coding) {
        chunked += usize::from(token.eq_ignore_ascii_case(b"chunked"));
        if !is_token(token) {
            return HeadError::TransferEncoding;
        }
    }
    if chunked > 1 || coding.is_empty() { HeadError::TransferEncoding } else { HeadError::UnknownCoding }
}

/// Digits and nothing else (RFC 9110 8.6).
fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// What httparse's verdict means here.
pub(super) fn fault(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooManyFields,
        httparse::Error::HeaderName | httparse::Error::HeaderValue | httparse::Error::NewLine => HeadError::Field,
        httparse::Error::Version => HeadError::Version,
        httparse::Error::Token | httparse::Error::Status => HeadError::FirstLine,
    }
}
