//! Client datagrams: what a worker is given of them and what it sends to backends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use kakei_config::{Balance, Cluster, Name, OnBackend, SendProxyProtocol};
use kakei_proxy::seam::{BindKey, Instant};

use super::flows::{Flow, Key, Pair};
use super::ledger::{Located, Receipt};
use super::stats::ListenerAccount;
use super::terms::{Terms, Verdict, verdict};
use super::{Truth, Untold};
use crate::machine::{Given, Outgoing};
use crate::payload::{self, Identity};

/// How long a flow may wait for its socket, in nanoseconds.
const LONGEST_WAIT: u64 = 2_000_000;

/// What follows the proxy's header.
fn rest_of(wire: &[u8]) -> &[u8] {
    match payload::headed(wire) {
        payload::Headed::Good(header) => &wire[header.len..],
        _ => wire,
    }
}

impl Truth {
    /// A worker is given a client's datagram.
    pub(super) fn received(&mut self, worker: u16, bind: BindKey, given: &Given) {
        self.counters.requests_received += 1;
        let bind = self.heir(worker, &bind, given).unwrap_or(bind);
        let Some((owner, said)) = self.owner_and_verdict(worker, &bind, given) else { return };
        let (client, said_dialled) = match said {
            Verdict::Good { client, said_dialled } => (client, said_dialled),
            refused => {
                let account = self.account(worker, &owner, true);
                account.truncated += u64::from(refused == Verdict::Truncated);
                account.bad_header += u64::from(refused == Verdict::BadHeader);
                return;
            }
        };
        let dialled = said_dialled.unwrap_or(given.local);
        let key = Key { bind: bind.address, peer: given.peer, local: given.local, client, dialled };
        let flow = self.flows.current(worker, &key);
        let listener = flow.map_or(&owner, |at| &self.flows.all[at].listener).clone();
        let at = self.current_generation(worker);
        let bound = at.is_some_and(|at| self.generations[at].listener_of(&bind).is_some());
        self.account(worker, &listener, bound && listener == owner);
        let state = self.flows.keys.entry((worker, key.clone())).or_default();
        if flow.is_none() {
            state.waiting.push(self.now);
        }
        state.seen.insert(self.now);
        if let Some(flow) = flow {
            self.flows.all[flow].last_front = self.now;
        }
        let id = match given.bytes.is_empty() {
            true => self.ledger.empty(given.peer, given.local),
            false => match self.ledger.locate(&given.bytes) {
                Some(located) => located.id,
                None => return,
            },
        };
        self.sequence += 1;
        let receipt = Receipt {
            worker,
            at: self.now,
            sequence: self.sequence,
            key,
            listener: owner,
            stripped: said_dialled.is_some(),
        };
        let receipts = &mut self.ledger.requests[id as usize].receipts;
        // What waited longer was superseded or dropped.
        let long_ago = Instant::from_nanos(self.now.as_nanos().saturating_sub(LONGEST_WAIT));
        receipts.retain(|old| old.at >= long_ago);
        receipts.push_back(receipt.clone());
        if given.bytes.is_empty() {
            let state = self.flows.keys.entry((worker, receipt.key)).or_default();
            state.empties.retain(|(at, _, _)| *at >= long_ago);
            state.sends_empty = true;
            state.empties.push_back((self.now, self.sequence, id));
        }
        if let Some(flow) = flow.filter(|_| !given.bytes.is_empty()) {
            self.workers[usize::from(worker)].must_forward.push((id, flow));
        }
    }

    /// The wildcard bind beside one that drains: its listener takes whoever has no flow at that one.
    fn heir(&mut self, worker: u16, bind: &BindKey, given: &Given) -> Option<BindKey> {
        let generation = &self.generations[self.current_generation(worker)?];
        let ip = if bind.address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let wildcard = BindKey { address: SocketAddr::new(ip, bind.address.port()), ..*bind };
        if generation.listener_of(bind).is_some() || generation.listener_of(&wildcard).is_none() {
            return None;
        }
        let key = self.key_at(worker, bind, given);
        let state = key.as_ref().and_then(|key| self.flows.keys.get(&(worker, key.clone())));
        if state.is_some_and(|state| state.fuzzy)
            && let Some(other) = self.key_at(worker, &wildcard, given)
        {
            self.blur(worker, &other);
        }
        let is_known = key.is_some_and(|key| self.flows.current(worker, &key).is_some());
        (!is_known).then_some(wildcard)
    }

    /// What a datagram's flow is known by at that bind.
    fn key_at(&self, worker: u16, bind: &BindKey, given: &Given) -> Option<Key> {
        let (_, Verdict::Good { client, said_dialled }) = self.owner_and_verdict(worker, bind, given)? else {
            return None;
        };
        let dialled = said_dialled.unwrap_or(given.local);
        Some(Key { bind: bind.address, peer: given.peer, local: given.local, client, dialled })
    }

    /// One more datagram for this listener's account.
    fn account(&mut self, worker: u16, listener: &Name, certain: bool) -> &mut ListenerAccount {
        let account = self.accounts.entry((worker, listener.clone())).or_default();
        account.received += 1;
        account.uncertain |= !certain || self.workers[usize::from(worker)].changing;
        account
    }

    /// Counts of this key's flows can't be told from outside any more.
    fn blur(&mut self, worker: u16, key: &Key) {
        let state = self.flows.keys.entry((worker, key.clone())).or_default();
        state.fuzzy = true;
        for &at in &state.flows {
            self.flows.all[at].fuzzy = true;
        }
    }

    fn owner_and_verdict(&self, worker: u16, bind: &BindKey, given: &Given) -> Option<(Name, Verdict)> {
        let at = self.current_generation(worker);
        let owner = self.workers[usize::from(worker)].owners.get(bind);
        let newest = at.and_then(|at| self.generations[at].listener_of(bind));
        // A listener that was removed goes on as it was last configured.
        let past = || {
            let name = owner?;
            let history = self.workers[usize::from(worker)].generations.iter().rev();
            let known = history.filter_map(|(_, at)| self.generations[*at].document.listeners.get_key_value(name));
            known.into_iter().find(|(_, listener)| listener.bind.contains(&bind.address))
        };
        let (name, listener) = newest.or_else(past)?;
        Some((name.clone(), verdict(listener, given.peer, &given.bytes)))
    }

    /// A worker sent a datagram to a backend, or failed to.
    pub(super) fn forwarded(&mut self, worker: u16, out: &Outgoing, done: bool) {
        if self.ledger.is_probe(&out.bytes) {
            self.counters.probes += u64::from(done);
            if !done {
                self.workers[usize::from(worker)].untold.push_back(Untold::Other);
            }
            return;
        }
        let pair = (out.from, out.to);
        let Some(located) = self.ledger.locate(&out.bytes).or_else(|| self.locate_empty(worker, out)) else {
            self.workers[usize::from(worker)].untold.extend((!done).then_some(Untold::Other));
            // Which empty datagram it is can't be told: it may be one that is sent again to another backend.
            if rest_of(&out.bytes).is_empty() {
                return;
            }
            let what = format!("{} bytes that no client sent went to {}", out.bytes.len(), out.to);
            return self.violated(Some(worker), what);
        };
        let mut located = located;
        self.counters.requests_forwarded += u64::from(done);
        let Some(receipt) = self.take_receipt(worker, located.id) else {
            return self.forwarded_again(worker, &located, pair, done);
        };
        if receipt.stripped
            && located.header.is_none()
            && let payload::Headed::Good(header) = payload::headed(&out.bytes)
        {
            // The proxy's header is the same as the client's, byte for byte.
            located.bytes -= header.len;
            located.header = Some(header);
        }
        if !located.intact {
            self.violated(Some(worker), format!("request {} was changed on its way to {}", located.id, out.to));
        }
        if let Some(account) = self.accounts.get_mut(&(worker, receipt.listener.clone())) {
            account.forwarded += u64::from(done);
            account.failed += u64::from(!done);
        }
        // A flow whose promise can't be told for sure may take more than it seems to.
        let takes = |flow: &Flow| flow.key == receipt.key && (flow.fuzzy || !flow.is_spent());
        let owner = self.flows.pairs.get(&pair).copied().filter(|&at| takes(&self.flows.all[at]));
        let current = self.flows.current(worker, &receipt.key);
        let known = owner.or_else(|| current.filter(|&at| !self.ended_unseen(at, pair)));
        let Some(flow) = known.or_else(|| self.open_flow(worker, &receipt, pair)) else { return };
        if self.flows.all[flow].pair != pair {
            self.moved(worker, flow, pair);
        }
        self.ledger.requests[located.id as usize].flow = Some(flow);
        self.check_header(worker, flow, &located);
        self.count_forward(worker, flow, (&located, receipt.sequence), done);
    }

    /// The receipt that a forward is of: where the network doubled a request, an older copy may have been superseded.
    fn take_receipt(&mut self, worker: u16, id: u64) -> Option<Receipt> {
        let receipts = &self.ledger.requests[id as usize].receipts;
        let first = receipts.iter().find(|receipt| receipt.worker == worker)?;
        let last = self.flows.current(worker, &first.key).map_or(0, |at| self.flows.all[at].last_sequence);
        let fits = |receipt: &Receipt| receipt.worker == worker && receipt.sequence > last;
        let at = receipts.iter().position(fits).or_else(|| receipts.iter().position(|r| r.worker == worker))?;
        let request = &mut self.ledger.requests[id as usize];
        request.receipts.remove(at)
    }

    /// More often than it was received: only a flow that found its backend unreachable may try another one.
    fn forwarded_again(&mut self, worker: u16, located: &Located, pair: Pair, done: bool) {
        let retries = |flow: &Flow| flow.closed.is_none() && flow.terms.knobs().retry_on_unreachable;
        let flow = self.ledger.requests[located.id as usize].flow.filter(|&at| retries(&self.flows.all[at]));
        match flow {
            Some(at) => {
                self.flows.all[at].fuzzy = true;
                if self.flows.all[at].pair != pair {
                    self.moved(worker, at, pair);
                }
                self.workers[usize::from(worker)].untold.extend((!done).then_some(Untold::Other));
            }
            _ => {
                let what = format!("request {} was forwarded to {} more often than received", located.id, pair.1);
                self.violated(Some(worker), what);
            }
        }
    }

    /// Empty datagrams count towards a cap and can't be told: the next flow is known by its place.
    fn ended_unseen(&mut self, at: usize, pair: Pair) -> bool {
        let flow = &mut self.flows.all[at];
        let capped = flow.terms.knobs().requests > 0;
        let ended = flow.fuzzy && flow.pair != pair && (capped || !flow.may_move());
        flow.spent |= ended;
        ended
    }

    fn count_forward(&mut self, worker: u16, at: usize, what: (&Located, u64), done: bool) {
        let (located, sequence) = what;
        let flow = &mut self.flows.all[at];
        flow.count_forward();
        if done {
            flow.forwards += 1;
            flow.forward_bytes += located.bytes as u64;
        } else {
            flow.failed += 1;
        }
        if let Some(state) = self.flows.keys.get_mut(&(worker, flow.key.clone())) {
            state.seen.insert(self.now);
        }
        if !done {
            let flow = &self.flows.all[at];
            let ended_it = !flow.fuzzy && flow.ends_by_its_send();
            self.workers[usize::from(worker)].untold.push_back(Untold::Forward(at, ended_it));
            // What a failed send does to caps is told a step later: nothing is held against this client's flows.
            let key = self.flows.all[at].key.clone();
            self.blur(worker, &key);
        }
        let flow = &mut self.flows.all[at];
        flow.last_front = flow.last_front.max(self.now);
        let overtaken = flow.last_sequence > sequence;
        flow.last_sequence = flow.last_sequence.max(sequence);
        if overtaken {
            self.violated(Some(worker), format!("request {} of flow {at} was sent after a newer one", located.id));
        }
    }

    /// Which client's empty datagram this is: its place tells, or that only one is waiting.
    fn locate_empty(&mut self, worker: u16, out: &Outgoing) -> Option<Located> {
        let (header, rest) = match payload::headed(&out.bytes) {
            payload::Headed::Good(header) => (Some(header), &out.bytes[header.len..]),
            _ => (None, &out.bytes[..]),
        };
        if payload::identify(rest) != Identity::Empty {
            return None;
        }
        let owner = self.flows.pairs.get(&(out.from, out.to)).map(|&at| &self.flows.all[at]);
        let owner = owner.map(|flow| (flow.key.clone(), flow.last_sequence));
        let long_ago = Instant::from_nanos(self.now.as_nanos().saturating_sub(LONGEST_WAIT));
        let mut keys = Vec::new();
        for ((_, key), state) in self.flows.keys.iter_mut().filter(|((w, _), _)| *w == worker) {
            state.empties.retain(|(at, _, _)| *at >= long_ago);
            if !state.empties.is_empty() {
                keys.push(key.clone());
            }
        }
        if let Some((owner, _)) = owner.as_ref().filter(|(owner, _)| keys.contains(owner)) {
            keys = vec![owner.clone()];
        } else {
            keys.retain(|key| header.is_none_or(|header| key.client == header.source));
            keys.retain(|key| self.may_go_to(worker, key, out.to));
        }
        if keys.len() > 1 {
            // Whoever waits for a place may have got this one.
            keys.retain(|key| self.flows.current(worker, key).is_none());
            let all = keys.clone();
            all.iter().skip(1).chain(all.first()).for_each(|key| self.blur(worker, key));
        }
        let last = owner.map_or(0, |(_, last)| last);
        let state = self.flows.keys.get_mut(&(worker, keys.first()?.clone()))?;
        let at = state.empties.iter().position(|(_, sequence, _)| *sequence > last).unwrap_or(0);
        let (_, _, id) = state.empties.remove(at)?;
        Some(Located { id, header, bytes: 0, intact: true })
    }

    /// Whether a waiting empty datagram of this key may go to that backend.
    fn may_go_to(&self, worker: u16, key: &Key, backend: SocketAddr) -> bool {
        let state = self.flows.keys.get(&(worker, key.clone()));
        let waiting = state.and_then(|state| state.empties.front());
        let receipt = waiting.and_then(|(_, _, id)| self.ledger.requests[*id as usize].receipts.front());
        let terms = receipt.map(|r| self.terms_between(worker, (&r.listener, key.client.ip()), r.at));
        terms.is_some_and(|terms| terms.iter().any(|terms| terms.backend_at(backend).is_some()))
    }

    /// Where its client's datagrams could have been admitted to, and what the flow was promised there.
    fn open_flow(&mut self, worker: u16, receipt: &Receipt, pair: Pair) -> Option<usize> {
        let key = receipt.key.clone();
        let state = self.flows.keys.get(&(worker, key.clone()));
        let waiting = state.and_then(|state| state.waiting.first().copied());
        let mut fuzzy = state.is_some_and(|state| state.fuzzy);
        // Sockets open at once or never here, so that no flow waits for long.
        let first = waiting.unwrap_or(receipt.at).min(receipt.at);
        let first = first.max(Instant::from_nanos(self.now.as_nanos().saturating_sub(LONGEST_WAIT)));
        let options = self.terms_between(worker, (&receipt.listener, key.client.ip()), first);
        let Some(terms) = options.iter().rev().find(|terms| terms.backend_at(pair.1).is_some()).cloned() else {
            let what = format!("a datagram of {} went to {}, which is no backend of its cluster", key.peer, pair.1);
            self.violated(Some(worker), what);
            return None;
        };
        fuzzy |= options.iter().any(|other| {
            other.knobs() != terms.knobs() || other.cluster != terms.cluster || other.route != terms.route
        });
        if options.len() == 1 {
            self.check_choice(worker, &terms, (key.client, pair.1));
        }
        self.counters.flows_opened += 1;
        let flow = Flow {
            worker,
            listener: receipt.listener.clone(),
            key,
            terms,
            pair,
            opened: self.now,
            forwards: 0,
            forward_bytes: 0,
            returns: 0,
            return_bytes: 0,
            failed: 0,
            taken_back: 0,
            counted: 0,
            spent: false,
            last_front: self.now,
            last_back: None,
            last_sequence: 0,
            moved: false,
            fuzzy,
            closed: None,
        };
        self.check_pair(worker, &flow);
        let at = self.flows.open(flow);
        self.check_limits(worker, at, first);
        Some(at)
    }

    /// No more live flows than the listener admitted at any time since `from`.
    fn check_limits(&mut self, worker: u16, at: usize, from: Instant) {
        let (name, client) = (self.flows.all[at].listener.clone(), self.flows.all[at].key.client.ip());
        let generations = self.generations_between(worker, from);
        let limits = generations.iter().filter_map(|at| self.generations[*at].document.listeners.get(&name));
        let share = |limit: u32| u64::from(limit).div_ceil(self.workers.len() as u64);
        let unlimited = |limit: u32| if limit == 0 { u64::MAX } else { share(limit) };
        let (mut flows, mut of_source) = (0, 0);
        for listener in limits {
            flows = flows.max(share(listener.limits.flows).max(1));
            of_source = of_source.max(unlimited(listener.limits.flows_per_source));
        }
        let of_worker = self.flows.keys.range((worker, super::lowest())..).take_while(|((w, _), _)| *w == worker);
        let certain = of_worker.flat_map(|(_, state)| &state.flows).filter(|at| self.is_certain(**at));
        let all = certain.map(|at| &self.flows.all[*at]);
        let (mut live, mut live_of_source) = (0, 0);
        for flow in all.filter(|flow| flow.listener == name && !flow.fuzzy) {
            live += 1;
            live_of_source += u64::from(flow.key.client.ip() == client);
        }
        if live > flows && flows > 0 {
            self.violated(Some(worker), format!("{name} has {live} flows and may have {flows}"));
        } else if live_of_source > of_source && of_source > 0 {
            let what = format!("{name} has {live_of_source} flows of one source and may have {of_source}");
            self.violated(Some(worker), what);
        }
    }

    /// The generations that this worker ran at some time since then, the newest last.
    fn generations_between(&self, worker: u16, from: Instant) -> Vec<usize> {
        let generations = &self.workers[usize::from(worker)].generations;
        let ran = generations.iter().enumerate().filter(|(at, (since, _))| {
            let until = generations.get(at + 1).map_or(self.now, |(until, _)| *until);
            until >= from && *since <= self.now
        });
        ran.map(|(_, (_, generation))| *generation).collect()
    }

    /// What flows of this key were promised by the generations that ran from then on, the newest last.
    fn terms_between(&self, worker: u16, of: (&Name, IpAddr), from: Instant) -> Vec<Terms> {
        let mut options: Vec<Terms> = Vec::new();
        for generation in self.generations_between(worker, from) {
            let terms = self.generations[generation].terms(of.0, of.1);
            options.extend(terms.filter(|terms| !options.contains(terms)));
        }
        options
    }

    fn check_pair(&mut self, worker: u16, flow: &Flow) {
        if !flow.owns_pair() {
            return;
        }
        let pair = flow.pair;
        if let Some(&other) = self.flows.pairs.get(&pair) {
            if !self.is_certain(other) {
                return;
            }
            let what = format!("{} gets the place {pair:?} of the live flow {other}", flow.key.peer);
            self.violated(Some(worker), what);
        } else if let Some(&(at, answered)) = self.flows.released.get(&pair) {
            let rest = if answered {
                kakei_proxy::limits::SHARED_REST_ANSWERED
            } else {
                kakei_proxy::limits::SHARED_REST_OWED
            };
            // A flow that moves gives its place back a little before that can be seen.
            if self.now.since(at) + super::TICK < rest {
                let what = format!("{} gets the place {pair:?} after {:?}", flow.key.peer, self.now.since(at));
                self.violated(Some(worker), what);
            }
        }
    }

    /// The backend that a new flow was given.
    fn check_choice(&mut self, worker: u16, terms: &Terms, flow: (SocketAddr, SocketAddr)) {
        let (client, address) = flow;
        let config = &terms.config;
        let Some(backend) = terms.backend_at(address) else { return };
        let fresh = |b: &&kakei_config::Backend| b.weight > 0 && !b.backup;
        if backend.weight == 0 {
            self.violated(Some(worker), format!("{client} was given {address}, which has weight 0"));
        } else if config.health.is_none() && backend.backup && config.backends.iter().any(|b| fresh(&b)) {
            self.violated(Some(worker), format!("{client} was given the backup {address} without need"));
        }
        let hashed = matches!(config.balance, Balance::Hrw | Balance::Maglev);
        if !hashed || config.health.is_some() || !config.slow_start.is_zero() || config.udp.retry_on_unreachable {
            return;
        }
        let affinity = match config.udp.affinity {
            kakei_config::Affinity::SourceIp => client.ip().to_string(),
            kakei_config::Affinity::SourceIpPort => client.to_string(),
        };
        let slot = format!("{} {:?} {:?} {affinity}", terms.cluster, config.balance, config.backends).into_bytes();
        let before = *self.chosen.entry(slot).or_insert(address);
        if before != address {
            let what = format!("{affinity} went to {before} and now to {address}, by {:?}", config.balance);
            self.violated(Some(worker), what);
        }
    }

    /// The flow's datagrams leave by another socket or to another backend.
    fn moved(&mut self, worker: u16, at: usize, pair: Pair) {
        let flow = &self.flows.all[at];
        let (knobs, old) = (flow.terms.knobs().clone(), flow.pair);
        let cluster = flow.terms.cluster.clone();
        let since = |from: Instant| -> Vec<Option<&Rc<Cluster>>> {
            let ran = self.generations_between(worker, from).into_iter();
            ran.map(|at| self.generations[at].cluster(&cluster)).collect()
        };
        let has = |cluster: &Rc<Cluster>, at: SocketAddr| cluster.backends.iter().any(|b| b.address.ip() == Some(at));
        let past = since(flow.opened);
        let removed = past.iter().any(|cluster| cluster.is_none_or(|cluster| !has(cluster, old.1)));
        let checked = past.iter().flatten().any(|cluster| cluster.health.is_some());
        let may = (knobs.on_backend_removed == OnBackend::Move && removed)
            || (knobs.on_backend_down == OnBackend::Move && (checked || flow.terms.config.health.is_some()))
            || (knobs.retry_on_unreachable && flow.returns == 0);
        let valid = past.iter().flatten().any(|cluster| has(cluster, pair.1));
        if !may {
            self.violated(Some(worker), format!("flow {at} went from {old:?} to {pair:?} without cause"));
        } else if !valid {
            self.violated(Some(worker), format!("flow {at} moved to {}, which is no backend of its cluster", pair.1));
        }
        self.counters.flows_moved += 1;
        self.flows.move_to(at, pair);
    }

    /// The PROXY header that the proxy put in front.
    fn check_header(&mut self, worker: u16, at: usize, located: &Located) {
        let flow = &self.flows.all[at];
        let sent_before = flow.forwards + flow.failed > 0;
        let due = match flow.terms.knobs().send_proxy_protocol {
            SendProxyProtocol::Off => Some(false),
            SendProxyProtocol::Every => Some(true),
            SendProxyProtocol::First if flow.moved || flow.fuzzy || flow.failed > 0 => None,
            SendProxyProtocol::First => Some(!sent_before),
        };
        let (id, to) = (located.id, flow.pair.1);
        match (&located.header, due) {
            (None, Some(true)) if !flow.fuzzy => {
                self.violated(Some(worker), format!("request {id} reached {to} without a PROXY header"));
            }
            (Some(_), Some(false)) if !flow.fuzzy => {
                self.violated(Some(worker), format!("request {id} reached {to} with a PROXY header"));
            }
            (Some(header), _) => {
                let client = flow.key.client;
                let right = header.source == client && header.destination == flow.key.dialled;
                if !right {
                    let what = format!("request {id} of {client} reached {to} as {header:?}");
                    self.violated(Some(worker), what);
                }
            }
            _ => {}
        }
    }

    /// A datagram of a live flow goes on in the step it came with, unless the flow ends or moves.
    pub(super) fn check_forwarded(&mut self, worker: u16, id: u64, at: usize) {
        let flow = &self.flows.all[at];
        let waits = self.ledger.requests[id as usize].receipts.iter().any(|r| r.worker == worker && r.at == self.now);
        // Flows that came to their cap in this step make room for a new one, which may have to wait for its socket.
        let excused = flow.closed.is_some() || flow.is_spent() || flow.fuzzy || flow.may_move();
        if waits && !excused {
            self.violated(Some(worker), format!("request {id} of the live flow {at} was not forwarded"));
        }
    }
}
