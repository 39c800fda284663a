//! One client and one backend whose bytes are given, and a whole worker between them: once in one piece each, once cut
//! at drawn places. What comes of it must be the same: what the client gets, which requests the backend sees whole, and
//! what the records say. Chunks are framed anew with each piece that comes, so bodies are compared, not chunks.

use std::collections::VecDeque;
use std::io::Cursor;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kakei_config::{
    AccessLog, Auth, Backend, BasicAuth, Cluster, Document, ForwardAuth, HttpKnobs, HttpListener, Listener, LogFormat,
    PathMatch, Protocol, Respond, Retry, Route, RouteTimeouts,
};
use kakei_proxy::limits::STREAM_READ;
use kakei_proxy::record::{CloseReason, Detail};
use kakei_proxy::seam::{
    Accepted, Arrival, Command, Event, Gather, Inbox, Instant, Op, Outbox, SocketId, Span, Ticket, Verdict, Wall,
};
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::worker::{Role, Worker};

use super::message::{Body, Head, sized};
use crate::smuggling;

/// Steps after which something never ends.
const STEPS: u32 = 20_000;
/// The longest that either side sends.
const MOST: usize = 24 << 10;

/// What both sides send, and where it is cut.
#[derive(Clone, Debug, Default)]
pub struct Cuts {
    /// Seeds the places.
    pub seed: u64,
    /// Whether the backend's connection ends behind what it sends.
    pub ends: bool,
    /// What the client sends.
    pub client: Vec<u8>,
    /// What the backend sends on each of its connections, once all of a request is there that will come.
    pub backend: Vec<u8>,
}

impl Cuts {
    /// From arbitrary bytes: a seed, how much is the client's, and both sides' bytes.
    pub fn read(data: &[u8]) -> Option<Cuts> {
        let (head, rest) = data.split_first_chunk::<5>()?;
        let [seed, more, ends, high, low] = *head;
        let len = usize::from(u16::from_be_bytes([high, low])).min(rest.len()).min(MOST);
        let (client, backend) = rest.split_at(len);
        let backend = backend[..backend.len().min(MOST)].to_vec();
        Some(Cuts {
            seed: u64::from(seed) << 8 | u64::from(more),
            ends: ends & 1 == 1,
            client: client.to_vec(),
            backend,
        })
    }

    /// Whether it makes a difference where the bytes are cut; then what.
    ///
    /// # Errors
    /// What the difference is, or what no worker may do.
    pub fn check(&self) -> Result<(), String> {
        let whole = Run::new(self, None).play()?;
        let cut = Run::new(self, Some(Rng::with_seed(self.seed))).play()?;
        match whole == cut {
            true => Ok(()),
            false => Err(format!("in one piece:\n{whole:#?}\ncut:\n{cut:#?}")),
        }
    }
}

/// A message: its first line, its fields, its body.
type Message = (String, Vec<(String, String)>, Vec<u8>);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    /// The client's answers, and whether each was whole.
    answers: Vec<(Message, bool)>,
    /// Status and reason of each request.
    records: Vec<(Option<u16>, CloseReason)>,
    /// Requests that the backend saw whole, in the order of their connections.
    seen: Vec<Message>,
}

/// A stream as its machine has it.
#[derive(Debug)]
struct Stream {
    credit: bool,
    /// What is still to come of it.
    coming: VecDeque<u8>,
    got: Vec<u8>,
    told_end: bool,
    ends: bool,
}

struct Run {
    worker: Worker,
    now: Instant,
    wake: Option<Instant>,
    front: Option<SocketId>,
    client: Option<(SocketId, Stream)>,
    /// In the order in which they were opened; those that are gone keep what they got.
    servers: Vec<(Option<SocketId>, Stream)>,
    arrivals: u32,
    backend: Vec<u8>,
    backend_ends: bool,
    pending: VecDeque<Event>,
    got: Vec<u8>,
    methods: Vec<String>,
    records: Vec<(Option<u16>, CloseReason)>,
    rng: Option<Rng>,
    start: Option<Stream>,
}

impl Run {
    fn new(cuts: &Cuts, rng: Option<Rng>) -> Self {
        let document = document();
        let shared = Shared { workers: 1, balance_seed: 7 };
        let snapshot = Arc::new(Snapshot::compile(&document, Generation(1), shared, None));
        let publish = Event::Command { ticket: Ticket(0), command: Command::Publish(snapshot) };
        Run {
            worker: Worker::new(Role { index: 0, seed: 5 }),
            now: Instant::from_nanos(1_000_000_000),
            wake: None,
            front: None,
            client: None,
            servers: Vec::new(),
            arrivals: 0,
            backend: cuts.backend.clone(),
            backend_ends: cuts.ends,
            pending: [publish].into(),
            got: Vec::new(),
            methods: Vec::new(),
            records: Vec::new(),
            rng,
            start: Some(Stream {
                credit: true,
                coming: cuts.client.iter().copied().collect(),
                got: Vec::new(),
                told_end: false,
                ends: true,
            }),
        }
    }

    fn play(mut self) -> Result<Outcome, String> {
        for _ in 0..STEPS {
            let mut arena = Vec::new();
            let mut events: Vec<Event> = self.pending.drain(..).collect();
            if events.is_empty() {
                events.extend(self.next(&mut arena));
            }
            let is_over = events.is_empty() && self.wake.is_none_or(|wake| wake > self.now);
            if is_over {
                return self.outcome();
            }
            self.step(events, &arena)?;
        }
        Err("it never ends".to_owned())
    }

    /// What happens next: a client that can go on goes first, so that all that comes of a request is there before it is
    /// answered.
    fn next(&mut self, arena: &mut Vec<u8>) -> Option<Event> {
        if let (Some(front), 0) = (self.front, self.arrivals) {
            self.arrivals = 1;
            let peer = SocketAddr::from((Ipv4Addr::new(198, 51, 100, 7), 40_000));
            let local = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 80));
            return Some(Event::Accepted(Accepted { front, arrival: Arrival(0), peer, local }));
        }
        let rng = &mut self.rng;
        if let Some((socket, stream)) = &mut self.client
            && let Some(event) = stream.data(*socket, rng, arena)
        {
            return Some(event);
        }
        for (socket, stream) in &mut self.servers {
            if let Some(socket) = *socket
                && !stream.got.is_empty()
                && let Some(event) = stream.data(socket, rng, arena).or_else(|| stream.end(socket))
            {
                return Some(event);
            }
        }
        let (socket, stream) = self.client.as_mut()?;
        stream.end(*socket)
    }

    fn step(&mut self, mut events: Vec<Event>, arena: &[u8]) -> Result<(), String> {
        self.now = self.now + Duration::from_millis(1);
        let mut out = Outbox::default();
        let inbox = Inbox { events: &mut events, bytes: arena, wall: Wall::from_secs(1_700_000_000) };
        self.wake = self.worker.step(self.now, inbox, &mut out);
        for op in std::mem::take(&mut out.ops) {
            self.carry_out(op, (&out.bytes, arena))?;
        }
        Ok(())
    }

    fn carry_out(&mut self, op: Op, bytes: (&[u8], &[u8])) -> Result<(), String> {
        match op {
            Op::Listen { socket, bind } => {
                self.front = Some(socket);
                self.pending.push_back(Event::Opened { socket, local: bind.address });
            }
            Op::Accept { socket, .. } => self.client = self.start.take().map(|stream| (socket, stream)),
            Op::Connect { socket, .. } => {
                let coming = self.backend.iter().copied().collect();
                let stream = Stream { credit: true, coming, got: Vec::new(), told_end: false, ends: self.backend_ends };
                self.servers.push((Some(socket), stream));
                let local = (Ipv4Addr::UNSPECIFIED, 0).into();
                self.pending.push_back(Event::Opened { socket, local });
            }
            Op::Write { socket, bytes: gather } => self.write(socket, gather, bytes)?,
            Op::Credit { socket, on } => self.stream(socket).ok_or("credit of a stream that isn't there")?.credit = on,
            Op::Shutdown { socket } => {
                // A client that hears of the end ends too.
                let stream = self.stream(socket).ok_or("an end of a stream that isn't there")?;
                stream.coming.clear();
            }
            Op::Close { socket } | Op::Reset { socket } => self.close(socket)?,
            Op::Verify(verify) => {
                let verdict = if verify.password.0 == b"b" { Verdict::Right } else { Verdict::Wrong };
                self.pending.push_back(Event::Verified { job: verify.job, verdict });
            }
            Op::Record(record) => {
                let Detail::Exchange(detail) = &record.detail else { return Ok(()) };
                if detail.status.is_some() {
                    self.methods.push(detail.method.clone());
                }
                self.records.push((detail.status, record.reason));
            }
            Op::Notice(_) | Op::Reply { .. } => {}
            other => return Err(format!("asks for what nobody needs: {other:?}")),
        }
        Ok(())
    }

    fn stream(&mut self, socket: SocketId) -> Option<&mut Stream> {
        match &mut self.client {
            Some((client, stream)) if *client == socket => Some(stream),
            _ => {
                let mut servers = self.servers.iter_mut();
                servers.find(|(server, _)| *server == Some(socket)).map(|(_, stream)| stream)
            }
        }
    }

    fn write(&mut self, socket: SocketId, gather: Gather, (made, lent): (&[u8], &[u8])) -> Result<(), String> {
        let bytes = [gather.head.of(made), gather.body.of(lent)].concat();
        let stream = self.stream(socket).ok_or("writes to a stream that isn't there")?;
        stream.got.extend(bytes);
        Ok(())
    }

    fn close(&mut self, socket: SocketId) -> Result<(), String> {
        if self.client.as_ref().is_some_and(|(client, _)| *client == socket) {
            self.got = self.client.take().map(|(_, stream)| stream.got).unwrap_or_default();
            return Ok(());
        }
        let server = self.servers.iter_mut().find(|(server, _)| *server == Some(socket));
        server.ok_or("closes a stream that isn't there")?.0 = None;
        Ok(())
    }

    fn outcome(self) -> Result<Outcome, String> {
        let got = self.client.map_or(self.got, |(_, stream)| stream.got);
        let records =
            self.records.into_iter().map(|(status, reason)| (status.map(alike), alike_reason(reason))).collect();
        let mut seen = Vec::new();
        for (_, stream) in &self.servers {
            let mut bytes = Cursor::new(&stream.got);
            loop {
                match smuggling::read(&mut bytes) {
                    Ok(Some(request)) => seen.push((request.line, request.fields, request.body)),
                    Ok(None) => break,
                    // It has to be the same either way.
                    Err(wrong) => {
                        seen.push((wrong, Vec::new(), Vec::new()));
                        break;
                    }
                }
            }
        }
        Ok(Outcome { answers: answers(&got, &self.methods)?, records, seen })
    }
}

impl Stream {
    fn data(&mut self, socket: SocketId, rng: &mut Option<Rng>, arena: &mut Vec<u8>) -> Option<Event> {
        if !self.credit || self.coming.is_empty() {
            return None;
        }
        let most = self.coming.len().min(STREAM_READ);
        let count = match rng {
            None => most,
            Some(rng) => match rng.u8(0..4) {
                0 => 1,
                1 => rng.usize(1..=most.min(8)),
                2 => rng.usize(1..=most.min(100)),
                _ => rng.usize(1..=most),
            },
        };
        arena.extend(self.coming.drain(..count));
        Some(Event::Data { socket, bytes: Span { start: 0, len: count as u32 } })
    }

    fn end(&mut self, socket: SocketId) -> Option<Event> {
        let ends = self.credit && self.ends && self.coming.is_empty() && !self.told_end;
        self.told_end |= ends;
        ends.then_some(Event::Eof { socket })
    }
}

/// A head that can't be read may be refused for what is wrong with it first or for its length, as soon as either is seen.
fn alike(status: u16) -> u16 {
    if matches!(status, 414 | 431 | 501 | 505) { 400 } else { status }
}

/// The same of the reasons.
fn alike_reason(reason: CloseReason) -> CloseReason {
    match reason {
        CloseReason::TooLarge | CloseReason::NotAllowed => CloseReason::BadRequest,
        other => other,
    }
}

/// What a client got, answer by answer.
fn answers(mut got: &[u8], methods: &[String]) -> Result<Vec<(Message, bool)>, String> {
    let mut all = Vec::new();
    let mut methods = methods.iter();
    while !got.is_empty() {
        let head = match Head::parse(got) {
            Ok(Some(head)) => head,
            Ok(None) => return Err(format!("an answer without a head: {got:?}")),
            // What isn't text is compared as it is.
            Err(wrong) => {
                all.push(((wrong, Vec::new(), got.to_vec()), false));
                return Ok(all);
            }
        };
        let status: u16 = head.line.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or("no status")?;
        let is_interim = (100..200).contains(&status);
        let method = if is_interim { None } else { methods.next() };
        let has_none = is_interim || method.is_some_and(|method| method == "HEAD") || matches!(status, 204 | 304);
        let (body, is_whole, end) = match head.length()? {
            _ if has_none => (Vec::new(), true, head.len),
            Some(len) => match sized(got, head.len, len) {
                Body::Whole(body, end) => (body, true, end),
                Body::Part => (got[head.len..].to_vec(), false, got.len()),
            },
            None if head.is_chunked() => unchunk(got, head.len)?,
            None => (got[head.len..].to_vec(), true, got.len()),
        };
        let own = is_own_refusal(&head, status);
        let line = if own { format!("HTTP/1.1 {}", alike(status)) } else { head.line };
        let fields = head.fields.into_iter().filter(|(name, _)| !own || name != "content-length").collect();
        all.push(((line, fields, if own { Vec::new() } else { body }), is_whole));
        got = &got[end..];
    }
    Ok(all)
}

/// Whether the proxy refuses what it can't read.
fn is_own_refusal(head: &Head, status: u16) -> bool {
    alike(status) == 400 && head.field("cache-control") == Some("no-store") && head.closes()
}

/// What is there of a body in chunks, its trailers behind it, whether that is all, and where it ends.
fn unchunk(got: &[u8], mut at: usize) -> Result<(Vec<u8>, bool, usize), String> {
    let mut body = Vec::new();
    let line_at = |at: usize| {
        let len = got.get(at..)?.windows(2).position(|two| two == b"\r\n")?;
        Some(&got[at..at + len])
    };
    while let Some(line) = line_at(at) {
        let size = std::str::from_utf8(line).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.ok_or_else(|| format!("a chunk's size of {line:?}"))?;
        at += line.len() + 2;
        if size > 0 {
            let end = (at + size).min(got.len());
            body.extend_from_slice(&got[at..end]);
            at = (end + 2).min(got.len());
            continue;
        }
        while let Some(trailer) = line_at(at) {
            at += trailer.len() + 2;
            if trailer.is_empty() {
                return Ok((body, true, at));
            }
            body.extend_from_slice(trailer);
        }
        break;
    }
    Ok((body, false, got.len()))
}

/// Small limits, one backend, no connection that is used twice: what it says behind a response would be taken for the
/// next one, or not, by when it comes.
fn document() -> Document {
    let hour = Duration::from_secs(3_600);
    let http = HttpListener {
        max_head: 2_048,
        max_request_line: 512,
        max_fields: 16,
        max_body: 8_192,
        head_timeout: hour,
        body_timeout: hour,
        write_timeout: hour,
        keep_alive: hour,
        request_id: false,
        ..HttpListener::default()
    };
    let listener = Listener {
        protocol: Protocol::Http,
        bind: vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80))],
        http,
        ..Listener::default()
    };
    let timeouts = RouteTimeouts { request: None, response: hour, idle: hour };
    let route = |path: &str| Route {
        listener: "web".into(),
        path: PathMatch::Prefix(path.into()),
        cluster: Some("c".into()),
        upgrade: false,
        timeouts: timeouts.clone(),
        retry: Retry { attempts: 0, ..Retry::default() },
        ..Route::default()
    };
    let hash = format!("$2b$04${}", "a".repeat(53));
    let basic = BasicAuth { realm: "r".into(), users: [("a".to_owned(), hash)].into() };
    let forward = ForwardAuth {
        cluster: "c".into(),
        path: "/may".into(),
        headers: Vec::new(),
        copy: vec!["x-who".into()],
        user: None,
        timeout: hour,
    };
    let locked = Auth { basic: Some(basic.into()), forward: None };
    let asked = Auth { basic: None, forward: Some(forward.into()) };
    let respond = Some(Respond { status: 200, body: "fixed".into(), ..Respond::default() }.into());
    Document {
        access_log: AccessLog { to: Some("stdout".into()), format: LogFormat::Json },
        listeners: [("web".into(), listener)].into(),
        routes: [
            ("root".into(), route("/")),
            ("locked".into(), Route { auth: locked, ..route("/locked") }),
            ("asked".into(), Route { auth: asked, ..route("/asked") }),
            ("fixed".into(), Route { respond, cluster: None, ..route("/fixed") }),
        ]
        .into(),
        clusters: [(
            "c".into(),
            Cluster {
                backends: vec![Backend::at(SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 80)))],
                http: HttpKnobs { idle_timeout: None, ..HttpKnobs::default() },
                ..Cluster::default()
            },
        )]
        .into(),
        ..Document::default()
    }
}
