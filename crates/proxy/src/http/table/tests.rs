//! The table against a naive reference: the rule as the documentation words it.

use std::cmp::Reverse;

use kakei_wire::message::Field;
use proptest::prelude::*;

use super::*;

const HOSTS: [&str; 4] = ["a.example.com", "example.com", "b.a.example.com", "x.test"];
const PATHS: [&str; 6] = ["/", "/a", "/a/b", "/a/b/c", "/ab", "/x"];
const REGEXES: [&str; 3] = ["/a/.*", "/[a-z]+", "/a.*|/x"];
const METHODS: [&str; 3] = ["GET", "POST", "DELETE"];

fn some<T: Clone + std::fmt::Debug + 'static>(values: Vec<T>, most: usize) -> impl Strategy<Value = Vec<T>> {
    proptest::sample::subsequence(values.clone(), 0..=most.min(values.len()))
}

fn route() -> impl Strategy<Value = Route> {
    let hosts: Vec<ServerName> =
        HOSTS.iter().flat_map(|host| [ServerName::Exact((*host).into()), ServerName::Under((*host).into())]).collect();
    let path = prop_oneof![
        Just(PathMatch::Any),
        proptest::sample::select(&PATHS[..]).prop_map(|path| PathMatch::Prefix(path.into())),
        proptest::sample::select(&PATHS[..]).prop_map(|path| PathMatch::Exact(path.into())),
        proptest::sample::select(&REGEXES[..]).prop_map(|path| PathMatch::Regex(path.into())),
    ];
    let methods = some(METHODS.iter().map(|method| (*method).to_owned()).collect(), 2);
    let fields = some(vec!["x-a", "x-b"], 2);
    (some(hosts, 2), path, methods, fields, any::<bool>()).prop_map(|(host, path, method, fields, query)| Route {
        listener: "l".into(),
        host,
        path,
        method,
        headers: fields.into_iter().map(|name| (name.into(), ValueMatch::Exact("1".into()))).collect(),
        query: query.then(|| ("q".into(), ValueMatch::Present)).into_iter().collect(),
        cluster: Some("c".into()),
        ..Route::default()
    })
}

/// How specific a route is for a request; none: it doesn't match.
type Rank<'a> = (usize, (u8, usize, Reverse<&'a str>), bool, usize);

fn rank<'a>(route: &'a Route, wanted: &Wanted<'_>) -> Option<Rank<'a>> {
    let host = |name: &ServerName| match name {
        ServerName::Exact(exact) => (**exact == *wanted.host).then_some(usize::MAX),
        ServerName::Under(suffix) => wanted.host.ends_with(&format!(".{suffix}")).then_some(suffix.len()),
    };
    let host = if route.host.is_empty() { 0 } else { route.host.iter().filter_map(host).max()? };
    let path = std::str::from_utf8(wanted.path).unwrap();
    let path = match &route.path {
        PathMatch::Any => (0, 0, Reverse("")),
        PathMatch::Exact(exact) => (path == exact).then_some((3, 0, Reverse("")))?,
        PathMatch::Prefix(prefix) if prefix == "/" => (1, 1, Reverse("")),
        PathMatch::Prefix(prefix) => {
            (path == prefix || path.starts_with(&format!("{prefix}/"))).then_some((1, prefix.len(), Reverse("")))?
        }
        // Of equally long ones, the first in the alphabet.
        PathMatch::Regex(text) => {
            pattern::compile(text).unwrap().is_match(path).then_some((2, text.len(), Reverse(text.as_str())))?
        }
    };
    let method = route.method.is_empty() || route.method.iter().any(|method| method == wanted.method);
    let field = |name: &String| wanted.fields.named(name.as_bytes()).any(|value| value == b"1");
    let query = route.query.is_empty() || wanted.query.is_some_and(|query| query.contains('q'));
    let matches = method && route.headers.keys().all(field) && query;
    matches.then_some((host, path, !route.method.is_empty(), route.headers.len() + route.query.len()))
}

proptest! {
    #[test]
    fn the_most_specific_route_wins(
        routes in proptest::collection::vec(route(), 0..10),
        host in proptest::sample::select(&HOSTS[..]),
        path in proptest::sample::select(&["/", "/a", "/a/b", "/a/b/c", "/a/b/c/d", "/ab", "/abc", "/x/y", "/a/"][..]),
        method in proptest::sample::select(&METHODS[..]),
        (field, query) in (any::<bool>(), any::<bool>()),
    ) {
        let named = routes.iter().enumerate().map(|(n, route)| (Name::new(format!("r{n}")), route.clone()));
        let document = Document { routes: named.collect(), ..Document::default() };
        let table = Table::compile(&"l".into(), &document, None, &BTreeSet::new());
        let bytes = b"X-A: 1\r\n";
        let list = [Field { start: 0, name: 3, known: None, value: 5, value_len: 1, end: 8 }];
        let wanted = Wanted {
            client: "192.0.2.1".parse().unwrap(),
            host,
            path: path.as_bytes(),
            method,
            fields: if field { Fields::new(bytes, &list) } else { Fields::EMPTY },
            query: query.then_some("q=1"),
        };
        let best = document.routes.values().filter_map(|route| rank(route, &wanted)).max();
        let found = table.find(&wanted).map(|rule| rank(&rule.spec, &wanted).expect("what is found matches"));
        prop_assert_eq!(found, best);
        for rule in table.rules() {
            prop_assert_eq!(rule.mismatch(&wanted).is_none(), rank(&rule.spec, &wanted).is_some());
        }
    }
}

#[test]
fn what_stays_is_shared_with_the_table_before() {
    let route = |path: &str| Route {
        listener: "l".into(),
        path: PathMatch::Prefix(path.into()),
        cluster: Some("c".into()),
        ..Route::default()
    };
    let document = |second: &str| Document {
        routes: [("one".into(), route("/one")), ("two".into(), route(second))].into(),
        ..Document::default()
    };
    let before = Table::compile(&"l".into(), &document("/two"), None, &BTreeSet::new());
    let after = Table::compile(&"l".into(), &document("/other"), Some(&before), &BTreeSet::new());
    let same = |name: &str| Arc::ptr_eq(&before.rules[&Name::from(name)], &after.rules[&Name::from(name)]);
    assert!(same("one") && !same("two"));
    assert_ne!(before, after);
}
