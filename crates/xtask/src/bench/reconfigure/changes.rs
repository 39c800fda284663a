//! What a change costs, by how much there is that it doesn't change: a real `kakei run` with N routes, clusters and some
//! certificates, changed object by object over its admin socket. Loads nothing else.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bench::certificate::{self, CERTIFICATE, KEY};
use crate::bench::ground::{Tools, free_port};
use crate::bench::process::{Running, Usage, usage};
use crate::interop::admin_request;

/// The longest time in which it must be ready.
const START: Duration = Duration::from_secs(120);

/// What was measured of one size.
pub(super) struct Measured {
    size: usize,
    certificates: usize,
    document: usize,
    start: Duration,
    started: u64,
    /// Of clusters, then of routes.
    kinds: [Changed; 2],
    restart: Duration,
    restarted: u64,
}

/// What changes of one kind of object came to.
struct Changed {
    kind: &'static str,
    p50: Duration,
    p99: Duration,
    longest: Duration,
    cpu: Duration,
    rss: u64,
}

impl Measured {
    /// Of so many routes and clusters, and so many certificates.
    pub(super) fn of(
        tools: &Tools,
        (size, certificates): (usize, usize),
        changes: usize,
        disk: bool,
    ) -> Result<Measured, String> {
        let stage = Stage::new(tools, size, disk)?;
        let mut text = document(size, free_port()?);
        if certificates > 0 {
            certificate::make(&stage.folder, "h0.example.com")?;
            text += &secured(certificates, free_port()?, &stage.folder);
        }
        std::fs::write(stage.file(), &text).map_err(|e| e.to_string())?;
        let file = stage.file().display().to_string();
        let (running, start) = stage.start(tools, &["-c", &file])?;
        let started = usage(running.pid()).rss;
        let kinds = [stage.change(&running, "cluster", changes)?, stage.change(&running, "route", changes)?];
        drop(running);
        let (running, restart) = stage.start(tools, &[])?;
        let restarted = usage(running.pid()).rss;
        Ok(Measured { size, certificates, document: text.len(), start, started, kinds, restart, restarted })
    }

    pub(super) fn json(&self) -> Value {
        let kind = |of: &Changed| {
            let [p50, p99, longest, cpu] = [of.p50, of.p99, of.longest, of.cpu].map(|time| time.as_secs_f64() * 1e3);
            json!({ "kind": of.kind, "p50_ms": p50, "p99_ms": p99, "max_ms": longest, "cpu_ms": cpu, "rss": of.rss })
        };
        json!({
            "size": self.size, "certificates": self.certificates, "document": self.document, "start_s": self.start.as_secs_f64(), "start_rss": self.started,
            "changes": self.kinds.iter().map(kind).collect::<Vec<_>>(),
            "restart_s": self.restart.as_secs_f64(), "restart_rss": self.restarted,
        })
    }
}

pub(super) fn table(rows: &[Measured]) -> String {
    let mut text = "| routes and clusters | certificates | start | memory | changed | p50 | p99 | longest | CPU a change | memory after | start from state | memory |\n\
                    |---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    let mib = |bytes: u64| bytes >> 20;
    for row in rows {
        for of in &row.kinds {
            let [p50, p99, longest, cpu] = [of.p50, of.p99, of.longest, of.cpu].map(|time| time.as_secs_f64() * 1e3);
            let (start, restart) = (row.start.as_secs_f64(), row.restart.as_secs_f64());
            let line = format!(
                "| {} | {} | {start:.2} s | {} MiB | {} | {p50:.2} ms | {p99:.2} ms | {longest:.1} ms | {cpu:.2} ms | {} MiB | {restart:.2} s | {} MiB |",
                row.size,
                row.certificates,
                mib(row.started),
                of.kind,
                mib(of.rss),
                mib(row.restarted),
            );
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

/// As many routes of one listener, each to a cluster of its own.
fn document(size: usize, port: u16) -> String {
    let mut text =
        format!("[workers]\ncount = 2\n[listeners.web]\nprotocol = \"http\"\nbind = [\"127.0.0.1:{port}\"]\n");
    for n in 0..size {
        let backend = 1_000 + n % 60_000;
        // Writing into a string can't fail.
        let _ = write!(
            text,
            "[routes.r{n}]\nlistener = \"web\"\nhost = [\"h{n}.example.com\"]\ncluster = \"c{n}\"\n\
             [clusters.c{n}]\nbackends = [\"127.0.0.1:{backend}\"]\n"
        );
    }
    text
}

/// A listener that shows so many certificates. They name the same files, each of which is read and checked as often.
fn secured(certificates: usize, port: u16, folder: &Path) -> String {
    let mut text = format!(
        "[listeners.secured]\nprotocol = \"http\"\nbind = [\"127.0.0.1:{port}\"]\ncluster = \"c0\"\n\
         tls = {{ certificates = \"all\" }}\n"
    );
    let [chain, key] = [CERTIFICATE, KEY].map(|name| folder.join(name).display().to_string());
    for n in 0..certificates {
        // Writing into a string can't fail.
        let _ = write!(text, "[certificates.x{n}]\nchain = \"{chain}\"\nkey = \"{key}\"\n");
    }
    text
}

/// Where one size is measured.
struct Stage {
    size: usize,
    folder: PathBuf,
    state: PathBuf,
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The next run has a folder of its own.
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

impl Stage {
    fn new(tools: &Tools, size: usize, disk: bool) -> Result<Stage, String> {
        let folder = tools.dir.join(format!("reconfigure-{size}"));
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let memory = PathBuf::from(format!("/dev/shm/kakei-bench-{}-{size}", std::process::id()));
        let state = if disk { folder.join("state") } else { memory };
        Ok(Stage { size, folder, state })
    }

    fn file(&self) -> PathBuf {
        self.folder.join("kakei.toml")
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("kakei.sock")
    }

    /// Start it, and wait until it is ready.
    fn start(&self, tools: &Tools, arguments: &[&str]) -> Result<(Running, Duration), String> {
        let mut words = vec!["run".to_owned()];
        words.extend(arguments.iter().map(|word| (*word).to_owned()));
        words.extend(["--state".to_owned(), self.state.display().to_string()]);
        words.extend(["-s".to_owned(), self.socket().display().to_string()]);
        let log = self.folder.join("kakei.log");
        let begun = Instant::now();
        let cores = format!("0-{}", std::thread::available_parallelism().map_or(0, |n| n.get() - 1));
        let mut running = Running::start(tools.place(&cores), &tools.kakei, &words, &log)?;
        while begun.elapsed() < START {
            if admin_request(&self.socket(), "GET", "/readyz", ("text/plain", ""))
                .is_ok_and(|(status, _)| status == 200)
            {
                return Ok((running, begun.elapsed()));
            }
            if !running.alive() {
                return Err(format!("kakei ended:\n{}", std::fs::read_to_string(log).unwrap_or_default()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(format!("kakei was not ready within {} s", START.as_secs()))
    }

    /// Give one object after the other another value.
    fn change(&self, running: &Running, kind: &'static str, changes: usize) -> Result<Changed, String> {
        let mut times = Vec::with_capacity(changes);
        let before = usage(running.pid());
        for n in 0..changes {
            // All over the document, and another value whenever an object's turn comes again.
            let (at, seconds) = (n * 7_919 % self.size, n / self.size % 50 + 10);
            let value = match kind {
                "route" => json!({ "timeouts": { "request": format!("{seconds}s") } }),
                _ => json!({ "slow_start": format!("{seconds}s") }),
            };
            let name = format!("{}{at}", &kind[..1]);
            let body = json!([{ "change": "set", "kind": kind, "name": name, "value": value }]).to_string();
            let begun = Instant::now();
            let (status, said) = admin_request(&self.socket(), "POST", "/v1/changes", ("application/json", &body))?;
            times.push(begun.elapsed());
            let outcome: Value = serde_json::from_str(&said).unwrap_or_default();
            if status != 200 || outcome["applied"] != true {
                return Err(format!("{body} was answered by {status}: {said}"));
            }
        }
        let Usage { cpu_ns, .. } = usage(running.pid()).since(before);
        times.sort_unstable();
        let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
        let cpu = Duration::from_nanos(cpu_ns) / u32::try_from(changes).unwrap_or(u32::MAX);
        let rss = usage(running.pid()).rss;
        Ok(Changed { kind, p50: at(50), p99: at(99), longest: at(100), cpu, rss })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{document, secured};

    #[test]
    fn what_is_measured_is_a_document() {
        let text = document(3, 1) + &secured(2, 2, Path::new("/nowhere"));
        let document = kakei_config::parse_toml(&text).unwrap();
        assert_eq!((document.routes.len(), document.clusters.len(), document.certificates.len()), (3, 3, 2));
    }
}
