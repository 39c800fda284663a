//! A worker that is written down and read back over the sockets that the machine has: what lives on them goes on. The
//! worker is the real one, and so are machine and sockets; it is replaced within a step, which no program does yet.
#![expect(clippy::unwrap_used, reason = "a failed expectation here is a failed test")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant as Clock};

use kakei_config::{Document, parse_toml};
use kakei_proxy::limits::EVENTS_PER_STEP;
use kakei_proxy::seam::{BindKey, Command, Event, Inbox, Instant, Op, Outbox, Reply, Ticket, Transport};
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::stats::{ListenerMetric, Stats};
use kakei_proxy::worker::{Role, Worker};
use kakei_runtime::engine::{Engine, EngineConfig, EngineEvent};
use kakei_runtime::step::Step;
use socket2::SockRef;

/// The hand-over's own; the engine never sees its answer.
const OURS: Ticket = Ticket(u64::MAX - 1);

/// When workers are replaced, and how often they were.
#[derive(Default)]
struct Plan {
    /// In how many further steps.
    wanted: AtomicU64,
    done: AtomicU64,
}

/// A worker that another one takes the place of at the end of a step.
struct Successive {
    worker: Worker,
    role: Role,
    snapshot: Option<Arc<Snapshot>>,
    plan: Arc<Plan>,
}

impl Successive {
    /// Write the worker down at the end of this step, read it back, and have the new one say what it goes on with.
    fn hand_over(&mut self, now: Instant, inbox: Inbox<'_>, out: &mut Outbox) -> Option<Instant> {
        let Inbox { events, bytes, wall } = inbox;
        events.push(Event::Command { ticket: OURS, command: Command::Snapshot });
        self.worker.step(now, Inbox { events, bytes, wall }, out);
        let at = out.ops.iter().position(|op| matches!(op, Op::Reply { ticket: OURS, .. })).unwrap();
        let Op::Reply { reply: Reply::State(state), .. } = out.ops.remove(at) else { panic!("not the state") };
        let text = serde_json::to_string(&state).unwrap();
        let state = serde_json::from_str(&text).unwrap();
        self.worker = Worker::restore(self.role, now, state, self.snapshot.as_ref().unwrap()).unwrap();
        // The first step of a worker that was read back is given no event that names a socket by its old id.
        let mut none = Vec::new();
        let mut after = Outbox::default();
        let wake = self.worker.step(now, Inbox { events: &mut none, bytes: &[], wall }, &mut after);
        let start = out.bytes.len() as u32;
        out.bytes.append(&mut after.bytes);
        for op in &mut after.ops {
            match op {
                Op::Write { bytes, .. } => bytes.head.start += start,
                Op::Send(send) => send.bytes.head.start += start,
                _ => {}
            }
        }
        out.ops.append(&mut after.ops);
        self.plan.done.fetch_add(1, Ordering::Relaxed);
        wake
    }
}

impl Step for Successive {
    fn step(&mut self, now: Instant, inbox: Inbox<'_>, out: &mut Outbox) -> Option<Instant> {
        let published = inbox.events.iter().find_map(|event| match event {
            Event::Command { command: Command::Publish(snapshot), .. } => Some(Arc::clone(snapshot)),
            _ => None,
        });
        self.snapshot = published.or(self.snapshot.take());
        let may = self.snapshot.is_some() && inbox.events.len() < EVENTS_PER_STEP;
        let fewer = |left: u64| left.checked_sub(1);
        match may && self.plan.wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok() {
            true => self.hand_over(now, inbox, out),
            false => self.worker.step(now, inbox, out),
        }
    }
}

/// An engine of one such worker, before backends that are there already.
struct House {
    engine: Engine,
    plan: Arc<Plan>,
    document: Document,
    tickets: u64,
}

impl House {
    fn new(text: &str) -> Self {
        let document = parse_toml(text).unwrap_or_else(|found| panic!("{}", found.render("test", text, false)));
        let plan = Arc::new(Plan::default());
        let theirs = Arc::clone(&plan);
        let config = EngineConfig { workers: 1, pin: false, seed: 1, records: 0 };
        let make =
            move |role| Successive { worker: Worker::new(role), role, snapshot: None, plan: Arc::clone(&theirs) };
        let mut engine = Engine::start_with(config, make).unwrap();
        let shared = Shared { workers: 1, balance_seed: 0 };
        let snapshot = Arc::new(Snapshot::compile(&document, Generation(1), shared, None));
        let binds: Vec<BindKey> = snapshot.binds().collect();
        let prepared = engine.prepare(&binds).unwrap();
        engine.publish(Ticket(1), snapshot, prepared).unwrap();
        let mut house = House { engine, plan, document, tickets: 1 };
        assert!(matches!(house.reply(), Reply::Published(_)));
        house
    }

    /// Where a listener is really bound.
    fn front(&self, listener: &str) -> SocketAddr {
        let listener = &self.document.listeners[&listener.into()];
        let transport = if listener.protocol == kakei_config::Protocol::Udp { Transport::Udp } else { Transport::Tcp };
        self.engine.local_addr(BindKey { transport, address: listener.bind[0] }).unwrap()
    }

    fn reply(&mut self) -> Reply {
        let limit = Clock::now() + Duration::from_secs(10);
        while Clock::now() < limit {
            match self.engine.try_event() {
                Some(EngineEvent::Reply { reply, .. }) => return reply,
                Some(EngineEvent::Notice { .. }) | None => thread::sleep(Duration::from_millis(1)),
                Some(other) => panic!("{other:?}"),
            }
        }
        panic!("no reply came");
    }

    /// The worker's counters. Answered in a step of its own, at the latest.
    fn stats(&mut self) -> Stats {
        self.tickets += 1;
        self.engine.send(0, Ticket(self.tickets), Command::Stats).unwrap();
        match self.reply() {
            Reply::Stats(stats) => *stats,
            other => panic!("{other:?}"),
        }
    }

    /// Put another worker in the place of this one, now.
    fn hand_over(&mut self) {
        let before = self.plan.done.load(Ordering::Relaxed);
        self.plan.wanted.store(1, Ordering::Relaxed);
        self.stats();
        assert_eq!(self.plan.done.load(Ordering::Relaxed), before + 1, "the worker is another one");
    }

    /// How many connections, flows and requests listeners have.
    fn live(&mut self) -> u64 {
        let of = |listener: &kakei_proxy::stats::ListenerStats| {
            listener.values[ListenerMetric::FlowsLive] + listener.values[ListenerMetric::ConnectionsLive]
        };
        self.stats().listeners.iter().map(of).sum()
    }
}

fn udp() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn stream(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// A backend of streams that serves each with its own thread; how many there were.
fn backend(serve: fn(TcpStream)) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&count);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            theirs.fetch_add(1, Ordering::Relaxed);
            thread::spawn(move || serve(stream));
        }
    });
    (address, count)
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 16_384];
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..len]).is_err() {
            return;
        }
    }
}

/// Answers each request by as many bytes as its path says, with that path as their begin.
fn answer(mut stream: TcpStream) {
    while let Some((head, _)) = read_head(&mut stream, &mut Vec::new()) {
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let len: usize = path.rsplit('/').next().unwrap().parse().unwrap();
        let mut body = vec![b'.'; len.max(path.len())];
        body[..path.len()].copy_from_slice(path.as_bytes());
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        if stream.write_all(&[head.as_bytes(), &body].concat()).is_err() {
            return;
        }
    }
}

/// The next head, and where it ended in what was read.
fn read_head(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<(String, usize)> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            return Some((String::from_utf8_lossy(&read[..end]).into_owned(), end + 4));
        }
        match stream.read(&mut buffer) {
            Ok(len @ 1..) => read.extend_from_slice(&buffer[..len]),
            _ => return None,
        }
    }
}

/// Ask for a path whose last part is how long its answer is, and look at all of that.
fn get(stream: &mut TcpStream, path: &str) {
    get_late(stream, path, || ());
}

/// The same, where what comes behind the head is let lie until `wait` is over.
fn get_late(stream: &mut TcpStream, path: &str, wait: impl FnOnce()) {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut body = Vec::new();
    let (head, at) = read_head(stream, &mut body).expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let len = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse::<usize>().unwrap();
    body.drain(..at);
    let mut had = body.len();
    body.resize(len, 0);
    wait();
    while had < len {
        let most = len.min(had + 32_768);
        had += stream.read(&mut body[had..most]).unwrap();
    }
    assert!(body.starts_with(path.as_bytes()) && body[path.len()..].iter().all(|byte| *byte == b'.'), "{path}");
}

fn document(udp: SocketAddr, echo: SocketAddr, web: SocketAddr) -> String {
    let listeners = [("flows", "udp", 1), ("shared", "udp", 2), ("echo", "tcp", 3), ("web", "http", 4)];
    let listeners = listeners.map(|(name, protocol, at)| {
        format!("[listeners.{name}]\nprotocol = \"{protocol}\"\nbind = [\"127.0.0.{at}:0\"]\ncluster = \"{name}\"\n")
    });
    listeners.concat()
        + &format!(
            "[clusters.flows]\nbackends = [\"{udp}\"]\n[clusters.shared]\nbackends = [\"{udp}\"]\n\
         udp = {{ upstream = \"shared\" }}\n[clusters.echo]\nbackends = [\"{echo}\"]\n[clusters.web]\nbackends = [\"{web}\"]\n"
        )
}

#[test]
fn flows_connections_and_requests_go_on_under_a_worker_that_was_read_back() {
    let at = udp();
    let ((echo, echoes), (web, answers)) = (backend(echo), backend(answer));
    let mut house = House::new(&document(at.local_addr().unwrap(), echo, web));
    let (flow, shared) = (udp(), udp());
    let (flows_at, shared_at) = (house.front("flows"), house.front("shared"));
    let pass = |client: &UdpSocket, front: SocketAddr, text: &str| {
        let mut buffer = [0; 64];
        client.send_to(text.as_bytes(), front).unwrap();
        let (len, from) = at.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], text.as_bytes());
        at.send_to(text.to_uppercase().as_bytes(), from).unwrap();
        let (len, of) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], of), (text.to_uppercase().as_bytes(), front));
        from
    };
    let (mut relayed, mut asking) = (stream(house.front("echo")), stream(house.front("web")));
    let say = |relayed: &mut TcpStream, text: &str| {
        relayed.write_all(text.as_bytes()).unwrap();
        let mut heard = vec![0; text.len()];
        relayed.read_exact(&mut heard).unwrap();
        assert_eq!(heard, text.as_bytes());
    };
    let mut froms = Vec::new();
    for round in 0..4 {
        froms.push((pass(&flow, flows_at, "one"), pass(&shared, shared_at, "two")));
        say(&mut relayed, "hello");
        get(&mut asking, &format!("/{round}/100"));
        assert_eq!(house.live(), 4);
        let before = house.engine.machine_stats(0).unwrap().sockets;
        house.hand_over();
        assert_eq!((house.live(), house.engine.machine_stats(0).unwrap().sockets), (4, before));
        // What the backend says first comes too.
        at.send_to(b"more", froms[round].0).unwrap();
        let (len, of) = flow.recv_from(&mut [0; 64]).unwrap();
        assert_eq!((len, of), (4, flows_at));
    }
    assert!(froms.iter().all(|from| *from == froms[0]), "the backend sees the same ports: {froms:?}");
    assert_eq!((echoes.load(Ordering::Relaxed), answers.load(Ordering::Relaxed)), (1, 1), "no connection is anew");
    // Ends are heard by whoever has the connection now.
    relayed.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(relayed.read(&mut [0; 8]).unwrap(), 0);
    drop(asking);
    let limit = Clock::now() + Duration::from_secs(10);
    while house.live() > 2 {
        assert!(Clock::now() < limit, "connections that ended are still there");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_a_worker_does_not_go_on_with_is_closed() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut house = House::new(&format!(
        "[listeners.echo]\nprotocol = \"tcp\"\nbind = [\"127.0.0.1:0\"]\ncluster = \"echo\"\n[clusters.echo]\n\
         backends = [\"{}\"]\nhealth = {{ tcp = {{ expect = \"any\" }}, interval = \"6s\", timeout = \"5s\" }}\n",
        silent.local_addr().unwrap()
    ));
    let (mut probe, _) = silent.accept().unwrap();
    probe.set_read_timeout(Some(Duration::from_millis(2_500))).unwrap();
    // A probe is nothing to go on with: it begins anew. By itself it would wait for longer.
    house.hand_over();
    assert_eq!(probe.read(&mut [0; 8]).unwrap(), 0);
}

/// A client of flows: datagrams one after the other, each of which must come back, by the same port of the proxy's.
fn talk(front: SocketAddr, number: usize) {
    let client = udp();
    for round in 0..300 {
        exchange(&client, front, &format!("{number} {round}"));
    }
}

fn exchange(client: &UdpSocket, front: SocketAddr, text: &str) {
    let mut buffer = [0; 64];
    client.send_to(text.as_bytes(), front).unwrap();
    let (len, of) = client.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!((&buffer[..len], of), (text.as_bytes(), front), "{text}");
}

/// A client of the relay: bytes whose values say where they belong, both ways at once, more than any queue holds.
fn pour(front: SocketAddr, number: usize) {
    const LEN: usize = 12 << 20;
    let all: Vec<u8> = (0..LEN).map(|at| (at * 31 + at / 251 + number) as u8).collect();
    let mut stream = stream(front);
    let mut sending = stream.try_clone().unwrap();
    let sent = all.clone();
    let writer = thread::spawn(move || {
        sending.write_all(&sent).unwrap();
        sending.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut heard = Vec::with_capacity(LEN);
    stream.read_to_end(&mut heard).unwrap();
    writer.join().unwrap();
    assert_eq!(heard.len(), LEN, "stream {number}");
    assert!(heard == all, "stream {number} came back changed");
}

/// How often the worker of the test below met a stream that takes no more.
static BLOCKS: AtomicU64 = AtomicU64::new(0);

/// A client that asks on one connection, for little, and for more than queues hold, which it takes only once the worker
/// has met the end of them.
fn browse(front: SocketAddr, number: usize) {
    let mut stream = stream(front);
    SockRef::from(&stream).set_recv_buffer_size(65_536).unwrap();
    for round in 0..40 {
        let before = BLOCKS.load(Ordering::Relaxed);
        let limit = Clock::now() + Duration::from_secs(20);
        match round % 20 {
            0 => get_late(&mut stream, &format!("/{number}/{round}/{}", 16 << 20), || {
                while BLOCKS.load(Ordering::Relaxed) == before {
                    assert!(Clock::now() < limit, "a client that takes nothing blocks nothing");
                    thread::sleep(Duration::from_millis(1));
                }
            }),
            other => get(&mut stream, &format!("/{number}/{round}/{}", other * 9_999)),
        }
    }
}

/// A client that comes anew for each datagram: flows come before connections in what is written down, so that with each
/// new one all connections are called something else.
fn come_anew(front: SocketAddr, number: usize) {
    for round in 0..120 {
        thread::sleep(Duration::from_millis(5));
        exchange(&udp(), front, &format!("{number}.{round}"));
    }
}

/// A client that comes anew for each request.
fn visit(front: SocketAddr, number: usize) {
    for round in 0..100 {
        get(&mut stream(front), &format!("/{number}/{round}/50"));
    }
}

#[test]
fn nothing_is_lost_where_each_step_is_its_worker_s_last() {
    let at = udp();
    let address = at.local_addr().unwrap();
    let ports = thread::spawn(move || {
        let (mut buffer, mut ports) = ([0; 64], std::collections::BTreeMap::new());
        while let Ok((len, from)) = at.recv_from(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
            if text == "end" {
                break;
            }
            let number = text.split(' ').next().unwrap().to_owned();
            ports.entry(number).or_insert_with(std::collections::BTreeSet::new).insert(from);
            at.send_to(text.as_bytes(), from).unwrap();
        }
        ports
    });
    let ((echo, echoes), (web, answers)) = (backend(echo), backend(answer));
    let house = House::new(&document(address, echo, web));
    let [flows, shared, relay, site] = ["flows", "shared", "echo", "web"].map(|name| house.front(name));
    house.plan.wanted.store(u64::MAX, Ordering::Relaxed);
    let clients: Vec<_> = (0..18)
        .map(|number| {
            let (front, run): (_, fn(SocketAddr, usize)) = match number % 6 {
                0 => (flows, talk),
                1 => (shared, talk),
                2 => (relay, pour),
                3 => (site, browse),
                4 => (flows, come_anew),
                _ => (site, visit),
            };
            thread::spawn(move || run(front, number))
        })
        .collect();
    while clients.iter().any(|client| !client.is_finished()) {
        BLOCKS.store(house.engine.machine_stats(0).unwrap().stream_blocks, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(1));
    }
    let ended: Vec<_> = clients.into_iter().map(thread::JoinHandle::join).collect();
    assert!(ended.iter().all(Result::is_ok), "who lost something has said so");
    let done = house.plan.done.load(Ordering::Relaxed);
    assert!(done > 1_000, "{done} workers");
    udp().send_to(b"end", address).unwrap();
    let ports = ports.join().unwrap();
    assert_eq!(ports.len(), 6 + 3 * 120);
    assert!(ports.values().all(|ports| ports.len() == 1), "a client has one port all the time: {ports:?}");
    assert_eq!(echoes.load(Ordering::Relaxed), 3);
    assert!(answers.load(Ordering::Relaxed) <= 6, "connections to the backend are kept");
    let stats = house.engine.machine_stats(0).unwrap();
    assert!(stats.stream_blocks > 0 && stats.panics == 0, "{stats:?}");
}
