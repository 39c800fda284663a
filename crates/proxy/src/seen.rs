//! What was routed lately: request heads, what connections were routed by, flow keys. Kept so that a change can be tried
//! on it before it is made. Of a request only what routes match by is kept, and nothing that says who somebody is: no
//! credentials, no cookies, no other fields, no body. Decides nothing.
//!
//! A ring of slots for each kind, bounded in number and bytes; a slot that is used again allocates nothing. A few are
//! taken in each step, and as many as there are slots in a second, so what it costs doesn't grow with the load: to write
//! to one is to wait for memory that nobody has touched since the ring went round.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kakei_config::{Route, Sorted};
use slotmap::SlotMap;

use crate::http::decode;
use crate::listener::{ListenerKey, LiveListener};
use crate::seam::{Instant, Seen, SeenWhat};
use crate::snapshot::{Table, Wanted};

/// So many of each kind are taken in one step.
const PER_STEP: usize = 4;
/// In this time no more are taken than there are slots, and before it none is forgotten but for a burst.
const ROUND: Duration = Duration::from_secs(1);
/// The most bytes that are kept of one; what has more is left out.
const LONGEST: usize = 1_024;
/// Names of fields that are looked for.
const NAMES: usize = 16;

/// The rings of a worker.
#[derive(Debug, Default)]
pub(crate) struct Rings {
    /// Slots of each ring; 0: nothing is kept.
    room: usize,
    requests: Ring,
    connections: Ring,
    flows: Ring,
}

#[derive(Debug, Default)]
struct Ring {
    slots: Vec<Slot>,
    /// The slot that is used next, once all have been.
    next: usize,
    /// How many were taken in this step.
    taken: usize,
    /// When the next one is due, once all slots have been used; what was not taken before may be caught up on.
    due: Instant,
}

#[derive(Debug)]
struct Slot {
    at: Instant,
    listener: ListenerKey,
    client: SocketAddr,
    local: SocketAddr,
    /// Of a request its head, as it would be sent; of a connection the server name, then each protocol behind its
    /// length; of a flow nothing.
    text: Vec<u8>,
    /// Bytes of the text that are the server name.
    name: usize,
    /// Whether there is a server name; of a request whether its client showed a certificate.
    flag: bool,
}

/// Where something arrived, and whose it is.
pub(crate) type From = (ListenerKey, SocketAddr, SocketAddr);

impl Ring {
    /// A slot to be written to, if this step may take one more.
    fn slot(&mut self, room: usize, now: Instant, (listener, client, local): From) -> Option<&mut Slot> {
        if room == 0 || self.taken == PER_STEP || self.due > now {
            return None;
        }
        self.taken += 1;
        if self.slots.len() < room {
            self.slots.push(Slot { at: now, listener, client, local, text: Vec::new(), name: 0, flag: false });
            return self.slots.last_mut();
        }
        self.due = self.due.max(now.before(ROUND)) + ROUND / self.slots.len() as u32;
        let at = self.next;
        self.next = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        let slot = &mut self.slots[at];
        (slot.at, slot.listener, slot.client, slot.local) = (now, listener, client, local);
        slot.text.clear();
        (slot.name, slot.flag) = (0, false);
        Some(slot)
    }

    /// The newest, the newest first.
    fn newest(&self, limit: usize) -> impl Iterator<Item = &Slot> {
        // Before it has gone round the newest is the last; from then on it stands before the one that is next.
        let (again, once) = self.slots.split_at(self.next.min(self.slots.len()));
        again.iter().rev().chain(once.iter().rev()).take(limit)
    }
}

impl Rings {
    /// A step begins.
    pub(crate) fn begin(&mut self) {
        (self.requests.taken, self.connections.taken, self.flows.taken) = (0, 0, 0);
    }

    /// From now on so many of each kind are kept; what is there stays only where that is the same.
    pub(crate) fn resize(&mut self, room: usize) {
        if self.room != room {
            *self = Rings { room, ..Rings::default() };
        }
    }

    /// A flow is routed.
    pub(crate) fn note_flow(&mut self, now: Instant, from: From) {
        let _ = self.flows.slot(self.room, now, from);
    }

    /// A connection is routed.
    pub(crate) fn note_connection(&mut self, now: Instant, from: From, (sni, alpn): (Option<&str>, &[Vec<u8>])) {
        let bytes = sni.map_or(0, str::len) + alpn.iter().map(|name| name.len() + 1).sum::<usize>();
        if bytes > LONGEST || alpn.iter().any(|name| name.len() > usize::from(u8::MAX)) {
            return;
        }
        let Some(slot) = self.connections.slot(self.room, now, from) else { return };
        slot.text.extend_from_slice(sni.unwrap_or_default().as_bytes());
        (slot.name, slot.flag) = (slot.text.len(), sni.is_some());
        for name in alpn {
            slot.text.push(name.len() as u8);
            slot.text.extend_from_slice(name);
        }
    }

    /// A request is routed: what the routes of its listener match by is kept of it.
    pub(crate) fn note_request(&mut self, now: Instant, from: From, request: &Noted<'_>) {
        let bytes = request.wanted.method.len() + request.path.len() + request.authority.len();
        if bytes > LONGEST {
            return;
        }
        let Some(slot) = self.requests.slot(self.room, now, from) else { return };
        slot.flag = request.has_certificate;
        request.write(&mut slot.text);
        if slot.text.len() > 2 * LONGEST {
            // It is as if it had not been seen; what it took is given back.
            slot.text = Vec::new();
        }
    }

    /// The newest of each kind.
    pub(crate) fn list(&self, listeners: &SlotMap<ListenerKey, LiveListener>, now: Instant, limit: usize) -> Vec<Seen> {
        let seen = |slot: &Slot, what: SeenWhat| {
            let listener = listeners.get(slot.listener)?.spec.name.clone();
            let ago_ms = (now - slot.at).as_millis() as u64;
            Some(Seen { listener, client: slot.client, local: slot.local, ago_ms, what })
        };
        let requests = self.requests.newest(limit).filter(|slot| !slot.text.is_empty());
        let requests = requests
            .filter_map(|slot| seen(slot, SeenWhat::Request { head: slot.text.clone(), has_certificate: slot.flag }));
        let connections = self.connections.newest(limit).filter_map(|slot| {
            let (name, rest) = slot.text.split_at(slot.name);
            let sni = slot.flag.then(|| String::from_utf8_lossy(name).into_owned());
            seen(slot, SeenWhat::Connection { sni, alpn: protocols(rest) })
        });
        let flows = self.flows.newest(limit).filter_map(|slot| seen(slot, SeenWhat::Flow));
        requests.chain(connections).chain(flows).collect()
    }
}

fn protocols(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut names = Vec::new();
    while let Some((length, rest)) = bytes.split_first() {
        let (name, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        names.push(name.to_vec());
        bytes = rest;
    }
    names
}

/// A request, as far as it is looked at here.
pub(crate) struct Noted<'a> {
    pub(crate) table: &'a Table,
    pub(crate) wanted: &'a Wanted<'a>,
    /// As the client wrote it.
    pub(crate) authority: &'a str,
    /// As the client wrote it.
    pub(crate) path: &'a str,
    pub(crate) has_certificate: bool,
}

impl Noted<'_> {
    /// The head that routes would take as they take this one.
    fn write(&self, out: &mut Vec<u8>) {
        let Noted { table, wanted, authority, path, .. } = self;
        let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
        put(&[wanted.method.as_bytes(), b" "]);
        match (wanted.method, *path) {
            ("CONNECT", _) => put(&[authority.as_bytes()]),
            (_, "") => put(&[b"/"]),
            (_, path) => put(&[path.as_bytes()]),
        }
        let asks = table.asks();
        let query = wanted.query.unwrap_or_default();
        let kept = query.split('&').filter(|pair| asks.names_parameter(pair));
        for (pair, before) in kept.zip(std::iter::once("?").chain(std::iter::repeat("&"))) {
            put(&[before.as_bytes(), pair.as_bytes()]);
        }
        match authority.is_empty() {
            // Who names no host speaks HTTP/1.0.
            true => put(&[b" HTTP/1.0\r\n"]),
            false => put(&[b" HTTP/1.1\r\nHost: ", authority.as_bytes(), b"\r\n"]),
        }
        for name in asks.kept_fields() {
            for value in wanted.fields.named(name.as_bytes()) {
                put(&[name.as_bytes(), b": ", value, b"\r\n"]);
            }
        }
        put(&[b"\r\n"]);
    }
}

/// Names of what routes match by beyond host, path and method, each with how many ask for it.
#[derive(Clone, Debug, Default)]
pub struct Asks {
    fields: Sorted<Arc<str>, usize>,
    parameters: Sorted<Arc<str>, usize>,
}

impl Asks {
    /// Header fields.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(name, _)| &**name)
    }

    /// Those of them that are kept of requests. The host is anyway.
    pub fn kept_fields(&self) -> impl Iterator<Item = &str> {
        self.fields().filter(|name| !is_secret(name) && *name != "host").take(NAMES)
    }

    /// Query parameters.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().map(|(name, _)| &**name)
    }

    /// Whether a field with `_` in its name isn't one of these, but is with `-` in its place.
    pub(crate) fn may_mistake(&self, name: &[u8]) -> bool {
        if self.fields.is_empty() {
            return false;
        }
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        self.fields.get(&*name).is_none() && self.fields.get(&*name.replace('_', "-")).is_some()
    }

    /// Whether this piece of a query is one of these, and may be kept.
    fn names_parameter(&self, pair: &str) -> bool {
        if self.parameters.is_empty() || pair.is_empty() {
            return false;
        }
        let key = decode(pair.split_once('=').map_or(pair, |(key, _)| key));
        std::str::from_utf8(&key).is_ok_and(|key| self.parameters.get(key).is_some() && !is_secret(key))
    }

    /// A route asks for these.
    pub(crate) fn add(&mut self, spec: &Route) {
        spec.headers.keys().for_each(|name| count(&mut self.fields, name, 1));
        spec.query.keys().for_each(|name| count(&mut self.parameters, name, 1));
    }

    /// It does no longer.
    pub(crate) fn take_out(&mut self, spec: &Route) {
        spec.headers.keys().for_each(|name| count(&mut self.fields, name, -1));
        spec.query.keys().for_each(|name| count(&mut self.parameters, name, -1));
    }
}

fn count(names: &mut Sorted<Arc<str>, usize>, name: &str, more: isize) {
    let now = names.get(name).copied().unwrap_or(0).saturating_add_signed(more);
    match now {
        0 => drop(names.remove(name)),
        some => drop(names.insert(name.into(), some)),
    }
}

/// Whether a field may say who somebody is, or let one in: it is never kept.
pub fn is_secret(name: &str) -> bool {
    const SECRET: [&str; 4] = ["auth", "cookie", "token", "secret"];
    let name = name.to_ascii_lowercase();
    let known = matches!(&*name, "x-api-key" | "api-key" | "x-csrf" | "x-forwarded-user" | "x-amz-security-token");
    known || name.ends_with("-key") || SECRET.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use kakei_config::{Document, Listener, Protocol, ValueMatch};
    use kakei_wire::http1::{Heads, Limits, Scan};

    use super::*;
    use crate::hash::Keyed;
    use crate::snapshot::{Generation, Shared, Snapshot};

    fn listeners() -> (SlotMap<ListenerKey, LiveListener>, ListenerKey) {
        let listener = Listener { protocol: Protocol::Http, cluster: Some("c".into()), ..Listener::default() };
        let headers = [("x-beta".to_owned(), ValueMatch::Present), ("cookie".to_owned(), ValueMatch::Present)].into();
        let query = [("page".to_owned(), ValueMatch::Present), ("token".to_owned(), ValueMatch::Present)].into();
        let route = Route { listener: "l".into(), headers, query, cluster: Some("c".into()), ..Route::default() };
        let document = Document {
            listeners: [("l".into(), listener)].into(),
            routes: [("r".into(), route)].into(),
            ..Document::default()
        };
        let snapshot = Snapshot::compile(&document, Generation(1), Shared { workers: 1, balance_seed: 0 }, None);
        let spec = Arc::clone(snapshot.listener(&"l".into()).unwrap());
        let mut all = SlotMap::with_key();
        let key = all.insert(LiveListener::new(spec, Keyed::new(&mut fastrand::Rng::with_seed(1))));
        (all, key)
    }

    fn note(
        rings: &mut Rings,
        (all, key): (&SlotMap<ListenerKey, LiveListener>, ListenerKey),
        now: Instant,
        text: &str,
    ) {
        let limits = Limits { line: 1 << 16, head: 1 << 16, fields: 64 };
        Scan::default().find(text.as_bytes(), &limits).unwrap().unwrap();
        let mut heads = Heads::default();
        let head = heads.request(text.as_bytes(), &limits).unwrap();
        let request = &head.request;
        let client: SocketAddr = "192.0.2.7:1".parse().unwrap();
        let wanted = Wanted {
            client: client.ip(),
            host: "a",
            path: request.path.as_bytes(),
            method: request.method,
            fields: request.fields,
            query: request.query,
        };
        let table = &all[key].spec.http.as_ref().unwrap().table;
        let (authority, path) = (request.authority, request.path);
        let noted = Noted { table, wanted: &wanted, authority, path, has_certificate: false };
        rings.note_request(now, (key, client, client), &noted);
    }

    fn heads(rings: &Rings, all: &SlotMap<ListenerKey, LiveListener>) -> Vec<String> {
        let seen = rings.list(all, Instant::ZERO, 100).into_iter();
        let heads = seen.filter_map(|seen| match seen.what {
            SeenWhat::Request { head, .. } => Some(String::from_utf8(head).unwrap()),
            _ => None,
        });
        heads.collect()
    }

    #[test]
    fn of_a_request_only_what_routes_match_by_is_kept_and_nothing_that_lets_anyone_in() {
        let (all, key) = listeners();
        let (mut rings, now) = (Rings::default(), Instant::ZERO);
        rings.resize(4);
        let text = "POST /a?x=1&page=2&token=s3&pa%67e=3 HTTP/1.1\r\nHost: A\r\nCookie: s3\r\nX-Beta: 1\r\nX-Other: s3\r\n\r\n";
        note(&mut rings, (&all, key), now, text);
        let kept = "POST /a?page=2&pa%67e=3 HTTP/1.1\r\nHost: A\r\nx-beta: 1\r\n\r\n";
        assert_eq!(heads(&rings, &all), [kept]);
        for name in ["Authorization", "Proxy-Authorization", "Cookie", "X-Auth-Token", "X-API-Key", "client-secret"] {
            assert!(is_secret(name), "{name}");
        }
        assert!(!is_secret("x-beta") && !is_secret("accept"));
    }

    #[test]
    fn the_newest_are_kept_a_few_a_step_and_slots_are_used_again() {
        let (all, key) = listeners();
        let mut rings = Rings::default();
        rings.resize(6);
        let (mut number, mut now) = (0, Instant::ZERO);
        for _ in 0..5 {
            now = now + ROUND;
            rings.begin();
            for _ in 0..10 {
                note(&mut rings, (&all, key), now, &format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"));
                number += 1;
            }
        }
        let paths: Vec<String> = heads(&rings, &all).iter().map(|head| head[5..7].to_owned()).collect();
        assert_eq!(paths, ["43", "42", "41", "40", "33", "32"], "four of each step, the newest first");
        let places: Vec<_> = rings.requests.slots.iter().map(|slot| slot.text.as_ptr()).collect();
        rings.begin();
        note(&mut rings, (&all, key), now, "GET /50 HTTP/1.1\r\nHost: a\r\n\r\n");
        let after: Vec<_> = rings.requests.slots.iter().map(|slot| slot.text.as_ptr()).collect();
        assert_eq!(places, after, "what is written again lies where it lay");
        // What is too long is as if it had not been.
        let long = "x".repeat(2_000);
        rings.begin();
        note(&mut rings, (&all, key), now, &format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"));
        note(&mut rings, (&all, key), now, &format!("GET /51 HTTP/1.1\r\nHost: a\r\nX-Beta: {long}{long}\r\n\r\n"));
        assert!(heads(&rings, &all)[0].starts_with("GET /50 "));
        // A second of steps takes as many as there are slots, spread over it, and what was left of the second before.
        now = now + ROUND;
        let mut taken = Vec::new();
        for step in 0..1_000 {
            let at = now + Duration::from_millis(step);
            rings.begin();
            for _ in 0..10 {
                note(&mut rings, (&all, key), at, "GET /60 HTTP/1.1\r\nHost: a\r\n\r\n");
            }
            taken.extend((0..rings.requests.taken).map(|_| step));
        }
        assert!((6..=12).contains(&taken.len()) && taken.last() >= Some(&800), "{taken:?}");
        rings.resize(0);
        rings.begin();
        note(&mut rings, (&all, key), now, "GET /52 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(heads(&rings, &all).is_empty());
    }

    #[test]
    fn connections_keep_what_they_were_routed_by() {
        let (all, key) = listeners();
        let mut rings = Rings::default();
        rings.resize(2);
        let client: SocketAddr = "192.0.2.7:1".parse().unwrap();
        let offers = [b"h2".to_vec(), b"http/1.1".to_vec()];
        rings.note_connection(Instant::ZERO, (key, client, client), (Some("a.test"), &offers));
        rings.note_connection(Instant::ZERO, (key, client, client), (None, &[]));
        rings.note_flow(Instant::ZERO, (key, client, client));
        let seen: Vec<SeenWhat> = rings.list(&all, Instant::ZERO, 9).into_iter().map(|seen| seen.what).collect();
        let none = SeenWhat::Connection { sni: None, alpn: Vec::new() };
        let some = SeenWhat::Connection { sni: Some("a.test".into()), alpn: offers.to_vec() };
        assert_eq!(seen, [none, some, SeenWhat::Flow]);
    }
}
