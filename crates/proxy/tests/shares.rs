//! A worker driven by hand: requests of a route that is shared among clusters.

mod common;

use std::collections::BTreeMap;

use kakei_config::*;
use kakei_proxy::seam::*;

use common::{Bench, addr, all_of};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const REQUESTS: usize = 10_000;

/// How many requests of a route with these shares came to the backend of each cluster.
fn shared(shares: &[(&str, u32)]) -> BTreeMap<String, usize> {
    let cluster = |(at, (name, _)): (usize, &(&str, u32))| {
        let backend = Backend::at(addr(&format!("10.0.0.{}:80", at + 1)));
        (Name::new(*name), Cluster { backends: vec![backend], ..Cluster::default() })
    };
    let split = shares.iter().map(|(name, weight)| (Name::new(*name), *weight)).collect();
    let route = Route { listener: "web".into(), split, ..Route::default() };
    let document = Document {
        clusters: shares.iter().enumerate().map(cluster).collect(),
        routes: [("shared".into(), route)].into(),
        ..Document::default()
    };
    let mut bench = Bench::new(document, Listener::default());
    let (mut backends, mut counts) = (BTreeMap::new(), BTreeMap::new());
    for _ in 0..REQUESTS {
        let mut ops = bench.say(REQUEST);
        let connecting = ops.iter().find_map(|op| match op {
            Op::Connect { socket, remote, .. } => Some((*socket, remote.to_string())),
            _ => None,
        });
        if let Some((socket, remote)) = connecting {
            backends.insert(socket, remote);
            ops = bench.step(vec![Event::Opened { socket, local: addr("10.9.9.9:9") }], b"");
        }
        let asked = ops.iter().find_map(|op| match op {
            Op::Write { socket, .. } => Some(*socket),
            _ => None,
        });
        let asked = asked.expect("the request goes to a backend");
        *counts.entry(backends[&asked].clone()).or_default() += 1;
        let ops = bench.step(vec![Event::Data { socket: asked, bytes: all_of(RESPONSE) }], RESPONSE);
        assert_eq!(bench.ends(&ops), ["write"], "the answer goes to who asked");
    }
    counts
}

#[test]
fn each_cluster_gets_its_share_by_weight() {
    let counts = shared(&[("a", 1), ("b", 3), ("c", 0), ("d", 6)]);
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.4:80"]);
    for (backend, share) in [("10.0.0.1:80", 0.1), ("10.0.0.2:80", 0.3), ("10.0.0.4:80", 0.6)] {
        let got = counts[backend] as f64 / REQUESTS as f64;
        assert!((got - share).abs() < 0.02, "{backend} has {got} of all, and is to have {share}");
    }
}
