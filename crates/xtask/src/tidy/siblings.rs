//! Siblings never import siblings: parents compose. Looks at the directories of its table only.

use super::Complaint;
use super::source::Source;
use super::tree::Tree;

/// Directories whose modules must not know each other, with modules that all of them may use.
const APART: &[(&str, &[&str])] = &[
    // An algorithm must be replaceable without reading another one.
    ("crates/proxy/src/balance", &[]),
    // A wire format means what it means by itself; what all versions of HTTP say is `message`.
    ("crates/wire/src", &["message"]),
];

pub(super) fn check(source: &Source, tree: &Tree, complaints: &mut Vec<Complaint>) {
    for (folder, shared) in APART {
        let Some(module) = module_in(&source.path, folder) else { continue };
        let siblings: Vec<&str> = tree
            .sources
            .iter()
            .filter_map(|other| module_in(&other.path, folder))
            .filter(|name| *name != module && !shared.contains(name))
            .collect();
        for (line, name) in imports(source, folder, &siblings) {
            complaints.push(Complaint {
                path: source.path.clone(),
                line,
                rule: "siblings",
                what: format!("`{module}` names its sibling `{name}`: let their parent compose them"),
            });
        }
    }
}

/// The module of `folder` that a file belongs to; none for the parent's own file.
fn module_in<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    let below = path.strip_prefix(folder)?.strip_prefix('/')?;
    let module = below.split('/').next()?.trim_end_matches(".rs");
    (!matches!(module, "mod" | "lib" | "main" | "tests")).then_some(module)
}

/// Where a file names one of `siblings` by `super::` or `crate::…`.
fn imports<'a>(source: &Source, folder: &str, siblings: &[&'a str]) -> Vec<(usize, &'a str)> {
    let depth = source.path[folder.len() + 1..].matches('/').count();
    let inside = folder.split_once("/src").map_or("", |(_, inside)| inside.trim_start_matches('/'));
    let mut absolute = vec!["crate"];
    absolute.extend(inside.split('/').filter(|part| !part.is_empty()));
    let relative = vec!["super"; depth + 1];
    let mut found = Vec::new();
    for word in source.words.iter().filter(|word| !source.is_test(word.line)) {
        for base in [&absolute, &relative] {
            let sibling = word.segments.get(base.len()).and_then(|name| siblings.iter().find(|s| *s == name));
            if let (true, Some(sibling)) = (word.segments.starts_with(&owned(base)), sibling) {
                found.push((word.line, *sibling));
            }
        }
    }
    found
}

fn owned(segments: &[&str]) -> Vec<String> {
    segments.iter().map(|&segment| segment.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn complaints(path: &str, code: &str) -> usize {
        let sources = ["hrw.rs", "maglev.rs", "maglev/table.rs", "mod.rs"]
            .map(|file| Source::parse(&format!("crates/proxy/src/balance/{file}"), "").unwrap());
        let tree = Tree { paths: BTreeSet::new(), sources: sources.into(), documents: Vec::new() };
        let mut found = Vec::new();
        check(&Source::parse(path, code).unwrap(), &tree, &mut found);
        found.dedup();
        found.len()
    }

    #[test]
    fn a_sibling_is_not_imported() {
        let hrw = "crates/proxy/src/balance/hrw.rs";
        assert_eq!(complaints(hrw, "use super::maglev::Table;"), 1);
        assert_eq!(complaints(hrw, "use crate::balance::{Member, maglev};"), 1);
        assert_eq!(complaints(hrw, "fn f() { super::maglev::look_up() }"), 1);
        assert_eq!(complaints(hrw, "use super::Member;"), 0);
        assert_eq!(complaints("crates/proxy/src/balance/maglev/table.rs", "use super::super::hrw::f;"), 1);
        assert_eq!(complaints("crates/proxy/src/balance/maglev/table.rs", "use super::Entry;"), 0);
        assert_eq!(complaints("crates/proxy/src/balance/mod.rs", "use self::{hrw::f, maglev::g};"), 0);
    }
}
