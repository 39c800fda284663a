//! The chunked transfer coding (RFC 9112 7.1), decoded as it comes. Strict: CRLF only, nothing around a size, a bound on
//! sizes, extensions and trailers. Extensions are dropped.

use serde::{Deserialize, Serialize};

use crate::message::is_token_byte;

/// What ends a chunked body that has no trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Bytes of extensions in one body: far more than anybody uses, far less than what would be a burden.
const MAX_EXTENSIONS: u32 = 4 << 10;
/// Bytes of trailers.
const MAX_TRAILERS: usize = 8 << 10;
/// How many trailers.
pub(super) const MAX_TRAILER_FIELDS: usize = 64;

/// The trailers of a body, as they came: field lines, each with its CRLF; without the empty line.
pub type TrailerBytes = Vec<u8>;

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BodyError {
    /// A chunk's size isn't one.
    #[error("a chunk's size is malformed")]
    Size,
    /// A chunk's extension isn't one, or there is too much of them.
    #[error("a chunk's extension is malformed, or they are too long")]
    Extension,
    /// No CRLF stands where one must.
    #[error("a line of the chunked coding doesn't end with CRLF")]
    LineEnd,
    /// Trailers that are malformed or too long.
    #[error("its trailers are malformed or too long")]
    Trailers,
    /// It has more trailers than it may have.
    #[error("it has too many trailers")]
    TooManyTrailers,
    /// It ended before it was complete.
    #[error("it ended early")]
    Truncated,
    /// It is longer than it may be.
    #[error("it is too long")]
    TooLong,
}

impl BodyError {
    /// The status that answers a request with it.
    pub fn status(self) -> u16 {
        match self {
            BodyError::TooManyTrailers => 431,
            _ => 400,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// In a size, of which so many digits were seen.
    Size(u8),
    Extension,
    /// Behind the CR of a size's line.
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    /// At the begin of a trailer's line, or of the empty line.
    Line,
    /// In a trailer's name, or in what stands behind its colon.
    TrailerName,
    Trailer,
    TrailerLf,
    LastLf,
    Done,
}

/// A chunked body that is being decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunked {
    state: State,
    /// Of the chunk, still to come.
    left: u64,
    extensions: u32,
    trailers: TrailerBytes,
    /// How many they are.
    fields: usize,
}

/// What was found first in some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Content: so many bytes from there on.
    Data { from: usize, len: usize },
    /// All was looked at, and there was none.
    Nothing,
    /// The body ended there.
    End { at: usize },
}

impl Default for Chunked {
    fn default() -> Self {
        Chunked { state: State::Size(0), left: 0, extensions: 0, trailers: Vec::new(), fields: 0 }
    }
}

impl Chunked {
    /// The first content in `bytes` from `at` on, which must be fed without gaps.
    pub(super) fn next(&mut self, bytes: &[u8], mut at: usize) -> Result<Found, BodyError> {
        while at < bytes.len() {
            if self.state == State::Data {
                let len = (bytes.len() - at).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= len as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                return Ok(Found::Data { from: at, len });
            }
            self.state = self.step(bytes[at])?;
            at += 1;
            if self.state == State::Done {
                return Ok(Found::End { at });
            }
        }
        Ok(Found::Nothing)
    }

    fn step(&mut self, byte: u8) -> Result<State, BodyError> {
        match (self.state, byte) {
            (State::Size(digits), byte) => self.size(digits, byte),
            (State::Extension, b'\r') => Ok(State::SizeEnd),
            (State::Extension, byte) => {
                self.extensions += 1;
                let allowed = byte == b'\t' || byte >= b' ' && byte != 0x7f;
                if allowed && self.extensions <= MAX_EXTENSIONS {
                    Ok(State::Extension)
                } else {
                    Err(BodyError::Extension)
                }
            }
            (State::SizeEnd, b'\n') if self.left == 0 => Ok(State::Line),
            (State::SizeEnd, b'\n') => Ok(State::Data),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size(0)),
            (State::Line, b'\r') => Ok(State::LastLf),
            (State::LastLf, b'\n') => Ok(State::Done),
            (State::Line | State::TrailerName | State::Trailer, byte) => self.trailer(byte),
            (State::TrailerLf, b'\n') => {
                self.trailers.push(b'\n');
                Ok(State::Line)
            }
            _ => Err(BodyError::LineEnd),
        }
    }

    fn size(&mut self, digits: u8, byte: u8) -> Result<State, BodyError> {
        match ((byte as char).to_digit(16), byte) {
            // 15 digits are far more than any body has, and can't overflow.
            (Some(digit), _) if digits < 15 => {
                self.left = self.left << 4 | u64::from(digit);
                Ok(State::Size(digits + 1))
            }
            (None, b'\r') if digits > 0 => Ok(State::SizeEnd),
            (None, b';') if digits > 0 => Ok(State::Extension),
            _ => Err(BodyError::Size),
        }
    }

    /// A trailer is a field like any other: a name that is a token, a colon right behind it, a value.
    fn trailer(&mut self, byte: u8) -> Result<State, BodyError> {
        if self.state == State::Line {
            self.fields += 1;
            if self.fields > MAX_TRAILER_FIELDS {
                return Err(BodyError::TooManyTrailers);
            }
        }
        let next = match (self.state, byte) {
            (State::Line | State::TrailerName, byte) if is_token_byte(byte) => State::TrailerName,
            (State::TrailerName, b':') => State::Trailer,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::Trailer, byte) if byte == b'\t' || byte >= b' ' && byte != 0x7f => State::Trailer,
            _ => return Err(BodyError::Trailers),
        };
        if self.trailers.len() >= MAX_TRAILERS {
            return Err(BodyError::Trailers);
        }
        self.trailers.push(byte);
        Ok(next)
    }

    /// Whether as much of a chunk is still to come as where it stands allows, and its trailers are not too long.
    pub(super) fn is_sound(&self) -> bool {
        let fits = match self.state {
            State::Data => self.left > 0,
            State::Size(digits) => digits <= 15 && (digits > 0 || self.left == 0),
            State::Extension | State::SizeEnd => true,
            _ => self.left == 0,
        };
        // 15 digits.
        fits && self.left < 1 << 60 && self.trailers.len() <= MAX_TRAILERS + 1 && self.fields <= MAX_TRAILER_FIELDS
    }

    /// What stood behind the last chunk; empty before the body has ended.
    pub fn trailers(&self) -> &[u8] {
        if self.state == State::Done { &self.trailers } else { &[] }
    }
}

/// Writes what stands before a chunk of `len` bytes, at least one; behind it stands CRLF.
pub fn chunk_head(len: usize, out: &mut Vec<u8>) {
    debug_assert!(len > 0, "a chunk without bytes is the last one");
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[len >> (4 * digit) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}
