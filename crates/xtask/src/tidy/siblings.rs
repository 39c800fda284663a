//! Siblings never import siblings: parents compose. And some modules know nothing of what stands above them in their
//! crate. Looks at the paths of its two tables only.

use super::Complaint;
use super::source::Source;
use super::tree::Tree;

/// Directories whose modules must not know each other, with modules that all of them may use.
const APART: &[(&str, &[&str])] = &[
    // An algorithm must be replaceable without reading another one.
    ("crates/proxy/src/balance", &[]),
    // A wire format means what it means by itself.
    ("crates/wire/src", &[]),
];

/// Paths that must not know modules of their own crate, and why.
const BLIND: &[(&str, &[&str], &str)] = &[
    ("crates/proxy/src/balance", ABOVE_POLICIES, "every protocol balances with it"),
    ("crates/proxy/src/health", ABOVE_POLICIES, "every protocol is watched by it"),
    ("crates/proxy/src/timers.rs", ABOVE_POLICIES, "every protocol has deadlines"),
    ("crates/runtime/src/udp", &["machine", "engine", "mailbox"], "a system call knows no loop"),
    ("crates/sim/src/check", &["world", "network", "client", "backend"], "a checker knows the truth independently"),
];
const ABOVE_POLICIES: &[&str] = &["cluster", "datagram", "listener", "world", "worker", "publish", "probes"];

pub(super) fn check(source: &Source, tree: &Tree, complaints: &mut Vec<Complaint>) {
    check_blind(source, complaints);
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

fn check_blind(source: &Source, complaints: &mut Vec<Complaint>) {
    for (_, above, why) in BLIND.iter().filter(|(path, _, _)| source.path.starts_with(path)) {
        for word in source.words.iter().filter(|word| !source.is_test(word.line)) {
            let [first, module, ..] = word.segments.as_slice() else { continue };
            if first == "crate" && above.contains(&module.as_str()) {
                let what = format!("names `{module}`, which stands above it: {why}");
                complaints.push(Complaint { path: source.path.clone(), line: word.line, rule: "siblings", what });
            }
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
    fn what_stands_above_is_not_named() {
        let checker = "crates/proxy/src/health/checker.rs";
        assert_eq!(complaints(checker, "use crate::datagram::Flow;"), 1);
        assert_eq!(complaints(checker, "use crate::{limits::A, cluster};"), 1);
        assert_eq!(complaints(checker, "use crate::seam::Instant;"), 0);
        assert_eq!(complaints("crates/proxy/src/worker.rs", "use crate::datagram::Flow;"), 0);
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
