//! Where the bytes of a step lie: received ones in the machine's arena, made ones in the worker's.
//!
//! A span is only valid for the step it came with; nothing here owns bytes beyond one step.

use super::{Event, Op, Wall};
use crate::limits::WRITTEN_KEPT;

/// A run of bytes in an arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// How many.
    pub len: u32,
}

impl Span {
    /// No bytes.
    pub const EMPTY: Span = Span { start: 0, len: 0 };

    /// The bytes that this span names in `arena`. Panics if it lies outside: that is a machine's or worker's bug.
    pub fn of(self, arena: &[u8]) -> &[u8] {
        &arena[self.start as usize..self.start as usize + self.len as usize]
    }

    /// The part from `from` (at most `len`) on.
    pub fn skip(self, from: u32) -> Span {
        debug_assert!(from <= self.len, "a span is cut inside its length");
        Span { start: self.start + from, len: self.len - from }
    }

    /// The first `len` bytes, or all where there are fewer.
    pub fn take(self, len: u32) -> Span {
        Span { start: self.start, len: self.len.min(len) }
    }
}

/// What is sent in one go: a head from [`Outbox::bytes`], then a body from [`Inbox::bytes`]. Either may be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gather {
    /// In the outbox.
    pub head: Span,
    /// In the inbox.
    pub body: Span,
}

impl Gather {
    /// Total length in bytes.
    pub fn len(&self) -> usize {
        self.head.len as usize + self.body.len as usize
    }

    /// Takes in what lies right behind it: whether it does. What is in one piece costs less to hand on than two.
    pub fn absorbs(&mut self, after: Gather) -> bool {
        let adjoins = self.body.len == 0 && self.head.len > 0 && after.head.start == self.head.start + self.head.len;
        if adjoins {
            self.head.len += after.head.len;
            self.body = after.body;
        }
        adjoins
    }

    /// Whether there is nothing: still one datagram, of length zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a step is given.
pub struct Inbox<'a> {
    /// What happened, oldest first, at most [`crate::limits::EVENTS_PER_STEP`]. The step drains it.
    pub events: &'a mut Vec<Event>,
    /// The arena that the events' spans point into.
    pub bytes: &'a [u8],
    /// What the clock on the wall says, give or take a few milliseconds.
    pub wall: Wall,
}

/// What a step leaves: the machine carries it out, then clears it.
#[derive(Debug, Default)]
pub struct Outbox {
    /// What is asked for, in order.
    pub ops: Vec<Op>,
    /// The arena that [`Gather::head`] points into.
    pub bytes: Vec<u8>,
}

impl Outbox {
    /// Forget everything, keep the memory, but for what hardly a step needs.
    pub fn clear(&mut self) {
        self.ops.clear();
        self.bytes.clear();
        self.ops.shrink_to(WRITTEN_KEPT / size_of::<Op>());
        self.bytes.shrink_to(WRITTEN_KEPT);
    }

    /// Append bytes and name them.
    pub fn put(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        Span { start: start as u32, len: bytes.len() as u32 }
    }
}
