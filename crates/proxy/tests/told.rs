//! A worker driven by hand: what a backend is told of who asks, and what of it a client may say itself.

mod common;

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
