//! A request's head (RFC 9112 3).

use std::borrow::Cow;
use std::mem::MaybeUninit;

use super::Scan;
use super::head::{Connection, End, HeadError, Heads, Limits, Slots, Version, fault, framing};
use crate::message::{Authority, Fields, Known, Length, Request};

/// A request's head, and what it says about its connection.
#[derive(Clone, Debug)]
pub struct RequestHead<'a> {
    /// What it says whatever the version.
    pub request: Request<'a>,
    /// Its version.
    pub version: Version,
    /// Its connection options.
    pub connection: Connection,
    /// It waits for `100 Continue` before it sends its body.
    pub expects_continue: bool,
    /// Its target was an absolute URI: that, not `Host`, names the host (RFC 9112 3.2.2).
    pub is_absolute: bool,
    /// The host that its authority names, as routes are compared with it; empty: it named none.
    pub host: Cow<'a, str>,
}

/// A first line.
struct Line<'a> {
    method: &'a str,
    target: &'a str,
    version: Version,
}

/// A target's parts.
struct Target<'a> {
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
}

impl Heads {
    /// Reads a complete head, its empty line included.
    ///
    /// # Errors
    /// What is malformed, too much, not spoken, or could be read in two ways.
    pub fn request<'a>(&'a mut self, bytes: &'a [u8], limits: &Limits) -> Result<RequestHead<'a>, HeadError> {
        let (line, _) = self.parse_request(bytes, limits, End::At(bytes.len()))?;
        self.read_request(bytes, line)
    }

    /// Finds and reads the head at the begin of `bytes`, which may come in pieces: with its length; none: more is needed.
    /// `bytes` begins as at the call before, with more behind it, and `scan` is the same. What comes of it is what
    /// [`Scan::find`] and [`Heads::request`] say; a head that comes whole, as nearly all do, is looked through once
    /// instead of twice.
    ///
    /// # Errors
    /// As theirs.
    pub fn find_request<'a>(
        &'a mut self,
        scan: &mut Scan,
        bytes: &'a [u8],
        limits: &Limits,
    ) -> Result<Option<(RequestHead<'a>, usize)>, HeadError> {
        let Some((line, len)) = self.find(scan, bytes, limits, Heads::parse_request)? else { return Ok(None) };
        Ok(Some((self.read_request(&bytes[..len], line)?, len)))
    }

    /// Parses a first line and fields, and notes where these lie: the line, and the length of all, if `end` agrees.
    fn parse_request<'a>(
        &mut self,
        bytes: &'a [u8],
        limits: &Limits,
        end: End,
    ) -> Result<(Line<'a>, usize), HeadError> {
        let mut slots: Slots<'a> = [const { MaybeUninit::uninit() }; _];
        let mut parsed = httparse::Request::new(&mut []);
        let len = match parsed.parse_with_uninit_headers(bytes, &mut slots) {
            // Where it ends elsewhere, the scan found its end where the grammar doesn't.
            Ok(httparse::Status::Complete(len)) => {
                end.of(bytes, (len, parsed.headers), limits).ok_or(HeadError::Field)?
            }
            Ok(httparse::Status::Partial) => return Err(HeadError::Field),
            Err(httparse::Error::Version) => return Err(version_fault(bytes)),
            Err(error) => return Err(fault(error)),
        };
        let (method, target) = (parsed.method.ok_or(HeadError::FirstLine)?, parsed.path.ok_or(HeadError::FirstLine)?);
        let version = if parsed.version == Some(0) { Version::Http10 } else { Version::Http11 };
        self.note(bytes, parsed.headers, limits.fields)?;
        Ok((Line { method, target, version }, len))
    }

    fn read_request<'a>(&'a self, bytes: &'a [u8], line: Line<'a>) -> Result<RequestHead<'a>, HeadError> {
        let Line { method, target, version } = line;
        let fields = Fields::new(bytes, &self.fields);
        let target = read_target(method, target)?;
        let (mut authority, mut host) = host(&fields, version)?;
        if let Some(absolute) = target.authority {
            authority = absolute;
            host = Authority::parse(absolute).map_err(|_| HeadError::Target)?.host;
        }
        let length = match framing(&fields, version)? {
            None | Some(Length::Sized(0) | Length::None) => Length::None,
            Some(_) if method == "CONNECT" => return Err(HeadError::TwoLengths),
            Some(length) => length,
        };
        Ok(RequestHead {
            request: Request { method, authority, path: target.path, query: target.query, fields, length },
            version,
            connection: Connection::read(&fields),
            expects_continue: expects_continue(&fields, version)?,
            is_absolute: target.authority.is_some() && method != "CONNECT",
            host,
        })
    }
}

fn version_fault(bytes: &[u8]) -> HeadError {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    match version {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            HeadError::Version
        }
        _ => HeadError::FirstLine,
    }
}

/// The four forms of a target (RFC 9112 3.2).
fn read_target<'a>(method: &str, target: &'a str) -> Result<Target<'a>, HeadError> {
    // Nearly all have neither a query nor anything that can't stand there.
    let marked = target.bytes().position(|byte| !PLAIN[usize::from(byte)]).unwrap_or(target.len());
    if !target.as_bytes()[marked..].iter().all(|byte| PLAIN[usize::from(*byte)] || *byte == b'?') {
        return Err(HeadError::Target);
    }
    if method == "CONNECT" {
        let (_, port) = target.rsplit_once(':').ok_or(HeadError::Target)?;
        return match !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) {
            true => Ok(Target { authority: Some(target), path: "", query: None }),
            false => Err(HeadError::Target),
        };
    }
    if target == "*" {
        return match method {
            "OPTIONS" => Ok(Target { authority: None, path: "*", query: None }),
            _ => Err(HeadError::Target),
        };
    }
    let (authority, rest) = match target.starts_with('/') {
        true => (None, target),
        false => {
            let after = strip_scheme(target).ok_or(HeadError::Target)?;
            let end = after.find(['/', '?']).unwrap_or(after.len());
            (
                Some(&after[..end]).filter(|authority| !authority.is_empty()).map(Some).ok_or(HeadError::Target)?,
                &after[end..],
            )
        }
    };
    let before = marked - (target.len() - rest.len());
    let (path, query) = (&rest[..before], rest.get(before + 1..));
    Ok(Target { authority, path: if path.is_empty() { "/" } else { path }, query })
}

/// The bytes that may stand anywhere in a target but the question mark: printable ones, and no hash.
static PLAIN: [bool; 256] = {
    let (mut plain, mut byte) = ([false; 256], 0x21);
    while byte < 0x7f {
        plain[byte] = byte != b'#' as usize && byte != b'?' as usize;
        byte += 1;
    }
    plain
};

fn strip_scheme(target: &str) -> Option<&str> {
    ["http://", "https://"].into_iter().find_map(|scheme| {
        let (head, rest) = target.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// The one `Host` (RFC 9112 3.2), and the host that it names; only HTTP/1.0 may have none.
fn host<'a>(fields: &Fields<'a>, version: Version) -> Result<(&'a str, Cow<'a, str>), HeadError> {
    let mut hosts = fields.known(Known::Host);
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Err(HeadError::Host),
        (Some(host), None) => {
            let host = std::str::from_utf8(host).map_err(|_| HeadError::Host)?;
            Ok((host, Authority::parse(host).map_err(|_| HeadError::Host)?.host))
        }
        (None, _) if version == Version::Http10 => Ok(("", Cow::Borrowed(""))),
        (None, _) => Err(HeadError::Host),
    }
}

/// RFC 9110 10.1.1: HTTP/1.0 has no expectations.
fn expects_continue(fields: &Fields<'_>, version: Version) -> Result<bool, HeadError> {
    let mut expects = false;
    for value in fields.known(Known::Expect) {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(HeadError::Expectation);
        }
        expects = version == Version::Http11;
    }
    Ok(expects)
}
