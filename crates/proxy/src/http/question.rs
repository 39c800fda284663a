//! A service that is asked whether a request may pass: over the connections to its cluster, as if the request were the
//! question (its queue, tries and deadlines are those of any request). 2xx lets the request pass, with the fields of
//! the answer that its route names; every other answer goes to the client.

use kakei_config::Name;
use kakei_wire::http1::{Body, ResponseHead};
use kakei_wire::message::{Field, Known, Length, is_of_forwarded, is_taken_for};

use super::Http;
use super::decide::{Deciding, Refused};
use super::exchange::{ExchangeId, Framing, Phase};
use super::guard::{Asking, UNAVAILABLE};
use super::rewrite::{EARLY_DATA, ForwardedBy, field, write_certificate};
use super::rule::{Goal, NO_EXTRAS, Rule};
use super::upstream::{Reading, UpstreamId};
use crate::limits::PASSED_OVER;
use crate::world::{Tick, World};

/// Fields that ask for a part of something, or for it under a condition: the question asks for something else.
const CONDITIONS: [&str; 6] =
    ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range", "range"];
/// Fields by which a service hears what it is asked about: nobody but the proxy says these.
const ABOUT: [&[u8]; 2] = [b"x-forwarded-method", b"x-forwarded-uri"];

impl Http {
    /// Ask it.
    pub(super) fn ask(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: ExchangeId,
        (service, deciding): (&Name, &Deciding<'_>),
    ) -> Result<(), Refused> {
        let cluster = *world.cluster_names.get(service).ok_or(UNAVAILABLE)?;
        let mut question = self.buffer();
        self.write_question(id, deciding, &mut question);
        self.exchanges[id].kept = question;
        self.aim(world, id, (cluster, Goal::Service));
        self.place(world, tick, id);
        Ok(())
    }

    fn write_question(&self, id: ExchangeId, deciding: &Deciding<'_>, out: &mut Vec<u8>) {
        let exchange = &self.exchanges[id];
        let Some(rule) = &exchange.rule else { return };
        let Some(forward) = &rule.spec.auth.forward else { return };
        let request = &deciding.head.request;
        let by = ForwardedBy::of(exchange, &self.sessions[exchange.session]);
        out.extend_from_slice(format!("GET {} HTTP/1.1\r\n", forward.path).as_bytes());
        field(out, "Host", request.authority.as_bytes());
        field(out, "X-Forwarded-Method", request.method.as_bytes());
        out.extend_from_slice(b"X-Forwarded-Uri: ");
        out.extend_from_slice(if request.path.is_empty() { request.authority.as_bytes() } else { deciding.sent });
        if let Some(query) = request.query {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        by.write(deciding, out);
        let session = &self.sessions[exchange.session];
        write_certificate(session, &NO_EXTRAS.request, out);
        if exchange.is_early {
            out.extend_from_slice(EARLY_DATA);
        }
        let is_proved = session.shown().is_some();
        let fields = &request.fields;
        let of_connection = deciding.head.connection.others(fields);
        let goes = |field: &&Field| {
            let name = fields.name(field);
            let is_one_of = |names: &[&str]| names.iter().any(|one| name.eq_ignore_ascii_case(one.as_bytes()));
            let is_wanted = forward.headers.is_empty()
                || forward.headers.iter().any(|one| name.eq_ignore_ascii_case(one.as_bytes()));
            let may_go = match field.known {
                Some(Known::Host | Known::ContentLength | Known::Expect | Known::ProxyAuthorization) => false,
                Some(Known::EarlyData) => !exchange.is_early,
                Some(Known::Forwarded | Known::XRequestId) => by.is_believed,
                Some(Known::XForwardedFor | Known::XForwardedProto | Known::XForwardedHost | Known::XForwardedPort) => {
                    false
                }
                Some(known) if known.is_client_certificate() => by.is_believed && !is_proved,
                Some(known) => !known.is_hop_by_hop(),
                None if Known::disguised(name).is_some() => false,
                None if is_of_forwarded(name) => by.is_believed && !ABOUT.iter().any(|one| is_taken_for(name, one)),
                None if exchange.http.may_mistake(rule, name) => false,
                None => !is_one_of(&CONDITIONS) && !of_connection.has(name),
            };
            is_wanted && may_go
        };
        for field in fields.iter().filter(goes) {
            out.extend_from_slice(fields.lines(field, field));
        }
        out.extend_from_slice(b"\r\n");
    }

    /// A service's answer begins; whether it lets the request pass, or is one that goes to the client.
    pub(super) fn hears_yes(&mut self, tick: &Tick<'_>, id: ExchangeId, head: &ResponseHead<'_>) -> bool {
        let exchange = &mut self.exchanges[id];
        exchange.note_checked(tick.now);
        let (Some(held), Some(rule)) = (&mut exchange.guard, &exchange.rule) else { return false };
        if !(200..300).contains(&head.response.status) {
            held.0.asking = Asking::Refused;
            return false;
        }
        held.0.asking = Asking::Allowed;
        held.0.lines = copied(rule, head);
        let user = rule.spec.auth.forward.as_ref().and_then(|forward| forward.user.as_ref());
        let user = user.and_then(|name| head.response.fields.named(name.as_bytes()).next());
        if let (Some(detail), Some(user)) = (&mut exchange.detail, user) {
            detail.user = Some(String::from_utf8_lossy(user).into_owned());
        }
        exchange.moved = tick.now;
        true
    }

    /// The body of an answer that lets the request pass is read to its end, so that its connection can be used again.
    pub(super) fn begin_passing_over(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        (upstream, id): (UpstreamId, ExchangeId),
        (head, is_last): (&ResponseHead<'_>, bool),
    ) {
        self.begin_body(upstream, head);
        if head.response.length == Length::None {
            self.end_question(world, tick, id, is_last);
        }
    }

    /// What follows a response's head.
    pub(super) fn begin_body(&mut self, upstream: UpstreamId, head: &ResponseHead<'_>) {
        let connection = &mut self.upstreams[upstream];
        connection.keeps = head.keeps();
        connection.body = Body::new(head.response.length, head.until_close);
        connection.reading = Reading::Body;
    }

    /// A part of that body. One that is too long is not read to its end.
    pub(super) fn pass_over(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId, len: usize) {
        let Some(held) = &mut self.exchanges[id].guard else { return };
        held.0.passed_over += len as u64;
        if held.0.passed_over > PASSED_OVER {
            self.end_question(world, tick, id, false);
        }
    }

    /// The request passes. What is known of the question is no more of it.
    pub(super) fn end_question(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId, is_clean: bool) {
        if let Some(upstream) = self.exchanges[id].upstream.take() {
            self.upstreams[upstream].body = Body::default();
            self.give_up_upstream(world, tick, upstream, is_clean);
        }
        self.leave_backend(world, id);
        let exchange = &mut self.exchanges[id];
        exchange.enter(Phase::Deciding, tick.now);
        (exchange.cluster, exchange.goal, exchange.tcp) = (None, None, None);
        (exchange.tries, exchange.interim, exchange.revived) = (0, 0, false);
        exchange.tried.clear();
        exchange.left = None;
        exchange.is_whole = true;
        (exchange.lapse.connect, exchange.lapse.queued) = (None, None);
        if let Some(detail) = &mut exchange.detail {
            (detail.attempts, detail.reused) = (0, false);
        }
        let kept = std::mem::take(&mut exchange.kept);
        self.recycle(kept);
        self.let_pass(world, tick, id);
    }

    /// The client asked for a head and gets no more of the answer to the question, which was no HEAD.
    pub(super) fn cut_answer(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId) {
        self.exchanges[id].response_framing = Framing::Plain;
        self.end_response(world, tick, id, false);
    }
}

/// The fields of an answer that go into the request: those that its route names, but for what it sets or takes out.
fn copied(rule: &Rule, head: &ResponseHead<'_>) -> Vec<u8> {
    let Some(forward) = &rule.spec.auth.forward else { return Vec::new() };
    let (fields, edits) = (&head.response.fields, &rule.spec.request);
    let of_connection = head.connection.others(fields);
    let is = |name: &[u8], one: &String| name.eq_ignore_ascii_case(one.as_bytes());
    let mut lines = Vec::new();
    for field in fields.iter() {
        let name = fields.name(field);
        let is_named = forward.copy.iter().any(|one| is(name, one));
        let is_edited = edits.remove.iter().chain(edits.set.keys()).any(|one| is(name, one));
        if is_named && !is_edited && !of_connection.has(name) {
            lines.extend_from_slice(fields.lines(field, field));
        }
    }
    lines
}
