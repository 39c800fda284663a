//! Other programs as they are measured: started on given cores, their CPU time and memory read from `/proc`, ended by id.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A child process that is ended when this is dropped.
pub(super) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
}

/// What `/proc` says a process tree has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Nanoseconds on a CPU, all threads, and what processes have used that have ended (by the kernel's ticks).
    pub(super) cpu_ns: u64,
    /// Clock ticks in user mode, sampled by the kernel.
    pub(super) user_ticks: u64,
    /// Clock ticks in kernel mode, sampled by the kernel.
    pub(super) system_ticks: u64,
    /// Resident memory, bytes.
    pub(super) rss: u64,
}

impl Usage {
    /// What was used since `before`; memory is the difference, never below zero.
    pub(super) fn since(self, before: Usage) -> Usage {
        Usage {
            cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns),
            user_ticks: self.user_ticks.saturating_sub(before.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(before.system_ticks),
            rss: self.rss.saturating_sub(before.rss),
        }
    }
}

/// Where a process runs: its cores (as `taskset -c` takes them), and whether before ordinary processes.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) cores: &'a str,
    pub(super) realtime: bool,
}

impl Running {
    /// Start `program` with `args` at `place`, its stderr into the file `log`.
    pub(super) fn start(place: Place, program: &Path, args: &[String], log: &Path) -> Result<Running, String> {
        let stderr = fs::File::create(log).map_err(|e| format!("{}: {e}", log.display()))?;
        let first: &[&str] = if place.realtime { &["chrt", "-r", "1"] } else { &[] };
        // A benchmark that is ended from outside must leave no proxy behind.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .args(first)
            .args(["taskset", "-c", place.cores])
            .arg(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(|e| format!("{} can't be started: {e}", program.display()))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().map(BufReader::new);
        Ok(Running { child, stdin, stdout })
    }

    /// The process's id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub(super) fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The next line it prints; an error when it ended.
    pub(super) fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        let reader = self.stdout.as_mut().ok_or("no output")?;
        match reader.read_line(&mut line) {
            Ok(0) => Err("a child process ended early".to_owned()),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(e) => Err(format!("a child process's output: {e}")),
        }
    }

    /// Write one line to it.
    pub(super) fn tell(&mut self, line: &str) -> Result<(), String> {
        let stdin = self.stdin.as_mut().ok_or("no input")?;
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).map_err(|e| format!("a child process's input: {e}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let tree = tree_of(self.pid());
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            if !self.alive() {
                break;
            }
            for pid in &tree {
                // A process that is already gone is what is wanted.
                let _ = kill(Pid::from_raw(*pid as i32), signal);
            }
            let deadline = Instant::now() + Duration::from_secs(1);
            while self.alive() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// The process `root` and all its descendants.
pub(super) fn tree_of(root: u32) -> Vec<u32> {
    let mut pairs = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        if let Some(fields) = stat_fields(&entry.path().join("stat"))
            && let Some(parent) = fields.get(1).and_then(|p| p.parse::<u32>().ok())
        {
            pairs.push((pid, parent));
        }
    }
    let mut tree = vec![root];
    let mut at = 0;
    while let Some(&parent) = tree.get(at) {
        tree.extend(pairs.iter().filter(|(pid, of)| *of == parent && *pid != parent).map(|(pid, _)| *pid));
        at += 1;
    }
    tree
}

/// The files that say what each thread of the tree below `root` has used.
pub(super) fn tasks(root: u32) -> Vec<PathBuf> {
    let threads = |pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tree_of(root).into_iter().flat_map(threads).map(|task| task.path().join("schedstat")).collect()
}

/// Nanoseconds on a CPU by one of these files; 0 where the thread has ended.
pub(super) fn spent(file: &Path) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// How many processes the tree below `root` has.
pub(super) fn count(root: u32) -> usize {
    tree_of(root).len()
}

/// A tick of the kernel's `stat` files, whatever its own clock runs at.
const TICK_NS: u64 = 10_000_000;

/// What the process tree below `root` has used.
pub(super) fn usage(root: u32) -> Usage {
    let mut sum = Usage { cpu_ns: tasks(root).iter().map(|file| spent(file)).sum(), ..Usage::default() };
    for pid in tree_of(root) {
        let dir = format!("/proc/{pid}");
        if let Some(fields) = stat_fields(Path::new(&format!("{dir}/stat"))) {
            let ticks = |i: usize| fields.get(i).and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
            sum.user_ticks += ticks(11);
            sum.system_ticks += ticks(12);
            sum.cpu_ns += (ticks(13) + ticks(14)) * TICK_NS;
        }
        sum.rss += status_bytes(&format!("{dir}/status"), "VmRSS:");
    }
    sum
}

/// Bytes in those of the kernel's slabs that are named; 0 where the kernel doesn't tell.
pub(super) fn slabs(wanted: &[&str]) -> u64 {
    let text = fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next()?;
            wanted.contains(&name).then_some(())?;
            let active: u64 = words.next()?.parse().ok()?;
            let size: u64 = words.nth(1)?.parse().ok()?;
            Some(active * size)
        })
        .sum()
}

/// The fields of a `stat` file after the command's name: state, parent, …
fn stat_fields(path: &Path) -> Option<Vec<String>> {
    let text = fs::read_to_string(path).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// A line `NAME: N kB` of a `status` file, in bytes.
fn status_bytes(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(name));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_use_is_seen_and_grows() {
        let me = std::process::id();
        let before = usage(me);
        let start = Instant::now();
        let mut spin = 0u64;
        while start.elapsed() < Duration::from_millis(30) {
            spin = std::hint::black_box(spin + 1);
        }
        let spent = usage(me).since(before);
        assert!(spent.cpu_ns > 1_000_000, "{spent:?}");
        assert!(before.rss > 100_000);
    }

    #[test]
    fn what_has_ended_is_counted_still() {
        let log = std::env::temp_dir().join(format!("kakei-bench-ended-{}.log", std::process::id()));
        let script = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done";
        let words = ["-c".to_owned(), format!("sh -c '{script}'; echo over; sleep 30")];
        let place = Place { cores: "0", realtime: false };
        let mut child = Running::start(place, Path::new("sh"), &words, &log).unwrap();
        child.line().unwrap();
        // The shell that waits has done nothing else.
        assert!(usage(child.pid()).cpu_ns >= 2 * TICK_NS, "{:?}", usage(child.pid()));
        drop(child);
        std::fs::remove_file(log).unwrap();
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let log = std::env::temp_dir().join(format!("kakei-bench-test-{}.log", std::process::id()));
        let mut child =
            Running::start(Place { cores: "0", realtime: false }, Path::new("sleep"), &["30".to_owned()], &log)
                .unwrap();
        let pid = child.pid();
        assert!(child.alive() && tree_of(pid).contains(&pid));
        drop(child);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        std::fs::remove_file(log).unwrap();
    }
}
