//! The running document on disk: written whole, so that a crash at any moment leaves the old one or the new one.
//!
//! Keeps one file, `current.json`, in the state directory. Never reads or writes anything else there but its own
//! temporary file.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kakei_config::Document;
use kakei_proxy::snapshot::Generation;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::wall;

/// The version of the file's schema.
const SCHEMA: u32 = 1;
/// The longest file that is read back.
const MAX_FILE: u64 = 64 << 20;

/// A generation as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    schema: u32,
    generation: Generation,
    at: String,
    origin: String,
    document: Value,
}

/// The state directory.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

/// Why the state directory can't be used.
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
    /// The file is there and is not what this program wrote.
    #[error("the state in {path} is not readable ({why}); move it away, or run a document with -c FILE")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl Store {
    /// The store in this directory, which is made (mode 0700) where it does not exist.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let directory = directory.into();
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(|error| StoreError::Io {
            path: directory.clone(),
            doing: "written",
            error,
        })?;
        Ok(Store { directory })
    }

    /// The file that holds the document.
    pub fn file(&self) -> PathBuf {
        self.directory.join("current.json")
    }

    /// Keep this document. When it returns, the document survives a power cut.
    pub fn save(&self, document: &Document, generation: Generation, origin: &str) -> Result<(), StoreError> {
        let at = wall::rfc3339(SystemTime::now());
        let kept =
            Kept { schema: SCHEMA, generation, at, origin: origin.to_owned(), document: document.to_json_value() };
        let mut bytes = serde_json::to_vec_pretty(&kept).expect("a document is always JSON");
        bytes.push(b'\n');
        self.replace(&bytes).map_err(|error| StoreError::Io { path: self.file(), doing: "written", error })
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let fresh = self.directory.join(format!("current.json.{}.new", std::process::id()));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        let written =
            file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&fresh, self.file()));
        if let Err(error) = written {
            // Nothing refers to the temporary file; that it can't be removed either changes nothing.
            let _ = std::fs::remove_file(&fresh);
            return Err(error);
        }
        File::open(&self.directory)?.sync_all()
    }

    /// What was kept last; none where nothing was.
    pub fn load(&self) -> Result<Option<(Generation, Document)>, StoreError> {
        let path = self.file();
        let Some(text) = read(&path).map_err(|error| StoreError::Io { path: path.clone(), doing: "read", error })?
        else {
            return Ok(None);
        };
        let damaged = |why: String| StoreError::Damaged { path: path.clone(), why };
        let kept: Kept = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if kept.schema != SCHEMA {
            return Err(damaged(format!("its schema is {}, this program knows {SCHEMA}", kept.schema)));
        }
        let document =
            kakei_config::parse_json(&kept.document.to_string()).map_err(|errors| damaged(errors.to_string()))?;
        Ok(Some((kept.generation, document)))
    }
}

fn read(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(name: &str) -> (PathBuf, Store) {
        let directory = std::env::temp_dir().join(format!("kakei-store-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        (directory.clone(), Store::open(directory).unwrap())
    }

    fn document() -> Document {
        kakei_config::parse_toml("[clusters.c]\nbackends = [\"127.0.0.1:53\"]\nslow_start = \"1500ms\"").unwrap()
    }

    #[test]
    fn what_was_saved_last_comes_back() {
        let (directory, store) = store("round");
        assert!(store.load().unwrap().is_none(), "nothing at first");
        store.save(&Document::default(), Generation(1), "start").unwrap();
        store.save(&document(), Generation(2), "api").unwrap();
        assert_eq!(store.load().unwrap(), Some((Generation(2), document())));
        let names: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["current.json"], "no temporary file stays");
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_half_written_file_beside_it_is_no_harm_and_a_damaged_one_is_said() {
        let (directory, store) = store("damaged");
        store.save(&document(), Generation(7), "api").unwrap();
        std::fs::write(directory.join("current.json.1.new"), "{\"schema\": 1, \"gen").unwrap();
        assert_eq!(store.load().unwrap().unwrap().0, Generation(7));
        std::fs::write(store.file(), "{\"schema\": 1, \"gen").unwrap();
        assert!(matches!(store.load(), Err(StoreError::Damaged { .. })));
        let newer = std::fs::read_to_string(store.file()).unwrap().replace("1", "2");
        std::fs::write(store.file(), newer).unwrap();
        assert!(matches!(store.load(), Err(StoreError::Damaged { .. })));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_directory_that_takes_no_file_is_an_error_and_keeps_the_old_one() {
        let (directory, store) = store("blocked");
        store.save(&document(), Generation(1), "start").unwrap();
        // A directory where the temporary file would go.
        std::fs::create_dir(directory.join(format!("current.json.{}.new", std::process::id()))).unwrap();
        assert!(matches!(store.save(&Document::default(), Generation(2), "api"), Err(StoreError::Io { .. })));
        assert_eq!(store.load().unwrap(), Some((Generation(1), document())));
        std::fs::remove_dir_all(directory).unwrap();
    }
}
