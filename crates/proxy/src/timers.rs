//! A worker's deadlines: a hierarchical timing wheel (Varghese and Lauck, 1987, scheme 7). Reads no clock.
//!
//! Arming, moving and cancelling cost O(1) whatever the number of deadlines; an entry is touched at most once a level
//! on its way down. A deadline never comes early, and at most one tick (2^20 ns, about 1.05 ms) late.

use std::num::NonZeroU32;

use crate::limits::TABLE_BYTES;
use crate::seam::Instant;

/// log2 of a tick in nanoseconds.
const TICK_BITS: u32 = 20;
/// log2 of the slots of a level.
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Enough for every instant there is: 2^44 ticks, so no deadline lies beyond the wheel.
const LEVELS: usize = 8;
const _: () = assert!(SLOT_BITS * LEVELS as u32 + TICK_BITS >= u64::BITS, "the wheel spans all of time");

/// Names an armed deadline. Its holder drops it when the deadline was polled. One more than its index, so that an
/// optional one is no larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerKey(NonZeroU32);

const NIL: u32 = u32::MAX;
/// Set in the `prev` of a list's first entry; the other bits say which list.
const FIRST: u32 = 1 << 31;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<T> {
    when: u64,
    due: T,
    next: u32,
    prev: u32,
}

/// The list of entries that are due but not polled yet comes after those of the wheel.
const DUE: usize = LEVELS * SLOTS;

/// Deadlines, each with what is due then.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    heads: Vec<u32>,
    occupied: [u64; LEVELS],
    /// Ticks up to which the wheel has turned.
    elapsed: u64,
}

impl<T: Copy> Timers<T> {
    pub(crate) fn new() -> Self {
        Timers {
            entries: Vec::with_capacity(TABLE_BYTES / size_of::<Entry<T>>()),
            free: Vec::new(),
            heads: vec![NIL; DUE + 1],
            occupied: [0; LEVELS],
            elapsed: 0,
        }
    }

    /// Armed deadlines.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Have `due` polled once `at` has come.
    pub(crate) fn arm(&mut self, at: Instant, due: T) -> TimerKey {
        let entry = Entry { when: tick_after(at), due, next: NIL, prev: NIL };
        let index = match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.file(index);
        TimerKey(NonZeroU32::MIN.saturating_add(index))
    }

    /// Move an armed deadline.
    pub(crate) fn rearm(&mut self, key: TimerKey, at: Instant, due: T) {
        let index = key.index();
        self.unlink(index);
        let entry = &mut self.entries[index as usize];
        entry.when = tick_after(at);
        entry.due = due;
        self.file(index);
    }

    /// Forget an armed deadline.
    pub(crate) fn cancel(&mut self, key: TimerKey) {
        self.unlink(key.index());
        self.free.push(key.index());
    }

    /// The next thing that is due by `now`; its key is free.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<T> {
        let now = now.as_nanos() >> TICK_BITS;
        loop {
            let first = self.heads[DUE];
            if first != NIL {
                self.unlink(first);
                self.free.push(first);
                return Some(self.entries[first as usize].due);
            }
            match self.next_slot() {
                Some((level, slot, at)) if at <= now => self.turn(level, slot, at),
                _ => {
                    self.elapsed = self.elapsed.max(now);
                    return None;
                }
            }
        }
    }

    /// When to poll again: never later than the earliest deadline, though it may be earlier (a level turns).
    pub(crate) fn next(&self) -> Option<Instant> {
        if self.heads[DUE] != NIL {
            return Some(Instant::from_nanos(self.elapsed << TICK_BITS));
        }
        self.next_slot().map(|(_, _, at)| Instant::from_nanos(at.saturating_mul(1 << TICK_BITS)))
    }

    /// The earliest slot with entries, and the tick at which it begins.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        (0..LEVELS).find_map(|level| {
            let shift = SLOT_BITS * level as u32;
            let current = (self.elapsed >> shift) as usize % SLOTS;
            let ahead = self.occupied[level] >> current;
            if ahead == 0 {
                return None;
            }
            let slot = current + ahead.trailing_zeros() as usize;
            let above = self.elapsed >> shift >> SLOT_BITS << SLOT_BITS;
            Some((level, slot, ((above | slot as u64) << shift).max(self.elapsed)))
        })
    }

    /// Turn the wheel to `at`, the begin of `slot`, and file that slot's entries anew: one level down, or as due.
    fn turn(&mut self, level: usize, slot: usize, at: u64) {
        self.elapsed = at;
        let list = level * SLOTS + slot;
        loop {
            let first = self.heads[list];
            if first == NIL {
                break;
            }
            self.unlink(first);
            self.file(first);
        }
    }

    /// Put an entry where its deadline belongs: the level of the highest bit in which it differs from `elapsed`.
    fn file(&mut self, index: u32) {
        let when = self.entries[index as usize].when;
        let list = if when <= self.elapsed {
            DUE
        } else {
            let level = ((when ^ self.elapsed).ilog2() / SLOT_BITS) as usize;
            let slot = (when >> (SLOT_BITS * level as u32)) as usize % SLOTS;
            self.occupied[level] |= 1 << slot;
            level * SLOTS + slot
        };
        let head = std::mem::replace(&mut self.heads[list], index);
        let entry = &mut self.entries[index as usize];
        (entry.prev, entry.next) = (FIRST | list as u32, head);
        if head != NIL {
            self.entries[head as usize].prev = index;
        }
    }

    fn unlink(&mut self, index: u32) {
        let Entry { next, prev, .. } = self.entries[index as usize];
        if next != NIL {
            self.entries[next as usize].prev = prev;
        }
        if prev & FIRST == 0 {
            self.entries[prev as usize].next = next;
            return;
        }
        let list = (prev & !FIRST) as usize;
        self.heads[list] = next;
        if next == NIL && list != DUE {
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        }
    }
}

impl TimerKey {
    fn index(self) -> u32 {
        self.0.get() - 1
    }
}

/// The first tick that begins at or after `at`.
fn tick_after(at: Instant) -> u64 {
    at.as_nanos().div_ceil(1 << TICK_BITS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const TICK: u64 = 1 << TICK_BITS;

    proptest! {
        /// Against a sorted map: nothing early, nothing more than a tick late, nothing lost, moves and cancels obeyed.
        #[test]
        fn agrees_with_a_sorted_map(script in proptest::collection::vec((0u8..5, 0u64..1 << 45, 0usize..50), 1..200)) {
            let mut timers = Timers::new();
            let mut truth: BTreeMap<u32, (TimerKey, u64)> = BTreeMap::new();
            let (mut now, mut id) = (TICK * 1000, 0u32);
            for (what, number, pick) in script {
                let chosen = truth.keys().nth(pick % truth.len().max(1)).copied();
                match (what, chosen) {
                    (0 | 1, _) => {
                        let at = now + (number >> (number % 44));
                        truth.insert(id, (timers.arm(Instant::from_nanos(at), id), at));
                        id += 1;
                    }
                    (2, Some(chosen)) => {
                        let at = now + number;
                        let entry = truth.get_mut(&chosen).expect("chosen from it");
                        timers.rearm(entry.0, Instant::from_nanos(at), chosen);
                        entry.1 = at;
                    }
                    (3, Some(chosen)) => timers.cancel(truth.remove(&chosen).expect("chosen from it").0),
                    _ => {
                        now += number >> (number % 44);
                        while let Some(due) = timers.poll(Instant::from_nanos(now)) {
                            let (_, at) = truth.remove(&due).expect("due once, while armed");
                            prop_assert!(at <= now, "early");
                        }
                        prop_assert!(truth.values().all(|(_, at)| at + TICK > now), "more than a tick late");
                        if let Some(next) = timers.next() {
                            prop_assert!(next.as_nanos() > now, "busy loop");
                            let earliest = truth.values().map(|(_, at)| *at).min().expect("armed");
                            prop_assert!(next.as_nanos() < earliest + TICK, "sleeps over a deadline");
                        }
                    }
                }
                prop_assert_eq!(timers.len(), truth.len());
            }
        }
    }

    #[test]
    fn the_last_instant_is_a_deadline_too() {
        let mut timers = Timers::new();
        timers.arm(Instant::FAR, 'x');
        assert_eq!(timers.poll(Instant::from_nanos(1 << 60)), None);
        assert!(timers.next().is_some_and(|next| next > Instant::from_nanos(1 << 60)));
    }
}
