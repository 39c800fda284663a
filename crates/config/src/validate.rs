//! What concerns several objects: names that must exist, addresses and networks that must not meet.
//! It sees the model only; places are looked up in the tree when something is wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::diagnostics::{Collector, Diagnostic, quoted};
use crate::model::{Cluster, Document, Name};
use crate::schema::{self, Step, listed};
use crate::tree::{Node, Value};

/// Reports what the objects of the document do to each other.
pub(crate) fn document(document: &Document, root: &Node, problems: &mut Collector) {
    let mut check = Check { document, root, problems };
    check.listeners();
    check.binds();
    check.routes();
    check.sources();
    for (name, cluster) in &document.clusters {
        check.backends(name, cluster);
    }
}

struct Check<'a, 'p> {
    document: &'a Document,
    root: &'a Node,
    problems: &'p mut Collector,
}

impl<'a> Check<'a, '_> {
    fn listeners(&mut self) {
        let document = self.document;
        for (name, listener) in &document.listeners {
            if let Some(cluster) = &listener.cluster {
                let way = [Step::Key("listeners"), Step::Key(name.as_str()), Step::Key("cluster")];
                self.exists("cluster", cluster, &way);
            }
        }
    }

    fn routes(&mut self) {
        let document = self.document;
        for (name, route) in &document.routes {
            let way = |key| [Step::Key("routes"), Step::Key(name.as_str()), Step::Key(key)];
            self.exists("listener", &route.listener, &way("listener"));
            self.exists("cluster", &route.cluster, &way("cluster"));
        }
    }

    /// A name that couldn't be read is empty here, and was reported where it stands.
    fn exists(&mut self, kind: &str, name: &Name, way: &[Step<'_>]) {
        let document = self.document;
        let known = match kind {
            "listener" => document.listeners.contains_key(name),
            _ => document.clusters.contains_key(name),
        };
        if known || name.as_str().is_empty() {
            return;
        }
        let names: Vec<&str> = match kind {
            "listener" => document.listeners.keys().map(Name::as_str).take(MAX_CANDIDATES).collect(),
            _ => document.clusters.keys().map(Name::as_str).take(MAX_CANDIDATES).collect(),
        };
        if !self.problems.has_room() {
            self.problems.report(Diagnostic::new(String::new(), String::new(), None));
            return;
        }
        let meant = self.problems.suggester.nearest(name.as_str(), names.iter().copied());
        let message = format!("{}: there is no {kind} `{}`", owner(way), quoted(name.as_str()));
        let diagnostic = self.report(message, way);
        match meant {
            Some(meant) => diagnostic.help(format!("did you mean `{meant}`?")),
            None if names.is_empty() => diagnostic.help(format!("the document has no {kind}s; add `[{kind}s.{name}]`")),
            None if names.len() <= 8 => diagnostic.help(format!("{kind}s are {}", listed(names.into_iter()))),
            None => diagnostic,
        };
    }

    fn binds(&mut self) {
        let document = self.document;
        let mut taken: BTreeMap<SocketAddr, [Step<'a>; 4]> = BTreeMap::new();
        for (name, listener) in &document.listeners {
            for (n, address) in listener.bind.iter().enumerate() {
                let way = [Step::Key("listeners"), Step::Key(name.as_str()), Step::Key("bind"), Step::Item(n)];
                match taken.get(address) {
                    Some(first) if first[1] == way[1] => {
                        self.clash(format!("listener `{name}`: `{address}` is bound twice"), &way, first);
                    }
                    Some(first) => {
                        let other = object(first);
                        let message = format!("listener `{name}`: `{address}` is bound by listener `{other}` already");
                        self.clash(message, &way, first);
                    }
                    None => drop(taken.insert(*address, way)),
                }
            }
        }
    }

    fn sources(&mut self) {
        let document = self.document;
        let mut taken: BTreeMap<_, [Step<'a>; 4]> = BTreeMap::new();
        for (name, route) in &document.routes {
            for (n, source) in route.source.iter().enumerate() {
                let way = [Step::Key("routes"), Step::Key(name.as_str()), Step::Key("source"), Step::Item(n)];
                match taken.get(&(&route.listener, source)) {
                    Some(first) if first[1] == way[1] => {
                        self.clash(format!("route `{name}`: the source `{source}` stands twice"), &way, first);
                    }
                    Some(first) => {
                        let (other, listener) = (object(first), &route.listener);
                        let message = format!(
                            "route `{name}`: the source `{source}` of listener `{listener}` is matched by route `{other}` already"
                        );
                        self.clash(message, &way, first).help("two routes of a listener can't match exactly the same");
                    }
                    None => drop(taken.insert((&route.listener, source), way)),
                }
            }
        }
    }

    fn backends(&mut self, name: &'a Name, cluster: &'a Cluster) {
        let way = |n| [Step::Key("clusters"), Step::Key(name.as_str()), Step::Key("backends"), Step::Item(n)];
        let mut names: BTreeMap<&Name, usize> = BTreeMap::new();
        let mut addresses: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        for (n, backend) in cluster.backends.iter().enumerate() {
            let (same_name, same_address) = (names.get(&backend.name), addresses.get(&backend.address));
            if let Some(first) = same_address {
                let message = format!("cluster `{name}`: two backends have the address `{}`", backend.address);
                self.clash(message, &way(n), &way(*first)).help("a backend's share is its `weight`");
            } else if let Some(first) = same_name {
                let message =
                    format!("cluster `{name}`: two backends have the name `{}`", quoted(backend.name.as_str()));
                self.clash(message, &way(n), &way(*first));
            }
            names.entry(&backend.name).or_insert(n);
            addresses.entry(backend.address).or_insert(n);
        }
    }

    fn report(&mut self, message: String, way: &[Step<'_>]) -> &mut Diagnostic {
        let (pointer, node) = self.find(way);
        let span = node.span.clone();
        self.problems.report(Diagnostic::new(message, pointer, Some(span)))
    }

    /// Two places that can't both stand.
    fn clash(&mut self, message: String, one: &[Step<'_>], other: &[Step<'_>]) -> &mut Diagnostic {
        let ((pointer, node), (first_pointer, first)) = (self.find(one), self.find(other));
        let (span, first_span) = (node.span.clone(), first.span.clone());
        let diagnostic = Diagnostic::new(message, pointer, Some(span));
        self.problems.report(diagnostic).and(first_pointer, Some(first_span), "the other one")
    }

    /// The node at the end of a way through the model, as far as the tree has it, and its pointer.
    fn find(&self, way: &[Step<'_>]) -> (String, &'a Node) {
        let mut node = self.root;
        let mut steps = Vec::with_capacity(way.len());
        for step in way {
            let next = match (*step, &node.value) {
                (Step::Key(key), value) => value.get(key).map(|node| (Step::Key(key), node)),
                (Step::Item(n), Value::List(items)) => {
                    let kept = self.problems.kept.get(&schema::pointer(&steps));
                    let n = kept.and_then(|kept| kept.get(n).copied()).unwrap_or(n);
                    items.get(n).map(|node| (Step::Item(n), node))
                }
                (Step::Item(_), _) => None,
            };
            let Some((step, found)) = next else {
                break;
            };
            steps.push(step);
            node = found;
        }
        (schema::pointer(&steps), node)
    }
}

/// How many names are looked through for one that was meant.
const MAX_CANDIDATES: usize = 10_000;

fn owner(way: &[Step<'_>]) -> String {
    schema::subject(&way[..2])
}

fn object<'a>(way: &[Step<'a>; 4]) -> &'a str {
    match way[1] {
        Step::Key(name) => name,
        Step::Item(_) => "",
    }
}
