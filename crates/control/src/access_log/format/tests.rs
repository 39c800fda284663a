//! What lines must be, whatever a client sent. Starts nothing.

use std::time::{Duration, UNIX_EPOCH};

use kakei_proxy::record::{CloseReason, ConnectionDetail, ExchangeDetail};
use kakei_proxy::seam::Instant;

use super::*;

fn record(detail: Detail) -> Record {
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
        detail,
    }
}

fn flow() -> Record {
    record(Detail::Flow { requests: 1, responses: 2 })
}

fn request(detail: ExchangeDetail) -> Record {
    record(Detail::Exchange(Box::new(detail)))
}

/// A request of somebody who would like to write log lines.
fn hostile() -> Record {
    let evil = "a\" 200 1\n10.0.0.1 - - [x] \"GET / HTTP/1.1\" 200 \\ \u{7f}\u{1b}[2J\u{2028}é\u{fffd}\r\t=";
    request(ExchangeDetail {
        method: "GET".into(),
        host: evil.into(),
        target: format!("/{evil}"),
        version: "HTTP/1.1".into(),
        user_agent: Some(evil.into()),
        referer: Some(evil.into()),
        user: Some(evil.into()),
        request_id: Some(evil.into()),
        status: Some(200),
        ..ExchangeDetail::default()
    })
}

fn line(record: &Record, format: LogFormat) -> String {
    let mut lines = Vec::new();
    Line::new(record, UNIX_EPOCH + Duration::from_millis(951_782_399_001)).write(format, &mut lines);
    String::from_utf8(lines).unwrap()
}

#[test]
fn json_has_every_field_once() {
    let text = line(&flow(), LogFormat::Json);
    assert!(text.ends_with("}\n") && text.lines().count() == 1);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["time"], "2000-02-28T23:59:59.001Z");
    assert_eq!(value["route"], serde_json::Value::Null);
    assert_eq!(value["client"], "[2001:db8::7]:4000");
    assert_eq!((&value["reason"], &value["by"]), (&"responses_reached".into(), &"proxy".into()));
    assert_eq!(value["duration_ms"], 1250);
    let fields = |record: &Record| FIELDS.iter().filter(|field| field.is_of(&record.detail)).count();
    for record in [flow(), record(Detail::Connection(ConnectionDetail::default())), hostile()] {
        let value: serde_json::Value = serde_json::from_str(&line(&record, LogFormat::Json)).unwrap();
        assert_eq!(value.as_object().unwrap().len(), fields(&record), "{value}");
    }
}

#[test]
fn text_is_words_of_key_and_value() {
    let text = line(&flow(), LogFormat::Text);
    assert!(text.starts_with("time=2000-02-28T23:59:59.001Z listener=dns cluster=resolvers backend=a "), "{text}");
    assert!(text.ends_with(" reason=responses_reached by=proxy\n"));
    assert!(text.split_ascii_whitespace().all(|word| word.contains('=')));
}

#[test]
fn common_and_combined_are_what_tools_read() {
    let of = |format| {
        let detail = ExchangeDetail {
            method: "GET".into(),
            target: "/a?b=c d".into(),
            version: "HTTP/1.1".into(),
            user_agent: Some("curl/8".into()),
            user: Some("bob".into()),
            status: Some(404),
            ..ExchangeDetail::default()
        };
        line(&request(detail), format)
    };
    let common = "2001:db8::7 - bob [28/Feb/2000:23:59:59 +0000] \"GET /a?b=c d HTTP/1.1\" 404 90";
    assert_eq!(of(LogFormat::Common), format!("{common}\n"));
    assert_eq!(of(LogFormat::Combined), format!("{common} \"-\" \"curl/8\"\n"));
    let unread = line(&request(ExchangeDetail { status: Some(400), ..ExchangeDetail::default() }), LogFormat::Common);
    assert!(unread.ends_with("] \"-\" 400 90\n"), "{unread}");
    let flow = line(&flow(), LogFormat::Combined);
    assert!(flow.ends_with("] \"UDP 192.0.2.1:53 -\" - 90 \"-\" \"-\"\n"), "{flow}");
    let connection = line(&record(Detail::Connection(ConnectionDetail::default())), LogFormat::Common);
    assert!(connection.ends_with("] \"TCP 192.0.2.1:53 -\" - 90\n"), "{connection}");
}

/// The parts of a combined line by a strict reader: words, and texts between quotes and brackets.
fn parts(line: &str) -> Vec<String> {
    let (mut parts, mut rest) = (Vec::new(), line.strip_suffix('\n').expect("it ends with a newline"));
    while !rest.is_empty() {
        let (open, close) = match rest.as_bytes()[0] {
            b'"' => (1, '"'),
            b'[' => (1, ']'),
            _ => (0, ' '),
        };
        let (mut end, mut escaped) = (rest.len(), false);
        for (at, char) in rest.char_indices().skip(open) {
            match char {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                _ if char == close => {
                    end = at;
                    break;
                }
                _ => {}
            }
        }
        parts.push(rest[open..end].to_owned());
        rest = rest.get(end + open..).unwrap_or_default().trim_start_matches(' ');
    }
    parts
}

#[test]
fn nothing_that_a_client_sends_begins_a_line_or_a_field() {
    for format in [LogFormat::Json, LogFormat::Text, LogFormat::Common, LogFormat::Combined] {
        let text = line(&hostile(), format);
        let inner = &text[..text.len() - 1];
        let is_control = |sign: char| if format == LogFormat::Json { sign < ' ' } else { sign.is_control() };
        assert!(!inner.chars().any(is_control), "{format:?}: {text:?}");
        assert!(!inner.contains('\u{2028}') || format == LogFormat::Json, "{format:?}: {text:?}");
    }
    let combined = line(&hostile(), LogFormat::Combined);
    assert!(combined.is_ascii(), "{combined}");
    let parts = parts(&combined);
    assert_eq!(parts.len(), 9, "{parts:?}");
    assert_eq!((parts[0].as_str(), parts[1].as_str()), ("2001:db8::7", "-"));
    assert!(parts[2].starts_with("a\\\"\\x20200\\x201\\x0a10.0.0.1"), "{parts:?}");
    assert!(parts[4].starts_with("GET /a\\\" 200 1\\x0a") && parts[4].ends_with("\\x0d\\x09= HTTP/1.1"), "{parts:?}");
    assert_eq!((parts[5].as_str(), parts[6].as_str()), ("200", "90"));
    let text = line(&hostile(), LogFormat::Text);
    let reason = text.find(" reason=responses_reached by=proxy method=\"GET\" host=\"a\\\" 200 1\\n10.0.0.1");
    assert!(reason.is_some(), "{text}");
}

#[test]
fn the_documents_know_every_field_and_every_reason() {
    let page = include_str!("../../../../../docs/API.md");
    for field in FIELDS {
        assert!(page.contains(&format!("`{}`", field.key)), "{}", field.key);
    }
    for reason in CloseReason::ALL {
        let row = format!("| `{}` | {} | {} |\n", reason.name(), reason.by().name(), reason.meaning());
        assert!(page.contains(&row), "docs/API.md lacks: {row}");
    }
}
