//! The admin API as those who may use it, and those who may not: over TCP with certificates, by who connects on the socket; what
//! is written down of each change; and clients that are slow.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, DnType, SanType};
use rustls::ClientConfig;
use serde_json::Value;

use crate::harness::{Echo, Room, Running, answered, document, eventually, http, kakei, own_address};
use crate::tls::{Authority, Made, Stream, connect};
use crate::tls_clients::{client_config, revoked};

/// A proxy whose API is over TCP, and everybody who has to do with it.
struct Scene {
    room: Room,
    servers: Authority,
    clients: Authority,
    backend: Echo,
    running: Running,
    api: SocketAddr,
}

const LISTS: &str = "read_write = [\"CN=ann\"]\nread_only = [\"DNS:ci.test\", \"URI:spiffe://test/graph\"]\n";

impl Scene {
    fn start(name: &str) -> Self {
        let (room, servers, clients) = (Room::new(name), Authority::new(), Authority::new());
        room.write("clients.pem", &clients.pem);
        room.write("servers.pem", &servers.pem);
        let certificate = servers.make(&["127.0.0.1"], |_| {}).put(&room, "admin");
        for (who, change) in people() {
            shows(&room, who, &clients.make(&[], change));
        }
        shows(&room, "stranger", &servers.make(&[], named("ann")));
        let backend = Echo::start("a");
        let text = text(&room, &backend, LISTS, &certificate);
        let running = Running::start(&room, &text);
        let api = api(&running);
        Scene { room, servers, clients, backend, running, api }
    }

    /// The document with these lists of clients.
    fn text(&self, lists: &str) -> String {
        let (chain, key) = (self.room.path("admin.pem"), self.room.path("admin.key"));
        text(&self.room, &self.backend, lists, &format!("[certificates.admin]\nchain = {chain:?}\nkey = {key:?}\n"))
    }

    /// Go over to it, by the socket.
    fn apply(&self, text: &str) -> String {
        let file = self.room.write("next.toml", text);
        self.running.done(&["apply", file.to_str().unwrap()])
    }

    /// A command by somebody over TCP.
    fn by(&self, who: &str, arguments: &[&str]) -> Output {
        let mut command = kakei();
        command.args(arguments).arg("--api").arg(format!("https://{}", self.api));
        command.arg("--ca").arg(self.room.path("servers.pem"));
        if who != "nobody" {
            command.arg("--cert").arg(self.room.path(&format!("{who}.pem")));
            command.arg("--key").arg(self.room.path(&format!("{who}.key")));
        }
        command.output().unwrap()
    }

    fn config_of(&self, who: &str) -> Arc<ClientConfig> {
        let read = |end: &str| std::fs::read_to_string(self.room.path(&format!("{who}.{end}"))).unwrap();
        client_config(&self.servers, Some(&Made { chain: read("pem"), key: read("key") }))
    }

    fn connect(&self, who: &str) -> std::io::Result<Stream> {
        connect(self.api, "127.0.0.1", &self.config_of(who))
    }

    /// A stream of events of somebody's; what has come so far says that it is one.
    fn events(&self, who: &str) -> BufReader<Stream> {
        let mut stream = self.connect(who).unwrap();
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: k\r\n\r\n").unwrap();
        let mut stream = BufReader::new(stream);
        until(&mut stream, ": events").expect("a stream of events");
        stream
    }

    fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.room.path("audit.log")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn text(room: &Room, backend: &Echo, lists: &str, more: &str) -> String {
    let (ca, audit) = (room.path("clients.pem"), room.path("audit.log"));
    let tcp = format!("[admin.tcp]\nbind = \"127.0.0.1:0\"\ncertificate = \"admin\"\nca = {ca:?}\n{lists}");
    let text = document(room, &[backend], &format!("{tcp}{more}"));
    text.replacen("[admin]\n", &format!("[admin]\naudit_log = {audit:?}\n"), 1)
}

type Change = fn(&mut CertificateParams);

fn named(name: &'static str) -> impl Fn(&mut CertificateParams) {
    move |params| params.distinguished_name.push(DnType::CommonName, name)
}

fn people() -> [(&'static str, Change); 4] {
    [
        ("ann", |params| named("ann")(params)),
        ("bob", |params| named("bob")(params)),
        ("ci", |params| params.subject_alt_names.push(SanType::DnsName("CI.test".try_into().unwrap()))),
        ("graph", |params| {
            named("ann, not really")(params);
            params.subject_alt_names.push(SanType::URI("spiffe://test/graph".try_into().unwrap()));
        }),
    ]
}

fn shows(room: &Room, who: &str, made: &Made) {
    room.write(&format!("{who}.pem"), &made.chain);
    room.write(&format!("{who}.key"), &made.key);
}

/// Where the API is, from the ready line.
fn api(running: &Running) -> SocketAddr {
    let (_, after) = running.ready.split_once("admin API on https://").expect("the API is named");
    after.split([';', '\n']).next().unwrap().parse().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Read until a line has this; none: it ended before.
fn until(stream: &mut impl BufRead, text: &str) -> Option<String> {
    let mut line = String::new();
    while stream.read_line(&mut line).ok()? > 0 {
        if line.contains(text) {
            return Some(line);
        }
        line.clear();
    }
    None
}

#[test]
fn the_api_over_tcp_is_for_those_who_are_named() {
    let scene = Scene::start("admin-tcp");
    let weigh = ["backend", "weight", "c", "a", "3", "-m", "because"];
    for who in ["ann", "ci", "graph"] {
        let output = scene.by(who, &["status"]);
        assert!(output.status.success(), "{who}: {}", said(&output));
    }
    let output = scene.by("ann", &weigh);
    assert!(output.status.success(), "{}", said(&output));
    let newest = scene.running.json(&["history"]).as_array().unwrap().last().unwrap().clone();
    assert!(newest["by"].as_str().unwrap().starts_with("CN=ann, 127.0.0.1:"), "{newest}");

    // Who may look changes nothing, who isn't named does nothing; each is told what it would take.
    for (who, says) in
        [("ci", "DNS:ci.test may look and change nothing"), ("graph", "URI:spiffe://test/graph may look")]
    {
        let output = scene.by(who, &["backend", "weight", "c", "a", "4"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            said(&output).contains(says) && said(&output).contains("`read_write` of [admin.tcp]"),
            "{}",
            said(&output)
        );
    }
    for arguments in [&["status"][..], &["get", "config"], &weigh] {
        let output = scene.by("bob", arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("CN=bob may do nothing here"), "{}", said(&output));
    }
    for (who, says) in [("stranger", "does not take the certificate"), ("nobody", "give one with --cert and --key")] {
        // Also to who goes on writing when it is shut out already.
        for arguments in std::iter::once(&["status"][..]).chain(std::iter::repeat_n(&weigh[..], 20)) {
            let output = scene.by(who, arguments);
            assert_eq!(output.status.code(), Some(1));
            assert!(said(&output).contains(says), "{who}: {}", said(&output));
        }
    }
    let mut other = kakei();
    other.args(["status", "--api", &format!("https://{}", scene.api), "--ca"]).arg(scene.room.path("clients.pem"));
    let output = other.output().unwrap();
    assert!(said(&output).contains("say with --ca who may vouch for it"), "{}", said(&output));
    let mut environment = kakei();
    environment.arg("status").env("KAKEI_API", format!("https://{}/", scene.api)).env("KAKEI_SOCKET", "/nowhere");
    environment.env("KAKEI_CA", scene.room.path("servers.pem"));
    environment.env("KAKEI_CERT", scene.room.path("ci.pem")).env("KAKEI_KEY", scene.room.path("ci.key"));
    assert!(environment.output().unwrap().status.success());
    assert_eq!(scene.running.json(&["status"])["generation"], 2, "nothing else was changed");
    assert_eq!(scene.running.json(&["status"])["api"], scene.api.to_string());

    // What is no TLS gets no answer, and neither does an older version of it.
    let mut plain = TcpStream::connect(scene.api).unwrap();
    plain.write_all(b"GET /v1/status HTTP/1.1\r\nHost: k\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[test]
fn every_change_has_its_audit_line_whatever_came_of_it() {
    let scene = Scene::start("admin-audit");
    let weigh = |weight| ["backend", "weight", "c", "a", weight, "-m", "because"];
    assert!(scene.by("ann", &weigh("3")).status.success());
    assert!(scene.by("ann", &weigh("3")).status.success());
    assert!(!scene.by("ci", &weigh("4")).status.success());
    assert!(!scene.by("bob", &weigh("5")).status.success());
    assert!(scene.by("ann", &["backend", "weight", "c", "a", "9", "--dry-run"]).status.success());
    assert!(!scene.by("ann", &["backend", "remove", "c", "x"]).status.success());
    assert!(scene.running.ask(&["rollback", "1", "--confirm-within", "1m"]).status.success());
    assert_eq!([(); 2].map(|()| scene.running.ask(&["confirm"]).status.success()), [true, false]);
    let put = |path| scene.running.http("PUT", path, &[], "{\"listener\":1}").status;
    assert_eq!((put("/v1/config"), put("/v1/config?dry_run=1")), (422, 422));
    assert_eq!(scene.running.metrics().sum("kakei_changes_refused_total", ""), 5, "each once, and no question");
    let mut cut = UnixStream::connect(&scene.running.socket).unwrap();
    cut.write_all(b"PUT /v1/config HTTP/1.1\r\nHost: k\r\nContent-Length: 100\r\n\r\n{").unwrap();
    drop(cut);
    let written =
        |count| eventually("every line is there", || Some(scene.audit()).filter(|lines| lines.len() >= count));
    written(11);
    scene.running.signal("HUP");
    let lines = written(12);
    let ann = "CN=ann";
    let expected: [(&str, &str, &str, u64, u64); 11] = [
        // Who, how, what came of it, what ran before and after.
        ("", "", "applied", 0, 1),
        (ann, "PATCH /v1/clusters/c/backends/a", "applied", 1, 2),
        (ann, "PATCH /v1/clusters/c/backends/a", "unchanged", 2, 2),
        ("DNS:ci.test", "PATCH /v1/clusters/c/backends/a", "refused", 2, 2),
        ("CN=bob", "PATCH /v1/clusters/c/backends/a", "refused", 2, 2),
        (ann, "DELETE /v1/clusters/c/backends/x", "refused", 2, 2),
        ("uid ", "POST /v1/rollback", "applied", 2, 3),
        ("uid ", "POST /v1/confirm", "confirmed", 3, 3),
        ("uid ", "POST /v1/confirm", "refused", 3, 3),
        ("uid ", "PUT /v1/config", "refused", 3, 3),
        ("uid ", "PUT /v1/config", "abandoned", 3, 3),
    ];
    for (line, (who, operation, outcome, before, after)) in lines.iter().zip(expected) {
        let text = |key: &str| line[key].as_str().unwrap_or_default();
        assert!(text("who").starts_with(who) && text("operation") == operation, "{line}");
        assert_eq!(
            (text("outcome"), &line["generation_before"], &line["generation_after"]),
            (outcome, &before.into(), &after.into()),
            "{line}"
        );
        assert_eq!(text("message") == "because", operation.starts_with("PATCH"), "{line}");
        assert_eq!(text("from").starts_with("127.0.0.1:"), who.contains(['=', ':']), "{line}");
        assert_eq!(line["reason"].is_string(), ["refused", "abandoned"].contains(&outcome), "{line}");
    }
    assert_eq!(lines[1]["changes"], serde_json::json!(["cluster c: backend a: weight 1 -> 3"]));
    assert_eq!(lines[11]["origin"], "sighup");
    assert!(lines.iter().all(|line| line["time"].as_str().unwrap().ends_with('Z')));

    // The same in the log, which nobody has to ask for; and a file that was moved is opened anew.
    std::fs::rename(scene.room.path("audit.log"), scene.room.path("audit.1")).unwrap();
    scene.running.signal("USR1");
    eventually("it is opened again", || scene.room.path("audit.log").exists().then_some(()));
    assert!(scene.by("ann", &weigh("7")).status.success());
    assert_eq!(scene.audit().len(), 1);
    let Scene { running, .. } = scene;
    running.signal("TERM");
    let (_, log) = running.end();
    for part in [
        "audit: PATCH /v1/clusters/c/backends/a by CN=ann from 127.0.0.1:",
        ": refused, generation 2 runs: CN=bob may do nothing here",
        "audit: sighup: nothing to change",
    ] {
        assert!(log.contains(part), "{part} in {log}");
    }
}

#[test]
fn roles_and_certificates_of_the_api_change_while_it_is_used() {
    let scene = Scene::start("admin-change");
    let (mut ann, mut ci) = (scene.events("ann"), scene.events("ci"));

    // A role that is taken away ends what it let begin, and nothing else.
    scene.apply(&scene.text("read_write = [\"CN=ann\"]\nread_only = [\"CN=bob\"]\n"));
    assert!(until(&mut ann, "event: generation").is_some(), "who may go on does");
    assert_eq!(until(&mut ci, "event: never"), None, "who may no longer does not");
    assert!(said(&scene.by("ci", &["status"])).contains("DNS:ci.test may do nothing here"));
    assert!(scene.by("bob", &["status"]).status.success());

    // A change that began while it was allowed is not made any more.
    let mut late = scene.connect("ann").unwrap();
    late.write_all(b"PATCH /v1/clusters/c/backends/a HTTP/1.1\r\nHost: k\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"weight\"").unwrap();
    let mut bob = scene.events("bob");
    scene.apply(&scene.text("read_only = [\"CN=bob\", \"CN=ann\"]\n"));
    late.write_all(b":7}").unwrap();
    let mut answer = String::new();
    let _ = late.read_to_string(&mut answer);
    assert_eq!(answered(&answer).status, 403, "{answer}");
    assert!(until(&mut ann, "event: generation").is_some(), "who may still look goes on looking");
    assert!(until(&mut bob, "event: generation").is_some());

    // Another certificate: new handshakes get it, what goes on goes on.
    scene.apply(&scene.text(LISTS));
    let shown = |stream: &Stream| stream.conn.peer_certificates().unwrap()[0].clone().into_owned();
    let before = shown(&scene.connect("ann").unwrap());
    let other = scene.servers.make(&["127.0.0.1"], |_| {});
    shows(&scene.room, "other", &other);
    let path = |name: &str| scene.room.path(name).to_str().unwrap().to_owned();
    scene.running.done(&["certificate", "replace", "admin", &path("other.pem"), &path("other.key")]);
    let after = shown(&scene.connect("ann").unwrap());
    assert_ne!(before, after);
    assert_eq!(after, other.der());
    assert!(until(&mut ann, "certificate admin").is_some());

    // The certificate that the API needs can't be removed.
    let refused = scene.running.ask(&["certificate", "remove", "admin"]);
    assert!(said(&refused).contains("/admin/tcp/certificate"), "{}", said(&refused));
}

#[test]
fn those_who_vouch_for_clients_change_and_so_does_where_the_api_is() {
    let scene = Scene::start("admin-vouch");
    let mut ann = scene.events("ann");
    scene.apply(&scene.text(&format!("{LISTS}# the same\n")));

    // Others may vouch for clients: whose authority is still there goes on, the others are gone.
    let fresh = Authority::new();
    shows(&scene.room, "ann2", &fresh.make(&[], named("ann")));
    scene.room.write("clients.pem", &format!("{}{}", fresh.pem, scene.clients.pem));
    let file = scene.room.path("next.toml");
    let both = scene.running.done(&["apply", file.to_str().unwrap()]);
    assert!(both.contains("admin tcp: others may vouch for its clients"), "{both}");
    assert!(until(&mut ann, "others may vouch").is_some(), "her authority is still there");
    assert!(scene.by("ann2", &["status"]).status.success());
    scene.room.write("clients.pem", &fresh.pem);
    scene.running.done(&["apply", file.to_str().unwrap()]);
    assert_eq!(until(&mut ann, "event: never"), None, "nobody vouches for her any more");
    assert!(said(&scene.by("ann", &["status"])).contains("does not take the certificate"));

    // A certificate that counts no longer.
    let mut second = scene.events("ann2");
    scene.room.write("clients.crl", &revoked(&fresh, &[7]));
    shows(
        &scene.room,
        "ann7",
        &fresh.make(&[], |params| {
            named("ann")(params);
            params.serial_number = Some(7_u64.into());
        }),
    );
    assert!(scene.by("ann7", &["status"]).status.success());
    scene.apply(&scene.text(&format!("crls = [{:?}]\n{LISTS}", scene.room.path("clients.crl"))));
    assert!(!scene.by("ann7", &["status"]).status.success());
    assert!(until(&mut second, "event: generation").is_some());

    // Nor does one whose authority counts no longer.
    let between = fresh.under(6);
    let made = between.make(&[], named("ann"));
    shows(&scene.room, "ann8", &Made { chain: made.chain + &between.pem, key: made.key });
    for (serials, comes_in) in [(&[7][..], true), (&[6, 7][..], false)] {
        scene.room.write("clients.crl", &(revoked(&fresh, serials) + &revoked(&between, &[])));
        scene.running.done(&["apply", file.to_str().unwrap()]);
        assert_eq!(scene.by("ann8", &["status"]).status.success(), comes_in);
        assert!(until(&mut second, "event: generation").is_some());
    }

    // It moves, and it goes.
    let text = scene.text(LISTS);
    let free = own_address(20_443);
    scene.apply(&text.replace("bind = \"127.0.0.1:0\"\ncertificate", &format!("bind = \"{free}\"\ncertificate")));
    assert_eq!(scene.running.json(&["status"])["api"], free.to_string());
    let is_shut = |address| eventually("it is shut", || TcpStream::connect(address).is_err().then_some(()));
    is_shut(scene.api);
    assert!(TcpStream::connect(free).is_ok());
    assert!(until(&mut second, "event: generation").is_some(), "it came by the address of before");
    let without = text.replace("[admin.tcp]", "[ignored]");
    let (head, rest) = without.split_once("[ignored]").unwrap();
    scene.apply(&format!("{head}{}", &rest[rest.find("[certificates").unwrap()..]));
    assert_eq!(until(&mut second, "event: never"), None);
    is_shut(free);
    assert_eq!(scene.running.json(&["status"])["api"], Value::Null);
}

#[test]
fn secrets_are_shown_to_those_who_may_change_them() {
    let scene = Scene::start("admin-secrets");
    let text = scene
        .text(LISTS)
        .replace("backends = [", "http = { sticky = { secret = \"a very secret secret\" } }\nbackends = [");
    let key = std::fs::read_to_string(scene.room.path("ci.key")).unwrap();
    let chain = std::fs::read_to_string(scene.room.path("ci.pem")).unwrap();
    let hash = "$2b$12$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234";
    let more = format!(
        "[certificates.inline]\nchain = '''{chain}'''\nkey = '''{key}'''\n\
         [listeners.web]\nprotocol = \"http\"\nbind = [\"127.0.0.1:0\"]\ncluster = \"c2\"\n[clusters.c2]\n\
         [routes.r]\npath = \"/x\"\nlistener = \"web\"\ncluster = \"c2\"\nauth = {{ basic = {{ users = {{ ann = \"{hash}\" }} }} }}\n"
    );
    scene.apply(&format!("{}{more}", text));
    scene.running.done(&["certificate", "remove", "inline"]);
    scene.running.done(&["rollback", "2"]);
    let secrets = ["a very secret secret", "PRIVATE KEY", hash];
    let asked: [&[&str]; 6] = [
        &["get", "config"],
        &["get", "config", "-o", "json"],
        &["diff", "1", "2", "-o", "json"],
        &["diff", "2", "3", "-o", "json"],
        &["diff", "1", "2"],
        &["history"],
    ];
    for arguments in asked {
        let output = scene.by("ci", arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && !text.is_empty());
        assert!(!secrets.iter().any(|secret| text.contains(secret)), "{arguments:?}: {text}");
    }
    let shown = String::from_utf8(scene.by("ann", &["get", "config"]).stdout).unwrap();
    assert!(secrets.iter().all(|secret| shown.contains(secret)), "{shown}");
}

/// Who this process runs as.
fn own_uid() -> String {
    let output = std::process::Command::new("id").arg("-u").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn who_connects_on_the_socket_has_the_role_that_it_is_named_for() {
    let (room, backend, own) = (Room::new("admin-peers"), Echo::start("a"), own_uid());
    let plain = document(&room, &[&backend], "");
    let running = Running::start(&room, &plain);
    let with = |peers: &str| plain.replacen("[admin]\n", &format!("[admin]\npeers = {{ {peers} }}\n"), 1);
    let mode =
        || std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&running.socket).unwrap().permissions()) & 0o777;
    let apply = |text: &str| running.done(&["apply", room.write("next.toml", text).to_str().unwrap()]);
    assert_eq!(mode(), 0o600);
    apply(&with("read_only = [\"uid:65534\"]"));
    eventually("others may connect", || (mode() == 0o666).then_some(()));
    if own == "0" {
        let program = room.path("kakei");
        // By another process: what this one has open for writing goes to the children of other tests, and can't be run.
        let mut copy = std::process::Command::new("cp");
        let copied = copy.arg("-p").arg(env!("CARGO_BIN_EXE_kakei")).arg(&program).status().unwrap();
        assert!(copied.success());
        let by = |uid: u32, arguments: &[&str]| {
            let mut command = std::process::Command::new(&program);
            command.args(arguments).arg("-s").arg(&running.socket).uid(uid).gid(uid).current_dir("/").output().unwrap()
        };
        assert!(by(65_534, &["status"]).status.success());
        assert!(said(&by(65_534, &["backend", "drain", "c", "a"])).contains("uid 65534 may look and change nothing"));
        assert!(said(&by(65_533, &["status"])).contains("uid 65533 may do nothing here"));
        // Whoever may do nothing is no event either.
        assert!(!by(65_533, &["backend", "drain", "c", "a"]).status.success());
        assert_eq!(running.ask(&["backend", "drain", "c", "nobody"]).status.code(), Some(1));
        let mut told = UnixStream::connect(&running.socket).unwrap();
        told.write_all(b"GET /v1/events HTTP/1.1\r\nHost: k\r\nLast-Event-ID: 0\r\n\r\n").unwrap();
        let mut told = BufReader::new(told);
        for part in ["uid 65534 may look and change nothing", "there is no backend"] {
            let event = until(&mut told, "\"refused\"").unwrap();
            assert!(event.contains(part), "{part}: {event}");
        }
        apply(&with("read_only = [\"uid:65534\"], read_write = [\"gid:65534\"]"));
        let named = said(&by(65_534, &["backend", "drain", "c", "a"]));
        assert!(named.contains("would have to name `uid:65534`, and `read_only` not"), "{named}");
        apply(&with("read_write = [\"gid:65533\"]"));
        assert!(by(65_533, &["backend", "weight", "c", "a", "2"]).status.success());
        assert!(said(&by(65_534, &["status"])).contains("may do nothing"));
    }

    // Who takes the right to change from itself gets it back from the file.
    apply(&with(&format!("read_only = [\"uid:{own}\"]")));
    assert!(said(&running.ask(&["backend", "drain", "c", "a"])).contains("may look and change nothing"));
    assert!(running.ask(&["status"]).status.success());
    running.signal("HUP");
    eventually("the file is applied again", || {
        running.ask(&["backend", "weight", "c", "a", "5"]).status.success().then_some(())
    });
    eventually("the socket is its own again", || (mode() == 0o600).then_some(()));
}

/// Connections that hold their places and do nothing more.
fn slow(socket: &Path, many: usize, words: &str) -> Vec<UnixStream> {
    let one = |_| {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.write_all(words.as_bytes()).unwrap();
        stream
    };
    (0..many).map(one).collect()
}

#[test]
fn slow_clients_hold_nobody_up() {
    let scene = Scene::start("admin-slow");
    let socket = &scene.running.socket;
    let events = "GET /v1/events HTTP/1.1\r\nHost: k\r\n\r\n";
    let drips =
        "PUT /v1/config HTTP/1.1\r\nHost: k\r\nContent-Type: application/toml\r\nContent-Length: 5000\r\n\r\n[adm";
    let quick = |what: &str, change: &mut dyn FnMut() -> bool| {
        let began = Instant::now();
        assert!(change(), "{what}");
        assert!(began.elapsed() < Duration::from_secs(3), "{what} took {:?}", began.elapsed());
    };
    let mut weight = 1;
    let mut weigh = |who: &str| {
        weight = weight % 250 + 1;
        let weight = weight.to_string();
        let arguments = ["backend", "weight", "c", "a", weight.as_str()];
        let output = if who == "socket" { scene.running.ask(&arguments) } else { scene.by(who, &arguments) };
        output.status.success()
    };
    // More than there are places for: those that read nothing, that say nothing, that never end.
    let mut held = slow(socket, 100, events);
    quick("a change beside streams that nobody reads", &mut || weigh("socket"));
    held.extend(slow(socket, 100, drips));
    quick("a change beside bodies that never end", &mut || weigh("socket"));
    held.extend(slow(socket, 100, ""));
    quick("a change beside clients that say nothing", &mut || weigh("socket"));

    let silent: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(scene.api).unwrap()).collect();
    quick("a change over TCP beside handshakes that never begin", &mut || weigh("ann"));
    let config = scene.config_of("ci");
    let watching: Vec<Stream> = (0..80)
        .map(|_| {
            let mut stream = connect(scene.api, "127.0.0.1", &config).unwrap();
            stream.write_all(events.as_bytes()).unwrap();
            stream
        })
        .collect();
    quick("a change over TCP beside streams that nobody reads", &mut || weigh("ann"));
    quick("one on the socket", &mut || weigh("socket"));

    // Each change is an event for each of them, and none of them is waited for.
    let began = Instant::now();
    for weight in 1..=200 {
        let path = "/v1/clusters/c/backends/a";
        let answer =
            http(socket, "PATCH", path, &["Content-Type: application/json"], &format!("{{\"weight\":{weight}}}"));
        assert_eq!(answer.status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(20), "200 changes took {:?}", began.elapsed());
    drop((held, silent, watching));
    assert!(scene.running.ask(&["status"]).status.success());
}

#[test]
fn the_api_over_tcp_needs_certificates_of_both_sides() {
    let (room, backend) = (Room::new("admin-refused"), Echo::start("a"));
    let refused = |tcp: &str| {
        let text = document(&room, &[&backend], "").replacen("[admin]\n", &format!("[admin]\n{tcp}\n"), 1);
        let output = kakei().arg("check").arg(room.write("k.toml", &text)).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{tcp}");
        said(&output)
    };
    let open = refused("tcp = \"0.0.0.0:9443\"");
    assert!(open.contains("whoever reaches it could change everything") && open.contains("k.toml:2:7"), "{open}");
    let no_ca = refused("tcp = { bind = \"0.0.0.0:9443\", certificate = \"a\", read_write = [\"CN=a\"] }");
    assert!(no_ca.contains("`admin.tcp` lacks `ca`"), "{no_ca}");
    let nobody = refused("tcp = { bind = \"0.0.0.0:9443\", certificate = \"a\", ca = \"ca.pem\" }");
    assert!(nobody.contains("names no client") && nobody.contains("there is no certificate `a`"), "{nobody}");
    let (authority, ca) = (Authority::new(), room.path("no.pem"));
    let tcp =
        format!("tcp = {{ bind = \"127.0.0.1:0\", certificate = \"a\", ca = {ca:?}, read_write = [\"CN=a\"] }}\n");
    let made = authority.make(&["a.test"], |_| {}).put(&room, "a");
    let text = document(&room, &[&backend], &made).replacen("[admin]\n", &format!("[admin]\n{tcp}"), 1);
    let output = kakei().arg("check").arg(room.write("k.toml", &text)).output().unwrap();
    assert!(said(&output).contains("no.pem can't be read") && said(&output).contains("k.toml:2:"), "{}", said(&output));

    // An address in use, an audit log that can't be written: refused as a whole, and what ran goes on.
    room.write("no.pem", &authority.pem);
    let running = Running::start(&room, &document(&room, &[&backend], &made));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = text.replacen("127.0.0.1:0", &taken.local_addr().unwrap().to_string(), 1);
    let wrong = [
        (taken, "can't be bound"),
        (
            text.replacen("[admin]\n", "[admin]\naudit_log = \"/nowhere/a.log\"\n", 1),
            "the audit log /nowhere/a.log can't be opened",
        ),
    ];
    for (text, says) in wrong {
        let output = running.ask(&["apply", room.write("next.toml", &text).to_str().unwrap()]);
        assert!(said(&output).contains(says), "{}", said(&output));
        assert_eq!(running.json(&["status"])["generation"], 1);
    }
    running.done(&["apply", room.write("next.toml", &text).to_str().unwrap()]);
    assert!(running.json(&["status"])["api"].is_string(), "it comes without a restart");
}
