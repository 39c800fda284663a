//! Where a listener's clients go: by server name, offered protocol and source network. A generation's are made of those
//! before it and of the routes that are other than there. Looks nothing up elsewhere and knows no connection.
//!
//! Of the routes that match, the most specific wins, whatever the order of the document: an exact server name, then
//! the longer wildcard, then any; then one that names protocols; then the longest source network. Two that ask for
//! exactly the same are refused when the document is validated.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use kakei_config::{Name, Route, ServerName, Sorted};

use crate::snapshot::Target;
use crate::trie::Trie;

/// What is known of a client when it is routed.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Who it is.
    pub source: IpAddr,
    /// The server name of its ClientHello: lower case, without a trailing dot.
    pub sni: Option<&'a str>,
    /// The protocols that its ClientHello offers.
    pub alpn: &'a [Vec<u8>],
}

impl Asked<'_> {
    /// A client of whom only the address is known.
    pub fn source(source: IpAddr) -> Self {
        Asked { source, sni: None, alpn: &[] }
    }
}

/// A route that was looked at.
#[derive(Clone, Debug)]
pub struct Considered<'a> {
    /// The server name that it asks for.
    pub sni: Option<ServerName>,
    /// The protocol that it asks for.
    pub alpn: Option<&'a str>,
    /// The network that it asks for.
    pub source: Option<&'a IpNet>,
    /// Where it leads.
    pub target: &'a Target,
    /// Whether the client has all of it.
    pub matches: bool,
}

/// One way to match a route.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    alpn: Option<Box<str>>,
    source: Option<IpNet>,
    target: Arc<Target>,
}

/// The routes of one listener. Copies share what they have in common.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    known: Sorted<Name, Known>,
    exact: Trie<Arc<str>, Vec<Entry>>,
    /// By what stands behind `*.`.
    under: Trie<Arc<str>, Vec<Entry>>,
    any: Arc<Vec<Entry>>,
    /// How many of them ask for what only a ClientHello says.
    hello: usize,
}

/// A route, and where it leads.
#[derive(Clone, Debug)]
struct Known {
    spec: Arc<Route>,
    target: Arc<Target>,
}

impl PartialEq for Routes {
    /// Everything else follows from the routes.
    fn eq(&self, other: &Self) -> bool {
        let same = |(_, a, b): (&Name, Option<&Known>, Option<&Known>)| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(&a.spec, &b.spec) || a.spec == b.spec,
            _ => false,
        };
        self.known.len() == other.known.len() && self.known.differences(&other.known).all(same)
    }
}

/// A route as it is from now on; none: it is gone.
pub(crate) type Turned<'a> = (&'a Name, Option<&'a Arc<Route>>);

impl Entry {
    fn matches(&self, asked: &Asked<'_>) -> bool {
        let offered = |alpn: &str| asked.alpn.iter().any(|offered| offered == alpn.as_bytes());
        self.alpn.as_deref().is_none_or(offered) && self.source.is_none_or(|source| source.contains(&asked.source))
    }

    /// What comes first is looked at first.
    fn order(&self) -> impl Ord + use<> {
        let source = self.source.map(|source| (std::cmp::Reverse(source.prefix_len()), source));
        (self.alpn.is_none(), source.is_none(), source, self.alpn.clone())
    }
}

impl Routes {
    /// Go over to routes that are other than before.
    pub(crate) fn turn(&mut self, turned: &[Turned<'_>]) {
        let mut touched: BTreeSet<Option<ServerName>> = BTreeSet::new();
        for &(name, after) in turned {
            // Validation sees to it that only routes of HTTP listeners have no cluster.
            let after = after.and_then(|spec| Some((spec, spec.cluster.clone()?)));
            let known = after.map(|(spec, cluster)| {
                let target = Target { route: Some(name.clone()), cluster, on_change: spec.on_change };
                Known { spec: Arc::clone(spec), target: Arc::new(target) }
            });
            if let Some(known) = &known {
                self.hello += usize::from(asks_hello(&known.spec));
                touched.extend(names(&known.spec));
                self.add(known);
            }
            let before = match known {
                Some(known) => self.known.insert(name.clone(), known),
                None => self.known.remove(name),
            };
            if let Some(before) = before {
                self.hello -= usize::from(asks_hello(&before.spec));
                touched.extend(names(&before.spec));
            }
        }
        touched.iter().for_each(|sni| self.settle(sni.as_ref()));
    }

    fn add(&mut self, known: &Known) {
        let entries = entries(&known.spec.alpn, &known.spec.source, &known.target);
        for sni in names(&known.spec) {
            self.change(sni.as_ref(), |list| list.extend(entries.iter().cloned()));
        }
    }

    /// Put a list in order, without what is no route any more.
    fn settle(&mut self, sni: Option<&ServerName>) {
        let known = self.known.clone();
        let current = |target: &Target| Some(&known.get(target.route.as_ref()?)?.target);
        self.change(sni, |list| {
            list.retain(|entry| current(&entry.target).is_some_and(|target| Arc::ptr_eq(target, &entry.target)));
            list.sort_by_cached_key(Entry::order);
        });
    }

    /// Change the list of a server name.
    fn change(&mut self, sni: Option<&ServerName>, change: impl FnOnce(&mut Vec<Entry>)) {
        match sni {
            Some(ServerName::Exact(name)) => self.exact.change(name, change, Vec::is_empty),
            Some(ServerName::Under(suffix)) => self.under.change(suffix, change, Vec::is_empty),
            None => change(Arc::make_mut(&mut self.any)),
        }
    }

    /// The most specific route that matches.
    pub fn find<'a>(&'a self, asked: &Asked<'a>) -> Option<&'a Arc<Target>> {
        let lists = asked.sni.into_iter().flat_map(|sni| self.named(sni)).chain([&*self.any]);
        lists.flatten().find(|entry| entry.matches(asked)).map(|entry| &entry.target)
    }

    /// The lists of those that ask for this server name, the most specific first.
    fn named<'a>(&'a self, sni: &'a str) -> impl Iterator<Item = &'a Vec<Entry>> {
        let suffixes = sni.match_indices('.').map(|(dot, _)| &sni[dot + 1..]);
        self.exact.get(sni).into_iter().chain(suffixes.filter_map(|suffix| self.under.get(suffix)))
    }

    /// Whether any of them asks for what only a ClientHello says.
    pub fn reads_hello(&self) -> bool {
        self.hello > 0
    }

    /// Every way to match one of them, in the order in which they are looked at: what `explain` shows.
    pub fn considered<'a>(&'a self, asked: Asked<'a>) -> Vec<Considered<'a>> {
        let exact = self.exact.iter().map(|(name, list)| (ServerName::Exact(Arc::clone(name)), list));
        let under = self.under.iter().map(|(name, list)| (ServerName::Under(Arc::clone(name)), list));
        let mut lists: Vec<(Option<ServerName>, &Vec<Entry>)> =
            exact.chain(under).map(|(name, list)| (Some(name), list)).collect();
        lists.sort_by_key(|(name, _)| match name {
            Some(ServerName::Exact(name)) => (0, 0, Some(Arc::clone(name))),
            Some(ServerName::Under(suffix)) => (1, usize::MAX - suffix.len(), Some(Arc::clone(suffix))),
            None => (2, 0, None),
        });
        lists.push((None, &*self.any));
        let each = lists.into_iter().flat_map(|(sni, list)| {
            let named = sni.as_ref().is_none_or(|name| asked.sni.is_some_and(|sni| name.covers(sni)));
            list.iter().map(move |entry| Considered {
                sni: sni.clone(),
                alpn: entry.alpn.as_deref(),
                source: entry.source.as_ref(),
                target: &entry.target,
                matches: named && entry.matches(&asked),
            })
        });
        each.collect()
    }

    /// Whether a route leads where that one did.
    pub(crate) fn leads_to(&self, target: &Target) -> bool {
        let known = target.route.as_ref().and_then(|name| self.known.get(name));
        known.is_some_and(|known| known.target.is_as(target))
    }
}

/// The server names that a route asks for; none: any.
fn names(spec: &Route) -> impl Iterator<Item = Option<ServerName>> {
    spec.sni.iter().cloned().map(Some).chain(spec.sni.is_empty().then_some(None))
}

fn asks_hello(spec: &Route) -> bool {
    !spec.sni.is_empty() || !spec.alpn.is_empty()
}

/// The ways to match that a route's protocols and networks make, each with each.
fn entries(alpn: &[String], source: &[IpNet], target: &Arc<Target>) -> Vec<Entry> {
    let alpn: Vec<Option<Box<str>>> = match alpn {
        [] => vec![None],
        some => some.iter().map(|protocol| Some(protocol.as_str().into())).collect(),
    };
    let source: Vec<Option<IpNet>> = match source {
        [] => vec![None],
        some => some.iter().map(|network| Some(network.trunc())).collect(),
    };
    let entry = |alpn: &Option<Box<str>>, source: &Option<IpNet>| Entry {
        alpn: alpn.clone(),
        source: *source,
        target: Arc::clone(target),
    };
    alpn.iter().flat_map(|alpn| source.iter().map(move |source| entry(alpn, source))).collect()
}

#[cfg(test)]
mod tests {
    use kakei_config::Objects;
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 5] = ["a.example.com", "example.com", "b.a.example.com", "x.test", "com"];
    const NETWORKS: [&str; 4] = ["192.0.2.0/24", "192.0.2.128/25", "0.0.0.0/0", "2001:db8::/32"];
    const PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];

    fn server_name() -> impl Strategy<Value = ServerName> {
        (0..NAMES.len(), any::<bool>()).prop_map(|(at, wild)| match wild {
            true => ServerName::Under(NAMES[at].into()),
            false => ServerName::Exact(NAMES[at].into()),
        })
    }

    fn route() -> impl Strategy<Value = Route> {
        let some = |of: &'static [&'static str]| proptest::collection::vec(0..of.len(), 0..2);
        (proptest::collection::vec(server_name(), 0..3), some(&PROTOCOLS), some(&NETWORKS)).prop_map(
            |(sni, alpn, source)| Route {
                listener: "l".into(),
                source: source.into_iter().map(|at| NETWORKS[at].parse().unwrap()).collect(),
                sni,
                alpn: alpn.into_iter().map(|at| PROTOCOLS[at].to_owned()).collect(),
                cluster: Some("c".into()),
                ..Route::default()
            },
        )
    }

    /// How specific a route is for a client, by the rule as the documentation words it; none: it doesn't match.
    fn rank(route: &Route, asked: &Asked<'_>) -> Option<(usize, bool, Option<u8>)> {
        let name = |name: &ServerName| match (name, asked.sni?) {
            (ServerName::Exact(name), sni) => (**name == *sni).then_some(usize::MAX),
            (ServerName::Under(suffix), sni) => sni.ends_with(&format!(".{suffix}")).then_some(suffix.len()),
        };
        let sni = if route.sni.is_empty() { Some(0) } else { route.sni.iter().filter_map(name).max() }?;
        let offered = route.alpn.iter().any(|protocol| asked.alpn.iter().any(|offer| offer == protocol.as_bytes()));
        if !route.alpn.is_empty() && !offered {
            return None;
        }
        let within = route.source.iter().filter(|network| network.contains(&asked.source));
        let source = within.map(|network| network.prefix_len()).max();
        (route.source.is_empty() || source.is_some()).then_some((sni, !route.alpn.is_empty(), source))
    }

    proptest! {
        #[test]
        fn the_most_specific_route_wins(
            routes in proptest::collection::vec(route(), 0..8),
            before in proptest::collection::vec(proptest::option::of(route()), 0..10),
            sni in proptest::option::of(0..NAMES.len()),
            alpn in proptest::collection::vec(0..PROTOCOLS.len(), 0..2),
            source in prop_oneof![Just("192.0.2.1"), Just("192.0.2.200"), Just("2001:db8::1"), Just("198.51.100.1")],
        ) {
            let named = |(n, route): (usize, &Route)| (Name::new(format!("r{n}")), route.clone());
            let after: Objects<Route> = routes.iter().enumerate().map(named).collect();
            // Some routes are as they were before, the others other ones, or new.
            let before = before.iter().enumerate().filter_map(|(n, route)| Some(named((n, route.as_ref().or(routes.get(n))?))));
            let before: Objects<Route> = before.collect();
            let mut table = Routes::default();
            for (old, new) in [(&Objects::default(), &before), (&before, &after)] {
                table.turn(&old.differences(new).map(|(name, _, after)| (name, after)).collect::<Vec<_>>());
            }
            prop_assert_eq!(table.reads_hello(), after.values().any(asks_hello));
            let alpn: Vec<Vec<u8>> = alpn.into_iter().map(|at| PROTOCOLS[at].as_bytes().to_vec()).collect();
            let asked = Asked { source: source.parse().unwrap(), sni: sni.map(|at| NAMES[at]), alpn: &alpn };
            let best = after.values().filter_map(|route| rank(route, &asked)).max();
            let found = table.find(&asked).map(|target| target.route.clone().unwrap());
            let found_rank = found.as_ref().map(|name| rank(&after[name], &asked).expect("it matches"));
            prop_assert_eq!(found_rank, best);
            let considered = table.considered(asked);
            let first = considered.iter().find(|entry| entry.matches).map(|entry| entry.target.route.clone().unwrap());
            prop_assert_eq!(first, found);
        }
    }

    #[test]
    fn a_wildcard_covers_what_is_under_it_and_not_itself() {
        let route = Route {
            listener: "l".into(),
            sni: vec![ServerName::Under("example.com".into())],
            cluster: Some("c".into()),
            ..Route::default()
        };
        let mut table = Routes::default();
        table.turn(&[(&"r".into(), Some(&Arc::new(route)))]);
        let found = |sni| {
            let asked = Asked { sni: Some(sni), ..Asked::source("192.0.2.1".parse().unwrap()) };
            table.find(&asked).is_some()
        };
        assert!(found("a.example.com") && found("b.a.example.com"));
        assert!(!found("example.com") && !found("xexample.com") && !found("example.org"));
        assert!(table.reads_hello());
    }
}
