//! What a request costs in allocations: none, once those before it have made room. Counted by an allocator of the test's
//! own, over a worker that is driven by hand; the machine below it is left out.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;

use kakei_config::{
    Backend, Cluster, Document, FieldEdits, Listener, PathMatch, Protocol, RequestEdits, Route, ServerName,
};
use kakei_proxy::limits::MANY_ROUTES;
use kakei_proxy::seam::*;
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::worker::{Role, Worker};

/// Counts what its thread asks for.
struct Counting;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: as promised by who calls.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as promised by who calls.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: as promised by who calls.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const REQUEST: &[u8] =
    b"GET /p/1?q=2 HTTP/1.1\r\nHost: a.example\r\nUser-Agent: test\r\nAccept: text/html, */*;q=0.8\r\n\r\n";
/// By a route that changes fields, and by one that puts the path into them.
const CHANGED: &[u8] = b"GET /changed/1 HTTP/1.1\r\nHost: a.example\r\nX-Old: 1\r\n\r\n";
const FILLED: &[u8] = b"GET /filled/1 HTTP/1.1\r\nHost: a.example\r\nX-Old: 1\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: test\r\nContent-Length: 4\r\n\r\nfine";

struct Bench {
    worker: Worker,
    events: Vec<Event>,
    out: Outbox,
    now: u64,
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl Bench {
    fn step(&mut self, event: Event, bytes: &[u8]) {
        self.out.clear();
        self.events.push(event);
        self.now += 10_000;
        let inbox = Inbox { events: &mut self.events, bytes, wall: Wall::default() };
        self.worker.step(Instant::from_nanos(self.now), inbox, &mut self.out);
    }

    /// The socket that an operation of the last step is about.
    fn asked<T>(&self, of: impl Fn(&Op) -> Option<T>) -> T {
        self.out.ops.iter().find_map(of).unwrap()
    }

    fn connect(&mut self, front: SocketId) -> SocketId {
        let (peer, local) = (addr("192.0.2.7:1000"), addr("192.0.2.1:80"));
        self.step(Event::Accepted(Accepted { front, arrival: Arrival(1), peer, local }), b"");
        self.asked(|op| match op {
            Op::Accept { socket, .. } => Some(*socket),
            _ => None,
        })
    }

    /// A request and its response; gives the backend's socket.
    fn exchange(&mut self, client: SocketId, request: &[u8]) -> SocketId {
        let all = |bytes: &[u8]| Span { start: 0, len: bytes.len() as u32 };
        self.step(Event::Data { socket: client, bytes: all(request) }, request);
        let connecting = self.out.ops.iter().find_map(|op| match op {
            Op::Connect { socket, .. } => Some(*socket),
            _ => None,
        });
        if let Some(socket) = connecting {
            self.step(Event::Opened { socket, local: addr("10.0.0.9:1000") }, b"");
        }
        let backend = self.asked(|op| match op {
            Op::Write { socket, .. } => Some(*socket),
            _ => None,
        });
        self.step(Event::Data { socket: backend, bytes: all(RESPONSE) }, RESPONSE);
        let answered = self.asked(|op| match op {
            Op::Write { socket, .. } => Some(*socket),
            _ => None,
        });
        assert_eq!(answered, client, "the answer goes to who asked");
        backend
    }
}

#[test]
fn a_request_allocates_nothing() {
    allocates_nothing(0);
}

/// What it is routed by is read ahead there.
#[test]
fn among_very_many_routes_neither() {
    allocates_nothing(MANY_ROUTES);
}

fn allocates_nothing(more: usize) {
    let cluster = Cluster { backends: vec![Backend::at(addr("10.0.0.1:80"))], ..Cluster::default() };
    let bind = vec![addr("0.0.0.0:80")];
    let listener = Listener { protocol: Protocol::Http, bind, cluster: Some("c".into()), ..Listener::default() };
    let changed = |path: &str, value: &str| {
        let edits = FieldEdits { set: [("x-old".into(), value.into())].into(), ..FieldEdits::default() };
        let request = RequestEdits { set: edits.set.clone(), ..RequestEdits::default() };
        let (listener, path) = ("web".into(), PathMatch::Prefix(path.into()));
        Route { listener, path, cluster: Some("c".into()), request, response: edits, ..Route::default() }
    };
    let routes = [("changed", changed("/changed", "new")), ("filled", changed("/filled", "of {path}"))];
    let others = (0..more).map(|at| {
        let host = vec![ServerName::Exact(format!("h{at}.example").into())];
        let route = Route { listener: "web".into(), host, cluster: Some("c".into()), ..Route::default() };
        (format!("other{at}").as_str().into(), route)
    });
    let document = Document {
        routes: routes.map(|(name, route)| (name.into(), route)).into_iter().chain(others).collect(),
        listeners: [("web".into(), listener)].into(),
        clusters: [("c".into(), cluster)].into(),
        ..Document::default()
    };
    let shared = Shared { workers: 1, balance_seed: 0 };
    let snapshot = Arc::new(Snapshot::compile(&document, Generation(1), shared, None));
    let worker = Worker::new(Role { index: 0, seed: 1 });
    let mut bench = Bench { worker, events: Vec::new(), out: Outbox::default(), now: 1_000_000_000_000 };
    bench.step(Event::Command { ticket: Ticket(1), command: Command::Publish(snapshot) }, b"");
    let front = bench.asked(|op| match op {
        Op::Listen { socket, .. } => Some(*socket),
        _ => None,
    });
    bench.step(Event::Opened { socket: front, local: addr("0.0.0.0:80") }, b"");
    let clients: Vec<SocketId> = (0..4).map(|_| bench.connect(front)).collect();
    // Until the slots of what was routed lately have been round once.
    for client in clients.iter().cycle().take(10_000) {
        for request in [REQUEST, CHANGED, FILLED] {
            bench.exchange(*client, request);
        }
    }
    // What a route puts into the response is kept of the request, and of no other.
    for (request, allocations) in [(REQUEST, 0), (CHANGED, 0), (FILLED, 1_000)] {
        let before = ASKED.get();
        for client in clients.iter().cycle().take(1_000) {
            bench.exchange(*client, request);
        }
        let path = String::from_utf8_lossy(&request[..14]);
        assert_eq!(ASKED.get() - before, allocations, "allocations by a thousand requests: {path}");
    }
}
