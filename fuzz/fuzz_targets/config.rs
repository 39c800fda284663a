//! Documents from arbitrary text: no panic, errors that can be shown, and what was understood survives being written
//! and read again, compared and applied. Opens nothing that a document names.
#![no_main]

use kakei_config::{Diagnostics, Document, apply, check, diff, parse_json, parse_toml};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for read in [parse_toml(text), parse_json(text)] {
        match read {
            Ok(document) => understood(&document),
            Err(diagnostics) => refused(&diagnostics, text),
        }
    }
});

fn understood(document: &Document) {
    check(document).expect("what was read is valid");
    assert_eq!(parse_toml(&document.to_toml()).as_ref(), Ok(document), "TOML that we write");
    assert_eq!(parse_json(&document.to_json_value().to_string()).as_ref(), Ok(document), "JSON that we write");
    assert!(diff(document, document).is_empty(), "nothing differs from itself");
    let nothing = Document::default();
    for (from, to) in [(&nothing, document), (document, &nothing)] {
        assert_eq!(apply(&diff(from, to), from).as_ref().ok(), Some(to), "a difference leads from one to the other");
    }
}

fn refused(diagnostics: &Diagnostics, text: &str) {
    assert!(diagnostics.count() > 0, "a refusal says why");
    assert!(!diagnostics.render("kakei.toml", text, false).is_empty(), "and shows it");
    diagnostics.to_json();
}
