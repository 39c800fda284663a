//! One proxy with its clients and its backend, set up for one measurement. Ends all it started when dropped.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::{Duration, Instant};

use super::ground::{Counts, Tools, free_port};
use super::pace::{Watch, find_fastest};
use super::process::{Running, Usage, slabs, usage};
use super::programs::Peer;
use super::report::Figures;

/// The core of the proxy, and that of clients and backend.
const CORES: (&str, &str) = ("0", "1");
/// How long a proxy has to come to rest before its memory is read.
const REST: Duration = Duration::from_millis(1500);
/// The kernel's slabs for TCP sockets and what hangs on them.
const SLABS: &[&str] = &["TCP", "sock_inode_cache", "dentry", "filp", "eventpoll_epi", "eventpoll_pwq"];
const GIB: f64 = (1u64 << 30) as f64;

/// A column that takes its turn between clients and backend of one process.
pub(super) trait Proxy: Peer {
    /// What it is put under.
    type Load: Copy;
    /// The helper that is clients and backend.
    const HELPER: &'static str;

    /// What the helper is told of a load; `dir` is where files are that it may need.
    fn words(self, load: Self::Load, dir: &Path) -> Vec<(&'static str, String)>;
    /// Write the configuration for a load; the program's arguments.
    fn configure(self, load: Self::Load, job: &Job<'_>) -> Result<Vec<String>, String>;
}

/// What a proxy is asked to do.
pub(super) struct Job<'a> {
    pub(super) front: SocketAddrV4,
    pub(super) backend: SocketAddrV4,
    /// How many files it may have open.
    pub(super) files: usize,
    /// Where its configuration, logs and sockets go.
    pub(super) dir: &'a Path,
}

/// What units are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    Bytes,
    /// Messages, requests, connections.
    Times,
}

impl Unit {
    /// The figure of what a unit costs at the full pace of the core, and what nanoseconds are multiplied by for it.
    fn calm_cost(self) -> (&'static str, f64) {
        match self {
            Unit::Bytes => ("calm_s", GIB / 1e9),
            Unit::Times => ("calm_us", 1e-3),
        }
    }
}

/// How long a load is on before it is measured, and how long it is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) warm: Duration,
    pub(super) measure: Duration,
}

impl Times {
    pub(super) fn words(self) -> [(&'static str, String); 2] {
        [("warm_ms", self.warm.as_millis().to_string()), ("measure_ms", self.measure.as_millis().to_string())]
    }
}

/// One proxy with its clients and its backend, running.
struct Stand {
    streams: Running,
    proxy: Option<Running>,
}

impl Stand {
    fn start<P: Proxy>(tools: &Tools, peer: P, load: P::Load) -> Result<Stand, String> {
        find_fastest(CORES.0);
        let mut streams = tools.helper(CORES.1, P::HELPER, &peer.words(load, &tools.dir))?;
        let said = streams.line()?;
        let port = said.strip_prefix("backend ").and_then(|port| port.parse().ok());
        let backend = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.ok_or("the backend has no port")?);
        let front = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port()?);
        let job = Job { front, backend, files: tools.files, dir: &tools.dir };
        let (front, proxy) = match peer.program() {
            None => (backend, None),
            Some(program) => {
                let program = program.find(&tools.kakei).ok_or(format!("{} is not installed", peer.name()))?;
                let args = peer.configure(load, &job)?;
                let log = tools.dir.join(format!("{}.log", peer.name()));
                (job.front, Some(Running::start(tools.place(CORES.0), &program, &args, &log)?))
            }
        };
        streams.tell(&front.to_string())?;
        Ok(Stand { streams, proxy })
    }

    /// Wait until the measured part begins.
    fn begin<P: Proxy>(&mut self, tools: &Tools, peer: P) -> Result<(), String> {
        let said = self.streams.line()?;
        let ended = self.proxy.as_mut().is_some_and(|proxy| !proxy.alive());
        match said.as_str() {
            "start" => Ok(()),
            _ if ended => Err(format!("{} ended at once (see {})", peer.name(), tools.dir.display())),
            _ => Err(format!("{} carried nothing in time (see {})", peer.name(), tools.dir.display())),
        }
    }

    fn usage(&self) -> Usage {
        self.proxy.as_ref().map(|p| usage(p.pid())).unwrap_or_default()
    }
}

/// Put a load on a proxy and measure.
pub(super) fn measure<P: Proxy>(tools: &Tools, peer: P, load: P::Load, unit: Unit) -> Result<Figures, String> {
    let mut stand = Stand::start(tools, peer, load)?;
    stand.begin(tools, peer)?;
    let (begun, before) = (Instant::now(), stand.usage());
    let watch = stand.proxy.as_ref().and_then(|proxy| Watch::start(CORES.0, proxy.pid()));
    let carried = Counts::carried(&stand.streams.line()?)?;
    let end = stand.streams.line()?;
    let (watched, after) = (begun.elapsed().as_secs_f64(), stand.usage());
    let mut figures = figures(&Counts::read(&end), unit);
    if let Some(calm) = watch.and_then(|watch| watch.end(&carried)) {
        figures.extend([("calm", calm.share), (unit.calm_cost().0, calm.cpu_ns * unit.calm_cost().1)]);
    }
    // Without a proxy there is nothing that used a CPU.
    if stand.proxy.is_some() {
        figures.extend(costs(after.since(before), watched, figures["units"], unit));
        figures.insert("rss", after.rss as f64);
    }
    Ok(figures)
}

/// What clients and backend have counted.
fn figures(counts: &Counts<'_>, unit: Unit) -> Figures {
    let keys = ["units", "wrong", "lost", "unlike", "unopened", "p50_ns", "p99_ns"];
    let mut found: Figures = keys.into_iter().map(|key| (key, counts.get(key))).collect();
    let units = counts.get("units");
    let per_s = units / counts.get("seconds").max(1e-9);
    found.insert("idle", f64::from(u8::from(units == 0.0)));
    match unit {
        Unit::Bytes => found.insert("gbit_per_s", per_s * 8.0 / 1e9),
        Unit::Times => found.insert("per_s", per_s),
    };
    found
}

/// What the proxy used for each unit (for bytes: for each GiB), and how much of its core.
fn costs(used: Usage, watched: f64, units: f64, unit: Unit) -> [(&'static str, f64); 3] {
    let cpu_ns = used.cpu_ns as f64 / units.max(1.0);
    // The share of CPU time in user mode, by the kernel's ticks.
    let ticks = (used.user_ticks + used.system_ticks) as f64;
    let user_ns = cpu_ns * used.user_ticks as f64 / ticks.max(1.0);
    let busy = ("busy", used.cpu_ns as f64 / 1e9 / watched.max(1e-9));
    match unit {
        Unit::Bytes => [("cpu_s", cpu_ns * GIB / 1e9), ("user_s", user_ns * GIB / 1e9), busy],
        Unit::Times => [("cpu_us", cpu_ns / 1e3), ("user_us", user_ns / 1e3), busy],
    }
}

/// Memory with one connection and with all of them, each used once and then left idle.
pub(super) fn idle<P: Proxy>(tools: &Tools, peer: P, load: P::Load) -> Result<Figures, String> {
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

#[cfg(test)]
pub(in crate::bench) mod tests {
    use super::*;

    pub(in crate::bench) fn job(dir: &Path) -> Job<'_> {
        let at = |text: &str| text.parse().unwrap();
        Job { front: at("127.0.0.1:4242"), backend: at("127.0.0.1:2424"), files: 20_000, dir }
    }

    /// Whether what each proxy is given names its front and its backend.
    pub(in crate::bench) fn configurations_name<P: Proxy>(load: P::Load, what: &str) {
        let dir = std::env::temp_dir().join(format!("kakei-bench-{what}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for peer in P::all().filter(|peer| peer.program().is_some()) {
            let words = peer.configure(load, &job(&dir)).unwrap();
            let file = words.iter().find(|word| word.starts_with('/') && **word != dir.display().to_string()).unwrap();
            let text = std::fs::read_to_string(file).unwrap();
            assert!(text.contains("4242") && text.contains("2424"), "{}", peer.name());
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
