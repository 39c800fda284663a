//! What one side receives, head by head and body by body. One read of some is looked at whole, the others are only counted:
//! copying and comparing all would make clients and backend the bottleneck.

use super::head::Head;
use crate::bench::generator::net::{Moved, Net, Slot};
use crate::bench::generator::pattern::LOOKED_AT;

#[derive(Default)]
pub(super) struct Incoming {
    /// A head that hasn't ended yet.
    got: Vec<u8>,
    reads: u64,
}

/// What came of a read.
pub(super) enum Took<T> {
    /// Nothing yet.
    Nothing,
    /// The other side is gone.
    Gone,
    This(T),
}

/// A head, and what came behind it.
pub(super) struct Arrived<'a> {
    pub(super) head: Head<'a>,
    /// All bytes of the head.
    pub(super) lines: &'a [u8],
    pub(super) body: &'a [u8],
    /// Whether it is one of those to be looked at whole.
    pub(super) looked_at: bool,
}

impl Incoming {
    /// Take a head with at least `least` bytes of its body, and what `judge` says of it.
    pub(super) fn head<T>(
        &mut self,
        scratch: &mut [u8],
        (net, slot): (&Net, Slot),
        least: usize,
        judge: impl FnOnce(Arrived<'_>) -> T,
    ) -> Took<T> {
        let n = match net.read(slot, scratch) {
            Moved::Bytes(n) => n,
            Moved::Wait => return Took::Nothing,
            Moved::End | Moved::Lost => return Took::Gone,
        };
        let part = !self.got.is_empty();
        if part {
            self.got.extend_from_slice(&scratch[..n]);
        }
        let bytes = if part { &self.got[..] } else { &scratch[..n] };
        let Some(head) = Head::read(bytes).filter(|head| bytes.len() >= head.size + least) else {
            if !part {
                self.got.extend_from_slice(&scratch[..n]);
            }
            return Took::Nothing;
        };
        let (lines, body) = bytes.split_at(head.size);
        let judged = judge(Arrived { head, lines, body, looked_at: self.reads.is_multiple_of(LOOKED_AT) });
        self.got.clear();
        self.reads += 1;
        Took::This(judged)
    }

    /// Take at most all of `room` of a body: how much it was, and whether it looked right, where it was looked at.
    pub(super) fn body(
        &mut self,
        room: &mut [u8],
        (net, slot): (&Net, Slot),
        is_right: impl FnOnce(&[u8]) -> bool,
    ) -> Took<(usize, bool)> {
        let looks = self.reads.is_multiple_of(LOOKED_AT);
        let moved = if looks { net.read(slot, room) } else { net.discard(slot, room) };
        match moved {
            Moved::Bytes(n) => {
                self.reads += 1;
                Took::This((n, !looks || is_right(&room[..n])))
            }
            Moved::Wait => Took::Nothing,
            Moved::End | Moved::Lost => Took::Gone,
        }
    }
}
