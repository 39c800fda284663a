//! Values that only connections have: server names, protocol names, what a change does, where a backend is.

use std::sync::Arc;

use super::network::Address;
use super::values::{LONGEST, Time, mismatch, text};
use super::{At, Codec, Shape, shape};
use crate::diagnostics::{Collector, quoted};
use crate::model::{BackendAddress, OnChange, ServerName};
use crate::tree::{Entry, Node, Value};
use std::time::Duration;

/// The longest path of a Unix socket: its address holds 108 bytes, the last of them zero.
const MAX_UNIX_PATH: usize = 107;

/// What is wrong with a text as a host name in ASCII.
pub(super) fn wrong_host(name: &str) -> Option<&'static str> {
    let is_label = |label: &str| {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(inside) && !label.starts_with('-') && !label.ends_with('-')
    };
    if !name.is_ascii() {
        Some("isn't ASCII; write an international name in its `xn--` form")
    } else if name.is_empty() || name.len() > 253 {
        Some("isn't a host name: those have 1 to 253 letters")
    } else if !name.split('.').all(is_label) {
        Some("isn't a host name: labels of letters, digits and `-` with dots between them")
    } else {
        None
    }
}

/// A server name, or all names under one.
pub(super) struct ServerNameOf;

impl Codec for ServerNameOf {
    type Of = ServerName;

    fn describe(&self) -> String {
        "host name, or `*.` and a host name".into()
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<ServerName> {
        let written = text(at, "a host name like \"imap.example.com\" or \"*.example.com\"", problems)?;
        let (wild, name) = match written.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, written),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let wrong = match wrong_host(name) {
            _ if name.contains('*') => Some("has a `*` that isn't its whole first label"),
            None if name.parse::<std::net::IpAddr>().is_ok() => Some("is an address; a ClientHello never names one"),
            wrong => wrong,
        };
        if let Some(wrong) = wrong {
            at.report(format!("{}: `{}` {wrong}", at.subject(), quoted(written)), problems);
            return None;
        }
        let name: Arc<str> = name.to_ascii_lowercase().into();
        Some(if wild { ServerName::Under(name) } else { ServerName::Exact(name) })
    }

    fn write(&self, value: &ServerName) -> Option<Value> {
        Some(Value::text(value.to_string()))
    }
}

/// The name of a protocol, as ALPN has it.
pub(super) struct ProtocolName;

impl Codec for ProtocolName {
    type Of = String;

    fn describe(&self) -> String {
        "protocol like `h2`".into()
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<String> {
        let name = text(at, "a protocol like \"h2\"", problems)?;
        if !(1..=255).contains(&name.len()) {
            at.report(format!("{}: a protocol has 1 to 255 bytes", at.subject()), problems);
            return None;
        }
        Some(name.to_owned())
    }

    fn write(&self, value: &String) -> Option<Value> {
        Some(Value::text(value.clone()))
    }
}

/// What a change does to connections: a word, or `{ drain = "30s" }`.
pub(super) struct AfterChange;

const DRAIN: Time = Time { min: Duration::ZERO, max: LONGEST };

impl Codec for AfterChange {
    type Of = OnChange;

    fn describe(&self) -> String {
        "`keep`, `close`, or `{ drain = duration }`".into()
    }

    fn shape(&self) -> Shape {
        let drain = shape::table([("drain", true, DRAIN.shape())]);
        shape::either([shape::words(["keep", "close"]), drain])
    }

    fn has_key(&self, key: &str) -> bool {
        key == "drain"
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<OnChange> {
        match &at.node.value {
            Value::Text(word) if word == "keep" => Some(OnChange::Keep),
            Value::Text(word) if word == "close" => Some(OnChange::Close),
            Value::Table(entries) if entries.len() == 1 && entries[0].name() == "drain" => {
                DRAIN.read(&at.entry(&entries[0]), problems).map(OnChange::Drain)
            }
            _ => {
                mismatch(at, "`keep`, `close`, or `{ drain = \"30s\" }`", problems);
                None
            }
        }
    }

    fn write(&self, value: &OnChange) -> Option<Value> {
        match value {
            OnChange::Keep => Some(Value::text("keep")),
            OnChange::Close => Some(Value::text("close")),
            OnChange::Drain(time) => {
                let time = Node::from(DRAIN.write(time)?);
                Some(Value::Table(vec![Entry::new("drain", time.value)]))
            }
        }
    }
}

/// Where a backend is: an address, a Unix socket, or a host name.
pub(super) struct Whereabouts;

impl Codec for Whereabouts {
    type Of = BackendAddress;

    fn describe(&self) -> String {
        "`ADDRESS:PORT`, `HOST:PORT` or `unix:PATH`".into()
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<BackendAddress> {
        if let Value::Text(text) = &at.node.value {
            if let Some(path) = text.strip_prefix("unix:") {
                return unix(path, at, problems);
            }
            if let Some((host, port)) = text.rsplit_once(':')
                && let Ok(port) = port.parse::<u16>()
                && port > 0
                && host.bytes().any(|byte| byte.is_ascii_alphabetic())
                && wrong_host(host).is_none()
            {
                return Some(BackendAddress::Host(host.to_ascii_lowercase().into(), port));
            }
        }
        Address::Send.read(at, problems).map(BackendAddress::Ip)
    }

    fn write(&self, value: &BackendAddress) -> Option<Value> {
        Some(Value::text(value.to_string()))
    }
}

fn unix(path: &str, at: &At<'_>, problems: &mut Collector) -> Option<BackendAddress> {
    let wrong = if !path.starts_with('/') {
        "isn't the whole path of a Unix socket: it begins with `/`"
    } else if path.contains('\0') {
        "isn't a Unix socket's path: it has a NUL in it"
    } else if path.len() > MAX_UNIX_PATH {
        "isn't a Unix socket's path: those have at most 107 bytes"
    } else {
        return Some(BackendAddress::Unix(path.into()));
    };
    at.report(format!("{}: `{}` {wrong}", at.subject(), quoted(path)), problems);
    None
}
