//! A response's head (RFC 9112 4).

use std::mem::MaybeUninit;

use super::Scan;
use super::head::{Connection, End, HeadError, Heads, Limits, Slots, Version, fault, framing};
use crate::message::{Fields, Length, Response};

/// A response's head, and what it says about its connection.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// What it says whatever the version.
    pub response: Response<'a>,
    /// Its version.
    pub version: Version,
    /// Its connection options.
    pub connection: Connection,
    /// Its body, if it is `Unknown`, ends with the connection.
    pub until_close: bool,
}

/// A first line.
struct Line<'a> {
    status: u16,
    reason: &'a str,
    version: Version,
}

impl ResponseHead<'_> {
    /// Whether its connection goes on after it, as far as it says (RFC 9112 9.3).
    pub fn keeps(&self) -> bool {
        match self.version {
            Version::Http11 => !self.connection.close,
            Version::Http10 => self.connection.keep_alive && !self.connection.close,
        }
    }
}

impl Heads {
    /// Reads a complete head of a response to a request of this method. A response to HEAD and one of status 1xx, 204
    /// or 304 has no body whatever its fields say, and so has one of status 2xx to CONNECT (RFC 9112 6.3).
    ///
    /// # Errors
    /// What is malformed, too much, not spoken, or could be read in two ways.
    pub fn response<'a>(
        &'a mut self,
        bytes: &'a [u8],
        limits: &Limits,
        method: &str,
    ) -> Result<ResponseHead<'a>, HeadError> {
        let (line, _) = self.parse_response(bytes, limits, End::At(bytes.len()))?;
        self.read_response(bytes, line, method)
    }

    /// Finds and reads the head at the begin of `bytes`, as [`Heads::find_request`] does.
    ///
    /// # Errors
    /// What is malformed, too much, not spoken, or could be read in two ways.
    pub fn find_response<'a>(
        &'a mut self,
        scan: &mut Scan,
        bytes: &'a [u8],
        (limits, method): (&Limits, &str),
    ) -> Result<Option<(ResponseHead<'a>, usize)>, HeadError> {
        let Some((line, len)) = self.find(scan, bytes, limits, Heads::parse_response)? else { return Ok(None) };
        Ok(Some((self.read_response(&bytes[..len], line, method)?, len)))
    }

    /// Parses a first line and fields, and notes where these lie: the line, and the length of all, if `end` agrees.
    fn parse_response<'a>(
        &mut self,
        bytes: &'a [u8],
        limits: &Limits,
        end: End,
    ) -> Result<(Line<'a>, usize), HeadError> {
        let mut slots: Slots<'a> = [const { MaybeUninit::uninit() }; _];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let len = match config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut slots) {
            Ok(httparse::Status::Complete(len)) => {
                end.of(bytes, (len, parsed.headers), limits).ok_or(HeadError::Field)?
            }
            Ok(httparse::Status::Partial) => return Err(HeadError::Field),
            Err(error) => return Err(fault(error)),
        };
        let (status, reason) = (parsed.code.ok_or(HeadError::FirstLine)?, parsed.reason.unwrap_or_default());
        let version = if parsed.version == Some(0) { Version::Http10 } else { Version::Http11 };
        if !(100..=999).contains(&status) {
            return Err(HeadError::FirstLine);
        }
        self.note(bytes, parsed.headers, limits.fields)?;
        Ok((Line { status, reason, version }, len))
    }

    fn read_response<'a>(
        &'a self,
        bytes: &'a [u8],
        line: Line<'a>,
        method: &str,
    ) -> Result<ResponseHead<'a>, HeadError> {
        let Line { status, reason, version } = line;
        let fields = Fields::new(bytes, &self.fields);
        let framed = framing(&fields, version)?;
        let has_none = matches!(status, 100..=199 | 204 | 304)
            || method == "HEAD"
            || method == "CONNECT" && (200..300).contains(&status);
        let length = match framed {
            _ if has_none => Length::None,
            Some(Length::Sized(0)) => Length::None,
            Some(length) => length,
            None => Length::Unknown,
        };
        Ok(ResponseHead {
            response: Response { status, reason, fields, length },
            version,
            connection: Connection::read(&fields),
            until_close: !has_none && framed.is_none(),
        })
    }
}
