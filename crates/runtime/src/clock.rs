//! The machine's clock: CLOCK_MONOTONIC in nanoseconds. Everything else is given the time.

use std::time::Duration;

use kakei_proxy::seam::{Instant, Wall};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Now, for every machine of this process.
pub fn now() -> Instant {
    Instant::from_nanos(nanos(clock_gettime(ClockId::Monotonic)))
}

/// What the clock on the wall says, as of the kernel's last tick: some milliseconds ago at most.
pub fn wall() -> Wall {
    Wall::from_secs(nanos(clock_gettime(ClockId::RealtimeCoarse)) / 1_000_000_000)
}

/// What to add to an [`Instant`]'s nanoseconds to get the time since the Unix epoch, by the wall clock as it stands.
/// Read it again for each use: the wall clock may be set.
pub fn wall_offset() -> Duration {
    let wall = nanos(clock_gettime(ClockId::Realtime));
    let monotonic = nanos(clock_gettime(ClockId::Monotonic));
    Duration::from_nanos(wall.saturating_sub(monotonic))
}

fn nanos(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_forward_and_turns_into_wall_time() {
        let first = now();
        let second = now();
        assert!(first <= second && first > Instant::ZERO);
        let wall = Duration::from_nanos(second.as_nanos()) + wall_offset();
        let system = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        assert!(system.abs_diff(wall) < Duration::from_secs(1), "{system:?} {wall:?}");
        assert!(system.as_secs().abs_diff(super::wall().as_secs()) <= 1);
    }
}
