//! What is said inside of TLS: bytes that come back as they are, or requests whose bodies do. Each side reads with a few
//! lines of its own, which are no part of the proxy.

use std::time::Duration;

use fastrand::Rng;
use kakei_config::Hsts;

/// What clients and backends say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    /// Bytes, and they come back.
    Bytes,
    /// HTTP: requests in a row, without waiting for answers, each of which has its request's body.
    Requests,
}

impl Speech {
    /// All that a client sends, and what of it is to come back.
    pub(crate) fn of_client(self, rng: &mut Rng, most: usize) -> (Vec<u8>, Vec<u8>) {
        let mut some = |most: usize| -> Vec<u8> { (0..rng.usize(0..most)).map(|_| rng.u8(..)).collect() };
        if self == Speech::Bytes {
            let bytes = some(most);
            return (bytes.clone(), bytes);
        }
        let bodies: Vec<Vec<u8>> = (0..1 + some(6).len()).map(|_| some(most / 4)).collect();
        let request = |body: &Vec<u8>| {
            let (path, len) = (if has_own_way(body.len()) { OWN_WAY } else { "/" }, body.len());
            let head = format!("POST {path} HTTP/1.1\r\nHost: echo.test\r\nContent-Length: {len}\r\n\r\n");
            [head.as_bytes(), body].concat()
        };
        (bodies.iter().flat_map(request).collect(), bodies.concat())
    }
}

/// The path of a route that says something else of TLS than its listener.
pub(crate) const OWN_WAY: &str = "/own";

/// Whether a request with a body of that length goes by that route.
fn has_own_way(length: usize) -> bool {
    length.is_multiple_of(3)
}

/// What the listener says of TLS, and what that route does.
pub(crate) fn hsts() -> [Hsts; 2] {
    [(9, false), (7, true)].map(|(seconds, include_subdomains)| {
        let max_age = Duration::from_secs(seconds);
        Hsts { max_age, include_subdomains, preload: false }
    })
}

/// One side that listens, message by message.
#[derive(Debug)]
pub(crate) struct Listening {
    speech: Speech,
    /// A part of a head.
    head: Vec<u8>,
    /// Bytes of a body that are still to come.
    left: usize,
    /// Bodies, as far as they came.
    pub(crate) bodies: Vec<u8>,
    /// What can't be.
    pub(crate) wrong: Option<String>,
}

impl Listening {
    pub(crate) fn new(speech: Speech) -> Self {
        Listening { speech, head: Vec::new(), left: 0, bodies: Vec::new(), wrong: None }
    }

    /// Take in what came. `begun` is told of each message that begins, by its head in small letters and the length of its body, and
    /// `more` of each part of a body.
    pub(crate) fn take(&mut self, bytes: &[u8], mut begun: impl FnMut(&str, usize), mut more: impl FnMut(&[u8])) {
        if self.speech == Speech::Bytes {
            self.bodies.extend_from_slice(bytes);
            return more(bytes);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.left > 0 {
                let (body, behind) = rest.split_at(self.left.min(rest.len()));
                self.bodies.extend_from_slice(body);
                more(body);
                self.left -= body.len();
                rest = behind;
                continue;
            }
            self.head.push(rest[0]);
            rest = &rest[1..];
            if self.head.ends_with(b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&std::mem::take(&mut self.head)).to_lowercase();
                let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                let first = text.lines().next().unwrap_or_default();
                match length {
                    Some(length) => self.left = length,
                    None => self.wrong = Some(format!("a head without a length: {first}")),
                }
                begun(&text, self.left);
            }
        }
    }

    /// Whether nothing of a message is still to come, and as many came as were to.
    pub(crate) fn is_between(&self) -> bool {
        self.head.is_empty() && self.left == 0
    }

    /// What it has to say to what it heard, as a backend does.
    pub(crate) fn answer(&mut self, bytes: &[u8]) -> Vec<u8> {
        let said = std::cell::RefCell::new(Vec::new());
        let begun = |_: &str, length: usize| {
            // Some backends have an opinion about TLS of their own.
            let own = if length.is_multiple_of(2) { "" } else { "Strict-Transport-Security: max-age=1\r\n" };
            let head = format!("HTTP/1.1 200 OK\r\n{own}Content-Length: {length}\r\n\r\n");
            said.borrow_mut().extend_from_slice(head.as_bytes());
        };
        self.take(bytes, begun, |body| said.borrow_mut().extend_from_slice(body));
        self.bodies.clear();
        said.into_inner()
    }

    /// Take in what came, as a client does: only answers that are good are what it waits for. Each says once what the
    /// listener, or its route, says of TLS (RFC 6797).
    pub(crate) fn hear(&mut self, bytes: &[u8]) {
        let mut bad = None;
        let begun = |head: &str, length: usize| {
            let told = head.lines().filter_map(|line| line.strip_prefix("strict-transport-security: "));
            let told: Vec<&str> = told.collect();
            let is_told = told == [if has_own_way(length) { "max-age=7; includesubdomains" } else { "max-age=9" }];
            if !head.starts_with("http/1.1 200 ") || !is_told {
                bad = Some(head.to_owned());
            }
        };
        self.take(bytes, begun, |_| {});
        self.wrong = self.wrong.take().or(bad);
    }
}
