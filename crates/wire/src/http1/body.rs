//! A body on its way: which of the bytes that come are its content, and where it ends. Holds none of them.

use serde::{Deserialize, Serialize};

use super::chunked::{BodyError, Chunked, Found, MAX_TRAILER_FIELDS};
use crate::message::{Known, Length, is_of_forwarded, is_taken_for};

/// A body that is being read. Written down, it is read on at the same byte.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// It has ended, or there was none.
    #[default]
    Ended,
    /// So many bytes are still to come.
    Sized(u64),
    /// It comes in chunks.
    Chunked(Box<Chunked>),
    /// It ends with the connection.
    UntilClose,
}

/// What stands next in some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Content: so many bytes from there on; looked at is what comes before and they themselves.
    Data {
        /// Where it begins.
        from: usize,
        /// How long it is; at least 1.
        len: usize,
    },
    /// All was looked at, and there was none.
    Nothing,
    /// The body has ended; what comes from there on isn't of it.
    End {
        /// Where.
        at: usize,
    },
}

impl Body {
    /// One that was announced so.
    pub fn new(length: Length, until_close: bool) -> Self {
        match length {
            Length::None => Body::Ended,
            Length::Sized(len) => Body::Sized(len),
            Length::Unknown if until_close => Body::UntilClose,
            Length::Unknown => Body::Chunked(Box::default()),
        }
    }

    /// What stands first in `bytes` from `at` on. Called again from behind what it said, until it says something else
    /// than `Data`; the bytes are fed without gaps.
    ///
    /// # Errors
    /// A chunked body that is malformed.
    pub fn next(&mut self, bytes: &[u8], at: usize) -> Result<Piece, BodyError> {
        let there = bytes.len() - at;
        match self {
            Body::Ended => Ok(Piece::End { at }),
            Body::Sized(0) => {
                *self = Body::Ended;
                Ok(Piece::End { at })
            }
            Body::Sized(_) | Body::UntilClose if there == 0 => Ok(Piece::Nothing),
            Body::Sized(left) => {
                let len = there.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= len as u64;
                Ok(Piece::Data { from: at, len })
            }
            Body::UntilClose => Ok(Piece::Data { from: at, len: there }),
            Body::Chunked(chunked) => Ok(match chunked.next(bytes, at)? {
                Found::Data { from, len } => Piece::Data { from, len },
                Found::Nothing => Piece::Nothing,
                Found::End { at } => Piece::End { at },
            }),
        }
    }

    /// Whether it ends where its connection ends; everything else would be cut short by that.
    pub fn may_end_with_connection(&self) -> bool {
        matches!(self, Body::Ended | Body::UntilClose | Body::Sized(0))
    }

    /// Whether it can be what came of reading a body: of one that was written down by whoever that was.
    pub fn is_sound(&self) -> bool {
        match self {
            Body::Chunked(chunked) => chunked.is_sound(),
            Body::Ended | Body::Sized(_) | Body::UntilClose => true,
        }
    }

    /// Writes its trailers, as far as they may go on: no line that isn't a field, nothing that frames, routes, modifies or
    /// authenticates a message or says how it is to be read (RFC 9110 6.5.1), nor what may be taken for it; and of the
    /// rest what `stays`.
    pub fn write_trailers(&self, stays: impl Fn(&[u8]) -> bool, out: &mut Vec<u8>) {
        let Body::Chunked(chunked) = self else { return };
        let trailers = chunked.trailers();
        if trailers.is_empty() {
            return;
        }
        let mut block = trailers.to_vec();
        block.extend_from_slice(b"\r\n");
        let mut slots = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
        let Ok(httparse::Status::Complete((_, headers))) = httparse::parse_headers(&block, &mut slots) else { return };
        for header in headers {
            let name = header.name.as_bytes();
            if may_trail(name) && stays(name) {
                out.extend_from_slice(name);
                out.extend_from_slice(b": ");
                out.extend_from_slice(header.value);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

/// Fields that mean something only where they stand before what they are about.
const BEFORE_A_BODY: [&str; 22] = [
    "age",
    "cache-control",
    "content-encoding",
    "content-language",
    "content-location",
    "content-range",
    "content-type",
    "expires",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "range",
    "retry-after",
    "set-cookie",
    "vary",
    "www-authenticate",
];

fn may_trail(name: &[u8]) -> bool {
    let is_known = Known::of(name).or_else(|| Known::disguised(name)).is_some();
    !is_known && !is_of_forwarded(name) && !BEFORE_A_BODY.iter().any(|one| is_taken_for(name, one.as_bytes()))
}
