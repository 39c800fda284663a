//! The options of health checks. Nothing is probed here.

use std::time::Duration;

use super::bytes::{Expected, Form, read_bytes, write_bytes};
use super::http::{HTTP_CHECK, Statuses};
use super::values::{Flag, LONGEST, PORT, Time, Whole, write_duration};
use super::{At, Field, ListOf, Maybe, Section, Sparse, Table, field};
use crate::diagnostics::Collector;
use crate::model::{Expect, Health, PassiveCheck, TcpCheck, UdpCheck};
use crate::tree::Value;

const TIMES: Whole<u32> = Whole { min: 1, max: 1_000, zero: None };

pub(super) const HEALTH: Section<Health> = Section {
    blank: Health::default,
    fields: &[
        field!(udp: Maybe(Table(&UDP)), "send a datagram, expect a reply"),
        field!(tcp: Maybe(Table(&TCP)), "open a TCP connection, say and expect something where that is given, close it; `{}` probes the backend's own port"),
        field!(http: Maybe(Table(&HTTP_CHECK)), "send a request, expect a response; `{}` asks for `/`"),
        field!(passive: Maybe(Table(&PASSIVE)), "count what goes wrong with live traffic: ICMP errors, connections that can't be opened, responses"),
        field!(interval: Time { min: Duration::from_millis(10), max: LONGEST }, "time between two probes of one backend"),
        field!(timeout: Time { min: Duration::from_millis(1), max: LONGEST },
            "time in which a probe must be answered, shorter than `interval`; left out with an `interval` of 2s or less: half of it", else usual_timeout),
        field!(rise: TIMES, "probes in a row that bring a backend up"),
        field!(fall: TIMES, "probes in a row that take a backend down"),
        field!(fail_open: Flag, "whether all backends are used when all are down"),
    ],
    later: &[],
    finish: settle,
};

fn settle(health: &mut Health, at: &At<'_>, problems: &mut Collector) {
    if health.udp.is_none() && health.tcp.is_none() && health.http.is_none() && health.passive.is_none() {
        at.report_key(format!("{} has no check", at.subject()), problems)
            .help("give it `udp`, `tcp`, `http` or `passive`, or leave out `health`: then every backend counts as up");
    }
    if let Some(given) = at.node.value.get("timeout") {
        if health.timeout >= health.interval {
            let (timeout, interval) = (write_duration(health.timeout), write_duration(health.interval));
            let message =
                format!("{}: `timeout` ({timeout}) must be shorter than `interval` ({interval})", at.subject());
            let pointer = format!("{}/timeout", at.pointer());
            problems.report(crate::diagnostics::Diagnostic::new(message, pointer, Some(given.span.clone())));
        }
    } else {
        health.timeout = usual_timeout(health);
    }
}

/// What `timeout` is where it is left out.
fn usual_timeout(health: &Health) -> Duration {
    let usual = Health::default().timeout;
    if usual < health.interval { usual } else { health.interval / 2 }
}

pub(super) const UDP: Section<UdpCheck> = Section {
    blank: || UdpCheck { send: Vec::new(), expect: Expect::Any, port: None },
    fields: &[
        send_in::<UdpCheck, false>("what is sent, in hex; this or `send_text` is needed"),
        send_in::<UdpCheck, true>("what is sent, as text"),
        field!(expect: Expected, "what must come back: anything, exactly these bytes, or bytes that begin with these"),
        field!(port: PORT, "the port probed; left out: the backend's own"),
    ],
    later: &[],
    finish: |_, at, problems| {
        if sent_twice(at, problems) {
            return;
        }
        let given = |key| at.node.value.get(key).is_some();
        if !given("send_hex") && !given("send_text") {
            let message = format!("{} lacks what is sent: `send_hex` or `send_text`", at.subject());
            at.report_key(message, problems);
        }
    },
};

/// A check that sends something.
trait Sends: 'static {
    /// Whether it may send nothing at all.
    const OPTIONAL: bool;
    fn payload(&mut self) -> &mut Vec<u8>;
    fn sent(&self) -> &[u8];
}

impl Sends for UdpCheck {
    const OPTIONAL: bool = false;

    fn payload(&mut self) -> &mut Vec<u8> {
        &mut self.send
    }

    fn sent(&self) -> &[u8] {
        &self.send
    }
}

impl Sends for TcpCheck {
    const OPTIONAL: bool = true;

    fn payload(&mut self) -> &mut Vec<u8> {
        &mut self.send
    }

    fn sent(&self) -> &[u8] {
        &self.send
    }
}

const fn form(text: bool) -> Form {
    if text { Form::Text } else { Form::Hex }
}

/// What a check sends, in one of the two forms.
const fn send_in<T: Sends, const TEXT: bool>(doc: &'static str) -> Field<T> {
    Field {
        key: if TEXT { "send_text" } else { "send_hex" },
        required: false,
        doc,
        describe: || {
            format!("{}, at most 1400{}", if TEXT { "text" } else { "bytes in hex" }, if TEXT { " bytes" } else { "" })
        },
        shape: || super::shape::of("string"),
        has_key: |_| false,
        keys: |_, _| {},
        read: |check, at, problems| match read_bytes(form(TEXT), at, problems) {
            Some(bytes) => {
                *check.payload() = bytes;
                true
            }
            None => false,
        },
        write: |check| {
            let (chosen, text) = write_bytes(check.sent());
            let says_nothing = T::OPTIONAL && check.sent().is_empty();
            (chosen == form(TEXT) && !says_nothing).then_some(Value::text(text))
        },
        follows: |_| false,
    }
}

fn sent_twice(at: &At<'_>, problems: &mut Collector) -> bool {
    let given = |key| at.node.value.get(key).is_some();
    let twice = given("send_hex") && given("send_text");
    if twice {
        let message = format!("{} has both `send_hex` and `send_text`; one of them is needed", at.subject());
        at.report_key(message, problems);
    }
    twice
}

pub(super) const TCP: Section<TcpCheck> = Section {
    blank: TcpCheck::default,
    fields: &[
        send_in::<TcpCheck, false>("what is sent once it is open, in hex; left out: nothing"),
        send_in::<TcpCheck, true>("the same as text"),
        field!(expect: Maybe(Expected), "what must come back, or begin what comes back; left out: that it opens is enough"),
        field!(port: PORT, "the port probed; left out: the backend's own"),
        field!(tls: Maybe(Flag), "whether it speaks the cluster's TLS, if that has any; left out: unless it has a `port` of its own"),
    ],
    later: &[],
    finish: |_, at, problems| {
        sent_twice(at, problems);
    },
};

/// What `eject_max` is where it is left out.
fn longest_eject(check: &PassiveCheck) -> Duration {
    PassiveCheck::default().eject_max.max(check.eject)
}

pub(super) const PASSIVE: Section<PassiveCheck> = Section {
    blank: PassiveCheck::default,
    fields: &[
        field!(fall: TIMES, "failures in a row, without a datagram from the backend or a connection to it between them, that eject it; each worker counts its own, and ejects for itself"),
        field!(eject: Time { min: Duration::from_millis(1), max: LONGEST },
            "how long it stays ejected the first time; each further time in a row twice as long"),
        field!(eject_max: Time { min: Duration::from_millis(1), max: LONGEST },
            "how long at most; left out with a longer `eject`: that", else longest_eject),
        field!(status: Sparse(ListOf { of: Statuses, filled: false }), "HTTP: statuses of responses that count as failures"),
        field!(latency: Maybe(Time { min: Duration::from_millis(1), max: LONGEST }),
            "HTTP: a response that begins later than this counts as a failure; left out: however late"),
    ],
    later: &[],
    finish: |check, at, problems| {
        if at.node.value.get("eject_max").is_none() {
            check.eject_max = longest_eject(check);
        } else if check.eject_max < check.eject {
            let (most, first) = (write_duration(check.eject_max), write_duration(check.eject));
            at.report_key(
                format!("{}: `eject_max` ({most}) is shorter than `eject` ({first})", at.subject()),
                problems,
            );
        }
    },
};
