//! One generation as text: what is known of it, and its document or what of it differs. Touches no file.

use kakei_config::{Change, Document, Kind, Name};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::history::Entry;

/// The version of the file's schema.
const SCHEMA: u32 = 1;
/// Digits of a number in a file's name: as many as the longest has, so that names stand in the order of numbers.
const DIGITS: usize = 20;

/// A generation as it is written.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Written {
    #[serde(flatten)]
    pub(super) entry: Entry,
    #[serde(flatten)]
    pub(super) content: Content,
}

/// What a generation's document is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Content {
    /// This.
    Document(Value),
    /// That of the generation before, with these objects in the place of those that have the same names.
    Objects(Vec<Object>),
}

/// An object as it is from now on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Object {
    kind: Kind,
    /// Empty for sections.
    name: Name,
    /// None: it is gone.
    value: Option<Value>,
}

#[derive(Deserialize)]
struct Version {
    schema: u32,
}

#[derive(Serialize)]
struct Versioned<'a> {
    schema: u32,
    #[serde(flatten)]
    written: &'a Written,
}

impl Written {
    /// The text, or what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |error: serde_json::Error| format!("it is damaged, or not the proxy's ({error})");
        let Version { schema } = serde_json::from_str(text).map_err(wrong)?;
        if schema != SCHEMA {
            return Err(format!("its schema is {schema}, this program knows {SCHEMA}"));
        }
        serde_json::from_str(text).map_err(wrong)
    }

    pub(super) fn to_text(&self) -> String {
        let whole = Versioned { schema: SCHEMA, written: self };
        serde_json::to_string(&whole).expect("its keys are strings") + "\n"
    }
}

/// The name of a generation's file.
pub(super) fn name(number: u64) -> String {
    format!("{number:0DIGITS$}.json")
}

/// The generation whose file has this name.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".json").filter(|digits| digits.len() == DIGITS)?;
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// What of a document these changes are about, as it is now.
pub(super) fn objects(changes: &[Change], document: &Document) -> Vec<Object> {
    let object = |change: &Change| {
        let (kind, name) = (change.kind(), change.name().clone());
        let value = document.object(kind, &name).map(|node| node.value.to_json());
        Object { kind, name, value }
    };
    changes.iter().map(object).collect()
}

/// Put objects into a document that was written as JSON.
pub(super) fn overlay(document: &mut Value, objects: Vec<Object>) {
    for Object { kind, name, value } in objects {
        if name.as_str().is_empty() {
            put(document, kind.key(), value);
            continue;
        }
        if document.get(kind.key()).is_none() {
            put(document, kind.key(), Some(Value::Object(Map::new())));
        }
        if let Some(all) = document.get_mut(kind.key()) {
            put(all, name.as_str(), value);
        }
    }
}

fn put(table: &mut Value, key: &str, value: Option<Value>) {
    let Value::Object(table) = table else { return };
    match value {
        Some(value) => drop(table.insert(key.to_owned(), value)),
        None => drop(table.remove(key)),
    }
}
