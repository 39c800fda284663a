//! Every Rust file says at its top what it is. Judges no wording.

use super::Complaint;
use super::source::Source;

pub(super) fn check(source: &Source, complaints: &mut Vec<Complaint>) {
    let first = source.text.lines().next().unwrap_or_default();
    let said = first.strip_prefix("//!").map(str::trim).unwrap_or_default();
    if said.len() < 10 {
        complaints.push(Complaint {
            path: source.path.clone(),
            line: 1,
            rule: "header",
            what: "the first line is not a `//!` that says what the file is, and what it never does".to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str) -> usize {
        let mut found = Vec::new();
        check(&Source::parse("crates/wire/src/a.rs", text).unwrap(), &mut found);
        found.len()
    }

    #[test]
    fn a_file_without_a_header_is_found() {
        assert_eq!(complaints("fn f() {}\n"), 1);
        assert_eq!(complaints("// What this is.\nfn f() {}\n"), 1);
        assert_eq!(complaints("//!\nfn f() {}\n"), 1);
        assert_eq!(complaints("use a::b;\n//! Too late.\n".replace("//!", "//").as_str()), 1);
        assert_eq!(complaints("//! What this is. Never does more.\nfn f() {}\n"), 0);
    }
}
