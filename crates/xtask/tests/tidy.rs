//! The house rules hold in the whole tree: runs with every `cargo test --workspace`.

#[test]
fn the_tree_keeps_the_house_rules() {
    let complaints = xtask::tidy::check(&xtask::tidy::root()).unwrap();
    let lines: Vec<String> = complaints.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} complaints:\n{}", lines.len(), lines.join("\n"));
}
