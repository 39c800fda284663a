//! A stream under TLS: how far it has come, what waits in either direction. Decides nothing.

use std::sync::Arc;

use kakei_wire::client_hello::ClientHello;

use super::Secured;
use super::certificate::Certificate;
use super::dial::Dial;
use super::listener::ListenerTls;
use super::session::Session;
use crate::cluster::{BackendKey, ClusterKey};
use crate::listener::ListenerKey;
use crate::record::{CloseReason, TlsDetail};
use crate::timers::TimerKey;

/// See the module's words.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) peer: Peer,
    pub(super) stage: Stage,
    /// What came and waits for its turn.
    pub(super) input: Vec<u8>,
    /// Records that wait to be written, before those that the session made.
    pub(super) output: Vec<u8>,
    /// Bytes that came until the handshake was over.
    pub(super) taken: usize,
    /// Whether the peer takes nothing for now.
    pub(super) is_blocked: bool,
    /// Whether it stands in the queue.
    pub(super) is_queued: bool,
    /// Whether nothing is received until its turn has come.
    pub(super) is_paused: bool,
    /// Of the handshake, the armed deadline.
    pub(super) timer: Option<TimerKey>,
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    /// A client of this listener, held to what that had when it came.
    Client(ListenerKey, Arc<ListenerTls>),
    /// This backend.
    Backend((ClusterKey, BackendKey)),
}

/// How far a stream has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// A PROXY header comes first.
    Introduction,
    /// Not all of the first message is there.
    Hello,
    /// A handshake is under way.
    Handshake(Box<Handshake>),
    /// A handshake with a backend is to be begun; none: there is nothing to speak it by.
    Dialling(Option<Box<Dial>>),
    /// It was begun.
    Dialled(Box<Session>),
    /// It may be used.
    Open(Box<Session>),
    /// It is of no more use, but what it owes is still to be written.
    Ended,
}

/// A handshake under way.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) session: Session,
    /// What the client asked for.
    pub(super) hello: ClientHello,
    /// What it is shown.
    pub(super) certificate: Arc<Certificate>,
    /// What was agreed on, where early data came: whoever the stream belongs to was given that, and may write.
    pub(super) early: Option<Arc<Secured>>,
}

impl Stream {
    pub(super) fn new(peer: Peer, stage: Stage) -> Self {
        Stream {
            peer,
            stage,
            input: Vec::new(),
            output: Vec::new(),
            taken: 0,
            is_blocked: false,
            is_queued: false,
            is_paused: false,
            timer: None,
        }
    }

    /// Whether it may neither be used nor is of no more use.
    pub(super) fn is_opening(&self) -> bool {
        !matches!(self.stage, Stage::Open(_) | Stage::Ended)
    }

    /// The session, once it may be written to.
    pub(super) fn session(&mut self) -> Option<&mut Session> {
        match &mut self.stage {
            Stage::Open(session) => Some(session),
            Stage::Handshake(handshake) if handshake.early.is_some() => Some(&mut handshake.session),
            _ => None,
        }
    }

    /// The session, whether it may be used already or not.
    pub(super) fn any_session(&mut self) -> Option<&mut Session> {
        match &mut self.stage {
            Stage::Handshake(handshake) => Some(&mut handshake.session),
            Stage::Open(session) | Stage::Dialled(session) => Some(session),
            Stage::Introduction | Stage::Hello | Stage::Dialling(_) | Stage::Ended => None,
        }
    }

    /// What an end of that kind is called, by whose it is.
    pub(super) fn reason(&self, of_client: CloseReason) -> CloseReason {
        match (&self.peer, of_client) {
            (Peer::Client(..), reason) => reason,
            (Peer::Backend(_), CloseReason::TlsTruncated) => CloseReason::BackendTruncated,
            (Peer::Backend(_), _) => CloseReason::BackendTls,
        }
    }

    /// It is of no more use; the records that were made are still to be written.
    pub(super) fn end(&mut self) {
        let mut made = Vec::new();
        if let Some(session) = self.any_session() {
            session.drain(&mut made);
        }
        self.output.append(&mut made);
        self.input = Vec::new();
        self.stage = Stage::Ended;
    }
}

/// What a client asked for, as it is written down.
pub(super) fn offer(hello: &ClientHello) -> TlsDetail {
    TlsDetail {
        sni: hello.server_name.clone(),
        offered_versions: hello.versions.iter().filter_map(|version| version_name(*version)).collect(),
        offered_alpn: hello.alpn.iter().map(|name| name.escape_ascii().to_string()).collect(),
        ..TlsDetail::default()
    }
}

fn version_name(version: u16) -> Option<String> {
    match version {
        0x0304 => Some("1.3".to_owned()),
        0x0303 => Some("1.2".to_owned()),
        0x0302 => Some("1.1".to_owned()),
        0x0301 => Some("1.0".to_owned()),
        0x0300 => Some("ssl3".to_owned()),
        // RFC 8701: values that mean nothing.
        grease if grease & 0x0f0f == 0x0a0a => None,
        other => Some(format!("{other:#06x}")),
    }
}
