//! The requests of `kakei demo`: HTTP backends that say who they are, and a client that asks without pause on one
//! connection through the whole show. Balances nothing itself.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The client's rest between two requests, and when it gives one up.
const PACE: Duration = Duration::from_millis(4);
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest head that either side reads.
const HEAD: u64 = 64 << 10;

/// A server that answers each request by its name and what was asked for. Lives as long as the process.
pub(crate) fn backend(name: &'static str) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::Builder::new().name(format!("backend-{name}")).spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away ends its thread, and nobody else's.
            let _ = thread::Builder::new().name(name.to_owned()).spawn(move || answer_all(name, stream));
        }
    })?;
    Ok(address)
}

fn answer_all(name: &str, stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while let Some((line, length)) = read_head(&mut reader)? {
        io::copy(&mut reader.by_ref().take(length), &mut io::sink())?;
        let mut words = line.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let body = format!("{name}: {method} {target}\n");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
        let body = if method == "HEAD" { "" } else { &body };
        writer.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice())?;
    }
    Ok(())
}

/// The first line of a message and the length of its body; none: there is no further one.
fn read_head(reader: &mut BufReader<TcpStream>) -> io::Result<Option<(String, u64)>> {
    let (mut first, mut length) = (String::new(), 0);
    let mut head = reader.take(HEAD);
    if head.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    loop {
        let mut line = String::new();
        head.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            Some(_) => {}
            None => return Ok(Some((first.trim_end().to_owned(), length))),
        }
    }
}

/// What the client saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) answered: u64,
    pub(crate) lost: u64,
}

/// A client that asks.
pub(crate) struct Visitor {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Visitor {
    /// Ask again and again until [`Visitor::end`].
    pub(crate) fn start(front: SocketAddr) -> io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let body = move || {
            let (mut seen, mut connection) = (Seen::default(), None);
            while !is_over.load(Ordering::Relaxed) {
                let number = seen.answered + seen.lost;
                match connection.take().map_or_else(|| connect(front), Ok).and_then(|reader| ask(reader, number)) {
                    Ok(reader) => {
                        seen.answered += 1;
                        connection = Some(reader);
                    }
                    Err(_) => seen.lost += 1,
                }
                thread::sleep(PACE);
            }
            seen
        };
        Ok(Visitor { over, thread: thread::Builder::new().name("visitor".into()).spawn(body)? })
    }

    /// What it saw.
    pub(crate) fn end(self) -> io::Result<Seen> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| io::Error::other("the client's thread ended badly"))
    }
}

fn connect(front: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(front)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(BufReader::new(stream))
}

/// Ask, and hold the answer against what was asked.
fn ask(mut reader: BufReader<TcpStream>, number: u64) -> io::Result<BufReader<TcpStream>> {
    let request = format!("GET /page/{number} HTTP/1.1\r\nHost: demo\r\n\r\n");
    reader.get_mut().write_all(request.as_bytes())?;
    let (line, length) = read_head(&mut reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut body = String::new();
    reader.by_ref().take(length).read_to_string(&mut body)?;
    match line.starts_with("HTTP/1.1 200 ") && body.ends_with(&format!(": GET /page/{number}\n")) {
        true => Ok(reader),
        false => Err(io::Error::other(format!("{line} {body}"))),
    }
}
