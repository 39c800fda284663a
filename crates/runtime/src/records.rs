//! Access-log records on their way from the workers to the log thread: a ring for each worker. A worker never waits
//! and makes no system call while the reader is awake; a full ring drops the record and counts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::Duration;

use kakei_proxy::record::Record;
use rtrb::{Consumer, Producer, PushError, RingBuffer};

use crate::wake::Wake;

/// What reader and workers share.
#[derive(Debug)]
pub(crate) struct Gate {
    /// The reader waits, or is about to, and wants to be woken.
    sleeping: AtomicBool,
    wake: Wake,
    dropped: AtomicU64,
}

impl Gate {
    pub(crate) fn new(wake: Wake) -> Self {
        Gate { sleeping: AtomicBool::new(false), wake, dropped: AtomicU64::new(0) }
    }

    /// Wake the reader whether it sleeps or not: a worker ended.
    pub(crate) fn open(&self) {
        self.wake.wake();
    }
}

/// A worker's end.
#[derive(Debug)]
pub(crate) struct RecordWriter {
    ring: Option<Producer<Box<Record>>>,
    gate: Arc<Gate>,
    fresh: bool,
}

impl RecordWriter {
    /// Hand a record on; false where it was dropped.
    pub(crate) fn push(&mut self, record: Box<Record>) -> bool {
        let Some(ring) = &mut self.ring else { return true };
        match ring.push(record) {
            Ok(()) => {
                self.fresh = true;
                true
            }
            Err(PushError::Full(_)) => {
                self.gate.dropped.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }

    /// At the end of a tick: wake the reader where it sleeps.
    pub(crate) fn flush(&mut self) {
        if !std::mem::take(&mut self.fresh) {
            return;
        }
        // Either the reader, after it said that it sleeps, sees what was pushed before this fence, or its word is seen here.
        fence(Ordering::SeqCst);
        if self.gate.sleeping.load(Ordering::Relaxed) && self.gate.sleeping.swap(false, Ordering::Relaxed) {
            self.gate.wake.wake();
        }
    }
}

/// The log thread's end: records of all workers.
#[derive(Debug)]
pub struct RecordReader {
    rings: Vec<Consumer<Box<Record>>>,
    gate: Arc<Gate>,
    turn: usize,
}

impl RecordReader {
    /// The next record, the workers in turn; none where there is none now.
    pub fn pop(&mut self) -> Option<Box<Record>> {
        for _ in 0..self.rings.len() {
            self.turn = (self.turn + 1) % self.rings.len();
            if let Ok(record) = self.rings[self.turn].pop() {
                return Some(record);
            }
        }
        None
    }

    /// Wait until there is a record or every worker has ended, at most `timeout`. True where there is a record;
    /// may come back early without one.
    pub fn wait(&mut self, timeout: Option<Duration>) -> bool {
        if self.has() || self.is_finished() {
            return self.has();
        }
        self.gate.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !self.has() && !self.is_finished() {
            self.gate.wake.wait(timeout);
        }
        self.gate.sleeping.store(false, Ordering::Relaxed);
        self.gate.wake.clear();
        self.has()
    }

    /// Whether every worker has ended and every record was taken.
    pub fn is_finished(&self) -> bool {
        self.rings.iter().all(|ring| ring.is_abandoned() && ring.is_empty())
    }

    /// How many records were dropped because a ring was full.
    pub fn dropped(&self) -> u64 {
        self.gate.dropped.load(Ordering::Relaxed)
    }

    fn has(&self) -> bool {
        self.rings.iter().any(|ring| !ring.is_empty())
    }
}

/// The two ends for `workers` workers; with no capacity records are thrown away, uncounted.
pub(crate) fn channel(workers: usize, capacity: usize, gate: &Arc<Gate>) -> (Vec<RecordWriter>, RecordReader) {
    let mut reader = RecordReader { rings: Vec::new(), gate: Arc::clone(gate), turn: 0 };
    let writer = |_| {
        let ring = (capacity > 0).then(|| {
            let (producer, consumer) = RingBuffer::new(capacity);
            reader.rings.push(consumer);
            producer
        });
        RecordWriter { ring, gate: Arc::clone(gate), fresh: false }
    };
    let writers = (0..workers).map(writer).collect();
    (writers, reader)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use kakei_proxy::record::{CloseReason, Detail};
    use kakei_proxy::seam::Instant;

    use super::*;

    fn record(requests: u64) -> Box<Record> {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        Box::new(Record {
            listener: "l".into(),
            route: None,
            cluster: Some("c".into()),
            backend: Some("b".into()),
            backend_address: Some(address.into()),
            client: address,
            local: address,
            admitted: Instant::ZERO,
            duration: Duration::ZERO,
            request_bytes: 0,
            response_bytes: 0,
            reason: CloseReason::Idle,
            detail: Detail::Flow { requests, responses: 0 },
        })
    }

    fn made(capacity: usize) -> (RecordWriter, RecordReader) {
        let gate = Arc::new(Gate::new(Wake::new().unwrap()));
        let (mut writers, reader) = channel(1, capacity, &gate);
        (writers.remove(0), reader)
    }

    #[test]
    fn a_full_ring_drops_and_counts() {
        let (mut writer, mut reader) = made(2);
        assert_eq!([1, 2, 3].map(|n| writer.push(record(n))), [true, true, false]);
        assert_eq!(reader.dropped(), 1);
        assert_eq!(
            (reader.pop().unwrap().datagrams(), reader.pop().unwrap().datagrams()),
            (Some((1, 0)), Some((2, 0)))
        );
        assert!(reader.pop().is_none());
    }

    #[test]
    fn a_sleeping_reader_misses_nothing() {
        let (mut writer, mut reader) = made(64);
        let total = 20_000;
        let log = thread::spawn(move || {
            let mut next = 0;
            while !reader.is_finished() {
                let began = std::time::Instant::now();
                reader.wait(Some(Duration::from_secs(10)));
                assert!(began.elapsed() < Duration::from_secs(9), "nobody woke the reader");
                while let Some(record) = reader.pop() {
                    assert_eq!(record.datagrams(), Some((next, 0)));
                    next += 1;
                }
            }
            next
        });
        for n in 0..total {
            while writer.ring.as_ref().is_some_and(|ring| ring.is_full() && !ring.is_abandoned()) {
                thread::yield_now();
            }
            assert!(writer.push(record(n)));
            writer.flush();
        }
        let gate = Arc::clone(&writer.gate);
        drop(writer);
        gate.open();
        assert_eq!(log.join().unwrap(), total);
    }
}
