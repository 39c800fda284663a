//! A client that shows its cookie meets the backend that it had, as long as that is there.

use std::net::SocketAddr;

use crate::harness::{Closed, Room, Running, eventually};
use crate::http::{ask, backend, connect};

fn document(room: &Room, backends: &[(&str, SocketAddr)], more: &str) -> String {
    let list: Vec<String> =
        backends.iter().map(|(name, at)| format!("{{ name = \"{name}\", address = \"{at}\" }}")).collect();
    format!(
        "[admin]\nsocket = {:?}\n[workers]\ncount = 2\n\
         [listeners.front]\nprotocol = \"http\"\nbind = [\"127.0.0.1:0\"]\ncluster = \"c\"\n\
         [clusters.c]\nbackends = [{}]\n{more}\n",
        room.path("k.sock"),
        list.join(", ")
    )
}

const STICKY: &str = "http = { sticky = { cookie = \"seat\", secret = \"a secret of the tests\", max_age = \"1h\", same_site = \"strict\" } }";

/// Whom a request with these cookies meets, what that saw of them, and the cookie that it is given.
fn meet(front: SocketAddr, cookies: &str) -> (char, String, Option<String>) {
    let cookies = if cookies.is_empty() { String::new() } else { format!("Cookie: {cookies}\r\n") };
    let (head, body) = ask(&mut connect(front), &format!("GET / HTTP/1.1\r\nHost: a\r\n{cookies}X-Last: 1\r\n\r\n"));
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let given = head.lines().find_map(|line| line.strip_prefix("Set-Cookie: "));
    let seen = body.lines().find(|line| line.starts_with("Cookie:")).unwrap_or_default().to_owned();
    (body.chars().next().unwrap(), seen, given.map(str::to_owned))
}

/// The pair of a cookie that was given.
fn pair(given: &str) -> String {
    given.split_once(';').unwrap().0.to_owned()
}

#[test]
fn a_cookie_leads_to_its_backend_and_nowhere_else() {
    let room = Room::new("sticky");
    let (a, b) = (backend("a"), backend("b"));
    let proxy = Running::start(&room, &document(&room, &[("a", a), ("b", b)], STICKY));
    let (first, seen, given) = meet(proxy.front(), "x=1");
    assert_eq!(seen, "Cookie: x=1");
    let given = given.expect("a cookie");
    assert!(given.ends_with("; Path=/; Max-Age=3600; HttpOnly; SameSite=Strict"), "{given}");
    assert!(!given.contains(&a.port().to_string()) && !given.contains(&b.port().to_string()), "{given}");
    let cookie = pair(&given);
    for _ in 0..8 {
        let met = meet(proxy.front(), &format!("x=1; {cookie}; y=\"2\""));
        assert_eq!(met, (first, "Cookie: x=1; y=\"2\"".into(), None));
    }
    assert_eq!(meet(proxy.front(), &cookie), (first, String::new(), None));
    // Nobody gets anywhere by a cookie of his own making, and backends don't see it either.
    let mut forged = cookie.clone();
    let last = if forged.pop() == Some('0') { '1' } else { '0' };
    forged.push(last);
    let (met, seen, given) = meet(proxy.front(), &format!("{forged}; x=1"));
    assert_eq!((seen.as_str(), pair(&given.expect("a new cookie")) == cookie), ("Cookie: x=1", met == first));
    let met: Vec<char> = (0..8).map(|_| meet(proxy.front(), "").0).collect();
    assert!(met.contains(&'a') && met.contains(&'b'), "others are spread: {met:?}");

    // The cookie means the same to another process, after a restart or beside this one.
    let room = Room::new("sticky-again");
    let other = Running::start(&room, &document(&room, &[("b", b), ("a", a)], STICKY));
    assert_eq!(meet(other.front(), &cookie), (first, String::new(), None));
}

#[test]
fn a_backend_that_drains_keeps_its_clients_and_one_that_is_gone_does_not() {
    let room = Room::new("sticky-drain");
    let proxy = Running::start(&room, &document(&room, &[("a", backend("a")), ("b", backend("b"))], STICKY));
    let (first, _, given) = meet(proxy.front(), "");
    let cookie = pair(&given.expect("a cookie"));
    let (name, other) = if first == 'a' { ("a", 'b') } else { ("b", 'a') };
    proxy.done(&["backend", "drain", "c", name]);
    for _ in 0..4 {
        assert_eq!(meet(proxy.front(), &cookie), (first, String::new(), None), "who has been there goes on there");
        assert_eq!(meet(proxy.front(), "").0, other, "nobody else is sent there");
    }
    proxy.done(&["backend", "remove", "c", name]);
    let (met, _, given) = meet(proxy.front(), &cookie);
    assert_eq!(met, other);
    let renewed = pair(&given.expect("another cookie"));
    assert_eq!(meet(proxy.front(), &renewed), (other, String::new(), None));
}

#[test]
fn a_client_of_a_dead_backend_is_led_to_another_one() {
    let room = Room::new("sticky-dead");
    let dead = Closed::new();
    let more = format!("{STICKY}\nhealth = {{ passive = {{ fall = 1, eject = \"1m\" }} }}\n");
    let alive = backend("b");
    let proxy = Running::start(&room, &document(&room, &[("a", backend("a")), ("b", alive)], &more));
    let cookie = eventually("a cookie of a", || {
        let (met, _, given) = meet(proxy.front(), "");
        (met == 'a').then(|| pair(&given.expect("a cookie")))
    });
    let next = room.write("next.toml", &document(&room, &[("a", dead.address), ("b", alive)], &more));
    proxy.done(&["apply", next.to_str().unwrap()]);
    let (met, _, given) = meet(proxy.front(), &cookie);
    let renewed = pair(&given.expect("another cookie"));
    assert_eq!((met, renewed == cookie), ('b', false), "the request goes on, and the cookie with it");
    assert_eq!(meet(proxy.front(), &renewed), ('b', String::new(), None));
}
