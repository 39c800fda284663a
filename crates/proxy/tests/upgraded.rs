//! A worker driven by hand, one fact a test: how a request ends that became a connection of its own.

mod common;

use kakei_config::*;
use kakei_proxy::seam::*;

use common::{Bench, addr, all_of, ends, opened};

const ASKS: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
const SWITCHES: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

/// A worker whose client asked for another protocol, and the stream to the backend that it is to come from.
fn bench() -> (Bench, SocketId) {
    let cluster = Cluster { backends: vec![Backend::at(addr("10.0.0.1:80"))], ..Cluster::default() };
    let document = Document { clusters: [("c".into(), cluster)].into(), ..Document::default() };
    let mut bench = Bench::new(document, Listener { cluster: Some("c".into()), ..Listener::default() });
    let backend = opened(&bench.say(ASKS));
    bench.step(vec![Event::Opened { socket: backend, local: addr("10.9.9.9:9") }], b"");
    (bench, backend)
}

/// Both sides have said all in the step of the answer.
fn all_at_once(bench: &mut Bench, backend: SocketId) -> Vec<Op> {
    let answer = Event::Data { socket: backend, bytes: all_of(SWITCHES) };
    bench.step(vec![answer, Event::Eof { socket: backend }, Event::Eof { socket: bench.client }], SWITCHES)
}

#[test]
fn it_does_not_end_before_it_is_known_that_the_answer_was_taken() {
    let (mut bench, backend) = bench();
    let ops = all_at_once(&mut bench, backend);
    assert_eq!(bench.ends(&ops), ["write", "shutdown"], "{ops:?}");
    assert_eq!(bench.wake, Some(bench.now), "the next step is to come at once");
    let ops = bench.step(Vec::new(), b"");
    assert_eq!((bench.ends(&ops), ends(&ops, backend)), (vec!["close"], vec!["close"]));
}

#[test]
fn what_was_not_taken_of_the_answer_goes_before_its_end() {
    let (mut bench, backend) = bench();
    all_at_once(&mut bench, backend);
    let ops = bench.step(vec![Event::Blocked { socket: bench.client, rest: all_of(b"\r\n") }], b"\r\n");
    assert_eq!(bench.ends(&ops), [""; 0], "{ops:?}");
    let ops = bench.step(vec![Event::Drained { socket: bench.client }], b"");
    assert_eq!(bench.ends(&ops), ["write", "shutdown"], "{ops:?}");
    let ops = bench.step(Vec::new(), b"");
    assert_eq!((bench.ends(&ops), ends(&ops, backend)), (vec!["close"], vec!["close"]));
}
