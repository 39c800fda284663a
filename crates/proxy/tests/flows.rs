//! A worker driven by hand, one fact a test: what a client's datagram brings about. No machine, no clock.

mod flow_bench;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use kakei_config::*;
use kakei_proxy::record::CloseReason;
use kakei_proxy::seam::*;
use kakei_proxy::secure::Materials;
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::stats::{DropReason, ListenerMetric};
use kakei_proxy::worker::{Role, Worker};

use self::flow_bench::{BACKEND, Bench, CLIENT, SOON, addr, document, front, opened, ready, reasons, sends};

#[test]
fn a_reply_returns_to_the_socket_that_asked_from_the_address_it_dialled() {
    let (mut bench, front) = ready(UdpKnobs::default(), &[BACKEND]);
    let upstream = opened(&bench.arrive(front, CLIENT, b"question"))[0];
    let ops = bench.open(upstream);
    let forward = sends(&ops)[0];
    assert_eq!((forward.socket, forward.to, bench.bytes(&forward)), (upstream, None, b"question".to_vec()));
    let reply = sends(&bench.arrive(upstream, BACKEND, b"answer"))[0];
    assert_eq!((reply.socket, reply.to, reply.from), (front, Some(addr(CLIENT)), Some(IpAddr::from([192, 0, 2, 1]))));
    assert_eq!(bench.bytes(&reply), b"answer");
}

#[test]
fn a_burst_that_opens_a_flow_loses_nothing_where_the_socket_opens_at_once() {
    let (mut bench, front) = ready(UdpKnobs::default(), &[BACKEND]);
    bench.put(front, CLIENT, 0, b"one");
    bench.put(front, CLIENT, 3, b"twothrfo");
    let upstream = opened(&bench.step())[0];
    let ops = bench.open(upstream);
    let sent: Vec<_> = sends(&ops).iter().map(|send| (send.segment, bench.bytes(send))).collect();
    assert_eq!(sent, [(0, b"one".to_vec()), (3, b"twothrfo".to_vec())]);
}

#[test]
fn a_flow_that_waits_keeps_the_newest_datagram_only() {
    let (mut bench, front) = ready(UdpKnobs::default(), &[BACKEND]);
    let upstream = opened(&bench.arrive(front, CLIENT, b"one"))[0];
    bench.arrive(front, CLIENT, b"two");
    bench.arrive(front, CLIENT, b"three");
    let ops = bench.open(upstream);
    assert_eq!(sends(&ops).iter().map(|send| bench.bytes(send)).collect::<Vec<_>>(), [b"three".to_vec()]);
    assert_eq!(bench.drops(DropReason::Superseded), 2);
}

#[test]
fn each_request_over_the_cap_opens_a_flow_and_no_reply_is_lost() {
    let knobs = UdpKnobs { requests: 1, responses: 1, ..UdpKnobs::default() };
    let (mut bench, front) = ready(knobs, &[BACKEND]);
    bench.put(front, CLIENT, 3, b"onetwothr");
    let mut upstreams = Vec::new();
    let mut ops = bench.step();
    for _ in 0..3 {
        let socket = opened(&ops)[0];
        upstreams.push(socket);
        ops = bench.open(socket);
        assert_eq!(sends(&ops).len(), 1);
    }
    for (upstream, answer) in upstreams.into_iter().rev().zip([b"3", b"2", b"1"]) {
        let ops = bench.arrive(upstream, BACKEND, answer);
        assert_eq!((sends(&ops)[0].to, reasons(&ops)), (Some(addr(CLIENT)), vec![CloseReason::ResponsesReached]));
    }
    assert_eq!(bench.stats().listeners[0].values[ListenerMetric::FlowsLive], 0);
}

#[test]
fn one_way_bursts_pass_whole_and_leave_no_flow() {
    let knobs = UdpKnobs { requests: 1, expects_reply: false, ..UdpKnobs::default() };
    let (mut bench, front) = ready(knobs, &[BACKEND]);
    (0..5u8).for_each(|n| bench.put(front, CLIENT, 0, &[n]));
    let mut ops = bench.step();
    for n in 0..5u8 {
        ops = bench.open(opened(&ops)[0]);
        assert_eq!(bench.bytes(&sends(&ops)[0]), [n]);
        assert_eq!(reasons(&ops), [CloseReason::RequestsReached]);
    }
    assert_eq!(bench.stats().listeners[0].values[ListenerMetric::FlowsLive], 0);
}

#[test]
fn a_flow_ends_when_idle_and_not_before() {
    let (mut bench, front) = ready(UdpKnobs::default(), &[BACKEND]);
    let upstream = opened(&bench.arrive(front, CLIENT, b"x"))[0];
    bench.open(upstream);
    bench.pass(Duration::from_secs(29));
    bench.arrive(front, CLIENT, b"y");
    assert!(reasons(&bench.pass(Duration::from_secs(29))).is_empty());
    let ops = bench.pass(Duration::from_millis(1002));
    assert_eq!(reasons(&ops), [CloseReason::Idle]);
    assert!(ops.iter().any(|op| matches!(op, Op::Close { socket } if *socket == upstream)));
    assert_eq!(bench.wake, None);
}

#[test]
fn a_socket_that_cannot_be_opened_ends_the_flow_and_counts_its_datagrams() {
    let (mut bench, front) = ready(UdpKnobs::default(), &[BACKEND]);
    let upstream = opened(&bench.arrive(front, CLIENT, b"x"))[0];
    bench.events.push(Event::OpenFailed { socket: upstream, error: OpenError::NoDescriptors });
    assert_eq!(reasons(&bench.step()), [CloseReason::Aborted]);
    assert_eq!(bench.drops(DropReason::NoSocket), 1);
}

#[test]
fn shared_sockets_never_have_two_flows_to_one_backend() {
    let knobs = UdpKnobs { upstream: Upstream::Shared, ..UdpKnobs::default() };
    let (mut bench, front) = ready(knobs, &[BACKEND, "10.0.0.2:53"]);
    for (port, sockets) in [(1, 1), (2, 1), (3, 2), (4, 2)] {
        let ops = bench.arrive(front, &format!("198.51.100.7:{port}"), b"x");
        opened(&ops).into_iter().for_each(|socket| drop(bench.open(socket)));
        assert_eq!(bench.stats().clusters[0].values.0[2], sockets, "after flow {port}");
    }
}

#[test]
fn a_removed_backend_keeps_moves_or_loses_its_flows_as_they_were_admitted() {
    for (policy, ends, moves) in [(OnBackend::Keep, 0, 0), (OnBackend::Move, 0, 1), (OnBackend::Close, 1, 0)] {
        let knobs = UdpKnobs { on_backend_removed: policy, ..UdpKnobs::default() };
        let (mut bench, front) = ready(knobs.clone(), &[BACKEND]);
        let upstream = opened(&bench.arrive(front, CLIENT, b"x"))[0];
        bench.open(upstream);
        let ops = bench.publish(&document(knobs, &["10.0.0.2:53"]));
        assert_eq!((reasons(&ops).len(), opened(&ops).len()), (ends, moves), "{policy:?}");
    }
}

#[test]
fn a_worker_that_drained_holds_nothing() {
    let (mut bench, front) = ready(UdpKnobs { upstream: Upstream::Shared, ..UdpKnobs::default() }, &[BACKEND]);
    let upstream = opened(&bench.arrive(front, CLIENT, b"x"))[0];
    bench.open(upstream);
    bench.command(Command::Drain { within: Some(Duration::from_secs(5)) });
    let ops = bench.pass(Duration::from_secs(6));
    assert_eq!(reasons(&ops), [CloseReason::Drain]);
    assert!(ops.iter().any(|op| matches!(op, Op::Notice(Notice::Drained))));
    assert_eq!(bench.wake, None);
}

/// The worker is written down as text and read back by another, which then takes its place.
fn restore(bench: &mut Bench, document: &Document) -> Vec<(SocketId, SocketId)> {
    let ops = bench.command(Command::Snapshot);
    let state = ops.into_iter().find_map(|op| match op {
        Op::Reply { reply: Reply::State(state), .. } => Some(*state),
        _ => None,
    });
    let text = serde_json::to_string(&state.expect("a state")).expect("plain data");
    let state = serde_json::from_str(&text).expect("what was written");
    let shared = Shared { workers: 1, balance_seed: 9 };
    let snapshot = Snapshot::compile(document, Generation(bench.generation), shared, None);
    bench.worker = Worker::restore(Role { index: 0, seed: 2 }, bench.now, state, &snapshot).expect("a good state");
    let adopt = |op: &Op| match op {
        Op::Adopt { was, socket } => Some((*was, *socket)),
        _ => None,
    };
    bench.step().iter().filter_map(adopt).collect()
}

#[test]
fn a_worker_read_back_goes_on_with_its_flows() {
    for upstream in [Upstream::PerFlow, Upstream::Shared] {
        let knobs = UdpKnobs { requests: 2, responses: 2, upstream, ..UdpKnobs::default() };
        let document = document(knobs.clone(), &[BACKEND]);
        let (mut bench, front) = ready(knobs, &[BACKEND]);
        let socket = opened(&bench.arrive(front, CLIENT, b"x"))[0];
        bench.open(socket);
        bench.arrive(front, "198.51.100.7:77", b"waits");
        bench.arrive(front, "198.51.100.7:77", b"waits longer");
        let adopted = restore(&mut bench, &document);
        let now = |was: SocketId| adopted.iter().find(|(old, _)| *old == was).expect("it lives on").1;
        let reply = sends(&bench.arrive(now(socket), BACKEND, b"1"))[0];
        assert_eq!((reply.socket, reply.to), (now(front), Some(addr(CLIENT))));
        let request = sends(&bench.arrive(now(front), CLIENT, b"y"))[0];
        assert_eq!(request.socket, now(socket));
        let ops = bench.arrive(now(socket), BACKEND, b"2");
        assert_eq!(reasons(&ops), [CloseReason::ResponsesReached], "the caps go on counting");
        let waiting = adopted.iter().map(|(_, new)| *new).find(|new| ![now(front), now(socket)].contains(new));
        let ops = bench.open(waiting.expect("the other flow's socket"));
        assert_eq!(bench.bytes(&sends(&ops)[0]), b"waits longer");
        let stats = bench.stats();
        let values = &stats.listeners[0].values;
        assert_eq!((values[ListenerMetric::DatagramsIn], values[ListenerMetric::DatagramsKept]), (4, 0));
        assert_eq!(stats.listeners[0].drops.sum() + values[ListenerMetric::DatagramsForwarded], 4);
    }
}

#[test]
fn a_header_that_was_not_sent_goes_with_the_next_datagram() {
    let knobs = UdpKnobs { send_proxy_protocol: SendProxyProtocol::First, ..UdpKnobs::default() };
    let (mut bench, front) = ready(knobs, &[BACKEND]);
    let upstream = opened(&bench.arrive(front, CLIENT, b"one"))[0];
    let first = sends(&bench.open(upstream))[0];
    assert_eq!(first.bytes.len(), 28 + 3);
    assert_eq!(sends(&bench.arrive(front, CLIENT, b"two"))[0].bytes.len(), 3, "only the first has a header");
    let failed =
        |tag| Event::SendFailed { socket: upstream, tag, datagrams: 1, bytes: 31, error: SendError::QueueFull };
    bench.events.push(failed(first.tag));
    bench.step();
    assert_eq!(sends(&bench.arrive(front, CLIENT, b"three"))[0].bytes.len(), 28 + 5);
    let values = bench.stats().listeners[0].values;
    assert_eq!((values[ListenerMetric::DatagramsForwarded], values[ListenerMetric::BytesForwarded]), (2, 3 + 5));
    assert_eq!(bench.drops(DropReason::QueueFull), 1);
}

#[test]
fn a_kept_burst_may_outlive_its_listener() {
    let knobs = UdpKnobs { requests: 1, expects_reply: false, ..UdpKnobs::default() };
    let (mut bench, front) = ready(knobs, &[BACKEND]);
    bench.put(front, CLIENT, 1, b"abc");
    let upstream = opened(&bench.step())[0];
    bench.publish(&Document { access_log: document(UdpKnobs::default(), &[]).access_log, ..Document::default() });
    let ops = bench.open(upstream);
    assert_eq!(reasons(&ops), [CloseReason::RequestsReached]);
    assert!(ops.iter().any(|op| matches!(op, Op::Unbind { .. })), "nothing lives on the front any more");
}

/// A cluster like `c`, whose backends are probed by datagrams every second.
fn probed(backends: &[&str]) -> kakei_config::Cluster {
    let udp = UdpCheck { send: b"ping".to_vec(), expect: Expect::Exact(b"pong".to_vec()), port: None };
    let (interval, timeout) = (Duration::from_secs(1), Duration::from_millis(200));
    let health = Health { udp: Some(udp), interval, timeout, rise: 2, fall: 2, ..Health::default() };
    let backends = backends.iter().map(|address| Backend::at(addr(address))).collect();
    kakei_config::Cluster { backends, health: Some(health.into()), ..kakei_config::Cluster::default() }
}

fn candidate(number: u64, backends: &[&str]) -> Candidate {
    let spec = probed(backends);
    let shared = (Shared { workers: 1, balance_seed: 9 }, &Materials::default());
    let cluster = kakei_proxy::snapshot::Cluster::candidate(&"c".into(), &spec, spec.backends.clone(), shared);
    Candidate { number, cluster: Arc::new(cluster), spread: Duration::ZERO }
}

fn told(ops: &[Op]) -> Vec<(u64, String, ProbeSaid, Option<bool>)> {
    let probed = ops.iter().filter_map(|op| match op {
        Op::Notice(Notice::Probed(told)) => Some(told),
        Op::Notice(Notice::Health(_)) => panic!("nothing that runs is probed: {op:?}"),
        _ => None,
    });
    probed.map(|told| (told.candidate, told.backend.to_string(), told.said.clone(), told.verdict)).collect()
}

#[test]
fn candidates_are_probed_at_once_and_nothing_that_runs_knows_them() {
    let (mut bench, front) = ready(UdpKnobs::default(), &[BACKEND]);
    let (good, bad) = ("10.0.0.2:53", "10.0.0.3:53");
    bench.command(Command::Candidates(vec![candidate(7, &[good]), candidate(8, &[bad])]));
    let probes = opened(&bench.pass(SOON));
    assert_eq!(probes.len(), 2, "the first probes go out at once");
    for probe in &probes {
        let sent = sends(&bench.open(*probe))[0];
        assert_eq!(bench.bytes(&sent), b"ping");
    }
    assert_eq!(told(&bench.arrive(probes[0], good, b"pong")), [(7, good.to_owned(), ProbeSaid::Right, Some(true))]);
    let ops = bench.pass(Duration::from_millis(200) + SOON);
    assert_eq!(told(&ops), [(8, bad.to_owned(), ProbeSaid::Late, None)], "one failure is no verdict yet");
    // It is called as the cluster that runs is, and that one neither counts it nor sends there.
    let stats = bench.stats();
    assert_eq!((stats.clusters.len(), stats.clusters[0].backends.len()), (1, 1));
    let remotes = |ops: &[Op]| -> Vec<Remote> {
        let opens = ops.iter().filter_map(|op| match op {
            Op::OpenDatagram { remote, .. } => Some(*remote),
            _ => None,
        });
        opens.collect()
    };
    assert_eq!(remotes(&bench.arrive(front, CLIENT, b"question")), [Remote::Connected(addr(BACKEND))]);

    // The one that is not asked for any more is left, the other goes on with its turn.
    bench.command(Command::Candidates(vec![candidate(8, &[bad])]));
    let again = opened(&bench.pass(Duration::from_millis(800)));
    assert_eq!(again.len(), 1);
    bench.events.push(Event::OpenFailed { socket: again[0], error: OpenError::Unreachable });
    assert_eq!(told(&bench.step()), [(8, bad.to_owned(), ProbeSaid::Unreachable, Some(false))]);
    bench.command(Command::Candidates(Vec::new()));
    for _ in 0..4 {
        assert!(opened(&bench.pass(Duration::from_secs(1))).is_empty(), "nobody is probed any more");
    }
}

#[test]
fn a_candidate_that_is_given_up_closes_its_probes_and_late_answers_do_nothing() {
    let (mut bench, _) = ready(UdpKnobs::default(), &[BACKEND]);
    bench.command(Command::Candidates(vec![candidate(7, &["10.0.0.2:53"])]));
    let probe = opened(&bench.pass(SOON))[0];
    bench.open(probe);
    let ops = bench.command(Command::Candidates(Vec::new()));
    assert!(ops.iter().any(|op| matches!(op, Op::Close { socket } if *socket == probe)), "{ops:?}");
    assert!(told(&bench.arrive(probe, "10.0.0.2:53", b"pong")).is_empty());
    assert!(told(&bench.pass(Duration::from_secs(5))).is_empty());
    // One that comes with its worker written down is nobody's in the state.
    bench.command(Command::Candidates(vec![candidate(9, &["10.0.0.2:53"])]));
    let ops = bench.command(Command::Snapshot);
    let state = ops.iter().find_map(|op| match op {
        Op::Reply { reply: Reply::State(state), .. } => Some(format!("{state:?}")),
        _ => None,
    });
    assert!(!state.expect("an answer").contains("10.0.0.2:53"));
}

#[test]
fn what_comes_unproven_takes_nothing_until_it_has_risen() {
    let document = document(UdpKnobs { requests: 1, responses: 1, ..UdpKnobs::default() }, &[]);
    let mut bench = Bench::new(&document);
    let front = front(&bench.out.ops);
    bench.step();
    let (proven, doubted) = ("10.0.0.1:53", "10.0.0.2:53");
    let mut next = document.clone();
    next.clusters.insert("c".into(), probed(&[proven, doubted]));
    let shared = Shared { workers: 1, balance_seed: 9 };
    let mut snapshot = Snapshot::compile(&next, Generation(2), shared, None);
    snapshot.doubted = [("c".into(), [Name::new(doubted)].into())].into();
    bench.command(Command::Publish(Arc::new(snapshot)));
    let remotes = |ops: &[Op], wanted: &str| {
        let opens =
            |op: &&Op| matches!(op, Op::OpenDatagram { remote, .. } if *remote == Remote::Connected(addr(wanted)));
        ops.iter().filter(opens).count()
    };
    for port in 0..8 {
        let ops = bench.arrive(front, &format!("198.51.100.7:{}", 2000 + port), b"question");
        assert_eq!((remotes(&ops, proven), remotes(&ops, doubted)), (1, 0));
    }
    // Two probes in a row bring it up, as any that was down.
    let mut up = Vec::new();
    for _ in 0..40 {
        let ops = bench.pass(Duration::from_millis(100));
        for op in &ops {
            if let Op::OpenDatagram { socket, remote: Remote::Connected(at) } = *op {
                bench.open(socket);
                let ops = bench.arrive(socket, &at.to_string(), b"pong");
                up.extend(ops.into_iter().filter_map(|op| match op {
                    Op::Notice(Notice::Health(health)) => Some((health.backend.to_string(), health.up)),
                    _ => None,
                }));
            }
        }
    }
    assert_eq!(up, [(doubted.to_owned(), true)]);
    let ports = 3000..3008;
    let ops: Vec<Op> = ports.flat_map(|port| bench.arrive(front, &format!("198.51.100.7:{port}"), b"q")).collect();
    assert!(remotes(&ops, doubted) > 0, "it takes its share");
    // Other checks begin with what is known of it now.
    for cluster in next.clusters.values_mut() {
        let health = Health { tcp: Some(TcpCheck::default()), ..Health::default() };
        cluster.health = Some(health.into());
    }
    let ops = bench.publish(&next);
    assert!(!ops.iter().any(|op| matches!(op, Op::Notice(Notice::Health(_)))), "{ops:?}");
}
