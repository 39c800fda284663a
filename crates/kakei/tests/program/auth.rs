//! Who may pass a route: by password, by the word of a service, by both; through the real program.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Closed, Room, Running, SOON, eventually, kakei};
use crate::http::{ask, backend, connect, document, read_message};

/// Of `apple`, by bcrypt (cost 4) and argon2id; of `banana`, by bcrypt (cost 5); each by other programs.
const APPLE: [&str; 2] = [
    "$2b$04$VIFGd0GvJFHYP0C26Eo1KO8iwS1UBD.7ev6eH9NznNda9/Mh7A/0.",
    "$argon2id$v=19$m=256,t=2,p=1$rDgdgUDoVmxMZ78AMvyMcw$ekPTB1WViujIMLQ3KM/2J5fuW3EXIJjdpATPYxh8GUg",
];
const BANANA: &str = "$2b$05$iHco5ZbxZNRSNw2eDIZxneJbq3JRg7swbJRk3GBiQEE1aD/nWrCPm";

/// `ann:apple`, `ann:banana`, `bob:apple`, `eve:apple`.
const ANN_APPLE: &str = "YW5uOmFwcGxl";
const ANN_BANANA: &str = "YW5uOmJhbmFuYQ==";
const BOB_APPLE: &str = "Ym9iOmFwcGxl";
const EVE_APPLE: &str = "ZXZlOmFwcGxl";

fn get(path: &str, credentials: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n{}\r\n", authorization(credentials))
}

fn authorization(credentials: &str) -> String {
    if credentials.is_empty() { String::new() } else { format!("Authorization: Basic {credentials}\r\n") }
}

fn status(answer: &(String, String)) -> u16 {
    answer.0.split(' ').nth(1).unwrap().parse().unwrap()
}

/// The access log, once it has so many lines.
fn log(room: &Room, count: usize) -> Vec<Value> {
    eventually("the log has its lines", || {
        let text = std::fs::read_to_string(room.path("access.log")).ok()?;
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() >= count).then_some(lines)
    })
}

fn locked(users: &str) -> String {
    format!(
        "[routes.locked]\nlistener = \"front\"\npath = \"/locked\"\ncluster = \"c\"\n\
         auth = {{ basic = {{ realm = \"the lab\", users = {{ {users} }} }} }}\n"
    )
}

#[test]
fn a_user_with_the_right_password_passes_and_nobody_else() {
    let room = Room::new("auth-basic");
    let more = locked(&format!("ann = {:?}, bob = {:?}", APPLE[0], APPLE[1]));
    let proxy = Running::start(&room, &document(&room, &[backend("a")], &more));
    let wrong = ["", ANN_BANANA, EVE_APPLE, "YW5uOmFwcGxl=", "!", "YW5u"];
    for credentials in wrong {
        let answer = ask(&mut connect(proxy.front()), &get("/locked/x", credentials));
        assert_eq!(status(&answer), 401, "{credentials}: {answer:?}");
        assert!(answer.0.contains("WWW-Authenticate: Basic realm=\"the lab\", charset=\"UTF-8\"\r\n"), "{answer:?}");
        assert_eq!(answer.1, "401 Unauthorized\n");
    }
    let mut client = connect(proxy.front());
    for credentials in [ANN_APPLE, BOB_APPLE, ANN_APPLE] {
        let answer = ask(&mut client, &get("/locked/x", credentials));
        assert_eq!(status(&answer), 200, "{answer:?}");
        assert!(answer.1.contains("GET /locked/x HTTP/1.1"), "{answer:?}");
    }
    assert_eq!(status(&ask(&mut client, &get("/open", ""))), 200, "the rest is open");
    assert_eq!(status(&ask(&mut client, &get("/locked", ""))), 401, "the connection goes on behind a 401");
    assert_eq!(status(&ask(&mut client, &get("/locked", ANN_APPLE))), 200);
    let lines = log(&room, wrong.len() + 6);
    let users: Vec<_> = lines.iter().filter(|line| line["status"] == 200).map(|line| line["user"].as_str()).collect();
    assert_eq!(users, [Some("ann"), Some("bob"), Some("ann"), None, Some("ann")]);
    for line in lines.iter().filter(|line| line["status"] == 401) {
        assert_eq!((line["reason"].as_str(), line["by"].as_str()), (Some("unauthorized"), Some("client")), "{line}");
        assert!(line["user"].is_null() && line["cluster"].is_null(), "{line}");
    }
    let text = std::fs::read_to_string(room.path("access.log")).unwrap();
    assert!(!text.contains("apple") && !text.contains("banana") && !text.contains(ANN_APPLE), "{text}");
}

/// What `kakei hash-password` says to `input`: its exit code, and both its streams.
fn hash_password(arguments: &[&str], input: &[u8]) -> (Option<i32>, String, String) {
    let mut command = kakei();
    let command = command.arg("hash-password").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_hash_that_the_program_made_lets_its_password_in_and_what_was_found_out_is_known_afterwards() {
    for (name, arguments) in [("argon2id", &[][..]), ("bcrypt", &["--algorithm", "bcrypt"])] {
        let (code, hash, errors) = hash_password(arguments, b"apple\r\n");
        assert_eq!((code, errors.as_str(), hash.lines().count()), (Some(0), "", 1), "{hash}");
        let room = Room::new(&format!("auth-hashed-{name}"));
        let more = locked(&format!("ann = {:?}", hash.trim_end()));
        let proxy = Running::start(&room, &document(&room, &[backend("a")], &more));
        // One connection stays with one worker; another one would find out for itself.
        let mut client = connect(proxy.front());
        for (credentials, expected) in [(ANN_APPLE, 200), (ANN_APPLE, 200), (ANN_BANANA, 401), (ANN_BANANA, 401)] {
            assert_eq!(status(&ask(&mut client, &get("/locked", credentials))), expected, "{name} {credentials}");
        }
        let lines = log(&room, 4);
        let waited: Vec<_> = lines.iter().map(|line| line["auth_ms"].as_f64().is_some_and(|ms| ms >= 1.0)).collect();
        assert_eq!(waited, [true, false, true, false], "{lines:?}");
        assert!(lines[1].get("auth_ms").is_none(), "who didn't wait says nothing of it: {}", lines[1]);
    }
}

#[test]
fn a_password_that_nobody_could_show_has_no_hash() {
    let long = format!("{}\n", "x".repeat(73));
    let longest = "y".repeat((64 << 10) + 1);
    let cases: [(&[&str], &[u8], &str); 5] = [
        (&[], longest.as_bytes(), "longer than 65536 bytes"),
        (&[], b"\n", "the password is empty"),
        (&[], b"a\x07b\n", "control character"),
        (&["--algorithm", "bcrypt"], long.as_bytes(), "72 bytes"),
        (&[], b"\xff\n", "not UTF-8"),
    ];
    for (arguments, input, why) in cases {
        let (code, out, errors) = hash_password(arguments, input);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{errors}");
        assert!(
            errors.starts_with("error: ") && errors.contains(why) && !errors.contains("xxx") && !errors.contains("yyy"),
            "{errors}"
        );
    }
}

#[test]
fn a_password_that_is_changed_counts_at_once() {
    let room = Room::new("auth-change");
    let of = |hash: &str| locked(&format!("ann = {hash:?}"));
    let backend = backend("a");
    let proxy = Running::start(&room, &document(&room, &[backend], &of(APPLE[0])));
    let mut client = connect(proxy.front());
    assert_eq!(status(&ask(&mut client, &get("/locked", ANN_APPLE))), 200);
    assert_eq!(status(&ask(&mut client, &get("/locked", ANN_BANANA))), 401);
    let file = room.write("next.toml", &document(&room, &[backend], &of(BANANA)));
    proxy.done(&["apply", file.to_str().unwrap()]);
    assert_eq!(status(&ask(&mut client, &get("/locked", ANN_APPLE))), 401);
    assert_eq!(status(&ask(&mut client, &get("/locked", ANN_BANANA))), 200);
}

#[test]
fn a_body_waits_for_its_password_and_arrives_whole_or_not_at_all() {
    let room = Room::new("auth-body");
    let more = locked(&format!("ann = {:?}", APPLE[1]));
    let proxy = Running::start(&room, &document(&room, &[backend("a")], &more));
    let post = |credentials: &str, body: usize| {
        let mut stream = connect(proxy.front());
        let head =
            format!("POST /locked HTTP/1.1\r\nHost: a\r\nContent-Length: {body}\r\n{}\r\n", authorization(credentials));
        // Whoever is refused may be so before it has sent all.
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&vec![b'x'; body]);
        let answer = read_message(&mut stream).expect("an answer");
        (answer.head, String::from_utf8(answer.body).unwrap())
    };
    for body in [1, 5_000, 300_000] {
        let answer = post(ANN_APPLE, body);
        assert!(status(&answer) == 200 && answer.1.ends_with(&body.to_string()), "{body}: {answer:?}");
    }
    let answer = post(ANN_BANANA, 10);
    assert!(status(&answer) == 401 && answer.0.contains("Connection: close"), "{answer:?}");
}

#[test]
fn others_go_on_while_passwords_are_looked_at() {
    let room = Room::new("auth-slow");
    // About a tenth of a second of a core each.
    let slow = APPLE[0].replace("$2b$04$", "$2b$10$");
    let text = document(&room, &[backend("a")], &locked(&format!("ann = {slow:?}"))).replace("count = 2", "count = 1");
    let proxy = Running::start(&room, &text);
    let front = proxy.front();
    let mut guesses: Vec<TcpStream> = (0..80).map(|_| connect(front)).collect();
    eventually("all are let in", || (proxy.metrics().sum("kakei_connections_live", "") == 80).then_some(()));
    // So that it finds all guesses at once, before any of them is looked at.
    proxy.signal("STOP");
    for (at, stream) in guesses.iter_mut().enumerate() {
        stream.set_read_timeout(Some(SOON * 3)).unwrap();
        // Each another password.
        let digits = [b'A' + (at / 26) as u8, b'A' + (at % 26) as u8, b'A', b'A'];
        let credentials = format!("YW5uOmFw{}", String::from_utf8(digits.to_vec()).unwrap());
        stream.write_all(get("/locked", &credentials).as_bytes()).unwrap();
    }
    proxy.signal("CONT");
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(status(&ask(&mut connect(front), &get("/open", ""))), 200);
    }
    let lasted = began.elapsed();
    let mut statuses = [0, 0];
    for mut stream in guesses {
        let answer = read_message(&mut stream).expect("an answer");
        match answer.head.split(' ').nth(1) {
            Some("401") => statuses[0] += 1,
            Some("503") => statuses[1] += 1,
            _ => panic!("{}", answer.head),
        }
    }
    // One hash after the other in their way they would have lasted several seconds.
    assert!(lasted < Duration::from_secs(3), "{lasted:?}");
    assert!(statuses[0] >= 1 && statuses[1] >= 80 - 64, "{statuses:?}: no more are looked at than may be");
    let lines = log(&room, 100);
    let busy = lines.iter().filter(|line| line["reason"] == "auth_busy").count();
    assert_eq!(busy, statuses[1], "each says why");
}

/// A service that says who may pass, by the path that is asked for; what it was asked.
fn service() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let heard = Arc::clone(&asked);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let heard = Arc::clone(&heard);
            thread::spawn(move || {
                while let Some(question) = read_message(&mut stream) {
                    heard.lock().unwrap().push(question.head.clone());
                    match answer_to(&question.head) {
                        Some(answer) => drop(stream.write_all(answer.as_bytes())),
                        None => return,
                    }
                }
            });
        }
    });
    (address, asked)
}

fn answer_to(head: &str) -> Option<String> {
    let uri = head.lines().find_map(|line| line.strip_prefix("X-Forwarded-Uri: ")).unwrap_or_default();
    let of = |line: &str, body: &str| format!("HTTP/1.1 {line}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    Some(match uri.rsplit('/').next().unwrap_or_default() {
        "yes?q=1" | "yes" => of("200 OK\r\nX-User: ann\r\nX-Other: 1\r\nX-Groups: a\r\nX-Groups: b", "welcome"),
        "nobody" => of("204 No Content", "").replace("Content-Length: 0\r\n", ""),
        "login" => of("302 Found\r\nLocation: https://login.example/?to=x\r\nSet-Cookie: a=b", ""),
        "no" => of("403 Forbidden\r\nX-User: ann", "go away"),
        "who" => of("401 Unauthorized\r\nWWW-Authenticate: Bearer", ""),
        "sick" => of("500 Oops", "oops"),
        "nonsense" => "HTTP/1.1 200\nX-User: root\n\n".to_owned(),
        "slow" => {
            thread::sleep(SOON * 2);
            return None;
        }
        _ => return None,
    })
}

/// A route that this service guards, which has so much time for an answer.
fn guarded(service: SocketAddr, timeout: &str, more: &str) -> String {
    format!(
        "[clusters.sso]\nbackends = [\"{service}\"]\n\
         [routes.inside]\nlistener = \"front\"\npath = \"/inside\"\ncluster = \"c\"\n\
         auth = {{ forward = {{ cluster = \"sso\", path = \"/verify?a=b\", copy = [\"x-user\", \"x-groups\"], user = \"x-user\", timeout = \"{timeout}\" }}{more} }}\n"
    )
}

#[test]
fn a_service_says_who_may_pass() {
    let room = Room::new("auth-forward");
    let (address, asked) = service();
    let proxy = Running::start(&room, &document(&room, &[backend("a")], &guarded(address, "700ms", "")));
    let mut client = connect(proxy.front());
    let spoofed = "X-User: root\r\nx-groups: wheel\r\nX-Forwarded-Uri: /inside/yes\r\nX-Forwarded-Method: NONE\r\nCookie: c=1\r\n";
    let mut to = |method: &str, path: &str| {
        ask(&mut client, &format!("{method} /inside/{path} HTTP/1.1\r\nHost: a\r\n{spoofed}If-None-Match: x\r\n\r\n"))
    };
    let (head, seen) = to("DELETE", "yes?q=1");
    assert!(head.starts_with("HTTP/1.1 200 ") && seen.starts_with("a\nDELETE /inside/yes?q=1 HTTP/1.1\r\n"), "{seen}");
    assert!(
        seen.contains("X-User: ann\r\nX-Groups: a\r\nX-Groups: b\r\n") && seen.contains("If-None-Match: x"),
        "{seen}"
    );
    assert!(!seen.contains("root") && !seen.contains("wheel") && !seen.contains("X-Other"), "{seen}");
    let question = asked.lock().unwrap().pop().unwrap();
    let wanted = [
        "X-Forwarded-Method: DELETE",
        "X-Forwarded-Uri: /inside/yes?q=1",
        "X-Forwarded-For: 127.0.0.1",
        "Host: a",
        "Cookie: c=1",
    ];
    assert!(question.starts_with("GET /verify?a=b HTTP/1.1\r\n"), "{question}");
    assert!(wanted.iter().all(|line| question.contains(&format!("\r\n{line}\r\n"))), "{question}");
    assert!(!question.contains("NONE") && !question.contains("If-None-Match"), "{question}");
    let (_, seen) = to("GET", "nobody");
    assert!(!seen.to_lowercase().contains("x-user") && !seen.to_lowercase().contains("x-groups"), "{seen}");
    let (head, _) = to("GET", "login");
    assert!(
        head.starts_with("HTTP/1.1 302 ") && head.contains("Location: https://login.example/?to=x\r\nSet-Cookie: a=b"),
        "{head}"
    );
    let answer = to("GET", "no");
    assert!(status(&answer) == 403 && answer.1 == "go away", "{answer:?}");
    let answer = to("GET", "who");
    assert!(status(&answer) == 401 && answer.0.contains("WWW-Authenticate: Bearer"), "{answer:?}");
    assert_eq!(status(&to("GET", "sick")), 500);
    assert_eq!(status(&to("GET", "nonsense")), 503);
    assert_eq!(status(&to("GET", "gone")), 503);
    assert_eq!(status(&to("GET", "slow")), 503);
    assert_eq!(status(&to("GET", "yes")), 200, "the connection goes on");
    let lines = log(&room, 10);
    let what: Vec<_> = lines.iter().map(|line| (line["reason"].as_str().unwrap(), line["user"].as_str())).collect();
    let (done, no, none) = (("completed", Some("ann")), ("unauthorized", None), ("auth_unavailable", None));
    assert_eq!(what, [done, ("completed", None), no, no, no, none, none, none, none, done]);
    assert!(lines[3]["cluster"] == "sso" && lines[0]["cluster"] == "c" && lines[0]["attempts"] == 1, "{lines:?}");
    let waited: Vec<f64> = lines.iter().map(|line| line["auth_ms"].as_f64().expect("it had to wait")).collect();
    let all = |line: usize| lines[line]["duration_ms"].as_f64().unwrap();
    assert!((0..10).all(|line| waited[line] <= all(line)), "{lines:?}");
    // Whole milliseconds, of which most take none.
    assert!(waited[8] >= 700.0 && waited[9] < 700.0, "the service that is slow has 700 ms: {waited:?}");
}

#[test]
fn nobody_passes_because_nobody_can_be_asked() {
    let room = Room::new("auth-dead");
    let closed = Closed::new();
    let dead = closed.address;
    let proxy = Running::start(&room, &document(&room, &[backend("a")], &guarded(dead, "10s", "")));
    let answer = ask(&mut connect(proxy.front()), &get("/inside/yes", ""));
    assert!(status(&answer) == 503 && answer.1 == "503 Service Unavailable\n", "{answer:?}");
    assert_eq!(log(&room, 1)[0]["reason"], "auth_unavailable");
    // In its place comes one that answers.
    let (address, _) = service();
    let file = room.write(
        "next.toml",
        &std::fs::read_to_string(room.path("k.toml")).unwrap().replace(&dead.to_string(), &address.to_string()),
    );
    proxy.done(&["apply", file.to_str().unwrap()]);
    assert_eq!(status(&ask(&mut connect(proxy.front()), &get("/inside/yes", ""))), 200);
}

#[test]
fn a_service_never_sees_a_body_and_both_locks_must_open() {
    let room = Room::new("auth-both");
    let (address, asked) = service();
    let more = guarded(address, "10s", &format!(", basic = {{ users = {{ ann = {:?} }} }}", APPLE[1]));
    let proxy = Running::start(&room, &document(&room, &[backend("a")], &more));
    let post = |path: &str, credentials: &str| {
        let mut stream = connect(proxy.front());
        let head = format!(
            "POST /inside/{path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{}\r\n",
            authorization(credentials)
        );
        stream.write_all(format!("{head}3\r\nabc\r\n").as_bytes()).unwrap();
        // The rest comes when it has long been decided.
        eventually("it was asked", || (credentials != ANN_APPLE || !asked.lock().unwrap().is_empty()).then_some(()));
        let _ = stream.write_all(b"4\r\ndefg\r\n0\r\n\r\n");
        let answer = read_message(&mut stream).expect("an answer");
        (answer.head, String::from_utf8(answer.body).unwrap())
    };
    let answer = post("yes", ANN_BANANA);
    assert!(status(&answer) == 401 && asked.lock().unwrap().is_empty(), "who has no password is asked nothing more");
    let answer = post("yes", ANN_APPLE);
    assert!(status(&answer) == 200 && answer.1.ends_with("\r\n\r\n7"), "{answer:?}");
    let question = asked.lock().unwrap().pop().unwrap();
    assert!(
        !question.contains("Content-Length") && !question.to_lowercase().contains("transfer-encoding"),
        "{question}"
    );
    assert_eq!(status(&post("no", ANN_APPLE)), 403);
    let lines = log(&room, 3);
    let waited = |line: usize| lines[line]["auth_ms"].as_f64().expect("both had to be asked");
    assert!((1..3).all(|line| waited(line) <= lines[line]["duration_ms"].as_f64().unwrap()), "{lines:?}");
}

#[test]
fn a_client_that_waits_for_leave_may_go() {
    let room = Room::new("auth-leave");
    let (address, asked) = service();
    // Longer than it may take until it is seen that the client went.
    let proxy = Running::start(&room, &document(&room, &[backend("a")], &guarded(address, "20s", "")));
    let mut stream = TcpStream::connect(proxy.front()).unwrap();
    stream.write_all(get("/inside/slow", "").as_bytes()).unwrap();
    eventually("it was asked", || (!asked.lock().unwrap().is_empty()).then_some(()));
    drop(stream);
    let line = log(&room, 1).remove(0);
    assert_eq!((line["reason"].as_str(), line["status"].is_null()), (Some("client_gone"), true), "{line}");
    assert!(line["auth_ms"].is_u64(), "until it went: {line}");
    eventually("nothing is left", || (proxy.metrics().sum("kakei_requests_live", "") == 0).then_some(()));
    let mut rest = Vec::new();
    let mut other = connect(proxy.front());
    other.write_all(b"GET /inside/yes HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    other.read_to_end(&mut rest).unwrap();
    assert!(rest.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&rest));
}
