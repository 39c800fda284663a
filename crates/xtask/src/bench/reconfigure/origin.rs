//! Two origins behind every proxy: each answers whatever it is asked with its own letter. Measures nothing.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;

/// What the origins answer.
pub(super) const LETTERS: [u8; 2] = *b"AB";
/// The longest request, far longer than any that is sent here.
const LONGEST: usize = 16 << 10;

/// Start both; where they listen. They end with the process.
pub(super) fn start() -> Result<[SocketAddrV4; 2], String> {
    let [a, b] = LETTERS.map(listen);
    Ok([a?, b?])
}

fn listen(letter: u8) -> Result<SocketAddrV4, String> {
    let failed = |e: std::io::Error| format!("an origin's listener: {e}");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    let SocketAddr::V4(at) = listener.local_addr().map_err(failed)? else { return Err("no IPv4 address".to_owned()) };
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream, letter));
        }
    });
    Ok(at)
}

/// Answer until the connection ends.
fn serve(mut stream: TcpStream, letter: u8) {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}", char::from(letter));
    let _ = stream.set_nodelay(true);
    let (mut request, mut part) = (Vec::new(), [0; 2048]);
    while let Ok(n @ 1..) = stream.read(&mut part) {
        request.extend_from_slice(&part[..n]);
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        } else if request.len() > LONGEST {
            return;
        }
    }
}
