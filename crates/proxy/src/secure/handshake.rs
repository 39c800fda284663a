//! Until a stream may be used: a PROXY header in plain, the client's first message or ours, the handshake. Bounded in bytes and
//! time here, in number by the listener, in work for each step by the queue: streams that may be used already go first.

use std::sync::Arc;

use kakei_wire::client_hello::{self, ClientHello, Reading};
use kakei_wire::proxy_protocol;
use rustls::Error;
use rustls::server::UnbufferedServerConnection;

use super::client;
use super::session::{Connection, Early, Room, Session};
use super::stream::{Handshake, Peer, Stage, Stream, offer};
use super::{Certificate, End, ListenerTls, Opened, Queue, Secure, Secured, Told};
use crate::limits::{HANDSHAKE_BYTES, HANDSHAKES_PER_STEP};
use crate::listener::ListenerKey;
use crate::record::{ClientCertificate, CloseReason, TlsDetail};
use crate::seam::{Instant, Op, SocketId, Wall};
use crate::stats::{BackendMetric, ListenerMetric};
use crate::world::{Due, Tick, World};

/// Why a handshake comes to nothing.
struct Failure {
    reason: CloseReason,
    error: String,
    /// What the client is told: an alert's record, or something that it understands.
    says: Vec<u8>,
    /// What the client asked for, where that is known and nowhere else.
    offer: Option<Box<TlsDetail>>,
}

/// RFC 8446, section 6.
const UNRECOGNIZED_NAME: u8 = 112;
const DECODE_ERROR: u8 = 50;
const PROTOCOL_VERSION: u8 = 70;
const INTERNAL_ERROR: u8 = 80;

/// Of a session that is gone on from.
const EXPIRED: &str = "the certificate that its session began with has expired";

/// For who speaks HTTP without TLS.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 39\r\nConnection: close\r\n\r\nHTTP without TLS came to a TLS address\n";

impl Secure {
    /// A client was let in at a listener with TLS.
    pub(crate) fn accept(
        &mut self,
        world: &mut World,
        now: Instant,
        socket: SocketId,
        (listener, tls, expects_header): (ListenerKey, Arc<ListenerTls>, bool),
    ) {
        let live = &mut world.listeners[listener];
        live.values[ListenerMetric::HandshakesLive] += 1;
        let within = if expects_header { live.spec.preread_timeout } else { tls.spec.handshake_timeout };
        let stage = if expects_header { Stage::Introduction } else { Stage::Hello };
        let mut stream = Stream::new(Peer::Client(listener, tls), stage);
        stream.timer = Some(world.timers.arm(now + within, Due::Handshake(socket)));
        self.streams.insert(socket, Box::new(stream));
    }

    /// Bytes of a client that isn't through yet. Of a PROXY header those that are its are given back: they go to whoever
    /// the stream belongs to as they are.
    pub(super) fn receive_early(
        &mut self,
        world: &mut World,
        now: Instant,
        socket: SocketId,
        bytes: &[u8],
    ) -> Option<Vec<u8>> {
        let stream = self.streams.get_mut(socket)?;
        stream.input.extend_from_slice(bytes);
        let mut header = None;
        if matches!(stream.stage, Stage::Introduction) {
            let len = match proxy_protocol::parse_stream(&stream.input) {
                Ok(None) => return None,
                Ok(Some(found)) => found.len,
                // Whoever it belongs to ends it for that.
                Err(_) => stream.input.len(),
            };
            header = Some(stream.input.drain(..len).collect());
            stream.stage = Stage::Hello;
            if let (Some(timer), Peer::Client(_, tls)) = (stream.timer, &stream.peer) {
                world.timers.rearm(timer, now + tls.spec.handshake_timeout, Due::Handshake(socket));
            }
        }
        if !stream.is_queued && !stream.input.is_empty() {
            self.queue(socket);
        }
        header
    }

    /// There is something of this stream's handshake to be looked at.
    pub(super) fn queue(&mut self, socket: SocketId) {
        let stream = &mut self.streams[socket];
        stream.is_queued = true;
        match stream.peer {
            Peer::Client(..) => self.queue.clients.push_back(socket),
            Peer::Backend(_) => self.queue.backends.push_back(socket),
        }
    }

    /// The next stream whose handshake goes on, if this step has work left for one. The last one is a client's, if any waits.
    pub(crate) fn next_handshake(&mut self, done: usize) -> Option<SocketId> {
        if done >= HANDSHAKES_PER_STEP {
            return None;
        }
        let Queue { clients, backends } = &mut self.queue;
        let (first, second) = if done + 1 < HANDSHAKES_PER_STEP { (backends, clients) } else { (clients, backends) };
        loop {
            let socket = first.pop_front().or_else(|| second.pop_front())?;
            if let Some(stream) = self.streams.get_mut(socket).filter(|stream| stream.is_opening()) {
                stream.is_queued = false;
                return Some(socket);
            }
        }
    }

    /// Those whose turn hasn't come are not received from meanwhile.
    pub(crate) fn pause_queue(&mut self, tick: &mut Tick<'_>) {
        for socket in self.queue.clients.iter().chain(&self.queue.backends) {
            if let Some(stream) = self.streams.get_mut(*socket).filter(|stream| !stream.is_paused) {
                stream.is_paused = true;
                tick.ask(Op::Credit { socket: *socket, on: false });
            }
        }
    }

    /// Go on with a handshake by what came.
    pub(crate) fn shake(&mut self, world: &mut World, tick: &mut Tick<'_>, socket: SocketId) -> Told {
        let mut told = Told { plain: std::mem::take(&mut self.plain), ..Told::default() };
        let Some(stream) = self.streams.get_mut(socket) else { return told };
        if std::mem::take(&mut stream.is_paused) {
            tick.ask(Op::Credit { socket, on: true });
        }
        stream.taken += stream.input.len();
        let went = stream.advance(tick.wall, &mut self.room, &mut told.plain);
        self.dirty.push(socket);
        match went {
            Err(failure) => told.end = Some(self.refuse(world, socket, failure)),
            Ok(false) if stream.taken > HANDSHAKE_BYTES => {
                let error = format!("it is not over after {HANDSHAKE_BYTES} bytes");
                let failure = Failure::new(CloseReason::TlsTooLong, &error);
                told.end = Some(self.refuse(world, socket, failure));
            }
            Ok(false) => self.open_early(socket, &mut told),
            Ok(true) => match stream.shown(world, tick.wall) {
                Ok(shown) => self.open(world, socket, shown, &mut told),
                Err(failure) => {
                    // Nor does anybody go on from that session again.
                    if let Peer::Backend(place) = &stream.peer {
                        self.known.remove(place);
                    }
                    told.end = Some(self.refuse(world, socket, failure));
                }
            },
        }
        if told.end.is_some() && told.opened.is_none() {
            // What came behind a handshake that is none is nobody's.
            told.plain.clear();
        }
        told
    }

    /// The handshake goes on. Nothing that came by then means anything but early data (RFC 8446, section 4.2.10).
    fn open_early(&mut self, socket: SocketId, told: &mut Told) {
        let stream = &mut self.streams[socket];
        let Stage::Handshake(handshake) = &mut stream.stage else { return };
        if told.plain.is_empty() || handshake.early.is_some() {
            return;
        }
        let Handshake { session, hello, certificate, early } = &mut **handshake;
        let secured = Arc::new(secured(session, (hello.clone(), None), Arc::clone(certificate)));
        *early = Some(Arc::clone(&secured));
        told.opened = Some(Opened::Early(secured));
        told.is_blocked = stream.is_blocked;
    }

    /// The handshake is over.
    fn open(&mut self, world: &mut World, socket: SocketId, shown: Option<Arc<ClientCertificate>>, told: &mut Told) {
        self.leave_opening(world, socket);
        let stream = &mut self.streams[socket];
        let mut was_told = false;
        let (session, opened) = match std::mem::replace(&mut stream.stage, Stage::Ended) {
            Stage::Handshake(handshake) => {
                let Handshake { session, hello, certificate, early } = *handshake;
                was_told = early.is_some();
                count_refused(world, &stream.peer, &session);
                let secured = early.unwrap_or_else(|| Arc::new(secured(&session, (hello, shown), certificate)));
                (session, Opened::Client(secured))
            }
            Stage::Dialled(session) => {
                let detail = agreed(&session);
                (*session, Opened::Backend(Arc::new(detail)))
            }
            _ => return,
        };
        count(world, &stream.peer, &opened);
        told.opened = Some(opened);
        told.is_blocked = stream.is_blocked && !was_told;
        if session.has_ended {
            told.end = Some(End::Closed);
        }
        stream.input = Vec::new();
        stream.stage = Stage::Open(Box::new(session));
    }

    /// The handshake comes to nothing.
    fn refuse(&mut self, world: &mut World, socket: SocketId, failure: Failure) -> End {
        self.leave_opening(world, socket);
        let stream = &mut self.streams[socket];
        count_failed(world, &stream.peer);
        let mut detail = match (&stream.stage, failure.offer) {
            (Stage::Handshake(handshake), _) => offer(&handshake.hello),
            (_, offer) => offer.map(|offer| *offer).unwrap_or_default(),
        };
        detail.error = Some(failure.error);
        stream.end();
        stream.output.extend_from_slice(&failure.says);
        End::Refused(stream.reason(failure.reason), Arc::new(detail))
    }

    /// The time for it is over.
    pub(crate) fn expire(&mut self, world: &mut World, socket: SocketId) -> Option<End> {
        let stream = self.streams.get_mut(socket)?;
        stream.timer = None;
        if !stream.is_opening() {
            return None;
        }
        let reason = match stream.stage {
            Stage::Introduction => CloseReason::PrereadTimeout,
            _ => CloseReason::TlsTimeout,
        };
        Some(self.refuse(world, socket, Failure::new(reason, "it was not over in time")))
    }

    /// The client went, or ends its direction, before it was through.
    pub(super) fn leave_early(&mut self, world: &mut World, socket: SocketId) -> End {
        let stream = &self.streams[socket];
        let error = match stream.peer {
            Peer::Backend(_) => "the backend went before it was over",
            Peer::Client(..) if stream.taken == 0 && stream.input.is_empty() => {
                self.leave_opening(world, socket);
                self.streams[socket].end();
                return End::Gone;
            }
            Peer::Client(..) => "the client went before it was over",
        };
        self.refuse(world, socket, Failure::new(CloseReason::ClientGone, error))
    }

    /// It no longer counts among those that are under way. Its listener may have gone with it in this step.
    pub(super) fn leave_opening(&mut self, world: &mut World, socket: SocketId) {
        let stream = &mut self.streams[socket];
        if let (true, Peer::Client(listener, _)) = (stream.is_opening(), &stream.peer)
            && let Some(listener) = world.listeners.get_mut(*listener)
        {
            listener.values[ListenerMetric::HandshakesLive] -= 1;
        }
        if let Some(timer) = stream.timer.take() {
            world.timers.cancel(timer);
        }
    }
}

impl Stream {
    /// Whether the handshake is over, after what came.
    fn advance(&mut self, wall: Wall, room: &mut Room, plain: &mut Vec<u8>) -> Result<bool, Failure> {
        if let Stage::Dialling(dial) = &mut self.stage {
            let Some(dial) = dial.take() else {
                return Err(Failure::new(CloseReason::TlsError, "there is nothing to speak it by"));
            };
            self.stage = Stage::Dialled(Box::new(dial.begin().map_err(|error| failed(&error))?));
        }
        let peer = self.peer.clone();
        if let (Stage::Hello, Peer::Client(_, tls)) = (&self.stage, &peer) {
            let hello = match client_hello::parse(&self.input) {
                Ok(Reading::More) => {
                    // It is looked at again as a whole.
                    self.taken -= self.input.len();
                    return Ok(false);
                }
                Ok(Reading::Hello(hello)) => hello,
                Ok(Reading::NotTls) => return Err(no_tls(&self.input, tls.is_http)),
                Err(error) => return Err(bad_hello(error)),
            };
            let begun = Self::begin(wall, &hello, tls);
            let (session, certificate) =
                begun.map_err(|failure| Failure { offer: Some(Box::new(offer(&hello))), ..failure })?;
            self.stage = Stage::Handshake(Box::new(Handshake { session, hello, certificate, early: None }));
        }
        let input = std::mem::take(&mut self.input);
        let Some(session) = self.any_session() else { return Ok(false) };
        session.take(&input, room, plain).map_err(|error| failed(&error))?;
        Ok(!session.is_handshaking())
    }

    /// The certificate that a client showed. That it was good when a session began doesn't mean that it still is; nor
    /// does a backend's, which is looked at by the library only where it is shown.
    fn shown(&mut self, world: &World, wall: Wall) -> Result<Option<Arc<ClientCertificate>>, Failure> {
        if let (Stage::Dialled(session), Peer::Backend((cluster, _))) = (&self.stage, &self.peer) {
            let tls = world.clusters.get(*cluster).and_then(|cluster| cluster.spec.tls.as_ref());
            let is_asked = session.agreed().resumed && tls.is_some_and(|tls| tls.spec.verify);
            return match session.shown().filter(|_| is_asked).is_none_or(|der| client::holds(der, wall)) {
                true => Ok(None),
                false => Err(Failure::new(CloseReason::TlsError, EXPIRED)),
            };
        }
        let (Stage::Handshake(handshake), Peer::Client(_, tls)) = (&self.stage, &self.peer) else { return Ok(None) };
        let Some(der) = handshake.session.shown() else { return Ok(None) };
        match client::describe(der, &tls.sha256, wall) {
            (shown, true) => Ok(Some(shown)),
            (_, false) => Err(Failure::new(CloseReason::ClientCertificate, EXPIRED)),
        }
    }

    /// The client's first message is there: who it is answered by.
    fn begin(wall: Wall, hello: &ClientHello, tls: &ListenerTls) -> Result<(Session, Arc<Certificate>), Failure> {
        if !tls.speaks(&hello.versions) {
            return Err(Failure {
                says: alert(PROTOCOL_VERSION),
                ..Failure::new(CloseReason::TlsNoCommon, "it offers only versions that are not spoken")
            });
        }
        let Some(certificate) = tls.choose(hello).cloned() else {
            return Err(Failure {
                says: alert(UNRECOGNIZED_NAME),
                ..Failure::new(CloseReason::TlsUnknownName, "no certificate is for that name")
            });
        };
        let connection = tls.config(&certificate, wall).and_then(|config| UnbufferedServerConnection::new(config).ok());
        let Some(connection) = connection else {
            return Err(Failure {
                says: alert(INTERNAL_ERROR),
                ..Failure::new(CloseReason::TlsError, "there is nothing to speak it by")
            });
        };
        Ok((Session::new(Connection::Server(connection), hello.early_data), certificate))
    }
}

impl Failure {
    fn new(reason: CloseReason, error: &str) -> Self {
        Failure { reason, error: error.to_owned(), says: Vec::new(), offer: None }
    }
}

/// What a handshake came to.
fn agreed(session: &Session) -> TlsDetail {
    let agreed = session.agreed();
    TlsDetail {
        version: Some(agreed.version.to_owned()),
        cipher: agreed.cipher,
        alpn: agreed.alpn.as_ref().map(|name| name.escape_ascii().to_string()),
        resumed: agreed.resumed,
        ..TlsDetail::default()
    }
}

/// The same with a client.
fn secured(
    session: &Session,
    (hello, client): (ClientHello, Option<Arc<ClientCertificate>>),
    certificate: Arc<Certificate>,
) -> Secured {
    let name = Some(certificate.name.clone());
    let detail = TlsDetail { sni: hello.server_name, certificate: name, client, ..agreed(session) };
    let alpn = session.agreed().alpn.map_or(hello.alpn, |agreed| vec![agreed]);
    Secured { detail: Arc::new(detail), certificate, alpn }
}

fn count(world: &mut World, peer: &Peer, opened: &Opened) {
    let detail = match opened {
        Opened::Client(secured) | Opened::Early(secured) => &secured.detail,
        Opened::Backend(detail) => detail,
    };
    let is_new = detail.version.as_deref() == Some("1.3");
    match peer {
        Peer::Client(listener, _) => {
            let values = &mut world.listeners[*listener].values;
            values[if is_new { ListenerMetric::Handshakes13 } else { ListenerMetric::Handshakes12 }] += 1;
            values[ListenerMetric::HandshakesResumed] += u64::from(detail.resumed);
        }
        Peer::Backend((cluster, backend)) => {
            if let Some(live) = world.clusters.get_mut(*cluster).and_then(|of| of.backends.get_mut(*backend)) {
                live.values[if is_new { BackendMetric::Handshakes13 } else { BackendMetric::Handshakes12 }] += 1;
                live.values[BackendMetric::HandshakesResumed] += u64::from(detail.resumed);
            }
        }
    }
}

/// What was offered and not taken comes again behind the handshake, where the client wants it to. Who goes on from a
/// session and sent none may have had none.
fn count_refused(world: &mut World, peer: &Peer, session: &Session) {
    let is_refused = match session.early {
        Early::Refused => true,
        Early::Offered => !session.agreed().resumed,
        Early::No | Early::Taken => false,
    };
    if let Peer::Client(listener, _) = peer {
        world.listeners[*listener].values[ListenerMetric::EarlyDataRefused] += u64::from(is_refused);
    }
}

fn count_failed(world: &mut World, peer: &Peer) {
    match peer {
        Peer::Client(listener, _) => world.listeners[*listener].values[ListenerMetric::HandshakesFailed] += 1,
        Peer::Backend((cluster, backend)) => {
            if let Some(live) = world.clusters.get_mut(*cluster).and_then(|of| of.backends.get_mut(*backend)) {
                live.values[BackendMetric::HandshakesFailed] += 1;
            }
        }
    }
}

/// An alert's record, as it is sent before anything is encrypted.
fn alert(description: u8) -> Vec<u8> {
    const FATAL: u8 = 2;
    vec![21, 3, 3, 0, 2, FATAL, description]
}

/// What came is no TLS. Who speaks HTTP is told so in plain.
fn no_tls(input: &[u8], is_http: bool) -> Failure {
    let is_request = is_http && input.first().is_some_and(u8::is_ascii_uppercase);
    let says = if is_request { PLAIN_HTTP.to_vec() } else { Vec::new() };
    Failure { says, ..Failure::new(CloseReason::TlsMissing, "what came is no TLS") }
}

fn bad_hello(error: client_hello::Error) -> Failure {
    let is_old = matches!(error, client_hello::Error::Version(_) | client_hello::Error::RecordVersion(_));
    let says = alert(if is_old { PROTOCOL_VERSION } else { DECODE_ERROR });
    Failure { says, ..Failure::new(CloseReason::ClientHello, &error.to_string()) }
}

/// What the library found; its alert is among the session's records.
fn failed(error: &Error) -> Failure {
    let reason = match error {
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => CloseReason::TlsNoCommon,
        Error::AlertReceived(_) => CloseReason::TlsClientAlert,
        Error::NoCertificatesPresented | Error::InvalidCertificate(_) => CloseReason::ClientCertificate,
        _ => CloseReason::TlsError,
    };
    Failure::new(reason, &error.to_string())
}
