//! Files in PEM: their bytes, and what tells whether they changed. Parses nothing.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use kakei_config::Pem;

use crate::opened;

/// The longest file.
const LONGEST: u64 = 1 << 20;

/// What a file was like when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    /// It is no file: the document holds it.
    Held,
    /// Its device, number, length, and the time of its last change in nanoseconds.
    File([i128; 4]),
    /// It could not be looked at.
    Missing,
}

impl Stamp {
    /// Whether a file that looks the same holds the same.
    pub(super) fn is_telling(&self) -> bool {
        *self != Stamp::Missing
    }
}

pub(super) fn stamp(pem: &Pem) -> Stamp {
    match pem {
        Pem::File(path) => stamp_of(path),
        Pem::Text(_) => Stamp::Held,
    }
}

/// What the file there is like.
pub(super) fn stamp_of(path: &str) -> Stamp {
    let Ok(found) = fs::metadata(path) else { return Stamp::Missing };
    let changed = i128::from(found.ctime()) * 1_000_000_000 + i128::from(found.ctime_nsec());
    Stamp::File([found.dev().into(), found.ino().into(), found.len().into(), changed])
}

/// The bytes; or why there are none.
pub(super) fn read(pem: &Pem) -> Result<Vec<u8>, String> {
    let path = match pem {
        Pem::Text(text) => return Ok(text.clone().into_bytes()),
        Pem::File(path) => path,
    };
    let mut bytes = Vec::new();
    let read = opened::to_read(path.as_ref()).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(format!("{path} can't be read: {error}")),
        Ok(_) if bytes.len() as u64 > LONGEST => Err(format!("{path} is longer than {LONGEST} bytes")),
        Ok(_) => Ok(bytes),
    }
}
