//! The program under test with everything around it: a directory, backends, clients, an HTTP client. Asserts nothing
//! about traffic by itself.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde_json::Value;

/// How long anything may take that should happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) fn kakei() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kakei"));
    for variable in [
        "KAKEI_SOCKET",
        "KAKEI_API",
        "KAKEI_CERT",
        "KAKEI_KEY",
        "KAKEI_CA",
        "KAKEI_STATE",
        "KAKEI_LOG",
        "NOTIFY_SOCKET",
    ] {
        command.env_remove(variable);
    }
    command
}

/// A directory of the test's own.
pub(crate) struct Room(PathBuf);

/// Names of rooms. A second one of the same name would be the same directory, which the first to end removes.
static NAMES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

impl Room {
    pub(crate) fn new(name: &str) -> Self {
        let is_new = NAMES.lock().unwrap().insert(name.to_owned());
        assert!(is_new, "there are two rooms `{name}`: each needs a name of its own");
        let path = std::env::temp_dir().join(format!("kakei-test-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Room(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A document with an admin socket in `room`, one listener `front` on a free port, and one cluster `c`.
pub(crate) fn document(room: &Room, backends: &[&Echo], more: &str) -> String {
    document_of(room, &backends.iter().map(|echo| (echo.name, echo.address)).collect::<Vec<_>>(), more)
}

pub(crate) fn document_of(room: &Room, backends: &[(&str, SocketAddr)], more: &str) -> String {
    let socket = room.path("k.sock");
    let list: Vec<String> =
        backends.iter().map(|(name, address)| format!("{{ name = \"{name}\", address = \"{address}\" }}")).collect();
    let workers = if more.contains("[workers]") { "" } else { "[workers]\ncount = 2\n" };
    format!(
        "[admin]\nsocket = {socket:?}\n{workers}\
         [listeners.front]\nprotocol = \"udp\"\nbind = [\"127.0.0.1:0\"]\ncluster = \"c\"\ndrain_timeout = \"2s\"\n\
         [clusters.c]\nbackends = [{}]\n{more}\n",
        list.join(", ")
    )
}

/// A running program; killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) ready: String,
    pub(crate) socket: PathBuf,
    stderr: JoinHandle<String>,
    stdout: Option<JoinHandle<String>>,
}

impl Running {
    /// `kakei run -c FILE` until it says that it is ready.
    pub(crate) fn start(room: &Room, document: &str) -> Self {
        let file = room.write("k.toml", document);
        let mut command = kakei();
        command.arg("run").arg("-c").arg(file);
        Running::from(room, command)
    }

    pub(crate) fn from(room: &Room, mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut errors = child.stderr.take().unwrap();
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            text
        });
        let mut ready = String::new();
        stdout.read_line(&mut ready).unwrap();
        if !ready.starts_with("ready: ") {
            let _ = child.kill();
            panic!("it never got ready: {ready:?} {}", stderr.join().unwrap());
        }
        let stdout = Some(thread::spawn(move || {
            let mut text = String::new();
            let _ = stdout.read_to_string(&mut text);
            text
        }));
        Running { child, ready, socket: room.path("k.sock"), stderr, stdout }
    }

    /// The first address of the listener `front`, from the ready line.
    pub(crate) fn front(&self) -> SocketAddr {
        self.address("front")
    }

    /// The same of another listener.
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        let (_, after) = self.ready.split_once(&format!("{listener} on ")).expect("the listener is named");
        let end = after.find([',', ';', ' ']).unwrap();
        after[..end].parse().unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        let done = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(done.success());
    }

    /// Wait for its end; what it wrote to standard error.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let status = eventually("the program ends", || self.child.try_wait().unwrap());
        let _ = self.stdout.take().unwrap().join();
        let stderr = std::mem::replace(&mut self.stderr, thread::spawn(String::new));
        (status, stderr.join().unwrap())
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// A command that asks this proxy.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Output {
        kakei().args(arguments).arg("-s").arg(&self.socket).output().unwrap()
    }

    /// The same; it must succeed.
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.done(&[arguments, &["-o", "json"]].concat())).unwrap()
    }

    pub(crate) fn http(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        http(&self.socket, method, path, headers, body)
    }

    pub(crate) fn metrics(&self) -> Metrics {
        let answer = self.http("GET", "/metrics", &[], "");
        assert_eq!(answer.status, 200);
        assert!(answer.body.ends_with("# EOF\n"));
        Metrics(answer.body)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) struct Metrics(String);

impl Metrics {
    /// The sum of all samples of a name whose labels have this text.
    pub(crate) fn sum(&self, name: &str, label: &str) -> u64 {
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let samples = self.0.lines().filter(of_name).filter(|line| line.contains(label));
        samples.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
    }

    /// What must hold whatever happened.
    pub(crate) fn assert_identities(&self) {
        let dropped = self.sum("kakei_dropped_datagrams_total", "");
        let out = self.sum("kakei_forwarded_datagrams_total", "") + dropped + self.sum("kakei_kept_datagrams", "");
        assert_eq!(self.sum("kakei_client_datagrams_total", ""), out, "in == forwarded + dropped + kept");
        let replies = self.sum("kakei_returned_replies_total", "") + self.sum("kakei_dropped_replies_total", "");
        assert_eq!(self.sum("kakei_replies_total", ""), replies, "replies == returned + dropped");
        let (opened, closed) = (self.sum("kakei_flows_opened_total", ""), self.sum("kakei_flows_closed_total", ""));
        assert_eq!(opened - closed, self.sum("kakei_flows_live", ""), "opened - closed == live");
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
        Some(line.split_once(':')?.1.trim())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

pub(crate) fn http(socket: &Path, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(SOON * 2)).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: k\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let answer = answered(&answer);
    crate::openapi::assert_described(method, path, &answer);
    answer
}

pub(crate) fn answered(answer: &str) -> Answer {
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// Ask until it is so.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + SOON;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < until, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A backend that answers with its name and what it was sent.
pub(crate) struct Echo {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub(crate) fn start(name: &'static str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let address = socket.local_addr().unwrap();
        let (received, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, stopped) = (Arc::clone(&received), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
                counter.fetch_add(1, Ordering::Relaxed);
                let answer = [name.as_bytes(), b":", &buffer[..length]].concat();
                let _ = socket.send_to(&answer, peer);
            }
        });
        Echo { name, address, received, stop, thread: Some(thread) }
    }

    pub(crate) fn count(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

/// A place where this run of the tests alone listens: a port that was bound and given back may be given to another test
/// before it is bound again.
pub(crate) fn own_address(port: u16) -> SocketAddr {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, 64 | a, b, c], port))
}

/// A port that nobody else is given though nobody listens there: who connects is refused.
pub(crate) struct Closed {
    socket: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Closed {
    pub(crate) fn new() -> Self {
        let socket =
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let socket = TcpListener::from(socket);
        Closed { address: socket.local_addr().unwrap(), socket }
    }

    /// From now on somebody listens, and the port was never given back in between.
    pub(crate) fn listen(self) -> TcpListener {
        rustix::net::listen(&self.socket, 128).unwrap();
        self.socket
    }
}

/// A client with a socket of its own.
pub(crate) struct Client {
    pub(crate) socket: UdpSocket,
    front: SocketAddr,
}

impl Client {
    pub(crate) fn new(front: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Client { socket, front }
    }

    pub(crate) fn send(&self, payload: &str) {
        self.socket.send_to(payload.as_bytes(), self.front).unwrap();
    }

    /// Ask, and name who answered; none where nobody does.
    pub(crate) fn ask(&self, payload: &str) -> Option<String> {
        self.send(payload);
        let mut buffer = [0; 2048];
        let (length, peer) = self.socket.recv_from(&mut buffer).ok()?;
        assert_eq!(peer, self.front, "the answer comes from the address that was dialled");
        let answer = std::str::from_utf8(&buffer[..length]).unwrap();
        let (name, rest) = answer.split_once(':').unwrap();
        assert_eq!(rest, payload);
        Some(name.to_owned())
    }

    /// Ask where an answer is not expected: waits shortly.
    pub(crate) fn hears_nothing(&self, payload: &str) -> bool {
        self.socket.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
        self.send(payload);
        let heard = self.socket.recv_from(&mut [0; 2048]).is_ok();
        self.socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        !heard
    }
}

/// Clients that ask without pause, each time as a new flow.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<(u64, u64)>>,
}

impl Load {
    pub(crate) fn start(front: SocketAddr, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let one = |_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let (mut sent, mut lost) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    sent += 1;
                    lost += u64::from(Client::new(front).ask("load").is_none());
                    thread::sleep(Duration::from_millis(1));
                }
                (sent, lost)
            })
        };
        Load { threads: (0..clients).map(one).collect(), stop }
    }

    /// How many were sent, and how many got no answer.
    pub(crate) fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let results = self.threads.into_iter().map(|thread| thread.join().unwrap());
        results.fold((0, 0), |(sent, lost), (s, l)| (sent + s, lost + l))
    }
}
