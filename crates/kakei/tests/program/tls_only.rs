//! That clients come over TLS and go on so: where those without it are sent, what those with it are told, and what
//! `kakei explain` says of both.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::harness::{Room, Running};
use crate::tls::{Authority, connect, document, get, mirror};
use crate::tls_clients::client_config;

const FIELD: &str = "Strict-Transport-Security: ";

/// What a response tells of coming otherwise, each time that it does.
fn told(head: &str) -> Vec<&str> {
    head.lines().filter_map(|line| line.strip_prefix(FIELD)).collect()
}

/// A backend that has a policy of its own.
fn strict() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut head = [0; 4_096];
                while stream.read(&mut head).is_ok_and(|length| length > 0) {
                    let answer = "HTTP/1.1 200 OK\r\nstrict-transport-security: max-age=1\r\nContent-Length: 0\r\n\r\n";
                    let _ = stream.write_all(answer.as_bytes());
                }
            });
        }
    });
    address
}

/// What a client without TLS is answered.
fn plainly(front: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(front).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A listener with TLS, and one that sends to it.
const MORE: &str = "[listeners.front.http]\nhsts = { max_age = \"1d\" }\n\
    [routes.long]\nlistener = \"front\"\npath = \"/long\"\ncluster = \"c\"\nhsts = { include_subdomains = true, preload = true }\n\
    [routes.own]\nlistener = \"front\"\npath = \"/own\"\nredirect = { path = \"/\" }\n\
    [routes.hand]\nlistener = \"front\"\npath = \"/hand\"\ncluster = \"c\"\nresponse = { remove = [\"strict-transport-security\"] }\n\
    [routes.shut]\nlistener = \"front\"\npath = \"/shut\"\ncluster = \"c\"\ndeny = [\"127.0.0.0/8\"]\n\
    [listeners.plain]\nprotocol = \"http\"\nbind = [\"127.0.0.2:0\"]\nredirect_to_tls = { port = 8443 }\n\
    [routes.acme]\nlistener = \"plain\"\npath = \"/.well-known/acme-challenge\"\ncluster = \"c\"\n";

#[test]
fn who_comes_over_tls_is_told_to_go_on_so() {
    let (room, authority) = (Room::new("tls-only"), Authority::new());
    let more = [authority.make(&["site.test"], |_| {}).put(&room, "site"), MORE.to_owned()].concat();
    let text = document(&room, ("http", strict()), "certificates = [\"site\"]", &more);
    let running = Running::start(&room, &text);
    let mut stream = connect(running.front(), "site.test", &client_config(&authority, None)).unwrap();
    let (day, year) = ("max-age=86400", "max-age=31536000; includeSubDomains; preload");
    let cases: [(&str, &str, &[&str]); 5] = [
        ("/", "200", &[day]),
        ("/long", "200", &[year]),
        ("/own", "302", &[day]),
        ("/hand", "200", &[]),
        ("/shut", "403", &[day]),
    ];
    for (path, status, wanted) in cases {
        let (head, _) = get(&mut stream, "site.test", path);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {head}");
        assert_eq!(told(&head), wanted, "{path}: {head}");
        assert!(!head.contains("max-age=1\r\n"), "the backend's own: {head}");
    }
    let (head, _) = get(&mut stream, "other.test", "/");
    assert!(head.starts_with("HTTP/1.1 421 ") && told(&head).is_empty(), "{head}");
    // What is no request is answered too; what came without TLS isn't told.
    let answer = plainly(running.front(), "GET / HTTP/1.1\r\nHost: site.test\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 ") && told(&answer).is_empty(), "{answer}");

    let listed = running.json(&["get", "listeners"]);
    let plain = listed.as_array().unwrap().iter().find(|listener| listener["name"] == "plain").unwrap();
    let plain: SocketAddr = plain["local"][0].as_str().unwrap().parse().unwrap();
    let cases = [
        ("GET /a%20b?c=d HTTP/1.1\r\nHost: Site.test:80\r\nConnection: close", "https://site.test:8443/a%20b?c=d"),
        ("POST / HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 0\r\nConnection: close", "https://[::1]:8443/"),
        ("OPTIONS * HTTP/1.1\r\nHost: site.test\r\nConnection: close", "https://site.test:8443/"),
        ("GET http://other.test/x HTTP/1.0\r\nHost: site.test", "https://other.test:8443/x"),
    ];
    for (request, wanted) in cases {
        let answer = plainly(plain, &format!("{request}\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 308 "), "{request}: {answer}");
        assert!(answer.contains(&format!("\r\nLocation: {wanted}\r\n")), "{request}: {answer}");
        assert!(told(&answer).is_empty(), "{answer}");
    }
    let answer = plainly(plain, "GET / HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 "), "nobody knows where: {answer}");
    let challenge = "GET /.well-known/acme-challenge/x HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n";
    let answer = plainly(plain, challenge);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("max-age=1\r\n"), "{answer}");
}

#[test]
fn a_url_is_explained_with_the_listener_and_the_certificate_that_it_meets() {
    let (room, authority) = (Room::new("tls-explain"), Authority::new());
    let site = authority.make(&["site.test", "127.0.0.1"], |_| {}).put(&room, "site");
    let more = [site, MORE.to_owned()].concat();
    let text = document(&room, ("http", mirror()), "certificates = [\"site\"]", &more);
    let file = room.write("other.toml", &text);
    let running = Running::start(&room, &text);
    let both = |url: &str| {
        let alone = running.json(&["explain", url, "-c", file.to_str().unwrap()]);
        let live = running.json(&["explain", url]);
        assert_eq!((&live["verdict"], &live["tls"]), (&alone["verdict"], &alone["tls"]));
        live
    };
    let found = both("https://site.test/long");
    assert_eq!((&found["listener"], &found["route"]), (&"front".into(), &"long".into()));
    assert_eq!(found["request"]["hsts"], "max-age=31536000; includeSubDomains; preload");
    let met = &found["tls"]["certificates"][0];
    assert_eq!((&met["name"], &met["key"], &met["covers"]), (&"site".into(), &"ecdsa".into(), &true.into()));
    let plain = both("http://site.test/x");
    assert_eq!((&plain["listener"], &plain["tls"]), (&"plain".into(), &serde_json::Value::Null));
    assert_eq!(plain["request"]["location"], "https://site.test:8443/x");
    assert_eq!(plain["verdict"], "by the listener's default: redirected by 308 to https://site.test:8443/x");
    let stranger = both("https://other.test/");
    assert_eq!(stranger["dropped"], "tls_unknown_name");
    let unnamed = both("https://127.0.0.1/");
    assert_eq!(unnamed["dropped"], "tls_unknown_name", "an address is never asked for");
    let table = running.done(&["explain", "https://site.test/"]);
    assert!(
        table.contains("CERTIFICATE  KEY") && table.contains("Strict-Transport-Security: max-age=86400\n"),
        "{table}"
    );
}
