//! Generations as they are kept: each in a file of its own, as a whole document or as the objects that differ from the
//! generation before, so that a change costs what it changes. Written before it is acknowledged, read back at the start
//! and to go back to. What can't be read is said and left out, never half taken.
//!
//! Keeps its files in `generations/` of the state directory, and looks at nothing else there.

mod file;
mod medium;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use kakei_config::{Change, Document};
use kakei_proxy::snapshot::Generation;
use tracing::warn;

use self::file::Written;
pub use self::medium::Files;
use self::medium::{Directory, Medium, Memory};
use crate::history::{Entry, GENERATIONS_KEPT};

/// A generation is written whole at the latest when so many are kept as differences.
const DIFFERENCES: usize = 4096;
/// And not before the differences are longer than that, in bytes.
const SMALL: usize = 64 << 10;
/// The number that no generation has: none could come behind it.
const NEVER: u64 = u64::MAX;
/// The file of the whole document that was applied last.
const APPLIED: &str = "applied.json";

/// The generations that are kept.
#[derive(Debug)]
pub struct Store {
    medium: Medium,
    /// Those that have a file.
    files: BTreeSet<u64>,
    /// Those of them that hold a whole document.
    wholes: BTreeSet<u64>,
    /// The newest whole one that differences build on; none: the next one is written whole.
    base: Option<Base>,
}

#[derive(Clone, Copy, Debug)]
struct Base {
    /// The newest generation that is kept.
    newest: u64,
    whole: usize,
    differences: usize,
    count: usize,
}

/// Why generations can't be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("the state in {path} can't be {doing}: {error}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// `read` or `written`.
        doing: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// No generation can come behind the last one.
    #[error("no generation can come behind {0}, the largest number that there is")]
    Full(PathBuf),
    /// Another process has it open.
    #[error("the state directory {0} is in use by a running process; stop that, or choose another with --state")]
    InUse(PathBuf),
}

/// What was kept.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest generation, and its document.
    pub last: Option<(Entry, Document)>,
    /// What is known of each, oldest first.
    pub entries: Vec<Entry>,
    /// How many have a file, readable or not.
    pub files: usize,
    /// What is there and can't be used, in sentences.
    pub skipped: Vec<String>,
}

impl Store {
    /// The store in this state directory, which is made (mode 0700) where it does not exist. Held for this process alone
    /// until it is dropped.
    ///
    /// # Errors
    /// When the directory can't be made or read, or another process has it.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = directory.as_ref().join("generations");
        let files = match Directory::open(path.clone()) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(StoreError::InUse(directory.as_ref().to_owned()));
            }
            Err(error) => return Err(StoreError::Io { path, doing: "written", error }),
        };
        Ok(Store::on(files))
    }

    /// A store that lives as long as the process.
    pub fn in_memory() -> Self {
        Store::on(Memory::default())
    }

    /// A store in these files, which are nobody else's.
    pub fn on(files: impl Files + 'static) -> Self {
        Store { medium: Medium::of(files), files: BTreeSet::new(), wholes: BTreeSet::new(), base: None }
    }

    /// The number that the next generation may have: above all that have a file, readable or not.
    pub fn next(&self) -> Generation {
        Generation(self.files.last().map_or(0, |newest| *newest).saturating_add(1))
    }

    /// Read back what is kept. Each object of a document is one that can be; whether they go together isn't looked at.
    ///
    /// # Errors
    /// When the directory can't be read. A file that can't be used is no error: it is named in what is found.
    pub fn load(&mut self) -> Result<Found, StoreError> {
        let mut found = self.read(u64::MAX)?;
        found.files = self.files.len();
        // The process before may have ended between writing the last of them and having it survive a power cut.
        if let Err(error) = self.medium.settle() {
            let path = self.medium.path("");
            found
                .skipped
                .push(format!("{}: what was written last may not survive a power cut: {error}", path.display()));
        }
        Ok(found)
    }

    /// What a generation was; none where it isn't kept, or not readable, of which [`Store::has`] tells the one from the other.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn document(&mut self, generation: Generation) -> Result<Option<Document>, StoreError> {
        let found = self.read(generation.0)?;
        let document = found.last.filter(|(entry, _)| entry.generation == generation).map(|(_, document)| document);
        if document.is_none() && self.has(generation) {
            found.skipped.iter().for_each(|skipped| warn!("generation {} can't be read: {skipped}", generation.0));
        }
        Ok(document)
    }

    /// Whether a generation has a file, readable or not.
    pub fn has(&self, generation: Generation) -> bool {
        self.files.contains(&generation.0)
    }

    fn read(&mut self, until: u64) -> Result<Found, StoreError> {
        let names = self.medium.names().map_err(|error| self.failed("read", "", error))?;
        let mut found = Found::default();
        let mut standing: Option<(u64, Document)> = None;
        for name in names.into_iter().filter(|name| name != APPLIED) {
            let path = self.medium.path(&name);
            let mut skip = |why: &str| found.skipped.push(format!("{}: {why}", path.display()));
            let Some(number) = file::number(&name) else {
                skip("it is none of the proxy's files");
                continue;
            };
            if number > until {
                break;
            }
            if number == NEVER {
                skip("no generation has this number, since none could come behind it; remove the file");
                continue;
            }
            self.files.insert(number);
            let before = standing.as_ref().filter(|(before, _)| *before + 1 == number).map(|(_, document)| document);
            match self.read_one(number, before) {
                Ok((entry, is_whole, document)) => {
                    self.wholes.extend(is_whole.then_some(number));
                    standing = Some((number, document));
                    found.entries.push(entry);
                }
                Err(why) => {
                    skip(&why);
                    // What would build on it could not be read again either.
                    self.base = None;
                }
            }
        }
        found.last = found.entries.last().cloned().zip(standing.map(|(_, document)| document));
        Ok(found)
    }

    /// A generation: what is known of it, whether it is kept whole, and its document, which may be made of the one before.
    fn read_one(&self, number: u64, before: Option<&Document>) -> Result<(Entry, bool, Document), String> {
        let text = self.medium.read(&file::name(number)).map_err(|error| error.to_string())?;
        let written = Written::parse(&text)?;
        if written.entry.generation.0 != number {
            return Err("it holds another generation than its name says".to_owned());
        }
        if before.is_none() && !written.is_whole {
            return Err("it holds what differs from the generation before, and that can't be read".to_owned());
        }
        let document = written.onto(before.cloned().unwrap_or_default())?;
        Ok((written.entry, written.is_whole, document))
    }

    /// Keep a generation, which is `changes` from the one before. When it returns, it survives a power cut; with an error,
    /// nothing is different.
    ///
    /// # Errors
    /// When the file can't be written, or no number is left.
    pub fn commit(&mut self, entry: &Entry, changes: &[Change], document: &Document) -> Result<(), StoreError> {
        let number = entry.generation.0;
        if number == NEVER {
            return Err(StoreError::Full(self.medium.path(&file::name(number - 1))));
        }
        let differs = self.base.filter(|base| {
            let most = base.whole.max(SMALL);
            base.newest + 1 == number && base.differences < most && base.count < DIFFERENCES && self.is_there(base)
        });
        let name = file::name(number);
        let written = match differs {
            Some(_) => self.medium.write(&name, file::difference(entry, changes, document)),
            None => self.medium.write(&name, file::whole(entry, document)),
        };
        let size = match written {
            Ok(size) => size,
            Err(error) => {
                // It may be there without being sure to stay: it must not be read as what was acknowledged.
                let _ = self.medium.remove(&name).and_then(|()| self.medium.settle());
                return Err(self.failed("written", &name, error));
            }
        };
        self.files.insert(number);
        self.wholes.extend(differs.is_none().then_some(number));
        self.base = Some(match differs {
            Some(base) => Base { newest: number, differences: base.differences + size, count: base.count + 1, ..base },
            None => Base { newest: number, whole: size, differences: 0, count: 0 },
        });
        self.prune();
        Ok(())
    }

    /// Whether what a difference would build on still has its files: somebody else may have removed them.
    fn is_there(&self, base: &Base) -> bool {
        let whole = base.newest - base.count as u64;
        [whole, base.newest].iter().all(|number| self.medium.has(&file::name(*number)))
    }

    /// Forget a generation that no worker ever heard of.
    ///
    /// # Errors
    /// When its file can't be removed: a restart would bring it up.
    pub fn discard(&mut self, generation: Generation) -> Result<(), StoreError> {
        let name = file::name(generation.0);
        self.base = None;
        let removed = self.medium.remove(&name).and_then(|()| self.medium.settle());
        removed.map_err(|error| self.failed("written", &name, error))?;
        self.files.remove(&generation.0);
        self.wholes.remove(&generation.0);
        Ok(())
    }

    /// Write what is known of a generation anew: that it was confirmed.
    ///
    /// # Errors
    /// When its file can't be read or written.
    pub fn amend(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let name = file::name(entry.generation.0);
        let text = self.medium.read(&name).map_err(|error| self.failed("read", &name, error))?;
        let damaged = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let written = Written::parse(&text).map_err(|why| self.failed("read", &name, damaged(why)))?;
        let written = self.medium.write(&name, written.with(entry)).map(drop);
        written.map_err(|error| self.failed("written", &name, error))
    }

    /// Keep the whole document that was applied last, which is the newest generation's.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn keep_applied(&mut self, document: &Document) -> Result<(), StoreError> {
        // Where that one is kept whole it stands there already.
        let whole = self.base.filter(|base| base.count == 0).map(|base| file::name(base.newest));
        if whole.is_some_and(|whole| self.medium.copy(&whole, APPLIED).is_ok()) {
            return Ok(());
        }
        let written = self.medium.write(APPLIED, file::lines(document)).map(drop);
        written.map_err(|error| self.failed("written", APPLIED, error))
    }

    /// The whole document that was applied last; none where there was none.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn applied(&self) -> Result<Option<Document>, StoreError> {
        self.of_applied(|objects| file::read(objects, Document::default()))
    }

    /// Whether that can be read, without having it in memory.
    ///
    /// # Errors
    /// When it can't be.
    pub fn check_applied(&self) -> Result<(), StoreError> {
        self.of_applied(file::check).map(drop)
    }

    fn of_applied<T>(&self, read: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>, StoreError> {
        let failed = |error| self.failed("read", APPLIED, error);
        let text = match self.medium.read(APPLIED) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(failed)?,
        };
        // It may be another name of a generation's.
        let objects = Written::parse(&text).map_or(&*text, |whole| whole.objects());
        read(objects).map(Some).map_err(|why| failed(io::Error::new(io::ErrorKind::InvalidData, why)))
    }

    /// Forget the oldest, where more are kept than are promised.
    fn prune(&mut self) {
        let Some(&oldest) = self.files.iter().nth_back(GENERATIONS_KEPT - 1) else { return };
        // Those above it build on it.
        let base = self.wholes.range(..=oldest).next_back();
        let Some(&base) = base.filter(|base| self.files.first() < Some(base)) else { return };
        let kept = self.files.split_off(&base);
        self.wholes = self.wholes.split_off(&base);
        // From the newest on: wherever this ends, none is left without what it builds on.
        for number in std::mem::replace(&mut self.files, kept).into_iter().rev() {
            // One that stays is pruned with the next start's.
            let _ = self.medium.remove(&file::name(number));
        }
    }

    fn failed(&self, doing: &'static str, name: &str, error: io::Error) -> StoreError {
        StoreError::Io { path: self.medium.path(name), doing, error }
    }
}

#[cfg(test)]
mod tests;
