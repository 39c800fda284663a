//! Heads as they go on: what is about one connection is taken out, what the route changes is changed, who the client is
//! is added. Fields that stay are copied as they came, in runs, in their order and case.

use std::io::Write;
use std::net::IpAddr;

use kakei_wire::http1::{Connection, ResponseHead, Version};
use kakei_wire::message::{
    DATE_LEN, Field, Fields, Known, Length, Request, Trace, is_of_forwarded, is_taken_for, reason, trace,
};

use super::Http;
use super::decide::Deciding;
use super::exchange::{Exchange, ExchangeId, Framing, RequestId};
use super::rule::{Edits, NO_EXTRAS, Rule, Template};
use super::session::Session;
use crate::world::World;

/// What a request says that came before its client's handshake was over.
pub(super) const EARLY_DATA: &[u8] = b"Early-Data: 1\r\n";

/// What a client said of clients before it, where it is believed.
#[derive(Default)]
struct Before<'a> {
    forwarded: Vec<&'a [u8]>,
    x_forwarded_for: Vec<&'a [u8]>,
    proto: Option<&'a [u8]>,
    host: Option<&'a [u8]>,
    port: Option<&'a [u8]>,
    request_id: Option<&'a [u8]>,
}

impl Http {
    /// Write a request's head as it goes to a backend.
    pub(super) fn write_request(
        &mut self,
        world: &mut World,
        id: ExchangeId,
        (rule, deciding): (&Rule, &Deciding<'_>),
        out: &mut Vec<u8>,
    ) {
        let exchange = &self.exchanges[id];
        let request = &deciding.head.request;
        let host = rule.extras().host.as_deref();
        let keeps_host = host.is_none() && !deciding.head.is_absolute;
        out.extend_from_slice(request.method.as_bytes());
        out.push(b' ');
        write_target(rule, deciding, out);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        // RFC 9112 3.2: a client of HTTP/1.0 may have named none, and then an empty one says so.
        if !keeps_host || request.fields.first(Known::Host).is_none() {
            field(out, "Host", host.unwrap_or(request.authority).as_bytes());
        }
        let knobs = &exchange.http.knobs;
        let by = ForwardedBy::of(exchange, &self.sessions[exchange.session]);
        let believed = by.is_believed;
        let is_proved = self.sessions[exchange.session].shown().is_some();
        let is_early = exchange.is_early;
        let edits = &rule.extras().request;
        let trace = trace(&request.fields);
        let further = further(request);
        // What may be taken for what the proxy says is no more said by a client than that.
        let may_say = |name: &[u8]| {
            let is_own = further.is_some() && is_taken_for(name, MAX_FORWARDS);
            let is_mistaken = Known::disguised(name).is_some() || exchange.http.may_mistake(rule, name);
            !is_mistaken && (believed || !is_of_forwarded(name)) && !is_own
        };
        copy_fields((&request.fields, edits), &deciding.head.connection, out, may_say, |known| match known {
            Known::Host => keeps_host,
            // What is added to is written anew; what nobody adds to goes on from those who are believed.
            Known::Forwarded => believed && !knobs.forwarded,
            Known::XForwardedFor | Known::XForwardedProto | Known::XForwardedHost | Known::XForwardedPort => {
                believed && !knobs.x_forwarded
            }
            Known::XRequestId => believed && !knobs.request_id,
            Known::ProxyAuthorization => false,
            // RFC 8470 5.1: it is never removed, and says one thing only.
            Known::EarlyData => !is_early,
            // One that can't be read is not passed on, nor what stands beside it: W3C Trace Context, alternative processing.
            Known::Traceparent | Known::Tracestate => trace != Trace::Wrong,
            // Who somebody is is only believed where nobody knows better.
            known if known.is_client_certificate() => believed && !is_proved,
            known => !known.is_hop_by_hop(),
        });
        self.introduce_client(world, id, (&by, edits, deciding), out);
        out.extend_from_slice(deciding.added);
        let exchange = &self.exchanges[id];
        rule.render(&edits.lines, deciding.path, out);
        if is_early {
            out.extend_from_slice(EARLY_DATA);
        }
        if exchange.request_framing == Framing::Chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        if let Some(further) = further.filter(|_| !edits.removes(MAX_FORWARDS)) {
            field(out, "Max-Forwards", further.saturating_sub(1).to_string().as_bytes());
        }
        if let Some(protocols) = &exchange.protocols {
            write_upgrade([&**protocols].into_iter(), out);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Who the client is, by what name it asked, and what the request is known by: but for what its route says otherwise.
    fn introduce_client(
        &mut self,
        world: &mut World,
        id: ExchangeId,
        (by, edits, deciding): (&ForwardedBy, &Edits, &Deciding<'_>),
        out: &mut Vec<u8>,
    ) {
        let exchange = &mut self.exchanges[id];
        let knobs = &exchange.http.knobs;
        let before = by.before(deciding);
        if knobs.x_forwarded {
            by.write_after(&before, (edits, deciding), out);
        }
        if knobs.forwarded && !edits.removes(b"forwarded") {
            list(out, "Forwarded", &before.forwarded);
            write_forwarded(out, by.client, (deciding.head.request.authority, by.scheme));
        }
        write_certificate(&self.sessions[exchange.session], edits, out);
        if knobs.request_id && !edits.removes(b"x-request-id") {
            let made = world.rng.u128(..);
            let given = before.request_id.map(|given| RequestId::Given(String::from_utf8_lossy(given).into_owned()));
            match before.request_id {
                Some(given) => field(out, "X-Request-Id", given),
                None => field(out, "X-Request-Id", &hexadecimal(made)),
            }
            exchange.request_id = Some(given.unwrap_or(RequestId::Made(made)));
        }
        if let Some(via) = knobs.via.as_ref().filter(|_| !edits.removes(b"via")) {
            let version = if exchange.traits.is_old { "1.0" } else { "1.1" };
            field(out, "Via", format!("{version} {via}").as_bytes());
        }
    }
}

/// Who the client is, and how it came.
pub(super) struct ForwardedBy {
    client: IpAddr,
    port: u16,
    scheme: &'static str,
    /// Whether it is believed what it says of clients before it.
    pub(super) is_believed: bool,
}

impl ForwardedBy {
    pub(super) fn of(exchange: &Exchange, session: &Session) -> Self {
        let client = session.arrived.client().ip().to_canonical();
        ForwardedBy {
            client,
            port: session.arrived.dialled().port(),
            scheme: if session.secured.is_some() { "https" } else { "http" },
            is_believed: exchange.http.knobs.trusted.iter().any(|network| network.contains(&client)),
        }
    }

    /// What it says of clients before it, where it is believed.
    fn before<'a>(&self, deciding: &Deciding<'a>) -> Before<'a> {
        match self.is_believed {
            true => Before::read(&deciding.head.request.fields),
            false => Before::default(),
        }
    }

    /// The fields that tell who the client is, by what name it asked, and how it came.
    pub(super) fn write(&self, deciding: &Deciding<'_>, out: &mut Vec<u8>) {
        self.write_after(&self.before(deciding), (&NO_EXTRAS.request, deciding), out);
    }

    fn write_after(&self, before: &Before<'_>, (edits, deciding): (&Edits, &Deciding<'_>), out: &mut Vec<u8>) {
        let authority = deciding.head.request.authority;
        if !edits.removes(b"x-forwarded-for") {
            list(out, "X-Forwarded-For", &before.x_forwarded_for);
            put_address(out, self.client);
            out.extend_from_slice(b"\r\n");
        }
        if !edits.removes(b"x-forwarded-proto") {
            field(out, "X-Forwarded-Proto", before.proto.unwrap_or(self.scheme.as_bytes()));
        }
        let host = before.host.or((!authority.is_empty()).then_some(authority.as_bytes()));
        if let Some(host) = host.filter(|_| !edits.removes(b"x-forwarded-host")) {
            field(out, "X-Forwarded-Host", host);
        }
        if !edits.removes(b"x-forwarded-port") {
            out.extend_from_slice(b"X-Forwarded-Port: ");
            match before.port {
                Some(port) => out.extend_from_slice(port),
                None => put_number(out, self.port),
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

impl<'a> Before<'a> {
    fn read(fields: &Fields<'a>) -> Self {
        let all = |known| fields.known(known).filter(|value| !value.is_empty()).collect();
        let one = |known| fields.first(known).filter(|value| !value.is_empty());
        Before {
            forwarded: all(Known::Forwarded),
            x_forwarded_for: all(Known::XForwardedFor),
            proto: one(Known::XForwardedProto),
            host: one(Known::XForwardedHost),
            port: one(Known::XForwardedPort),
            request_id: one(Known::XRequestId),
        }
    }
}

/// Whose certificate the client showed, but for what is edited.
pub(super) fn write_certificate(session: &Session, edits: &Edits, out: &mut Vec<u8>) {
    let Some(shown) = session.shown() else { return };
    let parts = [
        ("X-Client-Cert-Subject", &shown.subject),
        ("X-Client-Cert-San", &shown.names),
        ("X-Client-Cert-Fingerprint", &shown.fingerprint),
    ];
    let goes = |(name, value): &(&str, &String)| !value.is_empty() && !edits.removes(name.as_bytes());
    for (name, value) in parts.into_iter().filter(goes) {
        field(out, name, value.as_bytes());
    }
}

/// What a request goes on to ask for.
pub(super) fn write_target(rule: &Rule, deciding: &Deciding<'_>, out: &mut Vec<u8>) {
    let request = &deciding.head.request;
    match &rule.extras().path {
        _ if request.method == "CONNECT" => return out.extend_from_slice(request.authority.as_bytes()),
        Some(template) if request.path.starts_with('/') => render_path((rule, template), deciding.path, out),
        _ => out.extend_from_slice(deciding.sent),
    }
    if let Some(query) = request.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
}

const MAX_FORWARDS: &[u8] = b"max-forwards";

/// How often the request may go on, where its client asks how far it gets (RFC 9110 7.6.2).
pub(super) fn further(request: &Request<'_>) -> Option<u32> {
    if !matches!(request.method, "OPTIONS" | "TRACE") {
        return None;
    }
    let says = str::from_utf8(request.fields.named(MAX_FORWARDS).next()?).ok()?;
    says.parse().ok().filter(|_| says.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The path that a route makes of one.
pub(super) fn render_path((rule, template): (&Rule, &Template), path: &[u8], out: &mut Vec<u8>) {
    let begin = out.len();
    rule.render(template, path, out);
    // What a template makes of a path without a rest may be nothing.
    if out.get(begin) != Some(&b'/') {
        out.insert(begin, b'/');
    }
}

/// A response's head as it goes to the client.
pub(super) fn write_response(
    exchange: &Exchange,
    head: &ResponseHead<'_>,
    (date, extra, strict): (&[u8; DATE_LEN], &[u8], Option<&[u8]>),
    out: &mut Vec<u8>,
) {
    let response = &head.response;
    status_line(response.status, response.reason, out);
    let edits = &exchange.extras().response;
    // RFC 9110 9.3.6: what follows is a tunnel's.
    let opens = exchange.traits.is_connect && (200..300).contains(&response.status);
    let has_length = !opens && !matches!(response.status, 100..=199 | 204);
    let strict = strict.filter(|_| response.status == 101 || response.status >= 200);
    copy_fields(
        (&response.fields, edits),
        &head.connection,
        out,
        |_| true,
        |known| match known {
            Known::ContentLength => has_length,
            Known::StrictTransportSecurity => strict.is_none(),
            known => !known.is_hop_by_hop(),
        },
    );
    write_added(exchange, out);
    out.extend_from_slice(extra);
    out.extend_from_slice(strict.unwrap_or_default());
    // RFC 9110 6.6.1: who passes a response on that has no date says when it came.
    if response.status >= 200 && response.fields.first(Known::Date).is_none() && !edits.removes(b"date") {
        field(out, "Date", date);
    }
    if let Some(via) = exchange.http.knobs.via.as_ref().filter(|_| !edits.removes(b"via")) {
        let version = if head.version == Version::Http10 { "1.0" } else { "1.1" };
        field(out, "Via", format!("{version} {via}").as_bytes());
    }
    if response.length == Length::Unknown && exchange.response_framing == Framing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if response.status == 101 {
        write_upgrade(response.fields.known(Known::Upgrade), out);
    } else if response.status >= 200 {
        write_persistence(exchange, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// What the connection is to become.
fn write_upgrade<'a>(protocols: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Connection: Upgrade\r\n");
    for protocol in protocols {
        field(out, "Upgrade", protocol);
    }
}

/// The fields that a request's route adds to its response.
pub(super) fn write_added(exchange: &Exchange, out: &mut Vec<u8>) {
    if let Some(rule) = &exchange.rule {
        rule.render(&rule.extras().response.lines, exchange.path.as_deref().unwrap_or_default(), out);
    }
}

/// Whether the client's connection goes on, where that isn't what its version means anyway.
pub(super) fn write_persistence(exchange: &Exchange, out: &mut Vec<u8>) {
    match (exchange.traits.keeps, exchange.traits.is_old) {
        (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
        (true, true) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (true, false) => {}
    }
}

/// The first line of a response.
pub(super) fn status_line(status: u16, text: &str, out: &mut Vec<u8>) {
    let text = if text.is_empty() { reason(status) } else { text };
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&[b'0' + (status / 100) as u8, b'0' + (status / 10 % 10) as u8, b'0' + (status % 10) as u8]);
    out.push(b' ');
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// One field's line.
#[inline]
pub(super) fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The begin of a list's line: what it has already.
#[inline]
fn list(out: &mut Vec<u8>, name: &str, before: &[&[u8]]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    for value in before {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
}

/// The last element of `Forwarded` (RFC 7239 4), and the line's end.
fn write_forwarded(out: &mut Vec<u8>, client: IpAddr, (authority, scheme): (&str, &str)) {
    match client {
        IpAddr::V4(_) => {
            out.extend_from_slice(b"for=");
            put_address(out, client);
        }
        IpAddr::V6(_) => {
            out.extend_from_slice(b"for=\"[");
            put_address(out, client);
            out.extend_from_slice(b"]\"");
        }
    }
    if !authority.is_empty() {
        // A host with a colon is no token.
        out.extend_from_slice(b";host=\"");
        out.extend_from_slice(authority.as_bytes());
        out.push(b'"');
    }
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(scheme.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// An address in its one spelling; IPv4, which nearly all are, without what formatting costs.
fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            // A dot stands before each, the first too.
            let (mut text, mut at) = ([b'.'; 16], 16);
            for octet in v4.octets().into_iter().rev() {
                at = write_number(octet.into(), &mut text, at) - 1;
            }
            out.extend_from_slice(&text[at + 1..]);
        }
        IpAddr::V6(v6) => {
            // Writing to memory doesn't fail.
            let _ = write!(out, "{v6}");
        }
    }
}

/// A number in decimal digits.
fn put_number(out: &mut Vec<u8>, number: u16) {
    let mut digits = [0; 5];
    let at = write_number(number, &mut digits, 5);
    out.extend_from_slice(&digits[at..]);
}

/// Write a number's decimal digits in front of a place: where they begin.
fn write_number(mut number: u16, text: &mut [u8], mut at: usize) -> usize {
    loop {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return at;
        }
    }
}

/// A number in 32 hexadecimal digits.
fn hexadecimal(number: u128) -> [u8; 32] {
    let bytes = number.to_be_bytes();
    std::array::from_fn(|at| {
        let digit = bytes[at / 2] >> (4 * (1 - at % 2)) & 15;
        b"0123456789abcdef"[usize::from(digit)]
    })
}

/// Copy the fields that stay, by their name or by which one they are: neighbours in one piece.
fn copy_fields(
    (fields, edits): (&Fields<'_>, &Edits),
    connection: &Connection,
    out: &mut Vec<u8>,
    may_stay: impl Fn(&[u8]) -> bool,
    stays: impl Fn(Known) -> bool,
) {
    let edited = !edits.is_empty();
    let of_connection = connection.others(fields);
    let mut run: Option<(&Field, &Field)> = None;
    for field in fields.iter() {
        let stays = match field.known {
            Some(known) => stays(known),
            None => !of_connection.has(fields.name(field)) && may_stay(fields.name(field)),
        };
        if stays && !(edited && edits.removes(fields.name(field))) {
            run = Some((run.map_or(field, |(first, _)| first), field));
        } else if let Some((first, last)) = run.take() {
            out.extend_from_slice(fields.lines(first, last));
        }
    }
    if let Some((first, last)) = run {
        out.extend_from_slice(fields.lines(first, last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_addresses_are_written_as_they_are_read() {
        for number in [0, 7, 10, 255, 8080, 65_535] {
            let mut out = Vec::new();
            put_number(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
        for text in ["0.0.0.0", "192.0.2.10", "255.255.255.255", "::", "2001:db8::1"] {
            let mut out = Vec::new();
            put_address(&mut out, text.parse().expect("an address"));
            assert_eq!(out, text.as_bytes());
        }
        for number in [0, 1, 0x0123_4567_89ab_cdef, u128::MAX] {
            assert_eq!(hexadecimal(number), *format!("{number:032x}").as_bytes());
        }
    }
}
