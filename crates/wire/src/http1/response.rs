//! A response's head (RFC 9112 4).

use std::mem::MaybeUninit;

use super::head::{Connection, HeadError, Heads, Limits, Slots, Version, fault, framing};
use super::{Scan, quick};
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
    /// It says that a body follows where there can't be one: what its sender may send all the same would be read as the
    /// next response (RFC 9110 8.6, RFC 9112 6.1).
    pub belies: bool,
}

/// A first line.
#[derive(Debug)]
struct Line<'a> {
    status: u16,
    reason: &'a str,
    version: Version,
}

impl ResponseHead<'_> {
    /// Whether its connection goes on after it: by what it says (RFC 9112 9.3), and where it is sure to end here.
    pub fn keeps(&self) -> bool {
        let asks = match self.version {
            Version::Http11 => !self.connection.close,
            Version::Http10 => self.connection.keep_alive && !self.connection.close,
        };
        asks && !self.until_close && !self.belies
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
        let line = self.parse_response(bytes, limits)?;
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
        let ways = (Heads::quick_response, Heads::parse_response);
        let Some((line, len)) = self.find(scan, bytes, limits, ways)? else { return Ok(None) };
        Ok(Some((self.read_response(&bytes[..len], line, method)?, len)))
    }

    /// A head that has nothing unusual: its first line, and how long it is. Notes where its fields lie.
    fn quick_response<'a>(&mut self, bytes: &'a [u8], limits: &Limits) -> Option<(Line<'a>, usize)> {
        const BEFORE: usize = "HTTP/1.1 200 ".len();
        let (version, rest) = match bytes.split_first_chunk()? {
            (b"HTTP/1.1 ", rest) => (Version::Http11, rest),
            (b"HTTP/1.0 ", rest) => (Version::Http10, rest),
            _ => return None,
        };
        let [hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9', b' ', rest @ ..] = rest else {
            return None;
        };
        let status = [hundreds, tens, ones].into_iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
        let (reason, rest) = rest.split_at(quick::text_len(rest)?);
        let line = BEFORE + reason.len();
        // What isn't ASCII is not passed on.
        if !rest.starts_with(b"\r\n") || line > limits.line || !reason.is_ascii() {
            return None;
        }
        let len = self.quick_fields(bytes, line + 2, limits)?;
        let reason = match reason {
            b"OK" => "OK",
            reason => str::from_utf8(reason).ok()?,
        };
        Some((Line { status, reason, version }, len))
    }

    /// Parses a complete head's first line and fields, and notes where these lie.
    fn parse_response<'a>(&mut self, bytes: &'a [u8], limits: &Limits) -> Result<Line<'a>, HeadError> {
        let mut slots: Slots<'a> = [const { MaybeUninit::uninit() }; _];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut slots) {
            Ok(httparse::Status::Complete(len)) if len == bytes.len() => {}
            // The scan found its end where the grammar doesn't.
            Ok(_) => return Err(HeadError::Field),
            Err(error) => return Err(fault(error)),
        }
        let (status, reason) = (parsed.code.ok_or(HeadError::FirstLine)?, parsed.reason.unwrap_or_default());
        let version = if parsed.version == Some(0) { Version::Http10 } else { Version::Http11 };
        if !(100..=999).contains(&status) {
            return Err(HeadError::FirstLine);
        }
        self.note(bytes, parsed.headers, limits.fields)?;
        Ok(Line { status, reason, version })
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
        // A 304 tells how long what it stands for is (RFC 9110 15.4.5), and so does a response to HEAD.
        let belies = match framed {
            Some(Length::Sized(len)) => status == 204 && len > 0,
            Some(Length::Unknown) => matches!(status, 204 | 304),
            Some(Length::None) | None => false,
        };
        Ok(ResponseHead {
            response: Response { status, reason, fields, length },
            version,
            connection: Connection::read(&fields)?,
            until_close: !has_none && framed.is_none(),
            belies,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { line: 100, head: 1_000, fields: 10 };

    #[test]
    fn what_backends_send_is_looked_through_once() {
        for line in ["HTTP/1.1 200 OK", "HTTP/1.0 404 Not Found", "HTTP/1.1 999 ", "HTTP/1.1 100 Go  on"] {
            let head = format!("{line}\r\nServer: a\r\nContent-Length: 5\r\nX: \t\r\n\r\n");
            let (mut heads, mut other) = (Heads::default(), Heads::default());
            let (line, len) = heads.quick_response(head.as_bytes(), &LIMITS).expect(&head);
            let parsed = other.parse_response(head.as_bytes(), &LIMITS).expect(&head);
            assert_eq!((format!("{line:?}"), len), (format!("{parsed:?}"), head.len()), "{head}");
            assert_eq!(heads.fields, other.fields, "{head}");
        }
    }
}
