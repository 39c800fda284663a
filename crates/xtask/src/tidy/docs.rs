//! Documents: links that lead somewhere, the commands that a newcomer needs, a line for every library. Judges no wording.

use std::collections::BTreeSet;

use super::Complaint;
use super::tree::{Document, Tree};

/// What README.md must name.
const COMMANDS: &[&str] = &["cargo run --release -- demo", "kakei run -c dns.toml", "cargo test --workspace"];
const DEPENDENCIES: &str = "docs/DEPENDENCIES.md";

pub(super) fn check(tree: &Tree, complaints: &mut Vec<Complaint>) {
    for document in &tree.documents {
        for (line, link) in links(&document.text) {
            if let Some(why) = broken(tree, document, &link) {
                complaints.push(Complaint {
                    path: document.path.clone(),
                    line,
                    rule: "link",
                    what: format!("`{link}`: {why}"),
                });
            }
        }
    }
    let readme = tree.documents.iter().find(|document| document.path == "README.md").map_or("", |d| d.text.as_str());
    for command in COMMANDS.iter().filter(|command| !readme.contains(**command)) {
        let what = format!("`{command}` is not there: a newcomer needs it");
        complaints.push(Complaint { path: "README.md".to_owned(), line: 1, rule: "readme", what });
    }
}

/// Every library that a manifest names has its job and its reason in docs/DEPENDENCIES.md.
pub(super) fn check_dependencies(tree: &Tree, libraries: &BTreeSet<String>, complaints: &mut Vec<Complaint>) {
    let said = tree.documents.iter().find(|document| document.path == DEPENDENCIES).map_or("", |d| d.text.as_str());
    for library in libraries.iter().filter(|library| !said.contains(&format!("`{library}`"))) {
        let what = format!("`{library}` has no line: say its job and why it was taken");
        complaints.push(Complaint { path: DEPENDENCIES.to_owned(), line: 1, rule: "dependencies", what });
    }
}

/// Links of the form `](target)` outside of code, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for part in without_code(line).split("](").skip(1) {
            let target = part.split([')', ' ']).next().unwrap_or_default();
            found.push((at + 1, target.to_owned()));
        }
    }
    found
}

/// A line without what stands between backticks.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// Why a link leads nowhere, if it does. Links to other hosts are not followed.
fn broken(tree: &Tree, from: &Document, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let target = if path.is_empty() { from.path.clone() } else { resolve(&from.path, path)? };
    if !tree.paths.contains(&target) {
        return Some(format!("there is no `{target}`"));
    }
    let document = tree.documents.iter().find(|document| document.path == target)?;
    let anchor = anchor?;
    let there = headings(&document.text).any(|heading| heading == anchor);
    (!there).then(|| format!("`{target}` has no heading `#{anchor}`"))
}

/// The path that `link` names, seen from the file `from`; one that leads out of the tree stays as it is and is not found.
fn resolve(from: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop().or(Some("..")).filter(|part| *part != "..")?;
            }
            other => parts.push(other),
        }
    }
    Some(parts.join("/"))
}

/// The anchors of a document's headings, as forges make them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(readme: &str, other: &str) -> Vec<String> {
        let document = |path: &str, text: &str| Document { path: path.to_owned(), text: text.to_owned() };
        let paths = ["README.md", "docs", "docs/A.md", "LICENSE"].map(str::to_owned);
        let documents = vec![document("README.md", readme), document("docs/A.md", other)];
        let tree = Tree { paths: paths.into(), sources: Vec::new(), documents };
        let mut found = Vec::new();
        check(&tree, &mut found);
        let wanted = BTreeSet::from(["serde".to_owned()]);
        check_dependencies(&tree, &wanted, &mut found);
        found.into_iter().filter(|complaint| complaint.rule == "link").map(|complaint| complaint.what).collect()
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        assert_eq!(complaints("[a](docs/B.md)", ""), ["`docs/B.md`: there is no `docs/B.md`"]);
        assert_eq!(complaints("", "[a](README.md)"), ["`README.md`: there is no `docs/README.md`"]);
        assert_eq!(
            complaints("[a](docs/A.md#none)", "# One"),
            ["`docs/A.md#none`: `docs/A.md` has no heading `#none`"]
        );
        assert_eq!(complaints("[a](#none)", "").len(), 1);
    }

    #[test]
    fn a_link_that_leads_somewhere_is_not() {
        let readme = "[a](docs/A.md) [b](docs/) [c](LICENSE) [d](https://example.com/x) [e](docs/A.md#one-two)";
        assert_eq!(complaints(readme, "# One, two\n[up](../README.md)"), [""; 0]);
    }

    #[test]
    fn code_is_no_link() {
        assert_eq!(complaints("`a[0](none)`\n```\n[a](none)\n```\n", ""), [""; 0]);
    }

    #[test]
    fn a_missing_command_and_a_library_without_a_line_are_found() {
        let tree = Tree { paths: BTreeSet::new(), sources: Vec::new(), documents: Vec::new() };
        let mut found = Vec::new();
        check(&tree, &mut found);
        assert_eq!(found.len(), COMMANDS.len());
        check_dependencies(&tree, &BTreeSet::from(["serde".to_owned()]), &mut found);
        assert_eq!(found.len(), COMMANDS.len() + 1);
    }
}
