//! A disk that keeps to what is promised of disks and to nothing more: what was not flushed may be lost or torn by a power
//! cut, names by themselves; it may be full, read-only or broken; and the process may end at any operation.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use fastrand::Rng;
use kakei_control::store::Files;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It is killed: the system keeps what it was told.
    Killed,
    /// The power is cut.
    PowerCut,
}

/// What is wrong with it for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trouble {
    #[default]
    None,
    /// Nothing more can be put on it.
    Full,
    /// Nothing can be changed.
    ReadOnly,
    /// What is to survive can't be promised to.
    NoFlush,
}

/// A file's bytes, and how many of them survive a power cut for sure.
#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    is_synced: bool,
}

/// What names stand for.
type Names = BTreeMap<String, u64>;

#[derive(Debug)]
pub(crate) struct Disk {
    rng: Rng,
    contents: BTreeMap<u64, Content>,
    next: u64,
    names: Names,
    /// As they are after a power cut, but for the changes since, each of which may or may not be there.
    settled: Names,
    unsettled: Vec<(String, Option<u64>)>,
    pub(crate) trouble: Trouble,
    /// The process ends at so many operations from now.
    pub(crate) ends_in: Option<u32>,
    /// It has ended: nothing that it does is done.
    pub(crate) is_over: bool,
    /// Operations that failed.
    pub(crate) failed: u64,
    /// Operations that were carried out.
    pub(crate) done: u64,
}

impl Disk {
    pub(crate) fn new(rng: Rng) -> Self {
        Disk {
            rng,
            contents: BTreeMap::new(),
            next: 0,
            names: Names::new(),
            settled: Names::new(),
            unsettled: Vec::new(),
            trouble: Trouble::None,
            ends_in: None,
            is_over: false,
            failed: 0,
            done: 0,
        }
    }

    /// The process has ended like this; the next one finds what is left.
    pub(crate) fn restart(&mut self, end: End) {
        self.is_over = false;
        self.ends_in = None;
        if end == End::PowerCut {
            for (name, content) in std::mem::take(&mut self.unsettled) {
                if self.rng.bool() {
                    set(&mut self.settled, name, content);
                }
            }
            self.names = self.settled.clone();
            for content in self.contents.values_mut().filter(|content| !content.is_synced) {
                content.bytes.truncate(self.rng.usize(0..=content.bytes.len()));
                content.is_synced = true;
            }
        }
        let used: Vec<u64> = self.names.values().chain(self.settled.values()).copied().collect();
        let waits: Vec<u64> = self.unsettled.iter().filter_map(|(_, content)| *content).collect();
        self.contents.retain(|content, _| used.contains(content) || waits.contains(content));
    }

    /// One operation: whether it is carried out.
    fn operate(&mut self, puts: bool, flushes: bool) -> io::Result<()> {
        if self.is_over {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if let Some(left) = &mut self.ends_in {
            *left = left.saturating_sub(1);
            self.is_over = *left == 0;
        }
        let error = match self.trouble {
            _ if self.is_over => Some(io::ErrorKind::BrokenPipe),
            Trouble::Full if puts => Some(io::ErrorKind::StorageFull),
            Trouble::ReadOnly if !flushes => Some(io::ErrorKind::ReadOnlyFilesystem),
            Trouble::NoFlush if flushes => Some(io::ErrorKind::Other),
            _ => None,
        };
        self.failed += u64::from(error.is_some() && !self.is_over);
        self.done += u64::from(error.is_none());
        error.map_or(Ok(()), |error| Err(error.into()))
    }

    fn change(&mut self, name: &str, content: Option<u64>) {
        set(&mut self.names, name.to_owned(), content);
        self.unsettled.push((name.to_owned(), content));
    }

    fn content(&mut self, name: &str) -> io::Result<(u64, &mut Content)> {
        let id = *self.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        self.contents.get_mut(&id).map(|content| (id, content)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let was_over = self.is_over;
        let done = self.operate(true, false);
        // Whether it fails or the process ends in the middle of it: some of it is there.
        let taken = match &done {
            Ok(()) => bytes.len(),
            Err(_) if was_over || self.trouble == Trouble::ReadOnly => return done,
            Err(_) => self.rng.usize(0..=bytes.len()),
        };
        self.next += 1;
        self.contents.insert(self.next, Content { bytes: bytes[..taken].to_vec(), is_synced: false });
        self.change(name, Some(self.next));
        done
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.operate(false, false)?;
        let (id, _) = self.content(from)?;
        self.change(from, None);
        self.change(to, Some(id));
        Ok(())
    }
}

fn set(names: &mut Names, name: String, content: Option<u64>) {
    match content {
        Some(content) => drop(names.insert(name, content)),
        None => drop(names.remove(&name)),
    }
}

/// A process's view of the disk.
#[derive(Clone, Debug)]
pub(crate) struct Mounted(pub(crate) Rc<RefCell<Disk>>);

impl Files for Mounted {
    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut disk = self.0.borrow_mut();
        let mut names: Vec<String> = disk.names.keys().cloned().collect();
        // In any order.
        disk.rng.shuffle(&mut names);
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<String> {
        let mut disk = self.0.borrow_mut();
        let bytes = disk.content(name)?.1.bytes.clone();
        String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn put(&mut self, name: &str, parts: &mut dyn Iterator<Item = String>) -> io::Result<()> {
        self.0.borrow_mut().put(name, parts.collect::<String>().as_bytes())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut disk = self.0.borrow_mut();
        disk.operate(false, true)?;
        disk.content(name)?.1.is_synced = true;
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.0.borrow_mut().rename(from, to)
    }

    fn link(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.0.borrow_mut();
        disk.operate(true, false)?;
        let (id, _) = disk.content(from)?;
        disk.change(to, Some(id));
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut disk = self.0.borrow_mut();
        disk.operate(false, false)?;
        disk.content(name)?;
        disk.change(name, None);
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        let mut disk = self.0.borrow_mut();
        disk.operate(false, true)?;
        disk.unsettled.clear();
        disk.settled = disk.names.clone();
        Ok(())
    }
}
