//! Requests that two programs could read in two ways, what must become of each, and how a backend reads that gives nobody
//! the benefit of the doubt. Data and one reader: who sends and who listens is the tests' business.

mod cases;
mod strict;

pub use self::cases::cases;
pub use self::strict::{Head, Seen, read, read_head};

/// What must become of a case.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// No backend sees all of a request of it.
    Refused,
    /// A backend sees one request, with this body.
    Forwarded(Vec<u8>),
}

/// A request that a smuggler would try.
#[derive(Clone, Debug)]
pub struct Case {
    /// Stands in its path, so that a backend's records tell whose they are.
    pub token: String,
    /// What the client sends.
    pub bytes: Vec<u8>,
    /// What must become of it.
    pub fate: Fate,
}

/// A word in the path of the request that is hidden in bodies: no backend may see it in a first line.
pub const HIDDEN: &str = "smuggled";
