//! Who writes documents and changes of them, each twice: as the program is asked for it, and as what must come of it. Some
//! of what is written can't be.

use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use kakei_config::{
    Backend, BackendAddress, Certificate, Cluster, Document, Health, Kind, Listener, ListenerTls, Name, OnBackend,
    OnChange, PathMatch, Pem, Protocol, Respond, Route, ServerName, Shown, TcpCheck, UdpCheck, WorkerCount,
};
use kakei_control::{Edit, What};
use kakei_proxy::snapshot::Generation;

/// Two certificates for the same name.
pub(crate) const CERTIFICATES: [&str; 2] =
    [include_str!("../../../sim/tests/secured/a.pem"), include_str!("../../../sim/tests/secured/b.pem")];

/// Clusters by what their backends speak, and the port that these have.
const SPOKEN: [(char, u16); 3] = [('u', 53), ('t', 7), ('h', 80)];
/// What a listener is, by its name: the first of each kind are never changed.
pub(crate) const LISTENERS: [(&str, Protocol, bool); 9] = [
    ("u0", Protocol::Udp, false),
    ("t0", Protocol::Tcp, false),
    ("s0", Protocol::Tcp, true),
    ("h0", Protocol::Http, false),
    ("x0", Protocol::Http, true),
    ("u1", Protocol::Udp, false),
    ("t1", Protocol::Tcp, false),
    ("s1", Protocol::Tcp, true),
    ("h1", Protocol::Http, false),
];
/// How many of them stay as they are.
const STABLE: usize = 5;
pub(crate) const HOSTS: [&str; 4] = ["stable.test", "a.test", "b.test", "c.test"];
pub(crate) const PATHS: [&str; 4] = ["/", "/x", "/x/y", "/z"];
/// What the certificates are for: whoever comes by TLS asks for that host.
pub(crate) const SECURED: &str = "echo.test";
/// The path of the route there that stays as it is.
pub(crate) const STABLE_PATH: &str = "/stable";
/// A host name whose addresses change.
pub(crate) const NAMED: &str = "app.test";
/// No access log can be there.
pub(crate) const NOWHERE: &str = "/nonexistent/access.log";

/// One change of the model's, and of the program's.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Put(Kind, Name, Thing),
    Add(Kind, Name, Thing),
    Remove(Kind, Name),
    AddBackend(Name, Backend),
    RemoveBackend(Name, Name),
    Weigh(Name, Name, u32),
    /// Other policies for connections, and nothing else: as an option that is set.
    Lead(Name, Name),
}

/// An object.
#[derive(Clone, Debug)]
pub(crate) enum Thing {
    Listener(Box<Listener>),
    Route(Box<Route>),
    Cluster(Box<Cluster>),
    Certificate(Certificate),
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    Whole(Box<Document>),
    Steps(Vec<Step>),
    Back(Option<u64>),
}

/// Why the model has nothing to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cannot {
    Unknown,
    Taken,
    NotKept,
}

impl Thing {
    fn put(self, name: Name, document: &mut Document) {
        match self {
            Thing::Listener(listener) => drop(document.listeners.insert(name, *listener)),
            Thing::Route(route) => drop(document.routes.insert(name, *route)),
            Thing::Cluster(cluster) => drop(document.clusters.insert(name, *cluster)),
            Thing::Certificate(certificate) => drop(document.certificates.insert(name, certificate)),
        }
    }

    fn json(&self, kind: Kind, name: &Name) -> serde_json::Value {
        let mut alone = Document::default();
        self.clone().put(name.clone(), &mut alone);
        alone.object(kind, name).expect("it was put").value.to_json()
    }
}

impl Step {
    /// What it makes of a document.
    pub(crate) fn model(self, document: &mut Document) -> Result<(), Cannot> {
        let has = document.names().any(|(kind, name)| self.about() == Some((kind, name)));
        match self {
            Step::Put(_, name, thing) => thing.put(name, document),
            Step::Add(kind, name, thing) => {
                let before = document.object(kind, &name);
                thing.put(name.clone(), document);
                if has && document.object(kind, &name) != before {
                    return Err(Cannot::Taken);
                }
            }
            Step::Remove(..) if !has => return Err(Cannot::Unknown),
            Step::Remove(Kind::Listener, name) => drop(document.listeners.remove(&name)),
            Step::Remove(Kind::Route, name) => drop(document.routes.remove(&name)),
            Step::Remove(Kind::Cluster, name) => drop(document.clusters.remove(&name)),
            Step::Remove(_, name) => drop(document.certificates.remove(&name)),
            Step::AddBackend(cluster, backend) => {
                let of = document.clusters.get_mut(&cluster).ok_or(Cannot::Unknown)?;
                match of.backends.iter().find(|other| other.name == backend.name) {
                    Some(other) if *other != backend => return Err(Cannot::Taken),
                    Some(_) => {}
                    None => of.backends.push(backend),
                }
            }
            Step::RemoveBackend(cluster, backend) => {
                let of = document.clusters.get_mut(&cluster).ok_or(Cannot::Unknown)?;
                let count = of.backends.len();
                of.backends.retain(|other| other.name != backend);
                if of.backends.len() == count {
                    return Err(Cannot::Unknown);
                }
            }
            Step::Weigh(cluster, backend, weight) => {
                let of = document.clusters.get_mut(&cluster).ok_or(Cannot::Unknown)?;
                of.backends.iter_mut().find(|b| b.name == backend).ok_or(Cannot::Unknown)?.weight = weight;
            }
            Step::Lead(route, cluster) => {
                document.routes.get_mut(&route).ok_or(Cannot::Unknown)?.cluster = Some(cluster);
            }
        }
        Ok(())
    }

    fn about(&self) -> Option<(Kind, &Name)> {
        match self {
            Step::Add(kind, name, _) | Step::Remove(kind, name) => Some((*kind, name)),
            _ => None,
        }
    }

    fn edit(&self) -> Edit {
        match self.clone() {
            Step::Put(kind, name, thing) => Edit::Put { kind, value: thing.json(kind, &name), name },
            Step::Add(kind, name, thing) => Edit::Add { kind, value: thing.json(kind, &name), name },
            Step::Remove(kind, name) => Edit::Remove { kind, name },
            Step::AddBackend(cluster, backend) => Edit::AddBackend { cluster, backend },
            Step::RemoveBackend(cluster, backend) => Edit::RemoveBackend { cluster, backend },
            Step::Weigh(cluster, backend, weight) => Edit::WeighBackend { cluster, backend, weight },
            Step::Lead(name, cluster) => {
                Edit::Set { kind: Kind::Route, name, value: serde_json::json!({ "cluster": cluster }) }
            }
        }
    }
}

impl Wish {
    /// As the program is asked for it.
    pub(crate) fn what(&self) -> What {
        match self {
            Wish::Whole(document) => What::Document(document.clone()),
            Wish::Steps(steps) => What::Edits(steps.iter().map(Step::edit).collect()),
            Wish::Back(to) => What::Rollback(to.map(Generation)),
        }
    }
}

/// Draws documents.
#[derive(Debug)]
pub(crate) struct Author {
    rng: Rng,
    /// Marks of routes given so far: each version of a route has its own.
    marks: u64,
}

fn some_route(rng: &mut Rng, document: &Document) -> Option<Name> {
    let names: Vec<&Name> = document
        .routes
        .iter()
        .filter(|(name, route)| name.as_str().starts_with('r') && route.respond.is_none())
        .map(|(name, _)| name)
        .collect();
    rng.choice(names).cloned()
}

/// The address of a listener that has it for itself, unless it was moved.
pub(crate) fn front(number: usize, moved: bool) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 1000 + 10 * number as u16 + u16::from(moved)))
}

fn backend(cluster: &str, number: u8) -> Backend {
    let spoken = cluster.chars().next().unwrap_or('h');
    let port = SPOKEN.iter().find(|(kind, _)| *kind == spoken).map_or(80, |(_, port)| *port);
    let third = 10 * (spoken as u8 % 16) + cluster.as_bytes()[1] - b'0';
    Backend::at(SocketAddr::from(([10, 0, third, number], port)))
}

impl Author {
    pub(crate) fn new(rng: Rng) -> Self {
        Author { rng, marks: 0 }
    }

    /// The first document: all that stays as it is, and some of the rest.
    pub(crate) fn document(&mut self) -> Document {
        let mut document = Document::default();
        document.workers.count = WorkerCount::Fixed(self.rng.u16(1..=3));
        for (kind, _) in SPOKEN {
            for number in 0..3 {
                let name = format!("{kind}{number}");
                let cluster = self.cluster(&name);
                document.clusters.insert(name.as_str().into(), cluster);
            }
        }
        let certificate = self.certificate();
        document.certificates.insert("k".into(), certificate);
        for (number, (name, ..)) in LISTENERS.iter().enumerate() {
            if number < STABLE || self.rng.bool() {
                let listener = self.listener(number);
                document.listeners.insert((*name).into(), listener);
            }
        }
        let mut stable = self.route(&document, "h0");
        (stable.host, stable.path) = (vec![ServerName::Exact(HOSTS[0].into())], PathMatch::Prefix("/".into()));
        (stable.cluster, stable.respond) = (Some("h0".into()), None);
        document.routes.insert("stable".into(), Route { listener: "h0".into(), ..stable.clone() });
        (stable.host, stable.path) = (vec![ServerName::Exact(SECURED.into())], PathMatch::Prefix(STABLE_PATH.into()));
        document.routes.insert("stable-x".into(), Route { listener: "x0".into(), ..stable });
        for _ in 0..self.rng.usize(0..5) {
            let step = self.put_route(&document, Step::Put);
            let mut next = document.clone();
            let done = step.model(&mut next);
            if done.is_ok() && kakei_config::check(&next).is_ok() {
                document = next;
            }
        }
        document
    }

    fn policy(&mut self) -> OnChange {
        match self.rng.u8(0..3) {
            0 => OnChange::Keep,
            1 => OnChange::Close,
            _ => OnChange::Drain(self.short()),
        }
    }

    fn short(&mut self) -> Duration {
        Duration::from_millis(self.rng.u64(1..=15) * 100)
    }

    fn cluster(&mut self, name: &str) -> Cluster {
        let mut cluster = Cluster { backends: Vec::new(), ..Cluster::default() };
        let count = self.rng.u8(1..=3);
        cluster.backends = (1..=count).map(|number| backend(name, number)).collect();
        (cluster.udp.front_timeout, cluster.udp.back_timeout) = (Duration::from_secs(2), Duration::from_secs(2));
        cluster.http.idle_timeout = Some(Duration::from_secs(1));
        if name.ends_with('0') {
            return cluster;
        }
        cluster.udp.on_backend_removed = [OnBackend::Keep, OnBackend::Move, OnBackend::Close][self.rng.usize(0..3)];
        cluster.tcp.on_backend_removed = self.policy();
        if name == "h2" {
            cluster.backends.push(Backend::at(BackendAddress::Host(NAMED.into(), 80)));
        }
        if name.ends_with('1') && self.rng.bool() {
            let (interval, timeout) = (Duration::from_millis(500), Duration::from_millis(200));
            let mut health = Health { interval, timeout, rise: 1, fall: 1, ..Health::default() };
            match name.starts_with('u') {
                true => {
                    let expect = kakei_config::Expect::Any;
                    health.udp = Some(UdpCheck { send: b"probe".to_vec(), expect, port: None });
                }
                false => health.tcp = Some(TcpCheck::default()),
            }
            cluster.health = Some(health.into());
        }
        cluster
    }

    fn certificate(&mut self) -> Certificate {
        let pem = CERTIFICATES[self.rng.usize(0..2)];
        let chain = pem.split_once("-----BEGIN PRIVATE KEY").map_or(pem, |(chain, _)| chain);
        Certificate { chain: Pem::Text(chain.to_owned()), key: Pem::Text(pem.to_owned()), ocsp: None }
    }

    fn listener(&mut self, number: usize) -> Listener {
        let (name, protocol, is_secured) = LISTENERS[number];
        let kind = match protocol {
            Protocol::Udp => 'u',
            Protocol::Tcp => 't',
            Protocol::Http => 'h',
        };
        let is_stable = number < STABLE;
        let of = if is_stable { 0 } else { self.rng.u8(1..3) };
        let moved = !is_stable && self.rng.u8(0..4) == 0;
        let mut bind = vec![front(number, moved)];
        if !is_stable && self.rng.u8(0..4) == 0 {
            bind.push(front(number, !moved));
        }
        let certificates = Shown::Named(vec!["k".into()]);
        let tls = is_secured.then(|| ListenerTls { certificates, ..ListenerTls::default() });
        let drain_timeout = self.short();
        // Only what no route matches goes there.
        let cluster = (name != "h1" || self.rng.bool()).then(|| Name::new(format!("{kind}{of}")));
        Listener { protocol, bind, cluster, tls, drain_timeout, ..Listener::default() }
    }

    fn route(&mut self, document: &Document, listener: &str) -> Route {
        self.marks += 1;
        let mark = format!("t{}", self.marks);
        let mut route = Route { listener: listener.into(), on_change: self.policy(), ..Route::default() };
        let http = LISTENERS.iter().any(|(name, protocol, _)| *name == listener && *protocol == Protocol::Http);
        if !http {
            route.sni = vec![ServerName::Exact(SECURED.into())];
            route.cluster = Some(Name::new(format!("t{}", self.rng.u8(0..3))));
            return route;
        }
        route.host = vec![ServerName::Exact(HOSTS[self.rng.usize(1..HOSTS.len())].into())];
        if listener == "x0" {
            route.host = vec![ServerName::Exact(SECURED.into())];
        }
        route.path = PathMatch::Prefix(PATHS[self.rng.usize(0..PATHS.len())].into());
        if self.rng.u8(0..4) == 0 {
            route.respond = Some(Respond { status: 200, body: mark, ..Respond::default() }.into());
            return route;
        }
        let clusters: Vec<&Name> = document.clusters.keys().filter(|name| name.as_str().starts_with('h')).collect();
        route.cluster = Some(self.rng.choice(clusters).cloned().unwrap_or_else(|| "h0".into()));
        route.request.set.insert("x-mark".into(), mark.clone());
        route.response.set.insert("x-mark".into(), mark);
        route
    }

    fn put_route(&mut self, document: &Document, how: fn(Kind, Name, Thing) -> Step) -> Step {
        let listener = ["h0", "x0", "h1", "s0", "s1"][self.rng.usize(0..5)];
        let route = self.route(document, listener);
        let name = Name::new(format!("r{}", self.rng.u8(0..6)));
        how(Kind::Route, name, Thing::Route(Box::new(route)))
    }

    fn some_cluster(&mut self) -> String {
        let (kind, _) = SPOKEN[self.rng.usize(0..3)];
        format!("{kind}{}", self.rng.u8(1..4))
    }

    /// One thing that is changed, or several that go together.
    fn steps(&mut self, document: &Document) -> Vec<Step> {
        let cluster = self.some_cluster();
        let name = Name::new(&cluster);
        let known = document.clusters.get(&name);
        let some = |rng: &mut Rng| known.and_then(|c| rng.choice(c.backends.iter().map(|b| b.name.clone())));
        match self.rng.u8(0..14) {
            0..=2 => vec![self.put_route(document, Step::Put)],
            3 => vec![self.put_route(document, Step::Add)],
            4 => vec![Step::Remove(Kind::Route, Name::new(format!("r{}", self.rng.u8(0..6))))],
            5 => vec![Step::AddBackend(name, backend(&cluster, self.rng.u8(1..6)))],
            6 => match some(&mut self.rng) {
                Some(backend) => vec![Step::RemoveBackend(name, backend)],
                None => vec![Step::RemoveBackend(name, "nobody".into())],
            },
            7 => match some(&mut self.rng) {
                Some(backend) => vec![Step::Weigh(name, backend, self.rng.u32(0..3))],
                None => vec![Step::Weigh(name, "nobody".into(), 1)],
            },
            8 => {
                let thing = Thing::Cluster(Box::new(self.cluster(&cluster)));
                vec![Step::Put(Kind::Cluster, name, thing)]
            }
            9 => self.remove_cluster(document, name),
            10 | 11 => self.turn_listener(document),
            12 => vec![Step::Put(Kind::Certificate, "k".into(), Thing::Certificate(self.certificate()))],
            _ => match some_route(&mut self.rng, document) {
                Some(route) => {
                    let kind = if document.routes[&route].sni.is_empty() { 'h' } else { 't' };
                    vec![Step::Lead(route, Name::new(format!("{kind}{}", self.rng.u8(0..4))))]
                }
                None => vec![Step::Lead("none".into(), "h0".into())],
            },
        }
    }

    /// A cluster goes, with whatever leads to it; or without, which can't be.
    fn remove_cluster(&mut self, document: &Document, name: Name) -> Vec<Step> {
        let mut steps = vec![Step::Remove(Kind::Cluster, name.clone())];
        if self.rng.u8(0..3) == 0 {
            return steps;
        }
        let routes = document.routes.iter().filter(|(_, route)| route.cluster.as_ref() == Some(&name));
        steps.extend(routes.map(|(route, _)| Step::Remove(Kind::Route, route.clone())));
        for (listener, old) in document.listeners.iter().filter(|(_, old)| old.cluster.as_ref() == Some(&name)) {
            let cluster = Some(Name::new(format!("{}0", &name.as_str()[..1])));
            let other = Thing::Listener(Box::new(Listener { cluster, ..old.clone() }));
            steps.push(Step::Put(Kind::Listener, listener.clone(), other));
        }
        self.rng.shuffle(&mut steps);
        steps
    }

    /// A listener comes, goes with its routes, or becomes another one.
    fn turn_listener(&mut self, document: &Document) -> Vec<Step> {
        let number = self.rng.usize(STABLE..LISTENERS.len());
        let name = Name::new(LISTENERS[number].0);
        if document.listeners.contains_key(&name) && self.rng.bool() {
            let routes = document.routes.iter().filter(|(_, route)| route.listener == name);
            let mut steps: Vec<Step> = routes.map(|(route, _)| Step::Remove(Kind::Route, route.clone())).collect();
            steps.push(Step::Remove(Kind::Listener, name));
            return steps;
        }
        let mut listener = self.listener(number);
        if self.rng.u8(0..10) == 0 {
            // Somebody else has it.
            listener.bind = vec![front(3, false)];
        }
        vec![Step::Put(Kind::Listener, name, Thing::Listener(Box::new(listener)))]
    }

    /// What is asked for while this runs, where these generations ran before.
    pub(crate) fn wish(&mut self, document: &Document, ran: &[u64]) -> Wish {
        match self.rng.u8(0..16) {
            0 => Wish::Back(None),
            1 | 2 if !ran.is_empty() => Wish::Back(Some(ran[self.rng.usize(0..ran.len())])),
            3 => Wish::Back(Some(self.rng.u64(0..200))),
            4 | 5 => Wish::Whole(Box::new(self.whole(document))),
            6..=9 => {
                let mut next = document.clone();
                let mut steps = Vec::new();
                for _ in 0..self.rng.usize(1..6) {
                    let some = self.steps(&next);
                    // What comes later is about what came of the earlier ones.
                    for step in &some {
                        let _ = step.clone().model(&mut next);
                    }
                    steps.extend(some);
                }
                Wish::Steps(steps)
            }
            _ => Wish::Steps(self.steps(document)),
        }
    }

    fn whole(&mut self, document: &Document) -> Document {
        let mut next = document.clone();
        for _ in 0..self.rng.usize(0..5) {
            let steps = self.steps(&next);
            for step in steps {
                let _ = step.model(&mut next);
            }
        }
        match self.rng.u8(0..8) {
            0 => next.access_log.to = Some(NOWHERE.to_owned()),
            1 => next.access_log.to = Some("stderr".to_owned()),
            2 => next.access_log.to = None,
            3 => next.workers.pin = true,
            _ => {}
        }
        next
    }
}
