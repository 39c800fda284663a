//! Texts that go into messages: what HTTP's grammar lets stand there. Nothing is matched or sent here.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::diagnostics::{Collector, quoted};
use crate::model::ServerName;
use crate::schema::streams::{ServerNameOf, wrong_host};
use crate::schema::values::text;
use crate::schema::{At, Codec};
use crate::tree::Value;

/// A token (RFC 9110 5.6.2): what names of fields, methods and cookies are.
pub(super) fn is_token(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(inside)
}

/// What is wrong with a text as a field's value (RFC 9110 5.5).
pub(super) fn wrong_value(text: &str) -> Option<&'static str> {
    if text.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        Some("has a control character (CR, LF, NUL or another one), which no field's value may have")
    } else if text.starts_with([' ', '\t']) || text.ends_with([' ', '\t']) {
        Some("begins or ends with a blank, which isn't part of a field's value")
    } else {
        None
    }
}

/// A text that a rule says something about.
pub(in crate::schema) struct Text {
    pub(super) what: &'static str,
    /// What is wrong with it. It isn't quoted there: it may be a secret.
    pub(super) wrong: fn(&str) -> Option<&'static str>,
}

impl Codec for Text {
    type Of = String;

    fn describe(&self) -> String {
        self.what.into()
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<String> {
        let text = text(at, self.what, problems)?;
        match (self.wrong)(text) {
            Some(wrong) => {
                at.report(format!("{} {wrong}", at.subject()), problems);
                None
            }
            None => Some(text.to_owned()),
        }
    }

    fn write(&self, value: &String) -> Option<Value> {
        Some(Value::text(value.clone()))
    }
}

/// Any text.
pub(super) const ANYTHING: Text = Text { what: "text", wrong: |_| None };

/// The value of a field.
pub(super) const FIELD_VALUE: Text = Text { what: "text without control characters", wrong: wrong_value };

/// The value of a field, with places for parts of a path. What takes these is escaped, so it can't end the field.
pub(super) const FIELD_TEMPLATE: Text =
    Text { what: "text without control characters, with `{path}`, `{rest}`, `{1}`…", ..FIELD_VALUE };

/// A token.
pub(super) const TOKEN: Text = Text {
    what: "token",
    wrong: |text| (!is_token(text)).then_some("isn't a token: letters, digits and ``!#$%&'*+-.^_`|~``"),
};

/// A path and perhaps a query, as they stand in a request line.
pub(super) const TARGET: Text = Text {
    what: "path, perhaps with a query",
    wrong: |text| {
        if !text.starts_with('/') {
            Some("isn't a path: it begins with `/`")
        } else if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            Some(
                "has a character that no request line has: what isn't ASCII, blanks and `#` are written as `%`-escapes",
            )
        } else {
            None
        }
    },
};

/// A host without a port.
pub(super) const HOST: Text = Text { what: "host name or address", wrong: wrong_bare_host };

/// A host, and a port where one is needed: what stands in `Host`.
pub(super) const AUTHORITY: Text = Text {
    what: "host name or address, perhaps with a port",
    wrong: |text| {
        let ported = text.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
        match ported {
            Some((_, port)) if !is_port(port) => Some("has a port that isn't a number from 1 to 65535"),
            Some((host, _)) => wrong_bare_host(host),
            None => wrong_bare_host(text),
        }
    },
};

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn wrong_bare_host(text: &str) -> Option<&'static str> {
    match bracketed(text) {
        Some(address) => address.parse::<Ipv6Addr>().err().map(|_| "isn't an IPv6 address in brackets"),
        None if text.parse::<Ipv6Addr>().is_ok() => Some("is an IPv6 address without its brackets"),
        None => wrong_host(text),
    }
}

fn bracketed(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.strip_suffix(']')
}

/// A host that a route matches: a name, all names under one, or an address.
pub(in crate::schema) struct HostMatch;

impl Codec for HostMatch {
    type Of = ServerName;

    fn describe(&self) -> String {
        "host name, `*.` and a host name, or an address (IPv6 in brackets)".into()
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<ServerName> {
        let written = text(at, "a host name like \"example.com\" or \"*.example.com\"", problems)?;
        if written.parse::<Ipv4Addr>().is_ok() {
            return Some(ServerName::Exact(written.into()));
        }
        if let Some(address) = bracketed(written).and_then(|address| address.parse::<Ipv6Addr>().ok()) {
            return Some(ServerName::Exact(Arc::from(format!("[{address}]"))));
        }
        let has_port = written.rsplit_once(':').is_some_and(|(host, port)| is_port(port) && !host.contains(':'));
        if has_port {
            let message = format!("{}: `{}` has a port; hosts are matched without one", at.subject(), quoted(written));
            at.report(message, problems).help("a listener of its own serves another port");
            return None;
        }
        ServerNameOf.read(at, problems)
    }

    fn write(&self, value: &ServerName) -> Option<Value> {
        Some(Value::text(value.to_string()))
    }
}

/// A method: a token in upper case, since methods of another case are other methods.
pub(in crate::schema) struct Method;

impl Codec for Method {
    type Of = String;

    fn describe(&self) -> String {
        "method like `GET`".into()
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<String> {
        let method = text(at, "a method like \"GET\"", problems)?;
        if !is_token(method) {
            at.report(format!("{}: `{}` isn't a method", at.subject(), quoted(method)), problems);
        } else if method.bytes().any(|byte| byte.is_ascii_lowercase()) {
            let message = format!("{}: `{}` isn't in upper case, as methods are", at.subject(), quoted(method));
            at.report(message, problems).help(format!("did you mean `{}`?", quoted(&method.to_ascii_uppercase())));
        } else {
            return Some(method.to_owned());
        }
        None
    }

    fn write(&self, value: &String) -> Option<Value> {
        Some(Value::text(value.clone()))
    }
}
