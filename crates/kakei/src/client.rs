//! A client of the admin API: one request, one answer, over the Unix socket. Bounded in time and size; retries nothing.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::say::Failure;

/// Longer than the server takes for anything.
const PATIENCE: Duration = Duration::from_secs(70);
/// The longest answer that is read.
const MAX_ANSWER: u64 = 256 << 20;

/// A request.
#[derive(Debug, Default)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: String,
    /// Content type and bytes.
    pub(crate) body: Option<(&'a str, &'a [u8])>,
    pub(crate) if_match: Option<u64>,
    pub(crate) accept: Option<&'a str>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(method: &'a str, path: impl Into<String>) -> Self {
        Request { method, path: path.into(), ..Request::default() }
    }

    fn head(&self) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: kakei\r\nConnection: close\r\n", self.method, self.path);
        if let Some(accept) = self.accept {
            write!(head, "Accept: {accept}\r\n").expect("writing to a string never fails");
        }
        if let Some(generation) = self.if_match {
            write!(head, "If-Match: \"{generation}\"\r\n").expect("writing to a string never fails");
        }
        if let Some((media, body)) = self.body {
            write!(head, "Content-Type: {media}\r\nContent-Length: {}\r\n", body.len())
                .expect("writing to a string never fails");
        }
        head + "\r\n"
    }
}

/// The running proxy.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(crate) fn new(socket: &Path) -> Self {
        Client { socket: socket.to_owned() }
    }

    /// The body of a good answer; a refusal becomes a failure with what the server said.
    pub(crate) fn text(&self, request: &Request<'_>) -> Result<String, Failure> {
        let (status, text) = self.answer(request)?;
        if (200..300).contains(&status) { Ok(text) } else { Err(problem(status, &text)) }
    }

    fn answer(&self, request: &Request<'_>) -> Result<(u16, String), Failure> {
        let answer = self.exchange(request).map_err(|error| self.unreachable(&error))?;
        let (status, body) =
            parse(&answer).ok_or_else(|| Failure::refused("the admin socket did not answer in HTTP"))?;
        Ok((status, String::from_utf8_lossy(body).into_owned()))
    }

    /// What there is at a path; none: there is no such thing.
    pub(crate) fn find(&self, path: impl Into<String>) -> Result<Option<Value>, Failure> {
        match self.answer(&Request::new("GET", path))? {
            (404, _) => Ok(None),
            (status, text) if !(200..300).contains(&status) => Err(problem(status, &text)),
            (_, text) => read(&text).map(Some),
        }
    }

    pub(crate) fn json(&self, request: &Request<'_>) -> Result<Value, Failure> {
        read(&self.text(request)?)
    }

    pub(crate) fn get(&self, path: impl Into<String>) -> Result<Value, Failure> {
        self.json(&Request::new("GET", path))
    }

    fn exchange(&self, request: &Request<'_>) -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let sent = stream
            .write_all(request.head().as_bytes())
            .and_then(|()| stream.write_all(request.body.map_or(&[][..], |(_, body)| body)));
        let mut answer = Vec::new();
        let read = stream.take(MAX_ANSWER).read_to_end(&mut answer);
        // A server may refuse a body before it has read all of it: then its answer counts, not the broken pipe.
        if answer.is_empty() {
            sent?;
            read?;
        }
        Ok(answer)
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        Failure::refused(format!(
            "no proxy answers on {} ({error}); start one with `kakei run`, or name its admin socket with -s",
            self.socket.display()
        ))
    }
}

fn read(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::refused(format!("the answer is not JSON: {error}")))
}

/// Status and body of a whole answer.
fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(answer).ok()? else { return None };
    let body = &answer[head..];
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let whole = match length {
        Some(length) => std::str::from_utf8(length.value).ok()?.trim().parse().ok()?,
        None => body.len(),
    };
    Some((response.code?, body.get(..whole)?))
}

/// What an RFC 9457 document says, as a failure.
fn problem(status: u16, text: &str) -> Failure {
    let problem: Value = serde_json::from_str(text).unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or("the proxy refused").to_owned();
    // Of an invalid document each error is drawn; of what is no mistake of the document the detail says all.
    let Some(errors) = problem["errors"].as_array().filter(|_| status == 422) else {
        return Failure::refused(match problem["detail"] {
            Value::Null => format!("the proxy refused with status {status}"),
            _ => detail,
        });
    };
    let mut drawn = format!("error: {detail}\n");
    for error in errors {
        let place = error["pointer"].as_str().unwrap_or_default();
        let message = error["message"].as_str().unwrap_or_default();
        writeln!(drawn, "  {place}: {message}").expect("writing to a string never fails");
    }
    Failure::drawn(drawn)
}

/// Text as one segment of a path, or one value of a query: everything but unreserved characters escaped (RFC 3986).
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
            _ => write!(escaped, "%{byte:02X}").expect("writing to a string never fails"),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokay"), Some((200, &b"ok"[..])));
        assert_eq!(parse(b"HTTP/1.1 204 No Content\r\n\r\n"), Some((204, &b""[..])));
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nokay"), None, "cut off");
        assert_eq!(parse(b"HTTP/1.1 200"), None);
        assert_eq!(parse(b"SSH-2.0-x\r\n"), None);
    }

    #[test]
    fn names_become_one_segment() {
        assert_eq!(escape("[::1]:53/a b"), "%5B%3A%3A1%5D%3A53%2Fa%20b");
    }

    #[test]
    fn a_problem_document_becomes_its_sentence() {
        assert_eq!(problem(409, r#"{"detail":"it is so"}"#).text(), "error: it is so\n");
        let drawn = problem(422, r#"{"detail":"1 error","errors":[{"pointer":"/a","message":"wrong"}]}"#);
        assert_eq!((drawn.code, drawn.text().as_str()), (2, "error: 1 error\n  /a: wrong\n"));
        assert_eq!(problem(500, "oops").text(), "error: the proxy refused with status 500\n");
    }
}
