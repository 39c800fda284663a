//! What an HTTP listener holds its clients to, and the bodies of the proxy's own answers.

use std::time::Duration;

use super::route::report_at;
use super::strict::HSTS;
use super::text::{ANYTHING, TOKEN};
use crate::bounds::MAX_FIELDS;
use crate::diagnostics::{Collector, quoted};
use crate::model::{AmbiguousPaths, ErrorBodies, HttpListener};
use crate::schema::network::Network;
use crate::schema::values::{Flag, LONGEST, Size, Time, UNLIMITED, Volume, Whole, Words};
use crate::schema::{At, ListOf, Maybe, Section, Sparse, Table, field};
use crate::template::places;

const WAIT: Time = Time { min: Duration::from_millis(1), max: LONGEST };
const LENGTH: Size = Size { min: 256, max: 1 << 20 };

const AMBIGUOUS_PATHS: Words<AmbiguousPaths> = Words {
    of: &[("pass", AmbiguousPaths::Pass), ("normalise", AmbiguousPaths::Normalise), ("refuse", AmbiguousPaths::Refuse)],
    later: &[],
};

pub(in crate::schema) const HTTP_LISTENER: Section<HttpListener> = Section {
    blank: HttpListener::default,
    fields: &[
        field!(head_timeout: WAIT, "time for a request's head, from its first byte on; for the first one, from the connection's acceptance on"),
        field!(body_timeout: WAIT, "time between two pieces of a request's body"),
        field!(write_timeout: WAIT, "time in which a client must take something of what is written to it"),
        field!(keep_alive: WAIT, "time that a connection may wait for its next request"),
        field!(keep_alive_requests: UNLIMITED, "requests of one connection"),
        field!(max_request_line: LENGTH, "the longest request line; longer ones are answered by 414; left out with a smaller `max_head`: that", else usual_line),
        field!(max_head: LENGTH, "the longest head, request line and fields together; longer ones are answered by 431"),
        field!(max_fields: Whole { min: 1_u32, max: MAX_FIELDS, zero: None }, "the most fields of a head; more are answered by 431"),
        field!(max_body: Volume, "the longest body of a request; longer ones are answered by 413"),
        field!(ambiguous_paths: AMBIGUOUS_PATHS,
            "what becomes of a request whose path programs read differently (`.` and `..`, empty segments, backslashes, escapes of these, parameters behind a `;`): it goes on as it came, goes on as it was matched, or is answered by 400; where no spelling would settle it (`/admin;x`), `normalise` refuses it too"),
        field!(trusted: ListOf { of: Network, filled: false },
            "networks whose `Forwarded`, `X-Forwarded-*` and `X-Request-Id` are believed and added to; from everybody else they are dropped"),
        field!(x_forwarded: Flag, "whether `X-Forwarded-For`, `-Proto`, `-Host` and `-Port` are sent to backends"),
        field!(forwarded: Flag, "whether `Forwarded` (RFC 7239) is sent to backends"),
        field!(request_id: Flag, "whether `X-Request-Id` is sent to backends"),
        field!(via: Maybe(TOKEN), "the name by which the proxy appears in `Via`; left out: it adds none"),
        field!(hsts: Maybe(Table(&HSTS)),
            "`Strict-Transport-Security` of every response that goes over TLS, in the place of a backend's own; left out: what backends say goes on as it is"),
        field!(errors: Sparse(Table(&ERRORS)), "the bodies of answers that the proxy makes"),
    ],
    later: &[],
    finish: settle,
};

fn settle(http: &mut HttpListener, at: &At<'_>, problems: &mut Collector) {
    if at.node.value.get("max_request_line").is_none() {
        http.max_request_line = usual_line(http);
    } else if http.max_request_line > http.max_head {
        let (line, head) = (http.max_request_line, http.max_head);
        let message = format!("{}: `max_request_line` ({line}B) is larger than `max_head` ({head}B)", at.subject());
        at.report_key(message, problems);
    }
}

/// What `max_request_line` is where it is left out.
fn usual_line(http: &HttpListener) -> u32 {
    HttpListener::default().max_request_line.min(http.max_head)
}

pub(in crate::schema) const ERRORS: Section<ErrorBodies> = Section {
    blank: ErrorBodies::default,
    fields: &[
        field!(text: Maybe(ANYTHING), "as `text/plain`; `{status}`, `{reason}` and `{request_id}` stand for what they say"),
        field!(html: Maybe(ANYTHING), "as `text/html`, for clients that prefer it"),
        field!(json: Maybe(ANYTHING), "as `application/json`, for clients that prefer it"),
    ],
    later: &[],
    finish: |bodies, at, problems| {
        for (key, body) in [("text", &bodies.text), ("html", &bodies.html), ("json", &bodies.json)] {
            let unknown = |name: &&str| !SAYS.contains(name);
            let Some(name) = body.as_deref().and_then(|body| places(body).find(unknown)) else { continue };
            let (meant, shown) = (problems.suggester.nearest(name, SAYS.into_iter()), quoted(name));
            let message = format!(
                "{}: `{key}`: `{{{shown}}}` is unknown; there are `{{status}}`, `{{reason}}` and `{{request_id}}`",
                at.subject()
            );
            let help = match meant {
                Some(meant) => format!("did you mean `{{{meant}}}`?"),
                None => format!("what is to be sent as `{{{shown}}}` is written as `{{{{{shown}}}}}`"),
            };
            report_at(&[key], message, at, problems).help(help);
        }
    },
};

/// What the body of an error has places for.
const SAYS: [&str; 3] = ["status", "reason", "request_id"];
