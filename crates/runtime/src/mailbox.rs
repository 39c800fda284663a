//! Between the engine and one worker: rings of one writer and one reader each, and eventfds to wake the other side.
//!
//! Nothing is lost and everything is bounded: at most [`OUTSTANDING`] commands of a worker are unanswered (the engine
//! refuses more), so neither the ring of orders nor that of replies, both that long, can be full. Reports come
//! unasked: what their ring has no room for waits in a queue of the worker's, and beyond [`WAITING`] of those the
//! newest is dropped and counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kakei_proxy::seam::{BindKey, Command, Notice, Reply, Ticket};
use kakei_proxy::snapshot::Generation;
use rtrb::{Consumer, Producer, PushError, RingBuffer};

use crate::beside::Answers;
use crate::front::FrontSocket;
use crate::records::RecordWriter;
use crate::stats::SharedStats;
use crate::wake::Wake;

/// Commands of one worker that are not answered yet.
pub(crate) const OUTSTANDING: usize = 1024;
/// Reports in their ring.
const REPORTS: usize = 1024;
/// Reports that wait for room there.
const WAITING: usize = 16_384;

/// The ticket of a snapshot that the machine publishes again to a fresh worker. Its reply becomes a report.
pub(crate) const AGAIN: Ticket = Ticket(u64::MAX);

/// A command and the front sockets that it needs.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) ticket: Ticket,
    pub(crate) command: Command,
    pub(crate) sockets: Vec<(BindKey, Arc<FrontSocket>)>,
}

/// What a machine tells unasked.
#[derive(Debug)]
pub(crate) enum Report {
    Notice(Notice),
    Panicked { message: String, unanswered: Vec<Ticket> },
    Restarted(Generation),
}

/// What both ends and the thread around a machine can touch.
#[derive(Debug)]
pub(crate) struct Line {
    /// Wakes the machine.
    pub(crate) machine: Wake,
    /// Wakes whoever waits for the engine's events; one for all workers.
    pub(crate) engine: Arc<Wake>,
    pub(crate) stop: AtomicBool,
    pub(crate) stats: SharedStats,
    /// What was found out beside the worker.
    pub(crate) answers: Answers,
}

/// The worker's end.
#[derive(Debug)]
pub(crate) struct Desk {
    orders: Consumer<Order>,
    replies: Producer<(Ticket, Reply)>,
    reports: Producer<Report>,
    waiting: VecDeque<Report>,
    unanswered: Vec<Ticket>,
    fresh: bool,
    pub(crate) records: RecordWriter,
    pub(crate) line: Arc<Line>,
}

/// The engine's end.
#[derive(Debug)]
pub(crate) struct Counter {
    pub(crate) orders: Producer<Order>,
    pub(crate) replies: Consumer<(Ticket, Reply)>,
    pub(crate) reports: Consumer<Report>,
    pub(crate) line: Arc<Line>,
}

pub(crate) fn channel(line: Line, records: RecordWriter) -> (Desk, Counter) {
    let line = Arc::new(line);
    let (order_in, order_out) = RingBuffer::new(OUTSTANDING);
    let (reply_in, reply_out) = RingBuffer::new(OUTSTANDING);
    let (report_in, report_out) = RingBuffer::new(REPORTS);
    let desk = Desk {
        orders: order_out,
        replies: reply_in,
        reports: report_in,
        waiting: VecDeque::new(),
        unanswered: Vec::new(),
        fresh: false,
        records,
        line: Arc::clone(&line),
    };
    (desk, Counter { orders: order_in, replies: reply_out, reports: report_out, line })
}

impl Desk {
    pub(crate) fn stopping(&self) -> bool {
        self.line.stop.load(Ordering::Acquire)
    }

    /// The next order, if any. Its ticket counts as unanswered from now on.
    pub(crate) fn take(&mut self) -> Option<Order> {
        let order = self.orders.pop().ok()?;
        self.unanswered.push(order.ticket);
        Some(order)
    }

    /// Whether there are orders.
    pub(crate) fn has_orders(&self) -> bool {
        !self.orders.is_empty()
    }

    /// Answer. A ticket that nobody holds is answered to nobody.
    pub(crate) fn reply(&mut self, ticket: Ticket, reply: Reply) {
        if ticket == AGAIN {
            if let Reply::Published(generation) = reply {
                self.report(Report::Restarted(generation));
            }
            return;
        }
        let Some(at) = self.unanswered.iter().position(|&held| held == ticket) else { return };
        self.unanswered.swap_remove(at);
        let pushed = self.replies.push((ticket, reply));
        debug_assert!(pushed.is_ok() || self.replies.is_abandoned(), "there are no more replies than commands");
        self.fresh = true;
    }

    /// Every ticket that will never be answered: the worker that held them is gone.
    pub(crate) fn give_up(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.unanswered)
    }

    /// Tell the engine; false where that was dropped.
    pub(crate) fn report(&mut self, report: Report) -> bool {
        self.fresh = true;
        if !self.waiting.is_empty() {
            let room = self.waiting.len() < WAITING;
            if room {
                self.waiting.push_back(report);
            }
            return room;
        }
        if let Err(PushError::Full(report)) = self.reports.push(report) {
            self.waiting.push_back(report);
        }
        true
    }

    /// Something changed that the engine looks at by itself.
    pub(crate) fn touch(&mut self) {
        self.fresh = true;
    }

    /// At the end of a tick: wake whoever has something to read.
    pub(crate) fn flush(&mut self) {
        while let Some(report) = self.waiting.pop_front() {
            if let Err(PushError::Full(report)) = self.reports.push(report) {
                self.waiting.push_front(report);
                break;
            }
            self.fresh = true;
        }
        if std::mem::take(&mut self.fresh) {
            self.line.engine.wake();
        }
        self.records.flush();
    }
}

impl Counter {
    /// The next report. Where their ring had been full, the machine may go on filling it.
    pub(crate) fn report(&mut self) -> Option<Report> {
        let full = self.reports.slots() == REPORTS;
        let report = self.reports.pop().ok()?;
        if full {
            self.line.machine.wake();
        }
        Some(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{self, Gate};

    fn made() -> (Desk, Counter) {
        let gate = Arc::new(Gate::new(Wake::new().unwrap()));
        let (mut writers, _) = records::channel(1, 0, &gate);
        let engine = Arc::new(Wake::new().unwrap());
        let line = Line {
            machine: Wake::new().unwrap(),
            engine,
            stop: AtomicBool::new(false),
            stats: SharedStats::default(),
            answers: Answers::default(),
        };
        channel(line, writers.remove(0))
    }

    fn order(ticket: u64) -> Order {
        Order { ticket: Ticket(ticket), command: Command::Stats, sockets: Vec::new() }
    }

    #[test]
    fn each_ticket_is_answered_once() {
        let (mut desk, mut counter) = made();
        counter.orders.push(order(1)).unwrap();
        desk.reply(Ticket(1), Reply::Done);
        assert!(counter.replies.is_empty(), "it was not taken yet");
        assert_eq!(desk.take().unwrap().ticket, Ticket(1));
        desk.reply(Ticket(1), Reply::Done);
        desk.reply(Ticket(1), Reply::Done);
        assert_eq!(counter.replies.slots(), 1);
        assert!(desk.give_up().is_empty());
    }

    #[test]
    fn every_outstanding_command_has_room_for_its_reply() {
        let (mut desk, mut counter) = made();
        for ticket in 0..OUTSTANDING as u64 {
            counter.orders.push(order(ticket)).unwrap();
        }
        assert!(counter.orders.is_full());
        while let Some(order) = desk.take() {
            desk.reply(order.ticket, Reply::Done);
        }
        assert_eq!(counter.replies.slots(), OUTSTANDING);
    }

    #[test]
    fn reports_wait_in_order_and_are_bounded() {
        let (mut desk, mut counter) = made();
        let kept = (0..REPORTS + WAITING + 5).filter(|&n| desk.report(Report::Restarted(Generation(n as u64)))).count();
        assert_eq!(kept, REPORTS + WAITING);
        let mut read = 0;
        loop {
            while let Some(Report::Restarted(generation)) = counter.report() {
                assert_eq!(generation.0, read);
                read += 1;
            }
            desk.flush();
            if counter.reports.is_empty() {
                break;
            }
        }
        assert_eq!(read, kept as u64);
    }
}
