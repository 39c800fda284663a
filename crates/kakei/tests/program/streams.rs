//! What TCP clients, backends and operators see.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Client, Echo, Room, Running, SOON, eventually, kakei};

/// A backend that says its name, and what it was told when the client has ended.
fn backend(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let _ = stream.write_all(format!("{name}:").as_bytes());
                let mut buffer = [0; 65_536];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
                let _ = stream.write_all(b".");
            });
        }
    });
    address
}

pub(crate) fn document(room: &Room, backends: &[(&str, SocketAddr)], more: &str) -> String {
    let socket = room.path("k.sock");
    let list: Vec<String> =
        backends.iter().map(|(name, at)| format!("{{ name = \"{name}\", address = \"{at}\" }}")).collect();
    format!(
        "[admin]\nsocket = {socket:?}\n[workers]\ncount = 2\n\
         [listeners.front]\nprotocol = \"tcp\"\nbind = [\"127.0.0.1:0\"]\ncluster = \"c\"\ndrain_timeout = \"2s\"\n\
         [clusters.c]\nbackends = [{}]\n{more}\n",
        list.join(", ")
    )
}

pub(crate) fn connect(front: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(front).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

fn hear(stream: &mut TcpStream, words: &str) {
    let mut buffer = vec![0; words.len()];
    stream.read_exact(&mut buffer).unwrap();
    assert_eq!(String::from_utf8_lossy(&buffer), words);
}

#[test]
fn bytes_and_ends_go_both_ways_and_are_written_down() {
    let room = Room::new("streams");
    let log = room.path("access.log");
    let text = document(&room, &[("a", backend("a"))], &format!("[access_log]\nto = {log:?}\n"));
    let proxy = Running::start(&room, &text);
    let mut client = connect(proxy.front());
    hear(&mut client, "a:");
    client.write_all(b"hello").unwrap();
    hear(&mut client, "hello");
    let rows = proxy.json(&["get", "connections"]);
    assert_eq!((&rows[0]["backend"], &rows[0]["phase"]), (&Value::from("a"), &Value::from("established")));
    client.shutdown(Shutdown::Write).unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, ".", "what the backend says after the client's end arrives");
    let line = eventually("a line", || {
        let text = std::fs::read_to_string(&log).ok()?;
        serde_json::from_str::<Value>(text.lines().next()?).ok()
    });
    let said = (&line["reason"], &line["request_bytes"], &line["response_bytes"], &line["attempts"]);
    assert_eq!(said, (&"closed".into(), &5.into(), &8.into(), &1.into()));
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("kakei_connections_opened_total", ""), 1);
    assert_eq!(metrics.sum("kakei_connections_closed_total", "reason=\"closed\""), 1);
    assert_eq!(metrics.sum("kakei_connections_live", ""), 0);
}

#[test]
fn a_connection_outlives_a_hundred_changes_elsewhere_and_its_backend_where_it_may() {
    let room = Room::new("streams-live");
    let (a, b) = (backend("a"), backend("b"));
    let text = |more: &str| document(&room, &[("a", a)], more);
    let proxy = Running::start(&room, &text(""));
    let mut client = connect(proxy.front());
    hear(&mut client, "a:");
    for n in 0..100 {
        let more = format!(
            "[listeners.other]\nprotocol = \"tcp\"\nbind = [\"127.0.0.2:0\"]\ncluster = \"d\"\n[clusters.d]\nbackends = [\"127.0.0.1:{}\"]\n",
            1_000 + n
        );
        let file = room.write("next.toml", &text(&more));
        proxy.done(&["apply", file.to_str().unwrap()]);
        client.write_all(b"still").unwrap();
        hear(&mut client, "still");
    }
    proxy.done(&["backend", "add", "c", &b.to_string(), "--name", "b"]);
    proxy.done(&["backend", "remove", "c", "a"]);
    client.write_all(b"there").unwrap();
    hear(&mut client, "there");
    let said = proxy.done(&["backend", "drain", "c", "a", "--status"]);
    assert!(said.contains("0 flows, 1 connections and 0 requests live on it"), "{said}");
    hear(&mut connect(proxy.front()), "b:");
}

#[test]
fn a_policy_closes_and_a_drain_ends_what_is_left() {
    let room = Room::new("streams-policy");
    let (a, b) = (backend("a"), backend("b"));
    let proxy = Running::start(&room, &document(&room, &[("a", a)], "tcp = { on_backend_removed = \"close\" }"));
    let mut client = connect(proxy.front());
    hear(&mut client, "a:");
    proxy.done(&["backend", "add", "c", &b.to_string(), "--name", "b"]);
    proxy.done(&["backend", "remove", "c", "a"]);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "its backend is gone");
    let mut client = connect(proxy.front());
    hear(&mut client, "b:");
    proxy.signal("TERM");
    client.write_all(b"x").unwrap();
    hear(&mut client, "x");
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "its time is over");
    let (status, stderr) = proxy.end();
    assert!(status.success(), "{stderr}");
}

#[test]
fn a_header_comes_in_and_goes_out_and_routes_are_explained() {
    let room = Room::new("streams-proxy");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let text = document(&room, &[("a", address)], "send_proxy_protocol = \"v1\"");
    let text = text.replace("drain_timeout", "proxy_protocol = { trusted = [\"127.0.0.0/8\"] }\ndrain_timeout")
        + "[routes.r]\nlistener = \"front\"\nsni = [\"*.example.com\"]\ncluster = \"c\"\n";
    let proxy = Running::start(&room, &text);
    let mut client = connect(proxy.front());
    client.write_all(b"PROXY TCP4 203.0.113.7 192.0.2.1 5000 80\r\nhello").unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    hear(&mut server, "PROXY TCP4 203.0.113.7 192.0.2.1 5000 80\r\nhello");
    let mut garbage = connect(proxy.front());
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let ended = garbage.read(&mut [0; 8]);
    assert!(matches!(&ended, Err(error) if error.kind() == ErrorKind::ConnectionReset), "{ended:?}");
    eventually("a count", || {
        (proxy.metrics().sum("kakei_connections_closed_total", "reason=\"proxy_header\"") == 1).then_some(())
    });
    let dialled = format!("tcp:{}", proxy.front());
    let said = proxy.done(&["explain", &dialled, "--client", "192.0.2.9", "--sni", "www.example.com"]);
    assert!(said.starts_with("by route r to backend a of cluster c"), "{said}");
}

#[test]
fn bulk_goes_through_the_kernel_and_arrives_whole() {
    let room = Room::new("streams-bulk");
    let proxy = Running::start(&room, &document(&room, &[("a", backend("a"))], ""));
    let client = connect(proxy.front());
    let whole: Vec<u8> = (0..20u32 << 20).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    let (mut sender, sent) = (client.try_clone().unwrap(), whole.clone());
    let sending = thread::spawn(move || {
        sender.write_all(&sent).unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    // Slow at first, so that the proxy must hold its backend back.
    let mut client = client;
    for _ in 0..20 {
        let mut some = [0; 10_000];
        let length = client.read(&mut some).unwrap();
        received.extend_from_slice(&some[..length]);
        thread::sleep(Duration::from_millis(5));
    }
    client.read_to_end(&mut received).unwrap();
    sending.join().unwrap();
    assert_eq!(received.len(), whole.len() + 3);
    assert!(received.starts_with(b"a:") && received.ends_with(b".") && received[2..received.len() - 1] == whole[..]);
    assert!(proxy.metrics().sum("kakei_machine_splice_bytes_total", "") > 1 << 20);
}

#[test]
fn who_waits_for_a_cluster_that_goes_is_told_at_once_and_nobody_else_notices() {
    let room = Room::new("streams-waiting");
    let (a, b) = (backend("a"), backend("b"));
    let tcp = "tcp = { connections_per_backend = 1, queue = 10, queue_timeout = \"300s\" }\n[clusters.d]\n";
    let text = document(&room, &[("a", a)], &format!("{tcp}backends = [\"{b}\"]"));
    let text = text.replace("count = 2", "count = 1");
    let proxy = Running::start(&room, &text);
    let mut first = connect(proxy.front());
    hear(&mut first, "a:");
    let mut second = connect(proxy.front());
    second.set_read_timeout(Some(SOON)).unwrap();
    eventually("it waits", || (proxy.metrics().sum("kakei_connections_queued", "") == 1).then_some(()));
    let next = text.replace("cluster = \"c\"", "cluster = \"d\"");
    let (before, after) = next.split_once("[clusters.c]").unwrap();
    let (_, after) = after.split_once("[clusters.d]").unwrap();
    let file = room.write("next.toml", &format!("{before}[clusters.d]{after}"));
    proxy.done(&["apply", file.to_str().unwrap()]);
    let told = second.read(&mut [0; 8]);
    assert!(told.as_ref().is_err_and(|e| e.kind() == ErrorKind::ConnectionReset) || told.is_ok_and(|n| n == 0));
    first.write_all(b"still").unwrap();
    hear(&mut first, "still");
    hear(&mut connect(proxy.front()), "b:");
    assert_eq!(proxy.metrics().sum("kakei_connections_closed_total", "reason=\"no_backend\""), 1);
    drop(first);
    eventually("nothing is left of the cluster", || {
        (proxy.metrics().sum("kakei_backend_connections_live", "cluster=\"c\"") == 0).then_some(())
    });
    hear(&mut connect(proxy.front()), "b:");
}

#[test]
fn for_want_of_descriptors_clients_wait_unharmed_and_are_served_as_others_leave() {
    let room = Room::new("streams-descriptors");
    let file = room.write("k.toml", &document(&room, &[("a", backend("a"))], ""));
    let mut command = Command::new("sh");
    let program = kakei();
    command.args(["-c", "ulimit -n 100 && exec \"$0\" run -c \"$1\""]).arg(program.get_program()).arg(file);
    let proxy = Running::from(&room, command);
    let mut clients: Vec<TcpStream> = (0..80).map(|_| connect(proxy.front())).collect();
    let is_served = |client: &mut TcpStream| {
        client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        match client.read(&mut [0; 8]) {
            Ok(length) => Some(length > 0).filter(|heard| *heard).or_else(|| panic!("it was closed")),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("a client is not to be harmed: {error}"),
        }
    };
    let mut served = 0;
    eventually("there are too few descriptors for all", || {
        let (heard, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut clients)
            .into_iter()
            .map(|mut client| (is_served(&mut client), client))
            .partition(|one| one.0.is_some());
        served += heard.len();
        clients = waiting.into_iter().map(|(_, client)| client).collect();
        // Those that were served leave here, and so make room.
        clients.is_empty().then_some(())
    });
    assert_eq!(served, 80);
    assert!(proxy.metrics().sum("kakei_accept_failures_total", "") > 0, "there were enough for all");
}

#[test]
fn flows_leave_descriptors_to_streams() {
    let room = Room::new("streams-flows");
    let echo = Echo::start("u");
    let more = format!(
        "[listeners.datagrams]\nprotocol = \"udp\"\nbind = [\"127.0.0.1:0\"]\ncluster = \"u\"\n\
         [clusters.u]\nbackends = [\"{}\"]\n",
        echo.address
    );
    let text = document(&room, &[("a", backend("a"))], &more).replace("count = 2", "count = 1");
    let file = room.write("k.toml", &text);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 120 && exec \"$0\" run -c \"$1\""]).arg(kakei().get_program()).arg(file);
    let proxy = Running::from(&room, command);
    let front = proxy.address("datagrams");
    let flood: Vec<Client> = (0..150).map(|_| Client::new(front)).collect();
    eventually("flows have all that they may", || {
        flood.iter().for_each(|client| client.send("flood"));
        (proxy.metrics().sum("kakei_dropped_datagrams_total", "reason=\"no_socket\"") > 0).then_some(())
    });
    let mut clients: Vec<TcpStream> = (0..4).map(|_| connect(proxy.front())).collect();
    clients.iter_mut().for_each(|client| hear(client, "a:"));
}

#[test]
fn who_is_refused_in_silence_hears_nothing_and_is_counted() {
    let room = Room::new("streams-silence");
    let text = document(&room, &[("a", backend("a"))], "");
    let text = text.replace("drain_timeout", "limits = { connections = 1, refuse = \"silence\" }\ndrain_timeout");
    let proxy = Running::start(&room, &text.replace("count = 2", "count = 1"));
    let mut first = connect(proxy.front());
    hear(&mut first, "a:");
    let mut second = connect(proxy.front());
    eventually("it is refused", || {
        (proxy.metrics().sum("kakei_refused_connections_total", "reason=\"connection_limit\"") == 1).then_some(())
    });
    second.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let heard = second.read(&mut [0; 8]).map_err(|error| error.kind());
    assert_eq!(heard, Err(ErrorKind::WouldBlock), "neither an end nor a reset");
    drop(first);
    eventually("there is room again", || {
        let mut third = connect(proxy.front());
        third.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        third.read(&mut [0; 2]).is_ok_and(|length| length > 0).then_some(())
    });
}

#[test]
fn a_process_that_is_told_to_stop_refuses_at_once_who_connects_and_lets_go_on_who_is_there() {
    let room = Room::new("streams-stop");
    let echo = Echo::start("u");
    let more = format!(
        "[listeners.web]\nprotocol = \"http\"\nbind = [\"127.0.0.2:0\"]\ncluster = \"c\"\n\
         [listeners.names]\nprotocol = \"udp\"\nbind = [\"127.0.0.3:0\"]\ncluster = \"u\"\ndrain_timeout = \"3s\"\n\
         [clusters.u]\nbackends = [\"{}\"]\n",
        echo.address
    );
    let text = document(&room, &[("a", backend("a"))], &more).replace("\"2s\"", "\"3s\"");
    let proxy = Running::start(&room, &text);
    let fronts = [proxy.front(), proxy.address("web")];
    let mut client = connect(fronts[0]);
    hear(&mut client, "a:");
    // Of both workers.
    let flows: Vec<Client> = (0..16).map(|_| Client::new(proxy.address("names"))).collect();
    assert!(flows.iter().all(|flow| flow.ask("1").is_some()));
    proxy.signal("TERM");
    for front in fronts {
        let refused = || TcpStream::connect(front).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
        eventually("nobody listens any more", || refused().then_some(()));
    }
    let next = TcpListener::bind(fronts[0]).expect("who comes next may listen there already");
    client.write_all(b"on").unwrap();
    hear(&mut client, "on");
    assert!(flows.iter().all(|flow| flow.ask("2").is_some()), "their sockets stay");
    assert_eq!(proxy.http("GET", "/readyz", &[], "").status, 503);
    drop(next);
    let (status, log) = proxy.end();
    assert!(status.success(), "{log}");
}

#[test]
fn a_listener_by_another_name_at_its_address_drains_and_holds_up_no_stop() {
    let room = Room::new("streams-renamed");
    let text = document(&room, &[("a", backend("a"))], "");
    let proxy = Running::start(&room, &text);
    let mut client = connect(proxy.front());
    hear(&mut client, "a:");
    room.write("k.toml", &text.replace("listeners.front", "listeners.renamed"));
    proxy.done(&["apply", room.path("k.toml").to_str().unwrap()]);
    let report = proxy.json(&["drain", "listener/front", "--status"]);
    assert_eq!((&report["state"], &report["held"]["connections"]), (&"draining".into(), &1.into()), "{report}");
    assert!(report["until"].is_string(), "{report}");
    client.write_all(b"on").unwrap();
    hear(&mut client, "on");
    hear(&mut connect(proxy.front()), "a:");
    proxy.signal("TERM");
    let (status, log) = proxy.end();
    assert!(status.success(), "{log}");
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "it ended in order");
}
