//! Which route a request takes: by host, path, method, fields, query and client. A generation's table is made of the one
//! before it and of the routes that are other than there, and shares the rest with it.
//!
//! Of the routes that match, the most specific wins, whatever the order of the document: an exact host, then the longer
//! wildcard, then any; an exact path, then the longer regular expression (of equally long ones the first in the
//! alphabet), then the longer prefix, then any; one that names methods; one that asks for more fields and query parameters; the longest client network. Two that ask for
//! exactly the same are refused when the document is validated. A lookup costs what the host and the path have in
//! labels and segments, whatever the number of routes; only regular expressions of one host, and routes of one host and
//! path, are tried one by one.

use std::cell::{LazyCell, OnceCell};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use kakei_config::{Name, PathMatch, Route, ServerName, Sorted, ValueMatch};
use kakei_wire::message::Fields;
use smallvec::SmallVec;

use super::pattern::{Pattern, readable};
use super::rule::Rule;
use crate::limits::MANY_ROUTES;
use crate::seen::Asks;
use crate::snapshot::Target;
use crate::trie::Trie;

/// What is known of a request when it is routed.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Who asks.
    pub client: IpAddr,
    /// Lower case, without port and trailing dot; empty: none was named.
    pub host: &'a str,
    /// Normalised.
    pub path: &'a [u8],
    /// The method.
    pub method: &'a str,
    /// The header fields.
    pub fields: Fields<'a>,
    /// What stands behind the `?`.
    pub query: Option<&'a str>,
}

/// A route among those of one host and path.
#[derive(Clone, Debug)]
struct Entry {
    rule: Arc<Rule>,
    /// None, as nearly always: it asks for nothing more.
    more: Option<Box<More>>,
}

/// What a route asks for beyond host and path.
#[derive(Clone, Debug)]
struct More {
    source: Option<IpNet>,
    /// Whether it asks for a method, fields or a query.
    has_detail: bool,
}

/// Routes of one host and path. Nearly always one, which stands in place.
type List = SmallVec<[Entry; 1]>;

/// A host and a path as keys: short ones stand in place.
type Host = SmallVec<[u8; 32]>;
type Path = SmallVec<[u8; 24]>;

/// Routes of one host.
#[derive(Clone, Debug, Default)]
pub(super) struct Paths {
    exact: Trie<Path, List>,
    /// The longer text first. Most hosts have none.
    regex: Option<Arc<Vec<Matched>>>,
    prefix: Trie<Path, List>,
    /// No prefix is longer: what is need not be looked up.
    longest: usize,
    any: List,
}

/// Routes of one regular expression.
#[derive(Clone, Debug)]
struct Matched {
    text: String,
    regex: Pattern,
    list: List,
}

/// The HTTP routes of one listener. Copies share what they have in common.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rules: Sorted<Name, Arc<Rule>>,
    exact: Trie<Host, Paths>,
    /// By what stands behind `*.`.
    under: Trie<Host, Paths>,
    any: Paths,
    /// What routes ask for beyond host, path and method.
    asks: Asks,
    /// How many routes allow early data.
    early: usize,
}

impl PartialEq for Table {
    /// Everything else follows from the rules.
    fn eq(&self, other: &Self) -> bool {
        let same = |(_, a, b): (&Name, Option<&Arc<Rule>>, Option<&Arc<Rule>>)| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
            _ => false,
        };
        self.rules.len() == other.rules.len() && self.rules.differences(&other.rules).all(same)
    }
}

/// A route as it is from now on, and whether the times of its requests are counted by themselves; none: it is gone.
pub(crate) type Turned<'a> = (&'a Name, Option<(&'a Arc<Route>, bool)>);

/// Why a route doesn't match a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Its hosts.
    Host,
    /// Its path.
    Path,
    /// Its methods.
    Method,
    /// One of its header fields.
    Header,
    /// One of its query parameters.
    Query,
    /// Its client networks.
    Source,
}

impl Entry {
    fn matches(&self, wanted: &Wanted<'_>, parameters: &Parameters) -> bool {
        self.more.as_ref().is_none_or(|more| {
            more.source.is_none_or(|source| source.contains(&wanted.client))
                && !(more.has_detail && detail(&self.rule.spec, wanted, parameters).is_some())
        })
    }

    /// What comes first is looked at first.
    fn order(&self) -> impl Ord + use<> {
        let spec = &self.rule.spec;
        let source = self.more.as_ref().and_then(|more| more.source);
        let source = source.map(|source| (Reverse(source.prefix_len()), source));
        let asks = Reverse(spec.headers.len() + spec.query.len());
        (spec.method.is_empty(), asks, source.is_none(), source, self.rule.route.clone())
    }
}

/// What of a route's method, fields and query the request doesn't have.
fn detail(spec: &Route, wanted: &Wanted<'_>, parameters: &Parameters) -> Option<Mismatch> {
    if !spec.method.is_empty() && !spec.method.iter().any(|method| method == wanted.method) {
        return Some(Mismatch::Method);
    }
    let field = |(name, value): (&String, &ValueMatch)| {
        wanted.fields.named(name.as_bytes()).any(|found| match value {
            ValueMatch::Present => true,
            ValueMatch::Exact(exact) => found == exact.as_bytes(),
        })
    };
    if !spec.headers.iter().all(field) {
        return Some(Mismatch::Header);
    }
    let has = |(name, value): (&String, &ValueMatch)| parameters.have(wanted.query, name, value);
    (!spec.query.iter().all(has)).then_some(Mismatch::Query)
}

/// A query's parameters, decoded as forms are and in order, once a route asks for one: many may be there, and many ask.
#[derive(Debug, Default)]
struct Parameters(OnceCell<Vec<(Vec<u8>, Vec<u8>)>>);

impl Parameters {
    /// Whether the query has one of this name, with this value if one is asked for.
    fn have(&self, query: Option<&str>, name: &str, value: &ValueMatch) -> bool {
        let all = self.0.get_or_init(|| {
            let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
            let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let mut all: Vec<_> = pairs.map(|(key, value)| (decode(key), decode(value))).collect();
            all.sort_unstable();
            all
        });
        match value {
            ValueMatch::Present => all.binary_search_by(|(key, _)| key.as_slice().cmp(name.as_bytes())).is_ok(),
            ValueMatch::Exact(exact) => {
                let wanted = (name.as_bytes(), exact.as_bytes());
                all.binary_search_by(|(key, value)| (key.as_slice(), value.as_slice()).cmp(&wanted)).is_ok()
            }
        }
    }
}

pub(crate) fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let digit = |at: usize| bytes.get(at).and_then(|byte| (*byte as char).to_digit(16));
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', _, _) => out.push(b' '),
            (byte, _, _) => out.push(byte),
        }
        at += 1;
    }
    out
}

impl Paths {
    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.matched().is_empty() && self.prefix.is_empty() && self.any.is_empty()
    }

    fn matched(&self) -> &[Matched] {
        self.regex.as_deref().map_or(&[], Vec::as_slice)
    }

    /// The route that a request with this path takes, if that is all that it depends on, and no expression.
    pub(super) fn likely<'a>(&'a self, path: &'a [u8]) -> Option<&'a Arc<Rule>> {
        let list = self.exact.get(path).or_else(|| self.prefixes(path).next()).unwrap_or(&self.any);
        list.first().map(|entry| &entry.rule)
    }

    fn find<'a>(&'a self, wanted: &Wanted<'a>, parameters: &Parameters) -> Option<&'a Arc<Rule>> {
        if self.is_empty() {
            return None;
        }
        let exact = self.exact.get(wanted.path).into_iter().flatten();
        let text = LazyCell::new(|| readable(wanted.path));
        let regex = self.matched().iter().filter(|matched| matched.regex.is_match(&text));
        let regex = regex.flat_map(|matched| &matched.list);
        let prefix = self.prefixes(wanted.path).flatten();
        let any = self.any.iter();
        exact
            .chain(regex)
            .chain(prefix)
            .chain(any)
            .find(|entry| entry.matches(wanted, parameters))
            .map(|entry| &entry.rule)
    }

    /// The lists of those prefixes that the path has, the longest first.
    fn prefixes<'a>(&'a self, path: &'a [u8]) -> impl Iterator<Item = &'a List> {
        let within = &path[..path.len().min(self.longest + 1)];
        let whole = (path.len() <= self.longest).then_some(path);
        let cuts = within.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at.max(1)]);
        let root = (path.len() == 1).then_some(());
        // The root is its own only cut.
        let candidates = whole.filter(|_| root.is_none()).into_iter().chain(cuts);
        candidates.filter(|_| !self.prefix.is_empty()).filter_map(|prefix| self.prefix.get(prefix))
    }

    /// Change the list of a path.
    fn change(&mut self, path: &PathMatch, change: impl FnOnce(&mut List)) {
        match path {
            PathMatch::Any => change(&mut self.any),
            PathMatch::Exact(path) => self.exact.change(&path.as_bytes().into(), change, |list| list.is_empty()),
            PathMatch::Prefix(prefix) => {
                self.longest = self.longest.max(prefix.len());
                self.prefix.change(&prefix.as_bytes().into(), change, |list| list.is_empty());
            }
            PathMatch::Regex(text) => self.change_regex(text, change),
        }
    }

    fn change_regex(&mut self, text: &str, change: impl FnOnce(&mut List)) {
        let before = |known: &Matched| (Reverse(known.text.len()), &*known.text).cmp(&(Reverse(text.len()), text));
        let all = Arc::make_mut(self.regex.get_or_insert_default());
        let at = match all.binary_search_by(before) {
            Ok(at) => at,
            Err(at) => {
                // Validation has compiled it once.
                let Some(regex) = Pattern::compile(text) else { return };
                all.insert(at, Matched { text: text.to_owned(), regex, list: List::new() });
                at
            }
        };
        change(&mut all[at].list);
        if all[at].list.is_empty() {
            all.remove(at);
        }
    }
}

impl Table {
    /// Go over to routes that are other than before.
    pub(crate) fn turn(&mut self, turned: &[Turned<'_>]) {
        let mut touched: BTreeSet<(Option<ServerName>, PathMatch)> = BTreeSet::new();
        let mut touch = |spec: &Route| touched.extend(places(spec).map(|host| (host.cloned(), spec.path.clone())));
        for &(name, after) in turned {
            let Some((route, is_timed)) = after else {
                if let Some(rule) = self.rules.remove(name) {
                    self.asks.take_out(&rule.spec);
                    self.early -= usize::from(rule.spec.early_data);
                    touch(&rule.spec);
                }
                continue;
            };
            let rule = Arc::new(Rule::compile(Some(name), Arc::clone(route)).timed(is_timed));
            touch(route);
            self.add(&rule);
            self.asks.add(route);
            self.early += usize::from(route.early_data);
            if let Some(rule) = self.rules.insert(name.clone(), rule) {
                self.asks.take_out(&rule.spec);
                self.early -= usize::from(rule.spec.early_data);
                touch(&rule.spec);
            }
        }
        for (host, path) in touched {
            self.settle(host.as_ref(), &path);
        }
    }

    /// Put a list in order, without what is no route any more.
    fn settle(&mut self, host: Option<&ServerName>, path: &PathMatch) {
        let rules = self.rules.clone();
        let current = |rule: &Arc<Rule>| rule.route.as_ref().and_then(|name| rules.get(name));
        self.change(host, path, |list| {
            list.retain(|entry| current(&entry.rule).is_some_and(|rule| Arc::ptr_eq(rule, &entry.rule)));
            list.sort_by_cached_key(Entry::order);
        });
    }

    fn add(&mut self, rule: &Arc<Rule>) {
        let spec = &rule.spec;
        let sources: Vec<Option<IpNet>> = match spec.source.as_slice() {
            [] => vec![None],
            some => some.iter().map(|network| Some(network.trunc())).collect(),
        };
        let has_detail = !(spec.method.is_empty() && spec.headers.is_empty() && spec.query.is_empty());
        for host in places(spec) {
            let entry = |source: &Option<IpNet>| {
                let more = (source.is_some() || has_detail).then(|| Box::new(More { source: *source, has_detail }));
                Entry { rule: Arc::clone(rule), more }
            };
            let entries = sources.iter().map(entry);
            self.change(host, &spec.path, |list| list.extend(entries));
        }
    }

    /// Change the list of a host and a path.
    fn change(&mut self, host: Option<&ServerName>, path: &PathMatch, change: impl FnOnce(&mut List)) {
        match host {
            Some(ServerName::Exact(name)) => {
                self.exact.change(&name.as_bytes().into(), |paths| paths.change(path, change), Paths::is_empty)
            }
            Some(ServerName::Under(suffix)) => {
                self.under.change(&suffix.as_bytes().into(), |paths| paths.change(path, change), Paths::is_empty);
            }
            None => self.any.change(path, change),
        }
    }

    /// The most specific route that matches.
    pub fn find<'a>(&'a self, wanted: &Wanted<'a>) -> Option<&'a Arc<Rule>> {
        let (host, parameters) = (wanted.host, Parameters::default());
        if !self.exact.is_empty()
            && let Some(rule) = self.exact.get(host.as_bytes()).and_then(|paths| paths.find(wanted, &parameters))
        {
            return Some(rule);
        }
        let mut wild = self.wild(host.as_bytes());
        wild.find_map(|paths| paths.find(wanted, &parameters)).or_else(|| self.any.find(wanted, &parameters))
    }

    /// The routes of the wildcards that cover a host, the longest first.
    fn wild<'a>(&'a self, host: &'a [u8]) -> impl Iterator<Item = &'a Paths> {
        let host = if self.under.is_empty() { &[] } else { host };
        let dots = host.iter().enumerate().filter(|(_, byte)| **byte == b'.');
        dots.filter_map(|(dot, _)| self.under.get(&host[dot + 1..]))
    }

    /// Whether there are so many routes that it pays to read ahead what requests need of them.
    pub(crate) fn has_many_routes(&self) -> bool {
        self.rules.len() > MANY_ROUTES
    }

    /// The routes that a request to this host takes first.
    pub(super) fn paths<'a>(&'a self, host: &'a [u8]) -> &'a Paths {
        self.exact.get(host).or_else(|| self.wild(host).next()).unwrap_or(&self.any)
    }

    /// What routes ask for beyond host, path and method.
    pub fn asks(&self) -> &Asks {
        &self.asks
    }

    /// Whether one of them allows early data.
    pub fn allows_early(&self) -> bool {
        self.early > 0
    }

    /// The route of that name.
    pub(crate) fn rule(&self, name: &Name) -> Option<&Arc<Rule>> {
        self.rules.get(name)
    }

    /// Every route, by name.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.iter().map(|(_, rule)| rule)
    }

    /// Whether a route leads where that target does.
    pub(crate) fn leads_to(&self, target: &Target) -> bool {
        let Some(name) = &target.route else { return false };
        self.rules.get(name).is_some_and(|rule| rule.leads_to(target))
    }
}

/// The hosts that a route asks for; none: any.
fn places(spec: &Route) -> impl Iterator<Item = Option<&ServerName>> {
    spec.host.iter().map(Some).chain(spec.host.is_empty().then_some(None))
}

impl Rule {
    /// What of this route the request doesn't have; none: it matches.
    pub fn mismatch(&self, wanted: &Wanted<'_>) -> Option<Mismatch> {
        let spec = &self.spec;
        if !spec.host.is_empty() && !spec.host.iter().any(|host| host.covers(wanted.host)) {
            return Some(Mismatch::Host);
        }
        let path = match &spec.path {
            PathMatch::Any => true,
            PathMatch::Exact(path) => path.as_bytes() == wanted.path,
            PathMatch::Prefix(prefix) if prefix == "/" => true,
            PathMatch::Prefix(prefix) => {
                let rest = wanted.path.strip_prefix(prefix.as_bytes());
                rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
            }
            PathMatch::Regex(text) => {
                Pattern::compile(text).is_some_and(|regex| regex.is_match(&readable(wanted.path)))
            }
        };
        if !path {
            return Some(Mismatch::Path);
        }
        let within = spec.source.is_empty() || spec.source.iter().any(|network| network.contains(&wanted.client));
        detail(spec, wanted, &Parameters::default()).or((!within).then_some(Mismatch::Source))
    }
}

#[cfg(test)]
mod tests;
