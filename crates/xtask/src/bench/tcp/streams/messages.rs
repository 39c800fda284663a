//! Messages to and fro on connections that stay: each client waits for its echo, looks at it, and sends the next one.

use std::collections::BTreeSet;
use std::time::Instant;

use super::net::{EDGES, Moved, Net, Slot};
use super::{Shape, Tally};

/// The length of a message.
pub(super) const LENGTH: usize = 64;
/// How many connections may be under way at a time.
const UNDER_WAY: usize = 128;

pub(super) struct Messages {
    wanted: usize,
    begun: usize,
    /// Clients that have had an echo.
    opened: usize,
    /// Clients without one so far.
    opening: BTreeSet<Slot>,
    /// Whether a client goes on after its first echo.
    goes_on: bool,
    ends: Vec<End>,
    scratch: Vec<u8>,
    tally: Tally,
}

#[derive(Clone, Copy)]
enum End {
    Backend,
    /// A client: what it sent last, how much of the echo it has, when it sent.
    Client {
        number: u64,
        turn: u64,
        got: [u8; LENGTH],
        len: usize,
        sent: Option<Instant>,
    },
}

impl Messages {
    pub(super) fn new(connections: usize, goes_on: bool) -> Messages {
        Messages {
            wanted: connections,
            begun: 0,
            opened: 0,
            opening: BTreeSet::new(),
            goes_on,
            ends: Vec::new(),
            scratch: vec![0; 4096],
            tally: Tally::default(),
        }
    }

    /// Have this many connections in all.
    pub(super) fn grow(&mut self, connections: usize) {
        self.wanted = connections;
    }

    fn begin(&mut self, slot: Slot, end: End) {
        if self.ends.len() <= slot {
            self.ends.resize(slot + 1, End::Backend);
        }
        self.ends[slot] = end;
    }

    fn lose(&mut self, net: &mut Net, slot: Slot) {
        self.opening.remove(&slot);
        self.tally.lost += 1;
        net.close(slot);
    }

    fn echo(&mut self, net: &mut Net, slot: Slot) {
        match net.read(slot, &mut self.scratch) {
            Moved::Bytes(n) if net.write(slot, &self.scratch[..n]) == Moved::Bytes(n) => {}
            Moved::Wait => {}
            // The client's side counts what is lost.
            _ => net.close(slot),
        }
    }

    /// The next message of a client.
    fn send(&mut self, net: &mut Net, slot: Slot) {
        let End::Client { number, turn, len, sent, .. } = &mut self.ends[slot] else { return };
        match net.write(slot, &message(*number, *turn)) {
            Moved::Bytes(LENGTH) => (*len, *sent) = (0, Some(Instant::now())),
            Moved::Wait => {}
            _ => self.lose(net, slot),
        }
    }

    fn take(&mut self, net: &mut Net, slot: Slot) {
        let End::Client { number, turn, got, len, sent: Some(sent) } = &mut self.ends[slot] else { return };
        match net.read(slot, &mut got[*len..]) {
            Moved::Bytes(n) if *len + n < LENGTH => *len += n,
            Moved::Bytes(_) => {
                self.tally.wrong += u64::from(*got != message(*number, *turn));
                self.tally.units += 1;
                self.tally.delays.add(sent.elapsed().as_nanos() as u64);
                *turn += 1;
                if self.opening.remove(&slot) {
                    self.opened += 1;
                }
                if self.goes_on {
                    self.send(net, slot);
                } else {
                    *len = 0;
                }
            }
            Moved::Wait => {}
            Moved::End | Moved::Lost => self.lose(net, slot),
        }
    }
}

impl Shape for Messages {
    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn settled(&self) -> bool {
        self.begun == self.wanted && self.opening.is_empty()
    }

    fn opened(&self) -> usize {
        self.opened
    }

    fn tick(&mut self, net: &mut Net) {
        while self.begun < self.wanted && self.opening.len() < UNDER_WAY {
            match net.connect(EDGES) {
                Ok(slot) => {
                    let client =
                        End::Client { number: self.begun as u64, turn: 0, got: [0; LENGTH], len: 0, sent: None };
                    self.begin(slot, client);
                    self.opening.insert(slot);
                }
                Err(_) => self.tally.lost += 1,
            }
            self.begun += 1;
        }
    }

    fn arrived(&mut self, net: &mut Net) {
        while let Some(slot) = net.accept(EDGES) {
            self.begin(slot, End::Backend);
        }
    }

    fn ready(&mut self, net: &mut Net, slot: Slot) {
        match self.ends[slot] {
            End::Backend => self.echo(net, slot),
            End::Client { sent: None, .. } => self.send(net, slot),
            End::Client { .. } => self.take(net, slot),
        }
    }
}

/// Message number `turn` of client `number`: no two are alike.
pub(super) fn message(number: u64, turn: u64) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    for (at, word) in bytes.chunks_exact_mut(8).enumerate() {
        let mixed = (number << 32 ^ turn).wrapping_add(at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word.copy_from_slice(&mixed.rotate_left(31).to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::message;

    #[test]
    fn no_two_messages_are_alike() {
        let mut seen = std::collections::BTreeSet::new();
        assert!((0..200).all(|number| (0..50).all(|turn| seen.insert(message(number, turn)))));
    }
}
