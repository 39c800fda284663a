//! What was changed at run time beside the operator's document, so that nobody loses it unawares.

use std::collections::BTreeSet;

use kakei_config::{Change as Difference, Document};
use tracing::error;

use super::Owner;
use super::publish::place;
use crate::system::System;

impl<S: System> Owner<S> {
    /// The operator's whole document runs from now on: it is what later changes at run time are told apart from.
    pub(super) fn apply_whole(&mut self) -> Option<String> {
        self.unwritten = None;
        let error = self.store.keep_applied(&self.view.document).err()?;
        self.unwritten = Some(Document::clone(&self.view.document));
        error!("{error}; after a restart, changes at run time can't be told from the document's");
        Some(error.to_string())
    }

    /// Which of these differences take back what was changed at run time since a whole document was applied last.
    pub(super) fn drift(&self, differences: &[Difference]) -> Vec<String> {
        // Held in memory it would keep the old one of every object that was changed since.
        let Some(mut applied) = self.unwritten.clone().or_else(|| self.store.applied()) else { return Vec::new() };
        place(&self.view.document.admin, &mut applied.admin);
        let since = kakei_config::diff(&applied, &self.view.document);
        let changed: BTreeSet<_> = since.iter().map(|change| (change.kind(), change.name())).collect();
        let lost = differences.iter().filter(|change| changed.contains(&(change.kind(), change.name())));
        lost.flat_map(Difference::lines).collect()
    }
}
