//! From what a worker asks to send by one socket in one tick to what the kernel is given: sends of one size to one
//! destination join into trains, too long trains are cut. Pure; keeps the order of each destination.

use std::net::{IpAddr, SocketAddr};

use kakei_proxy::seam::{Gather, Send};

use crate::udp::{MAX_TRAIN_BYTES, MAX_TRAIN_DATAGRAMS, Part, SendBatch, Target};

/// Parts of one message: the kernel takes 1,024, and a piece has two.
const MAX_PIECES: u16 = 512;
const NONE: u32 = u32::MAX;

/// Whole datagrams of one send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// Which send.
    pub(super) send: u32,
    /// From which byte of it.
    start: u32,
    /// How many bytes.
    pub(super) len: u32,
    /// How many datagrams.
    pub(super) datagrams: u32,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct Train {
    key: Key,
    segment: u32,
    datagrams: u32,
    bytes: u32,
    pieces: u16,
    /// The last datagram is shorter, or empty: nothing may follow it.
    closed: bool,
    /// It was refused as one.
    split: bool,
    first: u32,
    last: u32,
}

/// Where a train goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    to: Option<SocketAddr>,
    from: Option<IpAddr>,
}

/// What a message of the batch stands for.
#[derive(Clone, Copy, Debug)]
enum Message {
    Train(u32),
    /// One datagram of `len` bytes of a piece.
    Single {
        piece: u32,
        len: u32,
    },
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    stamp: u32,
    train: u32,
}

/// The plan for one socket. Keeps its memory between uses.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pieces: Vec<Piece>,
    trains: Vec<Train>,
    messages: Vec<Message>,
    /// The newest train of each destination; cells of other stamps are empty.
    table: Vec<Cell>,
    stamp: u32,
}

impl Plan {
    /// Begin anew, for at most `sends` sends.
    pub(super) fn reset(&mut self, sends: usize) {
        self.pieces.clear();
        self.trains.clear();
        self.messages.clear();
        let room = (2 * sends).next_power_of_two().max(16);
        if self.table.len() < room {
            self.table = vec![Cell::default(); room];
            self.stamp = 0;
        }
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.table.fill(Cell::default());
            self.stamp = 1;
        }
    }

    /// Add a send by its number.
    pub(super) fn add(&mut self, number: u32, send: &Send) {
        let len = send.bytes.len() as u32;
        let segment = if send.segment == 0 { len } else { u32::from(send.segment).min(len) };
        let key = Key { to: send.to, from: send.from };
        let fitting = (MAX_TRAIN_BYTES as u32).checked_div(segment).unwrap_or(1).clamp(1, MAX_TRAIN_DATAGRAMS as u32);
        let mut start = 0;
        loop {
            let taken = (len - start).min(fitting * segment);
            let datagrams = taken.checked_div(segment).map_or(1, |_| taken.div_ceil(segment));
            self.append(key, segment, Piece { send: number, start, len: taken, datagrams, next: NONE });
            start += taken;
            if start >= len {
                return;
            }
        }
    }

    fn append(&mut self, key: Key, segment: u32, piece: Piece) {
        let at = self.pieces.len() as u32;
        self.pieces.push(piece);
        let cell = self.cell(&key);
        let found = &self.table[cell];
        if found.stamp == self.stamp {
            let train = &mut self.trains[found.train as usize];
            if train.takes(segment, &piece) {
                self.pieces[train.last as usize].next = at;
                train.take(at, &piece);
                return;
            }
        }
        self.table[cell] = Cell { stamp: self.stamp, train: self.trains.len() as u32 };
        let mut train =
            Train { key, segment, datagrams: 0, bytes: 0, pieces: 0, closed: false, split: false, first: at, last: at };
        train.take(at, &piece);
        self.trains.push(train);
    }

    /// The destination's cell, or the empty one where it belongs. There are twice as many cells as sends.
    fn cell(&self, key: &Key) -> usize {
        let mask = self.table.len() - 1;
        let mut at = self.home(key);
        loop {
            let cell = &self.table[at];
            if cell.stamp != self.stamp || self.trains[cell.train as usize].key == *key {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    /// The cell that a destination has where no other one took it. By the highest bits of the hash, to which all of the
    /// address comes: many clients may share all but the port.
    fn home(&self, key: &Key) -> usize {
        (key.hash() >> (u64::BITS - self.table.len().ilog2())) as usize
    }

    /// Fill `batch` with everything from train `from` on, where trains of up to `longest` bytes a datagram can leave
    /// as one. How many do.
    pub(super) fn fill(
        &mut self,
        from: usize,
        longest: u16,
        sends: impl Fn(u32) -> Gather,
        batch: &mut SendBatch,
    ) -> usize {
        self.messages.clear();
        batch.clear();
        let mut whole = 0;
        for (index, train) in self.trains.iter().enumerate().skip(from) {
            let Key { to, from } = train.key;
            if train.datagrams == 1 || train.split || train.segment > u32::from(longest) {
                self.messages.reserve(train.datagrams as usize);
                for (at, piece) in walk(&self.pieces, train.first) {
                    singles(train.segment, piece, |start, len| {
                        batch.begin(Target { to, from, segment: 0 });
                        gather(batch, sends(piece.send), piece.start + start, len);
                        self.messages.push(Message::Single { piece: at, len });
                    });
                }
            } else {
                batch.begin(Target { to, from, segment: train.segment as u16 });
                for (_, piece) in walk(&self.pieces, train.first) {
                    gather(batch, sends(piece.send), piece.start, piece.len);
                }
                self.messages.push(Message::Train(index as u32));
                whole += 1;
            }
        }
        whole
    }

    /// How many messages are trains from this one on.
    pub(super) fn trains_from(&self, first: usize) -> usize {
        self.messages.iter().filter(|message| matches!(message, Message::Train(at) if *at as usize >= first)).count()
    }

    /// The train that a message is, with the length of its datagrams and whether it names its source; none where the message is a single datagram.
    pub(super) fn train(&self, message: usize) -> Option<(usize, u16, bool)> {
        match self.messages[message] {
            Message::Train(index) => {
                let train = &self.trains[index as usize];
                Some((index as usize, train.segment as u16, train.key.from.is_some()))
            }
            Message::Single { .. } => None,
        }
    }

    /// From now on this train leaves as single datagrams.
    pub(super) fn split(&mut self, train: usize) {
        self.trains[train].split = true;
    }

    /// What a message is made of: number of the send, datagrams, bytes.
    pub(super) fn made_of(&self, message: usize) -> impl Iterator<Item = (u32, u32, u32)> {
        let (first, one) = match self.messages[message] {
            Message::Train(index) => (self.trains[index as usize].first, None),
            Message::Single { piece, len } => (piece, Some(len)),
        };
        let limit = if one.is_some() { 1 } else { usize::MAX };
        walk(&self.pieces, first).take(limit).map(move |(_, piece)| match one {
            Some(len) => (piece.send, 1, len),
            None => (piece.send, piece.datagrams, piece.len),
        })
    }
}

impl Train {
    fn takes(&self, segment: u32, piece: &Piece) -> bool {
        let fits = segment == self.segment || (piece.datagrams == 1 && piece.len < self.segment);
        fits && !self.closed
            && piece.len > 0
            && (self.bytes + piece.len) as usize <= MAX_TRAIN_BYTES
            && (self.datagrams + piece.datagrams) as usize <= MAX_TRAIN_DATAGRAMS
            && self.pieces < MAX_PIECES
    }

    fn take(&mut self, at: u32, piece: &Piece) {
        self.last = at;
        self.pieces += 1;
        self.bytes += piece.len;
        self.datagrams += piece.datagrams;
        self.closed = self.bytes.checked_rem(self.segment).is_none_or(|rest| rest != 0);
    }
}

impl Key {
    /// Spreads addresses over cells. Crowding costs time within one tick's bounded sends, nothing else.
    fn hash(&self) -> u64 {
        let (ip, port) = self.to.map_or((0, 0), |to| (fold(to.ip()), to.port()));
        let from = self.from.map_or(0, fold);
        (ip ^ from.rotate_left(17) ^ u64::from(port).rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

fn fold(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64 ^ (v6.to_bits() as u64).rotate_left(29),
    }
}

fn walk(pieces: &[Piece], first: u32) -> impl Iterator<Item = (u32, &Piece)> {
    let at = |index: u32| pieces.get(index as usize).map(|piece| (index, piece));
    std::iter::successors(at(first), move |(_, piece)| at(piece.next))
}

/// Each datagram of a piece: its start there and its length.
fn singles(segment: u32, piece: &Piece, mut each: impl FnMut(u32, u32)) {
    for n in 0..piece.datagrams {
        let start = n * segment;
        each(start, segment.min(piece.len - start));
    }
}

/// The bytes `start..start + len` of a gather, as parts.
fn gather(batch: &mut SendBatch, whole: Gather, start: u32, len: u32) {
    let head = whole.head.skip(start.min(whole.head.len)).take(len);
    if head.len > 0 {
        batch.part(Part::Head(head));
    }
    let body = whole.body.skip(start.saturating_sub(whole.head.len)).take(len - head.len);
    if body.len > 0 {
        batch.part(Part::Body(body));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use kakei_proxy::seam::{SocketId, Span};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::udp::{Arenas, Message as Sent};

    /// A send of one to many datagrams: destination, source, length of head and body, segment.
    type Asked = (u8, Option<u8>, u16, u16, u16);

    fn asked() -> impl Strategy<Value = Asked> {
        let len = prop_oneof![Just(0u16), Just(100), 0..400u16, 0..30_000u16];
        let segment = prop_oneof![Just(0u16), Just(100), 1..400u16, 1000..1500u16];
        (0..4u8, proptest::option::of(0..2u8), prop_oneof![Just(0u16), 0..60u16], len, segment)
    }

    /// Every datagram as it should be on the wire: to whom, and its bytes.
    fn cut(send: &Send, arenas: Arenas<'_>) -> Vec<(Key, Vec<u8>)> {
        let whole = [send.bytes.head.of(arenas.head), send.bytes.body.of(arenas.body)].concat();
        let key = Key { to: send.to, from: send.from };
        match send.segment {
            _ if whole.is_empty() => vec![(key, whole)],
            0 => vec![(key, whole)],
            segment => whole.chunks(usize::from(segment)).map(|datagram| (key, datagram.to_vec())).collect(),
        }
    }

    fn by_destination(datagrams: impl IntoIterator<Item = (Key, Vec<u8>)>) -> HashMap<String, Vec<Vec<u8>>> {
        let mut sorted: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
        for (key, bytes) in datagrams {
            sorted.entry(format!("{key:?}")).or_default().push(bytes);
        }
        sorted
    }

    fn made(all: &[Asked]) -> (Vec<Send>, Vec<u8>, Vec<u8>) {
        let (mut head, mut body, mut sends) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = (0..).map(|n: u32| (n.wrapping_mul(0x9e37_79b9) >> 24) as u8);
        for &(to, from, ahead, len, segment) in all {
            let (first, second) = (head.len() as u32, body.len() as u32);
            head.extend(bytes.by_ref().take(usize::from(ahead)));
            body.extend(bytes.by_ref().take(usize::from(len)));
            sends.push(Send {
                socket: SocketId::default(),
                to: Some(SocketAddr::from(([10, 0, 0, to], 53))),
                from: from.map(|n| IpAddr::from([127, 0, 0, n])),
                segment,
                bytes: Gather {
                    head: Span { start: first, len: u32::from(ahead) },
                    body: Span { start: second, len: u32::from(len) },
                },
                tag: 0,
            });
        }
        (sends, head, body)
    }

    fn planned(sends: &[Send]) -> Plan {
        let mut plan = Plan::default();
        plan.reset(sends.len());
        for (number, send) in (0..).zip(sends) {
            plan.add(number, send);
        }
        plan
    }

    proptest! {
        /// Whatever is joined, cut or split: each destination gets its datagrams, whole, in order; every message is
        /// within the kernel's limits; every datagram belongs to the send that asked for it.
        #[test]
        fn nothing_changes_on_the_wire(all in vec(asked(), 1..80), longest in prop_oneof![Just(0u16), Just(200), Just(u16::MAX)]) {
            let (sends, head, body) = made(&all);
            let arenas = Arenas { head: &head, body: &body };
            let mut plan = planned(&sends);
            let mut batch = SendBatch::new();
            plan.fill(0, longest, |number| sends[number as usize].bytes, &mut batch);

            let mut wire = Vec::new();
            let mut accounted: HashMap<u32, (u32, u32)> = HashMap::new();
            for (index, message) in batch.messages(arenas).enumerate() {
                let Sent { target: Target { to, from, segment }, bytes, parts } = message;
                let key = Key { to, from };
                prop_assert!(parts <= 1024 && (segment == 0 || bytes.len() <= MAX_TRAIN_BYTES));
                let datagrams = if segment == 0 { vec![bytes.clone()] } else { bytes.chunks(usize::from(segment)).map(<[u8]>::to_vec).collect() };
                prop_assert!(datagrams.len() <= MAX_TRAIN_DATAGRAMS && segment <= longest);
                let told: Vec<_> = plan.made_of(index).collect();
                prop_assert_eq!(told.iter().map(|told| told.1 as usize).sum::<usize>(), datagrams.len());
                prop_assert_eq!(told.iter().map(|told| told.2 as usize).sum::<usize>(), bytes.len());
                for (number, datagrams, bytes) in told {
                    let sum = accounted.entry(number).or_default();
                    *sum = (sum.0 + datagrams, sum.1 + bytes);
                }
                wire.extend(datagrams.into_iter().map(|datagram| (key, datagram)));
            }
            prop_assert_eq!(by_destination(wire), by_destination(sends.iter().flat_map(|send| cut(send, arenas))));
            for (number, send) in (0..).zip(&sends) {
                prop_assert_eq!(accounted[&number], (cut(send, arenas).len() as u32, send.bytes.len() as u32));
            }
        }
    }

    #[test]
    fn clients_spread_over_the_cells_whatever_they_share() {
        let plan = planned(&made(&[(0, None, 0, 1, 0); 64]).0);
        let ways: [fn(u16) -> (IpAddr, u16); 3] = [
            |n| ([192, 0, 2, 1].into(), 40_000 + n),
            |n| ([10, 0, 0, n as u8].into(), 5353),
            |n| ([0x2001, 0xdb8, 0, n, 0, 0, 0, 1].into(), 53),
        ];
        for clients in ways {
            let keys = (0..64).map(|n| Key { to: Some(clients(n).into()), from: None });
            let homes: std::collections::BTreeSet<usize> = keys.map(|key| plan.home(&key)).collect();
            assert!(homes.len() >= 40, "{} cells of {}", homes.len(), plan.table.len());
        }
    }

    #[test]
    fn interleaved_destinations_join() {
        let all: Vec<Asked> = (0..40).map(|n| (n % 4, None, 0, 100, 0)).collect();
        let (sends, ..) = made(&all);
        let mut plan = planned(&sends);
        assert_eq!(plan.trains.len(), 4);
        let mut filled = |from, longest, refused| {
            let all = plan.fill(from, longest, |number| sends[number as usize].bytes, &mut SendBatch::new());
            (all, plan.trains_from(refused))
        };
        assert_eq!([filled(0, u16::MAX, 0), filled(0, u16::MAX, 3), filled(2, u16::MAX, 2)], [(4, 4), (4, 1), (2, 2)]);
        assert_eq!(filled(0, 50, 0), (0, 0), "as single datagrams they are no trains");
    }

    #[test]
    fn a_shorter_datagram_ends_a_train_and_a_longer_one_begins_another() {
        let lens = [100, 100, 40, 100, 120, 0, 0];
        let all: Vec<Asked> = lens.iter().map(|&len| (1, None, 0, len, 0)).collect();
        let (sends, ..) = made(&all);
        let trains: Vec<u32> = planned(&sends).trains.iter().map(|train| train.datagrams).collect();
        assert_eq!(trains, [3, 1, 1, 1, 1]);
    }
}
