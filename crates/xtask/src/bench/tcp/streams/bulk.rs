//! Parallel streams in one direction, as fast as they go. What is sent has a pattern; a part of what arrives is looked at,
//! the rest is counted.

use rustix::event::epoll::EventFlags;

use super::net::{Moved, Net, Slot};
use super::{Shape, Tally};

/// The pattern's length: a prime, so that no buffer's size hides a shift.
const PERIOD: usize = 65_521;
/// How much one write offers and one read takes.
const CHUNK: usize = 256 << 10;
/// Of so many reads one is looked at: copying all would make the generator the bottleneck.
const LOOKED_AT: u64 = 32;

pub(super) struct Bulk {
    /// Whether bytes go from the backend to the client.
    down: bool,
    wanted: usize,
    connected: usize,
    ends: Vec<End>,
    pattern: Vec<u8>,
    scratch: Vec<u8>,
    tally: Tally,
}

/// One end of a stream: how many bytes have passed it, by how many reads.
#[derive(Clone, Copy, Default)]
struct End {
    source: bool,
    bytes: u64,
    reads: u64,
}

impl Bulk {
    pub(super) fn new(down: bool, streams: usize) -> Bulk {
        let mut state = 1u32;
        let mut byte = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        };
        let mut pattern: Vec<u8> = (0..PERIOD).map(|_| byte()).collect();
        // Any chunk of it lies in one piece.
        (0..CHUNK).for_each(|at| pattern.push(pattern[at]));
        Bulk {
            down,
            wanted: streams,
            connected: 0,
            ends: Vec::new(),
            pattern,
            scratch: vec![0; CHUNK],
            tally: Tally::default(),
        }
    }

    fn begin(&mut self, slot: Slot, source: bool) {
        if self.ends.len() <= slot {
            self.ends.resize(slot + 1, End::default());
        }
        self.ends[slot] = End { source, ..End::default() };
    }

    fn interest(source: bool) -> EventFlags {
        if source { EventFlags::OUT } else { EventFlags::IN }
    }

    fn chunk(&self, at: u64) -> &[u8] {
        &self.pattern[(at % PERIOD as u64) as usize..][..CHUNK]
    }

    /// Take what is there; whether the stream goes on.
    fn take(&mut self, net: &Net, slot: Slot) -> bool {
        let end = self.ends[slot];
        let looks = end.reads.is_multiple_of(LOOKED_AT);
        let moved = if looks { net.read(slot, &mut self.scratch) } else { net.discard(slot, &mut self.scratch) };
        match moved {
            Moved::Bytes(n) => {
                if looks && self.scratch[..n] != self.chunk(end.bytes)[..n] {
                    self.tally.wrong += 1;
                }
                self.tally.units += n as u64;
                self.ends[slot] = End { bytes: end.bytes + n as u64, reads: end.reads + 1, ..end };
                true
            }
            Moved::Wait => true,
            Moved::End | Moved::Lost => false,
        }
    }
}

impl Shape for Bulk {
    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn settled(&self) -> bool {
        self.connected == self.wanted
            && self.ends.iter().filter(|end| !end.source && end.bytes > 0).count() >= self.wanted
    }

    fn tick(&mut self, net: &mut Net) {
        while self.connected < self.wanted {
            match net.connect(Self::interest(!self.down)) {
                Ok(slot) => self.begin(slot, !self.down),
                Err(_) => self.tally.lost += 1,
            }
            self.connected += 1;
        }
    }

    fn arrived(&mut self, net: &mut Net) {
        while let Some(slot) = net.accept(Self::interest(self.down)) {
            self.begin(slot, self.down);
        }
    }

    fn ready(&mut self, net: &mut Net, slot: Slot) {
        let end = self.ends[slot];
        let goes_on = if end.source {
            match net.write(slot, self.chunk(end.bytes)) {
                Moved::Bytes(n) => {
                    self.ends[slot].bytes += n as u64;
                    true
                }
                Moved::Wait => true,
                Moved::End | Moved::Lost => false,
            }
        } else {
            self.take(net, slot)
        };
        if !goes_on {
            self.tally.lost += 1;
            net.close(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_by_any_distance_shows() {
        let bulk = Bulk::new(true, 1);
        for shift in 1..2000 {
            assert_ne!(bulk.chunk(0)[..64], bulk.chunk(shift)[..64], "{shift}");
        }
        assert_eq!(bulk.chunk(PERIOD as u64), bulk.chunk(0));
    }
}
