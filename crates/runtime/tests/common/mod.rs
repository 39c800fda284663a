//! A relay for the machine's tests: every client of a bind gets an upstream socket of its own, trains travel unsplit.
//! It knows no limits and no timeouts.
#![expect(clippy::unwrap_used, reason = "a failed expectation here is a failed test")]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as Clock};

use kakei_proxy::seam::{
    BindKey, Command, Datagram, Event, Gather, Inbox, Instant, Op, Outbox, Remote, Reply, Send, SocketId, Span, Ticket,
    Transport,
};
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_runtime::engine::{Engine, EngineConfig, EngineEvent};
use kakei_runtime::step::Step;
use serde_json::json;
use slotmap::{SecondaryMap, SlotMap};

/// What a socket of the relay is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Use {
    Front(BindKey),
    /// To the backend of one client: front socket, client, dialled address.
    Client(SocketId, SocketAddr, IpAddr),
    /// Opened by a test.
    Probe,
}

/// What the test and the relay on its thread share.
#[derive(Default)]
pub(crate) struct Shelf {
    /// Every event but datagrams and commands, in words.
    pub(crate) log: Mutex<Vec<String>>,
    /// Operations to carry out at the next step, given the ids of the front sockets.
    pub(crate) ask: Mutex<Vec<Ask>>,
    /// Where clients are relayed to.
    pub(crate) backend: Mutex<Option<SocketAddr>>,
    /// Datagrams seen by each worker.
    pub(crate) seen: Mutex<HashMap<u16, u64>>,
    /// Every datagram event from the front.
    pub(crate) fronted: Mutex<Vec<Datagram>>,
}

/// What a test may ask of the relay.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Open(Remote),
    Connect(SocketAddr),
    /// From the probe opened last.
    SendFromProbe(Option<SocketAddr>, Vec<u8>, u16),
    /// By an id that was never opened, and by one that was closed.
    SendStale,
    Unlisten(BindKey),
    CloseProbes,
    Panic,
}

impl Shelf {
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn said(&self, word: &str) -> usize {
        self.log().iter().filter(|line| line.contains(word)).count()
    }
}

pub(crate) struct Relay {
    pub(crate) index: u16,
    pub(crate) shelf: Arc<Shelf>,
    ids: SlotMap<SocketId, Use>,
    fronts: HashMap<BindKey, SocketId>,
    clients: HashMap<(SocketId, SocketAddr), SocketId>,
    opened: SecondaryMap<SocketId, ()>,
    kept: Vec<(SocketId, Vec<u8>, u16)>,
    probe: Option<SocketId>,
    /// Whether datagram events are only counted.
    pub(crate) quiet: bool,
}

impl Relay {
    pub(crate) fn new(index: u16, shelf: &Arc<Shelf>) -> Self {
        Relay {
            index,
            shelf: Arc::clone(shelf),
            ids: SlotMap::with_key(),
            fronts: HashMap::new(),
            clients: HashMap::new(),
            opened: SecondaryMap::new(),
            kept: Vec::new(),
            probe: None,
            quiet: false,
        }
    }

    fn publish(&mut self, snapshot: &Snapshot, out: &mut Outbox) {
        let wanted: Vec<BindKey> = snapshot.binds().collect();
        let gone: Vec<BindKey> = self.fronts.keys().copied().filter(|bind| !wanted.contains(bind)).collect();
        for bind in gone {
            self.unlisten(bind, out);
            out.ops.push(Op::Unbind { bind });
        }
        for bind in wanted {
            if !self.fronts.contains_key(&bind) {
                let socket = self.ids.insert(Use::Front(bind));
                self.fronts.insert(bind, socket);
                out.ops.push(Op::Listen { socket, bind });
            }
        }
    }

    fn unlisten(&mut self, bind: BindKey, out: &mut Outbox) {
        if let Some(socket) = self.fronts.remove(&bind) {
            self.ids.remove(socket);
            out.ops.push(Op::Close { socket });
        }
    }

    fn datagram(&mut self, datagram: Datagram, arena: &[u8], out: &mut Outbox) {
        match self.ids.get(datagram.socket) {
            Some(Use::Front(_)) => self.client_sent(datagram, arena, out),
            Some(&Use::Client(front, client, dialled)) => out.ops.push(Op::Send(Send {
                socket: front,
                to: Some(client),
                from: Some(dialled),
                segment: datagram.segment,
                bytes: Gather { head: Span::EMPTY, body: datagram.bytes },
                tag: 1,
            })),
            Some(Use::Probe) => {
                let bytes = String::from_utf8_lossy(datagram.bytes.of(arena)).into_owned();
                self.shelf.log.lock().unwrap().push(format!("probe got {bytes} from {}", datagram.peer));
            }
            None => panic!("an event of a socket that is not there"),
        }
    }

    fn client_sent(&mut self, datagram: Datagram, arena: &[u8], out: &mut Outbox) {
        if !self.quiet {
            *self.shelf.seen.lock().unwrap().entry(self.index).or_default() += 1;
            self.shelf.fronted.lock().unwrap().push(datagram);
        }
        let key = (datagram.socket, datagram.peer);
        let socket = match self.clients.get(&key) {
            Some(&socket) => socket,
            None => {
                let Some(backend) = *self.shelf.backend.lock().unwrap() else { return };
                let socket = self.ids.insert(Use::Client(datagram.socket, datagram.peer, datagram.local));
                self.clients.insert(key, socket);
                out.ops.push(Op::OpenDatagram { socket, remote: Remote::Connected(backend) });
                socket
            }
        };
        if !self.opened.contains_key(socket) {
            self.kept.push((socket, datagram.bytes.of(arena).to_vec(), datagram.segment));
            return;
        }
        let bytes = Gather { head: Span::EMPTY, body: datagram.bytes };
        out.ops.push(Op::Send(Send { socket, to: None, from: None, segment: datagram.segment, bytes, tag: 2 }));
    }

    fn event(&mut self, event: Event, arena: &[u8], out: &mut Outbox) {
        if !matches!(event, Event::Datagram(_) | Event::Command { .. }) && !self.quiet {
            let line = match &event {
                Event::Opened { local, .. } => format!("opened {local}"),
                Event::OpenFailed { error, .. } => format!("open failed {error:?}"),
                Event::Unreachable { peer, .. } => format!("unreachable {peer:?}"),
                Event::SendFailed { tag, datagrams, bytes, error, .. } => {
                    format!("send failed {tag} {datagrams} {bytes} {error:?}")
                }
                Event::Overflow { datagrams, .. } => format!("overflow {datagrams}"),
                Event::Datagram(_) | Event::Command { .. } => unreachable!(),
                other => format!("{other:?}"),
            };
            self.shelf.log.lock().unwrap().push(line);
        }
        match event {
            Event::Datagram(datagram) => self.datagram(datagram, arena, out),
            Event::Opened { socket, .. } => {
                self.opened.insert(socket, ());
                for (_, bytes, segment) in self.kept.extract_if(.., |(of, ..)| *of == socket) {
                    let head = out.put(&bytes);
                    let bytes = Gather { head, body: Span::EMPTY };
                    out.ops.push(Op::Send(Send { socket, to: None, from: None, segment, bytes, tag: 3 }));
                }
            }
            Event::Command { ticket, command } => {
                let reply = match &command {
                    Command::Publish(snapshot) => {
                        self.publish(snapshot, out);
                        Reply::Published(snapshot.generation)
                    }
                    _ => Reply::Done,
                };
                out.ops.push(Op::Reply { ticket, reply });
            }
            _ => {}
        }
    }

    fn asked(&mut self, ask: Ask, out: &mut Outbox) {
        match ask {
            Ask::Open(remote) => {
                let socket = self.ids.insert(Use::Probe);
                self.probe = Some(socket);
                out.ops.push(Op::OpenDatagram { socket, remote });
            }
            Ask::Connect(remote) => {
                let socket = self.ids.insert(Use::Probe);
                out.ops.push(Op::Connect { socket, remote: remote.into(), keepalive: None });
            }
            Ask::SendFromProbe(to, bytes, segment) => {
                let head = out.put(&bytes);
                let bytes = Gather { head, body: Span::EMPTY };
                let socket = self.probe.unwrap();
                out.ops.push(Op::Send(Send { socket, to, from: None, segment, bytes, tag: 4 }));
            }
            Ask::SendStale => {
                let bytes = Gather { head: out.put(b"stale"), body: Span::EMPTY };
                let closed = self.ids.insert(Use::Probe);
                self.ids.remove(closed);
                for socket in [closed, SocketId::default()] {
                    out.ops.push(Op::Send(Send { socket, to: None, from: None, segment: 0, bytes, tag: 5 }));
                    out.ops.push(Op::Close { socket });
                }
            }
            Ask::Unlisten(bind) => self.unlisten(bind, out),
            Ask::CloseProbes => {
                let probes: Vec<SocketId> =
                    self.ids.iter().filter(|(_, what)| **what == Use::Probe).map(|(id, _)| id).collect();
                for socket in probes {
                    self.ids.remove(socket);
                    out.ops.push(Op::Close { socket });
                }
            }
            Ask::Panic => panic!("asked to"),
        }
    }
}

impl Step for Relay {
    fn step(&mut self, now: Instant, inbox: Inbox<'_>, out: &mut Outbox) -> Option<Instant> {
        let Inbox { events, bytes, .. } = inbox;
        for event in events.drain(..) {
            self.event(event, bytes, out);
        }
        if self.quiet {
            return None;
        }
        let asked = std::mem::take(&mut *self.shelf.ask.lock().unwrap());
        for ask in asked {
            self.asked(ask, out);
        }
        Some(now + Duration::from_millis(2))
    }
}

/// An engine of relays.
pub(crate) struct House {
    pub(crate) engine: Engine,
    pub(crate) shelf: Arc<Shelf>,
    tickets: u64,
}

impl House {
    pub(crate) fn new(workers: u16) -> Self {
        let shelf = Arc::new(Shelf::default());
        let config = EngineConfig { workers, pin: false, seed: 1, records: 0 };
        let theirs = Arc::clone(&shelf);
        let engine = Engine::start_with(config, move |role| Relay::new(role.index, &theirs)).unwrap();
        House { engine, shelf, tickets: 0 }
    }

    /// Publish a snapshot with these binds and wait until every worker runs it.
    pub(crate) fn publish(&mut self, binds: &[BindKey]) {
        self.tickets += 1;
        let prepared = self.engine.prepare(binds).unwrap();
        let snapshot = snapshot(self.tickets, binds, self.engine.workers());
        let ticket = Ticket(self.tickets);
        self.engine.publish(ticket, snapshot, prepared).unwrap();
        for _ in 0..self.engine.workers() {
            let event = self.event();
            let published =
                matches!(&event, EngineEvent::Reply { ticket: t, reply: Reply::Published(_), .. } if *t == ticket);
            assert!(published, "{event:?}");
        }
    }

    /// The next event, waited for by the engine's descriptor alone.
    pub(crate) fn event(&mut self) -> EngineEvent {
        let limit = Clock::now() + Duration::from_secs(10);
        while Clock::now() < limit {
            if let Some(event) = self.engine.try_event() {
                return event;
            }
            let fd = self.engine.events_fd().unwrap();
            let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
            let second = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
            rustix::event::poll(&mut fds, Some(&second)).unwrap();
        }
        panic!("no event came");
    }

    pub(crate) fn ask(&self, ask: Ask) {
        self.shelf.ask.lock().unwrap().push(ask);
    }

    /// Wait until a line of the log contains `word` at least `times` times.
    pub(crate) fn hear(&self, word: &str, times: usize) {
        eventually(|| self.shelf.said(word) >= times, || format!("{word}: {:?}", self.shelf.log()));
    }
}

pub(crate) fn eventually(true_: impl Fn() -> bool, said: impl Fn() -> String) {
    let limit = Clock::now() + Duration::from_secs(10);
    while !true_() {
        assert!(Clock::now() < limit, "never came: {}", said());
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn key(address: &str) -> BindKey {
    BindKey { transport: Transport::Udp, address: address.parse().unwrap() }
}

pub(crate) fn snapshot(generation: u64, binds: &[BindKey], workers: u16) -> Arc<Snapshot> {
    // Read as data, so that this crate need not know the model.
    let addresses: Vec<SocketAddr> = binds.iter().map(|bind| bind.address).collect();
    let second = json!({ "secs": 1, "nanos": 0 });
    let listener = json!({
        "protocol": "udp",
        "bind": addresses,
        "cluster": null,
        "limits": { "flows": 1, "flows_per_source": 0, "new_flows_per_second": 0 },
        "max_datagram_size": 65_507,
        "proxy_protocol": { "trusted": [] },
        "drain_timeout": second,
    });
    let listeners = if binds.is_empty() { json!({}) } else { json!({ "l": listener }) };
    let document = json!({
        "admin": { "socket": null, "metrics": null, "state": null },
        "workers": { "count": "auto", "pin": false },
        "access_log": { "to": null, "format": "json" },
        "listeners": listeners,
        "routes": {},
        "clusters": {},
    });
    let document = serde_json::from_value(document).unwrap();
    let shared = Shared { workers, balance_seed: 0 };
    Arc::new(Snapshot::compile(&document, Generation(generation), shared, None))
}

/// A socket of a client or a backend that waits at most some seconds.
pub(crate) fn peer(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    kakei_runtime::udp::set_receive_buffer(socket.as_fd(), 4 << 20);
    socket
}
