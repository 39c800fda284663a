//! The options of health checks. Nothing is probed here.

use std::time::Duration;

use super::bytes::{Expected, Form, read_bytes, write_bytes};
use super::values::{Flag, LONGEST, Time, Whole, write_duration};
use super::{At, Field, Maybe, Section, Table, field, independent};
use crate::diagnostics::Collector;
use crate::model::{Expect, Health, PassiveCheck, TcpCheck, UdpCheck};
use crate::tree::Value;

const TIMES: Whole<u32> = Whole { min: 1, max: 1_000, zero: None };
const PORT: Maybe<Whole<u16>> = Maybe(Whole { min: 1, max: u16::MAX, zero: None });

pub(super) const HEALTH: Section<Health> = Section {
    blank: || Health {
        udp: None,
        tcp: None,
        passive: None,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        rise: 2,
        fall: 3,
        fail_open: true,
    },
    fields: &[
        field!(udp: Maybe(Table(&UDP)), "send a datagram, expect a reply"),
        field!(tcp: Maybe(Table(&TCP)), "open a TCP connection and close it; `{}` probes the backend's own port"),
        field!(passive: Maybe(Table(&PASSIVE)), "count ICMP errors of live traffic"),
        field!(interval: Time { min: Duration::from_millis(10), max: LONGEST }, "time between two probes of one backend"),
        field!(timeout: Time { min: Duration::from_millis(1), max: LONGEST },
            "time in which a probe must be answered, shorter than `interval`; left out with an `interval` of 2s or less: half of it"),
        field!(rise: TIMES, "probes in a row that bring a backend up"),
        field!(fall: TIMES, "probes in a row that take a backend down"),
        field!(fail_open: Flag, "whether all backends are used when all are down"),
    ],
    later: &[],
    finish: settle,
};

fn settle(health: &mut Health, at: &At<'_>, problems: &mut Collector) {
    if health.udp.is_none() && health.tcp.is_none() && health.passive.is_none() {
        at.report_key(format!("{} has no check", at.subject()), problems)
            .help("give it `udp`, `tcp` or `passive`, or leave out `health`: then every backend counts as up");
    }
    if let Some(given) = at.node.value.get("timeout") {
        if health.timeout >= health.interval {
            let (timeout, interval) = (write_duration(health.timeout), write_duration(health.interval));
            let message =
                format!("{}: `timeout` ({timeout}) must be shorter than `interval` ({interval})", at.subject());
            let pointer = format!("{}/timeout", at.pointer());
            problems.report(crate::diagnostics::Diagnostic::new(message, pointer, Some(given.span.clone())));
        }
    } else if health.timeout >= health.interval {
        health.timeout = health.interval / 2;
    }
}

pub(super) const UDP: Section<UdpCheck> = Section {
    blank: || UdpCheck { send: Vec::new(), expect: Expect::Any, port: None },
    fields: &[
        Field {
            key: "send_hex",
            required: false,
            doc: "what is sent, in hex; this or `send_text` is needed",
            describe: || "bytes in hex, at most 1400".into(),
            has_key: |_| false,
            read: |check, at, problems| send(Form::Hex, check, at, problems),
            write: |check| written_as(Form::Hex, check),
        },
        Field {
            key: "send_text",
            required: false,
            doc: "what is sent, as text",
            describe: || "text, at most 1400 bytes".into(),
            has_key: |_| false,
            read: |check, at, problems| send(Form::Text, check, at, problems),
            write: |check| written_as(Form::Text, check),
        },
        field!(expect: Expected, "what must come back: anything, exactly these bytes, or bytes that begin with these"),
        field!(port: PORT, "the port probed; left out: the backend's own"),
    ],
    later: &[],
    finish: |_, at, problems| {
        let given = |key| at.node.value.get(key).is_some();
        let wrong = match (given("send_hex"), given("send_text")) {
            (true, true) => "has both `send_hex` and `send_text`; one of them is needed",
            (false, false) => "lacks what is sent: `send_hex` or `send_text`",
            _ => return,
        };
        at.report_key(format!("{} {wrong}", at.subject()), problems);
    },
};

fn send(form: Form, check: &mut UdpCheck, at: &At<'_>, problems: &mut Collector) -> bool {
    match read_bytes(form, at, problems) {
        Some(bytes) => {
            check.send = bytes;
            true
        }
        None => false,
    }
}

fn written_as(form: Form, check: &UdpCheck) -> Option<Value> {
    let (chosen, text) = write_bytes(&check.send);
    (chosen == form).then_some(Value::Text(text))
}

pub(super) const TCP: Section<TcpCheck> = Section {
    blank: TcpCheck::default,
    fields: &[field!(port: PORT, "the port probed; left out: the backend's own")],
    later: &[],
    finish: independent,
};

pub(super) const PASSIVE: Section<PassiveCheck> = Section {
    blank: || PassiveCheck { fall: 3, eject: Duration::from_secs(10), eject_max: Duration::from_secs(300) },
    fields: &[
        field!(fall: TIMES, "errors in a row, without a datagram from the backend between them, that eject it"),
        field!(eject: Time { min: Duration::from_millis(1), max: LONGEST }, "how long it stays ejected"),
    ],
    later: &[],
    finish: independent,
};
