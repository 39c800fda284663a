//! What becomes of a request: its route, who may pass, how many, and then its route's action. In that order; none of it
//! waits for anything, but where a route asks who the client is.

use std::borrow::Cow;
use std::sync::Arc;

use kakei_config::{AmbiguousPaths, ClientCertificateMode, Respond};
use kakei_wire::http1::{Body, RequestHead, Version};
use kakei_wire::message::{self, Known, Length, Trace};

use super::Http;
use super::answer::Accepts;
use super::exchange::{Exchange, ExchangeId, Framing, Traits};
use super::guard::Asking;
use super::rate;
use super::rewrite::further;
use super::rule::{Action, Goal, Rule};
use super::session::{SessionId, Stage};
use super::table::Wanted;
use super::upgrade;
use crate::balance;
use crate::cluster::ClusterKey;
use crate::record::{CloseReason, ExchangeDetail};
use crate::seam::Instant;
use crate::seen::Noted;
use crate::snapshot::HttpListener;
use crate::stats::ListenerMetric;
use crate::world::{Tick, World};

/// Why a request isn't passed on.
pub(super) type Refused = (u16, CloseReason);

/// A request as it is looked at while it is decided about.
pub(super) struct Deciding<'a> {
    pub(super) head: &'a RequestHead<'a>,
    pub(super) host: &'a str,
    /// Normalised.
    pub(super) path: &'a [u8],
    /// The path that goes on where no route says otherwise.
    pub(super) sent: &'a [u8],
    /// Fields that go into it, as lines: what a service says of its client.
    pub(super) added: &'a [u8],
}

impl Http {
    /// A request's head is there.
    pub(super) fn begin(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: SessionId,
        (http, head): (Arc<HttpListener>, &RequestHead<'_>),
    ) {
        let session = &mut self.sessions[id];
        session.requests += 1;
        let request = &head.request;
        let most = http.knobs.keep_alive_requests;
        let asks = match head.version {
            Version::Http11 => !head.connection.close,
            Version::Http10 => head.connection.keep_alive && !head.connection.close,
        };
        // What stands behind a CONNECT that is refused was meant for the other end of the tunnel: it is no request.
        let is_connect = request.method == "CONNECT";
        let keeps = asks && !is_connect && (most == 0 || session.requests < most) && session.drains.is_empty();
        let traits = Traits {
            is_head: request.method == "HEAD",
            is_connect,
            is_idempotent: message::is_idempotent(request.method),
            is_last: !asks && !is_connect,
            is_old: head.version == Version::Http10,
            expects: head.expects_continue,
            keeps,
        };
        let values = &mut world.listeners[session.arrived.listener].values;
        values[ListenerMetric::Requests] += 1;
        values[ListenerMetric::RequestsLive] += 1;
        let key = self.exchanges.insert(Exchange::new(id, http, tick.now, traits));
        let exchange = &mut self.exchanges[key];
        exchange.accepts = Accepts::of(request.fields.known(Known::Accept));
        if request.length == Length::Unknown {
            exchange.request_framing = Framing::Chunked;
        }
        if world.records {
            let tls = session.secured.as_ref().map(|secured| Arc::clone(&secured.detail));
            exchange.detail = Some(Box::new(ExchangeDetail { tls, ..detail(head) }));
        }
        session.body = Body::new(request.length, false);
        exchange.request_ended = session.body == Body::Ended;
        session.stage = if exchange.request_ended { Stage::Waiting } else { Stage::Body };
        session.since = tick.now;
        session.exchange = Some(key);
        if let Err(refused) = self.decide(world, tick, key, head) {
            self.refuse(world, tick, key, refused);
        }
    }

    fn decide(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: ExchangeId,
        head: &RequestHead<'_>,
    ) -> Result<(), Refused> {
        let request = &head.request;
        let exchange = &self.exchanges[id];
        let most = exchange.http.knobs.max_body;
        if let Length::Sized(len) = request.length
            && most > 0
            && len > most
        {
            return Err((413, CloseReason::TooLarge));
        }
        let path = Path::of(head, exchange.http.knobs.ambiguous_paths)?;
        if !self.is_directed(exchange.session, &head.host) {
            return Err((421, CloseReason::Misdirected));
        }
        let deciding = Deciding { head, host: &head.host, path: &path.normal, sent: &path.sent, added: &[] };
        let client = self.sessions[exchange.session].arrived.client().ip();
        let wanted = Wanted {
            client,
            host: deciding.host,
            path: deciding.path,
            method: request.method,
            fields: request.fields,
            query: request.query,
        };
        let session = &self.sessions[exchange.session];
        let from = (session.arrived.listener, session.arrived.client(), session.arrived.dialled());
        let noted = Noted {
            table: &exchange.http.table,
            wanted: &wanted,
            authority: request.authority,
            path: request.path,
            has_certificate: session.shown().is_some(),
        };
        world.seen.note_request(tick.now, from, &noted);
        let rule = exchange.http.table.find(&wanted).or(exchange.http.default.as_ref()).cloned();
        let rule = rule.ok_or((404, CloseReason::NoRoute))?;
        let exchange = &mut self.exchanges[id];
        exchange.rule = Some(Arc::clone(&rule));
        exchange.path = rule.extras().response.lines.has_places().then(|| Box::from(&*path.normal));
        if self.comes_too_early(world, tick, id, (&rule, head)) {
            return Ok(());
        }
        self.go_on(world, tick, id, (&rule, &deciding))
    }

    /// Whether the request waits for the end of its client's handshake: before that somebody else may have sent it, again.
    /// One that goes on says so (RFC 8470, section 5.1).
    fn comes_too_early(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: ExchangeId,
        (rule, head): (&Rule, &RequestHead<'_>),
    ) -> bool {
        let exchange = &mut self.exchanges[id];
        let session = &self.sessions[exchange.session];
        if !session.is_early {
            return false;
        }
        let values = &mut world.listeners[session.arrived.listener].values;
        let may_go = rule.takes_early(head.request.method) && exchange.request_ended && !head.connection.upgrade;
        if !may_go {
            values[ListenerMetric::RequestsEarlyHeld] += 1;
            self.hold(tick, id, (head, Asking::Handshake, Instant::FAR));
            return true;
        }
        values[ListenerMetric::RequestsEarly] += 1;
        exchange.is_early = true;
        if let Some(detail) = &mut exchange.detail {
            detail.early = true;
        }
        false
    }

    /// Its route is known: whether it passes that, and who the client is, and then what the route does.
    pub(super) fn go_on(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: ExchangeId,
        (rule, deciding): (&Arc<Rule>, &Deciding<'_>),
    ) -> Result<(), Refused> {
        self.pass(world, tick, id, (rule, deciding))?;
        match rule.is_guarded() {
            true => self.guard(world, tick, id, (rule, deciding)),
            false => self.act(world, tick, id, (rule, deciding)),
        }
    }

    /// Whether the request may pass its route.
    fn pass(
        &mut self,
        world: &World,
        tick: &mut Tick<'_>,
        id: ExchangeId,
        (rule, deciding): (&Rule, &Deciding<'_>),
    ) -> Result<(), Refused> {
        if !rule.is_open {
            self.admit(id, rule)?;
        }
        let exchange = &mut self.exchanges[id];
        if exchange.traits.is_connect && !rule.spec.connect {
            return Err((405, CloseReason::NotAllowed));
        }
        exchange.protocols = if rule.may_upgrade { upgrade::protocols(deciding.head) } else { None };
        if !rule.is_open && !rule.spec.rate_limits.is_empty() {
            let client = self.sessions[exchange.session].arrived.client().ip();
            let whose = (rule, client, exchange.http.workers);
            if rate::is_ambiguous(rule, &deciding.head.request.fields) {
                return Err((400, CloseReason::BadRequest));
            }
            let permits = self.rates.admit(world.hash, tick.now, whose, &deciding.head.request.fields);
            match permits {
                Ok(permits) => self.exchanges[id].permits = permits,
                Err(after) => {
                    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
                    self.exchanges[id].retry_after = Some(seconds.clamp(1, u32::MAX.into()) as u32);
                    return Err((429, CloseReason::RateLimited));
                }
            }
        }
        Ok(())
    }

    /// Whether the client may pass the route, whatever it asks for.
    fn admit(&self, id: ExchangeId, rule: &Rule) -> Result<(), Refused> {
        let session = &self.sessions[self.exchanges[id].session];
        if !rule.admits(session.arrived.client().ip()) {
            return Err((403, CloseReason::Denied));
        }
        let insists = rule.spec.client_certificates == Some(ClientCertificateMode::Required);
        if insists && session.shown().is_none() {
            return Err((403, CloseReason::ClientCertificate));
        }
        Ok(())
    }

    pub(super) fn act(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: ExchangeId,
        (rule, deciding): (&Arc<Rule>, &Deciding<'_>),
    ) -> Result<(), Refused> {
        match &rule.action {
            Action::Forward(_) => self.prepare(world, tick, id, (rule, 0, deciding)),
            Action::Split(split) => {
                let whole: u32 = split.iter().map(|(_, weight)| weight).sum();
                let mut at = if whole == 0 { 0 } else { world.rng.u32(..whole) };
                let chosen = split.iter().position(|(_, weight)| match at.checked_sub(*weight) {
                    Some(left) => {
                        at = left;
                        false
                    }
                    None => true,
                });
                let chosen = chosen.ok_or((503, CloseReason::NoBackend))?;
                self.prepare(world, tick, id, (rule, chosen, deciding))
            }
            Action::Redirect(_) if rule.lacks_host(deciding.host) => Err((400, CloseReason::BadRequest)),
            Action::Redirect(redirect) => {
                self.redirect(tick, id, (rule, redirect), deciding);
                self.conclude(world, tick, id, CloseReason::Answered);
                Ok(())
            }
            Action::Respond(respond) => {
                self.respond(tick, id, respond);
                self.conclude(world, tick, id, CloseReason::Answered);
                Ok(())
            }
        }
    }

    /// The request goes to that cluster of its route: write down what will be sent, then find out to whom.
    fn prepare(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: ExchangeId,
        (rule, led, deciding): (&Rule, usize, &Deciding<'_>),
    ) -> Result<(), Refused> {
        match (further(&deciding.head.request), deciding.head.request.method) {
            (Some(0), "TRACE") => return Err((405, CloseReason::NotAllowed)),
            (Some(0), _) => {
                self.respond(tick, id, &Respond { status: 204, ..Respond::default() });
                self.conclude(world, tick, id, CloseReason::Answered);
                return Ok(());
            }
            _ => {}
        }
        if rule.climbs(deciding.path) {
            return Err((400, CloseReason::BadRequest));
        }
        let goal = Goal::Led(led);
        let cluster = rule.cluster(goal).and_then(|name| world.cluster_names.get(name));
        let cluster = *cluster.ok_or((503, CloseReason::NoBackend))?;
        let mut kept = self.buffer();
        self.write_request(world, id, (rule, deciding), &mut kept);
        let exchange = &mut self.exchanges[id];
        exchange.sit(&world.clusters[cluster], &deciding.head.request.fields, &mut kept);
        exchange.kept = kept;
        self.aim(world, id, (cluster, goal));
        self.place(world, tick, id);
        Ok(())
    }

    /// Where it goes, and what it is held to there.
    pub(super) fn aim(&mut self, world: &mut World, id: ExchangeId, (cluster, goal): (ClusterKey, Goal)) {
        let exchange = &mut self.exchanges[id];
        let session = &self.sessions[exchange.session];
        let live = &mut world.clusters[cluster];
        exchange.cluster = Some(cluster);
        exchange.goal = Some(goal);
        exchange.affinity =
            balance::source_affinity(world.balance_seed, live.spec.tcp.affinity, session.arrived.client());
        exchange.tcp = Some(Arc::clone(&live.spec.tcp));
        if let Some(rule) = &exchange.rule {
            live.retries.earn(rule.extras().retry_budget);
        }
    }
}

/// A request's path.
pub(super) struct Path<'a> {
    /// By which it is routed. A tunnel has none; what is asked of the whole server is asked of all that lies below its root.
    pub(super) normal: Cow<'a, [u8]>,
    /// That goes on.
    pub(super) sent: Cow<'a, [u8]>,
}

impl<'a> Path<'a> {
    pub(super) fn of(head: &RequestHead<'a>, ambiguous: AmbiguousPaths) -> Result<Self, Refused> {
        let bad = (400, CloseReason::BadRequest);
        let path = head.request.path;
        let sent = Cow::Borrowed(path.as_bytes());
        let normal = match path {
            "" => Cow::Borrowed(&b""[..]),
            "*" => Cow::Borrowed(&b"/"[..]),
            path => message::normalise_path(path).map_err(|_| bad)?,
        };
        let is_plain = matches!(normal, Cow::Borrowed(_)) && !path.contains(';');
        if is_plain || ambiguous == AmbiguousPaths::Pass || !message::is_ambiguous_path(path) {
            return Ok(Path { normal, sent });
        }
        let mut written = Vec::with_capacity(normal.len());
        message::encode_path(&normal, &mut written);
        let settled = std::str::from_utf8(&written).is_ok_and(|written| !message::is_ambiguous_path(written));
        if ambiguous == AmbiguousPaths::Refuse || !settled {
            return Err(bad);
        }
        Ok(Path { normal, sent: Cow::Owned(written) })
    }
}

/// What the access log says of a request.
fn detail(head: &RequestHead<'_>) -> ExchangeDetail {
    let request = &head.request;
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let named = |name: &str| request.fields.named(name.as_bytes()).next().map(text);
    let mut target = if request.method == "CONNECT" { request.authority } else { request.path }.to_owned();
    if let Some(query) = request.query {
        target.push('?');
        target.push_str(query);
    }
    ExchangeDetail {
        method: request.method.to_owned(),
        host: request.authority.to_owned(),
        target,
        version: if head.version == Version::Http10 { "HTTP/1.0".into() } else { "HTTP/1.1".into() },
        user_agent: named("user-agent"),
        referer: named("referer"),
        trace_id: match message::trace(&request.fields) {
            Trace::Of(id) => Some(id.to_owned()),
            Trace::None | Trace::Wrong => None,
        },
        ..ExchangeDetail::default()
    }
}
