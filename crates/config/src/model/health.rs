//! How backends are found up or down. Nothing is probed here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{HttpCheck, StatusRange};

/// How backends are found up or down. Each signal has its own rise and fall; a backend is down while any signal is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// A datagram and the reply to it.
    pub udp: Option<UdpCheck>,
    /// A TCP connection.
    pub tcp: Option<TcpCheck>,
    /// A request and the response to it.
    pub http: Option<HttpCheck>,
    /// What goes wrong with live traffic counts against a backend.
    pub passive: Option<PassiveCheck>,
    /// Time between two probes of one backend.
    pub interval: Duration,
    /// Time in which a probe must be answered; shorter than the interval.
    pub timeout: Duration,
    /// Probes in a row that bring a backend up.
    pub rise: u32,
    /// Probes in a row that take a backend down.
    pub fall: u32,
    /// Whether all backends are used when all are down.
    pub fail_open: bool,
}

impl Health {
    /// Whether something is sent to backends to find them up.
    pub fn is_active(&self) -> bool {
        self.udp.is_some() || self.tcp.is_some() || self.http.is_some()
    }
}

impl Default for Health {
    fn default() -> Self {
        Health {
            udp: None,
            tcp: None,
            http: None,
            passive: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
            fail_open: true,
        }
    }
}

/// What a reply to a probe must be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// Any datagram.
    #[default]
    Any,
    /// These bytes.
    Exact(Vec<u8>),
    /// Bytes that begin with these.
    Prefix(Vec<u8>),
}

/// Send a datagram, expect a reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UdpCheck {
    /// What is sent, at most 1,400 bytes.
    pub send: Vec<u8>,
    /// What must come back.
    pub expect: Expect,
    /// The port probed; none: the backend's own.
    pub port: Option<u16>,
}

/// Open a TCP connection; send something and expect something where that is said; close it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpCheck {
    /// What is sent once it is open, at most 1,400 bytes; empty: nothing.
    pub send: Vec<u8>,
    /// What must come back; none: that it opens is enough. What is `Exact` must be all that comes before the backend
    /// ends the stream or falls silent, and is judged as soon as as many bytes are there.
    pub expect: Option<Expect>,
    /// The port probed; none: the backend's own. Nothing on a Unix socket.
    pub port: Option<u16>,
    /// Whether it speaks the cluster's TLS; none: unless it has a port of its own.
    #[serde(default)]
    pub tls: Option<bool>,
}

/// Count what goes wrong with live traffic: ICMP errors, connections that can't be opened, responses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassiveCheck {
    /// Failures in a row, without a datagram from the backend or a connection to it between them, that eject it.
    pub fall: u32,
    /// How long it stays ejected the first time; each further time in a row twice as long.
    pub eject: Duration,
    /// How long at most.
    pub eject_max: Duration,
    /// Statuses of responses that count as failures.
    pub status: Vec<StatusRange>,
    /// A response that begins later than this counts as a failure; none: however late.
    pub latency: Option<Duration>,
}

impl Default for PassiveCheck {
    fn default() -> Self {
        PassiveCheck {
            fall: 3,
            eject: Duration::from_secs(10),
            eject_max: crate::bounds::EJECT_MAX,
            status: Vec::new(),
            latency: None,
        }
    }
}
