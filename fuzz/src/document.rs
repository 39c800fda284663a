//! Small valid documents drawn from a script, with bounds so low that every one of them is met. Reads no text.

use std::net::SocketAddr;
use std::time::Duration;

use kakei_config::{
    Affinity, Backend, Balance, Cluster, Document, Expect, Health, InboundProxyProtocol, Limits, Listener, Name,
    OnBackend, PassiveCheck, Protocol, Route, SendProxyProtocol, TcpCheck, UdpCheck, UdpKnobs, Upstream,
};

use crate::script::Script;

const BINDS: [&str; 4] = ["127.0.0.1:1000", "0.0.0.0:2000", "[::]:3000", "127.0.0.1:0"];
/// Where backends may be.
pub const BACKENDS: [&str; 5] = ["10.9.0.1:53", "10.9.0.2:53", "10.9.0.3:53", "[2001:db8::9]:53", "[2001:db8::8]:53"];

fn passive() -> PassiveCheck {
    PassiveCheck {
        fall: 2,
        eject: Duration::from_secs(2),
        eject_max: Duration::from_secs(8),
        ..PassiveCheck::default()
    }
}

/// An address of the tables above.
pub fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address of our own")
}

pub fn drawn(script: &mut Script<'_>) -> Document {
    let mut document = Document::default();
    let shape = script.byte();
    for (name, bit) in [("x", 0), ("y", 1)] {
        if shape >> bit & 1 == 0 {
            document.clusters.insert(Name::new(name), cluster(script));
        }
    }
    let clusters: Vec<Name> = document.clusters.keys().cloned().collect();
    let some = |script: &mut Script<'_>| (!clusters.is_empty()).then(|| clusters[script.below(clusters.len())].clone());
    for (at, name) in ["a", "b"].into_iter().enumerate() {
        if shape >> (2 + at) & 1 == 0 {
            let cluster = if shape & 0x40 == 0 { some(script) } else { None };
            document.listeners.insert(Name::new(name), listener(script, &BINDS[2 * at..2 * at + 2], cluster));
        }
    }
    if let (Some(listener), Some(cluster)) = (document.listeners.keys().next().cloned(), some(script)) {
        let source = vec!["10.1.0.0/16".parse().expect("a network of our own")];
        let route = Route { listener, source, cluster: Some(cluster), ..Route::default() };
        document.routes.insert(Name::new("r"), route);
    }
    document
}

fn listener(script: &mut Script<'_>, binds: &[&str], cluster: Option<Name>) -> Listener {
    let shape = script.byte();
    let trusted = if shape & 1 == 1 { vec!["10.0.0.0/8".parse().expect("a network of our own")] } else { Vec::new() };
    Listener {
        protocol: Protocol::Udp,
        bind: binds[..1 + usize::from(shape >> 1 & 1)].iter().map(|text| address(text)).collect(),
        cluster,
        limits: Limits {
            flows: 1 + script.below(12) as u32,
            flows_per_source: u32::from(shape >> 2 & 3),
            new_flows_per_second: if shape & 0x10 == 0 { 0 } else { 3 },
            ..Limits::default()
        },
        max_datagram_size: if shape & 0x20 == 0 { 65_507 } else { 600 },
        proxy_protocol: InboundProxyProtocol { trusted },
        drain_timeout: Duration::from_secs(u64::from(shape >> 6) * 10),
        ..Listener::default()
    }
}

fn cluster(script: &mut Script<'_>) -> Cluster {
    let balances = [Balance::RoundRobin, Balance::Random, Balance::Least, Balance::P2c, Balance::Hrw, Balance::Maglev];
    let shape = script.byte();
    let health = if shape & 0x40 == 0 { None } else { Some(health(script)) };
    Cluster {
        // Filling a Maglev table takes a thousand times as long as all the rest: one input in 32 is enough.
        balance: if shape & 0x1f == 0x1f { Balance::Maglev } else { balances[usize::from(shape & 0x1f) % 5] },
        backends: (0..script.below(5)).map(|at| backend(script, at)).collect(),
        udp: knobs(script),
        health: health.map(Box::new),
        slow_start: Duration::from_secs(u64::from(shape >> 7)),
        ..Cluster::default()
    }
}

fn backend(script: &mut Script<'_>, at: usize) -> Backend {
    let shape = script.byte();
    Backend {
        name: Name::new(format!("b{at}")),
        address: address(BACKENDS[(at + usize::from(shape >> 6)) % BACKENDS.len()]).into(),
        weight: u32::from(shape & 3),
        backup: shape & 0x0c == 0x0c,
    }
}

fn knobs(script: &mut Script<'_>) -> UdpKnobs {
    let (shape, more) = (script.byte(), script.byte());
    let on_backend = |bits: u8| [OnBackend::Keep, OnBackend::Move, OnBackend::Close][usize::from(bits & 3) % 3];
    let send = [SendProxyProtocol::Off, SendProxyProtocol::First, SendProxyProtocol::Every];
    UdpKnobs {
        affinity: if shape & 1 == 0 { Affinity::SourceIp } else { Affinity::SourceIpPort },
        responses: u32::from(shape >> 1 & 3),
        requests: u32::from(shape >> 3 & 3),
        expects_reply: shape & 0x20 == 0,
        front_timeout: Duration::from_millis(100 + 900 * u64::from(more & 1)),
        back_timeout: Duration::from_millis(100 + 2_900 * u64::from(more >> 1 & 1)),
        lifetime: (more & 4 != 0).then(|| Duration::from_millis(1_500)),
        upstream: if shape & 0x40 == 0 { Upstream::PerFlow } else { Upstream::Shared },
        send_proxy_protocol: send[usize::from(more >> 3 & 3) % 3],
        on_backend_removed: on_backend(more >> 5),
        on_backend_down: on_backend(more >> 6),
        retry_on_unreachable: shape & 0x80 != 0,
    }
}

fn health(script: &mut Script<'_>) -> Health {
    let shape = script.byte();
    let udp = UdpCheck { send: b"ping".to_vec(), expect: Expect::Prefix(vec![0]), port: Some(99) };
    Health {
        udp: (shape & 1 == 1).then_some(udp),
        tcp: (shape & 2 == 2).then(TcpCheck::default),
        passive: (shape & 4 == 4).then(passive),
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        rise: 1 + u32::from(shape >> 3 & 1),
        fall: 1 + u32::from(shape >> 4 & 1),
        fail_open: shape & 0x20 != 0,
        http: None,
    }
}
