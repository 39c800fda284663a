//! What operators and clients are told of HTTP: log lines, histograms, traces, dates, errors.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use serde_json::Value;

use crate::harness::{Closed, Room, Running, eventually};
use crate::http::{ask, backend, connect, document};

/// The lines of the access log, once there are so many.
fn lines(room: &Room, count: usize) -> Vec<String> {
    eventually("the access log has its lines", || {
        let text = std::fs::read_to_string(room.path("access.log")).ok()?;
        (text.lines().count() >= count).then(|| text.lines().map(str::to_owned).collect())
    })
}

fn json_lines(room: &Room, count: usize) -> Vec<Value> {
    lines(room, count).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Send a request on a connection of its own and read all that comes until it ends.
fn once(front: SocketAddr, request: &[u8]) -> String {
    let mut client = connect(front);
    client.write_all(request).unwrap();
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn combined_lines_can_not_be_forged() {
    let room = Room::new("http-combined");
    let text = document(&room, &[backend("a")], "").replace("[access_log]\n", "[access_log]\nformat = \"combined\"\n");
    let proxy = Running::start(&room, &text);
    let mut evil = b"GET /a?\"b\\ HTTP/1.1\r\nHost: a\r\nUser-Agent: x\" 200 1 \"\xff\xc3\xa9\t\\\r\n".to_vec();
    evil.extend_from_slice(b"Referer: \"\\\"\r\nConnection: close\r\n\r\n");
    let answer = once(proxy.front(), &evil);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // The two may be different workers' connections, whose lines come in no order.
    lines(&room, 1);
    once(proxy.front(), b"GET / HTTP/1.1\r\nHost: a\nX-Forged: 1\r\n\r\n");
    let lines = lines(&room, 2);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("127.0.0.1 - - ["), "{}", lines[0]);
    let rest = " +0000] \"GET /a?\\\"b\\\\ HTTP/1.1\" 200 ";
    assert!(lines[0].contains(rest), "{}", lines[0]);
    // What is no UTF-8 stands as the replacement character, and that, as everything that isn't ASCII, in bytes.
    let sent = "\"\\\"\\\\\\\"\" \"x\\\" 200 1 \\\"\\xef\\xbf\\xbd\\xc3\\xa9\\x09\\\\\"";
    assert!(lines[0].ends_with(sent), "{} / {sent}", lines[0]);
    assert!(lines[1].ends_with(" \"-\" 400 16 \"-\" \"-\""), "{}", lines[1]);
}

#[test]
fn every_answer_of_the_proxy_says_why_in_the_log_and_nothing_to_the_client() {
    let room = Room::new("http-why");
    let closed = Closed::new();
    let gone = closed.address;
    let more = format!(
        "[clusters.secret-down]\nbackends = [\"{gone}\"]\n\
         [clusters.secret-empty]\nbackends = [{{ address = \"{gone}\", weight = 0 }}]\n\
         [clusters.secret-bad]\nbackends = [\"{}\"]\n\
         [routes.down]\nlistener = \"front\"\npath = \"/down\"\ncluster = \"secret-down\"\n\
         [routes.empty]\nlistener = \"front\"\npath = \"/empty\"\ncluster = \"secret-empty\"\n\
         [routes.bad]\nlistener = \"front\"\npath = \"/bad\"\ncluster = \"secret-bad\"\n\
         [routes.denied]\nlistener = \"front\"\npath = \"/denied\"\ndeny = [\"127.0.0.0/8\"]\ncluster = \"c\"\n\
         [routes.often]\nlistener = \"front\"\npath = \"/often\"\ncluster = \"c\"\n\
         rate_limits = [{{ by = \"client\", requests = 1, per = \"1h\" }}]\n\
         [listeners.front.http]\nmax_body = \"4B\"\n",
        malformed()
    );
    let text = document(&room, &[backend("a")], &more).replace("cluster = \"c\"\ndrain_timeout", "drain_timeout");
    let text = text.replace("count = 2", "count = 1");
    let proxy = Running::start(&room, &text);
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let cases = [
        (get("/down"), 502, "connect_failed", "backend"),
        (get("/empty"), 503, "no_backend", "backend"),
        (get("/bad"), 502, "bad_response", "backend"),
        (get("/denied"), 403, "denied", "proxy"),
        (get("/often"), 200, "completed", "backend"),
        (get("/often"), 429, "rate_limited", "proxy"),
        (get("/nowhere"), 404, "no_route", "proxy"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "bad_request", "client"),
        ("POST /often HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde".to_owned(), 413, "too_large", "client"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".to_owned(), 404, "no_route", "proxy"),
    ];
    for (request, status, ..) in &cases {
        let answer = once(proxy.front(), request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer:?}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(head.matches("\r\nDate: ").count(), 1, "{head}");
        if *status != 200 {
            let title = head.lines().next().unwrap().strip_prefix("HTTP/1.1 ").unwrap();
            assert_eq!(body, format!("{title}\n"), "an error says its status and nothing else");
            let leaks = ["secret", "127.0.0.1", "denied", "kakei", &gone.to_string()];
            assert!(!leaks.iter().any(|word| answer.contains(word)), "{answer}");
        }
    }
    let lines = json_lines(&room, cases.len());
    for (line, (_, status, reason, by)) in lines.iter().zip(&cases) {
        assert_eq!(
            (&line["status"], &line["reason"], &line["by"]),
            (&(*status).into(), &(*reason).into(), &(*by).into())
        );
        assert!(line["response_bytes"].as_u64().unwrap() > 0, "{line}");
    }
}

/// A backend that answers nonsense.
fn malformed() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 secret\nX: y\r\n\r\n");
        }
    });
    address
}

#[test]
fn errors_are_told_by_the_templates_of_route_and_listener() {
    let room = Room::new("http-errors");
    let more = "[listeners.front.http]\ntrusted = [\"127.0.0.0/8\"]\n\
                errors = { text = \"L {status} {request_id}\", html = \"<b title=\\\"{request_id}\\\">{reason}</b>\" }\n\
                [routes.own]\nlistener = \"front\"\npath = \"/own\"\ndeny = [\"0.0.0.0/0\"]\ncluster = \"c\"\n\
                errors = { json = \"{\\\"error\\\": {status}, \\\"id\\\": \\\"{request_id}\\\"}\" }\n\
                [routes.plain]\nlistener = \"front\"\npath = \"/plain\"\ndeny = [\"0.0.0.0/0\"]\ncluster = \"c\"\n";
    let proxy = Running::start(&room, &document(&room, &[backend("a")], more));
    let mut client = connect(proxy.front());
    let mut get = |path: &str, accept: &str| {
        ask(&mut client, &format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n"))
    };
    let (head, body) = get("/own", "application/json");
    assert!(head.contains("Content-Type: application/json\r\n"), "{head}");
    let said: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(said["error"], 403);
    assert_eq!(said["id"].as_str().unwrap().len(), 32, "{said}");
    let (head, body) = get("/own", "text/html, application/json;q=0.5");
    assert!(head.contains("Content-Type: text/html; charset=utf-8\r\n"), "{head}");
    assert!(body.starts_with("<b title=\"") && body.ends_with("\">Forbidden</b>") && body.len() > 40, "{body}");
    let (_, body) = get("/plain", "*/*");
    assert!(body.starts_with("L 403 ") && body.len() == 6 + 32, "{body}");
    let (_, body) = get("/plain", "application/json");
    assert_eq!(body, "{\"status\":403,\"title\":\"Forbidden\"}\n");
    let lines = json_lines(&room, 4);
    assert_eq!(lines[0]["request_id"], said["id"], "the client and the log know it by the same name");
}

#[test]
fn a_trace_is_passed_on_and_written_down_and_one_that_is_none_is_dropped() {
    let room = Room::new("http-trace");
    let proxy = Running::start(&room, &document(&room, &[backend("a")], ""));
    let mut client = connect(proxy.front());
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let good = format!("Traceparent: 00-{id}-00f067aa0ba902b7-01\r\ntracestate: a=1\r\n");
    let twice = format!("{good}traceparent: 00-{id}-00f067aa0ba902b7-01\r\n");
    let wrong = format!("traceparent: 00-{id}-0000000000000000-01\r\ntracestate: a=1\r\n");
    let cases = [(&good, true), (&twice, false), (&wrong, false), (&"tracestate: a=1\r\n".to_owned(), true)];
    for (fields, passes) in cases {
        let (_, seen) = ask(&mut client, &format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}X-After: 1\r\n\r\n"));
        assert_eq!(seen.contains(fields), passes, "{seen}");
        assert!(seen.contains("X-After: 1") && (passes || !seen.to_lowercase().contains("trace")), "{seen}");
    }
    let lines = json_lines(&room, 4);
    assert_eq!(lines[0]["trace_id"], id);
    assert!(lines[1..].iter().all(|line| line["trace_id"].is_null()), "{lines:?}");
}

#[test]
fn times_are_counted_by_route_and_cluster_and_outlive_generations() {
    let room = Room::new("http-times");
    let routes: String = (0..210)
        .map(|n| format!("[routes.r{n:03}]\nlistener = \"front\"\npath = \"/r{n:03}\"\nrespond = {{ status = 204 }}\n"))
        .collect();
    let a = backend("a");
    let proxy = Running::start(&room, &document(&room, &[a], &routes));
    let get = |path: &str| {
        let mut client = connect(proxy.front());
        client.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    };
    ["/", "/x", "/r000", "/r205", "/r206"].iter().for_each(|path| get(path));
    let count = |name: &str, labels: &str| proxy.metrics().sum(name, labels);
    let route = "kakei_route_request_seconds_count";
    assert_eq!(count(route, "{listener=\"front\",route=\"\"}"), 2);
    assert_eq!(count(route, "{listener=\"front\",route=\"r000\"}"), 1);
    assert_eq!(count(route, "{listener=\"front\",route=\"other\"}"), 2);
    assert_eq!(count(route, ""), 5, "nothing else has a series");
    assert_eq!(count("kakei_route_request_seconds_bucket", "route=\"r000\",le=\"+Inf\""), 1);
    assert_eq!(count("kakei_cluster_request_seconds_count", "{cluster=\"c\"}"), 2);
    let opened = count("kakei_backend_connections_opened_total", "cluster=\"c\"");
    assert_eq!(count("kakei_cluster_connect_seconds_count", "{cluster=\"c\"}"), opened);
    assert_eq!(count("kakei_cluster_queue_seconds_count", ""), 0);
    // A route that stays keeps what was counted of it; one that goes takes it along.
    let fewer = routes.replace("[routes.r001]", "[routes.r001b]").replace("\"/r000\"", "\"/r000b\"");
    let file = room.write("next.toml", &document(&room, &[a], &fewer));
    proxy.done(&["apply", file.to_str().unwrap()]);
    get("/r000b");
    assert_eq!(count(route, "{listener=\"front\",route=\"r000\"}"), 2);
    assert_eq!(count(route, "{listener=\"front\",route=\"\"}"), 2);
    let file = room.write("last.toml", &document(&room, &[a], ""));
    proxy.done(&["apply", file.to_str().unwrap()]);
    assert_eq!(count(route, "route=\"r000\""), 0);
    assert_eq!(count(route, "route=\"\""), 2);
}

const EXPLAINED: &str = "[routes.shop]\nlistener = \"front\"\nhost = [\"shop.example.com\"]\npath = \"/api\"\ncluster = \"c\"\n\
     request = { path = \"/v2{rest}\", set = { x-env = \"prod\" }, remove = [\"x-debug\"] }\n\
     response = { remove = [\"server\"] }\nallow = [\"10.0.0.0/8\"]\n\
     rate_limits = [{ by = \"client\", requests = 5, per = \"1s\" }, { by = { header = \"x-key\" }, concurrent = 2 }]\n\
     [routes.beta]\nlistener = \"front\"\nhost = [\"shop.example.com\"]\npath = \"/api\"\nheaders = { x-beta = \"1\" }\n\
     cluster = \"c\"\n\
     [routes.old]\nlistener = \"front\"\npath = \"/old\"\nredirect = { status = 308, path = \"/new{rest}\" }\n\
     response = { set = { x-was = \"{path}\" } }\n";

#[test]
fn a_url_is_explained_live_and_by_a_document() {
    let room = Room::new("http-explain");
    let text = document(&room, &[backend("a")], EXPLAINED);
    let proxy = Running::start(&room, &text);
    let file = room.write("other.toml", &text);
    let of_file = ["-c", file.to_str().unwrap()];
    let url = "https://shop.example.com/x/../api/y?q=1";
    let both = |arguments: &[&str]| {
        let asked = [&["explain"], arguments].concat();
        let (live, alone) = (proxy.json(&asked), proxy.json(&[&asked[..], &of_file].concat()));
        assert_eq!(live["request"], alone["request"]);
        assert_eq!((&live["verdict"], &live["considered"]), (&alone["verdict"], &alone["considered"]));
        live
    };
    let refused = both(&["GET", url, "--client", "192.0.2.7"]);
    assert_eq!(refused["verdict"], "refused by route shop: 192.0.2.7 may not pass (403)");
    assert_eq!((&refused["dropped"], &refused["request"]["status"]), (&"denied".into(), &403.into()));
    assert_eq!(refused["request"]["allow"][0], "10.0.0.0/8");
    let passes = both(&["GET", url, "--client", "10.1.2.3"]);
    assert!(passes["verdict"].as_str().unwrap().starts_with("by route shop to backend "), "{passes}");
    let request = &passes["request"];
    assert_eq!((&request["path"], &request["target"]), (&"/api/y".into(), &"/v2/y?q=1".into()));
    assert_eq!(
        (&request["request"]["set"]["x-env"], &request["response"]["remove"][0]),
        (&"prod".into(), &"server".into())
    );
    assert_eq!(request["rate_limits"][0], "5 in 1s for each client");
    assert_eq!(request["rate_limits"][1], "2 under way for each value of x-key");
    let why = |answer: &Value, route: &str| {
        let rows = answer["considered"].as_array().unwrap();
        rows.iter().find(|row| row["route"] == route).unwrap()["why"].clone()
    };
    assert_eq!(why(&passes, "beta"), "the request lacks a header field, or has another value");
    let beta = both(&[url, "--method", "GET", "--header", "X-Beta: 1"]);
    assert_eq!((&beta["route"], &why(&beta, "shop")), (&"beta".into(), &"a more specific one matched".into()));
    let moved = both(&["http://a/old/x?k=v"]);
    assert_eq!(moved["request"]["location"], "http://a/new/x?k=v");
    assert_eq!(moved["request"]["response"]["set"]["x-was"], "/old/x");
    let table = proxy.done(&["explain", "GET", url, "--client", "10.1.2.3"]);
    assert!(table.contains("  goes on as: /v2/y?q=1\n") && table.contains("  request sets x-env: prod\n"), "{table}");
    let dialled = format!("tcp:{}", proxy.front());
    let dialled = proxy.json(&["explain", &dialled, "--client", "10.1.2.3", "--url", url]);
    assert_eq!(dialled["route"], "shop");
    let unknown = proxy.json(&["explain", "http://a/", "--listener", "back"]);
    assert_eq!(unknown["verdict"], "no listener back speaks HTTP");
    for wrong in [&["explain", "GET", "http://a/", "--header", "nonsense"][..], &["explain", "tcp:127.0.0.1:1"]] {
        assert_eq!(proxy.ask(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn serve_proxies_http_in_one_line() {
    let room = Room::new("http-serve");
    let mut command = crate::harness::kakei();
    command.args(["serve", "--from", "http://127.0.0.1:0/", "--to", &format!("http://{}/", backend("a"))]);
    command.arg("-s").arg(room.path("k.sock"));
    let proxy = Running::from(&room, command);
    let (head, body) = ask(&mut connect(proxy.front()), "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && body.starts_with("a\nGET /x HTTP/1.1\r\n"), "{head}{body}");
    assert_eq!(proxy.json(&["get", "listeners"])[0]["protocol"], "http");
}

/// A backend that takes requests and says nothing.
fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let _held: Vec<_> = listener.incoming().collect();
    });
    address
}

#[test]
fn a_request_under_way_is_listed_with_its_route_and_phase() {
    let room = Room::new("http-list");
    let more = format!(
        "[clusters.s]\nbackends = [\"{}\"]\n[routes.slow]\nlistener = \"front\"\npath = \"/slow\"\ncluster = \"s\"\n",
        silent()
    );
    let proxy = Running::start(&room, &document(&room, &[backend("a")], &more));
    let mut client = connect(proxy.front());
    ask(&mut client, "GET /before HTTP/1.1\r\nHost: a\r\n\r\n");
    client.write_all(b"GET /slow/x?y HTTP/1.1\r\nHost: shop\r\n\r\n").unwrap();
    let row = eventually("the request waits for its backend", || {
        let rows = proxy.json(&["get", "connections", "--cluster", "s"]);
        rows.as_array().unwrap().iter().find(|row| row["phase"] == "waiting").cloned()
    });
    assert_eq!((&row["route"], &row["cluster"], &row["requests"]), (&"slow".into(), &"s".into(), &2.into()));
    assert_eq!(row["request"], "GET shop/slow/x?y");
    let status = proxy.json(&["status"]);
    assert_eq!((&status["listeners"][0]["requests"], &status["listeners"][0]["requests_live"]), (&2.into(), &1.into()));
    let cluster = status["clusters"].as_array().unwrap().iter().find(|cluster| cluster["name"] == "s").unwrap();
    assert_eq!(cluster["requests_live"], 1);
    let table = proxy.done(&["get", "connections"]);
    assert!(table.contains("ROUTE") && table.contains("GET shop/slow/x?y"), "{table}");
}

/// A backend that answers in chunks with so many trailers as the path says.
fn trailing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut asked, mut one) = (Vec::new(), [0]);
            let is_whole =
                |asked: &[u8]| asked.ends_with(b"\r\n\r\n") && asked.windows(5).any(|five| five == b"\r\n0\r\n");
            while !is_whole(&asked) && stream.read(&mut one).is_ok_and(|count| count > 0) {
                asked.push(one[0]);
            }
            if !is_whole(&asked) {
                continue;
            }
            let head = String::from_utf8(asked).unwrap();
            let count: usize = head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
            let trailers: String = (0..count).map(|at| format!("X-T{at}: 1\r\n")).collect();
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n";
            let _ = stream.write_all(format!("{head}{trailers}\r\n").as_bytes());
        }
    });
    address
}

/// What `kakei explain` says of rates. Which worker a connection comes to is the kernel's choice: the busiest one first.
fn rates(proxy: &Running, arguments: &[&str]) -> Value {
    let mut rates = proxy.json(&[&["explain"], arguments].concat())["rates"].clone();
    for rate in rates.as_array_mut().unwrap() {
        let workers = rate["workers"].as_array_mut().unwrap();
        workers.sort_by_key(|worker| std::cmp::Reverse(worker["used"].as_u64()));
    }
    rates
}

/// How much is used up of how much: in all workers, and in each.
fn used(rate: &Value) -> ((u64, u64), Vec<(u64, u64)>) {
    let of = |row: &Value| (row["used"].as_u64().unwrap(), row["most"].as_u64().unwrap());
    (of(rate), rate["workers"].as_array().unwrap().iter().map(of).collect())
}

#[test]
fn explain_says_how_much_of_a_rate_is_used_up_and_uses_none() {
    let room = Room::new("http-rates");
    let more = "[routes.often]\nlistener = \"front\"\npath = \"/often\"\ncluster = \"c\"\ndeny = [\"192.0.2.0/24\"]\n\
                rate_limits = [{ by = \"client\", requests = 5, per = \"1h\" }]\n";
    let text = document(&room, &[backend("a")], more);
    let proxy = Running::start(&room, &text);
    let mut client = connect(proxy.front());
    let mut pass = || ask(&mut client, "GET /often HTTP/1.1\r\nHost: a\r\n\r\n").0.starts_with("HTTP/1.1 200 ");
    for sent in 0..3 {
        let seen = rates(&proxy, &["http://a/often"]);
        assert_eq!(used(&seen[0]), ((sent, 6), vec![(sent, 3), (0, 3)]), "however often somebody looks: {seen}");
        assert_eq!(seen[0]["workers"][0]["next_in_ms"], 0);
        assert!(pass());
    }
    let seen = rates(&proxy, &["http://a/often"]);
    assert_eq!(used(&seen[0]), ((3, 6), vec![(3, 3), (0, 3)]), "{seen}");
    let next = seen[0]["workers"][0]["next_in_ms"].as_u64().unwrap();
    assert!((1_100_000..=1_200_000).contains(&next) && seen[0]["next_in_ms"] == 0, "{seen}");
    assert!(!pass(), "that worker has none left");
    let words = (&seen[0]["limit"], &seen[0]["of"]);
    assert_eq!(words, (&"5 in 3600s for each client".into(), &"client 127.0.0.1".into()));
    let table = proxy.done(&["explain", "http://a/often"]);
    let line = |worker: &str, rest: &str| {
        let words: Vec<&str> = worker.split(' ').chain(rest.split(' ')).collect();
        table.lines().any(|line| line.split_whitespace().collect::<Vec<_>>().ends_with(&words))
    };
    assert!(table.contains("RATE LIMIT") && !table.contains("NOTE"), "{table}");
    assert!(line("127.0.0.1 all", "3 6 at once") && (0..2).any(|at| line(&at.to_string(), "0 3 at once")), "{table}");

    // Its description has all of it.
    let answer = proxy.http("GET", "/v1/explain?url=http%3A%2F%2Fa%2Foften", &[], "").json();
    assert_eq!(answer["rates"][0]["used"], 3);

    // Somebody else has used nothing, who may not pass counts nowhere, and no document knows who came.
    assert_eq!(used(&rates(&proxy, &["http://a/often", "--client", "10.1.2.3"])[0]), ((0, 6), vec![(0, 3); 2]));
    let file = room.write("same.toml", &text);
    for nothing in [
        &["http://a/often", "--client", "192.0.2.7"][..],
        &["http://a/"],
        &["http://a/often", "-c", file.to_str().unwrap()],
    ] {
        assert_eq!(rates(&proxy, nothing), Value::Array(Vec::new()), "{nothing:?}");
    }
}

#[test]
fn explain_says_how_many_requests_are_under_way_of_those_that_may_be() {
    let room = Room::new("http-under-way");
    let more = format!(
        "[clusters.s]\nbackends = [\"{}\"]\n[routes.slow]\nlistener = \"front\"\npath = \"/slow\"\ncluster = \"s\"\n\
         rate_limits = [{{ by = {{ header = \"x-key\" }}, requests = 60, per = \"1h\", concurrent = 2 }}]\n",
        silent()
    );
    let proxy = Running::start(&room, &document(&room, &[backend("a")], &more));
    let asked = ["http://a/slow", "--header", "x-key: k"];
    let mut waits = connect(proxy.front());
    waits.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\nX-Key: k\r\n\r\n").unwrap();
    let seen = eventually("the request is under way", || {
        let seen = rates(&proxy, &asked);
        (seen[1]["used"] == 1).then_some(seen)
    });
    assert_eq!(used(&seen[0]), ((1, 60), vec![(1, 30), (0, 30)]));
    assert_eq!(used(&seen[1]), ((1, 2), vec![(1, 1), (0, 1)]));
    assert_eq!((&seen[1]["of"], &seen[1]["workers"][0]["next_in_ms"]), (&"x-key: k".into(), &Value::Null));
    let other = rates(&proxy, &["http://a/slow"]);
    assert_eq!((&other[1]["of"], &other[1]["used"]), (&"without x-key".into(), &0.into()));
    let table = proxy.done(&[&["explain"], &asked[..]].concat());
    assert!(table.contains("2 under way for each value of x-key") && table.contains("when one ends"), "{table}");
    drop(waits);
    eventually("it is given back", || (rates(&proxy, &asked)[1]["used"] == 0).then_some(()));
}

#[test]
fn more_trailers_than_may_be_are_refused_and_written_down() {
    let room = Room::new("http-trailers");
    let text = document(&room, &[trailing()], "").replace("count = 2", "count = 1");
    let proxy = Running::start(&room, &text);
    let post = |of_request: usize, of_response: usize| {
        let trailers: String = (0..of_request).map(|at| format!("X-T{at}: 1\r\n")).collect();
        let head = format!(
            "POST /{of_response} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        let mut stream = connect(proxy.front());
        stream.write_all(format!("{head}1\r\na\r\n0\r\n{trailers}\r\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        let is_whole = stream.read_to_end(&mut answer).is_ok();
        (String::from_utf8(answer).unwrap(), is_whole)
    };
    let (answer, is_whole) = post(64, 64);
    assert!(is_whole && answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("X-T63: 1\r\n\r\n"), "{answer}");
    let (answer, _) = post(65, 0);
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let (answer, is_whole) = post(0, 65);
    assert!(!is_whole && !answer.contains("X-T"), "what is broken off is not taken for the whole: {answer}");
    let lines = json_lines(&room, 3);
    let reasons: Vec<_> = lines.iter().map(|line| line["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["completed", "too_large", "bad_response"]);
    assert_eq!(proxy.metrics().sum("kakei_requests_ended_total", "reason=\"bad_response\""), 1);
}
