//! What may be written, as JSON Schemas (draft 2020-12): the pieces that codecs put together. What a value means to others
//! isn't said there.

use serde_json::{Map, Value as Json, json};

use crate::tree::Value;

/// A JSON Schema.
pub(crate) type Shape = Json;

/// Anything of this type.
pub(super) fn of(kind: &str) -> Shape {
    json!({"type": kind})
}

/// A text that is more than its letters.
pub(super) fn text(what: &str) -> Shape {
    json!({"type": "string", "description": what})
}

/// One of these words.
pub(super) fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> Shape {
    json!({"type": "string", "enum": words.into_iter().collect::<Vec<_>>()})
}

/// One of these numbers.
pub(super) fn numbers(numbers: impl IntoIterator<Item = u16>) -> Shape {
    json!({"type": "integer", "enum": numbers.into_iter().collect::<Vec<_>>()})
}

/// `true`, and nothing else.
pub(super) fn yes() -> Shape {
    json!({"const": true})
}

/// A whole number in a range.
pub(super) fn whole(min: u32, max: u32) -> Shape {
    json!({"type": "integer", "minimum": min, "maximum": max})
}

/// A list of such.
pub(super) fn list(of: Shape, filled: bool) -> Shape {
    json!({"type": "array", "items": of, "minItems": u8::from(filled)})
}

/// A table whose keys the operator chooses.
pub(super) fn map(of: Shape, keys: &str, filled: bool) -> Shape {
    json!({"type": "object", "description": format!("by {keys}"), "additionalProperties": of, "minProperties": u8::from(filled)})
}

/// One of these.
pub(super) fn either(of: impl IntoIterator<Item = Shape>) -> Shape {
    json!({"anyOf": of.into_iter().collect::<Vec<_>>()})
}

/// A table with these options: their keys, whether each is needed, what it may be.
pub(super) fn table<'a>(options: impl IntoIterator<Item = (&'a str, bool, Shape)>) -> Shape {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (key, needed, shape) in options {
        properties.insert(key.to_owned(), shape);
        required.extend(needed.then_some(key));
    }
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

/// An option: what it may be, with its meaning, and what it is where it is left out.
pub(super) fn option(mut shape: Shape, doc: &str, default: Option<Json>) -> Shape {
    let described = match shape["description"].as_str() {
        Some(what) => format!("{doc} ({what})"),
        None => doc.to_owned(),
    };
    shape["description"] = described.into();
    if let Some(default) = default {
        shape["default"] = default;
    }
    shape
}

/// Whether a default says more than that there is nothing.
pub(super) fn is_telling(value: &Value) -> bool {
    match value {
        Value::Text(text) => !text.is_empty(),
        Value::Table(_) => false,
        _ => true,
    }
}
