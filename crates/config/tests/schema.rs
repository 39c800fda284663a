//! The document's JSON Schema says what the parser does: whatever is accepted is valid by it, and so is whatever is written.

use std::path::Path;

use jsonschema::Validator;
use kakei_config::{json_schema, parse_json, parse_toml, toml_value};
use serde_json::{Value, json};

fn validator() -> Validator {
    jsonschema::draft202012::new(&json_schema()).expect("it is a JSON Schema")
}

fn assert_valid(validator: &Validator, what: &str, document: &Value) {
    let wrong: Vec<String> =
        validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(wrong.is_empty(), "{what}: {}", wrong.join("\n"));
}

#[test]
fn the_schema_is_one() {
    assert!(jsonschema::draft202012::meta::is_valid(&json_schema()));
}

#[test]
fn every_document_of_the_docs_is_valid_as_it_is_written_and_in_full() {
    let validator = validator();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let mut seen = 0;
    for entry in std::fs::read_dir(docs).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            let (Ok(document), Ok(written)) = (parse_toml(block), toml_value(block)) else { continue };
            seen += 1;
            assert_valid(&validator, block, &written.to_json());
            assert_valid(&validator, block, &document.to_json_value());
        }
    }
    assert!(seen >= 12, "only {seen} documents were found");
}

#[test]
fn what_the_parser_refuses_by_its_shape_the_schema_refuses_too() {
    let validator = validator();
    let wrong = [
        json!({"listener": {}}),
        json!({"listeners": {"a": {"protocol": "udp", "bind": "127.0.0.1:1"}}}),
        json!({"listeners": {"a": {"protocol": "quic", "bind": ["127.0.0.1:1"]}}}),
        json!({"clusters": {"a": {"backends": [{"weight": 1}]}}}),
        json!({"clusters": {"a": {"backends": [{"address": "10.0.0.1:1", "weight": 257}]}}}),
        json!({"routes": {"a": {"listener": "l", "path": {"exact": "/", "regex": "/"}}}}),
        json!({"routes": {"a": {"path": "/"}}}),
        json!({"workers": {"count": 0}}),
        json!({"workers": {"pin": "yes"}}),
        json!({"admin": {"tcp": "127.0.0.1:1"}}),
        json!({"admin": {"tcp": {"bind": "127.0.0.1:1", "certificate": "a"}}}),
        json!({"admin": null}),
        json!([]),
    ];
    for document in wrong {
        assert!(parse_json(&document.to_string()).is_err(), "{document}");
        assert!(!validator.is_valid(&document), "{document}");
    }
}
