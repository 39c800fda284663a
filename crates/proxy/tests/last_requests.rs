//! A worker driven by hand, one fact a test: how a client's connection ends that said itself which request is its last.

mod common;

use kakei_config::*;
use kakei_proxy::seam::*;

use common::{Bench, all_of};

const LAST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// A worker that answers by itself.
fn answering() -> Bench {
    let respond = Respond { status: 200, body: "fine".into(), ..Respond::default() };
    let route = Route { listener: "web".into(), respond: Some(respond.into()), ..Route::default() };
    Bench::new(Document { routes: [("all".into(), route)].into(), ..Document::default() }, Listener::default())
}

#[test]
fn who_said_that_nothing_follows_and_took_all_is_closed_with_the_next_step() {
    for request in [LAST, b"GET / HTTP/1.0\r\n\r\n"] {
        let mut bench = answering();
        let ops = bench.say(request);
        assert!(bench.ends(&ops).ends_with(&["write"]), "{ops:?}");
        assert_eq!(bench.wake, Some(bench.now), "the next step is to come at once");
        let ops = bench.step(Vec::new(), b"");
        assert_eq!(bench.ends(&ops), ["close"]);
        assert_eq!(bench.wake, None, "nothing is left of it");
    }
}

#[test]
fn who_did_not_take_all_is_given_time() {
    let mut bench = answering();
    bench.say(LAST);
    let rest = Span { start: 0, len: 4 };
    let ops = bench.step(vec![Event::Blocked { socket: bench.client, rest }], b"fine");
    assert!(bench.ends(&ops).is_empty(), "{ops:?}");
    let ops = bench.step(Vec::new(), b"");
    assert!(bench.ends(&ops).is_empty(), "{ops:?}");
    let ops = bench.step(vec![Event::Drained { socket: bench.client }], b"");
    assert_eq!(bench.ends(&ops), ["write", "shutdown"]);
}

#[test]
fn who_sends_more_all_the_same_is_given_time_to_read() {
    let mut bench = answering();
    bench.say(LAST);
    let ops = bench.say(b"GET");
    assert_eq!(bench.ends(&ops), ["shutdown"], "closed with bytes unread, a reset would take its answer from it");
    let ops = bench.step(Vec::new(), b"");
    assert!(bench.ends(&ops).is_empty(), "{ops:?}");
    let mut bench = answering();
    let ops = bench.say(&[LAST, LAST].concat());
    assert!(bench.ends(&ops).ends_with(&["write", "shutdown"]), "{ops:?}");
    let ops = bench.step(Vec::new(), b"");
    assert!(bench.ends(&ops).is_empty(), "{ops:?}");
}

#[test]
fn who_did_not_say_so_or_is_not_understood_is_given_time_to_read() {
    for request in [
        &b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nab"[..],
        b"GET /%zz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    ] {
        let mut bench = answering();
        let ops = bench.say(request);
        assert!(bench.ends(&ops).ends_with(&["shutdown"]), "{ops:?}");
    }
}

#[test]
fn who_ends_itself_is_closed_once() {
    let mut bench = answering();
    bench.say(LAST);
    let ops = bench.step(vec![Event::Eof { socket: bench.client }], b"");
    assert!(matches!(bench.ends(&ops)[..], ["shutdown", "close"] | ["close"]), "{ops:?}");
    let ops = bench.step(Vec::new(), b"");
    assert!(bench.ends(&ops).is_empty(), "{ops:?}");
}

#[test]
fn a_worker_that_is_written_down_owes_nobody_an_end() {
    let mut bench = answering();
    let said = Event::Data { socket: bench.client, bytes: all_of(LAST) };
    let ops = bench.step(vec![said, Event::Command { ticket: Ticket(2), command: Command::Snapshot }], LAST);
    let told = ops.iter().position(|op| matches!(op, Op::Reply { reply: Reply::State(_), .. }));
    let ended = ops.iter().position(|op| matches!(op, Op::Shutdown { .. }));
    assert!(ended.is_some() && ended < told, "{ops:?}");
}
