//! The clients and the backend of one load, in one process and one loop, so that no switch between them costs anything.
//! It checks what arrives, and measures no one's CPU.

pub(super) mod messages;
pub(super) mod net;
pub(super) mod pattern;
pub(super) mod secured;

use std::io::BufRead;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use super::answer;
use super::args::Words;
use super::delays::Delays;
use super::pace::{Growth, PIECE};
use net::{Happened, Net, Slot};
use secured::Sessions;

/// How long a proxy may take until the first answer comes through it, and all connections to be open.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often the clock is looked at while nothing happens.
const TICK: Duration = Duration::from_millis(5);

/// What has been counted since the measurement began.
#[derive(Default)]
pub(super) struct Tally {
    /// Bytes, round trips or whole connections.
    pub(super) units: u64,
    /// What came back was not what had been sent.
    pub(super) wrong: u64,
    /// Connections that were refused or ended before their time.
    pub(super) lost: u64,
    pub(super) delays: Delays,
}

/// What clients and backend do.
pub(super) trait Shape {
    /// Whether it looks for events without end while it is measured, and never sleeps: a sleeper is woken by whoever
    /// sends, so that a proxy would pay for it as for nobody that sits on another machine.
    const SPINS: bool = false;

    fn tally(&mut self) -> &mut Tally;
    /// Whether every connection that belongs to it has carried something.
    fn settled(&self) -> bool;
    /// Connections that have carried something, where that is counted.
    fn opened(&self) -> usize {
        0
    }
    /// Have this many connections in all, where that can change.
    fn grow(&mut self, _connections: usize) {}
    /// Connect what is missing.
    fn tick(&mut self, net: &mut Net);
    fn arrived(&mut self, net: &mut Net);
    fn ready(&mut self, net: &mut Net, slot: Slot);
}

/// What a helper does for its parent, `run`: it prints `backend PORT`; is told the front's address when the proxy runs; tries
/// until one client has been answered (`first`); prints `start` when the measured part begins, then `carried …` with how
/// its units grew, and `end …` with its counts.
/// It ends with its standard input.
pub(super) fn run<S: Shape>(
    first: impl Fn() -> S,
    work: impl FnOnce(&mut Net) -> Result<(), String>,
) -> Result<(), String> {
    run_secured(None, first, work)
}

/// The same with clients that speak TLS by these sessions.
pub(super) fn run_secured<S: Shape>(
    sessions: Option<Sessions>,
    first: impl Fn() -> S,
    work: impl FnOnce(&mut Net) -> Result<(), String>,
) -> Result<(), String> {
    let mut net = Net::new(0)?;
    answer(&format!("backend {}", net.port()?));
    let told = line()?;
    net.aim(told.trim().parse::<SocketAddrV4>().map_err(|_| format!("`{told}` is no address"))?);
    net.secure(sessions);
    if !answered(&mut net, first) {
        answer("failed");
        return Ok(());
    }
    work(&mut net)?;
    // The connections stay until the parent has looked.
    line().map(drop)
}

/// Try until one client was answered through the proxy.
fn answered<S: Shape>(net: &mut Net, first: impl Fn() -> S) -> bool {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let mut one = first();
        drive(net, &mut one, Instant::now() + Duration::from_millis(200), true);
        let came = one.opened() == 1;
        net.close_all();
        if came {
            return true;
        }
        std::thread::sleep(TICK);
    }
    false
}

/// Have `shape` at work for `warm_ms=` and then, measured, for `measure_ms=`.
pub(super) fn load(net: &mut Net, mut shape: impl Shape, words: &Words) -> Result<(), String> {
    drive(net, &mut shape, Instant::now() + PATIENCE, true);
    let unopened = u8::from(!shape.settled());
    drive(net, &mut shape, Instant::now() + Duration::from_millis(words.get("warm_ms")?), false);
    let (early, unlike) = (std::mem::take(shape.tally()), net.unlike());
    answer("start");
    let begun = Instant::now();
    let until = begun + Duration::from_millis(words.get("measure_ms")?);
    let mut growth = Growth::new();
    while Instant::now() < until {
        drive(net, &mut shape, until.min(Instant::now() + PIECE), false);
        growth.note(shape.tally().units);
    }
    let seconds = begun.elapsed().as_secs_f64();
    answer(&growth.line());
    let Tally { units, wrong, lost, delays } = shape.tally();
    answer(&format!(
        "end units={units} wrong={} lost={} unlike={} unopened={unopened} seconds={seconds} p50_ns={} p99_ns={}",
        *wrong + early.wrong,
        *lost + early.lost,
        net.unlike() - unlike,
        delays.quantile(0.5),
        delays.quantile(0.99),
    ));
    Ok(())
}

/// The one connection of `shape`; then, when told, this many, each used once.
pub(super) fn idle(net: &mut Net, mut shape: impl Shape, connections: usize) -> Result<(), String> {
    drive(net, &mut shape, Instant::now() + PATIENCE, true);
    answer("start");
    line()?;
    shape.grow(connections);
    drive(net, &mut shape, Instant::now() + 6 * PATIENCE, true);
    let (opened, tally) = (shape.opened(), shape.tally());
    let unopened = connections.saturating_sub(opened);
    answer(&format!("end units={opened} wrong={} lost={} unopened={unopened}", tally.wrong, tally.lost));
    Ok(())
}

/// Let it run until then, or until it has settled.
fn drive<S: Shape>(net: &mut Net, shape: &mut S, until: Instant, settle: bool) {
    let pause = if S::SPINS && !settle { Duration::ZERO } else { TICK };
    while Instant::now() < until && !(settle && shape.settled()) {
        shape.tick(net);
        for index in 0..net.wait(pause) {
            match net.event(index) {
                Happened::Arrived => shape.arrived(net),
                Happened::Ready(slot) => shape.ready(net, slot),
            }
        }
    }
}

/// What the parent says next; nothing when it is gone.
fn line() -> Result<String, String> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|e| format!("the parent: {e}"))?;
    Ok(line)
}

/// What belongs to each connection, by its place in `Net`.
pub(super) struct Ends<E>(Vec<Option<E>>);

impl<E> Ends<E> {
    pub(super) fn new() -> Ends<E> {
        Ends(Vec::new())
    }

    pub(super) fn put(&mut self, slot: Slot, end: E) {
        if self.0.len() <= slot {
            self.0.resize_with(slot + 1, || None);
        }
        self.0[slot] = Some(end);
    }

    pub(super) fn get(&mut self, slot: Slot) -> Option<&mut E> {
        self.0.get_mut(slot)?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &E> {
        self.0.iter().flatten()
    }
}
