//! What every benchmark stands on: the release builds, the place to write, the files and the priority it may have, and what
//! a person asked for. Measures nothing.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use super::args::Options;
use super::pace::Point;
use super::process::{Place, Running};
use super::stand::Times;

const WARM: Duration = Duration::from_millis(400);

/// The programs and places that every measurement needs.
pub(super) struct Tools {
    /// The release build of this program, for generators and backends.
    pub(super) helper: PathBuf,
    pub(super) kakei: PathBuf,
    /// Whether all that is measured runs before ordinary processes.
    pub(super) realtime: bool,
    /// Configurations and logs.
    pub(super) dir: PathBuf,
    /// How many files this process and its children may have open.
    pub(super) files: usize,
}

impl Tools {
    /// Build what is measured, and take what this user may have.
    pub(super) fn prepare(options: &Options) -> Result<Tools, String> {
        let release = release_dir()?;
        if !options.flag("no-build") {
            build(&release, options.text("kakei").is_none())?;
        }
        let tools = Tools {
            realtime: !options.flag("no-realtime") && before_others(),
            helper: release.join("xtask"),
            kakei: options.text("kakei").map_or_else(|| release.join("kakei"), PathBuf::from),
            dir: std::env::temp_dir().join(format!("kakei-bench-{}", std::process::id())),
            files: raise_files()?,
        };
        std::fs::create_dir_all(&tools.dir).map_err(|e| format!("{}: {e}", tools.dir.display()))?;
        Ok(tools)
    }

    pub(super) fn place<'a>(&self, cores: &'a str) -> Place<'a> {
        Place { cores, realtime: self.realtime }
    }

    /// Start this program's own `bench COMMAND` on `cores`.
    pub(super) fn helper(&self, cores: &str, command: &str, pairs: &[(&str, String)]) -> Result<Running, String> {
        let mut words = vec!["bench".to_owned(), command.to_owned()];
        words.extend(pairs.iter().map(|(key, value)| format!("{key}={value}")));
        Running::start(self.place(cores), &self.helper, &words, &self.dir.join(format!("{command}.log")))
    }
}

/// The `key=number` words of a line that a helper printed.
pub(super) struct Counts<'a>(BTreeMap<&'a str, f64>);

impl Counts<'_> {
    /// The points `time=units` of a line that begins with `carried`.
    pub(super) fn carried(line: &str) -> Result<Vec<Point>, String> {
        let points =
            line.strip_prefix("carried ").ok_or("the helper is of another build: it says not how units grew")?;
        let pairs = points.split(' ').filter_map(|word| word.split_once('='));
        Ok(pairs.filter_map(|(at, units)| Some((at.parse().ok()?, units.parse().ok()?))).collect())
    }

    pub(super) fn read(line: &str) -> Counts<'_> {
        let pairs = line.split_whitespace().filter_map(|w| w.split_once('='));
        Counts(pairs.filter_map(|(key, value)| Some((key, value.parse().ok()?))).collect())
    }

    /// The number of `key`; 0 where there is none.
    pub(super) fn get(&self, key: &str) -> f64 {
        self.0.get(key).copied().unwrap_or(0.0)
    }
}

/// How often, how long, which.
pub(super) struct Course {
    pub(super) rounds: usize,
    pub(super) seconds: f64,
    pub(super) only: Option<Vec<String>>,
    pub(super) smoke: bool,
}

impl Course {
    /// The end of every benchmark's help.
    pub(super) const HELP: &'static str = "\
  --rounds N       how often each peer has its turn (5)
  --seconds S      how long each measurement takes (2)
  --kakei FILE     the program to measure (the release build)
  --no-build       take the release build as it is
  --no-realtime    don't run everything measured before what else runs on the machine
";
    /// The options that every benchmark takes beside its own: those without and those with a value.
    pub(super) const FLAGS: [&'static str; 3] = ["smoke", "no-build", "no-realtime"];
    pub(super) const KEYS: [&'static str; 6] = ["json", "only", "peers", "rounds", "seconds", "kakei"];

    pub(super) fn read(options: &Options) -> Result<Course, String> {
        let smoke = options.flag("smoke");
        Ok(Course {
            rounds: options.get("rounds", if smoke { 1 } else { 5 })?,
            seconds: options.get("seconds", if smoke { 0.25 } else { 2.0 })?,
            only: options.list("only"),
            smoke,
        })
    }

    /// How long a load is on before it is measured, and how long it is measured.
    pub(super) fn times(&self) -> Times {
        let warm = if self.smoke { WARM / 4 } else { WARM };
        Times { warm, measure: Duration::from_secs_f64(self.seconds) }
    }

    /// Whether the scenario or study `name` is part of it; `names` are those that mean themselves alone where they are
    /// given whole: `rr-64-1` is not `rr-64-100`.
    pub(super) fn wants(&self, name: &str, names: impl Fn(&str) -> bool) -> bool {
        let meant = |part: &str| name == part || (name.contains(part) && !names(part));
        self.only.as_ref().is_none_or(|only| only.iter().any(|part| meant(part)))
    }
}

/// The machine and the settings, for a report.
pub(super) fn about(course: &Course, tools: &Tools, versions: Vec<Value>) -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpu = read("/proc/cpuinfo");
    let model =
        cpu.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("").trim_start_matches(['\t', ' ', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    json!({
        "cpu": model, "cores": cores, "kernel": read("/proc/sys/kernel/osrelease"), "load": read("/proc/loadavg"),
        "peers": versions, "rounds": course.rounds, "seconds": course.seconds, "realtime": tools.realtime,
    })
}

/// A port of the loopback that nothing listens on, in both transports. It is none of those that the kernel gives to clients:
/// one that tries to connect before the proxy runs could be given the very port, and find itself.
pub(super) fn free_port() -> Result<u16, String> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id() as u16;
    let free = |port: u16| {
        let at = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
        std::net::UdpSocket::bind(at).is_ok() && std::net::TcpListener::bind(at).is_ok()
    };
    let mut ports = (0..1000).map(|_| 10_000 + first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 9_000);
    ports.find(|port| free(*port)).ok_or_else(|| "no free port".to_owned())
}

/// The directory of release builds beside the one this program was built into.
fn release_dir() -> Result<PathBuf, String> {
    let exe = std::env::current_exe().map_err(|e| format!("this program's path: {e}"))?;
    let target = exe.parent().and_then(Path::parent).ok_or("this program has no target directory")?;
    Ok(target.join("release"))
}

fn build(release: &Path, kakei: bool) -> Result<(), String> {
    let target = release.parent().ok_or("no target directory")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--release", "--locked", "-p", "xtask"]);
    if kakei {
        command.args(["-p", "kakei"]);
    }
    let status = command.arg("--target-dir").arg(target).status().map_err(|e| format!("cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err("the release build failed".to_owned()) }
}

/// As many open files as this user may have; children inherit it.
fn raise_files() -> Result<usize, String> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|e| format!("RLIMIT_NOFILE: {e}"))?;
    // A privileged user may go beyond the hard limit; where that is not so, it is what there is.
    let wanted = hard.max(MANY_FILES);
    let limit = if setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() { wanted } else { hard };
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit).map_err(|e| format!("RLIMIT_NOFILE: {e}"))?;
    Ok(limit as usize)
}

/// Enough open files for 10,000 connections with two sockets each.
const MANY_FILES: u64 = 24_000;

/// Put this process before ordinary ones, and one step before what it measures: it reads the clocks. What it measures runs
/// round robin among itself, or a compiler beside it would be measured too. Whether that was allowed.
fn before_others() -> bool {
    let me = std::process::id().to_string();
    Command::new("chrt").args(["-r", "-p", "2", &me]).output().is_ok_and(|out| out.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_units_grew_is_read_in_order_and_nothing_else_is_taken_for_it() {
        assert_eq!(Counts::carried("carried 5=0 17=2 30=2.5").unwrap(), [(5, 0.0), (17, 2.0), (30, 2.5)]);
        assert!(Counts::carried("end units=3 wrong=0").is_err());
    }

    #[test]
    fn a_whole_name_means_that_one_alone() {
        let course = |only: &str| Course { rounds: 1, seconds: 1.0, only: Some(vec![only.to_owned()]), smoke: false };
        let names = |name: &str| ["rr-64-1", "rr-64-100"].contains(&name);
        assert!(course("rr-64-1").wants("rr-64-1", names) && !course("rr-64-1").wants("rr-64-100", names));
        assert!(course("rr").wants("rr-64-1", names) && course("rr").wants("rr-64-100", names));
        assert!(!course("oneway").wants("rr-64-1", names));
    }

    #[test]
    fn counts_are_read_from_a_line() {
        let counts = Counts::read("end sent=12 seconds=0.5 what");
        assert_eq!((counts.get("sent"), counts.get("seconds"), counts.get("what")), (12.0, 0.5, 0.0));
    }
}
