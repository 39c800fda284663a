//! What becomes of bytes and ends that the kernel moves by itself (splice), where something goes wrong.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::net::{SendFlags, send, sockopt};

use crate::harness::{Room, Running, SOON, eventually};
use crate::streams::{connect, document};

/// More than what is shown to the worker before it lets the kernel move the rest.
const BULK: usize = 4 << 20;

/// A proxy, and the backend's end of every connection through it.
struct Passage {
    _room: Room,
    proxy: Running,
    backend: TcpListener,
}

impl Passage {
    fn new(name: &str) -> Self {
        let room = Room::new(name);
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Running::start(&room, &document(&room, &[("a", backend.local_addr().unwrap())], ""));
        Passage { _room: room, proxy, backend }
    }

    /// The client's end of a connection, and the backend's.
    fn open(&self) -> (TcpStream, TcpStream) {
        let client = connect(self.proxy.front());
        let (server, _) = self.backend.accept().unwrap();
        for end in [&client, &server] {
            end.set_read_timeout(Some(SOON)).unwrap();
        }
        (client, server)
    }

    fn spliced(&self) -> u64 {
        self.proxy.metrics().sum("kakei_machine_splice_bytes_total", "")
    }

    fn live(&self) -> u64 {
        self.proxy.metrics().sum("kakei_connections_live", "")
    }
}

/// Both ways to take the two ends: who does something first.
fn turned((client, server): (TcpStream, TcpStream), is_turned: bool) -> (TcpStream, TcpStream) {
    if is_turned { (server, client) } else { (client, server) }
}

/// Close so that the peer sees a reset.
fn reset(stream: TcpStream) {
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

/// Write until nothing more is taken for a while.
fn stuff(stream: &mut TcpStream) {
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let bytes = vec![b'x'; 1 << 20];
    while stream.write(&bytes).is_ok() {}
}

/// Read until the end, or what is there instead.
fn drain(stream: &mut TcpStream) -> (usize, Option<ErrorKind>) {
    let (mut all, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (all, None),
            Ok(length) => all += length,
            Err(error) => return (all, Some(error.kind())),
        }
    }
}

#[test]
fn a_reset_behind_bytes_that_wait_in_a_pipe_is_no_end() {
    let passage = Passage::new("spliced-reset");
    for is_turned in [false, true] {
        let (mut sender, mut reader) = turned(passage.open(), is_turned);
        stuff(&mut sender);
        reset(sender);
        let (length, ended) = drain(&mut reader);
        assert!(length > 1 << 20, "{length} bytes arrived");
        assert_eq!(ended, Some(ErrorKind::ConnectionReset), "turned: {is_turned}");
    }
    let metrics = passage.proxy.metrics();
    for reason in ["client_reset", "backend_reset"] {
        let count = metrics.sum("kakei_connections_closed_total", &format!("reason=\"{reason}\""));
        assert_eq!(count, 1, "{reason}");
    }
}

#[test]
fn what_comes_behind_urgent_data_arrives() {
    let passage = Passage::new("spliced-urgent");
    for is_turned in [false, true] {
        let (mut sender, mut reader) = turned(passage.open(), is_turned);
        let before = passage.spliced();
        let sending = thread::spawn(move || {
            sender.write_all(&vec![b'a'; BULK]).unwrap();
            // The worker lets the kernel move what comes now.
            sender.write_all(&vec![b'a'; BULK]).unwrap();
            assert_eq!(send(&sender, b"!", SendFlags::OOB), Ok(1));
            sender.write_all(&vec![b'b'; 500_000]).unwrap();
            sender
        });
        let mut whole = vec![0; 2 * BULK + 500_000];
        reader.read_exact(&mut whole).expect("all of it without an end behind it");
        assert!(
            whole[..2 * BULK].iter().all(|byte| *byte == b'a') && whole[2 * BULK..].iter().all(|byte| *byte == b'b')
        );
        assert!(passage.spliced() > before, "the kernel moved nothing");
        sending.join().unwrap().shutdown(Shutdown::Write).unwrap();
        assert_eq!(drain(&mut reader), (0, None));
    }
}

#[test]
fn a_reset_behind_a_half_close_is_told() {
    let passage = Passage::new("spliced-half");
    for is_turned in [false, true] {
        let (mut goes, mut stays) = turned(passage.open(), is_turned);
        goes.write_all(b"last words").unwrap();
        goes.shutdown(Shutdown::Write).unwrap();
        assert_eq!(drain(&mut stays), (10, None));
        assert_eq!(passage.live(), 1, "the other direction is open");
        reset(goes);
        eventually("its end", || (passage.live() == 0).then_some(()));
        // A read is told of the end that came before; a write is told of the reset.
        let told = eventually("a reset", || stays.write_all(b"x").err());
        assert!(matches!(told.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{told}");
    }
}

#[test]
fn an_early_answer_to_an_upload_arrives() {
    let passage = Passage::new("spliced-early");
    let answer = [b'z'; 260];
    for round in 0..20 {
        let (client, mut server) = passage.open();
        let mut uploads = client.try_clone().unwrap();
        let uploading = thread::spawn(move || {
            let bytes = vec![b'u'; 1 << 20];
            // It is broken off.
            (0..20).all(|_| uploads.write_all(&bytes).is_ok())
        });
        server.read_exact(&mut vec![0; 3 << 19]).unwrap();
        server.write_all(&answer).unwrap();
        drop(server);
        let mut client = client;
        let mut heard = vec![0; answer.len()];
        client.read_exact(&mut heard).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(heard, answer);
        drop(client);
        uploading.join().unwrap();
    }
}
