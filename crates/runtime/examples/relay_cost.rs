//! What the machine alone costs: a relay without any decision, measured on loopback with the generator on another
//! core. Run it by `cargo run --release -p kakei-runtime --example relay_cost`. It measures no worker of Kakei's.
#![expect(clippy::unwrap_used, reason = "a measurement that can't be made has no result")]
#![expect(clippy::print_stdout, reason = "that is what it is for")]
#![expect(dead_code, reason = "the relay has more uses than this one")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::{Relay, Shelf, key, peer, snapshot};
use kakei_proxy::seam::{Span, Ticket};
use kakei_runtime::engine::{Engine, EngineConfig};
use kakei_runtime::udp::{Arenas, Part, RecvBatch, SendBatch, Target, Verdict, set_gro};

/// How long each measurement takes.
const TIME: Duration = Duration::from_secs(3);

/// User and system time of the worker's thread, in microseconds; the kernel counts in hundredths of a second.
fn used() -> (u64, u64) {
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        if stat.contains("(kakei-worker-0)") {
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            let micros = |field: &str| field.parse::<u64>().unwrap() * 10_000;
            return (micros(fields[11]), micros(fields[12]));
        }
    }
    panic!("there is no worker")
}

/// Send back whatever comes, in batches.
fn echo(socket: &UdpSocket) {
    let (mut receiving, mut sending) = (RecvBatch::new(64), SendBatch::new());
    loop {
        receiving.clear();
        sending.clear();
        let Ok(got) = receiving.recv_blocking(socket.as_fd(), 64) else { return };
        for received in got.filter_map(|slot| receiving.get(slot)) {
            sending.begin(Target { to: Some(received.peer), from: None, segment: received.segment });
            sending.part(Part::Body(received.bytes));
        }
        let arenas = Arenas { head: &[], body: receiving.bytes() };
        sending.send_all(socket.as_fd(), arenas, |_, _| Verdict::Skip);
    }
}

/// One message (of `segment`, where that is not 0) from each client `window` times, then all answers, again and again.
fn drive(clients: &[UdpSocket], front: SocketAddr, window: usize, (len, segment): (u32, u16)) {
    let (mut sending, mut receiving) = (SendBatch::new(), RecvBatch::new(64));
    for _ in 0..window {
        sending.begin(Target { to: Some(front), from: None, segment });
        sending.part(Part::Body(Span { start: 0, len }));
    }
    let body = vec![7; len as usize];
    let until = Instant::now() + TIME;
    while Instant::now() < until {
        for client in clients {
            sending.send_all(client.as_fd(), Arenas { head: &[], body: &body }, |_, _| Verdict::Skip);
        }
        for client in clients {
            let (mut bytes, wanted) = (0, len as usize * window);
            while bytes < wanted {
                receiving.clear();
                let Ok(got) = receiving.recv_blocking(client.as_fd(), 64) else { break };
                bytes += got.filter_map(|slot| receiving.get(slot)).map(|r| r.bytes.len as usize).sum::<usize>();
            }
        }
    }
}

fn measure(name: &str, flows: usize, window: usize, message: (u32, u16)) {
    let backend = peer("127.0.0.1:0");
    let shelf = Arc::new(Shelf::default());
    *shelf.backend.lock().unwrap() = Some(backend.local_addr().unwrap());
    let config = EngineConfig { workers: 1, pin: true, seed: 1, records: 0 };
    let mut engine = Engine::start_with(config, move |role| {
        let mut relay = Relay::new(role.index, &shelf);
        relay.quiet = true;
        relay
    })
    .unwrap();
    let bind = key("127.0.0.1:0");
    let prepared = engine.prepare(&[bind]).unwrap();
    let front = prepared.local_addr(bind).unwrap();
    engine.publish(Ticket(1), snapshot(1, &[bind], 1), prepared).unwrap();
    while engine.try_event().is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    let clients: Vec<UdpSocket> = (0..flows).map(|_| peer("127.0.0.1:0")).collect();
    for socket in clients.iter().chain([&backend]) {
        set_gro(socket.as_fd(), true).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    }
    let (user, system) = thread::scope(|scope| {
        scope.spawn(|| echo(&backend));
        let before = used();
        drive(&clients, front, window, message);
        let after = used();
        (after.0 - before.0, after.1 - before.1)
    });
    let stats = engine.machine_stats(0).unwrap();
    let through = stats.send_datagrams as f64;
    println!(
        "{name:<28} {:>9.0} datagrams/s of CPU  {:.3} us each, {:.3} us of it in user space ({:.0} %)  {:.2} datagrams a receive call, {:.3} walks each",
        through / ((user + system) as f64 / 1e6),
        (user + system) as f64 / through,
        user as f64 / through,
        100.0 * user as f64 / (user + system) as f64,
        stats.receive_datagrams as f64 / stats.receive_calls as f64,
        (stats.receive_messages + stats.send_messages) as f64 / (stats.receive_datagrams + stats.send_datagrams) as f64,
    );
    engine.stop();
}

fn main() {
    measure("1 flow, 64 B, window 32", 1, 32, (64, 0));
    measure("100 flows, 64 B", 100, 1, (64, 0));
    measure("1000 flows, 64 B", 1000, 1, (64, 0));
    measure("100 flows, 1200 B", 100, 1, (1200, 0));
    measure("1 flow, trains of 50 x 1200", 1, 4, (60_000, 1200));
}
