//! One direction of the machine: what happened becomes a batch of events. Asks nothing of the worker.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use fastrand::Rng;
use kakei_proxy::limits::EVENTS_PER_STEP;
use kakei_proxy::seam::{Command, Datagram, Event, SocketId, Span};

use super::{Arrived, Batch, Given, Host, Kind, Machine};
use crate::profile::chance;

/// Bytes of one batch; the rest waits for the next.
const ARENA: usize = 1 << 20;
/// Datagrams of one train.
const TRAIN: usize = 64;

impl Machine {
    /// The next batch, and whether more is left. `quiet` says that no deadline is due: only then may the worker be
    /// written down, and nothing else may happen in that step.
    pub(crate) fn collect(&mut self, host: &mut Host, quiet: bool) -> (Batch, bool) {
        let mut batch = Batch::default();
        self.arena.clear();
        if self.is_adopting() {
            return (batch, true);
        }
        let writes_down = matches!(self.commands.front(), Some((_, Command::Snapshot)));
        if writes_down && quiet && self.pending.is_empty() {
            let command = self.commands.pop_front();
            batch.events.extend(command.map(|(ticket, command)| Event::Command { ticket, command }));
            return (batch, !self.commands.is_empty() || self.readable(host));
        }
        let most = if chance(&mut self.rng, self.faults.split) { self.rng.usize(1..=8) } else { EVENTS_PER_STEP };
        while batch.events.len() < most
            && let Some(event) = self.pending.pop_front()
        {
            batch.events.push(event);
        }
        while batch.events.len() < most
            && !matches!(self.commands.front(), None | Some((_, Command::Snapshot)))
            && let Some((ticket, command)) = self.commands.pop_front()
        {
            batch.events.push(Event::Command { ticket, command });
        }
        self.collect_sockets(host, most, &mut batch);
        let more = !self.pending.is_empty() || !self.commands.is_empty() || self.readable(host);
        (batch, more)
    }

    /// Datagrams of every socket in turn, beginning anywhere, so that no order among sockets is relied on.
    fn collect_sockets(&mut self, host: &mut Host, most: usize, batch: &mut Batch) {
        let serials: Vec<u64> = self.sockets.keys().copied().collect();
        if serials.is_empty() {
            return;
        }
        let first = self.rng.usize(0..serials.len());
        for at in 0..serials.len() {
            let serial = serials[(first + at) % serials.len()];
            if batch.events.len() >= most || self.arena.len() >= ARENA {
                return;
            }
            self.collect_socket(host, serial, most, batch);
        }
    }

    fn collect_socket(&mut self, host: &mut Host, serial: u64, most: usize, batch: &mut Batch) {
        let Some(socket) = self.sockets.get_mut(&serial) else { return };
        let (kind, id) = (socket.kind, socket.id);
        let worker = usize::from(self.role.index);
        let queue = match kind {
            Kind::Front(bind) => {
                let Some(front) = host.fronts.get_mut(&bind).and_then(|group| group.get_mut(worker)) else { return };
                if front.overflow > 0 {
                    let datagrams = std::mem::take(&mut front.overflow);
                    batch.overflow += datagrams;
                    batch.events.push(Event::Overflow { socket: id, datagrams });
                }
                &mut front.queue
            }
            _ => &mut socket.queue,
        };
        while batch.events.len() < most
            && self.arena.len() < ARENA
            && let Some(arrived) = queue.pop_front()
        {
            let mut train = vec![arrived];
            if chance(&mut self.rng, self.faults.trains) {
                grow_train(&mut train, queue, &mut self.rng);
            }
            hand_over(kind, id, &train, &mut self.arena, batch);
        }
    }

    fn readable(&self, host: &Host) -> bool {
        let worker = usize::from(self.role.index);
        self.sockets.values().any(|socket| match socket.kind {
            Kind::Front(bind) => host.fronts.get(&bind).is_some_and(|group| !group[worker].queue.is_empty()),
            _ => !socket.queue.is_empty(),
        })
    }
}

/// What is said of an address that nobody asks for.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Take what the kernel would merge: datagrams of one sender, equally long, the last perhaps shorter.
fn grow_train(train: &mut Vec<Arrived>, queue: &mut std::collections::VecDeque<Arrived>, rng: &mut Rng) {
    let segment = train[0].bytes.len();
    let most = rng.usize(1..=TRAIN);
    let mut total = segment;
    while segment > 0 && train.len() < most {
        let Some(next) = queue.front() else { return };
        let same = next.peer == train[0].peer && next.local == train[0].local;
        let len = next.bytes.len();
        if !same || len == 0 || len > segment || total + len > 65_000 {
            return;
        }
        total += len;
        train.extend(queue.pop_front());
        if len < segment {
            return;
        }
    }
}

fn hand_over(kind: Kind, socket: SocketId, train: &[Arrived], arena: &mut Vec<u8>, batch: &mut Batch) {
    let start = arena.len();
    for arrived in train {
        arena.extend_from_slice(&arrived.bytes);
        batch.given.push(Given { kind, peer: arrived.peer, local: arrived.local, bytes: Rc::clone(&arrived.bytes) });
    }
    let segment = if train.len() > 1 { train[0].bytes.len() as u16 } else { 0 };
    let bytes = Span { start: start as u32, len: (arena.len() - start) as u32 };
    // Who sends by a connected socket is not told.
    let peer = if matches!(kind, Kind::Connected(_)) { NOBODY } else { train[0].peer };
    let local = train[0].local.ip();
    batch.events.push(Event::Datagram(Datagram { socket, peer, local, segment, bytes }));
}
