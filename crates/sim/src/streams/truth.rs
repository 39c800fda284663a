//! What is true of streams, known without asking the worker: whose bytes go where, who may end what and how, who was
//! let in, what a record has to say.

use std::collections::{BTreeMap, BTreeSet};

use kakei_config::{Document, Name, OnChange, ServerName};
use kakei_proxy::record::{CloseReason, Detail, Record};
use kakei_proxy::seam::{Instant, Op, Reply};
use kakei_proxy::stats::{ListenerMetric, Stats};
use kakei_wire::proxy_protocol;

use super::actors::{Actor, Ends, Guest, TLV, sender};
use super::documents::STABLE;
use super::machine::Machine;
use super::{KEPT, StreamReport};

/// What is known.
#[derive(Debug)]
pub(super) struct Truth {
    /// Every document that ran, the current one last.
    documents: Vec<Document>,
    /// Since when clusters are gone that were there once.
    gone: BTreeMap<Name, Instant>,
    /// Who was let in and has no record yet.
    live: BTreeSet<usize>,
    /// How many were let in, and turned away.
    accepted: u64,
    refused: u64,
    recorded: u64,
    reasons: BTreeMap<CloseReason, u64>,
    record_bytes: u64,
}

impl Truth {
    pub(super) fn new(document: &Document) -> Self {
        Truth {
            documents: vec![document.clone()],
            gone: BTreeMap::new(),
            live: BTreeSet::new(),
            accepted: 0,
            refused: 0,
            recorded: 0,
            reasons: BTreeMap::new(),
            record_bytes: 0,
        }
    }

    pub(super) fn publish(&mut self, now: Instant, document: &Document) {
        let mut gone: BTreeMap<_, _> = self.current().clusters.keys().map(|name| (name.clone(), now)).collect();
        gone.append(&mut self.gone);
        self.gone = gone;
        self.gone.retain(|name, _| !document.clusters.contains_key(name));
        self.documents.push(document.clone());
    }

    fn current(&self) -> &Document {
        self.documents.last().expect("there is always one")
    }

    /// A client was let in beside those that live.
    pub(super) fn accepted<'a>(&mut self, client: &Actor, live: impl Iterator<Item = &'a Guest>) -> Result<(), String> {
        let guest = client.guest.as_ref().ok_or("accepts a backend")?;
        self.accepted += 1;
        self.live.insert(client.id);
        let Some(listener) = self.current().listeners.get(&guest.listener) else {
            return Err("accepts a client of a listener that is gone".to_owned());
        };
        let (limits, proxied) = (listener.limits, !listener.proxy_protocol.trusted.is_empty());
        let here: Vec<&Guest> = live.filter(|other| other.listener == guest.listener).collect();
        let of_source = here.iter().filter(|other| other.client.ip() == guest.client.ip()).count() as u32;
        let is_over = limits.connections_per_source > 0 && of_source >= limits.connections_per_source;
        if !proxied && is_over {
            return Err(format!("a source has {of_source} connections already"));
        }
        if here.len() as u32 >= limits.connections {
            return Err(format!("the listener has {} connections already", here.len()));
        }
        Ok(())
    }

    pub(super) fn refused(&mut self, _: usize) -> Result<(), String> {
        self.refused += 1;
        Ok(())
    }

    /// Bytes reach an actor: they must be the next ones of the one that it is joined with.
    pub(super) fn deliver(actors: &mut [Actor], to: usize, bytes: &[u8]) -> Result<(), String> {
        if actors[to].saw_end || actors[to].saw_reset {
            return Err(format!("actor {to} is sent bytes behind its end"));
        }
        if actors[to].introduced && actors[to].partner.is_some() {
            return Truth::compare(actors, to, bytes);
        }
        actors[to].held.extend_from_slice(bytes);
        if !actors[to].introduced && !Truth::introduce(&mut actors[to]) {
            return Ok(());
        }
        Truth::meet(actors, to)
    }

    /// Take the header off the beginning of what an actor received. False while more of it must come.
    fn introduce(actor: &mut Actor) -> bool {
        if actor.guest.is_none() {
            match proxy_protocol::parse_stream(&actor.held) {
                Ok(Some(header)) => {
                    // The first version carries nothing beside the addresses.
                    let tlvs = if actor.held[0] == b'P' {
                        TLV.to_vec()
                    } else {
                        actor.held[header.tlvs_at..header.len].to_vec()
                    };
                    actor.header = Some((header.addresses.map(|addresses| addresses.source), tlvs));
                    actor.held.drain(..header.len);
                }
                Ok(None) => return false,
                Err(_) => {}
            }
        }
        actor.introduced = true;
        true
    }

    fn compare(actors: &mut [Actor], to: usize, bytes: &[u8]) -> Result<(), String> {
        let Some(from) = actors[to].partner else { return Ok(()) };
        let at = actors[to].received;
        for (n, byte) in bytes.iter().enumerate() {
            let offset = at + n as u64;
            if offset >= actors[from].sent || *byte != actors[from].byte(offset) {
                return Err(format!("actor {to} gets a wrong byte at {offset} of what {from} sends"));
            }
        }
        actors[to].received += bytes.len() as u64;
        Ok(())
    }

    /// Find out from whom an actor receives, and compare what it got before that was known.
    fn meet(actors: &mut [Actor], to: usize) -> Result<(), String> {
        let from = match actors[to].partner {
            Some(from) => from,
            None => match sender(&actors[to].held) {
                Some(from) => from,
                None => return Ok(()),
            },
        };
        let known = actors.get(from).ok_or_else(|| format!("actor {to} gets bytes of nobody ({from})"))?;
        if known.guest.is_some() == actors[to].guest.is_some() {
            return Err(format!("actor {to} gets bytes of {from}, which is on the same side"));
        }
        if known.partner.is_some_and(|other| other != to) {
            return Err(format!("actor {to} gets bytes of {from}, which is joined with another"));
        }
        for (one, other) in [(to, from), (from, to)] {
            if actors[one].partner.is_none() {
                actors[one].partner = Some(other);
                actors[one].received = actors[other].consumed();
            }
        }
        for one in [to, from] {
            if actors[one].introduced {
                let held = std::mem::take(&mut actors[one].held);
                Truth::compare(actors, one, &held)?;
            }
            Truth::check_header(actors, one)?;
        }
        Ok(())
    }

    /// The header that a backend got names the client that it is joined with, and passes on what came in.
    fn check_header(actors: &mut [Actor], backend: usize) -> Result<(), String> {
        let Some((source, tlvs)) = actors[backend].header.take() else { return Ok(()) };
        let Some(guest) = actors[backend].partner.and_then(|client| actors[client].guest.as_ref()) else {
            return Ok(());
        };
        let relayed = if guest.client == guest.peer { &[][..] } else { &TLV };
        let is_right = source == Some(guest.client) && (tlvs == relayed || tlvs == TLV);
        if is_right { Ok(()) } else { Err(format!("the header names {source:?} with {tlvs:?}, not {}", guest.client)) }
    }

    /// An actor is told that nothing more comes: everything of the other must have come.
    pub(super) fn ended(actors: &mut [Actor], to: usize) -> Result<(), String> {
        if actors[to].saw_end {
            return Err(format!("actor {to} is told its end twice"));
        }
        actors[to].saw_end = true;
        let Some(from) = actors[to].partner else { return Ok(()) };
        let other = &actors[from];
        match other.ends {
            Ends::ResetAt(_) => Err(format!("actor {to} sees an end of {from}, which never ends so")),
            _ if other.left() > 0 => Err(format!("actor {to} sees an end, and {from} has more to send")),
            _ if actors[to].received < other.whole() => {
                Err(format!("actor {to} sees an end at {} of {}", actors[to].received, other.whole()))
            }
            _ => Ok(()),
        }
    }

    /// An actor's stream is closed in an orderly way. By a timeout or a change it may be cut short, but not of what the
    /// other had sent until then.
    pub(super) fn closed(actors: &mut [Actor], to: usize) -> Result<(), String> {
        let partner = actors[to].partner;
        actors[to].saw_end = true;
        if let Some(from) = partner
            && actors[from].told_reset
        {
            return Err(format!("actor {to} sees an orderly end, and {from} was reset"));
        }
        if let Some(from) = partner
            && actors[to].introduced
            && actors[to].received < actors[from].sent
        {
            let (got, sent) = (actors[to].received, actors[from].sent);
            return Err(format!("actor {to} sees an orderly end at {got} of {sent} that {from} sent"));
        }
        Ok(())
    }

    /// A connection left its record.
    pub(super) fn record(
        &mut self,
        now: Instant,
        record: &Record,
        actors: &mut [Actor],
        report: &mut StreamReport,
    ) -> Result<(), String> {
        let Detail::Connection(detail) = &record.detail else { return Err("it is of a flow".to_owned()) };
        let of = |actor: &Actor| {
            let is_it = |guest: &Guest| guest.client == record.client || guest.peer == record.client;
            actor.guest.as_ref().is_some_and(is_it)
        };
        let client = actors.iter().find(|actor| of(actor)).map(|actor| actor.id).ok_or("nobody was this client")?;
        if !self.live.remove(&client) {
            return Err(format!("client {client} has no connection, or had its record"));
        }
        self.recorded += 1;
        *self.reasons.entry(record.reason).or_default() += 1;
        self.record_bytes += record.request_bytes;
        if now - record.admitted != record.duration {
            return Err("its duration is wrong".to_owned());
        }
        let actor = &actors[client];
        let Some(guest) = &actor.guest else { return Ok(()) };
        if detail.sni.is_some() && detail.sni != guest.sni {
            return Err(format!("it asked for {:?}", guest.sni));
        }
        self.judge(record, guest)?;
        if let Some(partner) = actor.partner {
            let got = actors[partner].received - actor.consumed();
            // What was written in the step in which it broke may not have been taken.
            let differs = |told: u64, got: u64| told < got || (told > got && record.reason == CloseReason::Closed);
            if actors[partner].partner == Some(client) && differs(record.request_bytes, got) {
                return Err(format!("the backend got {got} bytes"));
            }
            if differs(record.response_bytes, actor.received) {
                return Err(format!("the client got {} bytes", actor.received));
            }
            let is_whole = |one: &Actor, other: &Actor| other.received >= one.whole() && one.has_ended();
            let both = is_whole(actor, &actors[partner]) && is_whole(&actors[partner], actor);
            if record.reason == CloseReason::Closed && !both {
                return Err("both had more to say".to_owned());
            }
            report.counters.completed += u64::from(both);
        }
        Ok(())
    }

    /// Whether the reason and the way can be true.
    fn judge(&self, record: &Record, guest: &Guest) -> Result<(), String> {
        let is_stable = record.cluster.as_ref().is_some_and(|cluster| cluster.as_str() == STABLE);
        let by_change = [
            CloseReason::BackendRemoved,
            CloseReason::BackendDown,
            CloseReason::RouteChanged,
            CloseReason::QueueFull,
            CloseReason::NoBackend,
        ];
        if is_stable && by_change.contains(&record.reason) {
            return Err("nothing that it stands on was ever changed".to_owned());
        }
        if guest.garbage
            && ![CloseReason::ProxyHeader, CloseReason::ClientGone, CloseReason::PrereadTimeout, CloseReason::Drain]
                .contains(&record.reason)
        {
            return Err("nobody can read its header".to_owned());
        }
        if let Some(cluster) = &record.cluster {
            let sni = record_sni(record);
            let leads = |document: &Document| leads_to(document, guest, sni) == Some(cluster.clone());
            if !self.documents.iter().any(leads) {
                return Err("no document leads it there".to_owned());
            }
        }
        let ended = record.admitted + record.duration;
        if record.reason == CloseReason::QueueTimeout
            && record.cluster.as_ref().is_some_and(|cluster| self.gone.get(cluster).is_some_and(|since| *since < ended))
        {
            return Err("it waited for a backend of a cluster that is gone".to_owned());
        }
        let after = |time: Option<std::time::Duration>| time.is_some_and(|time| record.duration >= time);
        let knobs = |check: &dyn Fn(&kakei_config::TcpKnobs) -> bool| {
            let clusters = self.documents.iter().filter_map(|d| d.clusters.get(record.cluster.as_ref()?));
            clusters.into_iter().any(|cluster| check(&cluster.tcp))
        };
        let fits = match record.reason {
            CloseReason::Idle => knobs(&|knobs| after(knobs.idle_timeout)),
            CloseReason::Lifetime => knobs(&|knobs| after(knobs.lifetime)),
            CloseReason::QueueTimeout => knobs(&|knobs| after(Some(knobs.queue_timeout))),
            CloseReason::BackendRemoved => knobs(&|knobs| knobs.on_backend_removed != OnChange::Keep),
            CloseReason::BackendDown => knobs(&|knobs| knobs.on_backend_down != OnChange::Keep),
            _ => true,
        };
        if fits { Ok(()) } else { Err("that is no reason to end".to_owned()) }
    }

    /// What operators are shown: bounded buffers.
    pub(super) fn views(&self, ops: &[Op], report: &mut StreamReport) {
        let views = ops.iter().find_map(|op| match op {
            Op::Reply { reply: Reply::Connections(views), .. } => Some(views),
            _ => None,
        });
        for view in views.into_iter().flatten() {
            if view.buffered > KEPT {
                report.violations.push(format!("a connection keeps {} bytes: {view:?}", view.buffered));
            }
        }
    }

    /// Everything came to its end.
    pub(super) fn end(&self, actors: &[Actor], machine: &Machine, stats: Option<&Stats>, report: &mut StreamReport) {
        if !report.violations.is_empty() {
            return;
        }
        for (id, stream) in &machine.streams {
            let actor = &actors[stream.actor];
            report.violations.push(format!("{id:?} of {actor:?} is still open"));
        }
        let Some(stats) = stats else { return report.violations.push("no counters were given".to_owned()) };
        let sum = |metric| stats.listeners.iter().map(|of| of.values[metric]).sum::<u64>();
        let live = sum(ListenerMetric::ConnectionsLive) + sum(ListenerMetric::ConnectionsQueued);
        if live > 0 {
            report.violations.push(format!("{live} connections are counted alive, and nobody is there"));
        }
        for of in stats.clusters.iter().filter(|of| !self.current().clusters.contains_key(&of.cluster)) {
            report.violations.push(format!("nothing is on {}, which was removed, and it is still there", of.cluster));
        }
        // Counters of listeners that were removed went with them.
        let (opened, closed) = (
            sum(ListenerMetric::ConnectionsOpened),
            stats.listeners.iter().map(|of| of.connection_closes.sum()).sum::<u64>(),
        );
        if opened != closed || opened > self.accepted {
            report.violations.push(format!("{opened} opened, {closed} closed, {} accepted", self.accepted));
        }
        for reason in CloseReason::ALL.into_iter().filter(|reason| *reason != CloseReason::ClientGone) {
            let closed: u64 = stats.listeners.iter().map(|of| of.connection_closes.0[reason as usize]).sum();
            let recorded = self.reasons.get(&reason).copied().unwrap_or_default();
            if closed > recorded {
                report.violations.push(format!("{closed} ended by {}, {recorded} say their records", reason.name()));
            }
        }
        for id in &self.live {
            let said_nothing = actors[*id].sent == 0;
            if !said_nothing {
                report.violations.push(format!("client {id} has no record"));
            }
        }
    }
}

fn record_sni(record: &Record) -> Option<&str> {
    match &record.detail {
        Detail::Connection(detail) => detail.sni.as_deref(),
        Detail::Flow { .. } | Detail::Exchange(_) => None,
    }
}

/// Where a document leads a client, by the rule as it is worded.
fn leads_to(document: &Document, guest: &Guest, sni: Option<&str>) -> Option<Name> {
    let rank = |route: &kakei_config::Route| {
        let named = route.sni.iter().filter_map(|name| match (name, sni?) {
            (ServerName::Exact(name), sni) => (**name == *sni).then_some(usize::MAX),
            (ServerName::Under(suffix), sni) => sni.ends_with(&format!(".{suffix}")).then_some(suffix.len()),
        });
        named.max()
    };
    let routes = document.routes.values().filter(|route| route.listener == guest.listener);
    let best = routes.filter_map(|route| Some((rank(route)?, route))).max_by_key(|(rank, _)| *rank);
    match best {
        Some((_, route)) => route.cluster.clone(),
        None => document.listeners.get(&guest.listener)?.cluster.clone(),
    }
}
