//! Sockets that every check of streams needs: addresses of the loopback, connections that wait for nothing for long, servers
//! of this process. Knows no protocol.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// How long a local peer may take to say something.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// An address of the loopback.
pub(super) fn four(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The same of IPv6.
pub(super) fn six(port: u16) -> SocketAddr {
    SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port))
}

/// A server of this process on a free port: each connection gets a thread.
pub(super) fn serve(what: impl Fn(TcpStream) + Clone + Send + 'static) -> Result<SocketAddr, String> {
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
pub(super) fn connect_from(source: SocketAddr, to: SocketAddr) -> Result<TcpStream, String> {
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
pub(super) fn connect(to: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).map_err(|error| format!("connecting to {to}: {error}"))?;
    patient(&stream)?;
    Ok(stream)
}

fn patient(stream: &TcpStream) -> Result<(), String> {
    let set = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
    set.and_then(|()| stream.set_nodelay(true)).map_err(|error| format!("a socket's options: {error}"))
}

/// Everything that comes until the stream ends.
pub(super) fn rest(stream: &mut TcpStream) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(bytes),
        Err(error) => Err(format!("after {} bytes: {error}", bytes.len())),
    }
}
