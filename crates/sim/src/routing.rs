//! The table of routes beside a naive matcher: every route is looked at for every request, and the best one is taken by
//! the order that the documentation says. Documents and requests are drawn from arbitrary bytes over a small alphabet,
//! so that much matches and much nearly does.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use kakei_config::{Document, Listener, Name, PathMatch, Protocol, Route, ServerName, ValueMatch};
use kakei_proxy::snapshot::{Decided, Generation, HttpListener, Imagined, Shared, Snapshot};

const HOSTS: [&str; 7] = ["a.test", "b.a.test", "*.test", "*.a.test", "*.b.a.test", "c.b.a.test", "test"];
const PREFIXES: [&str; 8] = ["/", "/a", "/a/b", "/ab", "/a/b/c", "/b", "/a b", "/A"];
const EXACT: [&str; 6] = ["/", "/a", "/a/", "/a/b", "/b", "/ab"];
const METHODS: [&str; 3] = ["GET", "POST", "PURGE"];
const FIELDS: [&str; 3] = ["x-a", "x-b", "x-c"];
const NETWORKS: [&str; 5] = ["10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "0.0.0.0/0", "192.0.2.0/24"];
const CLIENTS: [[u8; 4]; 4] = [[10, 1, 1, 9], [10, 1, 9, 9], [10, 9, 9, 9], [192, 0, 2, 9]];
const NAMES: [&str; 7] = ["a.test", "b.a.test", "c.b.a.test", "d.c.b.a.test", "x.test", "test", "other"];
const PATHS: [&str; 12] =
    ["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/ab/c", "/b/a", "/a%20b/x", "//a//b", "/a/../b", "/A/b"];

/// A regular expression, and what it matches.
type Pattern = (&'static str, fn(&[u8]) -> bool);

/// Regular expressions, each with what it matches by hand.
const PATTERNS: [Pattern; 5] = [
    ("/[ab]+", |path| path.len() > 1 && path[0] == b'/' && path[1..].iter().all(|byte| matches!(byte, b'a' | b'b'))),
    ("/a(/.*)?", |path| path == b"/a" || path.starts_with(b"/a/")),
    ("/.*b", |path| path[0] == b'/' && path.len() > 1 && path.ends_with(b"b")),
    ("/a/.", |path| path.len() == 4 && path.starts_with(b"/a/")),
    ("/b.*", |path| path.starts_with(b"/b")),
];

/// Bytes to draw from; zeros where there are no more.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn below(&mut self, most: usize) -> usize {
        usize::from(self.byte()) % most
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Some of them, as a rule few.
    fn some<T: Copy + PartialEq>(&mut self, of: &[T]) -> Vec<T> {
        let mut chosen = Vec::new();
        for _ in 0..[0, 0, 0, 1, 1, 2][self.below(6)] {
            let one = self.one(of);
            if !chosen.contains(&one) {
                chosen.push(one);
            }
        }
        chosen
    }
}

/// A request that is looked up.
#[derive(Clone, Debug)]
struct Request {
    client: IpAddr,
    method: &'static str,
    url: String,
    fields: Vec<(String, String)>,
    query: Vec<(&'static str, &'static str)>,
}

/// Draw a document and requests, and compare what becomes of each. How many were compared; none where the document is
/// one that is refused.
///
/// # Errors
/// A request that takes another route than it should.
pub fn check_routes(data: &[u8]) -> Result<usize, String> {
    let mut script = Script(data);
    let document = document(&mut script);
    if kakei_config::check(&document).is_err() {
        return Ok(0);
    }
    let shared = Shared { workers: 1, balance_seed: 7 };
    let first = Snapshot::compile(&document, Generation(1), shared, None);
    // The same by way of another generation, of which parts are taken over.
    let mut without = document.clone();
    without.routes.retain(|name, _| !name.as_str().ends_with('1'));
    let between = Snapshot::compile(&without, Generation(2), shared, Some(&first));
    let third = Snapshot::compile(&document, Generation(3), shared, Some(&between));
    let requests: Vec<Request> = (0..24).map(|_| request(&mut script)).collect();
    for (document, snapshot) in [(&document, &first), (&without, &between), (&document, &third)] {
        let http =
            snapshot.listeners.values().next().and_then(|listener| listener.http.as_ref()).ok_or("no listener")?;
        requests.iter().try_for_each(|request| compare(document, http, request))?;
    }
    Ok(requests.len())
}

fn compare(document: &Document, http: &HttpListener, request: &Request) -> Result<(), String> {
    let Request { client, method, url, fields, .. } = request;
    let decided = http.decide(&Imagined { client: *client, method, url, fields });
    let found = decided.rule.as_ref().and_then(|rule| rule.route.clone());
    let mut matching: Vec<(Rank, &Name)> =
        document.routes.iter().filter_map(|(name, route)| Some((rank(route, request, &decided)?, name))).collect();
    matching.sort();
    // Of those that come to the same, any may be taken: they differ in what the order says nothing of.
    let best = matching.first().map(|(rank, _)| rank.clone());
    let may: Vec<&Name> =
        matching.iter().filter(|(rank, _)| Some(rank) == best.as_ref()).map(|(_, name)| *name).collect();
    let is_right = match &found {
        Some(found) => may.contains(&found),
        None => may.is_empty(),
    };
    match is_right {
        true => Ok(()),
        false => {
            let routes = serde_json::to_string(&document.routes).unwrap_or_default();
            Err(format!("{request:?} takes {found:?}, and should take one of {may:?}: {routes}"))
        }
    }
}

/// How specific a match is: what comes first wins.
type Rank = (u8, Reverse<usize>, u8, Reverse<usize>, String, bool, Reverse<usize>, Reverse<Option<u8>>);

/// How a route matches; none: it doesn't.
fn rank(route: &Route, request: &Request, decided: &Decided) -> Option<Rank> {
    let (host, path) = (decided.host.as_str(), decided.path.as_bytes());
    let hosts = route.host.iter().filter_map(|pattern| match pattern {
        ServerName::Exact(name) => (**name == *host).then_some((0, Reverse(0))),
        ServerName::Under(suffix) => {
            let rest = host.strip_suffix(&**suffix)?.strip_suffix('.')?;
            (!rest.is_empty()).then_some((1, Reverse(suffix.len())))
        }
    });
    let by_host = if route.host.is_empty() { (2, Reverse(0)) } else { hosts.min()? };
    let by_path = match &route.path {
        PathMatch::Exact(exact) => (exact.as_bytes() == path).then_some((0, Reverse(0), String::new())),
        PathMatch::Regex(text) => {
            let (_, matches) = PATTERNS.iter().find(|(known, _)| known == text)?;
            matches(path).then_some((1, Reverse(text.len()), text.clone()))
        }
        PathMatch::Prefix(prefix) => {
            let rest = path.strip_prefix(prefix.trim_end_matches('/').as_bytes())?;
            let is_whole = rest.is_empty() || rest[0] == b'/';
            is_whole.then_some((2, Reverse(prefix.len()), String::new()))
        }
        PathMatch::Any => Some((3, Reverse(0), String::new())),
    }?;
    let has = |given: &[(String, String)], name: &str, value: &ValueMatch| {
        given.iter().any(|(known, said)| {
            known == name && (*value == ValueMatch::Present || *value == ValueMatch::Exact(said.clone()))
        })
    };
    let query: Vec<(String, String)> =
        request.query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let is_asked_so = (route.method.is_empty() || route.method.iter().any(|method| method == request.method))
        && route.headers.iter().all(|(name, value)| has(&request.fields, name, value))
        && route.query.iter().all(|(name, value)| has(&query, name, value));
    if !is_asked_so {
        return None;
    }
    let networks = route.source.iter().filter(|network| network.contains(&request.client));
    let by_source = if route.source.is_empty() { None } else { Some(networks.map(IpNet::prefix_len).max()?) };
    let asks = route.headers.len() + route.query.len();
    Some((
        by_host.0,
        by_host.1,
        by_path.0,
        by_path.1,
        by_path.2,
        route.method.is_empty(),
        Reverse(asks),
        Reverse(by_source),
    ))
}

fn document(script: &mut Script<'_>) -> Document {
    let listener =
        Listener { protocol: Protocol::Http, bind: vec![(Ipv4Addr::LOCALHOST, 80).into()], ..Listener::default() };
    let count = 1 + script.below(14);
    let routes = (0..count).map(|number| (Name::new(format!("r{number}")), route(script)));
    Document { listeners: [("web".into(), listener)].into(), routes: routes.collect(), ..Document::default() }
}

fn route(script: &mut Script<'_>) -> Route {
    let path = match script.below(8) {
        0 | 1 => PathMatch::Exact(script.one(&EXACT).to_owned()),
        2 | 3 => PathMatch::Regex(script.one(&PATTERNS.map(|(text, _)| text)).to_owned()),
        4..=6 => PathMatch::Prefix(script.one(&PREFIXES).to_owned()),
        _ => PathMatch::Any,
    };
    let asked = |script: &mut Script<'_>| {
        let names = script.some(&FIELDS);
        let value = |script: &mut Script<'_>| match script.below(3) {
            0 => ValueMatch::Present,
            value => ValueMatch::Exact(value.to_string()),
        };
        names.into_iter().map(|name| (name.to_owned(), value(script))).collect()
    };
    let host = script.some(&HOSTS).into_iter().map(|host| match host.strip_prefix("*.") {
        Some(suffix) => ServerName::Under(suffix.into()),
        None => ServerName::Exact(host.into()),
    });
    Route {
        listener: "web".into(),
        host: host.collect(),
        path,
        method: script.some(&METHODS).into_iter().map(str::to_owned).collect(),
        headers: asked(script),
        query: asked(script),
        source: script.some(&NETWORKS).into_iter().filter_map(|network| network.parse().ok()).collect(),
        respond: Some(kakei_config::Respond { status: 204, ..Default::default() }.into()),
        ..Route::default()
    }
}

fn request(script: &mut Script<'_>) -> Request {
    let (host, path) = (script.one(&NAMES), script.one(&PATHS));
    let values = ["1", "2", "3"];
    let fields: Vec<_> =
        script.some(&FIELDS).into_iter().map(|name| (name.to_owned(), script.one(&values).to_owned())).collect();
    let query: Vec<_> = script.some(&FIELDS).into_iter().map(|name| (name, script.one(&values))).collect();
    let pairs: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let query_text = if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
    Request {
        client: IpAddr::from(script.one(&CLIENTS)),
        method: script.one(&METHODS),
        url: format!("http://{host}{path}{query_text}"),
        fields,
        query,
    }
}
