//! Bodies that are far larger than any memory, up and down, with a length and in chunks: each byte counted and looked at,
//! and the proxy no larger than before.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::super::Setting;
use super::super::kakei::Kakei;
use super::super::net::{connect, four, serve};
use super::super::process::{free_port, rss};
use super::document;

const GIB: u64 = 1 << 30;
/// How much the proxy's memory may grow: a few reads of each worker, whatever passes through.
const MORE: u64 = 8 << 20;
/// One write of a generator; a chunk where the body is in chunks. It tells its place in the body by nothing but its begin.
const PIECE: usize = 256 << 10;

/// How a body says its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Sized,
    Chunked,
}

pub(in super::super) fn bodies(setting: &Setting) -> Result<String, String> {
    let (backend, front) = (serve(backend)?, free_port()?);
    let kakei = Kakei::start(&setting.binary, &setting.folder, &document(front, &backend.to_string(), ""))?;
    // What it needs for any body at all it has then.
    up(front, 1 << 20, Framing::Sized)?;
    down(front, 1 << 20, Framing::Chunked)?;
    let watch = Watch::start(kakei.pid())?;
    let (large, small) = (setting.gib * GIB, setting.gib.div_ceil(5) * GIB);
    let mut said = Vec::new();
    for (length, framing) in [(large, Framing::Sized), (small, Framing::Chunked)] {
        for (name, way) in [("up", up as fn(u16, u64, Framing) -> Result<(), String>), ("down", down)] {
            let begun = Instant::now();
            way(front, length, framing).map_err(|why| format!("{} GiB {name}, {framing:?}: {why}", length / GIB))?;
            let rate = length as f64 / begun.elapsed().as_secs_f64() / GIB as f64;
            said.push(format!("{} GiB {name} ({framing:?}) at {rate:.1} GiB/s", length / GIB));
        }
    }
    let (before, most) = watch.stop()?;
    if most > before + MORE {
        return Err(format!("the proxy grew from {} to {} KiB", before >> 10, most >> 10));
    }
    kakei.stop()?;
    Ok(format!("{}; resident memory from {} to {} KiB at most", said.join(", "), before >> 10, most >> 10))
}

/// A piece of every body.
fn piece() -> Vec<u8> {
    (0..PIECE).map(|at| (at % 253) as u8 ^ (at >> 9) as u8).collect()
}

/// Whether these are the bytes that follow `at` bytes of a body.
fn follows(mut bytes: &[u8], mut at: u64, piece: &[u8]) -> bool {
    while !bytes.is_empty() {
        let from = (at % PIECE as u64) as usize;
        let len = bytes.len().min(PIECE - from);
        if bytes[..len] != piece[from..from + len] {
            return false;
        }
        bytes = &bytes[len..];
        at += len as u64;
    }
    true
}

/// Write a body.
fn write_body(stream: &mut TcpStream, length: u64, framing: Framing) -> std::io::Result<()> {
    let piece = piece();
    let mut left = length;
    let (head, tail) = (format!("{PIECE:x}\r\n"), b"\r\n");
    let chunk = [head.as_bytes(), &piece, tail].concat();
    while left > 0 {
        debug_assert!(left >= PIECE as u64, "lengths are whole pieces");
        stream.write_all(if framing == Framing::Sized { &piece } else { &chunk })?;
        left -= PIECE as u64;
    }
    match framing {
        Framing::Sized => Ok(()),
        Framing::Chunked => stream.write_all(b"0\r\n\r\n"),
    }
}

/// Read a message's head, then its body; how long that was. Every byte is looked at.
fn read_message(reader: &mut BufReader<TcpStream>) -> Result<(String, u64), String> {
    let say = |error: std::io::Error| format!("a message: {error}");
    let (mut head, mut line) = (String::new(), String::new());
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line).map_err(say)? == 0 {
            return Err("no message".to_owned());
        }
        head.push_str(&line);
    }
    let piece = piece();
    let lower = head.to_ascii_lowercase();
    let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next()?.parse::<u64>().ok());
    if let Some(length) = length {
        return read_bytes(reader, length, 0, &piece).map(|()| (head, length));
    }
    let mut at = 0;
    while lower.contains("transfer-encoding: chunked") {
        line.clear();
        reader.read_line(&mut line).map_err(say)?;
        let size = u64::from_str_radix(line.trim_end(), 16).map_err(|_| format!("a size of {line:?}"))?;
        read_bytes(reader, size, at, &piece)?;
        at += size;
        line.clear();
        reader.read_line(&mut line).map_err(say)?;
        if size == 0 {
            break;
        }
    }
    Ok((head, at))
}

fn read_bytes(reader: &mut BufReader<TcpStream>, length: u64, begin: u64, piece: &[u8]) -> Result<(), String> {
    let mut at = 0;
    while at < length {
        let there = reader.fill_buf().map_err(|error| format!("after {} bytes: {error}", begin + at))?;
        let len = there.len().min(usize::try_from(length - at).unwrap_or(usize::MAX));
        if len == 0 {
            return Err(format!("an end after {} bytes", begin + at));
        }
        if !follows(&there[..len], begin + at, piece) {
            return Err(format!("other bytes after {}", begin + at));
        }
        reader.consume(len);
        at += len as u64;
    }
    Ok(())
}

/// A backend that counts what is sent up, and sends down what the path asks for.
fn backend(stream: TcpStream) {
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::with_capacity(PIECE, stream);
    // A message that is wrong ends the connection, and the client says what it missed.
    while let Ok((head, length)) = read_message(&mut reader) {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let mut parts = path.split('/').skip(1);
        let (kind, wanted) = (parts.next(), parts.next().and_then(|n| n.parse().ok()).unwrap_or(0));
        let sent = match kind {
            Some("sized") => write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {wanted}\r\n\r\n")
                .and_then(|()| write_body(&mut writer, wanted, Framing::Sized)),
            Some("chunked") => write!(writer, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                .and_then(|()| write_body(&mut writer, wanted, Framing::Chunked)),
            _ => {
                let text = length.to_string();
                write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

fn up(front: u16, length: u64, framing: Framing) -> Result<(), String> {
    let mut stream = connect(four(front))?;
    let says = match framing {
        Framing::Sized => format!("Content-Length: {length}"),
        Framing::Chunked => "Transfer-Encoding: chunked".to_owned(),
    };
    write!(stream, "PUT /up HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{says}\r\n\r\n")
        .and_then(|()| write_body(&mut stream, length, framing))
        .map_err(|error| format!("a body: {error}"))?;
    let mut said = String::new();
    stream.read_to_string(&mut said).map_err(|error| format!("its answer: {error}"))?;
    match said.starts_with("HTTP/1.1 200") && said.ends_with(&format!("\r\n\r\n{length}")) {
        true => Ok(()),
        false => Err(format!("it was answered by {said:?}")),
    }
}

fn down(front: u16, length: u64, framing: Framing) -> Result<(), String> {
    let mut stream = connect(four(front))?;
    let path = if framing == Framing::Sized { "sized" } else { "chunked" };
    write!(stream, "GET /{path}/{length} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .map_err(|error| format!("a request: {error}"))?;
    let (head, came) = read_message(&mut BufReader::with_capacity(PIECE, stream))?;
    match head.starts_with("HTTP/1.1 200") && came == length {
        true => Ok(()),
        false => Err(format!("{came} bytes came behind {head:?}")),
    }
}

/// Looks at a process's memory all the time.
struct Watch {
    over: Arc<AtomicBool>,
    most: Arc<AtomicU64>,
    before: u64,
    thread: JoinHandle<()>,
}

impl Watch {
    fn start(pid: u32) -> Result<Watch, String> {
        let before = rss(pid)?;
        let (over, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(before)));
        let (stop, seen) = (Arc::clone(&over), Arc::clone(&most));
        let thread = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                seen.fetch_max(rss(pid).unwrap_or(0), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(20));
            }
        });
        Ok(Watch { over, most, before, thread })
    }

    /// Resident memory before, and the most that was seen.
    fn stop(self) -> Result<(u64, u64), String> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the watch panicked")?;
        Ok((self.before, self.most.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_found_wherever_it_stands() {
        let piece = piece();
        let bytes = [&piece[PIECE - 10..], &piece[..20]].concat();
        assert!(follows(&bytes, 3 * PIECE as u64 - 10, &piece));
        assert!(!follows(&bytes, 3 * PIECE as u64 - 9, &piece));
        let mut other = bytes.clone();
        other[29] ^= 1;
        assert!(!follows(&other, 3 * PIECE as u64 - 10, &piece));
    }
}
