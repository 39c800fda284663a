//! The reference in `docs/CONFIGURATION.md`: its tables are the options' own, its examples are read.
//! `KAKEI_BLESS=1 cargo test -p kakei-config` writes the tables anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use kakei_config::{json_schema, parse_json, parse_toml, reference};
use serde_json::Value;

const BEGIN: &str =
    "<!-- begin: written by `KAKEI_BLESS=1 cargo test -p kakei-config`, from the options themselves -->\n";
const END: &str = "<!-- end -->\n";

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/CONFIGURATION.md")
}

#[test]
fn the_tables_are_those_of_the_options() {
    let text = fs::read_to_string(path()).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the tables begin");
    let (tables, after) = rest.split_once(END).expect("the tables end");
    if std::env::var_os("KAKEI_BLESS").is_some() {
        fs::write(path(), format!("{before}{BEGIN}\n{}\n{END}{after}", reference())).unwrap();
    } else {
        assert_eq!(tables.trim(), reference().trim(), "bless them");
    }
}

/// The keys of every table that a shape knows, by where it stands. One that is written by a single key that says which of
/// several things is meant has no table: the key's row says it.
fn sections(at: &str, shape: &Value, found: &mut Vec<(String, BTreeSet<String>)>) {
    if let Some(properties) = shape["properties"].as_object() {
        let is_word = properties.len() == 1 && shape["required"].as_array().is_some_and(|required| required.len() == 1);
        if !is_word {
            found.push((at.to_owned(), properties.keys().cloned().collect()));
        }
        properties.iter().for_each(|(key, shape)| sections(&format!("{at}.{key}"), shape, found));
    }
    let inside = ["items", "additionalProperties"].into_iter().filter_map(|key| shape.get(key));
    inside.chain(shape["anyOf"].as_array().into_iter().flatten()).for_each(|shape| sections(at, shape, found));
}

#[test]
fn every_table_of_the_document_has_one_in_the_reference() {
    let reference = reference();
    let rows = |table: &str| -> BTreeSet<String> {
        let keys = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        keys.map(|(key, _)| key.to_owned()).collect()
    };
    let tables: Vec<BTreeSet<String>> = reference.split("### ").map(rows).collect();
    let mut found = Vec::new();
    sections("", &json_schema(), &mut found);
    assert!(found.len() > 30, "{} tables", found.len());
    let missing: Vec<&String> = found.iter().filter(|(_, keys)| !tables.contains(keys)).map(|(at, _)| at).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The code blocks of a language line, each with the number of its first line.
fn blocks(text: &str) -> Vec<(usize, String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String, String)> = None;
    for (n, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => open = Some((n + 2, language.to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some((_, _, body))) => {
                body.push_str(line);
                body.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

#[test]
fn every_example_is_read_or_refused_as_it_says() {
    let text = fs::read_to_string(path()).unwrap();
    let (mut good, mut bad) = (0, 0);
    for (line, language, body) in blocks(&text) {
        let read = match language.as_str() {
            "toml" | "toml,error" => parse_toml(&body),
            "json" => parse_json(&body),
            _ => continue,
        };
        match (language.ends_with(",error"), read) {
            (false, Ok(_)) => good += 1,
            (true, Err(_)) => bad += 1,
            (false, Err(found)) => panic!("line {line}: {}", found.render("example", &body, false)),
            (true, Ok(_)) => panic!("line {line}: the example is accepted"),
        }
    }
    assert!(good >= 8 && bad >= 3, "{good} good and {bad} bad examples");
}

#[test]
fn the_drawn_errors_are_those_of_their_example() {
    let text = fs::read_to_string(path()).unwrap();
    let blocks = blocks(&text);
    let drawn = blocks.windows(2).filter(|pair| pair[0].1 == "toml,error" && pair[1].1 == "text");
    let mut seen = 0;
    for pair in drawn {
        let found = parse_toml(&pair[0].2).expect_err("it is marked as an error");
        assert_eq!(pair[1].2, found.render("kakei.toml", &pair[0].2, false), "line {}", pair[1].0);
        seen += 1;
    }
    assert!(seen >= 1);
}
