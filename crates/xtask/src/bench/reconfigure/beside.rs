//! Every proxy in turn: what a changed route costs it, and what traffic by another route notices of changes.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Asked;
use super::origin::{self, LETTERS};
use super::peers::{Ground, Peer, TRAFFIC, folder, host};
use super::traffic::{Seen, Traffic, letter};
use crate::bench::ground::{Tools, free_port};
use crate::bench::process::{Running, count, usage};
use crate::bench::programs::Peer as _;
use crate::bench::say;

/// The core of the proxy. Clients, origins and who changes it have the other ones.
const CORE: &str = "0";
/// How long a proxy may take to start, a change to be in force, and replaced processes to go.
const START: Duration = Duration::from_secs(120);
const IN_FORCE: Duration = Duration::from_secs(60);
const GOING: Duration = Duration::from_secs(15);
/// How often somebody looks whether it is so far.
const LOOK: Duration = Duration::from_millis(1);
/// How long processes that were just replaced are left alone: HAProxy loses a signal that comes too early.
const REST: Duration = Duration::from_millis(100);
/// After this time it is told again, and then after twice as long each time: HAProxy begins a reload anew that it is told of
/// while another one is under way.
const AGAIN: Duration = Duration::from_secs(5);
/// Changes come this often, where they can.
const PACE: Duration = Duration::from_millis(1);

/// What was measured of one proxy with one number of routes.
pub(super) struct Row {
    size: usize,
    peer: Peer,
    /// Changes without traffic: how many, their times in order, CPU of each.
    changes: usize,
    times: Vec<Duration>,
    cpu: Duration,
    /// Traffic without changes, and with this many of them a second.
    quiet: Seen,
    busy: Seen,
    per_s: f64,
}

impl Row {
    pub(super) fn json(&self) -> Value {
        let seen = |seen: &Seen| {
            json!({
                "requests": seen.requests, "lost": seen.lost, "closed": seen.closed,
                "p50_ns": seen.delays.quantile(0.5), "p99_ns": seen.delays.quantile(0.99),
            })
        };
        json!({
            "size": self.size, "peer": self.peer.name(), "changes": self.changes, "p50_ms": ms(self.time(50)),
            "p99_ms": ms(self.time(99)), "cpu_ms": ms(self.cpu), "changes_per_s": self.per_s,
            "quiet": seen(&self.quiet), "busy": seen(&self.busy),
        })
    }

    /// The time that this many of a hundred changes took at most.
    fn time(&self, share: usize) -> Duration {
        self.times
            .get((self.times.len() * share / 100).min(self.times.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Both tables.
pub(super) fn tables(rows: &[Row]) -> String {
    let mut text = "\n| routes and clusters | peer | changes | p50 | p99 | CPU a change | beside kakei |\n|--:|---|--:|--:|--:|--:|--:|\n".to_owned();
    for row in rows {
        let ours = rows.iter().find(|other| other.size == row.size && other.peer == Peer::OURS);
        let ratio = ours.map_or("–".to_owned(), |ours| format!("{:.1}", ms(row.cpu) / ms(ours.cpu).max(1e-9)));
        // Writing into a string can't fail, here and below.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.2} ms | {:.2} ms | {:.3} ms | {ratio} |",
            row.size,
            row.peer.name(),
            row.changes,
            ms(row.time(50)),
            ms(row.time(99)),
            ms(row.cpu),
        );
    }
    text += "\n| routes and clusters | peer | changes/s | requests | p50 without | p50 with | p99 without | p99 with | lost | connections closed |\n\
             |--:|---|--:|--:|--:|--:|--:|--:|--:|--:|\n";
    for row in rows {
        let at = |seen: &Seen, q| format!("{:.2} ms", seen.delays.quantile(q) as f64 / 1e6);
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {} | {} | {} | {} | {} | {} | {} |",
            row.size,
            row.peer.name(),
            row.per_s,
            row.busy.requests,
            at(&row.quiet, 0.5),
            at(&row.busy, 0.5),
            at(&row.quiet, 0.99),
            at(&row.busy, 0.99),
            row.quiet.lost + row.busy.lost,
            row.quiet.closed + row.busy.closed,
        );
    }
    text
}

/// Every size, every peer.
pub(super) fn run(tools: &Tools, peers: &[Peer], asked: &Asked) -> Result<Vec<Row>, String> {
    leave_core()?;
    let origins = origin::start()?;
    let mut rows = Vec::new();
    for size in asked.sizes(&[100], &[100, 10_000]) {
        for &peer in peers {
            say(&format!("{size} routes and clusters, {}", peer.name()));
            let dir = tools.dir.join(format!("{}-{size}", peer.name()));
            folder(&dir)?;
            let front = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, free_port()?);
            let ground = Ground { front, origins, dir, files: tools.files.min(10_000), leads: (0..size).collect() };
            let row = Stage::start(tools, peer, ground, asked.disk)?.row(asked)?;
            if asked.smoke && peer == Peer::OURS && row.quiet.lost + row.busy.lost + row.busy.closed > 0 {
                return Err(format!("{} requests were lost, {} connections closed", row.busy.lost, row.busy.closed));
            }
            rows.push(row);
        }
    }
    Ok(rows)
}

/// What this process does is not to take time from a proxy.
fn leave_core() -> Result<(), String> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut others = rustix::thread::CpuSet::new();
    (1..cores.max(2)).for_each(|core| others.set(core));
    // On a machine with one core there is nowhere to go.
    if cores > 1 {
        rustix::thread::sched_setaffinity(None, &others).map_err(|e| format!("the other cores: {e}"))
    } else {
        Ok(())
    }
}

/// One proxy, running.
struct Stage {
    peer: Peer,
    ground: Ground,
    running: Running,
    /// How many processes it is while nothing is being replaced.
    processes: usize,
    /// Where Kakei's state is.
    state: PathBuf,
    /// How many changes were made.
    made: usize,
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The next run has a folder of its own.
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

impl Stage {
    fn start(tools: &Tools, peer: Peer, ground: Ground, disk: bool) -> Result<Stage, String> {
        let state = PathBuf::from(format!("/dev/shm/kakei-beside-{}-{}", std::process::id(), ground.leads.len()));
        let link = ground.dir.join("state");
        let made = if disk {
            std::fs::create_dir_all(&link)
        } else {
            std::fs::create_dir_all(&state).and_then(|()| std::os::unix::fs::symlink(&state, &link))
        };
        made.map_err(|e| format!("{}: {e}", link.display()))?;
        let program = peer.program().and_then(|program| program.find(&tools.kakei));
        let program = program.ok_or_else(|| format!("{} is not installed", peer.name()))?;
        let words = ground.install(peer)?;
        let log = ground.dir.join("log");
        let running = Running::start(tools.place(CORE), &program, &words, &log)?;
        let mut stage = Stage { peer, ground, running, processes: 0, state, made: 0 };
        let begun = Instant::now();
        while !stage.leads(TRAFFIC, 0) {
            if begun.elapsed() > START || !stage.running.alive() {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("{} doesn't serve:\n{said}", peer.name()));
            }
            thread::sleep(5 * LOOK);
        }
        // Who has read a large document is busy with it for a while.
        thread::sleep(Duration::from_millis(500));
        stage.processes = count(stage.running.pid());
        Ok(stage)
    }

    fn row(mut self, asked: &Asked) -> Result<Row, String> {
        let changes = match self.peer {
            Peer::Kakei | Peer::HaproxyMap | Peer::SozuCommand => asked.changes(20, 200),
            _ => asked.changes(2, 5).min(20),
        };
        let alone = (0..changes).map(|_| self.change_alone()).collect::<Result<Vec<_>, String>>()?;
        let (mut times, costs): (Vec<_>, Vec<_>) = alone.into_iter().unzip();
        times.sort_unstable();
        let cpu = costs.iter().sum::<Duration>() / changes.max(1) as u32;
        let time = Duration::from_secs_f64(asked.seconds);
        let traffic = Traffic::start(self.ground.front, &host(TRAFFIC));
        thread::sleep(time);
        let quiet = traffic.end();
        let traffic = Traffic::start(self.ground.front, &host(TRAFFIC));
        let per_s = self.change_for(time);
        let busy = traffic.end();
        let (size, peer) = (self.ground.leads.len(), self.peer);
        Ok(Row { size, peer, changes, times, cpu, quiet, busy, per_s: per_s? })
    }

    /// The next route that is changed, and the cluster that it leads to next: always one of the other origin.
    fn next(&mut self) -> (usize, usize) {
        // All over the document, but for the route and the cluster of the traffic.
        let route = 2 + self.made * 7_919 % (self.ground.leads.len() - 2);
        self.made += 1;
        (route, self.ground.leads[route] ^ 1)
    }

    /// Change one route, and wait until it is in force and what it replaced is gone: how long the former took, and what CPU
    /// all of it took, without the requests that show it where the proxy says so itself.
    fn change_alone(&mut self) -> Result<(Duration, Duration), String> {
        let (begun, before) = (Instant::now(), usage(self.running.pid()));
        let (route, cluster) = self.change()?;
        let took = begun.elapsed();
        let acknowledged = usage(self.running.pid());
        if !self.leads(route, cluster) {
            return Err(format!("{}: route {route} doesn't lead to cluster {cluster}", self.peer.name()));
        }
        while self.peer.reloads() && count(self.running.pid()) > self.processes && begun.elapsed() < GOING {
            thread::sleep(LOOK);
        }
        self.rest();
        let after = if self.peer.acknowledges() { acknowledged } else { usage(self.running.pid()) };
        Ok((took, Duration::from_nanos(after.since(before).cpu_ns)))
    }

    /// Change one route until it is in force.
    fn change(&mut self) -> Result<(usize, usize), String> {
        let (route, cluster) = self.next();
        self.ground.change(self.peer, self.running.pid(), (route, cluster))?;
        let (begun, mut told, mut again) = (Instant::now(), Instant::now(), AGAIN);
        while !self.peer.acknowledges() && !self.leads(route, cluster) {
            if begun.elapsed() > IN_FORCE {
                return Err(format!("{}: a change of route {route} never came into force", self.peer.name()));
            }
            if self.peer.reloads() && told.elapsed() > again {
                (told, again) = (Instant::now(), again * 2);
                self.ground.change(self.peer, self.running.pid(), (route, cluster))?;
            }
            thread::sleep(LOOK);
        }
        Ok((route, cluster))
    }

    /// Change one route after the other for a while: how many a second.
    fn change_for(&mut self, time: Duration) -> Result<f64, String> {
        let (begun, mut made) = (Instant::now(), 0);
        while begun.elapsed() < time {
            self.change()?;
            made += 1;
            self.rest();
            thread::sleep((begun + PACE * made).saturating_duration_since(Instant::now()));
        }
        Ok(f64::from(made) / begun.elapsed().as_secs_f64())
    }

    /// Leave processes that were just replaced alone.
    fn rest(&self) {
        if self.peer.reloads() {
            thread::sleep(REST);
        }
    }

    /// Whether a request by `route` comes to the origin of `cluster`.
    fn leads(&self, route: usize, cluster: usize) -> bool {
        letter(self.ground.front, &host(route)).is_ok_and(|letter| letter == LETTERS[cluster % 2])
    }
}
