//! The house rules as a test: layers, banned words, file headers, sizes, documents. Reads the tree, changes nothing.
//!
//! Each rule is a module with its table at the top. A rule that must be passed somewhere has an entry in [`sizes`]'s
//! table of exceptions, with a reason; an exception that is no longer needed is a complaint itself.

mod bans;
mod docs;
mod headers;
mod layers;
mod siblings;
mod sizes;
mod source;
mod tree;

use std::fmt;
use std::path::{Path, PathBuf};

use self::tree::Tree;

/// Something that is against a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Complaint {
    /// The file, relative to the root.
    pub path: String,
    /// The line, from 1.
    pub line: usize,
    /// The rule.
    pub rule: &'static str,
    /// What is wrong, and what to do.
    pub what: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: [{}] {}", self.path, self.line, self.rule, self.what)
    }
}

/// The root of this workspace.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("xtask lies two directories below the root").to_owned()
}

/// Everything in the tree that is against a rule, in the order of files and lines.
pub fn check(root: &Path) -> Result<Vec<Complaint>, String> {
    let (tree, mut complaints) = Tree::read(root)?;
    for source in &tree.sources {
        headers::check(source, &mut complaints);
        bans::check(source, &mut complaints);
        siblings::check(source, &tree, &mut complaints);
    }
    sizes::check(&tree.sources, sizes::EXCEPTIONS, &mut complaints);
    docs::check(&tree, &mut complaints);
    let members = layers::read(root)?;
    layers::check(&members, &mut complaints);
    docs::check_dependencies(&tree, &layers::third_parties(&members), &mut complaints);
    complaints.sort();
    complaints.dedup();
    Ok(complaints)
}

/// `cargo xtask tidy`.
pub fn run() -> Result<String, String> {
    let complaints = check(&root())?;
    if complaints.is_empty() {
        return Ok("tidy: nothing to complain about\n".to_owned());
    }
    let lines: Vec<String> = complaints.iter().map(Complaint::to_string).collect();
    Err(format!("{} complaints\n{}", lines.len(), lines.join("\n")))
}
