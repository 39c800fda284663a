//! Where generations are kept: files of a directory, each written whole, so that a crash at any moment leaves it there
//! or not there; or memory, for a proxy without a state directory. Knows nothing of what is in them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};

/// The longest file that is read back.
const MAX_FILE: u64 = 1 << 30;
/// How the name of a file ends that is being written.
const FRESH: &str = ".new";
/// What is said where the directory that is held isn't the one of this name any more.
const MOVED: &str = "the directory that this process has open was moved or removed; have it where it was, or start the \
                     proxy again";

/// Files of one directory: what a disk does, one thing at a time, each of which may fail or be the last one.
pub trait Files: fmt::Debug {
    /// Where a file is, for messages.
    fn path(&self, name: &str) -> PathBuf;

    /// The names of all files, in any order.
    ///
    /// # Errors
    /// When they can't be read.
    fn names(&self) -> io::Result<Vec<String>>;

    /// What is in a file.
    ///
    /// # Errors
    /// When it can't be read, or is no text.
    fn read(&self, name: &str) -> io::Result<String>;

    /// Whether there is a file of this name.
    fn has(&self, name: &str) -> bool {
        self.read(name).is_ok()
    }

    /// Put these bytes, one part after the other, into a fresh file of this name, in the place of any that has it. A crash
    /// may leave any part of them. What the old one held keeps its other names.
    ///
    /// # Errors
    /// When not all of them were taken.
    fn put(&mut self, name: &str, parts: &mut dyn Iterator<Item = String>) -> io::Result<()>;

    /// Have what was just put into a file survive a power cut.
    ///
    /// # Errors
    /// When it may not.
    fn sync(&mut self, name: &str) -> io::Result<()>;

    /// Give a file another name, in the place of any that has it: the one or the other is there at any moment.
    ///
    /// # Errors
    /// When it has the name that it had.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Give what is in a file another name besides, which no file has.
    ///
    /// # Errors
    /// When there is no such name.
    fn link(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Remove a file.
    ///
    /// # Errors
    /// When it is still there.
    fn remove(&mut self, name: &str) -> io::Result<()>;

    /// Have the names of files, and that some are gone, survive a power cut.
    ///
    /// # Errors
    /// When they may not.
    fn settle(&mut self) -> io::Result<()>;
}

/// Files by name, each of which is whole.
#[derive(Debug)]
pub(super) struct Medium(Box<dyn Files>);

impl Medium {
    pub(super) fn of(files: impl Files + 'static) -> Self {
        Medium(Box::new(files))
    }

    /// Where a file is, for messages.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    /// The names of all files, in order, but those that never were whole, which are removed.
    pub(super) fn names(&mut self) -> io::Result<Vec<String>> {
        let (torn, mut names): (Vec<_>, Vec<_>) = self.0.names()?.into_iter().partition(|name| name.ends_with(FRESH));
        for name in torn {
            // Nothing refers to it; that it can't be removed changes nothing.
            let _ = self.0.remove(&name);
        }
        names.sort();
        Ok(names)
    }

    pub(super) fn read(&self, name: &str) -> io::Result<String> {
        self.0.read(name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.has(name)
    }

    /// Write these parts; how many bytes they are. When it returns, the file survives a power cut, or nothing is different.
    pub(super) fn write(&mut self, name: &str, parts: impl Iterator<Item = String>) -> io::Result<usize> {
        let (files, fresh, mut size) = (&mut self.0, format!("{name}{FRESH}"), 0);
        let mut parts = parts.inspect(|part| size += part.len());
        let put = files.put(&fresh, &mut parts).and_then(|()| files.sync(&fresh));
        drop(parts);
        self.replace(name, put).map(|()| size)
    }

    /// Have a file of this name that is what the other one is now, which survives a power cut already. When it returns, so
    /// does this, or nothing is different.
    pub(super) fn copy(&mut self, from: &str, name: &str) -> io::Result<()> {
        let fresh = format!("{name}{FRESH}");
        // Where an earlier one stayed.
        let _ = self.0.remove(&fresh);
        let linked = self.0.link(from, &fresh);
        self.replace(name, linked)
    }

    /// Have the fresh file in the place of the one of this name, if it was made.
    fn replace(&mut self, name: &str, made: io::Result<()>) -> io::Result<()> {
        let (files, fresh) = (&mut self.0, format!("{name}{FRESH}"));
        let done = made.and_then(|()| files.rename(&fresh, name)).and_then(|()| files.settle());
        if done.is_err() {
            // One of them is there, and neither may stay: it would be read as what was acknowledged.
            let _ = files.remove(&fresh);
        }
        done
    }

    /// Remove a file. That it is gone survives a power cut with the next one that is written.
    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    /// Have what was removed survive a power cut.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        self.0.settle()
    }
}

/// A directory of the file system.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Held open, and locked as long as it is.
    handle: File,
    /// What was put last.
    fresh: Option<File>,
}

impl Directory {
    /// The directory, made (mode 0700) where it does not exist. Nobody else may have it open.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let handle = File::open(&path)?;
        flock(&handle, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Directory { path, handle, fresh: None })
    }

    /// A file in it. The lock goes with the directory, and not with its name: where that stands for another one now, which
    /// another process may have, nothing is read or written by it.
    fn own(&self, name: &str) -> io::Result<PathBuf> {
        let held = self.handle.metadata()?;
        let is_own = |found: &Metadata| (found.dev(), found.ino()) == (held.dev(), held.ino());
        match std::fs::metadata(&self.path) {
            Ok(found) if is_own(&found) => Ok(self.path.join(name)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Err(io::Error::other(MOVED)),
        }
    }
}

impl Files for Directory {
    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let name = |entry: io::Result<std::fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        std::fs::read_dir(self.own("")?)?.map(name).collect()
    }

    fn read(&self, name: &str) -> io::Result<String> {
        let mut text = String::new();
        File::open(self.own(name)?)?.take(MAX_FILE).read_to_string(&mut text)?;
        Ok(text)
    }

    fn has(&self, name: &str) -> bool {
        self.own(name).is_ok_and(|path| path.is_file())
    }

    fn put(&mut self, name: &str, parts: &mut dyn Iterator<Item = String>) -> io::Result<()> {
        let path = self.own(name)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        for part in parts {
            file.write_all(part.as_bytes())?;
        }
        self.fresh = Some(file);
        Ok(())
    }

    fn sync(&mut self, _: &str) -> io::Result<()> {
        self.fresh.take().map_or(Ok(()), |file| file.sync_all())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.own(from)?, self.path.join(to))
    }

    fn link(&mut self, from: &str, to: &str) -> io::Result<()> {
        std::fs::hard_link(self.own(from)?, self.path.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.own(name)?)
    }

    fn settle(&mut self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

/// As long as the process lives.
#[derive(Debug, Default)]
pub(super) struct Memory(BTreeMap<String, String>);

impl Files for Memory {
    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<String> {
        self.0.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn put(&mut self, name: &str, parts: &mut dyn Iterator<Item = String>) -> io::Result<()> {
        self.0.insert(name.to_owned(), parts.collect());
        Ok(())
    }

    fn sync(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let text = self.0.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.0.insert(to.to_owned(), text);
        Ok(())
    }

    fn link(&mut self, from: &str, to: &str) -> io::Result<()> {
        let text = self.read(from)?;
        self.0.insert(to.to_owned(), text);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.0.remove(name);
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }
}
