//! Who sent what to whom: the identity of every datagram that a simulated peer made. Knows no flow.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use kakei_config::Name;
use kakei_proxy::seam::Instant;

use super::flows::Key;
use crate::payload::{self, Headed, Identity};

/// A client's datagram.
#[derive(Debug)]
pub(crate) struct Request {
    /// The socket that asked.
    pub(crate) peer: SocketAddr,
    /// The address it dialled.
    pub(crate) dialled: SocketAddr,
    /// Payload bytes, headers not included.
    pub(crate) len: usize,
    /// Receipts by workers that were neither forwarded nor failed yet, oldest first.
    pub(crate) receipts: VecDeque<Receipt>,
    /// Which flow forwarded it last.
    pub(crate) flow: Option<usize>,
}

/// A worker was given a request.
#[derive(Clone, Debug)]
pub(crate) struct Receipt {
    pub(crate) worker: u16,
    pub(crate) at: Instant,
    /// Counts the receipts of all workers.
    pub(crate) sequence: u64,
    pub(crate) key: Key,
    /// Whether its own PROXY header was taken off.
    pub(crate) stripped: bool,
    /// The listener that the bind belonged to.
    pub(crate) listener: Name,
}

/// A backend's datagram.
#[derive(Debug)]
pub(crate) struct Answer {
    /// What it answers, where that could be told.
    pub(crate) request: Option<u64>,
    pub(crate) len: usize,
    /// Times a worker was given it.
    pub(crate) delivered: u32,
    /// Times a worker sent it on or failed to.
    pub(crate) returned: u32,
    /// The flow it was for when a worker got it.
    pub(crate) flow: Option<usize>,
}

/// A client datagram, found by its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Located {
    pub(crate) id: u64,
    /// The PROXY header that the proxy put in front.
    pub(crate) header: Option<payload::Header>,
    /// Payload bytes, the proxy's header not included.
    pub(crate) bytes: usize,
    /// Whether every byte is as it was sent.
    pub(crate) intact: bool,
}

/// Everything that was ever sent.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) requests: Vec<Request>,
    pub(crate) answers: Vec<Answer>,
    /// Client datagrams that begin with a header, whole.
    odd: BTreeMap<Vec<u8>, u64>,
    /// What health probes send.
    pub(crate) probes: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Ledger {
    /// A new request's bytes; `header` goes in front of its payload.
    pub(crate) fn request(&mut self, peer: SocketAddr, dialled: SocketAddr, len: usize, header: &[u8]) -> Vec<u8> {
        let id = self.requests.len() as u64;
        self.requests.push(Request { peer, dialled, len, receipts: VecDeque::new(), flow: None });
        let body = payload::request(id, len);
        if header.is_empty() {
            return body;
        }
        let mut bytes = header.to_vec();
        bytes.extend_from_slice(&body);
        self.odd.insert(bytes.clone(), id);
        bytes
    }

    /// An empty datagram came in: which of the client's it is, nobody can tell.
    pub(crate) fn empty(&mut self, peer: SocketAddr, dialled: SocketAddr) -> u64 {
        self.requests.push(Request { peer, dialled, len: 0, receipts: VecDeque::new(), flow: None });
        self.requests.len() as u64 - 1
    }

    /// A new answer's bytes.
    pub(crate) fn answer(&mut self, request: Option<u64>, len: usize) -> Vec<u8> {
        let id = self.answers.len() as u64;
        self.answers.push(Answer { request, len, delivered: 0, returned: 0, flow: None });
        payload::reply(id, len)
    }

    /// The request that a backend was sent, its header by the proxy taken off.
    pub(crate) fn locate(&self, wire: &[u8]) -> Option<Located> {
        self.bare(wire, None).or_else(|| match payload::headed(wire) {
            Headed::Good(header) => self.bare(&wire[header.len..], Some(header)),
            _ => None,
        })
    }

    fn bare(&self, bytes: &[u8], header: Option<payload::Header>) -> Option<Located> {
        if let Some(&id) = self.odd.get(bytes) {
            return Some(Located { id, header, bytes: bytes.len(), intact: true });
        }
        let Identity::Request(id) = payload::identify(bytes) else { return None };
        let request = self.requests.get(id as usize)?;
        let intact = *bytes == *payload::request(id, request.len);
        Some(Located { id, header, bytes: bytes.len(), intact })
    }

    /// Whether these bytes are a health probe.
    pub(crate) fn is_probe(&self, wire: &[u8]) -> bool {
        self.probes.contains_key(wire)
    }
}
