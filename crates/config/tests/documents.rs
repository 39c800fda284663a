//! The document of the design page reads as the model that was meant.

use std::time::Duration;

use kakei_config::*;

const DNS: &str = r#"
[admin]
socket  = "kakei.sock"
metrics = "127.0.0.1:9180"
state   = "/var/lib/kakei"

[workers]
count = "auto"

[listeners.dns]
protocol = "udp"
bind     = ["0.0.0.0:5353", "[::]:5353"]
cluster  = "resolvers"
limits   = { flows = 100000, flows_per_source = 1000, new_flows_per_second = 0 }
max_datagram_size = "1500B"
proxy_protocol = { trusted = ["10.0.0.0/8", "192.0.2.1"] }

[routes.inside]
listener = "dns"
source = ["10.1.0.0/16"]
cluster = "resolvers"

[clusters.resolvers]
balance  = "hrw"
backends = ["10.0.0.10:53", { name = "b", address = "10.0.0.11:53", weight = 2, backup = false }]
udp      = { affinity = "source_ip", responses = 1, requests = 0, expects_reply = true, front_timeout = "30s", back_timeout = "1m30s", lifetime = "none",
             upstream = "per_flow", send_proxy_protocol = "off", on_backend_removed = "keep", on_backend_down = "keep" }
health   = { udp = { send_hex = "00 ff", expect = { prefix_text = "ok" } }, interval = "5s", timeout = "2s", rise = 2, fall = 3, fail_open = true }
"#;

#[test]
fn the_design_page_reads_as_meant() {
    let document = parse_toml(DNS).unwrap();
    let listener = &document.listeners[&Name::new("dns")];
    assert_eq!(listener.bind, ["0.0.0.0:5353".parse().unwrap(), "[::]:5353".parse().unwrap()]);
    assert_eq!(listener.limits, Limits { flows_per_source: 1_000, ..Limits::default() });
    assert_eq!((listener.max_datagram_size, listener.drain_timeout), (1_500, Duration::from_secs(30)));
    assert_eq!(listener.proxy_protocol.trusted, ["10.0.0.0/8".parse().unwrap(), "192.0.2.1/32".parse().unwrap()]);
    let cluster = &document.clusters[&Name::new("resolvers")];
    assert_eq!(cluster.balance, Balance::Hrw);
    assert_eq!(cluster.backends[0].name, Name::new("10.0.0.10:53"));
    assert_eq!((cluster.backends[0].weight, cluster.backends[1].weight), (1, 2));
    assert_eq!((cluster.udp.responses, cluster.udp.back_timeout), (1, Duration::from_secs(90)));
    let check = cluster.health.as_ref().unwrap().udp.as_ref().unwrap();
    assert_eq!((&check.send[..], &check.expect), (&[0, 255][..], &Expect::Prefix(b"ok".to_vec())));
    assert_eq!(document.routes[&Name::new("inside")].cluster, Some(Name::new("resolvers")));
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let document =
        parse_toml("[listeners.x]\nprotocol = \"udp\"\nbind = [\"[::1]:0\"]\n[clusters.c]\nbackends = [\"[::1]:5\"]")
            .unwrap();
    let listener = &document.listeners[&Name::new("x")];
    assert_eq!((listener.max_datagram_size, &listener.cluster, listener.limits), (65_507, &None, Limits::default()));
    let cluster = &document.clusters[&Name::new("c")];
    assert_eq!((&cluster.udp, &cluster.health, cluster.balance), (&UdpKnobs::default(), &None, Balance::RoundRobin));
    assert_eq!(cluster.backends[0].name, Name::new("[::1]:5"));
    assert_eq!(parse_toml("").unwrap(), Document::default());
    assert_eq!(parse_json("{}").unwrap(), Document::default());
}

#[test]
fn the_timeout_of_a_probe_follows_a_short_interval() {
    let timeout = |health: &str| {
        let document = parse_toml(&format!("[clusters.c.health]\ntcp = {{}}\n{health}")).unwrap();
        document.clusters[&Name::new("c")].health.as_ref().unwrap().timeout
    };
    assert_eq!(timeout(""), Duration::from_secs(2));
    assert_eq!(timeout("interval = \"3s\""), Duration::from_secs(2));
    assert_eq!(timeout("interval = \"2s\""), Duration::from_secs(1));
    assert_eq!(timeout("interval = \"100ms\""), Duration::from_millis(50));
    assert_eq!(timeout("interval = \"3s\"\ntimeout = \"2999ms\""), Duration::from_millis(2_999));
}

#[test]
fn wildcards_may_overlap_and_port_0_may_stand_on_different_addresses() {
    parse_toml("[listeners.x]\nprotocol = \"udp\"\nbind = [\"0.0.0.0:53\", \"127.0.0.1:53\", \"127.0.0.1:0\", \"127.0.0.2:0\"]").unwrap();
}

const WEB: &str = r#"
[listeners.web]
protocol = "http"
bind     = ["0.0.0.0:8080"]
http     = { head_timeout = "5s", max_body = "10MiB", trusted = ["10.0.0.0/8"], via = "kakei", errors = { html = "<h1>{status}</h1>" } }

[routes.shop]
listener = "web"
host     = ["Shop.example.com.", "*.shop.example.com", "10.0.0.1", "[0:0::1]"]
path     = "/api/"
method   = ["GET", "POST"]
headers  = { X-Beta = "1", x-any = true }
query    = { "a b" = true }
split    = { shop = 95, canary = 5 }
timeouts = { request = "30s", response = "30s" }
retry    = { attempts = 1, on = ["connect", "502", 429], budget = 10 }
request  = { set = { X-Env = "prod" }, remove = ["X-Debug"], host = "in.example:80", path = "/v2{rest}" }
response = { add = { Vary = "x" } }
rate_limits = [{ by = { header = "X-Key" }, requests = 100, burst = 5 }, { by = "route", concurrent = 9 }]
upgrade  = false
on_change = "close"

[routes.old]
listener = "web"
path     = { regex = "/v([0-9]+)/.*" }
redirect = { path = "/new/{1}", query = "" }

[clusters.shop]
http   = { idle_timeout = "none" }
health = { http = { status = ["200-299", 404] }, passive = { status = ["500-599"], latency = "2s" } }

[clusters.canary]
"#;

#[test]
fn a_document_of_http_reads_as_meant() {
    let document = parse_toml(WEB).unwrap_or_else(|found| panic!("{}", found.render("web", WEB, false)));
    let http = &document.listeners[&Name::new("web")].http;
    assert_eq!(
        (http.head_timeout, http.max_body, http.via.as_deref()),
        (Duration::from_secs(5), 10 << 20, Some("kakei"))
    );
    let shop = &document.routes[&Name::new("shop")];
    let hosts: Vec<String> = shop.host.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["shop.example.com", "*.shop.example.com", "10.0.0.1", "[::1]"]);
    assert_eq!(shop.path, PathMatch::Prefix("/api".into()));
    let headers = [("x-any".into(), ValueMatch::Present), ("x-beta".into(), ValueMatch::Exact("1".into()))];
    assert_eq!(shop.headers, headers.into());
    assert_eq!(shop.split, [("canary".into(), 5), ("shop".into(), 95)].into());
    assert_eq!(shop.retry.on, [RetryOn::Connect, RetryOn::Status(502), RetryOn::Status(429)]);
    assert_eq!((&*shop.request.remove[0], shop.request.set["X-Env"].as_str()), ("x-debug", "prod"));
    assert_eq!(shop.timeouts.idle, RouteTimeouts::default().idle);
    assert_eq!(shop.rate_limits[0].by, RateKey::Header("x-key".into()));
    assert_eq!((shop.upgrade, shop.connect, shop.on_change), (false, false, OnChange::Close));
    let old = document.routes[&Name::new("old")].redirect.as_ref().unwrap();
    assert_eq!((old.status, old.query.as_deref(), &old.host), (302, Some(""), &None));
    let cluster = &document.clusters[&Name::new("shop")];
    assert_eq!(cluster.http.idle_timeout, None);
    let health = cluster.health.as_ref().unwrap();
    let statuses = [StatusRange { from: 200, to: 299 }, StatusRange { from: 404, to: 404 }];
    assert_eq!(health.http.as_ref().unwrap().status, statuses);
    assert_eq!(health.passive.as_ref().unwrap().latency, Some(Duration::from_secs(2)));
}

#[test]
fn a_smaller_head_bounds_the_request_line_too() {
    let text = "[listeners.x]\nprotocol = \"http\"\nbind = [\"[::1]:0\"]\nhttp = { max_head = \"4KiB\" }";
    let http = parse_toml(text).unwrap().listeners[&Name::new("x")].http.clone();
    assert_eq!((http.max_head, http.max_request_line), (4 << 10, 4 << 10));
}

#[test]
fn what_follows_from_another_option_is_written_only_where_it_does_not() {
    let text = |line: &str, timeout: &str, most: &str| {
        format!(
            "[listeners.x]\nprotocol = \"http\"\nbind = [\"[::1]:0\"]\nhttp = {{ max_head = \"4KiB\"{line} }}\n\
            [clusters.c.health]\ntcp = {{}}\ninterval = \"1s\"{timeout}\npassive = {{ eject = \"10m\"{most} }}\n"
        )
    };
    let written = |text: &str| {
        let tree = parse_toml(text).unwrap().to_json_value();
        assert_eq!(parse_json(&tree.to_string()).unwrap(), parse_toml(text).unwrap());
        let (health, http) = (&tree["clusters"]["c"]["health"], &tree["listeners"]["x"]["http"]);
        [&http["max_request_line"], &health["timeout"], &health["passive"]["eject_max"]].map(|value| value.is_string())
    };
    assert_eq!(written(&text("", "", "")), [false; 3]);
    let same = text(", max_request_line = \"4KiB\"", "\ntimeout = \"500ms\"", ", eject_max = \"10m\"");
    assert_eq!(written(&same), [false; 3]);
    let other = text(", max_request_line = \"2KiB\"", "\ntimeout = \"400ms\"", ", eject_max = \"20m\"");
    assert_eq!(written(&other), [true; 3]);
}

#[test]
fn routes_that_differ_in_anything_may_stand_beside_each_other() {
    let parts = [
        "path = \"/\"",
        "path = { exact = \"/\" }",
        "path = { regex = \"/\" }",
        "host = [\"a.test\"]",
        "host = [\"*.a.test\"]",
        "host = [\"a.test\"]\nmethod = [\"GET\"]",
        "host = [\"a.test\"]\nmethod = [\"PUT\"]",
        "host = [\"a.test\"]\nsource = [\"10.0.0.0/8\"]",
        "headers = { a = true }",
        "headers = { a = \"1\" }",
        "query = { a = true }",
        "",
    ];
    let mut text = "[listeners.x]\nprotocol = \"http\"\nbind = [\"[::1]:0\"]\n".to_owned();
    for (n, part) in parts.iter().enumerate() {
        text += &format!("[routes.r{n}]\nlistener = \"x\"\n{part}\nrespond = {{ body = \"{n}\" }}\n");
    }
    assert_eq!(parse_toml(&text).map_err(|found| found.render("x", &text, false)).unwrap().routes.len(), parts.len());
    let again = text.clone() + "[routes.again]\nlistener = \"x\"\npath = \"/\"\nrespond = {}\n";
    let found = parse_toml(&again).unwrap_err();
    assert_eq!((found.count(), found.iter().next().unwrap().place.pointer.as_str()), (1, "/routes/again"));
}

#[test]
fn who_refers_to_an_object_shares_one_text_with_all_who_do() {
    let text = "[listeners.x]\nprotocol = \"http\"\nbind = [\"[::1]:0\"]\n[clusters.c]\nbackends = [\"[::1]:1\"]\n\
        [routes.a]\nlistener = \"x\"\npath = \"/a\"\ncluster = \"c\"\n\
        [routes.b]\nlistener = \"x\"\npath = \"/b\"\ncluster = \"c\"\n";
    let document = parse_toml(text).unwrap();
    let of = |route: &str| {
        let route = &document.routes[&Name::new(route)];
        [&route.listener, route.cluster.as_ref().unwrap()].map(|name| name.as_str().as_ptr())
    };
    assert_eq!(of("a"), of("b"));
}

#[test]
fn a_loop_is_found_whichever_of_its_parts_comes_last() {
    let text = |bind: &str, backend: &str, route: &str| {
        format!(
            "[listeners.l]\nprotocol = \"udp\"\nbind = [\"{bind}\"]\n[clusters.c]\nbackends = [\"{backend}\"]\n{route}"
        )
    };
    let route = "[routes.r]\nlistener = \"l\"\nsource = [\"10.0.0.0/8\"]\ncluster = \"c\"\n";
    for (bind, here) in [("192.0.2.1:53", "192.0.2.1:53"), ("0.0.0.0:53", "127.0.0.1:53"), ("[::]:53", "[::1]:53")] {
        let whole = text(bind, here, route);
        let wrong = parse_toml(&whole).unwrap_err();
        assert!(wrong.iter().any(|error| error.message.contains("a loop")), "{wrong}");
        let steps = [text("192.0.2.9:53", here, route), text(bind, "192.0.2.9:5353", route), text(bind, here, "")];
        for before in steps {
            let before = Checked::of_valid(parse_toml(&before).unwrap());
            let mut next = before.document().clone();
            let meant = parse_toml(&whole.replace("\"udp\"", "\"http\"")).unwrap();
            next.listeners.insert(
                Name::new("l"),
                Listener { protocol: Protocol::Udp, ..meant.listeners[&Name::new("l")].clone() },
            );
            next.clusters.insert(Name::new("c"), meant.clusters[&Name::new("c")].clone());
            next.routes.insert(Name::new("r"), meant.routes[&Name::new("r")].clone());
            let wrong = before.next(next).unwrap_err();
            assert!(wrong.iter().any(|error| error.message.contains("a loop")), "{wrong}");
        }
    }
    // The same addresses where nothing leads from the one to the other.
    assert!(parse_toml(&text("192.0.2.1:53", "192.0.2.1:53", "")).is_ok());
    assert!(parse_toml(&text("0.0.0.0:53", "192.0.2.1:53", route)).is_ok(), "that may be another host");
}
