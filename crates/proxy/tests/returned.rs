//! A worker driven by hand, one fact a test: a deadline that a change has set goes with the change, and no later one
//! inherits it.

mod common;

use std::time::Duration;

use kakei_config::*;
use kakei_proxy::seam::*;

use common::{Bench, addr};

const GRACE: Duration = Duration::from_secs(5);

/// Everything that can be changed under a connection gives it as much time.
fn document(protocol: Protocol) -> Document {
    let drain = OnChange::Drain(GRACE);
    let tcp = TcpKnobs { on_backend_removed: drain, on_backend_down: drain, attempts: 1, ..TcpKnobs::default() };
    let passive = PassiveCheck { fall: 1, eject: Duration::from_secs(1), ..PassiveCheck::default() };
    let health = Health { passive: Some(passive), fail_open: false, ..Health::default() };
    let backends = vec![Backend::at(addr("10.0.0.1:80"))];
    let cluster = Cluster { backends, tcp, health: Some(health.into()), ..Cluster::default() };
    let source = vec!["192.0.2.0/24".parse().expect("a network")];
    let route =
        Route { listener: "web".into(), source, cluster: Some("c".into()), on_change: drain, ..Route::default() };
    Document {
        listeners: [("web".into(), listener(protocol))].into(),
        clusters: [("c".into(), cluster)].into(),
        routes: [("r".into(), route)].into(),
        ..Document::default()
    }
}

fn listener(protocol: Protocol) -> Listener {
    let bind = vec![addr("0.0.0.0:80")];
    Listener { protocol, bind, cluster: Some("c".into()), drain_timeout: GRACE * 2, ..Listener::default() }
}

/// A worker with a connection, or a request, at the backend.
fn bench(protocol: Protocol) -> Bench {
    let mut bench = match protocol {
        Protocol::Http => {
            let mut bench = Bench::new(document(protocol), listener(protocol));
            bench.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na");
            bench
        }
        _ => {
            let mut bench = Bench::of(&document(protocol));
            bench.client = bench.connect("192.0.2.7:1000");
            bench
        }
    };
    let backend = connected(&bench);
    bench.step(vec![Event::Opened { socket: backend, local: addr("10.9.9.9:9") }], b"");
    bench
}

/// The stream to a backend that the last step asked for.
fn connected(bench: &Bench) -> SocketId {
    let of = |op: &Op| match op {
        Op::Connect { socket, .. } => Some(*socket),
        _ => None,
    };
    bench.out.ops.iter().find_map(of).expect("a stream to the backend")
}

/// Time goes by.
fn pass(bench: &mut Bench, time: Duration) -> Vec<Op> {
    bench.now = bench.now + time;
    bench.step(Vec::new(), b"")
}

/// By when what is there has to end, in whole seconds; none: a change gives it no deadline.
fn ends_in(bench: &mut Bench) -> Option<u64> {
    let filter = Filter { limit: 9, ..Filter::default() };
    let ops = bench.step(vec![Event::Command { ticket: Ticket(2), command: Command::Connections(filter) }], b"");
    let reply = ops.into_iter().find_map(|op| match op {
        Op::Reply { reply: Reply::Connections(all), .. } => Some(all),
        _ => None,
    });
    let all = reply.expect("a reply");
    assert_eq!(all.len(), 1, "it lives");
    all[0].ends_in_ms.map(|left| left.div_ceil(1_000))
}

/// One change after another, with time between them: to and fro, and to again.
fn flaps(protocol: Protocol, mut turn: impl FnMut(&mut Bench, bool), grace: Duration) {
    let mut bench = bench(protocol);
    assert_eq!(ends_in(&mut bench), None);
    turn(&mut bench, false);
    assert_eq!(ends_in(&mut bench), Some(grace.as_secs()));
    pass(&mut bench, Duration::from_millis(500));
    turn(&mut bench, true);
    assert_eq!(ends_in(&mut bench), None, "{protocol:?}: what it stands on is there");
    pass(&mut bench, grace - Duration::from_millis(700));
    turn(&mut bench, false);
    assert_eq!(ends_in(&mut bench), Some(grace.as_secs()), "{protocol:?}: it is given all its time");
    let ops = pass(&mut bench, grace - Duration::from_millis(10));
    assert_eq!(bench.ends(&ops), [""; 0], "{protocol:?}");
    let ops = pass(&mut bench, Duration::from_millis(20));
    assert!(!bench.ends(&ops).is_empty(), "{protocol:?}: and no more");
}

/// Going over to documents, by turns.
fn published(protocol: Protocol, without: Document) -> impl FnMut(&mut Bench, bool) {
    let mut generation = 1;
    move |bench, is_back| {
        generation += 1;
        let with = document(protocol);
        bench.publish(if is_back { &with } else { &without }, generation);
    }
}

#[test]
fn a_backend_that_comes_back_ends_nothing_and_goes_anew() {
    for protocol in [Protocol::Tcp, Protocol::Http] {
        let mut without = document(protocol);
        without.clusters.get_mut(&Name::new("c")).expect("c").backends = vec![Backend::at(addr("10.0.0.2:80"))];
        flaps(protocol, published(protocol, without), GRACE);
    }
}

#[test]
fn a_backend_that_rises_ends_nothing_and_falls_anew() {
    for protocol in [Protocol::Tcp, Protocol::Http] {
        let turn = |bench: &mut Bench, up| {
            let at = addr("10.0.0.1:80");
            let (cluster, backend, address) = ("c".into(), Backend::at(at).name, Endpoint::Ip(at));
            let health = BackendHealth { cluster, backend, address, up, why: None };
            bench.step(vec![Event::Command { ticket: Ticket(3), command: Command::Health(health) }], b"");
        };
        flaps(protocol, turn, GRACE);
    }
}

#[test]
fn a_route_that_comes_back_ends_nothing_and_goes_anew() {
    for protocol in [Protocol::Tcp, Protocol::Http] {
        let without = Document { routes: Objects::default(), ..document(protocol) };
        flaps(protocol, published(protocol, without), GRACE);
    }
}

#[test]
fn a_listener_that_comes_back_ends_nothing_and_goes_anew() {
    for protocol in [Protocol::Tcp, Protocol::Http] {
        // The route is nothing without it.
        let without = Document { listeners: Objects::default(), ..document(protocol) };
        flaps(protocol, published(protocol, without), GRACE * 2);
    }
}

#[test]
fn an_ejection_that_is_over_ends_nothing() {
    let mut bench = bench(Protocol::Tcp);
    let client = bench.client;
    bench.client = bench.connect("192.0.2.8:1000");
    let socket = connected(&bench);
    bench.step(vec![Event::OpenFailed { socket, error: OpenError::Unreachable }], b"");
    bench.client = client;
    assert_eq!(ends_in(&mut bench), Some(5));
    pass(&mut bench, Duration::from_millis(1_010));
    assert_eq!(ends_in(&mut bench), None);
}

#[test]
fn what_comes_back_takes_no_other_deadline_with_it() {
    for protocol in [Protocol::Tcp, Protocol::Http] {
        let mut bench = bench(protocol);
        let mut without = document(protocol);
        without.clusters.get_mut(&Name::new("c")).expect("c").backends = vec![Backend::at(addr("10.0.0.2:80"))];
        bench.publish(&without, 2);
        bench.step(vec![Event::Command { ticket: Ticket(3), command: Command::Drain { within: None } }], b"");
        assert_eq!(ends_in(&mut bench), Some(5), "the earlier one counts");
        bench.publish(&document(protocol), 3);
        assert_eq!(ends_in(&mut bench), Some(10), "{protocol:?}: the process drains all the same");
        let ops = pass(&mut bench, GRACE * 2 + Duration::from_millis(10));
        assert!(!bench.ends(&ops).is_empty(), "{protocol:?}");
        let done = |ops: &[Op]| ops.iter().any(|op| matches!(op, Op::Notice(Notice::Drained)));
        assert!(done(&ops) || done(&pass(&mut bench, GRACE)), "{protocol:?}");
    }
}
