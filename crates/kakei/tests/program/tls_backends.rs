//! TLS to backends as they, clients and operators see it: servers of a library, certificates made for the test.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, ServerConnection, WebPkiClientVerifier};
use rustls::{RootCertStore, StreamOwned};

use crate::harness::{Room, Running, answered, eventually, kakei};
use crate::tls::{Authority, Made, line};

type Stream = StreamOwned<ServerConnection, TcpStream>;

fn config(made: &Made, clients: Option<&Authority>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let mut config = builder.with_single_cert(vec![made.der()], key).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"imap".to_vec()];
    Arc::new(config)
}

/// A server that shakes hands and then does this with each connection.
fn serve(config: Arc<ServerConfig>, each: impl Fn(Stream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let (config, each) = (Arc::clone(&config), each.clone());
            thread::spawn(move || each(StreamOwned::new(ServerConnection::new(config).unwrap(), socket)));
        }
    });
    address
}

/// Answers each request with what it saw of it and of TLS, and tells how many connections there were.
fn site(config: Arc<ServerConfig>) -> (SocketAddr, mpsc::Receiver<()>) {
    let (sender, connections) = mpsc::channel();
    let address = serve(config, move |mut stream| {
        let (mut head, mut one) = (Vec::new(), [0; 1]);
        while let Ok(1) = stream.read(&mut one) {
            head.push(one[0]);
            if !head.ends_with(b"\r\n\r\n") {
                continue;
            }
            head.clear();
            let _ = sender.send(());
            let alpn = String::from_utf8_lossy(stream.conn.alpn_protocol().unwrap_or_default()).into_owned();
            let who = stream.conn.peer_certificates().map_or(0, <[_]>::len);
            let body = format!("sni={} alpn={alpn} certificates={who}", stream.conn.server_name().unwrap_or("none"));
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(answer.as_bytes()).and_then(|()| stream.flush()).is_err() {
                return;
            }
        }
    });
    (address, connections)
}

fn document(room: &Room, (protocol, backend): (&str, SocketAddr), cluster: &str, more: &str) -> String {
    let (socket, log) = (room.path("k.sock"), room.path("access.log"));
    format!(
        "[admin]\nsocket = {socket:?}\n[workers]\ncount = 1\n[access_log]\nto = {log:?}\n\
         [listeners.front]\nprotocol = \"{protocol}\"\nbind = [\"127.0.0.1:0\"]\ncluster = \"c\"\n\
         drain_timeout = \"2s\"\n[clusters.c]\nbackends = [\"{backend}\"]\n{cluster}\n{more}\n"
    )
}

fn get(front: SocketAddr) -> (u16, String) {
    let mut socket = TcpStream::connect(front).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: any.test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let answer = answered(&answer);
    (answer.status, answer.body)
}

#[test]
fn requests_go_to_a_backend_that_proves_who_it_is() {
    let (room, authority) = (Room::new("tls-to-http"), Authority::new());
    let (address, _) = site(config(&authority.make(&["site.test"], |_| {}), None));
    let ca = room.write("ca.pem", &authority.pem);
    let tls = |more: &str| format!("tls = {{ ca = {ca:?}, {more} }}\nhttp = {{ idle_timeout = \"none\" }}");
    let text = |tls: &str| document(&room, ("http", address), tls, "");
    let running = Running::start(&room, &text(&tls("server_name = \"site.test\"")));
    let right = (200, "sni=site.test alpn=http/1.1 certificates=0".to_owned());
    assert_eq!(get(running.front()), right);
    let completed = line(&room, "completed");
    assert_eq!((&completed["backend_tls_version"], &completed["backend_tls_resumed"]), (&"1.3".into(), &false.into()));
    // Its connection was given up: the next one goes on from the first handshake.
    eventually("a handshake is shorter", || {
        assert_eq!(get(running.front()), right);
        (running.metrics().sum("kakei_backend_tls_resumed_handshakes_total", "") > 0).then_some(())
    });

    let file = room.path("k.toml");
    let apply = |tls: &str| {
        room.write("k.toml", &text(tls));
        let output = running.ask(&["apply", file.to_str().unwrap()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    // The address that it is written with isn't what it proves to be.
    apply(&tls("min_version = \"1.2\""));
    assert_eq!(get(running.front()).0, 502);
    let failed = line(&room, "backend_tls");
    assert!(failed["backend_tls_error"].as_str().unwrap().contains("not valid for name"), "{failed}");
    assert_eq!((&failed["by"], &failed["status"]), (&"backend".into(), &502.into()));
    let said = apply("tls = { verify = false, server_name = \"other.test\" }");
    assert!(said.contains("warning: cluster c: `tls.verify` is off"), "{said}");
    assert_eq!(get(running.front()), (200, "sni=other.test alpn=http/1.1 certificates=0".to_owned()));
    let checked = kakei().arg("check").arg(&file).output().unwrap();
    assert!(String::from_utf8_lossy(&checked.stderr).contains("`tls.verify` is off"));
    assert!(running.metrics().sum("kakei_backend_tls_failed_handshakes_total", "") > 0);
}

#[test]
fn a_backend_is_not_believed_longer_than_its_certificate_is_valid() {
    let (room, authority) = (Room::new("tls-to-expired"), Authority::new());
    let ca = room.write("ca.pem", &authority.pem);
    let tls = format!("tls = {{ ca = {ca:?}, server_name = \"site.test\" }}\nhttp = {{ idle_timeout = \"none\" }}");
    let nobody = "127.0.0.1:1".parse().unwrap();
    let running = Running::start(&room, &document(&room, ("http", nobody), &tls, ""));
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let until = rcgen::date_time_ymd(1970, 1, 1) + since + Duration::from_secs(6);
    let (address, _) = site(config(&authority.make(&["site.test"], |params| params.not_after = until), None));
    let file = room.write("k.toml", &document(&room, ("http", address), &tls, ""));
    running.done(&["apply", file.to_str().unwrap()]);
    assert_eq!(get(running.front()).0, 200);
    // Each goes on from what the one before left, and is given the next.
    eventually("it is refused", || (get(running.front()).0 == 502).then_some(()));
    assert!(running.metrics().sum("kakei_backend_tls_resumed_handshakes_total", "") > 0);
    let failed = line(&room, "backend_tls");
    assert_eq!(failed["backend_tls_error"], "the certificate that its session began with has expired");
    assert_eq!(get(running.front()).0, 502, "nor by a handshake of its own");
}

#[test]
fn who_may_vouch_changes_while_it_runs() {
    let (room, ours, theirs) = (Room::new("tls-to-ca"), Authority::new(), Authority::new());
    let (address, seen) = site(config(&ours.make(&["127.0.0.1"], |_| {}), None));
    let ca = room.write("ca.pem", &theirs.pem);
    let cluster = format!(
        "tls = {{ ca = {ca:?} }}\nhealth = {{ http = {{}}, interval = \"2s\", timeout = \"1900ms\", rise = 1, fall = 1, fail_open = false }}"
    );
    let running = Running::start(&room, &document(&room, ("http", address), &cluster, ""));
    let state = |wanted: &str| {
        eventually(wanted, || (running.json(&["get", "backends"])[0]["state"] == wanted).then_some(()));
    };
    state("down");
    assert_eq!(get(running.front()).0, 503);
    assert!(seen.try_recv().is_err(), "who proved nothing was asked something");
    let file = room.path("k.toml");
    let apply = || running.done(&["apply", file.to_str().unwrap()]);
    assert!(apply().starts_with("nothing to change"));
    room.write("ca.pem", &format!("{}{}", theirs.pem, ours.pem));
    let said = apply();
    assert!(said.contains("cluster c: others may vouch for its backends"), "{said}");
    state("up");
    // An address is proved too; it is not asked for by name.
    assert_eq!(get(running.front()), (200, "sni=none alpn=http/1.1 certificates=0".to_owned()));

    // What can't be used is a placed error, and what ran goes on.
    for (text, told) in [("", "it holds no certificate"), ("no PEM", "it holds no certificate")] {
        room.write("ca.pem", text);
        let refused = running.ask(&["apply", file.to_str().unwrap()]);
        let drawn = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && drawn.contains("`tls.ca`") && drawn.contains(told), "{drawn}");
    }
    assert_eq!(get(running.front()).0, 200);
    running.signal("TERM");
    let (_, log) = running.end();
    assert!(log.contains("is down: no TLS came about: invalid peer certificate"), "{log}");
}

#[test]
fn the_proxy_proves_who_it_is_to_who_asks() {
    let (room, authority) = (Room::new("tls-to-mutual"), Authority::new());
    let (address, _) = site(config(&authority.make(&["site.test"], |_| {}), Some(&authority)));
    let ca = room.write("ca.pem", &authority.pem);
    let me = authority.make(&["proxy.test"], |_| {}).put(&room, "me");
    let tls = |more: &str| format!("tls = {{ ca = {ca:?}, server_name = \"site.test\" {more} }}");
    let text = document(&room, ("http", address), &tls(", certificate = \"me\""), &me);
    let running = Running::start(&room, &text);
    assert_eq!(get(running.front()), (200, "sni=site.test alpn=http/1.1 certificates=1".to_owned()));
    room.write("k.toml", &document(&room, ("http", address), &tls(""), &me));
    running.done(&["apply", room.path("k.toml").to_str().unwrap()]);
    assert_eq!(get(running.front()).0, 502);
    // In version 1.3 the refusal comes behind what was asked already.
    let failed = line(&room, "backend_tls");
    assert!(failed["backend_tls_error"].as_str().unwrap().contains("CertificateRequired"), "{failed}");
}

#[test]
fn bytes_come_back_and_ends_are_told_as_they_are() {
    let (room, authority) = (Room::new("tls-to-tcp"), Authority::new());
    let ca = room.write("ca.pem", &authority.pem);
    let address = serve(config(&authority.make(&["echo.test"], |_| {}), None), |mut stream| {
        let mut buffer = vec![0; 65_536];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                // Whoever says so is left without a word of the end.
                Ok(length) if buffer[..length].starts_with(b"cut") => {
                    let _ = stream.write_all(b"half of").and_then(|()| stream.flush());
                    let _ = stream.sock.shutdown(Shutdown::Write);
                    return thread::sleep(Duration::from_secs(2));
                }
                Ok(length) => stream.write_all(&buffer[..length]).unwrap(),
                Err(error) => panic!("the end is said in TLS: {error}"),
            }
        }
        stream.write_all(b"that was all").unwrap();
        stream.conn.send_close_notify();
        let _ = stream.flush();
    });
    let cluster = format!("tls = {{ ca = {ca:?}, server_name = \"echo.test\", alpn = [\"imap\"] }}");
    let running = Running::start(&room, &document(&room, ("tcp", address), &cluster, ""));
    let connect = || {
        let socket = TcpStream::connect(running.front()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    };
    let mut client = connect();
    let sent: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    for piece in sent.chunks(500_000) {
        client.write_all(piece).unwrap();
        let mut got = vec![0; piece.len()];
        client.read_exact(&mut got).unwrap();
        assert!(got == piece);
    }
    client.shutdown(Shutdown::Write).unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "that was all");
    let closed = line(&room, "closed");
    assert_eq!((&closed["request_bytes"], &closed["backend_tls_alpn"]), (&4_000_000.into(), &"imap".into()));

    let mut client = connect();
    client.write_all(b"cut").unwrap();
    let mut got = [0; 7];
    client.read_exact(&mut got).unwrap();
    assert!(client.read(&mut got).is_err(), "what was cut is no end");
    assert_eq!(line(&room, "backend_truncated")["by"], "backend");
}

#[test]
fn a_response_that_ends_without_a_word_is_no_whole_one() {
    let (room, authority) = (Room::new("tls-to-cut"), Authority::new());
    let ca = room.write("ca.pem", &authority.pem);
    let address = serve(config(&authority.make(&["site.test"], |_| {}), None), |mut stream| {
        let mut head = [0; 4_096];
        let Ok(length @ 1..) = stream.read(&mut head) else { return };
        let says_end = head[..length].starts_with(b"GET /said ");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nas long as it goes").and_then(|()| stream.flush());
        if says_end {
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
        let _ = stream.sock.shutdown(Shutdown::Write);
        let _ = stream.sock.read(&mut head);
    });
    let cluster = format!("tls = {{ ca = {ca:?}, server_name = \"site.test\" }}");
    let running = Running::start(&room, &document(&room, ("http", address), &cluster, ""));
    for (path, is_whole) in [("/said", true), ("/cut", false)] {
        let mut socket = TcpStream::connect(running.front()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: any.test\r\n\r\n").as_bytes()).unwrap();
        let mut got = Vec::new();
        let mut buffer = [0; 4_096];
        while !got.ends_with(b"\r\n0\r\n\r\n") {
            match socket.read(&mut buffer) {
                Ok(length @ 1..) => got.extend_from_slice(&buffer[..length]),
                _ => break,
            }
        }
        assert_eq!(got.ends_with(b"\r\n0\r\n\r\n"), is_whole, "{path}: {}", String::from_utf8_lossy(&got));
    }
    assert!(line(&room, "backend_truncated")["target"] == "/cut");
}

#[test]
fn a_header_goes_first_and_the_system_may_vouch() {
    let (room, authority) = (Room::new("tls-to-header"), Authority::new());
    let tls = config(&authority.make(&["localhost"], |_| {}), None);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, headers) = mpsc::channel();
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let (mut header, mut one) = (Vec::new(), [0; 1]);
            while !header.ends_with(b"\r\n") && matches!(socket.read(&mut one), Ok(1)) {
                header.push(one[0]);
            }
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&tls)).unwrap(), socket);
            let mut word = [0; 5];
            if stream.read_exact(&mut word).is_ok() {
                let _ = stream.write_all(&word).and_then(|()| stream.flush());
                let _ = sender.send(String::from_utf8_lossy(&header).into_owned());
            }
        }
    });
    // A host name, which is what the backend must prove to be.
    let text = document(
        &room,
        ("tcp", SocketAddr::from(([127, 0, 0, 1], port))),
        "tls = {}\nsend_proxy_protocol = \"v1\"",
        "",
    )
    .replace(&format!("backends = [\"127.0.0.1:{port}\"]"), &format!("backends = [\"localhost:{port}\"]"));
    let file = room.write("k.toml", &text);
    let mut command = kakei();
    command.arg("run").arg("-c").arg(file).env("SSL_CERT_FILE", room.write("system.pem", &authority.pem));
    let running = Running::from(&room, command);
    let mut client = TcpStream::connect(running.front()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.write_all(b"hello").unwrap();
    let mut got = [0; 5];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
    let header = headers.recv_timeout(Duration::from_secs(10)).unwrap();
    let own = client.local_addr().unwrap().port();
    assert!(header.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 ") && header.contains(&own.to_string()), "{header}");
}

#[test]
fn a_backend_that_is_waited_for_proves_who_it_is_too() {
    let (room, authority, stranger) = (Room::new("tls-ready"), Authority::new(), Authority::new());
    let (address, _) = site(config(&authority.make(&["site.test"], |_| {}), None));
    let running = Running::start(&room, &document(&room, ("http", address), "", ""));
    let add = |name: &str, authority: &Authority| {
        let ca = room.write(&format!("{name}.pem"), &authority.pem);
        let options = [
            format!("backends = [\"{address}\"]"),
            format!("tls = {{ ca = {ca:?}, server_name = \"site.test\" }}"),
            "health = { http = {}, interval = \"2s\", timeout = \"1900ms\", fall = 2 }".to_owned(),
            "ready = \"probed\"".to_owned(),
        ];
        let mut arguments = vec!["cluster", "add", name];
        arguments.extend(options.iter().map(String::as_str));
        running.ask(&arguments)
    };
    let good = add("good", &authority);
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let bad = add("bad", &stranger);
    assert_eq!(bad.status.code(), Some(1));
    let said = String::from_utf8(bad.stderr).unwrap();
    assert!(said.contains("is down: by `health.http` no TLS came about: "), "{said}");
}

#[test]
fn a_backend_that_says_nothing_in_its_handshake_is_told_by_that() {
    for protocol in ["http", "tcp"] {
        let (room, listener) =
            (Room::new(&format!("tls-silent-{protocol}")), TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let _held: Vec<_> = listener.incoming().collect();
        });
        let cluster = "tls = { verify = false, server_name = \"site.test\" }\ntcp = { connect_timeout = \"300ms\", attempts = 1 }";
        let running = Running::start(&room, &document(&room, (protocol, address), cluster, ""));
        let mut socket = TcpStream::connect(running.front()).unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\nHost: any.test\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer);
        assert_eq!(answer.starts_with("HTTP/1.1 502 "), protocol == "http", "{answer}");
        let failed = line(&room, "backend_tls");
        assert_eq!(
            (&failed["by"], &failed["backend_tls_error"]),
            (&"backend".into(), &"the handshake was not over in time".into())
        );
    }
}

#[test]
fn a_health_check_whose_handshake_is_late_counts_as_one_that_failed() {
    let (room, listener) = (Room::new("tls-late-probe"), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    let (sender, begins) = mpsc::channel();
    thread::spawn(move || {
        let mut held = Vec::new();
        for mut socket in listener.incoming().flatten() {
            let mut begin = [0; 16];
            if socket.read_exact(&mut begin).is_ok() {
                let _ = sender.send(begin);
            }
            held.push(socket);
        }
    });
    let cluster = "tls = { verify = false, server_name = \"site.test\" }\nsend_proxy_protocol = \"v1\"\n\
                   health = { tcp = {}, interval = \"200ms\", timeout = \"100ms\", fall = 1 }";
    let running = Running::start(&room, &document(&room, ("tcp", address), cluster, ""));
    let begin = begins.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(&begin, b"PROXY UNKNOWN\r\n\x16", "a header, and then a handshake");
    eventually("it has failed", || {
        (running.metrics().sum("kakei_backend_tls_failed_handshakes_total", "") > 0).then_some(())
    });
}
