//! `cargo xtask bench udp`: Kakei beside nginx, Envoy and sōzu on the same datagrams, in one interleaved run.
//! It starts programs on loopback and ends them; it never touches a running proxy.

pub(super) mod echo;
pub(super) mod load;

mod datagram;
mod peers;
mod report;
mod stand;
mod studies;

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use super::args::Options;
use peers::Peer;
use report::Report;
use stand::Tools;
use studies::Plan;

const HELP: &str = "\
cargo xtask bench udp [OPTIONS]

  --smoke          small rates, one round: for CI; fails when Kakei doesn't forward
  --json FILE      write everything that was measured
  --only A,B       only scenarios and studies whose name contains A or B (cost, known, saturation, saturation-rr-64-100, memory, workers, rr-64, …)
  --peers A,B      only these: direct, kakei, kakei-shared, nginx, envoy, sozu
  --rounds N       how often each peer has its turn (5)
  --seconds S      how long each measurement takes (2)
  --scale X        multiply the rates of the scenarios by X
  --kakei FILE     the program to measure (the release build)
  --no-build       take the release build as it is
  --no-realtime    don't run everything measured before what else runs on the machine
";

/// The socket buffer that all proxies get, so that none is measured by the distribution's default.
const RMEM_DEFAULT: &str = "/proc/sys/net/core/rmem_default";

/// Run the comparison.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    if args.iter().any(|a| a == "--help" || a == "-h") {
        print(HELP);
        return Ok(());
    }
    let keys = ["json", "only", "peers", "rounds", "seconds", "scale", "kakei"];
    let options = Options::read(args, &["smoke", "no-build", "no-realtime"], &keys)?;
    let smoke = options.flag("smoke");
    let release = release_dir()?;
    if !options.flag("no-build") {
        build(&release, options.text("kakei").is_none())?;
    }
    let realtime = !options.flag("no-realtime") && before_others();
    let tools = Tools {
        realtime,
        helper: release.join("xtask"),
        kakei: options.text("kakei").map_or_else(|| release.join("kakei"), PathBuf::from),
        dir: std::env::temp_dir().join(format!("kakei-bench-{}", std::process::id())),
    };
    std::fs::create_dir_all(&tools.dir).map_err(|e| format!("{}: {e}", tools.dir.display()))?;
    let mut report = Report::default();
    if !realtime {
        report.note("what else ran on the machine could take time from what was measured".to_owned());
    }
    let peers = present(&options, &tools, &mut report)?;
    let plan = Plan {
        rounds: options.get("rounds", if smoke { 1 } else { 5 })?,
        seconds: options.get("seconds", if smoke { 0.25 } else { 2.0 })?,
        scale: options.get("scale", if smoke { 0.05 } else { 1.0 })?,
        only: options.list("only"),
        peers,
        smoke,
    };
    raise_files()?;
    let about = about(&plan, &tools);
    {
        let _buffers = Buffers::raise(&mut report);
        studies::run(&tools, &plan, &mut report);
    }
    print(&report.text());
    if let Some(file) = options.text("json") {
        std::fs::write(file, format!("{:#}\n", report.json(&about))).map_err(|e| format!("{file}: {e}"))?;
    }
    if !report.rows.is_empty() && report.notes.is_empty() {
        // Only logs of a clean run: what went wrong should stay to be read.
        let _ = std::fs::remove_dir_all(&tools.dir);
    }
    let broken = report.broken();
    if smoke && !broken.is_empty() { Err(broken.join("; ")) } else { Ok(()) }
}

/// The peers that were asked for and are installed.
fn present(options: &Options, tools: &Tools, report: &mut Report) -> Result<Vec<Peer>, String> {
    let asked = match options.list("peers") {
        Some(names) => names.iter().map(|n| Peer::named(n)).collect::<Result<Vec<_>, _>>()?,
        None => Peer::ALL.to_vec(),
    };
    let (here, missing): (Vec<_>, Vec<_>) =
        asked.into_iter().partition(|p| *p == Peer::Direct || p.program(&tools.kakei).is_some());
    for peer in missing {
        report.note(format!("{} is not installed and was left out", peer.name()));
    }
    Ok(here)
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
fn raise_files() -> Result<(), String> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|e| format!("RLIMIT_NOFILE: {e}"))?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(|e| format!("RLIMIT_NOFILE: {e}"))
}

/// Put this process before ordinary ones, and one step before what it measures: it reads the clocks. What it measures runs
/// round robin among itself, or a compiler beside it would be measured too. Whether that was allowed.
fn before_others() -> bool {
    let me = std::process::id().to_string();
    Command::new("chrt").args(["-r", "-p", "2", &me]).output().is_ok_and(|out| out.status.success())
}

/// The default receive buffer of all sockets, raised while this lives.
struct Buffers(Option<String>);

impl Buffers {
    fn raise(report: &mut Report) -> Buffers {
        let before = std::fs::read_to_string(RMEM_DEFAULT).ok();
        let raised = before.filter(|_| std::fs::write(RMEM_DEFAULT, "4194304").is_ok());
        if raised.is_none() {
            report.note(format!("{RMEM_DEFAULT} can't be raised: proxies have the system's default receive buffers"));
        }
        Buffers(raised)
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // It could be written a moment ago; if not now, a larger default harms nobody.
            let _ = std::fs::write(RMEM_DEFAULT, before);
        }
    }
}

/// The machine, the programs and the settings, for the JSON.
fn about(plan: &Plan, tools: &Tools) -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpu = read("/proc/cpuinfo");
    let model =
        cpu.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("").trim_start_matches(['\t', ' ', ':']);
    let versions: Vec<_> = plan
        .peers
        .iter()
        .filter_map(|p| Some(json!({ "peer": p.name(), "version": p.version(&p.program(&tools.kakei)?) })))
        .collect();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    json!({
        "cpu": model, "cores": cores, "kernel": read("/proc/sys/kernel/osrelease"),
        "peers": versions, "rounds": plan.rounds, "seconds": plan.seconds, "scale": plan.scale, "realtime": tools.realtime,
    })
}

#[expect(clippy::print_stdout, reason = "the tables are this program's result")]
fn print(text: &str) {
    print!("{text}");
}

/// Progress, for people.
#[expect(clippy::print_stderr, reason = "progress is not the result")]
fn say(text: &str) {
    eprintln!("{text}");
}
