//! A client of the admin API: one request, one answer, over the Unix socket or in TLS over TCP. Bounded in time and size;
//! retries nothing.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;

use crate::cli::Door;
use crate::say::Failure;

/// Longer than the server takes for anything.
const PATIENCE: Duration = Duration::from_secs(70);
/// Time in which a proxy over TCP must let itself be connected to.
const CONNECT: Duration = Duration::from_secs(10);
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
pub(crate) enum Client {
    /// By its admin socket.
    Socket(PathBuf),
    /// Over TCP.
    Remote {
        /// As it was written.
        url: String,
        host: String,
        port: u16,
        config: Arc<ClientConfig>,
    },
}

impl Client {
    /// Where the command line has it; or else where the environment has it.
    pub(crate) fn of(door: &Door) -> Result<Self, Failure> {
        let told = |variable: &str| std::env::var(variable).ok().filter(|value| !value.is_empty());
        match (&door.api, &door.socket) {
            (Some(_), Some(_)) => Err(Failure::usage("--api and --socket are two ways to one proxy: give one of them")),
            (Some(url), None) => Client::remote(url, door),
            (None, Some(path)) => Ok(Client::Socket(path.clone())),
            (None, None) => match (told("KAKEI_API"), told("KAKEI_SOCKET")) {
                (Some(url), _) => Client::remote(&url, door),
                (None, path) => Ok(Client::Socket(path.unwrap_or_else(|| "kakei.sock".to_owned()).into())),
            },
        }
    }

    fn remote(url: &str, door: &Door) -> Result<Self, Failure> {
        let wrong = || Failure::usage(format!("the admin API over TCP is written as https://HOST:PORT, not {url:?}"));
        let (host, port) = authority(url).ok_or_else(wrong)?;
        let shows = match (&door.cert, &door.key) {
            (Some(cert), Some(key)) => Some((cert.as_path(), key.as_path())),
            (None, None) => None,
            _ => return Err(Failure::usage("--cert and --key belong together: give both")),
        };
        let config = kakei::control::certificates::client(door.ca.as_deref(), shows).map_err(Failure::usage)?;
        Ok(Client::Remote { url: url.to_owned(), host, port, config })
    }

    /// The body of a good answer; a refusal becomes a failure with what the server said.
    pub(crate) fn text(&self, request: &Request<'_>) -> Result<String, Failure> {
        Ok(self.answer(request)?.good()?.text)
    }

    fn answer(&self, request: &Request<'_>) -> Result<Answer, Failure> {
        let answer = self.exchange(request).map_err(|error| self.unreachable(&error))?;
        parse(&answer).ok_or_else(|| Failure::refused("the proxy's admin API did not answer in HTTP"))
    }

    /// What there is at a path; none: there is no such thing.
    pub(crate) fn find(&self, path: impl Into<String>) -> Result<Option<Value>, Failure> {
        self.unless(404, &Request::new("GET", path))
    }

    /// What is answered; none: it is refused with this status.
    pub(crate) fn unless(&self, refused: u16, request: &Request<'_>) -> Result<Option<Value>, Failure> {
        let answer = self.answer(request)?;
        if answer.status == refused { Ok(None) } else { read(&answer.good()?.text).map(Some) }
    }

    /// What runs, and the generation that it is.
    pub(crate) fn document(&self) -> Result<(u64, Value), Failure> {
        let request = Request { accept: Some("application/json"), ..Request::new("GET", "/v1/config") };
        let answer = self.answer(&request)?.good()?;
        let unknown = || Failure::refused("the proxy does not say which generation it runs");
        Ok((answer.generation.ok_or_else(unknown)?, read(&answer.text)?))
    }

    pub(crate) fn json(&self, request: &Request<'_>) -> Result<Value, Failure> {
        read(&self.text(request)?)
    }

    pub(crate) fn get(&self, path: impl Into<String>) -> Result<Value, Failure> {
        self.json(&Request::new("GET", path))
    }

    fn exchange(&self, request: &Request<'_>) -> io::Result<Vec<u8>> {
        match self {
            Client::Socket(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                ask(stream, request)
            }
            Client::Remote { host, port, config, .. } => {
                let mut stream = secured(host, *port, config)?;
                ask(&mut stream, request).map_err(|error| last_words(&mut stream).unwrap_or(error))
            }
        }
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        Failure::refused(match self {
            Client::Socket(path) => format!(
                "no proxy answers on {} ({error}); start one with `kakei run`, or name its admin socket with -s",
                path.display()
            ),
            Client::Remote { url, .. } => format!("the proxy at {url} can't be asked: {error}{}", advice(error)),
        })
    }
}

/// What to do about it, where that can be told.
fn advice(error: &io::Error) -> &'static str {
    use rustls::{AlertDescription, Error};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::AlertReceived(AlertDescription::CertificateRequired)) => {
            "; it lets nobody in without a certificate: give one with --cert and --key"
        }
        Some(Error::AlertReceived(_)) => "; it does not take the certificate of --cert",
        Some(Error::InvalidCertificate(_)) => "; say with --ca who may vouch for it",
        _ => "",
    }
}

/// Host and port of a URL that has nothing else.
fn authority(url: &str) -> Option<(String, u16)> {
    let rest = url.strip_prefix("https://")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#', '@']) {
        return None;
    }
    let bare = |host: &str| host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
    match rest.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
        Some((host, port)) if !host.is_empty() => Some((bare(host), port.parse().ok().filter(|port| *port > 0)?)),
        Some(_) => None,
        None => Some((bare(rest), 443)).filter(|(host, _)| !host.is_empty()),
    }
}

/// A connection to a proxy over TCP whose first words are those of TLS.
fn secured(host: &str, port: u16, config: &Arc<ClientConfig>) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut last = io::Error::other("the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                return Ok(StreamOwned::new(session, stream));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What the proxy said in TLS before it closed. In TLS 1.3 it judges a client's certificate after that one's handshake is
/// over: what is written meanwhile finds nobody, and why lies unread.
fn last_words(stream: &mut StreamOwned<ClientConnection, TcpStream>) -> Option<io::Error> {
    while stream.conn.read_tls(&mut stream.sock).is_ok_and(|length| length > 0) {
        if let Err(error) = stream.conn.process_new_packets() {
            return Some(io::Error::other(error));
        }
    }
    None
}

/// Say it, and hear the whole answer.
fn ask(mut stream: impl Read + Write, request: &Request<'_>) -> io::Result<Vec<u8>> {
    let sent = stream
        .write_all(request.head().as_bytes())
        .and_then(|()| stream.write_all(request.body.map_or(&[][..], |(_, body)| body)))
        .and_then(|()| stream.flush());
    let mut answer = Vec::new();
    let read = stream.take(MAX_ANSWER).read_to_end(&mut answer);
    // A server may refuse a body before it has read all of it: then its answer counts, not the broken pipe.
    if answer.is_empty() {
        read?;
        sent?;
    }
    Ok(answer)
}

fn read(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::refused(format!("the answer is not JSON: {error}")))
}

/// How many changes of others are shown.
const SINCE: usize = 20;

/// A whole answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// The generation that it is about, where it says so.
    generation: Option<u64>,
    text: String,
}

impl Answer {
    /// It, unless it is a refusal: that is a failure with what the server said.
    fn good(self) -> Result<Answer, Failure> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(problem(self.status, &self.text)) }
    }
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(answer).ok()? else { return None };
    let body = &answer[head..];
    let named = |name: &str| response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    let text = |name| named(name).and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim);
    let whole = match named("content-length") {
        Some(_) => text("content-length")?.parse().ok()?,
        None => body.len(),
    };
    Some(Answer {
        status: response.code?,
        generation: text("etag").and_then(|etag| etag.trim_matches('"').parse().ok()),
        text: String::from_utf8_lossy(body.get(..whole)?).into_owned(),
    })
}

/// What an RFC 9457 document says, as a failure.
fn problem(status: u16, text: &str) -> Failure {
    let problem: Value = serde_json::from_str(text).unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or("the proxy refused").to_owned();
    // Of an invalid document each error is drawn; of what is no mistake of the document the detail says all.
    let Some(errors) = problem["errors"].as_array().filter(|_| status == 422) else {
        return Failure::refused(match problem["detail"] {
            Value::Null => format!("the proxy refused with status {status}"),
            _ => detail + &since(&problem["since"]),
        });
    };
    let mut drawn = format!("error: {detail}\n");
    for error in errors {
        let place = error["pointer"].as_str().unwrap_or_default();
        let message = error["message"].as_str().unwrap_or_default();
        let help = error["help"].as_str().map(|help| format!(" ({help})")).unwrap_or_default();
        writeln!(drawn, "  {place}: {message}{help}").expect("writing to a string never fails");
    }
    Failure::drawn(drawn)
}

/// What others have changed meanwhile: the last of it.
fn since(lines: &Value) -> String {
    let lines: Vec<&str> = lines.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let first = lines.len().saturating_sub(SINCE);
    let more = if first > 0 { format!("\n  and {first} before") } else { String::new() };
    lines[first..].iter().map(|line| format!("\n  {line}")).collect::<String>() + &more
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
        let parse = |answer: &[u8]| parse(answer).map(|answer| (answer.status, answer.generation, answer.text));
        let told = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: \"17\"\r\n\r\nokay");
        assert_eq!(told, Some((200, Some(17), "ok".to_owned())));
        assert_eq!(parse(b"HTTP/1.1 204 No Content\r\n\r\n"), Some((204, None, String::new())));
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nokay"), None, "cut off");
        assert_eq!(parse(b"HTTP/1.1 200"), None);
        assert_eq!(parse(b"SSH-2.0-x\r\n"), None);
    }

    #[test]
    fn a_url_of_the_api_is_a_host_and_a_port() {
        let right = [
            ("https://a.test:9443", "a.test", 9443),
            ("https://[::1]:1/", "::1", 1),
            ("https://a", "a", 443),
            ("https://[::1]", "::1", 443),
        ];
        for (url, host, port) in right {
            assert_eq!(authority(url), Some((host.to_owned(), port)), "{url}");
        }
        for wrong in
            ["http://a", "a:1", "https://", "https://:1", "https://a:0", "https://a:x", "https://a:1/v1", "https://u@a"]
        {
            assert_eq!(authority(wrong), None, "{wrong}");
        }
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
        let errors = r#"{"detail":"1 error","errors":[{"pointer":"/a","message":"wrong","help":"did you mean `b`?"}]}"#;
        assert_eq!(problem(422, errors).text(), "error: 1 error\n  /a: wrong (did you mean `b`?)\n");
        assert_eq!(problem(500, "oops").text(), "error: the proxy refused with status 500\n");
    }
}
