//! A client that speaks TLS: what it sends, what it expects back, how it ends.

use std::io::{Read, Write};
use std::sync::Arc;

use fastrand::Rng;
use kakei_proxy::secure::Anybody;
use rustls::HandshakeKind;
use rustls::client::{ClientConfig, ClientConnection, Resumption};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;

use crate::library::hear;
use crate::provider::provider;
use crate::speech::{Listening, Speech};

/// How a client ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// It sends all, says so, and waits for the answer's end.
    Whole,
    /// Its line is cut after so many bytes.
    Cut(usize),
}

pub(crate) struct Client {
    connection: ClientConnection,
    speech: Speech,
    payload: Vec<u8>,
    sent: usize,
    /// What is to come back.
    expected: Vec<u8>,
    got: Listening,
    ends: Ends,
    has_said_end: bool,
    /// What it sent that is still on its way.
    pub(crate) to_worker: Vec<u8>,
    /// What was sent to it that is still on its way.
    pub(crate) from_worker: Vec<u8>,
    /// Nothing more is sent by it.
    pub(crate) is_over: bool,
    pub(crate) failure: Option<String>,
    /// Whether it changes its keys under way, and how often it did.
    pub(crate) is_fussy: bool,
    pub(crate) keys: usize,
}

impl Client {
    pub(crate) fn new(rng: &mut Rng, config: Arc<ClientConfig>, (speech, most): (Speech, usize)) -> Self {
        let (payload, expected) = speech.of_client(rng, most);
        let ends = if rng.u8(..4) == 0 { Ends::Cut(rng.usize(0..=payload.len())) } else { Ends::Whole };
        let name = ServerName::try_from("echo.test").unwrap();
        Client {
            connection: ClientConnection::new(config, name).unwrap(),
            speech,
            payload,
            sent: 0,
            expected,
            got: Listening::new(speech),
            ends,
            has_said_end: false,
            to_worker: Vec::new(),
            from_worker: Vec::new(),
            is_over: false,
            failure: None,
            is_fussy: false,
            keys: 0,
        }
    }

    /// Go on for a while.
    pub(crate) fn run(&mut self, rng: &mut Rng) {
        if self.is_over && matches!(self.ends, Ends::Cut(_)) {
            return self.from_worker.clear();
        }
        self.take(rng);
        if !self.connection.is_handshaking() {
            let end = match self.ends {
                Ends::Whole => self.payload.len(),
                Ends::Cut(at) => at,
            };
            let next = (self.sent + rng.usize(1..40_000)).min(end);
            // Version 1.2 has none of that; and who does nothing else is refused.
            if self.is_fussy && next > self.sent && rng.bool() && self.connection.refresh_traffic_keys().is_ok() {
                self.keys += 1;
            }
            self.connection.writer().write_all(&self.payload[self.sent..next]).unwrap();
            self.sent = next;
            // Who ends while an answer is owed to it is taken for gone.
            let waits = self.speech == Speech::Requests && self.ends == Ends::Whole && !self.has_heard_all();
            if next == end && !self.has_said_end && !waits {
                self.has_said_end = true;
                if self.ends == Ends::Whole {
                    self.connection.send_close_notify();
                }
            }
        }
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.to_worker).unwrap();
        }
        if self.has_said_end && !self.is_over {
            self.is_over = true;
            if self.ends != Ends::Whole {
                // Somewhere in the middle of a record, as like as not.
                self.to_worker.truncate(rng.usize(0..=self.to_worker.len()));
            }
        }
    }

    fn take(&mut self, rng: &mut Rng) {
        while !self.from_worker.is_empty() {
            match hear(&mut self.connection, &mut self.from_worker, rng) {
                Ok((plain, is_over)) => {
                    self.got.hear(&plain);
                    if is_over {
                        return self.from_worker.clear();
                    }
                }
                Err(error) => {
                    self.failure = Some(error);
                    return self.from_worker.clear();
                }
            }
        }
    }

    /// What is wrong with what it got, once nothing more comes.
    pub(crate) fn complaint(&mut self) -> Option<String> {
        if let Some(failure) = &self.failure {
            return Some(failure.clone());
        }
        if let Some(wrong) = &self.got.wrong {
            return Some(wrong.clone());
        }
        if self.ends == Ends::Whole && !self.has_heard_all() {
            return Some(format!("it got {} of {} bytes back", self.got.bodies.len(), self.expected.len()));
        }
        // Reading to the end is an error where the end was not said.
        let asks = self.ends == Ends::Whole && self.speech == Speech::Bytes;
        let is_said = !asks || matches!(self.connection.reader().read(&mut [0]), Ok(0));
        (!is_said).then(|| "the end was not said in TLS".to_owned())
    }

    /// Whether what it got so far is what it sent.
    pub(crate) fn got_its_own(&self) -> bool {
        self.expected.starts_with(&self.got.bodies)
    }

    fn has_heard_all(&self) -> bool {
        self.got.bodies.len() == self.expected.len() && self.got.is_between()
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.ends == Ends::Whole
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.connection.is_handshaking()
    }

    pub(crate) fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    pub(crate) fn shown(&self) -> Option<CertificateDer<'static>> {
        Some(self.connection.peer_certificates()?.first()?.clone().into_owned())
    }
}

/// A client's configuration: one for each version, so that sessions are resumed.
pub(crate) fn configs(is_fussy: bool) -> [Arc<ClientConfig>; 2] {
    [&rustls::version::TLS12, &rustls::version::TLS13].map(|version| {
        let builder = ClientConfig::builder_with_details(provider(), Arc::new(Still));
        let builder = builder.with_protocol_versions(&[version]).unwrap();
        let verifier = Arc::new(Anybody(provider()));
        let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(8);
        config.max_fragment_size = is_fussy.then_some(100);
        Arc::new(config)
    })
}

#[derive(Debug)]
struct Still;

impl TimeProvider for Still {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000)))
    }
}
