//! The project's own instant: nanoseconds since an origin that the machine chose; and what a clock on the wall says.
//! Reads no clock.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time; monotonic within one machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Instant(u64);

impl Instant {
    /// The machine's origin.
    pub const ZERO: Instant = Instant(0);
    /// Never.
    pub const FAR: Instant = Instant(u64::MAX);

    /// From nanoseconds since the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Instant(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The instant that lies `by` before this one; the origin where there is none.
    pub const fn before(self, by: Duration) -> Instant {
        let nanos = by.as_nanos();
        Instant(if nanos > self.0 as u128 { 0 } else { self.0 - nanos as u64 })
    }

    /// Time since `earlier`; zero where that is later.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Saturates at [`Instant::FAR`].
    fn add(self, by: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

/// What a clock on the wall says: seconds since 1970 in UTC, leap seconds not counted. It may be set back. Nothing is
/// decided by it; it is only told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(u64);

impl Wall {
    /// From seconds since 1970.
    pub const fn from_secs(seconds: u64) -> Self {
        Wall(seconds)
    }

    /// Seconds since 1970.
    pub const fn as_secs(self) -> u64 {
        self.0
    }

    /// Year, month (from 1) and day (from 1) in UTC.
    pub fn day(self) -> (u64, u64, u64) {
        kakei_wire::message::civil(self.0 / 86_400)
    }
}
