//! A worker driven by hand, one fact a test: what is counted and written down of a request whose backend fails it, and who
//! waits for another one meanwhile.

mod common;
#[path = "common/counted.rs"]
mod counted;
#[path = "common/restored.rs"]
mod restored;

use kakei_config::*;
use kakei_proxy::record::{CloseReason, Record};
use kakei_proxy::seam::*;
use kakei_proxy::stats::{BackendMetric, ListenerMetric};

use common::{Bench, addr, all_of, ends, opened};

const ASKS: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const BRINGS: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhello";
const NOTHING: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
const BOTH: [&str; 2] = ["10.0.0.1:80", "10.0.0.2:80"];

/// These backends, all of the same knobs, behind a route. Records are written.
fn document(backends: Vec<Backend>, cluster: Cluster) -> Document {
    let cluster = Cluster { backends, ..cluster };
    let retry = Retry { on: vec![RetryOn::Connect, RetryOn::Reset, RetryOn::Status(503)], ..Retry::default() };
    let route = Route { listener: "web".into(), cluster: Some("c".into()), retry, ..Route::default() };
    let listener = Listener { protocol: Protocol::Http, bind: vec![addr("0.0.0.0:80")], ..Listener::default() };
    Document {
        listeners: [("web".into(), listener)].into(),
        clusters: [("c".into(), cluster)].into(),
        routes: [("r".into(), route)].into(),
        access_log: AccessLog { to: Some("stdout".into()), ..AccessLog::default() },
        ..Document::default()
    }
}

/// A worker with these backends behind a route, and bodies of eight bytes at most.
fn bench(backends: &[&str]) -> Bench {
    let backends = backends.iter().map(|at| Backend::at(addr(at))).collect();
    let http = HttpListener { max_body: 8, ..HttpListener::default() };
    Bench::new(document(backends, Cluster::default()), Listener { http, ..Listener::default() })
}

/// Whose backends have room for one request each.
fn narrow() -> Cluster {
    Cluster { tcp: TcpKnobs { connections_per_backend: 1, ..TcpKnobs::default() }, ..Cluster::default() }
}

/// A stream that a step asks for, and the backend that it leads to.
fn connected(ops: &[Op]) -> Option<(SocketId, String)> {
    ops.iter().find_map(|op| match op {
        Op::Connect { socket, remote, .. } => Some((*socket, remote.to_string())),
        _ => None,
    })
}

impl Bench {
    fn open(&mut self, socket: SocketId) {
        self.step(vec![Event::Opened { socket, local: addr("10.9.9.9:9") }], b"");
    }

    /// It says this.
    fn hear(&mut self, socket: SocketId, bytes: &[u8]) -> Vec<Op> {
        self.step(vec![Event::Data { socket, bytes: all_of(bytes) }], bytes)
    }
}

fn refused(socket: SocketId) -> Vec<Event> {
    vec![Event::OpenFailed { socket, error: OpenError::Unreachable }]
}

fn record(ops: &[Op]) -> &Record {
    let record = ops.iter().find_map(|op| match op {
        Op::Record(record) => Some(record),
        _ => None,
    });
    record.expect("a record")
}

/// The backend that a record names.
fn named(record: &Record) -> Option<&str> {
    record.backend.as_ref().map(Name::as_str)
}

/// What the listener says that went to backends, and each backend: what it was sent, connections to it that failed, and
/// requests that were tried elsewhere after it.
fn counted(bench: &mut Bench) -> (u64, Vec<[u64; 3]>) {
    let of = [BackendMetric::BytesSent, BackendMetric::ConnectFailures, BackendMetric::Retries];
    bench.counted(ListenerMetric::BytesForwarded, of)
}

#[test]
fn where_nobody_else_is_left_there_is_no_further_try_and_the_record_names_who_failed() {
    let mut bench = bench(&["10.0.0.1:80"]);
    let backend = opened(&bench.say(ASKS));
    let ops = bench.step(refused(backend), b"");
    assert_eq!((connected(&ops), bench.ends(&ops)), (None, vec!["write"]));
    let record = record(&ops);
    assert_eq!((record.reason, named(record)), (CloseReason::ConnectFailed, Some("10.0.0.1:80")));
    assert_eq!(record.backend_address.as_ref().map(ToString::to_string).as_deref(), Some("10.0.0.1:80"));
    assert_eq!(counted(&mut bench), (0, vec![[0, 1, 0]]));
}

#[test]
fn each_backend_is_tried_once_and_the_last_one_is_the_record_s() {
    let mut bench = bench(&BOTH);
    let (first, first_at) = connected(&bench.say(ASKS)).expect("a try");
    let (second, second_at) = connected(&bench.step(refused(first), b"")).expect("another one");
    assert_ne!(first_at, second_at);
    let ops = bench.step(refused(second), b"");
    assert_eq!(connected(&ops), None);
    assert_eq!(named(record(&ops)), Some(&second_at[..]));
    let mut rows = counted(&mut bench).1;
    rows.sort_unstable();
    assert_eq!(rows, [[0, 1, 0], [0, 1, 1]], "one of them was left for the other");
}

#[test]
fn what_a_backend_took_of_a_body_before_it_failed_is_counted_and_what_nobody_got_is_not() {
    let mut bench = self::bench(&["10.0.0.1:80"]);
    let backend = opened(&bench.say(BRINGS));
    bench.open(backend);
    bench.say(b"!");
    let ops = bench.step(vec![Event::Broken { socket: backend, by: BrokenBy::Peer }], b"");
    let record = record(&ops);
    assert_eq!((record.reason, record.request_bytes), (CloseReason::BackendReset, 6));
    assert_eq!(named(record), Some("10.0.0.1:80"));
    assert_eq!(counted(&mut bench), (6, vec![[6, 0, 0]]));

    let mut bench = self::bench(&["10.0.0.1:80"]);
    let backend = opened(&bench.say(BRINGS));
    bench.step(refused(backend), b"");
    assert_eq!(counted(&mut bench), (0, vec![[0, 1, 0]]));
}

#[test]
fn a_body_that_is_too_long_went_to_its_backend_as_far_as_it_may_be() {
    let mut bench = bench(&["10.0.0.1:80"]);
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let backend = opened(&bench.say(head));
    bench.open(backend);
    let ops = bench.say(b"5\r\nhello\r\n");
    assert_eq!(ends(&ops, backend), ["reset"]);
    assert_eq!((record(&ops).reason, record(&ops).request_bytes), (CloseReason::TooLarge, 5));
    assert_eq!(counted(&mut bench), (5, vec![[5, 0, 0]]));
}

#[test]
fn a_connection_that_was_dead_already_is_the_record_s_backend_too() {
    let mut bench = bench(&["10.0.0.1:80"]);
    let first = opened(&bench.say(ASKS));
    bench.open(first);
    bench.hear(first, NOTHING);
    assert_eq!(connected(&bench.say(ASKS)), None, "on the connection that waits");
    let (second, _) =
        connected(&bench.step(vec![Event::Broken { socket: first, by: BrokenBy::Peer }], b"")).expect("a new one");
    let ops = bench.step(refused(second), b"");
    assert_eq!(named(record(&ops)), Some("10.0.0.1:80"));
    assert_eq!(counted(&mut bench), (0, vec![[0, 1, 0]]), "that was no further try");
}

#[test]
fn a_body_is_counted_by_each_backend_that_it_was_sent_to() {
    let put = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let mut bench = bench(&BOTH);
    let (first, _) = connected(&bench.say(put)).expect("a try");
    bench.open(first);
    let (second, second_at) =
        connected(&bench.step(vec![Event::Broken { socket: first, by: BrokenBy::Peer }], b"")).expect("another one");
    bench.open(second);
    let ops = bench.hear(second, NOTHING);
    let record = record(&ops);
    assert_eq!((record.request_bytes, named(record)), (5, Some(&second_at[..])));
    let (forwarded, mut rows) = counted(&mut bench);
    rows.sort_unstable();
    assert_eq!((forwarded, rows), (10, vec![[5, 0, 0], [5, 0, 1]]));
}

fn both() -> Document {
    document(BOTH.map(|at| Backend::at(addr(at))).to_vec(), narrow())
}

/// A worker whose backends have room for one request each, and a request on one of them: the other one.
fn half_busy() -> (Bench, Backend) {
    let mut bench = Bench::new(both(), Listener::default());
    let (busy, busy_at) = connected(&bench.say(ASKS)).expect("a try");
    bench.open(busy);
    let other = BOTH.into_iter().find(|at| *at != busy_at).expect("two");
    (bench, Backend::at(addr(other)))
}

#[test]
fn who_waits_for_another_backend_that_is_taken_away_is_told_why_the_first_one_failed() {
    let busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
    let ways = [(None, CloseReason::BackendReset), (Some(&busy[..]), CloseReason::BadResponse)];
    for ((answer, reason), is_moved) in ways.into_iter().flat_map(|way| [(way, false), (way, true)]) {
        let (mut bench, other) = half_busy();
        let client = bench.connect("192.0.2.8:1000");
        let (first, first_at) = connected(&bench.hear(client, ASKS)).expect("the one with room");
        assert_eq!(first_at, other.address.to_string());
        bench.open(first);
        let ops = match answer {
            None => bench.step(vec![Event::Broken { socket: first, by: BrokenBy::Peer }], b""),
            Some(answer) => bench.hear(first, answer),
        };
        assert_eq!((connected(&ops), ends(&ops, client)), (None, vec![]), "it waits for the busy one");
        if is_moved {
            bench.restore(&both());
        }
        let ops = bench.publish(&document(vec![other], narrow()), 2);
        assert_eq!(record(&ops).reason, reason, "moved: {is_moved}");
    }
}

#[test]
fn who_waits_for_something_else_holds_up_nobody_behind_it_and_keeps_its_place() {
    let (mut bench, other) = half_busy();
    let [ahead, behind, last] = ["192.0.2.8:1000", "192.0.2.9:1000", "192.0.2.10:1000"].map(|at| bench.connect(at));
    let (first, _) = connected(&bench.hear(ahead, ASKS)).expect("the one with room");
    bench.open(first);
    let ops = bench.step(vec![Event::Broken { socket: first, by: BrokenBy::Peer }], b"");
    assert_eq!(connected(&ops), None, "it waits for the busy one");
    let (second, second_at) = connected(&bench.hear(behind, ASKS)).expect("it can't use this one");
    assert_eq!(second_at, other.address.to_string());
    bench.open(second);
    assert_eq!(connected(&bench.hear(last, ASKS)), None, "now both are busy");
    // Whatever of the busy one's gets free is for who came first.
    let ops = bench.step(vec![Event::Broken { socket: bench.client, by: BrokenBy::Peer }], b"");
    let (third, third_at) = connected(&ops).expect("a place");
    assert_ne!(third_at, other.address.to_string());
    bench.open(third);
    let ops = bench.hear(third, NOTHING);
    assert_eq!(ends(&ops, ahead), ["write"]);
}

/// Backends of a cluster with cookies: the old one with this weight, and others.
fn seats(weight: u32, others: &[&str]) -> Document {
    let old = Backend { weight, ..Backend::at(addr("10.0.0.1:80")) };
    let backends = [old].into_iter().chain(others.iter().map(|at| Backend::at(addr(at))));
    let sticky = Sticky { secret: "of sixteen bytes".into(), ..Sticky::default() };
    let http = HttpKnobs { sticky: Some(sticky), ..HttpKnobs::default() };
    document(backends.collect(), Cluster { http, ..narrow() })
}

/// A worker whose new clients go elsewhere, what those of the old backend's cookie ask, and a connection to that one
/// that waits.
fn seated() -> (Bench, Vec<u8>, SocketId) {
    let mut bench = Bench::new(seats(1, &[]), Listener::default());
    let seat = opened(&bench.say(ASKS));
    bench.open(seat);
    bench.hear(seat, NOTHING);
    let head = String::from_utf8_lossy(&bench.out.bytes).into_owned();
    let cookie = head.split("kakei=").nth(1).and_then(|rest| rest.get(..32)).expect("a cookie").to_owned();
    bench.publish(&seats(0, &["10.0.0.2:80"]), 2);
    (bench, format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: kakei={cookie}\r\n\r\n").into_bytes(), seat)
}

#[test]
fn a_further_try_goes_to_the_backend_of_the_client_s_cookie_though_new_clients_do_not() {
    let (mut bench, asks, seat) = seated();
    assert_eq!(connected(&bench.say(&asks)), None, "on the connection that waits");
    let other = bench.connect("192.0.2.8:1000");
    let (second, second_at) = connected(&bench.hear(other, &asks)).expect("a try");
    assert_eq!(second_at, "10.0.0.2:80", "the cookie's has no room");
    // Now it has, and the other one fails.
    bench.hear(seat, NOTHING);
    let ops = bench.step(refused(second), b"");
    assert_eq!((ends(&ops, seat), ends(&ops, other)), (vec!["write"], vec![]), "the cookie's again");
    let ops = bench.hear(seat, NOTHING);
    assert_eq!((record(&ops).reason, named(record(&ops))), (CloseReason::Completed, Some("10.0.0.1:80")));

    // Who finds no room there waits for nobody: others may never get past it.
    assert_eq!(connected(&bench.say(&asks)), None);
    let (second, _) = connected(&bench.hear(other, &asks)).expect("a try");
    let ops = bench.step(refused(second), b"");
    assert_eq!((record(&ops).reason, ends(&ops, other)), (CloseReason::ConnectFailed, vec!["write"]));
    bench.publish(&seats(0, &[]), 3);
    let ops = bench.hear(other, &asks);
    assert_eq!((record(&ops).reason, ends(&ops, other)), (CloseReason::NoBackend, vec!["write"]));
}

#[test]
fn who_has_the_cookie_of_a_backend_that_is_free_waits_behind_nobody_who_has_no_way_there() {
    let (mut bench, asks, seat) = seated();
    let (new, next) = (bench.connect("192.0.2.8:1000"), bench.connect("192.0.2.9:1000"));
    let (busy, _) = connected(&bench.hear(new, ASKS)).expect("a new client goes elsewhere");
    bench.open(busy);
    assert_eq!(connected(&bench.hear(next, ASKS)), None, "and the next one waits for that");
    assert_eq!(ends(&bench.say(&asks), seat), ["write"]);
}

#[test]
fn what_a_change_of_its_route_does_to_a_request_is_no_such_change() {
    let document = |on_change, leads_to: &str| {
        let mut document = document(vec![Backend::at(addr("10.0.0.1:80"))], Cluster::default());
        document.clusters.insert("other".into(), document.clusters[&Name::new("c")].clone());
        let route = document.routes.get_mut(&Name::new("r")).expect("a route");
        (route.on_change, route.cluster) = (on_change, Some(leads_to.into()));
        document
    };
    let mut bench = Bench::new(document(OnChange::Close, "c"), Listener::default());
    bench.say(ASKS);
    let ops = bench.publish(&document(OnChange::Keep, "c"), 2);
    assert_eq!(bench.ends(&ops), [""; 0]);
    // It goes on with what it began with.
    let ops = bench.publish(&document(OnChange::Keep, "other"), 3);
    assert_eq!(record(&ops).reason, CloseReason::RouteChanged);
}

#[test]
fn who_waits_for_a_place_that_a_connection_has_gets_it_when_that_one_s_route_goes() {
    let mut next = document(vec![Backend::at(addr("10.0.0.1:80"))], narrow());
    let mut bench = Bench::new(next.clone(), Listener::default());
    let raw = Listener { protocol: Protocol::Tcp, bind: vec![addr("0.0.0.0:81")], ..Listener::default() };
    let route =
        Route { listener: "raw".into(), cluster: Some("c".into()), on_change: OnChange::Close, ..Route::default() };
    next.listeners.insert("raw".into(), raw);
    next.routes.insert("t".into(), route);
    let front = opened(&bench.publish(&next, 2));
    bench.open(front);
    let (peer, local) = (addr("192.0.2.8:1000"), addr("192.0.2.1:81"));
    let ops = bench.step(vec![Event::Accepted(Accepted { front, arrival: Arrival(2), peer, local })], b"");
    let (backend, _) = connected(&ops).expect("it has the place");
    bench.open(backend);
    assert_eq!(connected(&bench.say(ASKS)), None, "it waits for that");
    next.routes.remove(&Name::new("t"));
    let ops = bench.publish(&next, 3);
    let next = connected(&ops).or_else(|| connected(&bench.step(Vec::new(), b"")));
    assert!(next.is_some(), "its turn: {ops:?}");
}
