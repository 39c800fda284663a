//! Kakei against real programs, on loopback only, without privileges. Installs nothing: says which package is missing.

mod dns;
mod http;
mod kakei;
mod killed;
mod live_change;
mod locals;
mod net;
mod process;
mod proxies;
mod proxy_protocol;
mod syslog;
mod tcp;
mod tls;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use self::http::registry::Libraries;
pub(crate) use self::kakei::request as admin_request;

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
const CHROMIUM: Tool = tool("chromium", "chromium");
const NODE: Libraries = Libraries::Node;
const PYTHON: Libraries = Libraries::Python;
const CURL: Tool = tool("curl", "curl");
const NGINX: Tool = tool("nginx", "libnginx-mod-stream");
const TESTSSL: Tool = tool("testssl", "testssl.sh");
const HEXDUMP: Tool = tool("hexdump", "bsdextrautils");

/// What a check is given.
struct Setting {
    /// The program under test.
    binary: PathBuf,
    /// An empty directory.
    folder: PathBuf,
    /// How many queries a load has.
    queries: u64,
    /// GiB of a large body.
    gib: u64,
}

/// One thing to be true about Kakei and a real program.
struct Check {
    name: &'static str,
    needs: &'static [Tool],
    /// What it needs of registries; it is skipped where that can't be had.
    libraries: &'static [Libraries],
    /// Returns what was measured.
    run: fn(&Setting) -> Result<String, String>,
}

const fn check(name: &'static str, needs: &'static [Tool], run: fn(&Setting) -> Result<String, String>) -> Check {
    Check { name, needs, libraries: &[], run }
}

const fn with(libraries: &'static [Libraries], check: Check) -> Check {
    Check { libraries, ..check }
}

const CHECKS: &[Check] = &[
    check("live-change-per-flow", &[NSD, DNSPERF], live_change::per_flow),
    check("live-change-shared", &[NSD, DNSPERF], live_change::shared),
    check("proxy-to-unbound", &[UNBOUND], proxy_protocol::to_unbound),
    check("proxy-to-dnsdist", &[NSD, DNSDIST], proxy_protocol::to_dnsdist),
    check("proxy-from-dnsdist", &[NSD, DNSDIST], proxy_protocol::from_dnsdist),
    check("proxy-through", &[UNBOUND, DNSDIST], proxy_protocol::through),
    check("syslog-per-flow", &[RSYSLOG, LOGGER], syslog::per_flow),
    check("syslog-shared", &[RSYSLOG, LOGGER], syslog::shared),
    check("local-addresses", &[NSD, DIG], locals::wildcard),
    check("tcp-redis", &[REDIS, REDIS_TOOLS], tcp::databases::redis),
    check("tcp-postgres", &[POSTGRES], tcp::databases::postgres),
    check("tcp-tls-by-name", &[OPENSSL], tcp::tls::by_name),
    check("tcp-ssh", &[OPENSSL, SSHD, SSH], tcp::tls::ssh),
    check("tcp-iperf", &[IPERF], tcp::iperf::both_ways),
    check("tcp-from-haproxy", &[HAPROXY], tcp::headers::from_haproxy),
    check("tcp-from-nginx", &[NGINX], tcp::headers::from_nginx),
    check("tcp-to-haproxy", &[HAPROXY], tcp::headers::to_haproxy),
    check("tcp-to-nginx", &[NGINX], tcp::headers::to_nginx),
    check("tcp-through", &[HAPROXY], tcp::headers::through),
    check("tcp-live-change", &[], tcp::changes::survive),
    check("tcp-bad-input", &[], tcp::bad_input::bounded),
    check("http-curl", &[CURL, NGINX], http::curl::options),
    check("http-to-nginx", &[NGINX], http::proxies::to_nginx),
    check("http-to-haproxy", &[HAPROXY], http::proxies::to_haproxy),
    check("http-from-nginx", &[NGINX], http::proxies::from_nginx),
    check("http-from-haproxy", &[HAPROXY], http::proxies::from_haproxy),
    check("http-bulk", &[], http::bulk::bodies),
    check("http-bad-input", &[], http::bad_input::bounded),
    check("http-as-others", &[NGINX, HAPROXY], http::same::as_others),
    with(&[NODE], check("http-express", &[CURL], http::web::express)),
    with(&[PYTHON], check("http-uvicorn", &[], http::web::uvicorn)),
    with(&[NODE, PYTHON], check("http-websocket", &[], http::web::sockets)),
    with(&[PYTHON], check("http-live-change", &[], http::changes::survive)),
    check("tls-openssl", &[OPENSSL], tls::handshakes::all),
    check("tls-resumed", &[OPENSSL], tls::handshakes::resumed),
    check("tls-early-data", &[OPENSSL], tls::early::data),
    check("tls-curl", &[OPENSSL, CURL], tls::clients::curl),
    check("tls-from-nginx", &[OPENSSL, NGINX], tls::proxies::from_nginx),
    check("tls-from-haproxy", &[OPENSSL, HAPROXY], tls::proxies::from_haproxy),
    check("tls-restarted", &[OPENSSL], tls::handshakes::restarted),
    check("tls-to-nginx", &[OPENSSL, NGINX], tls::backends::to_nginx),
    check("tls-to-haproxy", &[OPENSSL, HAPROXY], tls::backends::to_haproxy),
    check("tls-live-change", &[OPENSSL], tls::changes::replaced),
    check("tls-ocsp", &[OPENSSL], tls::staples::shown),
    check("tls-testssl", &[OPENSSL, TESTSSL, HEXDUMP], tls::grade::testssl),
    check("generations-killed", &[], killed::survives),
    check("http-chromium", &[CHROMIUM, NGINX], http::chromium::page),
    check("tls-chromium", &[OPENSSL, CHROMIUM, NGINX], http::chromium::secured_page),
];

/// GiB of a large body, unless told otherwise.
const GIB: u64 = 10;

const HELP: &str = "cargo xtask interop [--list] [--queries N] [--gib N] [CHECK…]\n\n\
    Runs every check, or those whose names begin as given. KAKEI_BIN names another binary than the one that is built.\n";

/// `cargo xtask interop`.
pub fn run(args: &[String]) -> Result<String, String> {
    let (mut wanted, mut queries, mut gib, mut args) = (Vec::new(), 200_000, GIB, args.iter());
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-h" | "--help" => return Ok(HELP.to_owned()),
            "--list" => return Ok(CHECKS.iter().map(|check| format!("{}\n", check.name)).collect()),
            "--queries" => queries = args.next().and_then(|n| n.parse().ok()).ok_or("--queries needs a number")?,
            "--gib" => gib = args.next().and_then(|n| n.parse().ok()).ok_or("--gib needs a number")?,
            name => wanted.push(name),
        }
    }
    let is_wanted = |check: &&Check| wanted.is_empty() || wanted.iter().any(|w| check.name.starts_with(w));
    let chosen: Vec<&Check> = CHECKS.iter().filter(is_wanted).collect();
    if chosen.is_empty() {
        return Err(format!("no check is called {}; `--list` lists them", wanted.join(" ")));
    }
    missing(&chosen)?;
    let binary = binary()?;
    let (mut held, mut skipped) = (0, 0);
    for check in &chosen {
        match carry_out(check, &Setting { binary: binary.clone(), folder: folder_of(check), queries, gib }) {
            Some(true) => held += 1,
            Some(false) => {}
            None => skipped += 1,
        }
    }
    let skips = if skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
    match chosen.len() - held - skipped {
        0 => Ok(format!("interop: {held} of {} hold{skips}\n", chosen.len())),
        failed => Err(format!("interop: {failed} of {} do not hold{skips}", chosen.len())),
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

fn folder_of(check: &Check) -> PathBuf {
    std::env::temp_dir().join(format!("kakei-interop-{}-{}", std::process::id(), check.name))
}

/// Run one check in a directory of its own, which stays where the check does not hold. Nothing: it was skipped.
fn carry_out(check: &Check, setting: &Setting) -> Option<bool> {
    if let Err(why) = check.libraries.iter().try_for_each(|libraries| libraries.install()) {
        print(&format!("SKIPS  {:<22}          {why}", check.name));
        return None;
    }
    let (begun, folder) = (Instant::now(), &setting.folder);
    let held = std::fs::create_dir_all(folder)
        .map_err(|error| format!("{}: {error}", folder.display()))
        .and_then(|()| (check.run)(setting));
    let seconds = begun.elapsed().as_secs_f64();
    match &held {
        Ok(measured) => {
            print(&format!("holds  {:<22} {seconds:>5.1} s  {measured}", check.name));
            let _ = std::fs::remove_dir_all(folder);
        }
        Err(why) => {
            print(&format!("FAILS  {:<22} {seconds:>5.1} s  {why}\n       see {}", check.name, folder.display()))
        }
    }
    Some(held.is_ok())
}

#[expect(clippy::print_stdout, reason = "a command line's progress")]
fn print(line: &str) {
    println!("{line}");
}
