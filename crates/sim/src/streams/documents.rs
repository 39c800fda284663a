//! Documents with listeners of streams, and changes of them. One route and its cluster are never touched.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use fastrand::Rng;
use kakei_config::*;

/// Server names that clients ask for.
pub(super) const SNI: [&str; 4] = ["a.test", "b.a.test", "c.test", "stable.test"];
/// Who may send PROXY headers.
pub(super) const TRUSTED: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 0, 1));
/// What no change touches.
pub(super) const STABLE: &str = "stable";

/// Writes and edits documents.
#[derive(Debug)]
pub(super) struct Author {
    rng: Rng,
    made: u16,
    /// Whether clusters go, and come back.
    retires: bool,
}

impl Author {
    pub(super) fn new(retires: bool, rng: Rng) -> Self {
        Author { rng, made: 0, retires }
    }

    pub(super) fn document(&mut self) -> Document {
        let mut document = Document::default();
        document.access_log.to = Some("the checkers".into());
        document.clusters.insert(STABLE.into(), Cluster { backends: vec![self.backend(1)], ..Cluster::default() });
        for name in ["one", "two"] {
            let cluster = self.cluster();
            document.clusters.insert(name.into(), cluster);
        }
        let plain = self.listener(80, false);
        let proxied = self.listener(81, true);
        let named = self.listener(82, false);
        document.listeners = [("plain".into(), plain), ("proxied".into(), proxied), ("named".into(), named)].into();
        let route = |sni: ServerName, cluster: &str, on_change| Route {
            listener: "named".into(),
            sni: vec![sni],
            cluster: Some(cluster.into()),
            on_change,
            ..Route::default()
        };
        let on_change = self.on_change();
        document.routes = [
            ("exact".into(), route(ServerName::Exact("a.test".into()), "one", on_change)),
            ("under".into(), route(ServerName::Under("a.test".into()), "two", on_change)),
            (STABLE.into(), route(ServerName::Exact("stable.test".into()), STABLE, OnChange::Close)),
        ]
        .into();
        document
    }

    fn listener(&mut self, port: u16, proxied: bool) -> Listener {
        let mut limits = Limits::default();
        if self.rng.u8(0..3) == 0 {
            limits.connections_per_source = self.rng.u32(1..4);
            limits.connections = self.rng.u32(3..20);
        }
        let trusted = if proxied { vec![TRUSTED.into()] } else { Vec::new() };
        Listener {
            protocol: Protocol::Tcp,
            bind: vec![SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)],
            cluster: Some("one".into()),
            limits,
            proxy_protocol: InboundProxyProtocol { trusted },
            preread_timeout: Duration::from_millis(self.rng.u64(500..5_000)),
            drain_timeout: Duration::from_millis(self.rng.u64(100..5_000)),
            ..Listener::default()
        }
    }

    fn cluster(&mut self) -> Cluster {
        let backends = (0..self.rng.u32(1..4)).map(|_| self.backend(1)).collect();
        let rng = &mut self.rng;
        let header = [StreamProxyProtocol::Off, StreamProxyProtocol::V1, StreamProxyProtocol::V2][rng.usize(0..3)];
        let balance = [Balance::RoundRobin, Balance::Least, Balance::P2c, Balance::Hrw][rng.usize(0..4)];
        let passive = PassiveCheck {
            fall: 2,
            eject: Duration::from_millis(400),
            eject_max: Duration::from_secs(2),
            ..PassiveCheck::default()
        };
        let health = rng.bool().then(|| Health {
            passive: Some(passive),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            rise: 1,
            fall: 1,
            fail_open: rng.bool(),
            ..Health::default()
        });
        let tcp = TcpKnobs {
            connect_timeout: Duration::from_millis(rng.u64(100..2_000)),
            attempts: rng.u32(1..4),
            idle_timeout: rng.bool().then(|| Duration::from_millis(rng.u64(500..20_000))),
            lifetime: (rng.u8(0..4) == 0).then(|| Duration::from_millis(rng.u64(1_000..20_000))),
            connections_per_backend: if rng.bool() { rng.u32(1..6) } else { 0 },
            queue: rng.u32(0..5),
            queue_timeout: Duration::from_millis(rng.u64(100..3_000)),
            on_backend_removed: self.on_change(),
            on_backend_down: self.on_change(),
            ..TcpKnobs::default()
        };
        Cluster {
            balance,
            backends,
            tcp,
            send_proxy_protocol: header,
            health: health.map(Box::new),
            ..Cluster::default()
        }
    }

    fn backend(&mut self, weight: u32) -> Backend {
        self.made += 1;
        let address = SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1).into(), 5_000 + self.made);
        Backend { weight, ..Backend::at(address) }
    }

    fn on_change(&mut self) -> OnChange {
        match self.rng.u8(0..3) {
            0 => OnChange::Keep,
            1 => OnChange::Close,
            _ => OnChange::Drain(Duration::from_millis(self.rng.u64(0..3_000))),
        }
    }

    /// What leads to a cluster leads to the other one, and it goes; or it comes back.
    fn retire(&mut self, document: &mut Document, name: &Name) {
        let other = Name::new(if name.as_str() == "one" { "two" } else { "one" });
        if !document.clusters.contains_key(&other) || !document.clusters.contains_key(name) {
            let cluster = self.cluster();
            if !document.clusters.contains_key(name) {
                document.clusters.insert(name.clone(), cluster);
            }
            return;
        }
        let ways = document.routes.values_mut().map(|route| &mut route.cluster);
        let ways = ways.chain(document.listeners.values_mut().map(|listener| &mut listener.cluster));
        ways.filter(|way| way.as_ref() == Some(name)).for_each(|way| *way = Some(other.clone()));
        document.clusters.remove(name);
    }

    /// Change something that isn't the stable route, its cluster or its listener.
    pub(super) fn edit(&mut self, document: &mut Document) {
        let name = Name::new(["one", "two"][self.rng.usize(0..2)]);
        if self.retires && self.rng.u8(0..4) == 0 {
            return self.retire(document, &name);
        }
        match self.rng.u8(0..6) {
            0 => {
                let backend = self.backend(1);
                cluster(document, name).backends.push(backend);
            }
            1 => {
                let backends = &mut cluster(document, name).backends;
                if !backends.is_empty() {
                    let at = self.rng.usize(0..backends.len());
                    backends.remove(at);
                }
            }
            2 => {
                let cluster = self.cluster();
                document.clusters.insert(name, cluster);
            }
            3 => match document.listeners.remove(&Name::new("plain")) {
                Some(_) => {}
                None => {
                    let listener = self.listener(80, false);
                    if let Some(name) = &listener.cluster {
                        cluster(document, name.clone());
                    }
                    document.listeners.insert("plain".into(), listener);
                }
            },
            4 => {
                let is_there = document.clusters.contains_key(&name);
                if let Some(route) = document.routes.get_mut(&Name::new("exact")).filter(|_| is_there) {
                    route.cluster = Some(name);
                }
            }
            _ => {
                let on_change = self.on_change();
                cluster(document, name.clone());
                let route = Route {
                    listener: "named".into(),
                    sni: vec![ServerName::Exact("c.test".into())],
                    cluster: Some(name),
                    on_change,
                    ..Route::default()
                };
                if document.routes.remove(&Name::new("third")).is_none() {
                    document.routes.insert("third".into(), route);
                }
            }
        }
    }
}

/// The cluster of this name, which is made where there is none.
fn cluster(document: &mut Document, name: Name) -> &mut Cluster {
    if !document.clusters.contains_key(&name) {
        document.clusters.insert(name.clone(), Cluster::default());
    }
    document.clusters.get_mut(&name).expect("it was made where it was missing")
}
