//! The clients and the backend of HTTP: requests that are prepared, answers that are, and a look at each. Measures no one's CPU.

mod backend;
mod client;
mod head;
mod incoming;
mod outgoing;
mod websocket;

use std::path::Path;

use crate::bench::args::Words;
use crate::bench::generator::messages::Messages;
use crate::bench::generator::net::{EDGES, Net, Slot};
use crate::bench::generator::pattern::{CHUNK, Pattern};
use crate::bench::generator::secured::{Handshakes, Sessions};
use crate::bench::generator::{self, Ends, Shape, Tally, idle, load};
use crate::bench::http::routes;
use backend::Server;
use client::Client;
use incoming::Took;
use outgoing::{Answer, Request};
use websocket::WebSocket;

/// How many connections may be under way at a time.
const UNDER_WAY: usize = 128;

/// Run one load: `shape= connections= down= up= routes= named= tls= certificate= warm_ms= measure_ms=`.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let words = Words::read(args)?;
    let connections: usize = words.get("connections")?;
    let shape: String = words.get("shape")?;
    let terms = Terms::read(&words, &shape)?;
    match shape.as_str() {
        "websocket" => generator::run(
            || Messages::<WebSocket>::new(1, false),
            |net| load(net, Messages::<WebSocket>::new(connections, true), &words),
        ),
        _ => {
            // The first one comes by a connection that stays: a fresh one's end would say nothing of its answer.
            let one = || Requests::new(Terms { fresh: false, ..terms }, 1, false);
            generator::run_secured(sessions(&words)?, one, |net| match shape.as_str() {
                "idle" => idle(net, one(), connections),
                _ => load(net, Requests::new(terms, connections, true), &words),
            })
        }
    }
}

/// The clients' TLS, where they are to speak it.
fn sessions(words: &Words) -> Result<Option<Sessions>, String> {
    let wanted = match words.get::<String>("tls")?.as_str() {
        "no" => return Ok(None),
        "full" => Handshakes::Full,
        "resumed" => Handshakes::Resumed,
        other => return Err(format!("there are no handshakes `{other}`")),
    };
    let certificate: String = words.get("certificate")?;
    Sessions::new(wanted, &routes::host(0), Path::new(&certificate)).map(Some)
}

/// What clients and backend have agreed on.
#[derive(Clone, Copy, Debug)]
struct Terms {
    /// The lengths of an answer's body, and of a request's.
    down: usize,
    up: usize,
    /// By how many routes requests go, and whether all take one of them.
    routes: u64,
    one_route: bool,
    /// Whether each request has a connection of its own.
    fresh: bool,
    /// Whether the backend is to hear who the client is.
    named: bool,
}

impl Terms {
    fn read(words: &Words, shape: &str) -> Result<Terms, String> {
        if !["requests", "one-route", "fresh", "websocket", "idle"].contains(&shape) {
            return Err(format!("there is no shape `{shape}`"));
        }
        Ok(Terms {
            down: words.get("down")?,
            up: words.get("up")?,
            routes: words.get("routes")?,
            one_route: shape == "one-route",
            fresh: shape == "fresh",
            named: words.get("named")?,
        })
    }

    /// What an answer counts: a large body of the request its bytes.
    fn weight(&self) -> u64 {
        match self.up {
            _ if self.counts_bytes() => 0,
            large if large > CHUNK => large as u64,
            _ => 1,
        }
    }

    /// Whether what is counted are the bytes of answers, as they come.
    fn counts_bytes(&self) -> bool {
        self.down > CHUNK
    }
}

/// Clients that ask and a backend that answers.
struct Requests {
    wanted: usize,
    active: usize,
    /// Whether a connection was refused just now.
    refused: bool,
    ends: Ends<End>,
    common: Common,
}

enum End {
    Client(Client),
    Backend(Server),
}

/// What all connections use.
struct Common {
    terms: Terms,
    weight: u64,
    /// Whether a client goes on after its first answer.
    goes_on: bool,
    /// Clients without an answer so far.
    opening: usize,
    asked: u64,
    request: Request,
    answer: Answer,
    pattern: Pattern,
    scratch: Vec<u8>,
    tally: Tally,
}

/// How an end of a connection goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// There is more to do at once.
    Next,
    Wait,
    /// The connection has ended as it should.
    Done,
    Lost,
}

impl Turn {
    /// After a read that brought nothing.
    fn without<T>(took: &Took<T>) -> Turn {
        if matches!(took, Took::Gone) { Turn::Lost } else { Turn::Wait }
    }
}

impl Common {
    /// So much of an answer's body has come.
    fn count_bytes(&mut self, n: usize) {
        self.tally.units += if self.terms.counts_bytes() { n as u64 } else { 0 };
    }

    /// The number of the next request.
    fn next(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }
}

impl Requests {
    fn new(terms: Terms, connections: usize, goes_on: bool) -> Requests {
        let pattern = Pattern::new();
        let common = Common {
            terms,
            weight: terms.weight(),
            goes_on,
            opening: 0,
            asked: 0,
            request: Request::new(&terms, &pattern),
            answer: Answer::new(&terms, &pattern),
            pattern,
            scratch: vec![0; CHUNK],
            tally: Tally::default(),
        };
        Requests { wanted: connections, active: 0, refused: false, ends: Ends::new(), common }
    }
}

impl Shape for Requests {
    const SPINS: bool = true;

    fn tally(&mut self) -> &mut Tally {
        &mut self.common.tally
    }

    fn settled(&self) -> bool {
        // Fresh connections come and go, so that some are always being opened.
        let gone = self.common.tally.units >= self.wanted as u64;
        let opened = if self.common.terms.fresh { gone } else { self.common.opening == 0 };
        opened && self.active == self.wanted
    }

    fn opened(&self) -> usize {
        self.active - self.common.opening
    }

    fn grow(&mut self, connections: usize) {
        self.wanted = connections;
    }

    fn tick(&mut self, net: &mut Net) {
        // Who was refused waits for a while, or it would be refused some thousand times before the proxy runs.
        if std::mem::take(&mut self.refused) {
            return;
        }
        while self.active < self.wanted && self.common.opening < UNDER_WAY {
            let Ok(slot) = net.connect(EDGES) else {
                self.common.tally.lost += 1;
                return;
            };
            let number = self.common.next();
            self.ends.put(slot, End::Client(Client::new(number)));
            self.active += 1;
            self.common.opening += 1;
        }
    }

    fn arrived(&mut self, net: &mut Net) {
        while let Some(slot) = net.accept(EDGES) {
            self.ends.put(slot, End::Backend(Server::default()));
        }
    }

    fn ready(&mut self, net: &mut Net, slot: Slot) {
        let Some(end) = self.ends.get(slot) else { return };
        let turn = match end {
            End::Client(client) => client.ready(&mut self.common, net, slot),
            End::Backend(server) => server.ready(&mut self.common, net, slot),
        };
        if matches!(turn, Turn::Next | Turn::Wait) {
            return;
        }
        if let End::Client(client) = end {
            self.active -= 1;
            self.common.opening -= usize::from(!client.opened);
            self.refused = !client.opened;
            // What the backend's side loses is counted where somebody waits for an answer.
            self.common.tally.lost += u64::from(turn == Turn::Lost);
        }
        net.close(slot);
    }
}
