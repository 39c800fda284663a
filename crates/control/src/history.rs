//! The generations that this process ran: when, by whom, and what each changed. In memory, bounded; the document that
//! runs is kept on disk by [`crate::store`].

use std::collections::VecDeque;
use std::time::SystemTime;

use kakei_proxy::snapshot::Generation;
use serde::Serialize;

use crate::wall;

/// How many generations are remembered.
pub const GENERATIONS_KEPT: usize = 64;

/// One generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its number.
    pub generation: Generation,
    /// When it was acknowledged, RFC 3339.
    pub at: String,
    /// Who asked for it: `start`, `sighup`, `api`, `library`.
    pub origin: String,
    /// What it changed, one line a change.
    pub changes: Vec<String>,
}

/// The newest generations, oldest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    entries: VecDeque<Entry>,
}

impl History {
    /// Remember a generation, and forget the oldest where there are too many.
    pub fn push(&mut self, generation: Generation, origin: &str, changes: Vec<String>) {
        if self.entries.len() == GENERATIONS_KEPT {
            self.entries.pop_front();
        }
        let at = wall::rfc3339(SystemTime::now());
        self.entries.push_back(Entry { generation, at, origin: origin.to_owned(), changes });
    }

    /// What is remembered, oldest first.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_generations_are_forgotten() {
        let mut history = History::default();
        for n in 1..=GENERATIONS_KEPT as u64 + 3 {
            history.push(Generation(n), "api", vec![format!("change {n}")]);
        }
        assert_eq!(history.entries().len(), GENERATIONS_KEPT);
        assert_eq!(history.entries().next().map(|e| e.generation), Some(Generation(4)));
    }
}
