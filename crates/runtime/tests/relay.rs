//! The machine on loopback, driven by a test relay: datagrams, trains, addresses, errors of the network, restarts.
#![expect(clippy::unwrap_used, reason = "a failed expectation here is a failed test")]

mod common;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use common::{Ask, House, eventually, key, peer, snapshot};
use kakei_proxy::seam::{Command, Remote, Reply, Span, Ticket};
use kakei_proxy::snapshot::Generation;
use kakei_runtime::engine::{BindReason, CommandError, EngineEvent};
use kakei_runtime::udp::{Arenas, Part, RecvBatch, SendBatch, Target, Verdict, set_gro};
use socket2::{Domain, Socket, Type};

/// A house with one bind before a backend, and the address to dial.
fn house(workers: u16, bind: &str, backend: SocketAddr) -> (House, SocketAddr) {
    let mut house = House::new(workers);
    *house.shelf.backend.lock().unwrap() = Some(backend);
    let bind = key(bind);
    house.publish(&[bind]);
    let front = house.engine.local_addr(bind).unwrap();
    (house, front)
}

/// A socket that hears itself alone: what others send to its port is refused, and none of them is given that port.
fn deaf(address: &str) -> UdpSocket {
    let socket = peer(address);
    socket.connect(socket.local_addr().unwrap()).unwrap();
    socket
}

#[test]
fn datagrams_go_there_and_back_empty_ones_too() {
    for ip in ["127.0.0.1:0", "[::1]:0"] {
        let (client, backend) = (peer(ip), peer(ip));
        let (_house, front) = house(1, ip, backend.local_addr().unwrap());
        let mut buffer = [0; 2048];
        for payload in [&b"hello"[..], b"", b"again"] {
            client.send_to(payload, front).unwrap();
            let (len, from) = backend.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], payload);
            backend.send_to(&buffer[..len], from).unwrap();
            let (len, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..len], from), (payload, front));
        }
    }
}

#[test]
fn a_train_travels_unsplit_and_byte_exact() {
    let (client, backend) = (peer("127.0.0.1:0"), peer("127.0.0.1:0"));
    let (house, front) = house(1, "127.0.0.1:0", backend.local_addr().unwrap());
    let (mut sending, mut receiving) = (SendBatch::new(), RecvBatch::new(16));
    set_gro(backend.as_fd(), true).unwrap();
    for (segment, len) in [(1200u16, 54 * 1200 + 7), (1, 64), (1400, 1401), (9000, 63_000)] {
        let bytes: Vec<u8> = (0..len).map(|n: u32| ((n * 31) >> 3) as u8).collect();
        sending.clear();
        sending.begin(Target { to: Some(front), from: None, segment });
        sending.part(Part::Body(Span { start: 0, len }));
        sending.send_all(client.as_fd(), Arenas { head: &[], body: &bytes }, |_, error| panic!("{error}"));
        receiving.clear();
        let got = receiving.recv_blocking(backend.as_fd(), 16).unwrap();
        let train = receiving.get(got.start).unwrap();
        assert_eq!((got.len(), train.segment, train.bytes.len), (1, segment, len));
        assert_eq!(train.bytes.of(receiving.bytes()), bytes);
    }
    eventually(
        || house.engine.machine_stats(0).unwrap().send_trains == 4,
        || format!("{:?}", house.engine.machine_stats(0)),
    );
    let stats = house.engine.machine_stats(0).unwrap();
    assert_eq!((stats.receive_messages, stats.receive_trains, stats.send_messages), (4, 4, 4));
    assert_eq!((stats.receive_datagrams, stats.send_datagrams), (55 + 64 + 2 + 7, 55 + 64 + 2 + 7));
}

/// Datagrams that come at a time.
const BURSTS: [u32; 24] = [1, 1, 2, 7, 30, 1, 1, 1, 64, 9, 1, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2];

/// Datagrams that say which they are.
#[derive(Default)]
struct Numbered {
    number: u32,
}

impl Numbered {
    /// Send the next `count`, as a train where there is a segment, and see them arrive in order.
    fn pass(&mut self, (by, to): (&UdpSocket, SocketAddr), (count, segment): (u32, u16), arrives: &UdpSocket) {
        let all = self.number..self.number + count;
        let bytes: Vec<u8> = all.clone().flat_map(u32::to_be_bytes).collect();
        let mut sending = SendBatch::new();
        for from in (0..count * 4).step_by(if segment > 0 { bytes.len() } else { 4 }) {
            let len = if segment > 0 { count * 4 } else { 4 };
            sending.begin(Target { to: Some(to), from: None, segment });
            sending.part(Part::Body(Span { start: from, len }));
        }
        sending.send_all(by.as_fd(), Arenas { head: &[], body: &bytes }, |_, error| panic!("{error}"));
        let mut room = [0; 200];
        for expected in all {
            let (len, _) = arrives.recv_from(&mut room).unwrap();
            assert_eq!(room[..len], expected.to_be_bytes());
        }
        self.number += count;
    }
}

#[test]
fn requests_pass_in_order_one_by_one_and_in_bursts() {
    let (client, backend) = (peer("127.0.0.1:0"), peer("127.0.0.1:0"));
    let (_house, front) = house(1, "127.0.0.1:0", backend.local_addr().unwrap());
    let mut numbered = Numbered::default();
    for count in BURSTS {
        numbered.pass((&client, front), (count, 0), &backend);
    }
}

#[test]
fn answers_pass_in_order_one_by_one_in_bursts_and_as_trains() {
    let (client, backend) = (peer("127.0.0.1:0"), peer("127.0.0.1:0"));
    let (house, front) = house(1, "127.0.0.1:0", backend.local_addr().unwrap());
    let mut room = [0; 200];
    client.send_to(b"ask", front).unwrap();
    let (_, upstream) = backend.recv_from(&mut room).unwrap();
    let mut numbered = Numbered::default();
    let mut answer = |count: u32, segment: u16| numbered.pass((&backend, upstream), (count, segment), &client);
    let trains = || house.engine.machine_stats(0).unwrap().receive_trains;
    for count in BURSTS {
        answer(count, 0);
    }
    // The first comes in its pieces; a burst that is seen makes it worth to have the next ones whole.
    for _ in 0..100 {
        if trains() > 0 {
            break;
        }
        answer(64, 4);
    }
    assert!(trains() > 0, "{:?}", house.engine.machine_stats(0));
    answer(5, 0);
}

#[test]
fn the_longest_datagrams_pass_whole() {
    let (client, backend) = (peer("127.0.0.1:0"), peer("127.0.0.1:0"));
    let (_house, front) = house(1, "127.0.0.1:0", backend.local_addr().unwrap());
    let mut buffer = vec![0; 65_536];
    for len in [65_507, 65_000, 40_000] {
        let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
        client.send_to(&payload, front).unwrap();
        let (got, _) = backend.recv_from(&mut buffer).unwrap();
        assert_eq!(buffer[..got], payload);
    }
}

#[test]
fn a_wildcard_answers_from_the_address_that_was_dialled() {
    let (client, backend) = (peer("127.0.0.1:0"), peer("127.0.0.1:0"));
    let (house, front) = house(1, "0.0.0.0:0", backend.local_addr().unwrap());
    let dialled = SocketAddr::from(([127, 0, 0, 2], front.port()));
    let mut buffer = [0; 64];
    client.send_to(b"x", dialled).unwrap();
    let (_, from) = backend.recv_from(&mut buffer).unwrap();
    backend.send_to(b"y", from).unwrap();
    assert_eq!(client.recv_from(&mut buffer).unwrap().1, dialled);
    assert_eq!(house.shelf.fronted.lock().unwrap()[0].local, dialled.ip());
}

#[test]
fn a_closed_port_is_told_on_a_connected_socket() {
    let deaf = deaf("127.0.0.1:0");
    let closed = deaf.local_addr().unwrap();
    let house = House::new(1);
    house.ask(Ask::Open(Remote::Connected(closed)));
    house.hear("opened", 1);
    house.ask(Ask::SendFromProbe(None, b"a".to_vec(), 0));
    house.hear("unreachable None", 1);
    // Two in one flush: the error of the first may come in place of the second, which is sent all the same.
    house.ask(Ask::SendFromProbe(None, b"b".to_vec(), 0));
    house.ask(Ask::SendFromProbe(None, b"ccc".to_vec(), 0));
    house.hear("unreachable None", 2);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(house.shelf.said("send failed"), 0, "{:?}", house.shelf.log());
    // Each is told once, and nothing is left that would be reported again and again.
    assert!(house.shelf.said("unreachable None") <= 3, "{:?}", house.shelf.log());
    let (since, before) = (Instant::now(), house.engine.machine_stats(0).unwrap().ticks);
    std::thread::sleep(Duration::from_millis(100));
    let ticks = house.engine.machine_stats(0).unwrap().ticks - before;
    assert!(u128::from(ticks) <= 10 + since.elapsed().as_millis(), "{ticks} ticks: it never rests");
}

#[test]
fn a_closed_port_is_told_with_its_address_on_a_shared_socket() {
    for (ip, remote) in [("127.0.0.1:0", Remote::AnyV4), ("[::1]:0", Remote::AnyV6)] {
        let (alive, deaf) = (peer(ip), deaf(ip));
        let closed = deaf.local_addr().unwrap();
        let house = House::new(1);
        house.ask(Ask::Open(remote));
        house.hear("opened", 1);
        house.ask(Ask::SendFromProbe(Some(closed), b"a".to_vec(), 0));
        house.hear(&format!("unreachable Some({closed:?})"), 1);
        for _ in 0..20 {
            house.ask(Ask::SendFromProbe(Some(closed), b"b".to_vec(), 0));
            house.ask(Ask::SendFromProbe(Some(alive.local_addr().unwrap()), b"c".to_vec(), 0));
            let mut buffer = [0; 8];
            let (len, from) = alive.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"c");
            alive.send_to(b"back", from).unwrap();
        }
        house.hear("probe got back", 20);
        house.hear("unreachable Some", 21);
        assert_eq!(
            house.shelf.said("unreachable None") + house.shelf.said("send failed"),
            0,
            "{:?}",
            house.shelf.log()
        );
        let (since, before) = (Instant::now(), house.engine.machine_stats(0).unwrap().ticks);
        std::thread::sleep(Duration::from_millis(100));
        let ticks = house.engine.machine_stats(0).unwrap().ticks - before;
        let lasted = since.elapsed();
        // The relay asks for one every two milliseconds.
        assert!(
            u128::from(ticks) < lasted.as_millis(),
            "a pending error keeps nobody busy: {ticks} ticks in {lasted:?}"
        );
    }
}

#[test]
fn sends_that_cannot_be_are_told_one_by_one() {
    let alive = peer("127.0.0.1:0");
    let to = alive.local_addr().unwrap();
    let house = House::new(1);
    house.ask(Ask::Open(Remote::AnyV4));
    house.hear("opened", 1);
    let mut asked = house.shelf.ask.lock().unwrap();
    asked.push(Ask::SendFromProbe(Some(to), b"first".to_vec(), 0));
    asked.push(Ask::SendFromProbe(Some(to), vec![0; 65_508], 0));
    asked.push(Ask::SendFromProbe(None, b"nowhere".to_vec(), 0));
    asked.push(Ask::SendFromProbe(Some("[::1]:9".parse().unwrap()), b"family".to_vec(), 0));
    asked.push(Ask::SendFromProbe(Some(to), b"last".to_vec(), 0));
    drop(asked);
    let mut buffer = [0; 64];
    for expected in [&b"first"[..], b"last"] {
        let len = alive.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], expected);
    }
    house.hear("send failed 4 1 65508 TooBig", 1);
    house.hear("send failed 4 1 7 Other", 1);
    house.hear("send failed 4 1 6 Other", 1);
    assert_eq!(house.shelf.said("send failed"), 3);
    // Each alone in its tick.
    house.ask(Ask::SendFromProbe(Some(to), vec![0; 65_508], 0));
    house.hear("send failed 4 1 65508 TooBig", 2);
    house.ask(Ask::SendFromProbe(Some("[::1]:9".parse().unwrap()), b"family".to_vec(), 0));
    house.hear("send failed 4 1 6 Other", 2);
    for alone in [&b"alone"[..], b""] {
        house.ask(Ask::SendFromProbe(Some(to), alone.to_vec(), 0));
        let len = alive.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], alone);
    }
    assert_eq!(house.shelf.said("send failed"), 5);
}

#[test]
fn opening_tells_what_came_of_it() {
    let open = TcpListener::bind("127.0.0.1:0").unwrap();
    // It keeps its port and doesn't listen.
    let closed = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    closed.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let house = House::new(1);
    house.ask(Ask::Connect(open.local_addr().unwrap()));
    house.hear("opened", 1);
    house.ask(Ask::Connect(closed.local_addr().unwrap().as_socket().unwrap()));
    house.hear("open failed Unreachable", 1);
    // A limited broadcast needs a permission that nobody asked for.
    house.ask(Ask::Open(Remote::Connected("255.255.255.255:1".parse().unwrap())));
    house.hear("open failed Unreachable", 2);
    house.ask(Ask::CloseProbes);
    eventually(|| house.engine.machine_stats(0).unwrap().sockets == 0, || "sockets".into());
}

#[test]
fn stale_ids_do_nothing() {
    let (client, backend) = (peer("127.0.0.1:0"), peer("127.0.0.1:0"));
    let (house, front) = house(1, "127.0.0.1:0", backend.local_addr().unwrap());
    let before = house.shelf.log().len();
    house.ask(Ask::SendStale);
    client.send_to(b"x", front).unwrap();
    let mut buffer = [0; 8];
    backend.recv_from(&mut buffer).unwrap();
    let after = house.shelf.log();
    assert!(after[before..].iter().all(|line| line.starts_with("opened")), "{after:?}");
}

#[test]
fn a_panic_ends_a_worker_and_a_fresh_one_goes_on() {
    let (client, backend) = (peer("127.0.0.1:0"), peer("127.0.0.1:0"));
    let (mut house, front) = house(1, "127.0.0.1:0", backend.local_addr().unwrap());
    let mut buffer = [0; 8];
    for round in 1..=3 {
        house.ask(Ask::Panic);
        let event = house.event();
        assert!(
            matches!(&event, EngineEvent::WorkerPanicked { worker: 0, message, .. } if message == "asked to"),
            "{event:?}"
        );
        // While it is away, the queue holds what arrives.
        client.send_to(b"held", front).unwrap();
        let event = house.event();
        assert!(matches!(event, EngineEvent::WorkerRestarted { worker: 0, generation: Generation(1) }), "{event:?}");
        let (len, _) = backend.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"held");
        house.engine.send(0, Ticket(100 + round), Command::Stats).unwrap();
        let event = house.event();
        assert!(
            matches!(event, EngineEvent::Reply { ticket, reply: Reply::Done, .. } if ticket == Ticket(100 + round))
        );
    }
    let stats = house.engine.machine_stats(0).unwrap();
    assert_eq!((stats.panics, stats.sockets), (3, 2), "the front socket and one upstream");
}

#[test]
fn a_port_in_use_is_one_sentence_and_changes_nothing() {
    // Given back and taken again, by a wildcard too: so the kernel gives its port to nobody who asks for any.
    let taken = SocketAddr::from(([127, 0, 0, 77], 10_000 + (std::process::id() % 20_000) as u16));
    let holder = peer(&taken.to_string());
    let mut house = House::new(2);
    let error = house.engine.prepare(&[key("127.0.0.1:0"), key(&taken.to_string())]).unwrap_err();
    assert_eq!((error.to_string(), error.reason), (format!("{taken}: address in use"), BindReason::InUse));
    assert_eq!(house.engine.front_sockets(), 0);
    drop(holder);
    let bind = key(&taken.to_string());
    drop(house.engine.prepare(&[bind]).unwrap());
    peer(&taken.to_string());
    house.publish(&[bind]);
    assert_eq!(house.engine.front_sockets(), 2);
    // What this engine holds may be refined by itself, but not joined by another engine.
    let mut other = House::new(1);
    assert_eq!(other.engine.prepare(&[bind]).unwrap_err().reason, BindReason::InUse);
    house.publish(&[bind, key(&format!("0.0.0.0:{}", taken.port()))]);
}

#[test]
fn a_bind_that_comes_back_keeps_its_socket_and_its_queue() {
    let (client, backend) = (peer("127.0.0.1:0"), peer("127.0.0.1:0"));
    // An address of its own: nobody else is given the port when it is free again.
    let (mut house, front) = house(1, "127.0.0.78:0", backend.local_addr().unwrap());
    let bind = key("127.0.0.78:0");
    house.ask(Ask::Unlisten(bind));
    eventually(|| house.engine.machine_stats(0).unwrap().sockets == 0, || "sockets".into());
    for n in 0..100u8 {
        client.send_to(&[n], front).unwrap();
    }
    // Same bind, same socket: what waited is delivered, in order.
    house.publish(&[bind]);
    let mut buffer = [0; 8];
    for n in 0..100u8 {
        let (len, _) = backend.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], [n]);
    }
    assert_eq!(house.engine.local_addr(bind), Some(front));
    // Given up by the worker and gone from the snapshot: closed.
    house.publish(&[]);
    eventually(|| house.engine.machine_stats(0).unwrap().sockets <= 1, || "sockets".into());
    assert!(house.engine.try_event().is_none());
    assert_eq!(house.engine.front_sockets(), 0);
    peer(&front.to_string());
}

#[test]
fn two_workers_share_a_port() {
    let backend = peer("127.0.0.1:0");
    let (house, front) = house(2, "127.0.0.1:0", backend.local_addr().unwrap());
    let clients: Vec<_> = (0..64).map(|_| peer("127.0.0.1:0")).collect();
    for client in &clients {
        client.send_to(b"x", front).unwrap();
    }
    let mut buffer = [0; 8];
    for _ in &clients {
        backend.recv_from(&mut buffer).unwrap();
    }
    let seen = house.shelf.seen.lock().unwrap();
    assert!(seen.get(&0).is_some_and(|&n| n >= 8) && seen.get(&1).is_some_and(|&n| n >= 8), "{seen:?}");
}

#[test]
fn many_sockets_and_each_gets_its_own() {
    let backend = peer("127.0.0.1:0");
    let (house, front) = house(1, "127.0.0.1:0", backend.local_addr().unwrap());
    let clients: Vec<_> = (0..2000).map(|_| peer("127.0.0.1:0")).collect();
    let mut buffer = [0; 8];
    for round in 0..2u8 {
        for (n, client) in clients.iter().enumerate() {
            client.send_to(&[&(n as u16).to_be_bytes()[..], &[round]].concat(), front).unwrap();
        }
        for _ in &clients {
            let (len, from) = backend.recv_from(&mut buffer).unwrap();
            backend.send_to(&buffer[..len], from).unwrap();
        }
        for (n, client) in clients.iter().enumerate() {
            let len = client.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..len], [&(n as u16).to_be_bytes()[..], &[round]].concat());
        }
    }
    assert_eq!(house.engine.machine_stats(0).unwrap().sockets, 2001);
}

/// After what time a datagram that nobody saw is sent again.
const AGAIN: Duration = Duration::from_millis(100);

#[test]
fn a_flood_starves_no_neighbour() {
    let (backend, quiet) = (peer("127.0.0.1:0"), peer("127.0.0.1:0"));
    backend.set_read_timeout(Some(AGAIN)).unwrap();
    let mut house = House::new(1);
    *house.shelf.backend.lock().unwrap() = Some(backend.local_addr().unwrap());
    let binds = [key("127.0.0.1:0"), key("127.0.0.2:0")];
    house.publish(&binds);
    let [flooded, calm] = binds.map(|bind| house.engine.local_addr(bind).unwrap());
    let floods = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let flood = peer("127.0.0.1:0");
            while floods.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = flood.send_to(&[0; 64], flooded);
            }
        });
        let mut sent = 0;
        for n in 0..50u8 {
            let (mut buffer, mut again) = ([0; 64], Instant::now());
            let limit = again + Duration::from_secs(5);
            // The flood is in the backend's queue too, which may be full just when this one comes there.
            let mut arrives = || {
                if Instant::now() >= again {
                    quiet.send_to(&[n; 3], calm).unwrap();
                    sent += 1;
                    again = Instant::now() + AGAIN;
                }
                matches!(backend.recv_from(&mut buffer), Ok((3, _)) if buffer[0] == n)
            };
            while !arrives() {
                assert!(Instant::now() < limit, "the calm listener starves");
            }
        }
        floods.store(false, std::sync::atomic::Ordering::Relaxed);
        assert!(sent < 150, "so many had to be sent until 50 came: {sent}");
    });
}

#[test]
fn what_the_kernel_dropped_is_told_and_nothing_twice() {
    let client = peer("127.0.0.1:0");
    let mut house = House::new(1);
    let bind = key("127.0.0.1:0");
    house.publish(&[bind]);
    let front = house.engine.local_addr(bind).unwrap();
    house.ask(Ask::Unlisten(bind));
    eventually(|| house.engine.machine_stats(0).unwrap().sockets == 0, || "sockets".into());
    let mut sent = 20_000;
    for _ in 0..sent {
        client.send_to(&[0; 64], front).unwrap();
    }
    house.publish(&[bind]);
    // The counter travels with datagrams that were queued after the drops.
    let limit = Instant::now() + Duration::from_secs(10);
    loop {
        let stats = house.engine.machine_stats(0).unwrap();
        if stats.overflows > 0 && stats.receive_datagrams + stats.overflows == sent {
            break;
        }
        assert!(Instant::now() < limit, "{sent} sent, {stats:?}");
        client.send_to(b"more", front).unwrap();
        sent += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(house.shelf.said("overflow") >= 1);
}

#[test]
fn commands_are_bounded_and_every_one_is_answered() {
    let mut house = House::new(1);
    let mut asked = 0;
    while house.engine.send(0, Ticket(asked), Command::Stats).is_ok() && asked < 1_000_000 {
        asked += 1;
    }
    assert!(asked >= 1024);
    let last = house.engine.send(0, Ticket(asked), Command::Stats);
    assert!(last.is_ok() || last == Err(CommandError::Busy(0)));
    for expected in 0..asked {
        let event = house.event();
        assert!(matches!(event, EngineEvent::Reply { ticket, .. } if ticket == Ticket(expected)), "{event:?}");
    }
    assert_eq!(house.engine.send(7, Ticket(0), Command::Stats), Err(CommandError::NoWorker(7)));
}

#[test]
fn a_refused_publish_did_nothing() {
    let mut house = House::new(1);
    // An address of its own: nobody else is given the port when it is free again.
    let bind = key("127.0.0.79:0");
    let prepared = house.engine.prepare(&[bind]).unwrap();
    let address = prepared.local_addr(bind).unwrap();
    let mut asked = 0;
    // The engine counts what it was not told yet, so that this ends however fast the worker answers.
    while house.engine.send(0, Ticket(asked), Command::Stats).is_ok() {
        asked += 1;
    }
    let refused = house.engine.publish(Ticket(asked), snapshot(1, &[bind], 1), prepared);
    assert_eq!(refused, Err(CommandError::Busy(0)));
    peer(&address.to_string());
    assert_eq!(house.engine.front_sockets(), 0);
}

#[test]
fn what_is_only_prepared_takes_nothing_from_what_runs() {
    let (client, backend) = (peer("127.0.0.1:0"), peer("127.0.0.1:0"));
    let (mut house, front) = house(2, "0.0.0.0:0", backend.local_addr().unwrap());
    let place = SocketAddr::from(([127, 0, 0, 1], front.port()));
    let narrow = key(&place.to_string());
    let prepared = house.engine.prepare(&[key("0.0.0.0:0"), narrow]).unwrap();
    let mut buffer = [0; 64];
    let mut ask = |client: &UdpSocket| {
        client.send_to(b"x", place).unwrap();
        let (_, from) = backend.recv_from(&mut buffer).unwrap();
        backend.send_to(b"y", from).unwrap();
        assert_eq!(client.recv_from(&mut buffer).unwrap().1, place);
    };
    ask(&client);
    drop(prepared);
    ask(&client);
    house.publish(&[key("0.0.0.0:0"), narrow]);
    assert_eq!(house.engine.local_addr(narrow), Some(place));
    ask(&peer("127.0.0.1:0"));
}

#[test]
fn verdicts_reach_the_caller_of_a_batch() {
    let socket = peer("127.0.0.1:0");
    let mut batch = SendBatch::new();
    let to = Some(socket.local_addr().unwrap());
    for n in 0..200u32 {
        // Every third has no destination.
        batch.begin(Target { to: to.filter(|_| n % 3 != 0), from: None, segment: 0 });
        batch.part(Part::Head(Span { start: n, len: 1 }));
    }
    let bytes: Vec<u8> = (0..200).collect();
    let mut failed = Vec::new();
    let stats = batch.send_all(socket.as_fd(), Arenas { head: &bytes, body: &[] }, |n, _| {
        failed.push(n);
        if n < 198 { Verdict::Skip } else { Verdict::Stop }
    });
    assert_eq!(failed, (0..200).step_by(3).collect::<Vec<_>>());
    assert_eq!(stats.messages, 132);
    let mut receiving = RecvBatch::new(200);
    let got = receiving.recv(socket.as_fd(), 200).unwrap();
    let read: Vec<u8> = got.filter_map(|slot| receiving.get(slot)).map(|r| r.bytes.of(receiving.bytes())[0]).collect();
    assert_eq!(read, (0..198).filter(|n| n % 3 != 0).collect::<Vec<u8>>());
}
