//! A worker driven by hand, one fact a test: what becomes of flows, and of what they hold, where backends, sockets and
//! listeners go or come back.

mod flow_bench;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kakei_config::*;
use kakei_proxy::record::{CloseReason, Detail};
use kakei_proxy::seam::*;
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::stats::{BackendMetric, BackendStats, ClusterMetric, DropReason, ListenerMetric, WorkerMetric};

use self::flow_bench::{BACKEND, Bench, CLIENT, SOON, addr, document, front, opened, ready, reasons, sends};

fn verdict(backend: &str, up: bool) -> Command {
    let (address, backend) = (addr(backend).into(), Name::new(backend));
    Command::Health(BackendHealth { cluster: "c".into(), backend, address, up, why: None })
}

/// `document`, with its cluster changed.
fn changed(knobs: UdpKnobs, backends: &[&str], change: impl Fn(&mut kakei_config::Cluster)) -> Document {
    let mut document = document(knobs, backends);
    document.clusters.values_mut().for_each(change);
    document
}

/// Checks that give no verdict by themselves in the time of a test, and errors of live traffic that do.
fn health(passive: bool, fail_open: bool) -> Option<Box<Health>> {
    let udp = UdpCheck { send: b"ping".to_vec(), expect: Expect::Any, port: None };
    let (eject, eject_max) = (Duration::from_secs(60), Duration::from_secs(600));
    let passive = passive.then(|| PassiveCheck { fall: 1, eject, eject_max, ..PassiveCheck::default() });
    let interval = Duration::from_secs(600);
    Some(Health { udp: Some(udp), passive, interval, fail_open, ..Health::default() }.into())
}

/// A worker with this document, and its front socket.
fn ready_with(document: &Document) -> (Bench, SocketId) {
    let mut bench = Bench::new(document);
    let front = front(&bench.out.ops);
    bench.step();
    (bench, front)
}

fn client(port: u16) -> String {
    format!("198.51.100.7:{port}")
}

/// Where the flow that a client opens goes.
fn remote(ops: &[Op]) -> Option<SocketAddr> {
    ops.iter().find_map(|op| match op {
        Op::OpenDatagram { remote: Remote::Connected(remote), .. } => Some(*remote),
        _ => None,
    })
}

#[test]
fn a_backend_that_comes_back_is_as_a_new_one() {
    let with =
        |backends: &[&str]| changed(UdpKnobs::default(), backends, |cluster| cluster.health = health(false, false));
    let (mut bench, front) = ready_with(&with(&[BACKEND]));
    let upstream = opened(&bench.arrive(front, CLIENT, b"x"))[0];
    bench.open(upstream);
    bench.command(verdict(BACKEND, false));
    assert_eq!(remote(&bench.arrive(front, &client(2), b"x")), None, "it is down");
    bench.publish(&with(&[]));
    bench.publish(&with(&[BACKEND]));
    assert_eq!(remote(&bench.arrive(front, &client(3), b"x")), Some(addr(BACKEND)));
}

#[test]
fn a_flow_that_finds_no_room_where_it_moves_gives_its_place_up_once() {
    const OTHER: &str = "10.0.0.2:53";
    let knobs = UdpKnobs { upstream: Upstream::Shared, on_backend_removed: OnBackend::Move, ..UdpKnobs::default() };
    let weighed = |backend: usize, other: usize| {
        let weigh = move |cluster: &mut kakei_config::Cluster| {
            let weights = [backend, other];
            cluster.backends.iter_mut().zip(weights).for_each(|(of, weight)| of.weight = weight as u32);
            cluster.backends.retain(|of| of.address == addr(OTHER).into() || backend < 2);
        };
        changed(knobs.clone(), &[BACKEND, OTHER], weigh)
    };
    let (mut bench, front) = ready_with(&weighed(0, 1));
    let full = kakei_proxy::limits::SHARED_SOCKETS as u16;
    for port in 0..full {
        bench.put(front, &format!("198.51.101.7:{}", port + 1), 0, b"x");
    }
    let ops = bench.step();
    bench.arena.clear();
    let sockets = opened(&ops);
    assert_eq!(sockets.len(), usize::from(full));
    bench.events.extend(sockets.into_iter().map(|socket| Event::Opened { socket, local: addr("10.9.9.9:40000") }));
    bench.step();
    bench.publish(&weighed(1, 0));
    bench.arrive(front, CLIENT, b"moves");
    assert_eq!(reasons(&bench.publish(&weighed(2, 1))), [CloseReason::Aborted], "the other has no place left");
    bench.publish(&weighed(1, 0));
    bench.pass(Duration::from_secs(6));
    let sent = |ops: &[Op]| sends(ops).iter().map(|send| send.socket).collect::<Vec<_>>();
    let (one, two) = (sent(&bench.arrive(front, &client(1), b"1")), sent(&bench.arrive(front, &client(2), b"2")));
    assert_eq!((one.len(), two.len()), (1, 1));
    assert_ne!(one, two, "two flows to one backend never share a socket");
}

#[test]
fn a_listener_whose_address_went_on_to_another_is_forgotten() {
    let named = |name: &str| {
        let mut document = document(UdpKnobs::default(), &[BACKEND]);
        document.listeners = document.listeners.values().map(|of| (name.into(), of.clone())).collect();
        document
    };
    let (mut bench, front) = ready_with(&named("first"));
    let upstream = opened(&bench.arrive(front, CLIENT, b"x"))[0];
    bench.open(upstream);
    for round in 0..4 {
        bench.publish(&Document { listeners: [].into(), ..named("none") });
        bench.publish(&named(&format!("later-{round}")));
    }
    let names: Vec<_> = bench.stats().listeners.iter().map(|of| of.listener.to_string()).collect();
    assert_eq!(names, ["first", "later-3"]);
}

/// A listener of every address, and one of the one address that clients of these tests dial.
fn overlapping(names: &[&str]) -> Document {
    let mut document = document(UdpKnobs::default(), &[BACKEND]);
    let mut spec = document.clusters.values().next().cloned().expect("a cluster");
    spec.backends = vec![Backend::at(addr("10.0.0.2:53"))];
    document.clusters.insert("of-spec".into(), spec);
    let wide = document.listeners.values().next().cloned().expect("a listener");
    let bind = vec![addr("192.0.2.1:53")];
    let spec = Listener { bind, cluster: Some("of-spec".into()), ..wide.clone() };
    let all = [("spec", spec), ("wide", wide)];
    document.listeners =
        all.into_iter().filter(|(name, _)| names.contains(name)).map(|(name, of)| (name.into(), of)).collect();
    document
}

/// The front socket of an address.
fn front_at(ops: &[Op], at: &str) -> SocketId {
    let of = |op: &Op| matches!(op, Op::Listen { bind, .. } if bind.address == addr(at));
    front(std::slice::from_ref(ops.iter().find(|op| of(op)).expect("it listens")))
}

#[test]
fn a_wildcard_takes_the_new_clients_of_an_address_that_drains() {
    let mut bench = Bench::new(&overlapping(&["spec", "wide"]));
    let ops = bench.out.ops.clone();
    let (spec, wide) = (front_at(&ops, "192.0.2.1:53"), front_at(&ops, "0.0.0.0:53"));
    bench.step();
    let upstream = opened(&bench.arrive(spec, CLIENT, b"x"))[0];
    bench.open(upstream);
    bench.publish(&overlapping(&["wide"]));
    assert_eq!(sends(&bench.arrive(spec, CLIENT, b"y"))[0].socket, upstream, "who was there stays");
    let ops = bench.arrive(spec, &client(2), b"x");
    assert_eq!(remote(&ops), Some(addr(BACKEND)), "who comes goes where the wildcard's listener sends");
    let new = opened(&ops)[0];
    bench.open(new);
    let reply = sends(&bench.arrive(new, BACKEND, b"z"))[0];
    assert_eq!((reply.socket, reply.from), (wide, Some(IpAddr::from([192, 0, 2, 1]))));
    assert_eq!(sends(&bench.arrive(wide, &client(2), b"y"))[0].socket, new, "by either socket it is the same flow");
    assert_eq!(bench.drops(DropReason::Draining), 0);
}

#[test]
fn an_address_that_drains_is_read_as_long_as_others_may_hold_it() {
    for (workers, stays) in [(1, false), (2, true)] {
        let mut bench = Bench::new(&overlapping(&["spec", "wide"]));
        let spec = front_at(&bench.out.ops.clone(), "192.0.2.1:53");
        bench.step();
        let shared = Shared { workers, balance_seed: 9 };
        let snapshot = Snapshot::compile(&overlapping(&["wide"]), Generation(2), shared, None);
        let is_closed = |ops: &[Op]| ops.iter().any(|op| matches!(op, Op::Close { socket } if *socket == spec));
        let ops = bench.command(Command::Publish(Arc::new(snapshot)));
        assert_eq!(is_closed(&ops), !stays);
        if stays {
            assert_eq!(remote(&bench.arrive(spec, CLIENT, b"x")), Some(addr(BACKEND)));
            let ops = bench.pass(Listener::default().drain_timeout + SOON);
            assert!(is_closed(&ops));
            assert_eq!(bench.wake, None, "nothing is left to wait for");
        }
    }
}

#[test]
fn a_reply_that_may_still_come_reaches_nobody_else() {
    let knobs =
        UdpKnobs { upstream: Upstream::Shared, back_timeout: Duration::from_millis(400), ..UdpKnobs::default() };
    let (mut bench, front) = ready(knobs, &[BACKEND]);
    let socket = opened(&bench.arrive(front, CLIENT, b"x"))[0];
    bench.open(socket);
    bench.arrive(socket, BACKEND, b"ack");
    assert_eq!(reasons(&bench.pass(Duration::from_millis(410))), [CloseReason::Idle]);
    bench.pass(Duration::from_millis(200));
    let next = opened(&bench.arrive(front, &client(2), b"y"));
    assert_eq!(next.len(), 1, "as many replies as requests is no promise that there are no more");
    assert_ne!(next[0], socket);
}

#[test]
fn a_pair_that_something_comes_to_rests_anew() {
    let knobs = UdpKnobs { upstream: Upstream::Shared, requests: 1, responses: 1, ..UdpKnobs::default() };
    for stray in [false, true] {
        let (mut bench, front) = ready(knobs.clone(), &[BACKEND]);
        let socket = opened(&bench.arrive(front, CLIENT, b"x"))[0];
        bench.open(socket);
        assert_eq!(reasons(&bench.arrive(socket, BACKEND, b"reply")), [CloseReason::ResponsesReached]);
        bench.pass(Duration::from_millis(90));
        if stray {
            bench.arrive(socket, BACKEND, b"another");
        }
        bench.pass(Duration::from_millis(20));
        let opens = opened(&bench.arrive(front, &client(2), b"x")).len();
        assert_eq!(opens, usize::from(stray));
        bench.pass(Duration::from_millis(4_990));
        assert_eq!(opened(&bench.arrive(front, &client(3), b"x")).len(), usize::from(!stray), "free again");
    }
}

#[test]
fn without_descriptors_flows_take_the_shared_sockets_that_are_there() {
    let knobs = UdpKnobs { upstream: Upstream::Shared, requests: 1, responses: 1, ..UdpKnobs::default() };
    let (mut bench, front) = ready(knobs, &[BACKEND]);
    let socket = opened(&bench.arrive(front, CLIENT, b"x"))[0];
    bench.open(socket);
    let failing = opened(&bench.arrive(front, &client(2), b"x"))[0];
    bench.events.push(Event::OpenFailed { socket: failing, error: OpenError::NoDescriptors });
    assert_eq!(reasons(&bench.step()), [CloseReason::Aborted]);
    bench.arrive(socket, BACKEND, b"reply");
    bench.pass(Duration::from_secs(1));
    let ops = bench.arrive(front, &client(3), b"x");
    assert_eq!((opened(&ops).len(), sends(&ops).len()), (0, 1));
    assert_eq!(sends(&ops)[0].socket, socket);
}

#[test]
fn shared_sockets_of_a_flood_are_given_up_while_other_flows_go_on() {
    let knobs = UdpKnobs { upstream: Upstream::Shared, ..UdpKnobs::default() };
    let (mut bench, front) = ready(knobs, &[BACKEND, "10.0.0.2:53"]);
    for port in 1..=200 {
        let ops = bench.arrive(front, &client(port), b"x");
        opened(&ops).into_iter().for_each(|socket| drop(bench.open(socket)));
    }
    let sockets = |bench: &mut Bench| bench.stats().clusters[0].values[ClusterMetric::SharedSockets];
    assert_eq!(sockets(&mut bench), 100);
    let used = |ops: &[Op]| sends(ops).iter().map(|send| send.socket).collect::<Vec<_>>();
    let lasting = used(&bench.arrive(front, &client(70), b"x"));
    for _ in 0..10 {
        bench.pass(Duration::from_secs(5));
        assert_eq!(used(&bench.arrive(front, &client(70), b"x")), lasting, "it goes on by its socket");
    }
    assert_eq!(sockets(&mut bench), 1);
    let again = [300, 301].map(|port| bench.arrive(front, &client(port), b"x"));
    assert_eq!(again.iter().map(|ops| opened(ops).len()).sum::<usize>(), 1, "the one that is there is used first");
}

#[test]
fn what_the_system_says_at_once_counts_against_the_backend_and_moves_the_flow() {
    const OTHER: &str = "10.0.0.2:53";
    let knobs = UdpKnobs { retry_on_unreachable: true, ..UdpKnobs::default() };
    let (mut bench, front) = ready(knobs.clone(), &[BACKEND, OTHER]);
    let ops = bench.arrive(front, CLIENT, b"x");
    let first = remote(&ops).expect("it opens");
    bench.events.push(Event::OpenFailed { socket: opened(&ops)[0], error: OpenError::Unreachable });
    let ops = bench.step();
    let second = remote(&ops).expect("it tries the other");
    assert_ne!(first, second);
    let sent = sends(&bench.open(opened(&ops)[0]));
    assert_eq!(bench.bytes(&sent[0]), b"x");

    let (mut bench, front) = ready(UdpKnobs { upstream: Upstream::Shared, ..knobs }, &[BACKEND, OTHER]);
    let socket = opened(&bench.arrive(front, CLIENT, b"x"))[0];
    let send = sends(&bench.open(socket))[0];
    let error = SendError::Unreachable;
    bench.events.push(Event::SendFailed { socket, tag: send.tag, datagrams: 1, bytes: 1, error });
    bench.step();
    let moved = sends(&bench.arrive(front, CLIENT, b"y"))[0];
    assert_ne!(moved.to, send.to);
    let unreachable = |of: &BackendStats| of.values[BackendMetric::Unreachable];
    assert_eq!(bench.stats().clusters[0].backends.iter().map(unreachable).sum::<u64>(), 1);
    assert_eq!(bench.drops(DropReason::SendError), 1);
}

/// Have the backend of the flow that this client opens ejected.
fn eject(bench: &mut Bench, front: SocketId) -> SocketAddr {
    let ops = bench.arrive(front, CLIENT, b"x");
    let (socket, at) = (opened(&ops)[0], remote(&ops).expect("it opens"));
    bench.open(socket);
    bench.events.push(Event::Unreachable { socket, peer: None });
    assert!(bench.step().iter().any(|op| matches!(op, Op::Notice(Notice::Ejected { .. }))));
    at
}

#[test]
fn an_ejection_ends_with_the_checks_that_ask_for_it() {
    let with = |passive: bool| {
        changed(UdpKnobs::default(), &[BACKEND], move |cluster| cluster.health = health(passive, false))
    };
    let (mut bench, front) = ready_with(&with(true));
    eject(&mut bench, front);
    assert_eq!(remote(&bench.arrive(front, &client(2), b"x")), None);
    bench.publish(&with(false));
    assert_eq!(remote(&bench.arrive(front, &client(3), b"x")), Some(addr(BACKEND)));

    let (mut bench, front) = ready_with(&with(true));
    eject(&mut bench, front);
    let shorter = changed(UdpKnobs::default(), &[BACKEND], |cluster| {
        cluster.health = health(true, false);
        let passive = cluster.health.as_mut().and_then(|health| health.passive.as_mut()).expect("as made");
        (passive.eject, passive.eject_max) = (Duration::from_secs(1), Duration::from_secs(2));
    });
    bench.publish(&shorter);
    assert_eq!(remote(&bench.arrive(front, &client(2), b"x")), None);
    bench.pass(Duration::from_secs(2) + SOON);
    assert_eq!(remote(&bench.arrive(front, &client(3), b"x")), Some(addr(BACKEND)));
}

#[test]
fn a_backend_that_was_ejected_starts_slowly() {
    const OTHER: &str = "10.0.0.2:53";
    let document = changed(UdpKnobs::default(), &[BACKEND, OTHER], |cluster| {
        cluster.health = health(true, false);
        cluster.slow_start = Duration::from_secs(100);
    });
    let (mut bench, front) = ready_with(&document);
    bench.pass(Duration::from_secs(1000));
    let ejected = eject(&mut bench, front);
    let mut share = |after: Duration, ports: std::ops::Range<u16>| {
        bench.pass(after);
        let ops: Vec<_> = ports.map(|port| bench.arrive(front, &client(port), b"x")).collect();
        ops.iter().filter(|ops| remote(ops) == Some(ejected)).count()
    };
    assert_eq!(share(Duration::ZERO, 100..140), 0);
    let back = share(Duration::from_secs(60) + SOON, 200..240);
    assert!((1..10).contains(&back), "{back} of 40");
    let full = share(Duration::from_secs(100) + SOON, 300..340);
    assert_eq!(full, 20);
}

#[test]
fn a_cluster_that_fails_open_has_its_backups_where_there_is_nobody_else() {
    let document = changed(UdpKnobs::default(), &[BACKEND], |cluster| {
        cluster.health = health(false, true);
        cluster.backends.iter_mut().for_each(|backend| backend.backup = true);
    });
    let (mut bench, front) = ready_with(&document);
    bench.command(verdict(BACKEND, false));
    assert_eq!(remote(&bench.arrive(front, CLIENT, b"x")), Some(addr(BACKEND)));
}

#[test]
fn a_flow_that_moves_from_a_removed_backend_sends_nothing_twice() {
    let knobs = UdpKnobs { retry_on_unreachable: true, on_backend_removed: OnBackend::Move, ..UdpKnobs::default() };
    let (mut bench, front) = ready(knobs.clone(), &[BACKEND]);
    let upstream = opened(&bench.arrive(front, CLIENT, b"x"))[0];
    assert_eq!(sends(&bench.open(upstream)).len(), 1);
    let other = opened(&bench.publish(&document(knobs, &["10.0.0.2:53"])))[0];
    assert!(sends(&bench.open(other)).is_empty());
    assert_eq!(sends(&bench.arrive(front, CLIENT, b"y"))[0].socket, other);
}

#[test]
fn a_flow_that_sent_nothing_ends_and_its_record_says_so() {
    let (mut bench, front) = ready(UdpKnobs { requests: 1, ..UdpKnobs::default() }, &[BACKEND]);
    let socket = opened(&bench.arrive(front, CLIENT, b"x"))[0];
    let tag = sends(&bench.open(socket))[0].tag;
    bench.events.push(Event::SendFailed { socket, tag, datagrams: 1, bytes: 1, error: SendError::Other });
    let ops = bench.step();
    let records: Vec<_> = ops
        .iter()
        .filter_map(|op| match op {
            Op::Record(record) => Some((record.reason, record.detail.clone(), record.request_bytes)),
            _ => None,
        })
        .collect();
    assert_eq!(records, [(CloseReason::Aborted, Detail::Flow { requests: 0, responses: 0 }, 0)]);
}

#[test]
fn what_says_that_it_comes_from_where_it_goes_is_refused() {
    let (mut bench, front) = ready(UdpKnobs::default(), &[BACKEND]);
    assert!(opened(&bench.arrive(front, "192.0.2.1:53", b"x")).is_empty());
    assert_eq!(bench.drops(DropReason::Invalid), 1);
    assert_eq!(opened(&bench.arrive(front, "192.0.2.1:54", b"x")).len(), 1);
}

#[test]
fn what_says_that_it_comes_from_another_address_of_ours_is_refused() {
    // Others that bind an address of their own, and one that binds all of them.
    let mut document = document(UdpKnobs::default(), &[BACKEND]);
    let wide = document.listeners.values().next().cloned().expect("a listener");
    let other = Listener { bind: vec![addr("192.0.2.9:99")], ..wide };
    document.listeners.insert("other".into(), other);
    let mut bench = Bench::new(&document);
    let front = front_at(&bench.out.ops.clone(), "0.0.0.0:53");
    bench.step();
    let mut is_let_in = |peer: &str| !opened(&bench.arrive(front, peer, b"x")).is_empty();
    assert!(is_let_in("198.51.100.7:53"), "a name server asks from there");
    assert!(is_let_in("192.0.2.9:53") && is_let_in("192.0.2.1:99") && is_let_in("127.0.0.1:99"));
    assert!(!is_let_in("192.0.2.9:99"), "the other listener's");
    assert!(!is_let_in("127.0.0.9:53"), "of this machine, and ours at that port");
    bench.arena.clear();
    let bytes = Span { start: 0, len: 0 };
    let dialled = |local: &str, peer: &str| {
        let local = local.parse().expect("an address");
        Event::Datagram(Datagram { socket: front, peer: addr(peer), local, segment: 0, bytes })
    };
    bench.events.push(dialled("192.0.2.2", "198.51.100.8:1"));
    assert_eq!(opened(&bench.step()).len(), 1);
    bench.events.push(dialled("192.0.2.1", "192.0.2.2:53"));
    assert!(opened(&bench.step()).is_empty(), "clients dial it");
    document.listeners.remove(&Name::new("other"));
    bench.publish(&document);
    assert_eq!(opened(&bench.arrive(front, "192.0.2.9:99", b"x")).len(), 1, "nobody is there any more");
}

#[test]
fn a_flow_never_goes_to_the_address_that_its_client_dialled() {
    let (mut bench, front) = ready(UdpKnobs::default(), &["192.0.2.1:53"]);
    let ops = bench.arrive(front, CLIENT, b"x");
    assert_eq!((opened(&ops).len(), reasons(&ops)), (0, vec![CloseReason::Aborted]));
    assert_eq!(bench.drops(DropReason::NoSocket), 1);
    let (mut bench, front) = ready(UdpKnobs::default(), &["192.0.2.1:54"]);
    assert_eq!(opened(&bench.arrive(front, CLIENT, b"x")).len(), 1);
}

#[test]
fn a_listener_drains_where_it_has_no_front_that_does_not() {
    let at = |port: u16| {
        let mut document = document(UdpKnobs::default(), &[BACKEND]);
        let bind = vec![SocketAddr::from(([0, 0, 0, 0], port))];
        document.listeners.values_mut().for_each(|listener| listener.bind.clone_from(&bind));
        document
    };
    let (mut bench, front) = ready_with(&at(53));
    bench.arrive(front, CLIENT, b"x");
    bench.publish(&at(54));
    assert_eq!(bench.stats().listeners[0].values[ListenerMetric::Draining], 0);
    bench.publish(&Document { listeners: [].into(), ..at(54) });
    assert_eq!(bench.stats().listeners[0].values[ListenerMetric::Draining], 1);
}

/// One datagram a flow, no answer, and a backend that is ejected by the first error.
fn one_way(upstream: Upstream) -> Document {
    let send_proxy_protocol = SendProxyProtocol::Every;
    let knobs = UdpKnobs { requests: 1, expects_reply: false, upstream, send_proxy_protocol, ..UdpKnobs::default() };
    changed(knobs, &[BACKEND], |cluster| cluster.health = health(true, false))
}

fn is_ejected(ops: &[Op]) -> bool {
    ops.iter().any(|op| matches!(op, Op::Notice(Notice::Ejected { .. })))
}

/// Nothing of this send went out.
fn refused(send: &Send, error: SendError) -> Event {
    Event::SendFailed { socket: send.socket, tag: send.tag, datagrams: 1, bytes: send.bytes.len() as u32, error }
}

/// What a listener and its backend count as sent, what was dropped as refused, and what is on nobody.
fn accounts(bench: &mut Bench) -> ([u64; 4], u64, u64) {
    let stats = bench.stats();
    let (listener, backend) = (&stats.listeners[0], &stats.clusters[0].backends[0]);
    let forwarded = [ListenerMetric::DatagramsForwarded, ListenerMetric::BytesForwarded].map(|of| listener.values[of]);
    let sent = [BackendMetric::DatagramsSent, BackendMetric::BytesSent].map(|of| backend.values[of]);
    let dropped = listener.drops.0[DropReason::SendError as usize];
    let late = stats.worker[WorkerMetric::LateSendFailures];
    ([forwarded[0], forwarded[1], sent[0], sent[1]], dropped, late)
}

#[test]
fn a_one_way_flow_that_ended_by_a_send_counts_against_the_backend_where_that_is_refused() {
    let (mut bench, front) = ready_with(&one_way(Upstream::Shared));
    let socket = opened(&bench.arrive(front, CLIENT, b"first"))[0];
    let ops = bench.open(socket);
    assert_eq!(reasons(&ops), [CloseReason::RequestsReached]);
    let ops = bench.arrive(front, CLIENT, b"second");
    assert_eq!(reasons(&ops), [CloseReason::RequestsReached]);
    assert_eq!(accounts(&mut bench), ([2, 11, 2, 11], 0, 0));
    bench.events.push(refused(&sends(&ops)[0], SendError::Unreachable));
    assert!(is_ejected(&bench.step()));
    assert_eq!(accounts(&mut bench), ([1, 5, 1, 5], 1, 0));
    let unreachable = bench.stats().clusters[0].backends[0].values[BackendMetric::Unreachable];
    assert_eq!((unreachable, bench.drops(DropReason::NoBackend)), (1, 0));
    assert!(sends(&bench.arrive(front, CLIENT, b"third")).is_empty());
    assert_eq!(bench.drops(DropReason::NoBackend), 1, "it is ejected");
}

#[test]
fn refusals_are_counted_on_flows_that_ended_until_something_new_is_received() {
    let (mut bench, front) = ready_with(&changed(ONE_WAY, &[BACKEND], |_| {}));
    let socket = opened(&bench.arrive(front, CLIENT, b"x"))[0];
    bench.open(socket);
    (2..6).for_each(|port| bench.put(front, &client(port), 0, b"x"));
    let sent = sends(&bench.step());
    assert_eq!(sent.len(), 4);
    // As many as there is room for come in each step, and other events with them.
    for send in &sent[..3] {
        bench.events.push(refused(send, SendError::QueueFull));
        bench.command(Command::Stats);
    }
    assert_eq!((bench.drops(DropReason::QueueFull), accounts(&mut bench).2), (3, 0));
    bench.arrive(front, &client(7), b"x");
    bench.events.push(refused(&sent[3], SendError::QueueFull));
    bench.step();
    assert_eq!((bench.drops(DropReason::QueueFull), accounts(&mut bench).2), (3, 1));
}

#[test]
fn what_was_refused_of_an_ended_flow_may_outlive_its_backend_and_its_listener() {
    let (mut bench, front) = ready_with(&one_way(Upstream::Shared));
    let socket = opened(&bench.arrive(front, CLIENT, b"x"))[0];
    let send = sends(&bench.open(socket))[0];
    let mut none = one_way(Upstream::Shared);
    (none.listeners, none.clusters) = ([].into(), [].into());
    bench.publish(&none);
    bench.events.push(refused(&send, SendError::Unreachable));
    bench.step();
    assert_eq!(bench.stats().worker[WorkerMetric::LateSendFailures], 1);
}

const ONE_WAY: UdpKnobs = UdpKnobs {
    affinity: Affinity::SourceIp,
    responses: 0,
    requests: 1,
    expects_reply: false,
    front_timeout: Duration::from_secs(30),
    back_timeout: Duration::from_secs(30),
    lifetime: None,
    upstream: Upstream::Shared,
    send_proxy_protocol: SendProxyProtocol::Off,
    on_backend_removed: OnBackend::Keep,
    on_backend_down: OnBackend::Keep,
    retry_on_unreachable: false,
};

fn closed(ops: &[Op]) -> Vec<SocketId> {
    let of = |op: &Op| match op {
        Op::Close { socket } => Some(*socket),
        _ => None,
    };
    ops.iter().filter_map(of).collect()
}

#[test]
fn a_one_way_flow_of_its_own_socket_is_heard_for_a_moment_after_its_end() {
    let (mut bench, front) = ready_with(&one_way(Upstream::PerFlow));
    let send = |bench: &mut Bench, port: u16| {
        let socket = opened(&bench.arrive(front, &client(port), b"x"))[0];
        let ops = bench.open(socket);
        assert_eq!((sends(&ops).len(), reasons(&ops)), (1, vec![CloseReason::RequestsReached]));
        (socket, closed(&ops))
    };
    let sent: Vec<_> =
        (0..=kakei_proxy::limits::PARTED_SOCKETS as u16).map(|port| send(&mut bench, port + 1)).collect();
    let early: Vec<_> = sent.iter().flat_map(|(_, closed)| closed.clone()).collect();
    assert_eq!(early, [sent[0].0], "no more of them are kept, and the oldest goes first");
    let (socket, _) = sent[1];
    let backend = |bench: &mut Bench| bench.stats().clusters[0].backends[0].values[BackendMetric::FlowsLive];
    assert_eq!(backend(&mut bench), 0);
    bench.arrive(socket, BACKEND, b"nobody asked");
    bench.events.push(Event::Unreachable { socket, peer: None });
    assert!(is_ejected(&bench.step()));
    let later = closed(&bench.pass(kakei_proxy::limits::PARTED_FOR + SOON));
    assert_eq!(later, sent[1..].iter().map(|(socket, _)| *socket).collect::<Vec<_>>());
    bench.events.push(Event::Unreachable { socket, peer: None });
    bench.step();
    assert_eq!(bench.stats().worker[WorkerMetric::StaleEvents], 1);
}

#[test]
fn sockets_of_ended_flows_are_in_nobodys_way() {
    let (mut bench, front) = ready_with(&one_way(Upstream::PerFlow));
    let first = opened(&bench.arrive(front, CLIENT, b"x"))[0];
    bench.open(first);
    let second = opened(&bench.arrive(front, CLIENT, b"x"))[0];
    bench.events.push(Event::OpenFailed { socket: second, error: OpenError::NoDescriptors });
    assert_eq!(closed(&bench.step()), [first]);
    let third = opened(&bench.arrive(front, CLIENT, b"x"))[0];
    bench.open(third);
    let ops = bench.command(Command::Drain { within: None });
    assert!(closed(&ops).contains(&third) && ops.iter().any(|op| matches!(op, Op::Notice(Notice::Drained))));
    assert_eq!(bench.wake, None);
}

#[test]
fn a_reply_that_was_not_sent_is_not_recorded_as_returned() {
    let returned = |bench: &mut Bench| {
        let stats = bench.stats();
        let (cluster, backend) = (&stats.clusters[0], &stats.clusters[0].backends[0]);
        let replies = [ClusterMetric::RepliesIn, ClusterMetric::RepliesReturned].map(|of| cluster.values[of]);
        let bytes = backend.values[BackendMetric::BytesReturned];
        let late = stats.worker[WorkerMetric::LateSendFailures];
        (replies, bytes, cluster.drops.0[DropReason::SendError as usize], late)
    };
    for responses in [0, 1] {
        let retry_on_unreachable = responses == 0;
        let knobs = UdpKnobs { responses, retry_on_unreachable, ..UdpKnobs::default() };
        let (mut bench, front) = ready(knobs, &[BACKEND, "10.0.0.2:53"]);
        let ops = bench.arrive(front, CLIENT, b"x");
        let (socket, at) = (opened(&ops)[0], remote(&ops).expect("it opens").to_string());
        bench.open(socket);
        let ops = bench.arrive(socket, &at, b"reply");
        assert_eq!(reasons(&ops).len(), responses as usize);
        bench.events.push(refused(&sends(&ops)[0], SendError::Unreachable));
        bench.step();
        assert_eq!(returned(&mut bench), ([1, 0], 0, 1, 0), "{responses} responses");
        if responses > 0 {
            continue;
        }
        bench.arrive(front, CLIENT, b"y");
        bench.events.push(Event::Unreachable { socket, peer: None });
        assert!(opened(&bench.step()).is_empty(), "the backend has answered");
        let ops = bench.pass(Duration::from_secs(30) + SOON);
        let record = ops.iter().find_map(|op| match op {
            Op::Record(record) => Some((record.response_bytes, record.detail.clone())),
            _ => None,
        });
        assert_eq!(record, Some((0, Detail::Flow { requests: 2, responses: 0 })));
    }
}
