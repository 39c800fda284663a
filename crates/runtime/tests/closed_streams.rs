//! How a stream ends at its peer, over real sockets: in order where it took all that was meant for it, and else by a
//! reset. What is asked for is written down in each test; nothing here decides.
#![expect(clippy::unwrap_used, reason = "a failed expectation here is a failed test")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant as Clock};

use kakei_config::Document;
use kakei_proxy::seam::{
    BindKey, Command, Event, Gather, Inbox, Instant, Op, Outbox, Reply, SocketId, Span, Ticket, Transport,
};
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_runtime::engine::{Engine, EngineConfig, EngineEvent};
use kakei_runtime::step::Step;
use slotmap::SlotMap;
use socket2::{Domain, Socket, Type};

/// More than the kernel takes for a peer that reads nothing.
const MUCH: usize = 32 << 20;

/// What becomes of clients.
#[derive(Clone, Copy, PartialEq)]
enum Plan {
    /// Each is written so much, and closed in the same step.
    AtOnce(usize),
    /// Each is written so much, and then a farewell of more than is taken, and closed in the same step.
    WithFarewell(usize),
    /// Each is written so much, and closed when it is told that not all of it was taken.
    WhenBlocked(usize),
    /// The same, and closed when all of it was taken.
    WhenTaken(usize),
    /// The first of two is written so much, and when it is told that not all of it was taken, the second so much of its
    /// own, which is closed when it took that.
    InTurn(usize),
    /// What the first says is moved to the second. Both end when that is wanted.
    Piped(Way),
}

/// How two streams end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// The first is closed, and then the second.
    SourceFirst,
    TargetFirst,
    /// The first is closed; when that is wanted again the second is written something, and closed when it took that.
    WrittenBehind,
    /// Whether the source, and whether the target, goes by another name. Then those that do are closed.
    Renamed([bool; 2]),
    Panic,
}

/// A worker that does as the plan says.
struct Closer {
    plan: Plan,
    ids: SlotMap<SocketId, ()>,
    front: SocketId,
    clients: Vec<SocketId>,
    /// What a client did not take.
    rest: Vec<u8>,
    /// Closed with the next step, unless that says that it is blocked.
    closing: Option<SocketId>,
    is_wanted: Arc<AtomicBool>,
}

impl Closer {
    fn let_in(&mut self, socket: SocketId, out: &mut Outbox) {
        self.clients.push(socket);
        match self.plan {
            Plan::AtOnce(len) => {
                write(out, socket, &vec![7; len]);
                out.ops.push(Op::Close { socket });
            }
            Plan::WithFarewell(len) => {
                write(out, socket, &vec![7; len]);
                let bytes = out.put(&vec![8; MUCH]);
                out.ops.extend([Op::Farewell { socket, bytes }, Op::Close { socket }]);
            }
            Plan::WhenBlocked(len) | Plan::WhenTaken(len) => write(out, socket, &vec![7; len]),
            Plan::InTurn(len) => {
                if let [first, _] = self.clients[..] {
                    write(out, first, &vec![7; len]);
                }
            }
            Plan::Piped(_) => {
                if let [from, to] = self.clients[..] {
                    out.ops.push(Op::Pipe { from, to });
                }
            }
        }
    }

    fn end(&mut self, way: Way, out: &mut Outbox) {
        match way {
            Way::SourceFirst => {}
            Way::TargetFirst => self.clients.reverse(),
            Way::Renamed(which) => {
                let clients: Vec<SocketId> =
                    self.clients.drain(..).zip(which).filter(|it| it.1).map(|it| it.0).collect();
                self.front = self.rename(self.front, out);
                self.clients = clients.into_iter().map(|was| self.rename(was, out)).collect();
            }
            Way::WrittenBehind if self.clients.len() > 1 => {
                return out.ops.push(Op::Close { socket: self.clients.remove(0) });
            }
            Way::WrittenBehind => {
                self.closing = self.clients.pop();
                self.closing.into_iter().for_each(|socket| write(out, socket, b"behind"));
            }
            Way::Panic => panic!("asked to"),
        }
        out.ops.extend(self.clients.drain(..).map(|socket| Op::Close { socket }));
    }

    fn rename(&mut self, was: SocketId, out: &mut Outbox) -> SocketId {
        let socket = self.ids.insert(());
        out.ops.push(Op::Adopt { was, socket });
        socket
    }

    fn handle(&mut self, event: Event, arena: &[u8], out: &mut Outbox) {
        match event {
            Event::Command { ticket, command: Command::Publish(snapshot) } => {
                self.front = self.ids.insert(());
                out.ops.push(Op::Listen { socket: self.front, bind: bind() });
                out.ops.push(Op::Reply { ticket, reply: Reply::Published(snapshot.generation) });
            }
            Event::Accepted(accepted) => {
                let socket = self.ids.insert(());
                out.ops.push(Op::Accept { arrival: accepted.arrival, socket, credit: true });
                self.let_in(socket, out);
            }
            Event::Blocked { socket, .. } if matches!(self.plan, Plan::WhenBlocked(_)) => {
                out.ops.push(Op::Close { socket });
            }
            Event::Blocked { socket, .. } if matches!(self.plan, Plan::InTurn(_)) && socket == self.clients[0] => {
                write(out, self.clients[1], &vec![9; MUCH]);
            }
            Event::Blocked { rest, .. } => (self.closing, self.rest) = (None, rest.of(arena).to_vec()),
            Event::Drained { socket } => {
                write(out, socket, &std::mem::take(&mut self.rest));
                self.closing = Some(socket);
            }
            _ => {}
        }
    }
}

impl Step for Closer {
    fn step(&mut self, now: Instant, inbox: Inbox<'_>, out: &mut Outbox) -> Option<Instant> {
        let written = self.closing;
        for event in inbox.events.drain(..) {
            self.handle(event, inbox.bytes, out);
        }
        if written.is_some() && self.closing == written {
            out.ops.extend(self.closing.take().map(|socket| Op::Close { socket }));
        }
        if let Plan::Piped(way) = self.plan
            && self.is_wanted.swap(false, Ordering::Relaxed)
        {
            self.end(way, out);
        }
        Some(if self.closing.is_some() { now } else { now + Duration::from_millis(2) })
    }
}

fn write(out: &mut Outbox, socket: SocketId, bytes: &[u8]) {
    let head = out.put(bytes);
    out.ops.push(Op::Write { socket, bytes: Gather { head, body: Span::EMPTY } });
}

/// Where clients find the worker.
fn bind() -> BindKey {
    BindKey { transport: Transport::Tcp, address: SocketAddr::from(([127, 0, 0, 1], 0)) }
}

/// An engine of one such worker.
struct House {
    engine: Engine,
    is_wanted: Arc<AtomicBool>,
}

impl House {
    fn new(plan: Plan) -> Self {
        let is_wanted = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&is_wanted);
        let make = move |_| Closer {
            plan,
            ids: SlotMap::with_key(),
            front: SocketId::default(),
            clients: Vec::new(),
            rest: Vec::new(),
            closing: None,
            is_wanted: Arc::clone(&theirs),
        };
        let config = EngineConfig { workers: 1, pin: false, seed: 1, records: 0 };
        let mut engine = Engine::start_with(config, make).unwrap();
        let shared = Shared { workers: 1, balance_seed: 0 };
        let snapshot = Arc::new(Snapshot::compile(&Document::default(), Generation(1), shared, None));
        let prepared = engine.prepare(&[bind()]).unwrap();
        engine.publish(Ticket(1), snapshot, prepared).unwrap();
        let limit = Clock::now() + Duration::from_secs(10);
        while !matches!(engine.try_event(), Some(EngineEvent::Reply { reply: Reply::Published(_), .. })) {
            assert!(Clock::now() < limit, "nobody listens");
            std::thread::sleep(Duration::from_millis(1));
        }
        House { engine, is_wanted }
    }

    /// A client whose kernel keeps little for it.
    fn client(&self) -> TcpStream {
        let before = self.accepted();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&self.engine.local_addr(bind()).unwrap().into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        self.wait(|| self.accepted() > before);
        stream
    }

    fn accepted(&self) -> u64 {
        self.engine.machine_stats(0).unwrap().accepted
    }

    fn wait(&self, until: impl Fn() -> bool) {
        let limit = Clock::now() + Duration::from_secs(10);
        while !until() {
            assert!(Clock::now() < limit, "never came: {:?}", self.engine.machine_stats(0));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Nothing is open any more but the front; after a panic not even that.
    fn wait_until_closed(&self) {
        self.wait(|| self.engine.machine_stats(0).unwrap().sockets <= 1);
    }
}

/// Read to the end: how many bytes came, and what the end is.
fn read_to_end(mut stream: TcpStream) -> (usize, io::Result<()>) {
    let (mut came, mut room) = (0, vec![0; 65_536]);
    loop {
        match stream.read(&mut room) {
            Ok(0) => return (came, Ok(())),
            Ok(len) => came += len,
            Err(error) => return (came, Err(error)),
        }
    }
}

/// A part of what was meant came, and then a reset.
fn is_cut((came, end): &(usize, io::Result<()>), whole: usize) -> bool {
    *came < whole && end.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn what_was_taken_whole_is_closed_in_order_and_what_was_not_is_reset() {
    for len in [0, 100, 20_000] {
        let house = House::new(Plan::AtOnce(len));
        let (came, end) = read_to_end(house.client());
        assert!(came == len && end.is_ok(), "{came} of {len}, {end:?}");
    }
    let house = House::new(Plan::AtOnce(MUCH));
    let client = house.client();
    house.wait_until_closed();
    let seen = read_to_end(client);
    assert!(is_cut(&seen, MUCH), "{seen:?}");
}

#[test]
fn what_is_closed_while_it_is_blocked_is_reset() {
    let house = House::new(Plan::WhenBlocked(MUCH));
    let client = house.client();
    house.wait_until_closed();
    let seen = read_to_end(client);
    assert!(is_cut(&seen, MUCH), "{seen:?}");
}

#[test]
fn what_was_blocked_and_took_the_rest_is_closed_in_order() {
    let house = House::new(Plan::WhenTaken(MUCH));
    let (came, end) = read_to_end(house.client());
    assert!(came == MUCH && end.is_ok(), "{came} of {MUCH}, {end:?}");
    assert!(house.engine.machine_stats(0).unwrap().stream_blocks > 0);
}

#[test]
fn what_one_did_not_take_is_given_to_nobody_else() {
    let house = House::new(Plan::InTurn(MUCH));
    let (_first, mut second) = (house.client(), house.client());
    let mut came = Vec::new();
    second.read_to_end(&mut came).unwrap();
    assert!(came.iter().all(|byte| *byte == 9), "bytes of the first");
    assert_eq!(came.len(), MUCH);
    assert!(house.engine.machine_stats(0).unwrap().stream_blocks > 1);
}

#[test]
fn what_is_not_taken_of_a_farewell_is_not_missed() {
    let house = House::new(Plan::WithFarewell(20_000));
    let client = house.client();
    house.wait_until_closed();
    let (came, end) = read_to_end(client);
    assert!((20_000..MUCH).contains(&came) && end.is_ok(), "{came}, {end:?}");
    let house = House::new(Plan::WithFarewell(MUCH));
    let client = house.client();
    house.wait_until_closed();
    let seen = read_to_end(client);
    assert!(is_cut(&seen, MUCH), "{seen:?}");
}

/// What is moved from a client to another that reads nothing, until nothing more is taken: the two, and how much it is.
fn fill(house: &House) -> (TcpStream, TcpStream, usize) {
    let (mut from, to) = (house.client(), house.client());
    from.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let stats = || house.engine.machine_stats(0).unwrap();
    let (mut sent, mut before, limit) = (0, stats(), Clock::now() + Duration::from_secs(60));
    loop {
        assert!(Clock::now() < limit, "more and more is taken");
        match from.write(&[7; 65_536]) {
            Ok(len) => sent += len,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                let now = stats();
                // The worker had its turns since the last time, and moved nothing.
                if now.splice_bytes == before.splice_bytes && now.ticks >= before.ticks + 10 {
                    return (from, to, sent);
                }
                before = now;
            }
        }
    }
}

#[test]
fn what_is_in_the_kernels_pipe_is_no_less_missing() {
    let renamed = [[true, true], [true, false], [false, true], [false, false]].map(Way::Renamed);
    for way in [Way::SourceFirst, Way::TargetFirst, Way::Panic].into_iter().chain(renamed) {
        let house = House::new(Plan::Piped(way));
        let (_from, to, sent) = fill(&house);
        house.is_wanted.store(true, Ordering::Relaxed);
        house.wait_until_closed();
        let seen = read_to_end(to);
        assert!(is_cut(&seen, sent), "{way:?}: {seen:?} of {sent}");
    }
}

#[test]
fn what_is_written_behind_does_not_make_up_for_what_is_missing() {
    let house = House::new(Plan::Piped(Way::WrittenBehind));
    let (_from, mut to, sent) = fill(&house);
    house.is_wanted.store(true, Ordering::Relaxed);
    house.wait(|| house.engine.machine_stats(0).unwrap().sockets == 2);
    to.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    while to.read(&mut [0; 65_536]).is_ok() {}
    house.is_wanted.store(true, Ordering::Relaxed);
    house.wait_until_closed();
    assert_eq!(house.engine.machine_stats(0).unwrap().stream_blocks, 0, "it took what was written behind");
    let seen = read_to_end(to);
    assert!(is_cut(&seen, sent), "{seen:?} of {sent}");
}

#[test]
fn who_is_stopped_passes_no_part_for_the_whole() {
    let house = House::new(Plan::Piped(Way::SourceFirst));
    let (_from, to, sent) = fill(&house);
    house.engine.stop();
    let seen = read_to_end(to);
    assert!(is_cut(&seen, sent), "{seen:?} of {sent}");
}

#[test]
fn what_came_through_the_kernels_pipe_is_closed_in_order() {
    let renamed = [[true, true], [true, false], [false, true], [false, false]].map(Way::Renamed);
    for way in [Way::SourceFirst, Way::TargetFirst, Way::Panic].into_iter().chain(renamed) {
        let house = House::new(Plan::Piped(way));
        let (mut from, mut to) = (house.client(), house.client());
        from.write_all(&[7; 300_000]).unwrap();
        to.read_exact(&mut [0; 300_000]).unwrap();
        house.is_wanted.store(true, Ordering::Relaxed);
        let (came, end) = read_to_end(to);
        assert!(came == 0 && end.is_ok(), "{way:?}: {came}, {end:?}");
        // Counted is what was done once the step is over, and a stream's end is seen before.
        house.wait(|| house.engine.machine_stats(0).unwrap().splice_bytes > 0);
    }
}
