//! Who may pass a route that asks who the client is: by a password, which the machine computes with; by the word of a
//! service (`question`). And what came too early to pass: it waits for the end of its client's TLS handshake. The request
//! waits meanwhile: its head is kept as it came, and of its body no more than what was read with it; what becomes of it is
//! decided when it may pass, by the route that it began with.

use std::sync::Arc;
use std::time::Duration;

use kakei_wire::http1::RequestHead;
use kakei_wire::message::{Basic, Known as Field};

use super::Http;
use super::credentials::Known;
use super::decide::{Deciding, Path, Refused};
use super::exchange::{Exchange, ExchangeId, Phase};
use super::receive::limits;
use super::rule::Rule;
use super::session::Stage;
use crate::limits::VERIFY_FOR;
use crate::record::CloseReason;
use crate::seam::{Instant, Job, Verdict};
use crate::world::{Tick, World};

/// Not a user's password, or none at all.
const UNAUTHORIZED: Refused = (401, CloseReason::Unauthorized);
/// Who could not be checked does not pass.
const BUSY: Refused = (503, CloseReason::AuthBusy);
pub(super) const UNAVAILABLE: Refused = (503, CloseReason::AuthUnavailable);

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Asking {
    /// The end of its client's TLS handshake.
    Handshake,
    /// Whether its password is right.
    Password,
    /// The answer of a service.
    Service,
    /// The end of that answer, which lets it pass.
    Allowed,
    /// Nothing: the service's answer goes to the client, and the request nowhere.
    Refused,
}

/// A request that may not pass yet.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Guard {
    /// Its head, as it came.
    pub(super) head: Vec<u8>,
    pub(super) asking: Asking,
    /// Fields of the service's answer that go into it, as lines.
    pub(super) lines: Vec<u8>,
    /// Bytes of that answer's body, which nobody reads.
    pub(super) passed_over: u64,
    /// How long it had been there when it was first asked who its client is.
    #[serde(default)]
    pub(super) after: Duration,
}

impl Exchange {
    /// Whether it is a question to a service, for now.
    pub(super) fn is_question(&self) -> bool {
        let asking = self.guard.as_ref().map(|held| held.0.asking);
        matches!(asking, Some(Asking::Service | Asking::Allowed))
    }

    /// Whether it may not pass, or not yet.
    pub(super) fn is_held(&self) -> bool {
        self.guard.is_some()
    }

    /// By when it must be known whether it may pass.
    pub(super) fn known_by(&self) -> Option<Instant> {
        let held = self.guard.as_ref()?;
        (held.0.asking != Asking::Refused).then_some(held.1)
    }

    /// Note how long it has not been known whether it may pass. Once that is known, nothing is added.
    pub(super) fn note_checked(&mut self, now: Instant) {
        if let Some((guard, _)) = self.guard.as_deref()
            && matches!(guard.asking, Asking::Password | Asking::Service)
        {
            self.lapse.checked = Some((now - self.began).saturating_sub(guard.after));
        }
    }

    /// Why it is over, where that is by a whole answer.
    pub(super) fn completion(&self) -> CloseReason {
        match self.guard {
            None => CloseReason::Completed,
            Some(_) if self.status >= 500 => CloseReason::AuthUnavailable,
            Some(_) => CloseReason::Unauthorized,
        }
    }

    /// What is wrong with a service is not what is wrong with the backend.
    pub(super) fn told_of(&self, refused: Refused) -> Refused {
        if self.is_question() && is_fault_of_backend(refused.1) { UNAVAILABLE } else { refused }
    }
}

/// Whether a request ends so because of the cluster that it was sent to.
fn is_fault_of_backend(reason: CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::NoBackend
            | CloseReason::QueueFull
            | CloseReason::QueueTimeout
            | CloseReason::ConnectFailed
            | CloseReason::BackendTls
            | CloseReason::BackendTruncated
            | CloseReason::BackendReset
            | CloseReason::ResponseTimeout
            | CloseReason::BadResponse
            | CloseReason::Aborted
    )
}

impl Http {
    /// Find out who the client is; at once where that is known. Then the request goes on.
    pub(super) fn guard(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: ExchangeId,
        (rule, deciding): (&Arc<Rule>, &Deciding<'_>),
    ) -> Result<(), Refused> {
        if let Some(users) = &rule.extras().users {
            let mut given = deciding.head.request.fields.known(Field::Authorization);
            let (Some(value), None) = (given.next(), given.next()) else { return Err(UNAUTHORIZED) };
            let basic = Basic::parse(value).ok_or(UNAUTHORIZED)?;
            let secrets = (&mut world.rng, world.hash);
            match self.credentials.check(secrets, tick, (users, basic), id) {
                Known::Right => {}
                Known::Wrong => return Err(UNAUTHORIZED),
                Known::Busy => return Err(BUSY),
                Known::Asked => {
                    self.hold(tick, id, (deciding.head, Asking::Password, tick.now + VERIFY_FOR));
                    return Ok(());
                }
            }
        }
        self.ask_or_act(world, tick, id, (rule, deciding))
    }

    /// The password is right, or there is none: a service is asked, or the request passes.
    fn ask_or_act(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: ExchangeId,
        (rule, deciding): (&Arc<Rule>, &Deciding<'_>),
    ) -> Result<(), Refused> {
        if let (Some(_), Some(detail)) = (&rule.extras().users, &mut self.exchanges[id].detail) {
            let given = deciding.head.request.fields.first(Field::Authorization);
            detail.user = given.and_then(Basic::parse).map(|basic| basic.user);
        }
        match (&rule.spec.auth.forward, &rule.extras().service) {
            (Some(forward), Some(service)) => {
                self.hold(tick, id, (deciding.head, Asking::Service, tick.now + forward.timeout));
                self.ask(world, tick, id, (service, deciding))
            }
            _ => {
                let exchange = &mut self.exchanges[id];
                exchange.note_checked(tick.now);
                exchange.guard = None;
                self.act(world, tick, id, (rule, deciding))
            }
        }
    }

    /// The request doesn't pass before it is known whether it may. No more than what is here is taken of its body
    /// meanwhile.
    pub(super) fn hold(
        &mut self,
        tick: &mut Tick<'_>,
        id: ExchangeId,
        (head, asking, until): (&RequestHead<'_>, Asking, Instant),
    ) {
        let mut kept = self.buffer();
        kept.extend_from_slice(head.request.fields.head());
        let exchange = &mut self.exchanges[id];
        let after = match exchange.guard.as_deref() {
            Some((guard, _)) if guard.asking != Asking::Handshake => guard.after,
            _ => tick.now - exchange.began,
        };
        let guard = Guard { head: kept, asking, lines: Vec::new(), passed_over: 0, after };
        exchange.guard = Some(Box::new((guard, until)));
        exchange.enter(Phase::Guarded, tick.now);
        let session = exchange.session;
        if !exchange.request_ended {
            self.sessions[session].set_credit(tick, false);
        }
        self.arm_session(session);
    }

    /// Nobody said in time whether the request may pass.
    pub(super) fn expire_guard(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId) {
        let exchange = &self.exchanges[id];
        let place = exchange.place().filter(|_| exchange.phase == Phase::Sent);
        self.failures.extend(place);
        let refused = if exchange.is_question() { UNAVAILABLE } else { BUSY };
        self.refuse(world, tick, id, refused);
    }

    /// The machine found out whether a password is right.
    pub(crate) fn handle_verified(&mut self, world: &mut World, tick: &mut Tick<'_>, (job, verdict): (Job, Verdict)) {
        let Some((waiting, verdict)) = self.credentials.answer(tick.now, (job, verdict)) else {
            world.values[crate::stats::WorkerMetric::StaleEvents] += 1;
            return;
        };
        for id in waiting {
            // It may be gone.
            if self.exchanges.get(id).is_none_or(|exchange| exchange.phase != Phase::Guarded) {
                continue;
            }
            match verdict {
                Verdict::Right => self.reconsider(world, tick, id, Http::ask_or_act),
                Verdict::Wrong => self.refuse(world, tick, id, UNAUTHORIZED),
                Verdict::Undone => self.refuse(world, tick, id, BUSY),
            }
        }
    }

    /// The client's handshake is over: a request that waited for that goes on.
    pub(super) fn let_go_on(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId) {
        let exchange = &mut self.exchanges[id];
        if exchange.guard.as_ref().is_some_and(|held| held.0.asking == Asking::Handshake) {
            self.reconsider(world, tick, id, |http, world, tick, id, (rule, deciding)| {
                let exchange = &mut http.exchanges[id];
                exchange.guard = None;
                exchange.enter(Phase::Deciding, tick.now);
                if !exchange.request_ended {
                    // No more was taken of its body meanwhile.
                    let session = exchange.session;
                    http.sessions[session].set_credit(tick, true);
                }
                http.go_on(world, tick, id, (rule, deciding))
            });
        }
    }

    /// The service lets the request pass, and its answer is over.
    pub(super) fn let_pass(&mut self, world: &mut World, tick: &mut Tick<'_>, id: ExchangeId) {
        self.reconsider(world, tick, id, |http, world, tick, id, (rule, deciding)| {
            http.exchanges[id].guard = None;
            http.act(world, tick, id, (rule, deciding))
        });
    }

    /// Those that waited for a password when their worker was written down ask anew.
    pub(super) fn ask_anew(&mut self, world: &mut World, tick: &mut Tick<'_>) {
        for id in std::mem::take(&mut self.anew) {
            if self.exchanges.get(id).is_some_and(|exchange| exchange.phase == Phase::Guarded) {
                self.reconsider(world, tick, id, Http::guard);
            }
        }
    }

    /// Look at a request again that waited.
    fn reconsider(
        &mut self,
        world: &mut World,
        tick: &mut Tick<'_>,
        id: ExchangeId,
        then: impl FnOnce(
            &mut Http,
            &mut World,
            &mut Tick<'_>,
            ExchangeId,
            (&Arc<Rule>, &Deciding<'_>),
        ) -> Result<(), Refused>,
    ) {
        let exchange = &mut self.exchanges[id];
        let session = exchange.session;
        let (Some(held), Some(rule)) = (exchange.guard.as_mut(), exchange.rule.clone()) else { return };
        let (head, added) = (std::mem::take(&mut held.0.head), std::mem::take(&mut held.0.lines));
        let limits = limits(&exchange.http);
        let ambiguous = exchange.http.knobs.ambiguous_paths;
        let mut heads = std::mem::take(&mut self.heads);
        let done = match heads.request(&head, &limits) {
            Ok(read) => match Path::of(&read, ambiguous) {
                Ok(path) => {
                    let (path, sent) = (&path.normal, &path.sent);
                    let deciding = Deciding { head: &read, host: &read.host, path, sent, added: &added };
                    then(self, world, tick, id, (&rule, &deciding))
                }
                Err(refused) => Err(refused),
            },
            // It was read before, under the same limits.
            Err(_) => Err((400, CloseReason::BadRequest)),
        };
        self.heads = heads;
        self.recycle(head);
        if let Err(refused) = done {
            self.refuse(world, tick, id, refused);
        }
        // What came of its body goes on with it.
        if self.sessions.get(session).is_some_and(|session| session.stage == Stage::Body && !session.input.is_empty()) {
            self.resume.push(session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::retry::Fault;

    #[test]
    fn whatever_fails_at_a_service_nobody_could_be_asked() {
        let faults = [Fault::Connect, Fault::Secure, Fault::Lack, Fault::Reset, Fault::Timeout, Fault::Malformed];
        let cut = [CloseReason::BackendTls, CloseReason::BackendTruncated].map(Fault::Cut);
        for fault in faults.into_iter().chain(cut) {
            assert!(is_fault_of_backend(fault.reason()), "{fault:?}");
        }
        for own in [CloseReason::ClientGone, CloseReason::BadRequest, CloseReason::Unauthorized] {
            assert!(!is_fault_of_backend(own), "{own:?}");
        }
    }
}
