//! The whole page of metrics behind traffic that is known: what is counted, each thing once, and nothing else.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Client, Closed, Echo, Room, Running};
use crate::http::{backend, connect};
use crate::tls::{self, Authority};

/// Samples that say how the machine and its workers went about it, what it is like, or how long something took.
const UNTOLD: [&str; 13] = [
    "kakei_worker_",
    "kakei_machine_ticks_",
    "kakei_machine_receive_calls_",
    "kakei_machine_receive_messages_",
    "kakei_machine_send_calls_",
    "kakei_machine_send_messages_",
    "kakei_machine_stream_",
    "kakei_generation{",
    "kakei_workers ",
    "kakei_uptime_",
    "kakei_certificate_",
    "process_",
    "kakei_backend_up{",
];

/// All others that aren't zero, without addresses; of histograms only how much was counted.
fn counted(proxy: &Running) -> Vec<String> {
    let page = proxy.http("GET", "/metrics", &[], "").body;
    let is_told = |line: &&str| {
        let is_part = line.contains("_bucket{") || line.contains("_seconds_sum{");
        !line.starts_with('#') && !line.ends_with(" 0") && !is_part && !UNTOLD.iter().any(|name| line.starts_with(name))
    };
    let bare = |line: &str| match (line.find(",address=\""), line.find('}')) {
        (Some(from), Some(to)) => format!("{}{}", &line[..from], &line[to..]),
        _ => line.to_owned(),
    };
    let mut lines: Vec<String> = page.lines().filter(is_told).map(bare).collect();
    lines.sort();
    lines
}

/// It comes to this, line by line.
fn assert_counted(proxy: &Running, expected: &str) {
    let mut expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    expected.sort_unstable();
    let mut seen = Vec::new();
    for _ in 0..500 {
        seen = counted(proxy);
        if seen == expected {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let more: Vec<&String> = seen.iter().filter(|line| !expected.contains(&line.as_str())).collect();
    let less: Vec<&&str> = expected.iter().filter(|line| !seen.iter().any(|seen| seen == *line)).collect();
    panic!("more than expected: {more:#?}\nless: {less:#?}");
}

fn head(room: &Room) -> String {
    let (socket, log) = (room.path("k.sock"), room.path("access.log"));
    format!("[admin]\nsocket = {socket:?}\n[workers]\ncount = 1\n[access_log]\nto = {log:?}\n")
}

/// A listener on a free port of the loopback address of this number.
fn listener((name, number): (&str, u8), protocol: &str, rest: &str) -> String {
    format!("[listeners.{name}]\nprotocol = \"{protocol}\"\nbind = [\"127.0.0.{number}:0\"]\n{rest}\n")
}

fn cluster(name: &str, at: SocketAddr, rest: &str) -> String {
    format!("[clusters.{name}]\nbackends = [{{ name = \"b\", address = \"{at}\" }}]\n{rest}\n")
}

const DATAGRAMS: &str = r#"
        kakei_access_log_lines_total 1
        kakei_backend_flows_live{cluster="c",backend="b"} 2
        kakei_backend_flows_live{cluster="f",backend="b"} 1
        kakei_backend_flows_opened_total{cluster="c",backend="b"} 2
        kakei_backend_flows_opened_total{cluster="d",backend="b"} 1
        kakei_backend_flows_opened_total{cluster="f",backend="b"} 1
        kakei_backend_returned_bytes_total{cluster="c",backend="b"} 39
        kakei_backend_returned_bytes_total{cluster="d",backend="b"} 3
        kakei_backend_returned_datagrams_total{cluster="c",backend="b"} 4
        kakei_backend_returned_datagrams_total{cluster="d",backend="b"} 1
        kakei_backend_sent_bytes_total{cluster="c",backend="b"} 31
        kakei_backend_sent_bytes_total{cluster="d",backend="b"} 1
        kakei_backend_sent_bytes_total{cluster="f",backend="b"} 2
        kakei_backend_sent_datagrams_total{cluster="c",backend="b"} 4
        kakei_backend_sent_datagrams_total{cluster="d",backend="b"} 1
        kakei_backend_sent_datagrams_total{cluster="f",backend="b"} 1
        kakei_backend_unreachable_total{cluster="f",backend="b"} 1
        kakei_changes_total 1
        kakei_client_datagrams_total{listener="brief"} 1
        kakei_client_datagrams_total{listener="empty"} 1
        kakei_client_datagrams_total{listener="front"} 4
        kakei_client_datagrams_total{listener="lost"} 1
        kakei_client_datagrams_total{listener="narrow"} 2
        kakei_client_datagrams_total{listener="nowhere"} 1
        kakei_dropped_datagrams_total{listener="empty",reason="no_backend"} 1
        kakei_dropped_datagrams_total{listener="front",reason="truncated"} 1
        kakei_dropped_datagrams_total{listener="narrow",reason="flow_limit"} 1
        kakei_dropped_datagrams_total{listener="nowhere",reason="no_route"} 1
        kakei_flows_closed_total{listener="brief",reason="responses_reached"} 1
        kakei_flows_live{listener="front"} 1
        kakei_flows_live{listener="lost"} 1
        kakei_flows_live{listener="narrow"} 1
        kakei_flows_opened_total{listener="brief"} 1
        kakei_flows_opened_total{listener="front"} 1
        kakei_flows_opened_total{listener="lost"} 1
        kakei_flows_opened_total{listener="narrow"} 1
        kakei_forwarded_bytes_total{listener="brief"} 1
        kakei_forwarded_bytes_total{listener="front"} 30
        kakei_forwarded_bytes_total{listener="lost"} 2
        kakei_forwarded_bytes_total{listener="narrow"} 1
        kakei_forwarded_datagrams_total{listener="brief"} 1
        kakei_forwarded_datagrams_total{listener="front"} 3
        kakei_forwarded_datagrams_total{listener="lost"} 1
        kakei_forwarded_datagrams_total{listener="narrow"} 1
        kakei_machine_receive_datagrams_total 15
        kakei_machine_send_datagrams_total 11
        kakei_machine_sockets 9
        kakei_machine_sockets_opened_total 10
        kakei_machine_unreachable_total 1
        kakei_replies_total{cluster="c"} 4
        kakei_replies_total{cluster="d"} 1
        kakei_returned_replies_total{cluster="c"} 4
        kakei_returned_replies_total{cluster="d"} 1
"#;

#[test]
fn datagrams_are_counted_where_they_went_and_why_they_did_not() {
    let room = Room::new("metered-udp");
    let echo = Echo::start("a");
    // Bound, and deaf to all but itself: whoever else sends there is told that it can't be reached.
    let deaf = UdpSocket::bind("127.0.0.1:0").unwrap();
    deaf.connect(deaf.local_addr().unwrap()).unwrap();
    let text = [
        head(&room),
        listener(("front", 1), "udp", "cluster = \"c\"\nmax_datagram_size = \"100B\""),
        listener(("narrow", 2), "udp", "cluster = \"c\"\nlimits = { flows = 1 }"),
        listener(("nowhere", 3), "udp", ""),
        listener(("empty", 4), "udp", "cluster = \"e\""),
        listener(("brief", 5), "udp", "cluster = \"d\""),
        listener(("lost", 6), "udp", "cluster = \"f\""),
        "[routes.r]\nlistener = \"nowhere\"\nsource = [\"127.0.0.9/32\"]\ncluster = \"c\"\n".to_owned(),
        cluster("c", echo.address, ""),
        cluster("d", echo.address, "udp = { responses = 1 }"),
        cluster("e", echo.address, "").replace("name = \"b\"", "name = \"b\", weight = 0"),
        cluster("f", deaf.local_addr().unwrap(), ""),
    ];
    let proxy = Running::start(&room, &text.concat());
    let client = Client::new(proxy.address("front"));
    for _ in 0..3 {
        assert!(client.ask("ten bytes.").is_some());
    }
    client.send(&"x".repeat(101));
    assert!(Client::new(proxy.address("narrow")).ask("x").is_some());
    for name in ["narrow", "nowhere", "empty", "lost"] {
        assert!(Client::new(proxy.address(name)).hears_nothing("yz"));
    }
    assert!(Client::new(proxy.address("brief")).ask("x").is_some());
    assert_counted(&proxy, DATAGRAMS);
}

const STREAMS: &str = r#"
        kakei_access_log_lines_total 2
        kakei_backend_connect_failures_total{cluster="d",backend="b"} 1
        kakei_backend_connections_live{cluster="c",backend="b"} 1
        kakei_backend_connections_opened_total{cluster="c",backend="b"} 2
        kakei_backend_connections_opened_total{cluster="d",backend="b"} 1
        kakei_backend_returned_bytes_total{cluster="c",backend="b"} 6
        kakei_backend_sent_bytes_total{cluster="c",backend="b"} 6
        kakei_changes_total 1
        kakei_connections_closed_total{listener="dead",reason="connect_failed"} 1
        kakei_connections_closed_total{listener="front",reason="closed"} 1
        kakei_connections_live{listener="narrow"} 1
        kakei_connections_opened_total{listener="dead"} 1
        kakei_connections_opened_total{listener="front"} 1
        kakei_connections_opened_total{listener="narrow"} 1
        kakei_forwarded_bytes_total{listener="front"} 5
        kakei_forwarded_bytes_total{listener="narrow"} 1
        kakei_machine_accepted_total 4
        kakei_machine_open_failures_total 1
        kakei_machine_refused_total 1
        kakei_machine_sockets 5
        kakei_machine_sockets_opened_total 5
        kakei_refused_connections_total{listener="narrow",reason="connection_limit"} 1
"#;

#[test]
fn streams_are_counted_where_they_went_and_why_they_did_not() {
    let room = Room::new("metered-tcp");
    let closed = Closed::new();
    let text = [
        head(&room),
        listener(("front", 1), "tcp", "cluster = \"c\""),
        listener(("dead", 7), "tcp", "cluster = \"d\""),
        listener(("narrow", 2), "tcp", "cluster = \"c\"\nlimits = { connections = 1 }"),
        cluster("c", tls::echo(), ""),
        cluster("d", closed.address, ""),
    ];
    let proxy = Running::start(&room, &text.concat());
    let mut client = connect(proxy.address("front"));
    client.write_all(b"hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"hello");
    let _ = connect(proxy.address("dead")).read(&mut [0]);
    let mut first = connect(proxy.address("narrow"));
    first.write_all(b"x").unwrap();
    first.read_exact(&mut [0]).unwrap();
    let _ = connect(proxy.address("narrow")).read(&mut [0]);
    assert_counted(&proxy, STREAMS);
    let bytes =
        ["read", "written"].map(|of| proxy.metrics().sum(&format!("kakei_machine_stream_{of}_bytes_total"), ""));
    assert_eq!(bytes, [12, 12], "each of six, there and back");
}

const REQUESTS: &str = r#"
        kakei_access_log_lines_total 11
        kakei_backend_connect_failures_total{cluster="d",backend="b"} 2
        kakei_backend_connections_live{cluster="c",backend="b"} 1
        kakei_backend_connections_opened_total{cluster="c",backend="b"} 1
        kakei_backend_connections_opened_total{cluster="d",backend="b"} 2
        kakei_backend_requests_total{cluster="c",backend="b"} 4
        kakei_backend_requests_total{cluster="d",backend="b"} 2
        kakei_backend_returned_bytes_total{cluster="c",backend="b"} RETURNED
        kakei_backend_reused_connections_total{cluster="c",backend="b"} 3
        kakei_changes_total 1
        kakei_cluster_connect_seconds_count{cluster="c"} 1
        kakei_cluster_first_byte_seconds_count{cluster="c"} 4
        kakei_cluster_request_seconds_count{cluster="c"} 4
        kakei_cluster_request_seconds_count{cluster="d"} 2
        kakei_connections_closed_total{listener="front",reason="closed"} 2
        kakei_connections_closed_total{listener="front",reason="tls_missing"} 1
        kakei_connections_opened_total{listener="front"} 3
        kakei_machine_accepted_total 3
        kakei_machine_open_failures_total 2
        kakei_machine_sockets 2
        kakei_machine_sockets_opened_total 2
        kakei_requests_ended_total{listener="front",reason="answered"} 2
        kakei_requests_ended_total{listener="front",reason="completed"} 4
        kakei_requests_ended_total{listener="front",reason="connect_failed"} 2
        kakei_requests_ended_total{listener="front",reason="denied"} 2
        kakei_requests_total{listener="front"} 10
        kakei_responses_2xx_total{listener="front"} 4
        kakei_responses_3xx_total{listener="front"} 2
        kakei_responses_4xx_total{listener="front"} 2
        kakei_responses_5xx_total{listener="front"} 2
        kakei_route_connect_seconds_count{listener="front",route=""} 1
        kakei_route_first_byte_seconds_count{listener="front",route=""} 4
        kakei_route_request_seconds_count{listener="front",route=""} 4
        kakei_route_request_seconds_count{listener="front",route="dead"} 2
        kakei_route_request_seconds_count{listener="front",route="denied"} 2
        kakei_route_request_seconds_count{listener="front",route="moved"} 2
        kakei_tls12_handshakes_total{listener="front"} 1
        kakei_tls13_handshakes_total{listener="front"} 1
        kakei_tls_failed_handshakes_total{listener="front"} 1
"#;

#[test]
fn requests_are_counted_by_what_they_came_to() {
    let (room, authority) = (Room::new("metered-http"), Authority::new());
    let closed = Closed::new();
    let route = |path: &str, rest: &str| format!("[routes.{path}]\nlistener = \"front\"\npath = \"/{path}\"\n{rest}\n");
    let text = [
        head(&room),
        listener(("front", 1), "http", "cluster = \"c\"\ntls = { certificates = [\"one\"], min_version = \"1.2\" }"),
        route("moved", "redirect = { status = 301, path = \"/else\" }"),
        route("denied", "deny = [\"0.0.0.0/0\"]\ncluster = \"c\""),
        route("dead", "cluster = \"d\""),
        cluster("c", backend("a"), ""),
        cluster("d", closed.address, ""),
        authority.make(&["one.test"], |_| {}).put(&room, "one"),
    ];
    let proxy = Running::start(&room, &text.concat());
    let (front, mut returned, begun) = (proxy.address("front"), 0, Instant::now());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(tls::config(&authority, &[version]));
        let mut stream = tls::connect(front, "one.test", &config).unwrap();
        returned += ["/a", "/b"].map(|path| tls::get(&mut stream, "one.test", path).1.len()).iter().sum::<usize>();
        for path in ["/moved", "/denied", "/dead"] {
            tls::get(&mut stream, "one.test", path);
        }
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        let _ = stream.sock.read_to_end(&mut Vec::new());
    }
    let mut plain = TcpStream::connect(front).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let _ = plain.read_to_end(&mut Vec::new());
    assert_counted(&proxy, &REQUESTS.replace("RETURNED", &returned.to_string()));

    // Requests of the one route are all of the one cluster's, and each waited for its connection before its answer.
    let page = proxy.http("GET", "/metrics", &[], "").body;
    let sum = |name: &str| -> f64 {
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
    };
    let [connect, first, whole] = ["connect", "first_byte", "request"].map(|of| {
        let (route, cluster) = (
            sum(&format!("kakei_route_{of}_seconds_sum{{listener=\"front\",route=\"\"}}")),
            sum(&format!("kakei_cluster_{of}_seconds_sum{{cluster=\"c\"}}")),
        );
        assert_eq!(route.to_bits(), cluster.to_bits(), "{of}");
        route
    });
    assert!(0.0 < connect && connect < first && first <= whole && whole < begun.elapsed().as_secs_f64());
}
