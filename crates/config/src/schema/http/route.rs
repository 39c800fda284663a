//! What becomes of requests that a route matches: its action, what is changed, how long, how often, how much.

use std::time::Duration;

use super::fields::{FieldName, Role, filled, removed, written};
use super::paths::{PLACES, TEMPLATE, wrong_template};
use super::strict::one_way;
use super::text::{ANYTHING, AUTHORITY, HOST, Text};
use crate::diagnostics::{Collector, Diagnostic, quoted};
use crate::model::{
    FieldEdits, PathMatch, RateKey, RateLimit, Redirect, RequestEdits, Respond, Retry, RetryOn, Route, RouteTimeouts,
};
use crate::schema::maps::{MapOf, Names};
use crate::schema::values::{LONGEST, PORT, Time, TimeOrNone, UNLIMITED, Whole, Words, mismatch};
use crate::schema::{At, Codec, ListOf, Maybe, Section, Shape, field, independent, shape};
use crate::tree::{Entry, Value};

const TIME: Time = Time { min: Duration::from_millis(1), max: LONGEST };
const SHARE: Whole<u32> = Whole { min: 0, max: 1_000_000, zero: Some("it gets nothing") };

pub(in crate::schema) const SPLIT: MapOf<Names, Whole<u32>> = MapOf { keys: Names("cluster"), of: SHARE, filled: true };

pub(in crate::schema) const REDIRECT: Section<Redirect> = Section {
    blank: || Redirect { status: 302, ..Redirect::default() },
    fields: &[
        field!(status: RedirectStatus, "the answer's status"),
        field!(scheme: Maybe(Scheme), "left out: the request's"),
        field!(host: Maybe(HOST), "another host; left out: the request's"),
        field!(port: PORT, "another port; left out: the request's where neither `scheme` nor `host` is another one, or else the scheme's own"),
        field!(path: Maybe(TEMPLATE), "another path; left out: the request's"),
        field!(query: Maybe(QUERY), "another query, without `?`; left out: the request's; empty: none"),
    ],
    later: &[],
    finish: |redirect, at, problems| {
        let Redirect { scheme, host, port, path, query, .. } = redirect;
        if scheme.is_none() && host.is_none() && port.is_none() && path.is_none() && query.is_none() {
            at.report_key(format!("{} sends clients to where they came from", at.subject()), problems)
                .help("give it a `scheme`, `host`, `port`, `path` or `query`");
        }
    },
};

/// The statuses that send a client elsewhere for good or for now (RFC 9110 15.4).
pub(super) struct RedirectStatus;

const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

impl Codec for RedirectStatus {
    type Of = u16;

    fn describe(&self) -> String {
        crate::schema::listed(REDIRECTS.map(|status| status.to_string()).iter().map(String::as_str))
    }

    fn shape(&self) -> Shape {
        shape::numbers(REDIRECTS)
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<u16> {
        let known = |status: &u16| REDIRECTS.contains(status);
        let read = match at.node.value {
            Value::Integer(number) => u16::try_from(number).ok().filter(known),
            _ => None,
        };
        if read.is_none() {
            mismatch(at, &format!("one of {}", self.describe()), problems);
        }
        read
    }

    fn write(&self, value: &u16) -> Option<Value> {
        Some(Value::Integer((*value).into()))
    }
}

/// `http` or `https`.
struct Scheme;

const SCHEMES: Words<&str> = Words { of: &[("http", "http"), ("https", "https")], later: &[] };

impl Codec for Scheme {
    type Of = String;

    fn describe(&self) -> String {
        SCHEMES.describe()
    }

    fn shape(&self) -> Shape {
        SCHEMES.shape()
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<String> {
        SCHEMES.read(at, problems).map(str::to_owned)
    }

    fn write(&self, value: &String) -> Option<Value> {
        Some(Value::text(value.clone()))
    }
}

const QUERY: Text = Text {
    what: "query without `?`",
    wrong: |text| {
        if text.starts_with('?') {
            Some("begins with the `?`, which is put before it")
        } else if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            Some("has a character that no query has: what isn't ASCII, blanks and `#` are written as `%`-escapes")
        } else {
            None
        }
    },
};

pub(in crate::schema) const RESPOND: Section<Respond> = Section {
    blank: || Respond { status: 200, ..Respond::default() },
    fields: &[
        field!(status: Whole { min: 200_u16, max: 599, zero: None }, "the answer's status"),
        field!(headers: written(None), "its header fields"),
        field!(body: ANYTHING, "its body"),
    ],
    later: &[],
    finish: |respond, at, problems| {
        if !respond.body.is_empty() && matches!(respond.status, 204 | 205 | 304) {
            let message = format!("{}: an answer with status {} has no `body`", at.subject(), respond.status);
            at.report_key(message, problems);
        }
    },
};

pub(in crate::schema) const REQUEST: Section<RequestEdits> = Section {
    blank: RequestEdits::default,
    fields: &[
        field!(set: filled(Some("request.host")), "fields with their only value from now on"),
        field!(add: filled(Some("request.host")), "fields with one more value"),
        field!(remove: removed(Some("request.host")), "fields that are taken out, before others are set and added"),
        field!(host: Maybe(AUTHORITY), "another `Host`; left out: the client's"),
        field!(path: Maybe(TEMPLATE), "another path; left out: the client's; the query stays"),
    ],
    later: &[],
    finish: independent,
};

pub(in crate::schema) const RESPONSE: Section<FieldEdits> = Section {
    blank: FieldEdits::default,
    fields: &[
        field!(set: filled(None), "fields with their only value from now on"),
        field!(add: filled(None), "fields with one more value"),
        field!(remove: removed(None), "fields that are taken out, before others are set and added"),
    ],
    later: &[],
    finish: independent,
};

pub(in crate::schema) const TIMEOUTS: Section<RouteTimeouts> = Section {
    blank: RouteTimeouts::default,
    fields: &[
        field!(request: TimeOrNone(TIME), "from a request's head to the end of its response, all tries together"),
        field!(response: TIME, "from the end of the request to the response's head, for each try"),
        field!(idle: TIME, "between two pieces of a response's body"),
    ],
    later: &[],
    finish: independent,
};

pub(in crate::schema) const RETRY: Section<Retry> = Section {
    blank: Retry::default,
    fields: &[
        field!(attempts: Whole { min: 0_u32, max: 10, zero: Some("none") }, "further tries of a request"),
        field!(on: ListOf { of: RetryCondition, filled: false },
            "after what: the backend can't be connected to, broke the connection before its response began, didn't answer in time, or answered with this status"),
        field!(budget: Whole { min: 1_u32, max: 100, zero: None }, "further tries that a hundred requests of the route earn its cluster, all of whose routes share them; a few are always allowed"),
    ],
    later: &[],
    finish: independent,
};

/// What makes a request be tried again: a word, or a status as text or number.
struct RetryCondition;

const CONDITIONS: Words<RetryOn> = Words {
    of: &[("connect", RetryOn::Connect), ("reset", RetryOn::Reset), ("timeout", RetryOn::Timeout)],
    later: &[],
};

impl Codec for RetryCondition {
    type Of = RetryOn;

    fn describe(&self) -> String {
        format!("{}, or a status: `\"429\"`, `\"500\"` to `\"599\"`", CONDITIONS.describe())
    }

    fn shape(&self) -> Shape {
        shape::either([shape::text(&self.describe()), shape::whole(429, 599)])
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<RetryOn> {
        let status = match &at.node.value {
            Value::Integer(number) => Some(u16::try_from(*number).unwrap_or(0)),
            Value::Text(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(text.parse().unwrap_or(0))
            }
            _ => None,
        };
        match status {
            None => CONDITIONS.read(at, problems),
            Some(429 | 500..=599) => status.map(RetryOn::Status),
            Some(_) => {
                mismatch(at, "429 or a status from 500 to 599", problems)
                    .help("other answers are the backend's word, which another try wouldn't change");
                None
            }
        }
    }

    fn write(&self, value: &RetryOn) -> Option<Value> {
        match value {
            RetryOn::Status(status) => Some(Value::text(status.to_string())),
            word => CONDITIONS.write(word),
        }
    }
}

pub(in crate::schema) const RATE_LIMIT: Section<RateLimit> = Section {
    blank: RateLimit::default,
    fields: &[
        field!(by: Sharers, "who shares it: each client address, all requests of the route, each value of a header field"),
        field!(requests: UNLIMITED, "requests in `per`"),
        field!(per: TIME, "the time for these"),
        field!(burst: Whole { min: 0, max: u32::MAX, zero: Some("as many as `requests`") }, "requests that may come at once"),
        field!(concurrent: UNLIMITED, "requests at one time"),
    ],
    later: &[],
    finish: |limit, at, problems| {
        if limit.requests == 0 && limit.burst > 0 {
            at.report_key(format!("{}: `burst` says nothing without `requests`", at.subject()), problems);
        } else if limit.requests == 0 && limit.concurrent == 0 {
            at.report_key(format!("{} limits nothing", at.subject()), problems)
                .help("give it `requests` or `concurrent`");
        }
    },
};

/// Who shares a rate: a word, or `{ header = "x-key" }`.
struct Sharers;

impl Codec for Sharers {
    type Of = RateKey;

    fn describe(&self) -> String {
        "`client`, `route`, or `{ header = \"x-key\" }`".into()
    }

    fn shape(&self) -> Shape {
        let header = shape::table([("header", true, FieldName(Role::Matched).shape())]);
        shape::either([shape::words(["client", "route"]), header])
    }

    fn has_key(&self, key: &str) -> bool {
        key == "header"
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<RateKey> {
        match &at.node.value {
            Value::Text(word) if word == "client" => Some(RateKey::Client),
            Value::Text(word) if word == "route" => Some(RateKey::Route),
            Value::Table(entries) if entries.len() == 1 && entries[0].name() == "header" => {
                FieldName(Role::Matched).read(&at.entry(&entries[0]), problems).map(RateKey::Header)
            }
            _ => {
                mismatch(at, &self.describe(), problems);
                None
            }
        }
    }

    fn write(&self, value: &RateKey) -> Option<Value> {
        match value {
            RateKey::Client => Some(Value::text("client")),
            RateKey::Route => Some(Value::text("route")),
            RateKey::Header(name) => Some(Value::Table(vec![Entry::new("header", Value::text(name.clone()))])),
        }
    }
}

/// What concerns several options of a route: one action, templates that its path has parts for.
pub(in crate::schema) fn settle(route: &mut Route, at: &At<'_>, problems: &mut Collector) {
    one_action(at, problems);
    one_way(route, at, problems);
    has_no_path(route, at, problems);
    if !route.split.is_empty() && route.split.values().all(|weight| *weight == 0) {
        report_at(&["split"], format!("{}: `split` gives nothing to any cluster", at.subject()), at, problems);
    }
    let redirected = route.redirect.as_ref().and_then(|redirect| redirect.path.as_ref());
    let paths = [("redirect", redirected), ("request", route.request.path.as_ref())];
    for (section, template) in paths {
        if let Some(template) = template {
            fits(&[section, "path"], (template, &route.path), at, problems);
        }
    }
    let (request, response) = (&route.request, &route.response);
    let edits = [("request", &request.set, &request.add), ("response", &response.set, &response.add)];
    for (section, set, add) in edits {
        for (key, fields) in [("set", set), ("add", add)] {
            for (name, template) in fields {
                fits(&[section, key, name], (template, &route.path), at, problems);
            }
        }
    }
}

/// Reports what a route with a path says of CONNECT, which has none.
fn has_no_path(route: &Route, at: &At<'_>, problems: &mut Collector) {
    if route.path == PathMatch::Any {
        return;
    }
    let help = "a CONNECT has no path: give it a route of its own, without `path`";
    let connects = route.method.iter().any(|method| method == "CONNECT");
    for (key, what) in [("connect", route.connect.then_some("`connect`")), ("method", connects.then_some("`CONNECT`"))]
    {
        if let Some(what) = what {
            let message = format!("{}: {what} says nothing beside `path`, which no CONNECT matches", at.subject());
            report_at(&[key], message, at, problems).help(help);
        }
    }
}

/// Reports a placeholder of a template that a route of this path has no part for.
fn fits(keys: &[&str], (template, path): (&str, &PathMatch), at: &At<'_>, problems: &mut Collector) {
    let Some((name, wrong)) = wrong_template(template, path) else { return };
    let meant = problems.suggester.nearest(name, PLACES.into_iter());
    let option: Vec<String> = keys.iter().map(|key| quoted(key)).collect();
    let message = format!("{}: `{}`: {wrong}", at.subject(), option.join("."));
    let found = report_at(keys, message, at, problems);
    match meant.filter(|meant| *meant != name) {
        Some(meant) => drop(found.help(format!("did you mean `{{{meant}}}`?"))),
        // Another path has no brackets of its own.
        None if keys.len() > 2 => {
            let name = quoted(name);
            found.help(format!("what is to be sent as `{{{name}}}` is written as `{{{{{name}}}}}`"));
        }
        None => {}
    }
}

/// The options of which a route has one.
pub(crate) const ACTIONS: [&str; 4] = ["cluster", "split", "redirect", "respond"];

fn one_action(at: &At<'_>, problems: &mut Collector) {
    let place = |key: &&str| at.node.value.get(key).map(|node| (node.span.clone(), format!("{}/{key}", at.pointer())));
    let mut given: Vec<_> = ACTIONS.iter().filter_map(|key| Some((key, place(key)?))).collect();
    given.sort_by_key(|(_, (span, _))| span.start);
    let [(first, first_at), rest @ ..] = &given[..] else { return };
    for (key, (span, pointer)) in rest {
        let message = format!("{} has both `{first}` and `{key}`; one says what becomes of a request", at.subject());
        problems.report(Diagnostic::new(message, pointer.clone(), Some(span.clone()))).and(
            first_at.1.clone(),
            Some(first_at.0.clone()),
            "the other one",
        );
    }
}

/// Reports something about an option inside, as far as it stands there.
pub(super) fn report_at<'p>(
    keys: &[&str],
    message: String,
    at: &At<'_>,
    problems: &'p mut Collector,
) -> &'p mut Diagnostic {
    let (mut node, mut pointer) = (at.node, at.pointer());
    for key in keys {
        let Some(next) = node.value.get(key) else { break };
        node = next;
        pointer.push_str(&format!("/{key}"));
    }
    problems.report(Diagnostic::new(message, pointer, Some(node.span.clone())))
}
