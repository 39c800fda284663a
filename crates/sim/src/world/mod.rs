//! A whole run: clients, network, workers on their machines, backends and the control side, driven by one agenda.
//! Nothing here knows real time, and everything follows from the seed.

mod candidates;
mod control;
mod steps;
mod traffic;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use kakei_config::Document;
use kakei_proxy::seam::{Instant, OpenError};
use kakei_proxy::worker::Role;

use self::control::{Asked, Control};
use self::steps::Pace;
use crate::agenda::Agenda;
use crate::backend::Backends;
use crate::check::Truth;
use crate::client::{Client, Town};
use crate::documents::Author;
use crate::machine::{Host, Machine};
use crate::network::{Network, Packet};
use crate::profile::{Profile, Weather};
use crate::report::{Report, Trace};

/// Events of one run before it is called endless.
const ENDLESS: u64 = 3_000_000;

/// What is to happen.
#[derive(Debug)]
enum Happening {
    /// A datagram reaches where it was sent.
    Arrives(Packet, Place),
    /// A worker takes a step, unless another was scheduled in its place.
    Step { worker: usize, serial: u64 },
    /// A client acts.
    Client(usize),
    /// A backend answers.
    Answers { backend: SocketAddr, to: SocketAddr, bytes: Rc<[u8]> },
    /// A stream was opened or refused.
    Stream { worker: usize, serial: u64, error: Option<OpenError> },
    /// A command reaches a worker.
    Command { worker: usize, asked: Asked },
    /// The control side changes the configuration.
    Change,
    /// What a change brings was probed for long enough.
    Promote,
    /// Descriptors run out on a machine.
    NoDescriptors,
    /// A server goes down.
    Outage,
    /// A host is cut off.
    Partition,
    /// The control side drains every worker.
    Drain,
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Front,
    Upstream,
    Client,
    Backend,
}

/// The run.
pub(crate) struct World {
    now: Instant,
    rng: Rng,
    agenda: Agenda<Happening>,
    network: Network,
    host: Host,
    machines: Vec<Machine>,
    paces: Vec<Pace>,
    clients: Vec<Client>,
    backends: Backends,
    control: Control,
    truth: Truth,
    trace: Trace,
    profile: Profile,
    until: Instant,
}

impl World {
    /// A world on this document (or a random one) in which nothing has happened yet.
    pub(crate) fn new(document: Option<&Document>, seed: u64, profile: Profile, traced: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut author = Author::new(&profile, seed % 16 == 4, rng.fork());
        let mut document = document.cloned().unwrap_or_else(|| author.document());
        // Records are how a flow is believed to have ended.
        document.access_log.to = Some("the checkers".into());
        let machine_seed = rng.u64(..);
        let machine = |index: u16| {
            let role = Role { index, seed: machine_seed.wrapping_add(u64::from(index)) };
            Machine::new(role, profile.machine.clone(), Rng::with_seed(machine_seed ^ u64::from(index) << 32))
        };
        let lateness = profile.machine.lateness;
        let mut world = World {
            now: Instant::ZERO,
            agenda: Agenda::new(),
            network: Network::new(profile.network.clone(), rng.fork()),
            host: Host::new(profile.workers, profile.machine.receive_queue, rng.u64(..)),
            machines: (0..profile.workers).map(machine).collect(),
            paces: (0..profile.workers).map(|_| Pace::default()).collect(),
            clients: Vec::new(),
            backends: Backends::new(profile.backends.clone(), profile.longest, rng.fork()),
            control: Control::new(document, author, &profile, rng.fork()),
            truth: Truth::new(profile.workers, profile.weather == Weather::Calm, lateness),
            trace: Trace::new(traced),
            until: Instant::ZERO + profile.traffic,
            profile,
            rng,
        };
        world.plan();
        world
    }

    /// Put what is to happen on the agenda.
    fn plan(&mut self) {
        self.publish();
        let town = Town { document: &self.control.document, profile: &self.profile };
        for nth in 0..self.profile.clients {
            self.clients.extend(Client::new(nth, &town, self.rng.fork()));
        }
        let traffic = self.profile.traffic.as_micros() as u64;
        for client in 0..self.clients.len() {
            let at = Duration::from_micros(20_000 + self.rng.u64(0..=traffic / 2));
            self.agenda.at(Instant::ZERO + at, Happening::Client(client));
        }
        let profile = self.profile.clone();
        self.scatter(profile.changes, || Happening::Change);
        self.scatter(profile.machine.descriptor_bursts, || Happening::NoDescriptors);
        self.scatter(profile.backends.outages, || Happening::Outage);
        self.scatter(profile.network.partitions, || Happening::Partition);
        let asked = self.rng.u32(1..=4);
        for (times, kind) in [(asked, Asked::Stats), (asked, Asked::Flows)] {
            for _ in 0..times {
                let worker = self.rng.usize(0..self.machines.len());
                self.scatter(1, || Happening::Command { worker, asked: kind.clone() });
            }
        }
        for _ in 0..profile.snapshots {
            let (worker, restore) = (self.rng.usize(0..self.machines.len()), self.rng.u8(0..4) > 0);
            self.scatter(1, || Happening::Command { worker, asked: Asked::State { restore } });
        }
        let drain = self.until + Duration::from_micros(self.rng.u64(0..=500_000));
        self.agenda.at(drain, Happening::Drain);
    }

    fn scatter(&mut self, times: u32, what: impl Fn() -> Happening) {
        let traffic = self.profile.traffic.as_micros() as u64;
        for _ in 0..times {
            let at = Duration::from_micros(20_000 + self.rng.u64(0..=traffic));
            self.agenda.at(Instant::ZERO + at, what());
        }
    }

    /// Let everything happen; what came of it.
    pub(crate) fn run(mut self, seed: u64) -> Report {
        let mut events = 0;
        while let Some((at, what)) = self.agenda.next() {
            debug_assert!(at >= self.now, "time never goes back");
            self.now = at;
            events += 1;
            if events > ENDLESS {
                self.truth.violated(None, "the run never comes to rest".into());
            }
            self.happens(what);
            if !self.truth.violations.is_empty() {
                break;
            }
        }
        if self.truth.violations.is_empty() {
            self.rest();
        }
        let (digest, trace) = self.trace.into_parts();
        let kind =
            format!("{:?}, {} workers, {} clients", self.profile.weather, self.profile.workers, self.clients.len());
        Report {
            seed,
            kind: kind.to_lowercase(),
            lasted: self.now.since(Instant::ZERO),
            counters: self.truth.counters,
            lost: self.network.lost,
            doubled: self.network.doubled,
            digest,
            violations: self.truth.violations,
            trace,
        }
    }

    fn happens(&mut self, what: Happening) {
        match what {
            Happening::Arrives(packet, place) => self.arrives(packet, place),
            Happening::Step { worker, serial } => self.step(worker, serial),
            Happening::Client(client) => self.client_acts(client),
            Happening::Answers { backend, to, bytes } => self.answers(backend, to, bytes),
            Happening::Stream { worker, serial, error } => {
                self.machines[worker].stream_opened(serial, error);
                self.wake(worker);
            }
            Happening::Command { worker, asked } => self.command(worker, asked),
            Happening::Change => self.change(),
            Happening::Promote => self.promote(),
            Happening::NoDescriptors => self.run_out_of_descriptors(),
            Happening::Outage => self.outage(),
            Happening::Partition => self.partition(),
            Happening::Drain => self.drain(),
        }
    }

    fn run_out_of_descriptors(&mut self) {
        let worker = self.rng.usize(0..self.machines.len());
        let length = Duration::from_millis(self.rng.u64(1..400));
        self.machines[worker].no_descriptors_until = self.now + length;
        self.trace.line(self.now, || format!("worker {worker} has no descriptors for {length:?}"));
    }

    fn outage(&mut self) {
        if let Some((address, length)) = self.backends.outage(self.now) {
            self.trace.line(self.now, || format!("{address} is down for {length:?}"));
        }
    }

    fn partition(&mut self) {
        let client = self.clients.get(self.rng.usize(0..self.clients.len().max(1))).map(|c| c.address);
        let host = if self.rng.bool() { client } else { self.backends.any() };
        let length = Duration::from_millis(self.rng.u64(20..900));
        if let Some(host) = host {
            self.network.cut_off(host.ip(), self.now + length);
            self.trace.line(self.now, || format!("{} is cut off for {length:?}", host.ip()));
        }
    }

    /// Everything has happened: nothing may be left.
    fn rest(&mut self) {
        self.last_stats();
        self.truth.ends(self.now);
        for worker in 0..self.machines.len() {
            let open = self.machines[worker].open_sockets();
            if open > 0 {
                self.truth.violated(Some(worker as u16), format!("{open} sockets are open at the end"));
            }
            if !self.control.drained.contains_key(&worker) {
                self.truth.violated(Some(worker as u16), "never said that it is drained".into());
            }
        }
        if self.truth.calm && self.network.lost > 0 {
            self.truth.violated(None, "the simulator lost datagrams in calm weather".into());
        }
    }
}
