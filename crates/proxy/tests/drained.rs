//! A worker driven by hand, one fact a test: what a worker does at once that is told to drain.

mod common;

use std::time::Duration;

use kakei_config::*;
use kakei_proxy::record::CloseReason;
use kakei_proxy::seam::*;
use kakei_proxy::stats::Refusal;

use common::{Bench, addr, all_of, opened};

/// A worker with a request at its backend. Records are written.
fn bench() -> Bench {
    let cluster = Cluster { backends: vec![Backend::at(addr("10.0.0.1:80"))], ..Cluster::default() };
    let access_log = AccessLog { to: Some("stdout".into()), ..AccessLog::default() };
    let document = Document { clusters: [("c".into(), cluster)].into(), access_log, ..Document::default() };
    let mut bench = Bench::new(document, Listener { cluster: Some("c".into()), ..Listener::default() });
    let backend = opened(&bench.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    bench.step(vec![Event::Opened { socket: backend, local: addr("10.9.9.9:9") }], b"");
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf";
    bench.step(vec![Event::Data { socket: backend, bytes: all_of(half) }], half);
    bench
}

fn drain(within: Option<Duration>) -> Event {
    Event::Command { ticket: Ticket(1), command: Command::Drain { within } }
}

#[test]
fn who_connects_in_that_very_step_is_refused_and_counted_and_then_the_front_is_given_up() {
    let mut bench = bench();
    let comes = |arrival| {
        let (front, peer, local) = (bench.front, addr("192.0.2.8:1000"), addr("192.0.2.1:80"));
        Event::Accepted(Accepted { front, arrival: Arrival(arrival), peer, local })
    };
    let (first, late) = (comes(1), comes(2));
    let ops = bench.step(vec![drain(None), first, late], b"");
    let of_front = |op: &&Op| matches!(op, Op::Refuse { .. } | Op::Close { .. } | Op::Unbind { .. });
    let said: Vec<&Op> = ops.iter().filter(of_front).collect();
    let refuses = |op: &Op| matches!(op, Op::Refuse { how: Refuse::Reset, .. });
    assert!(said.len() == 4 && refuses(said[0]) && refuses(said[1]), "{said:?}");
    assert!(matches!((said[2], said[3]), (Op::Close { socket }, Op::Unbind { .. }) if *socket == bench.front));
    let ops = bench.step(vec![Event::Command { ticket: Ticket(2), command: Command::Stats }], b"");
    let refused = ops.iter().find_map(|op| match op {
        Op::Reply { reply: Reply::Stats(stats), .. } => Some(stats.listeners[0].refusals.0[Refusal::Draining as usize]),
        _ => None,
    });
    assert_eq!(refused, Some(2));
    assert_eq!(bench.ends(&ops), [""; 0], "who was there goes on");
}

#[test]
fn told_that_no_time_is_left_it_ends_all_with_the_next_tick_and_writes_it_down() {
    let mut bench = bench();
    bench.step(vec![drain(None)], b"");
    bench.step(vec![drain(Some(Duration::ZERO))], b"");
    bench.now = bench.now + Duration::from_millis(2);
    let ops = bench.step(Vec::new(), b"");
    let records: Vec<CloseReason> = ops
        .iter()
        .filter_map(|op| match op {
            Op::Record(record) => Some(record.reason),
            _ => None,
        })
        .collect();
    assert_eq!((records, bench.ends(&ops)), (vec![CloseReason::Drain], vec!["reset"]));
    assert!(ops.iter().any(|op| matches!(op, Op::Notice(Notice::Drained))));
}

#[test]
fn one_that_still_shakes_hands_at_the_end_takes_no_others_down_with_it() {
    for protocol in [Protocol::Tcp, Protocol::Http] {
        for within in [None, Some(Duration::from_millis(100))] {
            let cluster = Cluster { backends: vec![Backend::at(addr("10.0.0.1:80"))], ..Cluster::default() };
            let (bind, tls) = (vec![addr("0.0.0.0:443")], Some(ListenerTls::default()));
            let listener = Listener { protocol, bind, tls, cluster: Some("c".into()), ..Listener::default() };
            let document = Document {
                clusters: [("c".into(), cluster)].into(),
                listeners: [("web".into(), listener)].into(),
                ..Document::default()
            };
            let mut bench = Bench::of(&document);
            let begun = bench.now;
            bench.client = bench.connect("192.0.2.7:1000");
            let mut ops = bench.step(vec![drain(within)], b"");
            if within.is_none() {
                ops.extend(bench.step(vec![drain(Some(Duration::ZERO))], b""));
            }
            while let Some(wake) = bench.wake.filter(|wake| *wake - begun < Duration::from_secs(9)) {
                bench.now = wake;
                ops.extend(bench.step(Vec::new(), b""));
            }
            let ends = bench.ends(&ops);
            assert!(matches!(ends.last(), Some(&("reset" | "close"))), "{protocol:?}, {within:?}: {ends:?}");
            assert!(ops.iter().any(|op| matches!(op, Op::Notice(Notice::Drained))), "{protocol:?}, {within:?}");
            assert_eq!(bench.wake, None, "nothing will ever be due again");
        }
    }
}
