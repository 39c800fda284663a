//! The other direction of the machine: what the worker asks for is carried out, in order, wholly. Decides nothing.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use kakei_proxy::seam::{BindKey, Event, Instant, Op, OpenError, Outbox, Remote, Send, SendError, SocketId};

use super::{Effect, Host, Kind, Machine, Outgoing, Socket};
use crate::profile::chance;

/// The longest payload over IPv4.
const LONGEST: usize = 65_507;

impl Machine {
    pub(super) fn execute(&mut self, now: Instant, host: &mut Host, out: &mut Outbox, effects: &mut Vec<Effect>) {
        let mut translated = std::collections::BTreeMap::new();
        for op in out.ops.drain(..) {
            match op {
                Op::Listen { socket, bind } => self.listen(host, socket, bind, effects),
                Op::OpenDatagram { socket, remote } => self.open(now, host, (socket, remote), effects),
                Op::Connect { socket, remote, .. } => match remote.ip() {
                    Some(remote) => self.connect(now, host, (socket, remote), effects),
                    None => effects.push(Effect::Misuse(format!("connects to {remote}, which no document has"))),
                },
                Op::Send(send) => self.send(host, &send, &out.bytes, effects),
                Op::Close { socket } => match self.names.get(&socket).copied() {
                    Some(serial) => self.close(serial, host),
                    None => effects.push(Effect::Misuse(format!("close of {socket:?}, which is not open"))),
                },
                Op::Unbind { bind } => self.unbind(host, bind, effects),
                Op::Adopt { was, socket } => match self.orphans.remove(&was) {
                    Some(serial) => {
                        translated.insert(was, socket);
                        self.name(socket, serial);
                    }
                    None => effects.push(Effect::Misuse(format!("adopts {was:?}, which nobody left"))),
                },
                Op::Accept { .. }
                | Op::Refuse { .. }
                | Op::Write { .. }
                | Op::Shutdown { .. }
                | Op::Farewell { .. }
                | Op::Credit { .. }
                | Op::Pipe { .. }
                | Op::Unpipe { .. }
                | Op::Verify(_)
                | Op::Reset { .. } => effects.push(Effect::Misuse(format!("{op:?}, and there is no stream"))),
                Op::Reply { ticket, reply } => effects.push(Effect::Reply(ticket, reply)),
                Op::Notice(notice) => effects.push(Effect::Notice(notice)),
                Op::Record(record) => effects.push(Effect::Record(record)),
            }
        }
        if !translated.is_empty() {
            self.translate_pending(&translated);
        }
    }

    /// What waited for the worker that was written down is for the one that goes on.
    fn translate_pending(&mut self, names: &std::collections::BTreeMap<SocketId, SocketId>) {
        for mut event in std::mem::take(&mut self.pending) {
            let known = match &mut event {
                Event::Opened { socket, .. }
                | Event::OpenFailed { socket, .. }
                | Event::Unreachable { socket, .. }
                | Event::Overflow { socket, .. } => names.get(socket).map(|new| *socket = *new).is_some(),
                Event::SendFailed { .. } | Event::Datagram(_) => false,
                Event::Accepted(_)
                | Event::AcceptFailed { .. }
                | Event::Data { .. }
                | Event::Eof { .. }
                | Event::Broken { .. }
                | Event::Blocked { .. }
                | Event::Drained { .. }
                | Event::Verified { .. }
                | Event::Piped { .. } => false,
                Event::Command { .. } => true,
            };
            if known {
                self.pending.push_back(event);
            }
        }
    }

    fn name(&mut self, id: SocketId, serial: u64) {
        if let Some(socket) = self.sockets.get_mut(&serial) {
            socket.id = id;
        }
        self.names.insert(id, serial);
    }

    fn insert(&mut self, id: SocketId, kind: Kind, local: SocketAddr) -> u64 {
        self.serials += 1;
        let queue = std::collections::VecDeque::new();
        self.sockets.insert(self.serials, Socket { id, kind, local, queue, refused: false });
        self.names.insert(id, self.serials);
        self.serials
    }

    fn is_taken(&self, socket: SocketId, effects: &mut Vec<Effect>) -> bool {
        let taken = self.names.contains_key(&socket);
        if taken {
            effects.push(Effect::Misuse(format!("{socket:?} is opened twice")));
        }
        taken
    }

    fn listen(&mut self, host: &mut Host, socket: SocketId, bind: BindKey, effects: &mut Vec<Effect>) {
        if self.is_taken(socket, effects) {
            return;
        }
        let worker = usize::from(self.role.index);
        let front = host.fronts.get_mut(&bind).and_then(|group| group.get_mut(worker));
        match front {
            Some(front) if front.prepared && front.listening.is_none() => {
                let local = Host::bound(&bind);
                let serial = self.insert(socket, Kind::Front(bind), local);
                if let Some(front) = host.fronts.get_mut(&bind).and_then(|group| group.get_mut(worker)) {
                    front.listening = Some(serial);
                }
                self.pending.push_back(Event::Opened { socket, local });
            }
            _ => {
                effects.push(Effect::Misuse(format!("listens on {bind:?}, which is not prepared or in use")));
                self.pending.push_back(Event::OpenFailed { socket, error: OpenError::Other });
            }
        }
    }

    fn open(&mut self, now: Instant, host: &mut Host, what: (SocketId, Remote), effects: &mut Vec<Effect>) {
        let (socket, remote) = what;
        if self.is_taken(socket, effects) {
            return;
        }
        if now < self.no_descriptors_until || !host.has_ports() {
            effects.push(Effect::OpenFailed);
            let error = if host.has_ports() { OpenError::NoDescriptors } else { OpenError::NoPorts };
            self.pending.push_back(Event::OpenFailed { socket, error });
            return;
        }
        let (kind, ipv4) = match remote {
            Remote::Connected(peer) => (Kind::Connected(peer), peer.is_ipv4()),
            Remote::AnyV4 => (Kind::Any, true),
            Remote::AnyV6 => (Kind::Any, false),
        };
        let local = host.take_port(ipv4, (usize::from(self.role.index), self.serials + 1));
        self.insert(socket, kind, local);
        let seen = match kind {
            Kind::Any => SocketAddr::new(unspecified(ipv4), local.port()),
            _ => local,
        };
        self.pending.push_back(Event::Opened { socket, local: seen });
    }

    fn connect(&mut self, now: Instant, host: &mut Host, what: (SocketId, SocketAddr), effects: &mut Vec<Effect>) {
        let (socket, remote) = what;
        if self.is_taken(socket, effects) {
            return;
        }
        if now < self.no_descriptors_until || !host.has_ports() {
            effects.push(Effect::OpenFailed);
            self.pending.push_back(Event::OpenFailed { socket, error: OpenError::NoDescriptors });
            return;
        }
        let local = host.take_port(remote.is_ipv4(), (usize::from(self.role.index), self.serials + 1));
        let serial = self.insert(socket, Kind::Stream(remote), local);
        effects.push(Effect::Stream { serial, remote });
    }

    pub(super) fn close(&mut self, serial: u64, host: &mut Host) {
        let Some(socket) = self.sockets.remove(&serial) else { return };
        if self.names.get(&socket.id) == Some(&serial) {
            self.names.remove(&socket.id);
        }
        match socket.kind {
            Kind::Front(bind) => {
                let worker = usize::from(self.role.index);
                if let Some(front) = host.fronts.get_mut(&bind).and_then(|group| group.get_mut(worker)) {
                    front.listening = None;
                }
            }
            _ => {
                host.give_port_back(socket.local);
            }
        }
    }

    fn unbind(&mut self, host: &mut Host, bind: BindKey, effects: &mut Vec<Effect>) {
        let worker = usize::from(self.role.index);
        match host.fronts.get_mut(&bind).and_then(|group| group.get_mut(worker)) {
            Some(front) if front.prepared && front.listening.is_none() => {
                front.prepared = false;
                let lost = std::mem::take(&mut front.queue).len() as u64;
                host.lost_in_unbound += lost;
            }
            Some(front) if front.listening.is_some() => {
                effects.push(Effect::Misuse(format!("{bind:?} is given up before its socket was closed")));
            }
            _ => effects.push(Effect::Misuse(format!("{bind:?} is given up and was not prepared"))),
        }
    }

    fn send(&mut self, host: &Host, send: &Send, made: &[u8], effects: &mut Vec<Effect>) {
        let Some(socket) = self.names.get(&send.socket).and_then(|serial| self.sockets.get_mut(serial)) else {
            effects.push(Effect::Misuse(format!("sends by {:?}, which is not open", send.socket)));
            return;
        };
        let front = matches!(socket.kind, Kind::Front(_));
        let to = match (socket.kind, send.to) {
            (Kind::Connected(peer), None) => peer,
            (Kind::Front(_) | Kind::Any, Some(to)) => to,
            (kind, to) => {
                effects.push(Effect::Misuse(format!("sends to {to:?} by a socket that is {kind:?}")));
                return;
            }
        };
        let from = match send.from {
            Some(ip) => SocketAddr::new(ip, socket.local.port()),
            None => socket.local,
        };
        let refused = std::mem::take(&mut socket.refused);
        let mut wire = send.bytes.head.of(made).to_vec();
        wire.extend_from_slice(send.bytes.body.of(&self.arena));
        let datagrams = cut(&wire, usize::from(send.segment));
        if send.segment > 0 && datagrams.len() > 64 {
            effects.push(Effect::Misuse(format!("a train of {} datagrams", datagrams.len())));
        }
        let (mut unsent, mut bytes, mut error) = (0, 0, refused.then_some(SendError::Unreachable));
        for datagram in datagrams {
            let outgoing = Outgoing { front, from, to, bytes: Rc::from(datagram) };
            if error.is_none() && datagram.len() > self.faults.path_limit.min(LONGEST) {
                error = Some(SendError::TooBig);
            }
            if error.is_none() && chance(&mut self.rng, self.faults.queue_full) {
                error = Some(SendError::QueueFull);
            }
            match error {
                None => effects.push(Effect::Sent(outgoing)),
                Some(error) => {
                    unsent += 1;
                    bytes += datagram.len() as u32;
                    effects.push(Effect::NotSent(outgoing, error));
                }
            }
        }
        if let Some(error) = error {
            let (socket, tag) = (send.socket, send.tag);
            self.pending.push_back(Event::SendFailed { socket, tag, datagrams: unsent, bytes, error });
        }
        debug_assert!(front || host.owner(from).is_some(), "an open socket owns its port");
    }
}

fn unspecified(ipv4: bool) -> IpAddr {
    if ipv4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) }
}

/// The datagrams of a train; one where it is none.
fn cut(wire: &[u8], segment: usize) -> Vec<&[u8]> {
    if segment == 0 || wire.is_empty() { vec![wire] } else { wire.chunks(segment).collect() }
}
