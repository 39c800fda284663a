//! Files that change under a running proxy: real files, a real engine, no clients.

use std::path::PathBuf;
use std::time::SystemTime;

use kakei_config::{Kind, Name};
use kakei_proxy::snapshot::Generation;
use kakei_proxy::worker::Worker;
use tokio::sync::mpsc;

use super::super::start::begin;
use super::super::{Options, Owner};
use super::*;
use crate::edit::Edit;
use crate::events;
use crate::handle::{Confirm, Handle};
use crate::system::Real;
use crate::wall;

/// A directory with the files of a certificate.
struct Room(PathBuf);

impl Room {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kakei-watch-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Room(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Take a file's place in one move.
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path("new"), text).unwrap();
        std::fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    /// A certificate of its own in the files of this name; its fingerprint is whatever it is.
    fn renew(&self, name: &str) {
        let made = rcgen::generate_simple_self_signed([format!("{name}.test")]).unwrap();
        self.write(&format!("{name}.key"), &made.signing_key.serialize_pem());
        self.write(&format!("{name}.pem"), &made.cert.pem());
    }

    fn document(&self, watch: &str) -> kakei_config::Document {
        let certificate = |name: &str| {
            let (chain, key) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
            format!("[certificates.{name}]\nchain = {chain:?}\nkey = {key:?}\n")
        };
        let text = format!(
            "[workers]\ncount = 1\n[admin]\n{watch}\n[listeners.l]\nprotocol = \"tcp\"\nbind = [\"127.0.0.1:0\"]\n\
             tls = {{ certificates = \"all\" }}\n{}{}",
            certificate("a"),
            certificate("b")
        );
        kakei_config::parse_toml(&text).unwrap()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn play(document: kakei_config::Document, scene: impl AsyncFnOnce(Handle)) {
    let options = Options { document, origin: "start", seed: 1, last: false };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut owner, first): (Owner<_>, _) = begin(options, Real::of(Worker::new)).unwrap();
        let (requests, queue) = mpsc::channel(8);
        let handle = owner.handle(requests);
        owner.publish_first(first).await.unwrap();
        let scene = async {
            scene(handle.clone()).await;
            handle.stop().await.unwrap();
        };
        tokio::join!(owner.run(queue), scene);
    });
}

fn fingerprint(handle: &Handle, name: &str) -> [u8; 32] {
    handle.view().certificates.get(&Name::new(name)).unwrap().fingerprint
}

/// Wait until this generation runs.
async fn reach(handle: &Handle, generation: u64) {
    let there = async {
        while handle.view().generation() != Generation(generation) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), there).await.expect("it is published");
}

/// What was refused so far.
fn refused(handle: &Handle) -> Vec<String> {
    let of = |event: &events::Event| match &event.what {
        events::What::Refused { asked, reason } => Some(format!("{asked}: {reason}")),
        _ => None,
    };
    handle.events().after(0).iter().filter_map(|event| of(event)).collect()
}

async fn refusals(handle: &Handle, count: usize) {
    let there = async {
        while refused(handle).len() < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), there).await.expect("it is refused");
}

#[test]
fn a_renewed_certificate_is_a_generation_and_a_broken_one_is_said_once() {
    let room = Room::new("renewed");
    ["a", "b"].iter().for_each(|name| room.renew(name));
    play(room.document("watch_files = \"100ms\""), async |handle| {
        let (a, b) = (fingerprint(&handle, "a"), fingerprint(&handle, "b"));
        // Written anew with what they held: nothing is different.
        let same = std::fs::read_to_string(room.path("a.pem")).unwrap();
        room.write("a.pem", &same);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!((handle.view().generation(), fingerprint(&handle, "a")), (Generation(1), a));

        // One that is broken doesn't keep another one from being renewed, and is said once.
        room.write("b.pem", "nonsense");
        room.renew("a");
        reach(&handle, 2).await;
        refusals(&handle, 1).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_ne!(fingerprint(&handle, "a"), a);
        assert_eq!(fingerprint(&handle, "b"), b);
        let said: Vec<String> = refused(&handle).into_iter().filter(|said| said.contains("b.pem")).collect();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("files, ") && said[0].contains("it holds no certificate"), "{said:?}");
        let entry = handle.view().history.entries().next_back().cloned().unwrap();
        assert_eq!((entry.generation, &*entry.origin), (Generation(2), "files"));
        assert!(entry.message.as_ref().is_some_and(|message| message.contains("a.pem")), "{entry:?}");
        assert_eq!(entry.changes, ["certificate a: its files hold another one"]);

        // It is gone by once it is right.
        room.renew("b");
        reach(&handle, 3).await;
        assert_ne!(fingerprint(&handle, "b"), b);
    });
}

#[test]
fn nobody_looks_at_files_unless_it_is_asked_for() {
    let room = Room::new("unasked");
    ["a", "b"].iter().for_each(|name| room.renew(name));
    play(room.document(""), async |handle| {
        room.renew("a");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(handle.view().generation(), Generation(1));
        // From now on it is.
        handle.change(Change::to(room.document("watch_files = \"100ms\""), "test")).await.unwrap();
        room.renew("b");
        reach(&handle, 3).await;
    });
}

#[test]
fn a_rollback_passes_by_what_files_brought() {
    let room = Room::new("rollback");
    ["a", "b"].iter().for_each(|name| room.renew(name));
    let first = room.document("watch_files = \"100ms\"");
    play(first.clone(), async |handle| {
        handle.change(Change::to(room.document("watch_files = \"200ms\""), "test")).await.unwrap();
        room.renew("a");
        reach(&handle, 3).await;
        let outcome = handle.change(Change::new(What::Rollback(None), "rollback")).await.unwrap();
        assert!(outcome.applied, "{outcome:?}");
        assert_eq!(handle.view().document.admin.watch_files, first.admin.watch_files);
    });
}

/// This change, taken back after a second.
fn for_a_second(what: What) -> Change {
    let confirm = Confirm { within: Duration::from_secs(1), errors: None, unhealthy: None };
    Change { confirm: Some(confirm), ..Change::new(what, "test") }
}

#[test]
fn going_back_reads_only_what_is_not_in_use() {
    let room = Room::new("back");
    ["a", "b", "ca"].iter().for_each(|name| room.renew(name));
    let mut document = room.document("");
    let ca = format!("[clusters.c]\nbackends = [\"127.0.0.1:9\"]\ntls = {{ ca = {:?} }}\n", room.path("ca.pem"));
    document.clusters = kakei_config::parse_toml(&ca).unwrap().clusters;
    play(document, async |handle| {
        let (a, b) = (fingerprint(&handle, "a"), fingerprint(&handle, "b"));
        let slow = |time: &str| Edit::Set {
            kind: Kind::Cluster,
            name: "c".into(),
            value: serde_json::json!({ "slow_start": time }),
        };
        let change = for_a_second(What::Edits(vec![slow("7s")]));
        assert!(handle.change(change).await.unwrap().applied);
        ["a.pem", "b.key", "ca.pem"].iter().for_each(|name| room.write(name, "nonsense"));
        reach(&handle, 3).await;
        assert!(handle.change(Change::new(What::Rollback(Some(Generation(2))), "test")).await.unwrap().applied);
        assert_eq!((fingerprint(&handle, "a"), fingerprint(&handle, "b")), (a, b));
        let whole = Change::to(kakei_config::Document::clone(&handle.view().document), "test");
        assert!(matches!(handle.change(whole).await, Err(Refusal::Invalid(_))), "a whole document reads them");
    });
}

#[test]
fn what_keeps_it_from_being_taken_back_is_said_once_and_in_words() {
    let room = Room::new("back-broken");
    ["a", "b"].iter().for_each(|name| room.renew(name));
    let audit = room.path("audit.log");
    play(room.document(&format!("audit_log = {audit:?}")), async |handle| {
        let remove = Edit::Remove { kind: Kind::Certificate, name: "a".into() };
        assert!(handle.change(for_a_second(What::Edits(vec![remove]))).await.unwrap().applied);
        room.write("a.pem", "nonsense");
        tokio::time::sleep(Duration::from_millis(3500)).await;
        let lines = std::fs::read_to_string(&audit).unwrap();
        let refused: Vec<&str> = lines.lines().filter(|line| line.contains("\"refused\"")).collect();
        assert!(refused.len() == 1 && refused[0].contains("certificate `a`: `chain`: it holds no"), "{refused:?}");
        // Mended, it is done; until then it could have been confirmed.
        room.renew("a");
        reach(&handle, 3).await;
        assert!(matches!(handle.confirm(None, Asked::default()).await, Err(Refusal::NothingToConfirm(_))));
    });
}

#[test]
fn a_certificate_that_comes_and_expires_soon_is_said_at_once() {
    let room = Room::new("expiry");
    ["a", "b"].iter().for_each(|name| room.renew(name));
    play(room.document(""), async |handle| {
        let mut parameters = rcgen::CertificateParams::new(vec!["c.test".to_owned()]).unwrap();
        let tomorrow = wall::rfc3339(SystemTime::now() + Duration::from_secs(24 * 3600));
        let part = |range: std::ops::Range<usize>| tomorrow.get(range).unwrap().parse::<u8>().unwrap();
        parameters.not_after = rcgen::date_time_ymd(tomorrow[..4].parse().unwrap(), part(5..7), part(8..10));
        let key = rcgen::KeyPair::generate().unwrap();
        let made = parameters.self_signed(&key).unwrap();
        let value = serde_json::json!({ "chain": made.pem(), "key": key.serialize_pem() });
        let add = Edit::Add { kind: Kind::Certificate, name: "c".into(), value };
        assert!(handle.change(Change::edit(add, "test")).await.unwrap().applied);
        let is_it = |event: &events::Event| match &event.what {
            events::What::CertificateExpires { certificate, .. } => Some(certificate.clone()),
            _ => None,
        };
        let told = || handle.events().after(0).iter().filter_map(|event| is_it(event)).collect::<Vec<_>>();
        assert_eq!(told(), [Name::new("c")], "the others have time");
        let slow = Edit::Remove { kind: Kind::Certificate, name: "a".into() };
        assert!(handle.change(Change::edit(slow, "test")).await.unwrap().applied);
        assert_eq!(told().len(), 1, "and once");
    });
}
