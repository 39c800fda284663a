//! Clients that send rubbish, too much or too slowly: each gets its status and the end of its connection, in its time and
//! at a bounded cost of memory, while a neighbour's requests go on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::super::Setting;
use super::super::kakei::Kakei;
use super::super::net::{connect, four};
use super::super::process::{free_port, rss, wait_for};
use super::origin::Origin;
use super::{Client, document};

const HEAD_TIMEOUT: Duration = Duration::from_millis(900);
const BODY_TIMEOUT: Duration = Duration::from_millis(700);
/// How much later an end may be seen.
const LATE: Duration = Duration::from_millis(700);
/// The largest head that is let in.
const MAX_HEAD: u64 = 32 << 10;
/// Clients that all send as much of a head as they can.
const BOMBS: usize = 400;
/// What a client may cost beside its head: what the proxy knows of it, and what allocators leave unused.
const BESIDE: u64 = 8 << 10;

/// A malformed message, and what answers it.
struct Bad {
    what: &'static str,
    bytes: Vec<u8>,
    status: u16,
    reason: &'static str,
}

fn bad(what: &'static str, text: impl AsRef<[u8]>, status: u16) -> Bad {
    let reason = match status {
        413 | 414 | 431 => "too_large",
        405 => "not_allowed",
        _ => "bad_request",
    };
    Bad { what, bytes: text.as_ref().to_vec(), status, reason }
}

/// A request with these fields beside `Host`.
fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

/// A row or more for each line of the table in docs/HTTP.md, "What is accepted".
fn all() -> Vec<Bad> {
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    vec![
        bad("no HTTP at all", "\x16\x03\x01\x02\x00\r\n\r\n", 400),
        bad("LF alone", "GET / HTTP/1.1\nHost: a\n\n", 400),
        bad("a folded field", post("X: y\r\n z\r\n", ""), 400),
        bad("a blank before a colon", post("X : y\r\n", ""), 400),
        bad("NUL in a field", post("X: \0\r\n", ""), 400),
        bad("a malformed first line", "GET /\r\nHost: a\r\n\r\n", 400),
        bad("a malformed method", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        bad("a malformed target", "GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        bad("an escape that isn't one", "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        bad("no Host", "GET / HTTP/1.1\r\nX: y\r\n\r\n", 400),
        bad("Host twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        bad("a Host that is none", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        bad("two lengths", post("Content-Length: 1\r\nContent-Length: 1\r\n", "x"), 400),
        bad("a length that is none", post("Content-Length: +1\r\n", "x"), 400),
        bad("a length and a coding", post("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        bad("two codings", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        bad("a coding of HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        bad("an unknown coding", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 501),
        bad("a chunk's size that is none", chunked("zz\r\nhello\r\n0\r\n\r\n"), 400),
        bad("a chunk's size of 16 digits", chunked("0000000000000001\r\nx\r\n0\r\n\r\n"), 400),
        bad("LF behind a chunk's size", chunked("5\nhello\r\n0\r\n\r\n"), 400),
        bad("much of extensions", chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(5_000))), 400),
        bad("much of trailers", chunked(&format!("0\r\nX: {}\r\n\r\n", "x".repeat(9_000))), 400),
        bad("trailers that are no fields", chunked("0\r\nGET /x HTTP/1.1\r\n\r\n"), 400),
        bad("an unknown expectation", post("Expect: tea\r\n", ""), 417),
        bad("a long first line", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9_000)), 414),
        bad("a long head", post(&format!("X: {}\r\n", "x".repeat(33_000)), ""), 431),
        bad("many fields", post(&"X: y\r\n".repeat(101), ""), 431),
        bad("a long body", post("Content-Length: 1000001\r\n", ""), 413),
        bad("a long body in chunks", chunked(&format!("f4241\r\n{}", "x".repeat(1_000_001))), 413),
        bad("another version", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        bad("HTTP/2 with prior knowledge", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        bad("CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
    ]
}

pub(in super::super) fn bounded(setting: &Setting) -> Result<String, String> {
    let (origin, front) = (Origin::start()?, free_port()?);
    let limits = format!(
        "[listeners.web.http]\nmax_body = \"1000000B\"\nmax_head = \"{MAX_HEAD}B\"\nhead_timeout = \"{}ms\"\nbody_timeout = \
         \"{}ms\"\n",
        HEAD_TIMEOUT.as_millis(),
        BODY_TIMEOUT.as_millis()
    );
    let words = document(front, &origin.address.to_string(), &limits);
    let kakei = Kakei::start(&setting.binary, &setting.folder, &words)?;
    let over = Arc::new(AtomicBool::new(false));
    let neighbour = {
        let (client, over) = (Client::to(front)?, Arc::clone(&over));
        thread::spawn(move || unharmed(client, &over))
    };
    let kinds = all();
    for bad in &kinds {
        suffer(&kakei, front, bad).map_err(|why| format!("{}: {why}", bad.what))?;
    }
    let slow = slowly(&kakei, front)?;
    let cost = bombs(&kakei, front)?;
    over.store(true, Ordering::Relaxed);
    let (turns, worst) = neighbour.join().map_err(|_| "the neighbour panicked")??;
    origin.is_content()?;
    wait_for("the last connection's end", Duration::from_secs(5), || {
        kakei.metric("kakei_connections_live", "").is_ok_and(|live| live == 0)
    })?;
    kakei.stop()?;
    Ok(format!(
        "{} kinds of bad message got their status and an end; {slow}; {BOMBS} endless heads cost {} KiB, {} a client; a \
         neighbour had {turns} answers, the slowest after {} ms",
        kinds.len(),
        cost >> 10,
        cost / BOMBS as u64,
        worst.as_millis()
    ))
}

/// Send it: its status comes, the connection ends, and the reason is counted.
fn suffer(kakei: &Kakei, front: u16, bad: &Bad) -> Result<(), String> {
    let label = format!("reason=\"{}\"", bad.reason);
    let before = kakei.metric("kakei_requests_ended", &label)?;
    let mut client = Client::to(front)?;
    // Who is refused may not get to say all.
    let _ = client.send(&bad.bytes);
    let answer = client.answer("POST")?;
    if answer.status != bad.status {
        return Err(format!("{} in the place of {}", answer.status, bad.status));
    }
    if !answer.field("connection").is_some_and(|option| option.eq_ignore_ascii_case("close")) {
        return Err(format!("no announcement of the end in {:?}", answer.head));
    }
    client.ends(Duration::from_secs(4))?;
    wait_for(&format!("one more ended as {}", bad.reason), Duration::from_secs(2), || {
        kakei.metric("kakei_requests_ended", &label).is_ok_and(|now| now == before + 1)
    })
}

/// Heads and bodies that come too slowly, and clients that say nothing.
fn slowly(kakei: &Kakei, front: u16) -> Result<String, String> {
    let head = drip(front, "", "GET / HTTP/1.1\r\nHost: a\r\nX: abcdefghijklmnopqrstuvwxyz", HEAD_TIMEOUT)?;
    // Each piece of a body gives it more time, so the time counts from the last one.
    let body = drip(front, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhello", "", BODY_TIMEOUT)?;
    let chunk =
        drip(front, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "", BODY_TIMEOUT)?;
    for (reason, least) in [("head_timeout", 1), ("body_timeout", 2)] {
        let counted = kakei.metric("kakei_requests_ended", &format!("reason=\"{reason}\""))?;
        if counted < least {
            return Err(format!("{counted} requests ended as {reason}"));
        }
    }
    let (mut silent, begun) = (Client::to(front)?, Instant::now());
    silent.ends(HEAD_TIMEOUT + LATE).map_err(|why| format!("who says nothing: {why}"))?;
    Ok(format!(
        "a slow head ended after {} ms, slow bodies after {} and {}, silence after {}",
        head.as_millis(),
        body.as_millis(),
        chunk.as_millis(),
        begun.elapsed().as_millis()
    ))
}

/// Send `first` at once and `rest` a byte at a time; 408 comes in `time`; after how long.
fn drip(front: u16, first: &str, rest: &'static str, time: Duration) -> Result<Duration, String> {
    let mut client = Client::to(front)?;
    client.send(first.as_bytes())?;
    let begun = Instant::now();
    let mut writer = client.stream.try_clone().map_err(|error| error.to_string())?;
    thread::spawn(move || {
        for byte in rest.as_bytes().chunks(1) {
            if writer.write_all(byte).is_err() {
                return;
            }
            thread::sleep(time / 20);
        }
    });
    let answer = client.answer("POST")?;
    let after = begun.elapsed();
    match answer.status == 408 && after + Duration::from_millis(20) >= time && after < time + LATE {
        true => Ok(after),
        false => Err(format!(
            "{} after {} ms, where 408 is due after {}",
            answer.status,
            after.as_millis(),
            time.as_millis()
        )),
    }
}

/// Many clients that send as much of a head as they can and don't end it: by how much the memory grew.
fn bombs(kakei: &Kakei, front: u16) -> Result<u64, String> {
    let before = rss(kakei.pid())?;
    let fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "X-Field: a\r\n".repeat(80));
    let endless = [fields.into_bytes(), vec![b'x'; MAX_HEAD as usize]].concat();
    let clients: Result<Vec<TcpStream>, String> = (0..BOMBS)
        .map(|_| {
            let mut stream = connect(four(front))?;
            stream.write_all(&endless[..MAX_HEAD as usize - 100]).map_err(|error| format!("a bomb: {error}"))?;
            Ok(stream)
        })
        .collect();
    let (mut clients, mut most) = (clients?, 0);
    let until = Instant::now() + HEAD_TIMEOUT / 2;
    while Instant::now() < until {
        most = most.max(rss(kakei.pid())?.saturating_sub(before));
        thread::sleep(Duration::from_millis(20));
    }
    let bound = BOMBS as u64 * (MAX_HEAD + BESIDE) + (4 << 20);
    if most > bound {
        return Err(format!("{BOMBS} heads of {MAX_HEAD} bytes cost {most} bytes, more than {bound}"));
    }
    // More of it than may be: its status, and an end.
    for stream in &mut clients {
        let _ = stream.write_all(&[b'x'; 200]);
        let mut status = [0; 12];
        stream.read_exact(&mut status).map_err(|error| format!("a bomb's answer: {error}"))?;
        if !matches!(&status[9..], b"431" | b"408") {
            return Err(format!("a bomb was answered by {:?}", String::from_utf8_lossy(&status)));
        }
    }
    Ok(most)
}

/// One who behaves: how many answers it had, and after how long the slowest.
fn unharmed(mut client: Client, over: &AtomicBool) -> Result<(usize, Duration), String> {
    let (mut turns, mut worst) = (0, Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let answer = client.get("/neighbour").map_err(|why| format!("a neighbour after {turns} answers: {why}"))?;
        if answer.status != 200 {
            return Err(format!("a neighbour was answered by {}", answer.status));
        }
        worst = worst.max(begun.elapsed());
        turns += 1;
        thread::sleep(Duration::from_millis(2));
    }
    Ok((turns, worst))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_statuses_are_those_of_the_table() {
        assert!(all().iter().all(|bad| (400..600).contains(&bad.status)));
    }
}
