//! A worker driven by hand, one fact a test: which connections to backends carry a further request, and how a request goes
//! on that has to be sent again.

mod common;
#[path = "common/restored.rs"]
mod restored;

use std::collections::BTreeMap;

use kakei_config::*;
use kakei_proxy::seam::*;

use common::{Bench, addr, all_of, ends, opened};

const ASKS: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const NOTHING: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// So many backends behind a listener's route.
fn document(backends: u8, cluster: Cluster, route: Route) -> Document {
    let backends = (1..=backends).map(|at| Backend::at(addr(&format!("10.0.0.{at}:80")))).collect();
    let cluster = Cluster { backends, ..cluster };
    let route = Route { listener: "web".into(), cluster: Some("c".into()), ..route };
    let listener = Listener { protocol: Protocol::Http, bind: vec![addr("0.0.0.0:80")], ..Listener::default() };
    Document {
        listeners: [("web".into(), listener)].into(),
        clusters: [("c".into(), cluster)].into(),
        routes: [("r".into(), route)].into(),
        ..Document::default()
    }
}

/// A worker that runs this.
fn bench(backends: u8, cluster: Cluster, route: Route) -> Bench {
    Bench::new(document(backends, cluster, route), Listener::default())
}

/// A stream that a step asks for, and the backend that it leads to.
fn connected(ops: &[Op]) -> Option<(SocketId, String)> {
    ops.iter().find_map(|op| match op {
        Op::Connect { socket, remote, .. } => Some((*socket, remote.to_string())),
        _ => None,
    })
}

impl Bench {
    fn open(&mut self, socket: SocketId) -> Vec<Op> {
        self.step(vec![Event::Opened { socket, local: addr("10.9.9.9:9") }], b"")
    }

    /// It says this.
    fn hear(&mut self, socket: SocketId, bytes: &[u8]) -> Vec<Op> {
        self.step(vec![Event::Data { socket, bytes: all_of(bytes) }], bytes)
    }

    /// It is gone.
    fn lose(&mut self, socket: SocketId) -> Vec<Op> {
        self.step(vec![Event::Broken { socket, by: BrokenBy::Peer }], b"")
    }

    /// Whether a step sends it a request, at once or as soon as it is open.
    fn is_asked(&self, ops: &[Op], of: SocketId) -> bool {
        ends(ops, of) == ["write"] || connected(ops).is_some_and(|(socket, _)| socket == of)
    }

    /// What it is told in this step.
    fn told(&self, ops: &[Op], of: SocketId) -> String {
        let written = ops.iter().filter_map(|op| match op {
            Op::Write { socket, bytes } if *socket == of => {
                Some(String::from_utf8_lossy(bytes.head.of(&self.out.bytes)))
            }
            _ => None,
        });
        written.collect()
    }

    /// The client's request goes over a new connection, which is open then.
    fn ask(&mut self, request: &[u8]) -> SocketId {
        let backend = opened(&self.say(request));
        self.open(backend);
        backend
    }
}

#[test]
fn what_a_backend_may_send_behind_an_answer_without_a_body_reaches_no_other_request() {
    let belied = [
        &b"HTTP/1.1 204 No\r\nContent-Length: 73\r\n\r\n"[..],
        b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n",
    ];
    for answer in belied {
        let mut bench = bench(1, Cluster::default(), Route::default());
        let backend = bench.ask(ASKS);
        let ops = bench.hear(backend, answer);
        assert_eq!((bench.ends(&ops), ends(&ops, backend)), (vec!["write"], vec!["reset"]));
        assert!(connected(&bench.say(ASKS)).is_some(), "on a connection of its own");
    }
    let mut bench = bench(1, Cluster::default(), Route::default());
    let backend = bench.ask(ASKS);
    bench.hear(backend, b"HTTP/1.1 304 No\r\nContent-Length: 73\r\n\r\n");
    assert_eq!(ends(&bench.say(ASKS), backend), ["write"]);
}

/// A cluster whose backends have room for one request each.
fn narrow(balance: Balance) -> Cluster {
    let tcp = TcpKnobs { connections_per_backend: 1, ..TcpKnobs::default() };
    Cluster { balance, tcp, ..Cluster::default() }
}

/// A route whose requests are tried once more after this.
fn retrying(on: RetryOn) -> Route {
    Route { retry: Retry { attempts: 1, on: vec![on], budget: 100 }, ..Route::default() }
}

#[test]
fn connections_without_a_proxy_header_are_left_where_there_is_to_be_one() {
    let mut bench = bench(1, Cluster::default(), Route::default());
    let kept = bench.ask(ASKS);
    bench.hear(kept, NOTHING);
    let client = bench.connect("192.0.2.8:1000");
    bench.hear(client, ASKS);
    let other = bench.ask(ASKS);
    let speaks = Cluster { send_proxy_protocol: StreamProxyProtocol::V1, ..Cluster::default() };
    let ops = bench.publish(&document(1, speaks, Route::default()), 2);
    assert_eq!((ends(&ops, kept), ends(&ops, other)), (vec![], vec![]), "requests are under way on both");
    for (socket, of) in [(kept, client), (other, bench.client)] {
        let ops = bench.hear(socket, NOTHING);
        assert_eq!((ends(&ops, of), ends(&ops, socket)), (vec!["write"], vec!["close"]));
    }
    let backend = opened(&bench.say(ASKS));
    let ops = bench.open(backend);
    assert!(bench.told(&ops, backend).starts_with("PROXY TCP4 192.0.2.7 "), "{ops:?}");

    let mut bench = self::bench(1, Cluster::default(), Route::default());
    let kept = bench.ask(ASKS);
    bench.hear(kept, NOTHING);
    let speaks = Cluster { send_proxy_protocol: StreamProxyProtocol::V2, ..Cluster::default() };
    let ops = bench.publish(&document(1, speaks, Route::default()), 2);
    assert_eq!(ends(&ops, kept), ["close"], "it waits for nothing that could come");
}

#[test]
fn where_one_backend_is_full_the_others_share_what_comes() {
    for balance in [Balance::RoundRobin, Balance::Random] {
        let mut bench = bench(4, narrow(balance), Route::default());
        let (busy, full) = connected(&bench.say(ASKS)).expect("a try");
        bench.open(busy);
        let client = bench.connect("192.0.2.7:1001");
        let (mut places, mut came) = (BTreeMap::new(), BTreeMap::<String, u32>::new());
        for _ in 0..120 {
            let ops = bench.hear(client, ASKS);
            if let Some((socket, place)) = connected(&ops) {
                bench.open(socket);
                places.insert(socket, place);
            }
            let asked = places.keys().copied().find(|socket| bench.is_asked(&ops, *socket)).expect("a backend");
            *came.entry(places[&asked].clone()).or_default() += 1;
            bench.hear(asked, NOTHING);
        }
        assert!(!came.contains_key(&full));
        assert!(came.len() == 3 && came.values().all(|times| *times >= 20), "{balance:?}: {came:?}");
    }
}

#[test]
fn where_one_backend_failed_the_others_share_what_is_tried_again() {
    for balance in [Balance::RoundRobin, Balance::Random] {
        let cluster = Cluster { balance, ..Cluster::default() };
        let mut bench = bench(4, cluster, retrying(RetryOn::Connect));
        let mut came = BTreeMap::<String, u32>::new();
        let mut failed = 0;
        for port in 1000..1200 {
            let client = bench.connect(&format!("192.0.2.7:{port}"));
            let Some((first, place)) = connected(&bench.hear(client, ASKS)) else { continue };
            if place != "10.0.0.1:80" {
                bench.lose(client);
                continue;
            }
            failed += 1;
            let ops = bench.step(vec![Event::OpenFailed { socket: first, error: OpenError::Unreachable }], b"");
            *came.entry(connected(&ops).expect("another try").1).or_default() += 1;
            bench.lose(client);
        }
        assert!(failed >= 30, "{failed}");
        assert!(came.len() == 3 && came.values().all(|times| *times >= failed / 6), "{balance:?}: {came:?}");
    }
}

#[test]
fn what_becomes_a_connection_of_its_own_goes_over_a_new_one() {
    let upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    let connect = b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n";
    for request in [&upgrade[..], connect] {
        let route = || Route { connect: true, ..Route::default() };
        let mut bench = bench(1, Cluster::default(), route());
        let kept = bench.ask(ASKS);
        bench.hear(kept, NOTHING);
        let client = bench.connect("192.0.2.8:1000");
        let ops = bench.hear(client, request);
        assert!(connected(&ops).is_some() && ends(&ops, kept).is_empty(), "{ops:?}");
        assert_eq!(ends(&bench.say(ASKS), kept), ["write"], "it waits for others as before");

        // There may be no more than one.
        let mut bench = self::bench(1, narrow(Balance::RoundRobin), route());
        let kept = bench.ask(ASKS);
        bench.hear(kept, NOTHING);
        let ops = bench.say(request);
        assert!(connected(&ops).is_some(), "{ops:?}");
        assert_eq!(ends(&ops, kept), ["close"], "the one that waits makes room");
    }
}

#[test]
fn who_had_a_connection_that_was_dead_gets_a_new_one_before_those_that_wait() {
    let cluster = narrow(Balance::RoundRobin);
    let cluster = Cluster { tcp: TcpKnobs { queue: 1, ..cluster.tcp }, ..cluster };
    let mut bench = bench(1, cluster, Route::default());
    let kept = bench.ask(ASKS);
    bench.hear(kept, NOTHING);
    assert_eq!(ends(&bench.say(ASKS), kept), ["write"]);
    let waiting = bench.connect("192.0.2.8:1000");
    assert_eq!(connected(&bench.hear(waiting, ASKS)), None, "it waits");
    let ops = bench.lose(kept);
    let (next, _) = connected(&ops).expect("a new one");
    assert_eq!((bench.ends(&ops), ends(&ops, waiting)), (vec![], vec![]));
    bench.open(next);
    let ops = bench.hear(next, NOTHING);
    assert_eq!((bench.ends(&ops), ends(&ops, waiting)), (vec!["write"], vec![]));
    assert!(ends(&ops, next).ends_with(&["write"]) || ends(&bench.step(Vec::new(), b""), next) == ["write"], "{ops:?}");
}

#[test]
fn who_has_to_wait_for_another_try_stands_before_all_others_however_many_they_are() {
    let cluster = narrow(Balance::RoundRobin);
    let cluster = Cluster { tcp: TcpKnobs { queue: 2, ..cluster.tcp }, ..cluster };
    let mut bench = bench(2, cluster, retrying(RetryOn::Connect));
    let (failing, _) = connected(&bench.say(ASKS)).expect("a try");
    let [second, third, last] = ["192.0.2.8:1000", "192.0.2.9:1000", "192.0.2.10:1000"].map(|at| bench.connect(at));
    let (busy, busy_at) = connected(&bench.hear(second, ASKS)).expect("the other backend");
    bench.open(busy);
    for waiting in [third, last] {
        assert_eq!(connected(&bench.hear(waiting, ASKS)), None, "it waits");
    }
    let ops = bench.step(vec![Event::OpenFailed { socket: failing, error: OpenError::Unreachable }], b"");
    assert_eq!(bench.ends(&ops), [""; 0], "it waits for the busy one, as the third");
    let ops = if connected(&ops).is_some() { ops } else { bench.step(Vec::new(), b"") };
    let (other, other_at) = connected(&ops).expect("who can't use the failing one holds nobody up");
    assert_ne!(other_at, busy_at);
    bench.open(other);
    bench.hear(busy, NOTHING);
    bench.step(Vec::new(), b"");
    let ops = bench.hear(busy, NOTHING);
    assert_eq!((bench.ends(&ops), ends(&ops, last)), (vec!["write"], vec![]));
}

#[test]
fn a_dead_connection_takes_no_try_from_those_that_the_route_grants() {
    let mut next = document(2, Cluster::default(), retrying(RetryOn::Status(502)));
    let cluster = next.clusters.get_mut(&Name::new("c")).expect("a cluster");
    cluster.backends[0].weight = 250;
    let mut bench = Bench::new(next, Listener::default());
    let kept = bench.ask(ASKS);
    bench.hear(kept, NOTHING);
    assert_eq!(ends(&bench.say(ASKS), kept), ["write"]);
    let (again, again_at) = connected(&bench.lose(kept)).expect("once more");
    bench.open(again);
    let ops = bench.hear(again, b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n");
    let (other, other_at) = connected(&ops).expect("the try that the route grants");
    assert_ne!(other_at, again_at);
    bench.open(other);
    let ops = bench.hear(other, b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((connected(&ops), bench.ends(&ops)), (None, vec!["write"]));
}

#[test]
fn a_connection_whose_answer_is_not_passed_on_is_kept_where_all_of_that_is_there() {
    let whole =
        ["Content-Length: 0\r\n\r\n", "Content-Length: 4\r\n\r\nbusy", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"];
    let part = [
        "Content-Length: 5\r\n\r\nbusy",
        "Content-Length: 3\r\n\r\nbusy",
        "Connection: close\r\nContent-Length: 4\r\n\r\nbusy",
        "\r\nbusy",
    ];
    for (rest, is_kept) in whole.map(|rest| (rest, true)).into_iter().chain(part.map(|rest| (rest, false))) {
        let mut bench = bench(2, Cluster::default(), retrying(RetryOn::Status(503)));
        let busy = bench.ask(ASKS);
        let ops = bench.hear(busy, format!("HTTP/1.1 503 Busy\r\n{rest}").as_bytes());
        let (other, _) = connected(&ops).expect("another try");
        assert_eq!(ends(&ops, busy), if is_kept { vec![] } else { vec!["reset"] }, "{rest:?}");
        bench.open(other);
        bench.hear(other, NOTHING);
        let ops = match bench.say(ASKS) {
            ops if ends(&ops, other).is_empty() => ops,
            _ => {
                bench.hear(other, NOTHING);
                bench.say(ASKS)
            }
        };
        assert_eq!(ends(&ops, busy).len(), usize::from(is_kept), "{rest:?}: in its turn");
    }
    // Where it was not heard to its end, what is still to come of the request would be taken for the next one.
    let mut bench = bench(2, Cluster::default(), retrying(RetryOn::Status(503)));
    let busy = bench.ask(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    let ops = bench.hear(busy, b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(ends(&ops, busy), ["reset"]);
}

#[test]
fn a_connection_becomes_nothing_that_its_client_did_not_ask_for() {
    let asks =
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, other\r\nUpgrade: Echo/1\r\n\r\n";
    let ways = [
        ("Upgrade: WebSocket\r\n", true),
        ("Upgrade: echo/1\r\n", true),
        ("Upgrade: other,websocket\r\n", true),
        ("Upgrade: evil\r\n", false),
        ("Upgrade: echo\r\n", false),
        ("Upgrade: websocket\r\nUpgrade: evil\r\n", false),
        ("Upgrade: ,\r\n", false),
        ("", false),
    ];
    for ((fields, passes), is_moved) in ways.into_iter().flat_map(|way| [(way, false), (way, true)]) {
        let mut bench = bench(1, Cluster::default(), Route::default());
        let backend = bench.ask(asks);
        if is_moved {
            bench.restore(&document(1, Cluster::default(), Route::default()));
        }
        let ops = bench.hear(backend, format!("HTTP/1.1 101 So\r\nConnection: upgrade\r\n{fields}\r\n").as_bytes());
        let status = bench.told(&ops, bench.client).split(' ').nth(1).map(str::to_owned);
        assert_eq!(status.as_deref(), Some(if passes { "101" } else { "502" }), "{fields:?}");
    }
    let route = Route { connect: true, ..Route::default() };
    let mut bench = bench(1, Cluster::default(), route);
    let backend =
        opened(&bench.say(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"));
    let ops = bench.open(backend);
    assert!(!bench.told(&ops, backend).contains("pgrade"), "{ops:?}");
    let ops = bench.hear(backend, b"HTTP/1.1 101 So\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert!(bench.told(&ops, bench.client).contains(" 502 "), "{ops:?}");
}

#[test]
fn several_fields_that_say_what_is_accepted_are_one_list() {
    let mut bench = Bench::new(Document::default(), Listener::default());
    let ops = bench.say(b"GET / HTTP/1.1\r\nHost: a\r\nAccept: text/plain;q=0.1\r\nAccept: application/json\r\n\r\n");
    let told = bench.told(&ops, bench.client);
    assert!(told.contains("404") && told.contains("Content-Type: application/json"), "{told}");
}

#[test]
fn a_raised_limit_of_connections_holds_for_those_that_wait() {
    let limited = |most| {
        let tcp = TcpKnobs { connections_per_backend: most, ..TcpKnobs::default() };
        document(1, Cluster { tcp, ..Cluster::default() }, Route::default())
    };
    let mut bench = Bench::new(limited(1), Listener::default());
    bench.ask(ASKS);
    let second = bench.connect("192.0.2.7:1001");
    let ops = bench.hear(second, ASKS);
    assert_eq!(connected(&ops), None, "it waits");
    let ops = bench.publish(&limited(2), 2);
    assert!(connected(&ops).is_some(), "{ops:?}");
}
