//! Requests at a steady rate over connections that stay, by a route that nobody changes; and single requests that show where
//! a route leads now. Knows no proxy.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::bench::delays::Delays;

/// How many connections there are, and how often each is asked.
const CONNECTIONS: u32 = 8;
const PACE: Duration = Duration::from_millis(8);
/// When a request counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest head of an answer.
const LONGEST: usize = 16 << 10;

/// What clients have seen.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) requests: u64,
    /// Requests without a whole answer.
    pub(super) lost: u64,
    /// Connections that were ended between two requests, or with an answer that said so.
    pub(super) closed: u64,
    /// From the moment at which a request was due to its answer's last byte.
    pub(super) delays: Delays,
}

impl Seen {
    fn join(mut self, other: Seen) -> Seen {
        self.requests += other.requests;
        self.lost += other.lost;
        self.closed += other.closed;
        self.delays.join(&other.delays);
        self
    }
}

/// Clients at work.
pub(super) struct Traffic {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Seen>>,
}

impl Traffic {
    /// Have clients ask `front` for `host` from now on.
    pub(super) fn start(front: SocketAddrV4, host: &str) -> Traffic {
        let stop = Arc::new(AtomicBool::new(false));
        let first = Instant::now() + PACE;
        let client = |n: u32| {
            let (stop, host, due) = (Arc::clone(&stop), host.to_owned(), first + PACE / CONNECTIONS * n);
            thread::spawn(move || Client::new(front, &host).ask(due, &stop))
        };
        let clients = (0..CONNECTIONS).map(client).collect();
        Traffic { stop, clients }
    }

    /// Stop; what they have seen.
    pub(super) fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.clients.into_iter().map(|client| client.join().unwrap_or_default());
        seen.fold(Seen::default(), Seen::join)
    }
}

struct Client {
    front: SocketAddrV4,
    request: Vec<u8>,
    connection: Option<TcpStream>,
    seen: Seen,
}

impl Client {
    fn new(front: SocketAddrV4, host: &str) -> Client {
        Client { front, request: request(host, ""), connection: None, seen: Seen::default() }
    }

    /// Ask each time that it is due, until told to stop.
    fn ask(mut self, mut due: Instant, stop: &AtomicBool) -> Seen {
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            self.seen.requests += 1;
            match self.once() {
                Ok(answer) => {
                    self.seen.delays.add(due.elapsed().as_nanos() as u64);
                    if answer.closes {
                        self.seen.closed += 1;
                        self.connection = None;
                    }
                }
                Err(_) => {
                    self.seen.lost += 1;
                    self.connection = None;
                }
            }
            due += PACE;
        }
        self.seen
    }

    fn once(&mut self) -> std::io::Result<Answer> {
        if self.connection.as_ref().is_some_and(has_ended) {
            self.seen.closed += 1;
            self.connection = None;
        }
        if self.connection.is_none() {
            self.connection = Some(connect(self.front)?);
        }
        let Some(connection) = &mut self.connection else { return Err(ErrorKind::NotConnected.into()) };
        connection.write_all(&self.request)?;
        Answer::read(connection)
    }
}

/// Which letter answers for `host` on a connection of its own.
pub(super) fn letter(front: SocketAddrV4, host: &str) -> std::io::Result<u8> {
    let mut connection = connect(front)?;
    connection.write_all(&request(host, "Connection: close\r\n"))?;
    Ok(Answer::read(&mut connection)?.letter)
}

fn request(host: &str, fields: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n").into_bytes()
}

fn connect(front: SocketAddrV4) -> std::io::Result<TcpStream> {
    let connection = TcpStream::connect(front)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    Ok(connection)
}

/// Whether the other side has ended a connection on which nothing is under way.
fn has_ended(connection: &TcpStream) -> bool {
    let peeked = connection.set_nonblocking(true).and_then(|()| connection.peek(&mut [0]));
    let waits = peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    connection.set_nonblocking(false).is_err() || !waits
}

/// A whole answer of an origin.
struct Answer {
    letter: u8,
    /// Whether the connection ends with it.
    closes: bool,
}

impl Answer {
    fn read(connection: &mut TcpStream) -> std::io::Result<Answer> {
        let (mut bytes, mut part) = (Vec::new(), [0; 2048]);
        loop {
            let n = connection.read(&mut part)?;
            bytes.extend_from_slice(&part[..n]);
            if let Some(answer) = Answer::of(&bytes)? {
                return Ok(answer);
            }
            if n == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The answer, once it is whole; an error where it is none of an origin's.
    fn of(bytes: &[u8]) -> std::io::Result<Option<Answer>> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return if bytes.len() > LONGEST { Err(ErrorKind::InvalidData.into()) } else { Ok(None) };
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") || !head.contains("\r\ncontent-length: 1") {
            return Err(ErrorKind::InvalidData.into());
        }
        let closes = head.contains("\r\nconnection: close");
        Ok(bytes.get(end + 4).map(|&letter| Answer { letter, closes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::reconfigure::origin;

    #[test]
    fn an_origin_answers_by_its_letter_on_connections_that_stay() {
        let [a, b] = origin::start().unwrap();
        assert_eq!((letter(a, "x").unwrap(), letter(b, "x").unwrap()), (b'A', b'B'));
        let traffic = Traffic::start(a, "x");
        thread::sleep(Duration::from_millis(60));
        let seen = traffic.end();
        assert!(seen.requests > 8 && (seen.lost, seen.closed) == (0, 0), "{} {}", seen.requests, seen.lost);
    }

    #[test]
    fn an_answer_is_whole_with_its_letter_only() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nB";
        for cut in 0..text.len() {
            assert!(Answer::of(&text[..cut]).unwrap().is_none(), "{cut}");
        }
        let answer = Answer::of(text).unwrap().unwrap();
        assert!(answer.letter == b'B' && answer.closes);
        assert!(Answer::of(b"HTTP/1.1 503 No\r\n\r\n").is_err());
    }
}
