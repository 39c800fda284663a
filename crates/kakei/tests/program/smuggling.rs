//! Requests that two programs could read in two ways: each is refused, or reaches a recording backend as exactly one
//! request that can be read in one way only. Never does a backend see a request that no client sent as one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use kakei_sim::smuggling::{Case, Fate, HIDDEN, Seen, cases, read};

use crate::harness::{Room, Running, SOON};

type Records = Arc<Mutex<(Vec<Seen>, Vec<String>)>>;

/// A backend that reads strictly, answers, and writes down all that it sees.
fn backend(records: Records) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let records = Arc::clone(&records);
            thread::spawn(move || serve(stream, &records));
        }
    });
    address
}

fn serve(mut stream: TcpStream, records: &Records) {
    loop {
        match read(&mut stream) {
            Ok(Some(seen)) => records.lock().unwrap().0.push(seen),
            Ok(None) => return,
            Err(wrong) => return records.lock().unwrap().1.push(wrong),
        }
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}

/// Send a case, and wait for what comes of it.
fn play(front: SocketAddr, case: &Case) {
    let Ok(mut stream) = TcpStream::connect(front) else { panic!("the proxy is gone") };
    // Who refuses may do so by silence.
    let patience = if case.fate == Fate::Refused { Duration::from_millis(250) } else { SOON };
    stream.set_read_timeout(Some(patience)).unwrap();
    let _ = stream.write_all(&case.bytes);
    let mut buffer = [0; 4096];
    let _ = stream.read(&mut buffer);
}

#[test]
fn what_could_be_read_in_two_ways_is_refused_or_reaches_a_backend_in_one() {
    let room = Room::new("smuggling");
    let records: Records = Records::default();
    let at = backend(Arc::clone(&records));
    let socket = room.path("k.sock");
    let document = format!(
        "[admin]\nsocket = {socket:?}\n[workers]\ncount = 2\n[listeners.front]\nprotocol = \"http\"\nbind = [\"127.0.0.1:0\"]\n\
         cluster = \"c\"\n[clusters.c]\nbackends = [\"{at}\"]\n"
    );
    let proxy = Running::start(&room, &document);
    let front = proxy.front();
    let cases = Arc::new(cases());
    assert!(cases.len() >= 250, "{} cases", cases.len());
    let players: Vec<_> = (0..8)
        .map(|turn| {
            let cases = Arc::clone(&cases);
            thread::spawn(move || cases.iter().skip(turn).step_by(8).for_each(|case| play(front, case)))
        })
        .collect();
    players.into_iter().for_each(|player| player.join().unwrap());
    let mut innocent = TcpStream::connect(front).unwrap();
    innocent.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    innocent.write_all(b"GET /innocent HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    innocent.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let (seen, wrong) = records.lock().unwrap().clone();
    assert!(wrong.is_empty(), "the backend could not read: {wrong:?}");
    assert!(!seen.iter().any(|seen| seen.line.contains(HIDDEN)), "a hidden request came through: {seen:?}");
    for case in cases.iter() {
        let of_case: Vec<&Seen> = seen.iter().filter(|seen| seen.line.contains(&case.token)).collect();
        let text = String::from_utf8_lossy(&case.bytes);
        match &case.fate {
            Fate::Refused => assert!(of_case.is_empty(), "{text:?} was forwarded as {of_case:?}"),
            Fate::Forwarded(body) => {
                assert_eq!(of_case.len(), 1, "{text:?} became {of_case:?}");
                assert_eq!(of_case[0].body, *body, "{text:?}");
            }
        }
    }
}
