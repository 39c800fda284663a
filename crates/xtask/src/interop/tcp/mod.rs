//! Streams: real databases, TLS and ssh servers, iperf3, and other proxies before and behind Kakei. What the checks share.

pub(super) mod bad_input;
pub(super) mod changes;
pub(super) mod databases;
pub(super) mod headers;
pub(super) mod iperf;
pub(super) mod tls;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::net::{connect, connect_from, four, rest, serve, six};

/// The words of a listener.
fn listener(name: &str, bind: &[SocketAddr], cluster: &str, more: &str) -> String {
    let bind: Vec<String> = bind.iter().map(|address| format!("\"{address}\"")).collect();
    let bind = bind.join(", ");
    format!("[listeners.{name}]\nprotocol = \"tcp\"\nbind = [{bind}]\ncluster = \"{cluster}\"\n{more}\n")
}

/// The words of a cluster of one backend.
fn cluster(name: &str, backend: &str, more: &str) -> String {
    format!("[clusters.{name}]\nbackends = [\"{backend}\"]\n{more}\n")
}

/// A server of this process that answers every byte with itself, and an end with an end. It lasts as long as the process:
/// its threads wait for clients and cost nothing.
fn echo() -> Result<SocketAddr, String> {
    serve(|mut stream| {
        let mut bytes = [0; 1 << 16];
        while let Ok(length @ 1..) = stream.read(&mut bytes) {
            if stream.write_all(&bytes[..length]).is_err() {
                return;
            }
        }
    })
}

/// Send it and wait until the same has come back.
fn echoes(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), String> {
    let mut back = vec![0; bytes.len()];
    let done = stream.write_all(bytes).and_then(|()| stream.read_exact(&mut back));
    done.map_err(|error| format!("an echo of {} bytes: {error}", bytes.len()))?;
    match back == bytes {
        true => Ok(()),
        false => Err(format!("{} bytes came back changed", bytes.len())),
    }
}
