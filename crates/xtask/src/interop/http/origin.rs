//! A backend of this process that reads as strictly as may be, and does what a path asks for. It says what it saw, so that
//! a client can tell whether that is what it sent. What no request of it may be, it writes down.

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kakei_sim::smuggling::{Seen, read_head};
use serde_json::json;

use super::super::net::serve;

/// It lasts as long as the process: its threads wait for clients and cost nothing.
#[derive(Clone)]
pub(in super::super) struct Origin {
    pub(in super::super) address: SocketAddr,
    notes: Arc<Notes>,
}

#[derive(Default)]
struct Notes {
    connections: AtomicUsize,
    requests: AtomicUsize,
    wrong: Mutex<Vec<String>>,
}

impl Origin {
    pub(in super::super) fn start() -> Result<Origin, String> {
        let notes: Arc<Notes> = Arc::default();
        let shared = Arc::clone(&notes);
        let address = serve(move |stream| {
            shared.connections.fetch_add(1, Ordering::Relaxed);
            // A peer that is gone has nothing to be told.
            if let Err(Some(wrong)) = converse(stream, &shared) {
                shared.wrong.lock().expect("nobody panics with it").push(wrong);
            }
        })?;
        Ok(Origin { address, notes })
    }

    /// How many connections it was asked on, and how many requests it saw.
    pub(in super::super) fn counts(&self) -> (usize, usize) {
        (self.notes.connections.load(Ordering::Relaxed), self.notes.requests.load(Ordering::Relaxed))
    }

    /// An error where it was sent what no proxy may send.
    pub(in super::super) fn is_content(&self) -> Result<(), String> {
        let wrong = self.notes.wrong.lock().expect("nobody panics with it");
        match wrong.first() {
            None => Ok(()),
            Some(first) => Err(format!("the backend could not read {} requests: {first}", wrong.len())),
        }
    }
}

/// What it can't read, or nothing: the peer is gone.
type Stop = Option<String>;

fn converse(stream: TcpStream, notes: &Notes) -> Result<(), Stop> {
    let mut writer = stream.try_clone().map_err(|_| None)?;
    let mut reader = BufReader::new(stream);
    while let Some(head) = read_head(&mut reader).map_err(Some)? {
        if head.field("expect").is_some() {
            say(&mut writer, "HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let Some(seen) = head.read_body(&mut reader).map_err(Some)? else { return Ok(()) };
        notes.requests.fetch_add(1, Ordering::Relaxed);
        let target = seen.line.split(' ').nth(1).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        if seen.line.starts_with("CONNECT ") {
            // It is the other end of the tunnel too.
            say(&mut writer, "HTTP/1.1 200 OK\r\n\r\n")?;
            continue;
        }
        if path == "/switch" {
            return switch(writer, reader);
        }
        answer(&mut writer, &seen, path)?;
        if path.starts_with("/until-close/") {
            return Ok(());
        }
    }
    Ok(())
}

fn say(writer: &mut TcpStream, text: &str) -> Result<(), Stop> {
    writer.write_all(text.as_bytes()).map_err(|_| None)
}

/// Become an echo.
fn switch(mut writer: TcpStream, mut reader: BufReader<TcpStream>) -> Result<(), Stop> {
    say(&mut writer, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")?;
    std::io::copy(&mut reader, &mut writer).map_err(|_| None)?;
    Ok(())
}

fn answer(writer: &mut TcpStream, seen: &Seen, path: &str) -> Result<(), Stop> {
    let number = path.rsplit('/').next().and_then(|last| last.parse().ok()).unwrap_or(0);
    match path.split('/').nth(1).unwrap_or_default() {
        "chunks" => {
            say(writer, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            for piece in pattern(number).chunks(1_000) {
                let head = format!("{:x}\r\n", piece.len());
                let whole = [head.as_bytes(), piece, b"\r\n"].concat();
                writer.write_all(&whole).map_err(|_| None)?;
            }
            say(writer, "0\r\n\r\n")
        }
        "until-close" => {
            say(writer, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            writer.write_all(&pattern(number)).map_err(|_| None)
        }
        "trailers" => say(
            writer,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n",
        ),
        "early" => say(
            writer,
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        "nothing" => say(writer, "HTTP/1.1 204 No Content\r\n\r\n"),
        "etag" if seen.field("if-none-match") == Some("\"7\"") => {
            say(writer, "HTTP/1.1 304 Not Modified\r\nETag: \"7\"\r\n\r\n")
        }
        _ => {
            let text = what_it_saw(seen);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nETag: \"7\"\r\nContent-Length: {}\r\n\r\n",
                text.len()
            );
            let is_head = seen.line.starts_with("HEAD ");
            say(writer, &format!("{head}{}", if is_head { "" } else { &text }))
        }
    }
}

fn what_it_saw(seen: &Seen) -> String {
    let fields: Vec<String> = seen.fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    json!({ "line": seen.line, "fields": fields, "length": seen.body.len(), "sum": sum(&seen.body) }).to_string()
}

/// Bytes that tell where they stand.
pub(in super::super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ (at >> 10) as u8).collect()
}

/// A number that other bytes, or the same in another order, hardly have (FNV-1a).
pub(in super::super) fn sum(bytes: &[u8]) -> String {
    let sum = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{sum:016x}")
}
