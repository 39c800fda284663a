//! A worker driven by hand: clients whose handshakes wait in crowds, and one handshake with a backend.

use std::net::SocketAddr;
use std::sync::Arc;

use kakei_config::{Backend, Cluster, ClusterTls, Document, Listener, ListenerTls, Pem, Protocol};
use kakei_proxy::seam::{Accepted, Arrival, Command, Event, Inbox, Instant, Op, Outbox, SocketId, Span, Ticket, Wall};
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};
use kakei_proxy::worker::{Role, Worker};

use crate::network::{AUTHORITIES, materials};

const CROWD: u32 = 300;

fn document() -> Document {
    let ca = Some(Pem::Text(AUTHORITIES[0].to_owned()));
    let backends = vec![Backend::at(SocketAddr::from(([10, 0, 0, 1], 443)))];
    let tls = Some(ClusterTls { ca, server_name: Some("echo.test".to_owned()), ..ClusterTls::default() });
    let cluster = Cluster { backends, tls, ..Cluster::default() };
    let listener = |port: u16, tls| Listener {
        protocol: Protocol::Tcp,
        bind: vec![SocketAddr::from(([0, 0, 0, 0], port))],
        cluster: Some("c".into()),
        tls,
        ..Listener::default()
    };
    Document {
        listeners: [
            ("crowded".into(), listener(443, Some(ListenerTls::default()))),
            ("plain".into(), listener(80, None)),
        ]
        .into(),
        clusters: [("c".into(), cluster)].into(),
        ..Document::default()
    }
}

/// Sockets that a step asks for, in their order.
fn opened(ops: &[Op]) -> Vec<SocketId> {
    let of = |op: &Op| match op {
        Op::Listen { socket, .. } | Op::Accept { socket, .. } | Op::Connect { socket, .. } => Some(*socket),
        _ => None,
    };
    ops.iter().filter_map(of).collect()
}

#[test]
fn a_backend_is_spoken_to_at_once_however_many_clients_wait_for_their_handshakes() {
    let (mut worker, mut out) = (Worker::new(Role { index: 0, seed: 1 }), Outbox::default());
    let mut step = |mut events: Vec<Event>, bytes: &[u8]| {
        out.clear();
        let inbox = Inbox { events: &mut events, bytes, wall: Wall::from_secs(1_800_000_000) };
        worker.step(Instant::from_nanos(1_000_000_000), inbox, &mut out);
        out.ops.clone()
    };
    let shared = Shared { workers: 1, balance_seed: 1 };
    let snapshot = Snapshot::compile_with(&document(), Generation(1), shared, None, &materials(0));
    let command = Command::Publish(Arc::new(snapshot));
    let ops = step(vec![Event::Command { ticket: Ticket(1), command }], b"");
    let front = |port: u16| {
        let is_it = |op: &Op| match op {
            Op::Listen { socket, bind } if bind.address.port() == port => Some(*socket),
            _ => None,
        };
        ops.iter().find_map(is_it).expect("a listener")
    };
    let (crowded, plain) = (front(443), front(80));
    let address = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
    let accepted = |front: SocketId, number: u32, port: u16| {
        let peer = SocketAddr::from(([192, 0, 2, 7], 1_000 + number as u16));
        Event::Accepted(Accepted { front, arrival: Arrival(number), peer, local: address(port) })
    };
    let clients = opened(&step((0..CROWD).map(|number| accepted(crowded, number, 443)).collect(), b""));
    let backend = opened(&step(vec![accepted(plain, CROWD, 80)], b""))[1..].to_vec();
    let [backend] = *backend else { panic!("a stream to the backend: {backend:?}") };
    // What is no TLS takes its turn as what is.
    let said = |socket: &SocketId| Event::Data { socket: *socket, bytes: Span { start: 0, len: 1 } };
    let mut events: Vec<Event> = clients.iter().map(said).collect();
    assert_eq!(events.len(), CROWD as usize);
    events.push(Event::Opened { socket: backend, local: address(9) });
    let ops = step(events, b"x");
    assert!(ops.iter().any(|op| matches!(op, Op::Write { socket, .. } if *socket == backend)), "the first word");
    // Nor do they wait for it alone.
    let went = |socket: &SocketId| {
        ops.iter().any(|op| matches!(op, Op::Close { socket: gone } | Op::Reset { socket: gone } if gone == socket))
    };
    assert!(clients.iter().any(went), "some clients had their turn");
}
