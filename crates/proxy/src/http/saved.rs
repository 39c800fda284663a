//! HTTP written down and read back: clients' connections, the requests under way on them, backends' connections, rates.
//! A request ends as it began: with its listener's contract and its route, which are the generation's own where that still
//! has them, and are written down besides where it doesn't. Where a head has ended is found anew: what came of it is
//! there. Changes nothing of what it writes down.

use std::sync::Arc;

use kakei_wire::http1::Scan;
use slotmap::Key;

use super::Http;
use super::exchange::{Exchange, ExchangeId, Phase};
use super::rule::Rule;
use super::session::{Session, SessionId, Stage};
use super::state::{ExchangeState, HttpState, IdleState, RuleState, SessionState, UpstreamState};
use super::upstream::{Upstream, UpstreamId};
use crate::arrival::{self, Arrived};
use crate::change::Drains;
use crate::cluster::{BackendKey, ClusterKey};
use crate::restore::Reading;
use crate::save::{Once, Table, raw, save_contract};
use crate::seam::{Instant, SocketId};
use crate::snapshot::{HttpListener, Snapshot};
use crate::state::{HttpContractState, RestoreError};
use crate::stats::ListenerMetric;
use crate::world::{Socket, World};

/// What requests began with, while they are written down.
struct Writing<'a> {
    now: Instant,
    table: &'a mut Table,
    contracts: Once<HttpListener>,
    /// Of which listener each contract is.
    names: Vec<kakei_config::Name>,
    rules: Once<Rule>,
}

/// The same while they are read back.
struct Contracts {
    listeners: Vec<Arc<HttpListener>>,
    rules: Vec<Arc<Rule>>,
}

impl Http {
    /// Everything that speaks HTTP, written down, but for clients whose streams aren't plain.
    pub(crate) fn save(
        &self,
        world: &World,
        now: Instant,
        table: &mut Table,
        is_plain: impl Fn(SocketId) -> bool,
    ) -> HttpState {
        let (contracts, names, rules) = (Once::default(), Vec::new(), Once::default());
        let mut writing = Writing { now, table, contracts, names, rules };
        let waits = |id: &ExchangeId| self.exchanges.get(*id).is_some_and(|exchange| exchange.phase == Phase::Queued);
        let waiting = self.queues.order().filter(waits).map(|id| self.exchanges[id].session);
        let others = self.sessions.iter().filter(|(_, session)| !session.exchange.as_ref().is_some_and(waits));
        let upstream = |id: &SessionId| {
            let exchange = self.exchanges.get(self.sessions[*id].exchange?)?;
            self.upstreams.get(exchange.upstream?).map(|upstream| upstream.socket)
        };
        let all_plain = |id: &SessionId| is_plain(self.sessions[*id].socket) && upstream(id).is_none_or(&is_plain);
        let all = waiting.chain(others.map(|(id, _)| id)).filter(all_plain);
        let sessions = all.map(|id| self.save_session(world, &mut writing, id));
        let sessions = sessions.collect();
        let idle = self.save_idle(world, &mut writing, &is_plain);
        let contracts = writing.contracts.all.iter().map(|contract| save_contract(contract));
        let rules = writing.rules.all.iter().map(|rule| RuleState {
            route: rule.route.clone(),
            spec: kakei_config::Route::clone(&rule.spec),
            is_timed: rule.is_timed,
        });
        HttpState {
            contracts: writing.names.into_iter().zip(contracts).collect(),
            rules: rules.collect(),
            sessions,
            idle,
            rates: self.rates.save(now),
            next_job: self.credentials.next(),
        }
    }

    fn save_session(&self, world: &World, writing: &mut Writing<'_>, id: SessionId) -> SessionState {
        let now = writing.now;
        let session = &self.sessions[id];
        let arrived = &session.arrived;
        let name = &world.listeners[arrived.listener].spec.name;
        SessionState {
            socket: raw(session.socket),
            listener: writing.table.listener(arrived.listener),
            peer: arrived.peer,
            local: arrived.local,
            believed: arrived.believed.as_deref().copied(),
            counted: arrived.counted,
            age: now - arrived.at,
            since: now - session.since,
            moved: now - session.moved,
            stage: session.stage,
            input: session.input.clone(),
            body: session.body.clone(),
            rest: session.rest.clone(),
            credit: session.credit,
            requests: session.requests,
            drains: session.drains.state(now),
            exchange: session.exchange.map(|id| Box::new(self.save_exchange(writing, id, name))),
        }
    }

    fn save_exchange(&self, writing: &mut Writing<'_>, id: ExchangeId, listener: &kakei_config::Name) -> ExchangeState {
        let now = writing.now;
        let exchange = &self.exchanges[id];
        let contract = writing.contracts.index_of(&exchange.http);
        if contract == writing.names.len() {
            writing.names.push(listener.clone());
        }
        let table = &mut *writing.table;
        let cluster = exchange.cluster;
        let index = |backend: &BackendKey| table.known_backend(cluster?, *backend);
        let (tried, sticky) =
            (exchange.tried.iter().filter_map(index).collect(), exchange.sticky.as_ref().and_then(index));
        ExchangeState {
            contract,
            rule: exchange.rule.as_ref().map(|rule| writing.rules.index_of(rule)),
            path: exchange.path.as_deref().map(<[u8]>::to_vec),
            cluster: cluster.map(|cluster| table.cluster(cluster)),
            backend: exchange.place().map(|(cluster, backend)| table.backend(cluster, backend).1),
            knobs: exchange.tcp.as_ref().map(|knobs| table.connection_knobs(knobs)),
            phase: exchange.phase,
            since: now - exchange.since,
            age: now - exchange.began,
            moved: now - exchange.moved,
            traits: exchange.traits,
            protocols: exchange.protocols.as_deref().map(<[u8]>::to_vec),
            guard: exchange.guard.as_ref().map(|held| (held.0.clone(), held.1 - now)),
            request_ended: exchange.request_ended,
            framing: [exchange.request_framing, exchange.response_framing],
            kept: exchange.kept.clone(),
            is_whole: exchange.is_whole,
            status: exchange.status,
            tried,
            tries: exchange.tries,
            failed: exchange.failed,
            revived: exchange.revived,
            interim: exchange.interim,
            sticky,
            accepts: exchange.accepts,
            affinity: exchange.affinity,
            bytes: [exchange.request_bytes, exchange.response_bytes],
            own_bytes: exchange.own_bytes,
            lapse: exchange.lapse,
            request_id: exchange.request_id.clone(),
            retry_after: exchange.retry_after,
            permits: exchange.permits.clone(),
            detail: exchange.detail.clone(),
            upstream: exchange.upstream.map(|upstream| save_upstream(now, &self.upstreams[upstream])),
        }
    }

    /// Backends' connections that wait for a request.
    fn save_idle(
        &self,
        world: &World,
        writing: &mut Writing<'_>,
        is_plain: impl Fn(SocketId) -> bool,
    ) -> Vec<IdleState> {
        let mut all = Vec::new();
        for (key, cluster) in &world.clusters {
            for (backend, live) in &cluster.backends {
                for socket in live.idle.iter().filter(|socket| is_plain(**socket)) {
                    let Some(&Socket::Upstream(id)) = world.sockets.get(*socket) else { continue };
                    let (cluster, backend) = writing.table.backend(key, backend);
                    all.push(IdleState { cluster, backend, upstream: save_upstream(writing.now, &self.upstreams[id]) });
                }
            }
        }
        all
    }

    /// Put everything back, and go on with what was under way.
    pub(crate) fn restore(&mut self, mut reading: Reading<'_>, state: HttpState) -> Result<(), RestoreError> {
        let contracts = Contracts::restore(reading.snapshot, state.contracts, state.rules);
        self.rates.restore(reading.now, state.rates);
        self.credentials.go_on(state.next_job);
        for session in state.sessions {
            self.restore_session(&mut reading, &contracts, session)?;
        }
        for IdleState { cluster, backend, upstream } in state.idle {
            let place = reading.known.backend(cluster, backend)?;
            let id = self.restore_upstream(&mut reading, (place, None), upstream)?;
            let socket = self.upstreams[id].socket;
            reading.world.clusters[place.0].backends[place.1].idle.push(socket);
            self.arm_upstream(reading.world, id);
        }
        let goes_on = |session: &Session| match session.stage {
            Stage::Idle => !session.rest.is_blocked(),
            // It was put off to the next step.
            Stage::Head => !session.credit,
            _ => false,
        };
        let behind = self.sessions.iter().filter(|(_, session)| goes_on(session) && !session.input.is_empty());
        self.resume = behind.map(|(id, _)| id).collect();
        self.arm_sessions(reading.world);
        self.queues.stir();
        Ok(())
    }

    fn restore_session(
        &mut self,
        reading: &mut Reading<'_>,
        contracts: &Contracts,
        state: SessionState,
    ) -> Result<(), RestoreError> {
        let now = reading.now;
        let arrived = Arrived {
            at: now.before(state.age),
            listener: reading.known.listener(state.listener)?,
            peer: state.peer,
            local: state.local,
            believed: state.believed.map(Box::new),
            counted: state.counted,
        };
        let waits = matches!(state.stage, Stage::Body | Stage::Waiting);
        if waits != state.exchange.is_some() || !state.body.is_sound() {
            return Err(RestoreError::Damaged("a client's connection lacks what its stage needs"));
        }
        arrival::count_again(reading.world, arrived.listener, arrived.counted, arrived.client().ip());
        let id = self.sessions.insert(Session {
            socket: SocketId::null(),
            arrived,
            secured: None,
            is_early: false,
            stage: state.stage,
            since: now.before(state.since),
            moved: now.before(state.moved),
            input: state.input,
            scan: Scan::default(),
            body: state.body,
            rest: state.rest,
            written: None,
            credit: state.credit,
            exchange: None,
            requests: state.requests,
            drains: Drains::restore(state.drains, now),
            timer: None,
            moves_deadline: false,
        });
        self.sessions[id].socket = reading.known.adopt(reading.world, state.socket, Socket::Session(id));
        if let Some(exchange) = state.exchange {
            self.restore_exchange(reading, contracts, id, *exchange)?;
        }
        self.arm_session(id);
        Ok(())
    }

    fn restore_exchange(
        &mut self,
        reading: &mut Reading<'_>,
        contracts: &Contracts,
        session: SessionId,
        mut state: ExchangeState,
    ) -> Result<(), RestoreError> {
        let upstream = state.upstream.take();
        let exchange = read_exchange(reading, contracts, session, state)?;
        let place = exchange.place();
        let is_sound = match exchange.phase {
            Phase::Deciding => false,
            Phase::Guarded => exchange.is_held() && exchange.rule.is_some() && exchange.backend.is_none(),
            Phase::Queued => exchange.goal.is_some() && exchange.tcp.is_some() && exchange.backend.is_none(),
            Phase::Connecting | Phase::Sent | Phase::Responding => place.is_some() && exchange.tcp.is_some(),
        };
        let is_waited_for = self.sessions[session].stage == Stage::Waiting;
        let lacks_path = exchange.path.is_none()
            && exchange.rule.as_ref().is_some_and(|rule| rule.extras().response.lines.has_places());
        if !is_sound || lacks_path || upstream.is_some() != place.is_some() || exchange.request_ended != is_waited_for {
            return Err(RestoreError::Damaged("a request lacks what its phase needs"));
        }
        self.rates.hold(&exchange.permits);
        let (phase, cluster) = (exchange.phase, exchange.cluster);
        let values = &mut reading.world.listeners[self.sessions[session].arrived.listener].values;
        values[ListenerMetric::RequestsLive] += 1;
        values[ListenerMetric::RequestsQueued] += u64::from(phase == Phase::Queued);
        let id = self.exchanges.insert(exchange);
        self.sessions[session].exchange = Some(id);
        if phase == Phase::Guarded {
            self.anew.push(id);
        }
        if let (Phase::Queued, Some(cluster)) = (phase, cluster) {
            self.queues.join(cluster, id);
        }
        if let (Some(place), Some(upstream)) = (place, upstream) {
            reading.world.clusters[place.0].backends[place.1].take_request_again();
            let upstream = self.restore_upstream(reading, (place, Some(id)), upstream)?;
            self.exchanges[id].upstream = Some(upstream);
        }
        Ok(())
    }

    fn restore_upstream(
        &mut self,
        reading: &mut Reading<'_>,
        (place, exchange): ((ClusterKey, BackendKey), Option<ExchangeId>),
        state: UpstreamState,
    ) -> Result<UpstreamId, RestoreError> {
        if !state.body.is_sound() {
            return Err(RestoreError::Damaged("a backend's response is not where it can be"));
        }
        let now = reading.now;
        let id = self.upstreams.insert(Upstream {
            socket: SocketId::null(),
            place,
            exchange,
            opened: now.before(state.age),
            since: now.before(state.since),
            requests: state.requests,
            reading: state.reading,
            input: state.input,
            scan: Scan::default(),
            body: state.body,
            rest: state.rest,
            credit: state.credit,
            keeps: state.keeps,
            is_private: state.is_private,
            timer: None,
        });
        self.upstreams[id].socket = reading.known.adopt(reading.world, state.socket, Socket::Upstream(id));
        reading.world.clusters[place.0].backends[place.1].upstreams += 1;
        Ok(id)
    }
}

impl Contracts {
    /// The generation's own, as far as it has them.
    fn restore(
        snapshot: &Snapshot,
        contracts: Vec<(kakei_config::Name, HttpContractState)>,
        rules: Vec<RuleState>,
    ) -> Self {
        let part = |name: &kakei_config::Name| snapshot.listener(name)?.http.as_ref();
        let listeners = contracts.into_iter().map(|(name, state)| match part(&name) {
            Some(http) if http.knobs == state.knobs => Arc::clone(http),
            _ => Arc::new(HttpListener::remnant(state)),
        });
        let rules = rules.into_iter().map(|RuleState { route, spec, is_timed }| {
            let own = route.as_ref().and_then(|name| part(&spec.listener)?.table.rule(name));
            match own.filter(|own| *own.spec == spec) {
                Some(own) => Arc::clone(own),
                None => Arc::new(Rule::compile(route.as_ref(), spec).timed(is_timed)),
            }
        });
        Contracts { listeners: listeners.collect(), rules: rules.collect() }
    }

    fn listener(&self, at: usize) -> Result<Arc<HttpListener>, RestoreError> {
        self.listeners.get(at).cloned().ok_or(RestoreError::Damaged("a listener's contract is missing"))
    }

    fn rule(&self, at: usize) -> Result<Arc<Rule>, RestoreError> {
        self.rules.get(at).cloned().ok_or(RestoreError::Damaged("a route is missing"))
    }
}

/// An exchange without its place in the worker.
fn read_exchange(
    reading: &Reading<'_>,
    contracts: &Contracts,
    session: SessionId,
    state: ExchangeState,
) -> Result<Exchange, RestoreError> {
    let (known, now) = (&*reading.known, reading.now);
    let cluster = state.cluster.map(|at| known.cluster(at)).transpose()?;
    let backend = |at: usize| known.backend(state.cluster.unwrap_or(usize::MAX), at).map(|(_, backend)| backend);
    let rule = state.rule.map(|at| contracts.rule(at)).transpose()?;
    // Who is held goes nowhere but to the service that says who the client is; its refusal may be on its way to the client.
    let is_held = state.guard.is_some();
    let goal = |cluster: ClusterKey| {
        let name = &reading.world.clusters[cluster].spec.name;
        let goal = rule.as_ref().and_then(|rule| rule.goal(name, is_held));
        goal.ok_or(RestoreError::Damaged("a request goes where its route doesn't lead"))
    };
    let [request_framing, response_framing] = state.framing;
    let [request_bytes, response_bytes] = state.bytes;
    let tried: Vec<BackendKey> = state.tried.into_iter().map(backend).collect::<Result<_, _>>()?;
    Ok(Exchange {
        session,
        upstream: None,
        http: contracts.listener(state.contract)?,
        goal: cluster.map(goal).transpose()?,
        rule,
        path: state.path.map(Vec::into_boxed_slice),
        cluster,
        backend: state.backend.map(backend).transpose()?,
        tcp: state.knobs.map(|at| known.connection_knobs(at)).transpose()?,
        phase: state.phase,
        since: now.before(state.since),
        began: now.before(state.age),
        moved: now.before(state.moved),
        traits: state.traits,
        protocols: state.protocols.map(Vec::into_boxed_slice),
        guard: state.guard.map(|(guard, left)| Box::new((guard, now + left))),
        request_ended: state.request_ended,
        request_framing,
        response_framing,
        kept: state.kept,
        is_whole: state.is_whole,
        status: state.status,
        left: tried.last().copied(),
        tried,
        tries: state.tries,
        failed: state.failed,
        // What is under TLS is left out.
        is_early: false,
        revived: state.revived,
        interim: state.interim,
        sticky: state.sticky.map(backend).transpose()?,
        accepts: state.accepts,
        affinity: state.affinity,
        request_bytes,
        response_bytes,
        own_bytes: state.own_bytes,
        lapse: state.lapse,
        request_id: state.request_id,
        retry_after: state.retry_after,
        permits: state.permits,
        detail: state.detail,
    })
}

fn save_upstream(now: Instant, upstream: &Upstream) -> UpstreamState {
    UpstreamState {
        socket: raw(upstream.socket),
        age: now - upstream.opened,
        since: now - upstream.since,
        requests: upstream.requests,
        reading: upstream.reading,
        input: upstream.input.clone(),
        body: upstream.body.clone(),
        rest: upstream.rest.clone(),
        credit: upstream.credit,
        keeps: upstream.keeps,
        is_private: upstream.is_private,
    }
}
