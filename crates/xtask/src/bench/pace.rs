//! What a unit costs while the core runs at its full pace. On a machine that is shared, the same work takes up to twice as
//! long in one moment as in the next, and a ratio of two measurements says more of that than of what was measured. So a
//! watch looks at the pace of the proxy's core every few milliseconds, and only what was done between two looks that found
//! it at its best is counted.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use super::process::{spent, tasks};

/// How much longer than the fastest sample of all one takes at most where the core runs at its full pace.
const SLOWER: f64 = 1.15;
/// How often a sample is taken, and how much it does: about a hundredth of a core, on another one's account.
const EVERY: Duration = Duration::from_millis(10);
const TURNS: u64 = 10_000;
/// Samples before the first measurement, so that there is a fastest one, and how far apart.
const FIRST: (usize, Duration) = (500, Duration::from_millis(2));
/// The least time at the full pace that says something.
const ENOUGH_NS: u64 = 50_000_000;

/// The nanoseconds of the fastest sample of this process.
static FASTEST: AtomicU64 = AtomicU64::new(u64::MAX);

/// One look at a core, and at what a proxy has used until then.
#[derive(Clone, Copy)]
struct Look {
    at_ns: u64,
    sample_ns: u64,
    cpu_ns: u64,
}

/// How often a helper notes how much has been carried.
pub(super) const PIECE: Duration = Duration::from_millis(5);

/// How units grew, as a helper tells its parent.
pub(super) struct Growth(String);

impl Growth {
    /// None so far.
    pub(super) fn new() -> Growth {
        Growth(format!("carried {}=0", now_ns()))
    }

    /// So many by now.
    pub(super) fn note(&mut self, units: u64) {
        self.0.push_str(&format!(" {}={units}", now_ns()));
    }

    pub(super) fn line(self) -> String {
        self.0
    }
}

/// What had been carried at a moment, by the clock that all processes share.
pub(super) type Point = (u64, f64);

/// A watch on a core and on the process tree that runs on it. Dropped, it ends.
pub(super) struct Watch {
    ended: Arc<AtomicBool>,
    looks: Option<JoinHandle<Vec<Look>>>,
}

/// What was done at the full pace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Calm {
    /// The part of the time in which the core ran so.
    pub(super) share: f64,
    /// CPU time a unit.
    pub(super) cpu_ns: f64,
}

impl Watch {
    /// Watch the process tree below `root` from now on, if it runs on one core (as `taskset -c` takes them).
    pub(super) fn start(cores: &str, root: u32) -> Option<Watch> {
        let core = cores.parse().ok()?;
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        let files = tasks(root);
        let looks = std::thread::spawn(move || watch(core, &files, &until));
        Some(Watch { ended, looks: Some(looks) })
    }

    /// What was done at the full pace since it began, where it was long enough; `carried` is how the units grew.
    pub(super) fn end(mut self, carried: &[Point]) -> Option<Calm> {
        calm(&self.stop(), FASTEST.load(Ordering::Relaxed), carried)
    }

    fn stop(&mut self) -> Vec<Look> {
        self.ended.store(true, Ordering::Relaxed);
        self.looks.take().and_then(|looks| looks.join().ok()).unwrap_or_default()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Look until it is to end.
fn watch(core: usize, files: &[PathBuf], ended: &AtomicBool) -> Vec<Look> {
    stay_on(core);
    let mut looks = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        looks.push(Look { sample_ns: sample(), cpu_ns: files.iter().map(|file| spent(file)).sum(), at_ns: now_ns() });
        std::thread::sleep(EVERY);
    }
    looks
}

/// Have this thread on one core alone.
fn stay_on(core: usize) {
    let mut place = CpuSet::new();
    place.set(core);
    // Where that isn't allowed, some other core is looked at: better than none.
    let _ = sched_setaffinity(None, &place);
}

/// Look for the fastest sample of the proxy's core before the first measurement, once.
pub(super) fn find_fastest(cores: &str) {
    static DONE: Once = Once::new();
    let Ok(core) = cores.parse() else { return };
    let look = move || {
        stay_on(core);
        for _ in 0..FIRST.0 {
            sample();
            std::thread::sleep(FIRST.1);
        }
    };
    // On a thread of its own, which alone stays there.
    DONE.call_once(|| drop(std::thread::spawn(look).join()));
}

/// The sums of what lies between two looks at the full pace.
fn calm(looks: &[Look], fastest: u64, carried: &[Point]) -> Option<Calm> {
    let fast = |look: &Look| look.sample_ns as f64 <= fastest as f64 * SLOWER;
    let (mut time, mut all, mut cpu, mut units) = (0, 0, 0, 0.0);
    for [from, to] in looks.array_windows() {
        let (Some(before), Some(after)) = (at(carried, from.at_ns), at(carried, to.at_ns)) else { continue };
        all += to.at_ns - from.at_ns;
        if fast(from) && fast(to) {
            time += to.at_ns - from.at_ns;
            cpu += to.cpu_ns.saturating_sub(from.cpu_ns);
            units += after - before;
        }
    }
    (time >= ENOUGH_NS && units > 0.0).then(|| Calm { share: time as f64 / all as f64, cpu_ns: cpu as f64 / units })
}

/// What had been carried at `at_ns`, if it lies within what is known: on the straight line between two points.
fn at(carried: &[Point], at_ns: u64) -> Option<f64> {
    let after = carried.partition_point(|point| point.0 < at_ns);
    let (&(from, before), &(to, until)) = (carried.get(after.checked_sub(1)?)?, carried.get(after)?);
    Some(before + (until - before) * (at_ns - from) as f64 / (to - from) as f64)
}

/// The time by a clock that all processes share.
fn now_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// The CPU time that a fixed piece of work takes here and now. Its eight strands don't wait for each other: what waits for
/// itself takes as long beside a busy neighbour as without.
fn sample() -> u64 {
    let begun = nanoseconds(ClockId::ThreadCPUTime);
    let mut strands = [1u64, 2, 3, 4, 5, 6, 7, 8];
    for turn in 0..TURNS {
        for strand in &mut strands {
            *strand = (*strand ^ turn).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
        }
        std::hint::black_box(&mut strands);
    }
    let took = nanoseconds(ClockId::ThreadCPUTime) - begun;
    FASTEST.fetch_min(took, Ordering::Relaxed);
    took
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A look every 60 ms.
    fn looks(samples: &[u64], cpu_ms: &[u64]) -> Vec<Look> {
        let one = |(n, (sample, cpu)): (usize, (&u64, &u64))| Look {
            at_ns: (n as u64 + 1) * 60 * MS,
            sample_ns: *sample,
            cpu_ns: cpu * MS,
        };
        samples.iter().zip(cpu_ms).enumerate().map(one).collect()
    }

    #[test]
    fn only_what_lies_between_two_fast_looks_counts() {
        let looks = looks(&[100, 114, 160, 100], &[0, 30, 90, 150]);
        // 1000 units in the first 60 ms between looks, fewer after them.
        let carried = [(60 * MS - 1, 0.0), (120 * MS, 1000.0), (241 * MS, 1500.0)];
        let found = calm(&looks, 100, &carried).unwrap();
        assert!((found.cpu_ns - 30_000.0).abs() < 1.0, "{found:?}");
        assert!((found.share - 1.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn too_little_says_nothing() {
        let carried = [(0, 0.0), (1000 * MS, 1000.0)];
        assert_eq!(calm(&looks(&[100, 200, 100, 200], &[0, 1, 2, 3]), 100, &carried), None);
        // What is outside of what was counted isn't looked at.
        assert_eq!(calm(&looks(&[100, 100], &[0, 1]), 100, &carried[..1]), None);
    }

    #[test]
    fn a_watch_sees_what_a_process_used() {
        let begun = now_ns();
        assert!(Watch::start("0,1", std::process::id()).is_none(), "one core is watched, or none");
        let watch = Watch::start("0", std::process::id()).unwrap();
        let mut spin = 0u64;
        while now_ns() - begun < 400 * MS {
            spin = std::hint::black_box(spin + 1);
        }
        let ended = [(begun, 0.0), (now_ns(), 1.0)];
        FASTEST.store(u64::MAX / 2, Ordering::Relaxed);
        let found = watch.end(&ended).unwrap();
        assert!(found.cpu_ns > MS as f64 && found.share > 0.9, "{found:?}");
    }
}
