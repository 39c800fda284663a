//! Clients that send rubbish, too much, too slowly or nothing: they are ended in time and counted by reason, and others do
//! not notice.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::super::Setting;
use super::super::kakei::Kakei;
use super::super::process::{free_port, wait_for};
use super::{cluster, connect, echo, echoes, four, listener, rest};

/// How long what must come before a route may take.
const PREREAD: Duration = Duration::from_secs(1);
/// How much later an end may be seen.
const LATE: Duration = Duration::from_millis(700);
/// How many clients of each kind there are.
const EACH: usize = 10;

/// A bad client.
struct Bad {
    what: &'static str,
    /// Whether it goes to the listener that expects PROXY headers.
    header: bool,
    bytes: Vec<u8>,
    /// A byte at a time.
    drips: bool,
    /// The reason that it is counted under, and whether it must be ended at once and not at the timeout.
    reason: &'static str,
    at_once: bool,
}

fn bad() -> Vec<Bad> {
    let client = |what, bytes: &[u8], reason, at_once| Bad {
        what,
        header: false,
        bytes: bytes.to_vec(),
        drips: false,
        reason,
        at_once,
    };
    let header = |bad: Bad| Bad { header: true, ..bad };
    // A record of 512 bytes that holds the head of a ClientHello of as many, and no more.
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    // A ClientHello that says that it has 4 MiB.
    let huge: Vec<u8> = [0x16, 3, 1, 0x40, 0, 1, 0x40, 0, 0, 3, 3].into_iter().chain([7; 16_400]).collect();
    let record = [0x16, 3, 1, 0xff, 0xff, 1, 0, 0, 4, 3, 3];
    let other = [0x16, 3, 1, 0, 6, 2, 0, 0, 2, 3, 3];
    let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\x7f\0\0\x01";
    vec![
        client("nothing", b"", "preread_timeout", false),
        client("half a ClientHello", &hello, "preread_timeout", false),
        Bad { drips: true, ..client("a dripping ClientHello", &hello, "preread_timeout", false) },
        client("a huge ClientHello", &huge, "client_hello", true),
        client("a record longer than may be", &record, "client_hello", true),
        client("a handshake that is no ClientHello", &other, "client_hello", true),
        header(client("rubbish for a header", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "proxy_header", true)),
        header(client("a header without an end", &long, "proxy_header", true)),
        header(client("a header that lies", b"PROXY TCP4 1.2.3 127.0.0.1 1 2\r\n", "proxy_header", true)),
        header(client("half a binary header", v2, "preread_timeout", false)),
        header(Bad { drips: true, ..client("a dripping header", b"PROXY TCP4 127.0.0.1", "preread_timeout", false) }),
        header(client("no header", b"", "preread_timeout", false)),
    ]
}

pub(in super::super) fn bounded(setting: &Setting) -> Result<String, String> {
    let (front, header) = (free_port()?, free_port()?);
    let kakei = Kakei::start(&setting.binary, &setting.folder, &document(front, header, &echo()?.to_string()))?;
    let mut neighbour = connect(four(front))?;
    echoes(&mut neighbour, b"plain bytes")?;
    let over = Arc::new(AtomicBool::new(false));
    let neighbour = {
        let over = over.clone();
        thread::spawn(move || unharmed(neighbour, &over))
    };
    let mut said = Vec::new();
    for bad in bad() {
        let before = kakei.metric("kakei_connections_closed", bad.reason)?;
        let longest = attack(&bad, if bad.header { header } else { front })?;
        let counted =
            || kakei.metric("kakei_connections_closed", bad.reason).is_ok_and(|now| now == before + EACH as u64);
        wait_for(&format!("{EACH} more closed as {}", bad.reason), Duration::from_secs(2), counted)
            .map_err(|why| format!("{}: {why}; {:?}", bad.what, kakei.records().last()))?;
        said.push(longest);
    }
    over.store(true, Ordering::Relaxed);
    let (turns, worst) = neighbour.join().map_err(|_| "the neighbour panicked")??;
    wait_for("the last connection's end", Duration::from_secs(3), || {
        kakei.metric("kakei_connections_live", "").is_ok_and(|live| live == 0)
    })?;
    kakei.stop()?;
    let longest = said.iter().max().copied().unwrap_or_default();
    Ok(format!(
        "{} kinds of bad client, {EACH} of each, ended after {} ms at the latest and counted by reason; a neighbour had {turns} echoes, the slowest after {} ms",
        said.len(),
        longest.as_millis(),
        worst.as_millis()
    ))
}

fn document(front: u16, header: u16, echo: &str) -> String {
    let preread = format!("preread_timeout = \"{}ms\"\n", PREREAD.as_millis());
    [
        listener("tls", &[four(front)], "echo", &preread),
        "[routes.named]\nlistener = \"tls\"\nsni = [\"a.example.com\"]\ncluster = \"echo\"\n\n".to_owned(),
        listener(
            "header",
            &[four(header)],
            "echo",
            &format!("{preread}proxy_protocol = {{ trusted = [\"127.0.0.0/8\"] }}\n"),
        ),
        cluster("echo", echo, ""),
    ]
    .concat()
}

/// Let clients of one kind in; how long the longest lived.
fn attack(bad: &Bad, port: u16) -> Result<Duration, String> {
    let clients: Result<Vec<TcpStream>, String> = (0..EACH).map(|_| connect(four(port))).collect();
    let begun = Instant::now();
    let clients: Vec<_> = clients?
        .into_iter()
        .map(|stream| {
            let (bytes, drips) = (bad.bytes.clone(), bad.drips);
            thread::spawn(move || suffer(stream, &bytes, drips, begun))
        })
        .collect();
    let mut longest = Duration::ZERO;
    for client in clients {
        let lived = client.join().map_err(|_| "a client panicked")?.map_err(|why| format!("{}: {why}", bad.what))?;
        let in_time = if bad.at_once { lived < PREREAD / 2 } else { lived < PREREAD + LATE };
        if !in_time {
            return Err(format!("{} lived for {} ms", bad.what, lived.as_millis()));
        }
        longest = longest.max(lived);
    }
    Ok(longest)
}

/// Send it and wait for the end; how long that took. Nothing may come back.
fn suffer(mut stream: TcpStream, bytes: &[u8], drips: bool, begun: Instant) -> Result<Duration, String> {
    if drips {
        let mut writer = stream.try_clone().map_err(|error| error.to_string())?;
        let bytes = bytes.to_vec();
        thread::spawn(move || {
            for byte in bytes.chunks(1) {
                if writer.write_all(byte).is_err() {
                    return;
                }
                thread::sleep(PREREAD / 8);
            }
        });
    } else {
        // It may be ended before it has written all.
        let _ = stream.write_all(bytes);
    }
    match rest(&mut stream)?.len() {
        0 => Ok(begun.elapsed()),
        more => Err(format!("it was answered with {more} bytes")),
    }
}

/// One who behaves: how many echoes it had, and the slowest.
fn unharmed(mut stream: TcpStream, over: &AtomicBool) -> Result<(usize, Duration), String> {
    let (mut turns, mut worst) = (0, Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        echoes(&mut stream, b"still there?").map_err(|why| format!("a neighbour after {turns} echoes: {why}"))?;
        worst = worst.max(begun.elapsed());
        turns += 1;
        thread::sleep(Duration::from_millis(1));
    }
    Ok((turns, worst))
}

#[cfg(test)]
mod tests {
    #[test]
    fn its_document_is_valid() {
        super::super::super::kakei::assert_valid(&super::document(1, 2, "127.0.0.1:3"));
    }
}
