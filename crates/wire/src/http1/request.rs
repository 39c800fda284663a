//! A request's head (RFC 9112 3).

use std::borrow::Cow;
use std::mem::MaybeUninit;

use super::head::{Connection, HeadError, Heads, Limits, Slots, Version, fault, framing};
use super::{Scan, quick};
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
#[derive(Debug)]
struct Line<'a> {
    method: &'a str,
    target: &'a str,
    /// Where the target's first question mark stands, or its end.
    mark: usize,
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
        let line = self.parse_request(bytes, limits)?;
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
        let ways = (Heads::quick_request, Heads::parse_request);
        let Some((line, len)) = self.find(scan, bytes, limits, ways)? else { return Ok(None) };
        Ok(Some((self.read_request(&bytes[..len], line)?, len)))
    }

    /// A head that has nothing unusual: its first line, and how long it is. Notes where its fields lie.
    fn quick_request<'a>(&mut self, bytes: &'a [u8], limits: &Limits) -> Option<(Line<'a>, usize)> {
        let (method, rest) = bytes.split_at_checked(quick::token_len(bytes)?)?;
        let rest = rest.strip_prefix(b" ")?;
        let (mark, end) = target_extent(rest);
        if method.is_empty() || end == 0 {
            return None;
        }
        let version = quick::version(&rest[end..])?;
        let line = method.len() + 1 + end + " HTTP/1.1".len();
        if line > limits.line {
            return None;
        }
        let len = self.quick_fields(bytes, line + 2, limits)?;
        let method = match method {
            b"GET" => "GET",
            method => str::from_utf8(method).ok()?,
        };
        Some((Line { method, target: str::from_utf8(&rest[..end]).ok()?, mark, version }, len))
    }

    /// Parses a complete head's first line and fields, and notes where these lie.
    fn parse_request<'a>(&mut self, bytes: &'a [u8], limits: &Limits) -> Result<Line<'a>, HeadError> {
        let mut slots: Slots<'a> = [const { MaybeUninit::uninit() }; _];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(bytes, &mut slots) {
            Ok(httparse::Status::Complete(len)) if len == bytes.len() => {}
            // The scan found its end where the grammar doesn't.
            Ok(_) => return Err(HeadError::Field),
            Err(httparse::Error::Version) => return Err(version_fault(bytes)),
            Err(error) => return Err(fault(error)),
        }
        let (method, target) = (parsed.method.ok_or(HeadError::FirstLine)?, parsed.path.ok_or(HeadError::FirstLine)?);
        let version = if parsed.version == Some(0) { Version::Http10 } else { Version::Http11 };
        self.note(bytes, parsed.headers, limits.fields)?;
        let (mark, end) = target_extent(target.as_bytes());
        if end < target.len() {
            return Err(HeadError::Target);
        }
        Ok(Line { method, target, mark, version })
    }

    fn read_request<'a>(&'a self, bytes: &'a [u8], line: Line<'a>) -> Result<RequestHead<'a>, HeadError> {
        let Line { method, target, mark, version } = line;
        let fields = Fields::new(bytes, &self.fields);
        let target = read_target(method, target, mark)?;
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
            connection: Connection::read(&fields)?,
            expects_continue: expects_continue(&fields, version)?,
            is_absolute: target.authority.is_some() && method != "CONNECT",
            host,
        })
    }
}

/// What is wrong with a version: that it is another one, if what stands in its place is one at all.
fn version_fault(bytes: &[u8]) -> HeadError {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ').skip(2);
    match (words.next(), words.next()) {
        (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            HeadError::Version
        }
        _ => HeadError::FirstLine,
    }
}

/// Where the first question mark stands, and where what may stand in a target ends. Nearly all have no query.
fn target_extent(bytes: &[u8]) -> (usize, usize) {
    let mark = quick::plain_len(bytes);
    let may_stand = |byte: &u8| quick::is_plain(*byte) || *byte == b'?';
    let query = bytes[mark..].iter().position(|byte| !may_stand(byte)).unwrap_or(bytes.len() - mark);
    (mark, mark + query)
}

/// The four forms of a target (RFC 9112 3.2). `mark` is where its query begins, or its end.
fn read_target<'a>(method: &str, target: &'a str, mark: usize) -> Result<Target<'a>, HeadError> {
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
    let before = mark - (target.len() - rest.len());
    let (path, query) = (&rest[..before], rest.get(before + 1..));
    let path = match (path, query) {
        // What is asked of a whole host by its name (RFC 9112 3.2.4).
        ("", None) if method == "OPTIONS" => "*",
        ("", _) => "/",
        _ => path,
    };
    Ok(Target { authority, path, query })
}

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

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { line: 100, head: 1_000, fields: 10 };

    #[test]
    fn what_clients_send_is_looked_through_once() {
        let targets = ["/", "/a/b%20c?d=e&f?", "*", "http://a.example:80/b"];
        let fields = ["Host: a.example\r\n", "Host: a\r\nX-Y_z:  \t b\tc \r\nEmpty:\r\nName: \u{e9}\r\n", ""];
        for (target, fields) in targets.into_iter().flat_map(|target| fields.map(|fields| (target, fields))) {
            for (method, version) in [("GET", "1.1"), ("POST", "1.0"), ("m-search", "1.1")] {
                let head = format!("{method} {target} HTTP/{version}\r\n{fields}\r\n");
                let (mut heads, mut other) = (Heads::default(), Heads::default());
                let (line, len) = heads.quick_request(head.as_bytes(), &LIMITS).expect(&head);
                let parsed = other.parse_request(head.as_bytes(), &LIMITS).expect(&head);
                assert_eq!((format!("{line:?}"), len), (format!("{parsed:?}"), head.len()), "{head}");
                assert_eq!(heads.fields, other.fields, "{head}");
            }
        }
    }

    #[test]
    fn a_connection_names_few_fields_and_each_is_found() {
        let head = |options: &str| format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {options}\r\nX-B: 1\r\n\r\n");
        let names = |options: &str| {
            let (head, mut heads) = (head(options), Heads::default());
            let limits = Limits { head: 1 << 16, ..LIMITS };
            let found = heads.find_request(&mut Scan::default(), head.as_bytes(), &limits)?.expect("whole");
            let others = found.0.connection.others(&found.0.request.fields);
            Ok((others.has(b"x-b"), found.0.connection.close))
        };
        assert_eq!(names("close"), Ok((false, true)));
        assert_eq!(names("x-a, CLOSE,,x-B"), Ok((true, true)));
        assert_eq!(names(&["keep-alive", "close"].repeat(2_000).join(",")), Ok((false, true)));
        let many: Vec<String> = (0..63).map(|number| format!("x{number}")).collect();
        assert_eq!(names(&(many.join(",") + ",x-b")), Ok((true, false)));
        assert_eq!(names(&(many.join(",") + ",x-b,x-c")), Err(HeadError::TooManyFields));
    }
}
