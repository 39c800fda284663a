//! The backend's side of a connection: it takes a request whole and answers it from prepared bytes.

use super::head::names_client;
use super::incoming::{Incoming, Took};
use super::outgoing::{Id, Sent};
use super::{Common, Turn};
use crate::bench::generator::net::{Net, Slot};
use crate::bench::generator::pattern::CHUNK;

#[derive(Default)]
pub(super) struct Server {
    step: Step,
    id: Id,
    closes: bool,
    incoming: Incoming,
}

#[derive(Clone, Copy, Default)]
enum Step {
    #[default]
    Head,
    /// So many bytes of the request's body are here.
    Body(usize),
    /// So many bytes of the answer are sent.
    Answering(usize),
}

impl Server {
    /// Do what can be done now.
    pub(super) fn ready(&mut self, common: &mut Common, net: &Net, slot: Slot) -> Turn {
        loop {
            let turn = match self.step {
                Step::Head => self.take_head(common, net, slot),
                Step::Body(at) if at == common.terms.up => {
                    self.step = Step::Answering(0);
                    Turn::Next
                }
                Step::Body(at) => self.take_body(common, net, slot, at),
                Step::Answering(mut at) => match common.answer.send(&common.pattern, (net, slot), &self.id, &mut at) {
                    Sent::Whole if self.closes => Turn::Done,
                    Sent::Whole => {
                        self.step = Step::Head;
                        Turn::Wait
                    }
                    Sent::Part => {
                        self.step = Step::Answering(at);
                        Turn::Wait
                    }
                    Sent::Lost => Turn::Lost,
                },
            };
            if turn != Turn::Next {
                return turn;
            }
        }
    }

    fn take_head(&mut self, common: &mut Common, net: &Net, slot: Slot) -> Turn {
        let (up, named, pattern) = (common.terms.up, common.terms.named, &common.pattern);
        let took = self.incoming.head(&mut common.scratch, (net, slot), 0, |came| {
            let id = came.head.first.strip_suffix(b" HTTP/1.1")?.last_chunk::<16>()?;
            let is_named = !named || !came.looked_at || names_client(came.lines);
            let fits = came.head.length.unwrap_or(0) == up && came.body.len() <= up;
            let right = is_named && fits && pattern.from(0).starts_with(came.body);
            right.then_some((*id, came.head.closes, came.body.len()))
        });
        let Took::This(request) = took else { return Turn::without(&took) };
        let Some((id, closes, length)) = request else {
            common.tally.wrong += 1;
            return Turn::Done;
        };
        (self.id, self.closes, self.step) = (id, closes, Step::Body(length));
        Turn::Next
    }

    fn take_body(&mut self, common: &mut Common, net: &Net, slot: Slot, at: usize) -> Turn {
        let room = &mut common.scratch[..(common.terms.up - at).min(CHUNK)];
        let expected = common.pattern.from(at as u64);
        let took = self.incoming.body(room, (net, slot), |bytes| expected.starts_with(bytes));
        let Took::This((n, right)) = took else { return Turn::without(&took) };
        common.tally.wrong += u64::from(!right);
        self.step = Step::Body(at + n);
        Turn::Next
    }
}
