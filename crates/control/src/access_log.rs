//! The access log: one line for each flow, connection and request that ended, written by a thread of its own.
//!
//! A worker never waits for it: its machine drops a record that finds the ring full, and counts that.

mod fields;
mod format;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
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

use crate::opened;

pub use self::format::Line;

/// The permissions of a file that is made, but for what the process's mask takes away.
const MODE: u32 = 0o666;
/// Records formatted before they are written in one go.
const BATCH: usize = 1024;
/// How long a message to the thread may wait while no record comes.
const NAP: Duration = Duration::from_millis(100);
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

/// Where lines go.
#[derive(Debug)]
enum Sink {
    Nowhere,
    Stdout,
    Stderr,
    File { path: PathBuf, file: File },
}

impl Sink {
    fn open(to: Option<&str>) -> io::Result<Self> {
        Ok(match to {
            None => Sink::Nowhere,
            Some("stdout") => Sink::Stdout,
            Some("stderr") => Sink::Stderr,
            Some(path) => Sink::File { path: path.into(), file: opened::to_append_beside(path.as_ref(), MODE)? },
        })
    }

    /// Open the file of the same name again: after a rotation that is a new one.
    fn reopen(&mut self) -> io::Result<()> {
        if let Sink::File { path, file } = self {
            *file = opened::to_append_beside(path, MODE)?;
        }
        Ok(())
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Sink::Nowhere => Ok(()),
            Sink::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines).and_then(|()| stdout.flush())
            }
            Sink::Stderr => io::stderr().lock().write_all(lines),
            Sink::File { file, .. } => file.write_all(lines),
        }
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
        let writer = reader.map(|reader| Writer {
            reader,
            inbox,
            sink: Sink::Nowhere,
            format: LogFormat::default(),
            counts: Arc::clone(&counts),
            complained: false,
        });
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
    inbox: Receiver<Message>,
    sink: Sink,
    format: LogFormat,
    counts: Arc<Counts>,
    /// Whether the operator was told that the sink fails; once until it works again.
    complained: bool,
}

impl Writer {
    fn run(mut self) {
        let mut lines = Vec::with_capacity(64 * 1024);
        while !self.reader.is_finished() {
            self.reader.wait(Some(NAP));
            while let Ok(message) = self.inbox.try_recv() {
                self.obey(message);
            }
            while self.batch(&mut lines) {}
            self.counts.dropped.store(self.reader.dropped(), Ordering::Relaxed);
        }
    }

    fn obey(&mut self, message: Message) {
        let done = match message {
            Message::Retarget(Target(sink, format)) => {
                (self.sink, self.format) = (sink, format);
                Ok(())
            }
            Message::Reopen => self.sink.reopen(),
        };
        if let Err(error) = done {
            warn!("the access log can't be opened again: {error}; lines still go to the old file");
        }
    }

    /// Take what is there and write it in one go. Whether there may be more.
    fn batch(&mut self, lines: &mut Vec<u8>) -> bool {
        lines.clear();
        let mut taken = 0;
        while taken < BATCH {
            let Some(record) = self.reader.pop() else { break };
            taken += 1;
            if !matches!(self.sink, Sink::Nowhere) {
                Line::new(&record, ended(&record)).write(self.format, lines);
            }
        }
        if taken > 0 && !matches!(self.sink, Sink::Nowhere) {
            self.write(lines, taken as u64);
        }
        taken == BATCH
    }

    fn write(&mut self, lines: &[u8], count: u64) {
        match self.sink.write(lines) {
            Ok(()) => {
                self.counts.written.fetch_add(count, Ordering::Relaxed);
                self.complained = false;
            }
            Err(error) => {
                self.counts.lost.fetch_add(count, Ordering::Relaxed);
                if !std::mem::replace(&mut self.complained, true) {
                    warn!("the access log can't be written: {error}; lines are lost until it can");
                }
            }
        }
    }
}

fn ended(record: &Record) -> std::time::SystemTime {
    let ended = record.admitted + record.duration;
    UNIX_EPOCH + clock::wall_offset().saturating_add(Duration::from_nanos(ended.as_nanos()))
}
