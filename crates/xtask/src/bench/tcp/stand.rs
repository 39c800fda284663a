//! One proxy with its clients and its backend, set up for one measurement. Ends all it started when dropped.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use super::peers::{Job, Peer};
use crate::bench::ground::{Counts, Tools, free_port};
use crate::bench::process::{Running, Usage, slabs, usage};
use crate::bench::programs::Peer as _;
use crate::bench::report::Figures;

/// The core of the proxy, and that of clients and backend.
const CORES: (&str, &str) = ("0", "1");
/// How long a proxy has to come to rest before its memory is read.
const REST: Duration = Duration::from_millis(1500);
/// The kernel's slabs for TCP sockets and what hangs on them.
const SLABS: &[&str] = &["TCP", "sock_inode_cache", "dentry", "filp", "eventpoll_epi", "eventpoll_pwq"];

/// What the connections are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    Down,
    Up,
    Messages,
    Visits,
    Idle,
}

impl Shape {
    fn word(self) -> &'static str {
        match self {
            Shape::Down => "down",
            Shape::Up => "up",
            Shape::Messages => "messages",
            Shape::Visits => "visits",
            Shape::Idle => "idle",
        }
    }
}

/// What is put on a proxy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) shape: Shape,
    pub(super) connections: usize,
    pub(super) warm: Duration,
    pub(super) measure: Duration,
}

/// What came of one load.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    /// Bytes, round trips or whole connections.
    pub(super) units: f64,
    pub(super) seconds: f64,
    /// What came back was not what had been sent.
    pub(super) wrong: f64,
    /// Connections that were refused or ended before their time.
    pub(super) lost: f64,
    /// Connections (or loads of some) that have not carried anything in time.
    pub(super) unopened: f64,
    pub(super) p50_ns: f64,
    pub(super) p99_ns: f64,
    /// Seconds between the two readings of `usage`.
    pub(super) watched: f64,
    pub(super) usage: Usage,
}

impl Outcome {
    /// CPU nanoseconds of the proxy per unit.
    pub(super) fn cpu_ns(&self) -> f64 {
        self.usage.cpu_ns as f64 / self.units.max(1.0)
    }

    /// The share of CPU time in user mode, by the kernel's ticks.
    pub(super) fn user_share(&self) -> f64 {
        let all = self.usage.user_ticks + self.usage.system_ticks;
        self.usage.user_ticks as f64 / (all as f64).max(1.0)
    }

    /// The proxy's use of its core, 1 = all of it.
    pub(super) fn busy(&self) -> f64 {
        self.usage.cpu_ns as f64 / 1e9 / self.watched.max(1e-9)
    }
}

/// One proxy with its clients and its backend, running.
struct Stand {
    streams: Running,
    proxy: Option<Running>,
}

impl Stand {
    fn start(tools: &Tools, peer: Peer, load: Load) -> Result<Stand, String> {
        let words = [
            ("shape", load.shape.word().to_owned()),
            ("connections", load.connections.to_string()),
            ("warm_ms", load.warm.as_millis().to_string()),
            ("measure_ms", load.measure.as_millis().to_string()),
        ];
        let mut streams = tools.helper(CORES.1, "bench-streams", &words)?;
        let said = streams.line()?;
        let port = said.strip_prefix("backend ").and_then(|port| port.parse().ok());
        let backend = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.ok_or("the backend has no port")?);
        let job = Job { front: SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port()?), backend, files: tools.files };
        let (front, proxy) = match peer.program() {
            None => (backend, None),
            Some(program) => {
                let program = program.find(&tools.kakei).ok_or(format!("{} is not installed", peer.name()))?;
                let args = peer.configure(&job, &tools.dir)?;
                let log = tools.dir.join(format!("{}.log", peer.name()));
                (job.front, Some(Running::start(tools.place(CORES.0), &program, &args, &log)?))
            }
        };
        streams.tell(&front.to_string())?;
        Ok(Stand { streams, proxy })
    }

    /// Wait until the measured part begins.
    fn begin(&mut self, tools: &Tools, peer: Peer) -> Result<(), String> {
        let said = self.streams.line()?;
        let ended = self.proxy.as_mut().is_some_and(|proxy| !proxy.alive());
        match said.as_str() {
            "start" => Ok(()),
            _ if ended => Err(format!("{} ended at once (see {})", peer.name(), tools.dir.display())),
            _ => Err(format!("{} carried nothing in 10 s (see {})", peer.name(), tools.dir.display())),
        }
    }

    fn usage(&self) -> Usage {
        self.proxy.as_ref().map(|p| usage(p.pid())).unwrap_or_default()
    }
}

/// Put a load on a proxy and measure.
pub(super) fn measure(tools: &Tools, peer: Peer, load: Load) -> Result<Outcome, String> {
    let mut stand = Stand::start(tools, peer, load)?;
    stand.begin(tools, peer)?;
    let (begun, before) = (Instant::now(), stand.usage());
    let end = stand.streams.line()?;
    let (watched, after) = (begun.elapsed().as_secs_f64(), stand.usage());
    let counts = Counts::read(&end);
    Ok(Outcome {
        units: counts.get("units"),
        seconds: counts.get("seconds"),
        wrong: counts.get("wrong"),
        lost: counts.get("lost"),
        unopened: counts.get("unopened"),
        p50_ns: counts.get("p50_ns"),
        p99_ns: counts.get("p99_ns"),
        watched,
        usage: after.since(before),
    })
}

/// Memory with one connection and with all of them, each used once and then left idle.
pub(super) fn idle(tools: &Tools, peer: Peer, connections: usize) -> Result<Figures, String> {
    let load = Load { shape: Shape::Idle, connections, warm: Duration::ZERO, measure: Duration::ZERO };
    let mut stand = Stand::start(tools, peer, load)?;
    stand.begin(tools, peer)?;
    std::thread::sleep(REST);
    let (rss, slab) = (stand.usage().rss, slabs(SLABS));
    stand.streams.tell("all")?;
    let end = stand.streams.line()?;
    std::thread::sleep(REST);
    let (rss_after, slab_after) = (stand.usage().rss, slabs(SLABS));
    let counts = Counts::read(&end);
    let more = (counts.get("units") - 1.0).max(1.0);
    Ok(Figures::from([
        ("rss_start", rss as f64),
        ("rss_per_connection", rss_after.saturating_sub(rss) as f64 / more),
        ("slab_per_connection", slab_after.saturating_sub(slab) as f64 / more),
        ("units", counts.get("units")),
        ("wrong", counts.get("wrong")),
        ("lost", counts.get("lost")),
        ("unopened", counts.get("unopened")),
    ]))
}
