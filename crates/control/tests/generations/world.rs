//! Everything around the control side: workers on their machines, clients, backends, a disk, host names, and a clock. Its
//! workers are late, fall, refuse to bind and are busy as the seed has it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use kakei_control::names::Names;
use kakei_control::store::{Store, StoreError};
use kakei_control::system::{System, Workers};
use kakei_proxy::seam::{BindKey, Command, Ticket};
use kakei_proxy::snapshot::Snapshot;
use kakei_proxy::worker::Role;
use kakei_runtime::engine::{BindError, BindReason, CommandError, EngineConfig, EngineEvent, StartError};
use kakei_runtime::records::RecordReader;
use kakei_runtime::stats::MachineStats;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::client::{At, Client, Seen};
use crate::disk::{Disk, End, Mounted};
use crate::machine::{Machine, wall_seconds};

/// Lines of a trace that are kept.
const TRACE: usize = 20_000;
/// How long a server that is down stays so, at most, in milliseconds; and how much longer what comes of it is looked for.
const DOWN: u64 = 3_000;
const AFTER: u64 = 9_000;

/// How often what goes wrong, of a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) binds: u32,
    pub(crate) busy: u32,
    pub(crate) panics: u32,
    pub(crate) stalls: u32,
    pub(crate) outages: u32,
    pub(crate) disk: u32,
}

/// What went wrong so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wrongs {
    pub(crate) binds: u64,
    pub(crate) busy: u64,
    pub(crate) stalls: u64,
    pub(crate) panics: u64,
}

/// What machines lead to.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) rng: Rng,
    pub(crate) clients: BTreeMap<u32, Client>,
    /// What the control side is told, by when and in which order.
    told: BTreeMap<(u64, u64), EngineEvent>,
    last_told: BTreeMap<u16, u64>,
    count: u64,
    lives: u64,
    /// Servers that were down, from when to when.
    down: Vec<(SocketAddr, u64, u64)>,
    pub(crate) violations: Vec<String>,
    pub(crate) trace: Trace,
}

/// A digest of what happened, and its last lines.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) digest: u64,
    pub(crate) lines: Vec<String>,
    now: u64,
}

impl Trace {
    pub(crate) fn line(&mut self, what: &str) {
        let line = format!("{:>7} {what}", self.now);
        for byte in line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.lines.len() < TRACE {
            self.lines.push(line);
        }
    }
}

impl Outside {
    pub(crate) fn violate(&mut self, what: String) {
        self.trace.line(&format!("BROKEN {what}"));
        self.violations.push(what);
    }

    pub(crate) fn next_life(&mut self) -> u64 {
        self.lives += 1;
        self.lives
    }

    pub(crate) fn tell(&mut self, now: u64, event: EngineEvent) {
        let worker = match &event {
            EngineEvent::Reply { worker, .. }
            | EngineEvent::Notice { worker, .. }
            | EngineEvent::WorkerPanicked { worker, .. }
            | EngineEvent::WorkerRestarted { worker, .. }
            | EngineEvent::WorkerStopped { worker, .. } => *worker,
        };
        let last = self.last_told.entry(worker).or_default();
        *last = (now + self.rng.u64(0..15)).max(*last);
        self.count += 1;
        self.told.insert((*last, self.count), event);
    }

    /// Whether a server answers.
    pub(crate) fn is_up(&self, address: SocketAddr, now: u64) -> bool {
        !self.down.iter().any(|(down, from, until)| *down == address && (*from..*until).contains(&now))
    }

    /// Whether one of them was down at that moment, or a while before.
    pub(crate) fn was_down(&self, addresses: &BTreeSet<SocketAddr>, then: u64) -> bool {
        let is_one = |(down, from, until): &(SocketAddr, u64, u64)| {
            addresses.contains(down) && *from <= then && then < until + AFTER
        };
        self.down.iter().any(is_one)
    }

    pub(crate) fn end(&mut self, client: u32, by_reset: bool, at: At) {
        self.trace.line(&format!("client {client} is told an end, by a reset: {by_reset}"));
        if let Some(client) = self.clients.get_mut(&client) {
            client.hear_end(by_reset, at);
        }
    }

    pub(crate) fn hear(&mut self, client: u32, bytes: &[u8], at: At) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.hear(bytes, at);
        }
    }

    fn by_address(&mut self, address: SocketAddr) -> Option<&mut Client> {
        self.clients.values_mut().find(|client| client.address == address)
    }

    pub(crate) fn hear_datagram(&mut self, to: SocketAddr, from: SocketAddr, bytes: &[u8], at: At) {
        match self.by_address(to) {
            Some(client) => client.hear_datagram(from, bytes, at),
            None => self.violate(format!("{to} is sent a datagram, and is nobody")),
        }
    }

    pub(crate) fn datagram_arrived(&mut self, now: u64, peer: SocketAddr, bytes: &[u8], at: At) {
        if let Some(client) = self.by_address(peer) {
            client.datagram_arrived(now, bytes, at);
        }
    }
}

/// The world.
#[derive(Debug)]
pub(crate) struct World {
    /// Milliseconds since the begin.
    pub(crate) now: u64,
    pub(crate) outside: Outside,
    pub(crate) machines: Vec<Machine>,
    pub(crate) weather: Weather,
    pub(crate) wrongs: Wrongs,
    pub(crate) disk: Rc<RefCell<Disk>>,
    /// Clients come.
    pub(crate) is_busy: bool,
    current: Option<Arc<Snapshot>>,
    bound: BTreeSet<BindKey>,
    notify: Rc<Notify>,
    begin: Instant,
    client: u32,
    pub(crate) seen: Vec<Seen>,
}

pub(crate) type Shared = Rc<RefCell<World>>;

impl World {
    /// Must be made inside of the runtime whose time it is.
    pub(crate) fn new(mut rng: Rng) -> Self {
        let disk = Disk::new(rng.fork());
        let outside = Outside {
            rng,
            clients: BTreeMap::new(),
            told: BTreeMap::new(),
            last_told: BTreeMap::new(),
            count: 0,
            lives: 0,
            down: Vec::new(),
            violations: Vec::new(),
            trace: Trace::default(),
        };
        World {
            now: 0,
            outside,
            machines: Vec::new(),
            weather: Weather::default(),
            wrongs: Wrongs::default(),
            disk: Rc::new(RefCell::new(disk)),
            is_busy: true,
            current: None,
            bound: BTreeSet::new(),
            notify: Rc::default(),
            begin: Instant::now(),
            client: 0,
            seen: Vec::new(),
        }
    }

    /// Whether the process has ended, though it may not know it yet.
    pub(crate) fn is_over(&self) -> bool {
        self.disk.borrow().is_over
    }

    fn happens(&mut self, of_thousand: u32) -> bool {
        of_thousand > 0 && self.outside.rng.u32(0..1000) < of_thousand
    }

    /// Let everything happen that is due by now.
    pub(crate) fn run(&mut self) {
        let now = Instant::now().duration_since(self.begin).as_millis() as u64;
        (self.now, self.outside.trace.now) = (now, now);
        if self.is_over() {
            return;
        }
        if !self.machines.is_empty() {
            self.trouble();
            self.arrive();
        }
        let World { machines, outside, .. } = self;
        machines.iter_mut().for_each(|machine| machine.run(now, outside));
        self.hear();
        let wanted: BTreeSet<BindKey> = self.current.iter().flat_map(|snapshot| snapshot.binds()).collect();
        let machines = &self.machines;
        self.bound.retain(|bind| wanted.contains(bind) || machines.iter().any(|machine| machine.held.contains(bind)));
        if self.outside.told.first_key_value().is_some_and(|((due, _), _)| *due <= now) {
            self.notify.notify_one();
        }
    }

    fn trouble(&mut self) {
        let at = self.outside.rng.usize(0..self.machines.len());
        if self.machines[at].rests_until.is_none() && self.happens(self.weather.panics) {
            self.wrongs.panics += 1;
            self.outside.trace.line(&format!("worker {at} falls"));
            match self.outside.rng.bool() {
                true => self.machines[at].panics_next = true,
                false => self.machines[at].panic(self.now, &mut self.outside),
            }
        }
        if self.happens(self.weather.outages) {
            // Of clusters that are looked after.
            let (kind, port) = [(5, 53), (4, 7), (8, 80)][self.outside.rng.usize(0..3)];
            let address = SocketAddr::from(([10, 0, 10 * kind + 1, self.outside.rng.u8(1..4)], port));
            let until = self.now + self.outside.rng.u64(100..DOWN);
            self.outside.down.push((address, self.now, until));
        }
    }

    fn arrive(&mut self) {
        if self.is_busy && self.outside.rng.u8(0..20) == 0 {
            self.client += 1;
            let client = Client::new(self.client, self.outside.rng.fork(), self.now);
            self.outside.trace.line(&format!("client {} comes to {}", self.client, client.dials));
            self.outside.clients.insert(self.client, client);
        }
        let count = self.machines.len();
        for (id, client) in &mut self.outside.clients {
            let machine = &mut self.machines[*id as usize % count];
            if client.is_gone {
                continue;
            }
            if !client.is_datagrams() && !client.is_connected && !client.is_over {
                if !client.is_arriving {
                    client.is_arriving = true;
                    if !machine.connect(client.dials, *id) {
                        client.refused(machine.at);
                    }
                }
                if !client.is_connected {
                    continue;
                }
            }
            client.act(self.now, machine.at);
            for bytes in std::mem::take(&mut client.datagrams) {
                machine.arrive(client.dials, client.address, bytes);
            }
        }
    }

    /// Take what clients saw.
    fn hear(&mut self) {
        let now = self.now;
        for client in self.outside.clients.values_mut() {
            self.seen.extend(client.seen.drain(..).map(|seen| Seen { when: now, ..seen }));
        }
    }

    /// The process is gone, and with it whatever it held.
    pub(crate) fn end(&mut self, end: End) {
        self.outside.trace.line(&format!("the process ends: {end:?}"));
        self.hear();
        self.machines.clear();
        self.outside.clients.clear();
        self.outside.told.clear();
        self.outside.last_told.clear();
        self.bound.clear();
        self.current = None;
        self.disk.borrow_mut().restart(end);
    }

    fn order(&mut self, worker: usize, ticket: Ticket, command: Command) {
        let mut due = self.now + self.outside.rng.u64(0..30);
        if self.happens(self.weather.stalls) {
            self.wrongs.stalls += 1;
            due += self.outside.rng.u64(2_000..14_000);
        }
        let orders = &mut self.machines[worker].orders;
        let due = due.max(orders.back().map_or(0, |(due, ..)| *due));
        orders.push_back((due, ticket, command));
    }
}

/// The system that a process of the simulation stands on.
#[derive(Debug)]
pub(crate) struct Simulated(pub(crate) Shared);

impl System for Simulated {
    type Workers = Crew;

    fn start(&mut self, config: EngineConfig) -> Result<Crew, StartError> {
        let mut world = self.0.borrow_mut();
        for index in 0..config.workers {
            let life = world.outside.next_life();
            let seed = config.seed ^ u64::from(index) ^ life << 32;
            world.machines.push(Machine::new(Role { index, seed }, life));
        }
        Ok(Crew(Rc::clone(&self.0)))
    }

    fn store(&mut self, _: Option<&str>) -> Result<Store, StoreError> {
        Ok(Store::on(Mounted(Rc::clone(&self.0.borrow().disk))))
    }

    fn names(&mut self) -> Names {
        let begin = self.0.borrow().begin;
        Names::with(move |_, _| async move {
            // Others every now and then, for a second at least.
            let turn = Instant::now().duration_since(begin).as_secs() / 3;
            let addresses = [&[1][..], &[1, 2], &[3]][turn as usize % 3];
            let addresses = addresses.iter().map(|last| IpAddr::from([10, 9, 9, *last])).collect();
            Ok((addresses, Duration::from_secs(1)))
        })
    }

    fn now(&self) -> SystemTime {
        let now = self.0.borrow().now;
        UNIX_EPOCH + Duration::from_secs(wall_seconds(now)) + Duration::from_millis(now % 1_000)
    }
}

/// The workers as the owner has them.
#[derive(Debug)]
pub(crate) struct Crew(Shared);

impl Workers for Crew {
    type Prepared = BTreeSet<BindKey>;

    fn prepare(&mut self, binds: &[BindKey]) -> Result<BTreeSet<BindKey>, BindError> {
        let mut world = self.0.borrow_mut();
        for bind in binds {
            let failing = world.weather.binds;
            // Some worker's socket can't be had.
            if !world.bound.contains(bind) && world.happens(failing) {
                world.wrongs.binds += 1;
                return Err(BindError { bind: *bind, reason: BindReason::InUse });
            }
        }
        Ok(binds.iter().copied().collect())
    }

    fn publish(
        &mut self,
        ticket: Ticket,
        snapshot: Arc<Snapshot>,
        prepared: BTreeSet<BindKey>,
    ) -> Result<(), CommandError> {
        let mut world = self.0.borrow_mut();
        let busy = world.weather.busy;
        if world.current.is_some() && world.happens(busy) {
            world.wrongs.busy += 1;
            return Err(CommandError::Busy(0));
        }
        world.bound.extend(prepared);
        if let Some(bind) = snapshot.binds().find(|bind| !world.bound.contains(bind)) {
            world.outside.violate(format!("{bind:?} is published and was not prepared"));
        }
        world.current = Some(Arc::clone(&snapshot));
        for worker in 0..world.machines.len() {
            world.order(worker, ticket, Command::Publish(Arc::clone(&snapshot)));
        }
        Ok(())
    }

    fn send(&mut self, worker: u16, ticket: Ticket, command: Command) -> Result<(), CommandError> {
        let mut world = self.0.borrow_mut();
        match usize::from(worker) < world.machines.len() {
            true => world.order(usize::from(worker), ticket, command),
            false => return Err(CommandError::NoWorker(worker)),
        }
        Ok(())
    }

    async fn event(&mut self) -> EngineEvent {
        loop {
            let notify = {
                let mut world = self.0.borrow_mut();
                let now = world.now;
                match world.outside.told.first_entry().filter(|entry| entry.key().0 <= now) {
                    Some(entry) => return entry.remove(),
                    None => Rc::clone(&world.notify),
                }
            };
            notify.notified().await;
        }
    }

    fn local_addr(&self, bind: BindKey) -> Option<SocketAddr> {
        self.0.borrow().bound.contains(&bind).then_some(bind.address)
    }

    fn records(&mut self) -> Option<RecordReader> {
        None
    }

    fn machine_stats(&self, _: u16) -> Option<MachineStats> {
        None
    }

    fn stop(self) {}
}
