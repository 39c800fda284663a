//! What the proxy says itself: redirects, fixed answers, errors. An error says its status and what the request is known
//! by, and nothing about what stands behind the proxy.

use std::borrow::Cow;

use kakei_config::template::{Piece, pieces};
use kakei_config::{ErrorBodies, Redirect, Respond};
use kakei_wire::message::{self, Authority};
use serde::{Deserialize, Serialize};

use super::Http;
use super::decide::Deciding;
use super::exchange::{Exchange, ExchangeId, Phase, RequestId};
use super::rewrite::{field, render_path, status_line, write_added, write_persistence};
use super::rule::{Rule, Template};
use super::session::{SessionId, Stage};
use super::strict;
use crate::record::{CloseReason, Detail, Record};
use crate::seam::{Gather, Op, Span};
use crate::stats::ListenerMetric;
use crate::world::{Tick, World};

/// How a client likes errors to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Accepts {
    Text,
    Html,
    Json,
}

/// The media types that errors are told in, with the ranges that they fall in.
const OURS: [(&str, Accepts); 8] = [
    ("text/html", Accepts::Html),
    ("application/xhtml+xml", Accepts::Html),
    ("application/json", Accepts::Json),
    ("application/problem+json", Accepts::Json),
    ("application/*", Accepts::Json),
    ("text/plain", Accepts::Text),
    ("text/*", Accepts::Text),
    ("*/*", Accepts::Text),
];

impl Accepts {
    /// By the media type that it likes best of ours (RFC 9110 12.5.1); of several, by the first one. Several fields are
    /// one list (RFC 9110 5.3).
    pub(super) fn of<'a>(accept: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut accept = accept.peekable();
        // Nearly all: nothing that follows is liked better.
        if accept.peek().is_none_or(|first| *first == b"*/*") {
            return Accepts::Text;
        }
        let mut best = (0, Accepts::Text);
        for item in accept.flat_map(message::tokens) {
            let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let named = parts.next().unwrap_or_default();
            let ours = OURS.iter().find(|(name, _)| named.eq_ignore_ascii_case(name.as_bytes()));
            let Some(&(_, ours)) = ours else { continue };
            let quality = parts.find_map(|part| part.strip_prefix(b"q=").or(part.strip_prefix(b"Q=")));
            let quality = quality.map_or(1000, thousandths);
            if quality > best.0 {
                best = (quality, ours);
            }
        }
        best.1
    }
}

/// A quality (RFC 9110 12.4.2): `0.8` is 800. What is none counts as nothing.
fn thousandths(quality: &[u8]) -> u32 {
    let (whole, rest) = quality.split_at(quality.len().min(1));
    let digits = rest.strip_prefix(b".").unwrap_or_default();
    if digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) || (digits.is_empty() && rest.len() > 1) {
        return 0;
    }
    let digit = |at: usize| digits.get(at).map_or(0, |digit| u32::from(digit - b'0'));
    match whole {
        b"1" => 1000,
        b"0" => digit(0) * 100 + digit(1) * 10 + digit(2),
        _ => 0,
    }
}

impl Http {
    /// Answer a request by an error, or, where its answer has begun already, break it off.
    pub(super) fn refuse(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: ExchangeId,
        refused: (u16, CloseReason),
    ) {
        let exchange = &mut self.exchanges[id];
        let (status, reason) = exchange.told_of(refused);
        if exchange.phase == Phase::Responding {
            return self.abort(world, tick, id, reason);
        }
        exchange.traits.keeps &= exchange.request_ended && reason != CloseReason::BadRequest;
        if exchange.status == 0 {
            let mut extra = exchange.retry_after.map(|after| format!("Retry-After: {after}\r\n")).unwrap_or_default();
            if let (401, Some(rule)) = (status, &exchange.rule) {
                extra.push_str(rule.extras().users.as_ref().map_or("", |users| &users.challenge));
            }
            self.name_request(world, id);
            self.answer(tick, id, status, extra.as_bytes());
        }
        self.conclude(world, tick, id, reason);
    }

    /// Answer what is no request, and close.
    pub(super) fn refuse_unread(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: SessionId,
        (status, reason): (u16, CloseReason),
    ) {
        let session = &mut self.sessions[id];
        let listener = session.arrived.listener;
        let values = &mut world.listeners[listener].values;
        values[ListenerMetric::Requests] += 1;
        count_status(values, status);
        world.listeners[listener].exchange_closes.0[reason as usize] += 1;
        let http = world.listeners[listener].spec.http.as_ref();
        let errors = http.map(|http| http.knobs.errors.clone());
        let strict = http.filter(|_| session.secured.is_some()).and_then(|http| http.strict.as_deref());
        let mut out = Vec::new();
        status_line(status, "", &mut out);
        field(&mut out, "Date", self.date.at(tick.wall));
        out.extend_from_slice(strict.unwrap_or_default());
        out.extend_from_slice(b"Connection: close\r\n");
        let body_at = write_body(&mut out, (status, ""), Accepts::Text, &[&errors.unwrap_or_default()]);
        let head = tick.out.put(&out);
        session.write(tick, Gather { head, body: Span::EMPTY });
        if world.records {
            let detail = crate::record::ExchangeDetail { status: Some(status), ..Default::default() };
            let name = world.listeners[listener].spec.name.clone();
            let what = (reason, Detail::Exchange(Box::new(detail)));
            let record = session.arrived.unrouted(name, (session.since, tick.now), what);
            tick.ask(Op::Record(Box::new(Record { response_bytes: (out.len() - body_at) as u64, ..record })));
        }
        self.close_session(tick, id);
    }

    /// An error that tells what the request is known by needs it to be known by something.
    fn name_request(&mut self, world: &mut World, id: ExchangeId) {
        let exchange = &mut self.exchanges[id];
        let route = exchange.rule.as_ref().map(|rule| &rule.spec.errors);
        let mut bodies = route.into_iter().chain([&exchange.http.knobs.errors]);
        let tells = |body: &Option<String>| body.as_ref().is_some_and(|body| body.contains("{request_id}"));
        if exchange.request_id.is_none()
            && bodies.any(|bodies| tells(&bodies.text) || tells(&bodies.html) || tells(&bodies.json))
        {
            exchange.request_id = Some(RequestId::Made(world.rng.u128(..)));
        }
    }

    /// Write an error to the client.
    pub(super) fn answer(&mut self, tick: &mut Tick<'_>, id: ExchangeId, status: u16, extra: &[u8]) {
        let exchange = &self.exchanges[id];
        let request_id = exchange.request_id.as_ref().map(ToString::to_string).unwrap_or_default();
        let mut out = Vec::new();
        status_line(status, "", &mut out);
        field(&mut out, "Date", self.date.at(tick.wall));
        out.extend_from_slice(extra);
        // Who was sent here by mistake may know the host by another one's policy.
        if status != 421 {
            out.extend_from_slice(strict::told(exchange, &self.sessions[exchange.session]).unwrap_or_default());
        }
        write_persistence(exchange, &mut out);
        let route = exchange.rule.as_ref().map(|rule| &rule.spec.errors);
        let bodies: Vec<&ErrorBodies> = route.into_iter().chain([&exchange.http.knobs.errors]).collect();
        let body_at = write_body(&mut out, (status, &request_id), exchange.accepts, &bodies);
        if exchange.traits.is_head {
            out.truncate(body_at);
        }
        self.write_own(tick, id, status, (&out, body_at));
    }

    /// Send the client elsewhere.
    pub(super) fn redirect(
        &mut self,
        tick: &mut Tick<'_>,
        id: ExchangeId,
        (rule, redirect): (&Rule, &Redirect),
        deciding: &Deciding<'_>,
    ) {
        self.settle_persistence(id);
        let exchange = &self.exchanges[id];
        let mut out = Vec::new();
        status_line(redirect.status, "", &mut out);
        let edits = &rule.extras().response;
        if !edits.removes(b"date") {
            field(&mut out, "Date", self.date.at(tick.wall));
        }
        if !edits.removes(b"location") {
            out.extend_from_slice(b"Location: ");
            let scheme = if self.sessions[exchange.session].secured.is_some() { "https" } else { "http" };
            write_location((rule, redirect), (deciding, scheme), &mut out);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"Content-Length: 0\r\n");
        out.extend_from_slice(strict::told(exchange, &self.sessions[exchange.session]).unwrap_or_default());
        write_persistence(exchange, &mut out);
        write_added(exchange, &mut out);
        out.extend_from_slice(b"\r\n");
        self.write_own(tick, id, redirect.status, (&out, out.len()));
    }

    /// Answer as the route says.
    pub(super) fn respond(&mut self, tick: &mut Tick<'_>, id: ExchangeId, respond: &Respond) {
        self.settle_persistence(id);
        let exchange = &self.exchanges[id];
        let mut out = Vec::new();
        status_line(respond.status, "", &mut out);
        let edits = &exchange.extras().response;
        for (name, value) in respond.headers.iter().filter(|(name, _)| !edits.removes(name.as_bytes())) {
            field(&mut out, name, value.as_bytes());
        }
        let has = |wanted: &str| respond.headers.keys().any(|name| name.eq_ignore_ascii_case(wanted));
        let lacks = |wanted: &str| !has(wanted) && !edits.removes(wanted.as_bytes());
        if lacks("date") {
            field(&mut out, "Date", self.date.at(tick.wall));
        }
        if !respond.body.is_empty() && lacks("content-type") {
            field(&mut out, "Content-Type", b"text/plain; charset=utf-8");
        }
        if !matches!(respond.status, 204 | 304) {
            field(&mut out, "Content-Length", respond.body.len().to_string().as_bytes());
        }
        out.extend_from_slice(strict::told(exchange, &self.sessions[exchange.session]).unwrap_or_default());
        write_persistence(exchange, &mut out);
        write_added(exchange, &mut out);
        out.extend_from_slice(b"\r\n");
        let body_at = out.len();
        if !exchange.traits.is_head && !matches!(respond.status, 204 | 304) {
            out.extend_from_slice(respond.body.as_bytes());
        }
        self.write_own(tick, id, respond.status, (&out, body_at));
    }

    /// A request whose body isn't there yet would have to be read to its end: its connection ends instead.
    fn settle_persistence(&mut self, id: ExchangeId) {
        let exchange = &mut self.exchanges[id];
        exchange.traits.keeps &= exchange.request_ended;
    }

    fn write_own(&mut self, tick: &mut Tick<'_>, id: ExchangeId, status: u16, (bytes, body_at): (&[u8], usize)) {
        let exchange = &mut self.exchanges[id];
        exchange.status = status;
        exchange.own_bytes = (bytes.len() - body_at) as u64;
        let session = &mut self.sessions[exchange.session];
        let head = tick.out.put(bytes);
        debug_assert_ne!(session.stage, Stage::Closing, "nothing is said behind the end");
        session.write(tick, Gather { head, body: Span::EMPTY });
    }
}

/// Count a response by the class of its status.
pub(super) fn count_status(values: &mut crate::stats::Values<{ ListenerMetric::COUNT }>, status: u16) {
    let metric = match status {
        101 | 200..=299 => ListenerMetric::Responses2xx,
        300..=399 => ListenerMetric::Responses3xx,
        400..=499 => ListenerMetric::Responses4xx,
        500..=599 => ListenerMetric::Responses5xx,
        _ => return,
    };
    values[metric] += 1;
}

/// The fields of an error's body, the empty line and the body itself, which begins where this says.
fn write_body(
    out: &mut Vec<u8>,
    (status, request_id): (u16, &str),
    accepts: Accepts,
    bodies: &[&ErrorBodies],
) -> usize {
    let (media, made): (_, fn(&ErrorBodies) -> &Option<String>) = match accepts {
        Accepts::Text => ("text/plain; charset=utf-8", |bodies| &bodies.text),
        Accepts::Html => ("text/html; charset=utf-8", |bodies| &bodies.html),
        Accepts::Json => ("application/json", |bodies| &bodies.json),
    };
    let built_in = match accepts {
        Accepts::Text => "{status} {reason}\n",
        Accepts::Html => {
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{status} {reason}</title></head>\
             <body><h1>{status} {reason}</h1></body></html>\n"
        }
        Accepts::Json => "{\"status\":{status},\"title\":\"{reason}\"}\n",
    };
    let template = bodies.iter().find_map(|bodies| made(bodies).as_deref()).unwrap_or(built_in);
    let said = |piece| match piece {
        Piece::Text(text) => Cow::Borrowed(text),
        Piece::Place("status") => status.to_string().into(),
        Piece::Place("reason") => message::reason(status).into(),
        Piece::Place("request_id") => escape(request_id, accepts).into(),
        Piece::Place(other) => format!("{{{other}}}").into(),
    };
    let body: String = pieces(template).map(said).collect();
    field(out, "Content-Type", media.as_bytes());
    field(out, "Content-Length", body.len().to_string().as_bytes());
    field(out, "Cache-Control", b"no-store");
    out.extend_from_slice(b"\r\n");
    let at = out.len();
    out.extend_from_slice(body.as_bytes());
    at
}

/// An id that a trusted client chose, as far as it can't mean anything else where it is put.
fn escape(request_id: &str, accepts: Accepts) -> String {
    let plain = |c: &char| c.is_ascii_graphic() && (accepts == Accepts::Text || !"<>&\"'\\".contains(*c));
    request_id.chars().filter(plain).collect()
}

/// Where a route sends a client.
pub(super) fn write_location(
    (rule, redirect): (&Rule, &Redirect),
    (deciding, asked): (&Deciding<'_>, &str),
    out: &mut Vec<u8>,
) {
    let request = &deciding.head.request;
    let authority = Authority::parse(request.authority).ok();
    let same_origin = redirect.scheme.is_none() && redirect.host.is_none() && redirect.port.is_none();
    if !same_origin || authority.is_some() {
        let scheme = redirect.scheme.as_deref().unwrap_or(asked);
        let host =
            redirect.host.as_deref().or(authority.as_ref().map(|authority| &*authority.host)).unwrap_or_default();
        out.extend_from_slice(scheme.as_bytes());
        out.extend_from_slice(b"://");
        out.extend_from_slice(host.as_bytes());
        // Another scheme and another host have ports of their own.
        let is_same = scheme == asked && authority.as_ref().is_some_and(|asked| host.eq_ignore_ascii_case(&asked.host));
        let kept = if is_same { authority.as_ref().and_then(|asked| asked.port) } else { None };
        if let Some(port) = redirect.port.or(kept) {
            out.extend_from_slice(format!(":{port}").as_bytes());
        }
    }
    match &redirect.path {
        Some(template) => render_path((rule, &Template::new(template)), deciding.path, out),
        // That of all a host has (`OPTIONS *`), or none, stands behind no host.
        None if !request.path.starts_with('/') => out.push(b'/'),
        None => out.extend_from_slice(deciding.sent),
    }
    let query = redirect.query.as_deref().or(request.query).filter(|query| !query.is_empty());
    if let Some(query) = query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
}

impl Exchange {
    /// The error that stands for what went wrong with a backend.
    pub(super) fn fault_status(reason: CloseReason) -> u16 {
        match reason {
            CloseReason::NoBackend | CloseReason::QueueFull | CloseReason::QueueTimeout | CloseReason::Aborted => 503,
            CloseReason::ResponseTimeout | CloseReason::RequestTimeout => 504,
            _ => 502,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_as_the_client_likes_them_best() {
        let cases: [(&[u8], Accepts); 13] = [
            (b"*/*", Accepts::Text),
            (b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Accepts::Html),
            (b"application/json", Accepts::Json),
            (b"Application/JSON; charset=utf-8", Accepts::Json),
            (b"application/json, text/plain, */*", Accepts::Json),
            (b"application/json;q=0.1, text/html;q=0.2", Accepts::Html),
            (b"application/json;q=0, text/html;q=0.000", Accepts::Text),
            (b"text/html;level=1;q=0.5, application/problem+json;q=0.75", Accepts::Json),
            (b"*/*;q=0.5, text/html;q=0.4", Accepts::Text),
            (b"image/png", Accepts::Text),
            (b"text/html;q=1.000", Accepts::Html),
            (b"text/html;q=nonsense", Accepts::Text),
            (b"text/html;q=0.1234, application/json;q=0.x, text/html;q=", Accepts::Text),
        ];
        for (accept, ours) in cases {
            assert_eq!(Accepts::of([accept].into_iter()), ours, "{}", String::from_utf8_lossy(accept));
        }
        assert_eq!(Accepts::of([].into_iter()), Accepts::Text);
        let several = [&b"text/plain;q=0.1"[..], b"application/json, text/html;q=0.5"];
        assert_eq!(Accepts::of(several.into_iter()), Accepts::Json);
    }

    #[test]
    fn what_is_put_into_a_template_stays_text() {
        let bodies = ErrorBodies {
            text: Some("{status} {request_id}".into()),
            html: Some("<p title='{request_id}'>{status} {reason} {request_id}".into()),
            json: Some("{\"id\":\"{request_id}\"}".into()),
        };
        let evil = "a<script>&\"'\\\r\n\u{1}{status}é";
        let body = |accepts| {
            let mut out = Vec::new();
            let at = write_body(&mut out, (403, evil), accepts, &[&bodies]);
            String::from_utf8(out.split_off(at)).unwrap()
        };
        assert_eq!(body(Accepts::Html), "<p title='ascript{status}'>403 Forbidden ascript{status}");
        assert_eq!(body(Accepts::Json), "{\"id\":\"ascript{status}\"}");
        assert_eq!(body(Accepts::Text), "403 a<script>&\"'\\{status}");
        let bodies = ErrorBodies {
            json: Some("{\"a\":{\"b\":{status}},\"c\":\"{{status}}\"}".into()),
            ..ErrorBodies::default()
        };
        let mut out = Vec::new();
        let at = write_body(&mut out, (403, ""), Accepts::Json, &[&bodies]);
        assert_eq!(out[at..], *b"{\"a\":{\"b\":403},\"c\":\"{status}\"}");
    }
}
