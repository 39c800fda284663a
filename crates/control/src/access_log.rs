//! The access log: one line for each flow, connection and request that ended, written by a thread of its own.
//!
//! A worker never waits for it: its machine drops a record that finds the ring full, and counts that.

mod fields;
mod format;
mod sink;

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, UNIX_EPOCH};

use kakei_config::{AccessLog, LogFormat};
use kakei_proxy::record::Record;
use kakei_runtime::clock;
use kakei_runtime::records::RecordReader;
use tracing::warn;

pub use self::format::Line;
use self::sink::Sink;

/// Records formatted before they are written in one go.
const BATCH: usize = 1024;
/// How long a message to the thread may wait while no record comes.
const NAP: Duration = Duration::from_millis(100);
/// How long a sink may take nothing before the operator is told.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the end waits for a sink that takes nothing more (a stopped pipe).
const FINISH_TIME: Duration = Duration::from_secs(2);

/// Where lines are to go, and how; open already.
#[derive(Debug)]
pub struct Target(Sink, LogFormat);

impl Target {
    /// Open it.
    ///
    /// # Errors
    /// When the file can't be.
    pub fn open(to: &AccessLog) -> io::Result<Self> {
        Ok(Target(Sink::open(to.to.as_deref())?, to.format))
    }
}

/// What the thread is told.
enum Message {
    Retarget(Target),
    Reopen,
}

#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    lost: AtomicU64,
    dropped: AtomicU64,
}

/// The control side's end of the log thread.
#[derive(Debug)]
pub struct LogWriter {
    messages: Sender<Message>,
    counts: Arc<Counts>,
    /// None: there is nothing to write.
    thread: Option<JoinHandle<()>>,
}

impl LogWriter {
    /// Start the thread, where there are records; it writes nowhere until [`LogWriter::retarget`], and ends when every worker has ended.
    pub fn start(reader: Option<RecordReader>) -> io::Result<Self> {
        let (messages, inbox) = channel();
        let counts = Arc::new(Counts::default());
        let output = Output {
            inbox,
            sink: Sink::Nowhere,
            format: LogFormat::default(),
            torn: Vec::new(),
            counts: Arc::clone(&counts),
            complained: false,
        };
        let writer = reader.map(|reader| Writer { reader, output });
        let spawn = |writer: Writer| std::thread::Builder::new().name("kakei-log".into()).spawn(move || writer.run());
        let thread = writer.map(spawn).transpose()?;
        Ok(LogWriter { messages, counts, thread })
    }

    /// Write elsewhere from now on.
    pub fn retarget(&self, target: Target) {
        // The thread only ends with the workers, and then nothing is left to write.
        let _ = self.messages.send(Message::Retarget(target));
    }

    /// Open the file again, after a rotation.
    pub fn reopen(&self) {
        let _ = self.messages.send(Message::Reopen);
    }

    /// Lines written so far.
    pub fn written(&self) -> u64 {
        self.counts.written.load(Ordering::Relaxed)
    }

    /// Lines that could not be written.
    pub fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// Records that the workers dropped because the thread was too slow.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// After the workers' end: wait until their last records are written, for as long as the sink takes them.
    pub fn finish(self) {
        let Some(thread) = self.thread else { return };
        let until = Instant::now() + FINISH_TIME;
        while !thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        if !thread.is_finished() {
            warn!("the access log takes nothing more; its last lines are lost");
        }
    }
}

struct Writer {
    reader: RecordReader,
    output: Output,
}

/// Lines on their way to the sink.
struct Output {
    inbox: Receiver<Message>,
    sink: Sink,
    format: LogFormat,
    /// What is left of a line whose beginning the sink took before it failed.
    torn: Vec<u8>,
    counts: Arc<Counts>,
    /// Whether the operator was told that the sink fails; once until it works again.
    complained: bool,
}

impl Writer {
    fn run(mut self) {
        let mut lines = Vec::with_capacity(64 * 1024);
        while !self.reader.is_finished() {
            self.reader.wait(Some(NAP));
            self.output.obey();
            while self.batch(&mut lines) {}
            self.output.counts.dropped.store(self.reader.dropped(), Ordering::Relaxed);
        }
    }

    /// Take what is there and write it in one go. Whether there may be more.
    fn batch(&mut self, lines: &mut Vec<u8>) -> bool {
        lines.clear();
        let output = &mut self.output;
        let mut taken = 0;
        while taken < BATCH {
            let Some(record) = self.reader.pop() else { break };
            taken += 1;
            if !output.sink.is_nowhere() {
                Line::new(&record, ended(&record)).write(output.format, lines);
            }
        }
        output.counts.dropped.store(self.reader.dropped(), Ordering::Relaxed);
        output.write(lines);
        taken == BATCH
    }
}

impl Output {
    /// Do what was asked for. Whether lines go elsewhere now.
    fn obey(&mut self) -> bool {
        let mut is_elsewhere = false;
        while let Ok(message) = self.inbox.try_recv() {
            let done = match message {
                Message::Retarget(Target(sink, format)) => {
                    (self.sink, self.format) = (sink, format);
                    Ok(())
                }
                Message::Reopen => self.sink.reopen(),
            };
            match done {
                Ok(()) => is_elsewhere = true,
                Err(error) => warn!("the access log can't be opened again: {error}; lines still go to the old file"),
            }
        }
        if is_elsewhere && !std::mem::take(&mut self.torn).is_empty() {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
        is_elsewhere
    }

    /// Write these lines, behind what is left of the one before. While the sink takes nothing, it may be told to write
    /// elsewhere.
    fn write(&mut self, lines: &[u8]) {
        let torn = std::mem::take(&mut self.torn);
        let mut begun = !torn.is_empty();
        let bytes = if begun { Cow::Owned([&torn[..], lines].concat()) } else { Cow::Borrowed(lines) };
        let (mut left, mut stuck) = (&*bytes, None);
        while !left.is_empty() {
            match self.sink.write(left) {
                Ok(taken) => {
                    begun = left[taken - 1] != b'\n';
                    self.counts.written.fetch_add(count(&left[..taken]), Ordering::Relaxed);
                    (left, stuck, self.complained) = (&left[taken..], None, false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let since = *stuck.get_or_insert_with(Instant::now);
                    match self.wait(since) {
                        Some(format) => left = self.elsewhere(left, begun, format),
                        None => continue,
                    }
                    (begun, stuck) = (false, None);
                }
                Err(error) => return self.lose(left, begun, &error),
            }
        }
    }

    /// Wait for a sink that takes nothing, since then. What lines were written in, where they go elsewhere now.
    fn wait(&mut self, since: Instant) -> Option<LogFormat> {
        if since.elapsed() >= PATIENCE {
            self.complain("it takes nothing more; lines wait for it, and are lost when there are too many");
        }
        self.sink.wait(NAP);
        let format = self.format;
        self.obey().then_some(format)
    }

    /// What of these lines can be written to another sink: whole ones, if they are to be as they are.
    fn elsewhere<'a>(&mut self, left: &'a [u8], begun: bool, format: LogFormat) -> &'a [u8] {
        let whole = if begun { &left[first(left)..] } else { left };
        let kept = if self.sink.is_nowhere() || format != self.format { &[] } else { whole };
        self.counts.lost.fetch_add(count(left) - count(kept), Ordering::Relaxed);
        kept
    }

    /// These lines are lost, but for the rest of one that was begun: it ends its line when the sink takes something again.
    fn lose(&mut self, left: &[u8], begun: bool, error: &io::Error) {
        let (rest, lost) = left.split_at(if begun { first(left) } else { 0 });
        self.torn = rest.to_vec();
        self.counts.lost.fetch_add(count(lost), Ordering::Relaxed);
        self.complain(&format!("{error}; lines are lost until it can"));
    }

    fn complain(&mut self, why: &str) {
        if !std::mem::replace(&mut self.complained, true) {
            warn!("the access log can't be written: {why}");
        }
    }
}

/// How many lines end in these bytes.
fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Where the first line of these bytes ends.
fn first(lines: &[u8]) -> usize {
    lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |end| end + 1)
}

fn ended(record: &Record) -> std::time::SystemTime {
    let ended = record.admitted + record.duration;
    UNIX_EPOCH + clock::wall_offset().saturating_add(Duration::from_nanos(ended.as_nanos()))
}

#[cfg(test)]
mod tests;
