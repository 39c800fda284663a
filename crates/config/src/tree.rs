//! The value tree that both syntaxes produce and both exports are made from. It knows no option by name.

use std::ops::Range;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// A value and the bytes of the text it was read from (empty for one that was made here).
/// Two nodes are equal when their values are, wherever they stand.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it says.
    pub value: Value,
    /// Where it says so.
    pub span: Range<usize>,
}

/// What a node says.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// JSON's `null`; no option takes it.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number; one that doesn't fit is held as the nearest that does.
    Integer(i128),
    /// A number with a fraction or an exponent; no option takes it.
    Float(f64),
    /// A string.
    Text(String),
    /// TOML's date or time; no option takes it.
    Datetime(String),
    /// A list.
    List(Vec<Node>),
    /// A table, in the order of the text. A key stands in it once.
    Table(Vec<Entry>),
}

/// A key of a table and what it is set to.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: Node,
    /// What it is set to.
    pub node: Node,
}

impl Entry {
    /// An entry that was made here.
    pub fn new(key: &str, value: Value) -> Self {
        Entry { key: Value::text(key).into(), node: value.into() }
    }

    /// The key as text.
    pub fn name(&self) -> &str {
        match &self.key.value {
            Value::Text(text) => text,
            _ => "",
        }
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl From<Value> for Node {
    fn from(value: Value) -> Self {
        Node { value, span: 0..0 }
    }
}

impl Value {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Value::Text(text.into())
    }

    /// What a table has under a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match self {
            Value::Table(entries) => entries.iter().find(|entry| entry.name() == key).map(|entry| &entry.node),
            _ => None,
        }
    }

    /// The tree as `serde_json`'s (keys sorted by that type).
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Value::Null => Json::Null,
            Value::Bool(flag) => Json::Bool(*flag),
            Value::Integer(number) => i64::try_from(*number).map_or(Json::Null, Json::from),
            Value::Float(number) => Json::from(*number),
            Value::Text(text) | Value::Datetime(text) => Json::String(text.clone()),
            Value::List(items) => Json::Array(items.iter().map(|item| item.value.to_json()).collect()),
            Value::Table(entries) => {
                Json::Object(entries.iter().map(|e| (e.name().to_owned(), e.node.value.to_json())).collect())
            }
        }
    }
}

impl From<&serde_json::Value> for Value {
    /// What no option takes anyway stays such a thing: a number that is no whole one, or none that fits.
    fn from(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => Value::Null,
            Json::Bool(flag) => Value::Bool(*flag),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Value::Integer(number.into()),
                (_, Some(number)) => Value::Integer(number.into()),
                _ => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::text(text),
            Json::Array(items) => Value::List(items.iter().map(|item| Value::from(item).into()).collect()),
            Json::Object(entries) => {
                Value::Table(entries.iter().map(|(key, value)| Entry::new(key, value.into())).collect())
            }
        }
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(flag) => serializer.serialize_bool(*flag),
            Value::Integer(number) => {
                let near = i64::try_from(*number).unwrap_or(if *number < 0 { i64::MIN } else { i64::MAX });
                serializer.serialize_i64(near)
            }
            Value::Float(number) => serializer.serialize_f64(*number),
            Value::Text(text) | Value::Datetime(text) => serializer.serialize_str(text),
            Value::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Value::Table(entries) => {
                let mut table = serializer.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|entry| table.serialize_entry(entry.name(), &entry.node))?;
                table.end()
            }
        }
    }
}
