//! The files that rules look at: every Rust source and every Markdown document of the tree. Knows no rule.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::Complaint;
use super::source::Source;

/// Directories that hold nothing of ours.
const SKIPPED: &[&str] = &["target", ".git", "corpus", "artifacts", "node_modules"];

/// What rules look at.
pub(super) struct Tree {
    /// Every path, relative to the root; directories too.
    pub(super) paths: BTreeSet<String>,
    /// Rust files.
    pub(super) sources: Vec<Source>,
    /// Markdown files.
    pub(super) documents: Vec<Document>,
}

/// A Markdown file.
pub(super) struct Document {
    /// Relative to the root.
    pub(super) path: String,
    /// Everything in it.
    pub(super) text: String,
}

impl Tree {
    /// Read the tree below `root`; files that can't be parsed become complaints.
    pub(super) fn read(root: &Path) -> Result<(Tree, Vec<Complaint>), String> {
        let mut tree = Tree { paths: BTreeSet::new(), sources: Vec::new(), documents: Vec::new() };
        let mut complaints = Vec::new();
        let mut texts = Vec::new();
        walk(root, "", &mut tree.paths, &mut texts)?;
        for (path, text) in texts {
            if path.ends_with(".md") {
                tree.documents.push(Document { path, text });
                continue;
            }
            match Source::parse(&path, &text) {
                Ok(source) => tree.sources.push(source),
                Err(error) => {
                    let line = error.span().start().line;
                    complaints.push(Complaint { path, line, rule: "parse", what: error.to_string() });
                }
            }
        }
        tree.mark_test_modules();
        Ok((tree, complaints))
    }

    /// A file that is only declared for tests is a test's, whatever its name.
    fn mark_test_modules(&mut self) {
        let files: BTreeSet<String> = self
            .sources
            .iter()
            .flat_map(|source| source.test_modules.iter().flat_map(|module| source.module_files(module)))
            .collect();
        for source in &mut self.sources {
            source.test |= files.contains(&source.path);
        }
    }
}

fn walk(
    root: &Path,
    below: &str,
    paths: &mut BTreeSet<String>,
    texts: &mut Vec<(String, String)>,
) -> Result<(), String> {
    let folder = root.join(below);
    let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for entry in entries {
        let entry = entry.map_err(|error| format!("{}: {error}", folder.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        let kind = entry.file_type().map_err(|error| format!("{path}: {error}"))?;
        if kind.is_dir() && SKIPPED.contains(&name.as_str()) {
            continue;
        }
        if kind.is_dir() {
            walk(root, &path, paths, texts)?;
        } else if path.ends_with(".rs") || path.ends_with(".md") {
            let text = fs::read_to_string(entry.path()).map_err(|error| format!("{path}: {error}"))?;
            texts.push((path.clone(), text));
        }
        paths.insert(path);
    }
    Ok(())
}
