//! What is known of the generations that ran: when, by whom, why, and what each changed. Bounded; what each was stands in
//! [`crate::store`].

use std::collections::VecDeque;
use std::sync::Arc;

use kakei_proxy::snapshot::Generation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many generations are remembered, and can be gone back to.
pub const GENERATIONS_KEPT: usize = 64;

/// How many changes of one generation are written down one by one.
pub const CHANGES_TOLD: usize = 1_000;

/// What is written down of the changes of a generation: all, or the first ones and how many more there are.
pub fn told(changes: Vec<String>) -> Vec<String> {
    first(changes.len(), changes.into_iter())
}

/// The same of so many changes, of which no more are put into words than are written down. A line more than these stays:
/// it may be the one that says how many more there are.
pub fn first(count: usize, changes: impl Iterator<Item = String>) -> Vec<String> {
    if count <= CHANGES_TOLD + 1 {
        return changes.collect();
    }
    let more = format!("and {} more", count - CHANGES_TOLD);
    changes.take(CHANGES_TOLD).chain([more]).collect()
}

/// One generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "GenerationEntry")]
pub struct Entry {
    /// Its number.
    pub generation: Generation,
    /// When it was asked for, RFC 3339.
    pub at: String,
    /// Where it came from: `start`, `sighup`, `api`, `library`, `files`, `rollback`.
    pub origin: String,
    /// Who asked for it, where that is known: the peer of the admin socket, or a client of the API over TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why, in the words of who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Until when it has to be confirmed, in seconds since 1970; none: it was, or needn't be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_by: Option<u64>,
    /// While it waits: it is taken back when more than so many of a hundred requests fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard_errors: Option<u8>,
    /// While it waits: it is taken back when more than so many of a hundred checked backends are down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard_unhealthy: Option<u8>,
    /// What it changed, one line a change.
    pub changes: Vec<String>,
}

/// The newest generations, oldest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    entries: VecDeque<Arc<Entry>>,
}

impl Entry {
    /// It need not be confirmed any more.
    pub(crate) fn stays(&mut self) {
        (self.confirm_by, self.guard_errors, self.guard_unhealthy) = (None, None, None);
    }
}

impl History {
    /// Remember a generation, and forget the oldest where there are too many.
    pub fn push(&mut self, entry: Entry) {
        if self.entries.len() == GENERATIONS_KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(Arc::new(entry));
    }

    /// What is remembered, oldest first.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> + DoubleEndedIterator {
        self.entries.iter().map(|entry| &**entry)
    }

    /// What generations behind this one have changed, a line for each change, of the first ones as [`told`].
    pub fn since(&self, generation: Generation) -> Vec<String> {
        let behind = self.entries().filter(|entry| entry.generation > generation);
        let lines = behind.flat_map(|entry| {
            let who = entry.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            entry.changes.iter().map(move |change| format!("generation {}{who}: {change}", entry.generation.0))
        });
        told(lines.collect())
    }

    /// What is known of the newest one.
    pub fn newest_mut(&mut self) -> Option<&mut Entry> {
        self.entries.back_mut().map(Arc::make_mut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_already_stays_as_it_is() {
        let changes = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
        for few in [0, 1, CHANGES_TOLD, CHANGES_TOLD + 1] {
            assert_eq!(told(changes(few)), changes(few));
        }
        let many = told(changes(CHANGES_TOLD + 2));
        assert_eq!((many.len(), many[CHANGES_TOLD].as_str()), (CHANGES_TOLD + 1, "and 2 more"));
        assert_eq!(told(many.clone()), many);
        let mut made = 0;
        let counted = first(1_000_000, std::iter::repeat_with(|| (made += 1, String::new()).1));
        assert_eq!((counted.last().map(String::as_str), made), (Some("and 999000 more"), CHANGES_TOLD));
    }

    #[test]
    fn the_oldest_generations_are_forgotten() {
        let mut history = History::default();
        for n in 1..=GENERATIONS_KEPT as u64 + 3 {
            let (at, origin, changes) = (String::new(), "api".to_owned(), vec![format!("change {n}")]);
            let entry = Entry { generation: Generation(n), at, origin, changes, ..Entry::default() };
            history.push(entry);
        }
        assert_eq!(history.entries().len(), GENERATIONS_KEPT);
        assert_eq!(history.entries().next().map(|e| e.generation), Some(Generation(4)));
        let newest = GENERATIONS_KEPT as u64 + 3;
        assert_eq!(history.since(Generation(newest - 1)), [format!("generation {newest}: change {newest}")]);
        assert!(history.since(Generation(newest)).is_empty());
    }
}
