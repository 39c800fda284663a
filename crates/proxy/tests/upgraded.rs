//! A worker driven by hand, one fact a test: how a request ends that became a connection of its own.

mod common;
#[path = "common/counted.rs"]
mod counted;

use kakei_config::*;
use kakei_proxy::seam::*;

use kakei_proxy::stats::{BackendMetric, ListenerMetric};

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

/// What is counted as sent to backends, by the listener and by the backend, as come back, and as opened.
fn counted(bench: &mut Bench) -> [u64; 4] {
    let of = [BackendMetric::BytesSent, BackendMetric::BytesReturned, BackendMetric::ConnectionsOpened];
    let (forwarded, backends) = bench.counted(ListenerMetric::BytesForwarded, of);
    let [sent, returned, opened] = backends[0];
    [forwarded, sent, returned, opened]
}

#[test]
fn what_comes_with_the_answer_is_counted_once_and_what_was_not_taken_of_it_is_not() {
    let with_more = [SWITCHES, b"hello"].concat();
    let answer = |backend| Event::Data { socket: backend, bytes: all_of(&with_more) };
    let (mut bench, backend) = bench();
    bench.step(vec![answer(backend)], &with_more);
    assert_eq!(counted(&mut bench), [0, 0, 5, 1]);
    bench.say(b"hi");
    assert_eq!(counted(&mut bench), [2, 2, 5, 1]);

    for (rest, returned) in [(&b"hello"[..], 0), (b"llo", 2), (&with_more, 0)] {
        let (mut bench, backend) = self::bench();
        bench.step(vec![answer(backend)], &with_more);
        bench.step(vec![Event::Blocked { socket: bench.client, rest: all_of(rest) }], rest);
        let ops = bench.step(vec![Event::Broken { socket: bench.client, by: BrokenBy::Peer }], b"");
        assert_eq!(ends(&ops, backend).len(), 1, "it is over: {ops:?}");
        assert_eq!(counted(&mut bench), [0, 0, returned, 1], "of {rest:?} that the client didn't take");
    }
}

#[test]
fn what_the_client_did_not_take_of_the_answer_before_is_no_part_of_what_the_connection_carried() {
    let with_more = [SWITCHES, b"hello"].concat();
    let (mut bench, backend) = bench();
    let interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    bench.step(vec![Event::Data { socket: backend, bytes: all_of(interim) }], interim);
    bench.step(vec![Event::Blocked { socket: bench.client, rest: all_of(b"/a>\r\n\r\n") }], b"/a>\r\n\r\n");
    bench.step(vec![Event::Data { socket: backend, bytes: all_of(&with_more) }], &with_more);
    assert_eq!(counted(&mut bench), [0, 0, 5, 1]);
    bench.step(vec![Event::Broken { socket: bench.client, by: BrokenBy::Peer }], b"");
    assert_eq!(counted(&mut bench), [0, 0, 0, 1]);
}

#[test]
fn nobody_gets_past_the_routes_by_what_carries_requests_again() {
    let asked = |protocols: &str| {
        let cluster = Cluster { backends: vec![Backend::at(addr("10.0.0.1:80"))], ..Cluster::default() };
        let document = Document { clusters: [("c".into(), cluster)].into(), ..Document::default() };
        let mut bench = Bench::new(document, Listener { cluster: Some("c".into()), ..Listener::default() });
        let asks = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\
             {protocols}\r\n"
        );
        let backend = opened(&bench.say(asks.as_bytes()));
        let ops = bench.step(vec![Event::Opened { socket: backend, local: addr("10.9.9.9:9") }], b"");
        let bytes = ops.iter().filter_map(|op| match op {
            Op::Write { socket, bytes } if *socket == backend => Some(bytes.head.of(&bench.out.bytes)),
            _ => None,
        });
        let head = String::from_utf8(bytes.collect::<Vec<_>>().concat()).expect("text");
        let answer = bench.step(vec![Event::Data { socket: backend, bytes: all_of(SWITCHES) }], SWITCHES);
        let said = answer.iter().filter_map(|op| match op {
            Op::Write { socket, bytes } if *socket == bench.client => Some(bytes.head.of(&bench.out.bytes)),
            _ => None,
        });
        (head, String::from_utf8(said.collect::<Vec<_>>().concat()).expect("text"))
    };
    for none in ["h2c", "H2C", "h2", "HTTP/2.0", "http/1.1", "TLS/1.0", "h2c, HTTP/2.0"] {
        let (head, answer) = asked(&format!("Upgrade: {none}\r\n"));
        assert!(!head.to_ascii_lowercase().contains("upgrade"), "{none}: {head}");
        // A backend that goes over to something that it wasn't asked for is in the wrong.
        assert!(answer.starts_with("HTTP/1.1 502 "), "{none}: {answer}");
    }
    let (head, answer) = asked("Upgrade: h2c, echo\r\nUpgrade: h2c\r\n");
    assert!(head.contains("Connection: Upgrade\r\nUpgrade: echo\r\n") && !head.contains("h2c"), "{head}");
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
}
