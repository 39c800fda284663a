//! Virtual time: what happens when, in a total order that depends on nothing but the seed. Reads no clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use kakei_proxy::seam::Instant;

/// What is to happen, earliest first; what was scheduled first goes first at one instant.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    heap: BinaryHeap<Entry<T>>,
    scheduled: u64,
}

#[derive(Debug)]
struct Entry<T> {
    order: Reverse<(Instant, u64)>,
    what: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order.cmp(&other.order)
    }
}

impl<T> Agenda<T> {
    pub(crate) fn new() -> Self {
        Agenda { heap: BinaryHeap::new(), scheduled: 0 }
    }

    pub(crate) fn at(&mut self, when: Instant, what: T) {
        self.scheduled += 1;
        self.heap.push(Entry { order: Reverse((when, self.scheduled)), what });
    }

    pub(crate) fn next(&mut self) -> Option<(Instant, T)> {
        self.heap.pop().map(|entry| (entry.order.0.0, entry.what))
    }
}
