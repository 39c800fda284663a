//! Random documents and random changes of them: always valid, never twice the same. Knows nothing of what they do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use fastrand::Rng;
use kakei_config::{
    Affinity, Backend, Balance, Cluster, Document, Expect, Health, InboundProxyProtocol, Limits, Listener, Name,
    OnBackend, PassiveCheck, Protocol, Route, SendProxyProtocol, TcpCheck, UdpCheck, UdpKnobs, Upstream,
};

use crate::profile::{Profile, Weather, pick};

/// Addresses of the proxy's host; a wildcard listener is dialled at any of them.
pub(crate) const LOCAL_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 2), Ipv4Addr::new(203, 0, 113, 3)];
pub(crate) const LOCAL_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1), Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2)];

/// Makes documents.
#[derive(Debug)]
pub(crate) struct Author {
    rng: Rng,
    calm: bool,
    /// Whether clusters go, and others come.
    retires: bool,
    named: u32,
}

impl Author {
    /// `retires`: whether clusters go, and others come.
    pub(crate) fn new(profile: &Profile, retires: bool, rng: Rng) -> Self {
        Author { rng, calm: profile.weather == Weather::Calm, retires, named: 0 }
    }

    fn odds(&mut self, of: u32) -> bool {
        self.rng.u32(0..of) == 0
    }

    fn name(&mut self, prefix: &str) -> Name {
        self.named += 1;
        Name::new(format!("{prefix}{}", self.named))
    }

    /// A first document.
    pub(crate) fn document(&mut self) -> Document {
        let mut document = Document::default();
        for _ in 0..self.rng.u32(1..=3) {
            let name = self.name("c");
            let cluster = self.cluster();
            document.clusters.insert(name, cluster);
        }
        for _ in 0..self.rng.u32(1..=2) {
            self.add_listener(&mut document);
        }
        for _ in 0..self.rng.u32(0..=2) {
            self.add_route(&mut document);
        }
        document
    }

    /// One change; what it was.
    pub(crate) fn change(&mut self, document: &mut Document) -> &'static str {
        if self.retires && self.odds(3) {
            return self.retire(document);
        }
        match self.rng.u32(0..16) {
            0..=3 => self.add_backend(document),
            4..=5 => self.remove_backend(document),
            6..=7 => self.weigh(document),
            8..=9 => self.change_knobs(document),
            10 => self.add_listener(document),
            11 => self.remove_listener(document),
            12 => self.rename_listener(document),
            13 => self.rebind(document),
            14 => self.change_limits(document),
            _ => self.add_route(document),
        }
    }

    fn cluster(&mut self) -> Cluster {
        let policies =
            [Balance::RoundRobin, Balance::Random, Balance::Least, Balance::P2c, Balance::Hrw, Balance::Maglev];
        let least = u32::from(self.calm);
        let mut backends: Vec<Backend> = (0..self.rng.u32(least..=4)).map(|_| self.backend()).collect();
        backends.sort_by_key(|backend| backend.address.clone());
        backends.dedup_by_key(|backend| backend.address.clone());
        let mut cluster =
            Cluster { balance: *pick(&mut self.rng, &policies), backends, udp: self.knobs(), ..Cluster::default() };
        if self.odds(3) {
            cluster.health = Some(self.health().into());
            cluster.slow_start = Duration::from_millis(*pick(&mut self.rng, &[0, 0, 700]));
        }
        if self.calm {
            cluster.backends[0].weight = 1;
        }
        cluster
    }

    fn backend(&mut self) -> Backend {
        let port = 5_000 + self.rng.u16(0..4);
        let address = if self.odds(5) {
            SocketAddr::new(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, self.rng.u16(1..6)).into(), port)
        } else {
            SocketAddr::new(Ipv4Addr::new(10, 0, 0, self.rng.u8(1..30)).into(), port)
        };
        let weight = if self.odds(8) { 0 } else { self.rng.u32(1..=4) };
        // A name is never used for two backends, so that a record's backend can be told.
        let name = self.name("b");
        Backend { name, address: address.into(), weight, backup: !self.calm && self.odds(6) }
    }

    fn knobs(&mut self) -> UdpKnobs {
        let rng = &mut self.rng;
        let timeout = |rng: &mut Rng| Duration::from_millis(*pick(rng, &[150, 400, 1_000, 2_500, 30_000]));
        let front_timeout = timeout(rng);
        let policy = |rng: &mut Rng| *pick(rng, &[OnBackend::Keep, OnBackend::Keep, OnBackend::Move, OnBackend::Close]);
        let requests = *pick(rng, &[0, 0, 1, 2, 5]);
        UdpKnobs {
            affinity: *pick(rng, &[Affinity::SourceIp, Affinity::SourceIpPort]),
            responses: *pick(rng, &[0, 0, 1, 2, 5]),
            requests,
            expects_reply: requests == 0 || rng.u8(0..3) > 0,
            front_timeout,
            back_timeout: if rng.u8(0..3) == 0 { timeout(rng) } else { front_timeout },
            lifetime: (rng.u8(0..4) == 0).then(|| Duration::from_millis(rng.u64(100..3_000))),
            upstream: *pick(rng, &[Upstream::PerFlow, Upstream::Shared]),
            send_proxy_protocol: *pick(
                rng,
                &[SendProxyProtocol::Off, SendProxyProtocol::Off, SendProxyProtocol::First, SendProxyProtocol::Every],
            ),
            on_backend_removed: policy(rng),
            on_backend_down: policy(rng),
            retry_on_unreachable: rng.u8(0..4) == 0,
        }
    }

    fn health(&mut self) -> Health {
        let rng = &mut self.rng;
        let expects = [Expect::Any, Expect::Exact(b"pong".to_vec()), Expect::Prefix(b"po".to_vec())];
        let expect = pick(rng, &expects).clone();
        let kind = match expect {
            Expect::Any => "any",
            Expect::Exact(_) => "exact",
            Expect::Prefix(_) => "prefix",
        };
        Health {
            udp: (rng.u8(0..3) > 0).then(|| UdpCheck {
                send: format!("probe {kind}").into_bytes(),
                expect,
                port: None,
            }),
            tcp: (rng.u8(0..3) == 0).then(TcpCheck::default),
            passive: rng.bool().then_some(PassiveCheck {
                fall: 2,
                eject: Duration::from_millis(800),
                eject_max: Duration::from_millis(800),
                ..PassiveCheck::default()
            }),
            interval: Duration::from_millis(rng.u64(150..=600)),
            timeout: Duration::from_millis(100),
            rise: rng.u32(1..=2),
            fall: rng.u32(1..=3),
            fail_open: rng.bool(),
            ..Health::default()
        }
    }

    fn add_listener(&mut self, document: &mut Document) -> &'static str {
        let name = self.name("l");
        let bind = self.binds(document);
        let cluster = (!document.clusters.is_empty()).then(|| self.any_cluster(document));
        let calm = self.calm;
        let limits = if calm || self.odds(2) { Limits::default() } else { self.limits() };
        let rng = &mut self.rng;
        let trusted = if rng.u8(0..3) == 0 { vec!["172.16.0.0/12".parse().ok()] } else { Vec::new() };
        let listener = Listener {
            protocol: Protocol::Udp,
            bind,
            cluster: if calm || rng.u8(0..6) > 0 { cluster } else { None },
            limits,
            max_datagram_size: *pick(rng, &[512, 1_500, 9_000, 65_507]),
            proxy_protocol: InboundProxyProtocol { trusted: trusted.into_iter().flatten().collect() },
            drain_timeout: Duration::from_millis(rng.u64(100..=3_000)),
            ..Listener::default()
        };
        document.listeners.insert(name, listener);
        "add a listener"
    }

    /// One or two addresses that no listener has.
    fn binds(&mut self, document: &Document) -> Vec<SocketAddr> {
        let mut bind: Vec<SocketAddr> = Vec::new();
        let wanted = self.rng.usize(1..=2);
        for _ in 0..20 {
            let port = 53 + self.rng.u16(0..12);
            let ip: IpAddr = match self.rng.u8(0..4) {
                0 => Ipv4Addr::UNSPECIFIED.into(),
                1 => (*pick(&mut self.rng, &LOCAL_V4)).into(),
                2 => Ipv6Addr::UNSPECIFIED.into(),
                _ => (*pick(&mut self.rng, &LOCAL_V6)).into(),
            };
            let taken = document.listeners.values().flat_map(|l| &l.bind).chain(&bind);
            let clash = taken.into_iter().any(|other| other.port() == port);
            if !clash {
                bind.push(SocketAddr::new(ip, port));
            }
            if bind.len() == wanted {
                return bind;
            }
        }
        if bind.is_empty() {
            self.named += 1;
            bind.push(SocketAddr::new(LOCAL_V4[0].into(), 1_000 + self.named as u16));
        }
        bind
    }

    fn limits(&mut self) -> Limits {
        let rng = &mut self.rng;
        Limits {
            flows: *pick(rng, &[2, 8, 100, 100_000]),
            flows_per_source: *pick(rng, &[0, 1, 3, 20]),
            new_flows_per_second: *pick(rng, &[0, 0, 5, 50]),
            ..Limits::default()
        }
    }

    fn any_cluster(&mut self, document: &Document) -> Name {
        let names: Vec<&Name> = document.clusters.keys().collect();
        (*pick(&mut self.rng, &names)).clone()
    }

    fn any_listener(&mut self, document: &Document) -> Name {
        let names: Vec<&Name> = document.listeners.keys().collect();
        (*pick(&mut self.rng, &names)).clone()
    }

    /// What leads to a cluster leads to another one, and it goes.
    fn retire(&mut self, document: &mut Document) -> &'static str {
        if document.clusters.len() < 2 || self.odds(3) {
            let name = self.name("c");
            let cluster = self.cluster();
            document.clusters.insert(name, cluster);
            return "add a cluster";
        }
        let old = self.any_cluster(document);
        document.clusters.remove(&old);
        let other = self.any_cluster(document);
        let ways = document.routes.values_mut().map(|route| &mut route.cluster);
        let ways = ways.chain(document.listeners.values_mut().map(|listener| &mut listener.cluster));
        ways.filter(|way| way.as_ref() == Some(&old)).for_each(|way| *way = Some(other.clone()));
        "remove a cluster"
    }

    fn add_route(&mut self, document: &mut Document) -> &'static str {
        let listener = self.any_listener(document);
        let cluster = self.any_cluster(document);
        let nets = ["192.0.2.0/24", "192.0.2.0/30", "192.0.2.4/31", "198.51.100.0/24", "2001:db8:c::/64", "0.0.0.0/0"];
        let net = pick(&mut self.rng, &nets).parse().ok();
        let name = self.name("r");
        let same = |route: &Route| route.listener == listener && route.source.first() == net.as_ref();
        if document.routes.values().any(same) {
            document.routes.retain(|_, route| !same(route));
            return "remove a route";
        }
        document.routes.insert(
            name,
            Route { listener, source: net.into_iter().collect(), cluster: Some(cluster), ..Route::default() },
        );
        "add a route"
    }

    fn add_backend(&mut self, document: &mut Document) -> &'static str {
        let name = self.any_cluster(document);
        let backend = self.backend();
        if let Some(cluster) = document.clusters.get_mut(&name)
            && cluster.backends.iter().all(|other| other.address != backend.address)
        {
            cluster.backends.push(backend);
        }
        "add a backend"
    }

    fn remove_backend(&mut self, document: &mut Document) -> &'static str {
        let name = self.any_cluster(document);
        let calm = self.calm;
        if let Some(cluster) = document.clusters.get_mut(&name)
            && cluster.backends.len() > usize::from(calm)
        {
            let at = self.rng.usize(0..cluster.backends.len());
            cluster.backends.remove(at);
            if calm {
                cluster.backends[0].weight = cluster.backends[0].weight.max(1);
            }
        }
        "remove a backend"
    }

    fn weigh(&mut self, document: &mut Document) -> &'static str {
        let name = self.any_cluster(document);
        let least = u32::from(self.calm);
        if let Some(cluster) = document.clusters.get_mut(&name)
            && !cluster.backends.is_empty()
        {
            let at = self.rng.usize(0..cluster.backends.len());
            cluster.backends[at].weight = self.rng.u32(least..=6);
        }
        "weigh a backend"
    }

    fn change_knobs(&mut self, document: &mut Document) -> &'static str {
        let name = self.any_cluster(document);
        let knobs = self.knobs();
        if let Some(cluster) = document.clusters.get_mut(&name) {
            cluster.udp = knobs;
        }
        "change a cluster's knobs"
    }

    fn remove_listener(&mut self, document: &mut Document) -> &'static str {
        if document.listeners.len() < 2 {
            return self.change_limits(document);
        }
        let name = self.any_listener(document);
        document.listeners.remove(&name);
        document.routes.retain(|_, route| route.listener != name);
        "remove a listener"
    }

    fn rename_listener(&mut self, document: &mut Document) -> &'static str {
        let old = self.any_listener(document);
        let new = self.name("l");
        if let Some(listener) = document.listeners.remove(&old) {
            document.listeners.insert(new.clone(), listener);
        }
        for route in document.routes.values_mut().filter(|route| route.listener == old) {
            route.listener = new.clone();
        }
        "rename a listener"
    }

    fn rebind(&mut self, document: &mut Document) -> &'static str {
        let name = self.any_listener(document);
        let more = self.binds(document);
        if let Some(listener) = document.listeners.get_mut(&name) {
            if listener.bind.len() > 1 {
                listener.bind.remove(0);
            } else {
                listener.bind.extend(more.first());
            }
        }
        "change a listener's binds"
    }

    fn change_limits(&mut self, document: &mut Document) -> &'static str {
        let name = self.any_listener(document);
        let limits = if self.calm { Limits { flows: 50_000, ..Limits::default() } } else { self.limits() };
        if let Some(listener) = document.listeners.get_mut(&name) {
            listener.limits = limits;
        }
        "change a listener's limits"
    }
}
