//! What was changed at run time beside the operator's document, so that nobody loses it unawares.

use std::collections::BTreeSet;

use kakei_config::{Change as Difference, Document};
use tracing::{error, warn};

use super::Owner;
use super::publish::place;
use crate::store::StoreError;
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

    /// Say once, at the start, that this can't be told.
    pub(super) fn mind_applied(&self) {
        if let Err(error) = self.store.check_applied() {
            warn!("{error}; what was changed at run time can't be told until a whole document is applied");
        }
    }

    /// Which of these differences take back what was changed at run time since a whole document was applied last.
    pub(super) fn drift(&self, differences: &[Difference]) -> Result<Vec<String>, StoreError> {
        // Held in memory it would keep the old one of every object that was changed since.
        let applied = self.unwritten.clone().map_or_else(|| self.store.applied(), |applied| Ok(Some(applied)))?;
        let Some(mut applied) = applied else { return Ok(Vec::new()) };
        place(&self.view.document.admin, &mut applied.admin);
        let since = kakei_config::diff(&applied, &self.view.document);
        let changed: BTreeSet<_> = since.iter().map(|change| (change.kind(), change.name())).collect();
        let lost = differences.iter().filter(|change| changed.contains(&(change.kind(), change.name())));
        Ok(lost.flat_map(Difference::lines).collect())
    }
}
