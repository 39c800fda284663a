//! Early data as clients and backends see it: what may go on before the handshake is over does and says so, everything
//! else waits; a first flight is taken once; changes forget no session.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};

use crate::harness::{Room, Running, eventually};
use crate::tls::{Authority, Stream, config, connect, document, get, line, mirror};

const HOST: &str = "one.test";
/// For handshakes that are to end, however long that takes.
const AMPLE: &str = "10s";
const EARLY: &str = "[routes.early]\nlistener = \"front\"\npath = \"/early\"\ncluster = \"c\"\nearly_data = true\n";

struct Scene {
    room: Room,
    authority: Authority,
    running: Running,
    config: Arc<ClientConfig>,
    text: String,
}

impl Scene {
    fn start(name: &str, handshake_timeout: &str) -> Self {
        let (room, authority) = (Room::new(name), Authority::new());
        let made = authority.make(&[HOST], |_| {}).put(&room, "one");
        let tls = format!("certificates = [\"one\"], handshake_timeout = \"{handshake_timeout}\"");
        let text = document(&room, ("http", mirror()), &tls, &made);
        let running = Running::start(&room, &format!("{text}{EARLY}"));
        let mut config = crate::tls::config(&authority, &[&rustls::version::TLS13]);
        config.resumption = Resumption::in_memory_sessions(64);
        config.enable_early_data = true;
        Scene { room, authority, running, config: Arc::new(config), text }
    }

    fn front(&self) -> SocketAddr {
        self.running.front()
    }

    fn count(&self, metric: &str) -> u64 {
        self.running.metrics().sum(metric, "")
    }

    fn apply(&self, more: &str) {
        let file = self.room.write("next.toml", &format!("{}{more}", self.text));
        self.running.done(&["apply", file.to_str().unwrap()]);
    }

    /// A connection that leaves sessions to go on from.
    fn visit(&self) {
        let mut stream = connect(self.front(), HOST, &self.config).unwrap();
        get(&mut stream, HOST, "/");
    }

    /// A connection that begins with a request as early data; none where there is no session for that.
    fn begin(&self, request: &str) -> Option<(Stream, Vec<u8>)> {
        let name = ServerName::try_from(HOST.to_owned()).unwrap();
        let mut conn = ClientConnection::new(Arc::clone(&self.config), name).unwrap();
        conn.early_data()?.write_all(request.as_bytes()).unwrap();
        let mut flight = Vec::new();
        while conn.wants_write() {
            conn.write_tls(&mut flight).unwrap();
        }
        Some((StreamOwned::new(conn, self.send(&flight)), flight))
    }

    fn send(&self, flight: &[u8]) -> TcpStream {
        let mut socket = TcpStream::connect(self.front()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.write_all(flight).unwrap();
        socket
    }

    /// A connection that begins with a request, by a session that was left just before.
    fn early(&self, request: &str) -> (Stream, Vec<u8>) {
        self.visit();
        self.begin(request).expect("there is a session")
    }
}

fn asked(method: &str, path: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n{length}\r\n{body}")
}

/// The head that the backend saw.
fn answer(stream: &mut Stream) -> String {
    let (mut all, mut one) = (Vec::new(), [0; 1]);
    while all.windows(4).filter(|four| four == b"\r\n\r\n").count() < 2 {
        stream.read_exact(&mut one).unwrap();
        all.push(one[0]);
    }
    String::from_utf8(all).unwrap()
}

#[test]
fn what_may_come_early_does_and_everything_else_waits() {
    let scene = Scene::start("tls-early", AMPLE);
    let (mut stream, _) = scene.early(&asked("GET", "/early", ""));
    eventually("the backend has it, before the client heard anything", || {
        (scene.count("kakei_backend_requests_total") == 2).then_some(())
    });
    let head = answer(&mut stream);
    assert!(stream.conn.is_early_data_accepted());
    assert_eq!(head.matches("Early-Data: 1\r\n").count(), 1, "{head}");
    assert!(head.contains("X-Forwarded-Proto: https\r\n"), "{head}");
    // The next one on the same connection is a request like any other.
    let (_, body) = get(&mut stream, HOST, "/early");
    assert!(!body.to_lowercase().contains("early-data"), "{body}");
    assert_eq!((scene.count("kakei_early_requests_total"), scene.count("kakei_early_held_requests_total")), (1, 0));
    let log = eventually("the visit and both requests are written down", || {
        let log = std::fs::read_to_string(scene.room.path("access.log")).ok()?;
        let completed = log.matches("\"reason\":\"completed\"").count();
        (log.ends_with('\n') && completed == 3).then_some(log)
    });
    assert_eq!(log.matches("\"early\":true").count(), 1, "{log}");

    let others = [("POST", "/early", ""), ("GET", "/early", "body"), ("GET", "/late", ""), ("DELETE", "/early", "")];
    for (n, (method, path, body)) in others.into_iter().enumerate() {
        let (mut stream, _) = scene.early(&asked(method, path, body));
        eventually("it is held", || (scene.count("kakei_early_held_requests_total") == n as u64 + 1).then_some(()));
        let before = scene.count("kakei_backend_requests_total");
        thread::sleep(Duration::from_millis(150));
        assert_eq!(scene.count("kakei_backend_requests_total"), before, "{method} {path} {body} waits");
        let head = answer(&mut stream);
        assert!(stream.conn.is_early_data_accepted(), "{method} {path} {body}");
        assert!(head.contains(&format!("{method} {path} HTTP/1.1")), "{head}");
        assert!(!head.to_lowercase().contains("early-data"), "{head}");
    }
    for (method, path, what) in
        [("GET", "early", "goes on at once"), ("POST", "early", "waits"), ("GET", "late", "waits")]
    {
        let url = format!("https://{HOST}:{}/{path}", scene.front().port());
        let said = scene.running.done(&["explain", method, &url]);
        assert!(said.contains(&format!("as early data: it {what}")), "{said}");
    }
    assert_eq!(scene.count("kakei_early_requests_total"), 1);
    assert_eq!(scene.count("kakei_tls_refused_early_data_total"), 0);
}

/// A backend that wants nothing to come early.
fn picky() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut head, mut one) = (Vec::new(), [0; 1]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut one).unwrap_or(0) == 1 {
                head.push(one[0]);
            }
            let is_early = String::from_utf8_lossy(&head).contains("Early-Data: 1\r\n");
            let status = if is_early { "425 Too Early" } else { "200 OK" };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\nConnection: close\r\n\r\nx\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn a_backend_that_wants_nothing_early_is_asked_once_and_its_client_told() {
    let scene = Scene::start("tls-early-picky", AMPLE);
    let [a, b] = [picky(), picky()];
    scene.apply(&format!("{}[clusters.p]\nbackends = [\"{a}\", \"{b}\"]\n", EARLY.replace("\"c\"", "\"p\"")));
    let (mut stream, _) = scene.early(&asked("GET", "/early", ""));
    assert!(answer(&mut stream).starts_with("HTTP/1.1 425 "));
    assert_eq!(scene.running.metrics().sum("kakei_backend_requests_total", "cluster=\"p\""), 1);
    let (head, _) = get(&mut stream, HOST, "/early");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

#[test]
fn a_first_flight_is_taken_once_whoever_sends_it_to_which_worker() {
    let scene = Scene::start("tls-early-replay", "3s");
    let (mut stream, flight) = scene.early(&asked("GET", "/early", ""));
    assert!(answer(&mut stream).contains("Early-Data: 1"));
    let replays: Vec<TcpStream> = (0..12).map(|_| scene.send(&flight)).collect();
    // Nobody can end the handshakes that come of it.
    eventually("they are closed", || {
        (scene.running.metrics().sum("kakei_connections_closed_total", "tls_timeout") == 12).then_some(())
    });
    assert_eq!(scene.count("kakei_early_requests_total"), 1, "taken once");
    assert_eq!(scene.count("kakei_backend_requests_total"), 2);
    drop(replays);
}

#[test]
fn who_never_ends_its_handshake_is_closed_in_time() {
    let scene = Scene::start("tls-early-stall", "1s");
    let began = Instant::now();
    let (mut held, _) = scene.early(&asked("POST", "/early", "body"));
    assert_eq!(line(&scene.room, "tls_timeout")["by"], "client");
    assert!((900..5_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert_eq!(scene.count("kakei_tls_handshakes_live"), 0);
    assert_eq!(scene.count("kakei_requests_live"), 0);
    assert_eq!(scene.count("kakei_backend_requests_total"), 1, "it went nowhere");
    let mut rest = Vec::new();
    let _ = held.sock.read_to_end(&mut rest);
    drop(held);
}

#[test]
fn changes_forget_no_session_and_routes_change_their_mind_at_once() {
    let scene = Scene::start("tls-early-changes", AMPLE);
    let ask = asked("GET", "/early", "");
    // Sessions that were left before go on behind a change of something else.
    scene.visit();
    scene.apply(&format!("{EARLY}[routes.other]\nlistener = \"front\"\npath = \"/other\"\ncluster = \"c\"\n"));
    let (mut stream, _) = scene.begin(&ask).expect("there is a session");
    assert!(answer(&mut stream).contains("Early-Data: 1") && stream.conn.is_early_data_accepted());
    // The route allows it no more: the session is of no use, and the client sends its request again.
    scene.visit();
    scene.apply("");
    let (mut stream, _) = scene.begin(&ask).expect("there is a session");
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    assert!(!stream.conn.is_early_data_accepted());
    let (_, body) = get(&mut stream, HOST, "/early");
    assert!(!body.contains("Early-Data"), "{body}");
    assert_eq!(scene.count("kakei_tls_refused_early_data_total"), 1);
    // Tickets are what they were before.
    get(&mut connect(scene.front(), HOST, &scene.config).unwrap(), HOST, "/");
    assert!(scene.begin(&ask).is_none(), "nothing is offered");
    scene.apply(EARLY);
    let (mut stream, _) = scene.early(&ask);
    assert!(answer(&mut stream).contains("Early-Data: 1"));
}

#[test]
fn the_version_before_goes_on_from_its_sessions_and_sends_nothing_early() {
    let scene = Scene::start("tls-early-old", AMPLE);
    let mut old = config(&scene.authority, &[&rustls::version::TLS12]);
    old.resumption = Resumption::in_memory_sessions(64);
    old.enable_early_data = true;
    let old = Arc::new(old);
    for n in 0..6 {
        let mut stream = connect(scene.front(), HOST, &old).unwrap();
        let kind = stream.conn.handshake_kind();
        assert_eq!(kind == Some(HandshakeKind::Resumed), n > 0, "the connection {n} is {kind:?}");
        let (_, body) = get(&mut stream, HOST, "/early");
        assert!(!body.contains("Early-Data"), "{body}");
    }
}

#[test]
fn who_starts_anew_knows_no_session_and_loses_no_request() {
    let scene = Scene::start("tls-early-restart", AMPLE);
    scene.visit();
    let text = format!("{}{EARLY}", scene.text);
    let Scene { room, authority, running, config, .. } = scene;
    running.kill();
    let running = Running::start(&room, &text);
    let scene = Scene { room, authority, running, config, text };
    // More than one record, which nobody can read.
    let long = format!("/early?{}", "q".repeat(5_000));
    let (mut stream, _) = scene.begin(&asked("GET", &long, "")).expect("there is a session");
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    assert!(!stream.conn.is_early_data_accepted());
    let (_, body) = get(&mut stream, HOST, "/early");
    assert!(!body.contains("Early-Data"), "{body}");
    assert_eq!(scene.count("kakei_backend_requests_total"), 1);
    assert_eq!(scene.count("kakei_tls_refused_early_data_total"), 1);
}
