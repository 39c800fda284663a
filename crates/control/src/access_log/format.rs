//! One flow or connection as one line: a JSON object, or `key=value` words. Opens no file.

use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use kakei_config::{LogFormat, Name};
use kakei_proxy::record::{Detail, ExchangeDetail, Record};
use kakei_proxy::seam::Endpoint;
use serde::Serialize;

use crate::wall;

/// What a line says.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// When the flow ended, RFC 3339 in UTC.
    time: String,
    listener: &'a Name,
    route: Option<&'a Name>,
    cluster: Option<&'a Name>,
    backend: Option<&'a Name>,
    backend_address: Option<&'a Endpoint>,
    client: SocketAddr,
    local: SocketAddr,
    duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<u64>,
    request_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    responses: Option<u64>,
    response_bytes: u64,
    reason: &'static str,
    /// Of a connection.
    #[serde(flatten)]
    connection: Option<Connection<'a>>,
    /// Of a request.
    #[serde(flatten)]
    exchange: Option<Exchange<'a>>,
}

/// What only a request's line says.
#[derive(Debug, Serialize)]
struct Exchange<'a> {
    method: &'a str,
    host: &'a str,
    target: &'a str,
    version: &'a str,
    status: Option<u16>,
    user_agent: Option<&'a str>,
    referer: Option<&'a str>,
    user: Option<&'a str>,
    request_id: Option<&'a str>,
    attempts: u32,
    reused: bool,
    queued_ms: u64,
    connect_ms: Option<u64>,
    first_byte_ms: Option<u64>,
}

impl<'a> Exchange<'a> {
    fn new(detail: &'a ExchangeDetail) -> Self {
        Exchange {
            method: &detail.method,
            host: &detail.host,
            target: &detail.target,
            version: &detail.version,
            status: detail.status,
            user_agent: detail.user_agent.as_deref(),
            referer: detail.referer.as_deref(),
            user: detail.user.as_deref(),
            request_id: detail.request_id.as_deref(),
            attempts: detail.attempts,
            reused: detail.reused,
            queued_ms: millis(detail.queued),
            connect_ms: detail.connect.map(millis),
            first_byte_ms: detail.first_byte.map(millis),
        }
    }
}

/// What only a connection's line says.
#[derive(Debug, Serialize)]
struct Connection<'a> {
    sni: Option<&'a str>,
    attempts: u32,
    queued_ms: u64,
    connect_ms: Option<u64>,
}

impl<'a> Line<'a> {
    /// The line of a flow that ended at `ended`.
    pub fn new(record: &'a Record, ended: SystemTime) -> Self {
        Line {
            time: wall::rfc3339(ended),
            listener: &record.listener,
            route: record.route.as_ref(),
            cluster: record.cluster.as_ref(),
            backend: record.backend.as_ref(),
            backend_address: record.backend_address.as_ref(),
            client: record.client,
            local: record.local,
            duration_ms: millis(record.duration),
            requests: record.datagrams().map(|(requests, _)| requests),
            request_bytes: record.request_bytes,
            responses: record.datagrams().map(|(_, responses)| responses),
            response_bytes: record.response_bytes,
            reason: record.reason.name(),
            connection: match &record.detail {
                Detail::Flow { .. } | Detail::Exchange(_) => None,
                Detail::Connection(detail) => Some(Connection {
                    sni: detail.sni.as_deref(),
                    attempts: detail.attempts,
                    queued_ms: millis(detail.queued),
                    connect_ms: detail.connect.map(millis),
                }),
            },
            exchange: match &record.detail {
                Detail::Exchange(detail) => Some(Exchange::new(detail)),
                Detail::Flow { .. } | Detail::Connection(_) => None,
            },
        }
    }

    /// Append it to `lines`, newline included.
    pub fn write(&self, format: LogFormat, lines: &mut Vec<u8>) {
        match format {
            LogFormat::Json => serde_json::to_writer(&mut *lines, self).expect("a line is always JSON"),
            LogFormat::Text => lines.extend_from_slice(self.text().as_bytes()),
        }
        lines.push(b'\n');
    }

    fn text(&self) -> String {
        let mut text = format!("time={} listener={}", self.time, self.listener);
        let mut word = |key: &str, value: Option<&dyn fmt::Display>| {
            if let Some(value) = value {
                write!(text, " {key}={value}").expect("writing to a string never fails");
            }
        };
        word("route", self.route.as_ref().map(|v| v as _));
        word("cluster", self.cluster.as_ref().map(|v| v as _));
        word("backend", self.backend.as_ref().map(|v| v as _));
        word("backend_address", self.backend_address.as_ref().map(|v| v as _));
        word("client", Some(&self.client));
        word("local", Some(&self.local));
        word("duration_ms", Some(&self.duration_ms));
        word("requests", self.requests.as_ref().map(|v| v as _));
        word("request_bytes", Some(&self.request_bytes));
        word("responses", self.responses.as_ref().map(|v| v as _));
        word("response_bytes", Some(&self.response_bytes));
        word("reason", Some(&self.reason));
        if let Some(connection) = &self.connection {
            word("sni", connection.sni.as_ref().map(|v| v as _));
            word("attempts", Some(&connection.attempts));
            word("queued_ms", Some(&connection.queued_ms));
            word("connect_ms", connection.connect_ms.as_ref().map(|v| v as _));
        }
        if let Some(exchange) = &self.exchange {
            let quoted = |text: &str| format!("{text:?}");
            let of_client =
                [("method", Some(exchange.method)), ("host", Some(exchange.host)), ("target", Some(exchange.target))]
                    .into_iter()
                    .chain([
                        ("user_agent", exchange.user_agent),
                        ("referer", exchange.referer),
                        ("user", exchange.user),
                    ])
                    .chain([("request_id", exchange.request_id)]);
            for (key, value) in of_client {
                word(key, value.map(quoted).as_ref().map(|v| v as _));
            }
            word("version", Some(&exchange.version));
            word("status", exchange.status.as_ref().map(|v| v as _));
            word("attempts", Some(&exchange.attempts));
            word("reused", Some(&exchange.reused));
            word("queued_ms", Some(&exchange.queued_ms));
            word("connect_ms", exchange.connect_ms.as_ref().map(|v| v as _));
            word("first_byte_ms", exchange.first_byte_ms.as_ref().map(|v| v as _));
        }
        text
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use kakei_proxy::record::CloseReason;
    use kakei_proxy::seam::Instant;

    use super::*;

    fn record() -> Record {
        Record {
            listener: "dns".into(),
            route: None,
            cluster: Some("resolvers".into()),
            backend: Some("a".into()),
            backend_address: Some("10.0.0.1:53".parse().unwrap()),
            client: "[2001:db8::7]:4000".parse().unwrap(),
            local: "192.0.2.1:53".parse().unwrap(),
            admitted: Instant::ZERO,
            duration: Duration::from_millis(1250),
            request_bytes: 40,
            response_bytes: 90,
            reason: CloseReason::ResponsesReached,
            detail: Detail::Flow { requests: 1, responses: 2 },
        }
    }

    fn line(format: LogFormat) -> String {
        let mut lines = Vec::new();
        Line::new(&record(), UNIX_EPOCH + Duration::from_millis(1)).write(format, &mut lines);
        String::from_utf8(lines).unwrap()
    }

    #[test]
    fn json_has_every_field_once() {
        let text = line(LogFormat::Json);
        assert!(text.ends_with("}\n") && text.lines().count() == 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["time"], "1970-01-01T00:00:00.001Z");
        assert_eq!(value["route"], serde_json::Value::Null);
        assert_eq!(value["client"], "[2001:db8::7]:4000");
        assert_eq!(value["reason"], "responses_reached");
        assert_eq!(value["duration_ms"], 1250);
        assert_eq!(value.as_object().unwrap().len(), 14);
    }

    #[test]
    fn text_is_words_of_key_and_value() {
        let text = line(LogFormat::Text);
        assert!(text.starts_with("time=1970-01-01T00:00:00.001Z listener=dns cluster=resolvers backend=a "), "{text}");
        assert!(text.ends_with(" reason=responses_reached\n"));
        assert!(text.split_ascii_whitespace().all(|word| word.contains('=')));
    }
}
