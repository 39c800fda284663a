//! Reading ahead what the requests of a step will be routed by, before any of them is handled. Among very many routes the
//! places of a host, of a path and of a route are in no cache, and each of them says where the next one is: for one
//! request that is three times the way to memory, one behind the other. Each pass does one of these reads for every
//! request, and none of them waits for another's. Decides nothing: what is guessed wrong, or not at all, is read when it
//! is used, as it would have been. Requests under TLS are not read ahead for: what came of them is ciphertext.

use std::sync::Arc;

use kakei_wire::http1::glance;
use smallvec::SmallVec;

use super::Http;
use super::rule::Rule;
use super::session::Stage;
use super::table::{Paths, Table};
use crate::seam::Event;
use crate::world::{Socket, World};

/// So many events are looked at in one go: what is read for a whole step has room in the caches until it is handled.
const AT_ONCE: usize = 32;

/// One of each of those.
type AtOnce<T> = SmallVec<[T; AT_ONCE]>;

/// Where a request seems to lead.
type Seen<'a> = (&'a Table, &'a [u8], &'a [u8]);

impl Http {
    /// Read what the events of a step seem to ask for.
    pub(crate) fn read_ahead(&mut self, world: &World, events: &[Event], bytes: &[u8]) {
        // A single one would wait for itself.
        if !world.has_many_routes || events.len() < 2 {
            return;
        }
        for events in events.chunks(AT_ONCE) {
            let rules = self.likely(world, events, bytes);
            self.touched = rules.into_iter().map(touch).fold(self.touched, u64::wrapping_add);
        }
    }

    /// The routes that these events seem to ask for. Each collection is a pass.
    fn likely<'a>(&self, world: &'a World, events: &[Event], bytes: &'a [u8]) -> AtOnce<&'a Arc<Rule>> {
        let seen: AtOnce<Seen<'_>> = events.iter().filter_map(|event| self.seen(world, event, bytes)).collect();
        let hosts: AtOnce<(&Paths, &[u8])> =
            seen.into_iter().map(|(table, host, path)| (table.paths(host), path)).collect();
        hosts.into_iter().filter_map(|(paths, path)| paths.likely(path)).collect()
    }

    /// Where the request seems to lead that begins with this event, among many routes.
    fn seen<'a>(&self, world: &'a World, event: &Event, bytes: &'a [u8]) -> Option<Seen<'a>> {
        let Event::Data { socket, bytes: span } = event else { return None };
        let Some(Socket::Session(id)) = world.sockets.get(*socket) else { return None };
        let session = self.sessions.get(*id).filter(|session| session.stage == Stage::Idle)?;
        let table = &world.listeners[session.arrived.listener].spec.http.as_ref()?.table;
        if !table.has_many_routes() || session.secured.is_some() {
            return None;
        }
        let (host, path) = glance(span.of(bytes))?;
        Some((table, host, path))
    }
}

/// Read a word of each cache line that a request needs of its route.
fn touch(rule: &Arc<Rule>) -> u64 {
    Arc::strong_count(rule) as u64 ^ u64::from(rule.extras().retry_budget) ^ u64::from(rule.is_open)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use kakei_config::{Backend, Cluster, Document, Listener, PathMatch, Protocol, Route, ServerName};

    use super::*;
    use crate::limits::MANY_ROUTES;
    use crate::seam::{Accepted, Arrival, Command, Inbox, Instant, Op, Outbox, SocketId, Span, Ticket, Wall};
    use crate::snapshot::{Generation, Shared, Snapshot};
    use crate::worker::{Role, Worker};

    struct Bench {
        worker: Worker,
        out: Outbox,
        clients: Vec<SocketId>,
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Ten paths of each host, in turn to two clusters.
    fn document(routes: usize) -> Document {
        let named = |(at, path): (usize, PathMatch)| {
            let host = vec![ServerName::Exact(format!("h{}.test", at / 10).into())];
            let cluster = Some(["even", "odd"][at % 2].into());
            let route = Route { listener: "web".into(), host, path, cluster, ..Route::default() };
            (format!("r{at}").as_str().into(), route)
        };
        let paths = (0..routes).map(|at| match at % 10 {
            0 => (at, PathMatch::Any),
            1 => (at, PathMatch::Exact("/1".into())),
            path => (at, PathMatch::Prefix(format!("/{path}/x"))),
        });
        let wild = Route { listener: "web".into(), cluster: Some("even".into()), ..Route::default() };
        let any = ("any".into(), wild.clone());
        let wild = ("wild".into(), Route { host: vec![ServerName::Under("wild.test".into())], ..wild });
        let cluster = |port: u16| Cluster {
            backends: vec![Backend::at(SocketAddr::from(([10, 0, 0, 1], port)))],
            ..Cluster::default()
        };
        let bind = vec![addr("0.0.0.0:80")];
        let listener = Listener { protocol: Protocol::Http, bind, ..Listener::default() };
        Document {
            routes: paths.map(named).chain([any, wild]).collect(),
            listeners: [("web".into(), listener)].into(),
            clusters: [("even".into(), cluster(80)), ("odd".into(), cluster(81))].into(),
            ..Document::default()
        }
    }

    impl Bench {
        fn new(routes: usize, clients: u32) -> Self {
            let shared = Shared { workers: 1, balance_seed: 0 };
            let snapshot = Arc::new(Snapshot::compile(&document(routes), Generation(1), shared, None));
            let worker = Worker::new(Role { index: 0, seed: 1 });
            let mut bench = Bench { worker, out: Outbox::default(), clients: Vec::new() };
            bench.step(vec![Event::Command { ticket: Ticket(1), command: Command::Publish(snapshot) }], b"");
            let front = bench.out.ops.iter().find_map(|op| match op {
                Op::Listen { socket, .. } => Some(*socket),
                _ => None,
            });
            let (peer, local) = (addr("192.0.2.7:1000"), addr("192.0.2.1:80"));
            let arrived = |n| Event::Accepted(Accepted { front: front.unwrap(), arrival: Arrival(n), peer, local });
            bench.step((0..clients).map(arrived).collect(), b"");
            let accepted = bench.out.ops.iter().filter_map(|op| match op {
                Op::Accept { socket, .. } => Some(*socket),
                _ => None,
            });
            bench.clients = accepted.collect();
            bench
        }

        fn step(&mut self, mut events: Vec<Event>, bytes: &[u8]) {
            self.out.clear();
            let inbox = Inbox { events: &mut events, bytes, wall: Wall::default() };
            self.worker.step(Instant::from_nanos(1_000_000_000_000), inbox, &mut self.out);
        }

        /// The events in which each of the first clients says one of these.
        fn said(&self, said: &[&str]) -> (Vec<Event>, Vec<u8>) {
            let mut bytes = Vec::new();
            let events = self.clients.iter().zip(said).map(|(socket, said)| {
                let start = bytes.len() as u32;
                bytes.extend_from_slice(said.as_bytes());
                Event::Data { socket: *socket, bytes: Span { start, len: said.len() as u32 } }
            });
            (events.collect(), bytes)
        }
    }

    fn head(host: &str, path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
    }

    #[test]
    fn the_routes_that_requests_take_are_read_and_no_others() {
        let bench = Bench::new(MANY_ROUTES + 1, 8);
        let heads = [
            head("h7.test", "/3/x/y"),
            head("h8.test", "/1?q=1"),
            head("h9.test", "/else"),
            head("none.test", "/"),
            head("a.b.wild.test", "/"),
            "\r\n\r\n".to_owned(),
            String::new(),
            head("h10.test:80", "/9/x"),
        ];
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        let (events, bytes) = bench.said(&heads);
        let rules = bench.worker.http.likely(&bench.worker.world, &events, &bytes);
        let names: Vec<String> = rules.iter().map(|rule| rule.route.as_ref().unwrap().to_string()).collect();
        assert_eq!(names, ["r73", "r81", "r90", "any", "wild", "r109"]);
    }

    #[test]
    fn every_request_of_a_step_goes_where_it_asks_to() {
        let mut bench = Bench::new(MANY_ROUTES + 1, 100);
        let heads: Vec<String> = (0..100).map(|n| head(&format!("h{n}.test"), ["/none", "/1"][n % 2])).collect();
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        let (events, bytes) = bench.said(&heads);
        bench.step(events, &bytes);
        assert_ne!(bench.worker.http.touched, 0, "something was read ahead");
        let ports = bench.out.ops.iter().filter_map(|op| match op {
            Op::Connect { remote, .. } => Some(remote.clone()),
            _ => None,
        });
        let ports: Vec<String> = ports.map(|remote| remote.to_string()).collect();
        let wanted: Vec<String> = (0..100).map(|n| format!("10.0.0.1:{}", 80 + n % 2)).collect();
        assert_eq!(ports, wanted);
    }

    #[test]
    fn among_few_routes_nothing_is_read_ahead() {
        let mut bench = Bench::new(100, 4);
        let head = head("h3.test", "/1");
        let (events, bytes) = bench.said(&[&*head; 4]);
        bench.step(events, &bytes);
        assert_eq!(bench.worker.http.touched, 0);
        // Nor for a request that is alone in its step.
        let mut bench = Bench::new(MANY_ROUTES + 1, 1);
        let (events, bytes) = bench.said(&[&*head]);
        bench.step(events, &bytes);
        assert_eq!(bench.worker.http.touched, 0);
    }
}
