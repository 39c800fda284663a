//! What machines have found out beside their workers, since it takes milliseconds and nothing else may wait for it:
//! whether passwords are right. A few threads for all machines, started when they are needed first, and a queue of
//! bounded length. Each question is answered once; knows neither who asks nor what comes of it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use kakei_proxy::seam::{Job, Verdict, Verify};

use crate::mailbox::Line;
use crate::passwords::find_out;

/// Questions that wait for a thread.
const WAITING: usize = 256;
/// The most threads, however many cores there are: what they compute with may be large.
const THREADS: usize = 8;
/// How much these threads stand behind everything else of the process, as `nice` counts: on few cores a password must
/// not take its time from those who need none.
const NICE: i32 = 5;

/// Answers to one machine, until it takes them.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    any: AtomicBool,
    all: Mutex<Vec<Answer>>,
}

/// An answer, and which of a machine's workers asked: the fresh one after a panic asked nothing of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) epoch: u64,
    pub(crate) job: Job,
    pub(crate) verdict: Verdict,
}

impl Answers {
    fn put(&self, answer: Answer) {
        lock(&self.all).push(answer);
        self.any.store(true, Ordering::Release);
    }

    /// All that came. Whoever puts one in wakes the machine behind that.
    pub(crate) fn take(&self) -> Vec<Answer> {
        match self.any.swap(false, Ordering::AcqRel) {
            true => std::mem::take(&mut lock(&self.all)),
            false => Vec::new(),
        }
    }
}

/// The threads and their queue. Dropped, it lets them end what they are at.
#[derive(Debug)]
pub(crate) struct Bench(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    queue: Mutex<Queue>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    tasks: VecDeque<Task>,
    threads: usize,
    /// Those that wait for a task.
    idle: usize,
    closed: bool,
}

#[derive(Debug)]
struct Task {
    epoch: u64,
    verify: Verify,
    to: Arc<Line>,
}

impl Task {
    fn answer(self, verdict: Verdict) {
        self.to.answers.put(Answer { epoch: self.epoch, job: self.verify.job, verdict });
        self.to.machine.wake();
    }
}

/// One machine's way to the threads.
#[derive(Clone, Debug)]
pub(crate) struct Seat(Arc<Shared>);

impl Bench {
    pub(crate) fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let most = (cores / 2).clamp(1, THREADS);
        Bench(Arc::new(Shared { most, queue: Mutex::default(), more: Condvar::new() }))
    }

    pub(crate) fn seat(&self) -> Seat {
        Seat(Arc::clone(&self.0))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.queue);
        queue.closed = true;
        queue.tasks.clear();
        self.0.more.notify_all();
    }
}

impl Seat {
    /// Have it found out, and the answer put into the line's.
    pub(crate) fn ask(&self, epoch: u64, verify: Verify, to: &Arc<Line>) {
        let task = Task { epoch, verify, to: Arc::clone(to) };
        let mut queue = lock(&self.0.queue);
        if queue.closed || queue.tasks.len() >= WAITING {
            return task.answer(Verdict::Undone);
        }
        if queue.idle == 0 && queue.threads < self.0.most {
            let shared = Arc::clone(&self.0);
            let started = thread::Builder::new().name("kakei-beside".to_owned()).spawn(move || work(&shared));
            queue.threads += usize::from(started.is_ok());
        }
        if queue.threads == 0 {
            return task.answer(Verdict::Undone);
        }
        queue.tasks.push_back(task);
        self.0.more.notify_one();
    }
}

fn work(shared: &Shared) {
    // On Linux it is the thread's own. Where it isn't granted, the threads compute as before.
    let _ = rustix::process::nice(NICE);
    let mut queue = lock(&shared.queue);
    while !queue.closed {
        let Some(task) = queue.tasks.pop_front() else {
            queue.idle += 1;
            queue = shared.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
            continue;
        };
        drop(queue);
        let found = catch_unwind(AssertUnwindSafe(|| find_out(&task.verify)));
        task.answer(found.unwrap_or(Verdict::Undone));
        queue = lock(&shared.queue);
    }
    queue.threads -= 1;
}

/// Nothing that is done under these locks can panic halfway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
