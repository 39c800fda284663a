//! Kakei against real programs, on loopback only, without privileges. Installs nothing: says which package is missing.

mod dns;
mod kakei;
mod live_change;
mod locals;
mod process;
mod proxy_protocol;
mod syslog;
mod tcp;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// A program that a check needs, and the Debian package that has it.
struct Tool {
    program: &'static str,
    package: &'static str,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

const NSD: Tool = tool("nsd", "nsd");
const DNSPERF: Tool = tool("dnsperf", "dnsperf");
const DIG: Tool = tool("dig", "dnsutils");
const DNSDIST: Tool = tool("dnsdist", "dnsdist");
const UNBOUND: Tool = tool("unbound", "unbound");
const RSYSLOG: Tool = tool("rsyslogd", "rsyslog");
const LOGGER: Tool = tool("logger", "bsdutils");
const REDIS: Tool = tool("redis-server", "redis-server");
const REDIS_TOOLS: Tool = tool("redis-benchmark", "redis-tools");
const POSTGRES: Tool = tool("initdb", "postgresql");
const OPENSSL: Tool = tool("openssl", "openssl");
const SSHD: Tool = tool("sshd", "openssh-server");
const SSH: Tool = tool("ssh", "openssh-client");
const IPERF: Tool = tool("iperf3", "iperf3");
const HAPROXY: Tool = tool("haproxy", "haproxy");
const NGINX: Tool = tool("nginx", "libnginx-mod-stream");

/// What a check is given.
struct Setting {
    /// The program under test.
    binary: PathBuf,
    /// An empty directory.
    folder: PathBuf,
    /// How many queries a load has.
    queries: u64,
}

/// One thing to be true about Kakei and a real program.
struct Check {
    name: &'static str,
    needs: &'static [Tool],
    /// Returns what was measured.
    run: fn(&Setting) -> Result<String, String>,
}

const CHECKS: &[Check] = &[
    Check { name: "live-change-per-flow", needs: &[NSD, DNSPERF], run: live_change::per_flow },
    Check { name: "live-change-shared", needs: &[NSD, DNSPERF], run: live_change::shared },
    Check { name: "proxy-to-unbound", needs: &[UNBOUND], run: proxy_protocol::to_unbound },
    Check { name: "proxy-to-dnsdist", needs: &[NSD, DNSDIST], run: proxy_protocol::to_dnsdist },
    Check { name: "proxy-from-dnsdist", needs: &[NSD, DNSDIST], run: proxy_protocol::from_dnsdist },
    Check { name: "proxy-through", needs: &[UNBOUND, DNSDIST], run: proxy_protocol::through },
    Check { name: "syslog-per-flow", needs: &[RSYSLOG, LOGGER], run: syslog::per_flow },
    Check { name: "syslog-shared", needs: &[RSYSLOG, LOGGER], run: syslog::shared },
    Check { name: "local-addresses", needs: &[NSD, DIG], run: locals::wildcard },
    Check { name: "tcp-redis", needs: &[REDIS, REDIS_TOOLS], run: tcp::databases::redis },
    Check { name: "tcp-postgres", needs: &[POSTGRES], run: tcp::databases::postgres },
    Check { name: "tcp-tls-by-name", needs: &[OPENSSL], run: tcp::tls::by_name },
    Check { name: "tcp-ssh", needs: &[OPENSSL, SSHD, SSH], run: tcp::tls::ssh },
    Check { name: "tcp-iperf", needs: &[IPERF], run: tcp::iperf::both_ways },
    Check { name: "tcp-from-haproxy", needs: &[HAPROXY], run: tcp::headers::from_haproxy },
    Check { name: "tcp-from-nginx", needs: &[NGINX], run: tcp::headers::from_nginx },
    Check { name: "tcp-to-haproxy", needs: &[HAPROXY], run: tcp::headers::to_haproxy },
    Check { name: "tcp-to-nginx", needs: &[NGINX], run: tcp::headers::to_nginx },
    Check { name: "tcp-through", needs: &[HAPROXY], run: tcp::headers::through },
    Check { name: "tcp-live-change", needs: &[], run: tcp::changes::survive },
    Check { name: "tcp-bad-input", needs: &[], run: tcp::bad_input::bounded },
];

const HELP: &str = "cargo xtask interop [--list] [--queries N] [CHECK…]\n\n\
    Runs every check, or those whose names begin as given. KAKEI_BIN names another binary than the one that is built.\n";

/// `cargo xtask interop`.
pub fn run(args: &[String]) -> Result<String, String> {
    let (mut wanted, mut queries, mut args) = (Vec::new(), 200_000, args.iter());
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-h" | "--help" => return Ok(HELP.to_owned()),
            "--list" => return Ok(CHECKS.iter().map(|check| format!("{}\n", check.name)).collect()),
            "--queries" => queries = args.next().and_then(|n| n.parse().ok()).ok_or("--queries needs a number")?,
            name => wanted.push(name),
        }
    }
    let chosen: Vec<&Check> =
        CHECKS.iter().filter(|check| wanted.is_empty() || wanted.iter().any(|w| check.name.starts_with(w))).collect();
    if chosen.is_empty() {
        return Err(format!("no check is called {}; `--list` lists them", wanted.join(" ")));
    }
    missing(&chosen)?;
    let binary = binary()?;
    let failed = chosen.iter().filter(|check| !carry_out(check, &binary, queries)).count();
    match failed {
        0 => Ok(format!("interop: {} of {} hold\n", chosen.len(), chosen.len())),
        _ => Err(format!("interop: {failed} of {} do not hold", chosen.len())),
    }
}

/// An error that names every package that is missing.
fn missing(checks: &[&Check]) -> Result<(), String> {
    let tools = checks.iter().flat_map(|check| check.needs);
    let mut packages: Vec<&str> =
        tools.filter(|tool| process::find(tool.program).is_none()).map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    match packages.is_empty() {
        true => Ok(()),
        false => Err(format!("missing programs; on Debian: apt-get install {}", packages.join(" "))),
    }
}

/// The program under test, built where it is not named.
fn binary() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("KAKEI_BIN") {
        return Ok(PathBuf::from(named));
    }
    let root = crate::tidy::root();
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let status = Command::new(&cargo)
        .args(["build", "--release", "--package", "kakei"])
        .current_dir(&root)
        .status()
        .map_err(|error| format!("cargo: {error}"))?;
    if !status.success() {
        return Err("kakei does not build".to_owned());
    }
    let said =
        process::run(Command::new(&cargo).args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(&root))?;
    let said: serde_json::Value = serde_json::from_str(&said).map_err(|error| format!("cargo metadata: {error}"))?;
    Ok(Path::new(said["target_directory"].as_str().unwrap_or("target")).join("release/kakei"))
}

/// Run one check in a directory of its own, which stays where the check does not hold.
fn carry_out(check: &Check, binary: &Path, queries: u64) -> bool {
    let begun = Instant::now();
    let folder = std::env::temp_dir().join(format!("kakei-interop-{}-{}", std::process::id(), check.name));
    let held = std::fs::create_dir_all(&folder)
        .map_err(|error| format!("{}: {error}", folder.display()))
        .and_then(|()| (check.run)(&Setting { binary: binary.to_owned(), folder: folder.clone(), queries }));
    let seconds = begun.elapsed().as_secs_f64();
    match &held {
        Ok(measured) => {
            print(&format!("holds  {:<22} {seconds:>5.1} s  {measured}", check.name));
            let _ = std::fs::remove_dir_all(&folder);
        }
        Err(why) => {
            print(&format!("FAILS  {:<22} {seconds:>5.1} s  {why}\n       see {}", check.name, folder.display()))
        }
    }
    held.is_ok()
}

#[expect(clippy::print_stdout, reason = "a command line's progress")]
fn print(line: &str) {
    println!("{line}");
}
