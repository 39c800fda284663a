//! Streams: real databases, TLS and ssh servers, iperf3, and other proxies before and behind Kakei. What the checks share.

pub(super) mod bad_input;
pub(super) mod changes;
pub(super) mod databases;
pub(super) mod headers;
pub(super) mod iperf;
pub(super) mod tls;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// How long a local peer may take to say something.
const PATIENCE: Duration = Duration::from_secs(5);

/// An address of the loopback.
fn four(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The same of IPv6.
fn six(port: u16) -> SocketAddr {
    SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port))
}

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

/// A server of this process on a free port: each connection gets a thread.
fn serve(what: impl Fn(TcpStream) + Clone + Send + 'static) -> Result<SocketAddr, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| format!("a server: {error}"))?;
    let address = listener.local_addr().map_err(|error| format!("a server: {error}"))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let what = what.clone();
            thread::spawn(move || what(stream));
        }
    });
    Ok(address)
}

/// A connection from an address that is not the kernel's choice.
fn connect_from(source: SocketAddr, to: SocketAddr) -> Result<TcpStream, String> {
    let say = |error: rustix::io::Errno| format!("{source} to {to}: {error}");
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(say)?;
    rustix::net::bind(&socket, &source).map_err(say)?;
    rustix::net::connect(&socket, &to).map_err(say)?;
    let stream = TcpStream::from(socket);
    patient(&stream)?;
    Ok(stream)
}

/// A connection that waits for nothing for long.
fn connect(to: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).map_err(|error| format!("connecting to {to}: {error}"))?;
    patient(&stream)?;
    Ok(stream)
}

fn patient(stream: &TcpStream) -> Result<(), String> {
    let set = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
    set.and_then(|()| stream.set_nodelay(true)).map_err(|error| format!("a socket's options: {error}"))
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

/// Everything that comes until the stream ends.
fn rest(stream: &mut TcpStream) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(bytes),
        Err(error) => Err(format!("after {} bytes: {error}", bytes.len())),
    }
}
