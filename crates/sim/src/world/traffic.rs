//! Datagrams on their way: from clients to front sockets, from workers to backends, and back.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::{Happening, Place, World};
use crate::machine::Arrived;
use crate::network::{Carried, Packet};

impl World {
    /// Send something into the network.
    pub(super) fn put_on_wire(&mut self, packet: Packet, place: Place) {
        for at in self.network.send(self.now, &packet) {
            self.agenda.at(at, Happening::Arrives(packet.clone(), place));
        }
    }

    pub(super) fn arrives(&mut self, packet: Packet, place: Place) {
        match (packet.what, place) {
            (Carried::Datagram(bytes), Place::Front) => self.arrives_in_front(packet.from, packet.to, bytes),
            (Carried::Datagram(bytes), Place::Upstream) => {
                let Some((worker, serial)) = self.host.owner(packet.to) else { return };
                let arrived = Arrived { peer: packet.from, local: packet.to, bytes };
                if self.machines[worker].arrive(serial, arrived) {
                    self.wake(worker);
                }
            }
            (Carried::Refused, Place::Upstream) => {
                let Some((worker, serial)) = self.host.owner(packet.to) else { return };
                self.truth.counters.unreachable += 1;
                self.machines[worker].unreachable(serial, packet.from);
                self.wake(worker);
            }
            (Carried::Datagram(bytes), Place::Backend) => self.arrives_at_backend(packet.from, packet.to, &bytes),
            // What a client gets was checked when it was sent: the network changes no byte.
            (_, Place::Client) | (Carried::Refused, _) => {}
        }
    }

    fn arrives_in_front(&mut self, peer: SocketAddr, local: SocketAddr, bytes: Rc<[u8]>) {
        let Some(bind) = self.host.bind_for(local) else { return };
        if let Some(worker) = self.host.arrive(&bind, Arrived { peer, local, bytes }) {
            self.wake(worker);
        }
    }

    fn arrives_at_backend(&mut self, proxy: SocketAddr, backend: SocketAddr, bytes: &[u8]) {
        if !self.backends.is_up(backend, self.now) {
            let refused = Packet { from: backend, to: proxy, what: Carried::Refused };
            return self.put_on_wire(refused, Place::Upstream);
        }
        if let Some(answer) = self.truth.ledger.probes.get(bytes) {
            let bytes = Rc::from(answer.as_slice());
            let soon = Duration::from_micros(self.rng.u64(10..2_000));
            return self.agenda.at(self.now + soon, Happening::Answers { backend, to: proxy, bytes });
        }
        let request = self.truth.ledger.locate(bytes).map(|located| located.id);
        for answering in self.backends.answers(request) {
            let bytes = Rc::from(self.truth.ledger.answer(request, answering.len));
            self.agenda.at(self.now + answering.after, Happening::Answers { backend, to: proxy, bytes });
        }
    }

    pub(super) fn answers(&mut self, backend: SocketAddr, to: SocketAddr, bytes: Rc<[u8]>) {
        if self.backends.is_up(backend, self.now) {
            self.put_on_wire(Packet { from: backend, to, what: Carried::Datagram(bytes) }, Place::Upstream);
        }
    }

    pub(super) fn client_acts(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let act = client.act();
        let (from, to) = (client.address, client.dials);
        for (header, len) in act.datagrams {
            let bytes = match len {
                Some(len) => self.truth.ledger.request(from, to, len, &header),
                None => header,
            };
            self.trace.fold(self.now, &bytes[..bytes.len().min(48)]);
            self.put_on_wire(Packet { from, to, what: Carried::Datagram(Rc::from(bytes)) }, Place::Front);
        }
        if let Some(pause) = act.pause
            && self.now < self.until
        {
            self.agenda.at(self.now + pause, Happening::Client(at));
        }
    }
}
