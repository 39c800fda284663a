//! The streams of `kakei demo`: a TCP backend that echoes, and a client whose one connection is used through the whole
//! show. Balances nothing itself.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The client's rest between two exchanges, and when it gives one up.
const PACE: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(2);

/// A server that sends back what it gets. Lives as long as the process.
pub(crate) fn backend() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::Builder::new().name("backend-echo".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = thread::Builder::new().name("echo".into()).spawn(move || echo(stream));
        }
    })?;
    Ok(address)
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// One connection in use.
pub(crate) struct Connection {
    over: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<u64>>,
}

impl Connection {
    /// Connect, and exchange a few bytes again and again until [`Connection::end`].
    pub(crate) fn start(front: SocketAddr) -> io::Result<Self> {
        let mut stream = TcpStream::connect(front)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let body = move || {
            let mut exchanges = 0u64;
            while !is_over.load(Ordering::Relaxed) {
                let sent = exchanges.to_be_bytes();
                stream.write_all(&sent)?;
                let mut answer = [0; 8];
                stream.read_exact(&mut answer)?;
                if answer != sent {
                    return Err(io::Error::other("a connection got another one's bytes"));
                }
                exchanges += 1;
                thread::sleep(PACE);
            }
            Ok(exchanges)
        };
        Ok(Connection { over, thread: thread::Builder::new().name("connection".into()).spawn(body)? })
    }

    /// How often bytes went there and back; an error where the connection was lost on the way.
    pub(crate) fn end(self) -> io::Result<u64> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the client's thread ended badly")))
    }
}
