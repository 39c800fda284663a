//! What HTTP clients, backends and operators see.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Room, Running, SOON, eventually};

/// A request as a backend saw it.
pub(crate) struct Asked {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// Reads one message off a stream: its head, and a body of `Content-Length` or in chunks.
pub(crate) fn read_message(stream: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    let mut one = [0; 1];
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut one).ok()? == 0 {
            return None;
        }
        bytes.push(one[0]);
    }
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let field = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}: ")))?;
        Some(line.split_once(": ")?.1.to_owned())
    };
    let mut body = Vec::new();
    if let Some(length) = field("content-length") {
        body.resize(length.parse().ok()?, 0);
        stream.read_exact(&mut body).ok()?;
    } else if field("transfer-encoding").is_some() {
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                stream.read_exact(&mut one).ok()?;
                line.push(one[0]);
            }
            let size = usize::from_str_radix(std::str::from_utf8(&line).ok()?.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).ok()?;
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    }
    Some(Asked { head, body })
}

/// A backend that answers by its name and what it saw; `/switch` makes it echo.
pub(crate) fn backend(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                while let Some(asked) = read_message(&mut stream) {
                    if asked.head.contains("/switch") {
                        let switch =
                            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nhi:";
                        let _ = stream.write_all(switch);
                        let mut buffer = [0; 4096];
                        while let Ok(length @ 1..) = stream.read(&mut buffer) {
                            let _ = stream.write_all(&buffer[..length]);
                        }
                        return;
                    }
                    let text = format!("{name}\n{}{}", asked.head, asked.body.len());
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
                    let _ = stream.write_all(format!("{head}{text}").as_bytes());
                }
            });
        }
    });
    address
}

pub(crate) fn document(room: &Room, backends: &[SocketAddr], more: &str) -> String {
    let socket = room.path("k.sock");
    let log = room.path("access.log");
    let list: Vec<String> = backends.iter().map(|at| format!("\"{at}\"")).collect();
    format!(
        "[admin]\nsocket = {socket:?}\n[workers]\ncount = 2\n[access_log]\nto = {log:?}\n\
         [listeners.front]\nprotocol = \"http\"\nbind = [\"127.0.0.1:0\"]\ncluster = \"c\"\ndrain_timeout = \"2s\"\n\
         [clusters.c]\nbackends = [{}]\n{more}\n",
        list.join(", ")
    )
}

pub(crate) fn connect(front: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(front).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

pub(crate) fn ask(stream: &mut TcpStream, request: &str) -> (String, String) {
    stream.write_all(request.as_bytes()).unwrap();
    let answer = read_message(stream).expect("an answer");
    (answer.head, String::from_utf8(answer.body).unwrap())
}

fn get(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: Shop.Example.com:80\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: x-mine\r\nX-Mine: 1\r\n\r\n"
    )
}

#[test]
fn requests_are_routed_answered_and_written_down() {
    let room = Room::new("http");
    let more = "[routes.api]\nlistener = \"front\"\nhost = [\"shop.example.com\"]\npath = \"/api\"\ncluster = \"c\"\n\
                request = { path = \"/v2{rest}\", set = { x-env = \"prod\" }, remove = [\"x-debug\"] }\n\
                response = { set = { x-by = \"kakei\" } }\n\
                [routes.old]\nlistener = \"front\"\npath = \"/old\"\nredirect = { status = 308, path = \"/new{rest}\" }\n\
                [routes.closed]\nlistener = \"front\"\npath = \"/closed\"\nrespond = { status = 403, body = \"no\" }\n";
    let proxy = Running::start(&room, &document(&room, &[backend("a")], more));
    let mut client = connect(proxy.front());
    let (head, body) = ask(&mut client, &get("/x%2e/../api/y?q=1"));
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("x-by: kakei\r\n"), "{head}");
    assert!(body.starts_with("a\nGET /v2/y?q=1 HTTP/1.1\r\nHost: Shop.Example.com:80\r\n"), "{body}");
    assert!(body.contains("x-env: prod\r\n") && body.contains("X-Forwarded-For: 127.0.0.1\r\n"), "{body}");
    assert!(!body.contains("6.6.6.6") && !body.to_lowercase().contains("x-mine"), "{body}");
    let (head, _) = ask(&mut client, &get("/old/z?k=v"));
    assert!(
        head.starts_with("HTTP/1.1 308 ") && head.contains("Location: http://shop.example.com:80/new/z?k=v\r\n"),
        "{head}"
    );
    let (head, body) = ask(&mut client, &get("/closed"));
    assert!(head.starts_with("HTTP/1.1 403 ") && body == "no", "{head}");
    let chunked =
        "POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let (_, body) = ask(&mut client, chunked);
    assert!(body.ends_with("\r\n\r\n5"), "{body}");
    let log = room.path("access.log");
    let lines = eventually("four lines", || {
        let text = std::fs::read_to_string(&log).ok()?;
        (text.lines().count() == 4)
            .then(|| text.lines().map(|l| serde_json::from_str(l).unwrap()).collect::<Vec<Value>>())
    });
    let said = |n: usize| (lines[n]["reason"].clone(), lines[n]["status"].clone(), lines[n]["route"].clone());
    assert_eq!(said(0), ("completed".into(), 200.into(), "api".into()));
    assert_eq!(said(1), ("answered".into(), 308.into(), "old".into()));
    assert_eq!(said(3), ("completed".into(), 200.into(), Value::Null));
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("kakei_requests_total", ""), 4);
    assert_eq!(metrics.sum("kakei_responses_3xx_total", ""), 1);
    assert_eq!(metrics.sum("kakei_requests_ended_total", "reason=\"completed\""), 2);
}

#[test]
fn fields_say_what_was_asked_for_and_nothing_in_a_path_ends_one() {
    let room = Room::new("http-filled");
    let route = |name: &str, path: &str, more: &str| {
        let filled = "response = { set = { x-was = \"at {path}\", nel = '{\"a\":{\"b\":\"{{path}}\"}}' }, add = { x-rest = \"{rest}\" } }";
        let of = if path.starts_with('{') { filled.replace("{rest}", "{2}.{1}") } else { filled.to_owned() };
        format!("[routes.{name}]\nlistener = \"front\"\npath = {path}\n{more}\n{of}\n")
    };
    let more = [
        route("api", "\"/api\"", "cluster = \"c\"\nrequest = { path = \"/v2{rest}\", set = { x-was = \"{path}\" } }"),
        route("old", "\"/old\"", "redirect = { path = \"/new{rest}\" }"),
        route("fixed", "\"/fixed\"", "respond = { status = 404, body = \"no\" }"),
        route("regex", "{ regex = \"/r/([a-z]+)/?(.*)\" }", "cluster = \"c\""),
    ];
    let proxy = Running::start(&room, &document(&room, &[backend("a")], &more.concat()));
    let mut client = connect(proxy.front());
    let mut ask = |path: &str| ask(&mut client, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let says = |head: &str, was: &str, rest: &str| {
        let lines = format!("nel: {{\"a\":{{\"b\":\"{{path}}\"}}}}\r\nx-was: at {was}\r\nx-rest: {rest}\r\n");
        assert!(head.contains(&lines), "{lines} isn't in {head}");
    };
    let (head, body) = ask("/api/./x%20y/%c3%a9?q={path}");
    says(&head, "/api/x%20y/%C3%A9", "/x%20y/%C3%A9");
    assert!(body.contains("GET /v2/x%20y/%C3%A9?q={path} HTTP/1.1\r\n"), "{body}");
    assert!(body.contains("\r\nx-was: /api/x%20y/%C3%A9\r\n"), "{body}");
    let (head, body) = ask("/api/%0d%0aX-Evil:%201%0D%0A%0d%0a%7f%09%ff");
    says(&head, "/api/%0D%0AX-Evil:%201%0D%0A%0D%0A%7F%09%FF", "/%0D%0AX-Evil:%201%0D%0A%0D%0A%7F%09%FF");
    assert!(!head.contains("\nX-Evil") && !body.contains("\nX-Evil"), "{head}{body}");
    let (head, _) = ask("/old/%0ax");
    says(&head, "/old/%0Ax", "/%0Ax");
    let (head, _) = ask("/fixed");
    says(&head, "/fixed", "");
    let (head, _) = ask("/r/ab/c/{path}");
    says(&head, "/r/ab/c/%7Bpath%7D", "c/%7Bpath%7D.ab");
}

#[test]
fn a_request_that_could_be_read_in_two_ways_is_refused_and_its_connection_ends() {
    let room = Room::new("http-bad");
    let proxy = Running::start(&room, &document(&room, &[backend("a")], ""));
    let bad = [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\nHost: a\n\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", "501"),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", "505"),
        ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\nGET /hoped-for HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nGET /x HTTP/1.1\r\n\r\n", "400"),
    ];
    for (request, status) in bad {
        let mut client = connect(proxy.front());
        client.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("its connection ends");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer:?}");
        assert!(answer.contains("Connection: close\r\n"), "{request:?}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{request:?}: {answer:?}");
    }
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("kakei_requests_total", ""), bad.len() as u64);
    assert_eq!(metrics.sum("kakei_requests_ended_total", ""), bad.len() as u64);
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9_000));
    let mut client = connect(proxy.front());
    let (head, _) = ask(&mut client, &long);
    assert!(head.starts_with("HTTP/1.1 414 ") && head.contains("Connection: close"), "{head}");
}

#[test]
fn an_upgraded_connection_outlives_changes_elsewhere() {
    let room = Room::new("http-upgrade");
    let a = backend("a");
    let proxy = Running::start(&room, &document(&room, &[a], ""));
    let mut client = connect(proxy.front());
    let upgrade = "GET /switch HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    let (head, _) = ask(&mut client, upgrade);
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("Upgrade: echo\r\n"), "{head}");
    let hear = |client: &mut TcpStream, words: &str| {
        let mut buffer = vec![0; words.len()];
        client.read_exact(&mut buffer).unwrap();
        assert_eq!(String::from_utf8_lossy(&buffer), words);
    };
    hear(&mut client, "hi:");
    for number in 0..20 {
        let more = format!(
            "[routes.r{number}]\nlistener = \"front\"\npath = \"/r{number}\"\nrespond = {{ status = 200 }}\n\
             [clusters.d]\nbackends = [\"127.0.0.1:{}\"]\n",
            2_000 + number
        );
        let file = room.write("next.toml", &document(&room, &[a], &more));
        proxy.done(&["apply", file.to_str().unwrap()]);
        client.write_all(b"still").unwrap();
        hear(&mut client, "still");
    }
    let rows = proxy.json(&["get", "connections"]);
    assert_eq!(rows[0]["phase"], Value::from("established"), "{rows}");
}

#[test]
fn many_that_ask_once_at_the_same_moment_get_all_of_a_long_answer() {
    const CLIENTS: usize = 160;
    // More than the kernel takes of an answer at once.
    const LENGTH: usize = 4 << 20;
    let room = Room::new("http-last");
    let body = "x".repeat(LENGTH);
    let more = format!(
        "[routes.long]\nlistener = \"front\"\npath = \"/long\"\nrespond = {{ status = 200, body = \"{body}\" }}\n"
    );
    let one_worker = document(&room, &[backend("a")], &more).replace("count = 2", "count = 1");
    let proxy = Running::start(&room, &one_worker);
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(proxy.front())).collect();
    eventually("all are let in", || {
        let live = proxy.metrics().sum("kakei_connections_live", "");
        (live == CLIENTS as u64).then_some(())
    });
    // So that it finds all requests at once.
    proxy.signal("STOP");
    clients.iter_mut().for_each(|client| client.write_all(b"GET /long HTTP/1.0\r\nHost: a\r\n\r\n").unwrap());
    proxy.signal("CONT");
    for mut client in clients {
        // One worker makes all the answers.
        client.set_read_timeout(Some(SOON * 3)).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        assert_eq!(answer.len() - head, LENGTH);
    }
}
