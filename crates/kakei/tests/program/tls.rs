//! TLS as clients, backends and operators see it: a client of a library of its own kind, certificates made for the test.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion};
use serde_json::Value;

use crate::harness::{Room, Running, eventually, kakei};

/// Who vouches for the certificates of a test.
pub(crate) struct Authority {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate as its files hold it.
pub(crate) struct Made {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let (params, key) = (Self::params("the test's authority"), KeyPair::generate().unwrap());
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// One that this one vouches for, by a certificate of that number.
    pub(crate) fn under(&self, serial: u64) -> Self {
        let (mut params, key) = (Self::params("an authority in between"), KeyPair::generate().unwrap());
        params.serial_number = Some(serial.into());
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params
    }

    pub(crate) fn make(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Made {
        self.make_of(KeyPair::generate().unwrap(), names, change)
    }

    /// The same of this key.
    fn make_of(&self, key: KeyPair, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Made {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "a server");
        change(&mut params);
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        Made { chain, key: key.serialize_pem() }
    }
}

impl Made {
    /// Put to files; the document's text that names them.
    pub(crate) fn put(&self, room: &Room, name: &str) -> String {
        let chain = room.write(&format!("{name}.pem"), &self.chain);
        let key = room.write(&format!("{name}.key"), &self.key);
        format!("[certificates.{name}]\nchain = {chain:?}\nkey = {key:?}\n")
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.chain.as_bytes()).unwrap()
    }
}

pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

pub(crate) fn config(authority: &Authority, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    builder.with_root_certificates(roots).with_no_client_auth()
}

pub(crate) fn connect(front: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> std::io::Result<Stream> {
    let socket = TcpStream::connect(front).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// What a client is told where it can't come in.
fn refused(front: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> String {
    connect(front, name, config).expect_err("it is refused").to_string()
}

/// An answer with a body of known length.
pub(crate) fn get(stream: &mut Stream, host: &str, path: &str) -> (String, String) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
    let (mut head, mut one) = (Vec::new(), [0; 1]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut one).unwrap();
        head.push(one[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

/// A backend that sends back what it gets, and ends when its client does.
pub(crate) fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut buffer = vec![0; 65_536];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

/// A backend that answers with the head that it saw.
pub(crate) fn mirror() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let (mut head, mut one) = (Vec::new(), [0; 1]);
                while let Ok(1) = stream.read(&mut one) {
                    head.push(one[0]);
                    if head.ends_with(b"\r\n\r\n") {
                        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", head.len());
                        let _ = stream.write_all(&[answer.as_bytes(), &head].concat());
                        head.clear();
                    }
                }
            });
        }
    });
    address
}

pub(crate) fn document(room: &Room, (protocol, backend): (&str, SocketAddr), tls: &str, more: &str) -> String {
    let (socket, log) = (room.path("k.sock"), room.path("access.log"));
    format!(
        "[admin]\nsocket = {socket:?}\n[workers]\ncount = 3\n[access_log]\nto = {log:?}\n\
         [listeners.front]\nprotocol = \"{protocol}\"\nbind = [\"127.0.0.1:0\"]\ncluster = \"c\"\n\
         drain_timeout = \"2s\"\ntls = {{ {tls} }}\n[clusters.c]\nbackends = [\"{backend}\"]\n{more}\n"
    )
}

/// The line of the access log with this reason.
pub(crate) fn line(room: &Room, reason: &str) -> Value {
    line_where(room, reason, |_| true)
}

/// The first of these that is so, too: lines of several workers come in any order.
fn line_where(room: &Room, reason: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    eventually(reason, || {
        let log = std::fs::read_to_string(room.path("access.log")).ok()?;
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.into_iter().find(|line| line["reason"] == reason && is_so(line))
    })
}

#[test]
fn requests_come_by_the_certificate_of_their_host() {
    let (room, authority) = (Room::new("tls-http"), Authority::new());
    let (one, two) = (authority.make(&["one.test"], |_| {}), authority.make(&["*.two.test"], |_| {}));
    let more = [one.put(&room, "one"), two.put(&room, "two")].concat();
    let tls = "certificates = [\"one\", \"two\"]";
    let running = Running::start(&room, &document(&room, ("http", mirror()), tls, &more));
    let config = Arc::new(config(&authority, &[&rustls::version::TLS13, &rustls::version::TLS12]));
    for (name, made) in [("one.test", &one), ("a.two.test", &two)] {
        let mut stream = connect(running.front(), name, &config).unwrap();
        assert_eq!(stream.conn.peer_certificates().unwrap()[0], made.der());
        for _ in 0..3 {
            let (head, body) = get(&mut stream, name, "/x");
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            assert!(body.contains("X-Forwarded-Proto: https\r\n"), "{body}");
        }
        let (head, _) = get(&mut stream, "other.test", "/x");
        assert!(head.starts_with("HTTP/1.1 421 "), "{head}");
    }
    for name in ["two.test", "b.a.two.test", "three.test"] {
        let told = refused(running.front(), name, &config);
        assert!(told.contains("UnrecognisedName"), "{name}: {told}");
    }
    assert_eq!(line(&room, "tls_unknown_name")["tls_offered_versions"], "1.3,1.2");
    for name in ["one.test", "a.two.test"] {
        let completed = line_where(&room, "completed", |line| line["tls_sni"] == name);
        assert_eq!(completed["tls_version"], "1.3", "{completed}");
    }
    assert_eq!(line(&room, "misdirected")["status"], 421);

    let mut plain = TcpStream::connect(running.front()).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: one.test\r\n\r\n").unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("TLS address\n"), "{answer}");
    assert_eq!(line(&room, "tls_missing")["tls_error"], "what came is no TLS");
    let listed = running.json(&["get", "certificates"]);
    assert_eq!(listed[1]["hosts"], serde_json::json!(["*.two.test"]));
    assert_eq!((&listed[0]["key"], &listed[0]["listeners"][0]), (&"elliptic".into(), &"front".into()));
    assert!(
        listed[0]["expires_in_seconds"].as_i64().unwrap() > 0 && listed[0]["fingerprint"] != listed[1]["fingerprint"]
    );
    let metrics = running.metrics();
    assert!(metrics.sum("kakei_certificate_expiry_timestamp_seconds", "one") > 1_800_000_000);
    assert_eq!(metrics.sum("kakei_tls13_handshakes_total", "front"), 2);
    assert_eq!(metrics.sum("kakei_tls_failed_handshakes_total", "front"), 4);
}

#[test]
fn ends_of_clients_are_counted_by_how_they_ended() {
    let (room, authority) = (Room::new("tls-ends"), Authority::new());
    // A backend that never says a word: what it is asked is under way until the client goes.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let more = format!(
        "{}[clusters.silent]\nbackends = [\"{}\"]\n\
         [routes.half]\nlistener = \"front\"\npath = \"/half\"\ncluster = \"silent\"\n",
        authority.make(&["one.test"], |_| {}).put(&room, "one"),
        silent.local_addr().unwrap()
    );
    let tls = "certificates = [\"one\"]";
    let running = Running::start(&room, &document(&room, ("http", mirror()), tls, &more));
    let config = Arc::new(config(&authority, &[&rustls::version::TLS13]));
    for says_so in [true, false, false] {
        let mut stream = connect(running.front(), "one.test", &config).unwrap();
        assert!(get(&mut stream, "one.test", "/x").0.starts_with("HTTP/1.1 200 "));
        if says_so {
            stream.conn.send_close_notify();
            stream.flush().unwrap();
        }
        stream.sock.shutdown(Shutdown::Write).unwrap();
        let _ = stream.sock.read_to_end(&mut Vec::new());
    }
    // One in the middle of what it asks.
    let mut stream = connect(running.front(), "one.test", &config).unwrap();
    stream.write_all(b"POST /half HTTP/1.1\r\nHost: one.test\r\nContent-Length: 9\r\n\r\nhalf").unwrap();
    stream.sock.shutdown(Shutdown::Write).unwrap();
    let cut = line(&room, "tls_truncated");
    assert_eq!((&cut["target"], &cut["by"]), (&"/half".into(), &"client".into()), "{cut}");
    let closed = |reason: &str| running.metrics().sum("kakei_connections_closed_total", reason);
    eventually("all have ended", || (closed("") == 4).then_some(()));
    assert_eq!([closed("\"closed\""), closed("\"tls_truncated\""), closed("\"client_reset\"")], [1, 3, 0]);
    assert_eq!(running.metrics().sum("kakei_connections_opened_total", ""), 4);
    assert_eq!(running.metrics().sum("kakei_connections_live", ""), 0);
}

#[test]
fn a_client_is_shown_a_certificate_that_goes_with_the_suites_of_its_listener() {
    let (room, authority) = (Room::new("tls-suites"), Authority::new());
    let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let (elliptic, rsa) = (authority.make(&["app.test"], |_| {}), authority.make_of(key, &["app.test"], |_| {}));
    let more = [elliptic.put(&room, "elliptic"), rsa.put(&room, "rsa")].concat();
    let tls = "certificates = [\"elliptic\", \"rsa\"], cipher_suites = \
               [\"TLS_AES_128_GCM_SHA256\", \"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\"]";
    let running = Running::start(&room, &document(&room, ("http", mirror()), tls, &more));
    for (version, made) in [(&rustls::version::TLS12, &rsa), (&rustls::version::TLS13, &elliptic)] {
        let config = Arc::new(config(&authority, &[version]));
        let mut stream = connect(running.front(), "app.test", &config).unwrap();
        assert_eq!(stream.conn.peer_certificates().unwrap()[0], made.der(), "{version:?}");
        assert!(get(&mut stream, "app.test", "/").0.starts_with("HTTP/1.1 200 "));
    }
}

#[test]
fn a_client_that_cannot_use_the_exact_certificate_gets_the_one_for_all_names_beside_it() {
    let (room, authority) = (Room::new("tls-beside"), Authority::new());
    let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let (beside, exact) = (authority.make(&["*.app.test"], |_| {}), authority.make_of(key, &["x.app.test"], |_| {}));
    let more = [beside.put(&room, "beside"), exact.put(&room, "exact")].concat();
    let tls = "certificates = [\"beside\", \"exact\"]";
    let running = Running::start(&room, &document(&room, ("http", mirror()), tls, &more));
    let both = config(&authority, &[&rustls::version::TLS12]);
    let mut provider = rustls::crypto::CryptoProvider::clone(both.crypto_provider());
    provider.cipher_suites.retain(|suite| format!("{:?}", suite.suite()).contains("_ECDSA_"));
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS12]).unwrap();
    let elliptic = builder.with_root_certificates(roots).with_no_client_auth();
    for (config, made) in [(both, &exact), (elliptic, &beside)] {
        let stream = connect(running.front(), "x.app.test", &Arc::new(config)).unwrap();
        assert_eq!(stream.conn.peer_certificates().unwrap()[0], made.der());
    }
    let explained = running.json(&["explain", "GET", "https://x.app.test/"]);
    let names: Vec<&Value> =
        explained["tls"]["certificates"].as_array().unwrap().iter().map(|shown| &shown["name"]).collect();
    assert_eq!(names, ["exact", "beside"], "{explained}");
}

#[test]
fn bytes_come_back_as_they_went_over_both_versions() {
    let (room, authority) = (Room::new("tls-tcp"), Authority::new());
    let more = authority.make(&["echo.test"], |_| {}).put(&room, "echo");
    let running = Running::start(&room, &document(&room, ("tcp", echo()), "certificates = [\"echo\"]", &more));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(config(&authority, &[version]));
        let mut stream = connect(running.front(), "echo.test", &config).unwrap();
        let sent: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
        // Both directions at once, more than fits any buffer: each side is held back by the other.
        for (n, piece) in sent.chunks(700_000).enumerate() {
            stream.write_all(piece).unwrap();
            let mut got = vec![0; piece.len()];
            stream.read_exact(&mut got).unwrap();
            assert!(got == piece, "piece {n} is another one");
        }
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        let mut rest = Vec::new();
        // The end that comes back is said in TLS: without that reading to the end would be an error.
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
    }
    assert_eq!(line(&room, "closed")["request_bytes"], 12_000_000);
}

#[test]
fn a_stream_that_is_cut_is_no_whole_one() {
    let (room, authority) = (Room::new("tls-cut"), Authority::new());
    let more = authority.make(&["echo.test"], |_| {}).put(&room, "echo");
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let tls = "certificates = [\"echo\"], handshake_timeout = \"2s\"";
    let document = document(&room, ("tcp", backend.local_addr().unwrap()), tls, &more);
    let running = Running::start(&room, &document);
    let config = Arc::new(config(&authority, &[&rustls::version::TLS13]));
    let mut stream = connect(running.front(), "echo.test", &config).unwrap();
    stream.write_all(b"half of it").unwrap();
    let (mut seen, _) = backend.accept().unwrap();
    let mut got = [0; 10];
    seen.read_exact(&mut got).unwrap();
    // No word of it in TLS: whoever cuts the line could do that.
    stream.sock.shutdown(Shutdown::Write).unwrap();
    seen.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert!(seen.read(&mut got).is_err(), "the backend sees a reset, not an end");
    assert_eq!(line(&room, "tls_truncated")["request_bytes"], 10);

    // One that says nothing, and one that stops in the middle.
    let silent = TcpStream::connect(running.front()).unwrap();
    let mut half = TcpStream::connect(running.front()).unwrap();
    half.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    eventually("both are given up", || {
        let closed = running.metrics().sum("kakei_connections_closed_total", "tls_timeout");
        (closed == 2).then_some(())
    });
    assert_eq!(running.metrics().sum("kakei_tls_handshakes_live", ""), 0);
    drop((silent, half));
}

#[test]
fn later_handshakes_are_shorter_in_every_worker() {
    let (room, authority) = (Room::new("tls-resumed"), Authority::new());
    let more = authority.make(&["echo.test"], |_| {}).put(&room, "echo");
    let running = Running::start(&room, &document(&room, ("tcp", echo()), "certificates = [\"echo\"]", &more));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut config = config(&authority, &[version]);
        config.resumption = Resumption::in_memory_sessions(64);
        let config = Arc::new(config);
        for n in 0..12 {
            let mut stream = connect(running.front(), "echo.test", &config).unwrap();
            let kind = stream.conn.handshake_kind();
            assert_eq!(kind == Some(HandshakeKind::Resumed), n > 0, "{version:?}, the connection {n} is {kind:?}");
            // Tickets of version 1.3 come behind the handshake.
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0]).unwrap();
        }
    }
    assert_eq!(running.metrics().sum("kakei_tls_resumed_handshakes_total", ""), 22);
}

#[test]
fn tickets_outlive_the_process() {
    let (room, authority) = (Room::new("tls-restart"), Authority::new());
    let more = authority.make(&["echo.test"], |_| {}).put(&room, "echo");
    let state = room.path("state");
    let text = document(&room, ("tcp", echo()), "certificates = [\"echo\"]", &more);
    let text = text.replace("[admin]\n", &format!("[admin]\nstate = {state:?}\n"));
    let mut config = config(&authority, &[&rustls::version::TLS13]);
    config.resumption = Resumption::in_memory_sessions(64);
    let config = Arc::new(config);
    let kind = |running: &Running| {
        let mut stream = connect(running.front(), "echo.test", &config).unwrap();
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        stream.conn.handshake_kind().unwrap()
    };
    let running = Running::start(&room, &text);
    assert_ne!(kind(&running), HandshakeKind::Resumed);
    running.kill();
    let running = Running::start(&room, &text);
    assert_eq!(kind(&running), HandshakeKind::Resumed);
    running.kill();
    let kept = std::fs::read_to_string(state.join("tickets")).unwrap();
    std::fs::write(state.join("tickets"), &kept[..kept.len() / 2]).unwrap();
    let running = Running::start(&room, &text);
    assert_ne!(kind(&running), HandshakeKind::Resumed);
    running.signal("TERM");
    let (_, said) = running.end();
    assert!(said.contains("the file is damaged: there are new ones"), "{said}");
}

#[test]
fn certificates_come_and_go_by_commands() {
    let (room, authority) = (Room::new("tls-verbs"), Authority::new());
    let (one, two) = (authority.make(&["one.test"], |_| {}), authority.make(&["two.test"], |_| {}));
    let text = document(&room, ("tcp", echo()), "certificates = [\"one\"]", &one.put(&room, "one"));
    let running = Running::start(&room, &text);
    let mut config = config(&authority, &[&rustls::version::TLS13]);
    config.resumption = Resumption::disabled();
    let config = Arc::new(config);
    let shown = |name: &str| {
        let stream = connect(running.front(), name, &config).map_err(|error| error.to_string())?;
        Ok::<_, String>(stream.conn.peer_certificates().unwrap()[0].clone())
    };
    two.put(&room, "two");
    let file = |name: &str| room.path(name).to_str().unwrap().to_owned();
    let kept = |what: &str| running.json(&["get", "config"])["certificates"]["two"][what].clone();
    running.done(&["certificate", "add", "two", &file("two.pem"), &file("two.key"), "--listener", "front"]);
    assert_eq!(shown("two.test").unwrap(), two.der());
    assert_eq!(kept("chain"), file("two.pem"));
    assert_eq!(running.json(&["get", "certificates"])[1]["listeners"][0], "front");
    let other = authority.make(&["two.test"], |_| {});
    other.put(&room, "other");
    let refused = running.ask(&["certificate", "replace", "two", &file("other.pem"), &file("two.key")]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("it is not the key of"), "{told}");
    running.done(&["certificate", "replace", "two", &file("other.pem"), &file("other.key"), "--inline"]);
    assert_eq!(shown("two.test").unwrap(), other.der());
    assert_eq!(kept("chain"), std::fs::read_to_string(file("other.pem")).unwrap());
    let said = room.write("said.ocsp", "no responder's answer");
    let refused = running.ask(&[
        "certificate",
        "replace",
        "two",
        &file("two.pem"),
        &file("two.key"),
        "--ocsp",
        said.to_str().unwrap(),
    ]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("/certificates/two/ocsp: ") && told.contains("OCSP responder"), "{told}");
    assert_eq!(shown("two.test").unwrap(), other.der(), "nothing is half done");
    running.done(&["certificate", "remove", "two"]);
    assert!(shown("two.test").unwrap_err().contains("UnrecognisedName"));
    let refused = running.ask(&["certificate", "remove", "one"]);
    assert!(!refused.status.success(), "a listener shows something");
    let refused = running.ask(&["certificate", "replace", "none", &file("other.pem"), &file("other.key")]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("there is no certificate"));
    assert_eq!(shown("one.test").unwrap(), one.der());
}

#[test]
fn all_certificates_are_shown_as_they_come_and_go_and_other_files_are_left_alone() {
    let (room, authority) = (Room::new("tls-all"), Authority::new());
    let (one, two) = (authority.make(&["one.test"], |_| {}), authority.make(&["two.test"], |_| {}));
    let text = document(&room, ("tcp", echo()), "certificates = \"all\"", &one.put(&room, "one"));
    let running = Running::start(&room, &text);
    let mut config = config(&authority, &[&rustls::version::TLS13]);
    config.resumption = Resumption::disabled();
    let config = Arc::new(config);
    let shown = |name: &str| {
        let mut stream = connect(running.front(), name, &config).map_err(|error| error.to_string())?;
        stream.write_all(b"ping").and_then(|()| stream.read_exact(&mut [0; 4])).unwrap();
        Ok::<_, String>(stream.conn.peer_certificates().unwrap()[0].clone())
    };
    assert!(shown("two.test").unwrap_err().contains("UnrecognisedName"));
    two.put(&room, "two");
    // The first one was renewed in its place meanwhile; nobody has said so yet.
    let renewed = authority.make(&["one.test"], |_| {});
    renewed.put(&room, "one");
    let file = |name: &str| room.path(name).to_str().unwrap().to_owned();
    running.done(&["certificate", "add", "two", &file("two.pem"), &file("two.key"), "--listener", "front"]);
    assert_eq!((shown("one.test").unwrap(), shown("two.test").unwrap()), (one.der(), two.der()));
    assert_eq!(running.json(&["get", "certificates"])[1]["listeners"][0], "front");
    running.done(&["certificate", "replace", "one", &file("one.pem"), &file("one.key")]);
    assert_eq!((shown("one.test").unwrap(), shown("two.test").unwrap()), (renewed.der(), two.der()));
    running.done(&["certificate", "remove", "two"]);
    assert!(shown("two.test").unwrap_err().contains("UnrecognisedName"));
    assert_eq!(shown("one.test").unwrap(), renewed.der());
}

#[test]
fn a_certificate_is_replaced_while_traffic_flows() {
    let (room, authority) = (Room::new("tls-replaced"), Authority::new());
    let (old, new) = (authority.make(&["echo.test"], |_| {}), authority.make(&["echo.test"], |_| {}));
    let text = document(&room, ("tcp", echo()), "certificates = [\"echo\"]", &old.put(&room, "echo"));
    let running = Running::start(&room, &text);
    let mut config = config(&authority, &[&rustls::version::TLS13, &rustls::version::TLS12]);
    config.resumption = Resumption::disabled();
    let config = Arc::new(config);
    let mut live = connect(running.front(), "echo.test", &config).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let load = {
        let (stop, config, front) = (Arc::clone(&stop), Arc::clone(&config), running.front());
        thread::spawn(move || {
            let mut done = 0;
            while !stop.load(Ordering::Relaxed) {
                let mut stream = connect(front, "echo.test", &config).unwrap();
                stream.write_all(b"ping").unwrap();
                stream.read_exact(&mut [0; 4]).unwrap();
                done += 1;
            }
            done
        })
    };
    let shown = || connect(running.front(), "echo.test", &config).unwrap().conn.peer_certificates().unwrap()[0].clone();
    assert_eq!(shown(), old.der());
    let file = room.path("k.toml");
    let apply = || running.done(&["apply", file.to_str().unwrap()]);
    assert!(apply().starts_with("nothing to change"), "files that are the same change nothing");
    new.put(&room, "echo");
    let said = apply();
    assert!(said.contains("certificate echo"), "{said}");
    assert_eq!(shown(), new.der());
    // The one that was there goes on, with what it began with.
    live.write_all(b"still here").unwrap();
    live.read_exact(&mut [0; 10]).unwrap();
    stop.store(true, Ordering::Relaxed);
    assert!(load.join().unwrap() > 0, "nothing failed meanwhile");

    // What can't be used is refused, and what ran goes on.
    let other = authority.make(&["echo.test"], |_| {});
    room.write("echo.key", &other.key);
    let refused = running.ask(&["apply", file.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("it is not the key of"), "{told}");
    assert_eq!(shown(), new.der());
}

#[test]
fn certificates_that_can_not_be_used_are_placed_errors() {
    let (room, authority) = (Room::new("tls-wrong"), Authority::new());
    let good = authority.make(&["a.test"], |_| {});
    let other = authority.make(&["a.test"], |_| {});
    let past = authority.make(&["a.test"], |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    });
    let nameless = authority.make(&[], |_| {});
    let reversed = Made { chain: format!("{}{}", authority.pem, good.chain), key: good.key.clone() };
    let unrelated = Made { chain: format!("{}{}", good.chain, other.chain), key: good.key.clone() };
    let crossed = Made { chain: good.chain.clone(), key: other.key.clone() };
    let cases = [
        (past, "`chain`: has expired: it was valid until 2021-01-01T00:00:00Z"),
        (nameless, "`chain`: its first certificate names no host"),
        (reversed, "`chain`: it is in the wrong order"),
        (unrelated, "`chain`: certificate 2 of it does not vouch for certificate 1"),
        (crossed, "`key`: it is not the key of the chain's first certificate"),
        (Made { chain: "nothing".into(), key: good.key.clone() }, "`chain`: it holds no certificate"),
        (Made { chain: good.chain.clone(), key: "nothing".into() }, "`key`: it holds no private key"),
    ];
    for (n, (made, told)) in cases.iter().enumerate() {
        let text = document(&room, ("tcp", echo()), "certificates = [\"a\"]", &made.put(&room, "a"));
        let file = room.write(&format!("{n}.toml"), &text);
        let checked = kakei().arg("check").arg(&file).output().unwrap();
        let drawn = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert_eq!(checked.status.code(), Some(2), "{told}: {drawn}");
        assert!(drawn.contains(told) && drawn.contains(&format!("{n}.toml:")), "{told}: {drawn}");
    }
    let text = document(&room, ("tcp", echo()), "certificates = [\"a\"]", &good.put(&room, "a"));
    std::fs::remove_file(room.path("a.key")).unwrap();
    let file = room.write("missing.toml", &text);
    let run = kakei().arg("run").arg("-c").arg(&file).output().unwrap();
    assert!(String::from_utf8_lossy(&run.stderr).contains("a.key can't be read: No such file"));
    // All of it in the document itself.
    let inline = format!("[certificates.a]\nchain = \"\"\"{}\"\"\"\nkey = \"\"\"{}\"\"\"\n", good.chain, good.key);
    let text = document(&room, ("tcp", echo()), "certificates = [\"a\"]", &inline);
    let file = room.write("inline.toml", &text);
    assert!(kakei().arg("check").arg(&file).output().unwrap().status.success());
}

#[test]
fn a_certificate_that_is_renewed_in_its_place_is_shown_without_a_word() {
    let (room, authority) = (Room::new("tls-watched"), Authority::new());
    let old = authority.make(&["site.test"], |_| {});
    let text = document(&room, ("http", mirror()), "certificates = [\"site\"]", &old.put(&room, "site"));
    let text = text.replacen("[admin]\n", "[admin]\nwatch_files = \"200ms\"\n", 1);
    let running = Running::start(&room, &text);
    let config = Arc::new(config(&authority, &[&rustls::version::TLS13]));
    let mut stays = connect(running.front(), "site.test", &config).unwrap();
    get(&mut stays, "site.test", "/before");

    let new = authority.make(&["site.test"], |_| {});
    // As clients of ACME do: each file in one move, and for a moment they don't fit.
    for (name, text) in [("site.key", &new.key), ("site.pem", &new.chain)] {
        let beside = room.write("beside", text);
        std::fs::rename(beside, room.path(name)).unwrap();
        thread::sleep(Duration::from_millis(300));
    }
    eventually("the new certificate", || {
        let stream = connect(running.front(), "site.test", &config).unwrap();
        (stream.conn.peer_certificates().unwrap()[0] == new.der()).then_some(())
    });
    let (head, _) = get(&mut stays, "site.test", "/after");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(stays.conn.peer_certificates().unwrap()[0], old.der(), "who was there goes on");
    let history = running.json(&["history"]);
    let newest = history.as_array().unwrap().iter().find(|entry| entry["origin"] == "files").unwrap();
    assert!(newest["message"].as_str().unwrap().contains("site.pem changed"), "{newest}");
    assert_eq!(newest["changes"][0], "certificate site: its files hold another one");
    let refused = running.metrics().sum("kakei_changes_refused_total", "");
    assert!(refused <= 1, "the key was there before its certificate, and that was said once");
}
