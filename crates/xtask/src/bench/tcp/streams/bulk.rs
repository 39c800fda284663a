//! Parallel streams in one direction, as fast as they go. What is sent has a pattern; a part of what arrives is looked at,
//! the rest is counted.

use rustix::event::epoll::EventFlags;

use crate::bench::generator::net::{Moved, Net, Slot};
use crate::bench::generator::pattern::{CHUNK, LOOKED_AT, Pattern};
use crate::bench::generator::{Ends, Shape, Tally};

pub(super) struct Bulk {
    /// Whether bytes go from the backend to the client.
    down: bool,
    wanted: usize,
    connected: usize,
    ends: Ends<End>,
    pattern: Pattern,
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
        Bulk {
            down,
            wanted: streams,
            connected: 0,
            ends: Ends::new(),
            pattern: Pattern::new(),
            scratch: vec![0; CHUNK],
            tally: Tally::default(),
        }
    }

    fn begin(&mut self, slot: Slot, source: bool) {
        self.ends.put(slot, End { source, ..End::default() });
    }

    fn interest(source: bool) -> EventFlags {
        if source { EventFlags::OUT } else { EventFlags::IN }
    }

    /// Take what is there; whether the stream goes on.
    fn take(&mut self, net: &Net, slot: Slot) -> bool {
        let Some(end) = self.ends.get(slot) else { return true };
        let looks = end.reads.is_multiple_of(LOOKED_AT);
        let moved = if looks { net.read(slot, &mut self.scratch) } else { net.discard(slot, &mut self.scratch) };
        match moved {
            Moved::Bytes(n) => {
                if looks && self.scratch[..n] != self.pattern.from(end.bytes)[..n] {
                    self.tally.wrong += 1;
                }
                self.tally.units += n as u64;
                (end.bytes, end.reads) = (end.bytes + n as u64, end.reads + 1);
                true
            }
            Moved::Wait => true,
            Moved::End | Moved::Lost => false,
        }
    }

    /// Send what goes; whether the stream goes on.
    fn give(&mut self, net: &Net, slot: Slot) -> bool {
        let Some(end) = self.ends.get(slot) else { return true };
        match net.write(slot, self.pattern.from(end.bytes)) {
            Moved::Bytes(n) => {
                end.bytes += n as u64;
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
        let source = self.ends.get(slot).is_some_and(|end| end.source);
        let goes_on = if source { self.give(net, slot) } else { self.take(net, slot) };
        if !goes_on {
            self.tally.lost += 1;
            net.close(slot);
        }
    }
}
