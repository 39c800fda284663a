//! Standard error of a proxy that runs: lines wait here for a thread that writes them, so that a reader who stopped
//! holds up nobody else. Knows nothing of what is in a line.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tracing_subscriber::filter::LevelFilter;

use crate::cli::Level;
use crate::say;

/// Bytes of lines that may wait; what comes while there are more is lost, and counted.
const ROOM: usize = 1 << 20;
/// How long the end waits for a reader that takes nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// The lines of this process, once it has a log.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Have a log from now on, from this level on; and have panics in it.
pub(crate) fn start(level: Level) {
    let level = match level {
        Level::Off => LevelFilter::OFF,
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    // Without the thread each line is written by whoever has it.
    if let Ok(lines) = Lines::start(io::stderr()) {
        LINES.get_or_init(|| lines);
        std::panic::set_hook(Box::new(|panic| {
            let thread = std::thread::current();
            write(&format!("thread '{}' {panic}\n", thread.name().unwrap_or("<unnamed>")));
        }));
    }
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(|| Log)
        .with_ansi(say::color())
        .with_target(false)
        .init();
}

/// Write to standard error: behind what waits for it, where anything may.
pub(crate) fn write(text: &str) {
    match LINES.get() {
        Some(lines) => lines.push(text),
        None => drop(io::stderr().lock().write_all(text.as_bytes())),
    }
}

/// When it is dropped, what was logged is written, for as long as somebody reads it.
pub(crate) struct Flush;

impl Drop for Flush {
    fn drop(&mut self) {
        LINES.get().into_iter().for_each(Lines::flush);
    }
}

/// Takes one line a call.
struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines on their way to a stream. A clone is the same queue.
#[derive(Clone, Default)]
struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something is to be written.
    filled: Condvar,
    /// Something was.
    moved: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<String>,
    /// What these have.
    bytes: usize,
    /// A line is being written.
    busy: bool,
    /// How many were written so far.
    written: u64,
    /// Lines that found no room since that was said last.
    lost: u64,
}

impl Lines {
    fn start(stream: impl Write + Send + 'static) -> io::Result<Self> {
        let lines = Lines::default();
        let own = lines.clone();
        std::thread::Builder::new().name("kakei-stderr".into()).spawn(move || own.run(stream))?;
        Ok(lines)
    }

    fn push(&self, text: &str) {
        let mut queue = self.queue();
        if queue.bytes.saturating_add(text.len()) > ROOM {
            queue.lost += 1;
            return;
        }
        let missing = queue.missing();
        for line in missing.into_iter().chain([text.to_owned()]) {
            queue.bytes += line.len();
            queue.waiting.push_back(line);
        }
        drop(queue);
        self.0.filled.notify_one();
    }

    fn run(self, mut stream: impl Write) {
        let mut queue = self.queue();
        loop {
            let Some(line) = queue.take() else {
                queue = self.0.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(queue);
            // A stream that can't be written to has nobody to tell.
            let _ = write_all(&mut stream, line.as_bytes());
            queue = self.queue();
            queue.busy = false;
            queue.written += 1;
            self.0.moved.notify_all();
        }
    }

    /// Wait until nothing waits, or nothing was taken for some time.
    fn flush(&self) {
        let mut queue = self.queue();
        while queue.busy || !queue.waiting.is_empty() {
            let written = queue.written;
            let stuck = |queue: &mut Queue| queue.written == written;
            let waited = self.0.moved.wait_timeout_while(queue, PATIENCE, stuck);
            let (now, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            if waited.timed_out() {
                return;
            }
            queue = now;
        }
    }

    /// Each change of it is one statement after the other that can't panic.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// The next line to be written.
    fn take(&mut self) -> Option<String> {
        let line = self.waiting.pop_front();
        self.bytes -= line.as_ref().map_or(0, String::len);
        let line = line.or_else(|| self.missing());
        self.busy |= line.is_some();
        line
    }

    /// How many lines are missing behind the last one, if any are.
    fn missing(&mut self) -> Option<String> {
        let lost = std::mem::take(&mut self.lost);
        (lost > 0).then(|| format!("{lost} log lines are missing here: nobody read standard error in time\n"))
    }
}

/// All of it, also to a stream that somebody else has made non-blocking.
fn write_all(stream: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(taken) => bytes = &bytes[taken..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(10)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A stream whose reader takes a line where it is told to.
    struct Slow(Receiver<()>, Sender<String>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Without a reader left, all of it is taken.
            let _ = self.0.recv();
            let _ = self.1.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_who_stops_holds_nobody_up_and_hears_what_is_missing() {
        let ((go, gate), (taken, read)) = (channel(), channel());
        let lines = Lines::start(Slow(gate, taken)).unwrap();
        let line = format!("{}\n", "x".repeat(1023));
        // One is being written, so many wait, and the others are lost.
        let (kept, lost) = (ROOM / line.len(), 10);
        lines.push("first\n");
        while !lines.queue().busy {
            std::thread::yield_now();
        }
        (0..kept + lost).for_each(|_| lines.push(&line));
        lines.flush();
        assert_eq!(lines.queue().waiting.len(), kept, "nothing was taken");
        drop(go);
        lines.flush();
        let got: Vec<String> = read.try_iter().collect();
        assert_eq!(got.len(), 1 + kept + 1);
        assert_eq!(got[0], "first\n");
        assert!(got[kept + 1].starts_with("10 log lines are missing here: "), "{}", got[kept + 1]);
        lines.push("last\n");
        lines.flush();
        assert_eq!(read.try_iter().collect::<Vec<_>>(), ["last\n"]);
    }
}
