//! What only HTTP has, arbitrary and valid.

use std::collections::BTreeMap;

use kakei_config::template::places;
use kakei_config::*;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{network, time};

fn field() -> impl Strategy<Value = String> {
    "x-[a-z0-9!#$%&'*+.^_`|~-]{0,9}"
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof!["[!-~]{0,9}", "[a-zé]\t[\"\\\\ #]{0,3}[a-zé]"]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,20}", any::<String>()]
}

fn target() -> impl Strategy<Value = String> {
    "/[!-\"$-~]{0,12}"
}

fn host() -> impl Strategy<Value = String> {
    select(vec!["example.com", "Example.Com", "10.0.0.1", "[::1]", "a_b.test"]).prop_map(str::to_owned)
}

fn authority() -> impl Strategy<Value = String> {
    (host(), option::of(1u16..)).prop_map(|(host, port)| port.map_or(host.clone(), |port| format!("{host}:{port}")))
}

fn errors() -> impl Strategy<Value = ErrorBodies> {
    let plain = || text().prop_filter("a placeholder", |text| places(text).next().is_none());
    let filled = || plain().prop_map(|text| format!("{text}{{status}}{{{{x}}}}{{request_id}}"));
    let body = move || option::of(prop_oneof![plain(), filled()]);
    (body(), body(), body()).prop_map(|(text, html, json)| ErrorBodies { text, html, json })
}

fn hsts() -> impl Strategy<Value = Hsts> {
    let plain = (0u64..=100_000, any::<bool>()).prop_map(|(seconds, include_subdomains)| Hsts {
        max_age: std::time::Duration::from_secs(seconds),
        include_subdomains,
        preload: false,
    });
    prop_oneof![plain, Just(Hsts { include_subdomains: true, preload: true, ..Hsts::default() })]
}

/// Where a listener sends what came without TLS, and what it tells those that came with it.
pub(super) type Strict = (Option<TlsRedirect>, Option<Hsts>);

pub(super) fn keep_to_tls(listener: &mut Listener, (redirect, told): Strict) {
    let is_http = listener.protocol == Protocol::Http;
    if is_http && listener.tls.is_some() {
        listener.http.hsts = told;
    } else if is_http && listener.cluster.is_none() {
        listener.redirect_to_tls = redirect;
    }
}

pub(super) fn strict() -> impl Strategy<Value = Strict> {
    let redirect = (1u16.., select(vec![301u16, 302, 303, 307, 308]));
    let redirect = redirect.prop_map(|(port, status)| TlsRedirect { port, status });
    (option::of(redirect), option::of(hsts()))
}

pub(super) fn listener() -> impl Strategy<Value = HttpListener> {
    let times = (time(1), time(1), time(1), time(1));
    let sizes = (any::<u32>(), 256u32..=1 << 20, 256u32..=1 << 20, 1..=kakei_config::MAX_FIELDS, 0u64..=1 << 50);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), option::of(field()));
    let ambiguous = select(vec![AmbiguousPaths::Pass, AmbiguousPaths::Normalise, AmbiguousPaths::Refuse]);
    (times, sizes, flags, (ambiguous, vec(network(), 0..3)), errors()).prop_map(
        |(times, sizes, flags, (ambiguous_paths, trusted), errors)| HttpListener {
            head_timeout: times.0,
            body_timeout: times.1,
            write_timeout: times.2,
            keep_alive: times.3,
            keep_alive_requests: sizes.0,
            max_request_line: sizes.1.min(sizes.2),
            max_head: sizes.2,
            max_fields: sizes.3,
            max_body: sizes.4,
            ambiguous_paths,
            trusted,
            x_forwarded: flags.0,
            forwarded: flags.1,
            request_id: flags.2,
            via: flags.3,
            hsts: None,
            errors,
        },
    )
}

pub(super) fn knobs() -> impl Strategy<Value = HttpKnobs> {
    (option::of(time(1)), option::of(time(1)), any::<u32>(), option::of(sticky())).prop_map(
        |(idle_timeout, max_age, max_requests, sticky)| HttpKnobs { idle_timeout, max_age, max_requests, sticky },
    )
}

fn sticky() -> impl Strategy<Value = Sticky> {
    let same_site = select(vec![SameSite::Lax, SameSite::Strict, SameSite::None]);
    (field(), "[ -~é]{16,40}", option::of(time(1_000)), any::<bool>(), same_site).prop_map(
        |(cookie, secret, max_age, secure, same_site)| Sticky {
            cookie,
            secret,
            max_age,
            secure: secure || same_site == SameSite::None,
            same_site,
        },
    )
}

pub(super) fn statuses(least: usize) -> impl Strategy<Value = Vec<StatusRange>> {
    let range = (100u16..=599, 100u16..=599).prop_map(|(a, b)| StatusRange { from: a.min(b), to: a.max(b) });
    let one = (100u16..=599).prop_map(|status| StatusRange { from: status, to: status });
    vec(prop_oneof![range, one], least..4)
}

/// Statuses that may end a check.
fn final_statuses() -> impl Strategy<Value = Vec<StatusRange>> {
    let reaching =
        |StatusRange { from, to }| StatusRange { from, to: if (from, to) == (101, 101) { to } else { to.max(200) } };
    statuses(1).prop_map(move |ranges| ranges.into_iter().map(reaching).collect())
}

pub(super) fn check() -> impl Strategy<Value = HttpCheck> {
    let method = select(vec!["GET", "OPTIONS", "X-PROBE"]).prop_map(str::to_owned);
    let request = (method, target(), option::of(authority()), btree_map(field(), value(), 0..3));
    (request, final_statuses(), option::of("[ -~é]{1,9}"), option::of(1u16..), option::of(any::<bool>())).prop_map(
        |((method, path, host, headers), status, body_prefix, port, tls)| HttpCheck {
            method,
            path,
            host,
            headers,
            status,
            body_prefix,
            port,
            tls,
        },
    )
}

/// Paths, each with a template that it has the parts for.
fn path() -> impl Strategy<Value = (PathMatch, String)> {
    let plain = || "(/[a-z0-9 é~%\"]{1,4}){1,3}".prop_filter("an escape", |path| !path.contains('%'));
    prop_oneof![
        Just((PathMatch::Any, "{path}/%20x".to_owned())),
        Just((PathMatch::Prefix("/".into()), "{rest}".to_owned())),
        plain().prop_map(|path| (PathMatch::Prefix(path), "/v2{rest}".to_owned())),
        plain().prop_map(|path| (PathMatch::Exact(path + "/"), "/v2/a,b".to_owned())),
        select(vec!["/v([0-9]+)/(?<rest>.*)", "/(a)(b)|/x", "(?i)/(.)(\\.)\"", "/()()"])
            .prop_map(|text| (PathMatch::Regex(text.into()), "/{2}/{1}{path}".to_owned())),
    ]
}

fn matches() -> impl Strategy<Value = BTreeMap<String, ValueMatch>> {
    let wanted = || prop_oneof![Just(ValueMatch::Present), value().prop_map(ValueMatch::Exact)];
    btree_map(field(), wanted(), 0..3)
}

/// Changes of fields, with values that may have what the template has.
fn edits(template: &str) -> impl Strategy<Value = FieldEdits> + use<> {
    let (alone, behind) = (template.to_owned(), template.to_owned());
    let plain = || value().prop_filter("a placeholder", |value| places(value).next().is_none());
    let filled = plain().prop_map(move |value| format!("{value}{{{{x}}}}{behind}"));
    let value = prop_oneof![plain(), Just(alone), filled].boxed();
    (btree_map(field(), value.clone(), 0..3), btree_map(field(), value, 0..3), vec(field(), 0..3))
        .prop_map(|(set, add, remove)| FieldEdits { set, add, remove })
}

fn rate_limit() -> impl Strategy<Value = RateLimit> {
    let by = prop_oneof![Just(RateKey::Client), Just(RateKey::Route), field().prop_map(RateKey::Header)];
    (by, 1u32.., time(1), any::<u32>(), any::<u32>()).prop_map(|(by, requests, per, burst, concurrent)| RateLimit {
        by,
        requests,
        per,
        burst,
        concurrent,
    })
}

fn retry() -> impl Strategy<Value = Retry> {
    let statuses = prop_oneof![Just(429u16), 500u16..=599].prop_map(RetryOn::Status);
    let on = prop_oneof![Just(RetryOn::Connect), Just(RetryOn::Reset), Just(RetryOn::Timeout), statuses];
    (0u32..=10, vec(on, 0..4), 1u32..=100).prop_map(|(attempts, on, budget)| Retry { attempts, on, budget })
}

/// What becomes of requests; where they go to clusters, the names are given afterwards.
fn action(template: String) -> impl Strategy<Value = Route> {
    let forward = Just(Route { cluster: Some(Name::default()), ..Route::default() });
    let split =
        (1u32..=1_000_000).prop_map(|weight| Route { split: [(Name::default(), weight)].into(), ..Route::default() });
    let parts = (option::of(host()), option::of(1u16..), option::of("[!-\"$->@-~]{0,9}"));
    let schemes = select(vec![Some("http"), Some("https"), None]);
    let redirect = (select(vec![301u16, 302, 303, 307, 308]), schemes, parts).prop_map(
        move |(status, scheme, (host, port, query))| {
            let (scheme, path) = (scheme.map(str::to_owned), Some(template.clone()));
            let redirect = Redirect { status, scheme, host, port, path, query };
            Route { redirect: Some(Box::new(redirect)), ..Route::default() }
        },
    );
    let respond = (400u16..=599, btree_map(field(), value(), 0..3), text()).prop_map(|(status, headers, body)| Route {
        respond: Some(Box::new(Respond { status, headers, body })),
        ..Route::default()
    });
    prop_oneof![forward, split, redirect, respond]
}

/// A route of an HTTP listener that is still to be named, and its clusters too.
pub(super) fn route() -> impl Strategy<Value = Route> {
    let hosts = vec![
        ServerName::Exact("a.test".into()),
        ServerName::Under("b.test".into()),
        ServerName::Exact("10.0.0.1".into()),
        ServerName::Exact("[::1]".into()),
    ];
    let host = proptest::sample::subsequence(hosts, 0..4);
    let method = proptest::sample::subsequence(vec!["GET", "PUT", "PROPFIND"], 0..3)
        .prop_map(|methods| methods.into_iter().map(str::to_owned).collect());
    let matched = (host, method, matches(), btree_map("[ -~é]{1,5}", Just(ValueMatch::Present), 0..3));
    let acted = path().prop_flat_map(|(path, template)| {
        let template_too = template.clone();
        let response = edits(&template);
        let request =
            (edits(&template), option::of(authority()), any::<bool>()).prop_map(move |(edits, host, rewritten)| {
                let FieldEdits { set, add, remove } = edits;
                RequestEdits { set, add, remove, host, path: rewritten.then(|| template_too.clone()) }
            });
        (Just(path), action(template), request, response)
    });
    let times = (option::of(time(1)), time(1), time(1)).prop_map(|(request, response, idle)| RouteTimeouts {
        request,
        response,
        idle,
    });
    let limits = (vec(rate_limit(), 0..3), vec(network(), 0..3), vec(network(), 0..3));
    let rest = (any::<bool>(), any::<bool>(), errors(), super::on_change(), option::of(hsts()), any::<bool>());
    (matched, acted, (times, retry()), limits, rest).prop_map(
        |(matched, (path, action, request, response), (timeouts, retry), limits, rest)| Route {
            connect: rest.1 && path == PathMatch::Any,
            host: matched.0,
            path,
            method: matched.1,
            headers: matched.2,
            query: matched.3,
            request,
            response,
            timeouts,
            retry,
            rate_limits: limits.0,
            allow: limits.1,
            deny: limits.2,
            upgrade: rest.0,
            errors: rest.2,
            on_change: rest.3,
            hsts: rest.4,
            early_data: rest.5,
            ..action
        },
    )
}

/// The route with a cluster wherever it needs one.
pub(super) fn connected(mut route: Route, cluster: Name) -> Route {
    if let Some(weight) = route.split.remove(&Name::default()) {
        route.split.insert(cluster.clone(), weight);
    }
    route.cluster = route.cluster.map(|_| cluster);
    route
}
