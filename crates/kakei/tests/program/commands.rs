//! The command line: exit codes, sentences, and the commands that need no running proxy.

use std::io::Write;
use std::net::UdpSocket;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::harness::{Client, Echo, Room, Running, document, eventually, kakei};

fn run(arguments: &[&str]) -> Output {
    kakei().args(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn exit_codes_tell_what_kind_of_end_it_was() {
    let room = Room::new("codes");
    let bad =
        room.write("bad.toml", "[listeners.a]\nprotocol = \"udp\"\nbind = [\"127.0.0.1:0\"]\ncluster = \"nope\"\n");
    let nowhere = room.path("no.sock");
    let (bad, nowhere) = (bad.to_str().unwrap(), nowhere.to_str().unwrap());
    let cases: [(&[&str], i32); 12] = [
        (&["--version"], 0),
        (&["--help"], 0),
        (&["frobnicate"], 2),
        (&["serve"], 2),
        (&["serve", "--from", "nonsense", "--to", "127.0.0.1:1"], 2),
        (&["check", bad], 2),
        (&["check", "/nonexistent.toml"], 2),
        (&["run", "-c", bad], 2),
        (&["run", "--state", "/nonexistent"], 2),
        (&["apply", bad, "-s", nowhere], 2),
        (&["status", "-s", nowhere], 1),
        (&["backend", "drain", "c", "b", "-s", nowhere], 1),
    ];
    for (arguments, expected) in cases {
        let output = run(arguments);
        assert_eq!(code(&output), expected, "{arguments:?}: {}", stderr(&output));
        assert_eq!(expected == 0, output.stderr.is_empty(), "errors go to standard error: {arguments:?}");
    }
    let said = stderr(&run(&["status", "-s", nowhere]));
    assert!(said.lines().count() == 1 && said.contains(nowhere) && said.contains("-s"), "{said}");
}

#[test]
fn a_part_of_what_is_said_is_not_taken_for_the_whole() {
    for arguments in [&["schema"][..], &["completions", "bash"], &["man"], &["openapi"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = kakei().args(arguments).stdout(full).output().unwrap();
        assert_eq!(code(&output), 1, "{arguments:?}");
        let said = stderr(&output);
        assert!(said.lines().count() == 1 && said.contains("standard output can't be written"), "{said}");
        // Who has read enough may go.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = kakei().args(arguments).stdout(writer).output().unwrap();
        assert_eq!((code(&output), stderr(&output).as_str()), (0, ""), "{arguments:?}");
    }
}

#[test]
fn what_run_and_serve_are_told_wrongly_is_told_from_what_fails() {
    let room = Room::new("wrongly");
    let good = room.write("good.toml", "[listeners.a]\nprotocol = \"udp\"\nbind = [\"127.0.0.1:0\"]\n");
    let long = room.path(&"x".repeat(120));
    let refused = run(&["run", "-c", good.to_str().unwrap(), "-s", long.to_str().unwrap()]);
    assert!(code(&refused) == 2 && stderr(&refused).contains("at most 107 bytes"), "{}", stderr(&refused));
    let refused = run(&["serve", "--from", "tcp:127.0.0.1:0", "--to", "127.0.0.1:1", "--requests", "3"]);
    assert!(code(&refused) == 2 && stderr(&refused).contains("--requests is for UDP"), "{}", stderr(&refused));
    // Generations that are there are not said to be none.
    std::fs::create_dir_all(room.path("state/generations")).unwrap();
    (1..=2).for_each(|n| drop(room.write(&format!("state/generations/{n:020}.json"), "torn")));
    let refused = run(&["run", "--state", room.path("state").to_str().unwrap()]);
    assert!(
        code(&refused) == 2 && stderr(&refused).contains("has 2 generations, none of which"),
        "{}",
        stderr(&refused)
    );
    // What a document names is wrong at a place of it.
    let named = "[certificates.x]\nchain = \"/nonexistent.pem\"\nkey = \"/nonexistent.key\"\n";
    let named = room.write("named.toml", named);
    let (checked, refused) = (run(&["check", named.to_str().unwrap()]), run(&["run", "-c", named.to_str().unwrap()]));
    assert!(stderr(&refused).contains("named.toml:2:") && code(&refused) == 2, "{}", stderr(&refused));
    assert_eq!(stderr(&refused), stderr(&checked));
}

#[test]
fn check_says_in_json_what_is_no_text_and_what_is_not_there() {
    let room = Room::new("no-text");
    let path = room.path("k.toml");
    std::fs::write(&path, b"[listeners.a]\nprotocol = \"\xff\"\n").unwrap();
    let json = |path: &str| {
        let output = run(&["check", "-o", "json", path]);
        assert_eq!(code(&output), 2);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let said = json(path.to_str().unwrap());
    let error = &said["errors"][0];
    assert_eq!((&error["line"], &error["column"]), (&2.into(), &13.into()), "{said}");
    let said = json("/nonexistent.toml");
    assert!(said["errors"][0]["message"].as_str().unwrap().contains("can't be read"), "{said}");
    let drawn = stderr(&run(&["apply", path.to_str().unwrap(), "-s", "/nonexistent"]));
    assert!(drawn.contains("isn't UTF-8") && drawn.contains("k.toml:2:13"), "{drawn}");
    std::fs::write(&path, "").unwrap();
    let said = run(&["check", path.to_str().unwrap()]);
    assert!(code(&said) == 0 && stderr(&said).contains("no listener"), "{}", stderr(&said));
}

#[test]
fn check_draws_every_error_and_reads_standard_input() {
    let text = "[listeners.a]\nprotocol = \"udp\"\nbind = [\"127.0.0.1:0\"]\ncluster = \"nope\"\n\n[clusters.c]\nbackendz = []\n";
    let check = |arguments: &[&str], text: &str| {
        let mut child = kakei()
            .arg("check")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = check(&["-"], text);
    let drawn = stderr(&output);
    assert_eq!(code(&output), 2);
    assert!(drawn.contains("standard input:4:") && drawn.contains("standard input:7:"), "{drawn}");
    assert!(!drawn.contains('\u{1b}'), "no colour where there is no terminal");
    let output = check(&["-", "-o", "json"], text);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((code(&output), &answer["valid"]), (2, &Value::Bool(false)));
    assert_eq!(answer["errors"].as_array().unwrap().len(), 2);
    assert_eq!(answer["errors"][0]["pointer"], "/listeners/a/cluster");
    let output = check(&["-"], "{\"clusters\": {\"c\": {\"backends\": [\"127.0.0.1:53\"]}}}");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

#[test]
fn a_port_in_use_is_said_in_one_sentence() {
    let room = Room::new("inuse");
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let echo = Echo::start("a");
    let file = room.write("k.toml", &document(&room, &[&echo], "").replace("127.0.0.1:0", &address));
    let output = run(&["run", "--log", "off", "-c", file.to_str().unwrap()]);
    let said = stderr(&output);
    assert_eq!(code(&output), 1, "{said}");
    assert!(said.starts_with("error: ") && said.contains(&address) && said.lines().count() == 1, "{said}");
    assert!(!room.path("k.sock").exists(), "a start that fails leaves no socket");
}

#[test]
fn a_second_process_does_not_take_the_admin_socket() {
    let room = Room::new("second");
    let echo = Echo::start("a");
    let proxy = Running::start(&room, &document(&room, &[&echo], ""));
    let output = run(&["run", "--log", "off", "-c", room.path("k.toml").to_str().unwrap()]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("in use by a running process"), "{}", stderr(&output));
    assert_eq!(proxy.json(&["status"])["state"], "ready");
    proxy.kill();
    let proxy = Running::start(&room, &document(&room, &[&echo], ""));
    assert_eq!(proxy.json(&["status"])["state"], "ready", "a dead process's socket is replaced");
}

#[test]
fn serve_needs_no_file() {
    let room = Room::new("serve");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let mut command = kakei();
    let (to, other) = (a.address.to_string(), format!("udp:{}", b.address));
    command.args(["serve", "--from", "udp:127.0.0.1:0", "--to", &to, &other, "--responses", "1", "--workers", "1"]);
    command.arg("-s").arg(room.path("k.sock"));
    let proxy = Running::from(&room, command);
    let mut seen: Vec<String> = (0..4).map(|_| Client::new(proxy.front()).ask("x").unwrap()).collect();
    seen.sort();
    assert_eq!(seen, ["a", "a", "b", "b"]);
    let text = proxy.done(&["get", "config"]);
    assert!(text.contains("[listeners.front]") && text.contains(&to), "{text}");
    let exported = proxy.done(&["config", "export"]);
    assert_eq!(exported, text);
    let said = proxy.done(&["plan", room.write("exported.toml", &exported).to_str().unwrap()]);
    assert!(said.starts_with("nothing to change"), "{said}");
}

#[test]
fn a_plan_says_what_would_change_and_changes_nothing() {
    let room = Room::new("plan");
    let (a, b) = (Echo::start("a"), Echo::start("b"));
    let proxy = Running::start(&room, &document(&room, &[&a], ""));
    let next = room.write("next.toml", &document(&room, &[&a, &b], ""));
    let said = proxy.done(&["plan", next.to_str().unwrap()]);
    assert!(said.starts_with("would change generation 1:\n") && said.contains('b'), "{said}");
    let same = proxy.done(&["plan", room.path("k.toml").to_str().unwrap()]);
    assert!(same.starts_with("nothing to change"), "{same}");
    assert_eq!(proxy.json(&["status"])["generation"], 1);
    let refused = proxy.ask(&["apply", next.to_str().unwrap(), "--if-generation", "5"]);
    assert_eq!(code(&refused), 1);
    let stderr = stderr(&refused);
    assert!(stderr.contains("generation 1 runs"), "{stderr}");
}

#[test]
fn the_demo_balances_and_loses_nothing() {
    let output = run(&["demo", "--once"]);
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(code(&output), 0, "{said}{}", stderr(&output));
    assert!(said.contains(" 0 lost.") && said.contains("kakei get flows -s "), "{said}");
    assert!(said.contains(" requests on one connection over HTTP, 0 lost.\n"), "{said}");
    assert!(said.contains("  curl -i http://127.0.0.2:"), "{said}");
    let removed = said.lines().find(|line| line.contains("`blue` removed")).unwrap();
    assert!(removed.contains("( 0 %)"), "{removed}");
}

#[test]
fn completions_and_the_manual_come_from_the_same_table() {
    let completions = run(&["completions", "bash"]);
    assert!(String::from_utf8_lossy(&completions.stdout).contains("_kakei"));
    let man = run(&["man"]);
    assert!(String::from_utf8_lossy(&man.stdout).contains(".TH kakei"));
    eventually("both ended well", || (completions.status.success() && man.status.success()).then_some(()));
}

#[test]
fn a_simulated_seed_is_replayed_to_the_bit() {
    let once = run(&["sim", "--seed", "3", "-o", "json"]);
    let again = run(&["sim", "--seed", "3", "-o", "json"]);
    assert_eq!(once.stdout, again.stdout);
    let report: Value = serde_json::from_slice(&once.stdout).unwrap();
    assert!(!report["trace"].as_array().unwrap().is_empty());
    // Whether the data plane is right is the simulator's own tests' to say; here, that its word reaches the shell.
    let broken = report["broken"].as_array().unwrap();
    assert_eq!(code(&once), i32::from(!broken.is_empty()), "{}", stderr(&once));
    let swept = run(&["sim", "--seeds", "4", "-o", "json"]);
    let swept_report: Value = serde_json::from_slice(&swept.stdout).unwrap();
    assert_eq!(swept_report["seeds"], 4);
    assert_eq!(code(&swept), i32::from(swept_report["broken"] != 0));
    let third = swept_report["reports"].as_array().unwrap().iter().find(|report| report["seed"] == 3);
    assert_eq!(third.map(|third| &third["digest"]), (!broken.is_empty()).then_some(&report["digest"]), "the same run");
}

#[test]
fn a_document_that_is_given_is_the_one_that_is_simulated() {
    let room = Room::new("simulated");
    let text = "[listeners.names]\nprotocol = \"udp\"\nbind = [\"10.1.2.3:5353\"]\ncluster = \"c\"\n\
                [listeners.web]\nprotocol = \"http\"\nbind = [\"10.1.2.3:80\"]\ncluster = \"c\"\n\
                [clusters.c]\nbackends = [\"10.1.2.4:5353\"]\n";
    let file = room.write("k.toml", text);
    let output = run(&["sim", "--seed", "3", "-c", file.to_str().unwrap()]);
    let trace = String::from_utf8_lossy(&output.stdout);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(trace.contains("-> 10.1.2.3:5353") && trace.contains("-> 10.1.2.4:5353"), "{trace:.2000}");
    assert!(stderr(&output).starts_with("note: the TCP and HTTP listeners of the document are left out"));
    let wrong = run(&["sim", "--seeds", "1", "-c", room.write("wrong.toml", "[listener.x]\n").to_str().unwrap()]);
    assert_eq!(code(&wrong), 2, "{}", stderr(&wrong));
}

#[test]
fn as_much_is_logged_as_is_asked_for() {
    let room = Room::new("levels");
    let echo = Echo::start("a");
    let logged = |environment: &[&str], arguments: &[&str]| {
        let file = room.write("k.toml", &document(&room, &[&echo], ""));
        let mut command = kakei();
        command
            .arg("run")
            .arg("-c")
            .arg(file)
            .args(arguments)
            .envs(environment.iter().map(|level| ("KAKEI_LOG", level)));
        let proxy = Running::from(&room, command);
        proxy.done(&["backend", "weight", "c", "a", "2"]);
        proxy.signal("TERM");
        proxy.end().1
    };
    let usual = logged(&[], &[]);
    assert!(usual.contains("audit: ") && !usual.contains("DEBUG"), "{usual}");
    assert_eq!(logged(&[], &["--log", "off"]), "");
    assert_eq!(logged(&["error"], &[]), "");
    let stronger = logged(&["off"], &["--log", "info"]);
    assert!(stronger.contains("audit: "), "what is said outweighs the environment: {stronger}");
}
