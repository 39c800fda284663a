//! Clients and backends: how much each sends, how fast it takes, how it ends. Their bytes tell whose they are.

use std::net::{Ipv4Addr, SocketAddr};

use fastrand::Rng;
use kakei_config::{Document, Name};
use kakei_wire::proxy_protocol::{Addresses, Command, v2};

use super::documents::{SNI, TRUSTED};

/// How an actor ends its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// When it has sent all that it has.
    WhenSent,
    /// When it has seen the other's end.
    AfterTheOther,
    /// By a reset, when it has sent so much.
    ResetAt(u64),
    /// Not by itself.
    Never,
}

/// One end of a connection outside the proxy.
#[derive(Clone, Debug)]
pub(super) struct Actor {
    pub(super) id: usize,
    /// Set for a client.
    pub(super) guest: Option<Guest>,
    /// What it sends: what comes before, then a pattern that begins with who it is.
    pub(super) preface: Vec<u8>,
    pub(super) total: u64,
    /// How much of it the machine has.
    pub(super) sent: u64,
    pub(super) ends: Ends,
    /// It takes nothing for now.
    pub(super) stalled: bool,
    /// What it received before it could tell from whom.
    pub(super) held: Vec<u8>,
    /// Whether a PROXY header can't come any more, and the one that came.
    pub(super) introduced: bool,
    pub(super) header: Option<(Option<SocketAddr>, Vec<u8>)>,
    /// From whom it receives.
    pub(super) partner: Option<usize>,
    /// How much of what the partner sends it received, what was for the proxy alone included.
    pub(super) received: u64,
    /// It saw the other's end, or a reset.
    pub(super) saw_end: bool,
    pub(super) saw_reset: bool,
    /// The machine told of its reset.
    pub(super) told_reset: bool,
}

/// What only a client has.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    pub(super) listener: Name,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    /// Who it is: itself, or whom its PROXY header names.
    pub(super) client: SocketAddr,
    pub(super) sni: Option<String>,
    /// Its header is one that nobody can read.
    pub(super) garbage: bool,
}

/// Bytes in which a pattern says whose it is.
const NAME: usize = 3;

impl Actor {
    fn new(id: usize, rng: &mut Rng) -> Self {
        let total = match rng.u8(0..8) {
            0 => 0,
            1..=4 => rng.u64(0..3_000),
            5 | 6 => rng.u64(0..200_000),
            _ => rng.u64(0..1_500_000),
        };
        let ends = match rng.u8(0..10) {
            0..=3 => Ends::WhenSent,
            4..=6 => Ends::AfterTheOther,
            7 | 8 => Ends::ResetAt(rng.u64(0..=total)),
            _ => Ends::Never,
        };
        Actor {
            id,
            guest: None,
            preface: Vec::new(),
            total,
            sent: 0,
            ends,
            stalled: rng.u8(0..12) == 0,
            held: Vec::new(),
            introduced: false,
            header: None,
            partner: None,
            received: 0,
            saw_end: false,
            saw_reset: false,
            told_reset: false,
        }
    }

    /// A backend that was connected to.
    pub(super) fn backend(id: usize, rng: &mut Rng) -> Self {
        Actor::new(id, rng)
    }

    /// A client of a listener.
    pub(super) fn client(id: usize, (listener, bind): (Name, SocketAddr), document: &Document, rng: &mut Rng) -> Self {
        let mut actor = Actor::new(id, rng);
        let peer = SocketAddr::new(Ipv4Addr::new(198, 51, 100, rng.u8(1..5)).into(), 10_000 + id as u16);
        let local = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), bind.port());
        let mut guest = Guest { listener, peer, local, client: peer, sni: None, garbage: false };
        if !document.listeners[&guest.listener].proxy_protocol.trusted.is_empty() {
            guest.peer.set_ip(TRUSTED);
            guest.garbage = rng.u8(0..6) == 0;
            actor.preface = match guest.garbage {
                true => b"GET / HTTP/1.1\r\n\r\n".to_vec(),
                false => {
                    guest.client = SocketAddr::new(Ipv4Addr::new(203, 0, 113, rng.u8(1..4)).into(), 10_000 + id as u16);
                    header(&guest)
                }
            };
        }
        let asks_hello = document.routes.values().any(|r| r.listener == guest.listener && !r.sni.is_empty());
        if asks_hello && rng.u8(0..4) > 0 {
            let name = SNI[rng.usize(0..SNI.len())];
            guest.sni = Some(name.to_owned());
            actor.preface.extend(hello(name, rng));
        }
        actor.guest = Some(guest);
        actor
    }

    /// All that it would send.
    pub(super) fn whole(&self) -> u64 {
        self.preface.len() as u64 + self.total
    }

    /// How much more it would send.
    pub(super) fn left(&self) -> u64 {
        let until = match self.ends {
            Ends::ResetAt(at) => at.min(self.whole()),
            _ => self.whole(),
        };
        until.saturating_sub(self.sent)
    }

    /// Whether its stream has ended in an orderly way.
    pub(super) fn has_ended(&self) -> bool {
        let may = match self.ends {
            Ends::WhenSent => true,
            Ends::AfterTheOther => self.saw_end,
            Ends::ResetAt(_) | Ends::Never => false,
        };
        may && self.left() == 0
    }

    pub(super) fn has_reset(&self) -> bool {
        matches!(self.ends, Ends::ResetAt(_)) && self.left() == 0
    }

    /// The byte at an offset of what it sends.
    pub(super) fn byte(&self, offset: u64) -> u8 {
        match self.preface.get(offset as usize) {
            Some(byte) => *byte,
            None => pattern(self.id, offset - self.preface.len() as u64),
        }
    }

    /// How much of what it sends is for the proxy alone.
    pub(super) fn consumed(&self) -> u64 {
        let is_believed = self.guest.as_ref().is_some_and(|guest| guest.client != guest.peer);
        if is_believed { self.guest.as_ref().map_or(0, |guest| header(guest).len() as u64) } else { 0 }
    }

    /// From now on it comes to an end.
    pub(super) fn wind_down(&mut self) {
        self.stalled = false;
        if self.ends == Ends::Never || (self.ends == Ends::AfterTheOther && self.guest.is_some()) {
            self.ends = Ends::WhenSent;
        }
    }
}

fn pattern(id: usize, offset: u64) -> u8 {
    match offset as usize {
        at @ 0..NAME => 0x80 | (id >> (7 * at)) as u8 & 0x7f,
        _ => (offset ^ (id as u64) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0],
    }
}

/// Who sent these bytes, which are the beginning of what it sends behind a header for the proxy: none while that can't
/// be told.
pub(super) fn sender(mut bytes: &[u8]) -> Option<usize> {
    while let [22, _, _, high, low, rest @ ..] = bytes {
        bytes = rest.get(usize::from(u16::from_be_bytes([*high, *low]))..)?;
    }
    let name = bytes.get(..NAME).filter(|name| name[0] != 22)?;
    Some(name.iter().enumerate().map(|(at, byte)| usize::from(byte & 0x7f) << (7 * at)).sum())
}

/// The header by which a trusted proxy says who the client is, with something beside the addresses.
fn header(guest: &Guest) -> Vec<u8> {
    let addresses = Addresses { source: guest.client, destination: guest.local };
    let mut header = Vec::new();
    v2::emit_stream(Command::Proxy, Some(addresses), &TLV, &mut header);
    header
}

/// What comes in beside the addresses.
pub(super) const TLV: [u8; 5] = [0xE0, 0, 2, 7, 9];

/// A ClientHello that asks for a server name, in one record or in two.
fn hello(name: &str, rng: &mut Rng) -> Vec<u8> {
    let name = name.as_bytes();
    let mut extension = vec![0, 0];
    extension.extend((name.len() as u16 + 5).to_be_bytes());
    extension.extend((name.len() as u16 + 3).to_be_bytes());
    extension.push(0);
    extension.extend((name.len() as u16).to_be_bytes());
    extension.extend(name);
    let mut body = vec![3, 3];
    body.extend([rng.u8(..); 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    body.extend((extension.len() as u16).to_be_bytes());
    body.extend(extension);
    let mut message = vec![1, 0];
    message.extend((body.len() as u16).to_be_bytes());
    message.extend(body);
    let cut = if rng.bool() { rng.usize(1..message.len()) } else { message.len() };
    let mut bytes = Vec::new();
    for part in [&message[..cut], &message[cut..]] {
        if !part.is_empty() {
            bytes.extend([22, 3, 1]);
            bytes.extend((part.len() as u16).to_be_bytes());
            bytes.extend(part);
        }
    }
    bytes
}
