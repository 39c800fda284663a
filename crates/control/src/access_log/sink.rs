//! Where lines go: written as far as it takes them at once, so that whoever writes can do something else meanwhile.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::opened;

/// The permissions of a file that is made, but for what the process's mask takes away.
const MODE: u32 = 0o666;
/// What a pipe takes at once if it takes anything (`PIPE_BUF`).
const AT_ONCE: usize = 4096;

/// Where lines go.
#[derive(Debug)]
pub(super) enum Sink {
    Nowhere,
    /// Standard output or error. Others write there as well, and may wait for it.
    Shared(File),
    /// Its own; what it doesn't take is an error at once.
    File {
        path: PathBuf,
        file: File,
    },
    /// What comes of one write after the other, and what was taken.
    #[cfg(test)]
    Scripted(std::collections::VecDeque<io::Result<usize>>, std::sync::mpsc::Sender<Vec<u8>>),
}

impl Sink {
    pub(super) fn open(to: Option<&str>) -> io::Result<Self> {
        let shared = |stream: BorrowedFd<'_>| Ok(Sink::Shared(stream.try_clone_to_owned()?.into()));
        match to {
            None => Ok(Sink::Nowhere),
            Some("stdout") => shared(io::stdout().as_fd()),
            Some("stderr") => shared(io::stderr().as_fd()),
            Some(path) => Ok(Sink::File { path: path.into(), file: opened::to_append(path.as_ref(), MODE)? }),
        }
    }

    /// Open the file of the same name again: after a rotation that is a new one.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if let Sink::File { path, file } = self {
            *file = opened::to_append(path, MODE)?;
        }
        Ok(())
    }

    pub(super) fn is_nowhere(&self) -> bool {
        matches!(self, Sink::Nowhere)
    }

    /// How many of these bytes it took. One that takes nothing now says that it would block.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = match self {
            Sink::Nowhere => Ok(bytes.len()),
            Sink::Shared(file) if file.metadata()?.is_file() => file.write(bytes),
            Sink::Shared(file) => {
                if !takes(file, Duration::ZERO) {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                file.write(&bytes[..bytes.len().min(AT_ONCE)])
            }
            Sink::File { file, .. } => file.write(bytes),
            #[cfg(test)]
            Sink::Scripted(script, taken) => {
                let count = script.pop_front().unwrap_or(Ok(bytes.len()))?;
                let _ = taken.send(bytes[..count].to_vec());
                Ok(count)
            }
        };
        match taken {
            Ok(0) if !bytes.is_empty() => Err(io::ErrorKind::WriteZero.into()),
            taken => taken,
        }
    }

    /// Wait until it takes something, or this time is over.
    pub(super) fn wait(&self, time: Duration) {
        if let Sink::Shared(file) | Sink::File { file, .. } = self {
            takes(file, time);
        }
    }
}

/// Whether a write would be more than waiting, within this time. One that fails isn't.
fn takes(file: &File, time: Duration) -> bool {
    let mut asked = [PollFd::new(file, PollFlags::OUT)];
    let time = Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) };
    // That it can't be asked is said by the write.
    poll(&mut asked, Some(&time)).is_ok_and(|ready| ready > 0)
}
