//! A stream under TLS: how far it has come, what waits in either direction. Decides nothing.

use std::sync::Arc;

use kakei_wire::client_hello::ClientHello;

use super::certificate::Certificate;
use super::listener::ListenerTls;
use super::session::Session;
use crate::listener::ListenerKey;
use crate::record::TlsDetail;
use crate::timers::TimerKey;

/// See the module's words.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) listener: ListenerKey,
    /// What it is held to: what its listener had when the client came.
    pub(super) tls: Arc<ListenerTls>,
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

/// How far a stream has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// A PROXY header comes first.
    Introduction,
    /// Not all of the first message is there.
    Hello,
    /// A handshake is under way.
    Handshake(Box<Handshake>),
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
}

impl Stream {
    pub(super) fn new(listener: ListenerKey, tls: Arc<ListenerTls>, expects_header: bool) -> Self {
        Stream {
            listener,
            tls,
            stage: if expects_header { Stage::Introduction } else { Stage::Hello },
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
        matches!(self.stage, Stage::Introduction | Stage::Hello | Stage::Handshake(_))
    }

    /// The session, once it may be used.
    pub(super) fn session(&mut self) -> Option<&mut Session> {
        match &mut self.stage {
            Stage::Open(session) => Some(session),
            _ => None,
        }
    }

    /// The session, whether it may be used already or not.
    pub(super) fn any_session(&mut self) -> Option<&mut Session> {
        match &mut self.stage {
            Stage::Handshake(handshake) => Some(&mut handshake.session),
            Stage::Open(session) => Some(session),
            Stage::Introduction | Stage::Hello | Stage::Ended => None,
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
