//! A worker driven by hand: clients that ask for much at once and take nothing of it.

mod common;

use kakei_config::*;
use kakei_proxy::limits::{ANSWERED, WRITTEN, WRITTEN_KEPT};
use kakei_proxy::seam::*;

use common::{Bench, all_of};

const ASKS: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A worker whose every answer is of this length.
fn bench(body: usize) -> Bench {
    let respond = Respond { body: "x".repeat(body), ..Respond::default() };
    let route = Route { listener: "web".into(), respond: Some(respond.into()), ..Route::default() };
    let document = Document { routes: [("r".into(), route)].into(), ..Document::default() };
    Bench::new(document, Listener::default())
}

/// Bytes that a step writes to this client.
fn written(ops: &[Op], to: SocketId) -> usize {
    let len = |op: &Op| match op {
        Op::Write { socket, bytes } if *socket == to => (bytes.head.len + bytes.body.len) as usize,
        _ => 0,
    };
    ops.iter().map(len).sum()
}

#[test]
fn who_takes_nothing_is_answered_no_more_than_about_one_read() {
    const BODY: usize = 100_000;
    let mut bench = bench(BODY);
    let ops = bench.say(&ASKS.repeat(40));
    let first = written(&ops, bench.client);
    assert!(bench.ends(&ops).iter().all(|what| *what == "write"), "it goes on: {:?}", bench.ends(&ops));
    assert!(first > BODY && first < ANSWERED + BODY + 1_000, "{first}");
    assert_eq!(bench.wake, Some(bench.now), "the next ones follow at once");
    // It took nothing: it gets nothing more, and is heard no further.
    let ops = bench.step(vec![Event::Blocked { socket: bench.client, rest: all_of(b"x") }], b"x");
    assert_eq!(written(&ops, bench.client), 0);
    assert!(ops.iter().chain(&bench.step(Vec::new(), b"")).all(|op| !matches!(op, Op::Credit { on: true, .. })));
    // It takes all of it now, and everything that it asked for comes.
    let mut all = first + written(&bench.step(vec![Event::Drained { socket: bench.client }], b""), bench.client);
    for _ in 0..100 {
        let ops = bench.step(Vec::new(), b"");
        let more = written(&ops, bench.client);
        assert!(more < ANSWERED + BODY + 1_000, "{more}");
        all += more;
    }
    assert_eq!(all / BODY, 40, "{all}");
}

#[test]
fn a_step_has_only_so_much_to_write_however_many_ask() {
    const BODY: usize = 300_000;
    let mut bench = bench(BODY);
    let clients: Vec<SocketId> = (0..50).map(|n| bench.connect(&format!("192.0.2.8:{}", 2_000 + n))).collect();
    // Of half of them a part of the head is there already.
    let (some, rest) = ASKS.split_at(10);
    for client in &clients[..25] {
        bench.step(vec![Event::Data { socket: *client, bytes: all_of(some) }], some);
    }
    let mut events: Vec<Event> = Vec::new();
    events.extend(clients[..25].iter().map(|client| Event::Data { socket: *client, bytes: all_of(rest) }));
    let whole = Span { start: rest.len() as u32, len: ASKS.len() as u32 };
    events.extend(clients[25..].iter().map(|client| Event::Data { socket: *client, bytes: whole }));
    let mut ops = bench.step(events, &[rest, ASKS].concat());
    let mut got = vec![0; clients.len()];
    for _ in 0..200 {
        let sums: Vec<usize> = clients.iter().map(|client| written(&ops, *client)).collect();
        assert!(sums.iter().sum::<usize>() < WRITTEN + BODY + 1_000, "{sums:?}");
        got.iter_mut().zip(sums).for_each(|(got, more)| *got += more);
        ops = bench.step(Vec::new(), b"");
    }
    assert!(got.iter().all(|got| (BODY..BODY + 1_000).contains(got)), "{got:?}");
    // Those that were held are heard again.
    let ops = bench.step(vec![Event::Data { socket: clients[0], bytes: all_of(ASKS) }], ASKS);
    assert!(written(&ops, clients[0]) > BODY);
}

#[test]
fn what_a_large_step_took_is_given_back() {
    let mut out = Outbox::default();
    out.put(&vec![0; 4 * WRITTEN_KEPT]);
    out.clear();
    assert!(out.bytes.capacity() <= WRITTEN_KEPT);
    out.put(&[0; 1_000]);
    let kept = out.bytes.capacity();
    out.clear();
    assert_eq!(out.bytes.capacity(), kept, "what a usual one needs stays");
}
