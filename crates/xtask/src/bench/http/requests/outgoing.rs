//! Requests and answers as they leave: prepared once, and before each send given what tells it from the others.

use super::Terms;
use crate::bench::generator::net::{Moved, Net, Slot};
use crate::bench::generator::pattern::{CHUNK, Pattern};
use crate::bench::http::routes;

/// What a request is known by: in its path, and at the beginning of the answer's body.
pub(super) type Id = [u8; 16];

/// One message, head and body.
struct Outgoing {
    /// The head, and the body as far as one write may offer it.
    begin: Vec<u8>,
    head: usize,
    body: usize,
}

impl Outgoing {
    fn new(head: &str, body: usize, pattern: &Pattern) -> Outgoing {
        let mut begin = head.as_bytes().to_vec();
        begin.extend_from_slice(&pattern.from(0)[..body.min(CHUNK)]);
        Outgoing { begin, head: head.len(), body }
    }

    /// Send what follows the first `at` bytes, as far as it goes.
    fn send(&self, pattern: &Pattern, net: &Net, slot: Slot, at: &mut usize) -> Sent {
        loop {
            let moved = match self.begin.get(*at..) {
                Some(rest) if !rest.is_empty() => net.write(slot, rest),
                _ => {
                    let from = *at - self.head;
                    match (self.body - from).min(CHUNK) {
                        0 => return Sent::Whole,
                        length => net.write(slot, &pattern.from(from as u64)[..length]),
                    }
                }
            };
            match moved {
                Moved::Bytes(n) => *at += n,
                Moved::Wait => return Sent::Part,
                Moved::End | Moved::Lost => return Sent::Lost,
            }
        }
    }
}

/// What became of a send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sent {
    Whole,
    Part,
    Lost,
}

/// The clients' request.
pub(super) struct Request {
    message: Outgoing,
    /// Where host number, path number and id stand.
    places: [usize; 3],
    routes: u64,
    /// Whether every request takes the same route.
    one_route: bool,
}

impl Request {
    pub(super) fn new(terms: &Terms, pattern: &Pattern) -> Request {
        let (method, length) = match terms.up {
            0 => ("GET", String::new()),
            up => ("PUT", format!("Content-Length: {up}\r\n")),
        };
        let closes = if terms.fresh { "Connection: close\r\n" } else { "" };
        let (host, path) = (routes::host(0), routes::path(0));
        let begin = format!("{method} {path}/{:016x} HTTP/1.1\r\nHost: ", 0);
        let head = format!("{begin}{host}\r\nUser-Agent: bench/1\r\nAccept: */*\r\n{closes}{length}\r\n");
        let path = method.len() + 1;
        let places = [begin.len() + "h".len(), path + "/p".len(), path + "/p0/".len()];
        let message = Outgoing::new(&head, terms.up, pattern);
        Request { message, places, routes: terms.routes, one_route: terms.one_route }
    }

    /// Send what follows the first `at` bytes of request `number`.
    pub(super) fn send(&mut self, pattern: &Pattern, (net, slot): (&Net, Slot), number: u64, at: &mut usize) -> Sent {
        self.prepare(number);
        self.message.send(pattern, net, slot, at)
    }

    fn prepare(&mut self, number: u64) {
        let route = if self.one_route { self.routes / 2 } else { number.wrapping_mul(STRIDE) % self.routes };
        let [host, path, id] = self.places;
        let bytes = &mut self.message.begin;
        digits(&mut bytes[host..host + 5], route / 10);
        digits(&mut bytes[path..path + 1], route % 10);
        bytes[id..id + 16].copy_from_slice(&id_of(number));
    }
}

/// The backend's answer.
pub(super) struct Answer(Outgoing);

impl Answer {
    pub(super) fn new(terms: &Terms, pattern: &Pattern) -> Answer {
        let length = terms.down;
        let head = format!(
            "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
        );
        Answer(Outgoing::new(&head, length, pattern))
    }

    /// Send what follows the first `at` bytes of the answer to `id`.
    pub(super) fn send(&mut self, pattern: &Pattern, (net, slot): (&Net, Slot), id: &Id, at: &mut usize) -> Sent {
        let head = self.0.head;
        self.0.begin[head..head + id.len()].copy_from_slice(id);
        self.0.send(pattern, net, slot, at)
    }
}

/// From one request's route to the next one's: a prime, so that all routes have their turn and neighbours don't follow.
const STRIDE: u64 = 7919;

/// What request `number` is known by.
pub(super) fn id_of(number: u64) -> Id {
    let mut id = [0; 16];
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = b"0123456789abcdef"[(number >> (60 - 4 * at) & 15) as usize];
    }
    id
}

/// Write `number` in decimal, as many digits as there is place for.
fn digits(place: &mut [u8], mut number: u64) {
    for byte in place.iter_mut().rev() {
        *byte = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_route_and_itself() {
        let terms = Terms { down: 100, up: 0, routes: 100_000, one_route: false, fresh: true, named: true };
        let mut request = Request::new(&terms, &Pattern::new());
        request.prepare(0xabc);
        let route = 0xabc * STRIDE as usize % 100_000;
        let text = String::from_utf8(request.message.begin).unwrap();
        let line = format!("GET {}/0000000000000abc HTTP/1.1\r\n", routes::path(route));
        assert!(text.starts_with(&line), "{text}");
        assert!(text.contains(&format!("\r\nHost: {}\r\n", routes::host(route))), "{text}");
        assert!(text.ends_with("\r\nConnection: close\r\n\r\n"), "{text}");
    }
}
