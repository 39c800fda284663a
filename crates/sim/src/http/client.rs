//! A client: a list of requests, sent in pieces, perhaps several before the first answer; it takes answers in order and
//! knows what each must be. It may give up at any byte.

use std::fmt;

use fastrand::Rng;
use kakei_proxy::limits::STREAM_READ;

use super::documents::{ASIDE, ASKED, FIXED, KEYS, MARK, WEB};
use super::guards::Claims;
use super::message::{Body, Head, chunked, in_chunks, pattern, sized};

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) id: u64,
    pub(super) method: &'static str,
    /// It comes by the listener that comes and goes.
    is_aside: bool,
    /// The first part of its path, which says by which route it goes.
    pub(super) place: &'static str,
    pub(super) expects: Expects,
    /// What some rate limits go by.
    pub(super) key: u64,
    /// What it says of who it is, where that is asked.
    pub(super) claims: Option<Claims>,
    pub(super) upgrades: bool,
    pub(super) body: usize,
    bytes: Vec<u8>,
}

/// Who must answer a request, and how; whoever can't says so by an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expects {
    /// A backend of this cluster.
    Cluster(&'static str),
    /// The proxy, by sending it there.
    Elsewhere(String),
    /// The proxy, by what the document says.
    Fixed,
    /// Nobody: no route is for it.
    Nothing,
}

impl Expects {
    fn of(place: &'static str, method: &str, id: u64) -> Self {
        match (place, method) {
            ("one" | "paced" | "few" | "locked" | "vouched" | "both", _) | ("by-method", "GET" | "HEAD") => {
                Expects::Cluster("one")
            }
            ("two", _) => Expects::Cluster("two"),
            ("three", _) | ("by-method", "POST" | "PUT") => Expects::Cluster("three"),
            ("moved", _) => Expects::Elsewhere(format!("http://a.test/one/{id}?id={id}")),
            ("fixed", _) => Expects::Fixed,
            _ => Expects::Nothing,
        }
    }
}

impl Ask {
    /// Whether nothing that it depends on is ever changed.
    pub(super) fn is_stable(&self) -> bool {
        !self.is_aside && self.expects != Expects::Cluster("two")
    }

    /// Whether a backend must see it before it is answered.
    pub(super) fn is_forwarded(&self) -> bool {
        matches!(self.expects, Expects::Cluster(_))
    }

    /// Whether an error may be all that it gets.
    pub(super) fn may_be_refused(&self, status: u16) -> bool {
        let may_get = self.claims.is_some_and(|claims| claims.may_get(status));
        may_get
            || self.expects == Expects::Nothing && status == 404
            || matches!(self.place, "paced" | "few") && status == 429
    }

    pub(super) fn has_body(&self) -> bool {
        matches!(self.method, "POST" | "PUT")
    }

    pub(super) fn is_idempotent(&self) -> bool {
        self.method != "POST"
    }
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) asks: Vec<Ask>,
    /// Where it connects.
    pub(super) port: u16,
    /// All requests, one behind the other.
    all: Vec<u8>,
    /// Bytes of them that were sent, and then of what comes behind an upgrade.
    sent: usize,
    /// It sends the next before the last was answered.
    pipelines: bool,
    /// It breaks the connection when it sent, or received, so many bytes.
    gives_up: Option<usize>,
    received: usize,
    input: Vec<u8>,
    pub(super) answered: usize,
    pub(super) stalled: bool,
    /// The proxy said, by a head or by its end, that this is all.
    pub(super) ended: bool,
    pub(super) was_reset: bool,
    /// What it was upgraded to: bytes of it that were echoed.
    pub(super) echoed: Option<usize>,
}

/// What came of bytes.
#[derive(Default)]
pub(super) struct Came {
    pub(super) answered: u64,
    pub(super) errors: Vec<(u64, u16)>,
    /// Whose route was of which change.
    pub(super) marks: Vec<(u64, u64)>,
}

const ECHO: usize = 5_000;

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asks: Vec<_> = self.asks.iter().map(|ask| (ask.id, ask.method, ask.place, ask.body)).collect();
        let (sent, answered, input) = (self.sent, self.answered, self.input.len());
        write!(f, "client {asks:?} sent {sent} answered {answered} holds {input} ended {}", self.ended)
    }
}

impl Client {
    pub(super) fn new(first: u64, rng: &mut Rng, (is_peaceful, is_guarded): (bool, bool)) -> Self {
        let count = rng.u64(1..8);
        let closes_last = rng.bool();
        let port = if rng.u8(0..5) == 0 { ASIDE } else { WEB };
        let stalled = rng.u8(0..15) == 0;
        let mut asks = Vec::new();
        for id in first..first + count {
            let is_last = id + 1 == first + count;
            asks.push(ask(id, rng, (is_last, closes_last, is_guarded), (port, stalled)));
        }
        let whole: usize = asks.iter().map(|ask| ask.bytes.len()).sum();
        let gives_up = (!is_peaceful && rng.u8(0..6) == 0).then(|| rng.usize(0..whole + 2_000));
        Client {
            pipelines: rng.bool() && asks.iter().all(|ask| !ask.upgrades),
            all: asks.iter().flat_map(|ask| ask.bytes.iter().copied()).collect(),
            asks,
            port,
            sent: 0,
            gives_up,
            received: 0,
            input: Vec::new(),
            answered: 0,
            stalled,
            ended: false,
            was_reset: false,
            echoed: None,
        }
    }

    /// Bytes that it may send now.
    pub(super) fn pending(&self) -> Vec<u8> {
        if let Some(echoed) = self.echoed {
            let whole = self.whole();
            let done = self.sent.saturating_sub(whole);
            debug_assert!(echoed <= done, "nothing is echoed that wasn't sent");
            return pattern(self.asks[self.answered].id, ECHO)[done..].to_vec();
        }
        let until = if self.pipelines { self.all.len() } else { self.whole() };
        let until = until.min(self.sent + STREAM_READ);
        if self.ended { Vec::new() } else { self.all[self.sent.min(until)..until].to_vec() }
    }

    /// The request under way, if all of it was sent.
    pub(super) fn sent_whole(&self) -> Option<u64> {
        self.current().filter(|_| self.sent >= self.whole()).map(|ask| ask.id)
    }

    fn whole(&self) -> usize {
        self.asks.iter().take(self.answered + 1).map(|ask| ask.bytes.len()).sum()
    }

    pub(super) fn send(&mut self, count: usize) {
        self.sent += count;
    }

    /// Whether it breaks the connection now.
    pub(super) fn has_given_up(&self) -> bool {
        self.gives_up.is_some_and(|at| self.sent + self.received >= at)
    }

    /// Whether it has all that it wanted, or all that it will get.
    pub(super) fn is_done(&self) -> bool {
        self.ended || self.answered == self.asks.len() || self.echoed == Some(ECHO)
    }

    /// Whether it is one of those that go on sending when they were told that this is all.
    pub(super) fn drips(&self) -> bool {
        self.ended && self.echoed.is_none() && self.asks.first().is_some_and(|ask| ask.id % 3 == 0)
    }

    pub(super) fn wind_down(&mut self) {
        self.stalled = false;
    }

    /// The request whose answer is under way or awaited.
    pub(super) fn current(&self) -> Option<&Ask> {
        self.asks.get(self.answered)
    }

    /// Bytes of the proxy.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Came, String> {
        let mut came = Came::default();
        self.received += bytes.len();
        self.input.extend_from_slice(bytes);
        while !self.input.is_empty() {
            if let Some(echoed) = &mut self.echoed {
                let expected = pattern(self.asks[self.answered].id, ECHO);
                if expected.get(*echoed..*echoed + self.input.len()) != Some(&self.input[..]) {
                    return Err(format!("echoed {} strange bytes at {echoed}", self.input.len()));
                }
                *echoed += self.input.len();
                self.input.clear();
                break;
            }
            let Some(head) = Head::parse(&self.input)? else { break };
            if !self.answer(&head, &mut came)? {
                break;
            }
        }
        Ok(came)
    }

    /// Whether an answer was there whole.
    fn answer(&mut self, head: &Head, came: &mut Came) -> Result<bool, String> {
        let Some(ask) = self.asks.get(self.answered).cloned() else {
            return Err(format!("an answer to nothing: {head:?}"));
        };
        let status: u16 = head.line.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or("no status")?;
        if status == 101 {
            if !ask.upgrades {
                return Err("switched without being asked".to_owned());
            }
            check_asked(&ask, head)?;
            self.input.drain(..head.len);
            self.echoed = Some(0);
            return Ok(true);
        }
        if (100..200).contains(&status) {
            if head.field("x-gate").is_some() {
                return Err(format!("what a service says before its answer: {head:?}"));
            }
            self.input.drain(..head.len);
            return Ok(true);
        }
        let has_none = ask.method == "HEAD" || status == 204 || status == 304;
        let body = match head.length()? {
            _ if has_none => Body::Whole(Vec::new(), head.len),
            Some(len) => sized(&self.input, head.len, len),
            None if head.is_chunked() => chunked(&self.input, head.len)?,
            None if self.ended => Body::Whole(self.input[head.len..].to_vec(), self.input.len()),
            None => Body::Part,
        };
        let Body::Whole(body, end) = body else { return Ok(false) };
        let is_error = status >= 400 && head.field("x-echo").or(head.field("x-gate")).is_none();
        if !is_error {
            check_asked(&ask, head)?;
        }
        match head.field("x-echo") {
            Some(echo) => check(&ask, head, &body, echo)?,
            None if head.field("x-gate").is_some() => {
                check_gate(&ask, head, &body)?;
                came.errors.push((ask.id, status));
            }
            None if status >= 400 => came.errors.push((ask.id, status)),
            None => check_own(&ask, (head, status), &body)?,
        }
        let mark = head.field(MARK).and_then(|mark| mark.parse().ok());
        if ask.place == "two" && self.port == WEB && head.field("x-echo").is_some() {
            came.marks.push((ask.id, mark.unwrap_or(0)));
        }
        came.answered += u64::from(head.field("x-echo").is_some());
        self.input.drain(..end);
        self.answered += 1;
        self.ended |= head.closes();
        if self.ended && status >= 400 {
            // Who refuses a head that it could not read can't know that it was of a HEAD.
            self.input.clear();
        }
        Ok(true)
    }

    /// The proxy sends nothing more.
    pub(super) fn end(&mut self) -> Result<Came, String> {
        self.ended = true;
        if self.echoed.is_some() {
            return Ok(Came::default());
        }
        let came = self.take(&[])?;
        let mut all = came;
        if let Some(head) = Head::parse(&self.input)? {
            self.answer(&head, &mut all)?;
        }
        match self.input.is_empty() {
            true => Ok(all),
            false => Err(format!("an answer to request {:?} was cut short in order", self.current().map(|ask| ask.id))),
        }
    }
}

/// An answer of a backend must be to this request, from its cluster, and whole.
fn check(ask: &Ask, head: &Head, body: &[u8], echo: &str) -> Result<(), String> {
    if echo != ask.id.to_string() {
        return Err(format!("request {} got the answer to {echo}", ask.id));
    }
    let by = head.field("x-cluster");
    if !matches!(ask.expects, Expects::Cluster(cluster) if by == Some(cluster)) {
        return Err(format!("request {} ({:?}) was answered by {by:?}", ask.id, ask.expects));
    }
    let len = head.field("x-len").and_then(|text| text.parse().ok()).ok_or("no x-len")?;
    if ask.method != "HEAD" && body != pattern(ask.id ^ 0xbeef, len) {
        return Err(format!("request {}: a body of {} bytes isn't the one of {len} that was sent", ask.id, body.len()));
    }
    Ok(())
}

/// Where its route says so, an answer says what was asked for, once.
fn check_asked(ask: &Ask, head: &Head) -> Result<(), String> {
    let all = head.fields.iter().filter(|(name, _)| name == ASKED);
    let all: Vec<&str> = all.map(|(_, value)| value.as_str()).collect();
    let wanted = format!("/{}/{}", ask.place, ask.id);
    let is_right = match ask.expects {
        Expects::Cluster("three") | Expects::Nothing => all.is_empty(),
        _ => all == [wanted.as_str()],
    };
    if is_right { Ok(()) } else { Err(format!("request {} ({wanted}) is said to be for {all:?}", ask.id)) }
}

/// An answer of a service must be about this request, and whole.
fn check_gate(ask: &Ask, head: &Head, body: &[u8]) -> Result<(), String> {
    let (by, len) = (head.field("x-gate"), head.field("x-len").and_then(|text| text.parse().ok()));
    let is_whole = ask.method == "HEAD" || len.is_some_and(|len| body == pattern(ask.id ^ 0x6a7e, len));
    match by == Some(&ask.id.to_string()) && is_whole && ask.claims.is_some() {
        true => Ok(()),
        false => Err(format!("request {} ({:?}) got of a service {head:?}", ask.id, ask.claims)),
    }
}

/// An answer of the proxy's own must be what the document says.
fn check_own(ask: &Ask, (head, status): (&Head, u16), body: &[u8]) -> Result<(), String> {
    let body_fits = |wanted: &str| ask.method == "HEAD" || body == wanted.as_bytes();
    let is_right = match &ask.expects {
        Expects::Elsewhere(location) => status == 307 && head.field("location") == Some(location) && body_fits(""),
        Expects::Fixed => status == 200 && body_fits(FIXED),
        Expects::Cluster(_) | Expects::Nothing => false,
    };
    if is_right { Ok(()) } else { Err(format!("request {} ({:?}) got {head:?}", ask.id, ask.expects)) }
}

const PLACES: [&str; 14] = [
    "one",
    "one",
    "one",
    "two",
    "two",
    "two",
    "three",
    "three",
    "paced",
    "few",
    "by-method",
    "moved",
    "fixed",
    "nowhere",
];

const GUARDED: [&str; 3] = ["locked", "vouched", "both"];

fn ask(id: u64, rng: &mut Rng, (is_last, closes, is_guarded): (bool, bool, bool), (port, stalls): (u16, bool)) -> Ask {
    let place = if is_guarded && port == WEB && rng.bool() {
        GUARDED[rng.usize(0..GUARDED.len())]
    } else if port == WEB {
        PLACES[rng.usize(0..PLACES.len())]
    } else {
        PLACES[rng.usize(0..8)]
    };
    let upgrades = is_last && matches!(place, "one" | "two" | "three" | "locked" | "vouched") && rng.u8(0..5) == 0;
    let method = if upgrades { "GET" } else { ["GET", "GET", "HEAD", "POST", "PUT", "DELETE"][rng.usize(0..6)] };
    let has_body = matches!(method, "POST" | "PUT");
    let body = match rng.u8(0..6) {
        _ if !has_body => 0,
        0 => 0,
        1..=3 => rng.usize(0..2_000),
        4 => rng.usize(0..30_000),
        _ if GUARDED.contains(&place) => rng.usize(0..400_000),
        _ => rng.usize(0..90_000),
    };
    let key = rng.u64(0..KEYS);
    let mut bytes = format!(
        "{method} /{place}/{id}?id={id} HTTP/1.1\r\nHost: a.test\r\nX-Id: {id}\r\nX-Size: {body}\r\nX-Key: {key}\r\n"
    );
    if stalls {
        // Who takes little asks for much: what is kept for it must be bounded.
        bytes.push_str("X-Long: yes\r\n");
    }
    let claims = Claims::draw(place, rng);
    bytes.push_str(&claims.map(|claims| claims.write(place)).unwrap_or_default());
    if closes && is_last && !upgrades {
        bytes.push_str("Connection: close\r\n");
    }
    if upgrades {
        bytes.push_str("Connection: keep-alive, Upgrade\r\nUpgrade: echo\r\n");
    }
    let content = pattern(id, body);
    let mut bytes = if has_body && rng.bool() {
        let mut bytes = format!("{bytes}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
        bytes.extend(in_chunks(&content, rng));
        bytes
    } else if has_body {
        let mut bytes = format!("{bytes}Content-Length: {body}\r\n\r\n").into_bytes();
        bytes.extend(content);
        bytes
    } else {
        format!("{bytes}\r\n").into_bytes()
    };
    if rng.u8(0..8) == 0 {
        bytes.splice(0..0, *b"\r\n");
    }
    let expects = Expects::of(place, method, id);
    Ask { id, method, is_aside: port == ASIDE, place, expects, key, claims, upgrades, body, bytes }
}
