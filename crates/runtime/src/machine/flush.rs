//! What a step left to do: operations in order, sends gathered for each socket and given to the kernel together.

use std::{io, mem};

use kakei_proxy::seam::{Event, Op, Outbox, Send, SocketId};
use kakei_proxy::snapshot::Snapshot;

use super::plan::Plan;
use super::sockets::{Kind, NONE, Queue};
use super::{Io, errors};
use crate::mailbox::{Desk, Report};
use crate::udp::{self, Arenas, SendBatch, Verdict};

/// What a connected socket asks for as its send buffer once the first was too small.
const GROWN: usize = 1 << 20;

/// A send that waits for the flush, and the next one of its socket.
#[derive(Debug)]
struct Pending {
    send: Send,
    next: u32,
}

/// The sends of a tick and what it takes to send them.
#[derive(Default)]
pub(super) struct Sender {
    pending: Vec<Pending>,
    /// Of the sockets that have pending sends, in the order of their first.
    queues: Vec<Queue>,
    /// The numbers of the sends of the socket at hand.
    numbers: Vec<u32>,
    plan: Plan,
    batch: SendBatch,
}

impl Sender {
    /// All of the tick's sends were given to the kernel.
    fn clear(&mut self) {
        self.queues.clear();
        self.pending.clear();
    }
}

/// What happened to the batch of one socket.
#[derive(Default)]
struct Outcome {
    /// The message that was tried again.
    retried: Option<usize>,
    /// The train that must be split before the rest can go.
    refused: Option<usize>,
    /// Messages that failed, and why.
    failed: Vec<(usize, io::Error)>,
    /// Errors of the network that were not about the message at hand.
    earlier: u32,
}

impl Io {
    /// Carry out everything, then forget it.
    pub(super) fn carry_out(&mut self, out: &mut Outbox, desk: &mut Desk, current: Option<&Snapshot>) {
        let Outbox { ops, bytes } = out;
        for op in ops.drain(..) {
            if self.succession.is_some() && !matches!(op, Op::Adopt { .. }) {
                self.succeed();
            }
            match op {
                Op::Send(send) => self.enqueue(send),
                Op::OpenDatagram { socket, remote } => self.open_datagram(socket, remote),
                Op::Close { socket } => {
                    self.flush_any(socket, bytes);
                    self.close(socket);
                }
                Op::Listen { socket, bind } => self.listen(socket, bind),
                Op::Connect { socket, remote, keepalive } => self.connect(socket, &remote, keepalive),
                Op::Write { socket, bytes } => self.write(socket, bytes),
                Op::Accept { arrival, socket, credit } => self.accept(arrival, socket, credit),
                Op::Refuse { arrival, how } => self.refuse(arrival, how),
                Op::Shutdown { socket } => self.shutdown(socket, bytes),
                Op::Farewell { socket, bytes: last } => self.bid_farewell(socket, last.of(bytes), bytes),
                Op::Credit { socket, on } => self.credit(socket, on),
                Op::Pipe { from, to } => self.pipe(from, to, bytes),
                Op::Unpipe { from } => self.unpipe(from),
                Op::Reset { socket } => self.reset(socket),
                Op::Unbind { bind } => {
                    self.unbind(bind, current);
                    desk.touch();
                }
                Op::Adopt { was, socket } => self.adopt(was, socket, bytes),
                Op::Verify(verify) => self.seat.ask(self.epoch, *verify, &desk.line),
                Op::Reply { ticket, reply } => desk.reply(ticket, reply),
                Op::Notice(notice) => {
                    self.stats.notices_dropped += u64::from(!desk.report(Report::Notice(notice)));
                }
                Op::Record(record) => self.stats.records_dropped += u64::from(!desk.records.push(record)),
            }
        }
        self.succeed();
        self.flush_all(bytes);
        self.forget_arrivals();
        self.stats.sockets = self.sockets.len() as u64;
        out.clear();
    }

    /// Send and write what waits, each socket's in its order.
    pub(super) fn flush_all(&mut self, heads: &[u8]) {
        for number in 0..self.sending.queues.len() {
            self.flush(self.sending.queues[number].socket, heads);
        }
        self.sending.clear();
        for number in 0..self.writing.queues.len() {
            self.flush_stream(self.writing.queues[number].socket, heads);
        }
        self.writing.clear();
    }

    /// What was found out beside the worker is for its next step.
    pub(super) fn take_answers(&mut self, desk: &Desk) {
        let ours = desk.line.answers.take().into_iter().filter(|answer| answer.epoch == self.epoch);
        self.backlog.extend(ours.map(|answer| Event::Verified { job: answer.job, verdict: answer.verdict }));
    }

    fn enqueue(&mut self, mut send: Send) {
        let Some(entry) = self.sockets.get_mut(send.socket) else { return };
        // The kernel takes the bound address by itself; and nothing can be sent from a multicast address.
        send.from = send.from.filter(|from| entry.kind.local().is_unspecified() && !from.is_multicast());
        let number = self.sending.pending.len() as u32;
        let Sender { pending, queues, .. } = &mut self.sending;
        match queues.get_mut(entry.queue as usize) {
            Some(queue) => pending[mem::replace(&mut queue.last, number) as usize].next = number,
            None => {
                entry.queue = queues.len() as u32;
                queues.push(Queue { socket: send.socket, first: number, last: number });
            }
        }
        let datagrams = (send.bytes.len() as u64).checked_div(u64::from(send.segment));
        self.stats.send_datagrams +=
            datagrams.map_or(1, |_| (send.bytes.len() as u64).div_ceil(u64::from(send.segment)).max(1));
        self.sending.pending.push(Pending { send, next: NONE });
    }

    fn flush_any(&mut self, socket: SocketId, heads: &[u8]) {
        match self.sockets.stream(socket) {
            Some(_) => self.flush_stream(socket, heads),
            None => self.flush(socket, heads),
        }
    }

    /// Send what waits for one socket.
    fn flush(&mut self, socket: SocketId, heads: &[u8]) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        let queue = self.sending.queues.get(mem::replace(&mut entry.queue, NONE) as usize);
        let Some(&Queue { first: mut number, last, .. }) = queue else { return };
        let mut said = match (number == last).then(|| self.send_lone(socket, number, heads)).flatten() {
            Some(Ok(())) => return,
            Some(Err(error)) => Some(error),
            None => None,
        };
        let Sender { pending, numbers, plan, .. } = &mut self.sending;
        numbers.clear();
        while let Some(waiting) = pending.get(number as usize) {
            numbers.push(number);
            number = waiting.next;
        }
        plan.reset(numbers.len());
        for &number in numbers.iter() {
            plan.add(number, &pending[number as usize].send);
        }
        let mut from = Some(0);
        while let Some(train) = from {
            from = self.transmit(socket, train, said.take(), heads);
        }
    }

    /// Send what is alone, where it is one datagram in one piece, as most are; what the kernel said.
    fn send_lone(&mut self, socket: SocketId, number: u32, heads: &[u8]) -> Option<io::Result<()>> {
        let Send { to, from, segment, bytes, .. } = self.sending.pending[number as usize].send;
        let is_one = segment == 0 || bytes.len() <= usize::from(segment);
        if from.is_some() || !is_one {
            return None;
        }
        let bytes = match (bytes.head.len, bytes.body.len) {
            (0, _) => bytes.body.of(self.receiving.bytes()),
            (_, 0) => bytes.head.of(heads),
            _ => return None,
        };
        let sent = udp::send_one(self.sockets.get_mut(socket)?.fd(), to, bytes);
        self.stats.send_calls += 1;
        self.stats.send_messages += u64::from(sent.is_ok());
        Some(sent)
    }

    /// Send everything from a train on; the train that was refused, if one was, is to be tried again in pieces. `said`
    /// is an error that the first datagram met already.
    fn transmit(&mut self, socket: SocketId, from: usize, said: Option<io::Error>, heads: &[u8]) -> Option<usize> {
        let entry = self.sockets.get_mut(socket)?;
        let Sender { pending, plan, batch, .. } = &mut self.sending;
        let trains = plan.fill(from, entry.longest, |number| pending[number as usize].send.bytes, batch);
        let arenas = Arenas { head: heads, body: self.receiving.bytes() };
        let mut outcome = Outcome::default();
        let grown = !matches!(entry.kind, Kind::Connected { grown: false, .. });
        let (fd, mut limits) = (entry.fd(), (entry.longest, grown));
        let mut judge =
            |message, error: &_| outcome.judge(message, error, plan.train(message), &mut limits, &entry.kind);
        let sent = match said.map(|error| judge(0, &error)) {
            None | Some(Verdict::Retry) => batch.send_all(fd, arenas, judge),
            Some(Verdict::Skip | Verdict::Stop) => udp::Stats::default(),
        };
        entry.longest = limits.0;
        if let Kind::Connected { grown, .. } = &mut entry.kind {
            *grown = limits.1;
        }
        self.stats.send_calls += sent.calls;
        self.stats.send_messages += sent.messages;
        let failed = outcome.failed.iter().filter(|(message, _)| plan.train(*message).is_some()).count();
        self.stats.send_trains += (trains - failed - outcome.refused.map_or(0, |train| plan.trains_from(train))) as u64;
        self.conclude(socket, outcome)
    }

    fn conclude(&mut self, socket: SocketId, outcome: Outcome) -> Option<usize> {
        for (message, error) in &outcome.failed {
            let Sender { pending, plan, .. } = &self.sending;
            for (number, datagrams, bytes) in plan.made_of(*message) {
                let tag = pending[number as usize].send.tag;
                self.stats.send_failures += u64::from(datagrams);
                let error = errors::send(error);
                self.backlog.push_back(Event::SendFailed { socket, tag, datagrams, bytes, error });
            }
        }
        for _ in 0..outcome.earlier {
            self.note_error(socket);
        }
        if let Some(train) = outcome.refused {
            self.stats.trains_refused += 1;
            self.sending.plan.split(train);
        }
        outcome.refused
    }
}

impl Outcome {
    /// What to do about a message that the kernel refused. `limits` are the socket's: its longest datagram of a
    /// train, and whether its send buffer has grown.
    fn judge(
        &mut self,
        message: usize,
        error: &io::Error,
        train: Option<(usize, u16, bool)>,
        limits: &mut (u16, bool),
        kind: &Kind,
    ) -> Verdict {
        let errno = error.raw_os_error().unwrap_or(0);
        if let (Some((train, segment, named)), libc::EMSGSIZE | libc::EINVAL | libc::EIO | libc::EOPNOTSUPP) =
            (train, errno)
        {
            // EIO: the device can't. The others: datagrams of this length don't fit the path as they are and must be
            // fragmented one by one; but EINVAL may as well mean the source address, which says nothing of lengths.
            match errno {
                libc::EIO | libc::EOPNOTSUPP => limits.0 = 0,
                libc::EINVAL if named => {}
                _ => limits.0 = limits.0.min(segment - 1),
            }
            self.refused = Some(train);
            return Verdict::Stop;
        }
        if errno == libc::EAGAIN
            && !limits.1
            && let Kind::Connected { fd, .. } = kind
        {
            limits.1 = true;
            udp::set_send_buffer(std::os::fd::AsFd::as_fd(fd), GROWN);
            return Verdict::Retry;
        }
        if errors::about_peer(error) && self.retried.replace(message) != Some(message) {
            self.earlier += u32::from(errors::of_earlier(error));
            return Verdict::Retry;
        }
        self.failed.push((message, io::Error::from_raw_os_error(errno)));
        Verdict::Skip
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::OwnedFd;

    use super::super::pace::Pace;
    use super::*;

    fn socket() -> OwnedFd {
        UdpSocket::bind("127.0.0.1:0").unwrap().into()
    }

    fn connected() -> Kind {
        Kind::Connected { fd: socket(), grown: false, pace: Pace::FIRST, errors: false }
    }

    /// What is judged of a train of 1200-byte datagrams, without and with a source address, and of a datagram.
    fn judged(errno: i32, train: Option<(usize, u16, bool)>) -> (Verdict, (u16, bool), Outcome) {
        let kind = Kind::Shared { fd: socket(), errors: false };
        let (mut outcome, mut limits) = (Outcome::default(), (u16::MAX, true));
        let error = io::Error::from_raw_os_error(errno);
        let verdict = outcome.judge(0, &error, train, &mut limits, &kind);
        (verdict, limits, outcome)
    }

    #[test]
    fn a_refused_train_is_split_and_the_socket_learns() {
        let cases = [
            (libc::EMSGSIZE, false, 1199),
            (libc::EMSGSIZE, true, 1199),
            (libc::EINVAL, false, 1199),
            (libc::EINVAL, true, u16::MAX),
            (libc::EIO, true, 0),
        ];
        for (errno, named, longest) in cases {
            let (verdict, limits, outcome) = judged(errno, Some((3, 1200, named)));
            assert_eq!((verdict, limits.0, outcome.refused), (Verdict::Stop, longest, Some(3)), "{errno} {named}");
        }
    }

    #[test]
    fn a_refused_datagram_fails_alone() {
        for errno in [libc::EMSGSIZE, libc::EINVAL, libc::EAGAIN, libc::ENOBUFS, libc::EPERM] {
            let (verdict, limits, outcome) = judged(errno, None);
            assert_eq!((verdict, limits.0, outcome.failed.len()), (Verdict::Skip, u16::MAX, 1), "{errno}");
        }
    }

    #[test]
    fn an_error_of_an_earlier_datagram_costs_one_more_try() {
        let (verdict, _, mut outcome) = judged(libc::ECONNREFUSED, None);
        assert_eq!((verdict, outcome.earlier), (Verdict::Retry, 1));
        let kind = connected();
        let again = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        assert_eq!(outcome.judge(0, &again, None, &mut (0, true), &kind), Verdict::Skip);
        assert_eq!(outcome.judge(1, &again, None, &mut (0, true), &kind), Verdict::Retry);
    }

    #[test]
    fn a_connected_socket_grows_its_buffer_once() {
        let kind = connected();
        let (mut outcome, mut limits, full) =
            (Outcome::default(), (0, false), io::Error::from_raw_os_error(libc::EAGAIN));
        assert_eq!(outcome.judge(0, &full, None, &mut limits, &kind), Verdict::Retry);
        assert_eq!(outcome.judge(0, &full, None, &mut limits, &kind), Verdict::Skip);
    }
}
