//! Transactions with workers that misbehave: real engine, real threads, workers that panic or don't answer when told.
//! Sends no datagram.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kakei_proxy::seam::{Event, Inbox, Instant, Outbox};
use kakei_proxy::worker::{Role, Worker};
use kakei_runtime::step::Step;

use super::start::begin;
use super::*;
use crate::edit::Edit;
use crate::handle::{Change, Confirm, Handle, What as Asks};
use crate::system::Real;

/// A worker that panics at its n-th publication, once in its process.
struct Fragile {
    worker: Worker,
    index: u16,
    plan: Arc<Plan>,
}

#[derive(Default)]
struct Plan {
    /// Publications that worker 1 has seen, over all its lives.
    seen: AtomicU64,
    /// At which of them it panics; 0: never.
    panics_at: u64,
    /// Whether worker 0 panics when it is to probe what a change brings, once.
    panics_at_candidates: AtomicBool,
}

impl Step for Fragile {
    fn step(&mut self, now: Instant, inbox: Inbox<'_>, out: &mut Outbox) -> Option<Instant> {
        let publishes = |event: &&Event| matches!(event, Event::Command { command: Command::Publish(_), .. });
        if self.index == 1 && inbox.events.iter().any(|event| publishes(&event)) {
            let seen = self.plan.seen.fetch_add(1, Ordering::SeqCst) + 1;
            assert_ne!(seen, self.plan.panics_at, "as planned");
        }
        let probes = |event: &Event| match event {
            Event::Command { command: Command::Candidates(candidates), .. } => !candidates.is_empty(),
            _ => false,
        };
        if inbox.events.iter().any(probes) {
            assert!(!self.plan.panics_at_candidates.swap(false, Ordering::SeqCst), "as planned");
        }
        self.worker.step(now, inbox, out)
    }
}

fn document(backend: &str) -> kakei_config::Document {
    let text = format!(
        "[workers]\ncount = 2\n[listeners.l]\nprotocol = \"udp\"\nbind = [\"127.0.0.1:0\"]\ncluster = \"c\"\n\
         [clusters.c]\nbackends = [\"{backend}\"]\n"
    );
    kakei_config::parse_toml(&text).unwrap()
}

/// Start with such workers, and let `scene` ask for what it likes.
fn play<T>(panics_at: u64, scene: impl AsyncFnOnce(Handle) -> T) -> T {
    play_by(Plan { panics_at, ..Plan::default() }, scene)
}

fn play_by<T>(plan: Plan, scene: impl AsyncFnOnce(Handle) -> T) -> T {
    let options = Options { document: document("127.0.0.1:9"), origin: "start", seed: 1, last: false };
    play_from(options, plan, scene)
}

fn play_from<T>(options: Options, plan: Plan, scene: impl AsyncFnOnce(Handle) -> T) -> T {
    let plan = Arc::new(plan);
    let make = move |role: Role| Fragile { worker: Worker::new(role), index: role.index, plan: Arc::clone(&plan) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut owner, first) = begin(options, Real::of(make)).unwrap();
        let (requests, queue) = mpsc::channel(8);
        let handle = owner.handle(requests);
        owner.publish_first(first).await.unwrap();
        let scene = async {
            let result = scene(handle.clone()).await;
            handle.stop().await.unwrap();
            result
        };
        tokio::join!(owner.run(queue), scene).1
    })
}

#[test]
fn a_worker_that_panics_at_a_publication_counts_when_its_successor_runs_it() {
    let outcome = play(2, async |handle| {
        let outcome = handle.change(Change::to(document("127.0.0.1:10"), "test")).await.unwrap();
        let counters = handle.counters().await.unwrap();
        assert_eq!(counters.sums.workers.len(), 2, "both workers answer");
        let panics = counters.process.values.iter().find(|(metric, _)| metric.name == "kakei_worker_panics");
        assert_eq!(panics.map(|&(_, count)| count), Some(1));
        assert!(handle.view().ready());
        outcome
    });
    assert_eq!((outcome.generation, outcome.applied), (Generation(2), true));
}

#[test]
fn changes_are_numbered_and_refused_ones_leave_no_trace() {
    play(0, async |handle| {
        let view = handle.view();
        assert_eq!((view.generation(), view.acknowledged), (Generation(1), true));
        let mut fixed = document("127.0.0.1:10");
        fixed.workers.pin = true;
        let refused = handle.change(Change::to(fixed, "test")).await;
        assert!(matches!(refused, Err(Refusal::NeedsRestart(keys)) if keys == ["workers.pin"]));
        let mut dangling = document("127.0.0.1:10");
        dangling.listeners.values_mut().for_each(|listener| listener.cluster = Some("nope".into()));
        assert!(matches!(handle.change(Change::to(dangling, "test")).await, Err(Refusal::Invalid(_))));
        let mut log = document("127.0.0.1:10");
        log.access_log.to = Some("/nonexistent/access.log".into());
        assert!(matches!(handle.change(Change::to(log, "test")).await, Err(Refusal::AccessLog { .. })));
        let view = handle.view();
        assert_eq!((view.generation(), &*view.document), (Generation(1), &document("127.0.0.1:9")));
        let done = handle.change(Change::to(document("127.0.0.1:10"), "test")).await.unwrap();
        assert_eq!(done.generation, Generation(2));
        assert_eq!(handle.view().history.entries().count(), 2);
    });
}

#[test]
fn a_probing_worker_that_is_lost_has_a_successor_that_probes() {
    let plan = Plan { panics_at_candidates: AtomicBool::new(true), ..Plan::default() };
    play_by(plan, async |handle| {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let value = serde_json::json!({
            "backends": [backend.local_addr().unwrap().to_string()], "ready": "probed",
            "health": {"tcp": {}, "interval": "100ms", "timeout": "50ms"},
        });
        let add = Edit::Add { kind: kakei_config::Kind::Cluster, name: "new".into(), value };
        let outcome = handle.change(Change::edit(add, "test")).await.unwrap();
        assert_eq!((outcome.generation, outcome.applied), (Generation(2), true));
        let counters = handle.counters().await.unwrap();
        let panics = counters.process.values.iter().find(|(metric, _)| metric.name == "kakei_worker_panics");
        assert_eq!(panics.map(|&(_, count)| count), Some(1));
    });
}

#[test]
fn no_more_wait_than_may_and_who_stops_waiting_makes_room() {
    play(0, async |handle| {
        // Nobody listens there, and the checks have patience.
        let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let add = |name: &str| {
            let value = serde_json::json!({
                "backends": [dead], "ready": "probed", "ready_within": "20s",
                "health": {"tcp": {}, "interval": "100ms", "timeout": "50ms", "fall": 1000},
            });
            Change::edit(Edit::Add { kind: kakei_config::Kind::Cluster, name: name.into(), value }, "test")
        };
        let waiting: Vec<_> = (0..16)
            .map(|number| {
                let (handle, change) = (handle.clone(), add(&format!("c{number}")));
                tokio::spawn(async move { handle.change(change).await })
            })
            .collect();
        let begun = |event: &Arc<crate::events::Event>| matches!(event.what, What::Preparing { .. });
        let all_wait = async {
            while handle.events().after(0).iter().filter(|event| begun(event)).count() < 16 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), all_wait).await.expect("all of them wait");
        let one_more = handle.change(add("more")).await;
        assert!(matches!(one_more, Err(Refusal::Busy(_))), "{one_more:?}");
        assert_eq!(handle.view().generation(), Generation(1), "nobody's is published");
        waiting.iter().for_each(|waits| waits.abort());
        tokio::time::sleep(Duration::from_millis(700)).await;
        let again = tokio::time::timeout(Duration::from_millis(300), handle.change(add("more"))).await;
        assert!(again.is_err(), "there is room to wait again: {again:?}");
    });
}

#[test]
fn nobody_holds_what_was_replaced() {
    play(0, async |handle| {
        let text = "[workers]\ncount = 2\n[listeners.l]\nprotocol = \"http\"\nbind = [\"127.0.0.1:0\"]\n\
                    [routes.r]\nlistener = \"l\"\nhost = [\"a.example\"]\ncluster = \"c\"\n[clusters.c]\nbackends = [\"127.0.0.1:9\"]\n";
        let document = kakei_config::parse_toml(text).unwrap();
        assert!(handle.change(Change::to(document, "test")).await.unwrap().applied);
        let view = handle.view();
        let route = Arc::downgrade(view.document.routes.shared(&"r".into()).unwrap());
        let cluster = Arc::downgrade(view.document.clusters.shared(&"c".into()).unwrap());
        let listener = Arc::downgrade(view.snapshot.listener(&"l".into()).unwrap());
        drop(view);
        let set = |kind, name: &str, value| Edit::Set { kind, name: name.into(), value };
        let timeouts = serde_json::json!({ "timeouts": { "request": "7s" } });
        let slow_start = serde_json::json!({ "slow_start": "7s" });
        for edit in [set(kakei_config::Kind::Route, "r", timeouts), set(kakei_config::Kind::Cluster, "c", slow_start)] {
            assert!(handle.change(Change::edit(edit, "test")).await.unwrap().applied);
        }
        let is_held = || route.strong_count() + cluster.strong_count() + listener.strong_count() > 0;
        // Workers let go of it behind their answer.
        let all_let_go = async {
            while is_held() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let held = [route.strong_count(), cluster.strong_count(), listener.strong_count()];
        assert!(tokio::time::timeout(Duration::from_secs(5), all_let_go).await.is_ok(), "held: {held:?}");
    });
}

/// The document with these `[admin]` keys.
fn document_of(backend: &str, admin: &str) -> kakei_config::Document {
    let mut with = document(backend);
    with.admin = kakei_config::parse_toml(&format!("[admin]\n{admin}")).unwrap().admin;
    with
}

#[test]
fn what_ran_last_goes_on_as_it_was_wherever_the_process_is() {
    let directory = std::env::temp_dir().join(format!("kakei-owner-last-{}", std::process::id()));
    let (state, audit) = (directory.join("state"), directory.join("audit.log"));
    std::fs::create_dir_all(&directory).unwrap();
    let admin = format!(
        "state = {state:?}\nsocket = \"/a.sock\"\naudit_log = {audit:?}\nwatch_files = \"9s\"\npeers = {{ read_only = [\"uid:7\"] }}"
    );
    let options = |document, last| Options { document, origin: "start", seed: 1, last };
    let change = |backend: &str, within: u64| {
        let confirm = Confirm { within: Duration::from_secs(within), errors: None, unhealthy: None };
        Change { confirm: Some(confirm), ..Change::to(document_of(backend, &admin), "test") }
    };
    play_from(options(document_of("127.0.0.1:9", &admin), false), Plan::default(), async |handle| {
        assert!(handle.change(change("127.0.0.1:10", 3600)).await.unwrap().applied);
    });
    // Elsewhere, with the directory written in another way.
    let given = format!("state = \"{}/../state\"\nsocket = \"/b.sock\"", state.display());
    let own = kakei_config::parse_toml(&format!("[admin]\n{given}")).unwrap();
    play_from(options(own.clone(), true), Plan::default(), async |handle| {
        let view = handle.view();
        assert_eq!((view.generation(), view.history.entries().count()), (Generation(2), 2));
        let ran = document_of("127.0.0.1:10", &admin).admin;
        let (socket, kept) = (own.admin.socket.clone(), own.admin.state.clone());
        assert_eq!(view.document.admin, kakei_config::Admin { socket, state: kept, ..ran });
        let other = handle.change(Change::to(document("127.0.0.1:11"), "test")).await;
        assert!(matches!(other, Err(Refusal::Unconfirmed { generation: 2, .. })), "it still waits: {other:?}");
        let back = handle.change(Change::new(Asks::Rollback(None), "test")).await.unwrap();
        let is_of_it = |line: &String| line.starts_with("cluster c: ");
        assert!(back.changes.iter().all(is_of_it), "where the process is doesn't change: {:?}", back.changes);
        assert!(handle.change(change("127.0.0.1:10", 1)).await.is_err(), "the socket is another process's");
        let mut next = change("127.0.0.1:10", 1);
        let mut with = Document::clone(&handle.view().document);
        with.clusters = document("127.0.0.1:10").clusters;
        next.what = Asks::Document(Box::new(with));
        assert!(handle.change(next).await.unwrap().applied);
    });
    // What was not confirmed goes, wherever that is.
    std::thread::sleep(Duration::from_millis(1200));
    play_from(
        options(document_of("127.0.0.1:9", &format!("state = {state:?}")), true),
        Plan::default(),
        async |handle| {
            let view = handle.view();
            assert_eq!(
                (view.generation(), &view.document.clusters),
                (Generation(5), &document("127.0.0.1:9").clusters)
            );
            assert_eq!(view.document.admin.watch_files, Some(Duration::from_secs(9)));
        },
    );
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn nothing_is_gone_back_to_that_nobody_confirmed() {
    play(0, async |handle| {
        let confirm = Confirm { within: Duration::from_secs(3600), errors: None, unhealthy: None };
        let waits = |change: Change| Change { confirm: Some(confirm), ..change };
        let back = || Change::new(Asks::Rollback(None), "test");
        assert!(handle.change(waits(Change::to(document("127.0.0.1:10"), "test"))).await.unwrap().applied);
        let for_a_time = handle.change(waits(back())).await;
        assert!(matches!(for_a_time, Err(Refusal::Unconfirmed { generation: 2, .. })), "{for_a_time:?}");
        let asked = handle.change(Change { dry_run: true, ..waits(back()) }).await.unwrap();
        assert!(!asked.applied && !asked.changes.is_empty(), "{asked:?}");
        assert!(handle.change(back()).await.unwrap().applied);
        // Where nothing waits it may be for a time.
        assert!(handle.change(waits(Change::new(Asks::Rollback(Some(Generation(2))), "test"))).await.unwrap().applied);
    });
}

#[test]
fn a_plan_says_where_it_cannot_tell_what_was_changed_beside_the_document() {
    let directory = std::env::temp_dir().join(format!("kakei-owner-applied-{}", std::process::id()));
    let first = document_of("127.0.0.1:9", &format!("state = {directory:?}"));
    let options = |last| Options { document: first.clone(), origin: "start", seed: 1, last };
    let warnings = async |handle: &Handle| {
        let plan = Change { dry_run: true, ..Change::to(document("127.0.0.1:10"), "test") };
        handle.change(plan).await.unwrap().warnings
    };
    play_from(options(false), Plan::default(), async |handle| assert!(warnings(&handle).await.is_empty()));
    // It is another name of the generation's file, which stays what it is.
    let applied = directory.join("generations/applied.json");
    std::fs::remove_file(&applied).unwrap();
    std::fs::write(&applied, "nonsense").unwrap();
    play_from(options(true), Plan::default(), async |handle| {
        let said = warnings(&handle).await;
        assert!(said.len() == 1 && said[0].ends_with("what was changed at run time can't be told"), "{said:?}");
        assert!(handle.change(Change::to(document("127.0.0.1:10"), "test")).await.unwrap().applied);
        assert!(warnings(&handle).await.is_empty(), "a whole document was applied since");
    });
    std::fs::remove_dir_all(directory).unwrap();
}
