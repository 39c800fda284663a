//! Descriptors: the whole process has so many, and a client that is let in needs one more for its backend. What all
//! machines of the process have open, and what they have promised, is counted in one place, so that no two of them give
//! the same one away.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many the machines have open.
static OPEN: AtomicU64 = AtomicU64::new(0);
/// How many they have promised.
static OWED: AtomicU64 = AtomicU64::new(0);

/// Descriptors that are left to the rest of the process: its admin socket, its logs, its new listeners.
const RESERVE: u64 = 64;

/// One machine's part of them.
#[derive(Debug)]
pub(super) struct Descriptors {
    /// Those with this number or a higher one are the rest of the process's.
    limit: u64,
    /// No more than so many are promised: how many others have is known by and by only.
    promised: u64,
    /// What sockets of flows leave to streams, where there are any: by their number alone flows would take all.
    streams: u64,
    /// How many the process has open beside what its machines count, as far as was seen.
    others: u64,
    /// This machine's part of what is counted.
    open: u64,
    owed: u64,
}

impl Descriptors {
    /// `others`: how many the process has open at least.
    pub(super) fn new(others: u64) -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        let reserve = RESERVE.min(limit / 4);
        let (limit, promised) = (limit - reserve, limit - reserve - reserve / 4);
        Descriptors { limit, promised, streams: 0, others, open: 0, owed: 0 }
    }

    /// Clients of streams are let in from now on.
    pub(super) fn expect_streams(&mut self) {
        self.streams = self.limit - self.promised + self.limit / 8;
    }

    /// Whether one with this number is not needed more by the rest of the process: the kernel gives the lowest free
    /// number, so a high one says that few are left.
    pub(super) fn spare(&self, number: i32) -> bool {
        u64::try_from(number).is_ok_and(|number| number < self.limit)
    }

    /// The same of one for datagrams.
    pub(super) fn spare_for_datagrams(&self, number: i32) -> bool {
        u64::try_from(number).is_ok_and(|number| number < self.limit - self.streams)
    }

    /// Promise one for a client and one for its backend. False where there aren't two.
    pub(super) fn promise(&mut self) -> bool {
        self.count(self.open, self.owed + 2);
        if self.suffice() {
            return true;
        }
        // Others may have closed theirs since. Counting all is dear, but done at most once a pause.
        if let Ok(all) = std::fs::read_dir("/proc/self/fd") {
            self.others = (all.count() as u64).saturating_sub(OPEN.load(Relaxed));
        }
        let suffice = self.suffice();
        if !suffice {
            self.take_back();
        }
        suffice
    }

    /// There was no client.
    pub(super) fn take_back(&mut self) {
        self.count(self.open, self.owed.saturating_sub(2));
    }

    /// There was one, and this is the number of its descriptor.
    pub(super) fn keep(&mut self, number: i32) {
        self.count(self.open + 1, self.owed.saturating_sub(1));
        let seen = u64::try_from(number).unwrap_or(0).saturating_sub(OPEN.load(Relaxed));
        self.others = self.others.max(seen);
    }

    /// What the machine has open, and what it owes.
    pub(super) fn count(&mut self, open: u64, owed: u64) {
        for (all, before, now) in [(&OPEN, &mut self.open, open), (&OWED, &mut self.owed, owed)] {
            if *before != now {
                // A difference below zero wraps around, and so does the sum.
                all.fetch_add(now.wrapping_sub(*before), Relaxed);
                *before = now;
            }
        }
    }

    fn suffice(&self) -> bool {
        OPEN.load(Relaxed) + OWED.load(Relaxed) + self.others <= self.promised
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        self.count(0, 0);
    }
}
