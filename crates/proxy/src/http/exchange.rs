//! A request and its response, from the request's head to the end of both. Knows no version: what a client's and a
//! backend's connection speak is theirs. Decides nothing.

use std::fmt;
use std::sync::Arc;

use kakei_config::{Name, OnChange, TcpKnobs};
use serde::{Deserialize, Serialize};

use super::answer::Accepts;
use super::guard::Guard;
use super::rule::{Extras, Goal, NO_EXTRAS, Rule};
use super::session::SessionId;
use super::upstream::UpstreamId;
use crate::cluster::{BackendKey, ClusterKey, LiveBackend};
use crate::record::{CloseReason, ExchangeDetail};
use crate::seam::Instant;
use crate::snapshot::{HttpListener, Target};
use crate::stats::Lapse;
use crate::world::World;

slotmap::new_key_type! {
    /// An exchange; carries a generation.
    pub(crate) struct ExchangeId;
}

/// How far an exchange has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// It is being decided what becomes of it.
    Deciding,
    /// It waits to hear whether its client is who it says.
    Guarded,
    /// It waits for a backend with room.
    Queued,
    /// A connection to its backend is being opened.
    Connecting,
    /// The request is on its way, or there, and the response has not begun.
    Sent,
    /// The response is on its way.
    Responding,
}

/// How a body is written to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Framing {
    /// As it is: its length was said, or the connection's end ends it, or there is none.
    Plain,
    /// In chunks.
    Chunked,
}

/// What of a request still matters once its head was passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Traits {
    pub(super) is_head: bool,
    pub(super) is_connect: bool,
    pub(super) is_idempotent: bool,
    /// The client speaks HTTP/1.0: no chunks, no interim responses.
    pub(super) is_old: bool,
    /// The client said that nothing comes behind it.
    #[serde(default)]
    pub(super) is_last: bool,
    /// The client may hold its body back until it is asked for it (`Expect: 100-continue`).
    #[serde(default)]
    pub(super) expects: bool,
    /// The client's connection may go on after it.
    pub(super) keeps: bool,
}

/// What a request is known by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RequestId {
    /// By the name that who is believed gave it.
    Given(String),
    Made(u128),
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestId::Given(name) => f.write_str(name),
            RequestId::Made(number) => write!(f, "{number:032x}"),
        }
    }
}

/// An exchange.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(super) session: SessionId,
    pub(super) upstream: Option<UpstreamId>,
    pub(super) http: Arc<HttpListener>,
    pub(super) rule: Option<Arc<Rule>>,
    /// The path that it was routed by, where its route puts that into the response.
    pub(super) path: Option<Box<[u8]>>,
    /// Which of its route's clusters it goes to, and in this worker.
    pub(super) goal: Option<Goal>,
    pub(super) cluster: Option<ClusterKey>,
    pub(super) backend: Option<BackendKey>,
    /// What its connection to a backend is held to.
    pub(super) tcp: Option<Arc<TcpKnobs>>,
    pub(super) phase: Phase,
    /// Since when.
    pub(super) since: Instant,
    pub(super) began: Instant,
    /// When bytes of either body moved last.
    pub(super) moved: Instant,
    pub(super) traits: Traits,
    /// Where it asks to become something else, and may: what, as a list.
    pub(super) protocols: Option<Box<[u8]>>,
    /// It may not pass yet; until when that must be known.
    pub(super) guard: Option<Box<(Guard, Instant)>>,
    /// Whether all of the request came.
    pub(super) request_ended: bool,
    pub(super) request_framing: Framing,
    pub(super) response_framing: Framing,
    /// The request as it goes to a backend, from its begin, while it may have to be sent (again).
    pub(super) kept: Vec<u8>,
    /// Whether `kept` is all of it so far.
    pub(super) is_whole: bool,
    /// The status that the client was told; 0: none yet.
    pub(super) status: u16,
    /// Backends that failed it.
    pub(super) tried: Vec<BackendKey>,
    /// The backend that it had last, where it has none.
    pub(super) left: Option<BackendKey>,
    pub(super) tries: u32,
    /// What was wrong with the last of them.
    pub(super) failed: Option<CloseReason>,
    /// It goes on before its client's TLS handshake is over, and says so.
    pub(super) is_early: bool,
    /// It was sent again because a connection that was reused turned out to be dead.
    pub(super) revived: bool,
    /// Interim responses that were passed on.
    pub(super) interim: u8,
    /// The backend that the client's cookie names.
    pub(super) sticky: Option<BackendKey>,
    pub(super) accepts: Accepts,
    pub(super) affinity: u64,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    /// Of the body of an answer of the proxy's own.
    pub(super) own_bytes: u64,
    pub(super) lapse: Lapse,
    /// What it is known by, once that is needed.
    pub(super) request_id: Option<RequestId>,
    /// Seconds after which a client that asked too often may ask again.
    pub(super) retry_after: Option<u32>,
    /// Requests at one time that it counts among.
    pub(super) permits: Vec<super::rate::Permit>,
    pub(super) detail: Option<Box<ExchangeDetail>>,
}

impl Exchange {
    /// What few routes have, or have otherwise than the rest, of its own.
    pub(super) fn extras(&self) -> &Extras {
        self.rule.as_ref().map_or(&NO_EXTRAS, |rule| rule.extras())
    }

    pub(super) fn new(session: SessionId, http: Arc<HttpListener>, now: Instant, traits: Traits) -> Self {
        Exchange {
            session,
            upstream: None,
            http,
            rule: None,
            path: None,
            goal: None,
            cluster: None,
            backend: None,
            tcp: None,
            phase: Phase::Deciding,
            since: now,
            began: now,
            moved: now,
            traits,
            protocols: None,
            guard: None,
            request_ended: false,
            request_framing: Framing::Plain,
            response_framing: Framing::Plain,
            kept: Vec::new(),
            is_whole: true,
            status: 0,
            tried: Vec::new(),
            left: None,
            tries: 0,
            failed: None,
            is_early: false,
            revived: false,
            interim: 0,
            sticky: None,
            accepts: Accepts::Text,
            affinity: 0,
            request_bytes: 0,
            response_bytes: 0,
            own_bytes: 0,
            lapse: Lapse::default(),
            request_id: None,
            retry_after: None,
            permits: Vec::new(),
            detail: None,
        }
    }

    /// The route that it came by; none: the listener's default, or none yet.
    pub(super) fn route(&self) -> Option<&Name> {
        self.rule.as_ref()?.route.as_ref()
    }

    /// The name of the cluster that it goes to.
    pub(super) fn cluster_name(&self) -> Option<&Name> {
        self.rule.as_ref()?.cluster(self.goal?)
    }

    /// What a change of its route does to it.
    pub(super) fn on_change(&self) -> Option<OnChange> {
        Some(self.rule.as_ref()?.on_change(self.goal?))
    }

    /// Where it goes.
    pub(super) fn target(&self) -> Option<Target> {
        let target = self.rule.as_ref()?.target(self.cluster_name()?);
        Some(Target { on_change: self.on_change()?, ..target })
    }

    /// Where it is or is being sent to.
    pub(super) fn place(&self) -> Option<(ClusterKey, BackendKey)> {
        Some((self.cluster?, self.backend?))
    }

    /// The backend that it has, or had last, where that is still there.
    pub(super) fn last_backend<'a>(&self, world: &'a World) -> Option<&'a LiveBackend> {
        world.clusters.get(self.cluster?)?.backends.get(self.backend.or(self.left)?)
    }

    /// It has waited for a backend long enough.
    pub(super) fn end_wait(&mut self, now: Instant) {
        *self.lapse.queued.get_or_insert_default() += now - self.since;
    }

    pub(super) fn enter(&mut self, phase: Phase, now: Instant) {
        (self.phase, self.since) = (phase, now);
    }

    /// Whether its client may still hold its body back, since the backend said nothing (RFC 9110 10.1.1).
    pub(super) fn holds_back(&self) -> bool {
        let is_silent = self.phase == Phase::Sent && self.interim == 0;
        self.traits.expects && is_silent && !self.request_ended && self.request_bytes == 0 && !self.is_held()
    }

    /// What a response is read as an answer to.
    pub(super) fn method(&self) -> &'static str {
        match (self.traits.is_head, self.traits.is_connect) {
            _ if self.is_question() => "GET",
            (true, _) => "HEAD",
            (_, true) => "CONNECT",
            _ => "GET",
        }
    }

    /// Whether nothing comes of it if it is sent twice.
    pub(super) fn is_idempotent(&self) -> bool {
        self.traits.is_idempotent || self.is_question()
    }
}
