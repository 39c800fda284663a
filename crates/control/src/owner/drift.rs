//! What was changed at run time beside the operator's document, so that nobody loses it unawares.

use std::collections::BTreeMap;

use kakei_config::{BackendChange, Change as Difference, Document, Edit, FieldChange, Name};
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
        let since: BTreeMap<_, _> = since.iter().map(|change| ((change.kind(), change.name()), change)).collect();
        let lost = differences
            .iter()
            .filter_map(|difference| lost(difference, since.get(&(difference.kind(), difference.name()))?));
        Ok(lost.flat_map(|lost| lost.lines()).collect())
    }
}

/// What of a difference takes back what was changed since.
fn lost(difference: &Difference, since: &Difference) -> Option<Difference> {
    let (Difference::Changed { kind, name, edits }, Difference::Changed { edits: since, .. }) = (difference, since)
    else {
        // The whole object came since, or goes now.
        return Some(difference.clone());
    };
    let edits: Vec<Edit> = edits.iter().filter_map(|edit| lost_inside(edit, since)).collect();
    (!edits.is_empty()).then(|| Difference::Changed { kind: *kind, name: name.clone(), edits })
}

fn lost_inside(edit: &Edit, since: &[Edit]) -> Option<Edit> {
    let is_touched = match edit {
        Edit::Field(field) => since.iter().any(|one| matches!(one, Edit::Field(other) if is_about(field, other))),
        Edit::BackendsReordered { .. } => since.iter().any(|one| matches!(one, Edit::BackendsReordered { .. })),
        Edit::BackendAdded { backend, .. } | Edit::BackendRemoved { backend } => {
            since.iter().any(|one| backend_of(one) == Some(&backend.name))
        }
        Edit::BackendChanged(BackendChange { backend, fields }) => {
            let of = since.iter().find(|one| backend_of(one) == Some(backend))?;
            let Edit::BackendChanged(other) = of else { return Some(edit.clone()) };
            let fields = fields.iter().filter(|field| other.fields.iter().any(|other| is_about(field, other)));
            let fields: Vec<FieldChange> = fields.cloned().collect();
            let change = BackendChange { backend: backend.clone(), fields };
            return (!change.fields.is_empty()).then_some(Edit::BackendChanged(change));
        }
    };
    is_touched.then(|| edit.clone())
}

fn backend_of(edit: &Edit) -> Option<&Name> {
    match edit {
        Edit::BackendAdded { backend, .. } | Edit::BackendRemoved { backend } => Some(&backend.name),
        Edit::BackendChanged(change) => Some(&change.backend),
        Edit::Field(_) | Edit::BackendsReordered { .. } => None,
    }
}

/// Whether two are about the same option, or one about a section that the other's option stands in.
fn is_about(one: &FieldChange, other: &FieldChange) -> bool {
    let holds = |section: &str, option: &str| {
        option.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    holds(&one.field, &other.field) || holds(&other.field, &one.field)
}

#[cfg(test)]
mod tests {
    use super::*;

    const APPLIED: &str = "[clusters.app]\nbackends = [{ name = \"a\", address = \"10.0.0.1:1\" }, { name = \"b\", address = \"10.0.0.2:1\" }]\n\
                           health = { tcp = {}, interval = \"1s\" }\n[clusters.old]\n";

    /// What is lost where this ran since, and the document says that now.
    fn lost_between(running: &str, next: &str) -> Vec<String> {
        let read = |text: &str| kakei_config::parse_toml(text).expect("it is valid");
        let (applied, running, next) = (read(APPLIED), read(running), read(next));
        let since = kakei_config::diff(&applied, &running);
        let of = |difference: &Difference| {
            let mut all = since.iter();
            all.find(|one| (one.kind(), one.name()) == (difference.kind(), difference.name())).cloned()
        };
        let differences = kakei_config::diff(&running, &next);
        let lost = differences.iter().filter_map(|difference| lost(difference, &of(difference)?));
        lost.flat_map(|lost| lost.lines()).collect()
    }

    fn weighed(text: &str) -> String {
        text.replace("\"10.0.0.2:1\"", "\"10.0.0.2:1\", weight = 5")
    }

    #[test]
    fn only_what_was_changed_beside_the_document_is_lost() {
        let next = format!("{APPLIED}[clusters.more]\n").replace("health =", "balance = \"least\"\nhealth =");
        assert_eq!(lost_between(APPLIED, &next), [""; 0], "nothing was changed beside it");
        let none: [&str; 0] = [];
        assert_eq!(lost_between(&weighed(APPLIED), &weighed(&next)), none, "the document has it");
        assert_eq!(lost_between(&weighed(APPLIED), &next), ["cluster app: backend b: weight 5 -> 1"]);
        let backup = next.replace("\"10.0.0.2:1\"", "\"10.0.0.2:1\", backup = true");
        assert_eq!(lost_between(&weighed(APPLIED), &backup), ["cluster app: backend b: weight 5 -> 1"]);
        let gone = next.replace(", { name = \"b\", address = \"10.0.0.2:1\" }", "");
        assert_eq!(lost_between(&weighed(APPLIED), &gone), ["cluster app: backend b removed (10.0.0.2:1)"]);
        assert_eq!(lost_between(APPLIED, &gone), none, "b goes as it was");
        assert_eq!(lost_between(&gone, &next), ["cluster app: backend b added (10.0.0.2:1, weight 1)"]);
    }

    #[test]
    fn what_stands_in_a_section_is_lost_with_it() {
        let slower = APPLIED.replace("1s", "3s");
        let without = APPLIED.replace("health = { tcp = {}, interval = \"1s\" }", "");
        assert_eq!(lost_between(&slower, APPLIED), ["cluster app: health.interval 3s -> 1s"]);
        let lost = lost_between(&slower, &without);
        assert!(lost.len() == 1 && lost[0].starts_with("cluster app: health {"), "{lost:?}");
        let added = format!("{APPLIED}[clusters.new]\n");
        assert_eq!(lost_between(&added, APPLIED), ["cluster new: removed"]);
        let removed = APPLIED.replace("[clusters.old]\n", "");
        assert_eq!(lost_between(&removed, APPLIED), ["cluster old: added"]);
    }
}
