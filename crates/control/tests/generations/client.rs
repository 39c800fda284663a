//! Clients of all four kinds, and what each saw: datagrams, lines over a stream, requests, and the latter two within TLS.
//! They judge nothing but the bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use fastrand::Rng;
use kakei_config::Protocol;
use kakei_proxy::secure::Anybody;
use rustls::client::{ClientConfig, ClientConnection, Resumption};
use rustls::pki_types::ServerName;

use crate::author::{HOSTS, LISTENERS, PATHS, SECURED, STABLE_PATH, front};

/// Time after which what has no answer has none, in milliseconds. Backends take less.
pub(crate) const PATIENCE: u64 = 4_000;

/// A worker at a moment: how often it was made anew, and which generation it ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) life: u64,
    pub(crate) generation: u64,
}

/// Something that a client saw.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) number: usize,
    pub(crate) dials: SocketAddr,
    /// From when to when.
    pub(crate) from: At,
    pub(crate) until: At,
    /// When it was seen.
    pub(crate) when: u64,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A flow got its first answer, or the first one of another backend than the one before.
    Flow { before: Option<SocketAddr>, backend: SocketAddr },
    /// A datagram was not answered, of a flow to this backend, if it had one.
    Unanswered { backend: Option<SocketAddr> },
    /// A stream was greeted by a backend.
    Greeted { backend: SocketAddr },
    /// A stream ended by itself, or fell silent; greeted by this backend.
    Ended { backend: Option<SocketAddr>, silent: bool },
    /// A request was answered.
    Answered { asked: Asked, answer: Answer },
    /// A request was not.
    Broken { asked: Asked, silent: bool },
    /// A connection ended without a request under way.
    Closed,
    /// Nobody listened.
    Refused,
    /// A certificate was shown.
    Shown { certificate: Vec<u8> },
    /// What can't be.
    Wrong(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) host: &'static str,
    pub(crate) path: &'static str,
    /// Whether it came right behind a handshake, which may have taken its time.
    pub(crate) is_first: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The mark of the route in the answer.
    pub(crate) mark: Option<String>,
    pub(crate) body: String,
    /// It says that the connection ends.
    pub(crate) closes: bool,
}

/// A datagram on its way: when it was sent, or arrived, and what it met then.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: u64,
    arrived: Option<Met>,
}

/// What a datagram met: what its worker ran, and the flow that there was, so far as an answer told of it.
#[derive(Clone, Copy, Debug)]
struct Met {
    at: At,
    since: Option<At>,
    backend: Option<SocketAddr>,
}

/// A request under way.
#[derive(Clone, Debug)]
struct Request {
    asked: Asked,
    number: u64,
    since: u64,
    from: Option<At>,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    number: usize,
    pub(crate) protocol: Protocol,
    pub(crate) dials: SocketAddr,
    pub(crate) address: SocketAddr,
    tls: Option<Box<ClientConnection>>,
    rng: Rng,
    /// When it acts next, and ends.
    next: u64,
    pub(crate) ends: u64,
    asked: u64,
    /// Datagrams and lines without an answer so far.
    waiting: BTreeMap<u64, Sent>,
    /// Those that were given up.
    lost: BTreeSet<u64>,
    /// What ran when the first datagram arrived that came since the last answer: it may have opened the flow.
    opened: Option<At>,
    /// The backend of its flow or stream, and since when.
    backend: Option<SocketAddr>,
    since: Option<At>,
    request: Option<Request>,
    heard: Vec<u8>,
    /// Bytes on their way to the worker.
    pub(crate) to_worker: Vec<u8>,
    /// Datagrams on their way.
    pub(crate) datagrams: Vec<Vec<u8>>,
    /// It says nothing more.
    pub(crate) is_over: bool,
    /// It is gone.
    pub(crate) is_gone: bool,
    pub(crate) is_connected: bool,
    pub(crate) is_arriving: bool,
    was_shown: bool,
    may_close: bool,
    pub(crate) seen: Vec<Seen>,
}

impl Client {
    pub(crate) fn new(id: u32, mut rng: Rng, now: u64) -> Self {
        let number = rng.usize(0..LISTENERS.len());
        let (_, protocol, is_secured) = LISTENERS[number];
        let moved = number >= 5 && rng.u8(0..3) == 0;
        let tls = is_secured.then(|| {
            let name = ServerName::try_from(SECURED).expect("it is a name");
            Box::new(ClientConnection::new(config(), name).expect("it is a client"))
        });
        let port = 10_000 + (id % 50_000) as u16;
        Client {
            number,
            protocol,
            dials: front(number, moved),
            address: SocketAddr::from(([203, 0, 113, (id % 250) as u8], port)),
            tls,
            next: now,
            ends: now + rng.u64(500..9_000),
            rng,
            asked: 0,
            waiting: BTreeMap::new(),
            lost: BTreeSet::new(),
            opened: None,
            backend: None,
            since: None,
            request: None,
            heard: Vec::new(),
            to_worker: Vec::new(),
            datagrams: Vec::new(),
            is_over: false,
            is_gone: false,
            is_connected: false,
            is_arriving: false,
            was_shown: false,
            may_close: false,
            seen: Vec::new(),
        }
    }

    pub(crate) fn is_datagrams(&self) -> bool {
        self.protocol == Protocol::Udp
    }

    fn see(&mut self, from: At, until: At, what: What) {
        let (number, dials) = (self.number, self.dials);
        self.seen.push(Seen { number, dials, from, until, when: 0, what });
    }

    /// Nobody listens where it wants to connect.
    pub(crate) fn refused(&mut self, at: At) {
        self.is_gone = true;
        self.see(at, at, What::Refused);
    }

    /// It was accepted by a worker that ran this.
    pub(crate) fn accepted(&mut self, at: At) {
        self.since = Some(at);
        self.is_connected = true;
    }

    /// What it sent reached a worker that ran this.
    pub(crate) fn arrived(&mut self, at: At) {
        if let Some(request) = &mut self.request {
            request.from.get_or_insert(at);
        }
    }

    pub(crate) fn datagram_arrived(&mut self, now: u64, bytes: &[u8], at: At) {
        let number: u64 = String::from_utf8_lossy(bytes).parse().unwrap_or(0);
        let alive = |of: Option<At>| of.filter(|of| of.life == at.life);
        self.opened = Some(alive(self.opened).unwrap_or(at));
        let since = alive(self.since);
        let backend = self.backend.filter(|_| since.is_some());
        if let Some(sent) = self.waiting.get_mut(&number) {
            // It may have waited in front of a worker: the time in which it is to be answered begins.
            (sent.at, sent.arrived) = (now, Some(Met { at, since: since.or(self.opened), backend }));
        }
    }

    /// Let it do what it does at this time.
    pub(crate) fn act(&mut self, now: u64, at: At) {
        self.lose_patience(now, at);
        if self.is_gone || now < self.next {
            return self.flush();
        }
        let is_due = now >= self.ends;
        match self.protocol {
            Protocol::Udp if is_due => self.is_gone = self.waiting.is_empty(),
            Protocol::Udp => {
                self.asked += 1;
                self.waiting.insert(self.asked, Sent { at: now, arrived: None });
                self.datagrams.push(self.asked.to_string().into_bytes());
            }
            _ if !self.is_connected || self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) => {}
            Protocol::Tcp if is_due && self.waiting.is_empty() => self.end(),
            Protocol::Tcp if self.backend.is_some() => {
                self.asked += 1;
                self.waiting.insert(self.asked, Sent { at: now, arrived: None });
                self.say(format!("{}\n", self.asked).as_bytes());
            }
            Protocol::Http if self.request.is_none() => match is_due {
                true => self.end(),
                false => self.ask(now),
            },
            Protocol::Tcp | Protocol::Http => {}
        }
        self.next = now + self.rng.u64(20..300);
        self.flush();
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.is_over, true)
            && let Some(tls) = &mut self.tls
        {
            tls.send_close_notify();
        }
    }

    fn ask(&mut self, now: u64) {
        self.asked += 1;
        // The stable host belongs to the first ones.
        let stable = self.number < 5 && self.rng.bool();
        let mut host = HOSTS[if stable { 0 } else { self.rng.usize(1..HOSTS.len()) }];
        let mut path = PATHS[self.rng.usize(0..PATHS.len())];
        if self.tls.is_some() {
            host = SECURED;
            path = if stable { STABLE_PATH } else { path };
        }
        let delay = if self.rng.u8(0..6) == 0 { self.rng.u64(200..2_500) } else { self.rng.u64(0..60) };
        let is_first = self.tls.is_some() && self.asked == 1;
        let number = self.asked;
        let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nx-number: {number}\r\nx-delay: {delay}\r\n\r\n");
        self.request = Some(Request { asked: Asked { host, path, is_first }, number, since: now, from: None });
        self.say(head.as_bytes());
    }

    fn say(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(bytes).expect("it takes them"),
            None => self.to_worker.extend_from_slice(bytes),
        }
    }

    fn flush(&mut self) {
        let Some(tls) = &mut self.tls else { return };
        while self.is_connected && tls.wants_write() {
            tls.write_tls(&mut self.to_worker).expect("memory takes it");
        }
    }

    fn lose_patience(&mut self, now: u64, at: At) {
        let late = |sent: &Sent| now > sent.at + PATIENCE;
        if self.is_datagrams() {
            let lost: Vec<u64> = self.waiting.iter().filter(|(_, sent)| late(sent)).map(|(n, _)| *n).collect();
            for number in lost {
                self.lost.insert(number);
                // Where nobody listened nothing is said of it.
                let Some(Sent { arrived: Some(met), .. }) = self.waiting.remove(&number) else { continue };
                self.see(met.since.unwrap_or(met.at), at, What::Unanswered { backend: met.backend });
            }
            return;
        }
        if self.waiting.values().any(late) {
            let what = What::Ended { backend: self.backend, silent: true };
            self.see(self.since.unwrap_or(at), at, what);
            self.is_gone = true;
        }
        if let Some(request) = self.request.take_if(|request| now > request.since + 2 * PATIENCE) {
            let what = What::Broken { asked: request.asked, silent: true };
            self.see(request.from.unwrap_or(at), at, what);
            self.is_gone = true;
        }
    }

    /// A datagram came back.
    pub(crate) fn hear_datagram(&mut self, from: SocketAddr, bytes: &[u8], at: At) {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let said = text.split_once(' ').and_then(|(who, n)| Some((who.parse().ok()?, n.parse::<u64>().ok()?)));
        let Some((backend, number)) = said.filter(|_| from == self.dials) else {
            return self.see(at, at, What::Wrong(format!("it got {text:?} from {from}")));
        };
        if self.lost.remove(&number) {
            // It waited in front of a worker for so long.
            return;
        }
        let Some(sent) = self.waiting.remove(&number) else {
            return self.see(
                at,
                at,
                What::Wrong(format!("datagram {number} is answered, which is none of its own, or late")),
            );
        };
        let arrived = sent.arrived.map_or(at, |met| met.at);
        if self.since.is_some_and(|since| since.life != at.life) {
            (self.since, self.backend) = (None, None);
        }
        if self.backend != Some(backend) {
            let before = self.backend.replace(backend);
            let opened = self.opened.filter(|opened| opened.life == at.life).unwrap_or(arrived);
            self.see(self.since.unwrap_or(opened), at, What::Flow { before, backend });
            self.since = Some(opened);
        }
        self.opened = None;
    }

    /// Bytes came.
    pub(crate) fn hear(&mut self, bytes: &[u8], at: At) {
        match &mut self.tls {
            None => self.heard.extend_from_slice(bytes),
            Some(tls) => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let read = tls.read_tls(&mut rest).expect("memory gives it");
                    match tls.process_new_packets() {
                        Ok(state) if read > 0 => {
                            let mut plain = vec![0; state.plaintext_bytes_to_read()];
                            tls.reader().read_exact(&mut plain).expect("it is there");
                            self.heard.extend_from_slice(&plain);
                        }
                        Ok(_) => break,
                        Err(_) => return self.hear_end(true, at),
                    }
                }
                let shown = tls.peer_certificates().and_then(|chain| Some(chain.first()?.as_ref().to_vec()));
                if let Some(certificate) = shown.filter(|_| !self.was_shown) {
                    self.was_shown = true;
                    self.see(self.since.unwrap_or(at), at, What::Shown { certificate });
                }
            }
        }
        match self.protocol {
            Protocol::Http => self.hear_answers(at),
            _ => self.hear_lines(at),
        }
        self.flush();
    }

    fn hear_lines(&mut self, at: At) {
        while let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.heard.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]).into_owned();
            let first = self.waiting.first_key_value().map(|(number, _)| *number);
            match (line.parse::<u64>().ok(), line.strip_prefix("I am ").and_then(|who| who.parse().ok())) {
                (Some(number), _) if first == Some(number) => drop(self.waiting.remove(&number)),
                (_, Some(backend)) if self.backend.is_none() => {
                    self.backend = Some(backend);
                    self.see(self.since.unwrap_or(at), at, What::Greeted { backend });
                }
                _ => self.see(at, at, What::Wrong(format!("it heard {line:?} and waits for {first:?}"))),
            }
        }
    }

    fn hear_answers(&mut self, at: At) {
        let Some((answer, len)) = parse(&self.heard) else { return };
        self.heard.drain(..len);
        let Some(request) = self.request.take() else {
            return self.see(at, at, What::Wrong(format!("it got {answer:?} and had asked for nothing")));
        };
        let (body, number) = answer.body.split_once('#').unwrap_or((&answer.body, ""));
        if !number.is_empty() && number != request.number.to_string() {
            self.see(at, at, What::Wrong(format!("request {} got the answer {answer:?}", request.number)));
        }
        // What can't be answered as it should may end the connection.
        self.may_close = answer.closes && answer.status >= 500;
        let answer = Answer { body: body.to_owned(), ..answer };
        let what = What::Answered { asked: request.asked, answer };
        self.see(request.from.unwrap_or(at), at, what);
    }

    /// The proxy ended the stream, orderly or not.
    pub(crate) fn hear_end(&mut self, by_reset: bool, at: At) {
        if std::mem::replace(&mut self.is_gone, true) {
            return;
        }
        if !self.is_connected {
            return self.see(at, at, What::Refused);
        }
        let from = self.since.unwrap_or(at);
        match (self.protocol, self.request.take()) {
            (Protocol::Http, Some(request)) => {
                let what = What::Broken { asked: request.asked, silent: false };
                self.see(request.from.unwrap_or(from), at, what);
            }
            (Protocol::Http, None) if !self.is_over && !self.may_close => self.see(from, at, What::Closed),
            (Protocol::Tcp, _) if !self.is_over || by_reset => {
                self.see(from, at, What::Ended { backend: self.backend, silent: false });
            }
            _ => {}
        }
    }
}

/// A whole answer, and how many bytes it takes.
fn parse(bytes: &[u8]) -> Option<(Answer, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let field = |name: &str| {
        let mut lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim().to_owned())
    };
    let len: usize = field("content-length")?.parse().ok()?;
    let body = bytes.get(end..end + len)?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = String::from_utf8_lossy(body).into_owned();
    let closes = field("connection").as_deref() == Some("close");
    Some((Answer { status, mark: field("x-mark"), body, closes }, end + len))
}

fn config() -> Arc<ClientConfig> {
    let provider = Arc::new(kakei_control::certificates::provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).expect("it has the version");
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut config = builder.with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}
