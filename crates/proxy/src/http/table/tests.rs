//! The table against a naive reference: the rule as the documentation words it.

use kakei_config::Objects;
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
            Pattern::compile(text).unwrap().is_match(path).then_some((2, text.len(), Reverse(text.as_str())))?
        }
    };
    let method = route.method.is_empty() || route.method.iter().any(|method| method == wanted.method);
    let field = |name: &String| wanted.fields.named(name.as_bytes()).any(|value| value == b"1");
    let query = route.query.is_empty() || wanted.query.is_some_and(|query| query.contains('q'));
    let matches = method && route.headers.keys().all(field) && query;
    matches.then_some((host, path, !route.method.is_empty(), route.headers.len() + route.query.len()))
}

/// A table of these routes, made of one of those.
fn turned(mut table: Table, before: &Objects<Route>, after: &Objects<Route>) -> Table {
    let turned = before.differences(after).map(|(name, _, after)| (name, after.map(|route| (route, false))));
    table.turn(&turned.collect::<Vec<_>>());
    table
}

proptest! {
    #[test]
    fn the_most_specific_route_wins(
        routes in proptest::collection::vec(route(), 0..10),
        before in proptest::collection::vec(proptest::option::of(route()), 0..12),
        host in proptest::sample::select(&HOSTS[..]),
        path in proptest::sample::select(&["/", "/a", "/a/b", "/a/b/c", "/a/b/c/d", "/ab", "/abc", "/x/y", "/a/"][..]),
        method in proptest::sample::select(&METHODS[..]),
        (field, query) in (any::<bool>(), any::<bool>()),
    ) {
        let named = |(n, route): (usize, &Route)| (Name::new(format!("r{n}")), route.clone());
        let after: Objects<Route> = routes.iter().enumerate().map(named).collect();
        // Some routes are as they were before, the others other ones, or new.
        let before = before.iter().enumerate().filter_map(|(n, route)| Some(named((n, route.as_ref().or(routes.get(n))?))));
        let before: Objects<Route> = before.collect();
        let mut table = turned(Table::default(), &Objects::default(), &before);
        table = turned(table, &before, &after);
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
        let best = after.values().filter_map(|route| rank(route, &wanted)).max();
        let found = table.find(&wanted).map(|rule| rank(&rule.spec, &wanted).expect("what is found matches"));
        prop_assert_eq!(found, best);
        let whole = turned(Table::default(), &Objects::default(), &after);
        let route = |table: &Table| table.find(&wanted).map(|rule| rule.route.clone());
        prop_assert_eq!(route(&table), route(&whole));
        prop_assert_eq!(&table, &whole);
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
    let routes = |second: &str| [("one".into(), route("/one")), ("two".into(), route(second))].into();
    let (first, second) = (routes("/two"), routes("/other"));
    let before = turned(Table::default(), &Objects::default(), &first);
    let after = turned(before.clone(), &first, &second);
    let same = |name: &str| Arc::ptr_eq(before.rule(&name.into()).unwrap(), after.rule(&name.into()).unwrap());
    assert!(same("one") && !same("two"));
    assert_ne!(before, after);
}

#[test]
fn a_query_is_asked_by_name_and_value_however_often_a_name_stands_there() {
    let route = |name: &str, value| Route {
        listener: "l".into(),
        query: [(name.into(), value)].into(),
        cluster: Some("c".into()),
        ..Route::default()
    };
    let exact = |value: &str| ValueMatch::Exact(value.into());
    for (query, is_there) in [
        (Some("b=2&a=1&a=0"), [true, true, false]),
        (Some("a=2&c&%61=1"), [true, true, true]),
        (Some("a"), [true, false, false]),
        (Some("A=1&ab=1&&c+=1"), [false, false, false]),
        (Some("a=1%20&c=%zz"), [true, false, true]),
        (Some(""), [false, false, false]),
        (None, [false, false, false]),
    ] {
        let wanted = Wanted {
            client: "192.0.2.1".parse().unwrap(),
            host: "a",
            path: b"/",
            method: "GET",
            fields: Fields::EMPTY,
            query,
        };
        let routes = [route("a", ValueMatch::Present), route("a", exact("1")), route("c", ValueMatch::Present)];
        let found = routes.map(|route| {
            let after: Objects<Route> = [("r".into(), route)].into();
            turned(Table::default(), &Objects::default(), &after).find(&wanted).is_some()
        });
        assert_eq!(found, is_there, "{query:?}");
    }
}
