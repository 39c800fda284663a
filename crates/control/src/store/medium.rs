//! Where generations are kept: files of a directory, each written whole, so that a crash at any moment leaves it there
//! or not there; or memory, for a proxy without a state directory. Knows nothing of what is in them.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// The longest file that is read back.
const MAX_FILE: u64 = 1 << 30;
/// How the name of a file ends that is being written.
const FRESH: &str = ".new";

/// Files by name.
#[derive(Debug)]
pub(super) enum Medium {
    Directory {
        path: PathBuf,
        /// Held open, and locked as long as it is.
        handle: File,
    },
    Memory(BTreeMap<String, String>),
}

impl Medium {
    /// The directory, made (mode 0700) where it does not exist. Nobody else may have it open.
    pub(super) fn directory(path: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let handle = File::open(&path)?;
        flock(&handle, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Medium::Directory { path, handle })
    }

    /// Where a file is, for messages.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        match self {
            Medium::Directory { path, .. } => path.join(name),
            Medium::Memory(_) => name.into(),
        }
    }

    /// The names of all files but those that never were whole, which are removed.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let Medium::Directory { path, .. } = self else {
            let Medium::Memory(files) = self else { return Ok(Vec::new()) };
            return Ok(files.keys().cloned().collect());
        };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.ends_with(FRESH) {
                // Nothing refers to it; that it can't be removed changes nothing.
                let _ = std::fs::remove_file(path.join(name));
            } else {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    pub(super) fn read(&self, name: &str) -> io::Result<String> {
        match self {
            Medium::Directory { path, .. } => read(&path.join(name)),
            Medium::Memory(files) => files.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into()),
        }
    }

    /// When it returns, the file survives a power cut, or nothing is different.
    pub(super) fn write(&mut self, name: &str, text: String) -> io::Result<()> {
        match self {
            Medium::Directory { path, handle } => replace(&path.join(name), handle, text.as_bytes()),
            Medium::Memory(files) => {
                files.insert(name.to_owned(), text);
                Ok(())
            }
        }
    }

    /// Remove a file. That it is gone survives a power cut with the next one that is written.
    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        match self {
            Medium::Directory { path, .. } => std::fs::remove_file(path.join(name)),
            Medium::Memory(files) => {
                files.remove(name);
                Ok(())
            }
        }
    }

    /// Have what was removed survive a power cut.
    pub(super) fn settle(&self) -> io::Result<()> {
        match self {
            Medium::Directory { handle, .. } => handle.sync_all(),
            Medium::Memory(_) => Ok(()),
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

fn replace(path: &Path, directory: &File, bytes: &[u8]) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(FRESH);
    let fresh = PathBuf::from(fresh);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&fresh, path))
        .and_then(|()| directory.sync_all());
    if written.is_err() {
        // One of them is there, and neither may stay: it would be read as what was acknowledged.
        let _ = std::fs::remove_file(&fresh);
    }
    written
}
