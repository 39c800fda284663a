//! The clients and the backend of one load, in one process and one loop, so that no switch between them costs anything.
//! It checks what arrives, and measures no one's CPU.

mod bulk;
mod messages;
mod net;
mod visits;

use std::io::BufRead;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use super::super::answer;
use crate::bench::args::Words;
use crate::bench::delays::Delays;
use net::{Happened, Net, Slot};

/// How long a proxy may take until the first echo comes through it, and all connections to be open.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the clock is looked at while nothing happens.
const TICK: Duration = Duration::from_millis(5);

/// What has been counted since the measurement began.
struct Tally {
    /// Bytes, round trips or whole connections.
    units: u64,
    /// What came back was not what had been sent.
    wrong: u64,
    /// Connections that were refused or ended before their time.
    lost: u64,
    delays: Delays,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally { units: 0, wrong: 0, lost: 0, delays: Delays::new() }
    }
}

/// What clients and backend do.
trait Shape {
    fn tally(&mut self) -> &mut Tally;
    /// Whether every connection that belongs to it has carried something.
    fn settled(&self) -> bool;
    /// Connections that have carried something, where that is counted.
    fn opened(&self) -> usize {
        0
    }
    /// Connect what is missing.
    fn tick(&mut self, net: &mut Net);
    fn arrived(&mut self, net: &mut Net);
    fn ready(&mut self, net: &mut Net, slot: Slot);
}

/// Run one load: `shape= connections= warm_ms= measure_ms=`. It prints `backend PORT`; is told the front's address when the
/// proxy runs; prints `start` when the measured part begins, and `end …` with its counts. It ends with its standard input.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let words = Words::read(args)?;
    let connections: usize = words.get("connections")?;
    let mut net = Net::new(0)?;
    answer(&format!("backend {}", net.port()?));
    let told = line()?;
    net.aim(told.trim().parse::<SocketAddrV4>().map_err(|_| format!("`{told}` is no address"))?);
    if !first_echo(&mut net) {
        answer("failed");
        return Ok(());
    }
    let shape: String = words.get("shape")?;
    match shape.as_str() {
        "down" => load(&mut net, &mut bulk::Bulk::new(true, connections), &words)?,
        "up" => load(&mut net, &mut bulk::Bulk::new(false, connections), &words)?,
        "messages" => load(&mut net, &mut messages::Messages::new(connections, true), &words)?,
        "visits" => load(&mut net, &mut visits::Visits::new(connections), &words)?,
        "idle" => idle(&mut net, connections)?,
        _ => return Err(format!("there is no shape `{shape}`")),
    }
    // The connections stay until the parent has looked.
    line().map(drop)
}

/// Try until one message has come back through the proxy.
fn first_echo(net: &mut Net) -> bool {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let mut one = messages::Messages::new(1, false);
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

fn load(net: &mut Net, shape: &mut impl Shape, words: &Words) -> Result<(), String> {
    drive(net, shape, Instant::now() + PATIENCE, true);
    let unopened = u8::from(!shape.settled());
    drive(net, shape, Instant::now() + Duration::from_millis(words.get("warm_ms")?), false);
    let early = std::mem::take(shape.tally());
    answer("start");
    let begun = Instant::now();
    drive(net, shape, begun + Duration::from_millis(words.get("measure_ms")?), false);
    let seconds = begun.elapsed().as_secs_f64();
    let Tally { units, wrong, lost, delays } = shape.tally();
    answer(&format!(
        "end units={units} wrong={} lost={} unopened={unopened} seconds={seconds} p50_ns={} p99_ns={}",
        *wrong + early.wrong,
        *lost + early.lost,
        delays.quantile(0.5),
        delays.quantile(0.99),
    ));
    Ok(())
}

/// One connection; then, when told, all of them, each used once.
fn idle(net: &mut Net, connections: usize) -> Result<(), String> {
    let mut shape = messages::Messages::new(1, false);
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
fn drive(net: &mut Net, shape: &mut impl Shape, until: Instant, settle: bool) {
    while Instant::now() < until && !(settle && shape.settled()) {
        shape.tick(net);
        for index in 0..net.wait(TICK) {
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
