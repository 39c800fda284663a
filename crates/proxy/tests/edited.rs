//! A worker driven by hand: what a route changes in requests and answers, and that no spelling gets past it.

mod common;

use std::time::Duration;

use kakei_config::*;
use kakei_proxy::record::CloseReason;
use kakei_proxy::seam::*;

use common::{Bench, addr, all_of, opened};

/// A worker with this route, and a backend behind it.
fn bench(route: Route, http: HttpListener) -> Bench {
    let answers = route.redirect.is_some() || route.respond.is_some();
    let cluster = (!answers).then(|| "c".into());
    let route = Route { listener: "web".into(), cluster, ..route };
    let service = Cluster { backends: vec![Backend::at(addr("10.0.0.2:80"))], ..Cluster::default() };
    let cluster = Cluster { backends: vec![Backend::at(addr("10.0.0.1:80"))], ..Cluster::default() };
    let document = Document {
        clusters: [("c".into(), cluster), ("auth".into(), service)].into(),
        routes: [("r".into(), route)].into(),
        access_log: AccessLog { to: Some("stdout".into()), ..AccessLog::default() },
        ..Document::default()
    };
    Bench::new(document, Listener { http, ..Listener::default() })
}

/// What a step writes to a stream.
fn written(bench: &Bench, ops: &[Op], to: SocketId) -> String {
    let bytes = ops.iter().filter_map(|op| match op {
        Op::Write { socket, bytes } if *socket == to => Some(bytes.head.of(&bench.out.bytes)),
        _ => None,
    });
    String::from_utf8(bytes.collect::<Vec<_>>().concat()).expect("text")
}

impl Bench {
    /// The client asks this: the stream to a backend, and what goes there.
    fn ask(&mut self, request: &str) -> (SocketId, String) {
        let ops = self.say(request.as_bytes());
        self.reach(&ops)
    }

    /// A service lets it pass: the same.
    fn pass(&mut self, service: SocketId) -> (SocketId, String) {
        let passes = b"HTTP/1.1 204 No Content\r\n\r\n";
        let ops = self.step(vec![Event::Data { socket: service, bytes: all_of(passes) }], passes);
        self.reach(&ops)
    }

    fn reach(&mut self, ops: &[Op]) -> (SocketId, String) {
        let backend = opened(ops);
        let ops = self.step(vec![Event::Opened { socket: backend, local: addr("10.9.9.9:9") }], b"");
        let text = written(self, &ops, backend);
        (backend, text)
    }

    /// What the proxy itself says to this.
    fn told(&mut self, request: &str) -> String {
        let ops = self.say(request.as_bytes());
        written(self, &ops, self.client)
    }

    /// The backend says this: what of it goes to the client.
    fn hear(&mut self, backend: SocketId, response: &str) -> String {
        let (client, bytes) = (self.client, response.as_bytes());
        let ops = self.step(vec![Event::Data { socket: backend, bytes: all_of(bytes) }], bytes);
        written(self, &ops, client)
    }

    /// Time passes until the worker wants to be asked, again and again: for how long, in milliseconds, until a step says
    /// why a request ended.
    fn wait_for_end(&mut self, most: Duration) -> Option<(CloseReason, u64)> {
        let began = self.now;
        while let Some(at) = self.wake.filter(|at| *at - began <= most) {
            self.now = self.now.max(at);
            let ops = self.step(Vec::new(), b"");
            let ended = ops.iter().find_map(|op| match op {
                Op::Record(record) => Some(record.reason),
                _ => None,
            });
            if let Some(reason) = ended {
                return Some((reason, (self.now - began).as_millis() as u64));
            }
        }
        None
    }
}

/// A service that says who may pass, and these fields of a client.
fn vouched(copy: &[&str]) -> ForwardAuth {
    ForwardAuth {
        cluster: "auth".into(),
        path: "/".into(),
        headers: Vec::new(),
        copy: copy.iter().map(|name| (*name).into()).collect(),
        user: None,
        timeout: Duration::from_secs(1),
    }
}

/// The lines of a head with these names, in small letters, in their order.
fn lines(head: &str, names: &[&str]) -> Vec<String> {
    let is_one = |line: &&str| {
        line.split_once(':').is_some_and(|(name, _)| names.iter().any(|one| one.eq_ignore_ascii_case(name)))
    };
    head.lines().filter(is_one).map(str::to_ascii_lowercase).collect()
}

fn fields(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn nobody_says_in_another_spelling_what_only_the_proxy_says() {
    let route = || Route {
        request: RequestEdits { remove: vec!["x-internal".into()], ..RequestEdits::default() },
        ..Route::default()
    };
    let said = "X_Forwarded_For: 6.6.6.6\r\nX-Forwarded_Proto: https\r\nX_Client-Cert-Subject: CN=root\r\n\
        X_Internal: 1\r\nTransfer_Encoding: chunked\r\nX_Request_Id: r\r\nX-Forwarded-Prefix: /p\r\nX_Forwarded_Uri: /q\r\n";
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{said}X_Own: stays\r\nX-Own: too\r\n\r\n");
    let (_, head) = bench(route(), HttpListener::default()).ask(&request);
    let own = ["host: a", "x_own: stays", "x-own: too", "x-forwarded-for: 192.0.2.7", "x-forwarded-proto: http"];
    let rest: Vec<&str> = head.lines().skip(1).filter(|line| !line.starts_with("X-Request-Id: ")).collect();
    assert_eq!(rest.join("\n").to_ascii_lowercase().split('\n').take(5).collect::<Vec<_>>(), own, "{head}");
    assert!(!head.contains("6.6.6.6") && !head.contains("CN=root") && !head.contains("/p") && !head.contains("/q"));

    // Who is believed may say what nobody adds to, and in no other spelling either.
    let trusted = HttpListener { trusted: vec!["192.0.2.0/24".parse().expect("a network")], ..HttpListener::default() };
    let (_, head) = bench(route(), trusted).ask(&request);
    assert!(head.contains("X-Forwarded-Prefix: /p\r\n") && !head.contains("6.6.6.6"), "{head}");
}

#[test]
fn what_only_a_service_says_of_a_client_is_said_by_no_spelling_and_no_trailer() {
    let auth = Auth { forward: Some(vouched(&["x-user"]).into()), ..Auth::default() };
    let mut bench = bench(Route { auth, ..Route::default() }, HttpListener::default());
    let request = "POST / HTTP/1.1\r\nHost: a\r\nX_User: evil\r\nX-User: evil\r\nTransfer-Encoding: chunked\r\n\r\n\
        2\r\nhi\r\n0\r\nX-User: evil\r\nx_user: evil\r\nX-Fine: yes\r\nX_Forwarded_For: evil\r\nAuthorization: evil\r\n\
        Content-Type: evil\r\nRange: evil\r\n\r\n";
    let (service, _) = bench.ask(request);
    let (backend, mut text) = bench.pass(service);
    let ops = bench.step(Vec::new(), b"");
    text += &written(&bench, &ops, backend);
    assert!(text.ends_with("0\r\nX-Fine: yes\r\n\r\n"), "{text}");
    assert!(!text.contains("evil"), "{text}");
}

#[test]
fn a_response_s_trailers_keep_to_what_its_route_takes_out() {
    let response = FieldEdits { remove: vec!["x-secret".into()], ..FieldEdits::default() };
    let mut bench = bench(Route { response, ..Route::default() }, HttpListener::default());
    let (backend, _) = bench.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let text = bench.hear(
        backend,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Secret: 1\r\nGrpc-Status: 0\r\n\
         WWW-Authenticate: Basic\r\nSet-Cookie: a=b\r\n\r\n",
    );
    assert!(text.ends_with("0\r\nGrpc-Status: 0\r\n\r\n"), "{text}");
}

#[test]
fn a_route_s_word_stands_in_the_place_of_the_proxy_s_own() {
    let request = RequestEdits {
        set: fields(&[("x-forwarded-proto", "https"), ("x-forwarded-for", "9.9.9.9"), ("x-request-id", "fixed")]),
        remove: vec!["x-forwarded-host".into(), "via".into()],
        add: fields(&[("x-forwarded-port", "1")]),
        ..RequestEdits::default()
    };
    let response = FieldEdits { set: fields(&[("via", "mine")]), ..FieldEdits::default() };
    let http = HttpListener { via: Some("edge".into()), forwarded: true, ..HttpListener::default() };
    let mut bench = bench(Route { request, response, ..Route::default() }, http);
    let (backend, head) = bench.ask("GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 other\r\n\r\n");
    let names = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-request-id", "via"];
    let mut own = lines(&head, &names);
    own.sort();
    let wanted = [
        "x-forwarded-for: 9.9.9.9",
        "x-forwarded-port: 1",
        "x-forwarded-port: 80",
        "x-forwarded-proto: https",
        "x-request-id: fixed",
    ];
    assert_eq!(own, wanted, "{head}");
    assert!(head.contains("Forwarded: for=192.0.2.7"), "what it doesn't speak of is as ever: {head}");
    let text = bench.hear(backend, "HTTP/1.0 200 OK\r\nVia: 1.0 x\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(lines(&text, &["via"]), ["via: mine"]);
}

#[test]
fn the_proxy_s_own_answers_have_each_field_once() {
    let respond = |headers: &[(&str, &str)]| Route {
        respond: Some(Respond { headers: fields(headers), body: "{}".into(), ..Respond::default() }.into()),
        response: FieldEdits {
            set: fields(&[("content-type", "application/json"), ("x-a", "2")]),
            remove: vec!["x-b".into()],
            ..FieldEdits::default()
        },
        ..Route::default()
    };
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let text = bench(respond(&[("x-a", "1"), ("x-b", "1")]), HttpListener::default()).told(request);
    assert_eq!(lines(&text, &["content-type", "x-a", "x-b"]), ["content-type: application/json", "x-a: 2"], "{text}");
    let redirect = Redirect { path: Some("{rest}index".into()), ..Redirect::default() };
    let path = PathMatch::Prefix("/pre".into());
    let route = || Route { redirect: Some(redirect.clone().into()), path: path.clone(), ..Route::default() };
    let asks = "GET /pre HTTP/1.1\r\nHost: a\r\n\r\n";
    let text = bench(route(), HttpListener::default()).told(asks);
    assert_eq!(lines(&text, &["location"]), ["location: http://a/index"], "a path begins with a slash");
    let response = FieldEdits { set: fields(&[("location", "/y")]), ..FieldEdits::default() };
    let text = bench(Route { response, ..route() }, HttpListener::default()).told(asks);
    assert_eq!(lines(&text, &["location"]), ["location: /y"], "{text}");
}

#[test]
fn what_is_asked_of_the_whole_server_passes_what_guards_its_root() {
    let deny = || vec!["192.0.2.0/24".parse().expect("a network")];
    let route = |deny| Route { path: PathMatch::Prefix("/".into()), deny, ..Route::default() };
    for target in ["*", "/", "http://a"] {
        let text = bench(route(deny()), HttpListener::default())
            .told(&format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(text.starts_with("HTTP/1.1 403 "), "{target}: {text}");
    }
    let request = RequestEdits { path: Some("/v2{path}".into()), ..RequestEdits::default() };
    for (target, sent) in [("*", "*"), ("http://a", "*"), ("http://a/", "/v2/"), ("http://a?q", "/v2/?q")] {
        let route = Route { request: request.clone(), ..route(Vec::new()) };
        let (_, head) =
            bench(route, HttpListener::default()).ask(&format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(head.starts_with(&format!("OPTIONS {sent} HTTP/1.1\r\n")), "{target}: {head}");
    }
}

#[test]
fn what_is_asked_of_the_whole_server_is_the_same_behind_a_guard() {
    let request = || RequestEdits { set: fields(&[("x-path", "{path}")]), ..RequestEdits::default() };
    let route = |auth| Route { path: PathMatch::Prefix("/".into()), request: request(), auth, ..Route::default() };
    let asks = "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n";
    let (_, plain) = bench(route(Auth::default()), HttpListener::default()).ask(asks);
    let auth = Auth { forward: Some(vouched(&[]).into()), ..Auth::default() };
    let mut bench = bench(route(auth), HttpListener::default());
    let (service, _) = bench.ask(asks);
    let (_, guarded) = bench.pass(service);
    assert_eq!([&plain, &guarded].map(|head| lines(head, &["x-path"])), [["x-path: /"]; 2]);
}

#[test]
fn who_asks_how_far_a_request_gets_is_answered_where_it_may_go_no_further() {
    let asks = |method: &str, more: &str| {
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nMax-Forwards: {more}\r\n\r\n");
        (bench(Route::default(), HttpListener::default()), request)
    };
    for (method, sent, goes_on) in
        [("OPTIONS", "7", "6"), ("TRACE", "1", "0"), ("GET", "0", "0"), ("OPTIONS", "x", "x")]
    {
        let (mut bench, request) = asks(method, sent);
        let (_, head) = bench.ask(&request);
        assert_eq!(lines(&head, &["max-forwards"]), [format!("max-forwards: {goes_on}")], "{method}");
    }
    for (method, status) in [("OPTIONS", 204), ("TRACE", 405)] {
        let (mut bench, request) = asks(method, "0");
        let text = bench.told(&request);
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
    }
}

#[test]
fn whose_limit_it_is_is_said_once() {
    let limit = RateLimit { by: RateKey::Header("x-key".into()), requests: 2, ..RateLimit::default() };
    let limit = RateLimit { per: Duration::from_secs(5), burst: 1, ..limit };
    let mut bench = bench(Route { rate_limits: vec![limit], ..Route::default() }, HttpListener::default());
    let request = |keys: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{keys}\r\n");
    for other in ["b", "a"] {
        let client = bench.client;
        let text = bench.told(&request(&format!("X-Key: a\r\nx-key: {other}\r\n")));
        assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
        bench.client = bench.connect("192.0.2.7:1001");
        assert_ne!(bench.client, client);
    }
    let (backend, _) = bench.ask(&request("X-Key: a\r\n"));
    assert!(bench.hear(backend, "HTTP/1.1 204 No Content\r\n\r\n").starts_with("HTTP/1.1 204 "));
    let text = bench.told(&request("X-Key: a\r\n"));
    assert!(text.starts_with("HTTP/1.1 429 "), "{text}");
    assert_eq!(lines(&text, &["retry-after"]), ["retry-after: 3"], "2.5 s, and no earlier");
}

#[test]
fn a_tunnel_that_opens_has_no_length() {
    let mut bench = bench(Route { connect: true, ..Route::default() }, HttpListener::default());
    let (backend, head) = bench.ask("CONNECT b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n");
    assert!(head.starts_with("CONNECT b:80 HTTP/1.1\r\n"), "{head}");
    let text = bench.hear(backend, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\n\r\n");
    assert!(text.contains("X-A: 1\r\n") && !text.to_ascii_lowercase().contains("content-length"), "{text}");
}

/// Routes whose response must begin within a second.
fn hurried() -> Route {
    let timeouts = RouteTimeouts { response: Duration::from_secs(1), ..RouteTimeouts::default() };
    Route { timeouts, ..Route::default() }
}

#[test]
fn a_backend_that_takes_nothing_more_of_a_body_is_waited_for_as_long_as_for_its_response() {
    let mut bench = bench(hurried(), HttpListener::default());
    let (backend, _) = bench.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nbegins");
    bench.now = bench.now + Duration::from_millis(3_000);
    bench.step(Vec::new(), b"");
    bench.say(&[b'x'; 1000]);
    let rest = [b'x'; 500];
    bench.step(vec![Event::Blocked { socket: backend, rest: all_of(&rest) }], &rest);
    let ended = bench.wait_for_end(Duration::from_secs(60));
    assert!(matches!(ended, Some((CloseReason::ResponseTimeout, 1_000..=1_001))), "{ended:?}");
}

#[test]
fn a_client_that_is_answered_already_may_leave_its_body_out() {
    let http = HttpListener { body_timeout: Duration::from_secs(1), ..HttpListener::default() };
    let mut bench = bench(Route::default(), http);
    let asks = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n";
    let (backend, _) = bench.ask(asks);
    let mut text = bench.hear(backend, "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n");
    for _ in 0..6 {
        assert_eq!(bench.wait_for_end(Duration::from_millis(600)), None, "{text}");
        bench.now = bench.now + Duration::from_millis(600);
        text += &bench.hear(backend, "five.");
    }
    assert!(text.ends_with(&"five.".repeat(6)), "{text}");

    // One that is not, or whose backend is silent too, is waited for no longer.
    let http = HttpListener { body_timeout: Duration::from_secs(1), ..HttpListener::default() };
    let mut bench = self::bench(Route::default(), http);
    bench.ask(asks);
    let ended = bench.wait_for_end(Duration::from_secs(60));
    assert!(matches!(ended, Some((CloseReason::BodyTimeout, 1_000..=1_001))), "{ended:?}");
}

#[test]
fn empty_lines_keep_no_connection_open() {
    let http = HttpListener { keep_alive: Duration::from_secs(1), ..HttpListener::default() };
    let mut bench = bench(Route::default(), http);
    let (backend, _) = bench.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    bench.hear(backend, "HTTP/1.1 204 No Content\r\n\r\n");
    let answered = bench.now;
    let is_over = |ops: &[Op]| ops.iter().any(|op| matches!(op, Op::Close { .. } | Op::Shutdown { .. }));
    loop {
        bench.now = bench.now + Duration::from_millis(300);
        let ops = bench.say(b"\r\n");
        if !bench.ends(&ops).is_empty() || is_over(&ops) {
            break;
        }
        assert!(bench.now - answered < Duration::from_secs(2), "it goes on");
    }
}

#[test]
fn a_path_that_programs_read_differently_goes_on_as_the_listener_says() {
    let guarded =
        || Route { auth: Auth { forward: Some(Box::new(vouched(&[]))), ..Auth::default() }, ..Route::default() };
    let http = |ambiguous_paths| HttpListener { ambiguous_paths, ..HttpListener::default() };
    let get = |path: &str| format!("GET {path}?q=//.. HTTP/1.1\r\nHost: a\r\n\r\n");
    let (pass, normalise, refuse) = (AmbiguousPaths::Pass, AmbiguousPaths::Normalise, AmbiguousPaths::Refuse);
    for (mode, path, sent) in [
        (pass, "/a/..%2fb", Some("/a/..%2fb")),
        (pass, "/a;x/b", Some("/a;x/b")),
        (normalise, "/a;x/b", None),
        (refuse, "/a;x/b", None),
        (normalise, "/a/..%2fb", Some("/b")),
        (normalise, "//ab%20c/", Some("/ab%20c/")),
        (normalise, "/a%2Bb", Some("/a%2Bb")),
        (normalise, "/a/..;/b", None),
        (refuse, "/a/..%2fb", None),
        (refuse, "/a%2Bb", Some("/a%2Bb")),
    ] {
        let mut bench = bench(guarded(), http(mode));
        let Some(sent) = sent else {
            assert!(bench.told(&get(path)).starts_with("HTTP/1.1 400 "), "{mode:?} {path}");
            continue;
        };
        let (service, asked) = bench.ask(&get(path));
        assert_eq!(lines(&asked, &["x-forwarded-uri"]), [format!("x-forwarded-uri: {}?q=//..", sent.to_lowercase())]);
        let (_, request) = bench.pass(service);
        assert!(request.starts_with(&format!("GET {sent}?q=//.. HTTP/1.1\r\n")), "{mode:?} {path}: {request}");
    }
}

#[test]
fn nobody_says_in_another_spelling_what_a_route_or_a_limit_goes_by() {
    let limit = RateLimit { requests: 1, by: RateKey::Header("x-key".into()), ..RateLimit::default() };
    let route = Route {
        headers: [("x-tier".into(), ValueMatch::Exact("gold".into()))].into(),
        rate_limits: vec![limit],
        ..Route::default()
    };
    let request = |tier: &str| {
        format!("GET / HTTP/1.1\r\nHost: a\r\n{tier}X-Key: a\r\nX_Key: b\r\nX_Tier: gold\r\nX_Own: stays\r\n\r\n")
    };
    let names = ["x-key", "x_key", "x-tier", "x_tier", "x_own"];
    let (_, head) = bench(route.clone(), HttpListener::default()).ask(&request("X-Tier: gold\r\n"));
    assert_eq!(lines(&head, &names), ["x-tier: gold", "x-key: a", "x_own: stays"], "{head}");
    // Nor where the route that goes by it is not the one that is taken.
    let mut bench = bench(route, HttpListener::default());
    assert!(bench.told(&request("")).starts_with("HTTP/1.1 404 "));
}

#[test]
fn max_forwards_is_edited_as_every_field() {
    let asks = "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\nMax_Forwards: 9\r\n\r\n";
    let remove = RequestEdits { remove: vec!["max-forwards".into()], ..RequestEdits::default() };
    let set = RequestEdits { set: fields(&[("max-forwards", "7")]), ..RequestEdits::default() };
    for (request, left) in
        [(RequestEdits::default(), &["max-forwards: 2"][..]), (remove, &[]), (set, &["max-forwards: 7"])]
    {
        let (_, head) = bench(Route { request, ..Route::default() }, HttpListener::default()).ask(asks);
        assert_eq!(lines(&head, &["max-forwards", "max_forwards"]), left, "{head}");
    }
}

#[test]
fn a_redirect_keeps_the_port_where_scheme_and_host_are_the_request_s() {
    let to = |scheme: Option<&str>, host: Option<&str>| {
        let redirect = Redirect { scheme: scheme.map(Into::into), host: host.map(Into::into), ..Redirect::default() };
        let mut bench = bench(Route { redirect: Some(redirect.into()), ..Route::default() }, HttpListener::default());
        let answer = bench.told("GET /x HTTP/1.1\r\nHost: a.test:8080\r\n\r\n");
        lines(&answer, &["location"]).concat()
    };
    assert_eq!(to(Some("http"), None), "location: http://a.test:8080/x");
    assert_eq!(to(None, Some("A.test")), "location: http://a.test:8080/x");
    assert_eq!(to(Some("https"), None), "location: https://a.test/x");
    assert_eq!(to(Some("http"), Some("b.test")), "location: http://b.test/x");
}

#[test]
fn a_path_that_is_made_of_captures_leads_nowhere_else() {
    let route = |regex: &str, made: &str| Route {
        path: PathMatch::Regex(regex.into()),
        request: RequestEdits { path: Some(made.into()), ..RequestEdits::default() },
        ..Route::default()
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let thumbs = || route(r"/img/(.+)\.jpg", "/thumbs/{1}/small.jpg");
    for path in ["/img/...jpg", "/img/%2e%2e.jpg", "/img/..jpg"] {
        let answer = bench(thumbs(), HttpListener::default()).told(&get(path));
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
    }
    let joined = bench(route("/u/([a-z.]*)-([a-z.]*)", "/home/{1}{2}/x"), HttpListener::default()).told(&get("/u/.-."));
    assert!(joined.starts_with("HTTP/1.1 400 "), "{joined}");
    let (_, head) = bench(thumbs(), HttpListener::default()).ask(&get("/img/a..b.jpg"));
    assert!(head.starts_with("GET /thumbs/a..b/small.jpg HTTP/1.1\r\n"), "{head}");
}

#[test]
fn a_service_is_asked_again_where_its_answer_is_one_to_retry() {
    let auth = Auth { forward: Some(vouched(&[]).into()), ..Auth::default() };
    let retry = Retry { attempts: 1, on: vec![RetryOn::Status(503)], ..Retry::default() };
    let route = Route { listener: "web".into(), cluster: Some("c".into()), auth, retry, ..Route::default() };
    let at = |last: u8| Backend::at(std::net::SocketAddr::from(([10, 0, 0, last], 80)));
    let service = Cluster { backends: vec![at(2), at(3)], balance: Balance::RoundRobin, ..Cluster::default() };
    let cluster = Cluster { backends: vec![at(1)], ..Cluster::default() };
    let document = Document {
        clusters: [("c".into(), cluster), ("auth".into(), service)].into(),
        routes: [("r".into(), route)].into(),
        ..Document::default()
    };
    let mut bench = Bench::new(document.clone(), Listener::default());
    let (first, question) = bench.ask("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(question.contains("X-Forwarded-Uri: /x\r\n"), "{question}");
    let busy = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";
    let ops = bench.step(vec![Event::Data { socket: first, bytes: all_of(busy) }], busy);
    assert_eq!(written(&bench, &ops, bench.client), "", "another one is asked");
    let (second, again) = bench.reach(&ops);
    assert!(second != first && again == question, "{again}");
    let (_, request) = bench.pass(second);
    assert!(request.starts_with("GET /x HTTP/1.1\r\n"), "{request}");
    // The last one's answer is the client's.
    let mut bench = Bench::new(document, Listener::default());
    let (first, _) = bench.ask("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    let ops = bench.step(vec![Event::Data { socket: first, bytes: all_of(busy) }], busy);
    let (second, _) = bench.reach(&ops);
    assert!(bench.hear(second, std::str::from_utf8(busy).expect("text")).starts_with("HTTP/1.1 503 "));
}
