//! Short connections: connect, a request, an answer after which the backend closes, and the next one.

use std::time::Instant;

use crate::bench::generator::messages::{LENGTH, message};
use crate::bench::generator::net::{EDGES, Moved, Net, Slot};
use crate::bench::generator::{Ends, Shape, Tally};

pub(super) struct Visits {
    /// How many clients come again and again.
    clients: usize,
    under_way: usize,
    begun: u64,
    ends: Ends<End>,
    scratch: Vec<u8>,
    tally: Tally,
}

#[derive(Clone, Copy)]
enum End {
    Backend,
    Client { number: u64, since: Instant, asked: bool, got: usize },
}

impl Visits {
    pub(super) fn new(clients: usize) -> Visits {
        Visits { clients, under_way: 0, begun: 0, ends: Ends::new(), scratch: vec![0; 4096], tally: Tally::default() }
    }

    /// The backend: echo the request, and close.
    fn serve(&mut self, net: &mut Net, slot: Slot) {
        match net.read(slot, &mut self.scratch) {
            Moved::Wait => {}
            Moved::Bytes(n) => {
                // A client that gets no whole answer counts it as lost.
                let _ = net.write(slot, &self.scratch[..n]);
                net.close(slot);
            }
            Moved::End | Moved::Lost => net.close(slot),
        }
    }

    fn visit(&mut self, net: &mut Net, slot: Slot) {
        let Some(End::Client { number, since, asked, got }) = self.ends.get(slot) else { return };
        if !*asked {
            match net.write(slot, &message(*number, 0)) {
                Moved::Bytes(LENGTH) => *asked = true,
                Moved::Wait => {}
                _ => self.end(net, slot, false),
            }
            return;
        }
        loop {
            match net.read(slot, &mut self.scratch) {
                Moved::Bytes(n) => {
                    let expected = message(*number, 0);
                    let same = expected.get(*got..*got + n).is_some_and(|part| *part == self.scratch[..n]);
                    self.tally.wrong += u64::from(!same);
                    *got += n;
                }
                Moved::Wait => return,
                Moved::End => {
                    let whole = *got == LENGTH;
                    self.tally.delays.add(since.elapsed().as_nanos() as u64);
                    return self.end(net, slot, whole);
                }
                Moved::Lost => return self.end(net, slot, false),
            }
        }
    }

    fn end(&mut self, net: &mut Net, slot: Slot, whole: bool) {
        if whole {
            self.tally.units += 1;
        } else {
            self.tally.lost += 1;
        }
        self.under_way -= 1;
        net.close(slot);
    }
}

impl Shape for Visits {
    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn settled(&self) -> bool {
        self.tally.units > 0
    }

    fn tick(&mut self, net: &mut Net) {
        while self.under_way < self.clients {
            let Ok(slot) = net.connect(EDGES) else {
                self.tally.lost += 1;
                return;
            };
            self.ends.put(slot, End::Client { number: self.begun, since: Instant::now(), asked: false, got: 0 });
            self.begun += 1;
            self.under_way += 1;
        }
    }

    fn arrived(&mut self, net: &mut Net) {
        while let Some(slot) = net.accept(EDGES) {
            self.ends.put(slot, End::Backend);
        }
    }

    fn ready(&mut self, net: &mut Net, slot: Slot) {
        match self.ends.get(slot) {
            Some(End::Client { .. }) => self.visit(net, slot),
            _ => self.serve(net, slot),
        }
    }
}
