//! A client: it asks, looks at what is answered, and asks again.

use std::time::Instant;

use super::incoming::{Incoming, Took};
use super::outgoing::{Id, Sent, id_of};
use super::{Common, Turn};
use crate::bench::generator::net::{Moved, Net, Slot};
use crate::bench::generator::pattern::CHUNK;

pub(super) struct Client {
    number: u64,
    since: Instant,
    step: Step,
    /// Whether it was answered once.
    pub(super) opened: bool,
    incoming: Incoming,
}

#[derive(Clone, Copy)]
enum Step {
    /// So many bytes of the request are sent.
    Asking(usize),
    Head,
    /// So many bytes of the answer's body are here.
    Body(usize),
    /// The other side is to close.
    Ending,
    /// Nothing is to come.
    Resting,
}

impl Client {
    pub(super) fn new(number: u64) -> Client {
        Client { number, since: Instant::now(), step: Step::Asking(0), opened: false, incoming: Incoming::default() }
    }

    /// Do what can be done now.
    pub(super) fn ready(&mut self, common: &mut Common, net: &Net, slot: Slot) -> Turn {
        loop {
            let turn = match self.step {
                Step::Asking(mut at) => match common.request.send(&common.pattern, (net, slot), self.number, &mut at) {
                    Sent::Whole => {
                        self.step = Step::Head;
                        Turn::Wait
                    }
                    Sent::Part => {
                        self.step = Step::Asking(at);
                        Turn::Wait
                    }
                    Sent::Lost => Turn::Lost,
                },
                Step::Head => self.take_head(common, net, slot),
                Step::Body(at) if at == common.terms.down => self.answered(common),
                Step::Body(at) => self.take_body(common, net, slot, at),
                Step::Ending => match net.read(slot, &mut common.scratch) {
                    Moved::End => Turn::Done,
                    Moved::Wait => Turn::Wait,
                    Moved::Bytes(_) | Moved::Lost => Turn::Lost,
                },
                Step::Resting => match net.read(slot, &mut common.scratch) {
                    Moved::Wait => Turn::Wait,
                    _ => Turn::Lost,
                },
            };
            if turn != Turn::Next {
                return turn;
            }
        }
    }

    fn take_head(&mut self, common: &mut Common, net: &Net, slot: Slot) -> Turn {
        let (id, down, pattern) = (id_of(self.number), common.terms.down, &common.pattern);
        let took = self.incoming.head(&mut common.scratch, (net, slot), id.len(), |came| {
            let is_good = came.head.first.starts_with(b"HTTP/1.1 200 ") && came.head.length == Some(down);
            let length = came.body.len();
            let looked_at = if came.looked_at { length } else { id.len() };
            let fits = is_good && length <= down;
            (fits.then_some(length), fits && is_part(pattern.from(0), &id, 0, &came.body[..looked_at]))
        });
        let Took::This((length, right)) = took else { return Turn::without(&took) };
        common.tally.wrong += u64::from(!right);
        // Of what doesn't fit nobody knows where it ends.
        let Some(length) = length else { return Turn::Lost };
        common.count_bytes(length);
        self.step = Step::Body(length);
        Turn::Next
    }

    fn take_body(&mut self, common: &mut Common, net: &Net, slot: Slot, at: usize) -> Turn {
        let room = &mut common.scratch[..(common.terms.down - at).min(CHUNK)];
        let expected = common.pattern.from(at as u64);
        let took = self.incoming.body(room, (net, slot), |bytes| is_part(expected, &id_of(self.number), at, bytes));
        let Took::This((n, right)) = took else { return Turn::without(&took) };
        common.tally.wrong += u64::from(!right);
        common.count_bytes(n);
        self.step = Step::Body(at + n);
        Turn::Next
    }

    /// A whole answer is here.
    fn answered(&mut self, common: &mut Common) -> Turn {
        common.tally.units += common.weight;
        common.tally.delays.add(self.since.elapsed().as_nanos() as u64);
        if !self.opened {
            self.opened = true;
            common.opening -= 1;
        }
        if common.terms.fresh {
            self.step = Step::Ending;
        } else if common.goes_on {
            self.number = common.next();
            self.since = Instant::now();
            self.step = Step::Asking(0);
        } else {
            self.step = Step::Resting;
            return Turn::Wait;
        }
        Turn::Next
    }
}

/// Whether `bytes` are what an answer's body has at `at`, where the pattern goes on with `pattern`.
fn is_part(pattern: &[u8], id: &Id, at: usize, bytes: &[u8]) -> bool {
    let of_id = &id[at.min(id.len())..(at + bytes.len()).min(id.len())];
    let (first, rest) = bytes.split_at(of_id.len());
    first == of_id && pattern[first.len()..].starts_with(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::generator::pattern::Pattern;

    #[test]
    fn a_body_is_the_id_and_the_pattern_wherever_it_is_cut() {
        let (pattern, id) = (Pattern::new(), id_of(77));
        let body: Vec<u8> = id.iter().chain(&pattern.from(16)[..84]).copied().collect();
        for cut in 0..body.len() {
            assert!(is_part(pattern.from(cut as u64), &id, cut, &body[cut..]), "{cut}");
            let other = is_part(pattern.from(cut as u64), &id_of(78), cut, &body[cut..]);
            assert_eq!(other, cut >= 16, "{cut}");
        }
    }
}
