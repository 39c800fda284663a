//! The configuration that README.md shows is one that Kakei reads. docs/CONFIGURATION.md has its own test.

#[test]
fn the_documents_in_the_readme_are_valid() {
    let text = std::fs::read_to_string(xtask::tidy::root().join("README.md")).unwrap();
    let blocks: Vec<&str> = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!blocks.is_empty(), "README.md shows a document");
    for block in blocks {
        if let Err(problems) = kakei_config::parse_toml(block) {
            panic!("{}", problems.render("README.md", block, false));
        }
    }
}
