//! What a machine computes beside its worker, since it takes milliseconds: whether a password is the one of a hash.

use std::fmt;
use std::sync::Arc;

/// Names what is computed, so that its answer can be found. Unique for each worker, also after it was read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Job(pub u64);

/// A password. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub Vec<u8>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// What is to be found out: whether the password is the one that the hash was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verify {
    /// What the answer names.
    pub job: Job,
    /// What a client sent.
    pub password: Password,
    /// bcrypt's `$2b$…` or argon2's `$argon2id$…`.
    pub hash: Arc<str>,
}

/// What was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the one.
    Right,
    /// It isn't.
    Wrong,
    /// Nobody knows: as many wait already as may, or the hash can't be computed with.
    Undone,
}
