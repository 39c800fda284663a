//! Messages to and fro on connections that stay: each client waits for its echo, looks at it, and sends the next one.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::time::Instant;

use super::net::{EDGES, Moved, Net, Slot};
use super::{Ends, Shape, Tally};

/// The length of a message.
pub(in crate::bench) const LENGTH: usize = 64;
/// How many connections may be under way at a time.
const UNDER_WAY: usize = 128;

/// How a message looks on its way, and what comes before the first one.
pub(in crate::bench) trait Dialect {
    /// What a client says first, and what the backend answers, each up to an empty line.
    const GREETING: Option<(&'static [u8], &'static [u8])>;
    /// How the answer to the greeting must begin.
    const GREETED: &'static [u8];
    /// A message's length on its way to the backend, and back.
    const LENGTHS: (usize, usize);

    /// A client's message.
    fn ask(message: &[u8; LENGTH], out: &mut Vec<u8>);
    /// What the backend makes of what a client sent.
    fn echo(asked: &[u8], out: &mut Vec<u8>);
    /// Whether this is the echo of that message.
    fn is_echo(got: &[u8], message: &[u8; LENGTH]) -> bool;
}

/// Messages as they are.
pub(in crate::bench) struct Plain;

impl Dialect for Plain {
    const GREETING: Option<(&'static [u8], &'static [u8])> = None;
    const GREETED: &'static [u8] = b"";
    const LENGTHS: (usize, usize) = (LENGTH, LENGTH);

    fn ask(message: &[u8; LENGTH], out: &mut Vec<u8>) {
        out.extend_from_slice(message);
    }

    fn echo(asked: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(asked);
    }

    fn is_echo(got: &[u8], message: &[u8; LENGTH]) -> bool {
        got == message
    }
}

pub(in crate::bench) struct Messages<D> {
    wanted: usize,
    begun: usize,
    /// Clients that have had an echo.
    opened: usize,
    /// Clients without one so far.
    opening: BTreeSet<Slot>,
    /// Whether a client goes on after its first echo.
    goes_on: bool,
    ends: Ends<End>,
    scratch: Vec<u8>,
    out: Vec<u8>,
    tally: Tally,
    dialect: PhantomData<D>,
}

struct End {
    greeted: bool,
    /// What came and is not a whole message yet.
    got: Vec<u8>,
    /// A client's own; none at the backend.
    client: Option<Client>,
}

#[derive(Clone, Copy)]
struct Client {
    number: u64,
    turn: u64,
    sent: Option<Instant>,
}

impl<D: Dialect> Messages<D> {
    pub(in crate::bench) fn new(connections: usize, goes_on: bool) -> Messages<D> {
        Messages {
            wanted: connections,
            begun: 0,
            opened: 0,
            opening: BTreeSet::new(),
            goes_on,
            ends: Ends::new(),
            scratch: vec![0; 4096],
            out: Vec::new(),
            tally: Tally::default(),
            dialect: PhantomData,
        }
    }

    fn begin(&mut self, slot: Slot, client: Option<Client>) {
        self.ends.put(slot, End { greeted: D::GREETING.is_none(), got: Vec::new(), client });
    }

    fn lose(&mut self, net: &mut Net, slot: Slot) {
        self.opening.remove(&slot);
        self.tally.lost += 1;
        net.close(slot);
    }

    /// The backend's turn.
    fn echo(&mut self, net: &mut Net, slot: Slot) {
        let Some(end) = self.ends.get(slot) else { return };
        match net.read(slot, &mut self.scratch) {
            Moved::Bytes(n) => end.got.extend_from_slice(&self.scratch[..n]),
            Moved::Wait => return,
            // The client's side counts what is lost.
            Moved::End | Moved::Lost => return net.close(slot),
        }
        self.out.clear();
        if let (false, Some((_, answer))) = (end.greeted, D::GREETING) {
            let Some(head) = end_of_head(&end.got) else { return };
            end.got.drain(..head);
            end.greeted = true;
            self.out.extend_from_slice(answer);
        }
        let whole = end.got.len() / D::LENGTHS.0 * D::LENGTHS.0;
        end.got[..whole].chunks_exact(D::LENGTHS.0).for_each(|asked| D::echo(asked, &mut self.out));
        end.got.drain(..whole);
        if !self.out.is_empty() && net.write(slot, &self.out) != Moved::Bytes(self.out.len()) {
            net.close(slot);
        }
    }

    /// What a client says next: its greeting, or a message.
    fn send(&mut self, net: &mut Net, slot: Slot) {
        let Some(End { greeted, client: Some(client), .. }) = self.ends.get(slot) else { return };
        self.out.clear();
        match D::GREETING {
            Some((greeting, _)) if !*greeted => self.out.extend_from_slice(greeting),
            _ => D::ask(&message(client.number, client.turn), &mut self.out),
        }
        match net.write(slot, &self.out) {
            Moved::Bytes(n) if n == self.out.len() => client.sent = Some(Instant::now()),
            Moved::Wait => {}
            _ => self.lose(net, slot),
        }
    }

    fn take(&mut self, net: &mut Net, slot: Slot) {
        let Some(End { greeted, got, client: Some(client) }) = self.ends.get(slot) else { return };
        match net.read(slot, &mut self.scratch) {
            Moved::Bytes(n) => got.extend_from_slice(&self.scratch[..n]),
            Moved::Wait => return,
            Moved::End | Moved::Lost => return self.lose(net, slot),
        }
        if !*greeted {
            let Some(head) = end_of_head(got) else { return };
            self.tally.wrong += u64::from(!got.starts_with(D::GREETED));
            got.drain(..head);
            *greeted = true;
            return self.send(net, slot);
        }
        let (Some(sent), true) = (client.sent, got.len() >= D::LENGTHS.1) else { return };
        self.tally.wrong += u64::from(!D::is_echo(got, &message(client.number, client.turn)));
        self.tally.units += 1;
        self.tally.delays.add(sent.elapsed().as_nanos() as u64);
        got.clear();
        client.turn += 1;
        self.opened += usize::from(self.opening.remove(&slot));
        if self.goes_on {
            self.send(net, slot);
        }
    }
}

impl<D: Dialect> Shape for Messages<D> {
    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn settled(&self) -> bool {
        self.begun == self.wanted && self.opening.is_empty()
    }

    fn opened(&self) -> usize {
        self.opened
    }

    fn grow(&mut self, connections: usize) {
        self.wanted = connections;
    }

    fn tick(&mut self, net: &mut Net) {
        while self.begun < self.wanted && self.opening.len() < UNDER_WAY {
            match net.connect(EDGES) {
                Ok(slot) => {
                    self.begin(slot, Some(Client { number: self.begun as u64, turn: 0, sent: None }));
                    self.opening.insert(slot);
                }
                Err(_) => self.tally.lost += 1,
            }
            self.begun += 1;
        }
    }

    fn arrived(&mut self, net: &mut Net) {
        while let Some(slot) = net.accept(EDGES) {
            self.begin(slot, None);
        }
    }

    fn ready(&mut self, net: &mut Net, slot: Slot) {
        match self.ends.get(slot).and_then(|end| end.client) {
            None => self.echo(net, slot),
            Some(Client { sent: None, .. }) => self.send(net, slot),
            Some(_) => self.take(net, slot),
        }
    }
}

/// Where what follows a head begins; none where it hasn't ended.
pub(in crate::bench) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Message number `turn` of client `number`: no two are alike.
pub(in crate::bench) fn message(number: u64, turn: u64) -> [u8; LENGTH] {
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
