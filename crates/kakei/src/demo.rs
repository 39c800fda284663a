//! `kakei demo`: built-in backends, a proxy and clients on free loopback ports. Shows that a backend goes and comes
//! back under load without a lost datagram, by the same transactions as everyone's.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kakei::Proxy;
use kakei::config::Backend;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::Demo;
use crate::demo_http::{self, Visitor};
use crate::demo_stream::{self, Connection};
use crate::say::{self, Failure};

const BACKENDS: [&str; 3] = ["red", "green", "blue"];
const CLUSTER: &str = "colours";
/// A built-in backend: its name, and where it is.
type Server<'a> = (&'a str, SocketAddr);

/// The cluster of the TCP listener, and its backend.
const STREAMS: &str = "echoes";
const ECHO: &str = "echo";
/// The cluster of the HTTP listener, and its backends.
const PAGES: &str = "pages";
const SERVERS: [&str; 2] = ["left", "right"];
/// Clients that send at the same time.
const CLIENTS: usize = 4;
/// How long each part of the show takes.
const SCENE: Duration = Duration::from_millis(1200);
/// A client's rest between two datagrams.
const PACE: Duration = Duration::from_millis(2);
/// When a client gives a datagram up for lost.
const PATIENCE: Duration = Duration::from_secs(2);

/// In the show a flow is one question and its answer, so that each is balanced anew.
const ONE_REPLY: &str = "responses = 1";
/// Afterwards it lives long enough to be looked at.
const LONG: &str = "front_timeout = \"60s\", back_timeout = \"60s\"";

pub(crate) fn run(demo: &Demo) -> Result<(), Failure> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let backends: Vec<(&str, SocketAddr)> =
        BACKENDS.iter().map(|&name| Ok((name, backend(name)?))).collect::<io::Result<_>>().map_err(failed)?;
    let room = Room::new().map_err(failed)?;
    let socket = room.0.join("kakei.sock");
    let echo = demo_stream::backend().map_err(failed)?;
    let servers: Vec<(&str, SocketAddr)> =
        SERVERS.iter().map(|&name| Ok((name, demo_http::backend(name)?))).collect::<io::Result<_>>().map_err(failed)?;
    let text = |knobs| document((&backends, knobs), &socket.display().to_string(), echo, &servers);
    let started = Proxy::builder().config(text(ONE_REPLY)).and_then(kakei::Builder::start);
    let proxy = started.map_err(Failure::refused)?;
    let local = |name| proxy.local_addr(name).ok_or_else(|| Failure::refused("the demo's listener is missing"));
    let (front, streams, web) = (local("demo")?, local("streams")?, local("web")?);
    say::out(&format!(
        "A proxy on udp {front}, three backends behind it, {CLIENTS} clients in front;\non tcp {streams}, with one \
         connection through it;\nand on http://{web}, with two backends and a client that asks without pause.\n\n"
    ));
    let connection = Connection::start(streams).map_err(failed)?;
    let visitor = Visitor::start(web).map_err(failed)?;
    show(&proxy, front, (&backends, &servers))?;
    let seen = visitor.end().map_err(failed)?;
    say::out(&format!("{} requests on one connection over HTTP, {} lost.\n", seen.answered + seen.lost, seen.lost));
    if seen.lost > 0 || seen.answered == 0 {
        return Err(Failure::refused("requests were lost; this should not happen on loopback"));
    }
    proxy.remove_backend(STREAMS, ECHO).map_err(Failure::refused)?;
    thread::sleep(SCENE / 4);
    let exchanges = connection.end().map_err(|error| Failure::refused(format!("the connection was lost: {error}")))?;
    say::out(&format!(
        "{exchanges} exchanges on the one connection, which outlived every change and its backend's removal.\n"
    ));
    proxy.apply(text(LONG)).map_err(Failure::refused)?;
    let path = socket.display();
    say::out(&format!(
        "\nTry it, while this runs:\n  curl -i http://{web}/hello\n  curl -i http://{web}/old/page\n  kakei explain GET http://{web}/old/page -s {path}\n  echo hello | nc -u -w1 {} {}\n  echo hello | nc -w1 {} {}\n  kakei get connections -s {path}\n  kakei status -s {path}\n  kakei get flows -s {path}\n  \
         kakei backend drain {CLUSTER} blue -s {path}\n  kakei explain udp:{front} --client 127.0.0.1 -s {path}\n",
        front.ip(),
        front.port(),
        streams.ip(),
        streams.port()
    ));
    if !demo.once {
        say::out("Ctrl-C ends it.\n");
        signals.forever().next();
    }
    proxy.stop().wait().map_err(Failure::refused)
}

fn failed(error: io::Error) -> Failure {
    Failure::refused(format!("the demo can't be set up: {error}"))
}

/// The document is the one that an operator would write. An address with a free port is one address, so that the two
/// listeners over TCP need two.
fn document(
    (backends, knobs): (&[Server<'_>], &str),
    socket: &str,
    echo: SocketAddr,
    servers: &[Server<'_>],
) -> String {
    let list = |backends: &[Server<'_>]| {
        let one = |(name, address): &Server<'_>| format!("{{ name = \"{name}\", address = \"{address}\" }}");
        backends.iter().map(one).collect::<Vec<String>>().join(", ")
    };
    format!(
        "[admin]\nsocket = {socket:?}\n\n\
         [listeners.demo]\nprotocol = \"udp\"\nbind = [\"127.0.0.1:0\"]\ncluster = \"{CLUSTER}\"\n\n\
         [clusters.{CLUSTER}]\nbalance = \"round_robin\"\nbackends = [{}]\n\
         udp = {{ {knobs} }}\n\n\
         [listeners.streams]\nprotocol = \"tcp\"\nbind = [\"127.0.0.1:0\"]\ncluster = \"{STREAMS}\"\n\n\
         [clusters.{STREAMS}]\nbackends = [{{ name = \"{ECHO}\", address = \"{echo}\" }}]\n\n\
         [listeners.web]\nprotocol = \"http\"\nbind = [\"127.0.0.2:0\"]\ncluster = \"{PAGES}\"\n\n\
         [routes.old]\nlistener = \"web\"\npath = \"/old\"\nredirect = {{ status = 308, path = \"/new{{rest}}\" }}\n\n\
         [clusters.{PAGES}]\nbackends = [{}]\n",
        list(backends),
        list(servers)
    )
}

fn show(proxy: &Proxy, front: SocketAddr, (backends, servers): (&[Server<'_>], &[Server<'_>])) -> Result<(), Failure> {
    let add = |cluster, (name, address): Server<'_>| {
        let backend = Backend { name: name.into(), ..Backend::at(address) };
        proxy.add_backend(cluster, backend).map_err(Failure::refused)
    };
    let load = Load::start(front).map_err(failed)?;
    scene(&load, "balanced over three backends");
    proxy.remove_backend(CLUSTER, "blue").map_err(Failure::refused)?;
    proxy.remove_backend(PAGES, SERVERS[0]).map_err(Failure::refused)?;
    scene(&load, "`blue` removed, under load");
    add(CLUSTER, backends[2])?;
    add(PAGES, servers[0])?;
    scene(&load, "`blue` added again");
    proxy.weigh_backend(CLUSTER, "red", 4).map_err(Failure::refused)?;
    scene(&load, "`red` with weight 4");
    let generation = proxy.handle().view().generation().0;
    let (sent, lost) = load.stop();
    say::out(&format!("\n{sent} datagrams, {} generations, {lost} lost.\n", generation));
    if lost > 0 {
        return Err(Failure::refused(format!(
            "{lost} of {sent} datagrams were lost; this should not happen on loopback"
        )));
    }
    Ok(())
}

fn scene(load: &Load, title: &str) {
    load.tally.answers().begin();
    thread::sleep(SCENE);
    let answers = load.tally.answers().counts.clone();
    let total: u64 = answers.values().sum();
    let shares: Vec<String> = BACKENDS
        .iter()
        .map(|&name| {
            let count = answers.get(name).copied().unwrap_or(0);
            format!("{name} {count:>5} ({:>2} %)", (count * 100 + total / 2) / total.max(1))
        })
        .collect();
    say::out(&format!("{title:<32} {}\n", shares.join("   ")));
}

/// A server that answers each datagram with its name and the datagram. Lives as long as the process.
fn backend(name: &'static str) -> io::Result<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = socket.local_addr()?;
    thread::Builder::new().name(format!("backend-{name}")).spawn(move || {
        let mut buffer = [0; 65_536];
        loop {
            let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
            let mut answer = format!("{name}: ").into_bytes();
            answer.extend_from_slice(&buffer[..length]);
            answer.truncate(65_507);
            // A client that went away wants no answer.
            let _ = socket.send_to(&answer, peer);
        }
    })?;
    Ok(address)
}

/// Clients that send without pause, each datagram from a fresh socket and so as a flow of its own.
struct Load {
    tally: Arc<Tally>,
    clients: Vec<JoinHandle<()>>,
}

/// What the clients saw.
#[derive(Default)]
struct Tally {
    answers: Mutex<Answers>,
    stop: AtomicBool,
    sent: AtomicU64,
    lost: AtomicU64,
}

/// Who answered how often in the scene that is on.
#[derive(Default)]
struct Answers {
    scene: u64,
    counts: BTreeMap<String, u64>,
}

impl Answers {
    fn begin(&mut self) {
        *self = Answers { scene: self.scene + 1, counts: BTreeMap::new() };
    }

    /// A question of a scene before may be answered by a backend that this one has no more.
    fn count(&mut self, asked_in: u64, name: String) {
        if asked_in == self.scene {
            *self.counts.entry(name).or_insert(0) += 1;
        }
    }
}

impl Tally {
    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self, front: SocketAddr) {
        while !self.stop.load(Ordering::Relaxed) {
            self.sent.fetch_add(1, Ordering::Relaxed);
            let scene = self.answers().scene;
            match exchange(front) {
                Ok(name) => self.answers().count(scene, name),
                Err(_) => drop(self.lost.fetch_add(1, Ordering::Relaxed)),
            }
            thread::sleep(PACE);
        }
    }
}

impl Load {
    fn start(front: SocketAddr) -> io::Result<Self> {
        let tally = Arc::new(Tally::default());
        let client = |_| {
            let tally = Arc::clone(&tally);
            thread::Builder::new().spawn(move || tally.client(front))
        };
        let clients = (0..CLIENTS).map(client).collect::<io::Result<_>>()?;
        Ok(Load { tally, clients })
    }

    /// How many were sent, and how many lost.
    fn stop(self) -> (u64, u64) {
        self.tally.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            // A client that panicked has printed why; its datagrams count as they stand.
            let _ = client.join();
        }
        (self.tally.sent.load(Ordering::Relaxed), self.tally.lost.load(Ordering::Relaxed))
    }
}

/// Send one datagram and read who answered.
fn exchange(front: SocketAddr) -> io::Result<String> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(b"hello", front)?;
    let mut buffer = [0; 128];
    let (length, _) = socket.recv_from(&mut buffer)?;
    let answer = String::from_utf8_lossy(&buffer[..length]);
    Ok(answer.split(':').next().unwrap_or_default().to_owned())
}

/// A directory for the admin socket, gone with the demo.
struct Room(PathBuf);

impl Room {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("kakei-demo-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Room(path))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // What is left in the temporary directory is the system's to clean.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
