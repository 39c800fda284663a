//! Which route a request takes: by host, path, method, fields, query and client. Compiled once for each generation.
//!
//! Of the routes that match, the most specific wins, whatever the order of the document: an exact host, then the longer
//! wildcard, then any; an exact path, then the longer regular expression (of equally long ones the first in the
//! alphabet), then the longer prefix, then any; one that names methods; one that asks for more fields and query parameters; the longest client network. Two that ask for
//! exactly the same are refused when the document is validated. A lookup costs what the host and the path have in
//! labels and segments, whatever the number of routes; only regular expressions of one host are tried one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnet::IpNet;
use kakei_config::{Document, Name, PathMatch, Route, ServerName, ValueMatch};
use kakei_wire::message::Fields;
use regex_automata::meta::Regex;

use super::pattern;
use super::rule::Rule;
use crate::snapshot::Target;

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

/// What a route asks for beyond host and path.
#[derive(Clone, Debug)]
struct Entry {
    source: Option<IpNet>,
    rule: Arc<Rule>,
}

/// Routes of one host.
#[derive(Clone, Debug, Default)]
struct Paths {
    exact: HashMap<Box<[u8]>, Vec<Entry>, FixedState>,
    /// The longer text first.
    regex: Vec<(String, Regex, Vec<Entry>)>,
    prefix: HashMap<Box<[u8]>, Vec<Entry>, FixedState>,
    /// The longest prefix: what is longer need not be looked up.
    longest: usize,
    any: Vec<Entry>,
}

/// The HTTP routes of one listener.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rules: BTreeMap<Name, Arc<Rule>>,
    exact: HashMap<Arc<str>, Paths, FixedState>,
    /// By what stands behind `*.`.
    under: HashMap<Arc<str>, Paths, FixedState>,
    any: Paths,
}

impl PartialEq for Table {
    /// Everything else follows from the rules.
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules
    }
}

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
    fn matches(&self, wanted: &Wanted<'_>) -> bool {
        self.source.is_none_or(|source| source.contains(&wanted.client)) && detail(&self.rule.spec, wanted).is_none()
    }

    /// What comes first is looked at first.
    fn order(&self) -> impl Ord + use<> {
        let spec = &self.rule.spec;
        let source = self.source.map(|source| (std::cmp::Reverse(source.prefix_len()), source));
        let asks = std::cmp::Reverse(spec.headers.len() + spec.query.len());
        (spec.method.is_empty(), asks, source.is_none(), source, self.rule.route.clone())
    }
}

/// What of a route's method, fields and query the request doesn't have.
fn detail(spec: &Route, wanted: &Wanted<'_>) -> Option<Mismatch> {
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
    let parameter = |(name, value): (&String, &ValueMatch)| {
        parameters(wanted.query.unwrap_or_default()).any(|(key, found)| {
            key == name.as_bytes()
                && match value {
                    ValueMatch::Present => true,
                    ValueMatch::Exact(exact) => found == exact.as_bytes(),
                }
        })
    };
    (!spec.query.iter().all(parameter)).then_some(Mismatch::Query)
}

/// A query's parameters, decoded as forms are.
fn parameters(query: &str) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    })
}

fn decode(text: &str) -> Vec<u8> {
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
    fn find<'a>(&'a self, wanted: &Wanted<'a>) -> Option<&'a Arc<Rule>> {
        let exact = self.exact.get(wanted.path).into_iter().flatten();
        let regex = self.regex.iter().filter(|(_, regex, _)| regex.is_match(wanted.path)).flat_map(|(_, _, list)| list);
        let prefix = self.prefixes(wanted.path).flatten();
        let any = self.any.iter();
        exact.chain(regex).chain(prefix).chain(any).find(|entry| entry.matches(wanted)).map(|entry| &entry.rule)
    }

    /// The lists of those prefixes that the path has, the longest first.
    fn prefixes<'a>(&'a self, path: &'a [u8]) -> impl Iterator<Item = &'a Vec<Entry>> {
        let within = &path[..path.len().min(self.longest + 1)];
        let whole = (path.len() <= self.longest).then_some(path);
        let cuts = within.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at.max(1)]);
        let root = (path.len() == 1).then_some(());
        // The root is its own only cut.
        let candidates = whole.filter(|_| root.is_none()).into_iter().chain(cuts);
        candidates.filter(|_| !self.prefix.is_empty()).filter_map(|prefix| self.prefix.get(prefix))
    }

    fn at(&mut self, path: &PathMatch) -> &mut Vec<Entry> {
        match path {
            PathMatch::Any => &mut self.any,
            PathMatch::Exact(path) => self.exact.entry(path.as_bytes().into()).or_default(),
            PathMatch::Prefix(prefix) => {
                self.longest = self.longest.max(prefix.len());
                self.prefix.entry(prefix.as_bytes().into()).or_default()
            }
            PathMatch::Regex(text) => {
                let at = match self.regex.iter().position(|(known, _, _)| known == text) {
                    Some(at) => at,
                    None => {
                        let Some(regex) = pattern::compile(text) else { return &mut self.any };
                        self.regex.push((text.clone(), regex, Vec::new()));
                        self.regex.len() - 1
                    }
                };
                &mut self.regex[at].2
            }
        }
    }

    fn settle(&mut self) {
        self.regex.sort_by(|(a, _, _), (b, _, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        let regex = self.regex.iter_mut().map(|(_, _, list)| list);
        let lists = self.exact.values_mut().chain(self.prefix.values_mut()).chain(regex).chain([&mut self.any]);
        lists.for_each(|list| list.sort_by_cached_key(Entry::order));
    }
}

impl Table {
    /// The routes of a validated document that refine this listener. What is as it was is shared with `previous`.
    pub(crate) fn compile(
        listener: &Name,
        document: &Document,
        previous: Option<&Table>,
        timed: &BTreeSet<&Name>,
    ) -> Self {
        let mut table = Table::default();
        for (name, route) in document.routes.iter().filter(|(_, route)| route.listener == *listener) {
            let is_timed = timed.contains(name);
            let is_same = |rule: &&Arc<Rule>| rule.spec == *route && rule.is_timed == is_timed;
            let old = previous.and_then(|table| table.rules.get(name)).filter(is_same);
            let made = || Arc::new(Rule::compile(Some(name), route).timed(is_timed));
            let rule = old.cloned().unwrap_or_else(made);
            table.add(&rule);
            table.rules.insert(name.clone(), rule);
        }
        table.exact.values_mut().chain(table.under.values_mut()).for_each(Paths::settle);
        table.any.settle();
        table
    }

    fn add(&mut self, rule: &Arc<Rule>) {
        let spec = &rule.spec;
        let sources: Vec<Option<IpNet>> = match spec.source.as_slice() {
            [] => vec![None],
            some => some.iter().map(|network| Some(network.trunc())).collect(),
        };
        for source in sources {
            let entry = || Entry { source, rule: Arc::clone(rule) };
            for host in &spec.host {
                let paths = match host {
                    ServerName::Exact(name) => self.exact.entry(Arc::clone(name)).or_default(),
                    ServerName::Under(suffix) => self.under.entry(Arc::clone(suffix)).or_default(),
                };
                paths.at(&spec.path).push(entry());
            }
            if spec.host.is_empty() {
                self.any.at(&spec.path).push(entry());
            }
        }
    }

    /// The most specific route that matches.
    pub fn find<'a>(&'a self, wanted: &Wanted<'a>) -> Option<&'a Arc<Rule>> {
        let host = wanted.host;
        if !self.exact.is_empty()
            && let Some(rule) = self.exact.get(host).and_then(|paths| paths.find(wanted))
        {
            return Some(rule);
        }
        if !self.under.is_empty() {
            let suffixes = host.match_indices('.').map(|(dot, _)| &host[dot + 1..]);
            let found = suffixes.filter_map(|suffix| self.under.get(suffix)).find_map(|paths| paths.find(wanted));
            if found.is_some() {
                return found;
            }
        }
        self.any.find(wanted)
    }

    /// The route of that name.
    pub(crate) fn rule(&self, name: &Name) -> Option<&Arc<Rule>> {
        self.rules.get(name)
    }

    /// Every route, by name.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.values()
    }

    /// Whether a route leads where that target does.
    pub(crate) fn leads_to(&self, target: &Target) -> bool {
        let Some(name) = &target.route else { return false };
        self.rules.get(name).is_some_and(|rule| rule.leads_to(target))
    }
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
            PathMatch::Regex(text) => pattern::compile(text).is_some_and(|regex| regex.is_match(wanted.path)),
        };
        if !path {
            return Some(Mismatch::Path);
        }
        let within = spec.source.is_empty() || spec.source.iter().any(|network| network.contains(&wanted.client));
        detail(spec, wanted).or((!within).then_some(Mismatch::Source))
    }
}

#[cfg(test)]
mod tests;
