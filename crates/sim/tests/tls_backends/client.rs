//! A client that speaks no TLS: it sends bytes that it wants to have back, or asks for bodies that it knows. Truth about
//! what it got is its own.

use fastrand::Rng;

/// What a client found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saw {
    Nothing,
    End,
    Reset,
}

/// A request, and what came of it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) number: u32,
    /// The generation that ran when it was sent.
    pub(crate) generation: usize,
    /// The status, once all of the answer is there.
    pub(crate) answered: Option<u16>,
}

pub(crate) struct Client {
    pub(crate) number: u32,
    /// What it sends, of a stream.
    payload: Vec<u8>,
    sent: usize,
    /// It goes in the middle.
    cut_at: Option<usize>,
    /// How many requests it has left, of HTTP.
    left: u32,
    is_http: bool,
    pub(crate) asked: Vec<Asked>,
    pub(crate) got: Vec<u8>,
    pub(crate) to_worker: Vec<u8>,
    pub(crate) has_ended: bool,
    pub(crate) has_reset: bool,
    pub(crate) saw: Saw,
}

/// The body that belongs to a request.
pub(crate) fn body(number: u32) -> Vec<u8> {
    let mut rng = Rng::with_seed(u64::from(number) + 1);
    let len = if rng.u8(..4) == 0 { rng.usize(..120_000) } else { rng.usize(..300) };
    (0..len).map(|_| rng.u8(..)).collect()
}

impl Client {
    pub(crate) fn new(number: u32, rng: &mut Rng, is_http: bool) -> Self {
        let len = if rng.u8(..3) == 0 { rng.usize(4..150_000) } else { rng.usize(4..400) };
        let payload: Vec<u8> = number.to_le_bytes().into_iter().chain((4..len).map(|_| rng.u8(..))).collect();
        Client {
            number,
            cut_at: (!is_http && rng.u8(..6) == 0).then(|| rng.usize(0..payload.len())),
            payload,
            sent: 0,
            left: rng.u32(1..8),
            is_http,
            asked: Vec::new(),
            got: Vec::new(),
            to_worker: Vec::new(),
            has_ended: false,
            has_reset: false,
            saw: Saw::Nothing,
        }
    }

    /// Go on for a while.
    pub(crate) fn run(&mut self, rng: &mut Rng, generation: usize) {
        if self.has_ended || self.has_reset || self.saw != Saw::Nothing {
            // Who hears that nothing more comes has no more to say.
            self.has_ended |= self.saw == Saw::End;
            return;
        }
        match self.is_http {
            true => self.ask(rng, generation),
            false => self.send(rng),
        }
    }

    fn send(&mut self, rng: &mut Rng) {
        let end = self.cut_at.unwrap_or(self.payload.len());
        let next = (self.sent + rng.usize(1..40_000)).min(end);
        self.to_worker.extend_from_slice(&self.payload[self.sent..next]);
        self.sent = next;
        (self.has_ended, self.has_reset) = match (next == end, self.cut_at) {
            (true, None) => (true, false),
            (true, Some(_)) => (false, true),
            (false, _) => (false, false),
        };
    }

    fn ask(&mut self, rng: &mut Rng, generation: usize) {
        if self.asked.last().is_some_and(|asked| asked.answered.is_none()) {
            return self.read();
        }
        if self.left == 0 {
            self.has_ended = true;
        } else if rng.u8(..3) > 0 {
            self.left -= 1;
            let number = self.number * 100 + self.left;
            self.asked.push(Asked { number, generation, answered: None });
            self.to_worker.extend_from_slice(format!("GET /{number} HTTP/1.1\r\nHost: echo.test\r\n\r\n").as_bytes());
        }
    }

    /// Whether all of an answer is there, and whether it is the right one.
    fn read(&mut self) {
        let Some(len) = self.got.windows(4).position(|four| four == b"\r\n\r\n") else { return };
        let head = String::from_utf8_lossy(&self.got[..len]).into_owned();
        let status: u16 = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let rest = &self.got[len + 4..];
        let (found, used) = match field("Content-Length:") {
            Some(length) => {
                let length: usize = length.parse().expect("a length");
                if rest.len() < length {
                    return;
                }
                (rest[..length].to_vec(), length)
            }
            None => {
                let Some(found) = chunks(rest) else { return };
                found
            }
        };
        let asked = self.asked.last_mut().expect("it asked");
        asked.answered = Some(status);
        assert!(status != 200 || found == body(asked.number), "request {} got another body", asked.number);
        self.got.drain(..len + 4 + used);
        if field("Connection:") == Some("close") {
            self.has_ended = true;
        }
    }

    /// What is wrong with what it got, if its bytes were to come back.
    pub(crate) fn complaint(&self, is_whole: bool) -> Option<String> {
        let is_begin = self.payload.starts_with(&self.got);
        let is_all = self.got.len() == self.payload.len();
        (!is_begin || (is_whole && !is_all))
            .then(|| format!("it got {} of {} bytes, the right ones: {is_begin}", self.got.len(), self.payload.len()))
    }

    pub(crate) fn goes(&self) -> bool {
        self.cut_at.is_some()
    }
}

/// A body in chunks and the bytes that it took, once it is whole.
fn chunks(mut rest: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (all, mut body) = (rest.len(), Vec::new());
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?, 16).expect("a chunk's size");
        rest = &rest[line + 2..];
        let piece = rest.get(..size + 2)?;
        body.extend_from_slice(&piece[..size]);
        rest = &rest[size + 2..];
        if size == 0 {
            return Some((body, all - rest.len()));
        }
    }
}
