//! A worker driven by hand: what a backend is told of who asks, also by a health check, and what of it a client may say
//! itself.

mod common;

use std::time::Duration;

use kakei_config::*;
use kakei_proxy::seam::*;

use common::{Bench, addr, all_of, opened};

const ASKS: &[u8] = b"GET /a HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n\
    Forwarded: for=203.0.113.9\r\nX-Request-Id: known\r\nAccept: */*\r\n\r\n";

const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// The fields of the request that the backend gets, but for those that no knob is about.
fn told(http: HttpListener) -> Vec<String> {
    let cluster = Cluster { backends: vec![Backend::at(addr("10.0.0.1:80"))], ..Cluster::default() };
    let document = Document { clusters: [("c".into(), cluster)].into(), ..Document::default() };
    let mut bench = Bench::new(document, Listener { cluster: Some("c".into()), http, ..Listener::default() });
    let backend = opened(&bench.say(ASKS));
    let ops = bench.step(vec![Event::Opened { socket: backend, local: addr("10.9.9.9:9") }], b"");
    let head = ops.iter().find_map(|op| match op {
        Op::Write { socket, bytes } if *socket == backend => Some(bytes.head.of(&bench.out.bytes).to_vec()),
        _ => None,
    });
    let head = String::from_utf8(head.expect("the request goes to the backend")).expect("text");
    let ops = bench.step(vec![Event::Data { socket: backend, bytes: all_of(ANSWER) }], ANSWER);
    assert_eq!(bench.ends(&ops), ["write"], "and is answered");
    let (line, fields) = head.trim_end().split_once("\r\n").expect("a head");
    assert_eq!(line, "GET /a HTTP/1.1");
    let others = ["Host: a.test", "Accept: */*"];
    assert!(others.iter().all(|other| fields.lines().any(|line| line == *other)), "{fields}");
    let mut fields: Vec<String> = fields.lines().filter(|line| !others.contains(line)).map(str::to_owned).collect();
    fields.sort();
    fields
}

/// Nothing but what these knobs ask for.
fn bare() -> HttpListener {
    HttpListener { x_forwarded: false, request_id: false, ..HttpListener::default() }
}

fn believed(http: HttpListener) -> HttpListener {
    HttpListener { trusted: vec!["192.0.2.0/24".parse().expect("a network")], ..http }
}

#[test]
fn what_a_client_says_of_others_goes_nowhere_unless_it_is_believed() {
    assert_eq!(told(bare()), [""; 0]);
    let own = [
        "Forwarded: for=203.0.113.9",
        "X-Forwarded-For: 203.0.113.9",
        "X-Forwarded-Proto: https",
        "X-Request-Id: known",
    ];
    assert_eq!(told(believed(bare())), own, "what nobody adds to goes on as it came");
}

#[test]
fn x_forwarded_says_who_asks_and_adds_to_what_is_believed() {
    let http = HttpListener { x_forwarded: true, ..bare() };
    let alone =
        ["X-Forwarded-For: 192.0.2.7", "X-Forwarded-Host: a.test", "X-Forwarded-Port: 80", "X-Forwarded-Proto: http"];
    assert_eq!(told(http.clone()), alone);
    let added = told(believed(http));
    assert!(added.contains(&"X-Forwarded-For: 203.0.113.9, 192.0.2.7".to_owned()), "{added:?}");
    assert!(added.contains(&"X-Forwarded-Proto: https".to_owned()), "how the first came: {added:?}");
}

#[test]
fn a_request_is_known_by_one_name_and_the_proxy_by_its_own() {
    let named = HttpListener { request_id: true, ..bare() };
    let [made] = &told(named.clone())[..] else { panic!("one name") };
    let made = made.strip_prefix("X-Request-Id: ").expect("the name");
    assert!(made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
    assert!(told(believed(named)).contains(&"X-Request-Id: known".to_owned()));
    assert_eq!(told(HttpListener { via: Some("edge".into()), ..bare() }), ["Via: 1.1 edge"]);
    let forwarded = told(HttpListener { forwarded: true, ..bare() });
    assert_eq!(forwarded, ["Forwarded: for=192.0.2.7;host=\"a.test\";proto=http"]);
}

/// The PROXY header of version 2 of a proxy that speaks for itself.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// What the first probe of a cluster with this one check says, once its socket is open; none: it says nothing.
fn probed(cluster: Cluster, health: Health) -> Option<Vec<u8>> {
    let backends = vec![Backend::at(addr("10.0.0.1:80"))];
    let cluster = Cluster { backends, health: Some(health.into()), ..cluster };
    let document = Document { clusters: [("c".into(), cluster)].into(), ..Document::default() };
    let mut bench = Bench::new(document, Listener { cluster: Some("c".into()), ..Listener::default() });
    bench.now = bench.now + Duration::from_secs(5);
    let ops = bench.step(Vec::new(), b"");
    let datagram = ops.iter().find_map(|op| match op {
        Op::OpenDatagram { socket, .. } => Some(*socket),
        _ => None,
    });
    let socket = datagram.unwrap_or_else(|| opened(&ops));
    let ops = bench.step(vec![Event::Opened { socket, local: addr("10.9.9.9:9") }], b"");
    ops.iter().find_map(|op| match op {
        Op::Write { bytes, .. } | Op::Send(Send { bytes, .. }) => Some(bytes.head.of(&bench.out.bytes).to_vec()),
        _ => None,
    })
}

fn http(port: Option<u16>) -> Health {
    Health { http: Some(HttpCheck { port, ..HttpCheck::default() }), ..Health::default() }
}

fn tcp(send: &[u8], expect: Option<Expect>) -> Health {
    let check = TcpCheck { send: send.to_vec(), expect, ..TcpCheck::default() };
    Health { tcp: Some(check), ..Health::default() }
}

fn udp(port: Option<u16>) -> Health {
    let check = UdpCheck { send: b"ping".to_vec(), expect: Expect::Any, port };
    Health { udp: Some(check), ..Health::default() }
}

fn over(send_proxy_protocol: StreamProxyProtocol) -> Cluster {
    Cluster { send_proxy_protocol, ..Cluster::default() }
}

fn first(said: Option<Vec<u8>>) -> String {
    String::from_utf8(said.expect("something is said")).expect("text").lines().next().expect("a line").to_owned()
}

#[test]
fn a_health_check_begins_with_the_header_of_the_proxy_itself() {
    let (v1, v2) = (StreamProxyProtocol::V1, StreamProxyProtocol::V2);
    assert_eq!(first(probed(over(v1), http(None))), "PROXY UNKNOWN");
    let request = probed(over(v2), http(None)).expect("a request");
    assert!(request.starts_with(&[LOCAL, b"GET / HTTP/1.1\r\n"].concat()), "{request:?}");
    assert_eq!(probed(over(v2), tcp(b"ping", None)), Some([LOCAL, b"ping"].concat()));
    assert_eq!(
        probed(over(v2), tcp(b"", Some(Expect::Any))),
        Some(LOCAL.to_vec()),
        "a backend that speaks first asks too"
    );
    for every in [SendProxyProtocol::First, SendProxyProtocol::Every] {
        let cluster =
            Cluster { udp: UdpKnobs { send_proxy_protocol: every, ..UdpKnobs::default() }, ..Cluster::default() };
        assert_eq!(probed(cluster.clone(), udp(None)), Some([LOCAL, b"ping"].concat()));
        assert_eq!(probed(cluster, udp(Some(81))), Some(b"ping".to_vec()), "another port is somebody else's");
    }
}

#[test]
fn a_health_check_has_no_header_where_nobody_asks_for_one_or_nothing_is_said() {
    let v2 = StreamProxyProtocol::V2;
    assert_eq!(first(probed(over(StreamProxyProtocol::Off), http(None))), "GET / HTTP/1.1");
    assert_eq!(first(probed(over(v2), http(Some(81)))), "GET / HTTP/1.1", "another port is somebody else's");
    assert_eq!(first(probed(over(v2), http(Some(80)))).len(), 0, "the backend's own is its own, also by its number");
    assert_eq!(probed(over(v2), tcp(b"", None)), None, "that it opens is all");
    assert_eq!(probed(Cluster::default(), udp(None)), Some(b"ping".to_vec()));
}
