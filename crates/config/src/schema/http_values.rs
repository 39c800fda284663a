//! Values that only HTTP has: paths, methods, field names, statuses, templates. Each is checked by itself.

use std::collections::BTreeMap;

use super::streams::wrong_host;
use super::values::{found, mismatch, text, wrong_name};
use super::{At, Codec};
use crate::diagnostics::{Collector, quoted};
use crate::model::{Name, PathMatch, RateKey, RetryOn, StatusRange, ValueMatch};
use crate::tree::{Entry, Node, Value};

/// A value that is left out where it says nothing new.
pub(super) struct Sparse<C>(pub(super) C);

impl<C: Codec<Of: Default + PartialEq>> Codec for Sparse<C> {
    type Of = C::Of;

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn has_key(&self, key: &str) -> bool {
        self.0.has_key(key)
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<C::Of> {
        self.0.read(at, problems)
    }

    fn write(&self, value: &C::Of) -> Option<Value> {
        (*value != C::Of::default()).then(|| self.0.write(value)).flatten()
    }
}

/// Declares values that are texts: what may be written, and what is wrong with a text.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident: $what:literal, |$text:ident| $wrong:expr, $read:expr;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl Codec for $name {
            type Of = String;

            fn describe(&self) -> String {
                $what.into()
            }

            fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<String> {
                let $text = text(at, $what, problems)?;
                let wrong: Option<&str> = $wrong;
                if let Some(wrong) = wrong {
                    at.report(format!("{}: `{}` {wrong}", at.subject(), quoted($text)), problems);
                    return None;
                }
                let read: fn(&str) -> String = $read;
                Some(read($text))
            }

            fn write(&self, value: &String) -> Option<Value> {
                Some(Value::text(value))
            }
        }
    )*};
}

texts! {
    /// Any text.
    Plain: "text", |_text| None, str::to_owned;
    /// Any key.
    AnyKey: "text", |text| text.is_empty().then_some("is empty"), str::to_owned;
    /// A token (RFC 9110 5.6.2).
    FieldName: "name of a field", |text| (!is_token(text)).then_some("isn't a token of letters, digits and !#$%&'*+-.^_`|~"), str::to_owned;
    /// The name of a field that may be changed.
    Head: "name of a field", |text| wrong_field(text), str::to_ascii_lowercase;
    /// A field's value.
    FieldText: "text without line ends", |text| wrong_value(text), str::to_owned;
    /// A method.
    Method: "method in capitals", |text| wrong_method(text), str::to_owned;
    /// `http` or `https`.
    Scheme: "`http` or `https`", |text| (!matches!(text, "http" | "https")).then_some("is neither `http` nor `https`"), str::to_owned;
    /// A host, with a port or without.
    HostText: "host name, with a port or without", |text| wrong_authority(text), str::to_owned;
    /// A path with a query or without, as it is sent.
    TargetPath: "path, with a query or without", |text| wrong_target(text), str::to_owned;
    /// A path with places in it.
    TemplateText: "path with `{path}`, `{rest}`, `{1}`", |text| wrong_template(text), str::to_owned;
    /// A password's hash.
    HashText: "`$argon2id$…` or `$2b$…`", |text| wrong_hash(text), str::to_owned;
    /// A user's name.
    UserName: "user name", |text| (text.is_empty() || text.contains(':')).then_some("is empty or has a colon"), str::to_owned;
    /// What something is signed with.
    Secret: "at least 16 bytes", |text| (text.len() < 16).then_some("is shorter than 16 bytes"), str::to_owned;
}

fn is_token(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.len() <= 256 && text.bytes().all(inside)
}

fn wrong_field(name: &str) -> Option<&'static str> {
    match name.to_ascii_lowercase().as_str() {
        _ if !is_token(name) => Some("isn't a token of letters, digits and !#$%&'*+-.^_`|~"),
        "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding" | "upgrade"
        | "content-length" => Some("frames messages and belongs to the proxy"),
        "host" => Some("is changed by `request.host`, and matched by `host`"),
        _ => None,
    }
}

fn wrong_value(value: &str) -> Option<&'static str> {
    let wrong = |byte: u8| byte < b' ' && byte != b'\t' || byte == 0x7f;
    if value.bytes().any(wrong) {
        Some("has a control character")
    } else if value.trim() != value {
        Some("has blanks around it")
    } else {
        None
    }
}

fn wrong_method(method: &str) -> Option<&'static str> {
    let is_right = is_token(method) && !method.bytes().any(|byte| byte.is_ascii_lowercase());
    (!is_right).then_some("isn't a method: those are written in capitals, like `GET`")
}

fn wrong_authority(text: &str) -> Option<&'static str> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Some("has a port that isn't one");
    }
    let v6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match v6 {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_err().then_some("isn't an IPv6 address in brackets"),
        None => wrong_host(host),
    }
}

fn wrong_target(text: &str) -> Option<&'static str> {
    let is_right = text.starts_with('/') && text.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b'#');
    (!is_right).then_some("isn't a path as it is sent: it begins with `/` and has no blanks, `#` or non-ASCII letters")
}

fn wrong_template(text: &str) -> Option<&'static str> {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else { return Some("has a `{` without a `}`") };
        let is_known = matches!(name, "path" | "rest") || name.parse::<usize>().is_ok_and(|number| number < 100);
        if !is_known {
            return Some("has a place that isn't known; there are `{path}`, `{rest}` and `{1}`, `{2}` …");
        }
        if !is_sendable(before) {
            return Some("has blanks, `?`, `#` or non-ASCII letters");
        }
        rest = after;
    }
    if !is_sendable(rest) {
        return Some("has blanks, `?`, `#`, `}` or non-ASCII letters");
    }
    (!text.starts_with('/') && !text.starts_with('{')).then_some("doesn't begin with `/` or with a place")
}

fn is_sendable(text: &str) -> bool {
    text.bytes().all(|byte| (0x21..0x7f).contains(&byte) && !b"?#}".contains(&byte))
}

fn wrong_hash(text: &str) -> Option<&'static str> {
    let is_argon2 = ["$argon2id$", "$argon2i$", "$argon2d$"].iter().any(|prefix| text.starts_with(prefix));
    let is_bcrypt = ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| text.starts_with(prefix)) && text.len() == 60;
    (!is_argon2 && !is_bcrypt).then_some("isn't a hash of argon2 or bcrypt; `htpasswd -nB NAME` makes one")
}

/// A table of texts to values.
pub(super) struct MapOf<K, C> {
    pub(super) key: K,
    pub(super) of: C,
}

impl<K: Codec<Of = String>, C: Codec> Codec for MapOf<K, C> {
    type Of = BTreeMap<String, C::Of>;

    fn describe(&self) -> String {
        format!("table of: {}", self.of.describe())
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<Self::Of> {
        let Value::Table(entries) = &at.node.value else {
            mismatch(at, "a table", problems);
            return None;
        };
        let mut read = BTreeMap::new();
        for entry in entries {
            let here = at.entry(entry);
            let key = Entry { key: entry.key.clone(), node: entry.key.clone() };
            let key = self.key.read(&at.entry(&key), problems);
            if let (Some(key), Some(value)) = (key, self.of.read(&here, problems))
                && read.insert(key, value).is_some()
            {
                here.report_key(format!("{} stands twice", here.subject()), problems);
            }
        }
        Some(read)
    }

    fn write(&self, value: &Self::Of) -> Option<Value> {
        let entry = |(key, value): (&String, &C::Of)| Some(Entry::new(key, self.of.write(value)?));
        Some(Value::Table(value.iter().filter_map(entry).collect()))
    }
}

/// A table of objects' names to values.
pub(super) struct NameOf<C>(pub(super) C);

impl<C: Codec> Codec for NameOf<C> {
    type Of = BTreeMap<Name, C::Of>;

    fn describe(&self) -> String {
        format!("table of names to: {}", self.0.describe())
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<Self::Of> {
        let Value::Table(entries) = &at.node.value else {
            mismatch(at, "a table", problems);
            return None;
        };
        let read = entries.iter().filter_map(|entry| {
            let here = at.entry(entry);
            if let Some(wrong) = wrong_name(entry.name(), super::values::NAME_SIGNS) {
                here.report_key(format!("{}: {wrong}", here.subject()), problems);
                return None;
            }
            Some((Name::new(entry.name()), self.0.read(&here, problems)?))
        });
        Some(read.collect())
    }

    fn write(&self, value: &Self::Of) -> Option<Value> {
        let entry = |(name, value): (&Name, &C::Of)| Some(Entry::new(name.as_str(), self.0.write(value)?));
        Some(Value::Table(value.iter().filter_map(entry).collect()))
    }
}

/// A share of a split.
pub(super) struct Weight;

impl Codec for Weight {
    type Of = u32;

    fn describe(&self) -> String {
        "whole number, 0 to 1000".into()
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<u32> {
        super::values::Whole { min: 0u32, max: 1_000, zero: None }.read(at, problems)
    }

    fn write(&self, value: &u32) -> Option<Value> {
        Some(Value::Integer((*value).into()))
    }
}

/// A prefix, `{ exact = … }` or `{ regex = … }`.
pub(super) struct PathOf;

impl Codec for PathOf {
    type Of = PathMatch;

    fn describe(&self) -> String {
        "prefix, or `{ exact = path }`, or `{ regex = expression }`".into()
    }

    fn has_key(&self, key: &str) -> bool {
        matches!(key, "exact" | "regex")
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<PathMatch> {
        match &at.node.value {
            Value::Text(prefix) => {
                let prefix = if prefix.len() > 1 { prefix.strip_suffix('/').unwrap_or(prefix) } else { prefix };
                is_path(prefix, at, problems).then(|| PathMatch::Prefix(prefix.to_owned()))
            }
            Value::Table(entries) if entries.len() == 1 && entries[0].name() == "exact" => {
                let here = at.entry(&entries[0]);
                let path = text(&here, "a path", problems)?;
                is_path(path, &here, problems).then(|| PathMatch::Exact(path.to_owned()))
            }
            Value::Table(entries) if entries.len() == 1 && entries[0].name() == "regex" => {
                let here = at.entry(&entries[0]);
                let expression = text(&here, "a regular expression", problems)?;
                if let Err(wrong) = compile(expression) {
                    here.report(format!("{}: `{}` {wrong}", here.subject(), quoted(expression)), problems);
                    return None;
                }
                Some(PathMatch::Regex(expression.to_owned()))
            }
            _ => {
                mismatch(at, "a path, `{ exact = \"/x\" }` or `{ regex = \"/v[0-9]+/.*\" }`", problems);
                None
            }
        }
    }

    fn write(&self, value: &PathMatch) -> Option<Value> {
        match value {
            PathMatch::Any => None,
            PathMatch::Prefix(path) => Some(Value::text(path)),
            PathMatch::Exact(path) => Some(Value::Table(vec![Entry::new("exact", Value::text(path))])),
            PathMatch::Regex(text) => Some(Value::Table(vec![Entry::new("regex", Value::text(text))])),
        }
    }
}

/// Paths are written as they are compared: decoded, without empty and dot segments.
fn is_path(path: &str, at: &At<'_>, problems: &mut Collector) -> bool {
    let dots = path.split('/').skip(1).any(|segment| matches!(segment, "." | ".."));
    let wrong = if !path.starts_with('/') {
        "doesn't begin with `/`"
    } else if path.contains("//") || dots {
        "has an empty, `.` or `..` segment: no path has those when it is compared"
    } else if path.contains(['?', '#', '\\', '\0']) {
        "has a `?`, `#` or `\\`: a query is matched by `query`"
    } else if path.contains('%') {
        "has a `%`: paths are written decoded, as they are compared"
    } else {
        return true;
    };
    at.report(format!("{}: `{}` {wrong}", at.subject(), quoted(path)), problems);
    false
}

fn compile(expression: &str) -> Result<(), String> {
    use regex_automata::meta::Regex;
    let config = Regex::config().nfa_size_limit(Some(1 << 20)).hybrid_cache_capacity(1 << 20);
    let built = Regex::builder()
        .configure(config)
        .syntax(regex_automata::util::syntax::Config::new().utf8(false))
        .build(&format!("^(?:{expression})$"));
    match built {
        Ok(_) => Ok(()),
        Err(error) if error.size_limit().is_some() => Err("is too large when it is compiled".into()),
        Err(error) => Err(format!("isn't a regular expression: {error}")),
    }
}

/// A value, or `true`: that it is there.
pub(super) struct ValueMatchOf;

impl Codec for ValueMatchOf {
    type Of = ValueMatch;

    fn describe(&self) -> String {
        "text, or `true`: that it is there".into()
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<ValueMatch> {
        match &at.node.value {
            Value::Text(text) => Some(ValueMatch::Exact(text.clone())),
            Value::Bool(true) => Some(ValueMatch::Present),
            _ => {
                mismatch(at, "a text, or `true` for any", problems);
                None
            }
        }
    }

    fn write(&self, value: &ValueMatch) -> Option<Value> {
        Some(match value {
            ValueMatch::Present => Value::Bool(true),
            ValueMatch::Exact(text) => Value::text(text),
        })
    }
}

/// A status, one of some; with none given, 200 to 599.
pub(super) struct Status {
    pub(super) of: &'static [u16],
}

impl Codec for Status {
    type Of = u16;

    fn describe(&self) -> String {
        match self.of {
            [] => "status, 200 to 599".into(),
            of => of.iter().map(|status| format!("`{status}`")).collect::<Vec<_>>().join(", "),
        }
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<u16> {
        let status = match at.node.value {
            Value::Integer(number) => u16::try_from(number).ok(),
            _ => None,
        };
        let is_right = |status: &u16| match self.of {
            [] => (200..600).contains(status),
            of => of.contains(status),
        };
        let read = status.filter(is_right);
        if read.is_none() {
            mismatch(at, &self.describe(), problems);
        }
        read
    }

    fn write(&self, value: &u16) -> Option<Value> {
        Some(Value::Integer((*value).into()))
    }
}

/// A status, or `"500-599"`.
pub(super) struct StatusRangeOf;

impl Codec for StatusRangeOf {
    type Of = StatusRange;

    fn describe(&self) -> String {
        "status, or range like `200-399`".into()
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<StatusRange> {
        let one = |text: &str| text.parse::<u16>().ok().filter(|status| (100..=999).contains(status));
        let range = match &at.node.value {
            Value::Integer(number) => one(&number.to_string()).map(|status| (status, status)),
            Value::Text(text) => match text.split_once('-') {
                Some((from, to)) => one(from).zip(one(to)),
                None => one(text).map(|status| (status, status)),
            },
            _ => None,
        };
        match range.filter(|(from, to)| from <= to) {
            Some((from, to)) => Some(StatusRange { from, to }),
            None => {
                mismatch(at, "a status like 200 or a range like \"200-399\"", problems);
                None
            }
        }
    }

    fn write(&self, value: &StatusRange) -> Option<Value> {
        Some(match value.from == value.to {
            true => Value::Integer(value.from.into()),
            false => Value::Text(format!("{}-{}", value.from, value.to)),
        })
    }
}

/// What asks for another try.
pub(super) struct RetryOnOf;

impl Codec for RetryOnOf {
    type Of = RetryOn;

    fn describe(&self) -> String {
        "`connect`, `reset`, `timeout`, or a status like `503`".into()
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<RetryOn> {
        let word = match &at.node.value {
            Value::Text(word) => word.clone(),
            Value::Integer(number) => number.to_string(),
            other => found(other),
        };
        match (word.as_str(), word.parse::<u16>()) {
            ("connect", _) => Some(RetryOn::Connect),
            ("reset", _) => Some(RetryOn::Reset),
            ("timeout", _) => Some(RetryOn::Timeout),
            (_, Ok(status @ (429 | 500..=599))) => Some(RetryOn::Status(status)),
            _ => {
                mismatch(at, "`connect`, `reset`, `timeout`, or a status of 500 to 599 or 429", problems);
                None
            }
        }
    }

    fn write(&self, value: &RetryOn) -> Option<Value> {
        Some(match value {
            RetryOn::Connect => Value::text("connect"),
            RetryOn::Reset => Value::text("reset"),
            RetryOn::Timeout => Value::text("timeout"),
            RetryOn::Status(status) => Value::Text(status.to_string()),
        })
    }
}

/// Who shares a rate.
pub(super) struct RateKeyOf;

impl Codec for RateKeyOf {
    type Of = RateKey;

    fn describe(&self) -> String {
        "`client`, `route`, or `{ header = name }`".into()
    }

    fn has_key(&self, key: &str) -> bool {
        key == "header"
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<RateKey> {
        match &at.node.value {
            Value::Text(word) if word == "client" => Some(RateKey::Client),
            Value::Text(word) if word == "route" => Some(RateKey::Route),
            Value::Table(entries) if entries.len() == 1 && entries[0].name() == "header" => {
                FieldName.read(&at.entry(&entries[0]), problems).map(RateKey::Header)
            }
            _ => {
                mismatch(at, "`client`, `route` or `{ header = \"x-api-key\" }`", problems);
                None
            }
        }
    }

    fn write(&self, value: &RateKey) -> Option<Value> {
        Some(match value {
            RateKey::Client => Value::text("client"),
            RateKey::Route => Value::text("route"),
            RateKey::Header(name) => Value::Table(vec![Entry::new("header", Value::text(name))]),
        })
    }
}

/// A number of bytes; 0: unlimited.
pub(super) struct LongSize;

impl Codec for LongSize {
    type Of = u64;

    fn describe(&self) -> String {
        "size; `0B`: unlimited".into()
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<u64> {
        let read = match &at.node.value {
            Value::Text(text) if text == "0" => Some(0),
            Value::Integer(0) => Some(0),
            Value::Text(text) => super::values::read_size(text),
            _ => None,
        };
        if read.is_none() {
            mismatch(at, "a size like \"10MiB\", or \"0B\" for unlimited", problems);
        }
        read
    }

    fn write(&self, value: &u64) -> Option<Value> {
        let node = Node::from(Value::Text(match value {
            value if *value > 0 && value.is_multiple_of(1 << 20) => format!("{}MiB", value >> 20),
            value if *value > 0 && value.is_multiple_of(1 << 10) => format!("{}KiB", value >> 10),
            value => format!("{value}B"),
        }));
        Some(node.value)
    }
}
