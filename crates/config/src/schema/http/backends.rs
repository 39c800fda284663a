//! What connections to HTTP backends are held to, how backends are probed by requests, which statuses are failures.

use std::time::Duration;

use super::fields::written;
use super::route::report_at;
use super::text::{AUTHORITY, Method, TARGET, TOKEN, Text};
use crate::bounds::MAX_PROBE_BYTES;
use crate::diagnostics::{Collector, quoted};
use crate::model::{HttpCheck, HttpKnobs, SameSite, StatusRange, Sticky};
use crate::schema::values::{Flag, LONGEST, PORT, Time, TimeOrNone, UNLIMITED, Words, mismatch};
use crate::schema::{At, Codec, ListOf, Maybe, Section, Shape, Table, field, independent, shape};
use crate::tree::Value;

const TIME: Time = Time { min: Duration::from_millis(1), max: LONGEST };

pub(in crate::schema) const HTTP_KNOBS: Section<HttpKnobs> = Section {
    blank: HttpKnobs::default,
    fields: &[
        field!(idle_timeout: TimeOrNone(TIME), "time that a connection to a backend may wait for its next request; `none`: it is closed after one"),
        field!(max_age: TimeOrNone(TIME), "age at which a connection gets no further request"),
        field!(max_requests: UNLIMITED, "requests of one connection"),
        field!(sticky: Maybe(Table(&STICKY)), "a signed cookie that leads a client to the backend that it had; left out: none"),
    ],
    later: &[],
    finish: independent,
};

pub(in crate::schema) const STICKY: Section<Sticky> = Section {
    blank: Sticky::default,
    fields: &[
        field!(cookie: TOKEN, "the cookie's name"),
        field!(secret: SECRET, "what it is signed with; another one makes the cookies of before void", required),
        field!(max_age: TimeOrNone(Time { min: Duration::from_secs(1), max: LONGEST }), "how long a browser keeps it; `none`: as long as it runs"),
        field!(secure: Flag, "whether a browser sends it over TLS only"),
        field!(same_site: SAME_SITE, "whether a browser sends it with what other sites asked it for: where it goes there by a link, never, always"),
    ],
    later: &[],
    finish: |sticky, at, problems| {
        if sticky.same_site == SameSite::None && !sticky.secure {
            let message =
                format!("{}: browsers drop a cookie with `same_site = \"none\"` that isn't `secure`", at.subject());
            at.report_key(message, problems);
        }
        let prefix = ["__Host-", "__Secure-"].into_iter().find(|prefix| begins_with(&sticky.cookie, prefix));
        if let Some(prefix) = prefix.filter(|_| !sticky.secure) {
            let message = format!(
                "{}: browsers drop a cookie whose name begins with `{prefix}` that isn't `secure`",
                at.subject()
            );
            report_at(&["cookie"], message, at, problems);
        }
    },
};

/// Whether a name begins with this, as browsers see it: in whatever case.
fn begins_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
}

const SAME_SITE: Words<SameSite> =
    Words { of: &[("lax", SameSite::Lax), ("strict", SameSite::Strict), ("none", SameSite::None)], later: &[] };

const SECRET: Text = Text {
    what: "text of at least 16 bytes",
    wrong: |text| (text.len() < 16).then_some("is too short: a secret has at least 16 bytes"),
};

pub(in crate::schema) const HTTP_CHECK: Section<HttpCheck> = Section {
    blank: HttpCheck::default,
    fields: &[
        field!(method: Method, "the request's method"),
        field!(path: TARGET, "its path, perhaps with a query"),
        field!(host: Maybe(AUTHORITY), "its `Host`; left out: the backend's address"),
        field!(headers: written(Some("health.http.host")), "its further header fields"),
        field!(status: ListOf { of: Statuses, filled: true }, "the response's status where all is well"),
        field!(body_prefix: Maybe(PREFIX), "how its body must begin; left out: whatever it is"),
        field!(port: PORT, "the port probed; left out: the backend's own"),
        field!(tls: Maybe(Flag), "whether it speaks the cluster's TLS, if that has any; left out: unless it has a `port` of its own"),
    ],
    later: &[],
    finish: |check, at, problems| {
        if check.method == "CONNECT" {
            at.report_key(format!("{}: `CONNECT` asks for a connection, which is no check", at.subject()), problems);
        }
        if check.method == "HEAD" && check.body_prefix.is_some() {
            at.report_key(format!("{}: a response to `HEAD` has no body for `body_prefix`", at.subject()), problems);
        }
        // 101 is the one that isn't followed by another response.
        let passes_over = |range: &&StatusRange| range.to < 200 && (range.from, range.to) != (101, 101);
        for StatusRange { from, to } in check.status.iter().filter(passes_over) {
            let range = if from == to { from.to_string() } else { format!("{from}-{to}") };
            let message = format!(
                "{}: `status`: `{range}` stands for interim responses, behind which the one comes that counts",
                at.subject()
            );
            report_at(&["status"], message, at, problems);
        }
    },
};

const PREFIX: Text = Text {
    what: "text of 1 to 1400 bytes",
    wrong: |text| (!(1..=MAX_PROBE_BYTES).contains(&text.len())).then_some("doesn't have 1 to 1400 bytes"),
};

/// One status or a range of them: `404`, `"404"`, `"200-399"`.
pub(in crate::schema) struct Statuses;

impl Codec for Statuses {
    type Of = StatusRange;

    fn describe(&self) -> String {
        "status like `404`, or range like `\"200-399\"`".into()
    }

    fn shape(&self) -> Shape {
        shape::either([shape::text("status or range"), shape::whole(100, 599)])
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<StatusRange> {
        const WANTED: &str = "a status like 404, or a range like \"200-399\"";
        let status = |text: &str| (text.len() == 3).then(|| text.parse::<u16>().ok()).flatten();
        let read = match &at.node.value {
            Value::Integer(number) => u16::try_from(*number).ok().map(|status| (status, status)),
            Value::Text(text) => match text.split_once('-') {
                Some((from, to)) => status(from).zip(status(to)),
                None => status(text).map(|status| (status, status)),
            },
            _ => None,
        };
        let Some((from, to)) = read else {
            mismatch(at, WANTED, problems);
            return None;
        };
        if from > to {
            let message = format!("{}: `{from}-{to}` ends before it begins", at.subject());
            at.report(message, problems).help(format!("did you mean `{}`?", quoted(&format!("{to}-{from}"))));
            return None;
        }
        if from < 100 || to > 599 {
            at.report(format!("{}: statuses are 100 to 599", at.subject()), problems);
            return None;
        }
        Some(StatusRange { from, to })
    }

    fn write(&self, value: &StatusRange) -> Option<Value> {
        let StatusRange { from, to } = value;
        Some(if from == to { Value::Integer((*from).into()) } else { Value::text(format!("{from}-{to}")) })
    }
}
