//! What a stream did not take yet of what was written to it, kept by whoever writes. A stream may be blocked with nothing
//! kept here: then what it owes is kept below. Decides nothing.

use serde::{Deserialize, Serialize};

/// See the module's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Unsent {
    /// None: the stream takes bytes.
    kept: Option<Vec<u8>>,
}

impl Unsent {
    /// Of a stream that is blocked, with these bytes kept.
    pub(crate) fn blocked(rest: &[u8]) -> Self {
        Unsent { kept: Some(rest.to_vec()) }
    }

    /// Whether nothing may be written to the stream until it drained.
    pub(crate) fn is_blocked(&self) -> bool {
        self.kept.is_some()
    }

    /// Bytes that wait here.
    pub(crate) fn len(&self) -> usize {
        self.bytes().len()
    }

    /// What waits here.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.kept.as_deref().unwrap_or_default()
    }

    /// Keep more, behind what waits: the stream is blocked.
    pub(crate) fn keep(&mut self, bytes: &[u8]) {
        debug_assert!(self.is_blocked(), "a stream that takes bytes is written to");
        self.kept.get_or_insert_default().extend_from_slice(bytes);
    }

    /// The stream takes bytes again: what waited is to be written now.
    pub(crate) fn drain(&mut self) -> Option<Vec<u8>> {
        self.kept.take()
    }
}
