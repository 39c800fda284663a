//! A backend's connection: reads requests with a parser of its own and answers them, as a rule; or answers early, late,
//! never, half, or not in HTTP.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use kakei_proxy::seam::Instant;

use super::documents::{HEALTH, cluster_of};
use super::guards;
use super::message::{Body, Head, chunked, in_chunks, pattern, sized};

/// A request that came whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) id: u64,
    /// Whether others came on this connection before.
    pub(super) reused: bool,
}

#[derive(Debug)]
pub(super) struct Server {
    pub(super) cluster: &'static str,
    pub(super) address: SocketAddr,
    input: Vec<u8>,
    /// What it sends, once its time has come.
    output: Vec<u8>,
    ready: Instant,
    served: u32,
    /// It ends its side when all is sent: announced or not.
    closes: bool,
    /// It breaks the connection when so many bytes more are sent.
    breaks: Option<usize>,
    /// It answered the request under way already.
    answered: bool,
    echoes: bool,
    /// It ends without a word, and looks at nothing any more.
    is_dead: bool,
    /// Its connection is for asking whether it is well; what it said, until that is told.
    is_probed: bool,
    said: Option<bool>,
    /// What it sends now comes in one piece.
    pub(super) is_in_one: bool,
    pub(super) stalled: bool,
    is_peaceful: bool,
    /// How often it was asked whether somebody may pass, since that was looked at.
    questions: u64,
    rng: Rng,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (input, output) = (self.input.len(), self.output.len());
        write!(
            f,
            "server of {} holds {input} owes {output} served {} ready {:?}",
            self.cluster, self.served, self.ready
        )
    }
}

impl Server {
    pub(super) fn new(address: SocketAddr, mut rng: Rng, is_peaceful: bool) -> Self {
        Server {
            cluster: cluster_of(address),
            address,
            input: Vec::new(),
            output: Vec::new(),
            ready: Instant::ZERO,
            served: 0,
            closes: false,
            breaks: None,
            answered: false,
            echoes: false,
            is_dead: false,
            is_probed: false,
            said: None,
            is_in_one: false,
            stalled: rng.u8(0..20) == 0,
            is_peaceful,
            questions: 0,
            rng,
        }
    }

    pub(super) fn wind_down(&mut self) {
        (self.stalled, self.is_peaceful) = (false, true);
        self.ready = Instant::ZERO;
    }

    /// Bytes that it may send now.
    pub(super) fn pending(&self, now: Instant) -> &[u8] {
        let until = self.breaks.unwrap_or(usize::MAX).min(self.output.len());
        if now < self.ready { &[] } else { &self.output[..until] }
    }

    pub(super) fn send(&mut self, count: usize) {
        self.output.drain(..count);
        self.is_in_one &= !self.output.is_empty();
        self.breaks = self.breaks.map(|left| left - count);
    }

    /// Whether it breaks the connection now.
    pub(super) fn has_broken(&self, now: Instant) -> bool {
        self.breaks == Some(0) && now >= self.ready
    }

    /// Whether it sends nothing more.
    pub(super) fn has_ended(&self, now: Instant) -> bool {
        self.closes && self.output.is_empty() && now >= self.ready
    }

    /// What it said of itself to a probe, once all of that is sent.
    pub(super) fn has_said(&mut self) -> Option<bool> {
        if self.output.is_empty() { self.said.take() } else { None }
    }

    /// The request of which it waits for the rest, where it looks at what comes.
    pub(super) fn has_in_part(&self) -> Option<u64> {
        if self.is_dead || self.echoes {
            return None;
        }
        Head::parse(&self.input).ok()??.field("x-id")?.parse().ok()
    }

    /// Whether nothing came to it yet.
    pub(super) fn got_nothing(&self) -> bool {
        self.served == 0 && self.input.is_empty() && !self.echoes
    }

    /// Whether the proxy asks it whether it is well.
    pub(super) fn is_probed(&self) -> bool {
        self.is_probed
    }

    /// Bytes are on their way to it: whether they are of a request.
    pub(super) fn is_asked_by(&mut self, bytes: &[u8]) -> bool {
        self.is_probed |= bytes.starts_with(format!("GET {HEALTH} ").as_bytes());
        !self.echoes && !self.is_probed
    }

    fn say(&mut self, is_well: bool) {
        let line = if is_well { "200 OK" } else { "503 Service Unavailable" };
        self.output.extend_from_slice(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").as_bytes());
        (self.said, self.is_in_one) = (Some(is_well), true);
    }

    /// Bytes of the proxy.
    pub(super) fn take(&mut self, now: Instant, bytes: &[u8], is_well: bool) -> Result<Vec<Seen>, String> {
        let mut seen = Vec::new();
        if self.echoes {
            self.output.extend_from_slice(bytes);
            return Ok(seen);
        }
        self.input.extend_from_slice(bytes);
        if self.is_dead {
            return Ok(seen);
        }
        while let Some(head) = Head::parse(&self.input)? {
            if head.line.starts_with(&format!("GET {HEALTH} ")) {
                self.input.drain(..head.len);
                self.say(is_well);
                continue;
            }
            if self.cluster == "gate" {
                self.vouch(now, &head)?;
                self.input.drain(..head.len);
                continue;
            }
            let number = |name: &str| head.field(name).and_then(|text| text.parse::<u64>().ok());
            let (Some(id), Some(size)) = (number("x-id"), number("x-size")) else {
                return Err(format!("a request that nobody sent: {head:?}"));
            };
            if self.closes && !self.answered {
                return Err(format!("request {id} came behind the announced end"));
            }
            self.judge(&head)?;
            if !self.answered && self.rng.u8(0..12) == 0 && !self.is_peaceful {
                self.answer(now, &head, id);
            }
            let body = match head.length()? {
                Some(len) => sized(&self.input, head.len, len),
                None if head.is_chunked() => chunked(&self.input, head.len)?,
                None => Body::Whole(Vec::new(), head.len),
            };
            let Body::Whole(body, end) = body else { return Ok(seen) };
            if body != pattern(id, size as usize) {
                return Err(format!(
                    "request {id}: a body of {} bytes isn't the one of {size} that was sent",
                    body.len()
                ));
            }
            seen.push(Seen { id, reused: self.served > 0 });
            if !self.answered {
                self.answer(now, &head, id);
            }
            self.answered = false;
            self.served += 1;
            self.input.drain(..end);
            if self.echoes {
                self.output.extend(std::mem::take(&mut self.input));
                return Ok(seen);
            }
        }
        Ok(seen)
    }

    /// What must not come here.
    fn judge(&self, head: &Head) -> Result<(), String> {
        let id: u64 = head.field("x-id").and_then(|id| id.parse().ok()).unwrap_or(0);
        if !head.line.starts_with(&head.line.split(' ').next().unwrap_or_default().to_ascii_uppercase())
            || !head.line.contains(&format!(" /{}/{id}?id={id} ", self.cluster))
        {
            return Err(format!("a request of another cluster: {}", head.line));
        }
        guards::judge(head, id)?;
        let forbidden = ["keep-alive", "proxy-connection", "te", "trailer"];
        match head.fields.iter().find(|(name, _)| forbidden.contains(&name.as_str())) {
            Some(field) => Err(format!("a field of another connection: {field:?}")),
            None => Ok(()),
        }
    }

    /// A question whether a request may pass: its ticket says that.
    fn vouch(&mut self, now: Instant, head: &Head) -> Result<(), String> {
        let id = head.field("x-id").and_then(|id| id.parse().ok()).ok_or("a question about nobody")?;
        guards::judge_question(head, id)?;
        if self.closes {
            return Err(format!("a question about {id} came behind the announced end"));
        }
        self.questions += 1;
        self.answer(now, head, id);
        self.answered = false;
        self.served += 1;
        Ok(())
    }

    /// How often it was asked whether somebody may pass, since this was called last.
    pub(super) fn take_questions(&mut self) -> u64 {
        std::mem::take(&mut self.questions)
    }

    fn answer(&mut self, now: Instant, head: &Head, id: u64) {
        self.answered = true;
        let delay = if self.is_peaceful { self.rng.u64(0..100) } else { self.rng.u64(0..800) };
        self.ready = if self.rng.bool() { now } else { now + Duration::from_millis(delay) };
        if head.field("upgrade") == Some("echo") && self.rng.u8(0..4) > 0 {
            self.output
                .extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n");
            self.echoes = true;
            return;
        }
        let is_gate = self.cluster == "gate";
        if self.rng.u8(0..6) == 0 {
            let whose = if is_gate { "X-Gate: 1\r\n" } else { "" };
            self.output.extend_from_slice(format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n{whose}\r\n").as_bytes());
        }
        let is_head = head.line.starts_with("HEAD");
        let from = self.output.len();
        match head.field("x-ticket") {
            Some(ticket) if is_gate => self.rule(id, ticket),
            _ => self.respond(id, (is_head, head.field("x-long").is_some())),
        }
        if self.is_peaceful {
            return;
        }
        match self.rng.u8(0..30) {
            0 => self.breaks = Some(0),
            1 => self.breaks = Some(self.rng.usize(0..=self.output.len())),
            2 => self.output.splice(from.., *b"HTTP/1.1 200 OK\nX-Echo: 1\n\n").for_each(drop),
            3 => self
                .output
                .splice(from.., *b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx")
                .for_each(drop),
            4 => self.ready = now + Duration::from_secs(1_000),
            5 => {
                self.closes = false;
                let error = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
                self.output.splice(from.., *error).for_each(drop);
            }
            // Unannounced: whoever reuses the connection finds it dead.
            6 | 7 => (self.closes, self.is_dead) = (true, true),
            8 if !self.closes && self.output.len() < 40_000 => {
                // What comes later than the next request can't be told from the answer to that.
                self.is_in_one = true;
                self.output.extend_from_slice(b"HTTP/1.1 200 OK\r\nX-Echo: 0\r\nContent-Length: 0\r\n\r\n");
            }
            _ => {}
        }
    }

    fn len(&mut self) -> usize {
        match self.rng.u8(0..7) {
            0 => 0,
            6 if self.rng.u8(0..6) == 0 => self.rng.usize(0..700_000),
            1..=3 => self.rng.usize(0..1_500),
            4 => self.rng.usize(0..40_000),
            _ => self.rng.usize(0..90_000),
        }
    }

    fn respond(&mut self, id: u64, (is_head, may_be_long): (bool, bool)) {
        let is_long = may_be_long && self.rng.bool();
        let len = if is_long { self.rng.usize(200_000..700_000) } else { self.len() };
        let body = pattern(id ^ 0xbeef, len);
        let head = format!("HTTP/1.1 200 OK\r\nX-Echo: {id}\r\nX-Cluster: {}\r\nX-Len: {len}\r\n", self.cluster);
        self.write(head, body, is_head);
    }

    /// Whether somebody may pass.
    fn rule(&mut self, id: u64, ticket: &str) {
        let len = self.len();
        let line = match ticket {
            "good" => format!("200 OK\r\nX-Who: who-{id}\r\nConnection: x-other\r\nX-Other: 1"),
            "bad" => "403 Forbidden".to_owned(),
            _ => "302 Found\r\nLocation: http://login.test/".to_owned(),
        };
        let head = format!("HTTP/1.1 {line}\r\nX-Gate: {id}\r\nX-Len: {len}\r\n");
        self.write(head, pattern(id ^ 0x6a7e, len), false);
    }

    fn write(&mut self, head: String, body: Vec<u8>, is_head: bool) {
        let len = body.len();
        let announces = self.rng.u8(0..6) == 0;
        let (fields, content) = match self.rng.u8(0..4) {
            0 => ("Transfer-Encoding: chunked\r\n".to_owned(), in_chunks(&body, &mut self.rng)),
            1 if announces => (String::new(), body),
            _ => (format!("Content-Length: {len}\r\n"), body),
        };
        let closes = if announces { "Connection: close\r\n" } else { "" };
        self.closes |= announces;
        self.output.extend_from_slice(format!("{head}{fields}{closes}\r\n").as_bytes());
        if !is_head {
            self.output.extend(content);
        }
    }
}
