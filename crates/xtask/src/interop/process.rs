//! Real programs, started on free ports and ended by process id when their guard goes. Installs nothing.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// A program that runs until this goes.
pub(super) struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Start it in a process group of its own, with everything that it says in `folder/name.log`.
    pub(super) fn start(name: &str, folder: &Path, command: &mut Command) -> Result<Program, String> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let both = file.try_clone().map_err(|error| format!("{}: {error}", log.display()))?;
        let command = command.current_dir(folder).stdin(Stdio::null()).stdout(file).stderr(both).process_group(0);
        let child = command.spawn().map_err(|error| format!("{name} does not start: {error}"))?;
        Ok(Program { name: name.to_owned(), child, log })
    }

    /// What it said so far.
    pub(super) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Wait until `ready`; an error if it ended or took longer than ten seconds.
    pub(super) fn wait_until(&mut self, what: &str, mut ready: impl FnMut() -> bool) -> Result<(), String> {
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("{} ended ({status}) before {what}:\n{}", self.name, self.said()));
            }
            if ready() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(30));
        }
        Err(format!("{}: ten seconds have passed without {what}:\n{}", self.name, self.said()))
    }

    /// Wait until it listens on `port`. It is not tried: some take a connection for their one client, and a socket of
    /// ours that is bound there could be what is in their way.
    pub(super) fn wait_for_port(&mut self, port: u16) -> Result<(), String> {
        let listens = |table: &str| std::fs::read_to_string(table).is_ok_and(|text| has_listener(&text, port));
        self.wait_until("its port", || ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().any(listens))
    }

    /// Whether it still runs.
    pub(super) fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Tell it something.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), String> {
        kill(self.pid(), signal).map_err(|error| format!("{}: {error}", self.name))
    }

    /// Wait until it ends, at most `within`.
    pub(super) fn wait(&mut self, within: Duration) -> Result<ExitStatus, String> {
        let until = Instant::now() + within;
        while Instant::now() < until {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(format!("{} has not ended within {:.0} s:\n{}", self.name, within.as_secs_f64(), self.said()))
    }

    /// Its process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
}

/// Whether the kernel's table of TCP sockets has one that listens on `port`, whatever its address.
fn has_listener(table: &str, port: u16) -> bool {
    let suffix = format!(":{port:04X}");
    table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let is_there = words.next().is_some_and(|local| local.ends_with(&suffix));
        is_there && words.nth(1) == Some(LISTENING)
    })
}

/// The state of a socket that listens, in that table.
const LISTENING: &str = "0A";

/// A process's resident memory, bytes.
pub(super) fn rss(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| format!("{path} has no VmRSS"))
}

impl Drop for Program {
    fn drop(&mut self) {
        // The group is ended even where the parent is gone already: some servers leave children behind.
        let _ = killpg(self.pid(), Signal::SIGTERM);
        let until = Instant::now() + Duration::from_secs(3);
        while self.lives() && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// How long a program that is run to its end may take: a byte that is lost must not let a client wait for ever.
const LONGEST: Duration = Duration::from_secs(60);

/// Run a program to its end, a minute at most; an error where it fails.
pub(super) fn run(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| format!("{name} does not start: {error}"))?;
    let (ended, end) = mpsc::channel::<()>();
    let pid = Pid::from_raw(child.id() as i32);
    let watch = thread::spawn(move || {
        if end.recv_timeout(LONGEST) == Err(mpsc::RecvTimeoutError::Timeout) {
            // Should it have ended in this moment, there is nothing to end.
            let _ = kill(pid, Signal::SIGKILL);
        }
    });
    let output = child.wait_with_output().map_err(|error| format!("{name}: {error}"));
    drop(ended);
    let _ = watch.join();
    let Output { status, stdout, stderr } = output?;
    let said = String::from_utf8_lossy(&stdout).into_owned();
    match status.success() {
        true => Ok(said),
        false => Err(format!("{name} failed ({status}):\n{said}{}", String::from_utf8_lossy(&stderr))),
    }
}

/// Wait until `ready`, at most `within`.
pub(super) fn wait_for(what: &str, within: Duration, mut ready: impl FnMut() -> bool) -> Result<(), String> {
    let until = Instant::now() + within;
    while Instant::now() < until {
        if ready() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(30));
    }
    Err(format!("{:.1} s have passed without {what}", within.as_secs_f64()))
}

/// Below the range from which the kernel takes ports for clients, so that no client's socket is in the way later.
const PORTS: std::ops::Range<u16> = 10_000..32_000;
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port that nothing uses, in both families and both transports; never the same twice.
pub(super) fn free_port() -> Result<u16, String> {
    for _ in 0..200 {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id().wrapping_mul(97));
        let port = PORTS.start + (turn % PORTS.len() as u32) as u16;
        let addresses =
            [SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
        if addresses.iter().all(|&address| UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok()) {
            return Ok(port);
        }
    }
    Err("no free port".to_owned())
}

/// Where a program lies, system directories included.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    // Debian keeps the server programs of each version of PostgreSQL apart.
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let versions = versions.map(|version| version.path().join("bin"));
    std::env::split_paths(&path)
        .chain(system)
        .chain(versions)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// A command for a program that may lie in a system directory.
pub(super) fn command(program: &str) -> Command {
    Command::new(find(program).unwrap_or_else(|| PathBuf::from(program)))
}

/// Write a file.
pub(super) fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error: io::Error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::has_listener;

    #[test]
    fn only_a_socket_that_listens_is_a_listener() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n\
                     \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n\
                     \x20  1: 0100007F:1F91 0100007F:1F92 01 00000000:00000000 00:00000000 00000000     0\n";
        assert_eq!([8080, 8081, 8082, 80].map(|port| has_listener(table, port)), [true, false, false, false]);
        let six = "   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0\n";
        assert!(has_listener(six, 80) && !has_listener(six, 8080));
    }
}
